//! Two volumes side by side.

use super::{BoardFile, BoardFiles, Sort};
use crate::block::{ReadAt, first_difference};
use crate::fat::{Volume, folded};
use crate::units::size;
use crate::{Error, Result};
use serde::Serialize;
use std::cmp::Ordering;

/// Bytes of a file that are compared. The largest firmware file of a Raspberry Pi has 4 MB.
const MAX_FILE: u64 = 64 << 20;
/// Bytes that are compared in all, of each side.
const MAX_ALL: u64 = 256 << 20;
/// The same where every byte comes over a network.
const MAX_REMOTE: u64 = 4 << 20;

/// How a file of the source and one of the ESP stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Relation {
    /// Both have it, with the same bytes.
    Same,
    /// Both have it, with other bytes.
    Differs,
    /// The source has it and the ESP has not.
    OnlyInSource,
    /// The ESP has it and the source has not.
    OnlyOnEsp,
    /// Both have it, or may have it, and whether its bytes are the same is not known.
    NotCompared,
}

/// A file in the comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Compared {
    /// From the root of the volume, in the case of the ESP where it is there.
    pub path: String,
    /// What sort of file it is.
    pub sort: Sort,
    /// How the two stand to each other.
    pub relation: Relation,
    /// Its length in the source; `null` where that has none.
    pub source_bytes: Option<u64>,
    /// Its length on the ESP; `null` where that has none.
    pub esp_bytes: Option<u64>,
    /// Why it was not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Compared {
    /// A file that was held against nothing.
    #[must_use]
    pub fn alone(file: &BoardFile, relation: Relation) -> Self {
        let (path, sort) = (file.path.clone(), file.sort);
        Self { path, sort, relation, source_bytes: None, esp_bytes: Some(file.bytes()), why: None }
    }
}

/// Compares the files of a source with those of an ESP: every path of either, ordered as FAT tells names apart. Files
/// of two lengths differ and are not read; others are read up to the first difference, 1 MiB at a time.
///
/// # Errors
/// What the sources report. What is damaged on one of the volumes is [`Relation::NotCompared`].
pub fn compare<S: ReadAt, T: ReadAt>(
    (source, theirs): (&Volume<S>, &BoardFiles),
    (esp, ours): (&Volume<T>, &BoardFiles),
) -> Result<Vec<Compared>> {
    let remote = source.source().is_remote();
    let mut budget = if remote { MAX_REMOTE } else { MAX_ALL };
    let mut all = Vec::with_capacity(theirs.files.len().max(ours.files.len()));
    let pairs = Pairs::new(&theirs.files, &ours.files);
    for (theirs_now, ours_now) in pairs {
        let (relation, why) = match (theirs_now, ours_now) {
            (Some(_), None) if !ours.trouble.is_empty() => (Relation::NotCompared, ours.trouble.first().cloned()),
            (None, Some(_)) if !theirs.trouble.is_empty() => (Relation::NotCompared, theirs.trouble.first().cloned()),
            (Some(_), None) => (Relation::OnlyInSource, None),
            (None, Some(_)) => (Relation::OnlyOnEsp, None),
            (Some(a), Some(b)) if a.bytes() != b.bytes() => (Relation::Differs, None),
            (Some(a), Some(_)) if a.bytes() > MAX_FILE.min(budget) => {
                let limit = if a.bytes() > MAX_FILE {
                    MAX_FILE
                } else if remote {
                    MAX_REMOTE
                } else {
                    MAX_ALL
                };
                let of = if a.bytes() > MAX_FILE { "of a file" } else { "in all" };
                (Relation::NotCompared, Some(format!("at most {} {of} are compared", size(limit))))
            }
            (Some(a), Some(b)) => {
                budget -= a.bytes();
                let opened = a.open(source).and_then(|a| Ok((a, b.open(esp)?)));
                match opened.and_then(|(a, b)| first_difference(&a, &b)) {
                    Ok(None) => (Relation::Same, None),
                    Ok(Some(_)) => (Relation::Differs, None),
                    Err(e) if e.code().is_bad_content() => (Relation::NotCompared, Some(e.to_string())),
                    Err(e) => return Err(e),
                }
            }
            (None, None) => return Err(Error::new(crate::Code::Bug, "a pair of no files")),
        };
        let Some(named) = ours_now.or(theirs_now) else { continue };
        all.push(Compared {
            path: named.path.clone(),
            sort: named.sort,
            relation,
            source_bytes: theirs_now.map(BoardFile::bytes),
            esp_bytes: ours_now.map(BoardFile::bytes),
            why,
        });
    }
    Ok(all)
}

/// Two ordered lists, merged by path.
struct Pairs<'a> {
    left: std::iter::Peekable<std::slice::Iter<'a, BoardFile>>,
    right: std::iter::Peekable<std::slice::Iter<'a, BoardFile>>,
}

impl<'a> Pairs<'a> {
    fn new(left: &'a [BoardFile], right: &'a [BoardFile]) -> Self {
        Self { left: left.iter().peekable(), right: right.iter().peekable() }
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Option<&'a BoardFile>, Option<&'a BoardFile>);

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.left.peek(), self.right.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => folded(&a.path).cmp(&folded(&b.path)),
        };
        Some((order.is_le().then(|| self.left.next()).flatten(), order.is_ge().then(|| self.right.next()).flatten()))
    }
}
