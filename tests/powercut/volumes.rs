//! Volumes to operate on, made without any formatter but this one, down to the slot: where the target's name lies in
//! its directory and which clusters are free decides which way an operation has to go.

use crate::crash::{Frame, Random};
use crate::formatter::{Formatter, ROOT_SLOTS, first_cluster};
use crate::geometry::{Geometry, Width};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::Builder;
use std::collections::BTreeMap;

pub const TARGET: &str = "EFI/Linux/Talos-v1.12.4.efi";
pub const BACKUP: &str = "EFI/Linux/Talos-v1.12.4.efi.bak.1700000000";
/// What a backup is called where [`BACKUP`] is taken.
const NEXT_BACKUP: &str = "EFI/Linux/Talos-v1.12.4.efi.bak.1700000001";
/// Another UKI, older than the target for every boot order.
pub const OTHER: &str = "EFI/Linux/Talos-v1.11.0.efi";
/// A second file of the target's version, on volumes of real images.
pub const DUPLICATE: &str = "EFI/Linux/Talos-v1.12.4~1.efi";

/// Where the image lies that an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In `EFI/Linux`, under a name of its version.
    Menu,
    /// As the removable loader, whose name has no long form.
    Removable,
    /// In a directory of its own, where a boot option or a Type #1 entry names it.
    Entry,
    /// The settings of systemd-boot: no image.
    Settings,
}

impl End {
    /// Its path.
    pub fn target(self) -> &'static str {
        match self {
            Self::Menu => TARGET,
            Self::Removable => "EFI/BOOT/BOOTX64.EFI",
            Self::Entry => "EFI/kairos/active.efi",
            Self::Settings => "loader/loader.conf",
        }
    }

    /// Its backup, and what the next one is called.
    pub fn backups(self) -> [&'static str; 2] {
        match self {
            Self::Menu => [BACKUP, NEXT_BACKUP],
            Self::Removable => ["EFI/BOOT/BOOTX64.EFI.bak.1700000000", "EFI/BOOT/BOOTX64.EFI.bak.1700000001"],
            Self::Entry => ["EFI/kairos/active.efi.bak.1700000000", "EFI/kairos/active.efi.bak.1700000001"],
            Self::Settings => ["loader/loader.conf.bak.1700000000", "loader/loader.conf.bak.1700000001"],
        }
    }

    /// Its directory.
    pub fn directory(self) -> &'static str {
        self.target().rsplit_once('/').map_or("", |(directory, _)| directory)
    }
}

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
    /// How many FATs there are.
    pub copies: u32,
    /// The only active FAT where mirroring is off (FAT32).
    pub active: Option<u8>,
    /// No two free clusters are neighbours.
    pub fragmented: bool,
    /// So many clusters are free; `None`: all that hold no file.
    pub free: Option<u32>,
    pub room: Room,
    pub end: End,
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
        let (uki, seed, copies, end) = (false, 1, 2, End::Menu);
        Self {
            width,
            sector,
            cluster,
            clusters,
            copies,
            active,
            fragmented,
            free,
            room,
            end,
            backup_exists,
            old,
            new,
            uki,
            seed,
        }
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
        add(self.copies == 1, ", a single FAT");
        add(self.end == End::Removable, ", the removable loader");
        add(self.end == End::Entry, ", in a directory of its own");
        add(self.end == End::Settings, ", loader.conf");
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
        let directory = shape.end.directory();
        if shape.end == End::Entry {
            b.directory(directory);
        }
        let image = |random: &mut Random, version: &str, n: u32| {
            if shape.uki { uki(version, random.bytes(n as usize)) } else { random.bytes(n as usize) }
        };
        if shape.uki {
            let magic: &[u8] = b"#### LoaderInfo: systemd-boot 257.9-talos ####\0";
            b.file("EFI/BOOT/BOOTAA64.EFI", Builder::new(Arch::Arm64).section(".sdmagic", magic).build());
        } else if shape.end != End::Removable {
            b.file("EFI/BOOT/BOOTX64.EFI", random.bytes(5000));
        }
        if shape.end != End::Settings {
            b.file("loader/loader.conf", b"timeout 10\n".to_vec());
        }
        b.file("loader/keys/db.auth", random.bytes(700));
        b.file("EFI/BOOT/empty", Vec::new());
        b.file(OTHER, image(&mut random, "v1.11.0", shape.cluster.min(4096) + 1));
        let slots = (shape.sector / 32) as usize;
        if shape.room == Room::NameSpansSectors {
            b.pad(directory, |used| used % slots == slots - 1);
        }
        let old = shape.old.map(|n| image(&mut random, "v1.12.4", n));
        if let Some(old) = &old {
            b.file(shape.end.target(), old.clone());
        }
        if shape.backup_exists {
            b.file(shape.end.backups()[0], image(&mut random, "v1.12.4", 900));
        }
        if shape.uki {
            b.file(DUPLICATE, image(&mut random, "v1.12.4", 1500));
        }
        match shape.room {
            Room::Ample | Room::NameSpansSectors => {}
            Room::SectorFull => {
                b.pad(directory, |used| used % slots == 0);
                b.pad(directory, |used| used % slots == 1);
            }
            Room::DirectoryFull => {
                let slots = (shape.cluster / 32) as usize;
                b.pad(directory, |used| used % slots == 0);
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
        Self { shape, frame, geometry, old, new, files: b.files().clone() }
    }

    /// Whether a sector belongs to the data area and to no directory: which clusters were free or in files at the
    /// start.
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
