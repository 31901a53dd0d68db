//! EFI variables: where they are, and reading them. Nothing is ever written.
//!
//! | place | what it is |
//! | --- | --- |
//! | efivarfs | Linux shows each variable as a file `<Name>-<guid>`: 4 bytes of attributes (little endian), then the data (kernel documentation "efivarfs"). The directory may be a copy made elsewhere |
//! | `ubootefi.var` | U-Boot has no room for variables of its own and keeps them in this file on the ESP |
//! | a flash image | EDK II's variable store: inside `RPI_EFI.fd` on a Raspberry Pi, in `OVMF_VARS.fd` for a virtual machine |
//!
//! All of them may be absent (no UEFI, a container without the mount): variables are always an optional input.
//!
//! **Which of them is the board's truth.** Where firmware keeps its variables in a file on the disk, what a running
//! system sees in efivarfs is a copy in memory: what is written there is lost. The next start goes by the file.
//! Firmware of this kind says so itself (`RTStorageVolatile`, EBBR), and then [`EfiVars::kept_in`] takes what outlives
//! a start from the file, and from efivarfs what the firmware works out anew each time.

mod edk2;
mod entries;
mod store;
mod uboot;

pub use store::{Store, StoreFormat};

use crate::block::FileSource;
use crate::container::Place;
use crate::sorting::Sort as _;
use crate::{Context, Error, Result};
use serde::Serialize;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Vendor of systemd-boot's and the stub's variables (Boot Loader Interface).
pub const LOADER: Uuid = uuid::uuid!("4a67b082-0a4c-41cf-b6c7-440b29bb8c4f");
/// `EFI_GLOBAL_VARIABLE`: SecureBoot, SetupMode, BootOrder, PK, KEK.
pub const GLOBAL: Uuid = uuid::uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
/// `EFI_IMAGE_SECURITY_DATABASE_GUID`: db and dbx.
pub const SECURITY_DATABASE: Uuid = uuid::uuid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f");
/// shim's variables, SbatLevelRT among them.
pub const SHIM: Uuid = uuid::uuid!("605dab50-e046-4300-abb6-3dd810dd8b23");

/// `U_BOOT_EFI_RT_VAR_FILE_GUID`: vendor of RTStorageVolatile and VarToFile (EBBR, "File Format For Storing EFI
/// Variables").
pub const U_BOOT: Uuid = uuid::uuid!("b2ac5fc9-92b7-4acd-aeac-11e818c3130c");

/// U-Boot's file in the root of the ESP.
pub const UBOOT_FILE: &str = "ubootefi.var";
/// The Raspberry Pi's EDK II firmware in the root of the first FAT partition; its variables are inside.
pub const RPI_FILE: &str = "RPI_EFI.fd";
/// `EFI_VARIABLE_NON_VOLATILE`.
pub const NON_VOLATILE: u32 = 1;

/// Where Linux mounts efivarfs.
pub const DEFAULT_DIR: &str = "/sys/firmware/efi/efivars";
/// Larger variables are refused, in bytes. Firmware stores hold 64 to 256 KiB in all.
const MAX_VARIABLE: u64 = 1024 * 1024;
/// More files than this are not listed.
const MAX_FILES: usize = 65_536;

/// One variable as efivarfs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Variable {
    /// `EFI_VARIABLE_*` attribute bits: 1 non-volatile, 2 boot services, 4 run time, 0x20 time-based authentication.
    pub attributes: u32,
    /// The value.
    pub data: Vec<u8>,
}

/// EFI variables, or the reason why there are none.
#[derive(Debug, Clone)]
pub struct EfiVars {
    source: Source,
    /// What somebody should know about where they come from.
    warnings: Vec<String>,
}

#[derive(Debug, Clone)]
enum Source {
    Nowhere(String),
    Directory(PathBuf),
    Store(Store),
    /// The firmware keeps in the store what it shows in the directory.
    Kept(PathBuf, Store),
}

