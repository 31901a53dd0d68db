//! EFI variables in a file: how they are found and what is kept of them.

use super::entries::Entries;
use super::{Variable, edk2, uboot};
use crate::block::{ReadAt, read_vec};
use crate::units::size;
use crate::{Error, Result};
use serde::Serialize;
use std::sync::Arc;
use uuid::Uuid;

/// A larger file of U-Boot's is refused, in bytes. U-Boot's own limit is 16 to 128 KiB.
const MAX_UBOOT: u64 = 4 * 1024 * 1024;

/// Who wrote a file of variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StoreFormat {
    /// U-Boot: `ubootefi.var`.
    UBoot,
    /// EDK II: a flash image such as `RPI_EFI.fd` or `OVMF_VARS.fd`.
    Edk2,
}

/// EFI variables from a file.
#[derive(Debug, Clone)]
pub struct Store {
    /// Who wrote it.
    pub format: StoreFormat,
    /// For people: where the file is.
    pub place: String,
    /// Why it is taken to be empty, where there is no file.
    missing: Option<String>,
    entries: Arc<Entries>,
}

impl Store {
    /// Reads a file of variables; `place` says for people which one it is.
    ///
    /// # Errors
    /// [`crate::Code::Malformed`] when it is none, or a damaged one, which its firmware would not use either; what the
    /// source reports.
    pub fn read(source: &dyn ReadAt, place: &str) -> Result<Self> {
        let read = || -> Result<Self> {
            let head = read_vec(source, 0, source.size().min(16) as usize)?;
            let (format, entries) = if uboot::is_store(&head) {
                if source.size() > MAX_UBOOT {
                    return Err(Error::rejected(format!(
                        "{} are too many for U-Boot's variables",
                        size(source.size())
                    )));
                }
                (StoreFormat::UBoot, uboot::parse(&read_vec(source, 0, source.size() as usize)?)?)
            } else {
                (StoreFormat::Edk2, edk2::read(source)?)
            };
            Ok(Self { format, place: place.to_owned(), missing: None, entries: Arc::new(entries) })
        };
        read().map_err(|e| e.while_doing(format!("reading the EFI variables in {place}")))
    }

    /// A store without variables: what U-Boot has when it ignores the file.
    #[must_use]
    pub fn empty(format: StoreFormat, place: &str) -> Self {
        Self { format, place: place.to_owned(), missing: None, entries: Arc::default() }
    }

    /// A store without variables, because there is no file; `why` is for people.
    #[must_use]
    pub fn missing(format: StoreFormat, place: &str, why: &str) -> Self {
        Self { missing: Some(why.to_owned()), ..Self::empty(format, place) }
    }

    /// Why it is taken to be empty, where there is no file.
    pub(super) fn why_missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    /// A variable.
    #[must_use]
    pub fn get(&self, name: &str, vendor: Uuid) -> Option<&Variable> {
        self.entries.get(name, vendor)
    }

    /// What is odd about the file.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.entries.warnings
    }

    /// Names and vendors, sorted.
    pub(super) fn list(&self) -> Vec<(String, Uuid)> {
        self.entries.all.keys().cloned().collect()
    }

    /// Whether the firmware takes this variable from the store at its next start, if it is there.
    pub(super) fn keeps(&self, name: &str, vendor: Uuid) -> bool {
        match self.format {
            StoreFormat::UBoot => uboot::keeps(name, vendor),
            StoreFormat::Edk2 => true,
        }
    }
}
