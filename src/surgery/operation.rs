//! Step two: from the intent record to the commit, and the steps around it.
//!
//! A plan gives an [`Order`] or a [`Tidying`]: names, in the order in which they change. What only the volume can tell
//! (clusters, lengths) is added here, and the whole becomes the [`Operation`] that the record holds.

use super::discard::discard;
use super::rehearsal::rehearse;
use super::staging::Staged;
use super::{intent, is_linux_dir};
use crate::fat::{Content, Editor, Entry, Run, Stamp, same_name};
use crate::{Code, Error, Result};
use serde::{Deserialize, Serialize};

/// A file gets another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// Its name now.
    pub from: String,
    /// Its name then.
    pub to: String,
}

/// What happens to a file beside the one that gets the new content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileStep {
    /// It gets another name: out of the boot menu, or back into it.
    Rename(Rename),
    /// It is deleted.
    Remove(String),
}

impl FileStep {
    /// The file's name before the step.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Rename(Rename { from, .. }) => from,
            Self::Remove(name) => name,
        }
    }
}

/// A swap or a restore as a plan gives it: which names change, in which order. A file gets a new content; what that is, the
/// one who carries it out knows ([`Staged::commit`], [`Order::restore`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// `swap` or `restore`.
    pub command: String,
    /// When it begins, in seconds since 1970 UTC.
    pub time: u64,
    /// The directory of all these names, from the root of the volume: [`super::LINUX_DIR`].
    pub directory: String,
    /// Renames before the commit: files that would win over the new content once it is in place. They can be undone.
    pub before: Vec<Rename>,
    /// The file that gets the new content. It may not exist yet.
    pub target: String,
    /// The name under which its old content stays reachable; needed if the target exists.
    pub backup: Option<String>,
    /// What follows the commit.
    pub after: Vec<FileStep>,
}

/// A prune as a plan gives it: no file gets a new content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tidying {
    /// `prune`.
    pub command: String,
    /// When it begins, in seconds since 1970 UTC.
    pub time: u64,
    /// The directory of all these names, from the root of the volume: [`super::LINUX_DIR`].
    pub directory: String,
    /// Its steps, in order.
    pub steps: Vec<FileStep>,
}

/// An operation on the ESP, complete: carrying it out takes no further decision. This is what the intent record holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Operation {
    /// `swap`, `prune` or `restore`.
    pub command: String,
    /// When it began, in seconds since 1970 UTC.
    pub time: u64,
    /// The directory of all these names, from the root of the volume. Formats 1 and 2 of the record know `EFI/Linux` alone.
    #[serde(default = "linux_dir")]
    pub directory: String,
    /// Renames before the commit, in order. What is cut before the commit undoes them in the reverse order.
    #[serde(default)]
    pub before: Vec<Rename>,
    /// The file that changes its content, for swap and restore. Its change is the commit.
    pub install: Option<Install>,
    /// What happens to other files once the new image is in place, in order. Format 1 of the record called it `tidy`.
    #[serde(alias = "tidy")]
    pub after: Vec<FileStep>,
}

/// A file gets a new content, and the old content another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Install {
    /// The file. It may not exist yet.
    pub target: String,
    /// The name under which the old content stays reachable, if the target exists.
    pub backup: Option<String>,
    /// What the target holds now.
    pub old: Option<ContentRef>,
    /// What it will hold.
    pub new: ContentRef,
    /// Where the new content comes from.
    pub source: ContentSource,
}

/// Where the new content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentSource {
    /// It was staged in free clusters.
    Staged,
    /// It is a file already, which goes when the target has it: a backup that is restored.
    File(String),
}

/// A file's content: where it begins, how long it is, what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRef {
    /// First cluster.
    pub cluster: u32,
    /// Length in bytes.
    pub bytes: u32,
    /// SHA-256 in hex, where it was computed.
    pub sha256: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The operation that was carried out.
    pub operation: Operation,
    /// Whether the commit was one write that exchanged two entries of a sector (else the backup shared the old chain
    /// for a moment).
    pub exchanged: bool,
}

/// The directory of the operations of formats 1 and 2.
fn linux_dir() -> String {
    super::LINUX_DIR.to_owned()
}

impl Operation {
    /// The operation in a few words: `swap of Talos-v1.12.4.efi`.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.install {
            Some(install) if is_linux_dir(&self.directory) => format!("{} of {}", self.command, install.target),
            Some(install) => format!("{} of {}/{}", self.command, self.directory, install.target),
            None => self.command.clone(),
        }
    }

    /// The names, before the operation, of the files beside the target that it touches.
    pub(super) fn touched(&self) -> impl Iterator<Item = &str> {
        self.before.iter().map(|r| r.from.as_str()).chain(self.after.iter().map(FileStep::name))
    }

    /// Whether a name in its directory is one that it uses, before it or after it.
    pub(super) fn uses(&self, name: &str) -> bool {
        let new_name = |step: &FileStep| match step {
            FileStep::Rename(rename) => Some(rename.to.clone()),
            FileStep::Remove(_) => None,
        };
        let given = self.before.iter().map(|r| r.to.clone()).chain(self.after.iter().filter_map(new_name));
        let installed = self.install.iter().flat_map(|install| {
            let source = match &install.source {
                ContentSource::File(name) => Some(name.clone()),
                ContentSource::Staged => None,
            };
            [Some(install.target.clone()), install.backup.clone(), source].into_iter().flatten()
        });
        self.touched().any(|known| same_name(known, name))
            || given.chain(installed).any(|known| same_name(&known, name))
    }
}

