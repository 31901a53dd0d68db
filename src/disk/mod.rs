//! Finding the ESP: what `DISK` is, its partition table, and the node to open.
//!
//! `DISK` is a whole-disk device, a partition device, a raw disk image or a bare FAT image. On a device the
//! *partition's* own node is opened, not a range of the whole disk: the two have separate page caches, and only the
//! partition node answers `O_EXCL` with "busy" for exactly this partition. Only where the kernel knows no partition
//! at all is the range opened.
//!
//! | part | job |
//! | --- | --- |
//! | [`Target`] | an ESP that was found; opens it for reading and for surgery |
//! | [`PartitionTable`] | the partitions, whichever table describes them |
//! | `gpt`, `mbr` | the two tables as they stand on the disk |
//! | `layout` | which of the tables on a disk counts, and where they contradict each other |
//! | `choice` | which partition is meant |
//! | `md`, `mirror` | superblocks of md; all members of a mirror as one |
//! | `contents`, `members` | file systems and members of arrays by their marks; what is not written for their sake |
//! | `guard` | the last check of every write |
//! | `sysfs`, `busy` | devices as the kernel knows them, and who uses them |
//!
//! A packed disk image is unpacked before it comes here ([`crate::packed`]); it can be read and not written.
//!
//! Everything here reads; [`Target::open_surgery`] hands out the one writable medium. `docs/disks.md` has the rules
//! as one table.

mod busy;
mod choice;
mod contents;
mod gpt;
mod guard;
mod layout;
mod mbr;
mod md;
mod members;
mod mirror;
mod sysfs;
mod table;
mod target;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use choice::EspChoice;
pub use contents::{Membership, file_system};
pub use layout::Note;
pub use table::{ESP_TYPE, PartUuid, Partition, PartitionTable, PartitionType, Scheme, XBOOTLDR_TYPE};
pub use target::{Shape, SurgeryTarget, Target};

use crate::block::{ReadAt, Window};
use crate::packed::Packing;
use crate::{Error, Result, fat};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The volumes of a source that boot loaders read images from, for images that are looked into and not written: the
/// ESPs and, with a FAT, XBOOTLDR; `None` when the source has no partition table.
///
/// # Errors
/// What the source reports; [`crate::Kind::Rejected`] when both copies of a GPT are bad.
pub fn boot_volumes(source: &dyn ReadAt) -> Result<Option<Vec<Partition>>> {
    let Some(table) = PartitionTable::read(source, None)? else { return Ok(None) };
    let mut volumes = esps(&table, source)?;
    if let Some(xbootldr) = table.xbootldr()
        && fat::is_fat(&Window::new(source, xbootldr.extent)?)?
    {
        volumes.push(xbootldr.clone());
    }
    Ok(Some(volumes))
}

/// The partitions of a disk that firmware may start from: those whose type says ESP; where there is none, FAT volumes
/// with a folder `EFI` in them.
///
/// # Errors
/// What the source reports.
pub fn esps(table: &PartitionTable, source: &dyn ReadAt) -> Result<Vec<Partition>> {
    Ok(choice::esps(table, source)?.into_iter().cloned().collect())
}

/// Whether the ESP of a disk without one would lie past its end: the image was cut off.
#[must_use]
pub fn is_esp_cut_off(table: &PartitionTable) -> bool {
    !choice::cut_off_esps(table).is_empty()
}

/// The refusal to write into a packed image.
pub(crate) fn packed(packing: Packing) -> Error {
    Error::refused(format!("the image is packed ({packing}), and nothing can be changed in a packed file")).advise(
        "name a file for a changed copy with --out FILE (packed again if it ends in .zst or .xz), or unpack \
            the image first",
    )
}

/// Major and minor number of a block device node.
fn device_number(path: &Path) -> Option<(u32, u32)> {
    let meta = std::fs::metadata(path).ok()?;
    meta.file_type().is_block_device().then(|| (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())))
}
