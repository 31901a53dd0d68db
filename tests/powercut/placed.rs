//! The operations where the volume is a part of something larger: the ESP of a disk with an MBR, and both members of a
//! mirror that is not assembled.
//!
//! The whole disk, or both members one behind the other, is one recorded medium. What is written outside of the ESP is
//! a violation. On a mirror each member has to keep every promise at every cut of an operation; while `recover` makes
//! them equal at least one of them, and in the end they are equal.
//!
//! `POWERCUT_EVERY=1 cargo test --test powercut -- --nocapture placed` takes all scenarios (an hour) and prints the
//! counts.

use crate::checker::Checker;
use crate::crash::frame::sector;
use crate::crash::{self, Cut, Frame, Limits};
use crate::geometry::Width;
use crate::invariants::{Phase, Violation};
use crate::operations::{Maker, Scenario, in_parallel};
use crate::real;
use crate::recorder::{IoEvent, Recorder, Recording};
use bootsurgeon::block::{Extent, Mirror, ReadAt, Window, WriteAt, copy_differences};
use bootsurgeon::disk::{PartitionTable, esps};
use bootsurgeon::surgery::{Member, RecoveryOptions, open_healthy, recover, recover_members};
use bootsurgeon::{Error, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A primary partition of an MBR, with another one before it and behind it.
    Primary,
    /// A logical partition.
    Logical,
    /// Both members of a mirror.
    Mirror,
    /// By itself (FAT32), and the boot sector is lost when the operation is cut: its backup is in sector 6.
    LostBootSector,
}

/// How a mirror is recovered; the last three with a safety taken out, to see whether it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ours,
    /// The first member is the truth, whatever it holds.
    FirstIsTruth,
    /// One member is recovered, and nothing is copied.
    OneAlone,
    /// The truth is copied without a mark.
    Unmarked,
    /// Nothing stops a write at the end of the ESP: one of the operation's goes astray.
    Unguarded,
}

/// A medium on which one write goes to a place on the disk where it has no business, behind all guards.
struct Stray<'r> {
    recorder: &'r Recorder,
    /// Where it goes, in bytes of the disk.
    to: u64,
    /// How many writes go right before it.
    left: AtomicU32,
}

impl ReadAt for Stray<'_> {
    fn size(&self) -> u64 {
        self.recorder.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.recorder.read_exact_at(buf, offset)
    }
}

impl WriteAt for Stray<'_> {
    fn sector_size(&self) -> u32 {
        self.recorder.sector_size()
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> std::io::Result<()> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            self.recorder.write_all_at(&buf[..self.sector_size() as usize], self.to)?;
        }
        self.recorder.write_all_at(buf, offset)
    }

    fn barrier(&self) -> std::io::Result<()> {
        self.recorder.barrier()
    }

    fn drop_caches(&self) -> std::io::Result<()> {
        self.recorder.drop_caches()
    }
}

/// A medium with the volume on it, once or twice.
struct Disk {
    frame: Frame,
    place: Place,
    /// First sector and number of sectors.
    legs: Vec<(u64, u64)>,
}

const SECOND_PARTITION: u64 = 64;
const BACKUP_BOOT_SECTOR: u64 = 6;

impl Disk {
    fn new(place: Place, volume: &Frame) -> Self {
        let (sector, count) = (volume.sector_size(), volume.sector_count());
        let bytes = volume.to_bytes();
        if place == Place::Mirror {
            let frame = Frame::new(&[&bytes[..], &bytes[..]].concat(), sector);
            return Self { frame, place, legs: vec![(0, count), (count, count)] };
        }
        if place == Place::LostBootSector {
            return Self { frame: volume.clone(), place, legs: vec![(0, count)] };
        }
        let start = SECOND_PARTITION + if place == Place::Logical { 8 } else { 0 };
        let all = start + count + 64;
        let mut disk = vec![0xA5; all as usize * sector];
        disk[..sector].fill(0);
        disk[start as usize * sector..][..bytes.len()].copy_from_slice(&bytes);
        let entries: &[(u8, u64, u64)] = match place {
            Place::Logical => &[(0x83, 8, 40), (0x0F, SECOND_PARTITION, count + 8), (0x83, start + count, 64)],
            _ => &[(0x83, 8, 40), (0xEF, start, count), (0x83, start + count, 64)],
        };
        partitions(&mut disk[..512], entries);
        if place == Place::Logical {
            let at = SECOND_PARTITION as usize * sector;
            disk[at..at + sector].fill(0);
            partitions(&mut disk[at..at + 512], &[(0xEF, 8, count)]);
        }
        Self { frame: Frame::new(&disk, sector), place, legs: vec![(start, count)] }
    }

