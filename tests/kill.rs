//! The program itself, stopped: SIGKILL at any moment of a real `swap --yes`, Ctrl-C and SIGTERM likewise.
//!
//! After SIGKILL the volume is old or new, and `recover` finishes or undoes it. After Ctrl-C nothing is left to
//! recover: the step under way is finished or undone, and the exit code says 130 unless all was done.
//!
//! By default a few rounds on an image file, as any user. `KILLS=200` sets the number of rounds; `BOOTSURGEON_LOOP=1`
//! takes a loop device, which only root may attach.

mod support;

use bootsurgeon::block::FileSource;
use bootsurgeon::fat::Volume as FatVolume;
use bootsurgeon::surgery::INTENT_NAME;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use support::{Lab, fixtures, sha256};

/// The ESP of the disk fixture: where it begins.
const ESP: u64 = 1 << 20;
const TARGET: &str = "/EFI/Linux/Talos-v1.12.4.efi";

/// A generator with a fixed seed: the same moments on every run, as far as a scheduler allows.
struct Random(u64);

impl Random {
    fn upto(&mut self, most: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_nanos(self.0 % (most.as_nanos() as u64).max(1))
    }
}

/// Files by path; times in names are written `T`, contents as SHA-256.
type Files = BTreeMap<String, String>;

/// A volume to swap on, and how to put it back to its beginning.
struct Volume {
    lab: Lab,
    image: PathBuf,
    /// The blocks of the volume that are not zero.
    blocks: Vec<(u64, Vec<u8>)>,
    bytes: u64,
    attached: Option<String>,
    on_loop: bool,
    new: PathBuf,
}

const BLOCK: usize = 65536;

impl Volume {
    fn new(on_loop: bool) -> Self {
        let lab = Lab::new();
        let disk = std::fs::File::open(lab.fixture("disk-512.img.zst")).unwrap();
        let mut boot = [0; 512];
        disk.read_exact_at(&mut boot, ESP).unwrap();
        // BPB_TotSec32 of a volume with 512-byte sectors.
        let sectors = match u16::from_le_bytes([boot[19], boot[20]]) {
            0 => u32::from_le_bytes([boot[32], boot[33], boot[34], boot[35]]),
            n => u32::from(n),
        };
        let bytes = u64::from(sectors) * 512;
        let mut blocks = Vec::new();
        for at in (0..bytes).step_by(BLOCK) {
            let mut block = vec![0; BLOCK.min((bytes - at) as usize)];
            disk.read_exact_at(&mut block, ESP + at).unwrap();
            if block.iter().any(|b| *b != 0) {
                blocks.push((at, block));
            }
        }
        let (image, new) = (lab.path("esp.img"), lab.fixture("talos-v1.12.4-arm64-uki.efi.zst"));
        let mut volume = Self { lab, image, blocks, bytes, attached: None, on_loop, new };
        volume.reset();
        volume
    }

    /// The volume as at the beginning.
    fn reset(&mut self) {
        self.detach();
        let file = std::fs::File::create(&self.image).unwrap();
        file.set_len(self.bytes).unwrap();
        for (at, block) in &self.blocks {
            file.write_all_at(block, *at).unwrap();
        }
        if self.on_loop {
            let out = support::run_ok("losetup", &["-f".as_ref(), "--show".as_ref(), self.image.as_os_str()]);
            self.attached = Some(String::from_utf8(out).unwrap().trim().to_owned());
        }
    }

    fn detach(&mut self) {
        if let Some(device) = self.attached.take() {
            support::run_ok("losetup", &["-d", &device]);
        }
    }

    /// What the program is given.
    fn disk(&self) -> &str {
        self.attached.as_deref().unwrap_or_else(|| self.image.to_str().unwrap())
    }

