//! The intent record: what is being done, on the volume itself, where `recover` finds it after a power cut.
//!
//! It is a file in the root directory with a short name of its own, so that it appears and goes in one sector write
//! each. No boot loader looks at it. Its data is written first, then its chain, then its entry, a barrier behind each:
//! no power cut leaves a part of it under its name. Whatever else has that name is somebody else's, or damaged by
//! something that this program knows nothing of, and is left alone.

use super::order::{FileStep, Install, Operation};
use super::record::{FORMAT, Held, MAX_BYTES, Record, Trouble};
use super::steps::Chains;
use super::{LINUX_DIR, is_linux_dir};
use crate::block::{ReadAt, read_vec, sha256_of};
use crate::counter::without_counter;
use crate::fat::{Attributes, Clusters, Content, Editor, Entry, Stamp, Volume};
use crate::sorting::Sort as _;
use crate::{Code, Error, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Name of the record in the root directory.
pub const INTENT_NAME: &str = "BOOTSURG.TXN";

/// What stands under the record's name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interrupted {
    /// What was interrupted; `None` when this program cannot tell.
    pub operation: Option<Operation>,
    /// What sort of record it is.
    pub state: RecordState,
    pub(super) record: Option<Record>,
}

/// What sort of record stands under the record's name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordState {
    /// One that this program can follow.
    Sound,
    /// One of another version of this program.
    OtherVersion {
        /// Its format.
        format: u64,
        /// The version of the program that wrote it, where it says so.
        program: Option<String>,
    },
    /// It begins as a record, and its checksum or length is wrong. No power cut does that.
    Damaged,
    /// No record: what it is instead.
    Foreign(&'static str),
}

impl Interrupted {
    /// Whether an operation was interrupted; not so where something else has the record's name.
    #[must_use]
    pub fn is_operation(&self) -> bool {
        !matches!(self.state, RecordState::Foreign(_))
    }

    /// The refusal that every writing command gives.
    #[must_use]
    pub fn error(&self) -> Error {
        let (code, advice) = match &self.state {
            RecordState::Sound => (Code::Interrupted, "run `bootsurgeon recover` on this disk first".to_owned()),
            RecordState::OtherVersion { program, .. } => {
                let which = program.as_deref().map_or("of a newer version".to_owned(), |p| format!("{p} (or newer)"));
                (
                    Code::RecordVersion,
                    format!("run `recover` with bootsurgeon {which}: only it knows what is left to do"),
                )
            }
            RecordState::Damaged | RecordState::Foreign(_) => (
                Code::ForeignRecord,
                "`bootsurgeon recover --set-aside` on this disk gives it another name and deletes nothing".to_owned(),
            ),
        };
        Error::new(code, self.to_string()).advise(advice)
    }

    fn without_operation(state: RecordState) -> Self {
        Self { operation: None, state, record: None }
    }
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.state {
            RecordState::Sound => {
                let Some(op) = &self.operation else { return write!(f, "an operation was interrupted") };
                let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(op.time.min(1 << 36));
                write!(f, "{} was interrupted, begun at {}", op.title(), humantime::format_rfc3339_seconds(at))
            }
            RecordState::OtherVersion { format, program } => {
                let by = program.as_ref().map_or(String::new(), |p| format!(" by bootsurgeon {p}"));
                write!(
                    f,
                    "an operation was interrupted, and its record ({INTENT_NAME}) was written{by} in format {format}; \
                     this is \
                     bootsurgeon {}, which knows the formats 1 to {FORMAT}",
                    env!("CARGO_PKG_VERSION")
                )
            }
            RecordState::Damaged => write!(
                f,
                "an operation was interrupted, and its record ({INTENT_NAME}) is damaged: what it was cannot be told"
            ),
            RecordState::Foreign(what) => {
                write!(f, "{what} has the name of this program's record ({INTENT_NAME}) but is not one")
            }
        }
    }
}

