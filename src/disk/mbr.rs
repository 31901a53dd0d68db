//! The partition table of a master boot record, with the logical partitions of an extended one.
//!
//! Format: UEFI specification 2.10, 5.2; for logical partitions there is none but what every system does: a chain of
//! boot records, whose first entry is counted from the record itself and whose second from the start of the extended
//! partition.

use super::table::{PartUuid, Partition, PartitionType};
use crate::Result;
use crate::block::{Extent, ReadAt, read_vec};

/// The type of the entry that keeps others away from a GPT.
const PROTECTIVE: u8 = 0xEE;
/// Types of extended partitions: CHS, LBA, Linux.
const EXTENDED: [u8; 3] = [0x05, 0x0F, 0x85];
/// Linux knows no more of them.
const MAX_LOGICAL: u32 = 256;

/// An entry as it stands in a boot record, in sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    kind: u8,
    first: u32,
    sectors: u32,
}

/// The table in sector 0.
#[derive(Debug, Clone)]
pub(super) struct Mbr {
    /// Bytes 440 to 443.
    pub(super) signature: u32,
    entries: [Option<Entry>; 4],
}

/// The partitions of an MBR.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    pub(super) partitions: Vec<Partition>,
    /// Those that reach past the end of the disk.
    pub(super) cut_off: Vec<Partition>,
    /// The boot records themselves.
    pub(super) records: Vec<Extent>,
    /// What is wrong, in words.
    pub(super) nonsense: Vec<String>,
}

impl Mbr {
    /// The table in these 512 bytes; `None` when they are none. The four boot indicators tell it from the code of a
    /// boot sector, as they do for Linux (`block/partitions/msdos.c`). An entry that begins at sector 0 describes a
    /// file system over the whole medium and not a part of it; `mkfs.vfat` writes such a one for other systems to
    /// see.
    pub(super) fn parse(sector: &[u8]) -> Option<Self> {
        if sector.get(510..512)? != [0x55, 0xAA] {
            return None;
        }
        if (0..4).any(|n| sector[446 + 16 * n] & 0x7F != 0) {
            return None;
        }
        let entries = [0, 1, 2, 3].map(|n| entry(&sector[446 + 16 * n..]).filter(|e| e.first != 0));
        let signature = le32(&sector[440..]);
        entries.iter().any(Option::is_some).then_some(Self { signature, entries })
    }

    /// Whether it protects a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.entries.iter().flatten().any(|e| e.kind == PROTECTIVE)
    }

    /// Whether it has partitions of its own, beside what protects a GPT.
    pub(super) fn has_own(&self) -> bool {
        self.entries.iter().flatten().any(|e| e.kind != PROTECTIVE)
    }

    /// Every partition, with sectors of this size. What reaches past the end of the disk is listed apart.
    ///
    /// # Errors
    /// What the source reports.
    pub(super) fn partitions(&self, source: &dyn ReadAt, sector: u32) -> Result<Partitions> {
        let mut all =
            Partitions { records: vec![Extent { offset: 0, bytes: u64::from(sector) }], ..Partitions::default() };
        let mut extended = None;
        for (number, entry) in (1..).zip(self.entries) {
            match entry {
                Some(e) if EXTENDED.contains(&e.kind) => extended = extended.or(Some(e)),
                Some(e) if e.kind != PROTECTIVE => all.add(self.signature, number, e, 0, sector, source.size()),
                _ => {}
            }
        }
        if let Some(container) = extended {
            self.logical(container, source, sector, &mut all)?;
        }
        Ok(all)
    }

    fn logical(&self, container: Entry, source: &dyn ReadAt, sector: u32, all: &mut Partitions) -> Result<()> {
        let base = u64::from(container.first);
        let (mut at, mut number) = (base, 5);
        let mut seen = std::collections::BTreeSet::new();
        loop {
            if !seen.insert(at) || number >= 5 + MAX_LOGICAL {
                all.nonsense.push("the chain of logical partitions goes in a circle".into());
                return Ok(());
            }
            let offset = at * u64::from(sector);
            if offset + u64::from(sector) > source.size() {
                all.nonsense.push("the chain of logical partitions leaves the disk".into());
                return Ok(());
            }
            let record = read_vec(source, offset, 512)?;
            if record[510..512] != [0x55, 0xAA] {
                all.nonsense.push(format!("the boot record of logical partition {number} is damaged"));
                return Ok(());
            }
            all.records.push(Extent { offset, bytes: u64::from(sector) });
            let entries = [0, 1, 2, 3].map(|n| entry(&record[446 + 16 * n..]));
            // Linux counts an empty record's data entry as no partition, and gives the next one its number.
            if let Some(data) = entries.iter().flatten().find(|e| !EXTENDED.contains(&e.kind)) {
                all.add(self.signature, number, *data, at, sector, source.size());
                number += 1;
            }
            match entries.iter().flatten().find(|e| EXTENDED.contains(&e.kind)) {
                Some(next) => at = base + u64::from(next.first),
                None => return Ok(()),
            }
        }
    }
}

impl Partitions {
    fn add(&mut self, signature: u32, number: u32, entry: Entry, base: u64, sector: u32, size: u64) {
        let sector = u64::from(sector);
        let extent =
            Extent { offset: (base + u64::from(entry.first)) * sector, bytes: u64::from(entry.sectors) * sector };
        let list = if extent.offset + extent.bytes > size { &mut self.cut_off } else { &mut self.partitions };
        list.push(Partition {
            number,
            kind: PartitionType::Mbr(entry.kind),
            partuuid: PartUuid::Mbr { signature, number },
            label: String::new(),
            extent,
        });
    }
}

/// An entry that is used.
fn entry(raw: &[u8]) -> Option<Entry> {
    let entry = Entry { kind: raw[4], first: le32(&raw[8..]), sectors: le32(&raw[12..]) };
    (entry.kind != 0 && entry.sectors != 0).then_some(entry)
}

fn le32(raw: &[u8]) -> u32 {
    u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]])
}
