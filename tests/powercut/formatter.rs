//! A formatter for the harness: volumes made down to the slot and the cluster, by nobody's code but this.

use crate::crash::{Frame, Random};
use crate::geometry::Width;
use crate::volumes::{End, Shape};
use std::collections::BTreeMap;

/// Where the chain of a short entry begins.
pub fn first_cluster(raw: &[u8; 32]) -> u32 {
    u32::from(u16::from_le_bytes([raw[20], raw[21]])) << 16 | u32::from(u16::from_le_bytes([raw[26], raw[27]]))
}

struct Directory {
    parent: String,
    clusters: Vec<u32>,
    slots: Vec<[u8; 32]>,
}

/// A volume in the making.
pub struct Formatter {
    shape: Shape,
    image: Vec<u8>,
    /// From cluster 0.
    fat: Vec<u32>,
    fat_sectors: u32,
    reserved: u32,
    data_start: u32,
    directories: BTreeMap<String, Directory>,
    files: BTreeMap<String, Vec<u8>>,
    aliases: u32,
    /// Where files go: anywhere, or one after the other.
    scatter: Option<Random>,
    /// The volume says that it was not unmounted.
    dirty: bool,
    /// FSInfo does not say how much is free.
    unknown_free: bool,
}

/// An ordinary file's attributes, and those of one that is not to be written.
pub const ARCHIVE: u8 = 0x20;
pub const READ_ONLY: u8 = 0x21;

/// Slots of the fixed root directory.
pub const ROOT_SLOTS: u32 = 128;

impl Formatter {
    /// An empty volume of this shape.
    pub fn new(shape: Shape) -> Self {
        let entries = shape.clusters + 2;
        let (bytes, end, reserved) = match shape.width {
            Width::Fat12 => ((entries * 3).div_ceil(2), 0xFFF, 1),
            Width::Fat16 => (entries * 2, 0xFFFF, 1),
            Width::Fat32 => (entries * 4, 0x0FFF_FFFF, 8),
        };
        let fat_sectors = bytes.div_ceil(shape.sector);
        let root_sectors = if shape.width == Width::Fat32 { 0 } else { ROOT_SLOTS * 32 / shape.sector };
        let data_start = reserved + shape.copies * fat_sectors + root_sectors;
        let sectors = data_start + shape.clusters * (shape.cluster / shape.sector);
        let image = vec![0; sectors as usize * shape.sector as usize];
        let mut fat = vec![0; entries as usize];
        (fat[0], fat[1]) = (end & !0xFF | 0xF8, end);
        let (directories, files) = (BTreeMap::new(), BTreeMap::new());
        let mut b = Self {
            shape,
            image,
            fat,
            fat_sectors,
            reserved,
            data_start,
            directories,
            files,
            aliases: 0,
            scatter: None,
            dirty: false,
            unknown_free: false,
        };
        let clusters = if shape.width == Width::Fat32 { b.allocate(1) } else { Vec::new() };
        let mut label = *b"ESP                             ";
        label[11..].fill(0);
        label[11] = 8;
        b.directories.insert(String::new(), Directory { parent: String::new(), clusters, slots: vec![label] });
        b
    }

    /// The volume is to say that it was not unmounted.
    pub fn dirty(&mut self) {
        self.dirty = true;
    }

    /// FSInfo is to say nothing, as some formatters leave it.
    pub fn unknown_free(&mut self) {
        self.unknown_free = true;
    }

    /// From now on files go to random clusters, in short runs.
    pub fn scatter(&mut self, random: Random) {
        self.scatter = Some(random);
    }

    fn allocate(&mut self, n: u32) -> Vec<u32> {
        let mut clusters: Vec<u32> = (2..self.fat.len()).filter(|c| self.fat[*c] == 0).map(|c| c as u32).collect();
        match &mut self.scatter {
            Some(random) if clusters.len() > n as usize => {
                let mut left = n as usize;
                let mut chosen = Vec::new();
                while left > 0 {
                    let at = random.below(clusters.len());
                    let run = (1 + random.below(4)).min(left).min(clusters.len() - at);
                    chosen.extend(clusters.drain(at..at + run));
                    left -= run;
                }
                clusters = chosen;
            }
            _ => clusters.truncate(n as usize),
        }
        assert_eq!(clusters.len(), n as usize, "the volume is too small for its files");
        self.link(&clusters);
        clusters
    }

    fn link(&mut self, clusters: &[u32]) {
        for pair in clusters.windows(2) {
            self.fat[pair[0] as usize] = pair[1];
        }
        if let Some(last) = clusters.last() {
            self.fat[*last as usize] = self.fat[1];
        }
    }

