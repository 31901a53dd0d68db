//! What to do when an operation finds no room.

use super::now;
use crate::block::ReadAt;
use crate::doctor::DiskWords;
use crate::esp::Inventory;
use crate::plan::{beside, room};
use crate::{Code, Error};

/// Where an operation that brings so many bytes found no room on the ESP: the command that makes it, by that command's own
/// plan, or what takes the room.
pub(super) fn advise_room<S: ReadAt>(error: Error, esp: &Inventory<S>, bytes: u64, words: &DiskWords) -> Error {
    if error.code() != Code::NoRoom {
        return error;
    }
    match room(esp, beside(esp, bytes), esp.stamp(now())) {
        // A directory that is full is another matter, and its error says what to do.
        Ok(room) if room.free_bytes < room.needed_bytes => {
            error.instead_advise(room.advice(|command, options| words.command(command, options)))
        }
        _ => error,
    }
}
