//! An operation gone through on a view whose writes stay in memory. What would stop it half-way (a directory that
//! cannot grow, a full volume, a name that fits into no sector) stops it here, before anything is written: the same
//! code runs on the same volume, so what has room here has room there.

use super::order::{ContentRef, ContentSource, Operation, Order, SetContent, Tidying};
use super::shadow::{Shadow, overlay};
use super::staging::{Staging, no_room, room_for};
use super::steps::{Chains, carry_out, file};
use super::{Outcome, open_healthy};
use crate::block::{ReadAt, Sink};
use crate::fat::{Editor, Geometry};
use crate::units::{count, size};
use crate::{Code, Error, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A volume as an operation would leave it: what that would write stays in memory.
pub struct Preview {
    below: Arc<dyn ReadAt>,
    sector_size: u32,
    written: BTreeMap<u64, Vec<u8>>,
}

impl ReadAt for Preview {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.below.read_exact_at(buf, offset)?;
        overlay(&self.written, self.sector_size, buf, offset);
        Ok(())
    }
}

/// Carries an operation out on a view of the volume.
fn preview(
    below: Arc<dyn ReadAt>,
    sector_size: u32,
    operation: impl FnOnce(&Shadow<'_>) -> Result<Outcome>,
) -> Result<Preview> {
    let shadow = Shadow::new(&*below, sector_size);
    let _done = operation(&shadow).map_err(|e| e.with_esp_changed(false))?;
    let written = shadow.into_written();
    Ok(Preview { below, sector_size, written })
}

impl Order {
    /// The volume with this content in the place of the target's. `sector_size` is what its medium writes at once, in
    /// bytes.
    ///
    /// # Errors
    /// As [`super::Staged::commit`] and [`open_healthy`].
    pub fn preview(&self, below: Arc<dyn ReadAt>, sector_size: u32, content: &[u8]) -> Result<Preview> {
        preview(below, sector_size, |shadow| {
            let mut staging = Staging::begin(open_healthy(shadow)?, content.len() as u64)?;
            staging.chunk(content)?;
            staging.seal(Sha256::digest(content).into())?.commit(self)
        })
    }

    /// The volume with the content of a file of the directory in the place of the target's.
    ///
    /// # Errors
    /// As [`Self::restore`] and [`open_healthy`].
    pub fn preview_restore(&self, below: Arc<dyn ReadAt>, sector_size: u32, from: &str) -> Result<Preview> {
        preview(below, sector_size, |shadow| {
            let editor = open_healthy(shadow)?;
            let from = file(&editor, &self.directory, from)?;
            let held = ContentRef { cluster: from.first_cluster, bytes: from.bytes, sha256: None };
            self.restore(editor, &from.name, held)
        })
    }

    /// Whether a swap to an image of `bytes` bytes has room on this volume, to its end. Nothing is written.
    /// `sector_size` is what the volume's medium writes at once, in bytes.
    ///
    /// # Errors
    /// [`Code::NoRoom`] with the numbers; whatever else [`super::Staged::commit`] would refuse.
    pub fn rehearse(&self, volume: &dyn ReadAt, sector_size: u32, bytes: u64) -> Result<()> {
        let shadow = Shadow::new(volume, sector_size);
        let mut editor = Editor::open(&shadow)?;
        let clusters = room_for(editor.geometry(), editor.table().free_clusters(), bytes)?;
        let runs = editor.reserve(clusters)?;
        let cluster = runs.first().map_or(0, |r| r.first);
        // As long a record as the real one.
        let new = ContentRef { cluster, bytes: bytes as u32, sha256: Some("0".repeat(64)) };
        let lengths = self.set.iter().filter_map(|file| match file.content {
            SetContent::Staged { bytes } => Some(bytes),
            SetContent::File(_) => None,
        });
        let lengths: Vec<u32> = lengths.collect();
        room_for_set(&editor, u64::from(clusters), &lengths)?;
        let (mut set, mut chains) = (Vec::new(), Vec::new());
        for bytes in lengths {
            let runs = editor.reserve(editor.geometry().clusters_for(u64::from(bytes)) as u32)?;
            set.push(ContentRef { cluster: runs.first().map_or(0, |r| r.first), bytes, ..new.clone() });
            chains.push(runs);
        }
        chains.push(runs);
        let directories = self.reserve_directories(&mut editor)?;
        let operation = self.with_content(&editor, new, ContentSource::Staged, &set, &directories)?;
        let chains = Chains { directories, contents: chains };
        go_through(&mut editor, &operation, &chains)
    }

    /// Whether the restore of a file has room on this volume, to its end. Nothing is written.
    ///
    /// # Errors
    /// As [`Self::rehearse`].
    pub fn rehearse_restore(&self, volume: &dyn ReadAt, sector_size: u32, from: &str) -> Result<()> {
        let shadow = Shadow::new(volume, sector_size);
        let mut editor = Editor::open(&shadow)?;
        let from = file(&editor, &self.directory, from)?;
        let new = ContentRef { cluster: from.first_cluster, bytes: from.bytes, sha256: None };
        let directories = self.reserve_directories(&mut editor)?;
        let operation = self.with_content(&editor, new, ContentSource::File(from.name), &[], &directories)?;
        go_through(&mut editor, &operation, &Chains { directories, contents: Vec::new() })
    }
}

impl Tidying {
    /// The volume behind it.
    ///
    /// # Errors
    /// As [`Self::run`] and [`open_healthy`].
    pub fn preview(&self, below: Arc<dyn ReadAt>, sector_size: u32) -> Result<Preview> {
        preview(below, sector_size, |shadow| self.run(open_healthy(shadow)?))
    }

    /// Whether it has room on this volume, to its end. Nothing is written.
    ///
    /// # Errors
    /// As [`Order::rehearse`].
    pub fn rehearse(&self, volume: &dyn ReadAt, sector_size: u32) -> Result<()> {
        let shadow = Shadow::new(volume, sector_size);
        let mut editor = Editor::open(&shadow)?;
        go_through(&mut editor, &self.operation(), &Chains::default())
    }
}

/// Goes through an operation as the editor would, with the clusters that it has reserved.
pub(super) fn rehearse(editor: &Editor<'_>, operation: &Operation, staged: &Chains) -> Result<()> {
    let shadow = Shadow::new(editor.medium(), editor.medium().sector_size());
    go_through(&mut editor.on(&shadow), operation, staged)
}

/// The same on an editor whose writes stay in memory.
fn go_through(editor: &mut Editor<'_>, operation: &Operation, staged: &Chains) -> Result<()> {
    let free = editor.table().free_clusters();
    let Err(e) = carry_out(editor, operation, staged) else { return Ok(()) };
    let e = if e.code() == Code::NoRoom && editor.available_clusters() == 0 {
        full(editor.geometry(), free, staged)
    } else if e.code() == Code::Usage {
        // A name: the plan's mistake or the volume's limits, not the user's words.
        e.with_code(Code::Unsafe)
    } else {
        e
    };
    Err(e.with_esp_changed(false))
}

/// Makes sure that a set's files have room beside the image.
fn room_for_set(editor: &Editor<'_>, image: u64, lengths: &[u32]) -> Result<()> {
    let g = editor.geometry();
    let set: u64 = lengths.iter().map(|bytes| g.clusters_for(u64::from(*bytes))).sum();
    if set <= editor.available_clusters() {
        return Ok(());
    }
    let bytes = |clusters: u64| size(clusters * u64::from(g.cluster_bytes));
    Err(no_room(&format!(
        "no room on the ESP: the image needs {} and the {} of its set {}; {} are free",
        bytes(image),
        count(lengths.len(), "file"),
        bytes(set),
        bytes(u64::from(editor.table().free_clusters()))
    )))
}

/// The clusters are too few: of all that an operation needs only the image's size can be told in advance.
fn full(geometry: &Geometry, free: u32, staged: &Chains) -> Error {
    let bytes = |clusters: u64| size(clusters * u64::from(geometry.cluster_bytes));
    let (image, free) = (staged.all().flatten().map(|r| u64::from(r.count)).sum(), u64::from(free));
    let rest = "the record of the operation and its new names in the directory";
    let what = match image {
        0 => format!("{rest} need more than the {} that are free", bytes(free)),
        _ => format!(
            "of {} that are free {} takes {}, and {rest} need more than the rest",
            bytes(free),
            if staged.contents.len() > 1 { "the image with its set of files" } else { "the image" },
            bytes(image)
        ),
    };
    no_room(&format!("no room on the ESP: {what}"))
}
