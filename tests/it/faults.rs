//! A medium that fails: every read, write and barrier of whole operations, one at a time.
//!
//! After each failure the medium is judged by the fatfs crate: the board boots the old image or the new one, byte for
//! byte, and nothing else has changed. Then the medium works again, and `recover` has to bring it to exactly the state
//! before the operation or the state behind it, to `fsck.fat`'s satisfaction; a second `recover` finds nothing to do.

use bootsurgeon::block::{Memory, ReadAt, Sink, WriteAt};
use bootsurgeon::fat::{Editor, Health, Stamp, Volume};
use bootsurgeon::surgery::{
    ContentRef, FileStep, LINUX_DIR, Order, Recovery, Rename, Staging, Tidying, interrupted, open_healthy, recover,
};
use bootsurgeon::testkit::crash::frame::{Sector, sector};
use bootsurgeon::testkit::crash::{Flush, Frame, MediumStream};
use bootsurgeon::{Code, Kind, Result};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

const STAMP: Stamp = Stamp(1_771_000_000);
const TARGET: &str = "Talos-v1.12.4.efi";
const TWIN: &str = "Talos-v1.12.4~1.efi";
const BACKUP: &str = "Talos-v1.12.4.efi.bak.1771000000";
/// Every error of the medium says this.
const INJECTED: &str = "injected fault";

// ---- the medium ---------------------------------------------------------------------------------------------------

/// How the medium fails. Requests are counted from 0, each kind for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// This read fails, once.
    Read(usize),
    /// This write fails, once, and leaves nothing behind.
    Write(usize),
    /// This write stops after its first sector; a write of one sector does not happen.
    ShortWrite(usize),
    /// This write happens, and is reported as failed all the same.
    WriteAllTheSame(usize),
    /// This barrier fails, once. All that was written before is on the medium.
    Barrier(usize),
    /// This barrier fails, once. Nothing that was written since the last one is on the medium, as on Linux, where the
    /// failed pages are dropped.
    BarrierLosesAll(usize),
    /// From this request on, of any kind, everything fails.
    Vanishes(usize),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    reads: usize,
    writes: usize,
    barriers: usize,
}

impl Count {
    fn all(self) -> usize {
        self.reads + self.writes + self.barriers
    }
}

struct Faulty {
    below: Mutex<Frame>,
    bytes: u64,
    sector: u32,
    fault: Fault,
    reads: AtomicUsize,
    writes: AtomicUsize,
    barriers: AtomicUsize,
    /// What stood in the sectors that were written since the last barrier, in order.
    undo: Mutex<Vec<(u64, Sector)>>,
}

impl Faulty {
    fn new(below: Frame, fault: Fault) -> Self {
        let zero = || AtomicUsize::new(0);
        let (bytes, sector) = (below.size(), below.sector_size() as u32);
        let below = Mutex::new(below);
        Self { below, bytes, sector, fault, reads: zero(), writes: zero(), barriers: zero(), undo: Mutex::default() }
    }

    /// One that works.
    fn sound(below: Frame) -> Self {
        Self::new(below, Fault::None)
    }

    /// What it holds now.
    fn frame(&self) -> Frame {
        self.below.lock().unwrap().clone()
    }

    fn count(&self) -> Count {
        Count {
            reads: self.reads.load(Ordering::SeqCst),
            writes: self.writes.load(Ordering::SeqCst),
            barriers: self.barriers.load(Ordering::SeqCst),
        }
    }

    fn undo(&self) -> MutexGuard<'_, Vec<(u64, Sector)>> {
        self.undo.lock().unwrap()
    }

    fn vanished(&self) -> bool {
        // The request at hand is counted already.
        matches!(self.fault, Fault::Vanishes(n) if self.count().all() > n)
    }

    fn put(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let size = u64::from(self.sector);
        assert!(offset % size == 0 && buf.len() as u64 % size == 0, "a write of whole sectors");
        let (mut below, mut undo) = (self.below.lock().unwrap(), self.undo());
        for (n, bytes) in (offset / size..).zip(buf.chunks(size as usize)) {
            undo.push((n, below.set(n, sector(bytes))));
        }
        Ok(())
    }
}

fn fails<T>() -> io::Result<T> {
    // EIO, with a mark by which the tests know that it came through.
    Err(io::Error::other(INJECTED))
}

impl ReadAt for Faulty {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let n = self.reads.fetch_add(1, Ordering::SeqCst);
        if self.fault == Fault::Read(n) || self.vanished() {
            return fails();
        }
        self.below.lock().unwrap().read_exact_at(buf, offset)
    }
}

