//! A scenario: a board, and what is done to it one thing after the other.

use super::board::{Board, End, LINUX};
use super::counts::Counts;
use super::explore::{Depth, Exploration};
use super::promises::{Promise, RECORD, WORLDS, lost, lost_clusters};
use super::starts::{Images, Oracle, Start};
use super::steps::{Done, How, Step, Tampering};
use crate::checker::{Checker, Content, Report};
use crate::crash::{self, Limits};
use crate::crash::{Frame, Random};
use crate::formatter::first_cluster;
use crate::invariants::{Violation, violation};
use crate::recorder::{IoEvent, Recorder};
use bootsurgeon::Kind;
use bootsurgeon::esp::Inventory;
use std::collections::HashSet;

/// What the board is to start when a step is done.
enum Wanted {
    /// In every world the system of this image.
    Image(Content),
    /// The system of this image, or in a world in which something else starts what it started before.
    InPlace(Content),
    /// What it started before.
    Same,
    /// What it started before, or what an interrupted operation had it start before or afterwards. A board that was
    /// down may come up with what somebody else has put there since.
    OneOf([Vec<Start>; 2], Vec<Content>),
}

/// An operation that a power cut interrupted.
struct Interrupted {
    starts: [Vec<Start>; 2],
    may_go: HashSet<Content>,
    /// The names that it touches in `EFI/Linux`.
    names: Vec<String>,
    /// What somebody else has put there since: names that keep their contents.
    others: Vec<(String, Content)>,
    /// Every content that came with that, under a new name or in the place of another file.
    written: Vec<Content>,
    /// Whether it keeps no record: see [`Promise::piecemeal`].
    piecemeal: bool,
}

/// Of so many operations in a hundred one state is given to readers by other hands. Sorts of volumes and operations
/// that are drawn seldom are asked about more often, so that a run of 300,000 states has each of them.
fn readers(board: &Board, step: &Step) -> usize {
    let seldom = [board.shape.sector == 4096, board.shape.active.is_some(), !matches!(step, Step::Swap { .. })];
    seldom.iter().fold(8, |percent, seldom| if *seldom { percent * 4 } else { percent }).min(100)
}

pub struct Scenario<'c> {
    seed: u64,
    random: Random,
    counts: &'c mut Counts,
    /// Whether to tell the story.
    tell: bool,
    checker: Checker,
    images: Images,
    /// A stranger's lost clusters.
    foreign: Vec<(u32, u32)>,
    nth: u64,
    tampering: Option<Tampering>,
    end: End,
}

