//! Tables and beginnings drawn at random: whatever lies at the end of a disk, what counts is what lies at its
//! beginning.

use super::layout::DiskLayout;
use super::{ESP_TYPE, PartUuid, PartitionTable, Scheme, XBOOTLDR_TYPE};
use proptest::prelude::*;
use uuid::Uuid;

/// A GPT as it is written to a disk.
#[derive(Debug, Clone)]
struct Gpt {
    sector: usize,
    /// Bytes of an entry and of the header.
    entry: usize,
    header: usize,
    count: usize,
    /// Sectors that the table is made for.
    sectors: u64,
    /// First and last LBA, type.
    partitions: Vec<(u64, u64, Uuid)>,
}

impl Gpt {
    fn new(sector: usize, sectors: u64) -> Self {
        let first = (64 << 10) / sector as u64;
        let partitions = vec![(first, first + 15, ESP_TYPE), (first + 16, first + 31, XBOOTLDR_TYPE)];
        Self { sector, entry: 128, header: 92, count: 128, sectors, partitions }
    }

    fn array_sectors(&self) -> u64 {
        (self.entry * self.count).div_ceil(self.sector) as u64
    }

    fn array(&self) -> Vec<u8> {
        let mut array = vec![0; self.entry * self.count];
        for ((n, (first, last, kind)), raw) in (1u128..).zip(&self.partitions).zip(array.chunks_exact_mut(self.entry)) {
            raw[..16].copy_from_slice(&kind.to_bytes_le());
            raw[16..32].copy_from_slice(&Uuid::from_u128(n).to_bytes_le());
            raw[32..40].copy_from_slice(&first.to_le_bytes());
            raw[40..48].copy_from_slice(&last.to_le_bytes());
            raw[56] = b'A' + n as u8;
        }
        array
    }

    fn header(&self, lba: u64, other: u64, array_lba: u64) -> Vec<u8> {
        let mut raw = vec![0; self.sector];
        let mut set = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        set(0, b"EFI PART");
        set(8, &0x0001_0000_u32.to_le_bytes());
        set(12, &(self.header as u32).to_le_bytes());
        set(24, &lba.to_le_bytes());
        set(32, &other.to_le_bytes());
        set(40, &(2 + self.array_sectors()).to_le_bytes());
        set(48, &(self.sectors - 2 - self.array_sectors()).to_le_bytes());
        set(56, &Uuid::from_u128(77).to_bytes_le());
        set(72, &array_lba.to_le_bytes());
        set(80, &(self.count as u32).to_le_bytes());
        set(84, &(self.entry as u32).to_le_bytes());
        set(88, &crc32fast::hash(&self.array()).to_le_bytes());
        let checksum = crc32fast::hash(&raw[..self.header]);
        raw[16..20].copy_from_slice(&checksum.to_le_bytes());
        raw
    }

    fn write(&self, disk: &mut [u8]) {
        self.protect(disk);
        let last = self.sectors - 1;
        self.put(disk, 1, &self.header(1, last, 2));
        self.put(disk, 2, &self.array());
        self.write_backup(disk);
    }

    fn write_backup(&self, disk: &mut [u8]) {
        let last = self.sectors - 1;
        self.put(disk, last, &self.header(last, 1, last - self.array_sectors()));
        self.put(disk, last - self.array_sectors(), &self.array());
    }

