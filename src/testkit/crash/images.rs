//! Every image that a power cut can leave behind, built from a recording.
//!
//! The model: one logical sector is written whole or not at all; writes between two barriers reach the medium in any
//! order, each or none of them, only the writes of one sector keep their order; what was written before a barrier is
//! there. Torn sectors are outside the model and are asked for separately.

use super::frame::{Frame, Sector, sector};
use super::random::Random;
use super::recorder::IoEvent;
use std::collections::{BTreeMap, HashSet};

/// How many states to build.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// An epoch whose metadata states are at most so many is enumerated completely.
    pub complete: usize,
    /// States sampled of every epoch that is not, and of its data sectors.
    pub sampled: usize,
    /// Torn states in all.
    pub torn: usize,
    /// Of the samples.
    pub seed: u64,
}

/// An epoch of more metadata writes than this is sampled.
pub const COMPLETE_WRITES: usize = 16;

/// An epoch of so few writes is enumerated completely, data or not.
const TINY: usize = 12;

/// Where a state comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CutKind {
    /// The first so many sector writes, in program order.
    Prefix(usize),
    /// One of all states of an epoch's metadata.
    Complete,
    /// One of a seeded sample.
    Sampled,
    /// The sector write after so many whole ones stops after `at` bytes.
    Torn {
        /// Whole sector writes before it.
        after: usize,
        /// Bytes of it that were written.
        at: usize,
    },
}

/// One power cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Where the state comes from.
    pub kind: CutKind,
    /// Barriers that had returned.
    pub epoch: usize,
}

/// Calls `visit` with every state; the visitor leaves the frame as it found it. `frame` is the medium before the run.
/// All prefixes come first and in order, even where a write changes nothing; then of the reordered states each new one
/// once; then the torn ones, every tear.
pub fn enumerate(
    frame: &mut Frame,
    events: &[IoEvent],
    is_data: &dyn Fn(u64) -> bool,
    limits: Limits,
    visit: &mut dyn FnMut(&mut Frame, Cut),
) {
    let mut seen = HashSet::new();
    prefixes(frame, events, &mut |frame, cut| {
        seen.insert(frame.key());
        visit(frame, cut);
    });
    reordered(frame, events, is_data, limits, &mut |frame, cut| {
        if seen.insert(frame.key()) {
            visit(frame, cut);
        }
    });
    torn(frame, events, is_data, limits, visit);
}

fn prefixes(frame: &mut Frame, events: &[IoEvent], visit: &mut dyn FnMut(&mut Frame, Cut)) {
    let (mut epoch, mut writes) = (0, 0);
    visit(frame, Cut { kind: CutKind::Prefix(0), epoch });
    for event in events {
        match event {
            IoEvent::Write { sector, data, .. } => {
                frame.set(*sector, data.clone());
                writes += 1;
                visit(frame, Cut { kind: CutKind::Prefix(writes), epoch });
            }
            IoEvent::Barrier => epoch += 1,
            IoEvent::DropCaches => {}
        }
    }
    undo(frame, events);
}

/// Takes all writes back.
pub fn undo(frame: &mut Frame, events: &[IoEvent]) {
    for event in events.iter().rev() {
        if let IoEvent::Write { sector, before, .. } = event {
            frame.set(*sector, before.clone());
        }
    }
}

/// The versions of one sector that an epoch writes, in order.
struct Column {
    sector: u64,
    versions: Vec<Sector>,
}

fn reordered(
    frame: &mut Frame,
    events: &[IoEvent],
    is_data: &dyn Fn(u64) -> bool,
    limits: Limits,
    visit: &mut dyn FnMut(&mut Frame, Cut),
) {
    let mut random = Random::new(limits.seed);
    for (epoch, span) in events.split(|e| matches!(e, IoEvent::Barrier)).enumerate() {
        let (metadata, data) = columns(span, is_data);
        one_epoch(frame, &metadata, &data, limits, &mut random, &mut |frame, kind| visit(frame, Cut { kind, epoch }));
        redo(frame, span);
    }
    undo(frame, events);
}

/// What an epoch writes: its metadata and its data.
fn columns(span: &[IoEvent], is_data: &dyn Fn(u64) -> bool) -> (Vec<Column>, Vec<Column>) {
    let mut columns: BTreeMap<u64, Vec<Sector>> = BTreeMap::new();
    for event in span {
        if let IoEvent::Write { sector, data, .. } = event {
            columns.entry(*sector).or_default().push(data.clone());
        }
    }
    let writes: usize = columns.values().map(Vec::len).sum();
    let columns = columns.into_iter().map(|(sector, versions)| Column { sector, versions });
    // A file of a few sectors is enumerated completely, like metadata.
    columns.partition(|c| writes <= TINY || !is_data(c.sector))
}

fn is_complete(metadata: &[Column], limits: Limits) -> bool {
    let writes: usize = metadata.iter().map(|c| c.versions.len()).sum();
    let states = metadata.iter().try_fold(1usize, |n, c| n.checked_mul(c.versions.len() + 1)).unwrap_or(usize::MAX);
    writes <= COMPLETE_WRITES && states <= limits.complete
}

/// Carries out all writes.
pub fn redo(frame: &mut Frame, span: &[IoEvent]) {
    for event in span {
        if let IoEvent::Write { sector, data, .. } = event {
            frame.set(*sector, data.clone());
        }
    }
}

