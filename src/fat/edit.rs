//! Sector writes, each whole and in the order the caller asks for.
//!
//! An [`Editor`] knows how to change a volume; it never decides when that is safe. Three rules hold in every method:
//! a change that a reader could see half-done is one write of one sector; what a sector refers to is written, and
//! behind a barrier, before the sector that refers to it; nothing is freed while something refers to it.
//! [`crate::surgery`] composes them into operations.

use super::dir::{Attributes, Directory, Entry, SLOT, Slot};
use super::geometry::Geometry;
use super::health::{FSINFO_LEAD, FSINFO_STRUCT};
use super::name::{alias, check_long_name, exact_short, long_slots};
use super::table::{Link, Run, Table};
use super::volume::Volume;
use crate::block::{WriteAt, read_vec};
use crate::{Context, Error, Result};
use std::collections::BTreeSet;
use std::ops::Range;

/// A point in time as FAT stores it: seconds since 1970 UTC, from 1980 to 2107.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The date and the time field.
    fn fields(self) -> (u16, u16) {
        // Days since 1970 to a civil date: years are counted from March, so that the leap day is the last of its year.
        const MIN: u64 = 315_532_800; // 1980-01-01
        const MAX: u64 = 4_354_819_198; // 2107-12-31 23:59:58
        let t = self.0.clamp(MIN, MAX);
        let (days, second) = (t / 86_400, t % 86_400);
        let z = days + 719_468;
        let era = z / 146_097;
        let day_of_era = z % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let m = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * m + 2) / 5 + 1;
        let month = if m < 10 { m + 3 } else { m - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let date = ((year - 1980) << 9 | month << 5 | day) as u16;
        let time = (second / 3600 << 11 | second / 60 % 60 << 5 | second % 60 / 2) as u16;
        (date, time)
    }
}

/// What an entry points at and when that was written: bytes 13 to 31 of a short entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content(pub(super) [u8; 19]);

impl Content {
    /// A file of `bytes` bytes that begins at `first_cluster`.
    #[must_use]
    pub fn new(first_cluster: u32, bytes: u32, stamp: Stamp) -> Self {
        let (date, time) = stamp.fields();
        let mut c = [0; 19];
        c[1..3].copy_from_slice(&time.to_le_bytes());
        c[3..5].copy_from_slice(&date.to_le_bytes());
        c[5..7].copy_from_slice(&date.to_le_bytes());
        c[7..9].copy_from_slice(&((first_cluster >> 16) as u16).to_le_bytes());
        c[9..11].copy_from_slice(&time.to_le_bytes());
        c[11..13].copy_from_slice(&date.to_le_bytes());
        c[13..15].copy_from_slice(&(first_cluster as u16).to_le_bytes());
        c[15..19].copy_from_slice(&bytes.to_le_bytes());
        Self(c)
    }

    /// What an existing entry points at.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let mut c = [0; 19];
        c.copy_from_slice(&entry.raw[13..32]);
        Self(c)
    }
}

/// Changes a volume. `medium` is the volume and nothing else.
pub struct Editor<'m> {
    medium: &'m dyn WriteAt,
    geometry: Geometry,
    table: Table,
    /// What the medium writes atomically, in bytes.
    unit: u64,
    /// Clusters promised to a caller and not linked yet.
    reserved: BTreeSet<u32>,
    /// The last cluster that was linked, for FSInfo.
    last_linked: Option<u32>,
}

/// Where the slots of a new entry go, all in one sector.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Room {
    slots: Range<Slot>,
}

impl<'m> Editor<'m> {
    /// Reads the volume's shape and its allocation table.
    ///
    /// # Errors
    /// As [`Volume::open`]; [`crate::Kind::Unsafe`] when the medium's sectors are larger than the volume's.
    pub fn open(medium: &'m dyn WriteAt) -> Result<Self> {
        let volume = Volume::open(medium)?;
        let unit = medium.sector_size();
        let geometry = volume.geometry().clone();
        if unit < 512 || geometry.sector_bytes % unit != 0 {
            return Err(Error::refused(format!(
                "the file system has sectors of {} bytes, the medium of {unit}: no operating system can use it",
                geometry.sector_bytes
            )));
        }
        let table = volume.table().clone();
        Ok(Self { medium, geometry, table, unit: u64::from(unit), reserved: BTreeSet::new(), last_linked: None })
    }

