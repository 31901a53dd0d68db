//! ISO 9660 with Rock Ridge and El Torito: the UKI in a Talos Secure Boot ISO. Reads only.
//!
//! The reader underneath is `hadris-iso`. The crate that comes to mind first, `iso9660-rs`, knows no Rock Ridge (its
//! feature of that name is an empty stub): it sees `Talos-v1.12.4.efi` as `TALOS_V1_12_4.EFI`, looks at one boot entry
//! only and reads 2 KiB at a time. What stands here beside the crate:
//! - an adapter (`device`) that reads in 64 KiB pages and bounds what one operation may cost, because some listings are
//!   quadratic by nature (hard links, file versions) and directories may form loops;
//! - names without regard to case, as firmware and FAT treat them;
//! - a check that every extent handed out lies inside the source;
//! - the EFI boot images ([`Iso::efi_images`]), whose size El Torito does not say.
//!
//! Formats: ECMA-119 (ISO 9660), IEEE P1281 (SUSP) and P1282 (Rock Ridge), "El Torito" Bootable CD-ROM 1.0, UEFI 2.10
//! section 13.3.2.

mod boot;
mod device;
#[cfg(test)]
mod tests;

pub use boot::{EfiImage, EfiImageOrigin};

use crate::block::{Extent, ReadAt, read_vec};
use crate::units::exact;
use crate::{Context, Error, Result};
use device::Paged;
use hadris_fs::sync::FileSystem;
use hadris_fs::{DirCursor, DirEntry, FileType, MountOptions, NodeId};
use hadris_iso::sync::IsoFs;
use hadris_iso::{Detail, IsoId, Namespace};
use std::io;

/// Most entries that a directory may have. (The largest directories of Linux distributions' ISOs have a few thousand.)
pub const MAX_ENTRIES: usize = 131_072;
/// Most extents that a file may have: at nearly 4 GiB each, far more than an ISO can hold.
const MAX_EXTENTS: usize = 1024;
/// Most bytes of names and extents that one listing may take in memory.
const MAX_LISTING: usize = 16 << 20;

/// Whether `source` is an ISO 9660 volume: `CD001` in the descriptor at sector 16.
///
/// # Errors
/// What the source reports.
pub fn is_iso(source: &(impl ReadAt + ?Sized)) -> Result<bool> {
    const AT: u64 = 0x8001;
    if source.size() < AT + 5 {
        return Ok(false);
    }
    Ok(read_vec(source, AT, 5)? == b"CD001")
}

/// A file or directory of an ISO.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IsoEntry {
    /// Name as on the medium: Rock Ridge's, else Joliet's, else the plain one without its version.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes.
    pub bytes: u64,
    /// Where the bytes lie, in order. All of it lies inside the source; neighbours are joined.
    pub extents: Vec<Extent>,
    id: NodeId,
}

/// An ISO 9660 volume in a source.
pub struct Iso<S> {
    fs: IsoFs<Paged<S>>,
}

impl<S: ReadAt> Iso<S> {
    /// Reads the volume descriptors at sector 16. (A second set at sector 32, for use as a partition, describes the
    /// same files and is left alone.)
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when it is no ISO 9660 volume or its descriptors are malformed.
    pub fn open(source: S) -> Result<Self> {
        let size = source.size();
        let fs = IsoFs::mount(Paged::new(source), MountOptions::new())
            .map_err(|e| iso_error(e.into_error(), size))
            .while_doing(|| "reading the ISO's volume descriptors")?;
        Ok(Self { fs })
    }

    /// The volume identifier without its padding, for example `TALOS_SB`.
    pub fn volume_id(&self) -> String {
        let id = String::from_utf8_lossy(self.fs.info().id(IsoId::Volume));
        id.trim_end_matches([' ', '\0']).to_owned()
    }