/// Looks for the record of an interrupted operation.
///
/// # Errors
/// What the source reports; [`crate::Kind::Rejected`] when the root directory cannot be read.
pub fn interrupted<S: ReadAt>(volume: &Volume<S>) -> Result<Option<Interrupted>> {
    let Some(entry) = volume.find(INTENT_NAME)? else { return Ok(None) };
    if entry.is_dir() {
        return Ok(Some(Interrupted::without_operation(RecordState::Foreign("a directory"))));
    }
    let read = match read_record(volume, &entry) {
        Err(e) if e.code().is_bad_content() => begin_of(volume, &entry)?,
        read => read?,
    };
    Ok(Some(match read {
        Ok(record) => {
            Interrupted { operation: Some(record.operation.clone()), state: RecordState::Sound, record: Some(record) }
        }
        Err(trouble) => Interrupted::without_operation(match trouble {
            Trouble::Foreign => RecordState::Foreign("a file"),
            Trouble::Damaged => RecordState::Damaged,
            Trouble::Version { format, program } => RecordState::OtherVersion { format, program },
        }),
    }))
}

fn read_record<S: ReadAt>(volume: &Volume<S>, entry: &Entry) -> Result<Result<Record, Trouble>> {
    if entry.bytes > MAX_BYTES {
        return begin_of(volume, entry);
    }
    let bytes = read_vec(&volume.file(entry)?, 0, entry.bytes as usize)?;
    Ok(Record::decode(&bytes, volume.geometry().cluster_bytes))
}

/// What a file is by its first cluster, where it cannot be read whole.
fn begin_of<S: ReadAt>(volume: &Volume<S>, entry: &Entry) -> Result<Result<Record, Trouble>> {
    let g = volume.geometry();
    if !g.is_valid(entry.first_cluster) {
        return Ok(Err(Trouble::Foreign));
    }
    let bytes = read_vec(volume.source(), g.cluster_offset(entry.first_cluster), g.cluster_bytes as usize)?;
    Ok(Err(match Record::decode(&bytes, g.cluster_bytes) {
        Ok(_) => Trouble::Damaged,
        Err(trouble) => trouble,
    }))
}

/// Writes the record: its data, its chain, and last its entry, with a barrier behind each.
pub(super) fn write(editor: &mut Editor<'_>, operation: &Operation, staged: &Chains) -> Result<()> {
    // No menu lists the files of another directory by their names.
    let menu = is_linux_dir(&operation.directory).then(|| others_in_menu(&editor.volume(), operation)).transpose()?;
    let record = Record {
        operation: operation.clone(),
        files: held(editor, operation)?,
        staged: Clusters::of(staged.all().flatten().copied()),
        menu,
        truth: None,
    };
    put(editor, &record)
}

/// Writes a record of which nothing is left to do, and which says that the other members of a mirror are made equal to
/// this one. It takes the place of the record that is there, in one write.
pub(super) fn mark(editor: &mut Editor<'_>, truth: &str, time: u64) -> Result<()> {
    let (command, directory) = ("recover".to_owned(), LINUX_DIR.to_owned());
    let operation = Operation {
        command,
        time,
        directory,
        directories: Vec::new(),
        set: Vec::new(),
        before: Vec::new(),
        install: None,
        after: Vec::new(),
    };
    let (files, staged) = (BTreeMap::new(), Clusters::default());
    put(editor, &Record { operation, files, staged, menu: None, truth: Some(truth.to_owned()) })
}

fn put(editor: &mut Editor<'_>, record: &Record) -> Result<()> {
    let bytes = record.encode(editor.geometry().cluster_bytes)?;
    // Only the mark of a mirror takes the place of another record.
    let there = editor.directory("")?.find(INTENT_NAME).filter(|_| record.truth.is_some()).cloned();
    if there.is_none() {
        // A root directory that is full and cannot grow has to be known before anything is allocated.
        editor.ensure_room("", INTENT_NAME)?;
    }
    let runs = editor.reserve(editor.geometry().clusters_for(bytes.len() as u64) as u32)?;
    editor.write_data(&runs, 0, &bytes)?;
    editor.barrier()?;
    editor.link(&runs)?;
    editor.barrier()?;
    let first = runs.first().map_or(0, |r| r.first);
    let content = Content::new(first, bytes.len() as u32, Stamp(record.operation.time));
    let Some(there) = there else {
        editor.create("", INTENT_NAME, Attributes::ARCHIVE, content, None)?;
        return editor.barrier();
    };
    let old = if there.first_cluster == 0 { Vec::new() } else { editor.table().chain(there.first_cluster)? };
    editor.retarget("", &there, content)?;
    editor.barrier()?;
    editor.free(&old)?;
    editor.barrier()
}

