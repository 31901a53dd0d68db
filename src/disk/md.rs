//! Superblocks of the Linux md driver (include/uapi/linux/raid/md_p.h). They are read and never written.

use crate::Result;
use crate::block::{ReadAt, read_vec};

/// The mark of an md superblock.
const MAGIC: u32 = 0xA92B_4EFC;
/// Roles from here on are those of spares and of disks that failed (`MD_DISK_ROLE_JOURNAL`).
const NO_ROLE: u16 = 0xFFFD;
/// Most devices that an array of metadata 1.x can have: what is left of 4 KiB behind the superblock's 256 bytes, two
/// bytes each.
const MAX_DEVICES: u32 = 1920;

/// What the superblock of a member says of it and of its array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    /// `0.90`, `1.0`, `1.1`, `1.2`.
    pub(super) metadata: &'static str,
    /// Number of the RAID level; negative for linear and the like.
    pub(super) level: i32,
    /// UUID of the array as `mdadm` writes it.
    pub(super) uuid: String,
    /// Name of the array; empty where it has none.
    pub(super) name: String,
    /// The member's own number in the array.
    pub(super) number: u32,
    /// How many members are in use, as this one saw it last.
    pub(super) active: u32,
    /// Where the array's content begins on the member, in bytes.
    pub(super) data_offset: u64,
    /// Length of the array's content, in bytes.
    pub(super) content_bytes: u64,
    /// How many changes of the array's state the member has seen.
    pub(super) events: u64,
}

impl Superblock {
    /// The superblock of `source`, which is a disk or a partition from its first to its last byte.
    ///
    /// # Errors
    /// What the source reports.
    pub(super) fn read(source: &dyn ReadAt) -> Result<Option<Self>> {
        Ok(match version_1(source)? {
            None => version_0(source)?,
            found => found,
        })
    }
}

/// A superblock of metadata 1.x (`struct mdp_superblock_1`). It says where it stands itself, counted from the start of
/// the member: that tells the superblock of a disk from that of its last partition.
fn version_1(source: &dyn ReadAt) -> Result<Option<Superblock>> {
    let sectors = source.size() / 512;
    // 8 KiB before the end, on a boundary of 4 KiB; at the start; 4 KiB behind the start (`super_1_load`,
    // drivers/md/md.c).
    let places = [("1.0", sectors.checked_sub(16).map(|s| s & !7)), ("1.1", Some(0)), ("1.2", Some(8))];
    for (metadata, sector) in places {
        let Some(sector) = sector.filter(|s| *s < sectors) else { continue };
        let raw = read_vec(source, sector * 512, 256)?;
        let le32 = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let le64 = |at: usize| u64::from(le32(at)) | u64::from(le32(at + 4)) << 32;
        if le32(0) != MAGIC || le32(4) != 1 || le64(144) != sector {
            continue;
        }
        let name: Vec<u8> = raw[32..64].iter().copied().take_while(|b| *b != 0).collect();
        // `dev_roles`, two bytes for each device that there is or was.
        let roles = u64::from(le32(220).min(MAX_DEVICES)) * 2;
        let roles = roles.min(source.size() - sector * 512 - 256);
        let roles = read_vec(source, sector * 512 + 256, roles as usize)?;
        let active = roles.chunks_exact(2).filter(|role| u16::from_le_bytes([role[0], role[1]]) < NO_ROLE).count();
        return Ok(Some(Superblock {
            metadata,
            level: le32(72).cast_signed(),
            uuid: uuid(&raw[16..32]),
            name: String::from_utf8_lossy(&name).into_owned(),
            number: le32(160),
            active: active as u32,
            data_offset: le64(128).saturating_mul(512),
            content_bytes: le64(80).min(le64(136)).saturating_mul(512),
            events: le64(200),
        }));
    }
    Ok(None)
}

/// A superblock of metadata 0.90 (`mdp_super_t`), in the last whole 64 KiB but one, in the byte order of the machine
/// that made it. It does not say where it stands: that of a disk may be found at the end of its last partition, too,
/// and the other way round.
fn version_0(source: &dyn ReadAt) -> Result<Option<Superblock>> {
    const RESERVED: u64 = 64 << 10;
    let Some(at) = (source.size() / RESERVED * RESERVED).checked_sub(RESERVED) else { return Ok(None) };
    let raw = read_vec(source, at, 4096)?;
    let word = |n: usize| [raw[4 * n], raw[4 * n + 1], raw[4 * n + 2], raw[4 * n + 3]];
    let read: fn([u8; 4]) -> u32 = match word(0) {
        w if u32::from_le_bytes(w) == MAGIC => u32::from_le_bytes,
        w if u32::from_be_bytes(w) == MAGIC => u32::from_be_bytes,
        _ => return Ok(None),
    };
    if read(word(1)) != 0 {
        return Ok(None);
    }
    let set: Vec<u8> = [5, 13, 14, 15].into_iter().flat_map(|n| read(word(n)).to_be_bytes()).collect();
    // The halves of the event counter stand in the byte order of the machine.
    let [high, low] = if word(0) == MAGIC.to_be_bytes() { [39, 40] } else { [40, 39] };
    Ok(Some(Superblock {
        metadata: "0.90",
        level: read(word(7)).cast_signed(),
        uuid: uuid(&set),
        name: String::new(),
        // `this_disk`: the descriptor of the member itself.
        number: read(word(992)),
        active: read(word(34)),
        data_offset: 0,
        content_bytes: u64::from(read(word(8))) * 1024,
        events: u64::from(read(word(high))) << 32 | u64::from(read(word(low))),
    }))
}

/// `6d2e9b0c:1f3a5c7e:…`.
fn uuid(bytes: &[u8]) -> String {
    bytes.chunks(4).map(hex::encode).collect::<Vec<_>>().join(":")
}
