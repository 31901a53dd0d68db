//! The board's own files that change with an image, and those that stay.

use super::{Page, Paint};
use crate::plan::{BoardChange, BoardKept, BoardSetPlan};
use crate::units::{count, size};
use std::collections::BTreeMap;
use std::fmt;

/// So many names are given of what is alike; with -v all.
const NAMED: usize = 4;

/// The lines of a plan or of a report.
pub(super) fn board_set(f: &mut Page, p: Paint, plan: &BoardSetPlan, is_done: bool) -> fmt::Result {
    let (replaced, added): (Vec<&BoardChange>, Vec<&BoardChange>) =
        plan.change.iter().partition(|c| c.backup.is_some());
    let verb = |now: &'static str, then: &'static str| if is_done { then } else { now };
    for (what, files) in [(verb("replace", "replaced"), replaced), (verb("add", "added"), added)] {
        let bytes: u64 = files.iter().map(|file| u64::from(file.bytes)).sum();
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        if !paths.is_empty() {
            line(f, what, &format!("{} ({}): {}", count(paths.len(), "file"), size(bytes), names(f, &paths)))?;
        }
    }
    if !plan.directories.is_empty() {
        let paths: Vec<&str> = plan.directories.iter().map(String::as_str).collect();
        let new = count(paths.len(), "directory");
        line(f, verb("make", "made"), &format!("{new}: {}", names(f, &paths)))?;
    }
    if let Some(time) = plan.change.iter().find_map(|file| file.backup.as_deref()?.rsplit('.').next()) {
        line(f, "old content", &format!("stays beside each as NAME.bak.{time}"))?;
    }
    if plan.same > 0 {
        line(f, "same bytes", &count(plan.same, "file"))?;
    }
    let mut kept: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for BoardKept { path, why, .. } in &plan.keep {
        kept.entry(why).or_default().push(path);
    }
    for (why, paths) in kept {
        line(f, verb("keep", "kept"), &format!("{}: {why}", names(f, &paths)))?;
    }
    if !plan.change.is_empty() && !is_done {
        let note = "whether the board starts with these files is not predicted: its firmware reads them, not the boot \
                    loader";
        line(f, "note", &p.warn(note).to_string())?;
    }
    if let Some(mixture) = plan.mixture.as_ref().filter(|_| !is_done) {
        line(f, "mixture", &p.warn(mixture).to_string())?;
    }
    Ok(())
}

fn line(f: &mut Page, what: &str, words: &str) -> fmt::Result {
    f.wrapped(format_args!("  {what:13}  "), words)
}

fn names(f: &Page, paths: &[&str]) -> String {
    let shown = if f.is_verbose() { paths.len() } else { NAMED.min(paths.len()) };
    let named = paths[..shown].join(", ");
    match paths.len() - shown {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
