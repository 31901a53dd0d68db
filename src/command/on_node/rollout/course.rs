//! The course of a rollout: look at all nodes, then for one after the other swap, restart, wait, validate.

use super::super::node::Node;
use super::report::{NodeReport, Outcome, RolloutReport};
use super::site::Site;
use super::state::{NodeState, State, Step};
use super::swap::Swapped;
use super::validate::{Expected, Patience, differences, look_again, validate};
use super::ways::Words;
use crate::{Code, Context, Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// A rollout under way.
pub(super) struct Course<'a> {
    pub(super) site: &'a dyn Site,
    pub(super) state: State,
    pub(super) patience: Patience,
    /// Addresses for talosctl that are not the nodes' own.
    pub(super) addresses: &'a BTreeMap<String, String>,
    /// How commands name the nodes' disk and pod.
    pub(super) words: Words,
    /// What the nodes have shown, in their order.
    pub(super) shows: Vec<Vec<String>>,
}

/// What would be done to a node.
pub(super) struct Planned {
    /// In words, in order; none where there is nothing to do.
    plan: Vec<String>,
    /// The swap's own document.
    swap: Option<Value>,
    error: Option<Error>,
}

impl Course<'_> {
    /// Looks at every node before any is touched: all that is in the way is said at once.
    pub(super) fn look_at_all(&self) -> Result<()> {
        let mut all: Vec<Error> = Vec::new();
        for state in self.state.nodes() {
            match self.look(state) {
                Err(e) if e.code() == Code::Cancelled => return Err(e),
                Err(e) => all.push(e.while_doing(format!("looking at node {}", state.node))),
                Ok(()) => {}
            }
        }
        let texts: Vec<String> = all.iter().map(Error::to_string).collect();
        match all.into_iter().next() {
            None => Ok(()),
            Some(first) if texts.len() == 1 => Err(first.with_esp_changed(false)),
            Some(first) => {
                let advice = first.advice().map(str::to_owned);
                let e = Error::new(first.code(), texts.join("; ")).with_esp_changed(false);
                Err(advice.into_iter().fold(e, Error::advise))
            }
        }
    }

    /// A node that is to be touched, or was done, has to be up; one that is restarting may be anything.
    fn look(&self, state: &NodeState) -> Result<()> {
        if matches!(state.step, Step::Restarting | Step::Restarted) {
            return Ok(());
        }
        let node = self.ready_node(&state.node)?;
        let address = self.address(&node)?;
        self.is_the_same_machine(&node, &address)
    }

    fn ready_node(&self, name: &str) -> Result<Node> {
        let node = self.site.node(name)?;
        if node.ready == Some(true) {
            return Ok(node);
        }
        let why = node.not_ready.as_deref().unwrap_or("the API server does not say that it is");
        Err(Error::refused(format!("it is not ready: {why}")).advise("a rollout begins with nodes that are all ready"))
    }

    /// How talosctl reaches the node.
    fn address(&self, node: &Node) -> Result<String> {
        if let Some(address) = self.addresses.get(&node.name) {
            return Ok(address.clone());
        }
        let internal = node.addresses.iter().find(|(kind, _)| kind == "InternalIP");
        internal.map(|(_, address)| address.clone()).ok_or_else(|| {
            Error::refused("it has no InternalIP")
                .advise(format!("say how talosctl reaches it: --talos-node {}=ADDRESS", node.name))
        })
    }

    /// What is restarted has to be what was swapped: an address may be another machine's by now, or a shared one.
    fn is_the_same_machine(&self, node: &Node, address: &str) -> Result<()> {
        let found = self.site.boot_id(address)?;
        if !found.is_empty() && found.eq_ignore_ascii_case(&node.boot_id) {
            return Ok(());
        }
        Err(Error::refused(format!(
            "the machine that talosctl reaches at {address} has the boot ID {found}, and the node has {}: they are \
             not the same",
            if node.boot_id.is_empty() { "none" } else { &node.boot_id }
        ))
        .advise(format!("say how talosctl reaches it: --talos-node {}=ADDRESS", node.name)))
    }

    /// What would be done to each node. A swap that is yet to be done is rehearsed on the node.
    pub(super) fn plan(&self) -> Result<Vec<Planned>> {
        let mut all = Vec::new();
        for state in self.state.nodes() {
            let planned = self.plan_node(state);
            all.push(match planned {
                Err(e) if e.code() == Code::Cancelled => return Err(e),
                Err(e) => Planned { plan: Vec::new(), swap: None, error: Some(e.while_doing(on(&state.node))) },
                Ok((plan, swap)) => Planned { plan, swap, error: None },
            });
        }
        Ok(all)
    }

    fn plan_node(&self, state: &NodeState) -> Result<(Vec<String>, Option<Value>)> {
        let (restart, wait, validate) = ("restart through the firmware", "wait until it is ready again", "validate");
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        match state.step {
            Step::Untouched | Step::Swapping => {}
            Step::Swapped if state.committed => return Ok((words(&[restart, wait, validate]), None)),
            Step::Swapped => return Ok((words(&["validate, after a restart if it runs another image"]), None)),
            Step::Restarting => return Ok((words(&[wait, validate]), None)),
            Step::Restarted => return Ok((words(&[validate]), None)),
            Step::Done => return Ok((Vec::new(), None)),
        }
        self.site.tell(&format!("{}: what the swap would do", state.node));
        let outcome = self.site.swap(&state.node, true)?;
        let swapped = Swapped::of(&outcome)?;
        let then = |first: String| words(&[&first, restart, wait, validate]);
        let plan = match swapped.in_place {
            false => then(format!("swap: {}", swapped.change)),
            true if state.committed || state.step == Step::Swapping => {
                then("nothing to swap: the image is on its disk since this rollout began".into())
            }
            true => {
                let node = self.site.node(&state.node)?;
                let differences = differences(self.site, &self.address(&node)?, &swapped.expected)?;
                if differences.is_empty() {
                    self.validate(&state.node, &swapped.expected)?;
                    Vec::new()
                } else {
                    then(format!("nothing to swap: the image is on its disk; {}", differences.join("; ")))
                }
            }
        };
        Ok((plan, Some(outcome.document)))
    }

    /// All nodes, one after the other.
    pub(super) fn go(&mut self) -> Result<()> {
        for index in 0..self.state.nodes().len() {
            let name = self.state.nodes()[index].node.clone();
            self.node(index).while_doing(|| on(&name))?;
        }
        Ok(())
    }

    fn node(&mut self, index: usize) -> Result<()> {
        let NodeState { node: name, step, .. } = self.state.nodes()[index].clone();
        if step == Step::Done {
            self.site.tell(&format!("{name}: done before"));
            return Ok(());
        }
        if matches!(step, Step::Untouched | Step::Swapping) {
            self.swap(index, &name)?;
        }
        // A restart that may have been under way when the rollout was stopped.
        let is_resumed = step == Step::Restarting;
        if self.state.nodes()[index].step == Step::Swapped || is_resumed {
            self.restart(index, &name, is_resumed)?;
        }
        if self.state.nodes()[index].step == Step::Restarting {
            let node = self.wait_for_restart(&self.state.nodes()[index])?;
            self.state.set(index, |n| (n.step, n.boot_id) = (Step::Restarted, Some(node.boot_id)))?;
        }
        let expected = self.state.nodes()[index].expected.clone().unwrap_or_default();
        self.site.tell(&format!("{name}: validating"));
        let shows = self.validate(&name, &expected)?;
        self.site.tell(&format!("{name}: done: {}", shows.join("; ")));
        self.shows[index] = shows;
        self.state.set(index, |n| n.step = Step::Done)
    }

    fn swap(&mut self, index: usize, name: &str) -> Result<()> {
        // While the nodes before were done, something may have happened to this one, or to them.
        for state in &self.state.nodes()[..=index] {
            self.look(state).while_doing(|| format!("looking at node {}", state.node))?;
        }
        let was_begun = self.state.nodes()[index].step == Step::Swapping;
        self.state.set(index, |n| n.step = Step::Swapping)?;
        self.site.tell(&format!("{name}: swapping"));
        let done = self.site.swap(name, false).and_then(|outcome| Swapped::of(&outcome));
        let swapped = match done {
            Ok(swapped) => swapped,
            Err(e) => {
                if e.esp_changed() == Some(false) && !was_begun {
                    self.state.set(index, |n| n.step = Step::Untouched)?;
                }
                return Err(e);
            }
        };
        let others = self.state.nodes().iter().filter_map(|n| n.sha256.as_ref().map(|hash| (&n.node, hash)));
        for (other, _) in others.filter(|(other, hash)| **hash != swapped.sha256 && *other != name) {
            self.site.warn(&format!("{name} has got another image than {other}: their SHA-256 differ"));
        }
        for warning in &swapped.warnings {
            self.site.warn(&format!("{name}: {warning}"));
        }
        self.state.set(index, |n| {
            n.step = Step::Swapped;
            n.committed = swapped.committed || was_begun || n.committed;
            n.sha256 = Some(swapped.sha256);
            n.backup = swapped.backup.filter(|_| swapped.committed).or_else(|| n.backup.take());
            n.expected = Some(swapped.expected);
        })
    }

    /// Restarts the node, unless it runs the image and its ESP was not changed.
    fn restart(&mut self, index: usize, name: &str, is_resumed: bool) -> Result<()> {
        let state = self.state.nodes()[index].clone();
        let node = match self.site.node(name) {
            Err(e) if is_resumed && e.code() != Code::Cancelled => {
                // It may be on its way down, or up.
                self.site.tell(&format!("{name}: {e}"));
                return Ok(());
            }
            node => node?,
        };
        if is_resumed && (node.ready != Some(true) || Some(&node.boot_id) != state.boot_id.as_ref()) {
            return Ok(());
        }
        let address = self.address(&node)?;
        let expected = state.expected.unwrap_or_default();
        if !state.committed && !is_resumed && differences(self.site, &address, &expected)?.is_empty() {
            self.site.tell(&format!("{name}: it runs this image already"));
            return self.state.set(index, |n| (n.step, n.boot_id) = (Step::Restarted, Some(node.boot_id)));
        }
        self.is_the_same_machine(&node, &address)?;
        self.state.set(index, |n| (n.step, n.boot_id) = (Step::Restarting, Some(node.boot_id)))?;
        self.site.tell(&format!("{name}: restarting through the firmware"));
        match self.site.reboot(&address) {
            // It was told before, and may be on its way down.
            Err(e) if is_resumed && e.code() != Code::Cancelled => {
                self.site.warn(&format!("{name}: {e}"));
                Ok(())
            }
            done => done,
        }
    }

    /// Waits until the API server says that the node is ready with another boot ID: one that has not gone down yet is
    /// ready, too, and so is one that it has not missed yet.
    fn wait_for_restart(&self, state: &NodeState) -> Result<Node> {
        let before = state.boot_id.as_deref().unwrap_or_default();
        let begin = self.site.now();
        let end = begin + self.patience.ready;
        loop {
            let why = match self.site.node(&state.node) {
                Ok(node) => match not_back(&node, before) {
                    None => return Ok(node),
                    Some(why) => why,
                },
                Err(e) if e.code() == Code::Cancelled => return Err(e),
                // The API server may be on that very node.
                Err(e) => e.to_string(),
            };
            if self.site.now() >= end {
                return Err(Error::new(
                    Code::NodeLost,
                    format!("it did not come back in {} seconds: {why}", self.patience.ready.as_secs()),
                ));
            }
            self.site.waiting(&format!("{}: {why}", state.node));
            self.site.pause(look_again(self.site.now() - begin))?;
        }
    }

    fn validate(&self, name: &str, expected: &Expected) -> Result<Vec<String>> {
        let begin = self.site.now();
        let end = begin + self.patience.services;
        loop {
            match self.reach(name) {
                Ok(address) => return validate(self.site, &address, expected, self.patience),
                Err(e) if e.code() == Code::Cancelled || self.site.now() >= end => return Err(e),
                Err(e) => self.site.waiting(&format!("{name}: {e}")),
            }
            self.site.pause(look_again(self.site.now() - begin))?;
        }
    }

    /// The node's address, which may be another since the restart.
    fn reach(&self, name: &str) -> Result<String> {
        let node = self.site.node(name)?;
        let address = self.address(&node)?;
        self.is_the_same_machine(&node, &address)?;
        Ok(address)
    }

    /// What a dry run says.
    pub(super) fn planned(&self, all: Vec<Planned>) -> RolloutReport {
        let mut error = None;
        let mut nodes = Vec::new();
        for (state, planned) in self.state.nodes().iter().zip(all) {
            let outcome = if state.step == Step::Done { Outcome::Done } else { Outcome::Planned };
            let mut row = NodeReport::new(state, outcome);
            if let Some(e) = planned.error {
                row.known.push(e.to_string());
                error = error.or(Some(e));
            }
            (row.plan, row.swap) = (planned.plan, planned.swap);
            nodes.push(row);
        }
        let finished = error.is_none() && nodes.iter().all(|row| row.plan.is_empty());
        RolloutReport { dry_run: true, finished, nodes, state: None, error }
    }

    /// What a run says, to its end or to where it stopped.
    pub(super) fn report(self, path: String, done: Result<()>) -> RolloutReport {
        let error = done.err();
        let stopped = self.state.nodes().iter().position(|n| n.step != Step::Done).filter(|_| error.is_some());
        let row = |(index, state): (usize, &NodeState)| {
            let is_here = stopped == Some(index);
            let mut row = NodeReport::new(
                state,
                match state.step {
                    Step::Done => Outcome::Done,
                    _ if is_here => Outcome::Stopped,
                    _ => Outcome::Untouched,
                },
            );
            row.shows.clone_from(&self.shows[index]);
            if let Some(e) = error.as_ref().filter(|_| is_here) {
                let node = self.site.node(&state.node).ok();
                let address = node.as_ref().and_then(|node| self.address(node).ok());
                let address = address.or_else(|| self.addresses.get(&state.node).cloned());
                (row.known, row.ways) = self.words.of(state, node.as_ref(), address.as_deref(), e);
            }
            row
        };
        let nodes: Vec<_> = self.state.nodes().iter().enumerate().map(row).collect();
        RolloutReport { dry_run: false, finished: error.is_none(), nodes, state: Some(path), error }
    }
}

