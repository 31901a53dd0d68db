//! An operation gone through on a view whose writes stay in memory. What would stop it half-way (a directory that
//! cannot grow, a full volume, a name that fits into no sector) stops it here, before anything is written: the same
//! code runs on the same volume, so what has room here has room there.

use super::order::{ContentRef, ContentSource, Operation, Order, Tidying};
use super::shadow::Shadow;
use super::staging::{no_room, room_for};
use super::steps::{carry_out, file};
use crate::block::ReadAt;
use crate::fat::{Editor, Geometry, Run};
use crate::units::size;
use crate::{Code, Error, Result};

impl Order {
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
        let operation = self.with_content(&editor, new, ContentSource::Staged)?;
        go_through(&mut editor, &operation, &runs)
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
        let operation = self.with_content(&editor, new, ContentSource::File(from.name))?;
        go_through(&mut editor, &operation, &[])
    }
}

impl Tidying {
    /// Whether it has room on this volume, to its end. Nothing is written.
    ///
    /// # Errors
    /// As [`Order::rehearse`].
    pub fn rehearse(&self, volume: &dyn ReadAt, sector_size: u32) -> Result<()> {
        let shadow = Shadow::new(volume, sector_size);
        let mut editor = Editor::open(&shadow)?;
        go_through(&mut editor, &self.operation(), &[])
    }
}

/// Goes through an operation as the editor would, with the clusters that it has reserved.
pub(super) fn rehearse(editor: &Editor<'_>, operation: &Operation, staged: &[Run]) -> Result<()> {
    let shadow = Shadow::new(editor.medium(), editor.medium().sector_size());
    go_through(&mut editor.on(&shadow), operation, staged)
}

/// The same on an editor whose writes stay in memory.
fn go_through(editor: &mut Editor<'_>, operation: &Operation, staged: &[Run]) -> Result<()> {
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

/// The clusters are too few: of all that an operation needs only the image's size can be told in advance.
fn full(geometry: &Geometry, free: u32, staged: &[Run]) -> Error {
    let bytes = |clusters: u64| size(clusters * u64::from(geometry.cluster_bytes));
    let (image, free) = (staged.iter().map(|r| u64::from(r.count)).sum(), u64::from(free));
    let rest = "the record of the operation and its new names in the directory";
    let what = match image {
        0 => format!("{rest} need more than the {} that are free", bytes(free)),
        _ => format!(
            "of {} that are free the image takes {}, and {rest} need more than the rest",
            bytes(free),
            bytes(image)
        ),
    };
    no_room(&format!("no room on the ESP: {what}"))
}
