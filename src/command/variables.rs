//! Which EFI variables go with a disk, and where they are.

use crate::Result;
use crate::block::ReadAt;
use crate::boot::Variables;
use crate::disk::{Partition, Target};
use crate::efivars::{self, EfiVars, RPI_FILE, Store, StoreFormat, UBOOT_FILE};
use crate::fat::Volume;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Larger texts of the machine are not read, in bytes.
const MAX_TEXT: u64 = 64 * 1024;

/// `--efivars`: which EFI variables go with a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum VariablesChoice {
    /// Not specified: this machine's, if the disk is in this machine; for an image file, which other firmware will
    /// boot, those that the firmware keeps in a file on the ESP, if there is such a file.
    #[default]
    Unspecified,
    /// None at all.
    None,
    /// Those in the file on the ESP itself.
    Esp,
    /// Those in this directory or file.
    Dir(PathBuf),
}

impl VariablesChoice {
    /// Whether the board's variables were named.
    #[must_use]
    pub fn is_named(&self) -> bool {
        matches!(self, Self::Dir(_) | Self::Esp)
    }

    /// What `--efivars` says for this choice.
    #[must_use]
    pub fn as_argument(&self) -> Option<&Path> {
        match self {
            Self::Unspecified => None,
            Self::None => Some(Path::new("none")),
            Self::Esp => Some(Path::new("esp")),
            Self::Dir(dir) => Some(dir),
        }
    }

    /// The variables of this choice. `machine` is the one that the disks are in, if they are in one; `esps` are the
    /// places where firmware may keep a file of its own.
    #[must_use]
    pub fn locate(&self, machine: Option<&MachineTree>, esps: &[&Target]) -> EfiVars {
        let shown = match self {
            Self::None => return EfiVars::open(None),
            Self::Esp => {
                return on_esps(esps).unwrap_or_else(|| {
                    let why = format!("neither {UBOOT_FILE} nor {RPI_FILE} is in the root of the ESP");
                    EfiVars::none(&why).with_warning(format!("no EFI variables: {why}"))
                });
            }
            Self::Dir(dir) => {
                let vars = EfiVars::open(Some(dir));
                let why = vars.unavailable().map(|why| format!("no EFI variables: {why}"));
                why.into_iter().fold(vars, EfiVars::with_warning)
            }
            Self::Unspecified => match machine {
                Some(machine) => EfiVars::open_first(&machine.efivarfs),
                None => EfiVars::open(None),
            },
        };
        let is_named = self.is_named();
        if shown.lost_at_restart() {
            return as_uboot_starts(shown, esps);
        }
        if is_named {
            return shown;
        }
        if shown.unavailable().is_some() {
            return on_esps(esps).unwrap_or(shown);
        }
        // The machine's own variables, and beside them a file: whose?
        let Some(found) = on_esps(esps) else { return shown };
        match (machine, found.store().map(|s| (s.format, s.clone()))) {
            (Some(machine), Some((StoreFormat::Edk2, store))) if machine.is_raspberry_pi() => shown.kept_in(store),
            (_, store) => {
                let file = store.map_or(UBOOT_FILE.to_owned(), |(_, store)| store.place);
                shown.with_warning(format!(
                    "{file} is not taken into account: this machine's firmware keeps its variables elsewhere. If the \
                     disk is for \
                     a board whose firmware keeps them in that file, say so with --efivars esp"
                ))
            }
        }
    }
}

/// What U-Boot, which shows these variables from its memory, will have at its next start.
fn as_uboot_starts(shown: EfiVars, esps: &[&Target]) -> EfiVars {
    let file = esps.iter().flat_map(|esp| EspVolume::around(esp)).find_map(|esp| esp.store(UBOOT_FILE));
    match file {
        Some(Ok(store)) => shown.kept_in(store),
        Some(Err(why)) => shown.kept_in(Store::empty(StoreFormat::UBoot, UBOOT_FILE)).with_warning(why),
        None => shown.kept_in(Store::missing(
            StoreFormat::UBoot,
            UBOOT_FILE,
            "U-Boot keeps its variables in this file on an ESP, and there is none on this one: it was never written, \
             or is on \
             the ESP of another disk. The next start is taken to be without variables",
        )),
    }
}

/// The variables in a file on one of the ESPs.
fn on_esps(esps: &[&Target]) -> Option<EfiVars> {
    esps.iter().flat_map(|esp| EspVolume::around(esp)).find_map(|esp| {
        let (uboot, rpi) = (esp.store(UBOOT_FILE), esp.store(RPI_FILE));
        let both = uboot.is_some() && rpi.is_some();
        let taken = match (uboot, rpi) {
            (None, None) => return None,
            (Some(_), Some(rpi)) if esp.starts_rpi_firmware() => (rpi, StoreFormat::Edk2, RPI_FILE),
            (Some(uboot), _) => (uboot, StoreFormat::UBoot, UBOOT_FILE),
            (None, Some(rpi)) => (rpi, StoreFormat::Edk2, RPI_FILE),
        };
        let (read, format, name) = taken;
        let vars = match read {
            Ok(store) => EfiVars::of_store(store),
            Err(why) => EfiVars::of_store(Store::empty(format, name)).with_warning(why),
        };
        Some(if both {
            let other = if name == RPI_FILE { UBOOT_FILE } else { RPI_FILE };
            vars.with_warning(format!(
                "{other} is there as well and is not taken into account: config.txt starts the other firmware"
            ))
        } else {
            vars
        })
    })
}