    /// The volume's extent on the medium, as the program finds it.
    fn extents(&self, medium: &dyn ReadAt) -> Result<Vec<Extent>> {
        let sector = self.frame.sector_size() as u64;
        let ours = |(first, count): &(u64, u64)| Extent { offset: first * sector, bytes: count * sector };
        if matches!(self.place, Place::Mirror | Place::LostBootSector) {
            return Ok(self.legs.iter().map(ours).collect());
        }
        let table = PartitionTable::read(medium, Some(sector as u32))?.ok_or_else(|| Error::rejected("no table"))?;
        let esps = esps(&table, medium)?;
        let found: Vec<Extent> = esps.iter().map(|p| p.extent).collect();
        if found != self.legs.iter().map(ours).collect::<Vec<_>>() {
            return Err(Error::rejected(format!("the ESP is not where it was put: {found:?}")));
        }
        Ok(found)
    }

    fn with<T>(&self, medium: &dyn WriteAt, work: impl FnOnce(&dyn WriteAt) -> Result<T>) -> Result<T> {
        let windows = self.extents(&medium)?.into_iter().map(|e| Ok(Window::new(medium, e)?));
        let mut windows = windows.collect::<Result<Vec<_>>>()?;
        if self.place != Place::Mirror {
            return work(&windows.remove(0));
        }
        let named = windows.into_iter().enumerate();
        let boxed = named.map(|(n, w)| (format!("member {n}"), Box::new(w) as Box<dyn WriteAt>));
        work(&Mirror::new(boxed.collect())?)
    }

    /// `backwards`: the user names the members in the other order.
    fn recover(&self, medium: &dyn WriteAt, way: Way, backwards: bool, scenario: &Scenario) -> Result<()> {
        if self.place != Place::Mirror {
            return self.with(medium, |m| scenario.operation.recover(m));
        }
        let windows = self.extents(&medium)?.into_iter().map(|e| Ok(Window::new(medium, e)?));
        let windows = windows.collect::<Result<Vec<_>>>()?;
        let mut members: Vec<Member<&dyn WriteAt>> = windows
            .iter()
            .enumerate()
            .map(|(n, w)| Member { name: format!("member {n}"), id: n.to_string(), medium: w as &dyn WriteAt })
            .collect();
        if backwards {
            members.reverse();
        }
        let options = RecoveryOptions { time: 1_700_000_100, ..RecoveryOptions::default() };
        match way {
            Way::Ours | Way::Unguarded => recover_members(&members, &options, None).map(|_| ())?,
            Way::FirstIsTruth => recover_members(&members, &options, Some(0)).map(|_| ())?,
            Way::OneAlone => recover(members[0].medium).map(|_| ())?,
            Way::Unmarked => {
                let truth = members.iter().map(|m| m.medium).find(|m| recover(*m).is_ok());
                let truth = truth.ok_or_else(|| Error::rejected("no member can be recovered"))?;
                let all = Extent { offset: 0, bytes: truth.size() };
                for m in &members {
                    copy_differences(&truth, m.medium, all)?;
                    m.medium.barrier()?;
                }
            }
        }
        members.iter().try_for_each(|m| open_healthy(m.medium).map(|_| ()))
    }

    /// A member as a reader finds it that goes by the backup where there is no boot sector.
    fn leg(&self, frame: &Frame, n: usize) -> Frame {
        let (first, count) = self.legs[n];
        let mut leg = frame.part(first, count);
        if self.place == Place::LostBootSector && leg.get(0).bytes[510..512] != [0x55, 0xAA] {
            let backup = leg.get(BACKUP_BOOT_SECTOR).clone();
            leg.set(0, backup);
        }
        leg
    }

