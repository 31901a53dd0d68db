//! The GUID partition table: one copy of it, header and entries, held against its checksums.
//!
//! This is the project's own code because a table has to be judged, not only used: where each copy stands, which
//! other place it names, in what it differs from the other copy. The `gpt` crate looks for the backup at the end of
//! the medium only, and panics on entries that are longer than 128 bytes, which the specification allows.
//!
//! Format: UEFI specification 2.10, chapter 5.3.

use super::table::{PartUuid, Partition, PartitionType};
use crate::Result;
use crate::block::{Extent, ReadAt, read_vec};
use crate::sorting::set;
use uuid::Uuid;

/// No disk has more; the specification asks for room for 128.
const MAX_ENTRIES: u32 = 4096;
/// The length of an entry is 128 bytes times a power of two; nothing makes longer ones.
const MAX_ENTRY: u32 = 4096;
/// No array is longer than this; that of 128 entries of 128 bytes has 16 KiB.
const MAX_ARRAY: u64 = 4 << 20;

/// What stands where a header should be.
#[derive(Debug)]
pub(super) enum HeaderState {
    /// No signature, or no such place.
    Absent,
    /// A signature, and something wrong behind it.
    Damaged(Damage),
    /// A header and entries that are what their checksums say.
    Valid(Copy),
}

/// What is wrong with a copy.
#[derive(Debug)]
pub(super) struct Damage {
    /// In words.
    pub(super) why: String,
    /// Where the header says that the other copy is. Nothing vouches for it.
    pub(super) alternate_lba: u64,
}

/// A valid copy of a table.
#[derive(Debug)]
pub(super) struct Copy {
    /// The LBA of its header.
    pub(super) lba: u64,
    /// The LBA of the other header.
    pub(super) alternate_lba: u64,
    /// The last LBA that a partition may have.
    pub(super) last_usable_lba: u64,
    /// The disk's GUID.
    pub(super) disk: Uuid,
    /// Used entries that make sense, by number.
    pub(super) partitions: Vec<Partition>,
    /// Used entries that do not, in words.
    pub(super) nonsense: Vec<String>,
    /// Where the entries lie, in bytes.
    pub(super) array: Extent,
    /// Sector size, in bytes.
    pub(super) sector: u32,
}

impl Copy {
    /// What of the disk belongs to this copy: the header and the entries.
    pub(super) fn areas(&self) -> [Extent; 2] {
        let sector = u64::from(self.sector);
        [Extent { offset: self.lba.saturating_mul(sector), bytes: sector }, self.array]
    }

    /// In which entries this copy and another one differ, by number.
    pub(super) fn differences(&self, other: &Self) -> Vec<u32> {
        let numbers = self.partitions.iter().chain(&other.partitions).map(|p| p.number);
        let numbers = set(numbers);
        let entry = |copy: &Self, n| copy.partitions.iter().find(|p| p.number == n).cloned();
        numbers.into_iter().filter(|n| entry(self, *n) != entry(other, *n)).collect()
    }
}

/// Reads the copy whose header is at `lba`.
///
/// # Errors
/// What the source reports.
pub(super) fn read_copy(source: &dyn ReadAt, sector: u32, lba: u64) -> Result<HeaderState> {
    let size = u64::from(sector);
    let Some(at) = lba.checked_mul(size).filter(|at| at.checked_add(size).is_some_and(|end| end <= source.size()))
    else {
        return Ok(HeaderState::Absent);
    };
    let raw = read_vec(source, at, sector as usize)?;
    if &raw[..8] != b"EFI PART" {
        return Ok(HeaderState::Absent);
    }
    let alternate_lba = le64(&raw, 32);
    let damaged = |why: String| Ok(HeaderState::Damaged(Damage { why, alternate_lba }));
    let (revision, length) = (le32(&raw, 8), le32(&raw, 12));
    if revision >> 16 != 1 {
        return damaged(format!("revision {revision:#010x}"));
    }
    if length < 92 || length > sector {
        return damaged(format!("a header of {length} bytes"));
    }
    let mut header = raw[..length as usize].to_vec();
    header[16..20].fill(0);
    if crc32fast::hash(&header) != le32(&raw, 16) {
        return damaged("the checksum of the header is wrong".into());
    }
    if le64(&raw, 24) != lba {
        return damaged(format!("the header stands at LBA {lba} and says that it is that of LBA {}", le64(&raw, 24)));
    }
    let (entries_lba, count, entry_bytes) = (le64(&raw, 72), le32(&raw, 80), le32(&raw, 84));
    if entry_bytes < 128 || !entry_bytes.is_power_of_two() || entry_bytes > MAX_ENTRY {
        return damaged(format!("entries of {entry_bytes} bytes"));
    }
    let bytes = u64::from(count) * u64::from(entry_bytes);
    if count == 0 || count > MAX_ENTRIES || bytes > MAX_ARRAY {
        return damaged(format!("room for {count} entries"));
    }
    let array = entries_lba.checked_mul(size).map(|offset| Extent { offset, bytes });
    let inside = |e: &Extent| e.offset.checked_add(e.bytes).is_some_and(|end| end <= source.size());
    let Some(array) = array.filter(inside) else {
        return damaged(format!("its entries are at LBA {entries_lba}, which the disk does not have"));
    };
    let entries = read_vec(source, array.offset, bytes as usize)?;
    if crc32fast::hash(&entries) != le32(&raw, 88) {
        return damaged("the checksum of the entries is wrong".into());
    }
    let mut copy = Copy {
        lba,
        alternate_lba,
        last_usable_lba: le64(&raw, 48),
        disk: guid(&raw, 56),
        partitions: Vec::new(),
        nonsense: Vec::new(),
        array,
        sector,
    };
    for (number, raw) in (1..).zip(entries.chunks_exact(entry_bytes as usize)) {
        match entry(number, raw, size) {
            Ok(None) => {}
            Ok(Some(partition)) => copy.partitions.push(partition),
            Err(why) => copy.nonsense.push(format!("partition {number} {why}")),
        }
    }
    Ok(HeaderState::Valid(copy))
}

/// One entry; `None` when it is not used.
fn entry(number: u32, raw: &[u8], sector: u64) -> Result<Option<Partition>, String> {
    let kind = guid(raw, 0);
    if kind.is_nil() {
        return Ok(None);
    }
    let (first, last) = (le64(raw, 32), le64(raw, 40));
    let extent = || {
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        let extent = Extent { offset: first.checked_mul(sector)?, bytes: sectors.checked_mul(sector)? };
        extent.offset.checked_add(extent.bytes)?;
        Some(extent)
    };
    let extent = extent().ok_or_else(|| format!("goes from LBA {first} to LBA {last}"))?;
    let units = raw[56..128].chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).take_while(|u| *u != 0);
    let label = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Ok(Some(Partition {
        number,
        kind: PartitionType::Gpt(kind),
        partuuid: PartUuid::Gpt(guid(raw, 16)),
        label,
        extent,
    }))
}

/// A GUID: its first three fields are little-endian (UEFI specification 2.10, appendix A).
fn guid(raw: &[u8], at: usize) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&raw[at..at + 16]);
    Uuid::from_bytes_le(bytes)
}

fn le32(raw: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]])
}

fn le64(raw: &[u8], at: usize) -> u64 {
    u64::from(le32(raw, at)) | u64::from(le32(raw, at + 4)) << 32
}
