//! What a rollout says of each node.

use super::state::{NodeState, Step};
use crate::Error;
use serde::Serialize;
use serde_json::Value;

/// What a rollout did, or would do.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RolloutReport {
    /// Nothing was done.
    pub dry_run: bool,
    /// Every node shows what the image holds.
    pub finished: bool,
    /// A row for each node, in their order.
    pub nodes: Vec<NodeReport>,
    /// The file that says how far it has come; `null` for a dry run.
    pub state: Option<String>,
    /// Why it stopped.
    pub error: Option<Error>,
}

/// What became of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It shows what the image holds, and its services run.
    Done,
    /// The rollout stopped here.
    Stopped,
    /// Its turn has not come.
    Untouched,
    /// A dry run: this is what would be done.
    Planned,
}

/// What is said of a node.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct NodeReport {
    /// Its name.
    pub node: String,
    /// What became of it.
    pub outcome: Outcome,
    /// How far it has come.
    pub step: Step,
    /// Whether its ESP was changed by this rollout, or may have been.
    pub committed: bool,
    /// SHA-256 of the image on it.
    pub sha256: Option<String>,
    /// The backup of what was there before.
    pub backup: Option<String>,
    /// A dry run: what would be done, in order; none where there is nothing to do.
    pub plan: Vec<String>,
    /// A dry run: what the swap itself says, as `swap --dry-run --json`.
    pub swap: Option<Value>,
    /// What it showed.
    pub shows: Vec<String>,
    /// Where the rollout stopped: what is known of the node, and what is not.
    pub known: Vec<String>,
    /// Where it stopped: how to get further, or back.
    pub ways: Vec<Way>,
}

/// A way on, or back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Way {
    /// What it is for.
    pub why: String,
    /// Commands as lists of arguments, one after the other; none where only words help.
    pub run: Vec<Vec<String>>,
}

impl NodeReport {
    pub(super) fn new(state: &NodeState, outcome: Outcome) -> Self {
        Self {
            node: state.node.clone(),
            outcome,
            step: state.step,
            committed: state.committed,
            sha256: state.sha256.clone(),
            backup: state.backup.clone(),
            plan: Vec::new(),
            swap: None,
            shows: Vec::new(),
            known: Vec::new(),
            ways: Vec::new(),
        }
    }
}
