//! An ESP in memory, operations on it as the program plans and carries them out, and every state between two of their
//! writes.

use bootsurgeon::Result;
use bootsurgeon::block::{Memory, ReadAt, Sink, WriteAt, read_vec};
use bootsurgeon::boot::{EntryKind, Prediction, Variables};
use bootsurgeon::esp::{FileKind, Inventory};
use bootsurgeon::fat::{Editor, Stamp, Volume};
use bootsurgeon::pe::Arch;
use bootsurgeon::plan::{NewImage, PruneOptions, PrunePlan, SwapOptions, SwapPlan, backups, latest_backup};
use bootsurgeon::surgery::{ContentRef, LINUX_DIR, Outcome, Staging, interrupted, open_healthy, recover};
use bootsurgeon::testkit::uki::Builder;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::io::Cursor;
use std::sync::Mutex;

pub(super) const STAMP: Stamp = Stamp(1_771_000_000);
pub(super) const SECTOR: usize = 512;

#[derive(Clone)]
pub(super) enum Operation {
    Swap {
        image: Vec<u8>,
        target: Option<String>,
        keep_duplicates: bool,
        keep_backups: Option<usize>,
    },
    /// The backup of that number, the newest first.
    Restore(usize),
    Prune {
        delete: bool,
        keep_backups: Option<usize>,
        no_fallback: bool,
    },
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Swap { target, keep_duplicates, keep_backups, .. } => {
                write!(f, "swap to {target:?}, keep duplicates {keep_duplicates}, backups {keep_backups:?}")
            }
            Self::Restore(n) => write!(f, "restore of backup {n}"),
            Self::Prune { delete, keep_backups, no_fallback } => {
                write!(f, "prune, delete {delete}, keep backups {keep_backups:?}, no fallback {no_fallback}")
            }
        }
    }
}

pub(super) const NOTHING_TO_DO: &str = "nothing to do";

pub(super) struct Esp {
    pub disk: Vec<u8>,
    pub variables: Variables,
}

/// What a board starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    Nothing,
    Image { sha256: [u8; 32], profile: u32 },
    Entry(String),
}

/// What has to start in the scenarios, and in which of them the new image does by now.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub old: Vec<Start>,
    pub new: Option<Start>,
    pub is_new: Vec<bool>,
}

impl Watch {
    pub(super) fn look(&mut self, esp: &Inventory<&Vec<u8>>, when: &dyn Fn() -> String) {
        for (i, start) in starts(esp).into_iter().enumerate() {
            if Some(&start) == self.new.as_ref() {
                self.is_new[i] = true;
            } else if self.new.is_none() && self.old[i] == Start::Nothing {
                // A prune that takes a dead entry away.
                self.old[i] = start;
            } else if self.is_new[i] || start != self.old[i] {
                let menu: Vec<&str> = esp.files.iter().map(|f| f.name()).collect();
                panic!("{}, future {i}: starts {start:?} instead of {:?}: {menu:?}", when(), self.old[i]);
            }
        }
    }
}

pub(super) fn starts<S: ReadAt>(esp: &Inventory<S>) -> Vec<Start> {
    let start = |(prediction, _): (&Prediction, _)| {
        let Some(entry) = prediction.selected_entry() else { return Start::Nothing };
        let Some(file) = entry.file.as_deref().and_then(|name| esp.file(name)) else {
            return Start::Entry(entry.id.clone());
        };
        assert_eq!(entry.kind, EntryKind::Uki);
        if file.kind == FileKind::Broken {
            return Start::Nothing;
        }
        let bytes = esp.volume.file(&file.entry).unwrap();
        let bytes = read_vec(&bytes, 0, bytes.size() as usize).unwrap();
        Start::Image { sha256: Sha256::digest(bytes).into(), profile: entry.profile }
    };
    esp.predict(esp.as_seen()).all().map(start).collect()
}

