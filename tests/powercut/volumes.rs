//! Volumes to operate on, made without any formatter but this one, down to the slot: where the target's name lies in
//! its directory and which clusters are free decides which way an operation has to go.

use crate::frame::{Frame, Random};
use crate::geometry::{Geometry, Width};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::Builder;
use std::collections::BTreeMap;

pub const TARGET: &str = "EFI/Linux/Talos-v1.12.4.efi";
pub const BACKUP: &str = "EFI/Linux/Talos-v1.12.4.efi.bak.1700000000";
/// Another UKI, older than the target for every boot order.
pub const OTHER: &str = "EFI/Linux/Talos-v1.11.0.efi";
/// A second file of the target's version, on volumes of real images.
pub const DUPLICATE: &str = "EFI/Linux/Talos-v1.12.4~1.efi";

/// How much room the target's directory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Free slots in the sector of the target's short entry.
    Ample,
    /// None in that sector, but in a later one.
    SectorFull,
    /// None at all: the directory must grow by a cluster.
    DirectoryFull,
    /// Room, and the target's long name begins in the sector before its short entry.
    NameSpansSectors,
    /// Room, but none in the root directory, where the record of an operation goes.
    RootFull,
}

/// What a volume looks like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub width: Width,
    pub sector: u32,
    /// Bytes per cluster.
    pub cluster: u32,
    pub clusters: u32,
    /// The only active FAT where mirroring is off (FAT32).
    pub active: Option<u8>,
    /// No two free clusters are neighbours.
    pub fragmented: bool,
    /// So many clusters are free; `None`: all that hold no file.
    pub free: Option<u32>,
    pub room: Room,
    /// There is a file of the backup's name.
    pub backup_exists: bool,
    /// Bytes of the target; `None`: there is no target.
    pub old: Option<u32>,
    /// Bytes of its successor.
    pub new: u32,
    /// The images are UKIs and the loader is a systemd-boot, so that the project's own prediction can be asked.
    pub uki: bool,
    pub seed: u64,
}

impl Shape {
    /// A small volume with everything as usual.
    pub fn usual(width: Width, sector: u32, cluster: u32) -> Self {
        let clusters = match width {
            Width::Fat12 => 400,
            Width::Fat16 => 4100,
            // By its fields it is FAT32 however few clusters there are, like the ESP of Talos on small disks.
            Width::Fat32 => 600,
        };
        let (old, new) = (Some(3 * cluster.min(4096) + 777), 4 * cluster.min(4096) + 55);
        let (active, fragmented, free, room, backup_exists) = (None, false, None, Room::Ample, false);
        let (uki, seed) = (false, 1);
        Self { width, sector, cluster, clusters, active, fragmented, free, room, backup_exists, old, new, uki, seed }
    }

    /// Whether the fatfs crate and mtools take it for what it is: they count clusters to tell FAT32 from the others.
    pub fn is_read_by_all(&self) -> bool {
        self.width != Width::Fat32 || self.clusters >= 65_525
    }

    /// The rarest thing about it, in a word or two.
    pub fn awkwardness(&self) -> &'static str {
        match self.room {
            _ if self.active.is_some() => "one FAT",
            _ if self.free.is_some() => "nearly full",
            _ if self.fragmented => "fragmented",
            Room::SectorFull => "sector full",
            Room::DirectoryFull => "dir. full",
            Room::NameSpansSectors => "name spans",
            Room::RootFull => "root full",
            Room::Ample if self.old.is_none() => "no target",
            Room::Ample => "none",
        }
    }

    /// In words, for tables.
    pub fn describe(&self) -> String {
        let mut text = format!("{:?} sector {} cluster {}", self.width, self.sector, self.cluster);
        let mut add = |yes: bool, what: &str| text.push_str(if yes { what } else { "" });
        add(self.room == Room::SectorFull, ", sector full");
        add(self.room == Room::DirectoryFull, ", directory full");
        add(self.room == Room::NameSpansSectors, ", name spans sectors");
        add(self.room == Room::RootFull, ", root full");
        add(self.fragmented, ", fragmented");
        add(self.free.is_some(), ", nearly full");
        add(self.active.is_some(), ", mirroring off");
        add(self.backup_exists, ", backup exists");
        add(self.old.is_none(), ", no target");
        text
    }
}

