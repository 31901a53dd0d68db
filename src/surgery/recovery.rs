//! What a recovery is asked for, and what it found and did.

use super::Action;
use super::lost::{LostChain, LostFiles};
use serde::Serialize;

/// What recovery found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Recovery {
    /// The operation that had been interrupted, in words.
    pub interrupted: Option<String>,
    /// Whether it was finished (`true`) or undone (`false`).
    pub finished: Option<bool>,
    /// Whether it had been cut behind its commit.
    pub cut_behind_commit: Option<bool>,
    /// Everything that was done (or would be, in a dry run), in order.
    pub actions: Vec<Action>,
    /// Chains of clusters that belong to no file and that this program did not leave, where they were kept; the longest
    /// first, at most 64.
    pub lost: Vec<LostChain>,
    /// How many more of them there are.
    pub lost_unlisted: usize,
}

/// What is to be done beside ending an interrupted operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryOptions {
    /// What happens to lost chains that this program did not leave.
    pub lost: LostFiles,
    /// Give another name to what has the record's name and is none.
    pub set_aside: bool,
    /// Where an interrupted operation is to end; if not named, its commit decides.
    pub direction: Option<Direction>,
    /// Now, in seconds since 1970 UTC.
    pub time: u64,
}

/// The two ends of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To its end, also where it was cut before its commit.
    Forward,
    /// To its beginning, also where it was cut behind its commit.
    Back,
}