impl Esp {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let mut esp = Self::with_loader("257.9-talos");
        for (n, (name, version)) in files.iter().enumerate() {
            esp.add(name, &image(version, n as u8));
        }
        esp
    }

    pub(super) fn with_loader(version: &str) -> Self {
        let mut raw = Cursor::new(vec![0; 3 << 20]);
        let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat16).bytes_per_cluster(512);
        fatfs::format_volume(&mut raw, options).unwrap();
        let mut esp = Self { disk: raw.into_inner(), variables: Variables::default() };
        let magic = format!("#### LoaderInfo: systemd-boot {version} ####\0");
        let loader = Builder::new(Arch::Arm64).section(".text", [0; 16]).section(".sdmagic", magic).build();
        esp.edit(|editor| {
            for dir in ["EFI/BOOT", LINUX_DIR, "loader/entries"] {
                editor.make_directories(dir, STAMP).unwrap();
            }
            editor.make_file("EFI/BOOT", "BOOTAA64.EFI", &loader, STAMP).unwrap();
        });
        esp
    }

    /// Adds a file, if there is none of that name.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> bool {
        self.edit(|editor| {
            let free = editor.directory(LINUX_DIR).unwrap().find(name).is_none();
            if free {
                editor.make_file(LINUX_DIR, name, content, STAMP).unwrap();
            }
            free
        })
    }

    pub(super) fn configure(&mut self, default: Option<&str>) {
        let default = default.map_or(String::new(), |id| format!("default {id}\n"));
        let conf = format!("timeout 10\n{default}");
        self.edit(|editor| editor.make_file("loader", "loader.conf", conf.as_bytes(), STAMP).unwrap());
    }

    pub(super) fn type1(&mut self, text: &str) {
        self.edit(|editor| editor.make_file("loader/entries", "other.conf", text.as_bytes(), STAMP).unwrap());
    }

    /// The same, with all clusters but so many in use.
    pub(super) fn with_free_clusters(mut self, free: u32) -> Self {
        let clusters = Volume::open(&self.disk).unwrap().table().free_clusters() - free;
        self.edit(|editor| {
            let filler = vec![1; (clusters * editor.geometry().cluster_bytes) as usize];
            editor.make_file("", "FILLER.BIN", &filler, STAMP).unwrap();
        });
        self
    }

    pub(super) fn edit<T>(&mut self, change: impl FnOnce(&mut Editor<'_>) -> T) -> T {
        let medium = Memory::new(std::mem::take(&mut self.disk));
        let mut editor = Editor::open(&medium).unwrap();
        let done = change(&mut editor);
        editor.write_fsinfo().unwrap();
        drop(editor);
        self.disk = medium.into_bytes();
        done
    }

    pub(super) fn describe(&self) -> String {
        let esp = Inventory::read(&self.disk, self.variables.clone()).unwrap();
        let mut text = String::new();
        for f in &esp.files {
            text += &format!("{:?} {} {:?}\n", f.kind, f.name(), f.version());
        }
        for (prediction, when) in esp.predict(esp.as_seen()).all() {
            text += &format!("{:?} {when}: {}\n", prediction.selected_file(), prediction.reason);
        }
        text
    }

    /// Swaps, and says what the plan was. Nothing may start but the old image and the new one.
    pub(super) fn swap_to(&mut self, target: &str, version: &str) -> SwapPlan {
        let esp = Inventory::read(&self.disk, self.variables.clone()).unwrap();
        let (image, time) = (image(version, 200), esp.stamp(STAMP.0));
        let options = SwapOptions { target: Some(target.to_owned()), time, ..SwapOptions::default() };
        let facts = bootsurgeon::uki::probe(&image).unwrap();
        let new = NewImage { source: &image, facts: Some(&facts), bytes_to_write: 1, from_file: None };
        let plan = SwapPlan::make(&esp, &new, &options).unwrap();
        let medium = Memory::new(self.disk.clone());
        let mut staging = Staging::begin(open_healthy(&medium).unwrap(), image.len() as u64).unwrap();
        staging.chunk(&image).unwrap();
        staging.seal(Sha256::digest(&image).into()).unwrap().commit(&plan.order("swap", time)).unwrap();
        self.disk = medium.into_bytes();
        plan
    }

    pub(super) fn latest_backup(&self) -> String {
        let esp = Inventory::read(&self.disk, self.variables.clone()).unwrap();
        latest_backup(&esp).unwrap().0
    }

    /// Plans the operation and carries it out; cuts it after every sector, recovers, and cuts that too. Returns the
    /// files that left before the commit.
    pub(super) fn prove(&self, operation: &Operation) -> Result<Vec<String>> {
        let plan = RefCell::new(Vec::new());
        let recorder = Recorder::new(&self.disk);
        let (old, mut new) = (starts(&Inventory::read(&self.disk, self.variables.clone())?), None);
        let outcome = self.run(operation, &recorder, &plan, &mut new)?;
        let Some(outcome) = outcome else { return Ok(vec![NOTHING_TO_DO.to_owned()]) };
        let installs = outcome.operation.install.is_some();
        let mut watch = Watch { is_new: vec![false; old.len()], old, new };
        let mut listing = None;
        let mut image = self.disk.clone();
        let writes = recorder.writes();
        for (n, (offset, sector)) in writes.iter().enumerate() {
            image[*offset..*offset + sector.len()].copy_from_slice(sector);
            let now = list(&image);
            let changed = listing.as_ref() != Some(&now);
            let when = || format!("{operation:?}, cut after {} of {} sectors", n + 1, writes.len());
            if changed {
                listing = Some(now);
                watch.look(&Inventory::read(&image, self.variables.clone()).unwrap(), &when);
            }
            if changed || n % 5 == 0 || n + 1 == writes.len() {
                self.recover(&image, &watch, &when);
            }
        }
        assert!(!installs || watch.is_new.iter().all(|new| *new), "the new image starts at the end");
        Ok(plan.into_inner())
    }

    /// Recovers a state; each state on that way has to start what it should.
    pub(super) fn recover(&self, cut: &[u8], watch: &Watch, when: &dyn Fn() -> String) {
        let recorder = Recorder::new(cut);
        recover(&recorder).unwrap();
        let (mut watch, mut image) = (watch.clone(), cut.to_owned());
        let mut listing = list(&image);
        let when = || format!("{}, in the recovery", when());
        for (offset, sector) in recorder.writes() {
            image[offset..offset + sector.len()].copy_from_slice(&sector);
            let now = list(&image);
            if now != listing {
                listing = now;
                watch.look(&Inventory::read(&image, self.variables.clone()).unwrap(), &when);
            }
        }
        let volume = Volume::open(&image).unwrap();
        assert_eq!(interrupted(&volume).unwrap(), None);
        open_healthy(&Memory::new(image)).unwrap();
    }

    /// Plans and carries out. `None` when there is nothing to do.
    pub(super) fn run(
        &self,
        operation: &Operation,
        medium: &dyn WriteAt,
        before: &RefCell<Vec<String>>,
        new: &mut Option<Start>,
    ) -> Result<Option<Outcome>> {
        let esp = Inventory::read(medium, self.variables.clone())?;
        let time = esp.stamp(STAMP.0);
        let note = |plan: &SwapPlan| {
            let order = plan.order("", time);
            *before.borrow_mut() = order.before.into_iter().map(|r| r.from).collect();
        };
        let mut comes = |bytes: &[u8]| *new = Some(Start::Image { sha256: Sha256::digest(bytes).into(), profile: 0 });
        Ok(Some(match operation {
            Operation::Swap { image, target, keep_duplicates, keep_backups } => {
                comes(image);
                let (target, keep_backups) = (target.clone(), *keep_backups);
                let options = SwapOptions { target, keep_duplicates: *keep_duplicates, keep_backups, time };
                let facts = bootsurgeon::uki::probe(image)?;
                let new = NewImage {
                    source: image,
                    facts: Some(&facts),
                    bytes_to_write: image.len() as u64,
                    from_file: None,
                };
                let plan = SwapPlan::make(&esp, &new, &options)?;
                note(&plan);
                plan.order("swap", time).rehearse(&medium, SECTOR as u32, image.len() as u64)?;
                let mut staging = Staging::begin(open_healthy(medium)?, image.len() as u64)?;
                staging.chunk(image)?;
                staging.seal(Sha256::digest(image).into())?.commit(&plan.order("swap", time))?
            }
            Operation::Restore(n) => {
                let Some((name, parsed)) = backups(&esp).into_iter().cycle().nth(*n) else { return Ok(None) };
                let file = esp.file(&name).unwrap();
                let source = esp.volume.file(&file.entry)?;
                comes(&read_vec(&source, 0, source.size() as usize).unwrap());
                let image = NewImage {
                    source: &source,
                    facts: file.facts.as_deref(),
                    bytes_to_write: 0,
                    from_file: Some(&name),
                };
                let options = SwapOptions { target: Some(parsed.original), time, ..SwapOptions::default() };
                let plan = SwapPlan::make(&esp, &image, &options)?;
                note(&plan);
                let entry = &file.entry;
                let verified = ContentRef { cluster: entry.first_cluster, bytes: entry.bytes, sha256: None };
                plan.order("restore", time).restore(open_healthy(medium)?, &name, verified)?
            }
            Operation::Prune { delete, keep_backups, no_fallback } => {
                let options =
                    PruneOptions { delete: *delete, keep_backups: *keep_backups, no_fallback: *no_fallback, time };
                let plan = PrunePlan::make(&esp, &options)?;
                if plan.is_empty() {
                    return Ok(None);
                }
                plan.tidying(time).run(open_healthy(medium)?)?
            }
        }))
    }
}

