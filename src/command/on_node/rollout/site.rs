//! What a rollout sees of a cluster, and what it does to it: through the user's own kubectl and talosctl.
//!
//! The rollout itself knows this trait alone, so that its order can be tried with every failure at every step, and with
//! a clock that does not have to be waited for.

use super::super::node::Node;
use super::super::talosctl::{RunningService, ServiceState};
use crate::Result;
use serde_json::Value;
use std::time::Duration;

/// The nodes, seen from the desk.
pub(super) trait Site {
    /// What the API server says of a node.
    fn node(&self, name: &str) -> Result<Node>;

    /// The version of Talos that runs at this address.
    fn version(&self, address: &str) -> Result<String>;

    /// The boot ID of the machine at this address.
    fn boot_id(&self, address: &str) -> Result<String>;

    /// Names and versions of its extensions.
    fn extensions(&self, address: &str) -> Result<Vec<(String, String)>>;

    /// Its services that run.
    fn services(&self, address: &str) -> Result<Vec<RunningService>>;

    /// What a service does that may not be running.
    fn service(&self, address: &str, id: &str) -> Result<Option<ServiceState>>;

    /// Has the machine at this address restart through its firmware.
    fn reboot(&self, address: &str) -> Result<()>;

    /// Swaps in a pod on the node; with `dry_run` it only says what it would do.
    fn swap(&self, node: &str, dry_run: bool) -> Result<PodOutcome>;

    /// Tells what is waited for, if that is another thing than before.
    fn waiting(&self, what: &str);

    /// Tells a line.
    fn tell(&self, line: &str);

    /// Tells that something is not as it should be, and goes on.
    fn warn(&self, line: &str);

    /// Lets time pass.
    ///
    /// # Errors
    /// [`crate::Kind::Cancelled`] once the user wants to stop.
    fn pause(&self, time: Duration) -> Result<()>;

    /// The time since some moment.
    fn now(&self) -> Duration;
}

/// How a swap in a pod ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PodOutcome {
    /// The exit code of the program.
    pub(super) exit_code: u8,
    /// Its JSON document: the report, or the error.
    pub(super) document: Value,
}
