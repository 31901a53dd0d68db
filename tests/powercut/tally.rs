//! What a run of the harness counted, and how it prints that.

use crate::invariants::Violation;
use crate::operations::Scenario;
use crate::volumes::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What was checked and what was found.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub scenarios: usize,
    /// Distinct states after a cut inside the operation.
    pub states: usize,
    /// Recoveries from such a state that were judged.
    pub recoveries: usize,
    /// States after a cut inside a recovery.
    pub nested: usize,
    pub torn: usize,
    pub torn_bad: usize,
    pub complete_epochs: usize,
    pub sampled_epochs: usize,
    /// States that were also given to `fsck.fat`, the fatfs crate, mtools.
    pub fsck: usize,
    pub fatfs: usize,
    pub mtools: usize,
    /// States that were also given to the program's own health check.
    pub doctor: usize,
    /// Runs with an injected fault.
    pub faults: usize,
    pub bad: usize,
    /// How often each kind was found, with the first case.
    pub violations: BTreeMap<&'static str, (usize, String)>,
    /// States and violations by operation, for each way to sort volumes into columns.
    pub cells: BTreeMap<(usize, &'static str, String), (usize, usize)>,
}

/// The column a volume belongs to.
type Column = fn(&Shape) -> String;

/// The ways to sort volumes into columns of a table.
const COLUMNS: [(&str, Column); 3] = [
    ("type of FAT / bytes per sector", |s| format!("{:?}/{}", s.width, s.sector)),
    ("bytes per cluster", |s| format!("{:>6}", s.cluster)),
    ("what is awkward about the volume", |s| s.awkwardness().to_owned()),
];

impl Tally {
    pub fn report(&mut self, scenario: &str, at: &dyn std::fmt::Debug, found: Vec<Violation>) {
        self.bad += usize::from(!found.is_empty());
        for v in found {
            let first = || (0, format!("{scenario}, {at:?}: {}", v.detail));
            self.violations.entry(v.kind).or_insert_with(first).0 += 1;
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.scenarios += other.scenarios;
        self.states += other.states;
        self.recoveries += other.recoveries;
        self.nested += other.nested;
        self.torn += other.torn;
        self.torn_bad += other.torn_bad;
        self.complete_epochs += other.complete_epochs;
        self.sampled_epochs += other.sampled_epochs;
        self.fsck += other.fsck;
        self.fatfs += other.fatfs;
        self.mtools += other.mtools;
        self.doctor += other.doctor;
        self.faults += other.faults;
        self.bad += other.bad;
        for (cell, (states, bad)) in &other.cells {
            let sum = self.cells.entry(cell.clone()).or_default();
            *sum = (sum.0 + states, sum.1 + bad);
        }
        for (kind, (n, first)) in &other.violations {
            self.violations.entry(kind).or_insert_with(|| (0, first.clone())).0 += n;
        }
    }

    /// States of every sort that the model allows.
    pub fn all_states(&self) -> usize {
        self.states + self.nested
    }

    /// Enters what was found in one scenario into the tables.
    pub fn file_under(&mut self, scenario: &Scenario) {
        let (states, bad) = (self.all_states(), self.bad);
        for (n, (_, column)) in COLUMNS.iter().enumerate() {
            self.cells.insert((n, scenario.operation_name, column(&scenario.volume.shape)), (states, bad));
        }
    }

    /// States by operation and sort of volume; `+n!` for violations.
    fn grids(&self) -> String {
        let mut text = String::new();
        for (n, (title, _)) in COLUMNS.iter().enumerate() {
            let cells = self.cells.iter().filter(|((m, ..), _)| *m == n);
            let (mut rows, mut columns) = (BTreeSet::new(), BTreeSet::new());
            for ((_, row, column), _) in cells {
                rows.insert(*row);
                columns.insert(column.clone());
            }
            let _ = write!(text, "\n  {:<38}", format!("states by {title}"));
            columns.iter().for_each(|c| text.push_str(&format!(" {:>11}", c.trim())));
            text.push('\n');
            for row in rows {
                let _ = write!(text, "  {row:<38}");
                for column in &columns {
                    let (states, bad) = self.cells.get(&(n, row, column.clone())).copied().unwrap_or_default();
                    let bad = if bad > 0 { format!("+{bad}!") } else { String::new() };
                    let _ = write!(text, " {:>11}", format!("{states}{bad}"));
                }
                text.push('\n');
            }
        }
        text
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |what: &str, n: usize| {
            let _ = writeln!(text, "  {what:<48} {n:>9}");
        };
        row("scenarios", self.scenarios);
        row("crash states checked", self.all_states());
        row("  of the operation", self.states);
        row("  inside a recovery", self.nested);
        row("recoveries, each repeated", self.recoveries);
        row("barrier epochs enumerated completely", self.complete_epochs);
        row("barrier epochs sampled", self.sampled_epochs);
        row("states also judged by fsck.fat", self.fsck);
        row("states also read by the fatfs crate", self.fatfs);
        row("states also read by mtools", self.mtools);
        row("states also judged by the program's own doctor", self.doctor);
        row("runs with an injected fault", self.faults);
        row("states with a violation", self.bad);
        row("torn sectors (outside the model)", self.torn);
        row("torn sectors that break a promise", self.torn_bad);
        for (kind, (n, first)) in &self.violations {
            let _ = writeln!(text, "  VIOLATION {kind}: {n} times, first in {first}");
        }
        text + &self.grids()
    }
}
