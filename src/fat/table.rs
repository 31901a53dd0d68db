//! The allocation table: one entry per cluster, forming chains.

use super::geometry::{FatKind, Geometry};
use crate::block::{KEPT_READ, ReadAt, check_range};
use crate::units::size;
use crate::{Error, Result};

/// The largest table that is loaded, in bytes: eight million FAT32 clusters. An ESP of 2 GiB has 2 MiB.
const MAX_TABLE: u64 = 32 * 1024 * 1024;

/// Tables of up to so many bytes are compared whole with their copies.
const COMPARED_WHOLE: usize = 1 << 20;

/// What an entry of the table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The cluster belongs to nothing.
    Free,
    /// The chain goes on in this cluster (which may not exist: check).
    Next(u32),
    /// Last cluster of its chain.
    End,
    /// Marked defective.
    Bad,
}

/// Clusters that follow each other on the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first one.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Run {
    /// The numbers of its clusters.
    pub fn clusters(self) -> impl DoubleEndedIterator<Item = u32> {
        self.first..self.first + self.count
    }
}

/// One copy of the allocation table, in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocationTable {
    kind: FatKind,
    clusters: u32,
    bytes: Vec<u8>,
}

impl AllocationTable {
    /// Reads copy `n`.
    ///
    /// # Errors
    /// What the source reports; [`crate::Kind::Rejected`] when the table is larger than any ESP's.
    pub fn read(source: &(impl ReadAt + ?Sized), geometry: &Geometry, n: u8) -> Result<Self> {
        Self::read_parts(source, geometry, n, |_| true)
    }

