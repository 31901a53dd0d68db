//! Where the program writes files: what is there already is kept, and what is no regular file is never replaced.

use crate::cli::{NOHALT, Ran, finish, run, uki, uki_bytes};
use crate::support::{self, Lab};
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
use std::ffi::OsString;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A file that is not the program's.
const PRECIOUS: &[u8] = b"precious\n";

/// A command that writes a file: its arguments without the name of the file, which comes last.
struct Writer {
    name: &'static str,
    args: Vec<OsString>,
}

/// Every command that writes a file beside the disk, without the name of the file.
fn writers(lab: &Lab, factory: &LocalFactory) -> Vec<Writer> {
    let image = uki(lab, "v1.12.4-arm64-uki");
    let bytes = std::fs::read(&image).unwrap();
    let served = factory.serve_path("/x.efi", bytes.clone(), Behaviour { ranges: true, ..Behaviour::default() });
    factory.serve(NOHALT, "v1.12.4", "metal-arm64-secureboot-uki.efi", bytes, Behaviour::default());
    let disk = lab.fixture("disk-512.img.zst");
    let fetch = "--kind uki --talos v1.12.4 --arch arm64";
    let words =
        |parts: &[&str]| -> Vec<OsString> { parts.iter().flat_map(|p| p.split(' ')).map(OsString::from).collect() };
    let (disk, image) = (disk.to_str().unwrap(), image.to_str().unwrap());
    vec![
        Writer {
            name: "fetch",
            args: words(&["fetch --schematic", NOHALT, fetch, "--factory", &factory.url(), "--out"]),
        },
        Writer { name: "extract", args: words(&["extract", image, "--out"]) },
        Writer { name: "extract URL", args: words(&["extract", &served, "--out"]) },
        Writer { name: "swap --out", args: words(&["swap", disk, image, "--allow-untrusted --yes --out"]) },
        Writer { name: "swap --backup-to", args: words(&["swap", disk, image, "--allow-untrusted --yes --backup-to"]) },
        Writer { name: "prune --out", args: words(&["prune", disk, "--yes --out"]) },
    ]
}

fn write(writer: &Writer, out: &Path, more: &[&str]) -> Ran {
    let mut args = writer.args.clone();
    args.push(out.as_os_str().to_owned());
    args.extend(more.iter().map(OsString::from));
    // A FIFO that is opened would hang for ever.
    let program = support::program();
    let mut command = std::process::Command::new("timeout");
    command.arg("60").arg(program.get_program()).args(program.get_args()).args(args);
    command.stdin(std::process::Stdio::null()).env("NO_COLOR", "1");
    finish(command)
}

#[test]
fn issue11_fetch_and_the_others_replace_a_file_only_with_force() {
    let lab = Lab::new();
    let factory = LocalFactory::start().unwrap();
    for writer in writers(&lab, &factory) {
        let out = lab.path("out.img");
        std::fs::write(&out, PRECIOUS).unwrap();
        let ran = write(&writer, &out, &["--json"]).fails(4, &["exists", "--force"]);
        assert_eq!(ran.json()["error"]["code"], "exists", "{}", writer.name);
        assert_eq!(std::fs::read(&out).unwrap(), PRECIOUS, "{}", writer.name);
        write(&writer, &out, &["--force"]).code(0);
        assert_ne!(std::fs::read(&out).unwrap(), PRECIOUS, "{}", writer.name);
        std::fs::remove_file(&out).unwrap();
    }
}

/// Something in the place of the output.
fn put_odd(kind: &str, at: &Path, target: &Path) -> bool {
    match kind {
        "link" => symlink(target, at).unwrap(),
        "dangling link" => symlink(at.with_extension("nothing"), at).unwrap(),
        "folder" => std::fs::create_dir(at).unwrap(),
        "socket" => drop(std::os::unix::net::UnixListener::bind(at).unwrap()),
        "fifo" => return support::tool("mkfifo") && support::run("mkfifo", &[at]).status.success(),
        // As /dev/null, and only where that is allowed.
        "device" => {
            let args = [at.as_os_str(), "c".as_ref(), "1".as_ref(), "3".as_ref()];
            return support::tool("mknod") && support::run("mknod", &args).status.success();
        }
        _ => unreachable!("{kind}"),
    }
    true
}

