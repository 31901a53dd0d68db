//! Partition tables and superblocks for tests, where no tool makes what is needed: tables that contradict themselves,
//! and members of arrays on a kernel that has no md.

#![allow(unreachable_pub)]

use bootsurgeon::block::Extent;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A GPT with sectors of 512 bytes, to be changed in both copies or in one.
pub struct Gpt {
    entries: Vec<u8>,
    entry_bytes: usize,
}

impl Gpt {
    /// Changes the entries of both copies; the checksums are right again afterwards.
    pub fn edit(disk: &Path, change: impl Fn(&mut Self)) {
        let sectors = disk.metadata().expect("a disk").len() / 512;
        for lba in [1, sectors - 1] {
            Self::edit_copy(disk, lba, &change);
        }
    }

    /// Changes the entries of the copy whose header is at `lba`.
    pub fn edit_copy(disk: &Path, lba: u64, change: impl Fn(&mut Self)) {
        let file = OpenOptions::new().read(true).write(true).open(disk).expect("a disk");
        let mut header = read(&file, lba * 512, 512);
        let field = |header: &[u8], at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let entry_bytes = field(&header, 84) as usize;
        let at = u64::from(field(&header, 72)) * 512;
        let mut table = Self { entries: read(&file, at, field(&header, 80) as usize * entry_bytes), entry_bytes };
        change(&mut table);
        header[88..92].copy_from_slice(&crc32fast::hash(&table.entries).to_le_bytes());
        header[16..20].fill(0);
        let checksum = crc32fast::hash(&header[..field(&header, 12) as usize]);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        file.write_all_at(&table.entries, at).expect("entries");
        file.write_all_at(&header, lba * 512).expect("a header");
    }

    /// Rewrites both copies with headers and entries of other lengths in bytes, as UEFI allows (headers up to a sector,
    /// entries of 128 × 2ⁿ): the same partitions.
    pub fn resize(disk: &Path, header_bytes: u32, entry_bytes: usize) {
        let sectors = disk.metadata().expect("a disk").len() / 512;
        for lba in [1, sectors - 1] {
            let file = OpenOptions::new().read(true).write(true).open(disk).expect("a disk");
            let mut header = read(&file, lba * 512, 512);
            let field =
                |header: &[u8], at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
            let (at, old) = (u64::from(field(&header, 72)) * 512, field(&header, 84) as usize);
            let bytes = field(&header, 80) as usize * old;
            let entries: Vec<u8> = read(&file, at, bytes)
                .chunks(old)
                .take(bytes / entry_bytes)
                .flat_map(|entry| entry.iter().copied().chain(std::iter::repeat_n(0, entry_bytes - old)))
                .collect();
            header[12..16].copy_from_slice(&header_bytes.to_le_bytes());
            header[80..84].copy_from_slice(&u32::try_from(bytes / entry_bytes).expect("few").to_le_bytes());
            header[84..88].copy_from_slice(&u32::try_from(entry_bytes).expect("short").to_le_bytes());
            header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
            header[16..20].fill(0);
            let checksum = crc32fast::hash(&header[..header_bytes as usize]);
            header[16..20].copy_from_slice(&checksum.to_le_bytes());
            file.write_all_at(&entries, at).expect("entries");
            file.write_all_at(&header, lba * 512).expect("a header");
        }
    }

    fn entry(&mut self, number: usize) -> &mut [u8] {
        &mut self.entries[(number - 1) * self.entry_bytes..][..self.entry_bytes]
    }

    /// Moves a partition to these sectors.
    pub fn set(&mut self, number: usize, first: u64, last: u64) {
        self.entry(number)[32..40].copy_from_slice(&first.to_le_bytes());
        self.entry(number)[40..48].copy_from_slice(&last.to_le_bytes());
    }

    /// Takes a partition away.
    pub fn clear(&mut self, number: usize) {
        self.entry(number).fill(0);
    }

    /// Gives a partition another label.
    pub fn label(&mut self, number: usize, label: &str) {
        let name = &mut self.entry(number)[56..128];
        name.fill(0);
        for (unit, place) in label.encode_utf16().zip(name.chunks_exact_mut(2)) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
    }