    fn command(&self) -> Command {
        let mut command = support::program();
        command.env("TMPDIR", self.lab.path("")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn swap_from(&self, image: &str) -> Child {
        let cert = fixtures().join("keys/test-signing.crt");
        self.command()
            .args(["swap", self.disk(), image, "--cert", cert.to_str().unwrap(), "--efivars", "none", "--yes", "-v"])
            .spawn()
            .unwrap()
    }

    fn swap(&self) -> Child {
        self.swap_from(self.new.to_str().unwrap())
    }

    /// `recover --yes --json`.
    fn recover(&self) -> Value {
        let out: Output =
            self.command().args(["recover", self.disk(), "--yes", "--json"]).stdout(Stdio::piped()).output().unwrap();
        assert!(out.status.success(), "recover: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// Every file, as the fatfs crate reads it.
    fn files(&self) -> Files {
        let file = std::fs::File::open(self.disk()).unwrap();
        let fs = fatfs::FileSystem::new(file, fatfs::FsOptions::new()).unwrap();
        let mut all = Files::new();
        let mut dirs = vec![(String::new(), fs.root_dir())];
        let scratch = self.lab.path("scratch");
        while let Some((path, dir)) = dirs.pop() {
            for e in dir.iter().map(Result::unwrap).filter(|e| e.file_name() != "." && e.file_name() != "..") {
                let path = format!("{path}/{}", e.file_name());
                if e.is_dir() {
                    dirs.push((path, e.to_dir()));
                    continue;
                }
                let mut content = Vec::new();
                e.to_file().read_to_end(&mut content).unwrap();
                std::fs::write(&scratch, content).unwrap();
                let timeless = match path.rsplit_once('.') {
                    Some((name, time)) if time.len() > 8 && time.bytes().all(|b| b.is_ascii_digit()) => {
                        format!("{name}.T")
                    }
                    _ => path.clone(),
                };
                assert!(all.insert(timeless, sha256(&scratch)).is_none(), "{path} twice");
            }
        }
        all
    }

    fn fsck(&self, what: &str) {
        if support::tool("fsck.fat") {
            let out = support::run("fsck.fat", &["-n", self.disk()]);
            assert!(out.status.success(), "{what}: fsck.fat: {}", String::from_utf8_lossy(&out.stdout));
        }
    }

    /// The beginning and the end of an undisturbed swap, how long it takes, and how long from the word `committing`.
    fn reference(&mut self) -> Reference {
        let old = self.files();
        let (mut whole, mut tail, mut new) = (Duration::MAX, Duration::MAX, Files::new());
        // The quickest of a few runs, so that the machine's other work does not move the moments behind the end.
        for _ in 0..4 {
            let begun = Instant::now();
            let mut child = self.swap();
            wait_for_commit(&mut child);
            let commit = Instant::now();
            assert!(child.wait().unwrap().success());
            (whole, tail) = (whole.min(begun.elapsed()), tail.min(commit.elapsed()));
            new = self.files();
            assert_ne!(old[TARGET], new[TARGET]);
            self.reset();
        }
        Reference { old, new, whole, tail }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.detach();
    }
}

struct Reference {
    old: Files,
    new: Files,
    whole: Duration,
    tail: Duration,
}

impl Reference {
    /// The target is old or new, the old image has a name, everything outside the operation is as it was.
    fn assert_bootable(&self, now: &Files, what: &str) {
        let (before, behind) = (&self.old[TARGET], &self.new[TARGET]);
        let target = now.get(TARGET).unwrap_or_else(|| panic!("{what}: the target is gone"));
        assert!(target == before || target == behind, "{what}: the target is neither old nor new");
        assert!(now.values().any(|hash| hash == before), "{what}: the old image is lost");
        for (path, hash) in self.old.iter().filter(|(path, hash)| self.new.get(*path) == Some(*hash)) {
            assert_eq!(now.get(path), Some(hash), "{what}: {path}");
        }
    }
}

/// Reads the program's words up to the commit.
fn wait_for_commit(child: &mut Child) {
    let Some(stderr) = child.stderr.as_mut() else { return };
    let mut lines = BufReader::new(stderr);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|n| n > 0) && !line.contains("committing") {
        line.clear();
    }
}

/// Waits until the record of the operation is on the volume, looking at the medium all the time; `false` when the
/// program ends before it was seen.
fn wait_for_record(volume: &FatVolume<FileSource>, child: &mut Child) -> bool {
    loop {
        // What is being written while it is read need not make sense.
        if matches!(volume.find(INTENT_NAME), Ok(Some(_))) {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
    }
}

fn send(signal: &str, child: &Child) {
    support::run_ok("kill", &[signal, &child.id().to_string()]);
}

fn rounds() -> usize {
    std::env::var("KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

/// The volume to use: on a loop device where that was requested; `None`, having said so, where it cannot be had.
fn volume() -> Option<Volume> {
    let on_loop = std::env::var_os("BOOTSURGEON_LOOP").is_some();
    if on_loop {
        let root = support::tool("losetup") && String::from_utf8_lossy(&support::run_ok("id", &["-u"])).trim() == "0";
        if !root {
            support::skip("a loop device needs root and losetup");
            return None;
        }
    }
    Some(Volume::new(on_loop))
}

#[test]
fn a_swap_that_is_killed_leaves_a_volume_that_boots_and_recovers() {
    let Some(mut volume) = volume() else { return };
    let reference = volume.reference();
    let mut random = Random(0x5EED_1234_5678_9ABC);
    let (mut old, mut new, mut unfinished, mut undone, mut finished, mut too_late) = (0, 0, 0, 0, 0, 0);
    let mut seen = 0;
    let mut round = 0;
    // A kill that comes when all is done is judged too, but does not count. Where syncs cost nothing the operation is
    // recorded for so short a time that most kills miss it: some more rounds then.
    while (old + new < rounds() || unfinished == 0) && round < 10 * rounds().max(10) {
        round += 1;
        let what = format!("kill {round} on {}", volume.disk());
        let mut child = volume.swap();
        // Anywhere in the run; where entries are written; and, so that every machine has some, however fast it is,
        // where the record of the operation has been seen on the volume.
        match round % 3 {
            0 => std::thread::sleep(random.upto(reference.whole)),
            1 => {
                wait_for_commit(&mut child);
                std::thread::sleep(random.upto(reference.tail));
            }
            _ => {
                let source = FileSource::open(Path::new(volume.disk())).unwrap();
                seen += usize::from(wait_for_record(&FatVolume::open(source).unwrap(), &mut child));
                if round % 2 == 0 {
                    std::thread::sleep(random.upto(reference.tail / 4));
                }
            }
        }
        child.kill().unwrap();
        let ended = child.wait().unwrap().success();
        too_late += usize::from(ended);

        let now = volume.files();
        reference.assert_bootable(&now, &what);
        if !ended {
            *(if now[TARGET] == reference.old[TARGET] { &mut old } else { &mut new }) += 1;
        }
        let report = volume.recover();
        unfinished += usize::from(report["committed"] == true);
        undone += usize::from(report["finished"] == false);
        finished += usize::from(report["finished"] == true);
        let after = volume.files();
        let settled = if now[TARGET] == reference.old[TARGET] { &reference.old } else { &reference.new };
        assert!(after == *settled, "{what}: {:?}, {:?}", after.keys(), report);
        volume.fsck(&what);
        let again = volume.recover();
        assert_eq!((again["committed"].as_bool(), again["actions"].as_array().map(Vec::len)), (Some(false), Some(0)));
        volume.reset();
    }
    println!(
        "{} kills (run {:?}, from `committing` {:?}; the record was seen {seen} times): {old} before the commit, \
         {new} behind it; \
         {unfinished} needed recover: {undone} undone, {finished} finished; {too_late} more came after the end; 0 \
         violations",
        old + new,
        reference.whole,
        reference.tail
    );
    assert!(old + new >= rounds(), "too few kills hit a running swap");
    assert!(unfinished > 0, "no kill left anything to recover: nothing was tested");
}

/// What must hold once a signal has been answered: all or nothing, and nothing to recover.
fn judge_stopped(volume: &Volume, reference: &Reference, status: ExitStatus, what: &str) -> bool {
    let now = volume.files();
    let committed = status.success();
    // A signal that comes before the program has begun ends it as it ends any program.
    let stopped = status.code() == Some(130) || matches!(status.signal(), Some(2 | 15));
    assert!(committed || stopped, "{what}: {status}");
    let expected = if committed { &reference.new } else { &reference.old };
    assert!(now == *expected, "{what}: {status}, {:?}", now.keys());
    volume.fsck(what);
    let report = volume.recover();
    assert_eq!(report["actions"].as_array().map(Vec::len), Some(0), "{what}: {report}");
    committed
}

#[test]
fn ctrl_c_and_sigterm_leave_nothing_to_recover() {
    let Some(mut volume) = volume() else { return };
    let reference = volume.reference();
    let mut random = Random(0xC0DE_1234_5678_9ABC);
    let (mut stopped, mut done) = (0, 0);
    for round in 0..rounds() {
        let signal = if round % 2 == 0 { "-INT" } else { "-TERM" };
        let mut child = volume.swap();
        if round % 4 < 2 {
            // The staging is the smaller part of the run; to send a signal takes a while too.
            std::thread::sleep(random.upto(reference.whole.saturating_sub(reference.tail) / 2));
        } else {
            wait_for_commit(&mut child);
            std::thread::sleep(random.upto(reference.tail));
        }
        send(signal, &child);
        // Its words must not block it.
        let mut said = String::new();
        let _ = child.stderr.take().unwrap().read_to_string(&mut said);
        let status = child.wait().unwrap();
        let what = format!("{signal} {round}: {said}");
        if judge_stopped(&volume, &reference, status, &what) {
            done += 1;
        } else {
            stopped += 1;
        }
        volume.reset();
    }
    println!(
        "{} signals: {stopped} stopped the swap, {done} came behind the point of no return; nothing to recover",
        rounds()
    );
}

/// While the image comes from a slow server, there is all the time in the world to press Ctrl-C.
#[test]
fn ctrl_c_while_the_image_comes_in() {
    use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
    let mut volume = Volume::new(false);
    let reference = volume.reference();
    let content = std::fs::read(&volume.new).unwrap();
    for (name, behaviour) in [
        ("slow, no ranges", Behaviour { bytes_per_second: Some(5_000), ..Behaviour::default() }),
        ("slow, ranges", Behaviour { ranges: true, bytes_per_second: Some(20_000), ..Behaviour::default() }),
        ("stalled, no ranges", Behaviour { stall_after: Some((50_000, 99)), ..Behaviour::default() }),
        ("stalled, ranges", Behaviour { ranges: true, stall_after: Some((50_000, 99)), ..Behaviour::default() }),
        ("no answer yet", Behaviour { first_byte_delay: Duration::from_secs(60), ..Behaviour::default() }),
    ] {
        let factory = LocalFactory::start().unwrap();
        let url = factory.serve_path("/x.efi", content.clone(), behaviour);
        let mut child = volume.swap_from(&url);
        std::thread::sleep(reference.whole.max(Duration::from_millis(800)));
        assert!(child.try_wait().unwrap().is_none(), "{name}: it has ended already");
        send("-INT", &child);
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(5), "{name}: still running after {:?}", begun.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        let status = child.wait().unwrap();
        println!("{name}: ended {:?} after Ctrl-C", begun.elapsed());
        assert_eq!(status.code(), Some(130), "{name}");
        assert!(!judge_stopped(&volume, &reference, status, name));
        volume.reset();
    }
}
