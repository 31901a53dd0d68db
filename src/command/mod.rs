//! What each command does from end to end. Nothing here prints or exits: a command takes a typed request and a [`Ui`] to
//! report to, and returns a report that serialises to the JSON of the contract.

mod change;
mod copy;
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
mod verify;

pub use change::Change;
pub use copy::CopyOut;
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
pub use verify::Verify;

use crate::block::{Pieces, ReadAt, fan_out};
use crate::boot::Variables;
use crate::disk::{Shape, Target};
use crate::efivars::{self, EfiVars};
use crate::factory;
use crate::{Context, Error, Kind, Result};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Something worth telling while a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A step begins: `verifying and writing the image`.
    Step(String),
    /// How far the step has come, in bytes.
    Progress {
        /// So many are done.
        done: u64,
        /// Of so many, where that is known.
        total: Option<u64>,
    },
    /// The server has not answered yet.
    Waiting {
        /// For so long, in seconds.
        seconds: u64,
    },
    /// Something is not as it should be, and the command goes on.
    Warning(String),
    /// What to do next, beside the report.
    Note(String),
    /// A detail.
    Detail(String),
}

/// Who is told, who is asked, and who may stop a command.
pub trait Ui: Sync {
    /// Tells.
    fn event(&self, event: Event);

    /// Asks whether to go on. `None` when there is nobody to ask.
    fn confirm(&self, question: &str) -> Option<bool>;

    /// Set once the user wants to stop. Commands look at it while they can still stop without a trace; sources that wait for
    /// a server share it.
    fn cancelled(&self) -> &Arc<AtomicBool>;
}

/// Fails if the user wants to stop.
pub(crate) fn check_cancelled(ui: &dyn Ui) -> Result<()> {
    if ui.cancelled().load(Ordering::Relaxed) {
        return Err(Error::new(Kind::Cancelled, "stopped on request"));
    }
    Ok(())
}

/// A disk, which ESP of it, and the EFI variables that go with it.
#[derive(Debug, Clone)]
pub struct DiskRequest {
    /// `DISK`.
    pub path: PathBuf,
    /// `--partition`.
    pub partition: Option<String>,
    /// `--efivars`.
    pub efivars: VariablesChoice,
}

/// `--efivars`: which EFI variables go with a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum VariablesChoice {
    /// Not said: this machine's, if the disk is in this machine; none for an image file, which other firmware will boot.
    #[default]
    Unsaid,
    /// None at all.
    None,
    /// Those in this directory.
    Dir(PathBuf),
}

impl VariablesChoice {
    /// Whether a directory was named.
    #[must_use]
    pub fn is_named(&self) -> bool {
        matches!(self, Self::Dir(_))
    }
}

impl DiskRequest {
    /// The EFI variables that go with the disk.
    #[must_use]
    pub fn efivars(&self, target: &Target) -> EfiVars {
        match &self.efivars {
            VariablesChoice::None => EfiVars::open(None),
            VariablesChoice::Dir(dir) => EfiVars::open(Some(dir)),
            VariablesChoice::Unsaid if self.variables_are_the_boards(target) => {
                EfiVars::open_first(&efivars_beside(&self.path))
            }
            VariablesChoice::Unsaid => EfiVars::open(None),
        }
    }

    /// Whether the EFI variables are those of the machine that boots from the disk: they were named, or the disk is in
    /// this machine.
    #[must_use]
    pub fn variables_are_the_boards(&self, target: &Target) -> bool {
        self.efivars.is_named() || matches!(target.shape, Shape::WholeDisk | Shape::PartitionDevice)
    }
}

/// Where the EFI variables of the machine with this device may be: in a container that has the node's tree under `/host` its
/// own `/sys` has no efivarfs in it, the node's has.
fn efivars_beside(device: &Path) -> Vec<PathBuf> {
    let own = Path::new(efivars::DEFAULT_DIR);
    let tree = device.ancestors().find(|dir| dir.file_name().is_some_and(|name| name == "dev")).and_then(Path::parent);
    let nodes = tree.filter(|tree| *tree != Path::new("/")).zip(own.strip_prefix("/").ok());
    nodes.map(|(tree, dir)| tree.join(dir)).into_iter().chain([own.to_owned()]).collect()
}

/// The variables the boot prediction goes by. One that cannot be read counts as absent and is named in the second part.
#[must_use]
pub fn boot_variables(vars: &EfiVars) -> (Variables, Vec<String>) {
    let mut unreadable = Vec::new();
    let mut read = |name: &str, vendor| match vars.read(name, vendor) {
        Ok(v) => v.map(|v| v.data),
        Err(e) => {
            unreadable.push(e.to_string());
            None
        }
    };
    let mut loader = |name: &str| read(name, efivars::LOADER);
    let mut v = Variables {
        default: loader("LoaderEntryDefault"),
        oneshot: loader("LoaderEntryOneShot"),
        preferred: loader("LoaderEntryPreferred"),
        sysfail: loader("LoaderEntrySysFail"),
        last_booted: loader("LoaderEntryLastBooted"),
        config_timeout: loader("LoaderConfigTimeout"),
        config_timeout_oneshot: loader("LoaderConfigTimeoutOneShot"),
        selected: loader("LoaderEntrySelected"),
        stub_image: loader("StubImageIdentifier"),
        ..Variables::default()
    };
    let mut global = |name: &str| read(name, efivars::GLOBAL);
    let flag = |data: Option<Vec<u8>>| data.and_then(|d| d.first().map(|b| *b != 0));
    v.secure_boot = flag(global("SecureBoot"));
    v.setup_mode = flag(global("SetupMode")).unwrap_or(false);
    v.audit_mode = flag(global("AuditMode")).unwrap_or(false);
    v.deployed_mode = flag(global("DeployedMode")).unwrap_or(false);
    if let Some(bytes) = global("OsIndicationsSupported").and_then(|d| d.first_chunk::<8>().copied()) {
        v.os_indications_supported = u64::from_le_bytes(bytes);
    }
    (v, unreadable)
}

/// Seconds since 1970 UTC.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Tells what a transfer does.
pub(crate) fn network_event(ui: &dyn Ui, event: &factory::Event) {
    ui.event(match event {
        factory::Event::Waiting { elapsed } => Event::Waiting { seconds: elapsed.as_secs() },
        factory::Event::Progress { bytes, total } => Event::Progress { done: *bytes, total: *total },
        factory::Event::Retrying { attempt, after, why } => {
            Event::Warning(format!("attempt {attempt} failed ({why}); the next one in {:.1} s", after.as_secs_f32()))
        }
        factory::Event::StartingOver => Event::Warning("the file has changed on the server: starting over".into()),
    });
}

/// Copies a file of the ESP to another medium, complete or not at all.
pub(crate) fn copy_out<S: ReadAt>(bytes: &Pieces<S>, out: &Path) -> Result<()> {
    let copy = || -> Result<()> {
        let file = std::fs::File::create_new(out)?;
        let mut write = |chunk: &[u8]| -> Result<()> { Ok((&file).write_all(chunk)?) };
        fan_out(bytes, 0, bytes.size(), &mut [&mut write])?;
        Ok(file.sync_all()?)
    };
    copy().while_doing(|| format!("copying the old image to {}", out.display()))
}
