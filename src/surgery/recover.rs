//! After a power cut: undo what was cut before its commit, finish what was cut behind it, take leftovers away.
//!
//! Safe against power cuts itself: the intent record goes last, and every step can be done again.

use super::LINUX_DIR;
use super::intent::{self, Files, interrupted};
use super::operation::{ContentRef, Operation, Rename, Step, finish, take};
use super::shadow::Shadow;
use crate::block::{ReadAt, WriteAt};
use crate::fat::{Editor, Entry, Health, ProblemClass, Run, Table, Volume};
use crate::{Code, Error, Kind, Result};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// What recovery found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// The operation that had been interrupted, in words.
    pub interrupted: Option<String>,
    /// Whether it was finished (`true`) or undone (`false`).
    pub finished: Option<bool>,
    /// Everything that was done (or would be, in a dry run), in order.
    pub actions: Vec<String>,
}

/// What [`recover`] would do. It runs the same code on a view whose writes stay in memory, so what it says is what
/// would be done.
///
/// # Errors
/// As [`recover`].
pub fn rehearse(source: &dyn ReadAt, sector_size: u32) -> Result<Recovery> {
    recover(&Shadow::new(source, sector_size))
}

/// Brings a volume back to a clean state.
///
/// # Errors
/// [`crate::Kind::Unsafe`] when the volume is damaged in a way that no interrupted operation of this program explains;
/// what the medium reports.
pub fn recover(medium: &dyn WriteAt) -> Result<Recovery> {
    run(medium).map_err(|e| match e.kind() {
        // Whatever of the volume cannot be understood, it is the volume: no image is involved here.
        Kind::Rejected => e.with_code(Code::Unhealthy),
        _ => e,
    })
}

fn run(medium: &dyn WriteAt) -> Result<Recovery> {
    let mut done = Recovery::default();
    choose_table(medium, &mut done)?;
    let mut editor = Editor::open(medium)?;
    equalise_copies(&editor, &mut done)?;
    // Finishing may take a cluster, and on a full volume the last one may be lost to a recovery that was cut. Of a damaged
    // tree nobody can say what is lost.
    let health = Health::check(&editor.volume()?)?;
    if !health.is_damaged() {
        free_lost(&mut editor, &health, &mut done)?;
    }
    let volume = editor.volume()?;
    let found = interrupted(&volume)?;
    if let Some(found) = &found {
        done.interrupted = Some(found.to_string());
        if let Some(operation) = &found.operation {
            settle(&mut editor, operation, &found.files, &mut done)?;
        }
    }
    clean(&mut editor, &mut done)?;
    if found.is_some() {
        intent::clear(&mut editor)?;
        done.actions.push("removed the intent record".into());
    }
    Ok(done)
}

/// Where the active copy of the allocation table is broken and another one is whole, the whole one is right.
fn choose_table(medium: &dyn WriteAt, done: &mut Recovery) -> Result<()> {
    let volume = Volume::open(medium)?;
    let geometry = volume.geometry().clone();
    let tree_is_damaged = |v: &Volume<&dyn WriteAt>| -> Result<bool> {
        let health = match Health::check(v) {
            // With this table not even the root directory can be read.
            Err(e) if e.kind() == Kind::Rejected => return Ok(true),
            health => health?,
        };
        Ok(health.problems.iter().any(|p| p.class == ProblemClass::Damage && !p.what.starts_with("the copies of")))
    };
    if geometry.live_copies().count() < 2 || !tree_is_damaged(&volume)? {
        return Ok(());
    }
    for n in geometry.live_copies().skip(1) {
        let table = Table::read(medium, &geometry, n)?;
        if table == *volume.table() {
            continue;
        }
        let other = Volume::with_table(medium, geometry.clone(), table);
        if !tree_is_damaged(&other)? {
            let unit = medium.sector_size() as usize;
            let at = geometry.fat_copy_offset(geometry.active_fat);
            for (i, (good, bad)) in
                other.table().bytes().chunks(unit).zip(volume.table().bytes().chunks(unit)).enumerate()
            {
                if good != bad {
                    medium.write_all_at(good, at + (i * unit) as u64)?;
                }
            }
            medium.barrier()?;
            done.actions.push(format!(
                "repaired the allocation table from copy {n}: with it every file is whole, without it not"
            ));
            return Ok(());
        }
    }
    Ok(())
}

/// Makes the copies of the allocation table equal, before anything is written that only one of them leads to.
///
/// They differ where an operation was cut between them: in clusters that no file uses, or in the last cluster of a
/// directory that was growing, perhaps before a record was there. Either way every file has the same clusters by each copy,
/// so each is right. Where that is not so, nobody can tell which one is.
fn equalise_copies(editor: &Editor<'_>, done: &mut Recovery) -> Result<()> {
    let volume = editor.volume()?;
    let health = Health::check(&volume)?;
    if health.differing.is_empty() {
        return Ok(());
    }
    if !copies_agree_on_every_file(&volume)? {
        return Err(beyond_recovery(health.problems.first().map_or("", |p| p.what.as_str())));
    }
    editor.equalise_tables()?;
    editor.barrier()?;
    done.actions.push(format!("made the copies of the allocation table equal ({} entries)", health.differing.len()));
    Ok(())
}

fn beyond_recovery(what: &str) -> Error {
    Error::refused(format!("the file system is damaged beyond what `recover` may decide: {what}"))
        .advise("make an image of the partition first, then repair it with `fsck.fat` from another system")
}

