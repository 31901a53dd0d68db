//! What is promised of every state of a drawn operation. It is derived from the volume before, the volume after and
//! what the board starts on each: nothing here knows by which steps an operation goes.

use super::starts::{Oracle, Start};
use crate::checker::{Content, Entry, Problem, Report};
use crate::frame::Frame;
use crate::geometry::Geometry;
use crate::invariants::{Violation, violation};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The record of an unfinished operation.
pub const RECORD: &str = "BOOTSURG.TXN";

/// Worlds, as bits, in which the board starts what it starts afterwards and did not start before.
pub type Moved = u8;

/// One operation on one volume.
pub struct Promise<'a> {
    oracle: &'a Oracle<'a>,
    geometry: &'a Geometry,
    before: Report,
    after: Report,
    starts_before: Vec<Start>,
    starts_after: Vec<Start>,
    /// Files and directories that are the same before and after, to the last bit of their entry.
    bystanders: HashMap<String, Entry>,
    /// Contents that are there before.
    old: HashSet<Content>,
    /// Contents that are there before and after.
    kept: HashSet<Content>,
    /// Clusters that were lost before, with what the table says of them: whose they are, nobody knows.
    foreign: Vec<(u32, u32)>,
    /// Whether what was before is a state to come back to.
    may_undo: bool,
    /// A deletion of several files that keeps no record, for want of room: some of them may be gone.
    pub piecemeal: bool,
    /// Whether a new image comes: before that, nothing may be gone.
    pub installs: bool,
}

/// What a board starts depends on its variables.
pub const WORLDS: [&str; 3] =
    ["with the variables as they are", "without variables", "when the one-shot variable is used up"];

/// Files and directories with what is in them.
fn tree(report: &Report) -> BTreeMap<&str, Option<Content>> {
    report.entries.iter().map(|e| (e.path.as_str(), e.content)).collect()
}

/// The clusters that are lost on a volume.
pub fn lost_clusters(report: &Report) -> Vec<u32> {
    let clusters = report.problems.iter().filter_map(|p| match p {
        Problem::LostClusters(clusters) => Some(clusters.clone()),
        _ => None,
    });
    clusters.flatten().collect()
}

/// The same, with what its table says of them.
pub fn lost(report: &Report, frame: &Frame, geometry: &Geometry) -> Vec<(u32, u32)> {
    let table = geometry.active.unwrap_or(0);
    lost_clusters(report).into_iter().map(|c| (c, geometry.entry(frame, table, c))).collect()
}

impl<'a> Promise<'a> {
    /// From the reports before and after. `foreign`: lost clusters that are a stranger's, with what the table says of
    /// them. A recovery has nothing to go back to: `may_undo` is false.
    pub fn new(
        oracle: &'a Oracle<'a>,
        geometry: &'a Geometry,
        reports: [Report; 2],
        foreign: &[(u32, u32)],
        may_undo: bool,
    ) -> Self {
        let [before, after] = reports;
        let same = |e: &&Entry| after.entries.iter().any(|a| a == *e);
        let bystanders = before.entries.iter().filter(same).map(|e| (e.path.clone(), e.clone())).collect();
        let contents = |r: &Report| -> HashSet<Content> { r.entries.iter().filter_map(|e| e.content).collect() };
        let (old, new) = (contents(&before), contents(&after));
        let kept = old.intersection(&new).copied().collect();
        let foreign = foreign.to_vec();
        let (starts_before, starts_after) = (oracle.starts(&before), oracle.starts(&after));
        Self {
            oracle,
            geometry,
            before,
            after,
            starts_before,
            starts_after,
            bystanders,
            old,
            kept,
            foreign,
            may_undo,
            piecemeal: false,
            installs: false,
        }
    }

    /// What starts, in words.
    pub fn describe(&self, start: &Start) -> String {
        self.oracle.describe(start)
    }

    pub fn starts(&self) -> [&[Start]; 2] {
        [&self.starts_before, &self.starts_after]
    }

