//! Reading a volume: directories by path, files by their extents.

use super::dir::{Directory, Entry};
use super::geometry::{Geometry, Root};
use super::runs::Run;
use super::table::AllocationTable;
use crate::block::{Extent, Pieces, ReadAt, read_vec};
use crate::units::{exact, size};
use crate::{Context, Error, Result};
use std::sync::Arc;

/// The largest directory the format allows, in bytes: 65,536 slots.
pub const MAX_DIRECTORY: u64 = 65_536 * 32;

/// A FAT volume, read-only. Offsets are in bytes from the start of `source`, which is the volume and nothing else.
pub struct Volume<S> {
    source: S,
    geometry: Geometry,
    table: Arc<AllocationTable>,
}

impl<S: ReadAt> Volume<S> {
    /// Reads the boot sector and the allocation table.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when it is not a FAT volume this tool can use; what the source reports.
    pub fn open(source: S) -> Result<Self> {
        let geometry = Geometry::read(&source)?;
        let table = AllocationTable::read(&source, &geometry, geometry.active_fat)
            .while_doing(|| "reading the file allocation table")?;
        Ok(Self { source, geometry, table: Arc::new(table) })
    }

    /// The volume as another copy of the allocation table describes it.
    #[must_use]
    pub fn with_table(source: S, geometry: Geometry, table: impl Into<Arc<AllocationTable>>) -> Self {
        Self { source, geometry, table: table.into() }
    }

    /// The volume's shape.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The active copy of the allocation table.
    #[must_use]
    pub fn table(&self) -> &AllocationTable {
        &self.table
    }

    /// The same, shared: a table may be megabytes long.
    #[must_use]
    pub fn shared_table(&self) -> Arc<AllocationTable> {
        Arc::clone(&self.table)
    }

    /// What the volume is read from.
    #[must_use]
    pub fn source(&self) -> &S {
        &self.source
    }

    /// What the volume was read from, given back.
    #[must_use]
    pub fn into_source(self) -> S {
        self.source
    }

    /// Free space in bytes, counted in the allocation table.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        u64::from(self.table.free_clusters()) * u64::from(self.geometry.cluster_bytes)
    }

    /// The root directory.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn root(&self) -> Result<Directory> {
        match self.geometry.root {
            Root::Fixed { offset, bytes } => {
                let raw = read_vec(&self.source, offset, bytes as usize)?;
                Ok(Directory::parse(raw, vec![Extent { offset, bytes }], Vec::new(), false))
            }
            Root::Chain(first) => self.directory_at(first).while_doing(|| "reading the root directory"),
        }
    }

    /// The directory an entry names.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when its chain is broken or it is larger than the format allows.
    pub fn directory(&self, entry: &Entry) -> Result<Directory> {
        // `..` of a directory in the root has cluster 0.
        if entry.first_cluster == 0 {
            return self.root();
        }
        self.directory_at(entry.first_cluster).while_doing(|| format!("reading directory {}", entry.name))
    }

    fn directory_at(&self, first: u32) -> Result<Directory> {
        let runs = self.table.chain(first)?;
        let extents = self.extents_of(&runs);
        self.all_there(&extents)?;
        let bytes: u64 = extents.iter().map(|e| e.bytes).sum();
        if bytes > MAX_DIRECTORY.max(u64::from(self.geometry.cluster_bytes)) {
            return Err(Error::rejected(format!(
                "a directory of {}; the format allows {}",
                size(bytes),
                size(MAX_DIRECTORY)
            )));
        }
        let pieces = Pieces::new(&self.source, extents.clone())?;
        let raw = read_vec(&pieces, 0, bytes as usize)?;
        Ok(Directory::parse(raw, extents, runs, matches!(self.geometry.root, Root::Chain(_))))
    }

    /// The directory at `path` (components separated by `/`, without regard to case), or `None` if there is none.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn find_directory(&self, path: &str) -> Result<Option<Directory>> {
        let mut at = self.root()?;
        for component in path.split('/').filter(|c| !c.is_empty()) {
            let Some(entry) = at.find(component).filter(|e| e.is_dir()) else { return Ok(None) };
            at = self.directory(entry)?;
        }
        Ok(Some(at))
    }

    /// The file or directory at `path`, or `None` if there is none.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn find(&self, path: &str) -> Result<Option<Entry>> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(self.find_directory(parent)?.and_then(|d| d.find(name).cloned()))
    }

    /// The files and directories in `path` in on-disk order without `.` and `..`, or `None` if there is no such
    /// directory.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn list(&self, path: &str) -> Result<Option<Vec<Entry>>> {
        let Some(directory) = self.find_directory(path)? else { return Ok(None) };
        Ok(Some(directory.entries.into_iter().filter(|e| !e.is_dot()).collect()))
    }

    /// Where a file's bytes lie.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when its chain is broken or shorter than its size.
    pub fn extents(&self, entry: &Entry) -> Result<Vec<Extent>> {
        if entry.bytes == 0 {
            return Ok(Vec::new());
        }
        let runs = self.table.chain(entry.first_cluster).while_doing(|| format!("reading {}", entry.name))?;
        let mut extents = self.extents_of(&runs);
        let mut left = u64::from(entry.bytes);
        for e in &mut extents {
            e.bytes = e.bytes.min(left);
            left -= e.bytes;
        }
        if left > 0 {
            return Err(Error::rejected(format!(
                "{} is {} long, but its clusters hold {} less",
                entry.name,
                exact(u64::from(entry.bytes)),
                exact(left)
            )));
        }
        extents.retain(|e| e.bytes > 0);
        self.all_there(&extents).while_doing(|| format!("reading {}", entry.name))?;
        Ok(extents)
    }

    /// A file's bytes as a source of their own.
    ///
    /// # Errors
    /// As [`Self::extents`].
    pub fn file(&self, entry: &Entry) -> Result<Pieces<&S>> {
        Ok(Pieces::new(&self.source, self.extents(entry)?)?)
    }

    /// A small file, whole: `None` when there is no such file.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when it is longer than `limit` bytes or its chain is broken.
    pub fn read_small(&self, path: &str, limit: u32) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.find(path)?.filter(|e| !e.is_dir()) else { return Ok(None) };
        if entry.bytes > limit {
            return Err(Error::rejected(format!(
                "{path} is {} long; at most {} were expected",
                exact(u64::from(entry.bytes)),
                size(u64::from(limit))
            )));
        }
        Ok(Some(read_vec(&self.file(&entry)?, 0, entry.bytes as usize)?))
    }

    /// Refuses what lies behind the end of a source that is shorter than its volume.
    fn all_there(&self, extents: &[Extent]) -> Result<()> {
        let there = self.geometry.present_bytes();
        match extents.iter().find(|e| e.offset + e.bytes > there) {
            Some(e) => Err(Error::rejected(format!(
                "it has bytes up to {} of the volume, and only {there} of the volume are there",
                e.offset + e.bytes
            ))),
            None => Ok(()),
        }
    }

    /// Where runs of clusters lie in the volume.
    #[must_use]
    pub fn extents_of(&self, runs: &[Run]) -> Vec<Extent> {
        let cluster = u64::from(self.geometry.cluster_bytes);
        runs.iter()
            .map(|r| Extent { offset: self.geometry.cluster_offset(r.first), bytes: u64::from(r.count) * cluster })
            .collect()
    }
}
