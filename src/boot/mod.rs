//! The boot oracle: what systemd-boot will show and start, from the files of the ESP and the EFI variables.
//!
//! On many boards NVRAM cannot be written from the running system, so the only question before a swap is which file
//! systemd-boot picks afterwards. And systemd-boot has no fallback: a file that is picked and does not start is a dead
//! node. [`predict`] answers for the systemd-boot that is on the ESP, from 252 to 262, with all differences between
//! them.
//!
//! Pure: nothing is read or written here but what the caller hands in ([`UkiFile::probe`] reads the source it is
//! given). The rules follow systemd's sources (`src/boot/boot.c`, `pe.c`, `efi-string.c` and their older names); own
//! code, because only systemd-boot behaves exactly like systemd-boot.
//!
//! Left out, for nothing on an ESP tells about them: entries from SMBIOS strings, and firmware failures that would
//! bring `LoaderEntrySysFail` in (which versions up to 262 never act upon).

mod config;
mod entry;
pub mod glob;
mod image;
pub mod loader_conf;
mod predict;
mod probe;
mod roles;
mod select;
mod skip;
mod text;
mod type1;
pub mod verscmp;
mod version;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use crate::counter::Counter;
pub use config::MenuMode;
pub use entry::{EntryKind, MenuEntry};
pub(crate) use predict::predict_with;
pub use predict::{Prediction, predict};
pub use probe::{Loader, ProfileEntry, Reading, UkiFile};
pub use roles::{Roles, roles};
pub use select::near_miss;
pub use skip::Skip;
pub use text::{lenient_string, variable_string};
pub use type1::type1_target;
pub use version::LoaderVersion;

/// A file of `\loader\entries`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Type1File {
    /// Its long name with its case.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Its content.
    pub text: Vec<u8>,
}

/// Which targets of Type #1 entries are there, by their paths from the root of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// All that any entry names: nothing is known of the volume.
    All,
    /// These, in the form that [`type1_target`] gives, in lower case.
    These(BTreeSet<String>),
}

impl Targets {
    /// Those of these paths. They are compared without case.
    pub fn these(paths: impl IntoIterator<Item = String>) -> Self {
        Self::These(paths.into_iter().map(|path| path.to_lowercase()).collect())
    }

    fn has(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(paths) => paths.contains(&path.to_lowercase()),
        }
    }
}

impl Default for Targets {
    /// None.
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

/// Everything on a disk that systemd-boot looks at. Lists are in the order of the directory on the medium: it decides
/// between equal entries.
#[derive(Clone)]
pub struct Esp {
    /// The systemd-boot that the firmware starts.
    pub loader: LoaderVersion,
    /// COFF machine type of that program.
    pub machine: u16,
    /// Where that program lies on this volume: `\EFI\BOOT\BOOTX64.EFI`.
    pub loader_path: String,
    /// The files of `\EFI\Linux`.
    pub linux: Vec<UkiFile>,
    /// The files of `\loader\entries`.
    pub type1: Vec<Type1File>,
    /// Content of `\loader\loader.conf`, if it is there.
    pub loader_conf: Option<Vec<u8>>,
    /// The directories in `\loader\keys`.
    pub key_dirs: Vec<String>,
    /// Boot loaders that systemd-boot lists without being told.
    pub others: OtherLoaders,
    /// Which targets of the entries are there.
    pub targets: Targets,
    /// The Extended Boot Loader Partition of the same disk, if there is one.
    pub xbootldr: Option<Xbootldr>,
}

/// What systemd-boot looks at on the Extended Boot Loader Partition (GPT type bc13c2ff-59e6-4262-a352-b275fd6f7172).
#[derive(Clone)]
pub struct Xbootldr {
    /// The files of `\EFI\Linux`.
    pub linux: Vec<UkiFile>,
    /// The files of `\loader\entries`.
    pub type1: Vec<Type1File>,
    /// Which targets of the entries are there.
    pub targets: Targets,
}

/// Other boot loaders on the ESP, listed at the end of the menu as long as `auto-entries` is on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OtherLoaders {
    /// `\System\Library\CoreServices\boot.efi` on any volume.
    pub macos: bool,
    /// `\EFI\Microsoft\Boot\bootmgfw.efi`.
    pub windows: bool,
    /// `\shellx64.efi` and its like.
    pub efi_shell: bool,
    /// `\EFI\BOOT\BOOT<ARCH>.EFI` is there, is not what is running, and is not the same systemd-boot (neither is
    /// `GRUB<ARCH>.EFI` beside it). A systemd-boot of another version counts.
    pub default_loader: bool,
}

/// The variables that systemd-boot and its stub read and write, as raw data without the four bytes of attributes that
/// efivarfs puts in front; `None` where there is no such variable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables {
    /// `LoaderEntryDefault`.
    pub default: Option<Vec<u8>>,
    /// `LoaderEntryOneShot`.
    pub oneshot: Option<Vec<u8>>,
    /// `LoaderEntryPreferred`, since 260.
    pub preferred: Option<Vec<u8>>,
    /// `LoaderEntrySysFail`, since 258; read but never acted upon up to 262.
    pub sysfail: Option<Vec<u8>>,
    /// `LoaderEntryLastBooted`, for `@saved`.
    pub last_booted: Option<Vec<u8>>,
    /// `LoaderConfigTimeout`.
    pub config_timeout: Option<Vec<u8>>,
    /// `LoaderConfigTimeoutOneShot`.
    pub config_timeout_oneshot: Option<Vec<u8>>,
    /// `LoaderEntrySelected`: what was started last time.
    pub selected: Option<Vec<u8>>,
    /// `StubImageIdentifier`: the path of the UKI that was started.
    pub stub_image: Option<Vec<u8>>,
    /// `SecureBoot`; `None` where the firmware knows no Secure Boot, or cannot be asked.
    pub secure_boot: Option<bool>,
    /// `SetupMode`.
    pub setup_mode: bool,
    /// `AuditMode`.
    pub audit_mode: bool,
    /// `DeployedMode`.
    pub deployed_mode: bool,
    /// `OsIndicationsSupported`.
    pub os_indications_supported: u64,
    /// Whether this is a virtual machine, if known: only there are keys enrolled without being asked.
    pub virtual_machine: Option<bool>,
}

impl Variables {
    /// The same firmware after its NVRAM was lost: nothing the loader is told by variables is left.
    #[must_use]
    pub fn reset(&self) -> Self {
        Self {
            secure_boot: self.secure_boot,
            setup_mode: self.setup_mode,
            audit_mode: self.audit_mode,
            deployed_mode: self.deployed_mode,
            os_indications_supported: self.os_indications_supported,
            virtual_machine: self.virtual_machine,
            ..Self::default()
        }
    }

    /// The same variables after the one-shot ones were used up: the boot after the next.
    #[must_use]
    pub fn after_one_boot(&self) -> Self {
        Self { oneshot: None, config_timeout_oneshot: None, ..self.clone() }
    }
}
