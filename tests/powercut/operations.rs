//! An operation under the harness: recorded, cut at every point, judged, recovered, cut again inside the recovery.

use crate::checker::{Checker, Report};
use crate::crash::{self, Cut, CutKind, Limits};
use crate::crash::{Frame, Random};
use crate::invariants::{CommitWatch, Expectation, Phase, Violation};
use crate::readers;
use crate::recorder::{Access, How, IoEvent, IoFault, Recorder, Recording};
use crate::tally::Tally;
use crate::volumes::{Shape, Volume};
use bootsurgeon::block::WriteAt;
use bootsurgeon::surgery::{INTENT_NAME, Interrupted, interrupted};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What is put under the harness.
pub trait Operation: Send + Sync {
    fn run(&self, medium: &dyn WriteAt) -> bootsurgeon::Result<()>;

    /// What the user runs after the power came back; on a volume that is whole it changes nothing.
    fn recover(&self, medium: &dyn WriteAt) -> bootsurgeon::Result<()>;
}

/// An operation on a volume.
pub struct Scenario {
    pub name: String,
    /// The operation alone, for tables.
    pub operation_name: &'static str,
    pub volume: Volume,
    pub expectation: Expectation,
    pub operation: Box<dyn Operation>,
}

/// Builds a scenario; the seed decides the bytes of its files.
pub type Maker = Box<dyn Fn(u64) -> Scenario + Sync>;

/// One scenario for each of the shapes. `plan` says what the operation does on a volume, and gives the operation:
/// written once, tried on every volume.
pub fn scenarios<P>(name: &'static str, shapes: impl IntoIterator<Item = Shape>, plan: P) -> Vec<Maker>
where
    P: Fn(&Volume, &Report) -> (Expectation, Box<dyn Operation>) + Copy + Sync + 'static,
{
    let maker = |shape: Shape| -> Maker {
        Box::new(move |seed| {
            let volume = Volume::build(Shape { seed, ..shape });
            let report = Checker::default().check(&volume.frame);
            let (expectation, operation) = plan(&volume, &report);
            let full = format!("{name}, {}", shape.describe());
            Scenario { name: full, operation_name: name, volume, expectation, operation }
        })
    };
    shapes.into_iter().map(maker).collect()
}

/// How much to do.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// States in all scenarios together.
    pub states: usize,
    pub seed: u64,
    /// Every so many scenarios is run; 1 for all of them.
    pub every: usize,
}

impl Budget {
    /// From `POWERCUT_STATES` and `POWERCUT_SEED`. Where nothing is asked for, a quick run of one in `every` scenarios.
    pub fn from_environment(quick: u64, every: usize) -> Self {
        let every = if std::env::var_os("POWERCUT_STATES").is_some() { 1 } else { every };
        let number = |name: &str, otherwise: u64| match std::env::var(name) {
            Ok(text) => text.replace(['_', ','], "").parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")),
            Err(_) => otherwise,
        };
        Self { states: number("POWERCUT_STATES", quick) as usize, seed: number("POWERCUT_SEED", 1), every }
    }
}

/// Checks and prints the summary with the command that repeats it. `test` is the name of the calling test.
pub fn prove(test: &str, makers: &[Maker], budget: Budget) -> Tally {
    let started = Instant::now();
    let tally = check(makers, budget);
    println!("\n{test}, {:.1} s\n{}", started.elapsed().as_secs_f32(), tally.table());
    let states = if budget.every == 1 { format!("POWERCUT_STATES={} ", budget.states) } else { String::new() };
    let seed = budget.seed;
    println!("  again: {states}POWERCUT_SEED={seed} cargo test --test powercut -- --nocapture {test}");
    tally
}

