//! What a disk or a partition holds, by the marks that other systems leave: file systems, which have the whole of it,
//! and arrays, volume groups and caches, of which it is a member. Only what this program must keep its hands off is
//! looked for; for a complete list there is libblkid.

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
    pub(super) fn of(source: &dyn ReadAt) -> Result<Option<Self>> {
        if let Some(md) = md_1(source)? {
            return Ok(Some(md));
        }
        if let Some(md) = md_0(source)? {
            return Ok(Some(md));
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

/// The mark of an md superblock.
const MD_MAGIC: u32 = 0xA92B_4EFC;

/// A superblock of metadata 1.x (`struct mdp_superblock_1`, include/uapi/linux/raid/md_p.h). It says where it stands
/// itself, counted from the start of the member: that tells the superblock of a disk from that of its last partition.
fn md_1(source: &dyn ReadAt) -> Result<Option<Membership>> {
    let sectors = source.size() / 512;
    // 8 KiB before the end, on a boundary of 4 KiB; at the start; 4 KiB behind the start (`super_1_load`,
    // drivers/md/md.c).
    let places = [("1.0", sectors.checked_sub(16).map(|s| s & !7)), ("1.1", Some(0)), ("1.2", Some(8))];
    for (metadata, sector) in places {
        let Some(sector) = sector.filter(|s| *s < sectors) else { continue };
        let raw = read_vec(source, sector * 512, 256)?;
        let le32 = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let own_place = u64::from(le32(144)) | u64::from(le32(148)) << 32;
        if le32(0) != MD_MAGIC || le32(4) != 1 || own_place != sector {
            continue;
        }
        let name: Vec<u8> = raw[32..64].iter().copied().take_while(|b| *b != 0).collect();
        return Ok(Some(Membership::Md {
            metadata,
            level: le32(72).cast_signed(),
            uuid: md_uuid(&raw[16..32]),
            name: String::from_utf8_lossy(&name).into_owned(),
        }));
    }
    Ok(None)
}

/// A superblock of metadata 0.90 (`mdp_super_t`), in the last whole 64 KiB but one, in the byte order of the machine
/// that made it. It does not say where it stands: that of a disk may be found at the end of its last partition, too,
/// and the other way round.
fn md_0(source: &dyn ReadAt) -> Result<Option<Membership>> {
    const RESERVED: u64 = 64 << 10;
    let Some(at) = (source.size() / RESERVED * RESERVED).checked_sub(RESERVED) else { return Ok(None) };
    let raw = read_vec(source, at, 64)?;
    let word = |n: usize| [raw[4 * n], raw[4 * n + 1], raw[4 * n + 2], raw[4 * n + 3]];
    let read: fn([u8; 4]) -> u32 = match word(0) {
        w if u32::from_le_bytes(w) == MD_MAGIC => u32::from_le_bytes,
        w if u32::from_be_bytes(w) == MD_MAGIC => u32::from_be_bytes,
        _ => return Ok(None),
    };
    if read(word(1)) != 0 {
        return Ok(None);
    }
    let uuid: Vec<u8> = [5, 13, 14, 15].into_iter().flat_map(|n| read(word(n)).to_be_bytes()).collect();
    Ok(Some(Membership::Md {
        metadata: "0.90",
        level: read(word(7)).cast_signed(),
        uuid: md_uuid(&uuid),
        name: String::new(),
    }))
}

/// `6d2e9b0c:1f3a5c7e:…`.
fn md_uuid(bytes: &[u8]) -> String {
    bytes.chunks(4).map(hex::encode).collect::<Vec<_>>().join(":")
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
        let ring = read_vec(source, at, (LABEL / 2) as usize)?;
        let is_magic = |block: &[u8]| block[..8] == MAGIC.to_le_bytes() || block[..8] == MAGIC.to_be_bytes();
        if ring.chunks_exact(1024).any(is_magic) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn holds(source: &dyn ReadAt, at: u64, mark: &[u8]) -> Result<bool> {
    let inside = at.checked_add(mark.len() as u64).is_some_and(|end| end <= source.size());
    Ok(inside && read_vec(source, at, mark.len())? == mark)
}
