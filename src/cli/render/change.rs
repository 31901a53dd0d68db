//! What commands that write say afterwards.

use super::board_set::board_set;
use super::page::shown_width;
use super::{Page, Paint, Render, board};
use crate::command::{
    BackupList, NextStep, PinReport, Proposal, PruneReport, RecoverReport, ReplaceLoaderReport, RestoreReport,
    SwapReport,
};
use crate::config::service_document;
use crate::plan::SwapPlan;
use crate::units::{count, size};
use crate::verify::{Check, CheckStatus, ExtensionFacts, ImageChange};
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
            writeln!(f, "{} {name} ({why})", done("kept", "keep"))?;
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

impl Render for ReplaceLoaderReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        let plan = &self.plan;
        if self.already_in_place {
            writeln!(f, "{}: these very bytes are at every place already", p.good("Nothing to do"))?;
        } else {
            checks_in_short(f, p, &self.checks)?;
            writeln!(f)?;
            let title = if self.committed { "Replaced" } else { "Plan (nothing written)" };
            let what = p.good(format!("systemd-boot {}", plan.version));
            writeln!(f, "{} {what}, {}", p.strong(format!("{title}:")), self.source)?;
        }
        for step in &plan.places {
            let before = step.version_before.as_deref().unwrap_or("none that starts");
            let what = if step.already_in_place { "has it already".to_owned() } else { format!("before: {before}") };
            writeln!(f, "  {}  {what}", step.target)?;
            if let Some(backup) = &step.backup {
                writeln!(f, "    old one in   {backup}")?;
            }
            for name in &step.delete {
                writeln!(f, "    {:11}  {name}", if self.committed { "deleted" } else { "delete" })?;
            }
        }
        members(f, &self.members)?;
        warnings(f, p, &self.warnings)?;
        let name = |x: &Option<String>| x.clone().unwrap_or_else(|| "nothing".into());
        let starts = if self.committed || self.already_in_place { "starts" } else { "would start" };
        let before = match plan.boot_before == plan.boot_after {
            true => ", as before".to_owned(),
            false => format!("; before: {}", name(&plan.boot_before)),
        };
        writeln!(f, "The board {starts} {}{before}.", p.good(name(&plan.boot_after)))?;
        copy(f, p, self.out.as_deref())?;
        next(f, p, &self.next)
    }
}

impl Render for PinReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        let plan = &self.plan;
        let line = plan.default.as_ref().map_or("no line `default`".to_owned(), |value| format!("default {value}"));
        match (self.already_in_place, self.committed) {
            (true, _) => writeln!(f, "{}: {} has this already: {line}", p.good("Nothing to do"), plan.file)?,
            (false, true) => writeln!(f, "{} {}: {}", p.strong("Written:"), plan.file, p.good(&line))?,
            (false, false) => {
                writeln!(f, "{} {}: {}", p.strong("Plan (nothing written):"), plan.file, p.good(&line))?;
            }
        }
        if !self.already_in_place && !plan.default_before.is_empty() {
            writeln!(f, "  before: default {}", plan.default_before.join(", "))?;
        }
        members(f, &self.members)?;
        warnings(f, p, &self.warnings)?;
        let name = |x: &Option<String>| x.clone().unwrap_or_else(|| "nothing".into());
        let starts = if self.committed || self.already_in_place { "starts" } else { "would start" };
        let as_before = if plan.boot_before == plan.boot_after {
            ", as before".to_owned()
        } else {
            format!("; before: {}", name(&plan.boot_before))
        };
        f.wrapped(
            format_args!("The board {starts} "),
            &format!("{}{as_before} ({})", p.good(name(&plan.boot_after)), plan.reason),
        )?;
        if plan.boot_after_without_variables != plan.boot_after {
            let without = name(&plan.boot_after_without_variables);
            writeln!(f, "Without EFI variables (NVRAM reset) it {starts} {}", p.warn(without))?;
        }
        copy(f, p, self.out.as_deref())
    }
}

impl Render for RecoverReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        let r = &self.recovery;
        if let Some(what) = &r.interrupted {
            let end = match (r.finished, self.committed) {
                (Some(true), true) => "finished",
                (Some(true), false) => "will be finished",
                (Some(false), true) => "rolled back",
                (Some(false), false) => "will be rolled back",
                (None, _) => "left alone",
            };
            let cut = match r.cut_behind_commit {
                Some(true) => "after the commit",
                Some(false) => "before the commit",
                None => "what it was about was replaced since",
            };
            writeln!(f, "{what}: {cut}; {end}")?;
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
            match self.committed {
                true => writeln!(f, "{action}")?,
                false => writeln!(f, "would {}", action.planned())?,
            }
        }
        for chain in &r.lost {
            writeln!(f, "{} {chain}", p.warn("kept:"))?;
        }
        if r.lost_unlisted > 0 {
            writeln!(f, "{} {}", p.warn("kept:"), count(r.lost_unlisted, "more lost chain"))?;
        }
        if !r.lost.is_empty() {
            let what =
                "A lost chain belongs to no file and may be the last copy of one. It takes room and does no harm.";
            writeln!(f, "{what} `--salvage` gives each a name, `--free-lost` frees them all.")?;
        }
        copy(f, p, self.out.as_deref())
    }
}

