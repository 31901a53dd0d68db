//! What to do when an operation finds no room.

use super::now;
use crate::block::ReadAt;
use crate::disk::Target;
use crate::doctor::DiskWords;
use crate::esp::{Inventory, Place};
use crate::fat::Volume;
use crate::plan::{beside, room, room_in_place};
use crate::{Code, Error};

/// Where an operation that brings so many bytes found no room: the command that makes it, by that command's own plan,
/// or what takes the room. `elsewhere`: the image that is replaced and its partition, where that is another one than
/// the ESP.
pub(super) fn advise_room<S: ReadAt>(
    error: Error,
    esp: &Inventory<S>,
    elsewhere: Option<(&Place, &Target)>,
    bytes: u64,
    words: &DiskWords,
) -> Error {
    if error.code() != Code::NoRoom {
        return error;
    }
    let room = match elsewhere {
        None => room(esp, beside(esp.volume.geometry().cluster_bytes.into(), bytes), esp.stamp(now())),
        Some((place, medium)) => medium
            .open()
            .and_then(Volume::open)
            .and_then(|volume| room_in_place(esp, place, &volume, bytes, place.stamp(now()))),
    };
    match room {
        // A directory that is full is another matter, and its error says what to do.
        Ok(room) if room.free_bytes < room.needed_bytes => {
            error.instead_advise(room.advice(|command, options| words.command(command, options)))
        }
        _ => error,
    }
}
