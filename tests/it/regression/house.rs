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