impl WriteAt for Faulty {
    fn sector_size(&self) -> u32 {
        self.sector
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let n = self.writes.fetch_add(1, Ordering::SeqCst);
        if self.fault == Fault::Write(n) || self.vanished() {
            return fails();
        }
        if self.fault == Fault::ShortWrite(n) {
            let sector = self.sector_size() as usize;
            if buf.len() > sector {
                self.put(&buf[..sector], offset)?;
            }
            return fails();
        }
        self.put(buf, offset)?;
        if self.fault == Fault::WriteAllTheSame(n) { fails() } else { Ok(()) }
    }

    fn barrier(&self) -> io::Result<()> {
        let n = self.barriers.fetch_add(1, Ordering::SeqCst);
        if self.vanished() || self.fault == Fault::Barrier(n) {
            return fails();
        }
        let mut undo = self.undo();
        if self.fault == Fault::BarrierLosesAll(n) {
            for (n, old) in undo.drain(..).rev() {
                self.below.lock().unwrap().set(n, old);
            }
            return fails();
        }
        undo.clear();
        Ok(())
    }
}

// ---- volumes ------------------------------------------------------------------------------------------------------

fn pattern(seed: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

struct Shape {
    kind: fatfs::FatType,
    bytes: usize,
    cluster: u32,
    sector: u16,
    /// Other files in `EFI/Linux`: enough of them, and the target's sector has no room for the backup's entry.
    fillers: usize,
}

const FAT12: Shape = Shape { kind: fatfs::FatType::Fat12, bytes: 512 << 10, cluster: 1024, sector: 512, fillers: 0 };
const FAT12_CROWDED: Shape = Shape { fillers: 20, ..FAT12 };
const FAT16: Shape = Shape { kind: fatfs::FatType::Fat16, bytes: 20 << 20, cluster: 4096, sector: 4096, fillers: 0 };
const FAT32: Shape = Shape { kind: fatfs::FatType::Fat32, bytes: 36 << 20, cluster: 512, sector: 512, fillers: 0 };

impl Shape {
    fn make(&self) -> Frame {
        let mut raw = Cursor::new(vec![0; self.bytes]);
        let options = fatfs::FormatVolumeOptions::new()
            .fat_type(self.kind)
            .bytes_per_cluster(self.cluster)
            .bytes_per_sector(self.sector)
            .volume_label(*b"EFI        ");
        fatfs::format_volume(&mut raw, options).unwrap();
        let medium = Memory::with_sector_size(raw.into_inner(), u32::from(self.sector));
        let mut editor = Editor::open(&medium).unwrap();
        for dir in ["EFI/BOOT", "EFI/Linux", "loader"] {
            editor.make_directories(dir, STAMP).unwrap();
        }
        editor.make_file("EFI/BOOT", "BOOTAA64.EFI", &pattern(1, 5000), STAMP).unwrap();
        editor.make_file("loader", "loader.conf", b"timeout 10\n", STAMP).unwrap();
        editor.make_file(LINUX_DIR, TARGET, &old_image(), STAMP).unwrap();
        editor.make_file(LINUX_DIR, TWIN, &pattern(3, 6_000), STAMP).unwrap();
        for i in 0..self.fillers {
            editor.make_file(LINUX_DIR, &format!("filler {i}.txt"), b"x", STAMP).unwrap();
        }
        editor.write_fsinfo().unwrap();
        Frame::new(&medium.into_bytes(), usize::from(self.sector))
    }
}

fn old_image() -> Vec<u8> {
    pattern(2, 7_001)
}

fn new_image() -> Vec<u8> {
    pattern(9, 9_123)
}

/// Every file by path, as the fatfs crate reads it.
fn files(frame: &Frame) -> BTreeMap<String, Vec<u8>> {
    let copy = Faulty::sound(frame.clone());
    let fs = fatfs::FileSystem::new(MediumStream::new(&copy, Flush::Nothing), fatfs::FsOptions::new()).unwrap();
    let mut all = BTreeMap::new();
    let mut dirs = vec![(String::new(), fs.root_dir())];
    while let Some((path, dir)) = dirs.pop() {
        for e in dir.iter().map(std::result::Result::unwrap) {
            if e.file_name() == "." || e.file_name() == ".." {
                continue;
            }
            let path = format!("{path}/{}", e.file_name());
            if e.is_dir() {
                dirs.push((path, e.to_dir()));
            } else {
                let mut content = Vec::new();
                e.to_file().read_to_end(&mut content).unwrap();
                assert!(all.insert(path.clone(), content).is_none(), "{path} twice");
            }
        }
    }
    all
}

/// A hash of all that a volume holds.
fn key(frame: &Frame) -> [u8; 32] {
    let mut hash = Sha256::new();
    (0..frame.sector_count()).for_each(|n| hash.update(frame.get(n).id.to_le_bytes()));
    hash.finalize().into()
}

/// Asks `fsck.fat -n` about volumes, through one file that holds whatever was written last.
struct Fsck {
    file: tempfile::NamedTempFile,
    there: bool,
    /// What was found clean before, by hash: the states are many, the outcomes few.
    seen: BTreeSet<[u8; 32]>,
}

impl Fsck {
    fn new() -> Self {
        Self {
            file: tempfile::NamedTempFile::new().unwrap(),
            there: crate::support::tool("fsck.fat"),
            seen: BTreeSet::new(),
        }
    }

    fn assert_clean(&mut self, frame: &Frame, what: &str) {
        if !self.there || !self.seen.insert(key(frame)) {
            return;
        }
        self.file.as_file().set_len(0).unwrap();
        frame.write_sparse(self.file.as_file()).unwrap();
        let output = crate::support::run("fsck.fat", &["-n".as_ref(), self.file.path().as_os_str()]);
        assert!(output.status.success(), "{what}: fsck.fat: {}", String::from_utf8_lossy(&output.stdout));
    }
}

// ---- operations ---------------------------------------------------------------------------------------------------

type Run = fn(&dyn WriteAt) -> Result<()>;

fn content(medium: &dyn WriteAt, name: &str) -> Result<Option<ContentRef>> {
    let volume = Volume::open(medium)?;
    let entry = volume.find(&format!("{LINUX_DIR}/{name}"))?;
    Ok(entry.map(|e| ContentRef { cluster: e.first_cluster, bytes: e.bytes, sha256: None }))
}

fn swap_to(medium: &dyn WriteAt, order: &Order) -> Result<()> {
    let image = new_image();
    let mut staging = Staging::begin(open_healthy(medium)?, image.len() as u64)?;
    for chunk in image.chunks(4096) {
        staging.chunk(chunk)?;
    }
    let staged = staging.seal(Sha256::digest(&image).into())?;
    staged.commit(order).map(|_| ())
}

fn order(command: &str, target: &str, backup: Option<&str>, after: Vec<FileStep>) -> Order {
    let backup = backup.map(str::to_owned);
    Order {
        command: command.into(),
        time: STAMP.0,
        directory: LINUX_DIR.into(),
        before: Vec::new(),
        target: target.into(),
        backup,
        directories: Vec::new(),
        set: Vec::new(),
        after,
    }
}

fn rename(from: &str, to: &str) -> FileStep {
    FileStep::Rename(Rename { from: from.into(), to: to.into() })
}

fn swap(medium: &dyn WriteAt) -> Result<()> {
    let disable = rename(TWIN, "Talos-v1.12.4~1.efi.disabled.1771000000");
    swap_to(medium, &order("swap", TARGET, Some(BACKUP), vec![disable]))
}

fn swap_to_another_name(medium: &dyn WriteAt) -> Result<()> {
    let after = vec![rename(TARGET, BACKUP), FileStep::Remove(TWIN.into())];
    swap_to(medium, &order("swap", "Talos-v1.13.0.efi", None, after))
}

fn prune(medium: &dyn WriteAt) -> Result<()> {
    let steps = vec![
        rename(TWIN, "Talos-v1.12.4~1.efi.disabled.1771000000"),
        FileStep::Remove("Talos-v1.12.4.efi.bak.1700000000".into()),
    ];
    let tidying = Tidying { command: "prune".into(), time: STAMP.0, directory: LINUX_DIR.into(), steps };
    tidying.run(open_healthy(medium)?).map(|_| ())
}

fn restore(medium: &dyn WriteAt) -> Result<()> {
    let backup = "Talos-v1.12.4.efi.bak.1700000000";
    let editor = open_healthy(medium)?;
    let Some(verified) = content(medium, backup)? else { panic!("no backup") };
    order("restore", TARGET, Some(BACKUP), vec![]).restore(editor, backup, verified).map(|_| ())
}

fn recovery(medium: &dyn WriteAt) -> Result<()> {
    recover(medium).map(|_| ())
}

/// Adds an old backup for prune and restore.
fn with_backup(volume: Frame) -> Frame {
    let medium = Faulty::sound(volume);
    let mut editor = Editor::open(&medium).unwrap();
    editor.make_file(LINUX_DIR, "Talos-v1.12.4.efi.bak.1700000000", &new_image(), STAMP).unwrap();
    editor.write_fsinfo().unwrap();
    medium.frame()
}

// ---- the judgement ------------------------------------------------------------------------------------------------

struct Case<'a> {
    name: &'a str,
    /// The volume it begins with.
    begin: Frame,
    run: Run,
    /// The files of a volume on which nothing was done; what it begins with, but for the recovery of a cut volume.
    untouched: BTreeMap<String, Vec<u8>>,
    /// The files it begins with.
    found: BTreeMap<String, Vec<u8>>,
    /// Take every n-th read and every n-th moment to vanish.
    stride: usize,
}