    fn outside(&self, events: &[IoEvent]) -> Option<Violation> {
        let inside = |s: u64| self.legs.iter().any(|(first, count)| (*first..first + count).contains(&s));
        events.iter().find_map(|event| match event {
            IoEvent::Write { sector, .. } if !inside(*sector) => {
                Some(Violation { kind: "a write outside of the ESP", detail: format!("sector {sector}") })
            }
            _ => None,
        })
    }
}

/// Writes the entries of an MBR or of an extended boot record: type, first sector, sectors.
fn partitions(sector: &mut [u8], entries: &[(u8, u64, u64)]) {
    for (n, (kind, first, count)) in entries.iter().enumerate() {
        let entry = &mut sector[446 + 16 * n..][..16];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&(*first as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&(*count as u32).to_le_bytes());
    }
    sector[510..512].copy_from_slice(&[0x55, 0xAA]);
}

/// What was counted.
#[derive(Default)]
struct Counts {
    scenarios: usize,
    states: usize,
    nested: usize,
    recoveries: usize,
    /// States inside a recovery in which one member was not whole.
    one_whole: usize,
    violations: BTreeMap<&'static str, (usize, String)>,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.scenarios += other.scenarios;
        self.states += other.states;
        self.nested += other.nested;
        self.recoveries += other.recoveries;
        self.one_whole += other.one_whole;
        for (kind, (n, detail)) in other.violations {
            self.violations.entry(kind).or_insert((0, detail)).0 += n;
        }
    }

    fn table(&self, what: &str) -> String {
        let mut text = format!(
            "{what}: {} scenarios, {} states of an operation, {} inside a recovery ({} of them with one member whole), \
                {} \
             recoveries, each repeated\n",
            self.scenarios, self.states, self.nested, self.one_whole, self.recoveries
        );
        for (kind, (n, detail)) in &self.violations {
            let _ = writeln!(text, "  VIOLATION {kind}: {n}, first {detail}");
        }
        text
    }
}

/// One scenario being cut.
struct Run<'s> {
    scenario: &'s Scenario,
    disk: Disk,
    way: Way,
    checkers: Vec<Checker>,
    kinds: std::collections::HashSet<u128>,
    counts: Counts,
}

impl<'s> Run<'s> {
    fn new(scenario: &'s Scenario, place: Place, way: Way) -> Self {
        let disk = Disk::new(place, &scenario.volume.frame);
        let checkers = disk.legs.iter().map(|_| Checker::default()).collect();
        let counts = Counts { scenarios: 1, ..Counts::default() };
        Self { scenario, disk, way, checkers, kinds: std::collections::HashSet::new(), counts }
    }

    fn found(&mut self, at: &str, violations: Vec<Violation>) {
        for Violation { kind, detail } in violations {
            let text = || format!("{} {:?}: {at}: {detail}", self.scenario.name, self.disk.place);
            self.counts.violations.entry(kind).or_insert_with(|| (0, text())).0 += 1;
        }
    }

    fn everything(mut self) -> Counts {
        let recorder = Recorder::new(self.disk.frame.clone());
        let result = if self.way == Way::Unguarded {
            let to = self.disk.frame.size() - self.disk.frame.sector_size() as u64;
            let stray = Stray { recorder: &recorder, to, left: AtomicU32::new(3) };
            self.disk.with(&stray, |m| self.scenario.operation.run(m))
        } else {
            self.disk.with(&recorder, |m| self.scenario.operation.run(m))
        };
        let recording = recorder.into_recording();
        let mut found: Vec<Violation> = self.disk.outside(&recording.events).into_iter().collect();
        found.extend(result.err().map(|e| Violation { kind: "the operation failed", detail: e.to_string() }));
        found.extend(self.judge_end(&recording.frame, Phase::After));
        let failed = !found.is_empty();
        self.found("undisturbed run", found);
        if !failed {
            let (mut frame, events) = recording.rewind();
            let limits = Limits { complete: 1 << 8, sampled: 6, torn: 0, seed: 1 };
            let is_data = self.data();
            crash::enumerate(&mut frame, &events, &is_data, limits, &mut |frame, cut| self.one_cut(frame, cut));
        }
        self.counts
    }

