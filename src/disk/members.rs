//! Disks and partitions that are part of something larger: what is written to one of them behind the back of the
//! whole is lost, or makes the members differ.

use super::contents::Membership;
use super::layout::{Refusal, overlap};
use super::md::Superblock;
use super::table::{Partition, PartitionTable};
use crate::block::{Extent, ReadAt, Window};
use crate::{Code, Error, Result};
use std::path::Path;

/// A disk or partition that is part of something larger.
#[derive(Debug, Clone)]
pub(super) struct ArrayMember {
    /// Why it is not written alone.
    pub(super) refusal: Refusal,
    /// Of members of md arrays.
    pub(super) md: Option<Superblock>,
    /// Where the ESP begins on the member, in bytes.
    pub(super) esp_offset: u64,
}

/// What `disk`, or this partition of it, is a member of.
///
/// # Errors
/// What the source reports.
pub(super) fn membership(
    path: &Path,
    disk: &dyn ReadAt,
    table: Option<&PartitionTable>,
    esp: Option<&Partition>,
) -> Result<Option<ArrayMember>> {
    if let Some(esp) = esp
        && let Some(member) = of_partition(disk, esp)?
    {
        let refusal = refuse(&format!("{} of {}", esp.name(), path.display()), &member);
        let md = Superblock::read(&Window::new(disk, esp.extent)?)?;
        return Ok(Some(ArrayMember { refusal, md, esp_offset: 0 }));
    }
    let Some(member) = of_disk(disk, table)? else { return Ok(None) };
    let refusal = refuse(&path.display().to_string(), &member);
    Ok(Some(ArrayMember { refusal, md: Superblock::read(disk)?, esp_offset: esp.map_or(0, |esp| esp.extent.offset) }))
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
        Membership::Md { level: 1, metadata: "0.90" | "1.0", .. } => {
            "all members have to be written alike. Assemble the array (`mdadm --assemble --scan`; image files are \
                attached with \
             `losetup -f --show FILE` before that) and give the md device; or leave it as it is and name all of its \
             members: \
             --all-members A,B in place of the disk. If the array is gone for good, `mdadm --zero-superblock` removes \
             the mark"
        }
        Membership::Md { .. } => {
            "all members have to be written alike: assemble the array (`mdadm --assemble --scan`; image files are \
                attached with \
             `losetup -f --show FILE` before that) and give the md device. If the array is gone for good, `mdadm \
             --zero-superblock` \
             removes the mark"
        }
        Membership::Lvm => {
            "give the logical volume; if the volume group is gone for good, `wipefs` shows and removes the mark"
        }
        Membership::Zfs => "a pool has no ESP: the disk or partition that the board starts from is another one",
        Membership::Bcache => "give the device /dev/bcache… that the kernel makes of it",
        Membership::FirmwareRaid => {
            "all members have to be written alike: give the device of the array (`mdadm --assemble --scan` assembles \
                it on Linux). \
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
