//! Directories: 32-byte slots, long names in the slots before a short entry.

use super::name::{SLOT, checksum, same_name, short_to_string, slot_units};
use super::runs::Run;
use crate::block::Extent;

/// The attribute byte of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes(pub u8);

impl Attributes {
    /// A plain file.
    pub const ARCHIVE: Self = Self(0x20);
    /// A directory.
    pub const DIRECTORY: Self = Self(0x10);

    /// Is it a directory?
    #[must_use]
    pub const fn is_dir(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// Is it marked read-only? Firmware then refuses to rename it.
    #[must_use]
    pub const fn is_read_only(self) -> bool {
        self.0 & 0x01 != 0
    }

    const fn is_long_name(self) -> bool {
        self.0 & 0x3F == 0x0F
    }

    const fn is_volume_label(self) -> bool {
        self.0 & 0x08 != 0 && !self.is_long_name()
    }
}

/// The place of a slot in its directory: an index, counted from 0.
pub type Slot = usize;

/// A file or directory in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The long name, or the short one in the case its flags ask for.
    pub name: String,
    /// The short name as stored.
    pub short: [u8; 11],
    /// Attribute byte.
    pub attributes: Attributes,
    /// First cluster; 0 for an empty file.
    pub first_cluster: u32,
    /// Length in bytes; 0 for directories.
    pub bytes: u32,
    /// Its slots in the directory, long-name slots first, the short entry last.
    pub slots: std::ops::Range<Slot>,
    /// The short entry as stored.
    pub raw: [u8; SLOT],
}

impl Entry {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.attributes.is_dir()
    }

    /// Where the short entry stands, the slot that holds cluster and size.
    #[must_use]
    pub fn short_slot(&self) -> Slot {
        self.slots.end - 1
    }

    /// Whether a loader that looks for `name` would find this entry, by its long or its short name.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        // No short name has more than twelve characters, the dot among them.
        let short = || name.chars().nth(12).is_none() && same_name(&short_to_string(&self.short, 0), name);
        same_name(&self.name, name) || short()
    }

    /// Whether this is `.` or `..`.
    #[must_use]
    pub fn is_dot(&self) -> bool {
        self.short.starts_with(b".")
    }
}

/// A directory as it stands on the medium.
#[derive(Debug, Clone)]
pub struct Directory {
    /// Its clusters; empty for the fixed root directory of FAT12 and FAT16.
    pub runs: Vec<Run>,
    /// Where its bytes lie in the volume.
    extents: Vec<Extent>,
    raw: Vec<u8>,
    /// Entries in on-disk order, without deleted slots and volume labels. `.` and `..` are among them.
    pub entries: Vec<Entry>,
    /// Long-name slots that belong to no short entry.
    pub orphans: Vec<Slot>,
    /// The volume label, if one is stored here.
    pub label: Option<String>,
    /// The first slot that was never used, or the number of slots.
    end: Slot,
}

impl Directory {
    /// Parses the slots of a directory.
    pub(super) fn parse(raw: Vec<u8>, extents: Vec<Extent>, runs: Vec<Run>, fat32: bool) -> Self {
        let mut d = Self { runs, extents, raw, entries: Vec::new(), orphans: Vec::new(), label: None, end: 0 };
        let mut pending: Vec<Slot> = Vec::new();
        let total = d.raw.len() / SLOT;
        d.end = total;
        for slot in 0..total {
            let raw = d.slot(slot);
            if raw[0] == 0 {
                d.end = slot;
                break;
            }
            let attributes = Attributes(raw[11]);
            if raw[0] == 0xE5 {
                d.orphans.append(&mut pending);
            } else if attributes.is_long_name() {
                if raw[0] & 0x40 != 0 {
                    d.orphans.append(&mut pending);
                }
                pending.push(slot);
            } else if attributes.is_volume_label() {
                d.orphans.append(&mut pending);
                let mut short = [0; 11];
                short.copy_from_slice(&raw[..11]);
                d.label.get_or_insert_with(|| String::from_utf8_lossy(&short).trim_end().to_owned());
            } else {
                let entry = entry(&raw, slot, &pending, &d.raw, fat32);
                if entry.slots.len() == 1 {
                    d.orphans.append(&mut pending);
                }
                pending.clear();
                d.entries.push(entry);
            }
        }
        d.orphans.append(&mut pending);
        d
    }

    /// The 32 bytes of a slot.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> [u8; SLOT] {
        let mut raw = [0; SLOT];
        if let Some(bytes) = self.raw.get(slot * SLOT..(slot + 1) * SLOT) {
            raw.copy_from_slice(bytes);
        }
        raw
    }

    /// Number of slots, used or not.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.raw.len() / SLOT
    }

    /// The first slot that was never used; every slot from there on reads as unused.
    #[must_use]
    pub fn end(&self) -> Slot {
        self.end
    }

    /// Where a slot stands in the volume, in bytes.
    #[must_use]
    pub fn offset_of(&self, slot: Slot) -> Option<u64> {
        let mut at = (slot * SLOT) as u64;
        for e in &self.extents {
            if at < e.bytes {
                return Some(e.offset + at);
            }
            at -= e.bytes;
        }
        None
    }

    /// Whether a slot may be overwritten: deleted, or never used.
    #[must_use]
    pub fn is_free(&self, slot: Slot) -> bool {
        slot < self.slots() && (slot >= self.end || self.raw[slot * SLOT] == 0xE5)
    }

    /// The entry that a loader would find under `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Entry> {
        // A long name wins over another file's short name.
        let exact = self.entries.iter().find(|e| same_name(&e.name, name));
        exact.or_else(|| self.entries.iter().find(|e| e.is_named(name)))
    }
}

fn entry(raw: &[u8; SLOT], slot: Slot, pending: &[Slot], directory: &[u8], fat32: bool) -> Entry {
    let le16 = |at: usize| u32::from(u16::from_le_bytes([raw[at], raw[at + 1]]));
    let mut short = [0; 11];
    short.copy_from_slice(&raw[..11]);
    let long = long_name(&short, slot, pending, directory);
    let first_slot = if long.is_some() { slot - pending.len() } else { slot };
    Entry {
        name: long.unwrap_or_else(|| short_to_string(&short, raw[12])),
        short,
        attributes: Attributes(raw[11]),
        first_cluster: le16(26) | if fat32 { le16(20) << 16 } else { 0 },
        bytes: u32::from_le_bytes([raw[28], raw[29], raw[30], raw[31]]),
        slots: first_slot..slot + 1,
        raw: *raw,
    }
}

/// The long name, if the slots before the short entry form one: numbered downwards to 1, all with its checksum.
fn long_name(short: &[u8; 11], slot: Slot, pending: &[Slot], directory: &[u8]) -> Option<String> {
    let n = pending.len();
    if n == 0 || n > 20 || *pending.last()? + 1 != slot {
        return None;
    }
    let sum = checksum(short);
    let mut units: Vec<u16> = Vec::with_capacity(13 * n);
    for (i, s) in pending.iter().rev().enumerate() {
        let raw = directory.get(s * SLOT..(s + 1) * SLOT)?;
        let mark = if i + 1 == n { 0x40 } else { 0 };
        if raw[0] != mark | (i + 1) as u8 || raw[13] != sum {
            return None;
        }
        units.extend(slot_units(raw));
    }
    let end = units.iter().position(|u| *u == 0).unwrap_or(units.len());
    Some(String::from_utf16_lossy(&units[..end])).filter(|name| !name.is_empty())
}