    /// Sectors in the data area of a member.
    fn data(&self) -> impl Fn(u64) -> bool + use<> {
        let (legs, is_data) = (self.disk.legs.clone(), self.scenario.volume.data_sectors());
        move |sector| {
            let leg = legs.iter().find(|(first, count)| (*first..first + count).contains(&sector));
            leg.is_some_and(|(first, _)| is_data(sector - first))
        }
    }

    /// What each member is: its phase and what is wrong with it.
    fn look(&mut self, frame: &Frame) -> Vec<(Option<Phase>, Vec<Violation>)> {
        let legs = 0..self.disk.legs.len();
        legs.map(|n| {
            let report = self.checkers[n].check(&self.disk.leg(frame, n));
            self.scenario.expectation.judge_cut(&report)
        })
        .collect()
    }

    fn one_cut(&mut self, frame: &mut Frame, cut: Cut) {
        self.counts.states += 1;
        let legs = self.look(frame);
        let phase = legs.iter().filter_map(|(phase, _)| *phase).max();
        let found: Vec<Violation> = legs.into_iter().flat_map(|(_, found)| found).collect();
        let sound = found.is_empty();
        self.found(&format!("{cut:?}"), found);
        if sound {
            let backwards = self.counts.states.is_multiple_of(2);
            let lost = sector(&vec![0; frame.sector_size()]);
            let there = (self.disk.place == Place::LostBootSector).then(|| frame.set(0, lost));
            self.recover(frame, &format!("recovery from {cut:?}"), phase, backwards);
            if let Some(there) = there {
                frame.set(0, there);
            }
        }
    }

    fn recover(&mut self, frame: &mut Frame, at: &str, phase: Option<Phase>, backwards: bool) {
        let first = self.kinds.len() < 200 && self.kinds.insert(frame.key());
        let nested = first && self.counts.states.is_multiple_of(5);
        let (mut back, events, found) = self.recovered(std::mem::take(frame), phase, backwards);
        if found.is_empty() && nested && !events.is_empty() {
            let is_data = self.data();
            let limits = Limits { complete: 1 << 6, sampled: 3, torn: 0, seed: 1 };
            crash::enumerate(&mut back, &events, &is_data, limits, &mut |frame, cut| {
                self.counts.nested += 1;
                let at = format!("{cut:?} inside {at}");
                let legs = self.look(frame);
                let whole = legs.iter().filter(|(_, found)| found.is_empty()).count();
                self.counts.one_whole += usize::from(whole < legs.len());
                let sound = whole > 0;
                if !sound {
                    let found = legs.into_iter().flat_map(|(_, found)| found).collect();
                    self.found(&at, found);
                }
                // Who looks for the way out may name the members in any order.
                let backwards = self.counts.nested.is_multiple_of(2);
                let (back, _, found) = self.recovered(std::mem::take(frame), phase, backwards);
                *frame = back;
                self.found(&at, found);
            });
        }
        *frame = back;
        self.found(at, found);
    }

    /// Recovers twice; the medium as it was, and what the first recovery did.
    fn recovered(
        &mut self,
        frame: Frame,
        phase: Option<Phase>,
        backwards: bool,
    ) -> (Frame, Vec<IoEvent>, Vec<Violation>) {
        self.counts.recoveries += 1;
        let recorder = Recorder::new(frame);
        let result = self.disk.recover(&recorder, self.way, backwards, self.scenario);
        let Recording { frame, events, counts, misuse } = recorder.into_recording();
        let mut found: Vec<Violation> = self.disk.outside(&events).into_iter().collect();
        match result {
            Err(e) => found.push(Violation { kind: "recover failed", detail: e.to_string() }),
            Ok(()) => {
                found.extend(self.judge_end(&frame, phase.unwrap_or(Phase::Before)));
                let again = Recorder::new(frame.clone());
                let result = self.disk.recover(&again, self.way, !backwards, self.scenario);
                found.extend(result.err().map(|e| Violation { kind: "second recover failed", detail: e.to_string() }));
                if again.into_recording().wrote() {
                    found.push(Violation { kind: "second recover writes", detail: String::new() });
                }
            }
        }
        let (frame, events) = Recording { frame, events, counts, misuse }.rewind();
        (frame, events, found)
    }

