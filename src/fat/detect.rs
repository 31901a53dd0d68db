//! Whether something is a FAT volume at all, where other structures might be meant.

use super::{FatKind, Geometry, Volume, is_boot_sector};
use crate::Result;
use crate::block::{ReadAt, read_vec};

/// Whether these 512 bytes call themselves a FAT in words (`BS_FilSysType`), whatever their numbers say.
#[must_use]
pub fn is_called_fat(sector: &[u8]) -> bool {
    let says = |at: usize| sector.get(at..at + 8).is_some_and(|name| name.starts_with(b"FAT"));
    sector.get(510..512) == Some(&[0x55, 0xAA]) && (says(54) || says(82))
}

/// Whether a FAT volume begins here and is in use, as far as its allocation table tells: the first entry of every
/// copy repeats the media byte of the boot sector. What writes a partition table over a volume destroys one of the
/// two, or leaves the boot sector as a part of its boot code.
///
/// # Errors
/// What the source reports.
pub fn is_live(source: &(impl ReadAt + ?Sized)) -> Result<bool> {
    if source.size() < 512 {
        return Ok(false);
    }
    let boot = read_vec(source, 0, 512)?;
    if !is_boot_sector(&boot) {
        return Ok(false);
    }
    let Ok(geometry) = Geometry::read(source) else { return Ok(false) };
    for copy in 0..geometry.fats {
        let first = read_vec(source, geometry.fat_copy_offset(copy), 4)?;
        let ones = match geometry.kind {
            FatKind::Fat12 => first[1] & 0x0F == 0x0F,
            FatKind::Fat16 => first[1] == 0xFF,
            FatKind::Fat32 => first[1..3] == [0xFF, 0xFF] && first[3] & 0x0F == 0x0F,
        };
        if first[0] != boot[21] || !ones {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The largest allocation table that is read to find a folder: that of a FAT32 volume of 32 GiB with clusters of 512
/// bytes.
const MAX_TABLE: u64 = 256 << 20;

/// Whether the root of this volume has a folder of that name, without regard to case. A volume that cannot be read,
/// or whose allocation table is larger than that of any ESP, has none.
///
/// # Errors
/// What the source reports.
pub fn has_root_folder(source: &(impl ReadAt + ?Sized), name: &str) -> Result<bool> {
    let Ok(geometry) = Geometry::read(source) else { return Ok(false) };
    if geometry.fat_bytes > MAX_TABLE {
        return Ok(false);
    }
    let find = || -> Result<bool> { Ok(Volume::open(source)?.find(name)?.is_some_and(|entry| entry.is_dir())) };
    match find() {
        Err(e) if e.code().is_bad_content() => Ok(false),
        found => found,
    }
}
