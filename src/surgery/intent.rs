//! The intent record: what is being done, on the volume itself, where `recover` finds it after a power cut.
//!
//! It is a file in the root directory with a short name of its own, so that it appears and goes in one sector write
//! each. No boot loader looks at it. The content is JSON, so that a person with any FAT reader can read it too.

use super::LINUX_DIR;
use super::operation::Operation;
use crate::block::ReadAt;
use crate::fat::{Attributes, Content, Editor, Run, Stamp, Volume};
use crate::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the record in the root directory.
pub const INTENT_NAME: &str = "BOOTSURG.TXN";
/// The format of the records that are written. Format 1 had no renames before the commit; else it is the same.
const FORMAT: u32 = 2;
/// A record larger than this was not written by this program.
const MAX_BYTES: u32 = 256 * 1024;

/// The record as it stands on the volume.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Version of the record's format.
    bootsurgeon: u32,
    operation: Operation,
    /// The files that are to be renamed or deleted, as they were.
    #[serde(default)]
    files: Files,
}

/// First cluster and length in bytes of files in `EFI/Linux`, by name.
pub(super) type Files = BTreeMap<String, (u32, u32)>;

/// An operation that did not finish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupted {
    /// What it was; `None` when the record cannot be read.
    pub operation: Option<Operation>,
    /// The files beside the image that it was to rename or delete. A name may have got another file since.
    pub(super) files: Files,
}

impl Interrupted {
    /// The refusal that every writing command gives.
    #[must_use]
    pub fn error(&self) -> Error {
        Error::new(Kind::Interrupted, self.to_string()).advise("run `bootsurgeon recover` on this disk first")
    }
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.operation {
            None => write!(f, "an operation was interrupted, and its record ({INTENT_NAME}) cannot be read"),
            Some(op) => {
                let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(op.time.min(1 << 36));
                write!(f, "{} was interrupted, begun at {}", op.title(), humantime::format_rfc3339_seconds(at))
            }
        }
    }
}

/// Looks for the record of an interrupted operation.
///
/// # Errors
/// What the source reports; [`Kind::Rejected`] when the root directory cannot be read.
pub fn interrupted<S: ReadAt>(volume: &Volume<S>) -> Result<Option<Interrupted>> {
    if volume.find(INTENT_NAME)?.is_none() {
        return Ok(None);
    }
    let record = match volume.read_small(INTENT_NAME, MAX_BYTES) {
        // A record that is damaged, not one that the medium just now failed to give.
        Err(e) if e.kind() == Kind::Rejected => None,
        record => record?,
    };
    let record = record.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    Ok(Some(match record.filter(|r| (1..=FORMAT).contains(&r.bootsurgeon)) {
        Some(Record { operation, files, .. }) => Interrupted { operation: Some(operation), files },
        None => Interrupted { operation: None, files: Files::new() },
    }))
}

/// Writes the record: its data, its chain, and last its entry, with a barrier behind each.
pub(super) fn write(editor: &mut Editor<'_>, operation: &Operation) -> Result<()> {
    let directory = editor.directory(LINUX_DIR)?;
    let known = |name: &str| directory.find(name).map(|e| (name.to_owned(), (e.first_cluster, e.bytes)));
    let files = operation.touched().filter_map(known).collect();
    let record = Record { bootsurgeon: FORMAT, operation: operation.clone(), files };
    let bytes = serde_json::to_vec_pretty(&record).map_err(|e| Error::io(e.to_string()))?;
    let len = u32::try_from(bytes.len()).ok().filter(|n| *n <= MAX_BYTES);
    let len = len.ok_or_else(|| Error::refused("the operation touches more files than an intent record can name"))?;
    // A root directory that is full and cannot grow has to be known before anything is allocated.
    editor.ensure_room("", INTENT_NAME)?;
    let runs = editor.reserve(editor.geometry().clusters_for(u64::from(len)) as u32)?;
    editor.write_data(&runs, 0, &bytes)?;
    editor.barrier()?;
    editor.link(&runs)?;
    editor.barrier()?;
    let first = runs.first().map_or(0, |r| r.first);
    let content = Content::new(first, len, Stamp(operation.time));
    editor.create("", INTENT_NAME, Attributes::ARCHIVE, content, None)?;
    editor.barrier()
}

/// Takes the record away: the entry first, then its clusters. FSInfo is brought up to date with the last write.
pub(super) fn clear(editor: &mut Editor<'_>) -> Result<()> {
    let volume = editor.volume()?;
    if let Some(entry) = volume.find(INTENT_NAME)? {
        let runs: Vec<Run> = match entry.first_cluster {
            0 => Vec::new(),
            first => volume.table().chain(first).unwrap_or_default(),
        };
        editor.remove("", &entry)?;
        editor.free(&runs)?;
    }
    editor.write_fsinfo()?;
    editor.barrier()
}
