//! One operation, cut everywhere; `recover` behind every cut, and cut itself.

use super::board::LINUX;
use super::counts::Counts;
use super::promises::{Moved, Promise};
use crate::checker::{Checker, Content, Problem, Report};
use crate::crash::{self, Cut, CutKind, Limits};
use crate::crash::{Frame, Random};
use crate::geometry::Geometry;
use crate::invariants::{CommitWatch, Phase, Violation, violation};
use crate::readers;
use crate::recorder::{IoEvent, Recorder};
use bootsurgeon::surgery::recover;
use std::collections::{HashMap, HashSet};

/// How deep to look.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Every so many states of a kind seen before, the recovery is cut too; of a new kind it always is.
    pub nested_every: usize,
    /// States sampled of an epoch that is too large to enumerate.
    pub sampled: usize,
}

/// Explores the run whose events these are.
pub struct Exploration<'a> {
    pub promise: &'a Promise<'a>,
    pub geometry: &'a Geometry,
    pub is_data: &'a dyn Fn(u64) -> bool,
    pub readable_by_all: bool,
    pub depth: Depth,
    pub checker: &'a mut Checker,
    pub random: Random,
    pub counts: &'a mut Counts,
    /// The state that is given to readers by other hands, if one is.
    pub asked: Option<usize>,
    /// Sectors of the data area that the run writes.
    pub data: Vec<u64>,
    /// The worlds that moved in a state from which a recovery was judged. States that differ in the bytes of free
    /// clusters alone are one.
    pub known: HashMap<u128, Moved>,
    pub kinds: HashSet<u64>,
    /// States of the operation so far.
    pub cuts: usize,
    pub violations: Vec<(String, Violation)>,
}

