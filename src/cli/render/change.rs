//! What commands that write say afterwards.

use super::{Page, Paint, Render, size};
use crate::command::{BackupReport, NextStep, PruneReport, RecoverReport, RestoreReport, SwapReport};
use crate::plan::SwapPlan;
use crate::verify::{Check, CheckStatus};
use serde::Serialize;
use std::fmt;

impl Render for PruneReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        if self.plan.is_empty() {
            writeln!(f, "{}: every file in the menu is there for a reason", p.good("Nothing to do"))?;
        }
        let done = |did: &'static str, would: &'static str| if self.committed { did } else { would };
        for r in &self.plan.renames {
            writeln!(f, "{} {} to {}", done("renamed", "would rename"), r.from, r.to)?;
        }
        for name in &self.plan.delete {
            writeln!(f, "{} {name}", done("deleted", "would delete"))?;
        }
        for (name, why) in &self.plan.keep {
            writeln!(f, "{} {name} stays: {why}", p.faint("kept:"))?;
        }
        members(f, &self.members)?;
        warnings(f, p, &self.plan.warnings)?;
        match &self.plan.boot {
            Some(name) if self.plan.boot == self.plan.boot_before => {
                writeln!(f, "The board starts {}, as before.", p.good(name))
            }
            Some(name) => {
                let before = self.plan.boot_before.as_deref().unwrap_or("nothing");
                let starts = if self.committed { "starts" } else { "would start" };
                writeln!(f, "The board {starts} {} now; before, it tried {before}, which cannot start.", p.good(name))
            }
            None => writeln!(f, "{}", p.bad("The board starts nothing, as before.")),
        }?;
        copy(f, p, self.out.as_deref())
    }
}

impl Render for RecoverReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        let r = &self.recovery;
        if let Some(what) = &r.interrupted {
            let end = match r.finished {
                Some(true) => "past its commit: it is finished",
                Some(false) => "before its commit: it is undone",
                None => "its image was replaced since: left alone",
            };
            writeln!(f, "{what}; {end}")?;
        }
        if r.actions.is_empty() {
            let state = match (r.lost.is_empty(), self.members.is_empty()) {
                (true, true) => "the ESP is clean",
                (true, false) => "the ESP is clean, and equal on all members",
                (false, _) => "nothing was interrupted",
            };
            writeln!(f, "{}: {state}", p.good("Nothing to do"))?;
        }
        for action in &r.actions {
            writeln!(f, "{} {action}", if self.committed { "done:" } else { "would be done:" })?;
        }
        for chain in &r.lost {
            writeln!(f, "{} {chain}", p.warn("kept:"))?;
        }
        if r.lost_unlisted > 0 {
            writeln!(f, "{} {} more lost chains", p.warn("kept:"), r.lost_unlisted)?;
        }
        if !r.lost.is_empty() {
            let what =
                "A lost chain belongs to no file and may be the last copy of one. It takes room and hinders nothing.";
            writeln!(f, "{what} `--salvage` gives each a name, `--free-lost` frees them all.")?;
        }
        copy(f, p, self.out.as_deref())
    }
}

impl Render for SwapReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        if self.already_in_place {
            writeln!(f, "{}: {} already holds these very bytes", p.good("Nothing to do"), self.plan.target)?;
            copy(f, p, self.out.as_deref())?;
            return warnings(f, p, &self.warnings);
        }
        checks(f, p, &self.checks)?;
        let title = if self.committed { "Swapped" } else { "Plan (nothing was written)" };
        writeln!(f)?;
        writeln!(f, "{}", p.strong(title))?;
        plan(f, p, &self.plan)?;
        members(f, &self.members)?;
        if let Some(bytes) = self.wire_bytes {
            writeln!(f, "  over the wire  {}", size(bytes))?;
        }
        warnings(f, p, &self.warnings)?;
        copy(f, p, self.out.as_deref())?;
        next(f, p, &self.next)
    }
}

