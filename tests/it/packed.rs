//! Disk images packed with zstd and xz, as `DISK` and as `IMAGE`, and `--out`: packed by the real tools, and what comes
//! out is unpacked by them again.

use crate::cli::{ESP, Ran, uki};
use crate::support::{Lab, run_ok, sha256, tools};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const INSTALLER: &str = "v1.12.4-arm64-installer";
const DISKS: [&str; 2] = ["disk-512.img", "disk-4096.img"];
/// What a command may take, in KiB.
const MAX_KIB: u64 = 64 * 1024;

/// Whether the packers are here.
fn packers() -> bool {
    tools(&["zstd", "xz"])
}

/// Packs a file with the real tool and these options, beside it, under this name.
fn pack(file: &Path, tool: &str, options: &[&str], name: &str) -> PathBuf {
    let packed = run_ok(tool, &[options, &["-q", "-c", file.to_str().unwrap()]].concat());
    let out = file.with_file_name(name);
    std::fs::write(&out, packed).unwrap();
    out
}

/// SHA-256 of what the real tool unpacks; of the file itself if its name is no packed one's.
fn content(lab: &Lab, file: &Path) -> String {
    let tool = match file.extension().unwrap().to_str().unwrap() {
        "zst" | "zstd" => "zstd",
        "xz" => "xz",
        _ => return sha256(file),
    };
    let raw = lab.path("content");
    let status = Command::new(tool).arg("-dcq").arg(file).stdout(File::create(&raw).unwrap()).status().unwrap();
    assert!(status.success(), "{tool} cannot unpack {}", file.display());
    sha256(&raw)
}

/// A disk on which every swap gives the same bytes: a backup from the future decides the time.
fn timeless(lab: &Lab, name: &str) -> PathBuf {
    let disk = lab.fixture(&format!("{name}.zst"));
    crate::cli::put(&disk, ESP, "EFI/Linux/other.efi.bak.4000000000", b"old");
    disk
}

