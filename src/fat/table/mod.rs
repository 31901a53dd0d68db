//! The allocation table: one entry per cluster, forming chains.

mod packed;

use self::packed::Packed;
use super::geometry::{FatKind, Geometry};
use super::runs::Run;
use crate::block::{KEPT_READ, ReadAt, check_range};
use crate::units::size;
use crate::{Code, Error, Result};

/// What of a table is neither free nor chains without gaps may take so many bytes of memory: eight million clusters of
/// FAT32, each somewhere else than the one before.
const MAX_MEMORY: usize = 32 * 1024 * 1024;

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

/// One copy of the allocation table, in memory: a few bytes for each run of clusters, however long it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocationTable {
    kind: FatKind,
    clusters: u32,
    entries: Packed,
}

impl AllocationTable {
    /// Reads copy `n`.
    ///
    /// # Errors
    /// What the source reports; [`crate::Kind::Rejected`] when its clusters are scattered so much that it would take more
    /// than 32 MiB of memory.
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
        let is_whole = active.entries.len() <= COMPARED_WHOLE;
        Self::read_parts(source, geometry, n, |part| is_whole || !active.entries.is_zero(part.start, part.len()))
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
        let offset = geometry.fat_copy_offset(n);
        check_range(source.size(), offset, bytes)?;
        let mut entries = Packed::new(match geometry.kind {
            FatKind::Fat12 => 1,
            FatKind::Fat16 => 2,
            FatKind::Fat32 => 4,
        });
        let mut memory = 0;
        // In parts that `Cached` keeps.
        let mut buf = vec![0; KEPT_READ];
        for at in (0..bytes as usize).step_by(KEPT_READ) {
            let part = &mut buf[..(bytes as usize - at).min(KEPT_READ)];
            if wanted(at..at + part.len()) {
                source.read_exact_at(part, offset + at as u64)?;
            } else {
                part.fill(0);
            }
            memory += entries.push(part);
            if memory > MAX_MEMORY {
                let what = format!(
                    "the clusters of this volume are scattered more than on any EFI System Partition: its allocation \
                     table would take more than {} of memory",
                    size(MAX_MEMORY as u64)
                );
                return Err(Error::new(Code::Unsupported, what));
            }
        }
        Ok(Self { kind: geometry.kind, clusters: geometry.clusters, entries })
    }

    /// How many bytes of memory it takes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.entries.memory() as u64
    }

    /// Bytes from `at` on, as they stand on the medium; `None` when they go beyond the end.
    pub(super) fn bytes_at(&self, at: usize, bytes: usize) -> Option<Vec<u8>> {
        self.entries.read(at, bytes)
    }

    /// Where this table differs from `other`, in units of a medium: the offset in the table and what stands there in this one.
    pub(crate) fn differing<'t>(&'t self, other: &'t Self, unit: usize) -> impl Iterator<Item = (u64, Vec<u8>)> + 't {
        self.entries.differing(&other.entries).flat_map(move |(at, ours, theirs)| {
            let units: Vec<_> = (ours.chunks(unit).zip(theirs.chunks(unit)).enumerate())
                .filter(|(_, (ours, theirs))| ours != theirs)
                .map(|(i, (ours, _))| ((at + i * unit) as u64, ours.to_vec()))
                .collect();
            units
        })
    }

    /// The raw value of an entry, with the reserved upper bits of FAT32 masked off.
    #[must_use]
    pub fn raw(&self, cluster: u32) -> u32 {
        let n = cluster as usize;
        match self.kind {
            FatKind::Fat12 => {
                let at = n + n / 2;
                let pair = self.entries.get(at) | self.entries.get(at + 1) << 8;
                if n % 2 == 0 { pair & 0xFFF } else { pair >> 4 }
            }
            FatKind::Fat16 => self.entries.get(n),
            FatKind::Fat32 => self.entries.get(n) & 0x0FFF_FFFF,
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
                let (low, high) = (self.entries.get(at), self.entries.get(at + 1));
                if n % 2 == 0 {
                    self.entries.set(at, value & 0xFF);
                    self.entries.set(at + 1, high & 0xF0 | value >> 8);
                } else {
                    self.entries.set(at, low & 0x0F | value << 4 & 0xF0);
                    self.entries.set(at + 1, value >> 4);
                }
                at..at + 2
            }
            FatKind::Fat16 => {
                self.entries.set(n, value);
                2 * n..2 * n + 2
            }
            FatKind::Fat32 => {
                self.entries.set(n, self.entries.get(n) & 0xF000_0000 | value);
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
        self.free_runs().map(|r| r.count).sum()
    }

    /// Free clusters, in ascending runs as long as they can be.
    pub fn free_runs(&self) -> impl Iterator<Item = Run> + '_ {
        let mut at = self.clusters().start;
        std::iter::from_fn(move || {
            let first = self.find_from(at, true)?;
            at = self.find_from(first, false).unwrap_or(self.clusters().end);
            Some(Run { first, count: at - first })
        })
    }

    /// The first cluster from `at` on that is free, or that is not.
    fn find_from(&self, mut at: u32, free: bool) -> Option<u32> {
        let end = self.clusters().end;
        while at < end {
            if (self.raw(at) == 0) == free {
                return Some(at);
            }
            at += self.alike(at);
        }
        None
    }

    /// How many clusters from `at` on are free, or are not, as that one is, as far as a single look tells.
    fn alike(&self, at: u32) -> u32 {
        if self.kind == FatKind::Fat12 {
            return 1;
        }
        let span = self.entries.span(at as usize);
        let last = u64::from(span.value & self.kind.mask()) + span.count as u64;
        match span.counts {
            // Numbers that count up to the next free one, which is 0 behind the mask.
            true if span.value & self.kind.mask() == 0 || last > u64::from(self.kind.mask()) => 1,
            _ => span.count.clamp(1, self.clusters as usize) as u32,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The entry of a cluster, by the letter of the format.
    fn entry(bytes: &[u8], kind: FatKind, cluster: u32) -> u32 {
        let n = cluster as usize;
        let le = |at: usize, count: usize| bytes[at..at + count].iter().rev().fold(0, |v, b| v << 8 | u32::from(*b));
        match kind {
            FatKind::Fat12 if n % 2 == 0 => le(n / 2 * 3, 2) & 0xFFF,
            FatKind::Fat12 => le(n / 2 * 3 + 1, 2) >> 4,
            FatKind::Fat16 => le(2 * n, 2),
            FatKind::Fat32 => le(4 * n, 4) & 0x0FFF_FFFF,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn free_runs_and_changes_are_those_of_the_bytes(
            kind in prop_oneof![Just(FatKind::Fat12), Just(FatKind::Fat16), Just(FatKind::Fat32)],
            runs in proptest::collection::vec((0u32..2000, 0u8..5, any::<u32>()), 1..9),
            changes in proptest::collection::vec((0u32..4000, prop_oneof![
                Just(Link::Free), Just(Link::End), Just(Link::Bad), (2u32..4000).prop_map(Link::Next),
            ]), 0..20),
        ) {
            let clusters = runs.iter().map(|(count, ..)| count).sum::<u32>().clamp(1, 4000);
            let bits = match kind { FatKind::Fat12 => 12, FatKind::Fat16 => 16, FatKind::Fat32 => 32 };
            let bytes = ((clusters as usize + 2) * bits).div_ceil(8).next_multiple_of(512);
            let mut table = AllocationTable { kind, clusters, entries: Packed::new(if bits == 12 { 1 } else { bits / 8 }) };
            let mut raw = vec![0; bytes];
            // Free, chains, ends, the reserved bits of FAT32, anything.
            let mut numbers = runs.iter().flat_map(|(count, sort, from)| (0..*count).map(move |i| match sort {
                0 => 0,
                1 => from % 5000 + i,
                2 => u32::MAX,
                3 => 0xF000_0000,
                _ => from.wrapping_mul(i),
            }));
            for at in (0..bytes).step_by(4) {
                raw[at..at + 4].copy_from_slice(&numbers.next().unwrap_or(0).to_le_bytes());
            }
            for part in raw.chunks(KEPT_READ) {
                table.entries.push(part);
            }
            for (cluster, link) in changes.into_iter().filter(|(c, _)| *c < clusters + 2) {
                let changed = table.set(cluster, link);
                prop_assert_eq!(table.link(cluster), link);
                let now = table.bytes_at(0, bytes).unwrap();
                for (at, (old, new)) in raw.iter().zip(&now).enumerate() {
                    prop_assert!(old == new || changed.contains(&at));
                }
                if kind == FatKind::Fat32 {
                    prop_assert_eq!(raw[changed.end - 1] & 0xF0, now[changed.end - 1] & 0xF0);
                }
                raw = now;
            }
            let free: Vec<u32> = table.free_runs().flat_map(Run::clusters).collect();
            let expected: Vec<u32> = table.clusters().filter(|c| entry(&raw, kind, *c) == 0).collect();
            prop_assert_eq!(&free, &expected);
            prop_assert_eq!(table.free_clusters() as usize, free.len());
            let together = table.free_runs().zip(table.free_runs().skip(1)).any(|(a, b)| a.first + a.count >= b.first);
            prop_assert!(!together, "runs are as long as they can be");
            for c in table.clusters() {
                prop_assert_eq!(table.raw(c), entry(&raw, kind, c));
            }
        }
    }
}
