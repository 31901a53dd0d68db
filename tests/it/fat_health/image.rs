//! Volumes of every shape, made by mkfs.fat, to be damaged.

use crate::support::Lab;
use bootsurgeon::block::{Memory, WriteAt};
use bootsurgeon::fat::{Directory, Editor, Entry, FatKind, Geometry, Stamp, Volume};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// A volume in memory and in a file, kept equal, whose changes can be taken back.
pub(super) struct Image {
    pub name: String,
    pub bytes: Vec<u8>,
    pub file: File,
    pub path: PathBuf,
    pub undo: Vec<(usize, Vec<u8>)>,
    pub geometry: Geometry,
    pub _dir: Lab,
}

/// mkfs.vfat's arguments and the size in KiB.
pub(super) const SHAPES: [(&str, &[&str], u32); 7] = [
    ("FAT12", &["-F", "12", "-s", "2"], 3 << 10),
    ("FAT12, one copy", &["-F", "12", "-s", "1", "-f", "1"], 1 << 10),
    ("FAT16", &["-F", "16", "-s", "2"], 16 << 10),
    ("FAT16, 4096", &["-F", "16", "-S", "4096", "-s", "1"], 20 << 10),
    ("FAT32", &["-F", "32", "-s", "1"], 40 << 10),
    ("FAT32, few clusters", &["-F", "32", "-s", "8"], 40 << 10),
    ("FAT32, 4096", &["-F", "32", "-S", "4096", "-s", "1"], 36 << 10),
];

pub(super) const STAMP: Stamp = Stamp(1_771_000_000);

impl Image {
    pub(super) fn new(name: &str, bytes: Vec<u8>) -> Self {
        let dir = Lab::new();
        let path = dir.path("volume.img");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        for (i, block) in bytes.chunks(65536).enumerate().filter(|(_, b)| b.iter().any(|b| *b != 0)) {
            file.write_all_at(block, i as u64 * 65536).unwrap();
        }
        let geometry = Volume::open(&bytes).unwrap().geometry().clone();
        Self { name: name.into(), bytes, file, path, undo: Vec::new(), geometry, _dir: dir }
    }

    /// A volume made by mkfs.vfat with an ESP's files on it.
    pub(super) fn make(name: &str, args: &[&str], kib: u32) -> Self {
        let lab = Lab::new();
        let path = lab.path("made.img");
        let size = kib.to_string();
        let mut all = vec!["-C", "-n", "EFI", "-i", "1A2B3C4D"];
        all.extend(args);
        all.extend([path.to_str().unwrap(), &size]);
        crate::support::run_ok("mkfs.vfat", &all);
        let bytes = std::fs::read(&path).unwrap();
        let medium = Memory::new(bytes);
        populate(&medium);
        Self::new(name, medium.into_bytes())
    }

    pub(super) fn put(&mut self, at: u64, new: &[u8]) {
        let at = at as usize;
        self.undo.push((at, self.bytes[at..at + new.len()].to_vec()));
        self.bytes[at..at + new.len()].copy_from_slice(new);
        self.file.write_all_at(new, at as u64).unwrap();
    }

    pub(super) fn revert(&mut self) {
        while let Some((at, old)) = self.undo.pop() {
            self.bytes[at..at + old.len()].copy_from_slice(&old);
            self.file.write_all_at(&old, at as u64).unwrap();
        }
    }

    /// Sets an entry of the allocation table in these copies.
    pub(super) fn set(&mut self, copies: std::ops::Range<u8>, cluster: u32, value: u32) {
        for copy in copies {
            let start = self.geometry.fat_copy_offset(copy);
            let n = u64::from(cluster);
            match self.geometry.kind {
                FatKind::Fat12 => {
                    let at = start + n + n / 2;
                    let (a, b) = (self.bytes[at as usize], self.bytes[at as usize + 1]);
                    let pair = if n % 2 == 0 {
                        [value as u8, b & 0xF0 | (value >> 8) as u8 & 0x0F]
                    } else {
                        [a & 0x0F | (value << 4) as u8, (value >> 4) as u8]
                    };
                    self.put(at, &pair);
                }
                FatKind::Fat16 => self.put(start + 2 * n, &(value as u16).to_le_bytes()),
                FatKind::Fat32 => self.put(start + 4 * n, &value.to_le_bytes()),
            }
        }
    }