    fn protect(&self, disk: &mut [u8]) {
        disk[446..462].copy_from_slice(&[0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
        disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    }

    fn put(&self, disk: &mut [u8], lba: u64, bytes: &[u8]) {
        disk[lba as usize * self.sector..][..bytes.len()].copy_from_slice(bytes);
    }
}

/// An empty FAT16 volume over the first `bytes` bytes.
fn put_fat16(disk: &mut [u8], bytes: usize) {
    let sectors = bytes / 512;
    disk[..512].fill(0);
    disk[..3].copy_from_slice(&[0xEB, 0x3C, 0x90]);
    disk[11..14].copy_from_slice(&[0, 2, 1]);
    disk[14..19].copy_from_slice(&[1, 0, 2, 16, 0]);
    disk[19..21].copy_from_slice(&(sectors as u16).to_le_bytes());
    disk[21..24].copy_from_slice(&[0xF8, 64, 0]);
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    let end = (1 + 2 * 64 + 1) * 512;
    disk[512..end].fill(0);
    for copy in 0..2 {
        disk[512 + copy * 64 * 512..][..4].copy_from_slice(&[0xF8, 0xFF, 0xFF, 0xFF]);
    }
}

/// The partitions of an MBR: type, first sector, sectors.
fn put_mbr(disk: &mut [u8], entries: &[(u8, u32, u32)]) {
    put_record(&mut disk[..512], entries);
    disk[440..444].copy_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
}

fn put_record(sector: &mut [u8], entries: &[(u8, u32, u32)]) {
    sector[446..510].fill(0);
    for (raw, (kind, first, sectors)) in sector[446..510].chunks_exact_mut(16).zip(entries) {
        raw[4] = *kind;
        raw[8..12].copy_from_slice(&first.to_le_bytes());
        raw[12..16].copy_from_slice(&sectors.to_le_bytes());
    }
    sector[510..512].copy_from_slice(&[0x55, 0xAA]);
}

const SIZE: usize = 4 << 20;

fn layout(disk: &[u8], sector: Option<u32>) -> DiskLayout {
    DiskLayout::read(&disk, sector).unwrap()
}

fn is_gpt(layout: &DiskLayout) -> bool {
    matches!(layout.table, Some(PartitionTable { scheme: Scheme::Gpt { .. }, .. }))
}

#[test]
fn entries_and_headers_of_other_lengths_are_valid() {
    for (sector, entry, header, count) in
        [(512, 128, 92, 128), (512, 256, 92, 128), (512, 128, 512, 128), (512, 512, 512, 4), (4096, 128, 4096, 128)]
    {
        let mut disk = vec![0; SIZE];
        let gpt = Gpt { entry, header, count, ..Gpt::new(sector, (SIZE / sector) as u64) };
        gpt.write(&mut disk);
        for known in [None, Some(sector as u32)] {
            let layout = layout(&disk, known);
            assert!(layout.notes.is_empty() && layout.refusal.is_none(), "{gpt:?}: {:?}", layout.notes);
            let table = layout.table.unwrap();
            assert_eq!((table.partitions.len(), table.sector_size as usize), (2, sector));
            let esp = &table.partitions[0];
            assert_eq!((esp.number, esp.label.as_str(), esp.extent.offset), (1, "B", 64 << 10));
            assert_eq!(esp.partuuid, PartUuid::Gpt(Uuid::from_u128(1)));
            assert_eq!(table.xbootldr().map(|p| p.number), Some(2));
        }
    }
}

#[test]
fn lengths_that_no_table_has_are_damage_and_no_panic() {
    for (at, value) in [(12, 91u32), (12, 513), (80, 0), (80, u32::MAX), (84, 0), (84, 64), (84, 192), (84, 1 << 31)] {
        let mut disk = vec![0; SIZE];
        let gpt = Gpt::new(512, (SIZE / 512) as u64);
        gpt.write(&mut disk);
        let mut header = gpt.header(1, gpt.sectors - 1, 2);
        header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        header[16..20].fill(0);
        let length = u32::from_le_bytes([header[12], header[13], header[14], header[15]]).min(512) as usize;
        let checksum = crc32fast::hash(&header[..length]);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        gpt.put(&mut disk, 1, &header);
        let layout = layout(&disk, None);
        assert_eq!(layout.notes[0].id, "primary-table-damaged", "{at} {value}");
        assert!(is_gpt(&layout));
    }
}

#[test]
fn copies_that_differ_are_named_and_the_entry_in_question_is_not_written() {
    let mut disk = vec![0; SIZE];
    let gpt = Gpt::new(512, (SIZE / 512) as u64);
    gpt.write(&mut disk);
    let mut other = gpt.clone();
    other.partitions[1].1 += 8;
    other.write_backup(&mut disk);
    let layout = layout(&disk, None);
    assert_eq!(layout.notes.iter().map(|n| n.id).collect::<Vec<_>>(), ["tables-differ"]);
    let table = layout.table.as_ref().unwrap();
    assert!(layout.refusal_for(&table.partitions[0]).is_none());
    assert!(layout.refusal_for(&table.partitions[1]).unwrap().why.contains("differ"));
}

#[test]
fn logical_partitions_are_numbered_from_five_and_a_chain_has_an_end() {
    let mut disk = vec![0; SIZE];
    put_mbr(&mut disk, &[(0x0C, 64, 100), (0x0F, 1000, 4000)]);
    put_record(&mut disk[1000 * 512..][..512], &[(0x83, 8, 50), (0x05, 500, 300)]);
    put_record(&mut disk[1500 * 512..][..512], &[(0xEF, 8, 60), (0x05, 900, 300)]);
    put_record(&mut disk[1900 * 512..][..512], &[(0x83, 8, 70)]);
    let all = layout(&disk, None);
    let found: Vec<_> =
        all.table.as_ref().unwrap().partitions.iter().map(|p| (p.number, p.extent.offset / 512, p.is_esp())).collect();
    assert_eq!(found, [(1, 64, false), (5, 1008, false), (6, 1508, true), (7, 1908, false)]);
    assert_eq!(all.table.as_ref().unwrap().partitions[2].partuuid.to_string(), "1a2b3c4d-06");
    assert!(all.notes.is_empty() && all.areas.len() == 4);
    // A chain that leads back to its start.
    put_record(&mut disk[1900 * 512..][..512], &[(0x83, 8, 70), (0x05, 500, 300)]);
    let circle = layout(&disk, None);
    assert!(circle.notes.iter().any(|n| n.what.contains("circle")), "{:?}", circle.notes);
    // One that leaves the disk.
    put_record(&mut disk[1900 * 512..][..512], &[(0x05, u32::MAX, 300)]);
    assert!(layout(&disk, None).notes.iter().any(|n| n.what.contains("leaves the disk")));
}

/// What may lie at the beginning of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    Zeros,
    Noise,
    Fat { kib: usize },
    BrokenFat,
    Mbr,
    Xfs,
    Gpt,
    DamagedGpt,
    GptWithoutProtection,
}

/// What may lie at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Nothing,
    OldTable { sector: usize },
}

