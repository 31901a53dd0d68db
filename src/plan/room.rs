//! What would make room: each command is planned, and what its plan deletes is counted.

use super::{PruneOptions, PrunePlan, place_of};
use crate::Result;
use crate::block::ReadAt;
use crate::bootpath::BootScenario;
use crate::esp::{FileKind, Inventory, Place, Room, WayToRoom};
use crate::fat::{Volume, usage};
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
    // On another partition its backups take no room here.
    let place = place_of(esp, None).ok().flatten().filter(|place| place.partition.is_none());
    let reads_menu = place.is_none() || esp.is_read(BootScenario::Later);
    let beside = place.as_ref().filter(|place| !(reads_menu && place.is_among_images()));
    let mut directories = vec![LINUX_DIR];
    directories.extend(beside.map(|place| place.directory.as_str()));
    let largest = usage(&esp.volume, &directories)?;
    let mut room = Room { free_bytes: esp.volume.free_bytes(), needed_bytes, largest, way: None };
    let cluster = u64::from(esp.volume.geometry().cluster_bytes);
    let mut harsh = Vec::new();
    for (options, keep_backups, loses) in PRUNES {
        let prune = PruneOptions { delete: true, keep_backups, no_fallback: false, time };
        // A plan that is refused frees nothing.
        let Ok(menu) = reads_menu.then(|| PrunePlan::make(esp, &prune)).transpose() else { continue };
        let plan = match (menu, beside) {
            (menu, Some(place)) => PrunePlan::with_place(menu, esp, place, &prune),
            (Some(menu), None) => Ok(menu),
            (None, None) => continue,
        };
        let Ok(plan) = plan else { continue };
        let file = |name: &str| esp.file(name).or_else(|| beside?.file(name));
        let of = |name: &String| file(name).map_or(0, |f| u64::from(f.entry.bytes).next_multiple_of(cluster));
        let frees_bytes: u64 = plan.delete.iter().map(of).sum();
        let sound: Vec<&str> = plan.delete.iter().filter(|n| is_sound(esp, n)).map(String::as_str).collect();
        let loses = loses.map(str::to_owned);
        if sound.is_empty() {
            room.consider(WayToRoom { command: "prune", options, frees_bytes, loses });
        } else {
            // One of them may be the image that somebody wants in place.
            let gone = format!("{} would start, and is deleted for good", sound.join(", "));
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

/// Room for so many bytes on another partition than the ESP, where the image at `place` lies; `volume` is what is
/// there. `time`: seconds since 1970 UTC.
///
/// # Errors
/// What the source reports.
pub fn room_in_place<S: ReadAt, V: ReadAt>(
    esp: &Inventory<S>,
    place: &Place,
    volume: &Volume<V>,
    bytes: u64,
    time: u64,
) -> Result<Room> {
    let cluster = u64::from(volume.geometry().cluster_bytes);
    let mut room = Room {
        free_bytes: volume.free_bytes(),
        needed_bytes: beside(cluster, bytes),
        largest: usage(volume, &[&place.directory])?,
        way: None,
    };
    for (options, keep_backups, loses) in PRUNES {
        let prune = PruneOptions { delete: true, keep_backups, no_fallback: false, time };
        // The menu is pruned in the same run; where that is refused, nothing is freed here either.
        let menu = esp.is_read(BootScenario::Later).then(|| PrunePlan::make(esp, &prune)).transpose();
        let Ok(plan) = menu.and_then(|menu| PrunePlan::with_place(menu, esp, place, &prune)) else { continue };
        let of = |name: &String| place.file(name).map_or(0, |f| u64::from(f.entry.bytes).next_multiple_of(cluster));
        let frees_bytes = plan.deleted_beside().iter().map(of).sum();
        room.consider(WayToRoom { command: "prune", options, frees_bytes, loses: loses.map(str::to_owned) });
    }
    Ok(room)
}

/// [`room`] for one more image of the largest size that is there; `None` where it fits, or no image is there.
///
/// # Errors
/// What the source reports.
pub fn room_for_one_more<S: ReadAt>(esp: &Inventory<S>, time: u64) -> Result<Option<Room>> {
    let place = place_of(esp, None).ok().flatten().filter(|place| place.partition.is_none());
    let images = esp.files.iter().chain(place.as_ref().map(|place| &place.image)).filter(|f| f.kind == FileKind::Uki);
    let Some(largest) = images.map(|f| u64::from(f.entry.bytes)).max() else { return Ok(None) };
    let needed = beside(esp.volume.geometry().cluster_bytes.into(), largest);
    if esp.volume.free_bytes() >= needed { Ok(None) } else { room(esp, needed, time).map(Some) }
}

/// What an image of so many bytes takes beside the old one, in clusters of so many bytes: its own, the record of the
/// operation, and what its names may need in two directories.
#[must_use]
pub fn beside(cluster: u64, bytes: u64) -> u64 {
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
