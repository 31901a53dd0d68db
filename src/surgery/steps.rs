//! The steps of an operation, taken: from the intent record to the commit, and what follows it.

use super::discard::discard;
use super::order::{ContentSource, FileStep, Install, NewDirectory, Operation, Rename, SetInstall};
use super::staging::{compare_read_back, nobody};
use super::{Action, intent};
use crate::fat::{Attributes, Content, Directory, Editor, Entry, Run, Stamp, empty_directory, same_name};
use crate::{Code, Error, Result};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// The clusters that an operation has reserved or filled, and that no file has yet.
#[derive(Debug, Default)]
pub(super) struct Chains {
    /// Of each new directory, in the operation's order.
    pub(super) directories: Vec<Vec<Run>>,
    /// Of each content that was staged: those of a set in its order, the image last.
    pub(super) contents: Vec<Vec<Run>>,
}

impl Chains {
    /// Each chain by itself.
    pub(super) fn all(&self) -> impl Iterator<Item = &[Run]> {
        self.directories.iter().chain(&self.contents).map(Vec::as_slice)
    }
}

/// Carries out an operation. Says whether its commit was an exchange.
pub(super) fn carry_out(editor: &mut Editor<'_>, operation: &Operation, chains: &Chains) -> Result<bool> {
    let dir = operation.directory.as_str();
    // A full volume has no room for a record, and the way out of that is to delete. Every deletion is safe by itself,
    // and what is cut in it marks itself: see `discard`.
    let only_deletes =
        operation.installs().next().is_none() && operation.after.iter().all(|s| matches!(s, FileStep::Remove(_)));
    fill_directories(editor, operation, &chains.directories)?;
    match intent::write(editor, operation, chains) {
        Err(e) if only_deletes && matches!(e.code(), Code::NoRoom | Code::Unsafe) => {
            for step in &operation.after {
                if let Some(entry) = editor.directory(dir)?.find(step.name()).cloned() {
                    discard(editor, dir, &entry)?;
                }
            }
            editor.write_fsinfo()?;
            editor.barrier()?;
            return Ok(false);
        }
        written => written?,
    }
    let mut unlinked = chains.contents.last().map_or(&[][..], Vec::as_slice);
    if !operation.set.is_empty() || !operation.directories.is_empty() {
        // All at once: whoever goes on from here (`recover --forward`) finds every content by its chain.
        editor.link_all(chains.all())?;
        editor.barrier()?;
        unlinked = &[];
    }
    let exchanged = change(editor, operation, unlinked)?;
    intent::clear(editor)?;
    Ok(exchanged)
}

/// From the record to the last step. What was done already, up to a cut before the commit, is not done again. `unlinked`
/// is the chain of the new image where it is not linked yet. Says whether the commit was an exchange.
pub(super) fn change(editor: &mut Editor<'_>, operation: &Operation, unlinked: &[Run]) -> Result<bool> {
    let dir = operation.directory.as_str();
    for new in &operation.directories {
        make_directory(editor, operation.time, new)?;
    }
    for SetInstall { directory, install } in &operation.set {
        put_in_place(editor, operation.time, directory, install)?;
    }
    for rename in &operation.before {
        rename_file(editor, dir, rename)?;
    }
    let exchanged = match &operation.install {
        Some(install) => {
            if !unlinked.is_empty() {
                editor.link(unlinked)?;
                editor.barrier()?;
            }
            put_in_place(editor, operation.time, dir, install)? // the commit
        }
        None => false,
    };
    for (directory, install) in operation.installs() {
        drop_source(editor, directory, install)?;
    }
    // A thousand backups go from one reading of the directory.
    for steps in operation.after.chunk_by(|a, b| matches!((a, b), (FileStep::Remove(_), FileStep::Remove(_)))) {
        match steps {
            [step @ FileStep::Rename(_)] => {
                take(editor, dir, step)?;
            }
            steps => {
                let directory = editor.directory(dir)?;
                let mut gone = HashSet::new();
                for entry in steps.iter().filter_map(|step| directory.find(step.name())) {
                    // A record may name a file twice, by its short name as well.
                    if gone.insert(entry.short_slot()) {
                        delete(editor, &directory, entry)?;
                    }
                }
            }
        }
    }
    Ok(exchanged)
}