    /// Reads copy `n` as far as it can contradict `active` in something that a file or directory depends on: where a
    /// long table has nothing but free clusters by `active`, all of a part, the copy is not read and taken for equal.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_where_used(
        source: &(impl ReadAt + ?Sized),
        geometry: &Geometry,
        n: u8,
        active: &Self,
    ) -> Result<Self> {
        let is_whole = active.bytes.len() <= COMPARED_WHOLE;
        Self::read_parts(source, geometry, n, |part| {
            let ours = active.bytes.get(part).unwrap_or_default();
            is_whole || ours.iter().any(|b| *b != 0)
        })
    }

    /// Reads those parts of copy `n` that `wanted` asks for by their byte range; the others are zeros.
    fn read_parts(
        source: &(impl ReadAt + ?Sized),
        geometry: &Geometry,
        n: u8,
        wanted: impl Fn(std::ops::Range<usize>) -> bool,
    ) -> Result<Self> {
        // Only the part that describes clusters; the rest of the last sectors is padding.
        let bits = match geometry.kind {
            FatKind::Fat12 => 12,
            FatKind::Fat16 => 16,
            FatKind::Fat32 => 32,
        };
        let used = (u64::from(geometry.clusters) + 2) * bits;
        let bytes = used.div_ceil(8).next_multiple_of(u64::from(geometry.sector_bytes)).min(geometry.fat_bytes);
        if bytes > MAX_TABLE {
            return Err(Error::rejected(format!(
                "a file allocation table of {} is larger than any EFI System Partition needs",
                size(bytes)
            )));
        }
        let offset = geometry.fat_copy_offset(n);
        check_range(source.size(), offset, bytes)?;
        let mut bytes = vec![0; bytes as usize];
        // In parts that `Cached` keeps.
        for (i, part) in bytes.chunks_mut(KEPT_READ).enumerate() {
            let at = i * KEPT_READ;
            if wanted(at..at + part.len()) {
                source.read_exact_at(part, offset + at as u64)?;
            }
        }
        Ok(Self { kind: geometry.kind, clusters: geometry.clusters, bytes })
    }

    /// The bytes as they stand on the medium, whole sectors, without padding behind the last cluster's sector.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The raw value of an entry, with the reserved upper bits of FAT32 masked off.
    #[must_use]
    pub fn raw(&self, cluster: u32) -> u32 {
        let n = cluster as usize;
        let byte = |at: usize| u32::from(self.bytes.get(at).copied().unwrap_or(0));
        match self.kind {
            FatKind::Fat12 => {
                let at = n + n / 2;
                let pair = byte(at) | byte(at + 1) << 8;
                if n % 2 == 0 { pair & 0xFFF } else { pair >> 4 }
            }
            FatKind::Fat16 => byte(2 * n) | byte(2 * n + 1) << 8,
            FatKind::Fat32 => {
                let at = 4 * n;
                (byte(at) | byte(at + 1) << 8 | byte(at + 2) << 16 | byte(at + 3) << 24) & 0x0FFF_FFFF
            }
        }
    }

    /// What the entry of a cluster says.
    #[must_use]
    pub fn link(&self, cluster: u32) -> Link {
        match self.raw(cluster) {
            0 => Link::Free,
            v if v >= self.kind.end_mark() => Link::End,
            v if v == self.kind.bad_mark() => Link::Bad,
            v => Link::Next(v),
        }
    }

    /// Sets an entry, keeping the reserved upper bits of FAT32. Returns the byte range of the table that changed.
    pub(super) fn set(&mut self, cluster: u32, link: Link) -> std::ops::Range<usize> {
        let value = match link {
            Link::Free => 0,
            Link::Next(n) => n & self.kind.mask(),
            Link::End => self.kind.mask(),
            Link::Bad => self.kind.bad_mark(),
        };
        let n = cluster as usize;
        match self.kind {
            FatKind::Fat12 => {
                let at = n + n / 2;
                if let Some([low, high]) = self.bytes.get_mut(at..at + 2) {
                    if n % 2 == 0 {
                        *low = value as u8;
                        *high = (*high & 0xF0) | (value >> 8) as u8;
                    } else {
                        *low = (*low & 0x0F) | (value << 4) as u8;
                        *high = (value >> 4) as u8;
                    }
                }
                at..at + 2
            }
            FatKind::Fat16 => {
                if let Some(entry) = self.bytes.get_mut(2 * n..2 * n + 2) {
                    entry.copy_from_slice(&(value as u16).to_le_bytes());
                }
                2 * n..2 * n + 2
            }
            FatKind::Fat32 => {
                if let Some(entry) = self.bytes.get_mut(4 * n..4 * n + 4) {
                    let kept = entry[3] & 0xF0;
                    entry.copy_from_slice(&value.to_le_bytes());
                    entry[3] |= kept;
                }
                4 * n..4 * n + 4
            }
        }
    }

    /// The sector of the table, counted from its start, in which a cluster's entry begins.
    #[must_use]
    pub fn sector_of(&self, cluster: u32, sector_bytes: u32) -> u32 {
        let n = u64::from(cluster);
        let at = match self.kind {
            FatKind::Fat12 => n + n / 2,
            FatKind::Fat16 => 2 * n,
            FatKind::Fat32 => 4 * n,
        };
        (at / u64::from(sector_bytes)) as u32
    }

    /// Whether a cluster's entry lies in two sectors, as one in a few hundred does on FAT12.
    #[must_use]
    pub fn is_split(&self, cluster: u32, sector_bytes: u32) -> bool {
        let n = u64::from(cluster);
        self.kind == FatKind::Fat12 && (n + n / 2) % u64::from(sector_bytes) == u64::from(sector_bytes) - 1
    }

    /// All valid cluster numbers.
    pub fn clusters(&self) -> std::ops::Range<u32> {
        2..self.clusters + 2
    }

    /// How many clusters are free.
    #[must_use]
    pub fn free_clusters(&self) -> u32 {
        self.clusters().filter(|c| self.raw(*c) == 0).count() as u32
    }

    /// The chain that begins at `first`, as runs.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when the chain loops, leaves the volume, or runs into a free or defective cluster.
    pub fn chain(&self, first: u32) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        let mut at = first;
        let mut seen = 0u32;
        loop {
            if !self.clusters().contains(&at) {
                return Err(broken(first, format!("leads to cluster {at}, which does not exist")));
            }
            seen += 1;
            if seen > self.clusters {
                return Err(broken(first, "never ends: it is a loop".into()));
            }
            match runs.last_mut() {
                Some(run) if run.first + run.count == at => run.count += 1,
                _ => runs.push(Run { first: at, count: 1 }),
            }
            match self.link(at) {
                Link::Next(next) => at = next,
                Link::End => return Ok(runs),
                Link::Free => return Err(broken(first, format!("runs into cluster {at}, which is free"))),
                Link::Bad => return Err(broken(first, format!("runs into cluster {at}, which is marked defective"))),
            }
        }
    }

    /// Whether a chain runs into a cluster that is marked defective.
    pub(super) fn meets_defective(&self, first: u32) -> bool {
        let next = |at: &u32| match self.link(*at) {
            Link::Next(next) if self.clusters().contains(&next) => Some(next),
            _ => None,
        };
        let chain = std::iter::successors(Some(first).filter(|c| self.clusters().contains(c)), next);
        chain.take(self.clusters as usize).any(|at| self.link(at) == Link::Bad)
    }

    /// Whether the volume was unmounted cleanly and without I/O errors, as entry 1 says (FAT16 and FAT32).
    #[must_use]
    pub fn flags(&self) -> Flags {
        let v = self.raw(1);
        match self.kind {
            FatKind::Fat12 => Flags { dirty: false, io_errors: false },
            FatKind::Fat16 => Flags { dirty: v & 0x8000 == 0, io_errors: v & 0x4000 == 0 },
            FatKind::Fat32 => Flags { dirty: v & 0x0800_0000 == 0, io_errors: v & 0x0400_0000 == 0 },
        }
    }
}

/// The two flag bits of entry 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// The volume was not unmounted cleanly.
    pub dirty: bool,
    /// The operating system saw read or write errors.
    pub io_errors: bool,
}

fn broken(first: u32, why: String) -> Error {
    Error::rejected(format!("the cluster chain that begins at {first} {why}"))
}
