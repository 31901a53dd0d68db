//! Deliberate mistakes in the program's own operations: a medium between the operation and the recorder that forgets
//! barriers, exchanges phases, treats one copy of the allocation table differently, halves a sector write. Every one
//! has to be caught, but for those which the model provably cannot tell from the original: each of their states was
//! built and judged, and all of them keep every promise. Those are printed with the reason.

use crate::checker::{Checker, Report};
use crate::geometry::{Geometry, Width};
use crate::invariants::Expectation;
use crate::operations::{Maker, Operation, Scenario, in_parallel, record_events, scenarios, search};
use crate::real::Job;
use crate::recorder::IoEvent;
use crate::sets::{Ask, Files, WithSet};
use crate::tally::Tally;
use crate::volumes::{End, Room, Shape, Volume};
use bootsurgeon::block::{ReadAt, WriteAt, read_vec};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// A mistake. Phases and barriers are counted from 0: phase n ends with barrier n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The barrier is not there.
    NoBarrier(usize),
    /// The writes of this phase happen after those of the next.
    Late(usize),
    /// The writes of this phase do not happen.
    Forgotten(usize),
    /// The nth write of a directory sector that changes several slots happens in two, the first slots first.
    FirstSlotsFirst(usize),
    /// As well, the last slots first.
    LastSlotsFirst(usize),
    /// The second copy of the allocation table is written before the first, in the same phase.
    SecondFatFirst,
    /// This copy of the allocation table is written a phase late.
    FatLate(usize),
    /// This copy of the allocation table is not written.
    FatForgotten(usize),
}

/// The medium as an operation with a mistake would use it.
struct Mutant<'m> {
    below: &'m dyn WriteAt,
    mistake: Mistake,
    /// Where the two copies of the allocation table lie, in bytes.
    fats: [Range<u64>; 2],
    directories: &'m BTreeSet<u64>,
    applied: &'m AtomicBool,
    geometry: &'m Geometry,
    /// What the two phases around the mistake wrote, in each run: `FAT | root`.
    around: &'m Mutex<BTreeSet<String>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: usize,
    /// Directory writes of several slots so far.
    divisible: usize,
    /// What was written in the phase of the mistake, and in the next.
    kinds: [BTreeSet<&'static str>; 2],
    /// Writes that the operation believes done.
    held: Vec<Held>,
}

struct Held {
    at: u64,
    bytes: Vec<u8>,
    /// Still seen when it is read, as from a cache.
    cached: bool,
}

impl Mutant<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn apply(&self) {
        self.applied.store(true, Ordering::Relaxed);
    }

    fn release(&self, held: Vec<Held>) -> io::Result<()> {
        held.into_iter().try_for_each(|h| self.below.write_all_at(&h.bytes, h.at))
    }

    /// Writes a directory sector with only some of its changed slots changed, where more than one is.
    fn divide(&self, buf: &[u8], offset: u64, nth: usize, first: bool) -> io::Result<()> {
        let unit = u64::from(self.below.sector_size());
        if buf.len() as u64 != unit || !self.directories.contains(&(offset / unit)) {
            return Ok(());
        }
        let mut half = read_vec(self.below, offset, buf.len())?;
        let changed: Vec<usize> = (0..buf.len()).step_by(32).filter(|s| half[*s..s + 32] != buf[*s..s + 32]).collect();
        if changed.len() < 2 {
            return Ok(());
        }
        let mut state = self.state();
        state.divisible += 1;
        if state.divisible - 1 != nth {
            return Ok(());
        }
        self.apply();
        let (low, high) = changed.split_at(changed.len() / 2);
        for s in if first { low } else { high } {
            half[*s..s + 32].copy_from_slice(&buf[*s..s + 32]);
        }
        self.below.write_all_at(&half, offset)
    }
}

impl Drop for Mutant<'_> {
    fn drop(&mut self) {
        let state = self.state();
        if let Mistake::NoBarrier(n) | Mistake::Late(n) = self.mistake
            && state.phase > n
        {
            let [a, b] = state.kinds.each_ref().map(describe);
            self.around.lock().unwrap().insert(format!("{a} | {b}"));
        }
    }
}

/// What a sector is to the file system.
fn what_is(sector: u64, g: &Geometry, directories: &BTreeSet<u64>) -> &'static str {
    let root = g.cluster_sector(g.root_cluster)..g.cluster_sector(g.root_cluster) + g.cluster_sectors;
    match sector {
        s if Some(s) == g.fsinfo => "FSInfo",
        s if s < g.data_start => "FAT",
        s if root.contains(&s) => "root",
        s if directories.contains(&s) => "directory",
        _ => "data",
    }
}

