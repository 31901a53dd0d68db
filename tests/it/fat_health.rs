//! `fat::Health` against `fsck.fat -n`, on volumes damaged one way at a time and at random; and what the commands make
//! of damage.
//!
//! The rule: where fsck.fat finds something, `Health` must not call the volume healthy, and where `Health` says damage,
//! fsck.fat finds something too. The exceptions are data ([`FSCK_ALONE`], [`HEALTH_ALONE`]), each with its reason.

mod cases;
mod image;

use crate::support::{Lab, fixtures, tool};
use bootsurgeon::block::{FileSource, Memory, ReadAt};
use bootsurgeon::fat::{Health, ProblemClass, Remedy, Root, Volume};
use bootsurgeon::surgery::recover;
use cases::{UKI, cases, smaller};
use image::{Image, images};
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

/// Whether a list of differences between the boot sector and its backup is about bytes that no reader finds files by:
/// names, the serial number, flags, boot code, what only BIOS boot code reads.
fn nothing_that_matters(line: &str) -> bool {
    let list = line.split_once("(offset:original/backup) | ").map_or("", |(_, rest)| rest);
    let places = list.split(" | ").next().unwrap_or_default().split([',', ' ']).filter(|p| !p.is_empty());
    let harmless = |at: usize| !(11..21).contains(&at) && !(22..24).contains(&at) && !(32..52).contains(&at);
    { places }.all(|p| p.split(':').next().and_then(|at| at.parse().ok()).is_some_and(harmless))
}

// ---- volumes ------------------------------------------------------------------------------------------------------

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