    /// Judges the end of an undisturbed run. `may_go`: what the user agreed to lose.
    pub fn judge_end(&self, may_go: &HashSet<Content>) -> Vec<Violation> {
        let mut found = Vec::new();
        self.judge_clean(&self.after, "not clean at the end", &mut found);
        for content in self.old.difference(&self.kept).filter(|c| !may_go.contains(c)) {
            let names: Vec<_> =
                self.before.entries.iter().filter(|e| e.content == Some(*content)).map(|e| &e.path).collect();
            found.push(violation("lost at the end", format!("what was in {names:?}")));
        }
        for path in
            tree(&self.before).keys().chain(tree(&self.after).keys()).filter(|p| !self.bystanders.contains_key(**p))
        {
            if !self.oracle.is_inside(path) && *path != RECORD {
                found.push(violation("touched at the end", *path));
            }
        }
        found
    }

    /// Whether every name that changes was in the plan.
    pub fn judge_plan(&self, names: &[String]) -> Vec<Violation> {
        let changed = tree(&self.before).into_keys().chain(tree(&self.after).into_keys());
        let name = |path: &str| path.rsplit_once('/').map_or(path, |(_, name)| name).to_owned();
        let listed = |path: &&str| names.iter().any(|n| n.eq_ignore_ascii_case(&name(path)));
        { changed }
            .filter(|path| !self.bystanders.contains_key(*path) && !listed(path))
            .map(|path| violation("changes what no plan said", path))
            .collect()
    }

    /// Judges a state in the middle. Where a violation is found, the worlds are not to be relied on.
    pub fn judge_cut(&self, frame: &Frame, report: &Report) -> (Moved, Vec<Violation>) {
        let mut found: Vec<_> = report
            .problems
            .iter()
            .filter(|p| !self.is_benign(p))
            .map(|p| violation("damage", format!("{p:?}")))
            .collect();
        self.judge_foreign(frame, &mut found);
        self.judge_names(report, &mut found);
        let moved = self.judge_start(report, &mut found);
        let there: HashSet<Content> =
            report.entries.iter().filter(|e| !self.is_record(&e.path)).filter_map(|e| e.content).collect();
        // Before the commit nothing may be gone, behind it only what was to go.
        let undecided = self.starts_before == self.starts_after;
        let needed = if moved == 0 && self.installs && !undecided { &self.old } else { &self.kept };
        for content in needed.difference(&there) {
            let names: Vec<_> =
                self.before.entries.iter().filter(|e| e.content == Some(*content)).map(|e| &e.path).collect();
            if !names.iter().all(|n| self.is_record(n)) {
                found.push(violation("lost", format!("what was in {names:?} has no name")));
            }
        }
        (moved, found)
    }

    /// Judges the end of a recovery from a state in which these worlds had moved.
    pub fn judge_recovered(&self, frame: &Frame, report: &Report, moved: Moved) -> Vec<Violation> {
        let mut found = Vec::new();
        self.judge_clean(report, "not clean after recover", &mut found);
        self.judge_foreign(frame, &mut found);
        let mut unused = Vec::new();
        self.judge_names(report, &mut unused);
        found.extend(unused.into_iter().filter(|v| v.kind.starts_with("bystander")));
        let now = tree(report);
        let done = now == tree(&self.after);
        let known = |(path, content): (&&str, &Option<Content>)| {
            tree(&self.before).get(path) == Some(content) || tree(&self.after).get(path) == Some(content)
        };
        if self.piecemeal && now.iter().all(known) {
            // Each step was safe by itself, and there is no record of the others.
        } else if !(done || self.may_undo && now == tree(&self.before)) {
            let names: Vec<_> = now.keys().filter(|p| !self.bystanders.contains_key(**p)).collect();
            found.push(violation("neither undone nor finished", format!("{names:?}")));
        } else if !done && moved != 0 {
            found.push(violation("recover takes the commit back", format!("worlds {moved:b}")));
        }
        self.judge_start(report, &mut found);
        found
    }

