//! What takes the room on a volume.

use super::Volume;
use crate::Result;
use crate::block::ReadAt;
use crate::sorting::Sort as _;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// Directories nested deeper than this are not looked into.
const MAX_DEPTH: usize = 16;
/// Entries looked at; a hostile volume has more.
const MAX_ENTRIES: usize = 100_000;

/// Something on a volume and the room that it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// A file, or a directory with all that is in it: `/EFI/Linux/old.efi`, `/EFI/UpdateCapsule`.
    pub path: String,
    /// Bytes in clusters, what the directories themselves take included.
    pub bytes: u64,
    /// Number of files in a directory; `None` for a file.
    pub files: Option<usize>,
}

/// What takes the room on a volume, the largest first. Files in the directories of `apart` stand for themselves, and
/// what is in any other directory counts for the one in the root, or in `apart`'s parents, that it lies in.
///
/// # Errors
/// What the source reports. Directories that cannot be read are left out.
pub fn usage<S: ReadAt>(volume: &Volume<S>, apart: &[&str]) -> Result<Vec<Usage>> {
    let cluster = u64::from(volume.geometry().cluster_bytes);
    let is_apart = |path: &str| path.is_empty() || apart.iter().any(|a| is_at_or_above(path, a));
    let mut all: BTreeMap<String, Usage> = BTreeMap::new();
    let (mut seen, mut left) = (HashSet::new(), MAX_ENTRIES);
    let mut pending = vec![(String::new(), None::<String>, volume.root()?, 0)];
    while let Some((path, counted_for, directory, depth)) = pending.pop() {
        for entry in directory.entries.iter().filter(|e| !e.is_dot()) {
            let Some(n) = left.checked_sub(1) else { return Ok(sorted(all)) };
            left = n;
            let own = format!("{path}/{}", entry.name);
            let key = counted_for.clone().unwrap_or_else(|| own.clone());
            let mut count = |bytes: u64, files: Option<usize>| {
                let item = all.entry(key.clone()).or_insert_with(|| Usage { path: key.clone(), bytes: 0, files });
                item.bytes += bytes;
            };
            if !entry.is_dir() {
                count(u64::from(entry.bytes).next_multiple_of(cluster), None);
                if counted_for.is_some()
                    && let Some(files) = all.get_mut(&key).and_then(|item| item.files.as_mut())
                {
                    *files += 1;
                }
                continue;
            }
            if depth >= MAX_DEPTH || entry.first_cluster == 0 || !seen.insert(entry.first_cluster) {
                continue;
            }
            let inside = match volume.directory(entry) {
                Err(e) if e.code().is_bad_content() => continue,
                inside => inside?,
            };
            if is_apart(&own) {
                pending.push((own, None, inside, depth + 1));
            } else {
                count(inside.runs.iter().map(|r| u64::from(r.count) * cluster).sum(), Some(0));
                pending.push((own, Some(key), inside, depth + 1));
            }
        }
    }
    Ok(sorted(all))
}

fn is_at_or_above(path: &str, directory: &str) -> bool {
    let (path, directory) = (path.trim_start_matches('/').to_ascii_lowercase(), directory.to_ascii_lowercase());
    directory == path || directory.strip_prefix(&path).is_some_and(|rest| rest.starts_with('/'))
}

fn sorted(all: BTreeMap<String, Usage>) -> Vec<Usage> {
    let mut all: Vec<Usage> = all.into_values().collect();
    all.put_in_order_by(|item| std::cmp::Reverse(item.bytes));
    all
}
