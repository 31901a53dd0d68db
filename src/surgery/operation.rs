//! Step two: from the intent record to the commit, and the tidying behind it.

use super::staging::Staged;
use super::{LINUX_DIR, intent};
use crate::fat::{Content, Editor, Entry, Run, Stamp};
use crate::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

/// An operation on the ESP, complete: carrying it out takes no further decision. This is what the intent record holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// `swap`, `prune` or `restore`.
    pub command: String,
    /// When it began, in seconds since 1970 UTC.
    pub time: u64,
    /// The file that changes its content, for swap and restore.
    pub install: Option<Install>,
    /// What happens to other files once the new image is in place.
    pub tidy: Vec<Tidy>,
}

/// A file gets a new content, and the old content another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Install {
    /// The file, in `EFI/Linux`. It may not exist yet.
    pub target: String,
    /// The name under which the old content stays reachable, if the target exists.
    pub backup: Option<String>,
    /// What the target holds now.
    pub old: Option<ContentRef>,
    /// What it will hold.
    pub new: ContentRef,
    /// Where the new content comes from.
    pub source: Source,
}

/// Where the new content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
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

/// What happens to a file beside the one that is swapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tidy {
    /// It gets another name: out of the boot menu, or back into it.
    Rename {
        /// Its name now.
        from: String,
        /// Its name then.
        to: String,
    },
    /// It is deleted.
    Remove(String),
}

impl Tidy {
    /// The file's name before the step.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Rename { from, .. } => from,
            Self::Remove(name) => name,
        }
    }
}

/// What an operation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the commit was one write that exchanged two entries of a sector (else the backup shared the old chain
    /// for a moment).
    pub exchanged: bool,
}

impl Operation {
    /// The operation in a few words: `swap of Talos-v1.12.4.efi`.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.install {
            Some(install) => format!("{} of {}", self.command, install.target),
            None => self.command.clone(),
        }
    }
}

impl<'m> Staged<'m> {
    /// What the staged image is, for the plan's [`Install::new`].
    #[must_use]
    pub fn content(&self) -> ContentRef {
        ContentRef {
            cluster: self.runs.first().map_or(0, |r| r.first),
            bytes: self.bytes,
            sha256: Some(hex::encode(self.sha256)),
        }
    }

    /// Makes the staged image the content of the operation's target.
    ///
    /// # Errors
    /// What the medium reports. The volume is then in a state that [`super::recover`] understands.
    pub fn commit(self, operation: &Operation) -> Result<Outcome> {
        let mut editor = self.editor;
        execute(&mut editor, operation, &self.runs)
    }
}

impl Operation {
    /// Carries out an operation that stages nothing: prune and restore.
    ///
    /// # Errors
    /// As [`Staged::commit`].
    pub fn run(&self, mut editor: Editor<'_>) -> Result<Outcome> {
        execute(&mut editor, self, &[])
    }
}

/// Carries out an operation and says in what state a failure leaves the ESP.
fn execute(editor: &mut Editor<'_>, operation: &Operation, staged: &[Run]) -> Result<Outcome> {
    let e = match carry_out(editor, operation, staged) {
        Ok(outcome) => return Ok(outcome),
        Err(e) => e,
    };
    // A refusal (a directory that cannot grow, say) comes from a medium that works: no trace of the attempt has to stay.
    // After an I/O error nothing is known about what was written last, and every further write here would build on that.
    if e.kind() != Kind::Io
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
        .while_doing("the board still boots the old image or the new one")
        .advise("run `bootsurgeon recover` on this disk before anything else")
        .with_esp_changed(true))
}

fn carry_out(editor: &mut Editor<'_>, operation: &Operation, staged: &[Run]) -> Result<Outcome> {
    // A full volume has no room for a record, and the way out of that is to delete. Every deletion is safe by itself: the
    // name goes, then its clusters, and what is cut in between are lost clusters.
    let only_deletes = operation.install.is_none() && operation.tidy.iter().all(|t| matches!(t, Tidy::Remove(_)));
    let recorded = match intent::write(editor, operation) {
        Err(e) if only_deletes && e.kind() == Kind::Unsafe => false,
        written => written.map(|()| true)?,
    };
    let exchanged = match &operation.install {
        Some(install) => put_in_place(editor, install, staged, operation.time)?,
        None => false,
    };
    finish(editor, operation)?;
    for step in &operation.tidy {
        tidy_up(editor, step)?;
    }
    if recorded {
        intent::clear(editor)?;
    } else {
        editor.write_fsinfo()?;
        editor.barrier()?;
    }
    Ok(Outcome { exchanged })
}