/// Where variables come from, for reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VariablesOrigin {
    /// The kind of place.
    pub kind: OriginKind,
    /// The directory or file; `null` without variables.
    pub place: Option<String>,
    /// Why there, or why there are none.
    pub why: String,
}

/// A kind of place for variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OriginKind {
    /// None are known.
    None,
    /// A directory of efivarfs, or a copy of one.
    Efivarfs,
    /// U-Boot's `ubootefi.var`.
    UBoot,
    /// EDK II's variable store.
    Edk2,
}

impl EfiVars {
    /// Takes a directory of efivarfs or a file with variables; `None` when the user wants none. A place that is missing
    /// or cannot be read is not an error: the state is then [`Self::unavailable`].
    #[must_use]
    pub fn open(place: Option<&Path>) -> Self {
        let nowhere = |why: String| Self { source: Source::Nowhere(why), warnings: Vec::new() };
        let Some(place) = place else { return nowhere("EFI variables not consulted".into()) };
        if std::fs::metadata(place).is_ok_and(|meta| meta.is_file()) {
            let read = FileSource::open(place).and_then(|file| Store::read(&file, &place.display().to_string()));
            return read.map_or_else(|e| nowhere(e.to_string()), Self::of_store);
        }
        match std::fs::read_dir(place).map(|mut entries| entries.next().is_some()) {
            Ok(true) => Self { source: Source::Directory(place.to_owned()), warnings: Vec::new() },
            // Without UEFI the mount point exists and is empty.
            Ok(false) => nowhere(format!(
                "{} is empty: no UEFI here, or efivarfs is not mounted{}",
                place.display(),
                in_container(place)
            )),
            Err(e) => nowhere(format!("{}: {e}{}", place.display(), in_container(place))),
        }
    }

    /// Takes the first of these directories that has variables; what is said of the last one if none has.
    #[must_use]
    pub fn open_first(dirs: &[PathBuf]) -> Self {
        let mut found = Self::open(None);
        for dir in dirs {
            found = Self::open(Some(dir));
            if found.unavailable().is_none() {
                break;
            }
        }
        found
    }

    /// The variables of a file that was found on a disk.
    #[must_use]
    pub fn of_store(store: Store) -> Self {
        let warnings = store.warnings().iter().map(|w| format!("{}: {w}", store.place)).collect();
        Self { source: Source::Store(store), warnings }
    }

    /// No variables, and why.
    #[must_use]
    pub fn none(why: impl Into<String>) -> Self {
        Self { source: Source::Nowhere(why.into()), warnings: Vec::new() }
    }

    /// The same firmware's variables as they are at its next start, where it keeps them in `store`: what outlives a
    /// start from there, the rest from here.
    #[must_use]
    pub fn kept_in(self, store: Store) -> Self {
        let mut vars = Self::of_store(store.clone());
        vars.warnings.splice(0..0, self.warnings);
        if let Source::Directory(dir) | Source::Kept(dir, _) = self.source {
            vars.source = Source::Kept(dir, store);
        }
        vars
    }

    /// Adds something that somebody should know.
    #[must_use]
    pub fn with_warning(mut self, warning: impl Into<String>) -> Self {
        self.warnings.push(warning.into());
        self
    }

    /// Why there are no variables, if there are none.
    #[must_use]
    pub fn unavailable(&self) -> Option<&str> {
        match &self.source {
            Source::Nowhere(why) => Some(why),
            _ => None,
        }
    }