/// What the directory says: names, clusters and lengths.
pub(super) fn list(image: &Vec<u8>) -> Vec<(String, u32, u32)> {
    let entries = Volume::open(image).unwrap().list(LINUX_DIR).unwrap().unwrap();
    entries.into_iter().map(|e| (e.name, e.first_cluster, e.bytes)).collect()
}

/// Keeps the order in which sectors are written.
pub(super) struct Recorder {
    pub medium: Memory,
    pub writes: Mutex<Vec<(usize, Vec<u8>)>>,
}

impl Recorder {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { medium: Memory::new(bytes.to_owned()), writes: Mutex::default() }
    }

    pub(super) fn writes(&self) -> Vec<(usize, Vec<u8>)> {
        self.writes.lock().unwrap().clone()
    }
}

impl ReadAt for Recorder {
    fn size(&self) -> u64 {
        self.medium.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.medium.read_exact_at(buf, offset)
    }
}

impl WriteAt for Recorder {
    fn sector_size(&self) -> u32 {
        SECTOR as u32
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> std::io::Result<()> {
        for (i, sector) in buf.chunks(SECTOR).enumerate() {
            self.writes.lock().unwrap().push((offset as usize + i * SECTOR, sector.to_owned()));
        }
        self.medium.write_all_at(buf, offset)
    }

    fn barrier(&self) -> std::io::Result<()> {
        Ok(())
    }
}

// ---- images
// ------------------------------------------------------------------------------------------------------------

pub(super) fn uki(arch: Arch, version: &str) -> Builder {
    let release = format!("ID=talos\nNAME=Talos\nPRETTY_NAME=\"Talos ({version})\"\nVERSION_ID={version}\n");
    Builder::new(arch).section(".osrel", release).section(".cmdline", "talos.platform=metal")
}

pub(super) fn image(version: &str, seed: u8) -> Vec<u8> {
    uki(Arch::Arm64, version).section(".linux", [seed; 64]).build()
}

/// Listed, and it does not start: it has no kernel.
pub(super) fn dead(version: &str) -> Vec<u8> {
    uki(Arch::Arm64, version).build()
}

pub(super) fn foreign(version: &str) -> Vec<u8> {
    uki(Arch::Amd64, version).section(".linux", [1; 64]).build()
}

pub(super) fn with_profile(version: &str, seed: u8) -> Vec<u8> {
    let base = uki(Arch::Arm64, version).section(".linux", [seed; 64]);
    base.section(".profile", "ID=main\n").section(".profile", "ID=other\nTITLE=Other\n").build()
}

pub(super) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    pub(super) fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}
