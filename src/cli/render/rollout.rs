//! What a rollout says of its nodes.

use super::{Page, Paint, Render};
use crate::command::{NodeReport, Outcome, RolloutReport, Way};
use crate::harmless::shell_line;
use std::fmt;

impl Render for RolloutReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        let width = self.nodes.iter().map(|node| node.node.chars().count()).max().unwrap_or(0);
        for node in &self.nodes {
            row(f, p, node, width)?;
        }
        if self.dry_run && self.finished {
            writeln!(f, "{}: every node runs the image", p.good("Nothing to do"))?;
        } else if self.dry_run && self.error.is_none() {
            writeln!(f, "Nothing was done: this is the plan. Each node's turn comes when the one before is done.")?;
        } else if self.finished {
            writeln!(f, "{}: every node runs the image", p.good("Done"))?;
        }
        let ways = self.nodes.iter().flat_map(|node| &node.ways).collect::<Vec<_>>();
        if !ways.is_empty() {
            writeln!(f)?;
            writeln!(f, "{}", p.strong("Ways on, and back"))?;
        }
        ways.into_iter().try_for_each(|way| self::way(f, p, way))
    }
}

/// A node, and below it what is known of it.
fn row(f: &mut Page, p: Paint, node: &NodeReport, width: usize) -> fmt::Result {
    let (outcome, words) = match node.outcome {
        Outcome::Done => (p.good("done"), node.shows.clone()),
        Outcome::Stopped => (p.bad("STOPPED"), node.known.clone()),
        Outcome::Untouched => (p.faint("untouched"), Vec::new()),
        Outcome::Planned if !node.known.is_empty() => (p.bad("REFUSED"), node.known.clone()),
        Outcome::Planned if node.plan.is_empty() => (p.good("nothing to do"), Vec::new()),
        Outcome::Planned => (p.strong("plan"), node.plan.clone()),
    };
    writeln!(f, "{:width$}  {outcome}", node.node)?;
    words.iter().try_for_each(|words| f.wrapped(format_args!("    "), words))
}

/// What it is for, and the commands for copying: one line, which is never broken.
fn way(f: &mut Page, p: Paint, way: &Way) -> fmt::Result {
    f.wrapped(format_args!("  "), &p.faint(&way.why))?;
    if way.run.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = way.run.iter().map(shell_line).collect();
    writeln!(f, "    {}", p.strong(lines.join(" && ")))
}