    /// Gives a partition another type.
    pub fn kind(&mut self, number: usize, guid: &str) {
        let guid = uuid::Uuid::parse_str(guid).expect("a GUID");
        self.entry(number)[..16].copy_from_slice(&guid.to_bytes_le());
    }
}

/// Writes the superblock of a two-disk RAID1 to a member that lies at `offset` of an image and has `bytes` bytes, as
/// `mdadm --create --level 1` does (include/uapi/linux/raid/md_p.h): `mdadm --examine` takes it for one.
pub fn md_superblock(image: &Path, offset: u64, bytes: u64, metadata: &str, name: &str) {
    md_member(image, Extent { offset, bytes }, metadata, name, 0);
}

/// The same of one of the two members, by its number. The name decides the array's UUID.
pub fn md_member(image: &Path, Extent { offset, bytes }: Extent, metadata: &str, name: &str, number: u32) {
    let file = OpenOptions::new().write(true).open(image).expect("an image");
    let mut uuid = *b"0123456789abcdef";
    for (place, byte) in uuid.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    if metadata == "0.90" {
        let at = bytes / 65536 * 65536 - 65536;
        let mut words = [0u32; 1024];
        let word = |n: usize| u32::from_be_bytes(uuid[4 * n..4 * n + 4].try_into().expect("four bytes"));
        let fields = [(0, 0xA92B_4EFC), (1, 0), (2, 90), (5, word(0)), (6, 1_700_000_000), (7, 1), (9, 2), (10, 2)];
        for (n, value) in fields.into_iter().chain([(13, word(1)), (14, word(2)), (15, word(3))]) {
            words[n] = value;
        }
        words[8] = u32::try_from(at / 1024).expect("a small disk");
        // State clean, two active, working disks; events; each disk's number and state.
        for (n, value) in [(32, 1_700_000_001), (33, 1), (34, 2), (35, 2), (40, 1)] {
            words[n] = value;
        }
        for disk in 0..2u32 {
            let n = 128 + 32 * disk as usize;
            words[n..n + 5].copy_from_slice(&[disk, 7, disk, disk, 6]);
        }
        words[992..997].copy_from_slice(&[number, 7, number, number, 6]);
        let sum: u64 = words.iter().map(|w| u64::from(*w)).sum();
        words[38] = (sum & 0xFFFF_FFFF) as u32 + (sum >> 32) as u32;
        let raw: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        file.write_all_at(&raw, offset + at).expect("a superblock");
        return;
    }
    let sectors = bytes / 512;
    let (sector, data) = match metadata {
        "1.0" => ((sectors - 16) & !7, 0),
        "1.1" => (0, 2048),
        "1.2" => (8, 2048),
        _ => panic!("no such metadata: {metadata}"),
    };
    let size = if metadata == "1.0" { sector - 8 } else { sectors - data };
    let mut raw = vec![0; 256 + 2 * 128];
    let mut set = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, &0xA92B_4EFC_u32.to_le_bytes());
    set(4, &1u32.to_le_bytes());
    set(16, &uuid);
    set(32, name.as_bytes());
    set(64, &1_700_000_000_u64.to_le_bytes());
    set(72, &1u32.to_le_bytes());
    set(80, &size.to_le_bytes());
    set(92, &2u32.to_le_bytes());
    set(128, &data.to_le_bytes());
    set(136, &size.to_le_bytes());
    set(144, &sector.to_le_bytes());
    set(160, &number.to_le_bytes());
    set(168, format!("device-uuid-{number:04}").as_bytes());
    set(192, &1_700_000_001_u64.to_le_bytes());
    set(200, &17u64.to_le_bytes());
    set(208, &u64::MAX.to_le_bytes());
    set(220, &128u32.to_le_bytes());
    for n in 0..128u16 {
        set(256 + 2 * usize::from(n), &if n < 2 { n } else { 0xFFFF }.to_le_bytes());
    }
    let sum: u64 = raw.chunks_exact(4).map(|w| u64::from(u32::from_le_bytes(w.try_into().expect("four bytes")))).sum();
    raw[216..220].copy_from_slice(&((sum & 0xFFFF_FFFF) as u32 + (sum >> 32) as u32).to_le_bytes());
    file.write_all_at(&raw, offset + sector * 512).expect("a superblock");
}

fn read(file: &File, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at).expect("bytes to read");
    bytes
}
