//! The copies of the allocation table after a power cut between them: which one is right, and making them equal.

use super::{Action, beyond_recovery};
use crate::Result;
use crate::block::WriteAt;
use crate::fat::{AllocationTable, Editor, Entry, Health, Problem, ProblemClass, ProblemKind, Run, Volume};
use std::collections::{BTreeMap, HashSet};

/// Where the active copy of the allocation table is broken and another one is whole, the whole one is right.
pub(super) fn choose_table(medium: &dyn WriteAt, actions: &mut Vec<Action>) -> Result<()> {
    let volume = Volume::open(medium)?;
    let geometry = volume.geometry().clone();
    let tree_is_damaged = |v: &Volume<&dyn WriteAt>| -> Result<bool> {
        let health = match Health::check_whole(v) {
            // With this table not even the root directory can be read.
            Err(e) if e.code().is_bad_content() => return Ok(true),
            health => health?,
        };
        let of_the_tree = |p: &Problem| p.class == ProblemClass::Damage && p.kind != ProblemKind::TableCopies;
        Ok(health.problems.iter().any(of_the_tree))
    };
    if geometry.live_copies().count() < 2 || !tree_is_damaged(&volume)? {
        return Ok(());
    }
    for n in geometry.live_copies().skip(1) {
        let table = AllocationTable::read(medium, &geometry, n)?;
        if table == *volume.table() {
            continue;
        }
        let other = Volume::with_table(medium, geometry.clone(), table);
        if !tree_is_damaged(&other)? {
            let unit = medium.sector_size() as usize;
            let at = geometry.fat_copy_offset(geometry.active_fat);
            for (begin, good) in other.table().differing(volume.table(), unit) {
                medium.write_all_at(&good, at + begin)?;
            }
            medium.barrier()?;
            actions.push(Action::RepairTable { copy: n });
            return Ok(());
        }
    }
    Ok(())
}

/// Makes the copies of the allocation table equal, before anything is written that only one of them leads to.
///
/// They differ where an operation was cut between them: in clusters that no file uses, or in the last cluster of a
/// directory that was growing, perhaps before a record was there. Either way every file has the same clusters by each
/// copy, so each is right. Where that is not so, nobody can tell which one is.
pub(super) fn equalise_copies(editor: &Editor<'_>, actions: &mut Vec<Action>) -> Result<()> {
    let volume = editor.volume();
    let health = Health::check_whole(&volume)?;
    if health.differing == 0 {
        return Ok(());
    }
    if !copies_agree_on_every_file(&volume)? {
        return Err(beyond_recovery(health.problems.first().map_or("", |p| p.what.as_str())));
    }
    editor.equalise_tables()?;
    editor.barrier()?;
    actions.push(Action::EqualiseTables { entries: health.differing });
    Ok(())
}

/// Whether every copy of the allocation table gives the same files, each in the same clusters.
fn copies_agree_on_every_file(volume: &Volume<&dyn WriteAt>) -> Result<bool> {
    let ours = every_file(volume)?;
    for n in volume.geometry().live_copies().skip(1) {
        let table = AllocationTable::read(volume.source(), volume.geometry(), n)?;
        let other = Volume::with_table(*volume.source(), volume.geometry().clone(), table);
        if ours.is_none() || every_file(&other)? != ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Files and directories by path: the entry and, of a file, its clusters.
pub(super) type Tree = BTreeMap<String, (Entry, Vec<Run>)>;

/// Every file and directory. `None` when the volume is too damaged to tell; a medium that fails is an error.
pub(super) fn every_file(volume: &Volume<&dyn WriteAt>) -> Result<Option<Tree>> {
    match walk(volume) {
        Err(e) if e.code().is_bad_content() => Ok(None),
        files => files,
    }
}

fn walk(volume: &Volume<&dyn WriteAt>) -> Result<Option<Tree>> {
    let mut all = Tree::new();
    let mut stack = vec![(String::new(), volume.root()?)];
    // A directory that leads to itself would be walked for ever.
    let mut seen = HashSet::new();
    while let Some((path, directory)) = stack.pop() {
        for entry in directory.entries.into_iter().filter(|e| !e.is_dot()) {
            let path = format!("{path}/{}", entry.name);
            let mut runs = Vec::new();
            if entry.is_dir() {
                if !seen.insert(entry.first_cluster) {
                    return Ok(None);
                }
                stack.push((path.clone(), volume.directory(&entry)?));
            } else if entry.first_cluster != 0 {
                runs = volume.table().chain(entry.first_cluster)?;
            }
            all.insert(path, (entry, runs));
        }
    }
    Ok(Some(all))
}
