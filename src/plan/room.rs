//! What would make room: each command is planned, and what its plan deletes is counted.

use super::{PruneOptions, PrunePlan};
use crate::Result;
use crate::block::ReadAt;
use crate::esp::{FileKind, Inventory, Room, WayToRoom};
use crate::fat::usage;
use crate::surgery::LINUX_DIR;

/// From the mildest on: options, backups that are kept, what is lost beside what nothing starts.
const PRUNES: [(&str, Option<usize>, Option<&str>); 3] = [
    ("--delete", None, None),
    ("--delete --keep-backups 1", Some(1), Some("the newest backup stays")),
    ("--delete --keep-backups 0", Some(0), Some("every backup goes")),
];

/// Room for so many bytes on an ESP, and what would make it. `time`: seconds since 1970 UTC.
///
/// # Errors
/// What the source reports.
pub fn room<S: ReadAt>(esp: &Inventory<S>, needed_bytes: u64, time: u64) -> Result<Room> {
    let largest = usage(&esp.volume, &[LINUX_DIR])?;
    let mut room = Room { free_bytes: esp.volume.free_bytes(), needed_bytes, largest, way: None };
    let cluster = u64::from(esp.volume.geometry().cluster_bytes);
    let mut harsh = Vec::new();
    for (options, keep_backups, loses) in PRUNES {
        let prune = PruneOptions { delete: true, keep_backups, no_fallback: false, time };
        // A plan that is refused frees nothing.
        let Ok(plan) = PrunePlan::make(esp, &prune) else { continue };
        let of = |name: &String| esp.file(name).map_or(0, |f| u64::from(f.entry.bytes).next_multiple_of(cluster));
        let frees_bytes: u64 = plan.delete.iter().map(of).sum();
        let sound: Vec<&str> = plan.delete.iter().filter(|n| is_sound(esp, n)).map(String::as_str).collect();
        let loses = loses.map(str::to_owned);
        if sound.is_empty() {
            room.consider(WayToRoom { command: "prune", options, frees_bytes, loses });
        } else {
            // One of them may be the image that somebody wants in place.
            let gone = format!("{} would start and goes for good", sound.join(", "));
            let loses = Some(loses.map_or(gone.clone(), |other| format!("{gone}; {other}")));
            harsh.push(WayToRoom { command: "prune", options, frees_bytes, loses });
        }
    }
    let lost = esp.lost.others.iter().map(|chain| chain.bytes).sum();
    let loses = Some("lost chains: look at what they are first".to_owned());
    room.consider(WayToRoom { command: "recover", options: "--free-lost", frees_bytes: lost, loses });
    harsh.into_iter().for_each(|way| room.consider(way));
    Ok(room)
}

/// [`room`] for one more image of the largest size that is there; `None` where it fits, or no image is there.
///
/// # Errors
/// What the source reports.
pub fn room_for_one_more<S: ReadAt>(esp: &Inventory<S>, time: u64) -> Result<Option<Room>> {
    let images = esp.files.iter().filter(|f| f.kind == FileKind::Uki);
    let Some(largest) = images.map(|f| u64::from(f.entry.bytes)).max() else { return Ok(None) };
    let needed = beside(esp, largest);
    if esp.volume.free_bytes() >= needed { Ok(None) } else { room(esp, needed, time).map(Some) }
}

/// What an image of so many bytes takes beside the old one: its clusters, the record of the operation, and what its names may
/// need in two directories.
#[must_use]
pub fn beside<S: ReadAt>(esp: &Inventory<S>, bytes: u64) -> u64 {
    let cluster = u64::from(esp.volume.geometry().cluster_bytes);
    bytes.next_multiple_of(cluster).saturating_add(3 * cluster)
}

/// Whether a file is an image of the menu that would start.
fn is_sound<S: ReadAt>(esp: &Inventory<S>, name: &str) -> bool {
    esp.file(name).is_some_and(|f| f.kind == FileKind::Uki)
}

impl Room {
    /// Takes a way for the one to recommend, unless an earlier one is enough or frees as much.
    fn consider(&mut self, way: WayToRoom) {
        let most = self.way.as_ref().map_or(0, |known| known.frees_bytes);
        if !self.is_enough() && way.frees_bytes > most {
            self.way = Some(way);
        }
    }
}
