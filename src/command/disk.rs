//! The disk a command works on, and the EFI variables that go with it.

use crate::boot::Variables;
use crate::disk::{Shape, Target};
use crate::efivars::{self, EfiVars};
use std::path::{Path, PathBuf};

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
