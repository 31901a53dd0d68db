//! What must hold at every point where power can fail, and after recovery.

use crate::checker::{Content, Entry, Problem, Report};
use crate::frame::Frame;
use crate::recorder::IoEvent;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

/// Files by path.
pub type Tree = BTreeMap<String, Content>;

/// Which file the bootloader starts, of the files there are.
pub type Selects = dyn Fn(&[(&str, Content)]) -> Option<Content> + Send + Sync;

/// On which side of the commit point a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Before,
    After,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub kind: &'static str,
    pub detail: String,
}

pub fn violation(kind: &'static str, detail: impl Into<String>) -> Violation {
    Violation { kind, detail: detail.into() }
}

/// The file whose content tells the phase.
#[derive(Debug, Clone)]
pub struct Mark {
    pub path: String,
    pub before: Option<Content>,
    pub after: Option<Content>,
}

/// What one operation on one volume is to do, and what it may leave behind while it is not done.
pub struct Expectation {
    /// Every file before, and after.
    before: Tree,
    after: Tree,
    /// Files and directories the operation has no business with, byte for byte.
    bystanders: HashMap<String, Entry>,
    mark: Mark,
    selects: Box<Selects>,
    /// What else a path may hold on the way.
    passing: Vec<(String, Content)>,
    /// Directories that are new afterwards.
    made: Vec<String>,
    /// Paths of records that exist only while the operation is unfinished; a directory stands for what is in it.
    scratch: Vec<String>,
    /// Pairs of names that may share a chain on the way.
    sharing: Vec<(String, String)>,
    /// What was committed may be taken back: the user asks for that.
    reversible: bool,
    dirty: bool,
}

impl Expectation {
    /// From the volume as it is (`report`) and what changes: a path's new content, or `None` where it goes.
    pub fn new(
        report: &Report,
        changes: &[(&str, Option<Content>)],
        mark: &str,
        selects: impl Fn(&[(&str, Content)]) -> Option<Content> + Send + Sync + 'static,
    ) -> Self {
        let before: Tree = report.entries.iter().filter_map(|e| Some((e.path.clone(), e.content?))).collect();
        let mut after = before.clone();
        for (path, content) in changes {
            match content {
                Some(content) => after.insert((*path).to_owned(), *content),
                None => after.remove(*path),
            };
        }
        let touched = |e: &&Entry| !changes.iter().any(|(path, _)| *path == e.path);
        let bystanders = report.entries.iter().filter(touched).map(|e| (e.path.clone(), e.clone())).collect();
        let mark = Mark { path: mark.into(), before: before.get(mark).copied(), after: after.get(mark).copied() };
        assert_ne!(mark.before, mark.after, "the mark does not change: {}", mark.path);
        let (passing, made, scratch, sharing) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let selects = Box::new(selects);
        let reversible = false;
        Self {
            before,
            after,
            bystanders,
            mark,
            selects,
            passing,
            made,
            scratch,
            sharing,
            reversible,
            dirty: report.dirty,
        }
    }

    /// Also allows `path` to hold `content` on the way.
    pub fn passing(mut self, path: &str, content: Content) -> Self {
        self.passing.push((path.into(), content));
        self
    }

    /// Also allows a file, or a directory and what is in it, on the way.
    pub fn scratch(mut self, path: &str) -> Self {
        self.scratch.push(path.into());
        self
    }

    /// Also a directory that is to be there afterwards, and may be on the way.
    pub fn made(mut self, path: &str) -> Self {
        self.made.push(path.into());
        self
    }

    /// Also allows two names to share one chain on the way.
    pub fn sharing(mut self, a: &str, b: &str) -> Self {
        self.sharing.push((a.into(), b.into()));
        self
    }

    /// Also allows a recovery to take back what was committed.
    pub fn reversible(self) -> Self {
        Self { reversible: true, ..self }
    }

