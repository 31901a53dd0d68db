//! Clusters and the allocation table: reserving, writing, linking, freeing.

use super::super::bootsector::BootSectorCopy;
use super::super::geometry::{FSINFO_LEAD, FSINFO_STRUCT};
use super::super::table::{AllocationTable, Link, Run};
use super::Editor;
use crate::block::read_vec;
use crate::sorting::Sort as _;
use crate::units::size;
use crate::{Code, Context, Error, Result};
use std::ops::Range;
use std::sync::Arc;

impl Editor<'_> {
    /// How many clusters are free and not reserved.
    pub(crate) fn available_clusters(&self) -> u64 {
        u64::from(self.table.free_clusters()).saturating_sub(self.reserved.len() as u64)
    }

    /// Reserves `count` free clusters, as few runs as possible. Nothing is written.
    ///
    /// # Errors
    /// [`Code::NoRoom`].
    pub fn reserve(&mut self, count: u32) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        for c in self.table.clusters().filter(|c| self.table.raw(*c) == 0 && !self.reserved.contains(c)) {
            match runs.last_mut() {
                Some(run) if run.first + run.count == c => run.count += 1,
                _ => runs.push(Run { first: c, count: 1 }),
            }
        }
        let free: u64 = runs.iter().map(|r| u64::from(r.count)).sum();
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
        self.reserved.extend(chosen.iter().flat_map(|r| r.clusters()));
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
        let mut changed = Vec::new();
        for runs in chains {
            let clusters: Vec<u32> = runs.iter().flat_map(|r| r.clusters()).collect();
            for (i, c) in clusters.iter().enumerate() {
                let link = clusters.get(i + 1).map_or(Link::End, |next| Link::Next(*next));
                changed.push(Arc::make_mut(&mut self.table).set(*c, link));
                self.reserved.remove(c);
            }
            self.last_linked = clusters.last().copied().or(self.last_linked);
        }
        self.write_table(&changed)
    }

    /// Frees clusters that nothing refers to any more.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn free(&mut self, runs: &[Run]) -> Result<()> {
        let table = Arc::make_mut(&mut self.table);
        let changed: Vec<_> = runs.iter().flat_map(|r| r.clusters()).map(|c| table.set(c, Link::Free)).collect();
        self.write_table(&changed)
    }

    /// Links the clusters that are free here as another table links them, in every live copy. What is in use here keeps
    /// its chains.
    ///
    /// # Errors
    /// What the medium reports.
    pub(crate) fn adopt(&mut self, other: &AllocationTable) -> Result<()> {
        let table = Arc::make_mut(&mut self.table);
        let new = table.clusters().filter(|c| table.link(*c) == Link::Free && other.link(*c) != Link::Free);
        let new: Vec<u32> = new.collect();
        let changed: Vec<_> = new.into_iter().map(|c| table.set(c, other.link(c))).collect();
        self.write_table(&changed)
    }

    /// Writes the sectors of the allocation table in which these byte ranges lie, to every live copy.
    pub(super) fn write_table(&self, changed: &[Range<usize>]) -> Result<()> {
        let unit = self.unit as usize;
        let mut sectors: Vec<usize> =
            changed.iter().flat_map(|r| r.start / unit..=r.end.saturating_sub(1).max(r.start) / unit).collect();
        sectors.put_in_order(Ord::cmp);
        sectors.dedup();
        for copy in self.geometry.live_copies() {
            let at = self.geometry.fat_copy_offset(copy);
            let mut i = 0;
            while i < sectors.len() {
                let mut j = i + 1;
                while j < sectors.len() && sectors[j] == sectors[j - 1] + 1 {
                    j += 1;
                }
                let bytes = sectors[i] * unit..(sectors[j - 1] + 1) * unit;
                let Some(part) = self.table.bytes().get(bytes.clone()) else {
                    return Err(Error::io("a change outside the allocation table"));
                };
                self.write(part, at + bytes.start as u64)?;
                i = j;
            }
        }
        Ok(())
    }

    /// Copies the active allocation table over the other live copies, where they differ.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn equalise_tables(&self) -> Result<()> {
        let unit = self.unit as usize;
        for copy in self.geometry.live_copies().skip(1) {
            let at = self.geometry.fat_copy_offset(copy);
            let other = read_vec(self.medium, at, self.table.bytes().len())?;
            for (i, (ours, theirs)) in self.table.bytes().chunks(unit).zip(other.chunks(unit)).enumerate() {
                if ours != theirs {
                    self.write(ours, at + (i * unit) as u64)?;
                }
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