/// A volume and what is known about it.
#[derive(Clone)]
pub struct Volume {
    pub shape: Shape,
    pub frame: Frame,
    pub geometry: Geometry,
    /// The target's bytes.
    pub old: Option<Vec<u8>>,
    /// What an operation is to put in its place.
    pub new: Vec<u8>,
    /// Every file, as written.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Volume {
    pub fn build(shape: Shape) -> Self {
        let mut random = Random::new(shape.seed);
        let mut b = Formatter::new(shape);
        for directory in ["EFI", "EFI/BOOT", "EFI/Linux", "loader", "loader/keys"] {
            b.directory(directory);
        }
        let image = |random: &mut Random, version: &str, n: u32| {
            if shape.uki { uki(version, random.bytes(n as usize)) } else { random.bytes(n as usize) }
        };
        if shape.uki {
            let magic: &[u8] = b"#### LoaderInfo: systemd-boot 257.9-talos ####\0";
            b.file("EFI/BOOT/BOOTAA64.EFI", Builder::new(Arch::Arm64).section(".sdmagic", magic).build());
        } else {
            b.file("EFI/BOOT/BOOTX64.EFI", random.bytes(5000));
        }
        b.file("loader/loader.conf", b"timeout 10\n".to_vec());
        b.file("loader/keys/db.auth", random.bytes(700));
        b.file("EFI/BOOT/empty", Vec::new());
        b.file(OTHER, image(&mut random, "v1.11.0", shape.cluster.min(4096) + 1));
        let slots = (shape.sector / 32) as usize;
        if shape.room == Room::NameSpansSectors {
            b.pad("EFI/Linux", |used| used % slots == slots - 1);
        }
        let old = shape.old.map(|n| image(&mut random, "v1.12.4", n));
        if let Some(old) = &old {
            b.file(TARGET, old.clone());
        }
        if shape.backup_exists {
            b.file(BACKUP, image(&mut random, "v1.12.4", 900));
        }
        if shape.uki {
            b.file(DUPLICATE, image(&mut random, "v1.12.4", 1500));
        }
        match shape.room {
            Room::Ample | Room::NameSpansSectors => {}
            Room::SectorFull => {
                b.pad("EFI/Linux", |used| used % slots == 0);
                b.pad("EFI/Linux", |used| used % slots == 1);
            }
            Room::DirectoryFull => {
                let slots = (shape.cluster / 32) as usize;
                b.pad("EFI/Linux", |used| used % slots == 0);
            }
            Room::RootFull => {
                let slots =
                    if shape.width == Width::Fat32 { (shape.cluster / 32) as usize } else { ROOT_SLOTS as usize };
                b.pad("", |used| used % slots == 0);
            }
        }
        let new = image(&mut random, "v1.12.4", shape.new);
        let frame = b.finish(&mut random);
        let geometry = Geometry::read(&frame).expect("a volume of our own making");
        Self { shape, frame, geometry, old, new, files: b.files }
    }

    /// Whether a sector belongs to the data area and to no directory: which clusters were free or in files at the start.
    pub fn data_sectors(&self) -> impl Fn(u64) -> bool + use<> {
        let mut checker = crate::checker::Checker::default();
        let report = checker.check(&self.frame);
        let g = self.geometry.clone();
        let mut directories: Vec<u64> = Vec::new();
        let starts = report.entries.iter().filter(|e| e.is_directory()).map(|e| first_cluster(&e.raw));
        for start in starts.chain(Some(g.root_cluster)).filter(|c| *c >= 2) {
            let mut at = start;
            while (2..=g.last()).contains(&at) && directories.len() < 10_000 {
                directories.push(g.cluster_sector(at));
                at = g.entry(&self.frame, g.active.unwrap_or(0), at) & g.mask();
            }
        }
        move |sector| {
            let first = |s: u64| g.data_start + (s - g.data_start) / g.cluster_sectors * g.cluster_sectors;
            sector >= g.data_start && !directories.contains(&first(sector))
        }
    }
}

pub fn first_cluster(raw: &[u8; 32]) -> u32 {
    u32::from(u16::from_le_bytes([raw[20], raw[21]])) << 16 | u32::from(u16::from_le_bytes([raw[26], raw[27]]))
}

struct Directory {
    parent: String,
    clusters: Vec<u32>,
    slots: Vec<[u8; 32]>,
}

struct Formatter {
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
}

/// A small UKI whose kernel is these bytes.
pub fn uki(version: &str, kernel: Vec<u8>) -> Vec<u8> {
    let release = format!("ID=talos\nNAME=Talos\nPRETTY_NAME=\"Talos ({version})\"\nVERSION_ID={version}\n");
    Builder::new(Arch::Arm64)
        .section(".osrel", release)
        .section(".cmdline", "talos.platform=metal")
        .section(".uname", "6.12.0-talos")
        .section(".linux", kernel)
        .build()
}

/// Slots of the fixed root directory.
const ROOT_SLOTS: u32 = 128;

