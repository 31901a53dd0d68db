//! What a disk or a partition holds, by the marks that other systems leave: file systems, which have the whole of it,
//! and arrays, volume groups and caches, of which it is a member. Only what this program must keep its hands off is
//! looked for; for a complete list there is libblkid.

use super::md::Superblock;
use crate::Result;
use crate::block::{ReadAt, read_vec};
use serde::Serialize;
use std::fmt;

/// Marks of file systems and containers: where, what stands there, whose it is.
const FILE_SYSTEMS: &[(u64, &[u8], &str)] = &[
    (0, b"XFSB", "an XFS file system"),
    (0, b"hsqs", "a SquashFS file system"),
    (0, b"LUKS\xba\xbe", "a LUKS container"),
    (0, b"\x45\x3d\xcd\x28", "a cramfs file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (3, b"-FVE-FS-", "a BitLocker volume"),
    (32, b"NXSB", "an APFS container"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (1024, b"H+", "an HFS+ file system"),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (4086, b"SWAPSPACE2", "swap space"),
    (65526, b"SWAPSPACE2", "swap space"),
    (4120, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", "a bcachefs file system"),
    (32768, b"JFS1", "a JFS file system"),
    (32769, b"CD001", "an ISO 9660 file system"),
    (65588, b"ReIsEr", "a ReiserFS file system"),
    (65600, b"_BHRfS_M", "a btrfs file system"),
];

/// The file system or container that begins at the start of `source`, with an article; FAT is not among them.
///
/// # Errors
/// What the source reports.
pub fn file_system(source: &dyn ReadAt) -> Result<Option<&'static str>> {
    for (at, mark, name) in FILE_SYSTEMS {
        if holds(source, *at, mark)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether it is an ISO 9660 image.
///
/// # Errors
/// What the source reports.
pub(super) fn is_iso(source: &dyn ReadAt) -> Result<bool> {
    holds(source, 32769, b"CD001")
}

/// What a disk or partition is a member of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Membership {
    /// An array of the Linux md driver.
    Md {
        /// Version of the superblock: `0.90`, `1.0`, `1.1`, `1.2`.
        metadata: &'static str,
        /// Number of the RAID level; negative for linear and the like.
        level: i32,
        /// UUID of the array as `mdadm` writes it.
        uuid: String,
        /// Name of the array; empty where it has none.
        name: String,
    },
    /// A volume group of LVM.
    Lvm,
    /// A pool of ZFS.
    Zfs,
    /// A cache set of bcache.
    Bcache,
    /// An array that the firmware of a controller or board puts together (Intel RST, DDF).
    FirmwareRaid,
}

impl fmt::Display for Membership {
    /// With an article: `a member of the md array … (RAID level 1, metadata 1.0)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Md { metadata, level, uuid, name } => {
                let name = if name.is_empty() { String::new() } else { format!(" {name:?}") };
                write!(f, "a member of the md array{name} {uuid} (RAID level {level}, metadata {metadata})")
            }
            Self::Lvm => f.write_str("a physical volume of an LVM volume group"),
            Self::Zfs => f.write_str("a member of a ZFS pool"),
            Self::Bcache => f.write_str("a device of a bcache cache set"),
            Self::FirmwareRaid => f.write_str("a member of an array of the board's or a controller's firmware"),
        }
    }
}

impl Membership {
    /// What `source`, which is a disk or a partition from its first to its last byte, is a member of.
    ///
    /// # Errors
    /// What the source reports.
    pub fn of(source: &dyn ReadAt) -> Result<Option<Self>> {
        if let Some(Superblock { metadata, level, uuid, name, .. }) = Superblock::read(source)? {
            return Ok(Some(Self::Md { metadata, level, uuid, name }));
        }
        for sector in 0..4u64 {
            // `label_header` of LVM2: the mark, the number of its own sector, a type.
            if holds(source, sector * 512, b"LABELONE")?
                && holds(source, sector * 512 + 8, &sector.to_le_bytes())?
                && holds(source, sector * 512 + 24, b"LVM2 001")?
            {
                return Ok(Some(Self::Lvm));
            }
        }
        // `struct cache_sb` (include/uapi/linux/bcache.h): checksum, its own sector, version, flags, the mark.
        const BCACHE: &[u8] = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
        if holds(source, 4096 + 24, BCACHE)? && holds(source, 4096 + 8, &8u64.to_le_bytes())? {
            return Ok(Some(Self::Bcache));
        }
        let end = source.size() / 512 * 512;
        let intel = end >= 1024 && holds(source, end - 1024, b"Intel Raid ISM Cfg Sig. ")?;
        if intel || end >= 512 && holds(source, end - 512, &0xDE11_DE11_u32.to_be_bytes())? {
            return Ok(Some(Self::FirmwareRaid));
        }
        if zfs(source)? {
            return Ok(Some(Self::Zfs));
        }
        Ok(None)
    }
}

/// Whether one of the two labels at the start of a ZFS member has an uberblock: 128 KiB of them, from 128 KiB on,
/// each 1 KiB long or a power of two of that (`vdev_impl.h` of OpenZFS).
fn zfs(source: &dyn ReadAt) -> Result<bool> {
    const MAGIC: u64 = 0x00BA_B10C;
    const LABEL: u64 = 256 << 10;
    for label in [0, LABEL] {
        let at = label + LABEL / 2;
        if at + LABEL / 2 > source.size() {
            break;
        }
        for block in (at..at + LABEL / 2).step_by(1024) {
            let magic = read_vec(source, block, 8)?;
            if magic == MAGIC.to_le_bytes() || magic == MAGIC.to_be_bytes() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn holds(source: &dyn ReadAt, at: u64, mark: &[u8]) -> Result<bool> {
    let inside = at.checked_add(mark.len() as u64).is_some_and(|end| end <= source.size());
    Ok(inside && read_vec(source, at, mark.len())? == mark)
}
