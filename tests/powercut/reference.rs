//! A small swap that keeps its promises, for volumes with room in the target's directory sector: the harness's own
//! yardstick. Its mutations show that the harness can fail.

use crate::checker::{Checker, Content, Problem, Report};
use crate::formatter::{first_cluster, long_slots, short_entry};
use crate::frame::Frame;
use crate::geometry::{Geometry, Width};
use crate::invariants::{Expectation, newest};
use crate::operations::{Budget, Mutation, Operation, check, mutate, prove, scenarios};
use crate::volumes::{BACKUP, Room, Shape, TARGET, Volume};
use bootsurgeon::block::{ReadAt, WriteAt, read_vec};
use bootsurgeon::{Error, Result};

/// The steps of the swap; each ends with a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Data,
    Chain,
    BackupEntry,
    Exchange,
    Summary,
}

const STEPS: [Step; 5] = [Step::Data, Step::Chain, Step::BackupEntry, Step::Exchange, Step::Summary];

/// A deliberate mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    NoBarrierAfter(Step),
    /// This step and the next in the other order.
    Early(Step),
    /// The exchange rewrites the target's entry first and the backup's with a second write.
    TwoWrites,
    /// Only the first FAT is written.
    OneFat,
    /// The new image goes where the old one is.
    InPlace,
    /// Recovery frees the staged chain before it removes its name.
    FreeBeforeUnlink,
    /// Recovery leaves lost clusters.
    NoCleaning,
}

struct Swap {
    new: Vec<u8>,
    mistake: Option<Mistake>,
}

/// The volume as the reference sees it.
struct View {
    frame: Frame,
    geometry: Geometry,
    report: Report,
}

impl View {
    fn read(medium: &dyn WriteAt) -> Result<Self> {
        let frame = Frame::new(&read_vec(medium, 0, medium.size() as usize)?, medium.sector_size() as usize);
        let geometry = Geometry::read(&frame).map_err(Error::rejected)?;
        let report = Checker::default().check(&frame);
        Ok(Self { frame, geometry, report })
    }

    fn entry(&self, path: &str) -> Result<[u8; 32]> {
        Ok(self.report.find(path).ok_or_else(|| Error::rejected(format!("no {path}")))?.raw)
    }

    /// Where a short entry stands, in bytes.
    fn place(&self, raw: &[u8; 32]) -> usize {
        let is_it = |slot: &[u8]| slot == raw;
        let find = |n: u64| Some((n, self.frame.get(n).bytes.chunks(32).position(is_it)?));
        let (n, slot) = (self.geometry.root_start..self.frame.sector_count()).find_map(find).unwrap();
        n as usize * self.frame.sector_size() + slot * 32
    }

    fn chain(&self, first: u32) -> Vec<u32> {
        let (g, mut chain) = (&self.geometry, vec![first]);
        loop {
            let next = g.entry(&self.frame, g.active.unwrap_or(0), chain[chain.len() - 1]) & g.mask();
            if !(2..=g.last()).contains(&next) {
                return chain;
            }
            chain.push(next);
        }
    }
}

/// Whole sectors changed in memory and then written.
struct Patch<'a> {
    medium: &'a dyn WriteAt,
    frame: Frame,
    dirty: Vec<u64>,
}

impl<'a> Patch<'a> {
    fn new(medium: &'a dyn WriteAt, frame: &Frame) -> Self {
        Self { medium, frame: frame.clone(), dirty: Vec::new() }
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let (unit, mut at, mut rest) = (self.frame.sector_size(), offset, bytes);
        while !rest.is_empty() {
            let (n, inside) = ((at / unit) as u64, at % unit);
            let (part, more) = rest.split_at(rest.len().min(unit - inside));
            let mut sector = self.frame.get(n).bytes.to_vec();
            sector[inside..inside + part.len()].copy_from_slice(part);
            self.frame.set(n, crate::frame::sector(&sector));
            if !self.dirty.contains(&n) {
                self.dirty.push(n);
            }
            (at, rest) = (at + part.len(), more);
        }
    }

    fn set_fat(&mut self, g: &Geometry, fat: u64, cluster: u32, value: u32) {
        let start = ((g.fat_start + fat * g.fat_sectors) * g.sector) as usize;
        let c = cluster as usize;
        match g.width {
            Width::Fat12 => {
                let old = g.entry(&self.frame, fat, cluster ^ 1);
                let (even, odd) = if c.is_multiple_of(2) { (value & 0xFFF, old) } else { (old, value & 0xFFF) };
                let pair = (even | odd << 12).to_le_bytes();
                self.put(start + c / 2 * 3, &pair[..3]);
            }
            Width::Fat16 => self.put(start + c * 2, &(value as u16).to_le_bytes()),
            Width::Fat32 => self.put(start + c * 4, &value.to_le_bytes()),
        }
    }