impl<'c> Scenario<'c> {
    pub fn new(seed: u64, counts: &'c mut Counts, tell: bool) -> Self {
        let random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xB00_7500);
        let (checker, images, foreign) = (Checker::default(), Images::default(), Vec::new());
        let (nth, tampering, end) = (0, None, End::Menu);
        Self { seed, random, counts, tell, checker, images, foreign, nth, tampering, end }
    }

    /// The way of the boot ends there.
    pub fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// The program makes this mistake in every operation.
    pub fn tampered(mut self, tampering: Tampering) -> Self {
        self.tampering = Some(tampering);
        self
    }

    fn how<'b>(&self, board: &'b Board) -> How<'b> {
        let (variables, esp) = (&board.variables, board.esp.as_ref().map(|(frame, _)| frame));
        How { variables, nth: self.nth, tampering: self.tampering, esp, directory: board.directory() }
    }

    pub fn run(mut self) {
        self.counts.scenarios += 1;
        let board = Board::draw(&mut self.random, self.end);
        for (name, image) in &board.images {
            self.images.add(image, board.shape.sector as usize, name);
        }
        let mut frame = board.frame.clone();
        let report = self.checker.check(&frame);
        self.foreign = lost(&report, &frame, &board.geometry);
        if self.tell {
            println!("scenario {}: {}", self.seed, board.describe());
        }
        for _ in 0..self.random.pick(&[1, 2, 2, 3, 4]) {
            let step = self.draw(&board, &frame);
            frame = self.step(&board, frame, &step, None);
        }
    }

    fn draw(&mut self, board: &Board, frame: &Frame) -> Step {
        let report = self.checker.check(frame);
        let prefix = format!("{}/", board.directory());
        let names: Vec<String> =
            report.entries.iter().filter_map(|e| Some(e.path.strip_prefix(&prefix)?.to_owned())).collect();
        let esp = Inventory::read(frame, board.variables.clone()).ok();
        let selected = esp.as_ref().and_then(|esp| Some(esp.selected()?.name().to_owned()));
        let mut step = Step::draw(&mut self.random, board.arch, board.shape.sector, &names, selected.as_deref());
        // A bare name is one of the menu.
        if let (Step::Swap { target, .. }, true) = (&mut step, board.end != End::Menu) {
            *target = None;
        }
        if let Some(image) = step.image() {
            self.images.add(image, board.shape.sector as usize, "a new image");
        }
        step
    }

    /// Carries a step out and cuts it; the volume that the next step finds.
    fn step(&mut self, board: &Board, frame: Frame, step: &Step, cut: Option<&Interrupted>) -> Frame {
        self.nth += 1;
        let before = self.checker.check(&frame);
        let recorder = Recorder::new(frame);
        let result = step.perform(&recorder, &self.how(board));
        let recording = recorder.into_recording();
        let after = self.checker.check(&recording.frame);
        let mut found: Vec<Violation> =
            recording.misuse.iter().map(|detail| violation("misuse of the medium", detail)).collect();
        let word = step.word();
        let told = match &result {
            Ok(Done { changed: true, .. }) => "done".to_owned(),
            Ok(_) => "nothing to do".to_owned(),
            Err(e) => format!("refused: {e}"),
        };
        if self.tell {
            println!("  step {}: {}: {told}", self.nth, step.describe());
        }
        let counts = self.counts.steps.entry(word).or_default();
        let done = match result {
            Ok(done) => done,
            Err(e) => {
                counts[2] += 1;
                *self.counts.refusals.entry(format!("{word}: {}", shorten(&e.to_string()))).or_default() += 1;
                if e.kind() == Kind::Io {
                    found.push(violation("failed on a medium that works", e.to_string()));
                }
                let same =
                    (&before.entries, &before.problems, before.free) == (&after.entries, &after.problems, after.free);
                if !same {
                    found.push(violation("a refused operation changed the volume", e.to_string()));
                }
                self.report(&format!("{word} was refused"), found);
                let (mut frame, events) = recording.rewind();
                self.refused_late(board, &mut frame, &events, before, step);
                return frame;
            }
        };
        counts[usize::from(!done.changed)] += 1;
        if !done.changed {
            if recording.wrote() && (&before.entries, before.free) != (&after.entries, after.free) {
                found.push(violation("nothing to do, and the volume changed", ""));
            }
            self.report(word, found);
            return recording.rewind().0;
        }
        let mut may_go = self.may_go(&before, &done, cut);
        if matches!(step, Step::Recover) && cut.is_some_and(|cut| cut.piecemeal && !cut.others.is_empty()) {
            // The mark of a deletion without a record lies in a free slot. Where somebody else's name took it, nothing
            // says whose the clusters are, and they stay.
            let (was, is) = (lost_clusters(&before), lost(&after, &recording.frame, &board.geometry));
            self.foreign = is.into_iter().filter(|(cluster, _)| was.contains(cluster)).collect();
        }
        let images = std::mem::take(&mut self.images);
        let oracle = Oracle::new(board, &images);
        let may_undo = !matches!(step, Step::Recover);
        let mut promise = Promise::new(&oracle, &board.geometry, [before, after.clone()], &self.foreign, may_undo);
        let keeps_no_record = matches!(step, Step::Prune { .. }) && !keeps_record(&recording.events);
        promise.piecemeal = keeps_no_record;
        let placed = done.in_place.as_ref().and_then(|path| after.content(path));
        let wanted = match (step, cut) {
            (Step::Swap { .. } | Step::Restore { .. }, _) if let Some(content) = placed => Wanted::InPlace(content),
            (Step::Swap { image, .. }, _) => Wanted::Image(Content::of(&image.bytes, board.shape.sector as usize)),
            (Step::Recover, Some(cut)) => Wanted::OneOf(cut.starts.clone(), cut.written.clone()),
            (Step::Restore { .. }, _) => Wanted::Image(restored(&promise, &after)),
            _ => Wanted::Same,
        };
        promise.installs = matches!(wanted, Wanted::Image(_) | Wanted::InPlace(_));
        found.extend(promise.judge_end(&may_go));
        found.extend(done.names.iter().flat_map(|names| promise.judge_plan(names)));
        for (path, content) in cut.iter().flat_map(|c| &c.others) {
            if after.content(path) != Some(*content) {
                found.push(violation("recover touches what somebody else wrote", path));
            }
        }
        found.extend(judge_wanted(&promise, &wanted));
        let good = found.is_empty();
        self.report(&format!("{word}, undisturbed"), found);
        let starts = promise.starts().map(<[Start]>::to_vec);
        let (mut frame, events) = recording.rewind();
        if good || cut.is_some() {
            self.counts.operations += 1;
            self.explore(board, &promise, &mut frame, &events, step);
        }
        self.images = images;
        if let Step::Swap { image, .. } = step {
            may_go.insert(Content::of(&image.bytes, board.shape.sector as usize));
        }
        if good && cut.is_none() && may_undo && self.random.chance(35) {
            let (names, piecemeal) = (done.names.unwrap_or_default(), keeps_no_record);
            let interrupted = Interrupted { starts, may_go, names, others: Vec::new(), written: Vec::new(), piecemeal };
            return self.interrupt(board, frame, &events, interrupted);
        }
        crash::redo(&mut frame, &events);
        frame
    }

    /// What has to be refused is refused before anything but free clusters is written. Where it is not, every cut of
    /// the attempt and its undoing leads back.
    fn refused_late(&mut self, board: &Board, frame: &mut Frame, events: &[IoEvent], before: Report, step: &Step) {
        let is_data = data_sectors(board, &before, frame);
        let begun = |e: &IoEvent| match (e, step) {
            // An image that can be read only once has to be somewhere before it can be looked at.
            (IoEvent::Write { sector, .. }, Step::Swap { once: true, .. }) => !is_data(*sector),
            (IoEvent::Write { .. }, _) => true,
            _ => false,
        };
        if !events.iter().any(begun) {
            return;
        }
        self.report(step.word(), vec![violation("refused only after it had begun", step.describe())]);
        let images = std::mem::take(&mut self.images);
        let oracle = Oracle::new(board, &images);
        let promise = Promise::new(&oracle, &board.geometry, [before.clone(), before], &self.foreign, true);
        self.explore(board, &promise, frame, events, step);
        self.images = images;
    }

    /// What the user agreed to lose.
    fn may_go(&self, before: &Report, done: &Done, cut: Option<&Interrupted>) -> HashSet<Content> {
        let path = |name: &String| if name.contains('/') { name.clone() } else { format!("{LINUX}/{name}") };
        let deleted = done.deletes.iter().filter_map(|name| before.content(&path(name)));
        let record = before.content(RECORD);
        deleted.chain(cut.into_iter().flat_map(|c| c.may_go.iter().copied())).chain(record).collect()
    }

    fn explore(&mut self, board: &Board, promise: &Promise<'_>, frame: &mut Frame, events: &[IoEvent], step: &Step) {
        let (earlier, seen) = (self.counts.all_states(), self.counts.asked.by_anyone);
        let is_data = data_sectors(board, &self.checker.check(frame), frame);
        let depth = Depth { nested_every: 6, sampled: 24 };
        let mut data: Vec<u64> = events
            .iter()
            .filter_map(|e| match e {
                IoEvent::Write { sector, .. } => Some(*sector).filter(|s| is_data(*s)),
                _ => None,
            })
            .collect();
        data.sort_unstable();
        data.dedup();
        let writes = events.iter().filter(|e| matches!(e, IoEvent::Write { .. })).count();
        let asked = self.random.chance(readers(board, step)).then(|| 1 + self.random.below(writes + writes / 2 + 1));
        let mut exploration = Exploration {
            promise,
            geometry: &board.geometry,
            is_data: &is_data,
            readable_by_all: board.shape.is_read_by_all(),
            depth,
            checker: &mut self.checker,
            random: Random::new(self.random.next_u64()),
            counts: self.counts,
            asked,
            data,
            cuts: 0,
            known: Default::default(),
            kinds: HashSet::new(),
            violations: Vec::new(),
        };
        exploration.run(frame, events);
        let violations = std::mem::take(&mut exploration.violations);
        let states = self.counts.all_states() - earlier;
        self.counts.steps.entry(step.word()).or_default()[3] += states;
        let class = self.counts.classes.entry((step.word(), board.class())).or_default();
        class[0] += states;
        class[1] += self.counts.asked.by_anyone - seen;
        if self.tell && !violations.is_empty() {
            println!("    {} violations in {states} states", violations.len());
        }
        for (at, v) in violations {
            if self.tell {
                println!("    {}: {at}: {}", v.kind, v.detail);
            }
            let text = || format!("step {}: {}: {at}: {}", self.nth, step.describe(), v.detail);
            self.counts.violation(v.kind, self.seed, text);
        }
    }

    /// The power goes in the middle. Perhaps somebody does something before the volume is recovered.
    fn interrupt(&mut self, board: &Board, mut frame: Frame, events: &[IoEvent], mut cut: Interrupted) -> Frame {
        let mut frame = self.any_state(board, &mut frame, events);
        let mut told = "the power is cut".to_owned();
        match self.random.below(3) {
            0 => {
                let other = Step::draw_other(&mut self.random, board.arch, &cut.names);
                if let Some(image) = other.image() {
                    self.images.add(image, board.shape.sector as usize, "a new image");
                }
                let medium = Recorder::new(frame.clone());
                if other.perform(&medium, &self.how(board)).is_ok() {
                    let was = self.checker.check(&frame);
                    frame = medium.into_recording().frame;
                    let is = self.checker.check(&frame);
                    let new = is.entries.iter().filter(|e| was.find(&e.path).is_none());
                    let changed = is.entries.iter().filter(|e| was.content(&e.path) != e.content);
                    cut.written = changed.filter_map(|e| e.content).collect();
                    cut.others = new.filter_map(|e| Some((e.path.clone(), e.content?))).collect();
                    told += &format!(", then {}", other.describe());
                }
            }
            1 => {
                let step = self.draw(board, &frame);
                let report = self.checker.check(&frame);
                if !matches!(step, Step::Recover) && report.find(RECORD).is_some() {
                    let medium = Recorder::new(frame.clone());
                    let result = step.perform(&medium, &self.how(board));
                    if !matches!(&result, Err(e) if e.kind() == Kind::Interrupted) || medium.into_recording().wrote() {
                        let what = violation("goes on after an interrupted operation", step.describe());
                        self.report(step.word(), vec![what]);
                    }
                }
            }
            _ => {}
        }
        if self.tell {
            println!("  {told}");
        }
        self.step(board, frame, &Step::Recover, Some(&cut))
    }

    /// One of the states that a power cut can leave.
    fn any_state(&mut self, board: &Board, frame: &mut Frame, events: &[IoEvent]) -> Frame {
        let is_data = data_sectors(board, &self.checker.check(frame), frame);
        let limits = Limits { complete: 4096, sampled: 8, torn: 0, seed: self.random.next_u64() };
        let (mut seen, mut chosen) = (0, frame.clone());
        let random = &mut self.random;
        crash::enumerate(frame, events, &is_data, limits, &mut |frame, _| {
            seen += 1;
            if random.below(seen) == 0 {
                chosen = frame.clone();
            }
        });
        chosen
    }

    fn report(&mut self, at: &str, found: Vec<Violation>) {
        self.counts.bad += usize::from(!found.is_empty());
        for v in found {
            if self.tell {
                println!("    {}: {at}: {}", v.kind, v.detail);
            }
            self.counts.violation(v.kind, self.seed, || format!("step {}: {at}: {}", self.nth, v.detail));
        }
    }
}

