//! Images that come through a pipe.

use crate::cli::{ESP, Ran, TARGET, files, uki};
use crate::support::{Lab, fixtures, fsck_clean, sha256, tool};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

const INSTALLER: &str = "v1.12.4-arm64-installer";

/// Runs the program with these bytes on its standard input, in small pieces.
pub(super) fn piped(args: &[OsString], bytes: &[u8]) -> Ran {
    let mut command = crate::cli::command(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let sender = std::thread::spawn(move || {
        // Whoever does not want the rest hangs up.
        let _ = bytes.chunks(60_001).try_for_each(|chunk| pipe.write_all(chunk));
    });
    let output = child.wait_with_output().unwrap();
    sender.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(!err.contains("panicked"), "{err}");
    Ran { command: format!("{args:?}"), code: output.status.code().unwrap_or(-1), out, err }
}

/// What happens, what is sent, options, the exit code, and words of the error.
type Case<'a> = (&'a str, &'a [u8], &'a [&'a str], i32, &'a str);

/// Swaps what comes through a pipe, and says so in these words.
fn swap(disk: &Path, bytes: &[u8], how: &[&str]) -> Ran {
    let mut args = args!["swap", disk, "-"].to_vec();
    args.extend(how.iter().map(Into::into));
    piped(&args, bytes)
}

#[test]
fn issue18_1_an_image_from_a_pipe_is_swapped_in() {
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    let bytes = std::fs::read(&image).unwrap();
    let (length, hash) = (bytes.len().to_string(), sha256(&image));
    for how in [&["--bytes", &length][..], &["--sha256", &hash], &["--sha256", &hash, "--bytes", &length]] {
        let disk = lab.fixture("disk-512.img.zst");
        let before = std::fs::read(&disk).unwrap();
        let dry = swap(&disk, &bytes, &[how, &["--dry-run", "--json"]].concat()).code(0).json();
        assert!(before == std::fs::read(&disk).unwrap(), "a dry run has written");
        let report = swap(&disk, &bytes, &[how, &["--yes", "--json"]].concat()).code(0).json();
        assert_eq!((&report["committed"], &report["sha256"]), (&true.into(), &hash.as_str().into()), "{report:#}");
        assert_eq!(report["plan"]["target"], dry["plan"]["target"]);
        fsck_clean(&disk, ESP);
        if tool("mcopy") {
            assert!(files(&disk, ESP)[TARGET] == bytes, "the target is not the new image");
        }
        let again = swap(&disk, &bytes, &[how, &["--yes", "--json"]].concat()).code(0).json();
        assert_eq!(again["already_in_place"], true, "{again:#}");
    }
}

#[test]
fn issue18_1_an_iso_and_a_pipe_with_a_name() {
    let lab = Lab::new();
    let iso = std::fs::read(lab.fixture("secureboot-arm64.iso.zst")).unwrap();
    let length = iso.len().to_string();
    let disk = lab.fixture("disk-512.img.zst");
    let halt = ["--allow-halt-if-installed", "--allow-extension-loss", "--yes", "--json"];
    let report = swap(&disk, &iso, &[&["--bytes", &length][..], &halt].concat()).code(0).json();
    assert_eq!(report["committed"], true, "{report:#}");
    fsck_clean(&disk, ESP);
    // What `mkfifo` makes, and what a shell makes of `<(…)`.
    let (fifo, image) = (lab.path("fifo"), uki(&lab, INSTALLER));
    crate::support::run_ok("mkfifo", &[&fifo]);
    let bytes = std::fs::read(&image).unwrap();
    let disk = lab.fixture_as("disk-512.img.zst", "other.img");
    let sender = std::thread::spawn({
        let (fifo, bytes) = (fifo.clone(), bytes.clone());
        move || std::fs::write(fifo, bytes)
    });
    let report = bootsurgeon!("swap", disk, fifo, "--bytes", bytes.len().to_string(), "--yes", "--json").code(0).json();
    assert_eq!(report["sha256"], sha256(&image));
    sender.join().unwrap().unwrap();
    // The others read a pipe as they read a file.
    let hash = sha256(&image);
    let report = piped(&args!["inspect", "-", "--sha256", hash, "--json"], &bytes).code(0).json();
    assert_eq!(report["uki"]["version"], "v1.12.4", "{report:#}");
    let certificate = fixtures().join("keys/test-signing.crt");
    let report = piped(&args!["verify", "-", "--sha256", hash, "--cert", certificate, "--json"], &bytes).code(0).json();
    assert_eq!(report["image"]["sha256"], hash);
    let out = lab.path("out.efi");
    piped(&args!["extract", "-", "--sha256", hash, "--out", out], &bytes).code(0);
    assert!(std::fs::read(&out).unwrap() == bytes);
}

/// Whatever goes wrong on the way, nothing refers to what arrived, and nothing is lost.
#[test]
fn issue18_1_what_does_not_arrive_as_it_should_changes_nothing() {
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    let bytes = std::fs::read(&image).unwrap();
    let (length, hash) = (bytes.len(), sha256(&image));
    let longer = [&bytes[..], b"x"].concat();
    let mut other = bytes.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    let (exact, less, more) = (length.to_string(), (length - 1).to_string(), (length + 1).to_string());
    let zeros = "0".repeat(64);
    let cases: [Case<'_>; 11] = [
        ("nothing said", &bytes, &[], 2, "--bytes N"),
        ("a lost connection", &bytes[..length / 2], &["--bytes", &exact], 1, "the pipe ended after"),
        ("a byte short", &bytes[..length - 1], &["--bytes", &exact], 1, "the pipe ended after"),
        ("nothing", &[], &["--bytes", &exact], 1, "the pipe ended after 0"),
        ("a byte more", &longer, &["--bytes", &exact], 3, "more than the"),
        ("a byte more than said", &bytes, &["--bytes", &more], 1, "the pipe ended after"),
        ("another hash", &bytes, &["--bytes", &exact, "--sha256", &zeros], 3, "has the SHA-256"),
        ("another hash, no length", &bytes, &["--sha256", &zeros], 3, "has the SHA-256"),
        ("a lost connection, by hash", &bytes[..length / 3], &["--sha256", &hash], 3, "has the SHA-256"),
        ("other bytes", &other, &["--bytes", &exact, "--sha256", &hash], 3, ""),
        ("a length that cuts it off", &bytes, &["--bytes", &less], 3, ""),
    ];
    let disk = lab.fixture("disk-512.img.zst");
    let mtools = tool("mcopy");
    let before = if mtools { files(&disk, ESP) } else { Default::default() };
    for (what, sent, how, code, words) in cases {
        for last in ["--yes", "--dry-run"] {
            let ran = swap(&disk, sent, &[how, &[last]].concat());
            assert!(ran.code == code && ran.err.contains(words), "{what} {last}: {ran:#?}");
            assert!(ran.err.contains("not changed"), "{what} {last}: {ran:#?}");
        }
        fsck_clean(&disk, ESP);
        if mtools {
            assert!(files(&disk, ESP) == before, "{what}: a file has changed");
        }
    }
}

#[test]
fn issue18_1_packed_streams_and_files_that_are_none() {
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    let packed = zstd::encode_all(&std::fs::read(&image).unwrap()[..], 1).unwrap();
    let disk = lab.fixture("disk-512.img.zst");
    let length = packed.len().to_string();
    swap(&disk, &packed, &["--bytes", &length, "--yes"])
        .fails(3, &["packed with zstd", "zstd -dc FILE |", "not changed"]);
    for option in [&["--bytes", "5"][..], &["--sha256", &"0".repeat(64)]] {
        let mut args = args!["swap", disk, image, "--yes"].to_vec();
        args.extend(option.iter().map(Into::into));
        crate::cli::run(&args).fails(2, &["through a pipe"]);
    }
    bootsurgeon!("swap", disk, "-", "--sha256", "abc", "--yes").code(2);
}
