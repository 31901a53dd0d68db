//! Issue 12: the project as a whole.

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
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // What is laid out in columns, for people.
            if path.is_dir() && !path.ends_with("src/cli/render") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let source = std::fs::read_to_string(&path).unwrap();
                let lines = source.lines().enumerate().filter(|(_, line)| has_a_gap(line));
                found.extend(lines.map(|(i, line)| format!("{}:{}: {line}", path.display(), i + 1)));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
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
