//! The files of a board beside its images: boot loader, device trees, the firmware that a board reads from its ESP,
//! and their settings. Talos's installer puts them there from an overlay; a swap of the image alone leaves them as
//! they are.
//!
//! | part | job |
//! | --- | --- |
//! | [`BoardFiles`] | the regular files of a volume, with what sort each is |
//! | [`BoardSource`] | the volume of an image that holds such files: an ISO's EFI image, a disk's ESP, a FAT image |
//! | [`compare`] | what is the same, what differs, what only one of two volumes has |
//! | [`raw_loaders`] | boot loaders in sectors of a disk, outside of any file system |
//!
//! Reads only. Nothing of a file's content is kept in memory but the piece that is compared; the numbers of files and
//! directories that are looked at have limits, and what lies beyond them is said to be unknown.
//!
//! Layouts that were looked at: the overlay installers siderolabs/sbc-raspberrypi (firmware files, `u-boot.bin`,
//! device trees, `overlays/`, `config.txt`), sbc-rockchip and sbc-allwinner (a device tree in `dtb/`, U-Boot in sectors
//! outside any file system), sbc-jetson (a device tree in `dtb/`).

mod compare;
mod raw;
mod sort;
mod source;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use compare::{Compared, Relation, compare};
pub use raw::{RawLoader, raw_loaders};
pub use sort::Sort;
pub use source::BoardSource;

use crate::block::{Pieces, ReadAt};
use crate::fat::{Entry, Volume, check_long_name, folded};
use crate::{Context, Result};
use std::collections::BTreeSet;

/// Files that are looked at. The firmware of a Raspberry Pi has 400, most of them overlays.
const MAX_FILES: usize = 4096;
/// Directories that are looked into.
const MAX_DIRECTORIES: usize = 512;
/// Directories above a file.
const MAX_DEPTH: usize = 8;
/// Bytes of all paths and what belongs to them.
const MAX_MEMORY: usize = 4 << 20;

/// A file of the board.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BoardFile {
    /// From the root of the volume, in the case of the medium: `overlays/vc4-kms-v3d.dtbo`.
    pub path: String,
    /// What sort it is.
    pub sort: Sort,
    /// Its directory entry.
    pub entry: Entry,
}

impl BoardFile {
    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.entry.bytes)
    }

    /// Its bytes, to be read piece by piece. `volume` is the one that it was found on.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when its chain of clusters is broken.
    pub fn open<'v, S: ReadAt>(&self, volume: &'v Volume<S>) -> Result<Pieces<&'v S>> {
        volume.file(&self.entry).while_doing(|| self.path.clone())
    }
}

/// The files of a board on a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BoardFiles {
    /// The files, ordered by path as FAT tells names apart.
    pub files: Vec<BoardFile>,
    /// What could not be looked at, and why. Where this is not empty, a file that is missing here may be on the volume
    /// all the same.
    pub trouble: Vec<String>,
}

impl BoardFiles {
    /// Looks through a volume. Images, backups, records and what other systems leave behind are no files of the board
    /// ([`Sort::of`]).
    ///
    /// # Errors
    /// What the source reports. Damage is [`Self::trouble`].
    pub fn read<S: ReadAt>(volume: &Volume<S>) -> Result<Self> {
        let mut walk = Walk::default();
        let mut left: Vec<(String, Option<Entry>)> = vec![(String::new(), None)];
        while let Some((path, entry)) = left.pop() {
            let read = entry.as_ref().map_or_else(|| volume.root(), |entry| volume.directory(entry));
            match read {
                Ok(directory) => walk.take(&path, directory.entries, &mut left),
                Err(e) if e.code().is_bad_content() => walk.trouble.push(e.to_string()),
                Err(e) => return Err(e),
            }
        }
        walk.files.sort_by_cached_key(|file| folded(&file.path));
        Ok(Self { files: walk.files, trouble: walk.trouble })
    }

    /// The file of this path, by FAT's rules.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&BoardFile> {
        let wanted = folded(path);
        self.files.binary_search_by(|file| folded(&file.path).cmp(&wanted)).ok().and_then(|at| self.files.get(at))
    }
}

/// What was found so far.
#[derive(Default)]
struct Walk {
    files: Vec<BoardFile>,
    trouble: Vec<String>,
    /// Paths as FAT tells them apart, those of directories among them.
    paths: BTreeSet<String>,
    /// First clusters of directories: one that is met again leads round in a circle.
    clusters: BTreeSet<u32>,
    memory: usize,
    full: bool,
}

impl Walk {
    /// Takes the entries of the directory `path`; its directories go to `left`.
    fn take(&mut self, path: &str, entries: Vec<Entry>, left: &mut Vec<(String, Option<Entry>)>) {
        for entry in entries.into_iter().filter(|e| !e.is_dot()) {
            let path = if path.is_empty() { entry.name.clone() } else { format!("{path}/{}", entry.name) };
            let sort = Sort::of(&path);
            if sort.is_none() && !entry.is_dir() || entry.is_dir() && Sort::is_passed_over(&path) {
                continue;
            }
            self.memory = self.memory.saturating_add(3 * path.len() + size_of::<BoardFile>());
            let is_full = self.files.len() >= MAX_FILES || self.memory > MAX_MEMORY;
            if is_full || entry.is_dir() && self.clusters.len() >= MAX_DIRECTORIES {
                self.overflow();
                continue;
            }
            if let Err(why) = check_long_name(&entry.name) {
                self.note(why.to_string());
            } else if !self.paths.insert(folded(&path)) {
                self.note(format!("{path} is there twice"));
            } else if !entry.is_dir() {
                self.files.extend(sort.map(|sort| BoardFile { path, sort, entry }));
            } else if path.split('/').count() > MAX_DEPTH {
                self.note(format!("{path} lies too deep"));
            } else if self.clusters.insert(entry.first_cluster) {
                left.push((path, Some(entry)));
            } else {
                self.note(format!("{path} is another directory once more"));
            }
        }
    }

    /// Once is enough.
    fn overflow(&mut self) {
        if !std::mem::replace(&mut self.full, true) {
            self.trouble.push(format!(
                "there are more than {MAX_FILES} files or {MAX_DIRECTORIES} directories: the others are not looked at"
            ));
        }
    }

    fn note(&mut self, what: String) {
        // Each stands for a name that is kept, or the limit above.
        if self.trouble.len() < 64 {
            self.trouble.push(what);
        }
    }
}