impl Formatter {
    fn new(shape: Shape) -> Self {
        let entries = shape.clusters + 2;
        let (bytes, end, reserved) = match shape.width {
            Width::Fat12 => ((entries * 3).div_ceil(2), 0xFFF, 1),
            Width::Fat16 => (entries * 2, 0xFFFF, 1),
            Width::Fat32 => (entries * 4, 0x0FFF_FFFF, 8),
        };
        let fat_sectors = bytes.div_ceil(shape.sector);
        let root_sectors = if shape.width == Width::Fat32 { 0 } else { ROOT_SLOTS * 32 / shape.sector };
        let data_start = reserved + 2 * fat_sectors + root_sectors;
        let sectors = data_start + shape.clusters * (shape.cluster / shape.sector);
        let image = vec![0; sectors as usize * shape.sector as usize];
        let mut fat = vec![0; entries as usize];
        (fat[0], fat[1]) = (end & !0xFF | 0xF8, end);
        let (directories, files) = (BTreeMap::new(), BTreeMap::new());
        let mut b = Self { shape, image, fat, fat_sectors, reserved, data_start, directories, files, aliases: 0 };
        let clusters = if shape.width == Width::Fat32 { b.allocate(1) } else { Vec::new() };
        let mut label = *b"ESP                             ";
        label[11..].fill(0);
        label[11] = 8;
        b.directories.insert(String::new(), Directory { parent: String::new(), clusters, slots: vec![label] });
        b
    }

    fn allocate(&mut self, n: u32) -> Vec<u32> {
        let clusters: Vec<u32> =
            (2..self.fat.len()).filter(|c| self.fat[*c] == 0).take(n as usize).map(|c| c as u32).collect();
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

    fn directory(&mut self, path: &str) {
        let clusters = self.allocate(1);
        let (parent, _) = path.rsplit_once('/').unwrap_or(("", path));
        let up = if parent.is_empty() { 0 } else { self.directories[parent].clusters[0] };
        let mut slots = vec![short_entry(b".          ", 0x10, clusters[0], 0)];
        slots.push(short_entry(b"..         ", 0x10, up, 0));
        self.enter(path, 0x10, clusters[0], 0);
        self.directories.insert(path.into(), Directory { parent: parent.into(), clusters, slots });
    }

    fn file(&mut self, path: &str, bytes: Vec<u8>) {
        let clusters = self.allocate((bytes.len() as u32).div_ceil(self.shape.cluster));
        for (cluster, part) in clusters.iter().zip(bytes.chunks(self.shape.cluster as usize)) {
            let at = self.place(*cluster);
            self.image[at..at + part.len()].copy_from_slice(part);
        }
        self.enter(path, 0x20, clusters.first().copied().unwrap_or(0), bytes.len() as u32);
        self.files.insert(path.into(), bytes);
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
    fn pad(&mut self, path: &str, pleases: impl Fn(usize) -> bool) {
        while !pleases(self.directories[path].slots.len()) {
            let name = format!("{path}/PAD{:05}.TXT", self.directories[path].slots.len());
            self.file(name.trim_start_matches('/'), Vec::new());
        }
    }

    fn finish(&mut self, random: &mut Random) -> Frame {
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
            (Some(n), _) => n as usize,
            (None, true) => (free.len() / 2 - 2).min(150),
        };
        let step = if self.shape.fragmented { 2 } else { 1 };
        let kept: Vec<u32> = free.iter().copied().step_by(step).take(keep).collect();
        assert_eq!(kept.len(), keep, "as many free clusters as asked for");
        let taken: Vec<u32> = free.into_iter().filter(|c| !kept.contains(c)).collect();
        let (file, bad) = taken.split_at(taken.len().min(40));
        self.link(file);
        for c in bad {
            self.fat[*c as usize] = self.fat[1] & !8;
        }
        let bytes = random.bytes(file.len() * self.shape.cluster as usize);
        for (cluster, part) in file.iter().zip(bytes.chunks(self.shape.cluster as usize)) {
            let at = self.place(*cluster);
            self.image[at..at + part.len()].copy_from_slice(part);
        }
        self.enter("loader/FILLER.BIN", 0x20, file[0], bytes.len() as u32);
        self.files.insert("loader/FILLER.BIN".into(), bytes);
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
        let root = (self.reserved + 2 * self.fat_sectors) as usize * self.shape.sector as usize;
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
        b[16] = 2;
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
        let free = self.fat[2..].iter().filter(|e| **e == 0).count() as u32;
        let next = self.fat.iter().position(|e| *e == 0).unwrap_or(2) as u32;
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
        for copy in 0..2 {
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