fn describe(kinds: &BTreeSet<&'static str>) -> String {
    if kinds.is_empty() { "nothing".to_owned() } else { kinds.iter().copied().collect::<Vec<_>>().join("+") }
}

impl ReadAt for Mutant<'_> {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.below.read_exact_at(buf, offset)?;
        let end = offset + buf.len() as u64;
        for Held { at, bytes, .. } in self.state().held.iter().filter(|h| h.cached) {
            let (from, to) = ((*at).max(offset), (at + bytes.len() as u64).min(end));
            if from < to {
                let source = &bytes[(from - at) as usize..(to - at) as usize];
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
        Ok(())
    }
}

impl WriteAt for Mutant<'_> {
    fn sector_size(&self) -> u32 {
        self.below.sector_size()
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let phase = self.state().phase;
        if let Mistake::NoBarrier(n) | Mistake::Late(n) = self.mistake
            && (n..n + 2).contains(&phase)
        {
            let kind = what_is(offset / u64::from(self.below.sector_size()), self.geometry, self.directories);
            self.state().kinds[phase - n].insert(kind);
        }
        let in_fat = |n: usize| self.fats[n].contains(&offset);
        let hold = || {
            self.apply();
            self.state().held.push(Held { at: offset, bytes: buf.to_vec(), cached: true });
            Ok(())
        };
        match self.mistake {
            Mistake::Late(n) if phase == n => return hold(),
            Mistake::FatLate(n) if in_fat(n) => return hold(),
            Mistake::SecondFatFirst if in_fat(0) => return hold(),
            Mistake::Forgotten(n) if phase == n => {
                self.apply();
                return Ok(());
            }
            Mistake::FatForgotten(n) if in_fat(n) => {
                self.apply();
                return Ok(());
            }
            Mistake::FirstSlotsFirst(n) => self.divide(buf, offset, n, true)?,
            Mistake::LastSlotsFirst(n) => self.divide(buf, offset, n, false)?,
            _ => {}
        }
        self.below.write_all_at(buf, offset)
    }

    fn barrier(&self) -> io::Result<()> {
        let (phase, held) = {
            let mut state = self.state();
            state.phase += 1;
            let phase = state.phase - 1;
            let keep = matches!(self.mistake, Mistake::Late(n) if n == phase);
            (phase, if keep { Vec::new() } else { std::mem::take(&mut state.held) })
        };
        match self.mistake {
            Mistake::NoBarrier(n) if n == phase => {
                self.apply();
                Ok(())
            }
            // The next phase comes first; its barrier stands between the two.
            Mistake::Late(n) if n == phase => Ok(()),
            Mistake::Late(_) if !held.is_empty() => {
                self.below.barrier()?;
                self.release(held)?;
                self.below.barrier()
            }
            Mistake::SecondFatFirst => {
                self.release(held)?;
                self.below.barrier()
            }
            // What was late lands behind the barrier, in the next phase.
            _ => {
                self.below.barrier()?;
                self.release(held)
            }
        }
    }

    fn drop_caches(&self) -> io::Result<()> {
        for held in &mut self.state().held {
            held.cached = false;
        }
        self.below.drop_caches()
    }
}

/// An operation whose medium makes the mistake, while it runs or while it recovers.
struct Mistaken {
    inner: Box<dyn Operation>,
    mistake: Mistake,
    in_recovery: bool,
    geometry: Geometry,
    directories: BTreeSet<u64>,
    applied: Arc<AtomicBool>,
    around: Arc<Mutex<BTreeSet<String>>>,
}

impl Mistaken {
    fn medium<'m>(&'m self, below: &'m dyn WriteAt) -> Mutant<'m> {
        let g = &self.geometry;
        let fat = |n: u64| {
            let at = (g.fat_start + n * g.fat_sectors) * g.sector;
            at..at + g.fat_sectors * g.sector
        };
        Mutant {
            below,
            mistake: self.mistake,
            fats: [fat(0), fat(1)],
            directories: &self.directories,
            applied: &self.applied,
            geometry: &self.geometry,
            around: &self.around,
            state: Mutex::default(),
        }
    }
}

