//! What an operation is to do: the names that change, in the order in which they change, and what only the volume can
//! tell.
//!
//! A plan gives an [`Order`] or a [`Tidying`]: names alone. Clusters and lengths are added from the volume, and the
//! whole is the [`Operation`] that the intent record holds.

use super::is_linux_dir;
use crate::block::{ReadAt, sha256_of};
use crate::fat::{Editor, Entry, MAX_DIRECTORY, Run, length_for_names, same_name};
use crate::units::count;
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

/// One file of a set: what changes together with the target of an [`Order`], in whatever directory it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetFile {
    /// Its directory, from the root of the volume; the empty text is the root itself.
    pub directory: String,
    /// Its name. It may not exist yet.
    pub target: String,
    /// The name under which its old content stays reachable; needed if it exists.
    pub backup: Option<String>,
    /// What it gets.
    pub content: SetContent,
}

/// What a file of a set gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetContent {
    /// It is staged ([`super::Staged::stage_set`]), and so many bytes long.
    Staged {
        /// The length.
        bytes: u32,
    },
    /// It is a file of the same directory already, which goes when the target has it.
    File(String),
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
    /// Directories that are made before all this, for the files of the set and for the target: their paths from the
    /// root of the volume, each behind the one that it lies in. What is cut before the commit takes them away again.
    pub directories: Vec<String>,
    /// Files that get their new content next, one after the other; what is cut before the commit gives them their old
    /// one back.
    pub set: Vec<SetFile>,
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
    /// Directories that are made first, in order. Formats 1 to 4 of the record know none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<NewDirectory>,
    /// Files of any directory that change then, in order: a set. Formats 1 to 3 of the record know none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<SetInstall>,
    /// Renames before the commit, in order. What is cut before the commit undoes them in the reverse order.
    #[serde(default)]
    pub before: Vec<Rename>,
    /// The file that changes its content, for swap and restore. Its change is the commit.
    pub install: Option<Install>,
    /// What happens to other files once the new image is in place, in order. Format 1 of the record called it `tidy`.
    #[serde(alias = "tidy")]
    pub after: Vec<FileStep>,
}

/// A directory that is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDirectory {
    /// The directory that it lies in, from the root of the volume.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// Its first cluster.
    pub cluster: u32,
}

impl NewDirectory {
    /// Whether an entry leads to it.
    pub(super) fn is_of(&self, entry: &Entry) -> bool {
        entry.is_dir() && entry.first_cluster == self.cluster
    }

    /// Its path from the root of the volume.
    pub(super) fn path(&self) -> String {
        join(&self.parent, &self.name)
    }
}

/// A file of a set, with what the volume holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetInstall {
    /// Its directory, from the root of the volume.
    pub directory: String,
    /// What it gets.
    #[serde(flatten)]
    pub install: Install,
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

impl ContentRef {
    /// Whether an entry leads to it, by first cluster and length.
    pub(super) fn is_of(&self, entry: &Entry) -> bool {
        !entry.is_dir() && (entry.first_cluster, entry.bytes) == (self.cluster, self.bytes)
    }
}

/// The directory of the operations of formats 1 and 2.
fn linux_dir() -> String {
    super::LINUX_DIR.to_owned()
}

impl Operation {
    /// The operation in a few words: `swap of Talos-v1.12.4.efi`.
    #[must_use]
    pub fn title(&self) -> String {
        let of = match &self.install {
            Some(install) if is_linux_dir(&self.directory) => format!("{} of {}", self.command, install.target),
            Some(install) => format!("{} of {}", self.command, join(&self.directory, &install.target)),
            None => self.command.clone(),
        };
        match self.set.len() {
            0 => of,
            more => format!("{of} with {}", count(more, "more file")),
        }
    }

    /// Every file that gets a new content, with its directory, in the order in which they get it.
    pub fn installs(&self) -> impl DoubleEndedIterator<Item = (&str, &Install)> {
        let set = self.set.iter().map(|file| (file.directory.as_str(), &file.install));
        set.chain(self.install.iter().map(|install| (self.directory.as_str(), install)))
    }

    /// Whether it changes, or may leave behind, a file of this path.
    pub(super) fn changes(&self, directory: &str, name: &str) -> bool {
        self.directory.eq_ignore_ascii_case(directory) && self.uses(name)
            || self
                .set
                .iter()
                .any(|file| file.directory.eq_ignore_ascii_case(directory) && uses_name(&file.install, name))
            || self
                .directories
                .iter()
                .any(|new| new.parent.eq_ignore_ascii_case(directory) && same_name(&new.name, name))
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
        self.touched().any(|known| same_name(known, name))
            || { given }.any(|known| same_name(&known, name))
            || self.install.iter().any(|install| uses_name(install, name))
    }
}

/// Whether a name is the file's own, its backup's or its source's.
fn uses_name(install: &Install, name: &str) -> bool {
    let source = match &install.source {
        ContentSource::File(name) => Some(name),
        ContentSource::Staged => None,
    };
    [Some(&install.target), install.backup.as_ref(), source].into_iter().flatten().any(|known| same_name(known, name))
}

