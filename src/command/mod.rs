//! What each command does from end to end. Nothing here prints or exits: a command takes a typed request and a [`Ui`]
//! to report to, and returns a report that serialises to the JSON of the contract.

mod beside;
mod board;
mod board_set;
mod change;
#[cfg(feature = "cli")]
pub(crate) mod completion;
mod config;
mod copy;
mod disk;
mod doctor;
mod examine;
mod extract;
#[cfg(feature = "net")]
mod fetch;
#[cfg(feature = "net")]
mod from_factory;
mod image;
mod in_place;
mod inspect;
mod loader;
mod loss;
mod medium;
mod members;
mod next;
#[cfg(feature = "cli")]
mod on_node;
mod pin;
#[cfg(feature = "cli")]
mod pod;
mod programs;
mod prune;
mod recover;
mod refusals;
#[cfg_attr(not(feature = "net"), path = "offline.rs")]
mod remote;
mod restore;
mod room;
mod schematic;
mod source;
mod status;
mod swap;
mod trust;
mod ui;
mod variables;
mod verify;

pub use board::{BoardDifference, BoardLoader, BoardReport};
pub use board_set::BoardSetRequest;
pub use change::Change;
pub use config::{CheckConfig, ConfigCheckReport};
pub use copy::CopyOut;
pub use disk::DiskRequest;
pub use doctor::{Doctor, DoctorReport};
pub use examine::{Examined, FileHash, examine, examine_hashed};
pub use extract::{Extract, ExtractReport};
#[cfg(feature = "net")]
pub use fetch::{FactoryRequest, Fetch, FetchReport, create_schematic, show_schematic};
#[cfg(feature = "net")]
pub use from_factory::{FactoryImage, Flavour};
pub use image::{ImageRequest, OpenImage};
pub use inspect::{CompanionReport, Diff, DiffReport, Inspect, InspectReport, ProfileReport, UkiReport};
pub use loader::{ReplaceLoader, ReplaceLoaderReport};
pub use next::NextStep;
#[cfg(feature = "cli")]
pub use on_node::{
    Cluster, DeskImage, Expected, ExpectedExtension, NodeReport, Outcome, PodEnd, PodRun, Printed, PushSelf, Rollout,
    RolloutReport, Step, SwapInPods, Way,
};
pub use pin::{Pin, PinReport};
#[cfg(feature = "cli")]
pub use pod::{Nodes, PodReport, PodRequest};
pub use prune::{Prune, PruneReport};
pub use recover::{Recover, RecoverReport};
pub use remote::Remote;
pub use restore::{BackupList, BackupReport, BootsNow, Restore, RestoreReport, list_backups};
pub use schematic::{EditFrom, EditSchematic, SchematicReport, schematic_of};
pub use source::ImageSource;
pub use status::{
    BesideReport, BootReport, DiskReport, EntryReport, EspReport, FileReport, LoaderReport, PartitionReport, Status,
    StatusReport, status, status_without_hashes,
};
pub use swap::{Swap, SwapReport};
pub use trust::TrustRequest;
pub(crate) use ui::check_cancelled;
pub use ui::{Collecting, Event, Proposal, Silent, Ui};
#[cfg(feature = "net")]
pub(crate) use ui::{in_words, network_event};
pub use variables::{MachineTree, VariablesChoice, boot_variables};
pub use verify::Verify;

use crate::{Context, Result};
use tempfile::TempDir;

/// Seconds since 1970 UTC.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// An empty folder that is gone with the value.
pub(crate) fn temporary_folder() -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix("bootsurgeon-").tempdir();
    made.while_doing(|| format!("making a temporary folder in {}", std::env::temp_dir().display()))
}