    /// The directory of efivarfs, if there is one.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        match &self.source {
            Source::Directory(dir) | Source::Kept(dir, _) => Some(dir),
            Source::Nowhere(_) | Source::Store(_) => None,
        }
    }

    /// The file in which the firmware keeps what outlives a start, if it is known.
    #[must_use]
    pub fn store(&self) -> Option<&Store> {
        match &self.source {
            Source::Store(store) | Source::Kept(_, store) => Some(store),
            Source::Nowhere(_) | Source::Directory(_) => None,
        }
    }

    /// What somebody should know about where they come from.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether the firmware is U-Boot and says that what is written to its variables is lost (`RTStorageVolatile`).
    #[must_use]
    pub fn lost_at_restart(&self) -> bool {
        self.read("RTStorageVolatile", U_BOOT).is_ok_and(|v| v.is_some())
    }

    /// Whether the firmware is U-Boot.
    #[must_use]
    pub fn is_uboot(&self) -> bool {
        self.store().is_some_and(|s| s.format == StoreFormat::UBoot) || self.lost_at_restart()
    }

    /// Where they come from.
    #[must_use]
    pub fn origin(&self) -> VariablesOrigin {
        let of = |format| match format {
            StoreFormat::UBoot => OriginKind::UBoot,
            StoreFormat::Edk2 => OriginKind::Edk2,
        };
        let firmware = |format| match format {
            StoreFormat::UBoot => "U-Boot",
            StoreFormat::Edk2 => "this firmware",
        };
        let (kind, place, why) = match &self.source {
            Source::Nowhere(why) => (OriginKind::None, None, why.clone()),
            Source::Directory(dir) => {
                (OriginKind::Efivarfs, Some(dir.display().to_string()), "the firmware's own variables".to_owned())
            }
            Source::Store(store) => (
                of(store.format),
                Some(store.place.clone()),
                format!("{} starts with what is in this file", firmware(store.format)),
            ),
            Source::Kept(_, store) if store.why_missing().is_some() => {
                (of(store.format), Some(store.place.clone()), store.why_missing().unwrap_or_default().to_owned())
            }
            Source::Kept(dir, store) => (
                of(store.format),
                Some(store.place.clone()),
                format!(
                    "{} starts with what is in this file; {} shows a copy in memory, and what is written there is lost",
                    firmware(store.format),
                    dir.display()
                ),
            ),
        };
        VariablesOrigin { kind, place, why }
    }

    /// Reads a variable; `None` when it does not exist or there are no variables at all.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when it exists and cannot be read, has more than 1 MiB or lacks its attributes.
    pub fn read(&self, name: &str, vendor: Uuid) -> Result<Option<Variable>> {
        if name.is_empty() || name.contains(['/', '\0']) {
            return Err(Error::usage(format!("{name:?} is not a valid name of an EFI variable")));
        }
        match &self.source {
            Source::Nowhere(_) => Ok(None),
            Source::Directory(dir) => read_file(dir, name, vendor),
            Source::Store(store) => Ok(store.get(name, vendor).cloned()),
            Source::Kept(dir, store) => {
                let shown = read_file(dir, name, vendor)?;
                let lasts = |v: &Variable| v.attributes & NON_VOLATILE != 0;
                if shown.as_ref().is_some_and(|v| !lasts(v)) || !store.keeps(name, vendor) {
                    return Ok(shown);
                }
                Ok(store.get(name, vendor).cloned())
            }
        }
    }

    /// The first byte of a variable as a flag, for example `SecureBoot` of [`GLOBAL`]; `None` when it does not exist.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn flag(&self, name: &str, vendor: Uuid) -> Result<Option<bool>> {
        Ok(self.read(name, vendor)?.and_then(|v| v.data.first().map(|b| *b != 0)))
    }

    /// Names and vendors of all variables, sorted. Files with other names are left out.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when the directory cannot be read.
    pub fn list(&self) -> Result<Vec<(String, Uuid)>> {
        match &self.source {
            Source::Nowhere(_) => Ok(Vec::new()),
            Source::Directory(dir) => list_files(dir),
            Source::Store(store) => Ok(store.list()),
            Source::Kept(dir, store) => {
                let mut all = list_files(dir)?;
                all.extend(store.list());
                all.put_in_order(Ord::cmp);
                all.dedup();
                Ok(all)
            }
        }
    }
}