impl Render for SwapReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        let changing = self.board_files.as_ref().filter(|set| !set.change.is_empty());
        if let Some(set) = changing.filter(|_| self.already_in_place) {
            let title = if self.committed { "Changed" } else { "Plan (nothing written)" };
            writeln!(f, "{}: the board's files; {} already holds the image", p.strong(title), self.plan.target)?;
            board_set(f, p, set, self.committed)?;
            members(f, &self.members)?;
            warnings(f, p, &self.warnings)?;
            return copy(f, p, self.out.as_deref());
        }
        if self.already_in_place {
            writeln!(f, "{}: {} already holds these very bytes", p.good("Nothing to do"), self.plan.target)?;
            if let Some(set) = &self.board_files {
                board_set(f, p, set, false)?;
            }
            board::plan(f, &self.board, self.board_files.as_ref())?;
            copy(f, p, self.out.as_deref())?;
            return warnings(f, p, &self.warnings);
        }
        checks_in_short(f, p, &self.checks)?;
        let title = if self.committed { "Swapped" } else { "Plan (nothing written)" };
        headline(f, p, title, &self.plan, None)?;
        plan(f, &self.plan, self.change.as_ref(), self.committed)?;
        if let Some(set) = &self.board_files {
            board_set(f, p, set, self.committed)?;
        }
        board::plan(f, &self.board, self.board_files.as_ref())?;
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
        checks_in_short(f, p, &self.checks)?;
        let title = if self.committed { "Restored" } else { "Plan to restore (nothing written)" };
        headline(f, p, title, &self.plan, Some(&self.restored))?;
        plan(f, &self.plan, Some(&self.change), self.committed)?;
        if let Some(set) = &self.board_files {
            board_set(f, p, set, self.committed)?;
        }
        members(f, &self.members)?;
        warnings(f, p, &self.warnings)?;
        copy(f, p, self.out.as_deref())?;
        next(f, p, &self.next)
    }
}

/// What a question is about.
pub(in crate::cli) fn proposal_text(proposal: &Proposal<'_>, p: Paint, verbose: bool) -> String {
    let mut page = Page::new(true).verbose(verbose);
    let f = &mut page;
    let title = match proposal.restored {
        None => "Ready (nothing refers to the new image yet)",
        Some(_) => "Plan (nothing written)",
    };
    let shown = checks_in_short(f, p, proposal.checks)
        .and_then(|()| headline(f, p, title, proposal.plan, proposal.restored))
        .and_then(|()| plan(f, proposal.plan, Some(proposal.change), false))
        .and_then(|()| proposal.board_files.map_or(Ok(()), |set| board_set(f, p, set, false)))
        .and_then(|()| proposal.board.map_or(Ok(()), |board| board::plan(f, board, proposal.board_files)))
        .and_then(|()| members(f, &proposal.members))
        .and_then(|()| warnings(f, p, &proposal.warnings));
    match shown {
        Ok(()) => page.finish(),
        Err(_) => String::new(),
    }
}

/// What was done to which file, and from where the image came or how long it is.
fn headline(f: &mut Page, p: Paint, title: &str, plan: &SwapPlan, restored: Option<&str>) -> fmt::Result {
    let source = restored.map_or_else(|| format!("({})", size(plan.bytes_to_write)), |backup| format!("from {backup}"));
    writeln!(f)?;
    writeln!(f, "{} {} {source}", p.strong(format!("{title}:")), p.good(&plan.target))
}

/// So many columns are left beside a command for what it is for.
const BESIDE: usize = 36;

/// The commands in a column, what they are for beside them. They are for copying, so none is ever broken: a long one
/// has its line, and what it is for stands below.
fn next(f: &mut Page, p: Paint, steps: &[NextStep]) -> fmt::Result {
    if steps.is_empty() {
        return Ok(());
    }
    writeln!(f)?;
    writeln!(f, "{}", p.strong("Next"))?;
    let room = f.width().saturating_sub(BESIDE);
    let commands = steps.iter().filter_map(|s| s.command.as_ref());
    let width = commands.map(|command| shown_width(command)).filter(|width| *width <= room).max().unwrap_or(0);
    for step in steps {
        match &step.command {
            Some(command) => {
                let command = p.strong(format!("{command:width$}"));
                f.wrapped(format_args!("  {command}  "), &p.faint(&step.why))?;
            }
            None => f.wrapped(format_args!("  "), &p.warn(&step.why))?,
        }
        if let Some(document) = &step.document {
            f.block(&indented(document))?;
        }
    }
    Ok(())
}

/// ExtensionServiceConfig documents to start from.
pub(super) fn service_configs(f: &mut Page, p: Paint, services: &[String]) -> fmt::Result {
    for service in services {
        writeln!(f, "{} {}", p.strong(format!("ext-{service}")), p.faint("can start from this, completed:"))?;
        f.block(&indented(&service_document(service)))?;
    }
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
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
        Some(out) => writeln!(f, "Wrote {}; the input is unchanged.", p.good(out)),
        None => Ok(()),
    }
}