/// A volume on which firmware may keep its variables.
struct EspVolume<'t> {
    target: &'t Target,
    /// Another partition than the target's own.
    other: Option<&'t Partition>,
}

impl<'t> EspVolume<'t> {
    /// Those of the disk that a partition is on. U-Boot takes the first ESP of a disk, whichever one it starts from
    /// (`efi_disk_add_dev` in lib/efi_loader/efi_disk.c), and looks at no other one.
    fn around(target: &'t Target) -> Vec<Self> {
        let own = target.partition.as_ref();
        let first = target.table().and_then(|table| table.partitions.iter().find(|p| p.is_esp()));
        let other = first.filter(|p| own.is_some_and(|own| own.number != p.number));
        match (other, own) {
            // What is on a second ESP is ignored.
            (Some(_), Some(own)) if own.is_esp() => vec![Self { target, other }],
            (Some(_), _) => vec![Self { target, other }, Self { target, other: None }],
            (None, _) => vec![Self { target, other: None }],
        }
    }

    fn open(&self) -> Result<Box<dyn ReadAt>> {
        self.other.map_or_else(|| self.target.open(), |partition| self.target.open_partition(partition))
    }

    /// The file of this name in the root, if it is there; the error says why nothing can be taken from it.
    fn store(&self, name: &str) -> Option<Result<Store, String>> {
        // An ESP that cannot be read is reported where it is read for its own sake.
        let volume = Volume::open(self.open().ok()?).ok()?;
        let entry = volume.find(name).ok().flatten().filter(|e| !e.is_dir())?;
        let place = self.other.map_or("the ESP".to_owned(), Partition::name);
        let read = volume.file(&entry).and_then(|bytes| Store::read(&bytes, &format!("{name} on {place}")));
        Some(read.map_err(|e| match e.code().is_bad_content() {
            true => format!("{e}. The next start is taken to be without variables"),
            false => format!("{e}. What is said here holds if there are no variables in it"),
        }))
    }

    /// Whether config.txt, the Raspberry Pi's settings, starts the EDK II firmware.
    fn starts_rpi_firmware(&self) -> bool {
        let text = self.open().and_then(|source| Volume::open(source)?.read_small("config.txt", MAX_TEXT as u32));
        let text = text.ok().flatten().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        text.lines()
            .map(str::trim)
            .any(|line| line.strip_prefix("armstub=").is_some_and(|file| file.trim().eq_ignore_ascii_case(RPI_FILE)))
    }
}

/// Where a running machine shows what it is.
#[derive(Debug, Clone)]
pub struct MachineTree {
    root: PathBuf,
    efivarfs: Vec<PathBuf>,
}

impl MachineTree {
    /// The machine whose `/sys` is below `root`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        let dir = Path::new(efivars::DEFAULT_DIR);
        let dir = dir.strip_prefix("/").unwrap_or(dir);
        Self { root: root.to_owned(), efivarfs: vec![root.join(dir)] }
    }

    /// The machine with this device. In a container that has the node's tree under `/host` its own `/sys` may have no
    /// efivarfs in it, the node's has.
    #[must_use]
    pub fn with_device(device: &Path) -> Self {
        let dev = device.ancestors().find(|dir| dir.file_name().is_some_and(|name| name == "dev"));
        let mut machine = Self::at(dev.and_then(Path::parent).unwrap_or(Path::new("/")));
        let own = PathBuf::from(efivars::DEFAULT_DIR);
        if !machine.efivarfs.contains(&own) {
            machine.efivarfs.push(own);
        }
        machine
    }

    /// Whether it calls itself a Raspberry Pi.
    fn is_raspberry_pi(&self) -> bool {
        ["sys/class/dmi/id/product_name", "sys/firmware/devicetree/base/model"].iter().any(|file| {
            let mut text = Vec::new();
            let read = std::fs::File::open(self.root.join(file)).map(|f| f.take(MAX_TEXT).read_to_end(&mut text));
            read.is_ok() && String::from_utf8_lossy(&text).contains("Raspberry Pi")
        })
    }
}

/// The variables the boot prediction goes by. One that cannot be read counts as absent; the second part
/// says so, and whatever is odd about where they come from.
#[must_use]
pub fn boot_variables(vars: &EfiVars) -> (Variables, Vec<String>) {
    let mut unreadable = vars.warnings().to_vec();
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