const ODD: [&str; 6] = ["link", "dangling link", "folder", "socket", "fifo", "device"];

/// What is there, without following links.
fn state(path: &Path) -> (bool, bool, bool, Option<PathBuf>) {
    let kind = path.symlink_metadata().unwrap().file_type();
    (kind.is_fifo(), kind.is_char_device(), kind.is_socket(), std::fs::read_link(path).ok())
}

#[test]
fn issue11_what_is_no_regular_file_is_never_replaced() {
    let lab = Lab::new();
    let factory = LocalFactory::start().unwrap();
    for writer in writers(&lab, &factory) {
        for kind in ODD {
            let (out, target) = (lab.path("out.img"), lab.path("precious"));
            std::fs::write(&target, PRECIOUS).unwrap();
            if !put_odd(kind, &out, &target) {
                continue;
            }
            let before = state(&out);
            for more in [&["--json"][..], &["--json", "--force"]] {
                let ran = write(&writer, &out, more).fails(4, &["not a regular file"]);
                assert_eq!(ran.json()["error"]["code"], "exists", "{} {kind}", writer.name);
                assert_eq!(state(&out), before, "{} {kind}", writer.name);
                assert_eq!(std::fs::read(&target).unwrap(), PRECIOUS, "{} {kind}", writer.name);
            }
            let _ = std::fs::remove_file(&out).or_else(|_| std::fs::remove_dir(&out));
        }
    }
    // A linked folder above the file is the user's own arrangement.
    std::fs::create_dir(lab.path("real")).unwrap();
    symlink(lab.path("real"), lab.path("linked")).unwrap();
    for writer in writers(&lab, &factory) {
        write(&writer, &lab.path("linked/out.img"), &[]).code(0);
        std::fs::remove_file(lab.path("real/out.img")).unwrap();
    }
}