/// What has to be known where the machine's variables are not found in a container.
fn in_container(place: &Path) -> &'static str {
    if place == Path::new(DEFAULT_DIR) && Place::here().is_container() {
        "; a container has the machine's only where they are mounted into it"
    } else {
        ""
    }
}

fn read_file(dir: &Path, name: &str, vendor: Uuid) -> Result<Option<Variable>> {
    let path = dir.join(format!("{name}-{vendor}"));
    let read = || -> Result<Option<Variable>> {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let mut bytes = Vec::new();
        // One read call per value: efivarfs limits how often an unprivileged process may read.
        file.take(MAX_VARIABLE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_VARIABLE {
            return Err(Error::io(format!("more than {MAX_VARIABLE} bytes")));
        }
        // A variable that is being deleted reads as an empty file.
        if bytes.is_empty() {
            return Ok(None);
        }
        let Some((attributes, data)) = bytes.split_first_chunk::<4>() else {
            return Err(Error::io(format!("{} bytes, and its attributes alone have 4", bytes.len())));
        };
        Ok(Some(Variable { attributes: u32::from_le_bytes(*attributes), data: data.to_vec() }))
    };
    read().while_doing(|| format!("reading the EFI variable {}", path.display()))
}

fn list_files(dir: &Path) -> Result<Vec<(String, Uuid)>> {
    let list = || -> Result<Vec<(String, Uuid)>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(dir)?.take(MAX_FILES) {
            all.extend(entry?.file_name().to_str().and_then(parse_name));
        }
        all.put_in_order(Ord::cmp);
        Ok(all)
    };
    list().while_doing(|| format!("listing the EFI variables in {}", dir.display()))
}

