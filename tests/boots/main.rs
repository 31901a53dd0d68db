//! Real boots: real firmware (OVMF, AAVMF) in QEMU starts real systemd-boot from images that this project predicted,
//! or wrote. What is compared is what systemd-boot itself wrote into `LoaderEntries` and `LoaderEntrySelected`, and
//! what the program that it started printed.
//!
//! Not part of a plain `cargo test`: `BOOTSURGEON_BOOTS=ci` (some minutes) or `=nightly` asks for it. `prepare.sh`
//! lists what it needs.
//!
//! - `BOOTSURGEON_BOOTS`: `ci`, `nightly`, or how many states for each version of systemd-boot.
//! - `BOOTSURGEON_BOOTS_SEED`: other states; 1 if not given.
//! - `BOOTSURGEON_BOOTS_VERSIONS`: only these versions, or those that begin like this: `257,262.1`.
#![allow(clippy::unwrap_used)]

mod course;
mod cut_shapes;
mod cuts;
mod expected;
mod job;
mod lab;
mod load_option;
mod loaders;
mod machine;
mod matrix;
mod nvram;
mod others;
mod sets;
mod states;
mod uboot;
mod volume;
mod ways;

use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::crash::{self, frame, recorder};
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
    say("boots:       systemd-boot             states  own machine  ran  mismatches  seconds");
    let row = |o: &matrix::Outcome| {
        say(&format!(
            "boots: {:<5} {:<24} {:>6}  {:>11}  {:>3}  {:>10}  {:>7.0}",
            lab::efi_name(arch),
            o.version,
            o.states,
            o.whole,
            o.payloads,
            o.mismatches.len(),
            o.took.as_secs_f64(),
        ));
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let run = |systemd| {
            scope.spawn(move || {
                let outcome = matrix::run(machine, &systemd, states, whole);
                row(&outcome);
                outcome
            })
        };
        let threads: Vec<_> = lab::Systemd::all(&lab.dir, arch).into_iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let bad: Vec<_> = outcomes.into_iter().flat_map(|o| o.mismatches).collect();
    assert!(bad.is_empty(), "{} mismatches:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn ways_are_as_predicted_from_the_firmware_on_x64() {
    ways(Arch::Amd64);
}

#[test]
fn ways_are_as_predicted_from_the_firmware_on_arm64() {
    ways(Arch::Arm64);
}

fn ways(arch: Arch) {
    let Some(lab) = lab::Lab::open() else { return };
    let others = others::Others::open(&lab.dir, arch);
    let mut bad = Vec::new();
    for systemd in &lab.for_ways(arch) {
        let started = std::time::Instant::now();
        let outcome = ways::run(Machine { arch, secure: false }, systemd, &others, lab.ways(arch));
        say(&format!(
            "boots: {:<5} {:<24} ways: {} states ({} more drawn that are not certain), {} starts, {} mismatches, {:.0} \
                s",
            lab::efi_name(arch),
            systemd.version.text,
            outcome.states,
            outcome.uncertain,
            outcome.starts,
            outcome.mismatches.len(),
            started.elapsed().as_secs_f64(),
        ));
        bad.extend(outcome.mismatches);
    }
    assert!(bad.is_empty(), "{} mismatches:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn boot_counters_come_to_what_is_predicted() {
    let Some(lab) = lab::Lab::open() else { return };
    let mut bad = Vec::new();
    for systemd in &lab.for_the_job(Arch::Amd64) {
        let started = std::time::Instant::now();
        let machine = Machine { arch: Arch::Amd64, secure: false };
        let (boots, mismatches) = ways::counted(machine, systemd, lab.counted());
        say(&format!(
            "boots: {:<5} {:<24} boot counters: {} states, {boots} boots, {} mismatches, {:.0} s",
            lab::efi_name(systemd.arch),
            systemd.version.text,
            lab.counted(),
            mismatches.len(),
            started.elapsed().as_secs_f64(),
        ));
        bad.extend(mismatches);
    }
    assert!(bad.is_empty(), "{} mismatches:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn uboot_starts_what_its_variables_on_the_esp_predict() {
    let Some(lab) = lab::Lab::open() else { return };
    let systemd = &lab.for_the_job(Arch::Arm64)[0];
    let mut bad = Vec::new();
    for (version, firmware) in lab.uboots() {
        let started = std::time::Instant::now();
        let states = uboot::states(systemd);
        let outcomes = machine::in_parallel(&states, |state| uboot::run(&firmware, state));
        say(&format!(
            "boots: aa64  {:<24} U-Boot {version}: {} states, {} starts, {} of them certain, {} mismatches, {:.0} s",
            systemd.version.text,
            states.len(),
            outcomes.iter().map(|o| o.starts).sum::<usize>(),
            outcomes.iter().map(|o| o.certain).sum::<usize>(),
            outcomes.iter().map(|o| o.mismatches.len()).sum::<usize>(),
            started.elapsed().as_secs_f64(),
        ));
        bad.extend(outcomes.into_iter().flat_map(|o| o.mismatches).map(|m| format!("U-Boot {version}: {m}")));
    }
    assert!(bad.is_empty(), "{} mismatches:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn the_job_boots_old_new_old() {
    let Some(lab) = lab::Lab::open() else { return };
    for systemd in lab.for_the_job(Arch::Amd64).iter().chain(&lab.for_the_job(Arch::Arm64)) {
        for secure in [true, false] {
            let started = std::time::Instant::now();
            let boots = job::run(Machine { arch: systemd.arch, secure }, systemd);
            say(&format!(
                "boots: {:<5} {:<24} old, swap, new, restore, old: {boots} boots{}, {:.0} s",
                lab::efi_name(systemd.arch),
                systemd.version.text,
                if secure { " under Secure Boot, a foreign signature refused" } else { "" },
                started.elapsed().as_secs_f64(),
            ));
        }
    }
}

#[test]
fn the_full_course_boots_what_is_predicted_on_x64() {
    full_course(Arch::Amd64);
}

#[test]
fn the_full_course_boots_what_is_predicted_on_arm64() {
    full_course(Arch::Arm64);
}

fn full_course(arch: Arch) {
    let Some(lab) = lab::Lab::open() else { return };
    let Some([old, middle, _]) = lab.releases(arch) else { return };
    let machine = Machine { arch, secure: false };
    let started = std::time::Instant::now();
    let boots = machine::in_parallel(&course::COURSES, |steps| course::run(machine, [&old, &middle], steps));
    say(&format!(
        "boots: {:<5} {:<24} swap with files of the board, loader to {}, in both orders, and back: {} boots, {:.0} s",
        lab::efi_name(arch),
        old.version.text,
        middle.version.text,
        boots.iter().sum::<usize>(),
        started.elapsed().as_secs_f64(),
    ));
}

#[test]
fn secure_boot_starts_the_loaders_that_are_accepted_on_x64() {
    signed_loaders(Arch::Amd64);
}

#[test]
fn secure_boot_starts_the_loaders_that_are_accepted_on_arm64() {
    signed_loaders(Arch::Arm64);
}

fn signed_loaders(arch: Arch) {
    let Some(lab) = lab::Lab::open() else { return };
    let Some(releases) = lab.releases(arch) else { return };
    let started = std::time::Instant::now();
    let Some(steps) = lab.signed_loaders(arch) else { return };
    let boots = course::signed(Machine { arch, secure: true }, &releases[..=steps]);
    say(&format!(
        "boots: {:<5} {:<24} loader under Secure Boot, an unsigned and a foreign one refused: {boots} boots, {:.0} s",
        lab::efi_name(arch),
        releases[..=steps].iter().map(|systemd| systemd.version.major.to_string()).collect::<Vec<_>>().join(", "),
        started.elapsed().as_secs_f64(),
    ));
}

#[test]
fn every_power_cut_boots_old_or_new() {
    let Some(lab) = lab::Lab::open() else { return };
    for systemd in &lab.for_the_job(Arch::Amd64) {
        let all = cut(systemd, &cuts::shapes(systemd), lab.crash_images());
        say(&format!("boots: {all} power cuts, each boots what is predicted, the old system or the new one"));
    }
}

/// Boots what power cuts leave; how many.
fn cut(systemd: &lab::Systemd, shapes: &[cut_shapes::Shape], wanted: usize) -> usize {
    let machine = Machine { arch: systemd.arch, secure: false };
    let one = |shape: &cut_shapes::Shape| {
        let started = std::time::Instant::now();
        let cuts::Tally { old, new, mixtures, of } = cuts::run(machine, systemd, shape, wanted);
        assert!(old > 0 && new > 0, "{}: {old} old, {new} new: the commit was missed", shape.name);
        assert!(mixtures > 0 || shape.watched.is_empty(), "{}: no image is a mixture", shape.name);
        let what = if shape.loaders.is_some() { "systemd-boot" } else { "system" };
        let mixed = if mixtures > 0 { format!(" ({mixtures} with a mixture of files)") } else { String::new() };
        say(&format!(
            "boots: {:<5} {:<24} cut in {}: {old} boot the old {what}, {new} the new one{mixed}, of {of} images, \
                {:.0} s",
            lab::efi_name(systemd.arch),
            systemd.version.text,
            shape.name,
            started.elapsed().as_secs_f64(),
        ));
        old + new
    };
    machine::in_parallel(shapes, one).into_iter().sum()
}

#[test]
fn every_power_cut_in_loader_boots_what_is_predicted_on_x64() {
    cut_loaders(Arch::Amd64);
}

#[test]
fn every_power_cut_in_loader_boots_what_is_predicted_on_arm64() {
    cut_loaders(Arch::Arm64);
}

fn cut_loaders(arch: Arch) {
    let Some(lab) = lab::Lab::open() else { return };
    let Some(releases) = lab.releases(arch) else { return };
    let all = cut(&releases[0], &loaders::shapes(&releases), lab.further_crash_images());
    say(&format!("boots: {all} power cuts in `loader`, at each the predicted systemd-boot starts the predicted image"));
}

#[test]
fn every_power_cut_in_a_set_boots_old_or_new_on_x64() {
    cut_sets(Arch::Amd64);
}

#[test]
fn every_power_cut_in_a_set_boots_old_or_new_on_arm64() {
    cut_sets(Arch::Arm64);
}

fn cut_sets(arch: Arch) {
    let Some(lab) = lab::Lab::open() else { return };
    let Some([old, middle, _]) = lab.releases(arch) else { return };
    let all = cut(&old, &sets::shapes(&old, &middle), lab.further_crash_images());
    say(&format!(
        "boots: {all} power cuts in a set of files, each boots what is predicted, the old image or the new one"
    ));
}
