//! Mistakes made on purpose. A proof that finds none of them proves nothing.

use super::frame::Frame;
use super::recorder::IoEvent;

/// A mistake in the order of writes. Phases and barriers are counted from 0: phase n ends with barrier n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mistake {
    /// The barrier is not there.
    NoBarrier(usize),
    /// The writes of this phase do not happen.
    Forgotten(usize),
    /// The writes of this phase happen after those of the next.
    Late(usize),
}

/// Every mistake that can be made in a run.
#[must_use]
pub fn mistakes(events: &[IoEvent]) -> Vec<Mistake> {
    let phases: Vec<bool> = phases(events).map(writes).collect();
    let barriers = phases.len() - 1;
    let mut all: Vec<Mistake> = (0..barriers).map(Mistake::NoBarrier).collect();
    for (n, writes) in phases.iter().enumerate().filter(|(_, writes)| **writes) {
        debug_assert!(writes);
        all.push(Mistake::Forgotten(n));
        if phases.get(n + 1) == Some(&true) {
            all.push(Mistake::Late(n));
        }
    }
    all
}

/// The run with the mistake in it, as it would go on the medium `before` it; that one stays as it is.
#[must_use]
pub fn with_mistake(before: &mut Frame, events: &[IoEvent], mistake: Mistake) -> Vec<IoEvent> {
    let mut parts: Vec<Vec<IoEvent>> = phases(events).map(<[IoEvent]>::to_vec).collect();
    let mut missing = None;
    match mistake {
        Mistake::NoBarrier(n) => missing = Some(n),
        Mistake::Forgotten(n) => parts[n].clear(),
        Mistake::Late(n) => parts.swap(n, n + 1),
    }
    let last = parts.len() - 1;
    let mut changed = Vec::with_capacity(events.len());
    for (n, part) in parts.into_iter().enumerate() {
        changed.extend(part);
        if n != last && missing != Some(n) {
            changed.push(IoEvent::Barrier);
        }
    }
    // What a write finds before it is not what it was.
    for event in &mut changed {
        if let IoEvent::Write { sector, data, before: old } = event {
            *old = before.set(*sector, data.clone());
        }
    }
    super::undo(before, &changed);
    changed
}

fn phases(events: &[IoEvent]) -> impl Iterator<Item = &[IoEvent]> {
    events.split(|e| matches!(e, IoEvent::Barrier))
}

fn writes(phase: &[IoEvent]) -> bool {
    phase.iter().any(|e| matches!(e, IoEvent::Write { .. }))
}
