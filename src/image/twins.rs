//! Whether the copies of a UKI inside an ISO are the same.

use super::Candidate;
use crate::block::ReadAt;
use crate::{Context, Result};

/// Bytes compared at a time.
const BLOCK: u64 = 1 << 20;

/// The outcome of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TwinVerdict {
    /// There is one copy only.
    Alone,
    /// All copies have the same bytes.
    Same,
    /// A copy differs.
    Different {
        /// Where the copy that differs from the first one was found.
        place: String,
        /// The first byte that differs, counted from the start of the file; the shorter one's length when it is a
        /// beginning of the longer one.
        at: u64,
        /// Length of the first copy in bytes.
        bytes: u64,
        /// Length of the one that differs in bytes.
        twin_bytes: u64,
    },
}

/// Compares a UKI with its twins byte by byte, 1 MiB at a time, up to the first difference. Twins of the same extents
/// are the same bytes and are not read.
///
/// # Errors
/// What the source reports.
pub fn compare_twins(candidate: &Candidate) -> Result<TwinVerdict> {
    let mut next = candidate.twin.as_deref();
    let mut verdict = TwinVerdict::Alone;
    while let Some(twin) = next {
        let difference = first_difference(candidate, twin)
            .while_doing(|| format!("comparing the UKI in {} with that in {}", candidate.place, twin.place))?;
        if let Some(at) = difference {
            return Ok(TwinVerdict::Different {
                place: twin.place.clone(),
                at,
                bytes: candidate.bytes.size(),
                twin_bytes: twin.bytes.size(),
            });
        }
        verdict = TwinVerdict::Same;
        next = twin.twin.as_deref();
    }
    Ok(verdict)
}

pub(super) fn first_difference(a: &Candidate, b: &Candidate) -> Result<Option<u64>> {
    let (a, b) = (&a.bytes, &b.bytes);
    if a.extents() == b.extents() {
        return Ok(None);
    }
    let common = a.size().min(b.size());
    a.will_read(0, common);
    b.will_read(0, common);
    let (mut left, mut right) = (vec![0; BLOCK as usize], vec![0; BLOCK as usize]);
    let mut at = 0;
    while at < common {
        let n = (common - at).min(BLOCK) as usize;
        let (left, right) = (&mut left[..n], &mut right[..n]);
        a.read_exact_at(left, at)?;
        b.read_exact_at(right, at)?;
        if left != right {
            let same = left.iter().zip(right.iter()).take_while(|(l, r)| l == r).count();
            return Ok(Some(at + same as u64));
        }
        at += n as u64;
    }
    Ok((a.size() != b.size()).then_some(common))
}