impl Staged<'_> {
    /// Makes the staged image the content of the order's target.
    ///
    /// # Errors
    /// [`Code::Unsafe`] when the target exists and the order has no name for its old content; what the medium reports. The
    /// volume is then in a state that [`super::recover`] understands.
    pub fn commit(self, order: &Order) -> Result<Outcome> {
        let new = ContentRef {
            cluster: self.runs.first().map_or(0, |r| r.first),
            bytes: self.bytes,
            sha256: Some(hex::encode(self.sha256)),
        };
        let mut editor = self.editor;
        let operation = order.with_content(&editor, new, ContentSource::Staged)?;
        execute(&mut editor, operation, &self.runs)
    }
}

impl Order {
    /// Makes the content of a file in its directory the content of the target; the file's own name goes. `verified` is what
    /// that file held when it was looked at.
    ///
    /// # Errors
    /// [`Code::Unsafe`] when the file holds something else by now; as [`Staged::commit`].
    pub fn restore(&self, mut editor: Editor<'_>, from: &str, verified: ContentRef) -> Result<Outcome> {
        let entry = file(&editor, &self.directory, from)?;
        if (entry.first_cluster, entry.bytes) != (verified.cluster, verified.bytes) {
            return Err(Error::refused(format!("{from} is another file since it was verified")).advise("run it again"));
        }
        let operation = self.with_content(&editor, verified, ContentSource::File(entry.name))?;
        execute(&mut editor, operation, &[])
    }

    /// The operation, with what the volume holds.
    pub(super) fn with_content(
        &self,
        editor: &Editor<'_>,
        new: ContentRef,
        source: ContentSource,
    ) -> Result<Operation> {
        let directory = editor.directory(&self.directory)?;
        let old = directory.find(&self.target);
        let backup = match (old, &self.backup) {
            (None, _) => None,
            (Some(_), Some(backup)) => Some(backup.clone()),
            (Some(_), None) => {
                let what = format!("{} exists, and the plan has no name for its old content", self.target);
                return Err(Error::refused(what).advise("run it again"));
            }
        };
        let old = old.map(|e| ContentRef { cluster: e.first_cluster, bytes: e.bytes, sha256: None });
        Ok(Operation {
            command: self.command.clone(),
            time: self.time,
            directory: self.directory.clone(),
            before: self.before.clone(),
            install: Some(Install { target: self.target.clone(), backup, old, new, source }),
            after: self.after.clone(),
        })
    }
}

impl Tidying {
    /// Carries it out.
    ///
    /// # Errors
    /// As [`Staged::commit`].
    pub fn run(&self, mut editor: Editor<'_>) -> Result<Outcome> {
        execute(&mut editor, self.operation(), &[])
    }

    pub(super) fn operation(&self) -> Operation {
        Operation {
            command: self.command.clone(),
            time: self.time,
            directory: self.directory.clone(),
            before: Vec::new(),
            install: None,
            after: self.steps.clone(),
        }
    }
}

/// Carries out an operation, if it can be carried out to its end, and says in what state a failure leaves the ESP.
fn execute(editor: &mut Editor<'_>, operation: Operation, staged: &[Run]) -> Result<Outcome> {
    rehearse(editor, &operation, staged)?;
    let e = match carry_out(editor, &operation, staged) {
        Ok(exchanged) => return Ok(Outcome { operation, exchanged }),
        Err(e) => e,
    };
    // The rehearsal saw nothing to refuse, so somebody else writes too. The medium works: no trace of the attempt has to stay.
    // After an I/O error nothing is known about what was written last, and every further write here would build on that.
    if !e.code().is_failed_access()
        && e.code() != Code::Bug
        && let Ok(recovery) = super::recover(editor.medium())
    {
        return Err(match recovery.finished {
            Some(true) => {
                e.while_doing("the new image is in place, but not all of the rest could be done").with_esp_changed(true)
            }
            _ => e.while_doing("the attempt was undone").with_esp_changed(false),
        });
    }
    Err(e
        .while_doing("the operation is unfinished")
        .advise("run `bootsurgeon recover` on this disk before anything else")
        .with_esp_changed(true))
}

/// Says whether the commit was an exchange.
pub(super) fn carry_out(editor: &mut Editor<'_>, operation: &Operation, staged: &[Run]) -> Result<bool> {
    let dir = operation.directory.as_str();
    // A full volume has no room for a record, and the way out of that is to delete. Every deletion is safe by itself, and what
    // is cut in it marks itself: see `discard`.
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
        editor.create(dir, &install.target, crate::fat::Attributes::ARCHIVE, content, None)?;
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
pub(super) fn take(editor: &mut Editor<'_>, dir: &str, step: &FileStep) -> Result<Option<String>> {
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
            Ok(Some(format!("deleted {name}")))
        }
    }
}

/// Renames a file, or finishes that. Says what was done, if anything.
pub(super) fn rename_file(editor: &mut Editor<'_>, dir: &str, Rename { from, to }: &Rename) -> Result<Option<String>> {
    let directory = editor.directory(dir)?;
    match (directory.find(from).cloned(), directory.find(to)) {
        (None, _) => Ok(None),
        (Some(old), None) => {
            editor.rename(dir, &old, to)?;
            Ok(Some(format!("renamed {from} to {to}")))
        }
        // A rename across two sectors that was cut in between: both names have the same chain.
        (Some(old), Some(new)) if old.first_cluster == new.first_cluster => {
            editor.remove(dir, &old)?;
            Ok(Some(format!("finished the renaming of {from} to {to}")))
        }
        (Some(_), Some(_)) => Err(Error::refused(format!("both {from} and {to} exist, with different contents"))),
    }
}

pub(super) fn file(editor: &Editor<'_>, dir: &str, name: &str) -> Result<Entry> {
    let directory = editor.directory(dir)?;
    directory.find(name).cloned().ok_or_else(|| Error::refused(format!("there is no file {name} in {dir}")))
}
