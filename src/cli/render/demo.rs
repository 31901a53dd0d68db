//! `demo` as a session at a shell: each command, what it prints, and what was looked at afterwards.

use super::{Page, Paint, Render, error_text};
use crate::demo::{Answer, Cost, DemoReport, DemoStep, StepOutcome};
use crate::units::{count, size};
use std::fmt;

impl Render for DemoStep {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        writeln!(f, "{}", p.faint(format!("# {}", self.title)))?;
        writeln!(f, "{}", p.strong(format!("$ {}", self.command)))?;
        match &self.outcome {
            StepOutcome::Report(answer) => answer.text(f, p)?,
            StepOutcome::Error(e) => error_text(f, p, e)?,
        }
        if self.exit_code != 0 {
            writeln!(f, "(exit code {})", self.exit_code)?;
        }
        if self.exit_code != self.expected_exit_code {
            writeln!(f, "# {}: exit code {} was expected", p.bad("wrong"), self.expected_exit_code)?;
        }
        if let Some(cost) = &self.cost {
            cost_text(f, p, cost)?;
        }
        for proof in &self.proofs {
            let mark = if proof.ok { p.good("ok") } else { p.bad("WRONG") };
            let detail = proof.detail.as_ref().map_or(String::new(), |d| format!(": {d}"));
            writeln!(f, "# {mark}: {}{detail}", proof.what)?;
        }
        writeln!(f)
    }
}

impl Render for Answer {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        match self {
            Self::Status(r) => r.text(f, p),
            Self::Fetch(r) => r.text(f, p),
            Self::Verify(r) => r.text(f, p),
            Self::Swap(r) => r.text(f, p),
            Self::Prune(r) => r.text(f, p),
            Self::Restore(r) => r.text(f, p),
            Self::Text(text) => f.block(text),
        }
    }
}

fn cost_text(f: &mut Page, p: Paint, c: &Cost) -> fmt::Result {
    for (what, here, by_hand) in
        [("over the wire", c.wire_bytes, c.by_hand_wire_bytes), ("written", c.written_bytes, c.by_hand_written_bytes)]
    {
        let times = by_hand as f64 / here.max(1) as f64;
        writeln!(f, "# {what}: {}; by hand {} ({times:.1} times as much)", p.good(size(here)), size(by_hand))?;
    }
    Ok(())
}

/// The end of the demonstration; its steps have been shown before.
impl Render for DemoReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        let proofs = || self.steps.iter().flat_map(|s| &s.proofs);
        let (held, all) = (proofs().filter(|x| x.ok).count(), proofs().count());
        let seconds = self.milliseconds as f64 / 1000.0;
        let verdict = if self.proven { p.good("Proven") } else { p.bad("NOT PROVEN") };
        writeln!(
            f,
            "{verdict}: {}, {held} of {} hold, {seconds:.1} s.",
            count(self.steps.len(), "command"),
            count(all, "check")
        )?;
        if self.proven && self.is_whole {
            writeln!(
                f,
                "An ISO that would have halted the node was refused; the UKI was fetched, verified, written and \
                 committed; \
                 the same again changed nothing; the old image went back without a copy. After every change another \
                 reader (fatfs) found all files byte for byte as they should be, and nothing outside the ESP was \
                 touched."
            )?;
        }
        if !self.fsck && self.is_whole {
            writeln!(f, "fsck.fat is not installed: its opinion was not asked.")?;
        }
        match &self.folder {
            Some(folder) => writeln!(f, "Disk, ISO and schematic are in {folder}; the factory has stopped."),
            None => writeln!(f, "Everything was in a temporary folder and is gone; --keep DIR leaves it there."),
        }
    }
}