/// The program with a folder for temporary files of its own, which is empty afterwards.
fn run_in(lab: &Lab, args: &[&str]) -> Ran {
    let temporary = lab.path("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = crate::cli::command(args);
    command.env("TMPDIR", &temporary);
    let ran = crate::cli::finish(command);
    assert_eq!(names(&temporary), [""; 0], "left behind by {args:?}");
    ran
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut all: Vec<_> =
        folder.read_dir().unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    all.sort();
    all
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs the program and holds it to its memory, read from the system while it runs.
pub(crate) fn within_limits(args: &[&str]) -> Ran {
    let mut command = crate::cli::command(args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let (begin, mut peak) = (Instant::now(), 0);
    let code = loop {
        let now = std::fs::read_to_string(&status).unwrap_or_default();
        let kib = now.lines().find_map(|l| l.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or_default());
        if let Some(status) = child.try_wait().unwrap() {
            break status.code().unwrap_or(-1);
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    eprintln!("{args:?}: {peak} KiB, {:?}, exit {code}", begin.elapsed());
    // Who is done within a moment may be gone before it is looked at.
    let seen = peak > 0 || begin.elapsed() < Duration::from_millis(50);
    assert!(seen && peak <= MAX_KIB, "{args:?}: {peak} KiB");
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.unwrap().read_to_string(&mut out).unwrap();
    child.stderr.unwrap().read_to_string(&mut err).unwrap();
    assert!(!err.contains("panicked"), "{err}");
    Ran { command: format!("{args:?}"), code, out, err }
}

#[test]
fn commands_that_read_say_the_same_of_a_packed_image() {
    if !packers() {
        return;
    }
    for name in [&DISKS[..], &["fat32.img"]].concat() {
        let lab = Lab::new();
        let raw = lab.fixture(&format!("{name}.zst"));
        // As Talos packs its images, and a name that says nothing.
        let zstd = pack(&raw, "zstd", &["-T0", "-18"], "packed");
        let xz = pack(&raw, "xz", &["-T0", "-0"], "packed.raw");
        for (packed, with) in [(&zstd, "zstd"), (&xz, "xz")] {
            let both = |args: &[&str]| -> [Value; 2] {
                [&raw, packed].map(|disk| {
                    let args: Vec<&str> = args.iter().map(|a| if *a == "DISK" { text(disk) } else { a }).collect();
                    run_in(&lab, &[&args[..], &["--json"]].concat()).code(0).json()
                })
            };
            let like_raw = |mut report: Value| {
                assert_eq!(report["disk"]["path"], text(packed));
                assert_eq!(report["disk"]["packed"], with);
                report["disk"]["path"] = text(&raw).into();
                report["disk"]["packed"] = Value::Null;
                // Commands that are recommended make a changed copy.
                let out = format!(" --out changed.img.{}", if with == "zstd" { "zst" } else { with });
                let said = report.to_string();
                for command in said.split("`bootsurgeon ").skip(1).filter_map(|rest| rest.split('`').next()) {
                    assert_eq!(command.contains(&out), !command.starts_with("extract"), "{command}");
                }
                Value::from(said.replace(&out, "").replace(text(packed), text(&raw)))
            };
            let [of_raw, of_packed] = both(&["status", "DISK"]);
            assert_eq!(like_raw(of_packed), Value::from(of_raw.to_string()), "{name}, {with}");
            let [of_raw, of_packed] = both(&["doctor", "DISK"]);
            assert_eq!(like_raw(of_packed["esps"][0].clone()), Value::from(of_raw["esps"][0].to_string()));
            let [of_raw, of_packed] = both(&["restore", "--list", "DISK"]);
            assert_eq!(of_raw, of_packed);
            let [of_raw, mut of_packed] = both(&["inspect", "DISK"]);
            assert_eq!((&of_raw["packed"], &of_raw["packed_bytes"]), (&Value::Null, &Value::Null));
            assert_eq!(of_packed["packed"].take(), with);
            assert_eq!(of_packed["packed_bytes"].take(), packed.metadata().unwrap().len());
            of_packed["path"] = text(&raw).into();
            assert_eq!(of_raw, of_packed);
            if name != "fat32.img" {
                let uki = ["--uki", "Talos-v1.12.4.efi"];
                let [of_raw, of_packed] = both(&[&["verify", "DISK", "--installed", "DISK"], &uki[..]].concat());
                assert_eq!(of_raw, of_packed);
                let outs = [lab.path("raw.efi"), lab.path("packed.efi")];
                for (disk, out) in [&raw, packed].iter().zip(&outs) {
                    run_in(&lab, &[&["extract", text(disk), "--out", text(out), "--force"], &uki[..]].concat()).code(0);
                }
                assert_eq!(sha256(&outs[0]), sha256(&outs[1]));
            }
        }
        let said = bootsurgeon!("status", xz).code(0).out;
        assert!(said.contains("an image packed with xz"), "{said}");
        let said = bootsurgeon!("inspect", zstd).code(0).out;
        assert!(said.contains("packed with zstd in "), "{said}");
    }
}

/// The factory's disk images have such names.
#[test]
fn a_packed_image_behind_a_url() {
    use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
    if !packers() {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let choice = ["--uki", "Talos-v1.12.4.efi", "--force"];
    let [from_file, from_url] = [lab.path("file.efi"), lab.path("url.efi")];
    run_in(&lab, &[&["extract", text(&disk), "--out", text(&from_file)], &choice[..]].concat()).code(0);
    for (tool, name) in [("zstd", "metal-arm64.raw.zst"), ("xz", "metal-arm64.raw.xz")] {
        let packed = std::fs::read(pack(&disk, tool, &["-3"], name)).unwrap();
        for ranges in [true, false] {
            let factory = LocalFactory::start().unwrap();
            let behaviour = Behaviour { ranges, ..Behaviour::default() };
            let url = factory.serve_path(&format!("/image/{name}"), packed.clone(), behaviour);
            run_in(&lab, &[&["extract", &url, "--out", text(&from_url)], &choice[..]].concat()).code(0);
            assert_eq!(sha256(&from_url), sha256(&from_file));
            let report = run_in(&lab, &["inspect", &url, "--json"]).code(0).json();
            assert_eq!((&report["kind"], &report["packed"]), (&"disk image".into(), &tool.into()));
        }
    }
}

#[test]
fn a_changed_copy_is_what_a_change_in_place_gives() {
    if !packers() || !tools(&["mcopy"]) {
        return;
    }
    for name in DISKS {
        let lab = Lab::new();
        let (raw, new) = (timeless(&lab, name), uki(&lab, INSTALLER));
        let sources = [pack(&raw, "zstd", &["-3"], "d.zst"), pack(&raw, "xz", &["-0"], "d.xz"), raw.clone()];
        let before = sources.each_ref().map(|s| sha256(s));

        let in_place = crate::cli::copy(&raw, &lab.path("in-place.img"));
        let report = run_in(&lab, &["swap", text(&in_place), text(&new), "--yes", "--json"]).code(0).json();
        assert_eq!(report["plan"]["backup"], "Talos-v1.12.4.efi.bak.4000000001");
        assert_eq!(report["out"], Value::Null);
        let wanted = sha256(&in_place);
        assert_ne!(wanted, sha256(&raw));
        let pruned = crate::cli::copy(&in_place, &lab.path("pruned.img"));
        run_in(&lab, &["prune", text(&pruned), "--yes", "--delete", "--keep-backups", "1"]).code(0);
        let restored = crate::cli::copy(&in_place, &lab.path("restored.img"));
        run_in(&lab, &["restore", text(&restored), "--yes"]).code(0);

        for (i, (source, before)) in sources.iter().zip(&before).enumerate() {
            // Whoever may not write to the disk image can make a changed copy of it.
            let mut permissions = source.metadata().unwrap().permissions();
            permissions.set_readonly(true);
            std::fs::set_permissions(source, permissions).unwrap();
            for (k, ending) in ["img", "zst", "xz"].iter().enumerate() {
                // Each way in and each way out once, and the plain copy.
                if i != k && (i, k) != (2, 0) {
                    continue;
                }
                let folder = lab.path(&format!("out-{i}-{ending}"));
                std::fs::create_dir(&folder).unwrap();
                let out = folder.join(format!("new.{ending}"));
                let args = ["swap", text(source), text(&new), "--json", "--out", text(&out)];
                let dry = run_in(&lab, &[&args[..], &["--dry-run"]].concat()).code(0).json();
                assert_eq!((names(&folder), &dry["out"]), (vec![], &Value::Null));
                let done = run_in(&lab, &[&args[..], &["--yes"]].concat()).code(0).json();
                assert_eq!(done["plan"], dry["plan"]);
                assert_eq!(done["committed"], true);
                assert_eq!(done["out"], text(&out));
                assert_eq!(names(&folder), [format!("new.{ending}")]);
                assert_eq!(content(&lab, &out), wanted, "{name}: {} to .{ending}", source.display());
                assert_eq!(sha256(source), *before, "the image that was given has changed");
                // What came out goes in again.
                if i == k {
                    let next = lab.path(&format!("next.{ending}"));
                    let args = ["prune", text(&out), "--yes", "--delete", "--keep-backups", "1", "--out", text(&next)];
                    run_in(&lab, &args).code(0);
                    assert_eq!(content(&lab, &next), sha256(&pruned));
                    let next = lab.path(&format!("back.{ending}"));
                    run_in(&lab, &["restore", text(&out), "--yes", "--out", text(&next)]).code(0);
                    assert_eq!(content(&lab, &next), sha256(&restored));
                }
            }
        }
    }
}

#[test]
fn nothing_to_do_gives_a_copy_all_the_same() {
    if !packers() {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let packed = pack(&disk, "xz", &["-0"], "disk.xz");
    let out = lab.path("same.zst");
    let report = run_in(&lab, &["recover", text(&packed), "--yes", "--json", "--out", text(&out)]).code(0).json();
    assert_eq!(report["committed"], false);
    assert_eq!(report["out"], text(&out));
    assert_eq!(content(&lab, &out), sha256(&disk));
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_written() {
    if !packers() {
        return;
    }
    let lab = Lab::new();
    let (disk, new) = (lab.fixture("disk-512.img.zst"), uki(&lab, INSTALLER));
    let packed = pack(&disk, "zstd", &["-3"], "disk.zst");
    let foreign = lab.path("disk.raw.gz");
    std::fs::write(&foreign, b"\x1F\x8B\x08\0\0\0\0\0and so on").unwrap();
    let other = lab.path("other.img");
    std::fs::write(&other, "something of somebody").unwrap();
    let (fresh, wrong_name, nowhere) = (lab.path("new.img"), lab.path("new.img.gz"), lab.path("no/folder/new.img"));
    let before = [&disk, &packed, &other].map(|f| sha256(f));
    let _ = run_in(&lab, &["status", text(&disk)]).code(0);
    let there = names(&lab.path(""));

    // A change in a packed image: refused before a byte is unpacked, so that no folder for temporary files is needed.
    let commands: [&[&str]; 4] =
        [&["swap", "DISK", text(&new)], &["prune", "DISK"], &["restore", "DISK"], &["recover", "DISK"]];
    for command in commands {
        let args: Vec<&str> = command.iter().map(|a| if *a == "DISK" { text(&packed) } else { a }).collect();
        let mut command = crate::cli::command(&[&args[..], &["--yes"]].concat());
        command.env("TMPDIR", "/nowhere");
        crate::cli::finish(command).fails(4, &["packed (zstd)", "--out FILE", "the ESP was not changed"]);
    }
    for (disk, out, code, words) in [
        (&packed, &other, 4, &["exists already", "--force"][..]),
        (&packed, &packed, 2, &["it is the disk image itself"]),
        (&disk, &disk, 2, &["it is the disk image itself"]),
        (&disk, &lab.path("."), 4, &["not a regular file"]),
        (&packed, &wrong_name, 2, &["does not write .gz files"]),
        (&foreign, &fresh, 3, &["packed with gzip", "gzip -dk"]),
    ] {
        for how in ["--yes", "--dry-run"] {
            run_in(&lab, &["swap", text(disk), text(&new), how, "--out", text(out)]).fails(code, words);
        }
    }
    run_in(&lab, &["prune", text(&packed), "--yes", "--out", text(&nowhere)]).fails(1, &["No such file"]);
    run_in(&lab, &["prune", text(&packed), "--yes", "--force"]).code(2);
    run_in(&lab, &["restore", text(&packed), "--list", "--out", text(&fresh)]).code(2);
    // Nobody said yes; and an image that is rejected. Both come when the copy is there already.
    run_in(&lab, &["swap", text(&packed), text(&new), "--out", text(&fresh)]).fails(4, &["--yes", "was not changed"]);
    let unsigned = uki(&lab, "v1.12.4-arm64-unsigned");
    run_in(&lab, &["swap", text(&packed), text(&unsigned), "--yes", "--out", text(&fresh)])
        .fails(3, &["making a changed copy of", "was not changed"]);
    std::fs::remove_file(unsigned).unwrap();
    assert_eq!([&disk, &packed, &other].map(|f| sha256(f)), before);
    assert_eq!(names(&lab.path("")), there);

    run_in(&lab, &["prune", text(&packed), "--yes", "--out", text(&other), "--force"]).code(0);
    assert_ne!(sha256(&other), before[2]);
    assert_eq!(names(&lab.path("")), there);
}

#[test]
fn devices_and_images_in_use_are_not_copied() {
    let Some(_turn) = crate::loops::turn() else { return };
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let out = lab.path("new.img");
    let device = crate::loops::Loop::attach(&disk, &[]);
    bootsurgeon!("prune", device.node(), "--yes", "--out", out).fails(2, &["is a device"]);
    bootsurgeon!("prune", disk, "--yes", "--out", out).fails(4, &["is in use: attached to /dev/loop"]);
    drop(device);
    let lock = File::open(&disk).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    bootsurgeon!("prune", disk, "--yes", "--out", out).fails(4, &["holds a lock"]);
    // Not by dropping it: a child that another test is about to start may have it, too, for a moment.
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::Unlock).unwrap();
    bootsurgeon!("prune", disk, "--yes", "--out", out).code(0);
}

#[test]
fn malformed_files_are_rejected() {
    if !packers() {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    for (tool, options) in [
        ("zstd", &["-3"][..]),
        ("zstd", &["-3", "--no-check"]),
        ("xz", &["-0"]),
        ("xz", &["-0", "-T2", "--block-size=1MiB"]),
    ] {
        let packed = std::fs::read(pack(&disk, tool, options, "good")).unwrap();
        let file = lab.path("bad");
        let reject = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            run_in(&lab, &["status", text(&file)]).fails(3, &["unpacking ", "fetch it again"]);
        };
        for cut in [packed.len() - 1, packed.len() - 5, packed.len() / 2, 9] {
            reject(&packed[..cut]);
        }
        reject(&[&packed[..], b"x"].concat());
        reject(&[&packed[..], b"\x50\x2A\x4D\x18\xFF\xFF\xFF\xFF and no more"].concat());
        reject(&[&packed[..], &[0; 512], b"more"].concat());
        let out = lab.path("out.img");
        run_in(&lab, &["recover", text(&file), "--yes", "--out", text(&out)]).fails(3, &["was not changed"]);
        assert!(!out.exists());
    }
    // What was packed twice is unpacked once.
    let twice = pack(&pack(&disk, "xz", &["-0"], "once"), "zstd", &["-3"], "twice");
    run_in(&lab, &["status", text(&twice)]).fails(3, &["packed (xz)"]);
    run_in(&lab, &["verify", text(&twice)]).fails(3, &["packed (xz)"]);
}

#[test]
fn memory_stays_within_limits_and_bombs_are_refused() {
    if !packers() {
        return;
    }
    let lab = Lab::new();
    let zeros = lab.path("zeros");
    File::create(&zeros).unwrap().set_len(256 << 20).unwrap();
    let write = |name: &str, parts: &[&[u8]]| {
        let path = lab.path(name);
        let mut file = File::create(&path).unwrap();
        parts.iter().for_each(|p| file.write_all(p).unwrap());
        path
    };
    // 1 TiB of zeros.
    let xz = std::fs::read(pack(&zeros, "xz", &["-0", "-T2"], "zeros.xz")).unwrap();
    let bomb = write("bomb.xz", &vec![&xz[..]; 4096]);
    let begin = Instant::now();
    within_limits(&["status", text(&bomb)]).fails(3, &["unpacks to 1024 GiB; 64 GiB is the limit"]);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());

    // The largest windows that are taken, filled, and the next ones.
    let disk = lab.fixture("disk-512.img.zst");
    noise(&disk, 68 << 20, 8 << 20);
    File::options().write(true).open(&disk).unwrap().set_len(192 << 20).unwrap();
    // Windows are filled by whatever is unpacked: the same megabyte again and again takes what 48 others take (45 MB of
    // memory, measured with both), and is packed in a tenth of the time.
    (80..128).for_each(|mib| noise(&disk, mib << 20, 1 << 20));
    for (tool, options, name, out) in [
        ("zstd", &["-1", "--zstd=wlog=25"][..], "a.zst", "new.xz"),
        ("xz", &["--lzma2=preset=0,dict=32MiB"], "a.xz", "new.zst"),
    ] {
        let packed = pack(&disk, tool, options, name);
        within_limits(&["status", text(&packed)]).code(0);
        within_limits(&["prune", text(&packed), "--yes", "--out", text(&lab.path(out))]).code(0);
    }
    // xz allots what the header says, and zstd what there is of it.
    let little = lab.fixture_as("disk-512.img.zst", "little.img");
    for (disk, tool, options, why) in [
        (&disk, "zstd", &["-1", "--long=27"][..], "a window of 128 MiB; a window of 32 MiB is the limit"),
        (&little, "xz", &["--lzma2=preset=0,dict=64MiB"], "34 MiB is the limit"),
    ] {
        let packed = pack(disk, tool, options, "large-window");
        within_limits(&["status", text(&packed)]).fails(3, &[why, "unpack it with"]);
    }
    // A large window behind a small one.
    let large = std::fs::read(pack(&disk, "zstd", &["-1", "--long=27"], "large-window")).unwrap();
    let small = std::fs::read(pack(&zeros, "zstd", &["-1"], "zeros.zst")).unwrap();
    within_limits(&["status", text(&write("both", &[&small, &large]))]).fails(3, &["a window of 32 MiB is the limit"]);
}

/// Bytes that no packer can make fewer of.
fn noise(file: &Path, offset: u64, bytes: usize) {
    let mut x = 1u64;
    let noise: Vec<u8> = (0..bytes / 8)
        .flat_map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()
        })
        .collect();
    crate::cli::patch(file, offset, &noise);
}

/// A folder on a file system of 8 MiB, in a mount namespace of its own. `None` where that is not allowed, having said
/// so.
fn on_a_small_file_system(folder: &Path, args: &[&str], temporary: bool) -> Option<Ran> {
    if !tools(&["unshare"]) {
        return None;
    }
    let script =
        "mount -t tmpfs -o size=8m none \"$1\" || exit 99; shift; \"$@\"; code=$?; ls -A \"$0\" >&3; exit $code";
    let listing = folder.with_extension("listing");
    let script = script.replace(">&3", &format!(">'{}'", listing.display()));
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &script]).arg(folder).arg(folder);
    command.arg(env!("CARGO_BIN_EXE_bootsurgeon")).args(args).env("NO_COLOR", "1").stdin(Stdio::null());
    if temporary {
        command.env("TMPDIR", folder);
    }
    let output = command.output().unwrap();
    let said = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let ran = Ran {
        command: format!("{command:?}"),
        code: output.status.code().unwrap(),
        out: said(output.stdout),
        err: said(output.stderr),
    };
    if ran.code == 99 || ran.err.starts_with("unshare:") {
        crate::support::skip(&format!("no mount namespaces: {}", ran.err));
        return None;
    }
    assert_eq!(std::fs::read_to_string(&listing).unwrap(), "", "left behind by {}", ran.command);
    Some(ran)
}

#[test]
fn no_room_says_where_and_what_to_do() {
    if !packers() {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    noise(&disk, 54 << 20, 11 << 20);
    let small = lab.path("small");
    std::fs::create_dir(&small).unwrap();
    for (tool, name) in [("zstd", "d.zst"), ("xz", "d.xz")] {
        let packed = pack(&disk, tool, &["-0"].map(|o| if tool == "zstd" { "-1" } else { o }), name);
        let Some(ran) = on_a_small_file_system(&small, &["status", text(&packed)], true) else { return };
        ran.fails(1, &["no room in ", text(&small), " are free and part of that has to stay", "set TMPDIR"]);
        let out = small.join("new.xz");
        let args = ["prune", text(&packed), "--yes", "--out", text(&out)];
        let Some(ran) = on_a_small_file_system(&small, &args, false) else { return };
        ran.fails(1, &["no room in ", "choose another folder for --out", "the ESP was not changed"]);
    }
    // A copy of a raw image, and the packed one beside it.
    let out = small.join("new.img");
    let args = ["prune", text(&disk), "--yes", "--out", text(&out)];
    let Some(ran) = on_a_small_file_system(&small, &args, false) else { return };
    ran.fails(1, &["no room in "]);
    let smaller = lab.fixture_as("disk-512.img.zst", "smaller.img");
    noise(&smaller, 54 << 20, 5 << 20);
    let out = small.join("new.zst");
    let args = ["prune", text(&smaller), "--yes", "--out", text(&out)];
    let Some(ran) = on_a_small_file_system(&small, &args, false) else { return };
    ran.fails(1, &["packing the image with zstd", "no room in "]);

    let mut command = crate::cli::command(&["status", text(&lab.path("d.zst"))]);
    command.env("TMPDIR", "/dev/full");
    crate::cli::finish(command).fails(1, &["/dev/full", "set TMPDIR"]);
}

#[test]
fn sigterm_leaves_nothing_behind() {
    if !packers() || !tools(&["kill"]) {
        return;
    }
    let lab = Lab::new();
    let (disk, new) = (lab.fixture("disk-512.img.zst"), uki(&lab, INSTALLER));
    // Much to do at each step: zeros behind the disk's end are no harm but a missing backup table.
    File::options().write(true).open(&disk).unwrap().set_len(6 << 30).unwrap();
    let packed = pack(&disk, "zstd", &["-1", "--sparse"], "disk.zst");
    let [out, temporary] = [lab.path("out"), lab.path("tmp")];
    for folder in [&out, &temporary] {
        std::fs::create_dir(folder).unwrap();
    }
    let raw = lab.fixture_as("disk-512.img.zst", "raw.img");
    noise(&raw, 54 << 20, 11 << 20);
    File::options().write(true).open(&raw).unwrap().set_len(6 << 30).unwrap();
    let before = [sha256(&packed), sha256(&new)];
    let (to, status, swap) =
        (out.join("new.xz"), ["status", text(&packed), "-v"], ["swap", "DISK", text(&new), "--yes", "-v", "--out"]);
    let swap_of = |disk: &PathBuf| -> Vec<String> {
        let words = swap.iter().map(|w| if *w == "DISK" { text(disk) } else { w });
        words.chain([text(&to)]).map(str::to_owned).collect()
    };
    for (args, step) in
        [(status.map(str::to_owned).to_vec(), "unpacking"), (swap_of(&packed), "copying"), (swap_of(&raw), "packing")]
    {
        let mut command = crate::cli::command(&args);
        let mut child = command.env("TMPDIR", &temporary).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.starts_with(step)), "no step {step}");
        std::thread::sleep(Duration::from_millis(100));
        run_ok("kill", &["-TERM", &child.id().to_string()]);
        let begin = Instant::now();
        let said: Vec<String> = lines.collect();
        let code = child.wait().unwrap().code();
        assert_eq!(code, Some(130), "{step}: {said:?}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{step}: {:?} after the signal", begin.elapsed());
        assert_eq!((names(&out), names(&temporary)), (vec![], vec![]), "{step}: left behind");
    }
    assert_eq!([sha256(&packed), sha256(&new)], before);
}