    /// Whether a recovery may take back what was committed.
    pub fn is_reversible(&self) -> bool {
        self.reversible
    }

    /// Which image starts is decided by the change of another file than the first that counts.
    pub fn decided_by(mut self, path: &str) -> Self {
        self.mark =
            Mark { path: path.into(), before: self.before.get(path).copied(), after: self.after.get(path).copied() };
        assert_ne!(self.mark.before, self.mark.after, "the mark does not change: {path}");
        self
    }

    /// Judges a state in the middle of the operation.
    pub fn judge_cut(&self, report: &Report) -> (Option<Phase>, Vec<Violation>) {
        let mut found = Vec::new();
        found.extend(
            report.problems.iter().filter(|p| !self.is_benign(p)).map(|p| violation("damage", format!("{p:?}"))),
        );
        self.judge_bystanders(report, &mut found);
        for e in report.entries.iter().filter(|e| !self.bystanders.contains_key(&e.path) && !self.is_scratch(&e.path)) {
            let allowed = |c: Content| {
                self.before.get(&e.path) == Some(&c)
                    || self.after.get(&e.path) == Some(&c)
                    || self.passing.iter().any(|(path, p)| *path == e.path && *p == c)
            };
            if e.is_directory() && self.made.contains(&e.path) {
                continue;
            }
            let known = self.before.contains_key(&e.path) || self.after.contains_key(&e.path);
            if !known && !self.passing.iter().any(|(path, _)| *path == e.path) {
                found.push(violation("unexpected name", &e.path));
            } else if !e.content.is_some_and(allowed) {
                found.push(violation("neither old nor new", &e.path));
            }
        }
        let at_mark = report.content(&self.mark.path);
        let phase = match at_mark {
            c if c == self.mark.before => Phase::Before,
            c if c == self.mark.after => Phase::After,
            _ => {
                found.push(violation("no phase", format!("{} is {at_mark:?}", self.mark.path)));
                return (None, found);
            }
        };
        self.judge_boot(report, phase, &mut found);
        let tree = self.tree(phase);
        for (path, content) in tree.iter().filter(|(path, _)| !self.bystanders.contains_key(*path)) {
            if !report.entries.iter().any(|e| e.content == Some(*content) && !self.is_scratch(&e.path)) {
                found.push(violation("lost", format!("what is in {path} has no name")));
            }
        }
        (Some(phase), found)
    }

    /// Judges a finished operation, or a recovered one: everything is as before, or everything as after.
    pub fn judge_end(&self, report: &Report, at_least: Phase) -> (Option<Phase>, Vec<Violation>) {
        let mut found: Vec<_> =
            report.problems.iter().map(|p| violation("not clean at the end", format!("{p:?}"))).collect();
        if report.dirty != self.dirty {
            found.push(violation("dirty flag", format!("was {}, is {}", self.dirty, report.dirty)));
        }
        self.judge_bystanders(report, &mut found);
        let tree: Tree = report.entries.iter().filter_map(|e| Some((e.path.clone(), e.content?))).collect();
        let directories = report.entries.iter().filter(|e| e.is_directory());
        let directories: Vec<&str> = {
            let new = directories.filter(|e| !self.bystanders.contains_key(&e.path));
            new.map(|e| e.path.as_str()).collect()
        };
        for path in directories.iter().filter(|path| !self.made.iter().any(|made| made == *path)) {
            found.push(violation("left behind", *path));
        }
        let phase = if tree == self.after {
            Phase::After
        } else if tree == self.before {
            Phase::Before
        } else {
            let names: Vec<_> = tree.keys().filter(|p| !self.bystanders.contains_key(*p)).collect();
            found.push(violation("neither undone nor finished", format!("{names:?}")));
            return (None, found);
        };
        let expected = if phase == Phase::After { self.made.len() } else { 0 };
        if directories.len() != expected {
            found.push(violation("new directories", format!("{directories:?} {phase:?}")));
        }
        if phase < at_least && !self.reversible {
            found.push(violation("committed and undone", self.mark.path.clone()));
        }
        self.judge_boot(report, phase, &mut found);
        (Some(phase), found)
    }

