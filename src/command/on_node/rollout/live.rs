//! The nodes as they are: through kubectl, talosctl, and pods.

use super::super::kubectl::{Cluster, Kubectl};
use super::super::node::Node;
use super::super::talosctl::{RunningService, ServiceState, Talosctl};
use super::super::{DeskImage, PodRun, Printed, PushSelf};
use super::site::{PodOutcome, Site};
use crate::block::Arrival;
use crate::command::ui::check_cancelled;
use crate::command::{Event, ImageRequest, Ui};
use crate::pod::{Setting, Work};
use crate::{Code, Error, Result};
use serde_json::Value;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// No report of a swap is longer, in bytes.
const MAX_REPORT: usize = 16 << 20;
/// How often the user may have wanted to stop.
const TICK: Duration = Duration::from_millis(50);
/// How long kubectl may take for a node. The API server may be on the node that restarts.
const LIMIT: Duration = Duration::from_secs(60);

/// The swap that is done on every node, and in which surroundings.
#[derive(Debug)]
pub struct SwapInPods {
    /// The command of a run.
    pub work: Work,
    /// The command of a rehearsal.
    pub rehearsal: Work,
    /// The pods' surroundings.
    pub setting: Setting,
    /// Which cluster.
    pub cluster: Cluster,
    /// The image, where it is at the desk, and what of it has to arrive.
    pub image: Option<(ImageRequest, Arrival)>,
    /// Whether this program is carried to the nodes.
    pub push_self: Option<PushSelf>,
    /// Whether the pods stay.
    pub keep: bool,
    /// How long a pod may take to begin.
    pub wait: Duration,
}

/// The cluster, while a rollout goes on.
pub(super) struct Live<'a> {
    swap: &'a SwapInPods,
    kubectl: Kubectl,
    talosctl: Talosctl,
    ui: &'a dyn Ui,
    begun: Instant,
    /// What is waited for, as it was told.
    waits_for: RefCell<String>,
}

impl<'a> Live<'a> {
    /// Finds the two programs.
    ///
    /// # Errors
    /// [`Code::NoTool`].
    pub(super) fn new(swap: &'a SwapInPods, ui: &'a dyn Ui) -> Result<Self> {
        let kubectl = Kubectl::find(&swap.cluster, swap.setting.namespace())?.with_limit(LIMIT);
        let talosctl = Talosctl::find()?;
        Ok(Self { swap, kubectl, talosctl, ui, begun: Instant::now(), waits_for: RefCell::default() })
    }

    /// The image as it is sent to a node: each time the same.
    fn image(&self) -> Result<Option<DeskImage>> {
        let Some((request, arrival)) = &self.swap.image else { return Ok(None) };
        let image = DeskImage::open(request, self.ui)?;
        if image.arrival.sha256 == arrival.sha256 && image.arrival.bytes == arrival.bytes {
            return Ok(Some(image));
        }
        Err(Error::refused(format!("{} has changed since the rollout began", request.image))
            .advise("take an image that nobody writes to")
            .with_esp_changed(false))
    }
}

impl Site for Live<'_> {
    fn node(&self, name: &str) -> Result<Node> {
        self.kubectl.node(name, self.ui)?.ok_or_else(|| {
            Error::new(Code::Cluster, format!("this user may not look at node {name}"))
                .advise("a rollout has to see whether nodes are ready: it needs the right to get nodes")
        })
    }

    fn version(&self, address: &str) -> Result<String> {
        self.talosctl.version(address, self.ui)
    }

    fn boot_id(&self, address: &str) -> Result<String> {
        self.talosctl.boot_id(address, self.ui)
    }

    fn extensions(&self, address: &str) -> Result<Vec<(String, String)>> {
        self.talosctl.extensions(address, self.ui)
    }

    fn services(&self, address: &str) -> Result<Vec<RunningService>> {
        self.talosctl.services(address, self.ui)
    }

    fn service(&self, address: &str, id: &str) -> Result<Option<ServiceState>> {
        self.talosctl.service(address, id, self.ui)
    }

    fn reboot(&self, address: &str) -> Result<()> {
        self.talosctl.reboot(address, self.ui)
    }

    fn swap(&self, node: &str, dry_run: bool) -> Result<PodOutcome> {
        let swap = self.swap;
        let work = if dry_run { &swap.rehearsal } else { &swap.work };
        let run = PodRun {
            node: node.to_owned(),
            work: work.clone(),
            setting: swap.setting.clone(),
            cluster: swap.cluster.clone(),
            image: self.image()?,
            asks: false,
            push_self: swap.push_self.clone(),
            keep: swap.keep,
            wait: swap.wait,
        };
        let mut report = String::new();
        let end = run.run(self.ui, &mut |printed| match printed {
            Printed::Report(line) if report.len() + line.len() < MAX_REPORT => {
                report.push_str(line);
                report.push('\n');
            }
            Printed::Report(_) => {}
            Printed::Said(text) => {
                text.lines().for_each(|line| self.ui.event(Event::Detail(format!("{node}: {line}"))));
            }
        })?;
        Ok(PodOutcome { exit_code: end.exit_code, document: serde_json::from_str(&report).unwrap_or(Value::Null) })
    }

    fn waiting(&self, what: &str) {
        let mut before = self.waits_for.borrow_mut();
        if *before != what {
            what.clone_into(&mut before);
            self.ui.event(Event::Note(format!("  {what}")));
        }
    }

    fn tell(&self, line: &str) {
        self.waits_for.borrow_mut().clear();
        self.ui.event(Event::Note(line.to_owned()));
    }

    fn warn(&self, line: &str) {
        self.ui.event(Event::Warning(line.to_owned()));
    }

    fn pause(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            check_cancelled(self.ui)?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}
