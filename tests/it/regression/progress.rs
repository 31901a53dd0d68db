//! What a log is told while something slow goes on.

use crate::support::Lab;
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::talos::noise;
use bootsurgeon::testkit::uki::Builder;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

/// How many pieces the image comes in, and how long each takes: more than the ten seconds between two lines.
const PIECES: usize = 64;
const EACH: Duration = Duration::from_millis(250);

#[test]
fn issue20_8_a_log_is_told_every_ten_seconds_and_with_quiet_never() {
    let lab = Lab::new();
    // Of twelve pieces that are counted. Nobody signed it, which shows once all of it has arrived.
    let bytes = Builder::new(Arch::Arm64)
        .section(".osrel", "ID=talos\nVERSION_ID=v1.12.5\n")
        .section(".cmdline", "console=ttyAMA0")
        .section(".linux", noise(1, 12 << 20))
        .build();
    let length = bytes.len().to_string();
    let slow = |name: &str, more: &[&str]| {
        let disk = lab.fixture_as("disk-512.img.zst", name);
        let mut args = args!["swap", disk, "-", "--bytes", length, "--yes", "--json"].to_vec();
        args.extend(more.iter().map(Into::into));
        let mut command = crate::cli::command(&args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        for piece in bytes.chunks(bytes.len().div_ceil(PIECES)) {
            pipe.write_all(piece).unwrap();
            std::thread::sleep(EACH);
        }
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("one document");
        String::from_utf8(output.stderr).unwrap()
    };
    let (told, quiet, without) = std::thread::scope(|scope| {
        let told = scope.spawn(|| slow("told.img", &[]));
        let quiet = scope.spawn(|| slow("quiet.img", &["--quiet"]));
        let without = scope.spawn(|| slow("without.img", &["--no-progress"]));
        (told.join().unwrap(), quiet.join().unwrap(), without.join().unwrap())
    });
    const PHASE: &str = "writing the image into free space and verifying it: ";
    let lines: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix(PHASE)).collect();
    let [line] = lines.as_slice() else { panic!("one line in 16 s: {told}") };
    let (reached, pace) = line.split_once(", ").unwrap();
    assert!(reached.contains(" of "), "{line}");
    assert!(pace.contains("/s, ") && pace.ends_with(" s left"), "{line}");
    assert!(!quiet.contains(PHASE), "{quiet}");
    assert!(!without.contains(PHASE), "{without}");
}