    /// Makes a directory; the one above it exists.
    pub fn directory(&mut self, path: &str) {
        let clusters = self.allocate(1);
        let (parent, _) = path.rsplit_once('/').unwrap_or(("", path));
        let up = if parent.is_empty() { 0 } else { self.directories[parent].clusters[0] };
        let mut slots = vec![short_entry(b".          ", 0x10, clusters[0], 0)];
        slots.push(short_entry(b"..         ", 0x10, up, 0));
        self.enter(path, 0x10, clusters[0], 0);
        self.directories.insert(path.into(), Directory { parent: parent.into(), clusters, slots });
    }

    /// Makes a file; its directory exists.
    pub fn file(&mut self, path: &str, bytes: Vec<u8>) {
        self.file_with(path, bytes, ARCHIVE);
    }

    /// Makes a file with these attributes.
    pub fn file_with(&mut self, path: &str, bytes: Vec<u8>, attributes: u8) {
        let clusters = self.allocate((bytes.len() as u32).div_ceil(self.shape.cluster));
        for (cluster, part) in clusters.iter().zip(bytes.chunks(self.shape.cluster as usize)) {
            let at = self.place(*cluster);
            self.image[at..at + part.len()].copy_from_slice(part);
        }
        self.enter(path, attributes, clusters.first().copied().unwrap_or(0), bytes.len() as u32);
        self.files.insert(path.into(), bytes);
    }

    /// A chain that no name leads to.
    pub fn lost(&mut self, bytes: &[u8]) {
        let clusters = self.allocate((bytes.len() as u32).div_ceil(self.shape.cluster));
        for (cluster, part) in clusters.iter().zip(bytes.chunks(self.shape.cluster as usize)) {
            let at = self.place(*cluster);
            self.image[at..at + part.len()].copy_from_slice(part);
        }
    }

    /// Slots of names that were deleted.
    pub fn gap(&mut self, path: &str, slots: usize) {
        let mut slot = short_entry(b"GONE    EFI", 0x20, 0, 0);
        slot[0] = 0xE5;
        self.directories.get_mut(path).expect("the directory exists").slots.extend(vec![slot; slots]);
    }

    /// So many clusters are to be free at the end, if there are.
    pub fn keep_free(&mut self, clusters: Option<u32>) {
        let free = (2..self.fat.len()).filter(|c| self.fat[*c] == 0).count() as u32;
        self.shape.free = clusters.map(|n| n.min(free.saturating_sub(3)));
    }

    /// How many slots of a directory are in use.
    pub fn slots(&self, path: &str) -> usize {
        self.directories[path].slots.len()
    }

