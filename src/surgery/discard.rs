//! Deleting without a record: the way out of a volume so full that it has no cluster for one.
//!
//! The name goes first, then the clusters. Cut in between, they would be lost, and nobody's to free. So the deleted
//! entry, which keeps first cluster and length, is marked in the same write: a magic, and a part of the SHA-256 of what
//! the first cluster holds. The chain is freed from its end, so that the rest of it can be followed from there; then
//! the mark goes. Any system may overwrite a deleted entry; the clusters are then kept, as all lost clusters are that
//! nothing accounts for.

use super::Action;
use crate::Result;
use crate::block::{ReadAt, read_vec};
use crate::fat::{Clusters, Editor, Entry, FatKind, Link, MARK, Run, Slot, Volume};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

const MAGIC: &[u8; 4] = b"BSRG";

/// Deletes a file of a directory.
pub(super) fn discard(editor: &mut Editor<'_>, dir: &str, entry: &Entry) -> Result<()> {
    if entry.first_cluster == 0 {
        return editor.remove(dir, entry);
    }
    let volume = editor.volume();
    let chain: Vec<u32> = volume.table().chain(entry.first_cluster)?.into_iter().flat_map(Run::clusters).collect();
    let mark = mark(&volume, entry.first_cluster, entry.bytes)?;
    editor.remove_marked(dir, entry, mark)?;
    free_from_the_end(editor, &chain)?;
    editor.unmark(dir, entry.short_slot())
}

/// Finishes deletions that were cut. Says what was done.
pub(super) fn finish(editor: &mut Editor<'_>, lost: &[Run]) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    for Cut { dir, slot, chain } in cut(&editor.volume(), lost)? {
        free_from_the_end(editor, &chain)?;
        editor.unmark(&dir, slot)?;
        actions.push(Action::FinishDeletion { clusters: chain.len() });
    }
    Ok(actions)
}

/// A deletion that was cut.
pub(super) struct Cut {
    /// The directory of the file, from the root.
    dir: String,
    /// The marked slot in it.
    slot: Slot,
    /// What is left of the file's chain.
    pub(super) chain: Vec<u32>,
}

/// The deletions that were cut.
pub(super) fn cut<S: ReadAt>(volume: &Volume<S>, lost: &[Run]) -> Result<Vec<Cut>> {
    let lost = Clusters::of(lost.iter().copied());
    let mut all = Vec::new();
    for Marked { dir, slot, first, bytes, mark: found } in marked(volume)? {
        let mut chain = Vec::new();
        if lost.contains(first) && found == mark(volume, first, bytes)? {
            let mut at = first;
            // A chain cannot be longer than the file was, whatever it has become.
            while lost.contains(at) && (chain.len() as u64) < volume.geometry().clusters_for(u64::from(bytes)) {
                chain.push(at);
                let Link::Next(next) = volume.table().link(at) else { break };
                at = next;
            }
        }
        all.push(Cut { dir, slot, chain });
    }
    Ok(all)
}

/// A deleted entry with a mark.
struct Marked {
    dir: String,
    slot: Slot,
    first: u32,
    bytes: u32,
    mark: [u8; MARK],
}

/// The marked entries of all directories.
fn marked<S: ReadAt>(volume: &Volume<S>) -> Result<Vec<Marked>> {
    let wide = is_wide(volume);
    let mut all = Vec::new();
    let mut stack = vec![(String::new(), volume.root()?)];
    // A directory that leads to itself would be walked for ever.
    let mut seen = HashSet::new();
    while let Some((dir, directory)) = stack.pop() {
        for slot in 0..directory.end() {
            let raw = directory.slot(slot);
            if raw[0] != 0xE5 || raw[1..=MAGIC.len()] != *MAGIC {
                continue;
            }
            let half = |at: usize| u32::from(u16::from_le_bytes([raw[at], raw[at + 1]]));
            let first = half(26) | if wide { half(20) << 16 } else { 0 };
            let bytes = u32::from_le_bytes([raw[28], raw[29], raw[30], raw[31]]);
            let mut mark = [0; MARK];
            mark.copy_from_slice(&raw[1..=MARK]);
            all.push(Marked { dir: dir.clone(), slot, first, bytes, mark });
        }
        for entry in directory.entries.iter().filter(|e| e.is_dir() && !e.is_dot()) {
            if seen.insert(entry.first_cluster) {
                stack.push((format!("{dir}/{}", entry.name), volume.directory(entry)?));
            }
        }
    }
    Ok(all)
}

fn mark<S: ReadAt>(volume: &Volume<S>, first: u32, bytes: u32) -> Result<[u8; MARK]> {
    let g = volume.geometry();
    let content = read_vec(volume.source(), g.cluster_offset(first), g.cluster_bytes as usize)?;
    let digest = Sha256::new()
        .chain_update(first.to_le_bytes())
        .chain_update(bytes.to_le_bytes())
        .chain_update(content)
        .finalize();
    let mut mark = [0; MARK];
    mark[..MAGIC.len()].copy_from_slice(MAGIC);
    mark[MAGIC.len()..].copy_from_slice(&digest[..MARK - MAGIC.len()]);
    Ok(mark)
}

/// Frees a chain from its end, one sector of the table after the other, so that what is left can be followed from the
/// first cluster at every moment. On FAT12 an entry may lie in two sectors: it goes alone, because a cut may leave half
/// of it.
pub(super) fn free_from_the_end(editor: &mut Editor<'_>, chain: &[u32]) -> Result<()> {
    let unit = editor.medium().sector_size();
    let mut upto = chain.len();
    while upto > 0 {
        let sector = editor.table().sector_of(chain[upto - 1], unit);
        let in_one = |c: &&u32| editor.table().sector_of(**c, unit) == sector && !editor.table().is_split(**c, unit);
        let same = chain[..upto].iter().rev().take_while(in_one).count().max(1);
        editor.free(&Clusters::in_order(&chain[upto - same..upto]))?;
        editor.barrier()?;
        upto -= same;
    }
    Ok(())
}

/// Whether first clusters stand in the upper half of an entry too.
pub(super) fn is_wide<S: ReadAt>(volume: &Volume<S>) -> bool {
    volume.geometry().kind == FatKind::Fat32
}
