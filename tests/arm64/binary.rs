//! The file itself, and the program under qemu-user: arm64 instructions, this machine's kernel.

use crate::program;
use crate::support::{Lab, tool};
use std::path::Path;
use std::process::{Command, Output};

const EMULATOR: &str = "qemu-aarch64-static";

/// Runs the program, with options for the emulator.
fn emulated(program: &Path, options: &[&str], arguments: &[&str]) -> Output {
    assert!(tool(EMULATOR), "tests that were asked for need their tools: {EMULATOR}");
    let output =
        Command::new(EMULATOR).args(["-cpu", "max"]).args(options).arg(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}\n{said}", output.status);
    output
}

/// ELF (gABI, chapters 4 and 5): nothing that a board without a C library would have to bring along, and segments that
/// a kernel can map whatever its page size is: 4 KiB at Talos, 16 or 64 KiB elsewhere.
#[test]
fn is_static_and_fits_every_page_size() {
    const AARCH64: u64 = 183;
    const LOAD: u64 = 1;
    const INTERPRETER: u64 = 3;
    let Some(path) = program() else { return };
    let file = std::fs::read(&path).unwrap();
    let number = |at: usize, bytes: usize| file[at..at + bytes].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    assert_eq!(&file[..6], b"\x7fELF\x02\x01", "64 bits, little endian");
    assert_eq!(number(18, 2), AARCH64);
    let (table, entry, count) = (number(32, 8), number(54, 2), number(56, 2));
    let headers: Vec<_> = (0..count).map(|i| usize::try_from(table + i * entry).unwrap()).collect();
    let kinds: Vec<_> = headers.iter().map(|at| number(*at, 4)).collect();
    assert!(!kinds.contains(&INTERPRETER), "it wants a dynamic linker");
    for at in headers.iter().filter(|at| number(**at, 4) == LOAD) {
        assert_eq!(number(at + 48, 8) % (64 << 10), 0, "alignment of the segment at {at}");
    }
    assert!(kinds.contains(&LOAD));
}

#[test]
fn hashes_with_the_instructions_of_the_processor() {
    let Some(program) = program() else { return };
    let lab = Lab::new();
    let image = lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    let log = lab.path("instructions");
    let (image, log_name) = (image.to_str().unwrap(), log.to_str().unwrap());
    emulated(&program, &["-d", "in_asm", "-D", log_name], &["verify", image, "--allow-untrusted"]);
    assert!(reached_sha256(&log), "no SHA256H was reached, on a processor that has it");
}

/// Whether SHA256H is among the instructions that the emulator has translated, that is, that were reached. By its log
/// (`-d in_asm`): `0x00913a80:  5e1c401e  sha256h  q30, q0, v28.4s`.
pub(crate) fn reached_sha256(log: &Path) -> bool {
    let instructions = std::fs::read_to_string(log).unwrap();
    let words = instructions.lines().filter_map(|line| line.split_once(":  ")?.1.get(..8));
    let words: Vec<_> = words.filter_map(|word| u32::from_str_radix(word, 16).ok()).collect();
    assert!(words.len() > 10_000, "{}: {} instructions", log.display(), words.len());
    // SHA256H Qd, Qn, Vm.4S is 5E00_4000 and three registers (Arm Architecture Reference Manual, C7.2).
    words.iter().any(|word| word & 0xFFE0_FC00 == 0x5E00_4000)
}