    fn judge_clean(&self, report: &Report, kind: &'static str, found: &mut Vec<Violation>) {
        let foreign: Vec<u32> = self.foreign.iter().map(|(c, _)| *c).collect();
        let known = |p: &&Problem| matches!(p, Problem::LostClusters(lost) if *lost == foreign);
        found.extend(report.problems.iter().filter(|p| !known(p)).map(|p| violation(kind, format!("{p:?}"))));
        if report.dirty != self.before.dirty {
            found.push(violation("dirty flag", format!("was {}, is {}", self.before.dirty, report.dirty)));
        }
    }

    fn judge_foreign(&self, frame: &Frame, found: &mut Vec<Violation>) {
        let table = self.geometry.active.unwrap_or(0);
        let gone = self.foreign.iter().filter(|(c, link)| self.geometry.entry(frame, table, *c) != *link).count();
        if gone > 0 {
            found.push(violation("a stranger's lost chain freed", format!("{gone} clusters")));
        }
    }

    fn judge_names(&self, report: &Report, found: &mut Vec<Violation>) {
        let mut seen = 0;
        let (before, after) = (tree(&self.before), tree(&self.after));
        for e in &report.entries {
            if let Some(known) = self.bystanders.get(&e.path) {
                seen += 1;
                if known != e {
                    found.push(violation("bystander touched", &e.path));
                }
                continue;
            }
            if self.is_record(&e.path) && !e.is_directory() {
                continue;
            }
            let (was, will) = (before.get(e.path.as_str()), after.get(e.path.as_str()));
            // A name that comes may lead to what it will hold, or on the way to another image of the operation.
            let passing = || was.is_none() && e.content.is_some_and(|c| self.is_image_of_the_operation(c));
            if was.is_none() && will.is_none() {
                found.push(violation("unexpected name", &e.path));
            } else if was != Some(&e.content) && will != Some(&e.content) && !passing() {
                found.push(violation("neither old nor new", &e.path));
            }
        }
        if seen != self.bystanders.len() {
            let gone: Vec<_> =
                self.bystanders.keys().filter(|p| !report.entries.iter().any(|e| e.path == **p)).collect();
            found.push(violation("bystander gone", format!("{gone:?}")));
        }
    }

    fn is_image_of_the_operation(&self, content: Content) -> bool {
        let touched = |e: &&Entry| !self.bystanders.contains_key(&e.path) && self.oracle.is_inside(&e.path);
        self.before.entries.iter().chain(&self.after.entries).filter(touched).any(|e| e.content == Some(content))
    }

    /// In every world what starts is what started before, or what starts afterwards.
    fn judge_start(&self, report: &Report, found: &mut Vec<Violation>) -> Moved {
        let mut moved = 0;
        let now = self.oracle.starts(report);
        for (world, start) in now.iter().enumerate() {
            let (old, new) = (&self.starts_before[world], &self.starts_after[world]);
            if start == new && old != new {
                moved |= 1 << world;
            } else if start != old {
                let kind = if *start == Start::Nothing { "boots nothing" } else { "boots a third image" };
                let [start, old, new] = [start, old, new].map(|s| self.oracle.describe(s));
                let text = format!("{}: {start}; before {old}, afterwards {new}", WORLDS[world]);
                found.push(violation(kind, text));
            }
        }
        moved
    }

    fn is_record(&self, path: &str) -> bool {
        path == RECORD && !self.bystanders.contains_key(RECORD)
    }

    /// What a later `recover` repairs and no reader minds.
    fn is_benign(&self, problem: &Problem) -> bool {
        let touched = |path: &String| !self.bystanders.contains_key(path);
        match problem {
            Problem::LostClusters(_) | Problem::FsInfoWrong { .. } => true,
            Problem::FatsDiffer { used, directory, .. } => !used && *directory <= 1,
            // A recovery takes one of two such names away.
            Problem::SharedChain(a, b) => {
                let both = touched(a) && touched(b) || !self.may_undo && (touched(a) || touched(b));
                both && self.oracle.is_inside(a) && self.oracle.is_inside(b)
            }
            Problem::OrphanLfn { directory } => directory.is_empty() || self.oracle.is_inside(&format!("{directory}/")),
            _ => false,
        }
    }
}