    fn tree(&self, phase: Phase) -> &Tree {
        match phase {
            Phase::Before => &self.before,
            Phase::After => &self.after,
        }
    }

    fn judge_boot(&self, report: &Report, phase: Phase, found: &mut Vec<Violation>) {
        let there: Vec<_> = report.entries.iter().filter_map(|e| Some((e.path.as_str(), e.content?))).collect();
        let wanted: Vec<_> = self.tree(phase).iter().map(|(path, c)| (path.as_str(), *c)).collect();
        let (starts, should) = ((self.selects)(&there), (self.selects)(&wanted));
        if starts != should {
            found.push(violation("boots another image", format!("{starts:?} instead of {should:?} ({phase:?})")));
        }
    }

    fn judge_bystanders(&self, report: &Report, found: &mut Vec<Violation>) {
        let mut seen = 0;
        for e in &report.entries {
            if let Some(before) = self.bystanders.get(&e.path) {
                seen += 1;
                if before != e {
                    found.push(violation("bystander touched", &e.path));
                }
            }
        }
        if seen != self.bystanders.len() {
            let gone: Vec<_> =
                self.bystanders.keys().filter(|p| !report.entries.iter().any(|e| e.path == **p)).collect();
            found.push(violation("bystander gone", format!("{gone:?}")));
        }
    }

    fn is_scratch(&self, path: &str) -> bool {
        let inside =
            |s: &String| path.strip_prefix(s.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.scratch.iter().any(inside)
    }

    /// Kinds that a later `recover` repairs and that no reader minds.
    fn is_benign(&self, problem: &Problem) -> bool {
        let involved = |path: &String| !self.bystanders.contains_key(path);
        match problem {
            Problem::LostClusters(_) | Problem::FsInfoWrong { .. } => true,
            // A directory grows when its last cluster's entry is rewritten, in one copy after the other: whichever a
            // reader goes by, every name is there.
            Problem::FatsDiffer { used, directory, .. } => !used && *directory <= 1,
            Problem::SharedChain(a, b) => self.sharing.iter().any(|(x, y)| (a == x && b == y) || (a == y && b == x)),
            Problem::OrphanLfn { directory } => {
                let within = |path: &String| path.rsplit_once('/').map_or("", |(d, _)| d) == directory;
                let passing = self.passing.iter().map(|(path, _)| path);
                let passing = passing.chain(&self.made);
                let paths = self.before.keys().chain(self.after.keys()).chain(&self.scratch).chain(passing);
                { paths }.any(|path| involved(path) && within(path))
            }
            _ => false,
        }
    }
}

/// The newest `EFI/Linux/*.efi` by systemd-boot's order of names, which takes runs of digits as numbers and sorts `~`
/// before everything.
pub fn newest(files: &[(&str, Content)]) -> Option<Content> {
    let name = |path: &str| {
        let (directory, name) = path.rsplit_once('/')?;
        let bootable = directory.eq_ignore_ascii_case("EFI/Linux") && name.to_ascii_lowercase().ends_with(".efi");
        bootable.then(|| name.to_ascii_lowercase())
    };
    let entries = files.iter().filter_map(|(path, content)| Some((name(path)?, *content)));
    entries.max_by(|a, b| by_version(a.0.as_bytes(), b.0.as_bytes())).map(|(_, content)| content)
}

fn by_version(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let digits = |s: &[u8]| s.iter().take_while(|b| b.is_ascii_digit()).count();
    let rank = |s: &[u8]| s.first().map_or(1, |b| if *b == b'~' { 0 } else { i32::from(*b) + 2 });
    loop {
        let (n, m) = (digits(a), digits(b));
        if n > 0 && m > 0 {
            let number =
                |s: &[u8]| s.iter().fold(0u128, |v, d| v.saturating_mul(10).saturating_add(u128::from(d - b'0')));
            match number(&a[..n]).cmp(&number(&b[..m])) {
                Ordering::Equal => (a, b) = (&a[n..], &b[m..]),
                unequal => return unequal,
            }
            continue;
        }
        match rank(a).cmp(&rank(b)) {
            Ordering::Equal if a.is_empty() => return Ordering::Equal,
            Ordering::Equal => (a, b) = (&a[1..], &b[1..]),
            unequal => return unequal,
        }
    }
}

/// Watches where a run commits: one sector write, once, and on the same side of it in every reordered state.
pub struct CommitWatch {
    /// Sector, digest and epoch of every write.
    writes: Vec<(u64, u128, usize)>,
    last: Option<Phase>,
    /// The write that committed.
    pub committed_by: Option<usize>,
}

impl CommitWatch {
    pub fn new(events: &[IoEvent]) -> Self {
        let (mut writes, mut epoch) = (Vec::new(), 0);
        for event in events {
            match event {
                IoEvent::Write { sector, data, .. } => writes.push((*sector, data.id, epoch)),
                IoEvent::Barrier => epoch += 1,
                IoEvent::DropCaches => {}
            }
        }
        Self { writes, last: None, committed_by: None }
    }