#[derive(Debug, Default)]
struct Tally {
    faults: usize,
    needed_recover: usize,
    old: usize,
    new: usize,
}

impl Case<'_> {
    /// Every fault there is, in every place.
    fn test(&self, fsck: &mut Fsck) -> Tally {
        let whole = Faulty::sound(self.begin.clone());
        (self.run)(&whole).unwrap();
        let count = whole.count();
        let done = files(&whole.frame());
        fsck.assert_clean(&whole.frame(), self.name);
        let writes = || 0..count.writes;
        let faults = (0..count.reads)
            .step_by(self.stride)
            .map(Fault::Read)
            .chain(writes().map(Fault::Write))
            .chain(writes().map(Fault::ShortWrite))
            .chain(writes().map(Fault::WriteAllTheSame))
            .chain((0..count.barriers).map(Fault::Barrier))
            .chain((0..count.barriers).map(Fault::BarrierLosesAll))
            .chain((0..count.all()).step_by(self.stride).map(Fault::Vanishes));
        let mut tally = Tally::default();
        for fault in faults {
            self.judge(fault, &done, fsck, &mut tally);
        }
        println!("{}: {count:?}, {tally:?}", self.name);
        assert!(tally.old > 0 || self.untouched == done, "{}: no fault came before the commit", self.name);
        assert!(tally.new > 0, "{}: no fault came behind the commit", self.name);
        tally
    }

    fn judge(&self, fault: Fault, done: &BTreeMap<String, Vec<u8>>, fsck: &mut Fsck, tally: &mut Tally) {
        let what = format!("{}, {fault:?}", self.name);
        let medium = Faulty::new(self.begin.clone(), fault);
        let outcome = (self.run)(&medium);
        let volume = medium.frame();
        tally.faults += 1;

        // 1. The error says what happened; success means that all is done.
        match outcome {
            Err(e) => {
                assert_eq!(e.kind(), Kind::Io, "{what}: {e}");
                assert!(e.to_string().contains(INJECTED), "{what}: {e}");
            }
            Ok(()) => assert!(files(&volume) == *done, "{what}: reported as done"),
        }

        // 2. As it lies there: it boots, and nothing is lost.
        let now = files(&volume);
        self.assert_bootable(&now, done, &what);

        // 3. The medium works again.
        let unfinished = {
            let volume = Volume::open(&volume).unwrap();
            interrupted(&volume).unwrap().is_some() || !Health::check(&volume).unwrap().is_healthy()
        };
        tally.needed_recover += usize::from(unfinished);
        let medium = Faulty::sound(volume);
        if let Err(e) = recover(&medium) {
            panic!("{what}: recover: {e}");
        }
        let after = files(&medium.frame());
        let settled = [&self.untouched, done].iter().any(|state| after == **state);
        assert!(settled, "{what}: neither the old state nor the new one: {:?}", after.keys());
        if after == *done {
            tally.new += 1;
        } else {
            tally.old += 1;
        }

        // 4. And there is nothing left to do.
        let again = Faulty::sound(medium.frame());
        assert_eq!(recover(&again).unwrap(), Recovery::default(), "{what}: the second recover");
        assert_eq!((again.count().writes, again.count().barriers), (0, 0), "{what}: the second recover");
        let volume = again.frame();
        let health = Health::check(&Volume::open(&volume).unwrap()).unwrap();
        assert!(health.is_healthy() && !health.fsinfo_stale, "{what}: {:?}", health.problems);
        fsck.assert_clean(&volume, &what);
    }

    /// Every file outside the operation is as it was; the old and the new image are whole wherever they have a name;
    /// the name that boots has one of them; the old one has a name.
    fn assert_bootable(&self, now: &BTreeMap<String, Vec<u8>>, done: &BTreeMap<String, Vec<u8>>, what: &str) {
        for (path, bytes) in now {
            let (before, behind) = (self.untouched.get(path), done.get(path));
            if path.ends_with(".TXN") {
                continue;
            }
            // A backup entry holds the new image until the exchange, and the old one from then on.
            let either = self.found.get(path) == Some(bytes)
                || path.contains(".bak.") && (*bytes == new_image() || *bytes == old_image());
            assert!(either || before == Some(bytes) || behind == Some(bytes), "{what}: {path} is neither old nor new");
        }
        for (path, bytes) in &self.untouched {
            if done.get(path) == Some(bytes) && self.found.get(path) == Some(bytes) {
                assert!(now.get(path) == Some(bytes), "{what}: {path} has changed");
            }
        }
        let has =
            |image: &[u8]| now.iter().filter(|(path, _)| path.starts_with("/EFI/Linux/")).any(|(_, b)| b == image);
        assert!(has(&old_image()), "{what}: the old image is lost");
        let boots = now.iter().any(|(path, bytes)| {
            path.ends_with(".efi")
                && path != &format!("/EFI/Linux/{TWIN}")
                && (*bytes == old_image() || *bytes == new_image())
        });
        assert!(boots, "{what}: nothing boots: {:?}", now.keys());
    }
}

