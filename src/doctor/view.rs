//! What is looked at of one ESP.

use super::Objection;
use super::words::DiskWords;
use crate::esp::{EspFile, Inventory, Room};

/// An ESP that is to be looked at.
pub struct EspView<'a, S> {
    /// Its files, health and predictions.
    pub esp: &'a Inventory<S>,
    /// How commands name it.
    pub words: DiskWords,
    /// Whether the board's EFI variables could be looked at. Without them a pin that works looks like none.
    pub variables_known: bool,
    /// Where one more image does not fit: what takes the room, and what makes it.
    pub room: Option<Room>,
    /// What speaks against the programs on the way of the next start.
    pub objections: &'a [Objection],
}

/// Why a file that is to start does not.
pub(super) fn trouble(file: &EspFile) -> &str {
    file.trouble.as_deref().unwrap_or("would not start")
}