/// What a new directory holds before it has files. `bytes` is the length of its clusters.
pub(super) fn begin_of_directory(
    editor: &Editor<'_>,
    operation: &Operation,
    new: &NewDirectory,
    bytes: usize,
) -> Result<Vec<u8>> {
    let above = match operation.directories.iter().find(|other| same_name(&other.path(), &new.parent)) {
        Some(parent) => parent.cluster,
        // The root directory is 0 in `..`, wherever it begins.
        None if new.parent.is_empty() => 0,
        None => editor.directory(&new.parent)?.runs.first().map_or(0, |run| run.first),
    };
    Ok(empty_directory(new.cluster, above, Stamp(operation.time), bytes))
}

/// Writes the clusters of the new directories, to which nothing refers yet, and reads them back.
fn fill_directories(editor: &Editor<'_>, operation: &Operation, chains: &[Vec<Run>]) -> Result<()> {
    if chains.is_empty() {
        return Ok(());
    }
    let cluster_bytes = editor.geometry().cluster_bytes as usize;
    let mut filled = Vec::with_capacity(chains.len());
    for (new, runs) in operation.directories.iter().zip(chains) {
        let clusters: u32 = runs.iter().map(|run| run.count).sum();
        let bytes = begin_of_directory(editor, operation, new, clusters as usize * cluster_bytes)?;
        editor.write_data(runs, 0, &bytes)?;
        filled.push((runs, bytes));
    }
    editor.barrier()?;
    editor.forget()?;
    let volume = editor.volume();
    for (runs, bytes) in &filled {
        compare_read_back(&volume, runs, bytes.len() as u64, Sha256::digest(bytes).into(), &mut nobody)?;
    }
    Ok(())
}

/// Makes a directory whose chain is linked; an earlier attempt may have made it.
fn make_directory(editor: &mut Editor<'_>, time: u64, new: &NewDirectory) -> Result<()> {
    match editor.directory(&new.parent)?.find(&new.name) {
        Some(entry) if new.is_of(entry) => return Ok(()),
        Some(_) => return Err(Error::refused(format!("{} exists since", new.path())).advise("run it again")),
        None => {}
    }
    let content = Content::new(new.cluster, 0, Stamp(time));
    editor.create(&new.parent, &new.name, Attributes::DIRECTORY, content, None)?;
    editor.barrier()
}

/// Gives a file its new content, whose chain is linked. What an earlier attempt has done of it is not done again. Says
/// whether it was an exchange.
fn put_in_place(editor: &mut Editor<'_>, time: u64, dir: &str, install: &Install) -> Result<bool> {
    let content = match &install.source {
        ContentSource::Staged => Content::new(install.new.cluster, install.new.bytes, Stamp(time)),
        ContentSource::File(name) => Content::of(&file(editor, dir, name)?),
    };
    let directory = editor.directory(dir)?;
    let Some(target) = directory.find(&install.target).cloned() else {
        // Created whole, in one sector.
        editor.create(dir, &install.target, Attributes::ARCHIVE, content, None)?;
        editor.barrier()?;
        return Ok(false);
    };
    if install.new.is_of(&target) {
        return Ok(false);
    }
    let Some(backup) = &install.backup else {
        return Err(Error::new(Code::Bug, format!("no name for the old content of {}", install.target)));
    };
    let prepared = directory.find(backup).cloned();
    let beside = Some(target.short_slot());
    let exchange = match &prepared {
        Some(there) => {
            install.new.is_of(there) && editor.same_sector(&directory, target.short_slot(), there.short_slot())
        }
        None => editor.create(dir, backup, target.attributes, content, beside)?,
    };
    if exchange {
        editor.barrier()?;
        let backup = file(editor, dir, backup)?;
        editor.exchange(dir, &target, &backup)?;
        editor.barrier()?;
        return Ok(true);
    }
    match prepared {
        None => {
            // No room in the target's sector. The backup shares the old chain until the target is rewritten alone.
            editor.create(dir, backup, target.attributes, Content::of(&target), None)?;
            editor.barrier()?;
        }
        Some(there) if install.old.as_ref().is_some_and(|old| old.is_of(&there)) => {}
        Some(_) => return Err(Error::refused(format!("{backup} exists, with another content"))),
    }
    editor.retarget(dir, &target, content)?;
    editor.barrier()?;
    Ok(false)
}

