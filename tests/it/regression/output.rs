//! Standard output and standard error that are full, closed or read by nobody.

use crate::cli::{command, uki};
use crate::support::{Lab, sha256};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::process::Stdio;

/// Nothing can be written to it: "no space left on device".
fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// A pipe that nobody reads.
fn broken() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Exit code and what stderr got.
fn ran(args: &[OsString], out: Stdio, err: Stdio) -> (Option<i32>, String) {
    let output = command(args).stdout(out).stderr(err).spawn().unwrap().wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn issue11_a_stderr_that_cannot_be_written_changes_nothing() {
    let lab = Lab::new();
    let (disk, image) = (lab.fixture("disk-512.img.zst"), uki(&lab, "v1.12.4-arm64-uki"));
    let cases: [(&[OsString], i32); 5] = [
        (&args!["status", "nothing-there"], 1),
        (&args!["status"], 2),
        (&args!["verify", disk, "-v"], 2),
        (&args!["swap", disk, image, "--allow-untrusted", "-v"], 4),
        (&args!["swap", disk, image, "--allow-untrusted", "-v", "--yes"], 0),
    ];
    for (args, code) in cases {
        for err in [full, broken] {
            let (got, _) = ran(args, Stdio::null(), err());
            assert_eq!(got, Some(code), "{args:?}");
            let (got, _) = ran(args, full(), err());
            // A report that cannot be written is a failure of its own.
            assert!(got == Some(code) || code == 0 && got == Some(1), "{args:?}: {got:?}");
        }
    }
}

#[test]
fn issue11_a_report_that_cannot_be_written_says_whether_the_esp_changed() {
    for json in [&[][..], &["--json"]] {
        let lab = Lab::new();
        let (disk, image) = (lab.fixture("disk-512.img.zst"), uki(&lab, "v1.12.4-arm64-uki"));
        let more = |args: &[OsString]| [args, &json.iter().map(OsString::from).collect::<Vec<_>>()].concat();
        let changed = "the ESP was changed";
        let unchanged = "the ESP was not changed";
        for (args, said) in [
            (more(&args!["swap", disk, image, "--allow-untrusted", "--dry-run"]), unchanged),
            (more(&args!["swap", disk, image, "--allow-untrusted", "--yes"]), changed),
            (more(&args!["swap", disk, image, "--allow-untrusted", "--yes"]), unchanged),
            (more(&args!["restore", disk, "--allow-untrusted", "--yes"]), changed),
            (more(&args!["prune", disk, "--delete", "--keep-backups", "1", "--yes"]), changed),
            (more(&args!["prune", disk, "--yes"]), unchanged),
            (more(&args!["recover", disk, "--yes"]), unchanged),
        ] {
            let before = sha256(&disk);
            let (code, err) = ran(&args, full(), Stdio::piped());
            assert_eq!(code, Some(1), "{args:?}: {err}");
            assert!(err.contains(said) && err.contains("the report"), "{args:?}: {err}");
            assert_eq!(sha256(&disk) != before, said == changed, "{args:?}: {err}");
        }
    }
}

#[test]
fn issue11_a_pipe_that_nobody_reads_is_no_failure_of_the_command() {
    let lab = Lab::new();
    let (disk, image) = (lab.fixture("disk-512.img.zst"), uki(&lab, "v1.12.4-arm64-uki"));
    for json in [&[][..], &["--json"]] {
        let more = |args: &[OsString]| [args, &json.iter().map(OsString::from).collect::<Vec<_>>()].concat();
        for (args, code) in [
            (more(&args!["status", disk]), 0),
            // The verdict counts, whoever reads the report.
            (more(&args!["verify", image, "--efivars", "none"]), 3),
            (more(&args!["swap", disk, image, "--allow-untrusted", "--yes"]), 0),
            (more(&args!["status", "nothing-there"]), 1),
        ] {
            let (got, err) = ran(&args, broken(), Stdio::piped());
            assert_eq!(got, Some(code), "{args:?}: {err}");
            assert_eq!(err.is_empty(), code != 1, "{args:?}: {err}");
        }
    }
}

#[test]
fn issue16_quiet_prints_errors_and_the_json_and_nothing_else() {
    let lab = Lab::new();
    let (disk, image) = (lab.fixture("disk-512.img.zst"), uki(&lab, "v1.12.4-arm64-uki"));
    bootsurgeon!("status", disk, "-q").code(0).quiet();
    bootsurgeon!("pod", "manifest", "--node", "n", "--disk", "/dev/sda", "--command", "status", "-q")
        .code(0)
        .quiet_on_stderr();
    bootsurgeon!("swap", disk, image, "--allow-untrusted", "--yes", "-q").code(0).quiet();
    let ran = bootsurgeon!("status", disk, "-q", "--json").code(0);
    assert!(ran.json()["disk"].is_object() && ran.err.is_empty());
    bootsurgeon!("status", "nothing-there", "-q").fails(1, &["nothing-there"]);
}
