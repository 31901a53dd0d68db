//! Real boots: real firmware (OVMF, AAVMF) in QEMU starts real systemd-boot from images that this project predicted,
//! or wrote. What is compared is what systemd-boot itself wrote into `LoaderEntries` and `LoaderEntrySelected`, and what
//! the program that it started printed.
//!
//! Not part of a plain `cargo test`: `BOOTSURGEON_BOOTS=ci` (some minutes) or `=nightly` asks for it. `prepare.sh` lists
//! what it needs.
//!
//! - `BOOTSURGEON_BOOTS`: `ci`, `nightly`, or how many states for each version of systemd-boot.
//! - `BOOTSURGEON_BOOTS_SEED`: other states; 1 if not given.
//! - `BOOTSURGEON_BOOTS_VERSIONS`: only versions that begin like this, `257,262`.
#![allow(clippy::unwrap_used)]

mod lab;
mod machine;
mod matrix;
mod states;
mod volume;

use bootsurgeon::pe::Arch;
use machine::Machine;
use std::io::Write;

/// Past the capture of the test harness: a table that nobody sees is none.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

#[test]
fn predictions_hold_on_x64() {
    matrix(Arch::Amd64);
}

#[test]
fn predictions_hold_on_arm64() {
    matrix(Arch::Arm64);
}

fn matrix(arch: Arch) {
    let Some(lab) = lab::Lab::open() else { return };
    let (states, whole) = lab.amount(arch);
    let machine = Machine { arch, secure: false };
    let mut bad = Vec::new();
    for systemd in lab::Systemd::all(&lab.dir, arch) {
        let outcome = matrix::run(machine, &systemd, states, whole);
        say(&format!(
            "boots: {:<4} systemd-boot {:<22} {:>4} states ({} payloads ran; {} in a machine of their own) {:>3} mismatches {:>6.0} s",
            lab::efi_name(arch),
            outcome.version,
            outcome.states,
            outcome.payloads,
            outcome.whole,
            outcome.mismatches.len(),
            outcome.took.as_secs_f64(),
        ));
        bad.extend(outcome.mismatches);
    }
    assert!(bad.is_empty(), "{} mismatches:\n{}", bad.len(), bad.join("\n"));
}