/// What is another for the user; the plan's target stands above it. `is_done`: the plan was carried out.
fn plan(f: &mut Page, plan: &SwapPlan, change: Option<&ImageChange>, is_done: bool) -> fmt::Result {
    let verb = |to_do: &'static str, done: &'static str| if is_done { done } else { to_do };
    for (what, words) in change.map(ImageChange::lines).unwrap_or_default() {
        writeln!(f, "  {what:13}  {words}")?;
    }
    if let Some(backup) = &plan.backup {
        writeln!(f, "  old image in   {backup}")?;
    }
    // What the target held, where that is not the image that boots.
    if let Some(name) = plan.target_backup.as_ref().filter(|name| plan.backup.as_ref() != Some(*name)) {
        let (keep, held) = (verb("keep", "kept"), verb("holds", "held"));
        writeln!(f, "  {keep:13}  what {} {held}, in {name}", plan.target)?;
    }
    for r in plan.renames.iter().filter(|r| plan.backup.as_ref() != Some(&r.to)) {
        writeln!(f, "  {:13}  {} to {}", verb("rename", "renamed"), r.from, r.to)?;
    }
    for name in &plan.delete {
        writeln!(f, "  {:13}  {name}", verb("delete", "deleted"))?;
    }
    if plan.boot_before != plan.boot_after {
        let name = |x: &Option<String>| x.clone().unwrap_or_else(|| "nothing".into());
        writeln!(f, "  starts         {}; before: {}", name(&plan.boot_after), name(&plan.boot_before))?;
    }
    Ok(())
}

fn warnings(f: &mut Page, p: Paint, warnings: &[String]) -> fmt::Result {
    for warning in warnings {
        f.wrapped(format_args!("{} ", p.warn("warning:")), warning)?;
    }
    Ok(())
}

/// How many checks went how, and what is to be known of them; with `--verbose` all.
fn checks_in_short(f: &mut Page, p: Paint, all: &[Check]) -> fmt::Result {
    if f.is_verbose() || all.is_empty() {
        return checks(f, p, all);
    }
    let count = |status| all.iter().filter(|c| c.status == status).count();
    let (warned, failed, skipped) = (count(CheckStatus::Warn), count(CheckStatus::Fail), count(CheckStatus::Skip));
    let several = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let mut words = vec![p.good(format!("{} passed", several(count(CheckStatus::Pass), "check")))];
    words.extend((failed > 0).then(|| p.bad(format!("{failed} failed"))));
    words.extend((warned > 0).then(|| p.warn(several(warned, "warning"))));
    words.extend((skipped > 0).then(|| format!("{skipped} skipped")));
    writeln!(f, "{} {}", words.join(", "), p.faint("(-v shows all)"))?;
    checks(f, p, all.iter().filter(|c| matches!(c.status, CheckStatus::Warn | CheckStatus::Fail)))
}

/// A line per check.
pub(super) fn checks<'c>(f: &mut Page, p: Paint, checks: impl IntoIterator<Item = &'c Check>) -> fmt::Result {
    for c in checks {
        let mark = match c.status {
            CheckStatus::Pass => p.good("pass"),
            CheckStatus::Warn => p.warn("warn"),
            CheckStatus::Fail => p.bad("FAIL"),
            CheckStatus::Skip => p.faint("skip"),
        };
        f.wrapped(format_args!("{mark}  {:20} ", c.id.name()), &c.detail)?;
    }
    Ok(())
}

impl Render for BackupList {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        if let Some(now) = &self.boots_now {
            let what = contents(now.version.as_ref(), now.schematic.as_ref(), &now.extensions);
            writeln!(f, "{} {}: {what}", p.strong("Boots now"), now.name)?;
        }
        if self.backups.is_empty() {
            writeln!(f, "no backups")?;
        }
        for b in &self.backups {
            let what = contents(b.version.as_ref(), b.schematic.as_ref(), &b.extensions);
            let notes = [
                (b.is_next, p.good("`restore` takes this one")),
                (b.started_last, p.strong("started last")),
                (b.disabled, p.faint("disabled; restored by its name")),
            ];
            let notes: String = notes.iter().filter(|(is, _)| *is).map(|(_, words)| format!(", {words}")).collect();
            writeln!(f, "{}  {}  {what}, {}{notes}", b.time, b.name, size(u64::from(b.bytes)))?;
        }
        Ok(())
    }
}

/// `v1.12.4, schematic 4a0d65c6, tailscale`.
fn contents(version: Option<&String>, schematic: Option<&String>, extensions: &[ExtensionFacts]) -> String {
    let mut words = vec![version.cloned().unwrap_or_else(|| "version not known".to_owned())];
    words.extend(schematic.map(|id| format!("schematic {}", id.chars().take(8).collect::<String>())));
    let names: Vec<&str> = extensions.iter().map(|e| e.name.as_str()).collect();
    words.push(if names.is_empty() { "no extensions".to_owned() } else { names.join(", ") });
    words.join(", ")
}
