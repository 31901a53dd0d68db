//! What a run over drawn scenarios counted, and how it prints that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub scenarios: usize,
    /// Operations that were carried out and cut.
    pub operations: usize,
    /// Crash states of operations, and of the recoveries behind them.
    pub states: usize,
    pub nested: usize,
    pub recoveries: usize,
    pub asked: Asked,
    /// By step and sort of volume: states, and of them those that other readers saw.
    pub classes: BTreeMap<(&'static str, String), [usize; 2]>,
    /// States with a violation.
    pub bad: usize,
    /// By step: carried out, nothing to do, refused, states.
    pub steps: BTreeMap<&'static str, [usize; 4]>,
    /// Why operations were refused.
    pub refusals: BTreeMap<String, usize>,
    pub violations: BTreeMap<&'static str, Found>,
}

/// States that were also given to readers by other hands.
#[derive(Debug, Default, Clone)]
pub struct Asked {
    pub fsck: usize,
    pub seven_zip: usize,
    pub fatfs: usize,
    pub mtools: usize,
    /// By at least one of them.
    pub by_anyone: usize,
}

impl Asked {
    /// Readings, of all readers together.
    pub fn all(&self) -> usize {
        self.fsck + self.seven_zip + self.fatfs + self.mtools
    }
}

/// A kind of violation.
#[derive(Debug, Default, Clone)]
pub struct Found {
    pub states: usize,
    /// Scenarios with the first case in each.
    pub scenarios: BTreeMap<u64, String>,
}

/// So many scenarios of a kind of violation are remembered with their details.
const REMEMBERED: usize = 400;

impl Counts {
    pub fn all_states(&self) -> usize {
        self.states + self.nested
    }

    pub fn violation(&mut self, kind: &'static str, seed: u64, detail: impl FnOnce() -> String) {
        let found = self.violations.entry(kind).or_default();
        found.states += 1;
        if found.scenarios.len() < REMEMBERED {
            found.scenarios.entry(seed).or_insert_with(detail);
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.scenarios += other.scenarios;
        self.operations += other.operations;
        self.states += other.states;
        self.nested += other.nested;
        self.recoveries += other.recoveries;
        self.asked.fsck += other.asked.fsck;
        self.asked.seven_zip += other.asked.seven_zip;
        self.asked.fatfs += other.asked.fatfs;
        self.asked.mtools += other.asked.mtools;
        self.asked.by_anyone += other.asked.by_anyone;
        for (class, counts) in &other.classes {
            let sum = self.classes.entry(class.clone()).or_default();
            sum.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        }
        self.bad += other.bad;
        for (step, counts) in &other.steps {
            let sum = self.steps.entry(step).or_default();
            sum.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        }
        for (why, n) in &other.refusals {
            *self.refusals.entry(why.clone()).or_default() += n;
        }
        for (kind, found) in &other.violations {
            let sum = self.violations.entry(kind).or_default();
            sum.states += found.states;
            for (seed, detail) in &found.scenarios {
                if sum.scenarios.len() < REMEMBERED {
                    sum.scenarios.entry(*seed).or_insert_with(|| detail.clone());
                }
            }
        }
    }

    /// States by step and sort of volume, and how many of them other readers saw.
    fn grid(&self) -> String {
        let columns: BTreeSet<&String> = self.classes.keys().map(|(_, column)| column).collect();
        let rows: BTreeSet<&str> = self.classes.keys().map(|(row, _)| *row).collect();
        let mut text = format!("  {:<21}", "states/seen by others");
        columns.iter().for_each(|c| text.push_str(&format!(" {c:>15}")));
        text.push('\n');
        for row in rows {
            let _ = write!(text, "  {row:<21}");
            for column in &columns {
                let [states, seen] = self.classes.get(&(row, (*column).clone())).copied().unwrap_or_default();
                let _ = write!(text, " {:>15}", format!("{states}/{seen}"));
            }
            text.push('\n');
        }
        text.push('\n');
        text
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |what: &str, n: usize| {
            let _ = writeln!(text, "  {what:<48} {n:>9}");
        };
        row("scenarios", self.scenarios);
        row("operations carried out and cut", self.operations);
        row("crash states checked", self.all_states());
        row("  of an operation", self.states);
        row("  inside a recovery", self.nested);
        row("recoveries, each repeated", self.recoveries);
        row("states also judged by fsck.fat", self.asked.fsck);
        row("states also read by 7-Zip", self.asked.seven_zip);
        row("states also read by the fatfs crate", self.asked.fatfs);
        row("states also read by mtools", self.asked.mtools);
        row("states read by one of them or more", self.asked.by_anyone);
        row("states with a violation", self.bad);
        let _ =
            writeln!(text, "\n  {:<24} {:>9} {:>13} {:>9} {:>9}", "step", "done", "nothing to do", "refused", "states");
        for (step, [done, idle, refused, states]) in &self.steps {
            let _ = writeln!(text, "  {step:<24} {done:>9} {idle:>13} {refused:>9} {states:>9}");
        }
        text.push('\n');
        text.push_str(&self.grid());
        for (why, n) in &self.refusals {
            let _ = writeln!(text, "  refused {n:>7} times: {why}");
        }
        for (kind, found) in &self.violations {
            let scenarios = found.scenarios.len();
            let _ = writeln!(text, "\n  VIOLATION {kind}: {} states in {scenarios} scenarios", found.states);
            for (seed, detail) in found.scenarios.iter().take(3) {
                let _ = writeln!(text, "    POWERCUT_SCENARIO={seed}: {detail}");
            }
        }
        text
    }
}