impl Planned {
    /// Whether the run would change nothing here.
    pub(super) fn is_nothing(&self) -> bool {
        self.plan.is_empty() && self.error.is_none()
    }

    /// Why the swap was refused.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// The image, as the swap describes it.
    pub(super) fn image(&self) -> Option<&Value> {
        self.swap.as_ref().map(|swap| &swap["image"])
    }

    /// In a line: `altra: swap: …; restart …`.
    pub(super) fn in_words(&self, node: &str) -> String {
        let plan = if self.plan.is_empty() { "nothing to do".to_owned() } else { self.plan.join("; ") };
        format!("{node}: {plan}")
    }
}

/// Why the node is not back yet.
fn not_back(node: &Node, before: &str) -> Option<String> {
    if node.boot_id.is_empty() {
        return Some("the API server knows no boot ID of it".into());
    }
    let not_ready = || node.not_ready.as_deref().unwrap_or("not said why");
    match (node.boot_id == before, node.ready == Some(true)) {
        (true, true) => Some("waiting for it to go down: it is ready, with the boot ID from before".into()),
        (true, false) => Some(format!("waiting for it to come back: it is not ready ({})", not_ready())),
        (false, false) => Some(format!("it has started again, and is not ready yet ({})", not_ready())),
        (false, true) => None,
    }
}

fn on(node: &str) -> String {
    format!("node {node}")
}