fn beginning() -> impl Strategy<Value = Beginning> {
    prop_oneof![
        Just(Beginning::Zeros),
        Just(Beginning::Noise),
        (2200usize..4096).prop_map(|kib| Beginning::Fat { kib }),
        Just(Beginning::BrokenFat),
        Just(Beginning::Mbr),
        Just(Beginning::Xfs),
        Just(Beginning::Gpt),
        Just(Beginning::DamagedGpt),
        Just(Beginning::GptWithoutProtection),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Nothing), Just(End::OldTable { sector: 512 }), Just(End::OldTable { sector: 4096 })]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// An old table at the end never decides which volume is written.
    #[test]
    fn what_lies_at_the_beginning_counts(start in beginning(), end in end(), noise in any::<u8>(), known in 0usize..3) {
        let mut disk = vec![0; SIZE];
        if let End::OldTable { sector } = end {
            let mut old = Gpt::new(sector, (SIZE / sector) as u64);
            old.partitions = vec![(200, 299, ESP_TYPE)];
            old.write_backup(&mut disk);
        }
        let new = Gpt::new(512, (SIZE / 512) as u64);
        match start {
            Beginning::Zeros => {}
            Beginning::Noise => disk[..64 << 10].fill(noise),
            Beginning::Fat { kib } => put_fat16(&mut disk, kib << 10),
            Beginning::BrokenFat => {
                put_fat16(&mut disk, 3 << 20);
                disk[512..1 << 16].fill(noise & 0x7F);
            }
            Beginning::Mbr => put_mbr(&mut disk, &[(0x0C, 64, 90)]),
            Beginning::Xfs => disk[..4].copy_from_slice(b"XFSB"),
            Beginning::Gpt => {
                new.protect(&mut disk);
                new.put(&mut disk, 1, &new.header(1, new.sectors - 1, 2));
                new.put(&mut disk, 2, &new.array());
            }
            Beginning::DamagedGpt => {
                new.protect(&mut disk);
                new.put(&mut disk, 1, &new.header(1, new.sectors - 1, 2));
            }
            Beginning::GptWithoutProtection => {
                new.put(&mut disk, 1, &new.header(1, new.sectors - 1, 2));
                new.put(&mut disk, 2, &new.array());
            }
        }
        let known = [None, Some(512u32), Some(4096)][known];
        let found = DiskLayout::read(&disk, known);
        let old = |l: &DiskLayout| l.table.as_ref().is_some_and(|t| t.partitions[0].extent.bytes / u64::from(t.sector_size) == 100);
        let writable = |l: &DiskLayout| l.table.as_ref().is_some_and(|t| l.refusal_for(&t.partitions[0]).is_none());
        let has_old = end != End::Nothing;
        match start {
            Beginning::Fat { .. } | Beginning::BrokenFat | Beginning::Xfs => {
                let found = found.unwrap();
                prop_assert!(found.table.is_none());
                prop_assert_eq!(found.occupant.is_some(), start == Beginning::Xfs);
                prop_assert_eq!(found.notes.iter().any(|n| n.id == "old-backup-table"), has_old);
            }
            Beginning::Mbr => {
                let found = found.unwrap();
                let is_mbr = matches!(found.table, Some(PartitionTable { scheme: Scheme::Mbr { signature: 0x1a2b_3c4d }, .. }));
                prop_assert!(is_mbr && writable(&found));
                prop_assert_eq!(found.notes.iter().any(|n| n.id == "old-backup-table"), has_old);
            }
            Beginning::Zeros | Beginning::Noise => {
                let found = found.unwrap();
                prop_assert_eq!(found.table.is_some(), has_old);
                prop_assert!(!writable(&found));
            }
            Beginning::Gpt | Beginning::GptWithoutProtection => {
                let found = found.unwrap();
                prop_assert!(is_gpt(&found) && !old(&found));
                // A backup that differs in the ESP's own entry is a contradiction.
                prop_assert_eq!(writable(&found), known != Some(4096) && end != (End::OldTable { sector: 512 }));
            }
            Beginning::DamagedGpt if has_old => {
                let found = found.unwrap();
                prop_assert!(is_gpt(&found) && old(&found));
                let End::OldTable { sector } = end else { unreachable!() };
                prop_assert_eq!(writable(&found), known.is_none_or(|k| k as usize == sector));
            }
            Beginning::DamagedGpt => prop_assert!(found.is_err()),
        }
    }
}