impl Exploration<'_> {
    /// Cuts everywhere; the frame stays as it was.
    pub fn run(&mut self, frame: &mut Frame, events: &[IoEvent]) {
        let worlds = self.promise.starts()[0].len();
        let mut watches: Vec<CommitWatch> = (0..worlds).map(|_| CommitWatch::new(events)).collect();
        let limits = self.limits();
        let is_data = self.is_data;
        crash::enumerate(frame, events, is_data, limits, &mut |frame, cut| self.one_cut(frame, cut, &mut watches));
    }

    fn limits(&mut self) -> Limits {
        Limits {
            complete: 1 << crash::COMPLETE_WRITES,
            sampled: self.depth.sampled,
            torn: 0,
            seed: self.random.next_u64(),
        }
    }

    fn one_cut(&mut self, frame: &mut Frame, cut: Cut, watches: &mut [CommitWatch]) {
        self.counts.states += 1;
        let report = self.checker.check(frame);
        let (moved, mut found) = self.promise.judge_cut(frame, &report);
        let commit = self.judge_commit(frame, cut, moved, watches);
        if found.is_empty() {
            found.extend(commit);
        }
        self.cuts += 1;
        if self.asked == Some(self.cuts) {
            self.ask(frame, &report, &mut found);
        }
        let sound = found.is_empty();
        self.report(&format!("{cut:?}"), found);
        if sound && !self.known.contains_key(&self.key(frame)) {
            let nested = self.kinds.insert(kind_of(&report)) || self.random.below(self.depth.nested_every) == 0;
            self.recover(frame, &format!("{cut:?}"), moved, nested);
        }
    }

    /// Tells states apart, but for the bytes of free clusters.
    fn key(&self, frame: &Frame) -> u128 {
        let free = |s: &u64| self.geometry.cluster_of(*s).is_some_and(|c| self.geometry.is_free(frame, c));
        frame.key_without(self.data.iter().copied().filter(free))
    }

    /// In each world one write decides, once, and on the same side of it in every order.
    fn judge_commit(&self, frame: &Frame, cut: Cut, moved: Moved, watches: &mut [CommitWatch]) -> Vec<Violation> {
        let [before, after] = self.promise.starts();
        let mut found = Vec::new();
        for (world, watch) in watches.iter_mut().enumerate().filter(|(w, _)| before[*w] != after[*w]) {
            let phase = if moved & 1 << world == 0 { Phase::Before } else { Phase::After };
            found.extend(match cut.kind {
                CutKind::Prefix(writes) => watch.see(writes, Some(phase)),
                _ => watch.agrees(frame, cut.epoch, phase),
            });
        }
        found
    }

    fn recover(&mut self, frame: &mut Frame, at: &str, moved: Moved, nested: bool) {
        self.counts.recoveries += 1;
        let recorder = Recorder::new(std::mem::take(frame));
        let result = recover(&recorder);
        let mut recording = recorder.into_recording();
        let mut found: Vec<Violation> =
            recording.misuse.iter().map(|detail| violation("misuse of the medium", detail)).collect();
        if let Err(e) = &result {
            found.push(violation("recover failed", e.to_string()));
        } else {
            let report = self.checker.check(&recording.frame);
            let told = result.map(|done| format!("{:?}", done.actions)).unwrap_or_default();
            let judged = self.promise.judge_recovered(&recording.frame, &report, moved);
            found.extend(judged.into_iter().map(|v| violation(v.kind, format!("{} [{told}]", v.detail))));
            let again = Recorder::new(recording.frame);
            if let Err(e) = recover(&again) {
                found.push(violation("second recover failed", e.to_string()));
            }
            let again = again.into_recording();
            if again.wrote() {
                found.push(violation("second recover writes", ""));
            }
            recording.frame = again.rewind().0;
        }
        let (back, events) = recording.rewind();
        *frame = back;
        self.known.insert(self.key(frame), moved);
        let sound = found.is_empty();
        self.report(&format!("recover after {at}"), found);
        if sound && nested && !events.is_empty() {
            self.cut_recovery(frame, &events, at, moved);
        }
    }

    fn cut_recovery(&mut self, frame: &mut Frame, events: &[IoEvent], at: &str, moved: Moved) {
        let limits = Limits { sampled: 6, ..self.limits() };
        let is_data = self.is_data;
        crash::enumerate(frame, events, is_data, limits, &mut |frame, cut| {
            self.counts.nested += 1;
            let at = format!("{cut:?} in recover after {at}");
            let now = match self.known.get(&self.key(frame)) {
                Some(now) => *now,
                None => {
                    let report = self.checker.check(frame);
                    let (now, found) = self.promise.judge_cut(frame, &report);
                    let sound = found.is_empty();
                    self.report(&at, found);
                    if sound {
                        self.recover(frame, &at, now, false);
                    }
                    now
                }
            };
            if moved & !now != 0 {
                self.report(&at, vec![violation("recover takes the commit back", format!("{moved:b} to {now:b}"))]);
            }
        });
    }

    fn report(&mut self, at: &str, found: Vec<Violation>) {
        self.counts.bad += usize::from(!found.is_empty());
        self.violations.extend(found.into_iter().map(|v| (at.to_owned(), v)));
    }

    /// The opinion of readers by other hands. `POWERCUT_KEEP=FOLDER` keeps what they disagree about.
    fn ask(&mut self, frame: &Frame, report: &Report, found: &mut Vec<Violation>) {
        let (sound, earlier) = (found.is_empty(), self.counts.asked.all());
        self.ask_others(frame, report, found);
        self.counts.asked.by_anyone += usize::from(self.counts.asked.all() > earlier);
        if sound
            && !found.is_empty()
            && let Ok(folder) = std::env::var("POWERCUT_KEEP")
        {
            let _ = std::fs::write(format!("{folder}/{:032x}.img", frame.key()), frame.to_bytes());
        }
    }

    /// The opinion of readers that share no code with the checker, nor with each other.
    fn ask_others(&mut self, frame: &Frame, report: &Report, found: &mut Vec<Violation>) {
        // fsck.fat always compares the FATs, and reads the first.
        if self.geometry.active.is_none() {
            self.counts.asked.fsck += 1;
            match readers::by_fsck(frame) {
                Ok(complaints) if complaints.is_empty() == (report.is_clean() && !report.dirty) => {}
                Ok(complaints) => {
                    found.push(violation("fsck.fat disagrees", format!("{complaints:?} but {:?}", report.problems)));
                }
                Err(e) => found.push(violation("fsck.fat did not run", e.to_string())),
            }
        }
        // 7-Zip opens no volume with name slots that belong to nothing.
        if !report.problems.iter().any(|p| matches!(p, Problem::OrphanLfn { .. })) {
            self.counts.asked.seven_zip += 1;
            found.extend(readers::seven_zip_disagrees(frame, report).map(|d| violation("7-Zip disagrees", d)));
        }
        // The others take FAT32 only with 65,525 clusters or more.
        if !self.readable_by_all {
            return;
        }
        self.counts.asked.fatfs += 1;
        found.extend(readers::disagreement(frame, report).map(|d| violation("the fatfs crate disagrees", d)));
        self.counts.asked.mtools += 1;
        let in_menu = |path: &&str| path.starts_with(LINUX) && path.to_ascii_lowercase().ends_with(".efi");
        let files = report.entries.iter().filter(|e| e.content.is_some());
        let paths: Vec<&str> = files.map(|e| e.path.as_str()).filter(in_menu).take(3).collect();
        match readers::by_mtools(frame, &paths) {
            Ok(read) => {
                for (path, bytes) in paths.iter().zip(read) {
                    let content = bytes.map(|b| Content::of(&b, frame.sector_size()));
                    if content != report.content(path) {
                        found.push(violation("mtools disagrees", format!("{path}: {content:?}")));
                    }
                }
            }
            Err(e) => found.push(violation("mtools did not run", e.to_string())),
        }
    }
}

/// Tells states apart by what a recovery finds: names, contents, and sorts of problems.
fn kind_of(report: &Report) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    for e in &report.entries {
        (&e.path, e.content).hash(&mut hasher);
    }
    for p in &report.problems {
        std::mem::discriminant::<Problem>(p).hash(&mut hasher);
    }
    hasher.finish()
}