fn case(name: &str, begin: Frame, run: Run) -> Case<'_> {
    let untouched = files(&begin);
    Case { name, begin, run, found: untouched.clone(), untouched, stride: 1 }
}

#[test]
fn swap_survives_every_fault() {
    let mut fsck = Fsck::new();
    for (name, shape) in
        [("swap, FAT12", &FAT12), ("swap across two sectors, FAT12", &FAT12_CROWDED), ("swap, FAT16, 4096", &FAT16)]
    {
        case(name, shape.make(), swap).test(&mut fsck);
    }
    case("swap to another name, FAT12", FAT12.make(), swap_to_another_name).test(&mut fsck);
}

#[test]
fn swap_on_fat32_survives_every_fault() {
    // The smallest FAT32 volume has 33 MiB, and every state is checked: FAULTS=all takes every read, else every third.
    let stride = if std::env::var_os("FAULTS").is_some_and(|v| v == "all") { 1 } else { 3 };
    Case { stride, ..case("swap, FAT32", FAT32.make(), swap) }.test(&mut Fsck::new());
}

#[test]
fn prune_and_restore_survive_every_fault() {
    let mut fsck = Fsck::new();
    for (name, run) in [("prune, FAT12", prune as Run), ("restore, FAT12", restore)] {
        case(name, with_backup(FAT12.make()), run).test(&mut fsck);
    }
    let name = "restore across two sectors, FAT12";
    case(name, with_backup(FAT12_CROWDED.make()), restore).test(&mut fsck);
}