    pub(super) fn set_all(&mut self, cluster: u32, value: u32) {
        self.set(0..self.geometry.fats, cluster, value);
    }

    pub(super) fn end_mark(&self) -> u32 {
        match self.geometry.kind {
            FatKind::Fat12 => 0xFFF,
            FatKind::Fat16 => 0xFFFF,
            FatKind::Fat32 => 0x0FFF_FFFF,
        }
    }

    pub(super) fn is_fat32(&self) -> bool {
        self.geometry.kind == FatKind::Fat32
    }

    pub(super) fn at(&self, path: &str) -> (Directory, Entry) {
        let volume = Volume::open(&self.bytes).unwrap();
        let parent = path.rsplit_once('/').map_or("", |(p, _)| p);
        (volume.find_directory(parent).unwrap().unwrap(), volume.find(path).unwrap().unwrap())
    }

    /// Where the short entry of a file stands.
    pub(super) fn short(&self, path: &str) -> u64 {
        let (d, e) = self.at(path);
        d.offset_of(e.short_slot()).unwrap()
    }

    /// Where its first long-name slot stands.
    pub(super) fn long(&self, path: &str) -> u64 {
        let (d, e) = self.at(path);
        assert!(e.slots.len() > 1, "{path} has no long name");
        d.offset_of(e.slots.start).unwrap()
    }

    pub(super) fn chain(&self, path: &str) -> Vec<u32> {
        let (_, e) = self.at(path);
        let runs = Volume::open(&self.bytes).unwrap().table().chain(e.first_cluster).unwrap();
        runs.iter().flat_map(|r| r.clusters()).collect()
    }

    pub(super) fn set_first(&mut self, path: &str, cluster: u32) {
        let at = self.short(path);
        self.put(at + 26, &(cluster as u16).to_le_bytes());
        if self.is_fat32() {
            self.put(at + 20, &((cluster >> 16) as u16).to_le_bytes());
        }
    }

    pub(super) fn set_size(&mut self, path: &str, bytes: u32) {
        let at = self.short(path);
        self.put(at + 28, &bytes.to_le_bytes());
    }

    /// Where a directory's slot stands.
    pub(super) fn slot(&self, directory: &str, slot: usize) -> u64 {
        Volume::open(&self.bytes).unwrap().find_directory(directory).unwrap().unwrap().offset_of(slot).unwrap()
    }

    pub(super) fn free_cluster(&self) -> u32 {
        let volume = Volume::open(&self.bytes).unwrap();
        let table = volume.table();
        table.clusters().rev().find(|c| table.raw(*c) == 0).unwrap()
    }
}

pub(super) fn populate(medium: &dyn WriteAt) {
    let mut editor = Editor::open(medium).unwrap();
    for dir in ["EFI/BOOT", "EFI/Linux", "loader", "EMPTY"] {
        editor.make_directories(dir, STAMP).unwrap();
    }
    let text: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
    for (dir, name, bytes) in [
        ("EFI/BOOT", "BOOTAA64.EFI", &text[..5000]),
        ("EFI/Linux", "Talos-v1.12.4.efi", &text[..40_000]),
        ("EFI/Linux", "Talos-v1.12.4~1.efi", &text[..30_000]),
        ("loader", "loader.conf", &text[..11]),
        ("", "A.TXT", &text[..9000]),
        ("", "B.TXT", &text[..9000]),
        ("", "NOTHING.TXT", &[]),
        ("", "a long name.txt", &text[..100]),
    ] {
        editor.make_file(dir, name, bytes, STAMP).unwrap();
    }
    editor.write_fsinfo().unwrap();
}

pub(super) fn images() -> Vec<Image> {
    SHAPES.iter().map(|(name, args, kib)| Image::make(name, args, *kib)).collect()
}

// ---- the two opinions ---------------------------------------------------------------------------------------------