/// Runs every scenario, on all processors, again with other seeds until the wanted number of states is reached.
pub fn check(makers: &[Maker], budget: Budget) -> Tally {
    let only = std::env::var("POWERCUT_ONLY").unwrap_or_default();
    let total = Mutex::new(Tally::default());
    let mut round = 0;
    loop {
        let before = total.lock().unwrap().all_states();
        let share = (budget.states - before).div_ceil(makers.len().div_ceil(budget.every).max(1)).max(60);
        let next = AtomicUsize::new(0);
        let seed = budget.seed.wrapping_add(round * 1_000_003);
        let work = || {
            let mut tally = Tally::default();
            while let Some(maker) = makers.get(next.fetch_add(budget.every, Ordering::Relaxed)) {
                let scenario = maker(seed);
                if scenario.name.contains(&only) {
                    let mut one = Tally { scenarios: usize::from(round == 0), ..Tally::default() };
                    Run::new(&scenario, seed, share, &mut one).everything(round == 0);
                    one.file_under(&scenario);
                    tally.add(&one);
                }
            }
            total.lock().unwrap().add(&tally);
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        round += 1;
        let (reached, bad) = total.lock().map(|t| (t.all_states(), t.bad)).unwrap();
        if budget.every == 1 && budget.states >= 100_000 {
            println!("  round {round}: {reached} of {} states, {bad} with a violation", budget.states);
        }
        if reached >= budget.states || reached == before || round >= 1000 {
            break;
        }
    }
    total.into_inner().unwrap()
}

/// A cache was to be dropped while what is in it was not on the medium yet: what is read back then proves nothing.
fn unflushed_read_back(events: &[IoEvent]) -> Option<Violation> {
    let mut flushed = true;
    let bad = events.iter().any(|e| match e {
        IoEvent::Write { .. } => {
            flushed = false;
            false
        }
        IoEvent::Barrier => {
            flushed = true;
            false
        }
        IoEvent::DropCaches => !flushed,
    });
    let detail = "caches are dropped before the barrier".to_owned();
    bad.then_some(Violation { kind: "read back from a cache", detail })
}

/// Cuts one scenario everywhere, until the first violation.
pub fn search(scenario: &Scenario) -> Tally {
    let mut tally = Tally::default();
    let mut run = Run::new(scenario, 1, 60, &mut tally);
    run.until_first = true;
    // What is said to be harmless was cut in every recovery, not in a sample.
    run.nested_every = 1;
    run.everything(false);
    tally
}

/// What the undisturbed run of a scenario writes.
pub fn record_events(scenario: &Scenario) -> Vec<IoEvent> {
    let recorder = Recorder::new(scenario.volume.frame.clone());
    scenario.operation.run(&recorder).unwrap_or_else(|e| panic!("{}: {e}", scenario.name));
    recorder.into_recording().events
}

/// The results in the order of `items`, worked out on all processors.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let run = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(n) else { break };
            let result = work(item);
            done.lock().unwrap().push((n, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run);
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Success was reported although the last write may still be lost.
fn unsynced(events: &[IoEvent]) -> Option<Violation> {
    let last = events.iter().rev().find(|e| !matches!(e, IoEvent::DropCaches))?;
    let detail = "the last write may be lost".to_owned();
    (!matches!(last, IoEvent::Barrier)).then_some(Violation { kind: "success without a barrier", detail })
}

/// A change to a recorded run, as a mistake in the operation would make it: the suite has to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The nth barrier, from 0, is not there.
    NoBarrier(usize),
    /// The writes before the nth barrier and those after it in the other order.
    Swapped(usize),
}

/// Every mutation of a scenario's run, and what cutting the mutated run shows.
pub fn mutate(scenario: &Scenario, budget: Budget) -> Vec<(Mutation, Tally)> {
    let mut tally = Tally::default();
    let recorded = Run::new(scenario, budget.seed, budget.states, &mut tally).record(scenario.volume.frame.clone());
    let recording = recorded.unwrap_or_else(|| panic!("{} fails unmutated: {}", scenario.name, tally.table()));
    let (mut frame, events) = recording.rewind();
    let barriers = events.iter().filter(|e| matches!(e, IoEvent::Barrier)).count();
    let dropped = (0..barriers).map(Mutation::NoBarrier);
    let swapped = (0..barriers.saturating_sub(1)).map(Mutation::Swapped);
    let mut cut = |mutation| {
        let events = mutated(&mut frame, &events, mutation);
        let mut tally = Tally::default();
        Run::new(scenario, budget.seed, budget.states, &mut tally).mutant(&mut frame, &events);
        (mutation, tally)
    };
    dropped.chain(swapped).map(&mut cut).collect()
}

/// The changed events, each with what its sector then held before.
fn mutated(frame: &mut Frame, events: &[IoEvent], mutation: Mutation) -> Vec<IoEvent> {
    let mut spans: Vec<Vec<IoEvent>> =
        events.split_inclusive(|e| matches!(e, IoEvent::Barrier)).map(<[_]>::to_vec).collect();
    match mutation {
        Mutation::NoBarrier(n) => {
            spans[n].pop();
        }
        Mutation::Swapped(n) => spans.swap(n, n + 1),
    }
    let mut changed = spans.concat();
    for event in &mut changed {
        if let IoEvent::Write { sector, data, before } = event {
            *before = frame.set(*sector, data.clone());
        }
    }
    crash::undo(frame, &changed);
    changed
}

/// One scenario being cut.
struct Run<'a> {
    scenario: &'a Scenario,
    tally: &'a mut Tally,
    checker: Checker,
    random: Random,
    seed: u64,
    share: usize,
    /// Every so many states is also given to readers by other hands, or cut inside its recovery.
    readers_every: usize,
    nested_every: usize,
    kinds: HashSet<u64>,
    /// Torn sectors to try.
    torn: usize,
    /// One violation is enough.
    until_first: bool,
}