impl Operation for Mistaken {
    fn run(&self, medium: &dyn WriteAt) -> bootsurgeon::Result<()> {
        if self.in_recovery { self.inner.run(medium) } else { self.inner.run(&self.medium(medium)) }
    }

    fn recover(&self, medium: &dyn WriteAt) -> bootsurgeon::Result<()> {
        if self.in_recovery { self.inner.recover(&self.medium(medium)) } else { self.inner.recover(medium) }
    }
}

/// Small enough that every epoch is enumerated completely, mutated or not.
fn tiny(room: Room, backup_exists: bool) -> Shape {
    Shape { room, backup_exists, old: Some(700), new: 1100, ..Shape::usual(Width::Fat32, 512, 512) }
}

/// The same, of an image that starts by its path. One on the XBOOTLDR partition is in `EFI/Linux` of that volume, or at
/// such a path: an operation knows one volume, and writes to it as it does on an ESP.
fn placed(end: End, room: Room, backup_exists: bool) -> Shape {
    Shape { end, ..tiny(room, backup_exists) }
}

/// What is mutated.
#[derive(Debug, Clone, Copy)]
enum Subject {
    Job(Job),
    /// A swap with a set of three files.
    Set,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Job(job) => job.name(),
            Self::Set => "swap with a set",
        }
    }

    fn on(self, volume: &Volume, report: &Report) -> (Expectation, Box<dyn Operation>) {
        match self {
            Self::Job(job) => job.on(volume, report),
            Self::Set => WithSet::on(Files::Three, Ask::Nothing, volume, report),
        }
    }
}

/// Which operations are mutated. The first ones are what a quick run looks at.
fn subjects() -> Vec<(Subject, Shape)> {
    let jobs = jobs().into_iter().map(|(job, shape)| (Subject::Job(job), shape));
    let sets = [Room::Ample, Room::SectorFull].map(|room| (Subject::Set, tiny(room, false)));
    jobs.chain(sets).collect()
}

fn jobs() -> Vec<(Job, Shape)> {
    vec![
        (Job::Swap, tiny(Room::Ample, false)),
        (Job::SwapToNewNameAndTidy, tiny(Room::Ample, true)),
        (Job::Swap, tiny(Room::SectorFull, false)),
        (Job::Swap, tiny(Room::DirectoryFull, false)),
        (Job::Restore, tiny(Room::Ample, true)),
        (Job::Prune, tiny(Room::NameSpansSectors, false)),
        (Job::PruneDelete, tiny(Room::Ample, false)),
        (Job::Swap, placed(End::Removable, Room::Ample, false)),
        (Job::Restore, placed(End::Removable, Room::Ample, true)),
        (Job::Swap, placed(End::Removable, Room::SectorFull, false)),
        (Job::Swap, placed(End::Removable, Room::DirectoryFull, false)),
        (Job::PruneDelete, placed(End::Removable, Room::SectorFull, false)),
        (Job::Swap, placed(End::Entry, Room::Ample, true)),
        (Job::Restore, placed(End::Entry, Room::Ample, true)),
        (Job::Swap, placed(End::Entry, Room::SectorFull, false)),
        (Job::Pin, placed(End::Settings, Room::Ample, false)),
        (Job::Pin, placed(End::Settings, Room::SectorFull, false)),
    ]
}

/// What the phases of a run write, for people: `FAT`, `directory` (of the image) …
fn phases(scenario: &Scenario, events: &[IoEvent]) -> Vec<String> {
    let directories = directory_sectors(&scenario.volume);
    let mut end = scenario.volume.clone();
    for event in events {
        if let IoEvent::Write { sector, data, .. } = event {
            end.frame.set(*sector, data.clone());
        }
    }
    let directories_at_end = directory_sectors(&end);
    let label = |span: &[IoEvent]| {
        let sectors = span.iter().filter_map(|e| match e {
            IoEvent::Write { sector, .. } => Some(match what_is(*sector, &scenario.volume.geometry, &directories) {
                "data" if directories_at_end.contains(sector) => "new part of a directory",
                kind => kind,
            }),
            _ => None,
        });
        describe(&sectors.collect())
    };
    let spans = events.split_inclusive(|e| matches!(e, IoEvent::Barrier));
    spans.filter(|s| matches!(s.last(), Some(IoEvent::Barrier))).map(label).collect()
}

fn directory_sectors(volume: &Volume) -> BTreeSet<u64> {
    let is_data = volume.data_sectors();
    (volume.geometry.root_start..volume.frame.sector_count()).filter(|s| !is_data(*s)).collect()
}