    fn write(self) -> Result<()> {
        for n in &self.dirty {
            self.medium.write_all_at(&self.frame.get(*n).bytes, n * self.frame.sector_size() as u64)?;
        }
        Ok(())
    }
}

impl Swap {
    fn steps(&self) -> Vec<Step> {
        let mut steps = STEPS.to_vec();
        if let Some(Mistake::Early(step)) = self.mistake {
            let at = steps.iter().position(|s| *s == step).unwrap();
            steps.swap(at - 1, at);
        }
        steps
    }

    fn step(&self, medium: &dyn WriteAt, step: Step, clusters: &[u32]) -> Result<()> {
        let view = View::read(medium)?;
        let g = &view.geometry;
        let mut patch = Patch::new(medium, &view.frame);
        match step {
            Step::Data => {
                for (cluster, part) in clusters.iter().zip(self.new.chunks(g.cluster_bytes() as usize)) {
                    patch.put((g.cluster_sector(*cluster) * g.sector) as usize, part);
                }
            }
            Step::Chain => {
                let fats = if self.mistake == Some(Mistake::OneFat) { 1 } else { g.fats };
                for fat in (0..fats).filter(|f| g.active.is_none_or(|a| a == *f)) {
                    for (i, cluster) in clusters.iter().enumerate() {
                        patch.set_fat(g, fat, *cluster, clusters.get(i + 1).copied().unwrap_or(g.mask()));
                    }
                }
            }
            Step::BackupEntry => {
                let short = short_entry(b"BACKUP~1   ", 0x20, clusters[0], self.new.len() as u32);
                let mut name = [0; 11];
                name.copy_from_slice(&short[..11]);
                let (_, file) = BACKUP.rsplit_once('/').unwrap();
                let slots: Vec<u8> = long_slots(file, &name).into_iter().chain(Some(short)).flatten().collect();
                let at = view.place(&view.entry(TARGET)?) + 32;
                patch.put(at, &slots);
            }
            Step::Exchange => {
                let (target, backup) = (view.entry(TARGET)?, view.entry(BACKUP)?);
                let (a, b) = (view.place(&target), view.place(&backup));
                patch.put(a + 20, &backup[20..]);
                if self.mistake == Some(Mistake::TwoWrites) {
                    patch.write()?;
                    patch = Patch::new(medium, &View::read(medium)?.frame);
                }
                patch.put(b + 20, &target[20..]);
            }
            Step::Summary => summary(&view, &mut patch),
        }
        patch.write()
    }
}

/// Corrects the free count and the next-free hint.
fn summary(view: &View, patch: &mut Patch<'_>) {
    let g = &view.geometry;
    let Some(n) = g.fsinfo else { return };
    let next = (2..=g.last()).find(|c| g.entry(&view.frame, g.active.unwrap_or(0), *c) & g.mask() == 0).unwrap_or(2);
    let words = [view.report.free.to_le_bytes(), next.to_le_bytes()].concat();
    let at = (n * g.sector) as usize + 488;
    let mut now = [0; 8];
    if view.frame.read_exact_at(&mut now, at as u64).is_ok() && now[..] != words[..] {
        patch.put(at, &words);
    }
}

impl Operation for Swap {
    fn run(&self, medium: &dyn WriteAt) -> Result<()> {
        let view = View::read(medium)?;
        let g = &view.geometry;
        let needed = (self.new.len() as u64).div_ceil(g.cluster_bytes()) as usize;
        let is_free = |c: &u32| g.entry(&view.frame, g.active.unwrap_or(0), *c) & g.mask() == 0;
        let mut clusters: Vec<u32> = (2..=g.last()).filter(is_free).take(needed).collect();
        if clusters.len() < needed {
            return Err(Error::refused("no room"));
        }
        if self.mistake == Some(Mistake::InPlace) {
            clusters[0] = first_cluster(&view.entry(TARGET)?);
        }
        for step in self.steps() {
            self.step(medium, step, &clusters)?;
            if self.mistake != Some(Mistake::NoBarrierAfter(step)) {
                medium.barrier()?;
            }
        }
        Ok(())
    }