/// Finishes or undoes the interrupted operation.
fn settle(editor: &mut Editor<'_>, operation: &Operation, files: &Files, done: &mut Recovery) -> Result<()> {
    if let Some(install) = &operation.install {
        let directory = editor.directory(LINUX_DIR)?;
        let target = directory.find(&install.target);
        let holds = |c: &ContentRef| target.is_some_and(|t| t.first_cluster == c.cluster && t.bytes == c.bytes);
        let committed = holds(&install.new);
        let as_before = install.old.as_ref().map_or(target.is_none(), holds);
        if !committed && !as_before {
            // The board may have run since and replaced it. The names of this operation then lead to images that somebody
            // may need: none of them is touched.
            done.actions.push(format!(
                "left {} and its backup alone: it holds neither the old image nor the new one, somebody else wrote it since",
                install.target
            ));
            return Ok(());
        }
        done.finished = Some(committed);
        if !committed {
            let chains = [Some(install.new.cluster), install.old.as_ref().map(|old| old.cluster)];
            let ours = |backup: &&Entry| chains.contains(&Some(backup.first_cluster));
            if let Some(backup) = install.backup.as_deref().and_then(|name| directory.find(name).filter(ours)) {
                // It was made by this operation and points at a chain that another name, or nobody, owns. A file that had
                // the name before has a chain of its own.
                editor.remove(LINUX_DIR, backup)?;
                done.actions.push(format!("removed the prepared backup name {}", backup.name));
            }
            // Back through the states that it came through.
            for rename in operation.before.iter().rev() {
                let back = Step::Rename(Rename { from: rename.to.clone(), to: rename.from.clone() });
                if !settle_step(editor, &back, files.get(&rename.from), done)? {
                    break;
                }
            }
            return Ok(());
        }
    }
    done.finished = Some(true);
    done.actions.extend(finish(editor, operation)?);
    for step in &operation.after {
        if !settle_step(editor, step, files.get(step.name()), done)? && matches!(step, Step::Rename(_)) {
            break;
        }
    }
    Ok(())
}

/// Takes a step, or says why it is left out; `false` then. `then` is the first cluster and the length of the file that is
/// meant, where the record has them.
///
/// What is refused now will be refused tomorrow. An ESP that every command refuses until the impossible is done would be
/// the greater harm.
fn settle_step(editor: &mut Editor<'_>, step: &Step, then: Option<&(u32, u32)>, done: &mut Recovery) -> Result<bool> {
    let directory = editor.directory(LINUX_DIR)?;
    let another = |now: &Entry| then.is_some_and(|then| *then != (now.first_cluster, now.bytes));
    let why = if directory.find(step.name()).is_some_and(another) {
        format!("{} is another file since", step.name())
    } else {
        match take(editor, step) {
            Ok(action) => {
                done.actions.extend(action);
                return Ok(true);
            }
            Err(e) if e.kind() == Kind::Io => return Err(e),
            Err(e) => e.to_string(),
        }
    };
    done.actions.push(format!("left out: {why}"));
    // The renames are in the order that keeps the old image or the new one in front at each moment.
    if matches!(step, Step::Rename(_)) {
        done.actions.push("left out what was to follow: look at `status`".to_owned());
    }
    Ok(false)
}

/// Takes away what no file depends on: orphaned name slots, lost clusters, a stale FSInfo.
fn clean(editor: &mut Editor<'_>, done: &mut Recovery) -> Result<()> {
    let health = Health::check(&editor.volume()?)?;
    if let Some(p) = health.problems.iter().find(|p| p.class == ProblemClass::Damage) {
        return Err(beyond_recovery(&p.what));
    }
    for (path, slots) in &health.orphan_slots {
        for slot in editor.directory(path)?.orphans {
            editor.clear(path, &(slot..slot + 1))?;
        }
        editor.barrier()?;
        done.actions.push(format!("cleared {slots} orphaned name slots in /{}", path.trim_start_matches('/')));
    }
    let lost = free_lost(editor, &health, done)?;
    if health.fsinfo_stale || lost > 0 {
        editor.write_fsinfo()?;
        editor.barrier()?;
        done.actions.push("brought the free-space count (FSInfo) up to date".into());
    }
    Ok(())
}

/// Frees the clusters that belong to no file or directory; how many there were.
fn free_lost(editor: &mut Editor<'_>, health: &Health, done: &mut Recovery) -> Result<u64> {
    let lost: u64 = health.lost.iter().map(|r| u64::from(r.count)).sum();
    if lost > 0 {
        editor.free(&health.lost)?;
        editor.barrier()?;
        let bytes = lost * u64::from(editor.geometry().cluster_bytes);
        done.actions.push(format!("freed {lost} clusters ({bytes} bytes) that belonged to no file"));
    }
    Ok(lost)
}

/// Whether every copy of the allocation table gives the same files, each in the same clusters.
fn copies_agree_on_every_file(volume: &Volume<&dyn WriteAt>) -> Result<bool> {
    let ours = every_file(volume)?;
    for n in volume.geometry().live_copies().skip(1) {
        let table = Table::read(volume.source(), volume.geometry(), n)?;
        let other = Volume::with_table(*volume.source(), volume.geometry().clone(), table);
        if ours.is_none() || every_file(&other)? != ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Files and directories by path: the entry and, of a file, its clusters.
type Tree = BTreeMap<String, (Entry, Vec<Run>)>;

/// Every file and directory. `None` when the volume is too damaged to tell; a medium that fails is an error.
fn every_file(volume: &Volume<&dyn WriteAt>) -> Result<Option<Tree>> {
    match walk(volume) {
        Err(e) if e.kind() == Kind::Rejected => Ok(None),
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
