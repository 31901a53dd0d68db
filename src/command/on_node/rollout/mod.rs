//! `rollout`: the same swap on several nodes, one after the other, each followed by a restart through the firmware and
//! held against the image before the next one is touched.
//!
//! The files: the request and its end ([`Rollout`]), the course itself, the state file, what a node has to show, what a
//! swap in a pod says, and what is said where it stopped. They share the node's state, so they import each other.

mod course;
mod live;
mod report;
mod site;
mod state;
mod swap;
#[cfg(test)]
mod tests;
mod validate;
mod ways;

pub use live::SwapInPods;
pub use report::{NodeReport, Outcome, RolloutReport, Way};
pub use state::Step;
pub use validate::{Expected, ExpectedExtension};

use super::run::again;
use crate::command::change::unconfirmed;
use crate::command::config::config_files;
use crate::command::{Change, Ui};
use crate::config::{ConfigFile, Fit, ImageNeeds, Severity, check};
use crate::doctor::quoted;
use crate::pod::pod;
use crate::{Code, Error, Result};
use course::{Course, Planned};
use live::Live;
use serde_json::Value;
use site::Site;
use state::{State, Subject};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use validate::Patience;
use ways::Words;

/// What `rollout` is asked for.
#[derive(Debug)]
pub struct Rollout {
    /// The nodes in their order.
    pub nodes: Vec<String>,
    /// How talosctl reaches those whose `InternalIP` is not the way: node and address.
    pub addresses: BTreeMap<String, String>,
    /// Whether it is a rehearsal, and whether somebody is asked.
    pub change: Change,
    /// The file that says how far it has come.
    pub state: PathBuf,
    /// Begin anew, whatever the state file says.
    pub anew: bool,
    /// How long a node may take to be ready again.
    pub ready_timeout: Duration,
    /// How long its services may take to run.
    pub service_timeout: Duration,
    /// So long they have to have been running without a new start.
    pub settle: Duration,
    /// Configuration that the nodes have, or will have.
    pub machine_config: Vec<PathBuf>,
    /// Options of `swap` that were given: each one's ID with its words, `partition` and `--partition N`. Other commands on
    /// the same nodes may need them.
    pub given: Vec<(String, Vec<String>)>,
    /// What is done on each node.
    pub swap: SwapInPods,
}

impl Rollout {
    /// Does it, or goes on with it, up to the end or to the first node that is not as it should be; the report says that
    /// too.
    ///
    /// # Errors
    /// Before anything is done: [`Code::NoTool`], [`Code::Cluster`], [`Code::Unsafe`] when a node is not ready,
    /// [`Code::Exists`] and [`Code::Busy`] of the state file, [`Code::ConfigMisfit`], [`Code::Unconfirmed`], and those
    /// of a rehearsed swap.
    pub fn run(&self, ui: &dyn Ui) -> Result<RolloutReport> {
        // Names that Kubernetes would not take are nothing for a command line either.
        for node in &self.nodes {
            pod(node, &self.swap.work, &self.swap.setting)?;
        }
        let subject = Subject { nodes: self.nodes.clone(), args: self.swap.work.args.clone() };
        self.at(&Live::new(&self.swap, ui)?, subject, ui)
    }

    fn check(&self) -> Result<()> {
        for (index, node) in self.nodes.iter().enumerate() {
            if self.nodes[..index].contains(node) {
                return Err(Error::usage(format!("node {node} is named twice")));
            }
        }
        match self.addresses.keys().find(|node| !self.nodes.contains(node)) {
            Some(node) => Err(Error::usage(format!("--talos-node {node}=…: it is not among the nodes"))),
            None => Ok(()),
        }
    }

    /// How other commands on the same nodes are given.
    fn words(&self, subject: &Subject) -> Words {
        let (setting, cluster) = (&self.swap.setting, &self.swap.cluster);
        let mut pod = setting.options();
        pod.extend(again(cluster, self.swap.push_self.as_ref()));
        Words { disk: subject.args.get(1).cloned().unwrap_or_default(), pod, options: self.given.clone() }
    }

    /// The rollout at a site. `subject`: what it is of.
    fn at(&self, site: &dyn Site, subject: Subject, ui: &dyn Ui) -> Result<RolloutReport> {
        self.check()?;
        let config = config_files(&self.machine_config)?;
        let dry_run = self.change.dry_run;
        let words = self.words(&subject);
        let state = State::open(&self.state, subject, self.anew, dry_run)?;
        let patience = Patience { ready: self.ready_timeout, services: self.service_timeout, settle: self.settle };
        let shows = vec![Vec::new(); self.nodes.len()];
        let mut course = Course { site, state, patience, addresses: &self.addresses, words, shows };
        if course.state.is_begun() {
            let steps = course.state.nodes().iter().map(|n| format!("{} {}", n.node, n.step.in_words()));
            let steps = steps.collect::<Vec<_>>().join(", ");
            site.tell(&format!("going on with the rollout in {}: {steps}", self.state.display()));
        }
        course.look_at_all()?;
        if dry_run || !self.change.yes || !config.is_empty() {
            let mut planned = course.plan()?;
            refuse_misfit(&config, &planned)?;
            if dry_run {
                return Ok(course.planned(planned));
            }
            if let Some(e) = planned.iter_mut().find_map(Planned::take_error) {
                return Err(e.with_esp_changed(false));
            }
            if !planned.iter().all(Planned::is_nothing) {
                self.confirm(&planned, site, ui)?;
            }
        }
        let done = course.go();
        Ok(course.report(self.state.display().to_string(), done))
    }

    fn confirm(&self, planned: &[Planned], site: &dyn Site, ui: &dyn Ui) -> Result<()> {
        if !self.change.yes && !ui.can_ask() {
            return Err(unconfirmed().with_esp_changed(false));
        }
        self.nodes.iter().zip(planned).for_each(|(node, planned)| site.tell(&planned.in_words(node)));
        let question = format!("Do this, one node after the other: {}?", self.nodes.join(", "));
        self.change.confirm(ui, &question).map_err(|e| e.with_esp_changed(false))
    }
}

/// Refuses configuration with which the nodes could not come to show what the image holds: the first one would be
/// restarted for nothing.
fn refuse_misfit(config: &[ConfigFile], planned: &[Planned]) -> Result<()> {
    let Some(image) = planned.iter().find_map(Planned::image).filter(|_| !config.is_empty()) else { return Ok(()) };
    let report = check(config, Some(&needs(image)));
    if report.verdict != Fit::DoesNotFit {
        return Ok(());
    }
    let files: Vec<String> = config.iter().map(|file| quoted(&file.name)).collect();
    let problems = report.findings.iter().filter(|f| f.severity == Severity::Problem);
    let problems: Vec<String> = problems.map(|f| format!("{}{}; {}", f.place_and_colon(), f.what, f.advice)).collect();
    Err(Error::new(Code::ConfigMisfit, format!("the configuration does not fit the image: {}", problems.join(". ")))
        .advise(format!("`bootsurgeon config check {} --image IMAGE` prints what to put there", files.join(" ")))
        .with_esp_changed(false))
}

/// What the image asks of the configuration, by the report of a rehearsed swap.
fn needs(image: &Value) -> ImageNeeds {
    let text = |name: &str| image[name].as_str().map(str::to_owned);
    let list = |name: &str| -> Option<Vec<String>> { serde_json::from_value(image[name].clone()).ok() };
    let mut needs = ImageNeeds::default();
    (needs.version, needs.schematic) = (text("version"), text("schematic"));
    needs.waiting = list("waiting_services").unwrap_or_default();
    needs.services = list("services");
    needs
}
