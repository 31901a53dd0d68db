//! FAT32 volumes of any size in seconds: files with holes, of which only the tables in use, the directories and what has
//! content take room. mkfs.fat writes the whole table (512 MB for 32 GiB of 512-byte clusters), and no writer of files
//! has 10,000 of them in one directory without searching it 10,000 times.
//!
//! Format: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03. `fsck.fat` finds nothing wrong.

use super::measure::Outcome;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::rc::Rc;

const SECTOR: u64 = 512;
/// Sectors in front of the first table: boot sector, FSInfo, and the copies of both.
const RESERVED: u64 = 32;
const LAST: u32 = 0x0FFF_FFFF;
const SLOT: usize = 32;
/// Characters of a long name in one slot.
const IN_SLOT: usize = 13;
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;

/// What a file holds.
#[derive(Clone)]
pub(super) enum Content {
    Bytes(Rc<[u8]>),
    /// So many bytes that nobody wrote, in clusters of their own.
    Hole(u32),
}

impl Content {
    pub(super) fn of(bytes: impl Into<Rc<[u8]>>) -> Self {
        Self::Bytes(bytes.into())
    }

    fn len(&self) -> u32 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u32,
            Self::Hole(bytes) => *bytes,
        }
    }
}

/// A volume to be written.
#[derive(Clone)]
pub(super) struct Volume {
    bytes: u64,
    /// Sectors per cluster.
    cluster: u64,
    files: Vec<(String, Content)>,
}

/// What a directory lists.
struct Item<'v> {
    name: &'v str,
    /// The path of a directory, or the content of a file.
    what: Result<&'v str, &'v Content>,
}

impl Volume {
    /// An empty volume of this length in bytes, with so many sectors per cluster.
    pub(super) fn new(bytes: u64, cluster: u64) -> Self {
        Self { bytes, cluster, files: Vec::new() }
    }

    pub(super) fn add(&mut self, path: impl Into<String>, content: Content) {
        self.files.push((path.into(), content));
    }

    fn clusters_for(&self, bytes: u64) -> u32 {
        bytes.div_ceil(self.cluster * SECTOR) as u32
    }

    /// Sectors of one table.
    fn table(&self) -> u64 {
        ((self.bytes / SECTOR - RESERVED + 2 * self.cluster) * 4).div_ceil(self.cluster * SECTOR + 8)
    }

    fn clusters(&self) -> u64 {
        (self.bytes / SECTOR - RESERVED - 2 * self.table()) / self.cluster
    }

    /// Writes it as a new file, and has all of it on the medium.
    pub(super) fn write(&self, path: &Path) -> Outcome<()> {
        let mut file = File::create(path)?;
        file.set_len(self.bytes)?;
        let folders = self.folders();
        let mut next = 2;
        let mut chains: Vec<(u32, u32)> = Vec::new();
        let mut reserve = |bytes: u64| {
            let count = self.clusters_for(bytes);
            let first = if count == 0 { 0 } else { next };
            chains.push((first, count));
            next += count;
            first
        };
        let mut places = BTreeMap::new();
        for (path, items) in &folders {
            let slots: usize = items.iter().map(|i| 1 + i.name.len().div_ceil(IN_SLOT)).sum();
            places.insert(*path, reserve(((slots + 2) * SLOT) as u64));
        }
        for (path, items) in &folders {
            let above = path.rsplit_once('/').map_or("", |(above, _)| above);
            let mut list = Vec::new();
            if !path.is_empty() {
                short(&mut list, b".          ", DIRECTORY, places[path], 0);
                short(&mut list, b"..         ", DIRECTORY, if above.is_empty() { 0 } else { places[above] }, 0);
            }
            for (number, item) in items.iter().enumerate() {
                match item.what {
                    Ok(folder) => entry(&mut list, number, item.name, DIRECTORY, places[folder], 0),
                    Err(content) => {
                        let first = reserve(content.len().into());
                        entry(&mut list, number, item.name, ARCHIVE, first, content.len());
                        if let Content::Bytes(bytes) = content {
                            self.put(&mut file, first, bytes)?;
                        }
                    }
                }
            }
            self.put(&mut file, places[path], &list)?;
        }
        if u64::from(next) > self.clusters() + 2 {
            return Err(format!("{} is too small for its files", path.display()).into());
        }
        for copy in 0..2 {
            file.seek(SeekFrom::Start((RESERVED + copy * self.table()) * SECTOR))?;
            let mut table = BufWriter::with_capacity(1 << 20, &mut file);
            table.write_all(&[0x0FFF_FFF8_u32.to_le_bytes(), LAST.to_le_bytes()].concat())?;
            for (first, count) in &chains {
                for cluster in *first..first + count {
                    let link = if cluster + 1 == first + count { LAST } else { cluster + 1 };
                    table.write_all(&link.to_le_bytes())?;
                }
            }
            table.flush()?;
        }
        for at in [0, 6] {
            file.seek(SeekFrom::Start(at * SECTOR))?;
            file.write_all(&self.boot_sector())?;
            file.write_all(&self.fs_info(next))?;
        }
        Ok(file.sync_all()?)
    }

