//! Sector writes, each whole and in the order the caller asks for.
//!
//! An [`Editor`] knows how to change a volume; it never decides when that is safe. Three rules hold in every method:
//! a change that a reader could see half-done is one write of one sector; what a sector refers to is written, and
//! behind a barrier, before the sector that refers to it; nothing is freed while something refers to it.
//! [`crate::surgery`] composes them into operations.

mod clusters;
mod content;
mod directory;
mod entries;

pub use content::{Content, Stamp};
pub use directory::{empty_directory, length_for_names};
pub use entries::{MARK, grown_cluster};

use super::dir::Directory;
use super::geometry::Geometry;
use super::runs::Clusters;
use super::table::AllocationTable;
use super::volume::Volume;
use crate::block::WriteAt;
use crate::{Code, Context, Error, Result};
use std::sync::Arc;

/// Changes a volume. `medium` is the volume and nothing else.
pub struct Editor<'m> {
    medium: &'m dyn WriteAt,
    geometry: Geometry,
    table: Arc<AllocationTable>,
    /// What the medium writes atomically, in bytes.
    unit: u64,
    /// Clusters promised to a caller and not linked yet.
    reserved: Clusters,
    /// The last cluster that was linked, for FSInfo.
    last_linked: Option<u32>,
}

impl<'m> Editor<'m> {
    /// Reads the volume's shape and its allocation table.
    ///
    /// # Errors
    /// As [`Volume::open`]; [`crate::Kind::Unsafe`] when the medium's sectors are larger than the volume's.
    pub fn open(medium: &'m dyn WriteAt) -> Result<Self> {
        Self::of_volume(Volume::open(medium)?)
    }

    /// As [`Self::open`], for a volume whose shape is known otherwise than from its boot sector.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of_volume(volume: Volume<&'m dyn WriteAt>) -> Result<Self> {
        let medium = *volume.source();
        let unit = medium.sector_size();
        let geometry = volume.geometry().clone();
        if unit < 512 || geometry.sector_bytes % unit != 0 {
            return Err(Error::refused(format!(
                "the file system has sectors of {} bytes, the medium of {unit}: no operating system can use it",
                geometry.sector_bytes
            )));
        }
        let table = volume.shared_table();
        Ok(Self { medium, geometry, table, unit: u64::from(unit), reserved: Clusters::default(), last_linked: None })
    }

    /// What it writes to.
    pub(crate) fn medium(&self) -> &'m dyn WriteAt {
        self.medium
    }

    /// The same editor on a view of its medium.
    pub(crate) fn on<'v>(&self, view: &'v dyn WriteAt) -> Editor<'v> {
        let Self { geometry, table, unit, reserved, last_linked, .. } = self;
        let (geometry, table, reserved) = (geometry.clone(), Arc::clone(table), reserved.clone());
        Editor { medium: view, geometry, table, unit: *unit, reserved, last_linked: *last_linked }
    }

    /// The volume's shape.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The allocation table as it stands after all that was linked and freed.
    #[must_use]
    pub fn table(&self) -> &AllocationTable {
        &self.table
    }

    /// The volume as it is now: its directories and files from the medium, its allocation table as this editor has read
    /// and written it. Nobody else writes to what was claimed; whoever has to know opens it anew ([`Volume::open`]).
    #[must_use]
    pub fn volume(&self) -> Volume<&'m dyn WriteAt> {
        Volume::with_table(self.medium, self.geometry.clone(), Arc::clone(&self.table))
    }

    /// A directory as it is on the medium now.
    ///
    /// # Errors
    /// [`Code::Unsafe`] when it does not exist: none is made here; [`crate::Kind::Rejected`] when it cannot be read.
    pub fn directory(&self, path: &str) -> Result<Directory> {
        self.volume().find_directory(path)?.ok_or_else(|| {
            Error::new(Code::Unsafe, format!("the volume has no directory {path}"))
                .advise("make it on the mounted volume, or with mtools' `mmd`, then run it again")
        })
    }

    /// Waits until everything written is on the medium.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn barrier(&self) -> Result<()> {
        self.medium.barrier().while_doing(|| "flushing the medium")
    }

    /// Every write goes through here.
    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        if at % self.unit != 0
            || bytes.len() as u64 % self.unit != 0
            || at + bytes.len() as u64 > self.geometry.total_bytes
        {
            return Err(Error::io(format!("internal error: a write of {} bytes at {at} was stopped", bytes.len())));
        }
        self.medium
            .write_all_at(bytes, at)
            .while_doing(|| format!("writing {} bytes at {at} of the volume", bytes.len()))
    }
}
