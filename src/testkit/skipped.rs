//! Tests that could not be run where they were started: said at once, past the capture of the test harness, and counted
//! at the end of `cargo test` by the program `tests/what_was_not_run.rs`, which runs last.
//!
//! The programs of one `cargo test` are children of one process, and that names the list they share: a file in a folder
//! beside the test programs. Under `CI` (the environment variable) there is nothing to list, because [`skip`] fails
//! there.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why something did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Something is missing here.
    Missing,
    /// It takes long or much, and nobody asked for it.
    NotAsked,
}

/// Says that a test, or a part of one, cannot be run here.
///
/// # Panics
/// With `CI` set: there everything that a test needs must be there.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}, and CI needs everything");
    note(Class::Missing, why);
}

/// Says that a lane of its own was not asked for, and how to ask for it.
pub fn not_asked(why: &str) {
    note(Class::NotAsked, why);
}

fn note(class: Class, why: &str) {
    let thread = std::thread::current();
    let program = std::env::current_exe().unwrap_or_default();
    let program = program.file_stem().unwrap_or_default().to_string_lossy();
    // Cargo adds a hash to the name.
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    let line = format!("{program} {}: {why}", thread.name().unwrap_or("?")).replace('\n', " ");
    // Not `eprintln!`, which the harness keeps for itself when the test passes.
    let _ = io::stderr().lock().write_all(format!("NOT RUN: {line}\n").as_bytes());
    let word = if class == Class::Missing { "missing" } else { "asked" };
    let listed = list().and_then(|mut list| writeln!(list, "{word}\t{line}"));
    if let Err(e) = listed {
        let _ = writeln!(io::stderr().lock(), "NOT RUN: and the list of such tests cannot be written: {e}");
    }
}

/// The list of this run, to add to.
fn list() -> io::Result<File> {
    let folder = folder()?;
    std::fs::create_dir_all(&folder)?;
    OpenOptions::new().append(true).create(true).open(folder.join(run_name(std::os::unix::process::parent_id())))
}

fn folder() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.parent().unwrap_or(Path::new(".")).join("not-run"))
}

/// The parent of all test programs of a run: its number and when it was started, for numbers come again.
fn run_name(process: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name before it may hold blanks; it ends with the last parenthesis (proc_pid_stat(5), field 22).
    let started = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).unwrap_or("0").to_owned();
    format!("{process}-{started}")
}

/// What the programs of this run left out, in words, and whether that is a failure here. Forgets it, and the lists of
/// runs that are over.
///
/// # Errors
/// When the lists cannot be read.
pub fn summary() -> io::Result<(String, bool)> {
    let folder = folder()?;
    let own = run_name(std::os::unix::process::parent_id());
    let text = match std::fs::read_to_string(folder.join(&own)) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e),
    };
    if let Ok(lists) = std::fs::read_dir(&folder) {
        for list in lists.flatten() {
            let name = list.file_name().to_string_lossy().into_owned();
            let process = name.split('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            if name == own || run_name(process) != name {
                let _ = std::fs::remove_file(list.path());
            }
        }
    }
    Ok(in_words(&text))
}

fn in_words(list: &str) -> (String, bool) {
    let of = |word: &str| -> Vec<&str> {
        list.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix('\t')).collect()
    };
    let (missing, not_asked) = (of("missing"), of("asked"));
    let mut said = match missing.len() {
        0 => "not run for want of something here: nothing\n".to_owned(),
        n => format!("not run for want of something here: {n}\n"),
    };
    missing.iter().for_each(|line| said += &format!("  {line}\n"));
    if !not_asked.is_empty() {
        said += &format!("not run because nobody asked for it: {}\n", not_asked.len());
        not_asked.iter().for_each(|line| said += &format!("  {line}\n"));
    }
    (said, !missing.is_empty() && std::env::var_os("CI").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_counted_and_lanes_are_told_apart() {
        let (said, _) = in_words("missing\tit a::b: fsck.fat\nasked\tboots c: real boots\nmissing\tit a::c: mtools\n");
        assert!(said.starts_with("not run for want of something here: 2\n  it a::b: fsck.fat\n"), "{said}");
        assert!(said.contains("nobody asked for it: 1\n  boots c"), "{said}");
        assert_eq!(in_words("").0, "not run for want of something here: nothing\n");
    }

    #[test]
    fn a_run_has_a_name_of_its_own() {
        let name = run_name(std::process::id());
        assert!(name.starts_with(&format!("{}-", std::process::id())) && !name.ends_with("-0"), "{name}");
        assert!(run_name(0).ends_with("-0"));
    }
}