/// A path from the root of the volume.
pub(super) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Where a file is to get this content: what is there now, and what its old content is to be called.
fn install(
    editor: &Editor<'_>,
    [directory, target]: [&str; 2],
    is_new: bool,
    backup: Option<&String>,
    new: ContentRef,
    source: ContentSource,
) -> Result<Install> {
    // A directory that is to be made has no file yet.
    let directory = if is_new { None } else { Some(editor.directory(directory)?) };
    let old = directory.as_ref().and_then(|directory| directory.find(target));
    let backup = match (old, backup) {
        (None, _) => None,
        (Some(_), Some(backup)) => Some(backup.clone()),
        (Some(_), None) => {
            let what = format!("{target} exists, and the plan has no name for its old content");
            return Err(Error::refused(what).advise("run it again"));
        }
    };
    let old = old.map(|e| ContentRef { cluster: e.first_cluster, bytes: e.bytes, sha256: None });
    Ok(Install { target: target.to_owned(), backup, old, new, source })
}

impl Order {
    /// The operation, with what the volume holds. `set` are the contents that were staged for the set's files, in
    /// their order, `directories` the chains that were reserved for the new directories.
    pub(super) fn with_content(
        &self,
        editor: &Editor<'_>,
        new: ContentRef,
        source: ContentSource,
        set: &[ContentRef],
        directories: &[Vec<Run>],
    ) -> Result<Operation> {
        let is_new = |directory: &str| self.directories.iter().any(|new| same_name(new, directory));
        let mut staged = set.iter();
        let of_set = |file: &SetFile| -> Result<SetInstall> {
            let (new, source) = match &file.content {
                SetContent::Staged { .. } => {
                    let missing = || Error::new(Code::Bug, format!("{} was not staged", file.target));
                    (staged.next().cloned().ok_or_else(missing)?, ContentSource::Staged)
                }
                SetContent::File(name) => {
                    let entry = super::steps::file(editor, &file.directory, name)?;
                    let new = ContentRef { cluster: entry.first_cluster, bytes: entry.bytes, sha256: None };
                    (new, ContentSource::File(entry.name))
                }
            };
            let place = [file.directory.as_str(), &file.target];
            Ok(SetInstall {
                directory: file.directory.clone(),
                install: install(editor, place, is_new(&file.directory), file.backup.as_ref(), new, source)?,
            })
        };
        let set = self.set.iter().map(of_set).collect::<Result<Vec<_>>>()?;
        if staged.next().is_some() {
            return Err(Error::new(Code::Bug, "more was staged than the set has files"));
        }
        let place = [self.directory.as_str(), &self.target];
        let mut install = install(editor, place, is_new(&self.directory), self.backup.as_ref(), new, source)?;
        // What goes in the end has to be known by its content: recovery deletes nothing else.
        let goes = |name: &String| self.after.iter().any(|s| matches!(s, FileStep::Remove(gone) if gone == name));
        if install.backup.as_ref().is_some_and(goes)
            && let Some(old) = &mut install.old
        {
            let volume = editor.volume();
            let bytes = volume.file(&super::steps::file(editor, &self.directory, &self.target)?)?;
            old.sha256 = Some(hex::encode(sha256_of(&bytes, bytes.size())?));
        }
        let directories = self.directories.iter().zip(directories).map(|(path, runs)| {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let (parent, name) = (parent.to_owned(), name.to_owned());
            NewDirectory { parent, name, cluster: runs.first().map_or(0, |run| run.first) }
        });
        Ok(Operation {
            command: self.command.clone(),
            time: self.time,
            directory: self.directory.clone(),
            directories: directories.collect(),
            set,
            before: self.before.clone(),
            install: Some(install),
            after: self.after.clone(),
        })
    }
}

impl Order {
    /// Reserves clusters for the directories that it makes: so many that none of them has to grow for its files.
    pub(super) fn reserve_directories(&self, editor: &mut Editor<'_>) -> Result<Vec<Vec<Run>>> {
        let files = self.set.iter().map(|file| (file.directory.as_str(), file.target.as_str()));
        let files = files.chain([(self.directory.as_str(), self.target.as_str())]);
        let below = self.directories.iter().map(|path| path.rsplit_once('/').unwrap_or(("", path)));
        let all: Vec<(&str, &str)> = files.chain(below).collect();
        let mut reserved = Vec::with_capacity(self.directories.len());
        for path in &self.directories {
            let names = all.iter().filter(|(directory, _)| same_name(directory, path)).map(|(_, name)| *name);
            let bytes = length_for_names(names, editor.medium().sector_size() as usize);
            if bytes > MAX_DIRECTORY {
                let what = format!("{path} would have more entries than a directory on FAT can hold");
                return Err(Error::new(Code::NoRoom, what).advise("take a part of the files"));
            }
            reserved.push(editor.reserve(editor.geometry().clusters_for(bytes) as u32)?);
        }
        Ok(reserved)
    }
}

impl Tidying {
    pub(super) fn operation(&self) -> Operation {
        Operation {
            command: self.command.clone(),
            time: self.time,
            directory: self.directory.clone(),
            directories: Vec::new(),
            set: Vec::new(),
            before: Vec::new(),
            install: None,
            after: self.steps.clone(),
        }
    }
}