/// Links the chain and commits. Says whether the commit was an exchange.
fn put_in_place(editor: &mut Editor<'_>, install: &Install, staged: &[Run], time: u64) -> Result<bool> {
    let content = match &install.source {
        Source::Staged => {
            editor.link(staged)?;
            editor.barrier()?;
            Content::new(install.new.cluster, install.new.bytes, Stamp(time))
        }
        Source::File(name) => Content::of(&file(editor, name)?),
    };
    let directory = editor.directory(LINUX_DIR)?;
    let Some(target) = directory.find(&install.target).cloned() else {
        // Created whole, in one sector.
        editor.create(LINUX_DIR, &install.target, crate::fat::Attributes::ARCHIVE, content, None)?;
        editor.barrier()?;
        return Ok(false);
    };
    let Some(backup) = &install.backup else {
        return Err(Error::io(format!("internal error: no backup name for {}", install.target)));
    };
    let beside = Some(target.short_slot());
    if editor.create(LINUX_DIR, backup, target.attributes, content, beside)? {
        editor.barrier()?;
        let backup = file(editor, backup)?;
        editor.exchange(LINUX_DIR, &target, &backup)?; // the commit
        editor.barrier()?;
        return Ok(true);
    }
    // No room in the target's sector. The backup shares the old chain until the target is rewritten alone.
    editor.create(LINUX_DIR, backup, target.attributes, Content::of(&target), None)?;
    editor.barrier()?;
    editor.retarget(LINUX_DIR, &target, content)?; // the commit
    editor.barrier()?;
    Ok(false)
}

/// What comes directly behind the commit. It may have been done before: `recover` runs this too.
pub(super) fn finish(editor: &mut Editor<'_>, operation: &Operation) -> Result<Vec<String>> {
    let mut done = Vec::new();
    if let Some(Install { source: Source::File(name), target, .. }) = &operation.install
        && let Some(entry) = editor.directory(LINUX_DIR)?.find(name).cloned()
    {
        // Its chain belongs to the target now; only the name goes.
        editor.remove(LINUX_DIR, &entry)?;
        done.push(format!("removed the name {name}: its content is {target} now"));
    }
    Ok(done)
}

/// One step of tidying, which may have been done before. Says what was done, if anything.
pub(super) fn tidy_up(editor: &mut Editor<'_>, step: &Tidy) -> Result<Option<String>> {
    let directory = editor.directory(LINUX_DIR)?;
    match step {
        Tidy::Rename { from, to } => match (directory.find(from).cloned(), directory.find(to)) {
            (None, _) => Ok(None),
            (Some(old), None) => {
                editor.rename(LINUX_DIR, &old, to)?;
                Ok(Some(format!("renamed {from} to {to}")))
            }
            // A rename across two sectors that was cut in between: both names have the same chain.
            (Some(old), Some(new)) if old.first_cluster == new.first_cluster => {
                editor.remove(LINUX_DIR, &old)?;
                Ok(Some(format!("finished the renaming of {from} to {to}")))
            }
            (Some(_), Some(_)) => Err(Error::refused(format!("both {from} and {to} exist, with different contents"))),
        },
        Tidy::Remove(name) => {
            let Some(entry) = directory.find(name).cloned() else { return Ok(None) };
            let runs = match entry.first_cluster {
                0 => Vec::new(),
                first => editor.table().chain(first)?,
            };
            editor.remove(LINUX_DIR, &entry)?;
            editor.free(&runs)?;
            editor.barrier()?;
            Ok(Some(format!("deleted {name}")))
        }
    }
}

fn file(editor: &Editor<'_>, name: &str) -> Result<Entry> {
    let directory = editor.directory(LINUX_DIR)?;
    directory.find(name).cloned().ok_or_else(|| Error::refused(format!("there is no file {name} in {LINUX_DIR}")))
}