/// Tells states apart by what a recovery finds: files, their contents, and sorts of problems.
fn kind_of(report: &Report) -> u64 {
    let mut hasher = DefaultHasher::new();
    for e in &report.entries {
        (&e.path, e.content).hash(&mut hasher);
    }
    for p in &report.problems {
        std::mem::discriminant(p).hash(&mut hasher);
    }
    hasher.finish()
}

/// What is known of a state that was judged.
struct Judged {
    phase: Option<Phase>,
    report: Report,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, seed: u64, share: usize, tally: &'a mut Tally) -> Self {
        let (checker, random) = (Checker::default(), Random::new(seed ^ 0xD1CE));
        let (readers_every, nested_every) = ((share / 6).max(25), (share / 8).max(10));
        Self {
            scenario,
            tally,
            checker,
            random,
            seed,
            share,
            readers_every,
            nested_every,
            kinds: HashSet::new(),
            torn: 0,
            until_first: false,
        }
    }

    fn enough(&self) -> bool {
        self.until_first && self.tally.bad > 0
    }

    fn everything(&mut self, first_round: bool) {
        let recording = self.record(self.scenario.volume.frame.clone());
        let Some(recording) = recording else { return };
        // Other seeds tear the same sectors in the same places.
        self.torn = if first_round { (self.share / 4).clamp(16, 4096) } else { 0 };
        let counts = recording.counts;
        let (mut frame, events) = recording.rewind();
        self.cut_everywhere(&mut frame, &events);
        if first_round {
            self.inject(&frame, counts.reads, Access::Read);
            self.inject(&frame, counts.writes, Access::Write);
            self.inject(&frame, counts.barriers, Access::Barrier);
        }
    }

    /// The undisturbed run: it has to succeed and to leave a clean volume.
    fn record(&mut self, frame: Frame) -> Option<Recording> {
        let recorder = Recorder::new(frame);
        let result = self.scenario.operation.run(&recorder);
        let recording = recorder.into_recording();
        let mut found = Vec::new();
        if let Err(e) = result {
            found.push(Violation { kind: "the operation failed", detail: e.to_string() });
        }
        found.extend(recording.misuse.clone().map(|detail| Violation { kind: "misuse of the medium", detail }));
        found.extend(unsynced(&recording.events));
        found.extend(unflushed_read_back(&recording.events));
        let report = self.checker.check(&recording.frame);
        found.extend(self.scenario.expectation.judge_end(&report, Phase::After).1);
        self.ask_others(&recording.frame, &report, &mut found);
        let good = found.is_empty();
        self.tally.report(&self.scenario.name, &"undisturbed run", found);
        good.then_some(recording)
    }

    /// Judges a changed run: its end, and its cuts.
    fn mutant(&mut self, frame: &mut Frame, events: &[IoEvent]) {
        crash::redo(frame, events);
        let report = self.checker.check(frame);
        crash::undo(frame, events);
        let mut found = self.scenario.expectation.judge_end(&report, Phase::After).1;
        found.extend(unsynced(events));
        self.tally.report(&self.scenario.name, &"end", found);
        self.cut_everywhere(frame, events);
    }

    fn cut_everywhere(&mut self, frame: &mut Frame, events: &[IoEvent]) {
        let limits = self.limits(events);
        let is_data = self.scenario.volume.data_sectors();
        let mut watch = CommitWatch::new(events);
        crash::enumerate(frame, events, &is_data, limits, &mut |frame, cut| self.one_cut(frame, cut, &mut watch));
        let complete = crash::epochs(events, &is_data, limits);
        self.tally.complete_epochs += complete.0;
        self.tally.sampled_epochs += complete.1;
        if watch.committed_by.is_none() {
            let detail = "no prefix commits".to_owned();
            self.tally.report(
                &self.scenario.name,
                &"all prefixes",
                vec![Violation { kind: "no commit point", detail }],
            );
        }
    }

    /// Spreads this scenario's share over its epochs.
    fn limits(&self, events: &[IoEvent]) -> Limits {
        let epochs = 1 + events.iter().filter(|e| matches!(e, IoEvent::Barrier)).count();
        let writes = events.len() + 1 - epochs;
        let each = self.share.saturating_sub(writes).div_ceil(epochs).max(8);
        // 16 sector writes have at most 65,536 states: no epoch within the specification's bound is ever sampled.
        Limits { complete: 1 << crash::COMPLETE_WRITES, sampled: each, torn: self.torn, seed: self.seed }
    }

    fn one_cut(&mut self, frame: &mut Frame, cut: Cut, watch: &mut CommitWatch) {
        if self.enough() {
            return;
        }
        let report = self.checker.check(frame);
        let (phase, mut found) = self.scenario.expectation.judge_cut(&report);
        if let CutKind::Torn { .. } = cut.kind {
            self.tally.torn += 1;
            self.tally.torn_bad += usize::from(!found.is_empty());
            return;
        }
        self.tally.states += 1;
        match (cut.kind, phase) {
            (CutKind::Prefix(writes), _) => found.extend(watch.see(writes, phase)),
            (_, Some(phase)) => found.extend(watch.agrees(frame, cut.epoch, phase)),
            (_, None) => {}
        }
        if self.tally.states.is_multiple_of(self.readers_every) {
            self.ask_others(frame, &report, &mut found);
        }
        if self.until_first || self.tally.states.is_multiple_of(4) {
            self.ask_doctor(frame, &report, &mut found);
        }
        let sound = found.is_empty();
        self.tally.report(&self.scenario.name, &cut, found);
        if sound {
            // A recovery that starts from a new kind of state is always cut; of the others a sample.
            let nested = self.kinds.insert(kind_of(&report)) || self.tally.states.is_multiple_of(self.nested_every);
            self.recover(frame, &cut, &Judged { phase, report }, nested);
        }
    }

    /// Recovers, judges, recovers again, and leaves the frame as it was.
    fn recover(&mut self, frame: &mut Frame, at: &dyn std::fmt::Debug, cut: &Judged, nested: bool) {
        self.tally.recoveries += 1;
        let (frames, mut found) = self.recovered(std::mem::take(frame), cut.phase);
        let (mut back, events) = frames;
        let at_recovery = format!("recovery from {at:?} with {:?}", cut.report.problems);
        if found.is_empty() && nested && !events.is_empty() {
            self.cut_recovery(&mut back, &events, cut.phase, &at_recovery);
        }
        *frame = back;
        self.tally.report(&self.scenario.name, &at_recovery, std::mem::take(&mut found));
    }

    /// Recovers twice; the medium as it was, with what the first recovery did.
    fn recovered(&mut self, frame: Frame, phase: Option<Phase>) -> ((Frame, Vec<IoEvent>), Vec<Violation>) {
        let recorder = Recorder::new(frame);
        let result = self.scenario.operation.recover(&recorder);
        let recording = recorder.into_recording();
        let mut found = Vec::new();
        found.extend(recording.misuse.clone().map(|detail| Violation { kind: "misuse of the medium", detail }));
        if let Err(e) = result {
            found.push(Violation { kind: "recover failed", detail: e.to_string() });
            return (recording.rewind(), found);
        }
        found.extend(unsynced(&recording.events));
        let report = self.checker.check(&recording.frame);
        found.extend(self.scenario.expectation.judge_end(&report, phase.unwrap_or(Phase::Before)).1);
        let (events, again) = (recording.events, Recorder::new(recording.frame));
        let result = self.scenario.operation.recover(&again);
        let again = again.into_recording();
        if let Err(e) = result {
            found.push(Violation { kind: "second recover failed", detail: e.to_string() });
        }
        if again.wrote() {
            found.push(Violation { kind: "second recover writes", detail: format!("{} sectors", again.events.len()) });
        }
        let (frame, _) = again.rewind();
        let first = Recording { frame, events, counts: recording.counts, misuse: None };
        (first.rewind(), found)
    }

    fn cut_recovery(&mut self, frame: &mut Frame, events: &[IoEvent], phase: Option<Phase>, at: &str) {
        let is_data = self.scenario.volume.data_sectors();
        let seed = self.random.next_u64();
        let limits = Limits { complete: 1 << crash::COMPLETE_WRITES, sampled: 6, torn: 0, seed };
        crash::enumerate(frame, events, &is_data, limits, &mut |frame, cut| {
            if self.enough() {
                return;
            }
            self.tally.nested += 1;
            let report = self.checker.check(frame);
            let (now, mut found) = self.scenario.expectation.judge_cut(&report);
            if now < phase && !self.scenario.expectation.is_reversible() {
                found.push(Violation {
                    kind: "recovery takes the commit back",
                    detail: format!("{phase:?} to {now:?}"),
                });
            }
            if found.is_empty() {
                let (back, more) = self.recovered(std::mem::take(frame), now);
                *frame = back.0;
                found = more;
            }
            self.tally.report(&self.scenario.name, &format!("{cut:?} inside {at}"), found);
        });
    }

    /// The opinion of `fsck.fat`, the fatfs crate and mtools.
    fn ask_others(&mut self, frame: &Frame, report: &Report, found: &mut Vec<Violation>) {
        let volume = &self.scenario.volume;
        let mut add = |kind, detail| found.push(Violation { kind, detail });
        // fsck.fat does not know of volumes without mirroring: it always compares the FATs and reads the first.
        if volume.geometry.active.is_none() {
            self.tally.fsck += 1;
            match readers::by_fsck(frame) {
                Ok(complaints) if complaints.is_empty() == (report.is_clean() && !report.dirty) => {}
                Ok(complaints) => add("fsck.fat disagrees", format!("{complaints:?} but {:?}", report.problems)),
                Err(e) => add("fsck.fat did not run", e.to_string()),
            }
        }
        if !volume.shape.is_read_by_all() {
            return;
        }
        self.tally.fatfs += 1;
        if let Some(difference) = readers::disagreement(frame, report) {
            add("the fatfs crate disagrees", difference);
        }
        let uki = |path: &&str| path.to_ascii_lowercase().starts_with("efi/linux/talos");
        let files = report.entries.iter().filter(|e| e.content.is_some());
        let paths: Vec<&str> = files.map(|e| e.path.as_str()).filter(uki).collect();
        self.tally.mtools += 1;
        match readers::by_mtools(frame, &paths) {
            Ok(read) => {
                for (path, bytes) in paths.iter().zip(read) {
                    let content = bytes.map(|b| crate::checker::Content::of(&b, frame.sector_size()));
                    if content != report.content(path) {
                        add("mtools disagrees", format!("{path}: {content:?}"));
                    }
                }
            }
            Err(e) => add("mtools did not run", e.to_string()),
        }
    }

    /// The opinion of the program's own health check, which decides whether the next operation may begin.
    fn ask_doctor(&mut self, frame: &Frame, report: &Report, found: &mut Vec<Violation>) {
        self.tally.doctor += 1;
        let opened = bootsurgeon::fat::Volume::open(frame);
        if report.find(INTENT_NAME).is_some() {
            match opened.as_ref().map(interrupted) {
                Ok(Ok(Some(Interrupted { operation: Some(_), .. }))) => {}
                other => found.push(Violation {
                    kind: "the record does not say what was interrupted",
                    detail: format!("{:?}", other.map(|r| r.map_err(|e| e.to_string())).map_err(|e| e.to_string())),
                }),
            }
        }
        let says = opened.and_then(|v| bootsurgeon::fat::Health::check(&v));
        match says {
            Ok(health)
                if (health.is_healthy() && health.lost.is_empty() && !health.fsinfo_stale) == report.is_clean() => {}
            Ok(health) => found.push(Violation {
                kind: "the health check disagrees",
                detail: format!("{:?} but {:?}", health.problems, report.problems),
            }),
            Err(e) => found.push(Violation { kind: "the health check fails", detail: e.to_string() }),
        }
    }

    /// Lets the nth access of a kind fail, for every n (a sample where there are many), in every way.
    fn inject(&mut self, frame: &Frame, accesses: u64, on: Access) {
        let ways: &[How] = match on {
            Access::Write => &[How::Fails, How::Short(0), How::Short(1), How::Vanishes],
            Access::Read | Access::Barrier => &[How::Fails, How::Vanishes],
        };
        let step = (accesses * ways.len() as u64).div_ceil(self.share.clamp(16, 64) as u64 / 4).max(1) as usize;
        let offset = self.random.below(step);
        for nth in (offset as u64..accesses).step_by(step) {
            for how in ways {
                self.one_fault(frame, IoFault { on, nth, how: *how });
            }
        }
    }

    fn one_fault(&mut self, frame: &Frame, fault: IoFault) {
        self.tally.faults += 1;
        let recorder = Recorder::with_fault(frame.clone(), fault);
        let result = self.scenario.operation.run(&recorder);
        let mut recording = recorder.into_recording();
        let report = self.checker.check(&recording.frame);
        let (phase, found) = match result {
            Ok(()) => self.scenario.expectation.judge_end(&report, Phase::After),
            Err(_) => self.scenario.expectation.judge_cut(&report),
        };
        let sound = found.is_empty();
        self.tally.report(&self.scenario.name, &fault, found);
        if sound {
            self.recover(&mut recording.frame, &fault, &Judged { phase, report }, false);
        }
        // What was written behind the last barrier that returned may also be gone.
        let events = &recording.events;
        let synced = events.iter().rposition(|e| matches!(e, IoEvent::Barrier)).map_or(0, |n| n + 1);
        for event in events[synced..].iter().rev() {
            if let IoEvent::Write { sector, before, .. } = event {
                recording.frame.set(*sector, before.clone());
            }
        }
        let report = self.checker.check(&recording.frame);
        let (_, found) = self.scenario.expectation.judge_cut(&report);
        self.tally.report(&self.scenario.name, &format!("{fault:?} and a power cut"), found);
    }
}