/// One mutant and what became of it.
struct Verdict {
    subject: String,
    mistake: Mistake,
    in_recovery: bool,
    /// What the phases around the mistake write.
    around: String,
    /// `None`: the mistake never came to bear.
    tally: Option<Tally>,
}

fn plan(
    job: Subject,
    mistake: Mistake,
    in_recovery: bool,
    (applied, around): (&Arc<AtomicBool>, &Arc<Mutex<BTreeSet<String>>>),
    volume: &Volume,
    report: &Report,
) -> (Expectation, Box<dyn Operation>) {
    let (expectation, inner) = job.on(volume, report);
    let (geometry, applied, around) = (volume.geometry.clone(), applied.clone(), around.clone());
    let directories = directory_sectors(volume);
    (expectation, Box::new(Mistaken { inner, mistake, in_recovery, geometry, directories, applied, around }))
}

/// Every mistake there is to make in a run of so many phases.
fn mistakes(phases: usize) -> Vec<Mistake> {
    let mut all: Vec<Mistake> = (0..phases).map(Mistake::NoBarrier).collect();
    all.extend((0..phases.saturating_sub(1)).map(Mistake::Late));
    all.extend((0..phases).map(Mistake::Forgotten));
    all.extend((0..8).flat_map(|n| [Mistake::FirstSlotsFirst(n), Mistake::LastSlotsFirst(n)]));
    all.push(Mistake::SecondFatFirst);
    all.extend((0..2).flat_map(|n| [Mistake::FatLate(n), Mistake::FatForgotten(n)]));
    all
}

fn subject(job: Subject, shape: &Shape) -> String {
    let directory = if shape.end == End::Menu { String::new() } else { format!(" in {}", shape.end.directory()) };
    format!("{}{directory}, {:?}", job.name(), shape.room)
}

fn judge(job: Subject, shape: Shape, labels: &[String], mistake: Mistake, in_recovery: bool) -> Verdict {
    let (applied, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let volume = Volume::build(shape);
    let report = Checker::default().check(&volume.frame);
    let (expectation, operation) = plan(job, mistake, in_recovery, (&applied, &seen), &volume, &report);
    let subject = subject(job, &shape);
    let scenario = Scenario { name: subject.clone(), operation_name: job.name(), volume, expectation, operation };
    let tally = search(&scenario);
    let label = |n: usize| labels.get(n).map_or("the end", String::as_str);
    let around = match mistake {
        Mistake::NoBarrier(_) | Mistake::Late(_) if in_recovery => {
            seen.lock().unwrap().iter().cloned().collect::<Vec<_>>().join("; ")
        }
        _ if in_recovery => String::new(),
        Mistake::NoBarrier(n) | Mistake::Late(n) => format!("{} | {}", label(n), label(n + 1)),
        Mistake::Forgotten(n) => label(n).to_owned(),
        _ => String::new(),
    };
    let tally = applied.load(Ordering::Relaxed).then_some(tally);
    Verdict { subject, mistake, in_recovery, around, tally }
}

/// Why the model cannot tell a mutant from the original, for those that it cannot.
fn reason(v: &Verdict) -> Option<&'static str> {
    use Mistake::{FirstSlotsFirst, Forgotten, LastSlotsFirst, Late, NoBarrier, SecondFatFirst};
    let prune = v.subject.starts_with("prune");
    match (v.mistake, v.around.as_str()) {
        (NoBarrier(_) | Late(_), around) if v.in_recovery => {
            const HARMLESS: [&str; 7] = [
                "FAT | FAT",
                "FAT | FSInfo",
                "FAT | root",
                "FSInfo | root",
                "nothing | FAT",
                "FAT | nothing",
                "data | FAT",
            ];
            around.split("; ").all(|pair| HARMLESS.contains(&pair)).then_some(
                "clusters are freed or taken that no name leads to, and counted; what is left of them, recover frees",
            )
        }
        (SecondFatFirst, _) => Some("the writes of a phase may come in any order anyway"),
        (FirstSlotsFirst(_) | LastSlotsFirst(_), _) => {
            Some("that half is long-name slots without a short entry: no name to any reader, and recover clears them")
        }
        (NoBarrier(_) | Late(_), "data | FAT") => {
            Some("nothing refers to the clusters yet: their data and their links may come in any order")
        }
        (NoBarrier(_) | Late(_), "root | FAT") => {
            Some("the record and the new chain do not refer to each other; a chain without a name is freed")
        }
        (NoBarrier(_) | Late(_), "FAT | root") => {
            Some("what was to be freed is lost clusters without a record, and recover frees those")
        }
        (
            NoBarrier(_) | Late(_),
            "directory | directory" | "directory | new part of a directory" | "new part of a directory | directory",
        ) if v.subject.contains("with a set") => Some(
            "names of the set before the commit: whichever are there, recover takes them back by the record; those of \
             one sector keep their order",
        ),
        (NoBarrier(_), "directory | directory") => {
            Some("both write the same sector, and the writes of one sector keep their order")
        }
        (Late(_), "directory | directory") | (NoBarrier(_) | Late(_), "directory | new part of a directory") => Some(
            "room is made here, slots marked as deleted: no name among them, and looked at again before it is used",
        ),
        (NoBarrier(_) | Late(_), "FAT | directory") if v.subject.contains("SectorFull") => {
            Some("this name leads to the old chain; the new one gets its name a phase later")
        }
        (NoBarrier(_) | Late(_), "FAT | new part of a directory") => {
            Some("the new part is the directory's next cluster, which has nothing to do with the new chain")
        }
        (NoBarrier(_) | Late(_), "root | directory" | "directory | root") if prune => {
            Some("one file leaves the menu in one step, which needs no record")
        }
        (NoBarrier(_) | Late(_), "root | new part of a directory") => {
            Some("what is written in a directory shows with its own name only, which is written in the root")
        }
        (Forgotten(_), "FAT") => Some("a later phase writes the same sector of the table, before anything leads there"),
        (Forgotten(_), "directory") => Some("the room that was to be made is looked for again, and made then"),
        _ => None,
    }
}