    /// What it writes to.
    pub(crate) fn medium(&self) -> &'m dyn WriteAt {
        self.medium
    }

    /// The volume's shape.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The allocation table as it stands after all that was linked and freed.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The volume as it is on the medium now.
    ///
    /// # Errors
    /// As [`Volume::open`].
    pub fn volume(&self) -> Result<Volume<&'m dyn WriteAt>> {
        Volume::open(self.medium)
    }

    /// A directory as it is on the medium now.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when it does not exist or cannot be read.
    pub fn directory(&self, path: &str) -> Result<Directory> {
        self.volume()?.find_directory(path)?.ok_or_else(|| Error::rejected(format!("there is no directory {path}")))
    }

    /// Waits until everything written is on the medium.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn barrier(&self) -> Result<()> {
        self.medium.barrier().while_doing(|| "flushing the medium")
    }

    // ---- clusters -----------------------------------------------------------------------------------------------

    /// Reserves `count` free clusters, as few runs as possible. Nothing is written.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`] when there is no room.
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
            let mib = |clusters: u64| clusters * u64::from(self.geometry.cluster_bytes) / 1024;
            return Err(Error::refused(format!(
                "no room: {} KiB are needed, {} KiB are free",
                mib(u64::from(count)),
                mib(free)
            ))
            .advise("make room with `prune --delete` or `prune --keep-backups 0`"));
        }
        let chosen = match runs.iter().filter(|r| r.count >= count).min_by_key(|r| r.count) {
            // The smallest run that holds all of it keeps the large ones whole.
            Some(fit) => vec![Run { first: fit.first, count }],
            None => {
                runs.sort_by_key(|r| std::cmp::Reverse(r.count));
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
                chosen.sort_by_key(|r| r.first);
                chosen
            }
        };
        let chosen: Vec<Run> = chosen.into_iter().filter(|r| r.count > 0).collect();
        self.reserved.extend(chosen.iter().flat_map(|r| r.clusters()));
        Ok(chosen)
    }

    /// Writes `bytes` into reserved clusters, `at` bytes behind the start of the chain they will form. `at` is a multiple
    /// of the sector size; the last sector is filled up with zeros.
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

    /// Makes the next reads come from the medium.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn forget(&self) -> Result<()> {
        self.medium.drop_caches().while_doing(|| "dropping cached data before the read-back")
    }

    /// Links reserved clusters into a chain, in every live copy of the table. Nothing refers to the chain yet.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn link(&mut self, runs: &[Run]) -> Result<()> {
        let clusters: Vec<u32> = runs.iter().flat_map(|r| r.clusters()).collect();
        let mut changed = Vec::with_capacity(clusters.len());
        for (i, c) in clusters.iter().enumerate() {
            let link = clusters.get(i + 1).map_or(Link::End, |next| Link::Next(*next));
            changed.push(self.table.set(*c, link));
            self.reserved.remove(c);
        }
        self.last_linked = clusters.last().copied().or(self.last_linked);
        self.write_table(&changed)
    }

    /// Frees clusters that nothing refers to any more.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn free(&mut self, runs: &[Run]) -> Result<()> {
        let changed: Vec<_> = runs.iter().flat_map(|r| r.clusters()).map(|c| self.table.set(c, Link::Free)).collect();
        self.write_table(&changed)
    }

    /// Writes the sectors of the allocation table in which these byte ranges lie, to every live copy.
    fn write_table(&self, changed: &[Range<usize>]) -> Result<()> {
        let unit = self.unit as usize;
        let mut sectors: Vec<usize> =
            changed.iter().flat_map(|r| r.start / unit..=r.end.saturating_sub(1).max(r.start) / unit).collect();
        sectors.sort_unstable();
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
            return Ok(()); // the health check has said so; inventing a sector is not this tool's business
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

    // ---- directory entries --------------------------------------------------------------------------------------

    /// Whether two slots of a directory stand in the same sector.
    #[must_use]
    pub fn same_sector(&self, directory: &Directory, a: Slot, b: Slot) -> bool {
        match (directory.offset_of(a), directory.offset_of(b)) {
            (Some(a), Some(b)) => a / self.unit == b / self.unit,
            _ => false,
        }
    }

    /// Creates an entry whose slots all stand in one sector: it appears in one write, whole.
    ///
    /// With `beside`, only the sector of that slot will do. Returns `false`, with nothing written, when it has no room.
    /// Without it the directory grows where it must, and room is always made.
    ///
    /// # Errors
    /// [`crate::Kind::Usage`] for a name FAT cannot hold; [`crate::Kind::Unsafe`] when the volume is full; what the
    /// medium reports.
    pub fn create(
        &mut self,
        path: &str,
        name: &str,
        attributes: Attributes,
        content: Content,
        beside: Option<Slot>,
    ) -> Result<bool> {
        let directory = self.directory(path)?;
        let slots = new_slots(&directory, name, attributes, content, None)?;
        let room = match beside {
            Some(slot) => {
                let sector = self.sector_of(&directory, slot);
                match self.room_in(&directory, &sector, slots.len(), &(0..0)) {
                    None => return Ok(false),
                    Some(room) => room,
                }
            }
            None => self.make_room(path, slots.len())?,
        };
        let directory = self.directory(path)?;
        self.put(&directory, &room, &slots, &(0..0))?;
        Ok(true)
    }

    /// Makes room for an entry of this name, so that creating it afterwards cannot fail for want of room. The directory
    /// is longer then at most; no name changes.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn ensure_room(&mut self, path: &str, name: &str) -> Result<()> {
        let nothing = Content::new(0, 0, Stamp(0));
        let slots = new_slots(&self.directory(path)?, name, Attributes::ARCHIVE, nothing, None)?;
        self.make_room(path, slots.len()).map(|_| ())
    }

    /// Renames an entry. Where the new name fits into the sector of the old one this is one write; else the new name
    /// appears first and the old one goes after a barrier. A barrier is behind every write when this returns.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn rename(&mut self, path: &str, entry: &Entry, new_name: &str) -> Result<()> {
        let directory = self.directory(path)?;
        let slots = new_slots(&directory, new_name, entry.attributes, Content::of(entry), Some(entry))?;
        let sector = self.sector_of(&directory, entry.short_slot());
        if let Some(room) = self.room_in(&directory, &sector, slots.len(), &entry.slots) {
            self.put(&directory, &room, &slots, &entry.slots)?;
            self.barrier()?;
            let left = entry.slots.start..entry.slots.end.min(sector.start);
            if !left.is_empty() {
                // Long-name slots of the old name in the sector before: they belong to no entry any more.
                self.clear(path, &left)?;
                self.barrier()?;
            }
            return Ok(());
        }
        self.create(path, new_name, entry.attributes, Content::of(entry), None)?;
        self.barrier()?;
        self.remove(path, entry)
    }

    /// Removes an entry and leaves its clusters alone: the short entry first, so that no half of it can be taken for
    /// another name. A barrier is behind every write when this returns.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn remove(&mut self, path: &str, entry: &Entry) -> Result<()> {
        let directory = self.directory(path)?;
        let sector = self.sector_of(&directory, entry.short_slot());
        let here = entry.slots.start.max(sector.start)..entry.slots.end;
        let before = entry.slots.start..here.start;
        self.clear(path, &here)?;
        self.barrier()?;
        if !before.is_empty() {
            self.clear(path, &before)?;
            self.barrier()?;
        }
        Ok(())
    }

    /// Marks slots as deleted, sector by sector.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn clear(&self, path: &str, slots: &Range<Slot>) -> Result<()> {
        let directory = self.directory(path)?;
        let mut at = slots.start;
        while at < slots.end {
            let sector = self.sector_of(&directory, at);
            let upto = slots.end.min(sector.end);
            let mut bytes = self.read_sector(&directory, &sector)?;
            for slot in at..upto {
                bytes[(slot - sector.start) * SLOT] = 0xE5;
            }
            self.write_sector(&directory, &sector, &bytes)?;
            at = upto;
        }
        Ok(())
    }

    /// Exchanges what two entries of one sector point at, in one write. This is the commit of a swap.
    ///
    /// # Errors
    /// What the medium reports; a caller's mistake when the entries are not in one sector.
    pub fn exchange(&self, path: &str, a: &Entry, b: &Entry) -> Result<()> {
        let directory = self.directory(path)?;
        if !self.same_sector(&directory, a.short_slot(), b.short_slot()) {
            return Err(Error::io("an exchange across two sectors would not be one write"));
        }
        let sector = self.sector_of(&directory, a.short_slot());
        let mut bytes = self.read_sector(&directory, &sector)?;
        for (entry, content) in [(a, Content::of(b)), (b, Content::of(a))] {
            set_content(&mut bytes, entry.short_slot() - sector.start, content);
        }
        self.write_sector(&directory, &sector, &bytes)
    }

    /// Makes an entry point at something else, in one write.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn retarget(&self, path: &str, entry: &Entry, content: Content) -> Result<()> {
        let directory = self.directory(path)?;
        let sector = self.sector_of(&directory, entry.short_slot());
        let mut bytes = self.read_sector(&directory, &sector)?;
        set_content(&mut bytes, entry.short_slot() - sector.start, content);
        self.write_sector(&directory, &sector, &bytes)
    }

    /// The slots of the sector that holds `slot`.
    fn sector_of(&self, directory: &Directory, slot: Slot) -> Range<Slot> {
        // Directories begin at a cluster or sector boundary, so sectors of slots line up with sectors of the medium.
        let per_sector = self.unit as usize / SLOT;
        let first = slot / per_sector * per_sector;
        first..(first + per_sector).min(directory.slots())
    }

    /// A run of `count` slots inside `sector` that may be overwritten, taking the slots in `freed` for free.
    ///
    /// Slots behind the end mark only count when the gap before them lies in the same sector: it is marked deleted in
    /// the same write.
    fn room_in(&self, directory: &Directory, sector: &Range<Slot>, count: usize, freed: &Range<Slot>) -> Option<Room> {
        if directory.end() < sector.start {
            return None;
        }
        let free = |slot: Slot| directory.is_free(slot) || freed.contains(&slot);
        let mut run = 0;
        for slot in sector.clone() {
            run = if free(slot) { run + 1 } else { 0 };
            if run == count {
                let slots = slot + 1 - count..slot + 1;
                // Moving the end mark to the next sector needs that sector to begin with it; `put` cannot see to that.
                let moves_end = slots.end > directory.end();
                let next_is_end =
                    slots.end >= directory.slots() || slots.end < sector.end || directory.slot(slots.end)[0] == 0;
                return (!moves_end || next_is_end).then_some(Room { slots });
            }
        }
        None
    }

    /// Finds room in any sector of the directory, or makes it: first by moving the end mark to the next sector, at last
    /// by a new cluster.
    fn make_room(&mut self, path: &str, count: usize) -> Result<Room> {
        let per_sector = self.unit as usize / SLOT;
        if count > per_sector {
            return Err(Error::usage(format!(
                "a name of {count} directory slots does not fit into one sector of {per_sector}: choose a shorter one"
            )));
        }
        // Each turn moves the end mark by a sector or adds a cluster, so a few are enough.
        for _ in 0..4 {
            let directory = self.directory(path)?;
            let mut sector = self.sector_of(&directory, 0);
            while !sector.is_empty() {
                if let Some(room) = self.room_in(&directory, &sector, count, &(0..0)) {
                    return Ok(room);
                }
                sector = self.sector_of(&directory, sector.end);
            }
            if directory.end() < directory.slots() {
                self.move_end(&directory)?;
            } else {
                self.grow(path, &directory)?;
            }
        }
        Err(Error::refused(format!("no room can be made in directory {path}")))
    }

    /// Moves the end mark to the start of the next sector.
    fn move_end(&self, directory: &Directory) -> Result<()> {
        let sector = self.sector_of(directory, directory.end());
        if sector.end < directory.slots() && directory.slot(sector.end)[0] != 0 {
            // The format says nothing about slots behind the end mark: there may be old ones. They must not come back.
            let next = self.sector_of(directory, sector.end);
            let zeros = vec![0; next.len() * SLOT];
            self.write_sector(directory, &next, &zeros)?;
            self.barrier()?;
        }
        let mut bytes = self.read_sector(directory, &sector)?;
        for slot in directory.end()..sector.end {
            bytes[(slot - sector.start) * SLOT..][..SLOT].fill(0);
            bytes[(slot - sector.start) * SLOT] = 0xE5;
        }
        self.write_sector(directory, &sector, &bytes)?;
        self.barrier()
    }

    /// Adds an empty cluster to a directory: its zeros, then its own table entry, then the link from the last cluster.
    fn grow(&mut self, path: &str, directory: &Directory) -> Result<()> {
        let Some(tail) = directory.runs.last().map(|r| r.first + r.count - 1) else {
            return Err(Error::refused("the root directory is full, and on FAT12 and FAT16 it cannot grow"));
        };
        if (directory.slots() * SLOT) as u64 + u64::from(self.geometry.cluster_bytes) > 65_536 * SLOT as u64 {
            return Err(Error::refused(format!("directory {path} has as many entries as the format allows")));
        }
        let new = self.reserve_tail(tail)?;
        let zeros = vec![0; self.geometry.cluster_bytes as usize];
        self.write_data(&[Run { first: new, count: 1 }], 0, &zeros)?;
        self.barrier()?;
        self.link(&[Run { first: new, count: 1 }])?;
        self.barrier()?;
        let changed = self.table.set(tail, Link::Next(new));
        self.write_table(&[changed])?;
        self.barrier()
    }

    /// A free cluster that `tail` can be made to point at in one write per copy.
    ///
    /// The entry of `tail` must lie in one sector. On FAT12 it may straddle two; then half an update of 0xFFF would be
    /// some other number, and no order of the two writes is safe for every reader.
    fn reserve_tail(&mut self, tail: u32) -> Result<u32> {
        let mut probe = self.table.clone();
        let range = probe.set(tail, Link::End);
        if range.start as u64 / self.unit != (range.end as u64 - 1) / self.unit {
            return Err(Error::refused(
                "the directory must grow, and its last cluster's entry in the FAT12 table crosses a sector boundary",
            )
            .advise("make room in the directory with `prune --delete` or `prune --keep-backups 0`"));
        }
        let runs = self.reserve(1)?;
        runs.first().map(|r| r.first).ok_or_else(|| Error::refused("no free cluster"))
    }

    /// Writes the slots of a new entry, marks the slots of `gone` in the same sector as deleted, all in one write.
    fn put(&self, directory: &Directory, room: &Room, slots: &[[u8; SLOT]], gone: &Range<Slot>) -> Result<()> {
        let sector = self.sector_of(directory, room.slots.start);
        let mut bytes = self.read_sector(directory, &sector)?;
        for slot in sector.clone() {
            let at = (slot - sector.start) * SLOT;
            if gone.contains(&slot) || (directory.end()..room.slots.start).contains(&slot) {
                bytes[at] = 0xE5;
            }
        }
        for (slot, raw) in room.slots.clone().zip(slots) {
            bytes[(slot - sector.start) * SLOT..][..SLOT].copy_from_slice(raw);
        }
        if room.slots.end > directory.end() && room.slots.end < sector.end {
            // The end mark moves behind the new entry; whatever stood there must not come back.
            bytes[(room.slots.end - sector.start) * SLOT..].fill(0);
        }
        self.write_sector(directory, &sector, &bytes)
    }

    fn read_sector(&self, directory: &Directory, sector: &Range<Slot>) -> Result<Vec<u8>> {
        let at = offset(directory, sector.start)?;
        Ok(read_vec(self.medium, at, sector.len() * SLOT)?)
    }

    fn write_sector(&self, directory: &Directory, sector: &Range<Slot>, bytes: &[u8]) -> Result<()> {
        self.write(bytes, offset(directory, sector.start)?)
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

fn offset(directory: &Directory, slot: Slot) -> Result<u64> {
    directory.offset_of(slot).ok_or_else(|| Error::io("internal error: a slot outside its directory"))
}

fn set_content(sector: &mut [u8], slot: usize, content: Content) {
    sector[slot * SLOT + 13..(slot + 1) * SLOT].copy_from_slice(&content.0);
}

/// The slots of a new entry: long-name slots where the name needs them, and the short entry with a name that is unique
/// in the directory. `replaces` is the entry that will go when this one comes.
fn new_slots(
    directory: &Directory,
    name: &str,
    attributes: Attributes,
    content: Content,
    replaces: Option<&Entry>,
) -> Result<Vec<[u8; SLOT]>> {
    check_long_name(name).map_err(|e| Error::usage(e.to_string()))?;
    if directory.entries.iter().any(|e| Some(e) != replaces && e.is_named(name)) {
        return Err(Error::refused(format!("there is already a file named {name}")));
    }
    // The old entry's short name stays taken: for a moment both may stand in the directory.
    let taken = |short: &[u8; 11]| directory.entries.iter().any(|e| e.short == *short);
    let (short, mut slots) = match exact_short(name) {
        Some(short) if !taken(&short) => (short, Vec::new()),
        _ => {
            let short = alias(name, taken).ok_or_else(|| Error::refused("no unique short name is left"))?;
            (short, long_slots(name, &short))
        }
    };
    let mut raw = [0; SLOT];
    raw[..11].copy_from_slice(&short);
    raw[11] = attributes.0;
    raw[13..].copy_from_slice(&content.0);
    slots.push(raw);
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        for (t, date, time) in [
            (0, (0, 1, 1), (0, 0, 0)),
            (1_771_000_000, (46, 2, 13), (16, 26, 40)),
            (951_782_399, (20, 2, 28), (23, 59, 58)),
            (951_782_400, (20, 2, 29), (0, 0, 0)),
            (u64::MAX, (127, 12, 31), (23, 59, 58)),
        ] {
            let (d, t2) = Stamp(t).fields();
            assert_eq!((d >> 9, d >> 5 & 15, d & 31), date, "{t}");
            assert_eq!((t2 >> 11, t2 >> 5 & 63, (t2 & 31) * 2), time, "{t}");
        }
    }
}
