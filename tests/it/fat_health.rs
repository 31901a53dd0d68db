//! `fat::Health` against `fsck.fat -n`, on volumes damaged one way at a time and at random; and what the commands make of
//! damage.
//!
//! The rule: where fsck.fat finds something, `Health` must not call the volume healthy, and where `Health` says damage,
//! fsck.fat finds something too. The exceptions are data ([`FSCK_ALONE`], [`HEALTH_ALONE`]), each with its reason.

use crate::support::{Lab, fixtures, tool};
use bootsurgeon::block::{FileSource, Memory, ReadAt, WriteAt};
use bootsurgeon::fat::{
    Directory, Editor, Entry, FatKind, Geometry, Health, ProblemClass, Remedy, Root, Stamp, Volume,
};
use bootsurgeon::surgery::recover;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

/// What fsck.fat says and `Health` does not count against a volume: (part of fsck.fat's line, why not).
const FSCK_ALONE: [(&str, &str); 13] = [
    ("out of range", "of lost chains, which are a note; in a file's chain it is damage, whatever is listed here"),
    ("Reclaim", "a note: lost chains may be the last copy of a file, and are kept until somebody decides"),
    ("Dirty bit is set", "a note: Linux sets it on every mount; with all else in order nothing is wrong"),
    ("There are differences between boot sector", "only a heading: the line behind it lists them"),
    ("(offset:original/backup) | ", "no reader finds files by these bytes; see `nothing_that_matters`"),
    ("There is no backup boot sector", "a note: no firmware reads it"),
    ("Created backup of boot sector", "continuation of the line above"),
    ("Free cluster summary", "a note: no reader depends on FSInfo, and the next operation writes it anew"),
    ("Filesystem is FAT32 according to", "a note: FAT32 with few clusters is what Talos makes of a small ESP"),
    ("FSINFO sector has bad magic number(s)", "a note: readers that find no signatures count for themselves"),
    ("space for", "a note: Linux and this program leave clusters alone that the table has no entries for"),
    ("label", "the labels of boot sector and root directory may differ or be two; nobody boots by them"),
    ("Is a dot with no 8.3 name flag set", "a convention of dosfstools about a byte that nobody reads in `.`"),
];

/// What `Health` calls damage and fsck.fat does not see: (part of the finding, why it is damage all the same).
const HEALTH_ALONE: [(&str, &str); 3] = [
    ("marked the medium as having I/O errors", "an operating system has seen the medium fail; fsck.fat reads past it"),
    ("is not a proper", "fsck.fat takes a `.` that has the label bit for a label and does not miss it"),
    ("is marked as a volume label but has", "what may be a file's remains; fsck.fat counts its clusters as used"),
];

/// Whether a list of differences between the boot sector and its backup is about bytes that no reader finds files by: names,
/// the serial number, flags, boot code, what only BIOS boot code reads.
fn nothing_that_matters(line: &str) -> bool {
    let list = line.split_once("(offset:original/backup) | ").map_or("", |(_, rest)| rest);
    let places = list.split(" | ").next().unwrap_or_default().split([',', ' ']).filter(|p| !p.is_empty());
    let harmless = |at: usize| !(11..21).contains(&at) && !(22..24).contains(&at) && !(32..52).contains(&at);
    { places }.all(|p| p.split(':').next().and_then(|at| at.parse().ok()).is_some_and(harmless))
}

// ---- volumes ------------------------------------------------------------------------------------------------------

/// A volume in memory and in a file, kept equal, whose changes can be taken back.
struct Image {
    name: String,
    bytes: Vec<u8>,
    file: File,
    path: PathBuf,
    undo: Vec<(usize, Vec<u8>)>,
    geometry: Geometry,
    _dir: Lab,
}

/// mkfs.vfat's arguments and the size in KiB.
const SHAPES: [(&str, &[&str], u32); 7] = [
    ("FAT12", &["-F", "12", "-s", "2"], 3 << 10),
    ("FAT12, one copy", &["-F", "12", "-s", "1", "-f", "1"], 1 << 10),
    ("FAT16", &["-F", "16", "-s", "2"], 16 << 10),
    ("FAT16, 4096", &["-F", "16", "-S", "4096", "-s", "1"], 20 << 10),
    ("FAT32", &["-F", "32", "-s", "1"], 40 << 10),
    ("FAT32, few clusters", &["-F", "32", "-s", "8"], 40 << 10),
    ("FAT32, 4096", &["-F", "32", "-S", "4096", "-s", "1"], 36 << 10),
];

const STAMP: Stamp = Stamp(1_771_000_000);