/// Gives a file its old content back, which its backup's name leads to; that name then leads to the new content, or to
/// the old one as well. The other way round of [`put_in_place`].
pub(super) fn put_back(editor: &Editor<'_>, dir: &str, target: &Entry, backup: &Entry) -> Result<()> {
    let directory = editor.directory(dir)?;
    if editor.same_sector(&directory, target.short_slot(), backup.short_slot()) {
        editor.exchange(dir, target, backup)?;
    } else {
        editor.retarget(dir, target, Content::of(backup))?;
    }
    editor.barrier()
}

/// What comes behind the commit: the file that the content came from has it no longer, for it is the target's now.
fn drop_source(editor: &mut Editor<'_>, dir: &str, install: &Install) -> Result<()> {
    if let ContentSource::File(name) = &install.source
        && let Some(entry) = editor.directory(dir)?.find(name).cloned()
    {
        // Its chain belongs to the target; only the name goes.
        editor.remove(dir, &entry)?;
    }
    Ok(())
}

/// One step beside the commit, which may have been taken before. Says what was done, if anything.
pub(super) fn take(editor: &mut Editor<'_>, dir: &str, step: &FileStep) -> Result<Option<Action>> {
    match step {
        FileStep::Rename(rename) => rename_file(editor, dir, rename),
        FileStep::Remove(name) => {
            let directory = editor.directory(dir)?;
            let Some(entry) = directory.find(name) else { return Ok(None) };
            delete(editor, &directory, entry)?;
            Ok(Some(Action::Delete(name.clone())))
        }
    }
}

/// The name goes, then its clusters.
fn delete(editor: &mut Editor<'_>, directory: &Directory, entry: &Entry) -> Result<()> {
    let runs = match entry.first_cluster {
        0 => Vec::new(),
        first => editor.table().chain(first)?,
    };
    editor.remove_from(directory, entry)?;
    editor.free(&runs)?;
    editor.barrier()
}

/// Renames a file, or finishes that. Says what was done, if anything.
pub(super) fn rename_file(editor: &mut Editor<'_>, dir: &str, Rename { from, to }: &Rename) -> Result<Option<Action>> {
    let directory = editor.directory(dir)?;
    match (directory.find(from).cloned(), directory.find(to)) {
        (None, _) => Ok(None),
        (Some(old), None) => {
            editor.rename(dir, &old, to)?;
            Ok(Some(Action::Rename { from: from.clone(), to: to.clone() }))
        }
        // A rename across two sectors that was cut in between: both names have the same chain.
        (Some(old), Some(new)) if old.first_cluster == new.first_cluster => {
            editor.remove(dir, &old)?;
            Ok(Some(Action::FinishRename { from: from.clone(), to: to.clone() }))
        }
        (Some(_), Some(_)) => Err(Error::refused(format!("both {from} and {to} exist, with different contents"))),
    }
}

pub(super) fn file(editor: &Editor<'_>, dir: &str, name: &str) -> Result<Entry> {
    let directory = editor.directory(dir)?;
    directory.find(name).cloned().ok_or_else(|| Error::refused(format!("there is no file {name} in {dir}")))
}
