//! Disks and partitions that are part of something larger: what is written to one of them behind the back of the
//! whole is lost, or makes the members differ.

use super::contents::Membership;
use super::layout::{Refusal, overlap};
use super::table::{Partition, PartitionTable};
use crate::block::{Extent, ReadAt, Window};
use crate::{Code, Error, Result};
use std::path::Path;

/// Why nothing may be written, when `disk` or this partition of it bears the mark of a member.
///
/// # Errors
/// What the source reports.
pub(super) fn refusal(
    path: &Path,
    disk: &dyn ReadAt,
    table: Option<&PartitionTable>,
    esp: Option<&Partition>,
) -> Result<Option<Refusal>> {
    if let Some(esp) = esp
        && let Some(member) = of_partition(disk, esp)?
    {
        return Ok(Some(refuse(&format!("{} of {}", esp.name(), path.display()), &member)));
    }
    let member = of_disk(disk, table)?;
    Ok(member.map(|member| refuse(&path.display().to_string(), &member)))
}

/// What a whole disk is a member of. A table that is valid was written after the marks of volume groups and pools
/// that it leaves, so these count only where there is none.
fn of_disk(disk: &dyn ReadAt, table: Option<&PartitionTable>) -> Result<Option<Membership>> {
    let member = Membership::of(disk)?;
    let (Some(found), Some(table)) = (&member, table) else { return Ok(member) };
    Ok(match found {
        Membership::Lvm | Membership::Zfs => None,
        // The last partition may end where the disk ends; the superblock is then that of the partition.
        Membership::Md { metadata: "0.90", .. } => {
            let end = disk.size() / (64 << 10) * (64 << 10);
            let place = Extent { offset: end.saturating_sub(64 << 10), bytes: 4096 };
            member.filter(|_| !table.partitions.iter().any(|p| overlap(p.extent, place)))
        }
        _ => member,
    })
}

/// What a partition is a member of. A FAT that begins here was made after the labels of a pool that it leaves.
fn of_partition(disk: &dyn ReadAt, p: &Partition) -> Result<Option<Membership>> {
    Ok(Membership::of(&Window::new(disk, p.extent)?)?.filter(|member| *member != Membership::Zfs))
}

fn refuse(who: &str, member: &Membership) -> Refusal {
    let advice = match member {
        Membership::Md { .. } => {
            "all members have to be written alike: assemble the array (`mdadm --assemble --scan`; image files are attached with \
             `losetup -f --show FILE` before that) and give the md device. If the array is gone for good, `mdadm --zero-superblock` \
             removes the mark"
        }
        Membership::Lvm => {
            "give the logical volume; if the volume group is gone for good, `wipefs` shows and removes the mark"
        }
        Membership::Zfs => "a pool has no ESP: the disk or partition that the board starts from is another one",
        Membership::Bcache => "give the device /dev/bcache… that the kernel makes of it",
        Membership::FirmwareRaid => {
            "all members have to be written alike: give the device of the array (`mdadm --assemble --scan` assembles it on Linux). \
             If the array is gone for good, `wipefs` shows and removes the mark"
        }
    };
    Refusal::new(format!("{who} is {member}"), advice)
}

/// The refusal to write to a member behind the back of the device that the kernel has made of it.
pub(super) fn assembled(node: &Path, holder: &str) -> Error {
    Error::new(Code::Layout, format!("{} is a part of {holder}, which is in use", node.display()))
        .advise(format!("give {holder} instead: what is written there reaches all of its members"))
}
