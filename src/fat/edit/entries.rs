//! Directory entries: creating, renaming, removing and exchanging them, each by writes of whole sectors.

use super::super::dir::{Attributes, Directory, Entry, Slot};
use super::super::geometry::FatKind;
use super::super::name::{SLOT, alias, check_long_name, exact_short, long_slots};
use super::super::runs::Run;
use super::super::table::Link;
use super::super::volume::MAX_DIRECTORY;
use super::clusters::Changed;
use super::{Content, Editor, Stamp};
use crate::block::read_vec;
use crate::{Code, Error, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Length of the mark that a deleted entry can carry.
pub const MARK: usize = 10;

/// Where the slots of a new entry go, all in one sector.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Room {
    slots: Range<Slot>,
}

impl Editor<'_> {
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
        self.remove_from(&self.directory(path)?, entry)
    }

    /// As [`Self::remove`], from a directory that was read before. Other entries may have been removed from it since:
    /// that moves none.
    ///
    /// # Errors
    /// What the medium reports; a caller's mistake when the entry is not in its place any more.
    pub fn remove_from(&self, directory: &Directory, entry: &Entry) -> Result<()> {
        let sector = self.sector_of(directory, entry.short_slot());
        let now = self.read_sector(directory, &sector)?;
        if now[(entry.short_slot() - sector.start) * SLOT..][..SLOT] != entry.raw {
            return Err(Error::new(Code::Bug, format!("{} has left its place in the directory", entry.name)));
        }
        let here = entry.slots.start.max(sector.start)..entry.slots.end;
        let before = entry.slots.start..here.start;
        self.clear_in(directory, &here)?;
        self.barrier()?;
        if !before.is_empty() {
            self.clear_in(directory, &before)?;
            self.barrier()?;
        }
        Ok(())
    }

    /// As [`Self::remove`]; the deleted short entry keeps cluster and length and gets `mark` in the place of its name.
    /// A deleted entry is nobody's, and any system may use its slot again.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn remove_marked(&self, path: &str, entry: &Entry, mark: [u8; MARK]) -> Result<()> {
        let directory = self.directory(path)?;
        let sector = self.sector_of(&directory, entry.short_slot());
        let here = entry.slots.start.max(sector.start)..entry.slots.end;
        let mut bytes = self.read_sector(&directory, &sector)?;
        for slot in here.clone() {
            bytes[(slot - sector.start) * SLOT] = 0xE5;
        }
        bytes[(entry.short_slot() - sector.start) * SLOT + 1..][..MARK].copy_from_slice(&mark);
        self.write_sector(&directory, &sector, &bytes)?;
        self.barrier()?;
        let before = entry.slots.start..here.start;
        if !before.is_empty() {
            self.clear(path, &before)?;
            self.barrier()?;
        }
        Ok(())
    }

    /// Takes the mark off a deleted entry.
    ///
    /// # Errors
    /// What the medium reports; a caller's mistake when the slot is in use.
    pub fn unmark(&self, path: &str, slot: Slot) -> Result<()> {
        let directory = self.directory(path)?;
        let sector = self.sector_of(&directory, slot);
        let mut bytes = self.read_sector(&directory, &sector)?;
        let at = (slot - sector.start) * SLOT;
        if bytes[at] != 0xE5 {
            return Err(Error::new(crate::Code::Bug, "the mark of an entry that is in use"));
        }
        bytes[at + 1..][..MARK].fill(b' ');
        self.write_sector(&directory, &sector, &bytes)?;
        self.barrier()
    }

    /// Marks slots as deleted, sector by sector.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn clear(&self, path: &str, slots: &Range<Slot>) -> Result<()> {
        self.clear_in(&self.directory(path)?, slots)
    }

    fn clear_in(&self, directory: &Directory, slots: &Range<Slot>) -> Result<()> {
        let mut at = slots.start;
        while at < slots.end {
            let sector = self.sector_of(directory, at);
            let upto = slots.end.min(sector.end);
            let mut bytes = self.read_sector(directory, &sector)?;
            for slot in at..upto {
                bytes[(slot - sector.start) * SLOT] = 0xE5;
            }
            self.write_sector(directory, &sector, &bytes)?;
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

    /// Makes the entry in a slot begin at another cluster, in one write; its size and times stay.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn set_first_cluster(&self, path: &str, slot: Slot, cluster: u32) -> Result<()> {
        let directory = self.directory(path)?;
        let sector = self.sector_of(&directory, slot);
        let mut bytes = self.read_sector(&directory, &sector)?;
        let entry = &mut bytes[(slot - sector.start) * SLOT..][..SLOT];
        let [a, b, c, d] = cluster.to_le_bytes();
        entry[26..28].copy_from_slice(&[a, b]);
        if self.geometry.kind == FatKind::Fat32 {
            entry[20..22].copy_from_slice(&[c, d]);
        }
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
        Err(Error::new(Code::NoRoom, format!("no room can be made in directory {path}")))
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

    /// Adds an empty cluster to a directory: its content, then its own table entry, then the link from the last
    /// cluster.
    fn grow(&mut self, path: &str, directory: &Directory) -> Result<()> {
        let Some(tail) = directory.runs.last().map(|r| r.first + r.count - 1) else {
            let what = "the root directory is full, and on FAT12 and FAT16 it cannot grow";
            return Err(Error::new(Code::NoRoom, what).advise("move a file out of the root directory"));
        };
        if (directory.slots() * SLOT) as u64 + u64::from(self.geometry.cluster_bytes) > MAX_DIRECTORY {
            let what = format!("directory {path} has as many entries as the format allows");
            return Err(Error::new(Code::NoRoom, what).advise("make room in it with `prune --delete`"));
        }
        let new = self.reserve_tail(tail)?;
        self.write_data(&[Run { first: new, count: 1 }], 0, &grown_cluster(self.geometry.cluster_bytes))?;
        self.barrier()?;
        self.link(&[Run { first: new, count: 1 }])?;
        self.barrier()?;
        let mut changed = Changed::default();
        changed.add(Arc::make_mut(&mut self.table).set(tail, Link::Next(new)));
        self.write_table(changed)?;
        self.barrier()
    }

    /// A free cluster that `tail` can be made to point at in one write per copy.
    ///
    /// The entry of `tail` must lie in one sector. On FAT12 it may straddle two; then half an update of 0xFFF would be
    /// some other number, and no order of the two writes is safe for every reader.
    fn reserve_tail(&mut self, tail: u32) -> Result<u32> {
        if self.table.is_split(tail, self.unit as u32) {
            return Err(Error::new(
                Code::NoRoom,
                "the directory must grow, and its last cluster's entry in the FAT12 table crosses a sector boundary",
            )
            .advise("make room in the directory with `prune --delete`"));
        }
        let runs = self.reserve(1)?;
        runs.first().map(|r| r.first).ok_or_else(|| Error::new(Code::NoRoom, "no free cluster"))
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
}

/// The cluster that a directory grows by, before anything is in it: an end mark, and behind it, where nobody reads,
/// words by which it is known should the power fail before the directory leads to it.
#[must_use]
pub fn grown_cluster(bytes: u32) -> Vec<u8> {
    let mut cluster = vec![0; bytes as usize];
    let words = b"\0bootsurgeon: directory growing";
    cluster[..words.len()].copy_from_slice(words);
    cluster
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
    let shorts: HashMap<[u8; 11], &String> = directory.entries.iter().map(|e| (e.short, &e.name)).collect();
    let taken = |short: &[u8; 11]| shorts.contains_key(short);
    let (short, mut slots) = match exact_short(name) {
        Some(short) if !taken(&short) => (short, Vec::new()),
        _ => {
            let short = alias(name, taken).ok_or_else(|| Error::new(Code::NoRoom, "no unique short name is left"))?;
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
