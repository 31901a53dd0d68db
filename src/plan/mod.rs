//! Planning: pure decisions over an [`Inventory`], checked against the boot prediction before anything is written.
//!
//! systemd-boot has no fallback: what it chooses either boots or the node is down. So a plan has to hold in two
//! scenarios, with the EFI variables as they are and with none of them (NVRAM reset), and in both the entry that starts
//! must be the intended file itself, not one of its extra profiles (which wipe disks).
//!
//! A plan reads an inventory and asks [`crate::boot`]; [`crate::surgery`] carries out the operation it gives.

mod board_backups;
mod board_set;
mod in_place;
mod loader;
mod pin;
mod prune;
mod reach;
mod room;
mod states;
mod swap;

pub use board_set::{BoardChange, BoardKept, BoardSetOptions, BoardSetPlan};
pub use in_place::place_of;
pub use loader::{
    LoaderPlace, LoaderPlaces, LoaderPlan, LoaderStep, is_older, loader_places, refuse_another_start, starts_next,
    usual_loader_paths,
};
pub use pin::PinPlan;
pub use prune::{PruneOptions, PrunePlan};
pub use reach::refuse_unreached;
pub use room::{beside, room, room_for_one_more, room_in_place};
pub use swap::{NewImage, SwapOptions, SwapPlan};

use crate::block::ReadAt;
use crate::boot::roles;
use crate::esp::{BackupName, FileKind, Inventory};
use crate::fat::{check_long_name, same_name, slots_of};
use crate::sorting::Sort as _;
use crate::surgery::FileStep;
pub use crate::surgery::Rename;
use crate::{Error, Result};

/// The directory entries that change beside the image itself, renames first.
fn steps(renames: &[Rename], delete: &[String]) -> Vec<FileStep> {
    let renames = renames.iter().cloned().map(FileStep::Rename);
    renames.chain(delete.iter().cloned().map(FileStep::Remove)).collect()
}

/// Refuses names that the directory cannot take: an entry has to stand in one sector, or it would not appear in one
/// write. Known now, it costs nothing; found out behind the commit, it would leave an operation half-done.
fn refuse_long_names<'n, S: ReadAt>(esp: &Inventory<S>, names: impl Iterator<Item = &'n str>) -> Result<()> {
    long_names(esp.volume.geometry().sector_bytes, names)
}

/// The same for a volume with sectors of so many bytes.
fn long_names<'n>(sector_bytes: u32, names: impl IntoIterator<Item = &'n str>) -> Result<()> {
    let room = (sector_bytes / 32) as usize;
    for name in names {
        check_long_name(name).map_err(|e| Error::refused(e.to_string()))?;
        if slots_of(name) > room {
            return Err(Error::refused(format!("the name {name} is too long for a directory sector of this volume"))
                .advise("rename the file it is made from to something shorter first, or choose a shorter --target"));
        }
    }
    Ok(())
}

/// Deletes the oldest backups beyond `keep`.
fn old_backups<S: ReadAt>(esp: &Inventory<S>, keep: usize, except: Option<&str>) -> Vec<String> {
    let mut backups = backups(esp);
    backups.retain(|(name, _)| Some(name.as_str()) != except);
    backups.into_iter().skip(keep).map(|(name, _)| name).collect()
}

/// The file aside that holds what was started at the last boot, where the menu has no file of that name any more: the
/// newest backup, or else what was disabled last.
pub(crate) fn started_last<S: ReadAt>(esp: &Inventory<S>) -> Option<String> {
    let started = roles(&esp.predictions.next, &esp.variables).running_file.filter(|name| esp.file(name).is_none())?;
    let aside = esp.files.iter().filter_map(|f| Some((BackupName::parse(f.name())?, f)));
    let of_it = aside.filter(|(b, f)| same_name(&b.original, &started) && f.facts.is_some());
    let newest = of_it.max_by_key(|(b, _)| (!b.disabled, b.time < crate::esp::END_OF_TIME, b.time));
    newest.map(|(_, f)| f.name().to_owned())
}

/// The backup that a restore takes if none is named: the image that was started last, where the variables name it and
/// it is in the menu no more; else the newest. One that is no image is passed over as long as there is another.
pub fn latest_backup<S: ReadAt>(esp: &Inventory<S>) -> Option<(String, BackupName)> {
    let all = backups(esp);
    let is_image = |name: &str| esp.file(name).is_some_and(|f| f.facts.is_some());
    let (images, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(name, _)| is_image(name));
    let started = roles(&esp.predictions.next, &esp.variables).running_file.filter(|name| esp.file(name).is_none());
    let started = started.and_then(|name| images.iter().find(|(_, b)| same_name(&b.original, &name)).cloned());
    started.or_else(|| images.into_iter().chain(others).next())
}

/// All backups, the newest first.
pub fn backups<S: ReadAt>(esp: &Inventory<S>) -> Vec<(String, BackupName)> {
    let mut all: Vec<_> = esp
        .files
        .iter()
        .filter(|f| f.kind == FileKind::Backup)
        .filter_map(|f| Some((f.name().to_owned(), BackupName::parse(f.name())?)))
        .collect();
    // A number that no swap gives is somebody's own, and older than all that they give.
    all.put_in_order_by(|(_, b)| std::cmp::Reverse((b.time < crate::esp::END_OF_TIME, b.time)));
    all
}