    fn judge_end(&mut self, frame: &Frame, at_least: Phase) -> Vec<Violation> {
        let first = self.disk.leg(frame, 0);
        let report = self.checkers[0].check(&first);
        let mut found = self.scenario.expectation.judge_end(&report, at_least).1;
        for n in 1..self.disk.legs.len() {
            let other = self.disk.leg(frame, n);
            if let Some(s) = (0..first.sector_count()).find(|s| first.get(*s).id != other.get(*s).id) {
                found.push(Violation { kind: "the members differ", detail: format!("sector {s}") });
            }
        }
        found
    }
}

/// Volumes of more bytes are left out: they have no other layouts, and each recovery compares all of them.
const LARGEST: u64 = 3 << 20;

/// Whether the scenario makes sense there.
fn suits(place: Place, scenario: &Scenario) -> bool {
    let has_backup = scenario.volume.shape.width == Width::Fat32;
    scenario.volume.frame.size() <= LARGEST && (place != Place::LostBootSector || has_backup)
}

fn prove(place: Place, way: Way, makers: &[&Maker]) -> Counts {
    let all = in_parallel(makers, |maker| {
        let scenario = maker(1);
        if suits(place, &scenario) { Run::new(&scenario, place, way).everything() } else { Counts::default() }
    });
    let mut counts = Counts::default();
    all.into_iter().for_each(|one| counts.add(one));
    counts
}

/// Every so many of the scenarios: `POWERCUT_EVERY`, else a quick run, or with `POWERCUT_STATES` a longer one.
fn some(makers: &[Maker], quick: usize) -> Vec<&Maker> {
    let long = std::env::var_os("POWERCUT_STATES").is_some();
    let every = match std::env::var("POWERCUT_EVERY") {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("POWERCUT_EVERY={text}: {e}")),
        Err(_) if long => quick / 4,
        Err(_) => quick,
    };
    makers.iter().step_by(every).collect()
}

#[test]
fn issue14_operations_on_the_esp_of_an_mbr_disk_keep_every_promise() {
    let makers = real::everything();
    for place in [Place::Primary, Place::Logical] {
        let counts = prove(place, Way::Ours, &some(&makers, 331));
        println!("{}", counts.table(&format!("{place:?}")));
        assert!(counts.violations.is_empty(), "{place:?}");
    }
}

#[test]
fn issue14_what_was_cut_and_lost_its_boot_sector_is_recovered() {
    let makers = real::everything();
    let counts = prove(Place::LostBootSector, Way::Ours, &some(&makers, 97));
    println!("{}", counts.table("lost boot sector"));
    assert!(counts.scenarios > 0 && counts.violations.is_empty());
}

#[test]
fn issue14_operations_on_both_members_of_a_mirror_keep_every_promise() {
    let makers = real::everything();
    let counts = prove(Place::Mirror, Way::Ours, &some(&makers, 331));
    println!("{}", counts.table("mirror"));
    assert!(counts.violations.is_empty());
}

/// With a safety taken out, the judge has to see it.
#[test]
fn issue14_mistakes_in_recovering_a_mirror_are_caught() {
    let makers = real::everything();
    let few: Vec<&Maker> = makers.iter().take(1).collect();
    for way in [Way::FirstIsTruth, Way::OneAlone, Way::Unmarked] {
        let counts = prove(Place::Mirror, way, &few);
        println!("{}", counts.table(&format!("{way:?}")));
        assert!(!counts.violations.is_empty(), "{way:?} went unnoticed");
    }
}

/// The guards at the end of the ESP (`Editor`, `Window`, and the claim on the device) are in one another's way here:
/// what they would stop is written behind them.
#[test]
fn issue14_a_write_outside_of_the_esp_is_caught() {
    let makers = real::everything();
    let few: Vec<&Maker> = makers.iter().step_by(331).collect();
    for place in [Place::Primary, Place::Logical] {
        let counts = prove(place, Way::Unguarded, &few);
        println!("{}", counts.table(&format!("{place:?}, unguarded")));
        let (astray, _) = counts.violations.get("a write outside of the ESP").expect("it went unnoticed");
        assert_eq!(*astray, counts.scenarios, "{place:?}");
    }
}