    /// The file or directory at `path` (components separated by `/`; the empty path is the root). Each component
    /// matches exactly if it can, else without regard to case.
    ///
    /// # Errors
    /// As [`Self::read_dir`]; also [`crate::Kind::Rejected`] when a directory on the way is its own ancestor.
    pub fn find(&mut self, path: &str) -> Result<Option<IsoEntry>> {
        let mut node = self.root()?;
        let mut above = vec![node.id];
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if !node.is_dir {
                return Ok(None);
            }
            let nodes = self.read_dir(&node)?;
            let lower = name.to_lowercase();
            let exact = nodes.iter().position(|n| n.name == name);
            let Some(i) = exact.or_else(|| nodes.iter().position(|n| n.name.to_lowercase() == lower)) else {
                return Ok(None);
            };
            node = nodes.into_iter().nth(i).unwrap_or(node);
            if above.contains(&node.id) {
                return Err(Error::rejected(format!("{} in the ISO is its own ancestor: a directory loop", node.name)));
            }
            above.push(node.id);
        }
        Ok(Some(node))
    }

    /// The files and directories in `dir`, in the order of the medium. Symbolic links and device nodes are left out:
    /// firmware knows neither.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when `dir` is a file, a record or a Rock Ridge area is damaged, an extent lies past
    /// the end of the source (a truncated ISO), or the directory has more than [`MAX_ENTRIES`] entries.
    pub fn read_dir(&mut self, dir: &IsoEntry) -> Result<Vec<IsoEntry>> {
        self.list(dir).while_doing(|| format!("listing /{} in the ISO", dir.name))
    }

    fn list(&mut self, dir: &IsoEntry) -> Result<Vec<IsoEntry>> {
        if !dir.is_dir {
            return Err(Error::rejected("not a directory"));
        }
        self.fs.device().new_operation();
        let mut nodes = Vec::new();
        let mut memory = 0usize;
        let mut seen = 0;
        let mut cursor = DirCursor::START;
        loop {
            let entry = self.fs.readdir(dir.id, cursor);
            let Some(entry) = entry.map_err(|e| iso_error(e, self.size()))? else { break };
            cursor = entry.next_cursor();
            seen += 1;
            let node = self.node(&entry)?;
            if let Some(node) = &node {
                memory = memory.saturating_add(node.name.len() + node.extents.len() * size_of::<Extent>());
            }
            if seen > MAX_ENTRIES || memory > MAX_LISTING {
                return Err(Error::rejected(format!(
                    "more than {MAX_ENTRIES} entries, or names and extents of more \
                     than {MAX_LISTING} bytes, in one directory"
                )));
            }
            nodes.extend(node);
        }
        Ok(nodes)
    }

    /// `None` for what is neither a file nor a directory.
    fn node(&mut self, entry: &DirEntry) -> Result<Option<IsoEntry>> {
        let name = String::from_utf8_lossy(entry.name().as_bytes()).into_owned();
        let meta = entry.metadata();
        // The reader shows an entry whose Rock Ridge area is damaged under its plain name, with an empty mode and no
        // time. That is another name than the file has: better none at all.
        if self.fs.namespace() == Namespace::RockRidge && meta.permissions().bits() == 0 && meta.modified().is_none() {
            return Err(Error::rejected(format!("the Rock Ridge entries (long name) of {name} are damaged")));
        }
        let is_dir = match entry.file_type() {
            FileType::Dir => true,
            FileType::File => false,
            _ => return Ok(None),
        };
        self.extents(entry.node(), &name, (!is_dir).then_some(meta.len()))
            .map(|(bytes, extents)| Some(IsoEntry { name, is_dir, bytes, extents, id: entry.node() }))
    }

    fn root(&mut self) -> Result<IsoEntry> {
        self.fs.device().new_operation();
        let id = self.fs.root();
        let (bytes, extents) = self.extents(id, "", None)?;
        Ok(IsoEntry { name: String::new(), is_dir: true, bytes, extents, id })
    }

    /// Length and extents of a node; `expected` is the length that the listing gave.
    fn extents(&mut self, id: NodeId, name: &str, expected: Option<u64>) -> Result<(u64, Vec<Extent>)> {
        let size = self.size();
        // Files below 4 GiB have one extent each, and there may be thousands of them.
        let room = if expected.is_some_and(|n| n > u64::from(u32::MAX)) { MAX_EXTENTS } else { 64 };
        let mut raw = vec![hadris_fs::Extent::new(0, 0); room];
        let count = self.fs.extents(id, 0, &mut raw).map_err(|e| iso_error(e, size))?;
        let mut extents: Vec<Extent> = Vec::new();
        let mut bytes = 0u64;
        for e in raw.iter().take(count) {
            let extent = Extent { offset: e.offset(), bytes: e.len() };
            self.check_inside(extent, name)?;
            bytes = bytes.saturating_add(extent.bytes);
            match extents.last_mut() {
                Some(last) if last.offset + last.bytes == extent.offset => last.bytes += extent.bytes,
                _ => extents.push(extent),
            }
        }
        if expected.is_some_and(|n| n != bytes) {
            return Err(Error::rejected(format!("{name} has too many extents, or records that contradict each other")));
        }
        self.check_not_interleaved(id, name, count.max(1))?;
        Ok((bytes, extents))
    }

    /// Interleaved files (ECMA-119 6.4.3) have gaps that extents do not show.
    fn check_not_interleaved(&mut self, id: NodeId, name: &str, count: usize) -> Result<()> {
        let size = self.size();
        let mut records = vec![hadris_fs::Extent::new(0, 0); count + 64];
        let count = self.fs.records(id, &mut records).map_err(|e| iso_error(e, size))?;
        for record in records.iter().take(count) {
            let mut head = [0; 28];
            self.fs.read_raw(record.offset(), &mut head).map_err(|e| iso_error(e, size))?;
            if head[26] != 0 || head[27] != 0 {
                return Err(Error::rejected(format!("{name} in the ISO is interleaved, which nobody makes or reads")));
            }
        }
        Ok(())
    }

    /// An extent past the end means that part of the ISO is missing.
    fn check_inside(&self, extent: Extent, what: &str) -> Result<()> {
        if crate::block::check_range(self.size(), extent.offset, extent.bytes).is_ok() {
            return Ok(());
        }
        let whole = u64::from(self.fs.info().volume_space_size()) * u64::from(self.fs.info().block_size());
        Err(truncated(format!(
            "{what} ends at byte {}, and the file at byte {}; the volume descriptor says {}",
            extent.offset.saturating_add(extent.bytes),
            self.size(),
            exact(whole)
        )))
    }

    fn size(&self) -> u64 {
        self.fs.device().size()
    }
}

fn truncated(why: impl std::fmt::Display) -> Error {
    Error::rejected(format!("the ISO is truncated: {why}")).advise("download it again")
}

fn iso_error(e: hadris_fs::Error<io::Error>, size: u64) -> Error {
    if Detail::of(&e) == Some(Detail::OutsideImage) {
        return truncated(format!("a structure lies past its end at {}", exact(size)));
    }
    let message = e.to_string();
    e.into_device_error().map_or_else(|| Error::rejected(format!("ISO 9660: {message}")), Error::from)
}
