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

/// A message that was broken over two lines of source without a backslash showed the indentation to its reader, in JSON
/// too.
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

/// A medium that somebody else holds, or that may not be written, was refused as `unsafe`, although docs/errors.md has
/// codes for both.
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

/// The reader of ISO 9660 underneath is a release candidate: what of it the product uses is behind one module, whose
/// tests (`src/iso/tests.rs`) read images made by hand. The test kit writes ISOs with it.
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

/// Two places of `doctor` and one of recovery decided by the words of a message. zstd's library gives nothing but
/// words.
#[test]
fn issue12_6_nothing_is_decided_by_the_words_of_a_message() {
    let texts = ["message()", "to_string()", ".what", ".meaning", ".advice"];
    let asked = ["starts_with(", "ends_with(", "contains(", "find(", "strip_prefix("];
    let mut found = Vec::new();
    for (path, source) in sources() {
        let is_test = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
        // The demonstration looks at what a person reads, to show it.
        if is_test || path.ends_with("src/demo/scenes.rs") || path.ends_with("src/pod/rollout.rs") {
            continue;
        }
        let code = source.split("mod tests {").next().unwrap();
        let asks = |line: &&str| {
            texts.iter().any(|text| {
                let behind = line.split_once(text).map_or("", |(_, behind)| behind);
                let behind = behind.trim_start_matches(".as_str()").trim_start_matches(".as_deref()");
                asked.iter().any(|asked| behind.strip_prefix('.').is_some_and(|b| b.starts_with(asked)))
            })
        };
        let lines = code.lines().filter(asks).filter(|line| !line.contains("Packing::Zstd =>"));
        found.extend(lines.map(|line| format!("{}: {line}", path.display())));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Two rules divided a table of sections into profiles, and did not agree. `boot::image` reads as systemd-boot does,
/// which takes files that `pe` refuses; everything else asks `pe::profiles`
/// (`uki::sections` counts them against its limit).
#[test]
fn issue12_7_one_rule_divides_sections_into_profiles() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed = ["pe/profiles.rs", "boot/image.rs", "uki/sections.rs"].map(|name| src.join(name));
    let divides = |source: &str| {
        let code = source.split("mod tests {").next().unwrap();
        ["== \".profile\"", "is_named(b\".profile\")", "\".profile\" =>"].iter().any(|test| code.contains(test))
    };
    let found: Vec<PathBuf> =
        sources().into_iter().filter(|(_, source)| divides(source)).map(|(path, _)| path).collect();
    let rest: Vec<&PathBuf> = found.iter().filter(|path| !allowed.contains(path)).collect();
    assert!(rest.is_empty() && found.len() == 3, "{found:?}");
}

/// `cargo test --no-default-features` did not compile. The lane tests the library without features and with each alone.
#[test]
fn issue12_8_the_library_is_tested_without_features() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let (lane, run) = (read(".ci/features"), read(".ci/run"));
    assert!(lane.contains("for features in \"\" net"), "{lane}");
    assert!(lane.contains("cargo test --locked --no-default-features --features \"$features\" --lib"), "{lane}");
    assert!(run.lines().any(|line| line.starts_with("for name in") && line.contains(" features ")), "{run}");
}

/// The prediction was called pure, and read the allocation table through a function that it was handed; its errors
/// travelled in a `Mutex`.
#[test]
fn issue12_9_the_prediction_opens_nothing_and_keeps_nothing_behind_a_lock() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for (path, source) in sources() {
        let test = path.iter().any(|part| part == "tests" || part == "tests.rs");
        if test || ![src.join("boot"), src.join("bootpath")].iter().any(|room| path.starts_with(room)) {
            continue;
        }
        let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
        let names = ["crate::fat", "std::fs", "Mutex", "RefCell", "OnceCell"];
        found.extend(code.lines().filter(|line| names.iter().any(|name| line.contains(name))).map(str::to_owned));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The table of reports names tests that exist, and every test that is named after a report stands in it.
#[test]
fn issue17_the_table_of_reports_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("docs/reports.md")).unwrap();
    let tests = root.join("tests/it/regression");
    let files =
        std::fs::read_dir(&tests).unwrap().chain(std::fs::read_dir(root.join("src/factory/schematic")).unwrap());
    let sources: Vec<String> = files.filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok()).collect();
    let names: Vec<&str> = sources
        .iter()
        .flat_map(|source| source.split("#[test]\nfn ").skip(1))
        .filter_map(|rest| rest.split('(').next())
        .collect();
    for named in table.split('`').filter(|word| word.starts_with('r') || word.starts_with("issue17_")) {
        let begin = named.trim_end_matches('…');
        let is_test = begin.contains('_') && begin.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        assert!(!is_test || names.iter().any(|name| name.starts_with(begin)), "{named} is no test");
    }
    let is_of_a_report = |name: &&&str| {
        name.strip_prefix('r')
            .and_then(|rest| rest.split('_').find(|part| part.starts_with(|c: char| c.is_ascii_digit())))
            .is_some()
    };
    for name in names.iter().filter(is_of_a_report).filter(|name| !name.starts_with("readme")) {
        let listed = table.contains(&format!("`{name}`")) || name.starts_with("rimage_factory_596_");
        assert!(listed, "{name} is not in docs/reports.md");
    }
}

/// `unsafe` is denied but in one file; there it stands before two calls.
#[test]
fn issue20_5_unsafe_stands_in_one_file() {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let count = |source: &str, what: &str| source.lines().filter(is_code).filter(|line| line.contains(what)).count();
    let mut found: Vec<(String, usize)> = Vec::new();
    for (path, source) in sources() {
        let uses = count(&source, "unsafe {") + count(&source, "unsafe fn") + count(&source, "unsafe impl");
        if uses + count(&source, "allow(unsafe_code)") > 0 {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            found.push((path.strip_prefix(root).unwrap().display().to_string(), uses));
        }
    }
    assert_eq!(found, [("src/sha256/pair.rs".to_owned(), 2)]);
}
