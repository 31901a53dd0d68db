//! The arm64 binary, as it is released: static, run under emulation by this machine's kernel, and by Debian's arm64
//! kernel in a virtual machine with real firmware. docs/arm64.md says what is real and what is not.
//!
//! Not part of a plain `cargo test`: `BOOTSURGEON_ARM64=path/to/bootsurgeon` names the binary and asks for it; then
//! whatever is missing is a failure. `tests/arm64/prepare.sh` and `tests/boots/prepare.sh` list what it needs, and
//! qemu-user-static.
#![allow(clippy::unwrap_used)]

mod binary;
// Shared with the real boots of both architectures.
#[path = "../boots/lab.rs"]
#[allow(dead_code)]
mod lab;
#[path = "../boots/machine.rs"]
#[allow(dead_code)]
mod machine;
mod node;
#[path = "../boots/nvram.rs"]
#[allow(dead_code)]
mod nvram;
#[path = "../support/mod.rs"]
mod support;
mod system;
#[path = "../boots/volume.rs"]
#[allow(dead_code)]
mod volume;

use node::{NAME, Node};
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;
use system::{Attached, Step, System, instructions};

/// What any command may take.
const MOST_KIB: u64 = 64 << 10;

/// Past the capture of the test harness.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The binary; `None`, and a line that says so, where nobody named one.
fn program() -> Option<PathBuf> {
    let Some(path) = std::env::var_os("BOOTSURGEON_ARM64") else {
        bootsurgeon::testkit::skipped::not_asked(
            "the arm64 binary. For it: BOOTSURGEON_ARM64=path/to/bootsurgeon cargo test --test arm64",
        );
        return None;
    };
    Some(std::fs::canonicalize(&path).unwrap_or_else(|e| panic!("BOOTSURGEON_ARM64={path:?}: {e}")))
}

/// Debian's kernel, and nothing beside it but the program: it is the init, has no /proc and no /sys, and finds the
/// device nodes that were put there for it. Its end is a kernel panic, so nothing is brought to the medium after it.
///
/// The disk is NVMe: of all disks that boards have, its driver alone is built into Debian's kernels for arm64.
#[test]
fn swaps_as_the_only_program_of_a_machine() {
    let Some(program) = program() else { return };
    let started = Instant::now();
    let node = Node::new(false);
    let system = System::new(&program);
    let mut boots = vec![node.expect("old")];
    let disk = || Attached::Nvme(&node.disk);

    let status = system.alone(&node, &[disk()], "status --json /dev/nvme0n1p1");
    assert_eq!(selected(&status.json()), NAME, "{status:?}");

    // The kernel knows where the partition is, and without sysfs there is nobody to ask.
    let refused = system.alone(&node, &[disk()], "swap --yes --json --allow-untrusted /dev/nvme0n1 /dev/nvme0n1p2");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.output.contains("sysfs does not describe /dev/nvme0n1"), "{refused:?}");
    assert!(refused.output.contains("give the partition's own node"), "{refused:?}");
    node.holds("old");

    let swap = system.alone(&node, &[disk()], "swap --yes --json --allow-untrusted /dev/nvme0n1p1 /dev/nvme0n1p2");
    assert_eq!(swap.json()["committed"], true, "{swap:?}");
    node.holds("new");
    boots.push(node.expect("new"));

    let restore = system.alone(&node, &[disk()], "restore --yes --json --allow-untrusted /dev/nvme0n1p1");
    assert_eq!(restore.json()["committed"], true, "{restore:?}");
    node.holds("old");
    boots.push(node.expect("old"));
    say(&format!(
        "arm64: the program alone on {}: status, a refusal, swap, restore on an NVMe disk; systemd-boot {} started {}: \
            {:.0} s",
        system.kernel,
        node.systemd.version.text,
        boots.join(", "),
        started.elapsed().as_secs_f64(),
    ));
}

