//! `pod run`: one command on one node, from the desk. A pod is created, its standard input is fed, what it prints is
//! printed here as a local command would ([`super::session`]), its exit code is the exit code, and it is deleted.

use super::input::{Carried, DeskImage, PushSelf};
use super::kubectl::{Cluster, Kubectl};
use super::session::Session;
use crate::command::{Event, Ui};
use crate::container::PUSH_SELF;
use crate::pod::{self, Desk, Setting, Work};
use crate::{Code, Error, Result};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How long a call may take whose answer is waited for.
const CALL: Duration = Duration::from_secs(60);
/// What the pod's program prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Printed<'a> {
    /// A line of its report, without its end.
    Report(&'a str),
    /// What it says beside that, with line ends.
    Said(&'a str),
}

/// One command on one node.
pub struct PodRun {
    /// The node, as the cluster names it.
    pub node: String,
    /// The command.
    pub work: Work,
    /// The pod's surroundings.
    pub setting: Setting,
    /// Which cluster.
    pub cluster: Cluster,
    /// What its program reads.
    pub image: Option<DeskImage>,
    /// Whether its program asks before it changes something.
    pub asks: bool,
    /// Whether this program is carried to the node.
    pub push_self: Option<PushSelf>,
    /// Whether the pod stays.
    pub keep: bool,
    /// How long the pod may take to begin.
    pub wait: Duration,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PodEnd {
    /// The pod.
    pub pod: String,
    /// The exit code of its program.
    pub exit_code: u8,
}

impl PodRun {
    /// Runs it. `print` gets what the pod's program prints.
    ///
    /// # Errors
    /// [`Code::NoTool`], [`Code::Cluster`] when the pod does not begin or its end is not known,
    /// [`crate::Kind::Cancelled`] when it is stopped before it began.
    pub fn run(&self, ui: &dyn Ui, print: &mut dyn FnMut(Printed<'_>)) -> Result<PodEnd> {
        let kubectl = Kubectl::find(&self.cluster, self.setting.namespace())?;
        let node = kubectl.node(&self.node, ui)?;
        // Whoever had to log in has done so.
        let kubectl = kubectl.with_limit(CALL);
        if let Some(node) = node.as_ref().filter(|node| node.ready != Some(true)) {
            let why = node.not_ready.as_ref().map_or(String::new(), |why| format!(": {why}"));
            ui.event(Event::Warning(format!("node {} is not Ready{why}", node.name)));
        }
        let carried = match (&self.push_self, &node) {
            (Some(push), Some(node)) => Some(Carried::read(push.binary.as_deref(), &node.arch)?),
            (Some(_), None) => {
                let what = "--push-self needs the node's architecture, and this user may not look at nodes";
                return Err(Error::new(Code::Cluster, what).advise("name an image with --image-ref"));
            }
            (None, _) => None,
        };
        let stdin = self.asks || self.image.is_some() || carried.is_some();
        let desk = Desk { stdin, asks: self.asks, carried_blocks: carried.as_ref().map(Carried::blocks) };
        let name = pod::name_of_run(&self.node, &self.work);
        let again = again(&self.cluster, self.push_self.as_ref());
        let setting = Setting { name: Some(name.clone()), desk: Some(desk), again, ..self.setting.clone() };
        let manifest = pod::pod(&self.node, &self.work, &setting)?;
        // Ctrl-C does not cut off what creates and deletes the pod: it would be there, and nobody would know.
        let calm = Calm { ui, never: Arc::default() };
        if let Err(e) = kubectl.create(&manifest, &calm) {
            // The answer may be lost, and not the pod.
            return Err(match kubectl.delete_pod(&name, &calm) {
                Ok(()) => e,
                Err(_) => e.while_doing(format!("`{}`, in case it was made", kubectl.delete_line(&name))),
            });
        }
        ui.event(Event::Detail(format!("pod {name} is created")));
        let ended = Session::new(self, &kubectl, &name, ui, &calm).run(stdin, carried.as_ref(), print);
        if !self.keep {
            if let Err(e) = kubectl.delete_pod(&name, &calm) {
                let line = kubectl.delete_line(&name);
                ui.event(Event::Warning(format!("pod {name} is still there ({e}); delete it with `{line}`")));
            }
        } else {
            ui.event(Event::Note(format!(
                "pod {name} is kept: `{}`, `{}`",
                kubectl.log_line(&name),
                kubectl.delete_line(&name)
            )));
        }
        let end = ended?;
        if end.is_no_start() {
            let why = end.message.or(end.reason).unwrap_or_default();
            let what = format!("the program of {} cannot be started on {}: {why}", setting.image(), self.node);
            let error = Error::new(Code::Cluster, what).with_esp_changed(false);
            return Err(error.advise("take the image of the release for the node's architecture"));
        }
        if end.exit_code == KILLED {
            let why = end.reason.unwrap_or_else(|| "killed".into());
            let what = format!("the program on {} was killed ({why}); what it was doing may be half done", self.node);
            return Err(Error::new(Code::Cluster, what).advise(self.recover_advice()));
        }
        Ok(PodEnd { pod: name, exit_code: end.exit_code })
    }

    /// What to do where the end is not known.
    pub(super) fn recover_advice(&self) -> String {
        let disk = self.work.args.get(1).map_or("DEV", String::as_str);
        format!(
            "see how it left the disk: `bootsurgeon pod run --node {} --disk {disk} status` with the options of this \
             run; where that speaks of an interrupted operation, `recover` in place of `status`",
            self.node
        )
    }
}

/// What has to be typed again to reach the same node in the same way.
pub(super) fn again(cluster: &Cluster, push_self: Option<&PushSelf>) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |option: &str, value: Option<String>| {
        all.extend(value.into_iter().flat_map(|value| [option.to_owned(), value]));
    };
    add("--context", cluster.context.clone());
    add("--kubeconfig", cluster.kubeconfig.clone());
    if let Some(push) = push_self {
        add("--binary", push.binary.as_ref().map(|file| file.display().to_string()));
        all.push(PUSH_SELF.to_owned());
    }
    all
}

/// The exit code of a container whose program got SIGKILL: 128 and 9.
const KILLED: u8 = 137;

/// Tells, and is never stopped.
struct Calm<'a> {
    ui: &'a dyn Ui,
    never: Arc<AtomicBool>,
}

impl Ui for Calm<'_> {
    fn event(&self, event: Event) {
        self.ui.event(event);
    }

    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }

    fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.never
    }
}