    /// The state after so many writes in program order: the phase changes once and never back.
    pub fn see(&mut self, writes: usize, phase: Option<Phase>) -> Option<Violation> {
        let last = std::mem::replace(&mut self.last, phase);
        if writes == 0 || last == phase {
            return None;
        }
        if (last, phase) == (Some(Phase::Before), Some(Phase::After)) && self.committed_by.is_none() {
            self.committed_by = Some(writes - 1);
            return None;
        }
        Some(violation("more than one commit point", format!("{last:?} then {phase:?} at write {writes}")))
    }

    /// A reordered state is behind the commit exactly when the sector that commits was written.
    pub fn agrees(&self, frame: &Frame, epoch: usize, phase: Phase) -> Option<Violation> {
        let committed = self.committed_by.is_some_and(|at| {
            let (sector, _, commits_in) = self.writes[at];
            let now = frame.get(sector).id;
            let written = || self.writes[at..].iter().any(|(s, id, e)| *s == sector && *id == now && *e == commits_in);
            epoch > commits_in || epoch == commits_in && written()
        });
        let wrong = committed != (phase == Phase::After);
        wrong.then(|| violation("commit is not one sector", format!("{phase:?} in epoch {epoch}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formatter::short_entry;

    fn content(id: u128) -> Content {
        Content { size: 1, id }
    }

    /// A volume of these files and problems.
    fn report(files: &[(&str, u128)], problems: &[Problem]) -> Report {
        let entry = |(path, id): &(&str, u128)| Entry {
            path: (*path).to_owned(),
            raw: short_entry(b"NAME    EFI", 0x20, 2, 1),
            content: Some(content(*id)),
        };
        Report { entries: files.iter().map(entry).collect(), problems: problems.to_vec(), dirty: false, free: 0 }
    }

    const T: &str = "EFI/Linux/t.efi";
    const B: &str = "EFI/Linux/t.efi.bak";
    const OTHER: &str = "loader/loader.conf";
    const BEFORE: &[(&str, u128)] = &[(T, 1), (OTHER, 9)];
    const AFTER: &[(&str, u128)] = &[(T, 2), (B, 1), (OTHER, 9)];

    fn swap() -> Expectation {
        Expectation::new(&report(BEFORE, &[]), &[(T, Some(content(2))), (B, Some(content(1)))], T, newest)
    }

    fn kinds(found: &[Violation]) -> Vec<&'static str> {
        found.iter().map(|v| v.kind).collect()
    }

    #[test]
    fn old_and_new_pass_and_what_lies_between_does_not() {
        let lost = Problem::LostClusters(vec![5]);
        for (files, phase, expected) in [
            (BEFORE, Some(Phase::Before), &[][..]),
            (AFTER, Some(Phase::After), &[]),
            (&[(T, 2), (OTHER, 9)], Some(Phase::After), &["lost"]),
            (&[(T, 3), (OTHER, 9)], None, &["neither old nor new", "no phase"]),
            (&[(OTHER, 9)], None, &["no phase"]),
            (&[(T, 1), (OTHER, 8)], Some(Phase::Before), &["bystander touched"]),
            (&[(T, 1)], Some(Phase::Before), &["bystander gone"]),
            (&[(T, 1), (B, 2), (OTHER, 9)], Some(Phase::Before), &["neither old nor new"]),
            (
                &[(T, 1), ("EFI/Linux/u.efi", 2), (OTHER, 9)],
                Some(Phase::Before),
                &["unexpected name", "boots another image"],
            ),
        ] {
            let (seen, found) = swap().judge_cut(&report(files, std::slice::from_ref(&lost)));
            assert_eq!((seen, &kinds(&found)[..]), (phase, expected), "{files:?}");
        }
    }

    #[test]
    fn allowances_hold_on_the_way_and_not_at_the_end() {
        let shared = [Problem::SharedChain(T.into(), B.into())];
        let both = report(&[(T, 1), (B, 1), (OTHER, 9)], &shared);
        assert_eq!(kinds(&swap().judge_cut(&both).1), ["damage"]);
        assert_eq!(kinds(&swap().sharing(B, T).judge_cut(&both).1), [""; 0]);
        assert!(!swap().sharing(B, T).judge_end(&both, Phase::Before).1.is_empty());

        let staged = report(&[(T, 1), (B, 2), (OTHER, 9)], &[]);
        assert_eq!(kinds(&swap().passing(B, content(2)).judge_cut(&staged).1), [""; 0]);

        let record = report(&[(T, 1), (OTHER, 9), ("surgery/intent", 7)], &[]);
        assert_eq!(kinds(&swap().judge_cut(&record).1), ["unexpected name"]);
        assert_eq!(kinds(&swap().scratch("surgery").judge_cut(&record).1), [""; 0]);
        assert_eq!(
            kinds(&swap().scratch("surgery").judge_end(&record, Phase::Before).1),
            ["neither undone nor finished"]
        );
    }

    #[test]
    fn what_was_committed_stays_and_the_end_is_clean() {
        assert_eq!(kinds(&swap().judge_end(&report(BEFORE, &[]), Phase::After).1), ["committed and undone"]);
        assert_eq!(swap().judge_end(&report(AFTER, &[]), Phase::After), (Some(Phase::After), vec![]));
        let lost = [Problem::LostClusters(vec![5])];
        assert_eq!(kinds(&swap().judge_end(&report(AFTER, &lost), Phase::After).1), ["not clean at the end"]);
        let dirty = Report { dirty: true, ..report(AFTER, &[]) };
        assert_eq!(kinds(&swap().judge_end(&dirty, Phase::After).1), ["dirty flag"]);
    }

    #[test]
    fn names_sort_as_in_the_boot_menu() {
        let pick = |names: &[&str]| {
            let paths: Vec<String> = names.iter().map(|n| format!("EFI/Linux/{n}")).collect();
            let files: Vec<_> = paths.iter().enumerate().map(|(i, p)| (p.as_str(), content(i as u128))).collect();
            newest(&files).map(|c| names[c.id as usize].to_owned())
        };
        assert_eq!(pick(&["Talos-v1.9.0.efi", "Talos-v1.12.4.efi"]).unwrap(), "Talos-v1.12.4.efi");
        assert_eq!(pick(&["Talos-v1.12.4.efi", "Talos-v1.12.4~1.efi"]).unwrap(), "Talos-v1.12.4.efi");
        assert_eq!(pick(&["Talos-v1.12.4.efi.bak", "README"]), None);
    }
}
