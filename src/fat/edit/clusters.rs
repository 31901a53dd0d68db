//! Clusters and the allocation table: reserving, writing, linking, freeing.

use super::super::bootsector::BootSectorCopy;
use super::super::geometry::{FSINFO_LEAD, FSINFO_STRUCT};
use super::super::runs::{Clusters, Run};
use super::super::table::{AllocationTable, Link};
use super::Editor;
use crate::block::read_vec;
use crate::sorting::Sort as _;
use crate::units::size;
use crate::{Code, Context, Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// At most so many bytes of the table are written at once.
const WRITTEN_AT_ONCE: usize = 1 << 20;

/// Byte ranges of the table that were changed.
#[derive(Default)]
pub(super) struct Changed(Vec<Range<usize>>);

impl Changed {
    pub(super) fn add(&mut self, range: Range<usize>) {
        match self.0.last_mut() {
            Some(last) if last.start <= range.start && range.start <= last.end => last.end = last.end.max(range.end),
            _ => self.0.push(range),
        }
    }

    /// The units of the medium in which they lie, in ascending order: where each part begins, and its bytes.
    fn in_units(mut self, unit: usize) -> impl Iterator<Item = (usize, usize)> {
        for range in &mut self.0 {
            *range = range.start / unit * unit..range.end.next_multiple_of(unit);
        }
        self.0.put_in_order_by(|range| range.start);
        let mut merged = Self::default();
        self.0.into_iter().for_each(|range| merged.add(range));
        merged.0.into_iter().flat_map(|range| {
            range.clone().step_by(WRITTEN_AT_ONCE).map(move |at| (at, (range.end - at).min(WRITTEN_AT_ONCE)))
        })
    }
}

impl Editor<'_> {
    /// How many clusters are free and not reserved.
    pub(crate) fn available_clusters(&self) -> u64 {
        u64::from(self.table.free_clusters()).saturating_sub(self.reserved.count())
    }

    /// Reserves `count` free clusters, as few runs as possible. Nothing is written.
    ///
    /// # Errors
    /// [`Code::NoRoom`].
    pub fn reserve(&mut self, count: u32) -> Result<Vec<Run>> {
        let free = Clusters::of(self.table.free_runs()).without(&self.reserved);
        let mut runs: Vec<Run> = free.runs().to_vec();
        let free = free.count();
        if free < u64::from(count) {
            let bytes = |clusters: u64| size(clusters * u64::from(self.geometry.cluster_bytes));
            let (need, missing) = (u64::from(count), u64::from(count) - free);
            let (need, free, missing) = (bytes(need), bytes(free), bytes(missing));
            let what = format!("no room: {need} are needed, {free} are free, {missing} too little");
            return Err(Error::new(Code::NoRoom, what).advise("make room with `prune --delete`"));
        }
        let chosen = match runs.iter().filter(|r| r.count >= count).min_by_key(|r| r.count) {
            // The smallest run that holds all of it keeps the large ones whole.
            Some(fit) => vec![Run { first: fit.first, count }],
            None => {
                runs.put_in_order_by(|r| std::cmp::Reverse(r.count));
                let mut left = count;
                let mut chosen: Vec<Run> = Vec::new();
                for run in runs {
                    let take = run.count.min(left);
                    chosen.push(Run { first: run.first, count: take });
                    left -= take;
                    if left == 0 {
                        break;
                    }
                }
                chosen.put_in_order_by(|r| r.first);
                chosen
            }
        };
        let chosen: Vec<Run> = chosen.into_iter().filter(|r| r.count > 0).collect();
        self.reserved = Clusters::of(self.reserved.runs().iter().chain(&chosen).copied());
        Ok(chosen)
    }

    /// Writes `bytes` into reserved clusters, `at` bytes behind the start of the chain they will form. `at` is a
    /// multiple of the sector size; the last sector is filled up with zeros.
    ///
    /// # Errors
    /// What the medium reports; a caller's mistake in `at` or length.
    pub fn write_data(&self, runs: &[Run], at: u64, bytes: &[u8]) -> Result<()> {
        let cluster = u64::from(self.geometry.cluster_bytes);
        let mut padded;
        let mut rest = bytes;
        if bytes.len() as u64 % self.unit != 0 {
            padded = bytes.to_vec();
            padded.resize(bytes.len().next_multiple_of(self.unit as usize), 0);
            rest = &padded;
        }
        let mut skip = at;
        for run in runs {
            let run_bytes = u64::from(run.count) * cluster;
            if skip >= run_bytes {
                skip -= run_bytes;
                continue;
            }
            let n = (run_bytes - skip).min(rest.len() as u64);
            let (part, tail) = rest.split_at(n as usize);
            self.write(part, self.geometry.cluster_offset(run.first) + skip)?;
            (rest, skip) = (tail, 0);
            if rest.is_empty() {
                return Ok(());
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(Error::io("more data than the clusters reserved for it hold")) }
    }

    /// Makes the next reads of what was written come from the medium.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn forget(&self) -> Result<()> {
        self.medium.drop_written().while_doing(|| "dropping cached data before the read-back")
    }

    /// Links reserved clusters into a chain, in every live copy of the table. Nothing refers to the chain yet.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn link(&mut self, runs: &[Run]) -> Result<()> {
        self.link_all([runs])
    }

    /// As [`Self::link`], for several chains: each sector of the table is written once.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn link_all<'r>(&mut self, chains: impl IntoIterator<Item = &'r [Run]>) -> Result<()> {
        let mut changed = Changed::default();
        for runs in chains {
            let table = Arc::make_mut(&mut self.table);
            let mut clusters = runs.iter().flat_map(|r| r.clusters()).peekable();
            while let Some(c) = clusters.next() {
                changed.add(table.set(c, clusters.peek().map_or(Link::End, |next| Link::Next(*next))));
                self.last_linked = Some(c);
            }
            self.reserved = self.reserved.without(&Clusters::of(runs.iter().copied()));
        }
        self.write_table(changed)
    }

    /// Frees clusters that nothing refers to any more.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn free(&mut self, runs: &[Run]) -> Result<()> {
        let table = Arc::make_mut(&mut self.table);
        let mut changed = Changed::default();
        for c in runs.iter().flat_map(|r| r.clusters()) {
            changed.add(table.set(c, Link::Free));
        }
        self.write_table(changed)
    }

    /// Links the clusters that are free here as another table links them, in every live copy. What is in use here keeps
    /// its chains.
    ///
    /// # Errors
    /// What the medium reports.
    pub(crate) fn adopt(&mut self, other: &AllocationTable) -> Result<()> {
        let table = Arc::make_mut(&mut self.table);
        let mut changed = Changed::default();
        let free: Vec<Run> = table.free_runs().collect();
        for c in free.into_iter().flat_map(Run::clusters) {
            match other.link(c) {
                Link::Free => {}
                link => changed.add(table.set(c, link)),
            }
        }
        self.write_table(changed)
    }

    /// Writes the sectors of the allocation table that were changed, to every live copy.
    pub(super) fn write_table(&self, changed: Changed) -> Result<()> {
        let unit = self.unit as usize;
        let parts: Vec<(usize, usize)> = changed.in_units(unit).collect();
        for copy in self.geometry.live_copies() {
            let at = self.geometry.fat_copy_offset(copy);
            for (begin, bytes) in &parts {
                let Some(part) = self.table.bytes_at(*begin, *bytes) else {
                    return Err(Error::io("a change outside the allocation table"));
                };
                self.write(&part, at + *begin as u64)?;
            }
        }
        Ok(())
    }

    /// Copies the active allocation table over the other live copies, where they differ.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn equalise_tables(&self) -> Result<()> {
        for copy in self.geometry.live_copies().skip(1) {
            let other = AllocationTable::read(self.medium, &self.geometry, copy)?;
            let at = self.geometry.fat_copy_offset(copy);
            for (begin, ours) in self.table.differing(&other, self.unit as usize) {
                self.write(&ours, at + begin)?;
            }
        }
        Ok(())
    }

    /// Writes a whole FSInfo sector in the place of one that has no valid signatures.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn rebuild_fsinfo(&self) -> Result<()> {
        let Some(at) = self.geometry.fsinfo_offset else { return Ok(()) };
        let base = at / self.unit * self.unit;
        let mut sector = read_vec(self.medium, base, self.unit as usize)?;
        let info = &mut sector[(at - base) as usize..][..512];
        info.fill(0);
        info[..4].copy_from_slice(&FSINFO_LEAD.to_le_bytes());
        info[484..488].copy_from_slice(&FSINFO_STRUCT.to_le_bytes());
        info[488..492].copy_from_slice(&self.table.free_clusters().to_le_bytes());
        // `FSI_Nxt_Free`: not known.
        info[492..496].fill(0xFF);
        info[510..].copy_from_slice(&[0x55, 0xAA]);
        self.write(&sector, base)
    }

    /// Writes one copy of the boot sector over the other, which is wrong.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn restore_boot_sector(&self, wrong: BootSectorCopy) -> Result<()> {
        let Some(backup) = self.geometry.backup_boot_offset else { return Ok(()) };
        let (from, to) = match wrong {
            BootSectorCopy::First => (backup, 0),
            BootSectorCopy::Backup => (0, backup),
        };
        let sector = read_vec(self.medium, from, self.geometry.sector_bytes as usize)?;
        self.write(&sector, to)
    }

    /// Writes the free count and the next-free hint to FSInfo, if the volume has it.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn write_fsinfo(&self) -> Result<()> {
        let Some(at) = self.geometry.fsinfo_offset else { return Ok(()) };
        let base = at / self.unit * self.unit;
        let mut sector = read_vec(self.medium, base, self.unit as usize)?;
        let info = &mut sector[(at - base) as usize..];
        if info[..4] != FSINFO_LEAD.to_le_bytes() || info[484..488] != FSINFO_STRUCT.to_le_bytes() {
            return Ok(()); // the health check has said so; `rebuild_fsinfo` is for `recover`
        }
        let free = self.table.free_clusters().to_le_bytes();
        let mut next = [info[492], info[493], info[494], info[495]];
        if let Some(last) = self.last_linked {
            next = last.to_le_bytes();
        }
        if info[488..492] == free && info[492..496] == next {
            return Ok(());
        }
        info[488..492].copy_from_slice(&free);
        info[492..496].copy_from_slice(&next);
        self.write(&sector, base)
    }
}
