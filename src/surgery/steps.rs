//! The steps of an operation, taken: from the intent record to the commit, and what follows it.

use super::discard::discard;
use super::order::{ContentSource, FileStep, Install, Operation, Rename};
use super::{Action, intent};
use crate::fat::{Attributes, Content, Editor, Entry, Run, Stamp};
use crate::{Code, Error, Result};

/// Carries out an operation. Says whether its commit was an exchange.
pub(super) fn carry_out(editor: &mut Editor<'_>, operation: &Operation, staged: &[Run]) -> Result<bool> {
    let dir = operation.directory.as_str();
    // A full volume has no room for a record, and the way out of that is to delete. Every deletion is safe by itself,
    // and what is cut in it marks itself: see `discard`.
    let only_deletes = operation.install.is_none() && operation.after.iter().all(|s| matches!(s, FileStep::Remove(_)));
    match intent::write(editor, operation, staged) {
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
    for rename in &operation.before {
        rename_file(editor, dir, rename)?;
    }
    let exchanged = match &operation.install {
        Some(install) => put_in_place(editor, operation, install, staged)?,
        None => false,
    };
    finish(editor, operation)?;
    for step in &operation.after {
        take(editor, dir, step)?;
    }
    intent::clear(editor)?;
    Ok(exchanged)
}

/// Links the chain and commits. Says whether the commit was an exchange.
fn put_in_place(editor: &mut Editor<'_>, operation: &Operation, install: &Install, staged: &[Run]) -> Result<bool> {
    let dir = operation.directory.as_str();
    let content = match &install.source {
        ContentSource::Staged => {
            editor.link(staged)?;
            editor.barrier()?;
            Content::new(install.new.cluster, install.new.bytes, Stamp(operation.time))
        }
        ContentSource::File(name) => Content::of(&file(editor, dir, name)?),
    };
    let directory = editor.directory(dir)?;
    let Some(target) = directory.find(&install.target).cloned() else {
        // Created whole, in one sector.
        editor.create(dir, &install.target, Attributes::ARCHIVE, content, None)?;
        editor.barrier()?;
        return Ok(false);
    };
    let Some(backup) = &install.backup else {
        return Err(Error::new(Code::Bug, format!("no name for the old content of {}", install.target)));
    };
    let beside = Some(target.short_slot());
    if editor.create(dir, backup, target.attributes, content, beside)? {
        editor.barrier()?;
        let backup = file(editor, dir, backup)?;
        editor.exchange(dir, &target, &backup)?; // the commit
        editor.barrier()?;
        return Ok(true);
    }
    // No room in the target's sector. The backup shares the old chain until the target is rewritten alone.
    editor.create(dir, backup, target.attributes, Content::of(&target), None)?;
    editor.barrier()?;
    editor.retarget(dir, &target, content)?; // the commit
    editor.barrier()?;
    Ok(false)
}

/// What comes directly behind the commit.
fn finish(editor: &mut Editor<'_>, operation: &Operation) -> Result<()> {
    if let Some(Install { source: ContentSource::File(name), .. }) = &operation.install
        && let Some(entry) = editor.directory(&operation.directory)?.find(name).cloned()
    {
        // Its chain belongs to the target now; only the name goes.
        editor.remove(&operation.directory, &entry)?;
    }
    Ok(())
}

/// One step beside the commit, which may have been taken before. Says what was done, if anything.
pub(super) fn take(editor: &mut Editor<'_>, dir: &str, step: &FileStep) -> Result<Option<Action>> {
    match step {
        FileStep::Rename(rename) => rename_file(editor, dir, rename),
        FileStep::Remove(name) => {
            let Some(entry) = editor.directory(dir)?.find(name).cloned() else { return Ok(None) };
            let runs = match entry.first_cluster {
                0 => Vec::new(),
                first => editor.table().chain(first)?,
            };
            editor.remove(dir, &entry)?;
            editor.free(&runs)?;
            editor.barrier()?;
            Ok(Some(Action::Delete(name.clone())))
        }
    }
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
