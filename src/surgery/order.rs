//! What an operation is to do: the names that change, in the order in which they change, and what only the volume can
//! tell.
//!
//! A plan gives an [`Order`] or a [`Tidying`]: names alone. Clusters and lengths are added from the volume, and the
//! whole is the [`Operation`] that the intent record holds.

use super::is_linux_dir;
use crate::block::{ReadAt, sha256_of};
use crate::fat::{Editor, same_name};
use crate::{Error, Result};
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

/// A swap or a restore as a plan gives it: which names change, in which order. A file gets a new content; what that is,
/// the one who carries it out knows ([`super::Staged::commit`], [`Order::restore`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// `swap`, `restore` or `pin`.
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
    /// `swap`, `prune`, `restore` or `pin`.
    pub command: String,
    /// When it began, in seconds since 1970 UTC.
    pub time: u64,
    /// The directory of all these names, from the root of the volume. Formats 1 and 2 of the record know `EFI/Linux`
    /// alone.
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

impl Order {
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
        // What goes in the end has to be known by its content: recovery deletes nothing else.
        let goes = |name: &String| self.after.iter().any(|s| matches!(s, FileStep::Remove(gone) if gone == name));
        let sha256 = match old.filter(|_| backup.as_ref().is_some_and(goes)) {
            None => None,
            Some(entry) => {
                let volume = editor.volume()?;
                let bytes = volume.file(entry)?;
                Some(hex::encode(sha256_of(&bytes, bytes.size())?))
            }
        };
        let old = old.map(|e| ContentRef { cluster: e.first_cluster, bytes: e.bytes, sha256 });
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