    /// The files made so far.
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }

    fn place(&self, cluster: u32) -> usize {
        self.data_start as usize * self.shape.sector as usize + (cluster as usize - 2) * self.shape.cluster as usize
    }

    /// Adds the slots of a name to its directory.
    fn enter(&mut self, path: &str, attributes: u8, first: u32, size: u32) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (base, extension) = name.split_once('.').unwrap_or((name, ""));
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let fits = base.len() <= 8 && extension.len() <= 3 && plain(base) && plain(extension);
        let mut short = *b"           ";
        if fits {
            short[..base.len()].copy_from_slice(base.as_bytes());
            short[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
        } else {
            self.aliases += 1;
            let alias = format!("LONG{:04}", self.aliases);
            short[..8].copy_from_slice(alias.as_bytes());
            short[8..].copy_from_slice(if name.to_lowercase().ends_with(".efi") { b"EFI" } else { b"   " });
        }
        let entry = short_entry(&short, attributes, first, size);
        let long = if fits { Vec::new() } else { long_slots(name, &short) };
        let directory = self.directories.get_mut(parent).expect("its directory exists");
        directory.slots.extend(long.into_iter().chain(Some(entry)));
    }

    /// Adds empty files of one slot each until the number of used slots pleases.
    pub fn pad(&mut self, path: &str, pleases: impl Fn(usize) -> bool) {
        while !pleases(self.directories[path].slots.len()) {
            let name = format!("{path}/PAD{:05}.TXT", self.directories[path].slots.len());
            self.file(name.trim_start_matches('/'), Vec::new());
        }
    }

    /// The volume.
    pub fn finish(&mut self, random: &mut Random) -> Frame {
        let per_cluster = (self.shape.cluster / 32) as usize;
        let paths: Vec<String> = self.directories.keys().cloned().collect();
        for path in &paths {
            let needed = self.directories[path].slots.len().div_ceil(per_cluster);
            while !self.directories[path].clusters.is_empty() && self.directories[path].clusters.len() < needed {
                let more = self.allocate(1);
                let mut clusters = self.directories[path].clusters.clone();
                clusters.extend(more);
                self.link(&clusters);
                self.directories.get_mut(path).expect("known").clusters = clusters;
            }
        }
        self.use_up(random);
        self.leave_stale_data();
        for path in &paths {
            self.write_directory(path);
        }
        self.write_boot_sector();
        self.write_fats();
        Frame::new(&self.image, self.shape.sector as usize)
    }

    /// Leaves only the wanted clusters free: the first others go to a file, the rest are marked bad.
    fn use_up(&mut self, random: &mut Random) {
        let free: Vec<u32> = (2..self.fat.len()).filter(|c| self.fat[*c] == 0).map(|c| c as u32).collect();
        let keep = match (self.shape.free, self.shape.fragmented) {
            (None, false) => return,
            (Some(n), _) => (n as usize).min(free.len()),
            (None, true) => (free.len() / 2 - 2).min(150),
        };
        let step = if self.shape.fragmented { 2 } else { 1 };
        let mut kept: Vec<u32> = free.iter().copied().step_by(step).take(keep).collect();
        assert_eq!(kept.len(), keep, "as many free clusters as requested");
        if let Some(scatter) = &mut self.scatter {
            let mut from = free.clone();
            kept = (0..keep).map(|_| from.swap_remove(scatter.below(from.len()))).collect();
        }
        let taken: Vec<u32> = free.into_iter().filter(|c| !kept.contains(c)).collect();
        let (file, bad) = taken.split_at(taken.len().min(40));
        let Some(first) = file.first().copied() else { return };
        self.link(file);
        for c in bad {
            self.fat[*c as usize] = self.fat[1] & !8;
        }
        let bytes = random.bytes(file.len() * self.shape.cluster as usize);
        for (cluster, part) in file.iter().zip(bytes.chunks(self.shape.cluster as usize)) {
            let at = self.place(*cluster);
            self.image[at..at + part.len()].copy_from_slice(part);
        }
        // Not into the directory whose room is the scenario's.
        let path = if self.shape.end == End::Settings { "EFI/FILLER.BIN" } else { "loader/FILLER.BIN" };
        self.enter(path, 0x20, first, bytes.len() as u32);
        self.files.insert(path.into(), bytes);
    }

    /// Fills the free clusters that are used first with what a deleted directory leaves: names that must not come back.
    fn leave_stale_data(&mut self) {
        let stale = short_entry(b"STALE   EFI", 0x20, 2, 512).repeat(self.shape.cluster as usize / 32);
        let free: Vec<u32> = (2..self.fat.len()).filter(|c| self.fat[*c] == 0).map(|c| c as u32).take(40).collect();
        for cluster in free {
            let at = self.place(cluster);
            self.image[at..at + stale.len()].copy_from_slice(&stale);
        }
    }

    fn write_directory(&mut self, path: &str) {
        let directory = &self.directories[path];
        debug_assert!(path.starts_with(&directory.parent));
        let bytes: Vec<u8> = directory.slots.concat();
        let root = (self.reserved + self.shape.copies * self.fat_sectors) as usize * self.shape.sector as usize;
        let unit = if directory.clusters.is_empty() { ROOT_SLOTS as usize * 32 } else { self.shape.cluster as usize };
        let places: Vec<usize> = match &directory.clusters[..] {
            [] => vec![root],
            clusters => clusters.iter().map(|c| self.place(*c)).collect(),
        };
        assert!(bytes.len() <= unit * places.len(), "a directory larger than its room");
        for (at, part) in places.into_iter().zip(bytes.chunks(unit)) {
            self.image[at..at + part.len()].copy_from_slice(part);
        }
    }

    fn write_boot_sector(&mut self) {
        let s = self.shape;
        let total = (self.image.len() / s.sector as usize) as u32;
        let is_fat32 = s.width == Width::Fat32;
        let mut b = [0u8; 512];
        b[..11].copy_from_slice(b"\xEB\x58\x90PWRCUT  ");
        b[11..13].copy_from_slice(&(s.sector as u16).to_le_bytes());
        b[13] = (s.cluster / s.sector) as u8;
        b[14..16].copy_from_slice(&(self.reserved as u16).to_le_bytes());
        b[16] = s.copies as u8;
        b[21] = 0xF8;
        (b[24], b[26]) = (32, 8);
        let small = !is_fat32 && total < 65_536;
        if small {
            b[19..21].copy_from_slice(&(total as u16).to_le_bytes());
        } else {
            b[32..36].copy_from_slice(&total.to_le_bytes());
        }
        let tail = if is_fat32 {
            b[36..40].copy_from_slice(&self.fat_sectors.to_le_bytes());
            b[40] = s.active.map_or(0, |a| 0x80 | a);
            b[44..48].copy_from_slice(&2u32.to_le_bytes());
            (b[48], b[50]) = (1, 6);
            64
        } else {
            b[17..19].copy_from_slice(&(ROOT_SLOTS as u16).to_le_bytes());
            b[22..24].copy_from_slice(&(self.fat_sectors as u16).to_le_bytes());
            36
        };
        b[tail] = 0x80;
        b[tail + 1] = u8::from(self.dirty);
        b[tail + 2] = 0x29;
        b[tail + 3..tail + 7].copy_from_slice(&0x1234_5678u32.to_le_bytes());
        b[tail + 7..tail + 18].copy_from_slice(b"ESP        ");
        b[tail + 18..tail + 26].copy_from_slice(match s.width {
            Width::Fat12 => b"FAT12   ",
            Width::Fat16 => b"FAT16   ",
            Width::Fat32 => b"FAT32   ",
        });
        b[510..].copy_from_slice(&[0x55, 0xAA]);
        self.image[..512].copy_from_slice(&b);
        if !is_fat32 {
            return;
        }
        let sector = s.sector as usize;
        self.image[6 * sector..6 * sector + 512].copy_from_slice(&b);
        let mut free = self.fat[2..].iter().filter(|e| **e == 0).count() as u32;
        let mut next = self.fat.iter().position(|e| *e == 0).unwrap_or(2) as u32;
        if self.unknown_free {
            (free, next) = (u32::MAX, u32::MAX);
        }
        for at in [sector, 7 * sector] {
            let info = &mut self.image[at..at + 512];
            info[..4].copy_from_slice(b"RRaA");
            info[484..488].copy_from_slice(b"rrAa");
            info[488..492].copy_from_slice(&free.to_le_bytes());
            info[492..496].copy_from_slice(&next.to_le_bytes());
            info[510..].copy_from_slice(&[0x55, 0xAA]);
        }
    }

    fn write_fats(&mut self) {
        let mut bytes = Vec::new();
        if self.dirty {
            let clean = match self.shape.width {
                Width::Fat12 => 0,
                Width::Fat16 => 0x8000,
                Width::Fat32 => 0x0800_0000,
            };
            self.fat[1] &= !clean;
        }
        match self.shape.width {
            Width::Fat12 => {
                for pair in self.fat.chunks(2) {
                    let (a, b) = (pair[0], pair.get(1).copied().unwrap_or(0));
                    bytes.extend_from_slice(&(a | b << 12).to_le_bytes()[..3]);
                }
            }
            Width::Fat16 => bytes.extend(self.fat.iter().flat_map(|e| (*e as u16).to_le_bytes())),
            Width::Fat32 => bytes.extend(self.fat.iter().flat_map(|e| e.to_le_bytes())),
        }
        for copy in 0..self.shape.copies {
            let at = (self.reserved + copy * self.fat_sectors) as usize * self.shape.sector as usize;
            let room = (self.fat_sectors * self.shape.sector) as usize;
            let part = &bytes[..bytes.len().min(room)];
            self.image[at..at + part.len()].copy_from_slice(part);
        }
    }
}

