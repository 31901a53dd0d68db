//! What each command does from end to end. Nothing here prints or exits: a command takes a typed request and a [`Ui`] to
//! report to, and returns a report that serialises to the JSON of the contract.

mod change;
mod copy;
mod disk;
mod doctor;
mod examine;
mod extract;
mod fetch;
mod image;
mod inspect;
mod next;
mod pod;
mod prune;
mod recover;
mod restore;
mod status;
mod swap;
mod trust;
mod ui;
mod variables;
mod verify;

pub use change::Change;
pub use copy::CopyOut;
pub use disk::DiskRequest;
pub use doctor::{Doctor, DoctorReport};
pub use examine::{Examined, examine};
pub use extract::{Extract, ExtractReport};
pub use fetch::{FactoryRequest, Fetch, FetchReport, SchematicReport, create_schematic, schematic_of, show_schematic};
#[cfg(feature = "demo")]
pub(crate) use image::TemporaryFolder;
pub use image::{ImageRequest, OpenImage};
pub use inspect::{Diff, DiffReport, Inspect, InspectReport, ProfileReport, UkiReport};
pub use next::NextStep;
pub use pod::{Nodes, PodReport, PodRequest};
pub use prune::{Prune, PruneReport};
pub use recover::{Recover, RecoverReport};
pub use restore::{BackupReport, Restore, RestoreReport, list_backups};
pub use status::{
    BootReport, DiskReport, EntryReport, EspReport, FileReport, LoaderReport, PartitionReport, Status, StatusReport,
    status,
};
pub use swap::{ImageSource, Swap, SwapReport};
pub use trust::TrustRequest;
pub use ui::{Event, Ui};
pub(crate) use ui::{check_cancelled, network_event};
pub use variables::{MachineTree, VariablesChoice, boot_variables};
pub use verify::Verify;

/// Seconds since 1970 UTC.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