impl Image {
    fn new(name: &str, bytes: Vec<u8>) -> Self {
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
    fn make(name: &str, args: &[&str], kib: u32) -> Self {
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

    fn put(&mut self, at: u64, new: &[u8]) {
        let at = at as usize;
        self.undo.push((at, self.bytes[at..at + new.len()].to_vec()));
        self.bytes[at..at + new.len()].copy_from_slice(new);
        self.file.write_all_at(new, at as u64).unwrap();
    }

    fn revert(&mut self) {
        while let Some((at, old)) = self.undo.pop() {
            self.bytes[at..at + old.len()].copy_from_slice(&old);
            self.file.write_all_at(&old, at as u64).unwrap();
        }
    }

    /// Sets an entry of the allocation table in these copies.
    fn set(&mut self, copies: std::ops::Range<u8>, cluster: u32, value: u32) {
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

    fn set_all(&mut self, cluster: u32, value: u32) {
        self.set(0..self.geometry.fats, cluster, value);
    }

    fn end_mark(&self) -> u32 {
        match self.geometry.kind {
            FatKind::Fat12 => 0xFFF,
            FatKind::Fat16 => 0xFFFF,
            FatKind::Fat32 => 0x0FFF_FFFF,
        }
    }

    fn is_fat32(&self) -> bool {
        self.geometry.kind == FatKind::Fat32
    }

    fn at(&self, path: &str) -> (Directory, Entry) {
        let volume = Volume::open(&self.bytes).unwrap();
        let parent = path.rsplit_once('/').map_or("", |(p, _)| p);
        (volume.find_directory(parent).unwrap().unwrap(), volume.find(path).unwrap().unwrap())
    }

    /// Where the short entry of a file stands.
    fn short(&self, path: &str) -> u64 {
        let (d, e) = self.at(path);
        d.offset_of(e.short_slot()).unwrap()
    }

    /// Where its first long-name slot stands.
    fn long(&self, path: &str) -> u64 {
        let (d, e) = self.at(path);
        assert!(e.slots.len() > 1, "{path} has no long name");
        d.offset_of(e.slots.start).unwrap()
    }

    fn chain(&self, path: &str) -> Vec<u32> {
        let (_, e) = self.at(path);
        let runs = Volume::open(&self.bytes).unwrap().table().chain(e.first_cluster).unwrap();
        runs.iter().flat_map(|r| r.clusters()).collect()
    }

    fn set_first(&mut self, path: &str, cluster: u32) {
        let at = self.short(path);
        self.put(at + 26, &(cluster as u16).to_le_bytes());
        if self.is_fat32() {
            self.put(at + 20, &((cluster >> 16) as u16).to_le_bytes());
        }
    }

    fn set_size(&mut self, path: &str, bytes: u32) {
        let at = self.short(path);
        self.put(at + 28, &bytes.to_le_bytes());
    }

    /// Where a directory's slot stands.
    fn slot(&self, directory: &str, slot: usize) -> u64 {
        Volume::open(&self.bytes).unwrap().find_directory(directory).unwrap().unwrap().offset_of(slot).unwrap()
    }

    fn free_cluster(&self) -> u32 {
        let volume = Volume::open(&self.bytes).unwrap();
        let table = volume.table();
        table.clusters().rev().find(|c| table.raw(*c) == 0).unwrap()
    }
}

fn populate(medium: &dyn WriteAt) {
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

fn images() -> Vec<Image> {
    SHAPES.iter().map(|(name, args, kib)| Image::make(name, args, *kib)).collect()
}

// ---- the two opinions ---------------------------------------------------------------------------------------------

/// How bad `Health` says it is; `Unreadable` when the volume cannot even be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Clean,
    Note,
    Leftover,
    Damage,
    Unreadable,
}

fn health(image: &Image) -> (Verdict, Vec<String>) {
    let begun = Instant::now();
    let verdict = verdict_of(Volume::open(&image.bytes));
    assert!(begun.elapsed() < Duration::from_secs(10), "{}: the check took {:?}", image.name, begun.elapsed());
    verdict
}

fn verdict_of<S: ReadAt>(volume: bootsurgeon::Result<Volume<S>>) -> (Verdict, Vec<String>) {
    match volume.and_then(|v| Health::check(&v)) {
        Err(e) => (Verdict::Unreadable, vec![e.to_string()]),
        Ok(h) => {
            // True of the shape, whatever the damage.
            let by_shape = |what: &str| what.starts_with("FAT32 with");
            let worst = h.problems.iter().filter(|p| !by_shape(&p.what)).map(|p| p.class).min_by_key(|c| *c as u8);
            let verdict = match worst {
                None => Verdict::Clean,
                Some(ProblemClass::Note) => Verdict::Note,
                Some(ProblemClass::Leftover) => Verdict::Leftover,
                // What is added to the classes one day: until somebody has decided otherwise, it is damage.
                Some(_) => Verdict::Damage,
            };
            assert_eq!(h.is_healthy(), verdict < Verdict::Leftover);
            assert_eq!(h.is_damaged(), verdict == Verdict::Damage);
            (verdict, h.problems.into_iter().map(|p| p.what).collect())
        }
    }
}

/// What fsck.fat finds, one string per finding.
fn fsck(path: &Path) -> Vec<String> {
    let output = crate::support::run("timeout", &["20".as_ref(), "fsck.fat".as_ref(), "-n".as_ref(), path.as_os_str()]);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said = text
        .lines()
        .filter(|l| !l.trim().is_empty())
        .filter(|l| !l.starts_with("fsck.fat 4") && !l.starts_with("Leaving filesystem unchanged"))
        .filter(|l| !(l.contains(" files, ") && l.ends_with(" clusters")));
    let mut found: Vec<String> = Vec::new();
    for line in said {
        match found.last_mut() {
            // What it would do about it, or the details.
            Some(last) if line.starts_with(' ') => *last = format!("{last} | {}", line.trim()),
            _ => found.push(line.to_owned()),
        }
    }
    if !output.status.success() && found.is_empty() {
        found.push(format!("{} without a word", output.status));
    }
    found
}

/// Both opinions on an image, and why they disagree if they do.
fn compare(image: &Image) -> (Verdict, Option<String>) {
    compare_with(health(image), &image.path)
}

fn compare_with((verdict, problems): (Verdict, Vec<String>), path: &Path) -> (Verdict, Option<String>) {
    let found = fsck(path);
    let counted: Vec<&String> = found
        .iter()
        .filter(|l| !(FSCK_ALONE.iter().any(|(part, _)| l.contains(part)) && nothing_that_matters(l)))
        .collect();
    let only_ours = problems.iter().any(|p| HEALTH_ALONE.iter().any(|(x, _)| p.contains(x)));
    let disagree = if verdict < Verdict::Leftover {
        !counted.is_empty()
    } else {
        verdict >= Verdict::Damage && found.is_empty() && !only_ours
    };
    (verdict, disagree.then(|| format!("Health: {verdict:?} {problems:?}\n    fsck.fat: {found:?}")))
}

// ---- one class of damage at a time --------------------------------------------------------------------------------

struct Case {
    name: &'static str,
    /// Which volumes can have it.
    fits: fn(&Image) -> bool,
    damage: fn(&mut Image),
    expected: Verdict,
}

const fn case(name: &'static str, fits: fn(&Image) -> bool, damage: fn(&mut Image), expected: Verdict) -> Case {
    Case { name, fits, damage, expected }
}

fn any(_: &Image) -> bool {
    true
}
fn two(i: &Image) -> bool {
    i.geometry.fats == 2
}
fn fat32(i: &Image) -> bool {
    i.is_fat32()
}
fn small(i: &Image) -> bool {
    !i.is_fat32()
}
fn flagged(i: &Image) -> bool {
    i.geometry.kind != FatKind::Fat12
}
fn fsinfo(i: &Image) -> bool {
    i.geometry.fsinfo_offset.is_some()
}

const A: &str = "A.TXT";
const B: &str = "B.TXT";
const UKI: &str = "EFI/Linux/Talos-v1.12.4.efi";
const LONG: &str = "a long name.txt";

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    use Verdict::{Clean, Damage, Leftover, Note, Unreadable};
    vec![
        case("nothing", any, |_| {}, Clean),
        // The table.
        case("copies differ where a file is", two, |i| { let c = i.chain(UKI)[1]; let e = i.end_mark(); i.set(1..2, c, e); }, Damage),
        case("first copy broken where a file is", two, |i| { let c = i.chain(UKI)[1]; i.set(0..1, c, 0); }, Damage),
        case("copies differ in a free cluster", two, |i| { let c = i.free_cluster(); let e = i.end_mark(); i.set(1..2, c, e); }, Leftover),
        case("loop", any, |i| { let c = i.chain(UKI); i.set_all(c[c.len() - 1], c[0]); }, Damage),
        case("loop of one", any, |i| { let c = i.chain(UKI); i.set_all(c[1], c[1]); }, Damage),
        case("chains meet", any, |i| { let (a, b) = (i.chain(A), i.chain(B)); i.set_all(a[0], b[1]); }, Damage),
        case("two files, one chain", any, |i| { let a = i.chain(A); i.set_first(B, a[0]); }, Damage),
        case("chain past the end", any, |i| { let c = i.chain(UKI); let n = i.geometry.clusters + 2; i.set_all(c[1], n); }, Damage),
        case("chain to cluster 1", any, |i| { let c = i.chain(UKI); i.set_all(c[1], 1); }, Damage),
        case("chain into a free cluster", any, |i| { let c = i.chain(UKI); let f = i.free_cluster(); i.set_all(c[1], f); }, Damage),
        case("chain cut by 0", any, |i| { let c = i.chain(UKI); i.set_all(c[1], 0); }, Damage),
        case("chain into a defective cluster", any, |i| { let c = i.chain(UKI); let bad = i.end_mark() - 8; i.set_all(c[1], bad); }, Damage),
        case("defective clusters set aside", any, |i| {
            let bad = i.end_mark() - 8; let c = i.free_cluster(); i.set_all(c, bad); fix_fsinfo(i);
        }, Clean),
        case("lost cluster", any, |i| { let c = i.free_cluster(); let e = i.end_mark(); i.set_all(c, e); }, Note),
        case("lost chain", any, |i| {
            let c = i.free_cluster(); let e = i.end_mark(); i.set_all(c - 1, c); i.set_all(c, e);
        }, Note),
        case("lost loop", any, |i| { let c = i.free_cluster(); i.set_all(c - 1, c); i.set_all(c, c - 1); }, Note),
        case("lost cluster that points past the end", any, |i| {
            let c = i.free_cluster(); let n = i.geometry.clusters + 2; i.set_all(c, n);
        }, Note),
        case("lost cluster that points into a file", any, |i| {
            let c = i.free_cluster(); let a = i.chain(A); i.set_all(c, a[0]);
        }, Note),
        case("dirty in the table", flagged, |i| {
            let v = i.end_mark() & if i.is_fat32() { 0x07FF_FFFF } else { 0x7FFF }; i.set_all(1, v);
        }, Note),
        case("I/O errors in the table", flagged, |i| {
            let v = i.end_mark() & if i.is_fat32() { 0x0BFF_FFFF } else { 0xBFFF }; i.set_all(1, v);
        }, Damage),
        case("media byte of a floppy in the table", any, |i| { let v = i.end_mark() & !0xFF | 0xF0; i.set_all(0, v); }, Clean),
        case("no media byte in the table", any, |i| i.set_all(0, 0), Damage),
        case("no media byte in the first copy", two, |i| i.set(0..1, 0, 0), Damage),
        // Sizes.
        case("longer than its chain", any, |i| i.set_size(UKI, 40_000 + 8192), Damage),
        case("shorter than its chain", any, |i| i.set_size(UKI, 1), Damage),
        case("no bytes, but a chain", any, |i| i.set_size(A, 0), Damage),
        case("bytes without a cluster", any, |i| i.set_first(A, 0), Damage),
        case("begins at cluster 1", any, |i| i.set_first(A, 1), Damage),
        case("begins past the end", any, |i| { let n = i.geometry.clusters + 2; i.set_first(A, n); }, Damage),
        case("begins in a free cluster", any, |i| { let c = i.free_cluster(); i.set_first(A, c); }, Damage),
        // Directories.
        case("directory with a size", any, |i| i.set_size("EMPTY", 512), Damage),
        case("directory without a cluster", any, |i| i.set_first("EMPTY", 0), Damage),
        case("`.` of another directory", any, |i| { let at = i.slot("EMPTY", 0); i.put(at + 26, &[2, 0]); }, Damage),
        case("`.` of no cluster", any, |i| { let at = i.slot("EMPTY", 0); i.put(at + 26, &[0, 0]); }, Leftover),
        case("`..` of another directory", any, |i| { let at = i.slot("EFI/Linux", 1); i.put(at + 26, &[9, 0]); }, Damage),
        case("`..` of no cluster", any, |i| { let at = i.slot("EFI/Linux", 1); i.put(at + 26, &[0, 0]); }, Leftover),
        case("`..` to the root by its cluster", fat32, |i| { let at = i.slot("EFI", 1); i.put(at + 26, &[2, 0]); }, Leftover),
        case("`.` renamed", any, |i| { let at = i.slot("EMPTY", 0); i.put(at, b"X"); }, Damage),
        case("`..` renamed", any, |i| { let at = i.slot("EMPTY", 1); i.put(at, b"XX"); }, Damage),
        case("`.` deleted", any, |i| { let at = i.slot("EMPTY", 0); i.put(at, &[0xE5]); }, Damage),
        case("`.` and `..` deleted", any, |i| { for s in 0..2 { let at = i.slot("EMPTY", s); i.put(at, &[0xE5]); } }, Damage),
        case("empty directory without `.`", any, |i| { let at = i.slot("EMPTY", 0); i.put(at, &[0; 64]); }, Damage),
        case("`.` in the root", any, |i| { let at = i.short(A); i.put(at, b".          \x10"); i.put(at + 26, &[0; 6]); }, Damage),
        case("`.` with a wrong attribute", any, |i| { let at = i.slot("EMPTY", 0); i.put(at + 11, &[0x20]); }, Damage),
        case("a directory in itself", any, |i| { let c = i.chain("EFI")[0]; i.set_first("EFI/Linux", c); }, Damage),
        case("two directories in each other", any, |i| {
            let (e, l) = (i.chain("EFI")[0], i.chain("EFI/Linux")[0]);
            i.set_first("EFI/Linux", e); i.set_first("EFI", l);
        }, Damage),
        case("a directory that is the root", fat32, |i| {
            let Root::Chain(root) = i.geometry.root else { unreachable!() }; i.set_first("EMPTY", root);
        }, Damage),
        case("two names of one directory", any, |i| { let c = i.chain("loader")[0]; i.set_first("EMPTY", c); }, Damage),
        case("a file marked as directory", any, |i| { let at = i.short(A); i.put(at + 11, &[0x10]); }, Damage),
        case("a directory marked as file", any, |i| { let at = i.short("loader"); i.put(at + 11, &[0x20]); }, Damage),
        case("directory chain in a loop", any, |i| { let c = i.chain("loader")[0]; i.set_all(c, c); }, Damage),
        case("directory chain into a free cluster", any, |i| { let c = i.chain("loader")[0]; let f = i.free_cluster(); i.set_all(c, f); }, Damage),
        case("directory full of text", any, |i| { let at = i.slot("loader", 0); i.put(at, &[b'x'; 512]); }, Damage),
        // Names.
        case("long name without its short entry", any, |i| { let at = i.short(LONG); i.put(at, &[0xE5]); }, Leftover),
        case("long name's checksum wrong", any, |i| { let at = i.long(LONG); i.put(at + 13, &[0x99]); }, Leftover),
        case("long name's number wrong", any, |i| { let at = i.long(LONG); i.put(at, &[0x43]); }, Leftover),
        case("long name without its last part", any, |i| { let at = i.long(LONG); i.put(at, &[0x02]); }, Leftover),
        case("long name's first part deleted", any, |i| { let at = i.long(LONG); i.put(at, &[0xE5]); }, Leftover),
        case("short name twice", any, |i| { let at = i.short(B); i.put(at, b"A"); }, Damage),
        case("long name of no characters", any, |i| { let at = i.long(LONG) + 32; i.put(at + 1, &[0, 0]); }, Leftover),
        case("`*` in a short name", any, |i| { let at = i.short(B); i.put(at, b"*"); }, Damage),
        case("control character in a short name", any, |i| { let at = i.short(B); i.put(at, &[0x1F]); }, Damage),
        case("a short name begins with a space", any, |i| { let at = i.short(B); i.put(at, b" "); }, Damage),
        case("small letters in a short name", any, |i| { let at = i.short(B); i.put(at, b"b"); }, Clean),
        case("DEL in a short name", any, |i| { let at = i.short(B); i.put(at, &[0x7F]); }, Damage),
        case("a short name of non-ASCII bytes", any, |i| { let at = i.short(B); i.put(at, &[0x05, 0x80, 0xFF]); }, Clean),
        case("NT flags for small letters", any, |i| { let at = i.short(B); i.put(at + 12, &[0x18]); }, Clean),
        case("no times", any, |i| { let at = i.short(B); i.put(at + 13, &[0; 7]); i.put(at + 22, &[0; 4]); }, Clean),
        case("volume label twice", any, |i| { let at = i.short("NOTHING.TXT"); i.put(at, b"EFI        \x08"); }, Clean),
        case("volume label in a directory", any, |i| { let at = i.short("loader/loader.conf"); i.put(at + 11, &[0x08]); }, Damage),
        // FSInfo, boot sector.
        case("FSInfo wrong", fsinfo, |i| { let at = i.geometry.fsinfo_offset.unwrap(); i.put(at + 488, &[7, 0, 0, 0]); }, Note),
        case("FSInfo unknown", fsinfo, |i| { let at = i.geometry.fsinfo_offset.unwrap(); i.put(at + 488, &[0xFF; 4]); }, Note),
        case("FSInfo without signature", fsinfo, |i| { let at = i.geometry.fsinfo_offset.unwrap(); i.put(at, &[0; 4]); }, Note),
        case("FSInfo without second signature", fsinfo, |i| { let at = i.geometry.fsinfo_offset.unwrap(); i.put(at + 484, &[0; 4]); }, Note),
        case("FSInfo without end signature", fsinfo, |i| { let at = i.geometry.fsinfo_offset.unwrap(); i.put(at + 510, &[0; 2]); }, Note),
        case("no FSInfo", fat32, |i| i.put(48, &[0; 2]), Damage),
        case("FSInfo outside", fat32, |i| i.put(48, &[0xF0; 2]), Damage),
        case("dirty in the boot sector", any, |i| { let at = if i.is_fat32() { 65 } else { 37 }; i.put(at, &[1]); }, Note),
        case("I/O errors in the boot sector", any, |i| { let at = if i.is_fat32() { 65 } else { 37 }; i.put(at, &[2]); }, Clean),
        case("boot sector and backup differ in the serial number", fat32, |i| i.put(67, &[0x55]), Note),
        case("boot sector and backup differ in the place of FSInfo", fat32, |i| i.put(48, &[2]), Damage),
        case("boot sector of a smaller volume", fat32, smaller, Damage),
        case("no backup boot sector", fat32, |i| i.put(50, &[0; 2]), Note),
        case("no sectors per cluster", small, |i| i.put(13, &[0]), Unreadable),
        case("no sectors per cluster", fat32, |i| i.put(13, &[0]), Damage),
        case("three sectors per cluster", small, |i| i.put(13, &[3]), Unreadable),
        case("three sectors per cluster", fat32, |i| i.put(13, &[3]), Damage),
        case("no bytes per sector", small, |i| i.put(11, &[0, 0]), Unreadable),
        case("no bytes per sector", fat32, |i| i.put(11, &[0, 0]), Damage),
        case("no reserved sectors", small, |i| i.put(14, &[0, 0]), Unreadable),
        case("no reserved sectors", fat32, |i| i.put(14, &[0, 0]), Damage),
        case("no tables", small, |i| i.put(16, &[0]), Unreadable),
        case("no tables", fat32, |i| i.put(16, &[0]), Damage),
        case("three tables", small, |i| i.put(16, &[3]), Unreadable),
        case("three tables", fat32, |i| i.put(16, &[3]), Damage),
        case("table of no sectors", small, |i| { i.put(22, &[0; 2]); i.put(36, &[0; 4]); }, Unreadable),
        case("table of no sectors", fat32, |i| { i.put(22, &[0; 2]); i.put(36, &[0; 4]); }, Damage),
        case("table too small", any, |i| { let at = if i.is_fat32() { 36 } else { 22 }; i.put(at, &[1, 0]); }, Damage),
        case("no sectors", small, |i| { i.put(19, &[0; 2]); i.put(32, &[0; 4]); }, Unreadable),
        case("no sectors", fat32, |i| { i.put(19, &[0; 2]); i.put(32, &[0; 4]); }, Damage),
        case("more sectors than there are", any, |i| {
            let n = (i.geometry.total_bytes / u64::from(i.geometry.sector_bytes)) as u32 + 64;
            i.put(19, &[0; 2]); i.put(32, &n.to_le_bytes());
        }, Damage),
        case("`..` of no cluster, and lost clusters", any, |i| {
            let at = i.slot("EFI/Linux", 1); i.put(at + 26, &[0, 0]);
            let c = i.free_cluster(); let e = i.end_mark(); i.set_all(c, e);
        }, Damage),

        case("no boot sector", small, |i| i.put(0, &[0; 512]), Unreadable),
        case("no boot sector", fat32, |i| i.put(0, &[0; 512]), Damage),
        case("noise for a boot sector", fat32, |i| i.put(0, &[0xA7; 512]), Damage),
        case("no boot sector, and no FSInfo", fat32, |i| {
            let at = i.geometry.fsinfo_offset.unwrap(); i.put(0, &[0; 512]); i.put(at, &[0; 4]);
        }, Unreadable),
        case("no boot sector, and another table", fat32, |i| { i.put(0, &[0; 512]); i.set_all(0, 0); }, Unreadable),
        case("no root entries", small, |i| i.put(17, &[0; 2]), Unreadable),
        case("root directory in cluster 0", fat32, |i| i.put(44, &[0; 4]), Damage),
        case("root directory in cluster 1", fat32, |i| i.put(44, &[1, 0, 0, 0]), Damage),
        case("root directory past the end", fat32, |i| i.put(44, &[0, 0, 0xFF, 0]), Damage),
        case("root directory in a free cluster", fat32, |i| { let c = i.free_cluster(); i.put(44, &c.to_le_bytes()); }, Unreadable),
        case("root directory in a loop", fat32, |i| i.set_all(2, 2), Unreadable),
    ]
}

/// The boot sector speaks of a smaller volume. Nothing on it tells that the backup is right.
fn smaller(image: &mut Image) {
    let n = (image.geometry.total_bytes / u64::from(image.geometry.sector_bytes)) as u32 - 64;
    image.put(19, &[0; 2]);
    image.put(32, &n.to_le_bytes());
}

/// The free count as it is, so that a case is about one thing.
fn fix_fsinfo(image: &mut Image) {
    let Some(at) = image.geometry.fsinfo_offset else { return };
    let free = Volume::open(&image.bytes).unwrap().table().free_clusters();
    image.put(at + 488, &free.to_le_bytes());
}

#[test]
fn each_class_of_damage_is_judged_as_fsck_judges_it() {
    if !tool("fsck.fat") || !tool("mkfs.vfat") {
        return;
    }
    let mut wrong = Vec::new();
    let mut count = 0;
    for mut image in images() {
        for case in cases() {
            if !(case.fits)(&image) {
                continue;
            }
            (case.damage)(&mut image);
            let (verdict, disagreement) = compare(&image);
            if let Some(why) = disagreement {
                wrong.push(format!("{}, {}: {why}", image.name, case.name));
            } else if verdict != case.expected {
                let (_, problems) = health(&image);
                wrong.push(format!(
                    "{}, {}: {verdict:?}, not {:?}: {problems:?}\n    {:?}",
                    image.name,
                    case.name,
                    case.expected,
                    fsck(&image.path)
                ));
            }
            image.revert();
            count += 1;
        }
    }
    println!("{count} damaged volumes, {} classes", cases().len());
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

// ---- what is recommended ----------------------------------------------------------------------------------------

/// Whether a volume is better than before.
fn mended(bytes: &[u8], before: &Health) -> Result<(), String> {
    let damage = |h: &Health| h.problems.iter().filter(|p| p.class == ProblemClass::Damage).count() + h.unlisted;
    match Volume::open(bytes).and_then(|v| Health::check(&v)) {
        Ok(after) if damage(&after) < damage(before) => Ok(()),
        Ok(after) => Err(format!("{:?} before, {:?} after", before.problems, after.problems)),
        Err(e) => Err(e.to_string()),
    }
}

#[test]
fn issue14_9_what_is_recommended_for_damage_makes_it_better() {
    if !tool("fsck.fat") || !tool("mkfs.vfat") {
        return;
    }
    let (mut wrong, mut seen) = (Vec::new(), std::collections::BTreeMap::<String, usize>::new());
    for mut image in images() {
        for case in cases().iter().filter(|c| c.expected == Verdict::Damage && (c.fits)(&image)).collect::<Vec<_>>() {
            (case.damage)(&mut image);
            if let Ok(health) = Volume::open(&image.bytes).and_then(|v| Health::check(&v)) {
                *seen.entry(format!("{:?}", health.remedy)).or_default() += 1;
                let outcome = match health.remedy {
                    Remedy::Recover => {
                        let medium = Memory::new(image.bytes.clone());
                        recover(&medium).map_err(|e| e.to_string()).and_then(|_| mended(&medium.into_bytes(), &health))
                    }
                    Remedy::Fsck => by_fsck(&image, &["-a"]).and_then(|b| mended(&b, &health)),
                    Remedy::AskedFsck => by_fsck(&image, &["-r"]).and_then(|b| mended(&b, &health)),
                    // A new file system.
                    _ => match by_fsck(&image, &["-a"]).and_then(|b| mended(&b, &health)) {
                        Ok(()) => Err("fsck.fat does help".to_owned()),
                        Err(_) => Ok(()),
                    },
                };
                if let Err(why) = outcome {
                    wrong.push(format!("{}, {}: {:?}: {why}", image.name, case.name, health.remedy));
                }
            }
            image.revert();
        }
    }
    println!("{seen:?}");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// What fsck.fat makes of a volume, in two runs: what it does in the first may leave something for the second.
fn by_fsck(image: &Image, args: &[&str]) -> Result<Vec<u8>, String> {
    let lab = Lab::new();
    let path = lab.path("volume.img");
    std::fs::write(&path, &image.bytes).unwrap();
    // The answers: the second copy of the boot sector is right; correct the free count; write the changes.
    let script = format!("printf '2\\n1\\n1\\n' | timeout 20 fsck.fat {} {}", args.join(" "), path.display());
    let _ = crate::support::run("sh", &["-c", &script]);
    let output = crate::support::run("sh", &["-c", &script]);
    match output.status.code() {
        Some(0 | 1) => Ok(std::fs::read(&path).unwrap()),
        code => Err(format!("{code:?}: {}", String::from_utf8_lossy(&output.stdout))),
    }
}

// ---- random damage ------------------------------------------------------------------------------------------------

/// A small generator with a fixed seed: the same bytes on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Where the metadata that is in use lies: (offset, bytes).
fn metadata(image: &Image) -> Vec<(u64, u64)> {
    let g = &image.geometry;
    let mut places = vec![(0, 90)];
    places.extend(g.fsinfo_offset.map(|at| (at, 512)));
    places.extend(g.backup_boot_offset.map(|at| (at, 90)));
    places.extend((0..g.fats).map(|n| (g.fat_copy_offset(n), 700.min(g.fat_bytes))));
    let volume = Volume::open(&image.bytes).unwrap();
    for path in ["", "EFI", "EFI/BOOT", "EFI/Linux", "loader", "EMPTY"] {
        if let Some(d) = volume.find_directory(path).unwrap() {
            places.push((d.offset_of(0).unwrap(), 32 * (d.end() as u64 + 1).min(16)));
        }
    }
    places
}

#[test]
fn random_damage_is_never_called_healthy_against_fsck() {
    if !tool("fsck.fat") || !tool("mkfs.vfat") {
        return;
    }
    let mut all = images();
    let lab = Lab::new();
    for name in ["fat12", "fat16", "fat32-few-clusters"] {
        let bytes = std::fs::read(lab.fixture(&format!("fat/{name}.img.zst"))).unwrap();
        all.push(Image::new(name, bytes));
    }
    let rounds = std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let (mut wrong, mut seen) = (Vec::new(), std::collections::BTreeMap::<Verdict, usize>::new());
    for image in &mut all {
        assert_eq!(compare(image).1, None, "{}, undamaged", image.name);
        let places = metadata(image);
        let mut random = Random(0x5EED_0000 + places.len() as u64);
        for round in 0..rounds {
            let mut what = Vec::new();
            for _ in 0..=random.below(6) {
                let (start, bytes) = places[random.below(places.len() as u64) as usize];
                let at = start + random.below(bytes);
                let byte = [0x00, 0x01, 0x20, 0x40, 0xE5, 0xFF, random.below(256) as u8][random.below(7) as usize];
                what.push(format!("{at:#x}={byte:#04x}"));
                image.put(at, &[byte]);
            }
            let (verdict, disagreement) = compare(image);
            *seen.entry(verdict).or_default() += 1;
            if let Some(why) = disagreement {
                wrong.push(format!("{}, round {round}, {}: {why}", image.name, what.join(" ")));
            }
            image.revert();
        }
    }
    println!("{} random mutations: {seen:?}", rounds * all.len());
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

// ---- volumes of others ------------------------------------------------------------------------------------------

#[test]
fn the_test_volumes_of_dosfstools_are_judged_as_fsck_judges_them() {
    let Some(corpus) = std::env::var_os("BOOTSURGEON_DOSFSTOOLS").map(PathBuf::from) else {
        crate::support::skip(
            "BOOTSURGEON_DOSFSTOOLS names no folder; make one with tests/corpus/fetch-dosfstools.sh DIR",
        );
        return;
    };
    let (mut wrong, mut seen) = (Vec::new(), std::collections::BTreeMap::<Verdict, usize>::new());
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&corpus).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let source = FileSource::open(&path).unwrap();
        let (verdict, disagreement) = compare_with(verdict_of(Volume::open(&source)), &path);
        *seen.entry(verdict).or_default() += 1;
        wrong.extend(disagreement.map(|why| format!("{name}: {why}")));
    }
    println!("{seen:?}");
    assert!(seen.values().sum::<usize>() > 50, "{seen:?}");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

// ---- the commands -------------------------------------------------------------------------------------------------

/// The ESP of the disk fixtures begins here.
const ESP: u64 = 1 << 20;

fn bootsurgeon(args: &[&str]) -> Output {
    crate::support::program().args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The ESP of a disk image.
fn esp_of(disk: &Path) -> Image {
    let mut file = File::open(disk).unwrap();
    file.seek(SeekFrom::Start(ESP)).unwrap();
    let mut bytes = Vec::new();
    file.take(48 << 20).read_to_end(&mut bytes).unwrap();
    Image::new("disk-512", bytes)
}

#[test]
fn damage_stops_what_writes_and_not_what_reads() {
    let lab = Lab::new();
    let new = lab.fixture("talos-v1.12.4-arm64-installer.efi.zst");
    let cert = fixtures().join("keys/test-signing.crt");
    let (new, cert) = (new.to_str().unwrap(), cert.to_str().unwrap());
    let out = lab.path("out.efi");
    let out = out.to_str().unwrap();
    // The damage, where it is, and what of the message must say so.
    type Damage = fn(&mut Image);
    let damages: [(&str, Damage, &[&str]); 7] = [
        (
            "cross-link",
            |i| {
                let (a, b) = (i.chain(UKI), i.chain("EFI/Linux/Talos-v1.12.4~1.efi"));
                i.set_all(a[a.len() - 1], b[b.len() - 1]);
            },
            &["Talos-v1.12.4", "cluster"],
        ),
        ("boot sector", smaller, &["boot sector and its backup differ at byte"]),
        ("size", |i| i.set_size("loader/loader.conf", 70_000), &["/loader/loader.conf", "70000 bytes"]),
        (
            "loop",
            |i| {
                let c = i.chain(UKI);
                i.set_all(c[c.len() - 1], c[0]);
            },
            &["/EFI/Linux/Talos-v1.12.4.efi", "loop"],
        ),
        ("a directory lost", |i| i.set_first("loader", 1), &["/loader", "cluster 1"]),
        (
            "root directory in a loop",
            |i| {
                let Root::Chain(root) = i.geometry.root else { unreachable!() };
                i.set_all(root, root);
            },
            &["root directory", "loop"],
        ),
        (
            "hardware errors",
            |i| {
                let v = i.end_mark() & 0x0BFF_FFFF;
                i.set_all(1, v);
            },
            &["I/O errors"],
        ),
    ];
    for (name, damage, words) in damages {
        let disk = lab.fixture_as("disk-512.img.zst", &format!("{name}.img"));
        let mut esp = esp_of(&disk);
        damage(&mut esp);
        let patched = File::options().write(true).open(&disk).unwrap();
        for (at, old) in &esp.undo {
            patched.write_all_at(&esp.bytes[*at..*at + old.len()], ESP + *at as u64).unwrap();
        }
        let before = crate::support::sha256(&disk);
        let d = disk.to_str().unwrap();
        for args in [
            &["swap", d, new, "--cert", cert, "--efivars", "none", "--yes"][..],
            &["prune", d, "--yes"],
            &["restore", d, "--yes"],
            &["recover", d, "--yes"],
            &["swap", d, new, "--cert", cert, "--efivars", "none", "--dry-run"],
        ] {
            let output = bootsurgeon(args);
            assert_eq!(output.status.code(), Some(4), "{name}, {args:?}: {}", stderr(&output));
            for word in words {
                assert!(stderr(&output).contains(word), "{name}, {}: {}", args[0], stderr(&output));
            }
        }
        if name.starts_with("root") {
            // Nothing can be reached here; the refusal is all there is.
            assert_eq!(bootsurgeon(&["status", d]).status.code(), Some(4));
            continue;
        }
        let status = bootsurgeon(&["status", d, "--json"]);
        assert_eq!(status.status.code(), Some(0), "{name}: {}", stderr(&status));
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.contains("\"healthy\": false") && status.contains(words[0]), "{name}: {status}");
        for args in [
            &["inspect", d][..],
            &["extract", d, "--uki", "Talos-v1.12.4~1.efi", "--out", out, "--force"],
            &["verify", d, "--uki", "Talos-v1.12.4~1.efi", "--cert", cert, "--efivars", "none"],
        ] {
            let output = bootsurgeon(args);
            assert_eq!(output.status.code(), Some(0), "{name}, {args:?}: {}", stderr(&output));
        }
        assert_eq!(crate::support::sha256(&disk), before, "{name}: nothing was written");
    }
}