/// A short entry with fixed times.
pub fn short_entry(name: &[u8; 11], attributes: u8, first: u32, size: u32) -> [u8; 32] {
    let mut e = [0; 32];
    e[..11].copy_from_slice(name);
    e[11] = attributes;
    let (date, time) = (0x5821u16.to_le_bytes(), 0x6000u16.to_le_bytes());
    for at in [16, 18, 24] {
        e[at..at + 2].copy_from_slice(&date);
    }
    for at in [14, 22] {
        e[at..at + 2].copy_from_slice(&time);
    }
    e[20..22].copy_from_slice(&((first >> 16) as u16).to_le_bytes());
    e[26..28].copy_from_slice(&(first as u16).to_le_bytes());
    e[28..].copy_from_slice(&size.to_le_bytes());
    e
}

/// The long-name slots of `name`, in the order in which they stand before the short entry.
pub fn long_slots(name: &str, short: &[u8; 11]) -> Vec<[u8; 32]> {
    let sum = short.iter().fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b));
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if !units.len().is_multiple_of(13) {
        units.push(0);
    }
    let count = units.len().div_ceil(13);
    units.resize(count * 13, 0xFFFF);
    let slot = |(i, part): (usize, &[u16])| {
        let mut s = [0; 32];
        s[0] = (i + 1) as u8 | if i + 1 == count { 0x40 } else { 0 };
        (s[11], s[13]) = (0x0F, sum);
        for (unit, at) in part.iter().zip((1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2))) {
            s[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        s
    };
    units.chunks(13).enumerate().map(slot).rev().collect()
}