#[test]
fn every_mistake_in_the_operations_is_caught() {
    let started = Instant::now();
    let thorough = std::env::var_os("POWERCUT_STATES").is_some();
    let mut subjects = subjects();
    if !thorough {
        subjects.truncate(1);
    }
    let mut work: Vec<(Subject, Shape, Vec<String>, Mistake, bool)> = Vec::new();
    for (n, (job, shape)) in subjects.into_iter().enumerate() {
        let makers: Vec<Maker> = scenarios(job.name(), Some(shape), move |v, r| job.on(v, r));
        let scenario = makers[0](shape.seed);
        let labels = phases(&scenario, &record_events(&scenario));
        println!("{}: {}", subject(job, &shape), labels.join(" | "));
        work.extend(mistakes(labels.len()).into_iter().map(|m| (job, shape, labels.clone(), m, false)));
        // In `recover` as well: of the first operations, and of one at each place.
        let is_short = matches!(job, Subject::Job(Job::Restore | Job::Pin));
        if n < 2 || shape.end != End::Menu && is_short || matches!(job, Subject::Set) {
            // The longest recovery has fewer barriers than this.
            let phases = if matches!(job, Subject::Set) { 30 } else { 12 };
            work.extend(mistakes(phases).into_iter().map(|m| (job, shape, labels.clone(), m, true)));
        }
    }
    let verdicts = in_parallel(&work, |(job, shape, labels, mistake, in_recovery)| {
        judge(*job, *shape, labels, *mistake, *in_recovery)
    });
    let (mut made, mut caught, mut equal, mut missed) = (0, 0, Vec::new(), Vec::new());
    for v in &verdicts {
        let Some(tally) = &v.tally else { continue };
        made += 1;
        let place = if v.in_recovery { " in recover" } else { "" };
        let text = format!("{:?}{place} of {} [{}]", v.mistake, v.subject, v.around);
        match reason(v) {
            _ if tally.bad > 0 => caught += 1,
            Some(why) if tally.sampled_epochs == 0 => equal.push(format!("{text}, {} states: {why}", tally.states)),
            _ => missed.push(format!("{text}, {} states, {} epochs sampled", tally.states, tally.sampled_epochs)),
        }
    }
    println!(
        "\nmutations of the real operations, {:.1} s: {made} made, {caught} caught, {} that the model cannot tell \
            apart, {} missed",
        started.elapsed().as_secs_f32(),
        equal.len(),
        missed.len()
    );
    equal.iter().for_each(|line| println!("  the same: {line}"));
    missed.iter().for_each(|line| println!("  MISSED: {line}"));
    assert!(missed.is_empty() && caught > 0);
}