#[test]
fn issue11_fetch_does_not_write_through_a_part_that_is_not_its_own() {
    let lab = Lab::new();
    let factory = LocalFactory::start().unwrap();
    let fetch = writers(&lab, &factory).swap_remove(0);
    let (out, target) = (lab.path("out.efi"), lab.path("precious"));
    for suffix in [".part", ".part.json"] {
        let beside = PathBuf::from(format!("{}{suffix}", out.display()));
        for kind in ODD {
            std::fs::write(&target, PRECIOUS).unwrap();
            if !put_odd(kind, &beside, &target) {
                continue;
            }
            let before = state(&beside);
            let begun = Instant::now();
            for more in [&[][..], &["--force"]] {
                let ran = write(&fetch, &out, more);
                assert!(ran.code == 4 || kind == "folder" && ran.code == 1, "{suffix} {kind}: {ran:#?}");
                assert_eq!(state(&beside), before, "{suffix} {kind}");
                assert_eq!(std::fs::read(&target).unwrap(), PRECIOUS, "{suffix} {kind}");
                assert!(!out.exists(), "{suffix} {kind}");
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{suffix} {kind} hangs");
            let _ = std::fs::remove_file(&beside).or_else(|_| std::fs::remove_dir(&beside));
        }
        // A second name of somebody's file, and a file that another program has left under this name.
        std::fs::hard_link(&target, &beside).unwrap();
        write(&fetch, &out, &[]).fails(4, &["exists"]);
        assert_eq!(std::fs::read(&target).unwrap(), PRECIOUS);
        std::fs::remove_file(&beside).unwrap();
        std::fs::write(&beside, PRECIOUS).unwrap();
        write(&fetch, &out, &[]).fails(4, &["exists"]);
        assert_eq!(std::fs::read(&beside).unwrap(), PRECIOUS);
        // With --force the name is the download's.
        write(&fetch, &out, &["--force"]).code(0);
        assert!(!beside.exists() && out.exists());
        std::fs::remove_file(&out).unwrap();
    }
}

#[test]
fn issue11_the_output_is_never_the_input() {
    let lab = Lab::new();
    let image = uki(&lab, "v1.12.4-arm64-uki");
    let disk = lab.fixture("disk-512.img.zst");
    symlink(&disk, lab.path("link")).unwrap();
    let before = support::sha256(&disk);
    for out in [&disk, &lab.path("link")] {
        for option in ["--out", "--backup-to"] {
            for more in [&["--yes"][..], &["--dry-run"]] {
                let mut args = args!["swap", disk, image, "--allow-untrusted", "--force", option, out].to_vec();
                args.extend(more.iter().map(OsString::from));
                run(&args).fails(2, &["itself"]);
                assert_eq!(support::sha256(&disk), before);
            }
        }
    }
    bootsurgeon!("extract", image, "--out", image, "--force").fails(2, &["itself"]);
    assert_eq!(std::fs::read(&image).unwrap(), uki_bytes(&lab, "v1.12.4-arm64-uki"));
}

#[test]
fn issue11_backup_to_is_checked_before_anything_is_done_and_by_a_dry_run() {
    let lab = Lab::new();
    let image = uki(&lab, "v1.12.4-arm64-uki");
    let disk = lab.fixture("disk-512.img.zst");
    let out = lab.path("old.efi");
    std::fs::write(&out, PRECIOUS).unwrap();
    for mode in ["--yes", "--dry-run"] {
        let ran = bootsurgeon!("swap", disk, image, "--allow-untrusted", mode, "--backup-to", out, "--json");
        let ran = ran.fails(4, &["exists"]);
        assert_eq!(ran.json()["error"]["esp_changed"], false);
    }
    bootsurgeon!("swap", disk, image, "--allow-untrusted", "--yes", "--backup-to", out, "--force").code(0);
    assert_ne!(std::fs::read(&out).unwrap(), PRECIOUS);
    let left = std::fs::read_dir(lab.path("")).unwrap().flatten();
    assert!(left.into_iter().all(|f| !f.file_name().to_string_lossy().contains(".part")));
}

#[test]
fn issue11_manual_pages_replace_nothing_unasked_and_follow_no_link() {
    let lab = Lab::new();
    let (dir, target) = (lab.path("man"), lab.path("precious"));
    std::fs::create_dir(&dir).unwrap();
    bootsurgeon!("man", dir).code(0);
    let count = std::fs::read_dir(&dir).unwrap().count();
    assert!(count > 15, "{count} pages");
    bootsurgeon!("man", dir).fails(4, &["exists"]);
    bootsurgeon!("man", dir, "--force").code(0);
    let page = dir.join("bootsurgeon-swap.1");
    std::fs::remove_file(&page).unwrap();
    std::fs::write(&target, PRECIOUS).unwrap();
    symlink(&target, &page).unwrap();
    bootsurgeon!("man", dir, "--force").fails(4, &["not a regular file"]);
    assert_eq!(std::fs::read(&target).unwrap(), PRECIOUS);
}

#[test]
fn issue11_the_cache_follows_no_link_when_it_writes() {
    let lab = Lab::new();
    let factory = LocalFactory::start().unwrap();
    factory.serve(
        NOHALT,
        "v1.12.4",
        "metal-arm64-secureboot-uki.efi",
        uki_bytes(&lab, "v1.12.4-arm64-uki"),
        Behaviour::default(),
    );
    let folder = lab.path("cache").join(NOHALT).join("v1.12.4");
    std::fs::create_dir_all(&folder).unwrap();
    let target = lab.path("precious");
    for name in ["metal-arm64-secureboot-uki.efi", "metal-arm64-secureboot-uki.efi.sha256"] {
        for kind in ["link", "fifo"] {
            std::fs::write(&target, PRECIOUS).unwrap();
            if !put_odd(kind, &folder.join(name), &target) {
                continue;
            }
            let disk = lab.fixture("disk-512.img.zst");
            let ran = bootsurgeon!(
                "swap",
                disk,
                "--schematic",
                NOHALT,
                "--talos",
                "v1.12.4",
                "--arch",
                "arm64",
                "--factory",
                factory.url(),
                "--cache",
                lab.path("cache"),
                "--yes",
                "--via",
                "uki",
                "--allow-untrusted"
            );
            let _ = ran.fails(4, &["not a regular file"]);
            assert_eq!(std::fs::read(&target).unwrap(), PRECIOUS, "{name} {kind}");
            for file in std::fs::read_dir(&folder).unwrap().flatten() {
                std::fs::remove_file(file.path()).unwrap();
            }
        }
    }
}