/// A digest of the names in the boot menu that the operation does not use, boot counters left out: systemd-boot changes
/// them at every start.
pub(super) fn others_in_menu<S: ReadAt>(volume: &Volume<S>, operation: &Operation) -> Result<String> {
    let entries = volume.list(LINUX_DIR)?.unwrap_or_default();
    let names = entries.iter().map(|e| &e.name).filter(|name| is_entry(name) && !operation.uses(name));
    let names = names.map(|name| name.to_lowercase());
    let mut names: Vec<String> = names.map(|name| without_counter(&name).unwrap_or(name)).collect();
    names.put_in_order(Ord::cmp);
    Ok(hex::encode(&Sha256::digest(names.join("/"))[..8]))
}

/// Whether systemd-boot would list a file of this name.
pub(super) fn is_entry(name: &str) -> bool {
    name.get(name.len().saturating_sub(4)..).is_some_and(|end| end.eq_ignore_ascii_case(".efi"))
}

/// What the files hold that the operation touches beside its target, by their names now. Of those that lose their name
/// the SHA-256 too, so that nothing else is ever deleted in their place.
fn held(editor: &Editor<'_>, operation: &Operation) -> Result<BTreeMap<String, Held>> {
    let volume = editor.volume();
    let Some(directory) = volume.find_directory(&operation.directory)? else { return Ok(BTreeMap::new()) };
    let mut files = BTreeMap::new();
    for name in operation.touched() {
        if let Some(entry) = directory.find(name) {
            let held =
                Held { cluster: entry.first_cluster, bytes: entry.bytes, sha256: None, clusters: Clusters::default() };
            files.insert(name.to_owned(), held);
        }
    }
    for (n, step) in operation.after.iter().enumerate() {
        let FileStep::Remove(gone) = step else { continue };
        // The name now of what goes then, and under which name the record has it.
        let (now, name) = match origin(operation, n, gone) {
            NamedContent::File(name) => (name, name),
            NamedContent::Old(install) => (install.target.as_str(), gone.as_str()),
            NamedContent::New(_) => continue,
        };
        let Some(entry) = directory.find(now) else { continue };
        let bytes = volume.file(entry)?;
        let sha256 = Some(hex::encode(sha256_of(&bytes, bytes.size())?));
        let chain = if entry.first_cluster == 0 { Vec::new() } else { volume.table().chain(entry.first_cluster)? };
        let clusters = Clusters::of(chain);
        files.insert(name.to_owned(), Held { cluster: entry.first_cluster, bytes: entry.bytes, sha256, clusters });
    }
    Ok(files)
}

/// What a name stands for in the middle of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamedContent<'a> {
    /// What the target held.
    Old(&'a Install),
    /// What the target gets.
    New(&'a Install),
    /// The file that had this name before the operation.
    File(&'a str),
}

/// What `name` stands for once `steps` steps behind the commit are taken.
pub(super) fn origin<'a>(operation: &'a Operation, steps: usize, name: &'a str) -> NamedContent<'a> {
    let mut name = name;
    for step in operation.after.iter().take(steps).rev() {
        if let FileStep::Rename(rename) = step
            && rename.to == name
        {
            name = &rename.from;
        }
    }
    if let Some(install) = &operation.install {
        if install.target == name {
            return NamedContent::New(install);
        }
        if install.backup.as_deref() == Some(name) {
            return NamedContent::Old(install);
        }
    }
    let undone = operation.before.iter().rev().fold(name, |name, r| if r.to == name { &r.from } else { name });
    NamedContent::File(undone)
}

impl Record {
    /// What a step behind the commit means by its name, if the record says so.
    pub(super) fn meant(&self, step: usize) -> Option<Held> {
        let name = self.operation.after.get(step)?.name();
        let content = match origin(&self.operation, step, name) {
            NamedContent::File(name) => return self.files.get(name).cloned(),
            NamedContent::New(install) => &install.new,
            NamedContent::Old(install) => install.old.as_ref()?,
        };
        let clusters = Clusters::default();
        Some(Held { cluster: content.cluster, bytes: content.bytes, sha256: content.sha256.clone(), clusters })
    }
}

/// Takes the record away: the entry first, then its clusters. FSInfo is brought up to date with the last write.
pub(super) fn clear(editor: &mut Editor<'_>) -> Result<()> {
    let volume = editor.volume();
    if let Some(entry) = volume.find(INTENT_NAME)?.filter(|e| !e.is_dir()) {
        let runs = match entry.first_cluster {
            0 => Vec::new(),
            first => volume.table().chain(first)?,
        };
        editor.remove("", &entry)?;
        editor.free(&runs)?;
    }
    editor.write_fsinfo()?;
    editor.barrier()
}