    fn recover(&self, medium: &dyn WriteAt) -> Result<()> {
        let free_staged = |medium: &dyn WriteAt, first: u32| -> Result<()> {
            let view = View::read(medium)?;
            let mut patch = Patch::new(medium, &view.frame);
            for c in view.chain(first) {
                for fat in 0..view.geometry.fats {
                    patch.set_fat(&view.geometry, fat, c, 0);
                }
            }
            patch.write()?;
            Ok(medium.barrier()?)
        };
        let view = View::read(medium)?;
        let new = Content::of(&self.new, view.frame.sector_size());
        if view.report.content(BACKUP) == Some(new) {
            let raw = view.entry(BACKUP)?;
            if self.mistake == Some(Mistake::FreeBeforeUnlink) {
                free_staged(medium, first_cluster(&raw))?;
            }
            let view = View::read(medium)?;
            let mut patch = Patch::new(medium, &view.frame);
            let at = view.place(&raw);
            for slot in 0..=3 {
                patch.put(at - 32 * slot, &[0xE5]);
            }
            patch.write()?;
            medium.barrier()?;
        }
        let view = View::read(medium)?;
        let g = &view.geometry;
        let mut patch = Patch::new(medium, &view.frame);
        if self.mistake != Some(Mistake::NoCleaning) {
            for problem in &view.report.problems {
                match problem {
                    Problem::LostClusters(lost) => {
                        for (c, fat) in lost.iter().flat_map(|c| (0..g.fats).map(move |f| (c, f))) {
                            patch.set_fat(g, fat, *c, 0);
                        }
                    }
                    Problem::FatsDiffer { clusters, used: false, .. } => {
                        for (c, fat) in clusters.iter().flat_map(|c| (0..g.fats).map(move |f| (c, f))) {
                            patch.set_fat(g, fat, *c, 0);
                        }
                    }
                    _ => {}
                }
            }
        }
        let writes = !patch.dirty.is_empty();
        patch.write()?;
        if writes {
            medium.barrier()?;
        }
        let view = View::read(medium)?;
        let mut patch = Patch::new(medium, &view.frame);
        summary(&view, &mut patch);
        let writes = !patch.dirty.is_empty();
        patch.write()?;
        if writes {
            medium.barrier()?;
        }
        Ok(())
    }
}

/// The swap as it should be, or with a mistake.
fn plan(volume: &Volume, report: &Report, mistake: Option<Mistake>) -> (Expectation, Box<dyn Operation>) {
    let sector = volume.shape.sector as usize;
    let (old, new) = (Content::of(volume.old.as_ref().unwrap(), sector), Content::of(&volume.new, sector));
    let changes = [(TARGET, Some(new)), (BACKUP, Some(old))];
    let expectation = Expectation::new(report, &changes, TARGET, newest).passing(BACKUP, new);
    (expectation, Box::new(Swap { new: volume.new.clone(), mistake }))
}

fn correct(volume: &Volume, report: &Report) -> (Expectation, Box<dyn Operation>) {
    plan(volume, report, None)
}

fn simple_shapes() -> impl Iterator<Item = Shape> {
    let fits = |s: &Shape| s.room == Room::Ample && !s.backup_exists && s.old.is_some() && s.active.is_none();
    // The reference reads the whole volume for every step: small ones only.
    crate::matrix::shapes().into_iter().filter(move |s| fits(s) && s.clusters * s.cluster < 2_200_000)
}

#[test]
fn the_reference_swap_keeps_every_promise() {
    let makers = scenarios("reference swap", simple_shapes(), correct);
    let budget = Budget { states: 600, seed: 1, every: 2 };
    let tally = prove("the_reference_swap_keeps_every_promise", &makers, budget);
    assert_eq!(tally.bad, 0);
}

#[test]
fn every_mistake_is_caught() {
    // A barrier between data and chain, or around the exchange within one sector, protects nothing that the model can
    // break: what these order is unreachable until the backup's entry is written, or lies in one sector.
    let mistakes = [
        Mistake::NoBarrierAfter(Step::Chain),
        Mistake::NoBarrierAfter(Step::Summary),
        Mistake::Early(Step::BackupEntry),
        Mistake::TwoWrites,
        Mistake::OneFat,
        Mistake::InPlace,
        Mistake::FreeBeforeUnlink,
        Mistake::NoCleaning,
    ];
    for mistake in mistakes {
        let shape = Some(Shape::usual(Width::Fat32, 512, 512));
        let makers = scenarios("reference swap", shape, move |v, r| plan(v, r, Some(mistake)));
        let tally = check(&makers, Budget { states: 200, seed: 1, every: 1 });
        let kinds: Vec<_> = tally.violations.iter().map(|(kind, (n, _))| format!("{kind} × {n}")).collect();
        println!("{mistake:?}: {}", kinds.join(", "));
        assert!(tally.bad > 0, "{mistake:?} went unnoticed");
    }
}

#[test]
fn mutated_recordings_are_caught() {
    let makers = scenarios("reference swap", Some(Shape::usual(Width::Fat16, 512, 512)), correct);
    let scenario = makers[0](1);
    let caught: Vec<_> = mutate(&scenario, Budget { states: 200, seed: 1, every: 1 })
        .into_iter()
        .filter(|(_, tally)| tally.bad > 0)
        .map(|(mutation, _)| mutation)
        .collect();
    // FAT16 has no FSInfo: the last step writes nothing, so the barrier before it can be missed without harm.
    let expected = [Mutation::NoBarrier(1), Mutation::Swapped(1), Mutation::Swapped(2)];
    assert_eq!(caught, expected);
}