/// A system as a privileged pod sees it: /dev, /sys, the firmware's variables read-only, a virtio disk with a partition
/// that others may mount, Secure Boot enforced. What the firmware's own db says is what the new image is held against.
#[test]
fn swaps_a_virtio_disk_under_secure_boot() {
    let Some(program) = program() else { return };
    let started = Instant::now();
    let node = Node::new(true);
    let system = System::new(&program);
    let mut boots = vec![node.expect("old")];
    let disks = [Attached::Virtio(&node.disk), Attached::Virtio(&node.stick)];
    let devices = ["module /virtio_blk.ko", "mount devtmpfs dev /dev rw"];
    let variables =
        ["mount sysfs sys /sys ro", "module /efivarfs.ko", "mount efivarfs efivars /sys/firmware/efi/efivars ro"];
    let mount = [
        "module /nls_ascii.ko",
        "module /nls_cp437.ko",
        "module /fat.ko",
        "module /vfat.ko",
        "mount vfat /dev/vda1 /mnt rw",
    ];

    let lines = [
        &devices[..],
        &["bootsurgeon status --json /dev/vda"],
        &variables,
        &["bootsurgeon status --json /dev/vda", "bootsurgeon doctor --json /dev/vda"],
        &mount,
        &["bootsurgeon swap --yes --json /dev/vda /dev/vdb", "mount proc proc /proc ro"],
        &["bootsurgeon swap --yes --json /dev/vda /dev/vdb", "unmount /mnt"],
        &["bootsurgeon verify --json --installed /dev/vda /dev/vdb", "bootsurgeon swap --yes --json /dev/vda /dev/vdb"],
        &["bootsurgeon status --json /dev/vda"],
    ];
    let steps = Steps::all(system.commands(&node, &disks, &lines.concat()));
    let [blind, status, doctor, mounted, mounted_with_proc, verify, swap, after] = &steps.of_program[..] else {
        panic!("{steps:#?}");
    };
    assert_eq!(blind.code, 1, "{blind:?}");
    assert!(blind.output.contains("sysfs does not describe /dev/vda"), "{blind:?}");
    assert_eq!(selected(&status.json()), NAME, "{status:?}");
    assert_eq!(status.json()["disk"]["partition"]["number"], 1, "{status:?}");
    let doctor = doctor.json();
    assert_eq!(doctor["firmware"]["secure_boot"], true, "{doctor}");
    assert_eq!(doctor["firmware"]["setup_mode"], false, "{doctor}");
    assert!(doctor["findings"].as_array().unwrap().iter().any(|f| f["id"] == "signature"), "{doctor}");
    // Who has it mounted stands in /proc.
    for (refused, why) in [(mounted, "it is mounted or in use"), (mounted_with_proc, "mounted at /mnt")] {
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.output.contains(why), "{refused:?}");
    }
    let verdict = verify.json();
    assert_eq!(verdict["verdict"], "accept", "{verdict}");
    assert_eq!(verdict["signers"][0]["trusted_by"], "the firmware's db", "{verdict}");
    assert_eq!(swap.json()["committed"], true, "{swap:?}");
    assert_eq!(swap.json()["sha256"], verdict["image"]["sha256"]);
    assert_eq!(selected(&after.json()), NAME, "{after:?}");
    let peak = steps.of_program.iter().map(|s| s.resident_kib).max().unwrap();
    assert!(peak <= MOST_KIB, "{peak} KiB");
    assert!(binary::reached_sha256(&instructions(&node)), "no SHA256H was reached, on a processor that has it");
    node.holds("new");
    boots.push(node.expect("new"));

    // The way back, on a processor without cryptographic instructions.
    let lines = [&devices[..], &variables, &["plain restore --yes --json /dev/vda"]];
    let steps = Steps::all(system.commands(&node, &disks, &lines.concat()));
    let [restore] = &steps.of_program[..] else { panic!("{steps:#?}") };
    assert_eq!(restore.json()["committed"], true, "{restore:?}");
    assert!(!binary::reached_sha256(&instructions(&node)), "SHA256H was reached, on a processor that says it has none");
    node.holds("old");
    boots.push(node.expect("old"));
    say(&format!(
        "arm64: {}, sysfs, efivarfs, Secure Boot: status, doctor, refusals, verify, swap, restore on a virtio disk, \
            {peak} KiB at \
         most; systemd-boot {} started {}: {:.0} s",
        system.kernel,
        node.systemd.version.text,
        boots.join(", "),
        started.elapsed().as_secs_f64(),
    ));
}

/// What init did for the program, which has to work, and what the program did.
#[derive(Debug)]
struct Steps {
    of_program: Vec<Step>,
}

impl Steps {
    #[track_caller]
    fn all(steps: Vec<Step>) -> Self {
        let (of_program, others): (Vec<_>, Vec<_>) = steps.into_iter().partition(|s| s.command.contains("bootsurgeon"));
        assert!(others.iter().all(|s| s.code == 0), "{others:#?}");
        Self { of_program }
    }
}

/// What boots next, by a status.
fn selected(status: &Value) -> &str {
    status["boot"]["selected"].as_str().unwrap_or_else(|| panic!("nothing starts: {status}"))
}
