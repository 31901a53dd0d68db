//! Issue 12: the project as a whole.

use crate::cli::run;
use crate::support::Lab;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A test whose tool is missing was reported as `ok` without a word: the harness keeps what a passing test prints.
#[test]
fn issue12_3_a_test_that_cannot_run_says_so() {
    let test = "fixtures::other_tools_read_the_ukis_back";
    let run = |ci: bool| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact"]).env("PATH", "/nowhere").env_remove("CI");
        if ci {
            command.env("CI", "true");
        }
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (passed, said) = run(false);
    assert!(passed, "{said}");
    assert!(said.contains(&format!("NOT RUN: it {test}: tool missing: mcopy")), "{said}");
    let (passed, _) = run(true);
    assert!(!passed, "CI has every tool, or fails");
}

/// A message that was broken over two lines of source without a backslash showed the indentation to its reader, in JSON too.
#[test]
fn issue12_5_no_message_holds_a_run_of_blanks() {
    let mut found = Vec::new();
    for (path, source) in sources() {
        // What is laid out in columns, for people.
        if path.starts_with(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/render")) {
            continue;
        }
        let lines = source.lines().enumerate().filter(|(_, line)| has_a_gap(line));
        found.extend(lines.map(|(i, line)| format!("{}:{}: {line}", path.display(), i + 1)));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Every source file of the product.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let source = std::fs::read_to_string(&path).unwrap();
                found.push((path, source));
            }
        }
    }
    found
}

/// Whether words of a line stand six blanks or more apart; an indentation behind `\n` is meant.
fn has_a_gap(line: &str) -> bool {
    let line = line.trim_start().as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || b",.;:)({}`".contains(b);
    let Some(gap) = line.windows(6).position(|w| w == b"      ") else { return false };
    let after = line[gap..].iter().find(|b| **b != b' ');
    gap > 1 && word(&line[gap - 1]) && line[gap - 2] != b'\\' && after.is_some_and(word)
}

#[test]
fn gaps_are_found() {
    assert!(has_a_gap("    \"nothing has that name, and                  {by_order} starts\""));
    assert!(!has_a_gap("            \"layers:\\n            - siderolabs/i915\\n\""));
    assert!(!has_a_gap("        let name = b\"EFI        \";"));
}

/// A medium that somebody else holds, or that may not be written, was refused as `unsafe`, although docs/errors.md has codes
/// for both.
#[test]
fn issue12_1_a_held_medium_is_busy_and_a_protected_one_read_only() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let code = |args: &[std::ffi::OsString]| run(args).code(4).json()["error"]["code"].clone();
    let lock = std::fs::File::open(&disk).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(code(&args!["prune", disk, "--yes", "--json"]), "busy");
    assert_eq!(code(&args!["prune", disk, "--yes", "--json", "--out", lab.path("new.img")]), "busy");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::Unlock).unwrap();
    let mut permissions = disk.metadata().unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&disk, permissions).unwrap();
    assert_eq!(code(&args!["prune", disk, "--yes", "--json"]), "read-only");
}

/// Failures were told apart by their exit class, in which a mounted disk and a full one are the same.
#[test]
fn issue12_1_control_flow_compares_codes_and_not_exit_classes() {
    let mut found = Vec::new();
    for (path, source) in sources() {
        // The class is made in the one, and turned into an exit code in the other.
        if path.ends_with("src/error.rs") || path.starts_with(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli")) {
            continue;
        }
        let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
        let asks = |line: &&str| {
            let class = line.split("//").next().unwrap().split(".kind()").skip(1).any(|after| {
                let after = after.trim_start_matches([' ', '=', '!']);
                after.starts_with("Kind::") || after.starts_with("crate::Kind::")
            });
            class || line.trim_start().starts_with("Kind::") && line.contains("=>")
        };
        let is_test = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
        found.extend(code.lines().filter(asks).filter(|_| !is_test).map(|line| format!("{}: {line}", path.display())));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The reader of ISO 9660 underneath is a release candidate: what of it the product uses is behind one module, whose tests
/// (`src/iso/tests.rs`) read images made by hand. The test kit writes ISOs with it.
#[test]
fn issue12_10_one_module_sees_the_iso_reader_underneath() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed = [src.join("iso"), src.join("testkit/media.rs")];
    let strangers = sources().into_iter().filter(|(path, _)| !allowed.iter().any(|a| path.starts_with(a)));
    let names = |source: &str| source.lines().any(|line| line.split("//").next().unwrap().contains("hadris"));
    let found: Vec<PathBuf> = strangers.filter(|(_, source)| names(source)).map(|(path, _)| path).collect();
    assert!(found.is_empty(), "{found:?}");
    let text = std::fs::read_to_string(src.join("../Cargo.toml")).unwrap();
    let pinned = text.lines().filter(|line| line.starts_with("hadris")).all(|line| line.contains("\"="));
    assert!(pinned, "a release candidate may change between two versions");
}