    /// What each directory lists, by its path.
    fn folders(&self) -> BTreeMap<&str, Vec<Item<'_>>> {
        let mut folders: BTreeMap<&str, Vec<Item>> = BTreeMap::from([("", Vec::new())]);
        for (path, content) in &self.files {
            let ends = path.match_indices('/').map(|(at, _)| at);
            for folder in ends.map(|end| &path[..end]) {
                if !folders.contains_key(folder) {
                    folders.insert(folder, Vec::new());
                    let (above, name) = folder.rsplit_once('/').unwrap_or(("", folder));
                    folders.entry(above).or_default().push(Item { name, what: Ok(folder) });
                }
            }
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
            folders.entry(above).or_default().push(Item { name, what: Err(content) });
        }
        folders
    }

    fn put(&self, file: &mut File, cluster: u32, bytes: &[u8]) -> Outcome<()> {
        let data = RESERVED + 2 * self.table();
        file.seek(SeekFrom::Start((data + u64::from(cluster.saturating_sub(2)) * self.cluster) * SECTOR))?;
        Ok(file.write_all(bytes)?)
    }

    fn boot_sector(&self) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\xEB\x58\x90BENCH   \x00\x02");
        put(13, &[self.cluster as u8, RESERVED as u8, 0, 2]); // sectors per cluster, in front of the tables; tables
        put(21, &[0xF8, 0, 0, 63, 0, 255, 0]); // medium, short length of a table, a geometry that nobody uses
        put(32, &((self.bytes / SECTOR) as u32).to_le_bytes());
        put(36, &(self.table() as u32).to_le_bytes());
        put(44, &[2, 0, 0, 0, 1, 0, 6]); // root directory, FSInfo, copy of this sector
        put(64, b"\x80\x00\x29\x12\x34\x56\x78NO NAME    FAT32   ");
        put(510, &[0x55, 0xAA]);
        sector
    }

    fn fs_info(&self, next: u32) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        let free = self.clusters() as u32 + 2 - next;
        let mut put = |at: usize, value: u32| sector[at..at + 4].copy_from_slice(&value.to_le_bytes());
        for (at, value) in [(0, 0x4161_5252), (484, 0x6141_7272), (488, free), (492, next), (508, 0xAA55_0000)] {
            put(at, value);
        }
        sector
    }
}

/// A directory entry under its long name; `number` makes the short one unique.
fn entry(list: &mut Vec<u8>, number: usize, name: &str, attributes: u8, first: u32, bytes: u32) {
    let alias = format!("E{number:07}   ");
    let alias: [u8; 11] = std::array::from_fn(|i| alias.as_bytes()[i]);
    let sum = alias.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let units: Vec<u16> = name.encode_utf16().collect();
    for (n, part) in units.chunks(IN_SLOT).enumerate().rev() {
        let is_last = n + 1 == units.len().div_ceil(IN_SLOT);
        let unit = |i: usize| match part.get(i) {
            Some(unit) => *unit,
            None if i == part.len() => 0,
            None => 0xFFFF,
        };
        let units = |range: std::ops::Range<usize>| range.flat_map(|i| unit(i).to_le_bytes());
        list.extend([n as u8 + 1 | if is_last { 0x40 } else { 0 }]);
        list.extend(units(0..5));
        list.extend([0x0F, 0, sum]);
        list.extend(units(5..11));
        list.extend([0, 0]);
        list.extend(units(11..13));
    }
    short(list, &alias, attributes, first, bytes);
}

fn short(list: &mut Vec<u8>, name: &[u8; 11], attributes: u8, first: u32, bytes: u32) {
    const DAY: [u8; 2] = (46_u16 << 9 | 1 << 5 | 15).to_le_bytes(); // 2026-01-15
    let [a, b, c, d] = first.to_le_bytes();
    list.extend(name);
    list.extend([attributes, 0, 0, 0, 0, DAY[0], DAY[1], DAY[0], DAY[1], c, d, 0, 0, DAY[0], DAY[1], a, b]);
    list.extend(bytes.to_le_bytes());
}
