//! Values that a shell can offer while a command line is typed: disks, ESPs, backups, images. Everything here reads
//! only, asks nobody, goes to no network and unpacks nothing. What cannot be read offers nothing.

use super::restore::{restorable, rfc3339};
use super::{DiskRequest, boot_variables};
use crate::Result;
use crate::block::{FileSource, ReadAt};
use crate::disk::{PartitionTable, Target, esps};
use crate::doctor::Machine;
use crate::esp::{EspFile, FileKind, Inventory};
use crate::image::locate_without_twins;
use crate::plan::place_of;
use crate::units::size;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// A value, and what is known of it.
pub(crate) type Offer = (String, String);

/// The disks of this machine, with model and size.
pub(crate) fn disks() -> Vec<Offer> {
    let offer = |node: &Path| {
        let name = node.strip_prefix("/dev").unwrap_or(node).to_string_lossy().replace('/', "!");
        let attribute = |attribute: &str| fs::read_to_string(format!("/sys/block/{name}/{attribute}"));
        // In units of 512 bytes, whatever the sector size (Documentation/ABI/stable/sysfs-block).
        let bytes = attribute("size").ok().and_then(|text| text.trim().parse::<u64>().ok()?.checked_mul(512));
        let words = [attribute("device/model").ok(), bytes.map(size)];
        let words: Vec<String> = words.into_iter().flatten().map(|text| text.trim().to_owned()).collect();
        (node.display().to_string(), words.join(", "))
    };
    Machine::read(Path::new("/")).disks().0.iter().map(|node| offer(node)).collect()
}

/// The ESPs of a disk by number, with label and size.
pub(crate) fn partitions(disk: &Path) -> Result<Vec<Offer>> {
    let source = FileSource::open(disk)?;
    let Some(table) = PartitionTable::read(&source, source.device_sector_size())? else { return Ok(Vec::new()) };
    let offer = |p: crate::disk::Partition| (p.number.to_string(), format!("{} {}", p.label, size(p.extent.bytes)));
    Ok(esps(&table, &source)?.into_iter().map(offer).collect())
}

/// What `restore` can put back, the newest first, with version and time.
pub(crate) fn backups(disk: &DiskRequest) -> Result<Vec<Offer>> {
    let esp = look(disk)?;
    let place = place_of(&esp, None)?;
    let offers = restorable(&esp, place.as_ref()).into_iter().map(|(name, backup, file)| {
        let version = file.version().unwrap_or("version not known");
        (name, format!("{version}, {}", rfc3339(backup.time)))
    });
    Ok(offers.collect())
}

/// The images that a swap can replace, with version; first the one that starts from a place of its own.
pub(crate) fn images(disk: &DiskRequest) -> Result<Vec<Offer>> {
    let esp = look(disk)?;
    let place = place_of(&esp, None)?;
    let version = |file: &EspFile| file.version().unwrap_or_default().to_owned();
    let placed = place.iter().map(|place| (place.path(place.name()), version(&place.image)));
    let in_menu = esp.files.iter().filter(|file| matches!(file.kind, FileKind::Uki | FileKind::Broken));
    Ok(placed.chain(in_menu.map(|file| (file.name().to_owned(), version(file)))).collect())
}

/// The UKIs in a local image, with the place of each.
pub(crate) fn ukis(image: &Path) -> Result<Vec<Offer>> {
    let found = locate_without_twins(Arc::new(FileSource::open(image)?))?;
    Ok(found.candidates.into_iter().filter_map(|c| Some((c.name?, c.place))).collect())
}

/// The ESP of a disk, by its headers.
fn look(disk: &DiskRequest) -> Result<Inventory<Box<dyn ReadAt>>> {
    let booted = disk.booted_esp();
    let target = Target::find(&disk.path, disk.choice(&booted))?;
    let vars = disk.efivars(&target);
    Inventory::read_in(target.open()?, boot_variables(&vars).0, disk.context(&target, &vars, None))
}