fn one_epoch(
    frame: &mut Frame,
    metadata: &[Column],
    data: &[Column],
    limits: Limits,
    random: &mut Random,
    visit: &mut dyn FnMut(&mut Frame, CutKind),
) {
    let complete = is_complete(metadata, limits);
    if complete {
        let mut levels = vec![0; metadata.len()];
        loop {
            let data_levels = sample(data, random);
            with(frame, &[(metadata, &levels), (data, &data_levels)], &mut |frame| visit(frame, CutKind::Complete));
            if !count_up(metadata, &mut levels) {
                break;
            }
        }
    } else {
        // One sector missing, one sector alone: the orders that a forgotten barrier shows up in.
        let pick = |random: &mut Random, i: usize| {
            if metadata.len() <= limits.sampled { i } else { random.below(metadata.len()) }
        };
        for i in 0..metadata.len().min(limits.sampled) {
            let chosen = pick(random, i);
            for present in [true, false] {
                let mut levels = extreme(metadata, !present);
                levels[chosen] = if present { metadata[chosen].versions.len() } else { 0 };
                let data_levels = sample(data, random);
                with(frame, &[(metadata, &levels), (data, &data_levels)], &mut |frame| visit(frame, CutKind::Sampled));
            }
        }
    }
    if complete && data.is_empty() {
        return;
    }
    for _ in 0..limits.sampled {
        let (levels, data_levels) = (sample(metadata, random), sample(data, random));
        with(frame, &[(metadata, &levels), (data, &data_levels)], &mut |frame| visit(frame, CutKind::Sampled));
    }
}

/// Advances a mixed-radix counter; false once it is back at zero.
fn count_up(columns: &[Column], levels: &mut [usize]) -> bool {
    for (column, level) in columns.iter().zip(levels) {
        if *level < column.versions.len() {
            *level += 1;
            return true;
        }
        *level = 0;
    }
    false
}

/// Nothing written, or everything.
fn extreme(columns: &[Column], all: bool) -> Vec<usize> {
    columns.iter().map(|c| if all { c.versions.len() } else { 0 }).collect()
}

/// A random state of these sectors, of one of several densities, since real caches lose few sectors or nearly all.
fn sample(columns: &[Column], random: &mut Random) -> Vec<usize> {
    let mut levels = match random.below(8) {
        0 => return extreme(columns, false),
        1 => return extreme(columns, true),
        2 | 3 => extreme(columns, true),
        4 | 5 => extreme(columns, false),
        _ => columns.iter().map(|c| random.below(c.versions.len() + 1)).collect(),
    };
    if let Some(last) = columns.len().checked_sub(1) {
        for _ in 0..=random.below(3) {
            let i = random.below(last + 1);
            levels[i] = random.below(columns[i].versions.len() + 1);
        }
    }
    levels
}

/// Visits the frame with the given version (0: none) of every sector, and restores it.
fn with(frame: &mut Frame, parts: &[(&[Column], &[usize])], visit: &mut dyn FnMut(&mut Frame)) {
    let mut before = Vec::new();
    for (columns, levels) in parts {
        for (column, level) in columns.iter().zip(*levels) {
            if let Some(version) = level.checked_sub(1) {
                before.push((column.sector, frame.set(column.sector, column.versions[version].clone())));
            }
        }
    }
    visit(frame);
    for (n, old) in before {
        frame.set(n, old);
    }
}

fn torn(
    frame: &mut Frame,
    events: &[IoEvent],
    is_data: &dyn Fn(u64) -> bool,
    limits: Limits,
    visit: &mut dyn FnMut(&mut Frame, Cut),
) {
    let metadata = |e: &IoEvent| matches!(e, IoEvent::Write { sector, .. } if !is_data(*sector));
    let tearable = events.iter().filter(|e| metadata(e)).count();
    if tearable == 0 || limits.torn == 0 {
        return;
    }
    let each = limits.torn.div_ceil(tearable);
    let mut random = Random::new(limits.seed ^ 0x7EA4);
    let (mut epoch, mut writes) = (0, 0);
    for event in events {
        match event {
            IoEvent::Write { sector: n, data, before, .. } => {
                if metadata(event) {
                    let size = frame.sector_size();
                    let all = each >= size;
                    for i in 0..each.min(size) {
                        let at = if all { i } else { random.below(size) };
                        let mut bytes = data.bytes.to_vec();
                        bytes[at..].copy_from_slice(&before.bytes[at..]);
                        let old = frame.set(*n, sector(&bytes));
                        visit(frame, Cut { kind: CutKind::Torn { after: writes, at }, epoch });
                        frame.set(*n, old);
                    }
                }
                frame.set(*n, data.clone());
                writes += 1;
            }
            IoEvent::Barrier => epoch += 1,
            IoEvent::DropCaches => {}
        }
    }
    undo(frame, events);
}

/// How many epochs are enumerated completely (their metadata), and how many sampled.
#[must_use]
pub fn epochs(events: &[IoEvent], is_data: &dyn Fn(u64) -> bool, limits: Limits) -> (usize, usize) {
    let (mut complete, mut sampled) = (0, 0);
    for span in events.split(|e| matches!(e, IoEvent::Barrier)) {
        let (metadata, data) = columns(span, is_data);
        if metadata.is_empty() && data.is_empty() {
            continue;
        }
        if is_complete(&metadata, limits) && data.is_empty() {
            complete += 1;
        } else {
            sampled += 1;
        }
    }
    (complete, sampled)
}