/// Every volume that a vanishing medium leaves of a swap, and every fault in the recovery of each.
#[test]
fn recover_survives_every_fault() {
    let mut fsck = Fsck::new();
    for (shape, run) in [(&FAT12, swap as Run), (&FAT12_CROWDED, swap), (&FAT12, swap_to_another_name)] {
        let begin = shape.make();
        let whole = Faulty::sound(begin.clone());
        run(&whole).unwrap();
        let mut seen = BTreeSet::new();
        for n in 0..whole.count().writes {
            // Cut behind write n, which is there though it was reported as failed.
            let cut = Faulty::new(begin.clone(), Fault::WriteAllTheSame(n));
            let _ = run(&cut).unwrap_err();
            let cut = cut.frame();
            let probe = Faulty::sound(cut.clone());
            recover(&probe).unwrap();
            if probe.count().writes == 0 || !seen.insert(key(&cut)) {
                continue;
            }
            // Here old and new are one: recovery leads to one state alone, wherever it is cut.
            let untouched = files(&probe.frame());
            let name = format!("recover of write {n}");
            Case { untouched, ..case(&name, cut, recovery) }.test(&mut fsck);
        }
        assert!(seen.len() > 5, "only {} states need recovery", seen.len());
    }
}

/// What would be refused in the middle of an operation is refused before it begins.
#[test]
fn a_refusal_comes_before_anything_is_written() {
    // The intent record needs a slot in a root directory that is full and cannot grow.
    let medium = Faulty::sound(FAT12.make());
    let mut editor = Editor::open(&medium).unwrap();
    let mut n = 0;
    while editor.make_file("", &format!("F{n}"), b"", STAMP).is_ok() {
        n += 1;
    }
    let before = files(&medium.frame());
    let e = swap(&medium).unwrap_err();
    assert_eq!((e.code(), e.esp_changed()), (Code::NoRoom, Some(false)));
    assert!(e.to_string().contains("root directory is full"), "{e}");
    let volume = medium.frame();
    assert!(files(&volume) == before);
    let health = Health::check(&Volume::open(&volume).unwrap()).unwrap();
    assert!(health.is_healthy(), "{:?}", health.problems);
    Fsck::new().assert_clean(&volume, "a refusal");
}
