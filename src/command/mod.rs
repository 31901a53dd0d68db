//! What each command does from end to end. Nothing here prints or exits: a command takes a typed request and a [`Ui`] to
//! report to, and returns a report that serialises to the JSON of the contract.

mod change;
mod prune;
mod recover;
mod status;

pub use prune::{Prune, PruneReport};
pub use recover::{Recover, RecoverReport};
pub use status::{BootReport, DiskReport, EspReport, FileReport, Status, StatusReport, status};

use crate::boot::Variables;
use crate::disk::Target;
use crate::efivars::{self, EfiVars};
use crate::{Error, Kind, Result};
use std::path::PathBuf;
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
    /// Something is not as it should be, and the command goes on.
    Warning(String),
    /// A detail.
    Detail(String),
}

/// Who is told, who is asked, and who may stop a command.
pub trait Ui: Sync {
    /// Tells.
    fn event(&self, event: Event);

    /// Asks whether to go on. `None` when there is nobody to ask.
    fn confirm(&self, question: &str) -> Option<bool>;

    /// Set once the user wants to stop. Commands look at it while they can still stop without a trace.
    fn cancelled(&self) -> &AtomicBool;
}

/// Fails if the user wants to stop.
pub(crate) fn check_cancelled(ui: &dyn Ui) -> Result<()> {
    if ui.cancelled().load(Ordering::Relaxed) {
        return Err(Error::new(Kind::Cancelled, "stopped on request; the ESP was not changed"));
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
    /// `--efivars`; `None` for none.
    pub efivars: Option<PathBuf>,
}

impl DiskRequest {
    /// Finds the ESP.
    ///
    /// # Errors
    /// As [`Target::find`].
    pub fn find(&self) -> Result<Target> {
        Target::find(&self.path, self.partition.as_deref())
    }

    /// The EFI variables.
    #[must_use]
    pub fn efivars(&self) -> EfiVars {
        EfiVars::open(self.efivars.as_deref())
    }
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
