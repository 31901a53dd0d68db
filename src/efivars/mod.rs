//! EFI variables, read from an efivarfs directory and never written.
//!
//! Linux shows each variable as a file `<Name>-<guid>`: 4 bytes of attributes (little endian), then the data
//! (kernel documentation "efivarfs"). The directory may be absent (no UEFI, a container without the mount) or a copy
//! made elsewhere; it is always an optional input.

use crate::{Context, Error, Result};
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

/// The variables that decide what systemd-boot starts, all of vendor [`LOADER`].
pub const LOADER_SELECTION: [&str; 8] = [
    "LoaderEntryOneShot",
    "LoaderEntryPreferred",
    "LoaderEntryDefault",
    "LoaderEntrySysFail",
    "LoaderEntryLastBooted",
    "LoaderEntrySelected",
    "LoaderConfigTimeout",
    "LoaderConfigTimeoutOneShot",
];

/// Where Linux mounts efivarfs.
pub const DEFAULT_DIR: &str = "/sys/firmware/efi/efivars";
/// Larger variables are refused, in bytes. Firmware stores hold 64 to 256 KiB in all.
const MAX_VARIABLE: u64 = 1024 * 1024;
/// More files than this are not listed.
const MAX_FILES: usize = 65_536;

/// One variable as efivarfs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// `EFI_VARIABLE_*` attribute bits: 1 non-volatile, 2 boot services, 4 run time, 0x20 time-based authentication.
    pub attributes: u32,
    /// The value.
    pub data: Vec<u8>,
}

/// An efivarfs directory, or the reason why there is none.
#[derive(Debug, Clone)]
pub struct EfiVars(Result<PathBuf, String>);

impl EfiVars {
    /// Takes a directory; `None` when the user wants none. A directory that is missing or cannot be listed is not an
    /// error: the state is then [`Self::unavailable`].
    #[must_use]
    pub fn open(dir: Option<&Path>) -> Self {
        let Some(dir) = dir else { return Self(Err("no EFI variables were asked for".into())) };
        match std::fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
            Ok(true) => Self(Ok(dir.to_owned())),
            // Without UEFI the mount point exists and is empty.
            Ok(false) => Self(Err(format!("{} is empty: no UEFI here, or efivarfs is not mounted", dir.display()))),
            Err(e) => Self(Err(format!("{}: {e}", dir.display()))),
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

    /// Why there are no variables, if there are none.
    #[must_use]
    pub fn unavailable(&self) -> Option<&str> {
        self.0.as_ref().err().map(String::as_str)
    }

    /// The directory, if there is one.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        self.0.as_ref().ok().map(PathBuf::as_path)
    }

    /// Reads a variable; `None` when it does not exist or there are no variables at all.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when it exists and cannot be read, has more than 1 MiB or lacks its attributes.
    pub fn read(&self, name: &str, vendor: Uuid) -> Result<Option<Variable>> {
        let Ok(dir) = &self.0 else { return Ok(None) };
        if name.is_empty() || name.contains(['/', '\0']) {
            return Err(Error::usage(format!("{name:?} is no name of an EFI variable")));
        }
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
        let Ok(dir) = &self.0 else { return Ok(Vec::new()) };
        let list = || -> Result<Vec<(String, Uuid)>> {
            let mut all = Vec::new();
            for entry in std::fs::read_dir(dir)?.take(MAX_FILES) {
                all.extend(entry?.file_name().to_str().and_then(parse_name));
            }
            all.sort();
            Ok(all)
        };
        list().while_doing(|| format!("listing the EFI variables in {}", dir.display()))
    }
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