impl Render for RestoreReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        checks(f, p, &self.checks)?;
        let title = if self.committed { "Restored" } else { "Plan (nothing was written)" };
        writeln!(f)?;
        writeln!(f, "{} {}", p.strong(title), self.restored)?;
        plan(f, p, &self.plan)?;
        members(f, &self.members)?;
        copy(f, p, self.out.as_deref())?;
        warnings(f, p, &self.warnings)?;
        next(f, p, &self.next)
    }
}

/// The steps in a column, what they are for beside them.
fn next(f: &mut Page, p: Paint, steps: &[NextStep]) -> fmt::Result {
    if steps.is_empty() {
        return Ok(());
    }
    writeln!(f)?;
    writeln!(f, "{}", p.strong("Next"))?;
    let width = steps.iter().filter_map(|s| s.command.as_ref()).map(String::len).max().unwrap_or(0);
    for step in steps {
        match &step.command {
            Some(command) => writeln!(f, "  {}  {}", p.strong(format!("{command:width$}")), p.faint(&step.why))?,
            None => writeln!(f, "  {}", p.warn(&step.why))?,
        }
    }
    Ok(())
}

/// `--all-members`: what each step was done on.
fn members(f: &mut Page, members: &[String]) -> fmt::Result {
    if members.is_empty() {
        return Ok(());
    }
    writeln!(f, "  on each of     {}", members.join(", "))
}

/// `--out`: where the change went.
fn copy(f: &mut Page, p: Paint, out: Option<&str>) -> fmt::Result {
    match out {
        Some(out) => writeln!(f, "The new image is {}; the one that was given is as it was.", p.good(out)),
        None => Ok(()),
    }
}

fn plan(f: &mut Page, p: Paint, plan: &SwapPlan) -> fmt::Result {
    writeln!(f, "  image in       {} ({} written)", p.good(&plan.target), size(plan.bytes_to_write))?;
    if let Some(backup) = &plan.backup {
        writeln!(f, "  old image in   {backup}")?;
    }
    // What the target held, where that is not the image that boots.
    if let Some(name) = plan.target_backup.as_ref().filter(|name| plan.backup.as_ref() != Some(*name)) {
        writeln!(f, "  kept           what {} held, in {name}", plan.target)?;
    }
    for r in &plan.renames {
        writeln!(f, "  renamed        {} to {}", r.from, r.to)?;
    }
    for name in &plan.delete {
        writeln!(f, "  deleted        {name}")?;
    }
    let name = |x: &Option<String>| x.clone().unwrap_or_else(|| "nothing".into());
    writeln!(f, "  boot before    {}", name(&plan.boot_before))?;
    writeln!(f, "  boot after     {}", p.good(name(&plan.boot_after)))
}

fn warnings(f: &mut Page, p: Paint, warnings: &[String]) -> fmt::Result {
    for warning in warnings {
        writeln!(f, "{} {warning}", p.warn("warning:"))?;
    }
    Ok(())
}

/// A line per check.
pub(super) fn checks(f: &mut Page, p: Paint, checks: &[Check]) -> fmt::Result {
    for c in checks {
        let mark = match c.status {
            CheckStatus::Pass => p.good("pass"),
            CheckStatus::Warn => p.warn("warn"),
            CheckStatus::Fail => p.bad("FAIL"),
            CheckStatus::Skip => p.faint("skip"),
        };
        writeln!(f, "{mark}  {:20} {}", c.id.name(), c.detail)?;
    }
    Ok(())
}

/// `restore --list`.
#[derive(Serialize)]
pub(in crate::cli) struct Backups {
    pub(in crate::cli) backups: Vec<BackupReport>,
}

impl Render for Backups {
    fn text(&self, f: &mut Page, _: Paint) -> fmt::Result {
        if self.backups.is_empty() {
            writeln!(f, "no backups")?;
        }
        for b in &self.backups {
            let version = b.version.as_deref().unwrap_or("?");
            writeln!(f, "{}  {}  {version}  {}", b.time, b.name, size(u64::from(b.bytes)))?;
        }
        Ok(())
    }
}