/// Whether the record of an operation is among the sectors that it wrote: its name in a directory.
fn keeps_record(events: &[IoEvent]) -> bool {
    let names = |bytes: &[u8]| bytes.chunks(32).any(|slot| slot.starts_with(b"BOOTSURGTXN"));
    events.iter().any(|e| matches!(e, IoEvent::Write { data, .. } if names(&data.bytes)))
}

/// What a restore put in place: of what changed its name, the content that starts.
fn restored(promise: &Promise<'_>, after: &Report) -> Content {
    let [_, starts] = promise.starts();
    match starts.first() {
        Some(Start::File { content, .. }) => *content,
        _ => after.entries.iter().find_map(|e| e.content).unwrap_or(Content { size: 0, id: 0 }),
    }
}

fn judge_wanted(promise: &Promise<'_>, wanted: &Wanted) -> Vec<Violation> {
    let [before, after] = promise.starts();
    let mut found = Vec::new();
    for (world, (old, new)) in before.iter().zip(after).enumerate() {
        let good = match wanted {
            Wanted::Image(content) => matches!(new, Start::File { content: c, profile: Some(0) } if c == content),
            Wanted::InPlace(content) => {
                old == new || matches!(new, Start::File { content: c, profile: None | Some(0) } if c == content)
            }
            // What was down may come up when what does not start leaves the menu.
            Wanted::Same => old == new || *old == Start::Nothing,
            Wanted::OneOf(starts, others) => {
                let came_up = *old == Start::Nothing;
                let by_others = matches!(new, Start::File { content, .. } if others.contains(content));
                let known = starts.iter().any(|s| s.get(world) == Some(new)) || came_up && by_others;
                old == new || *new != Start::Nothing && known
            }
        };
        if !good {
            let [new, old] = [new, old].map(|s| promise.describe(s));
            let text = format!("{}: {new}, before {old}", WORLDS[world]);
            found.push(violation("does not start what it should", text));
        }
    }
    found
}

/// Whether a sector belongs to the data area and to no directory.
fn data_sectors(board: &Board, report: &Report, frame: &Frame) -> impl Fn(u64) -> bool + use<> {
    let g = board.geometry.clone();
    let mut directories = HashSet::new();
    let starts = report.entries.iter().filter(|e| e.is_directory()).map(|e| first_cluster(&e.raw));
    for start in starts.chain(Some(g.root_cluster)).filter(|c| *c >= 2) {
        let mut at = start;
        while (2..=g.last()).contains(&at) && directories.insert(g.cluster_sector(at)) {
            at = g.entry(frame, g.active.unwrap_or(0), at) & g.mask();
        }
    }
    move |sector| {
        let first = |s: u64| g.data_start + (s - g.data_start) / g.cluster_sectors * g.cluster_sectors;
        sector >= g.data_start && !directories.contains(&first(sector))
    }
}

/// A message without its names and numbers.
fn shorten(text: &str) -> String {
    text.split([':', ';', '(', ',']).next().unwrap_or(text).chars().filter(|c| !c.is_ascii_digit()).take(90).collect()
}