/// `Name-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`; the name itself may contain hyphens.
fn parse_name(file: &str) -> Option<(String, Uuid)> {
    let (name, guid) = file.split_at_checked(file.len().checked_sub(36)?)?;
    let name = name.strip_suffix('-').filter(|n| !n.is_empty())?;
    Some((name.to_owned(), Uuid::try_parse(guid).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    #[test]
    fn reads_attributes_and_data() {
        let dir = directory(&[
            ("SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", &[6, 0, 0, 0, 1]),
            ("Odd-Name-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", &[7, 0, 0, 0]),
            ("README", b"not a variable"),
        ]);
        let vars = EfiVars::open(Some(dir.path()));
        assert_eq!(vars.unavailable(), None);
        assert_eq!(vars.read("SecureBoot", GLOBAL).unwrap(), Some(Variable { attributes: 6, data: vec![1] }));
        assert_eq!(vars.flag("SecureBoot", GLOBAL).unwrap(), Some(true));
        assert_eq!(vars.read("SetupMode", GLOBAL).unwrap(), None);
        assert_eq!(vars.read("SecureBoot", LOADER).unwrap(), None);
        let list = vars.list().unwrap();
        assert_eq!(list, [("Odd-Name".to_owned(), LOADER), ("SecureBoot".to_owned(), GLOBAL)]);
    }

    #[test]
    fn a_missing_directory_is_a_state_with_a_reason() {
        let empty = directory(&[]);
        for dir in [None, Some(Path::new("/nonexistent/efivars")), Some(empty.path())] {
            let vars = EfiVars::open(dir);
            assert!(vars.unavailable().is_some());
            assert_eq!(vars.read("db", SECURITY_DATABASE).unwrap(), None);
            assert!(vars.list().unwrap().is_empty());
        }
    }

    #[test]
    fn bad_variables_are_errors_with_their_path() {
        let huge = vec![0; MAX_VARIABLE as usize + 1];
        let dir = directory(&[
            ("Short-8be4df61-93ca-11d2-aa0d-00e098032b8c", &[1, 2]),
            ("Huge-8be4df61-93ca-11d2-aa0d-00e098032b8c", &huge),
            ("Gone-8be4df61-93ca-11d2-aa0d-00e098032b8c", &[]),
        ]);
        let vars = EfiVars::open(Some(dir.path()));
        for name in ["Short", "Huge"] {
            assert!(vars.read(name, GLOBAL).unwrap_err().to_string().contains(name));
        }
        assert_eq!(vars.read("Gone", GLOBAL).unwrap(), None);
        assert!(vars.read("../x", GLOBAL).is_err());
    }

    #[test]
    fn a_file_is_taken_like_a_directory() {
        let bytes = uboot::tests::file(&[("LoaderEntryDefault", LOADER, 7, b"x")]);
        let dir = directory(&[("kept.var", &bytes), ("other.bin", b"no variables at all")]);
        let vars = EfiVars::open(Some(&dir.path().join("kept.var")));
        assert_eq!(vars.read("LoaderEntryDefault", LOADER).unwrap().unwrap().data, b"x");
        assert_eq!(vars.origin().kind, OriginKind::UBoot);
        assert!(vars.origin().place.unwrap().ends_with("kept.var"));
        let none = EfiVars::open(Some(&dir.path().join("other.bin")));
        assert!(none.unavailable().unwrap().contains("not a known file of EFI variables"), "{none:?}");
    }

    #[test]
    fn what_outlives_a_start_comes_from_the_file_and_the_rest_from_efivarfs() {
        let name = |name: &str, vendor: Uuid| format!("{name}-{vendor}");
        let shown: Vec<(String, &[u8])> = vec![
            (name("RTStorageVolatile", U_BOOT), b"\x06\0\0\0ubootefi.var\0"),
            (name("SecureBoot", GLOBAL), &[6, 0, 0, 0, 1]),
            (name("db", SECURITY_DATABASE), &[0x27, 0, 0, 0, 9]),
            (name("LoaderEntrySelected", LOADER), &[6, 0, 0, 0, b's', 0]),
            (name("LoaderEntryDefault", LOADER), &[7, 0, 0, 0, b'r', 0]),
            (name("LoaderEntryOneShot", LOADER), &[7, 0, 0, 0, b'o', 0]),
        ];
        let files: Vec<(&str, &[u8])> = shown.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        let dir = directory(&files);
        let vars = EfiVars::open(Some(dir.path()));
        assert!(vars.lost_at_restart());
        let kept = [("LoaderEntryDefault", LOADER, 7, &b"f\0"[..]), ("BootNext", GLOBAL, 7, &[1, 0])];
        let store = Store::read(&uboot::tests::file(&kept), "ubootefi.var on the ESP").unwrap();
        let vars = vars.kept_in(store);
        let data = |name: &str, vendor| vars.read(name, vendor).unwrap().map(|v| v.data);
        assert_eq!(data("SecureBoot", GLOBAL), Some(vec![1]));
        assert_eq!(data("db", SECURITY_DATABASE), Some(vec![9]));
        assert_eq!(data("LoaderEntrySelected", LOADER), Some(b"s\0".to_vec()));
        assert_eq!(data("LoaderEntryDefault", LOADER), Some(b"f\0".to_vec()));
        assert_eq!(data("LoaderEntryOneShot", LOADER), None);
        assert_eq!(data("BootNext", GLOBAL), Some(vec![1, 0]));
        assert_eq!(vars.origin().kind, OriginKind::UBoot);
        assert!(vars.list().unwrap().contains(&("BootNext".to_owned(), GLOBAL)));
        let nothing = vars.kept_in(Store::empty(StoreFormat::UBoot, "ubootefi.var"));
        assert_eq!(nothing.read("LoaderEntryDefault", LOADER).unwrap(), None);
        assert_eq!(nothing.read("SecureBoot", GLOBAL).unwrap().unwrap().data, [1]);
    }

    #[test]
    fn any_file_name_is_no_panic() {
        for name in [
            "",
            "-",
            "é-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f",
            "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f",
            "ßßßßßßßßßßßßßßßßßßßßß",
        ] {
            let _ = parse_name(name);
        }
        assert!(parse_name("-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f").is_none());
    }
}
