//! Whether the boot sector can be believed. Everything else on a volume is found through it: one wrong bit makes whole
//! files look lost, and areas that are no allocation table look like a damaged one.
//!
//! FAT32 has a backup of the boot sector. On FAT12 and FAT16 the volume itself has to bear it out: tables stand where
//! they should, and the directories are where their own entries say.

use super::geometry::{BACKUP_SECTOR, FatKind, Geometry, is_fsinfo};
use super::table::AllocationTable;
use super::volume::Volume;
use crate::Result;
use crate::block::{ReadAt, read_vec};
use std::ops::Range;

/// The fields that say where everything lies: sizes and counts, the root directory, FSInfo and the backup itself. The
/// rest is boot code, names, numbers that only BIOS boot code reads, and flags.
const SHAPE: [Range<usize>; 3] = [11..21, 22..24, 32..52];
/// The state flags of FAT32, which Linux sets in the first copy alone.
const FLAGS: usize = 65;

/// How a boot sector and its backup differ; a byte where they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    /// They do not, or there is no backup.
    None,
    /// Only in what no reader finds files by.
    Harmless(usize),
    /// In the shape of the volume.
    Shape(usize),
}

/// Compares the boot sector with its backup.
pub(super) fn difference<S: ReadAt>(volume: &Volume<S>) -> Result<Difference> {
    let g = volume.geometry();
    let Some(backup) = g.backup_boot_offset.filter(|_| g.lost_boot_sector.is_none()) else {
        return Ok(Difference::None);
    };
    let first = read_vec(volume.source(), 0, 512)?;
    let copy = read_vec(volume.source(), backup, 512)?;
    let differs = |at: &usize| first[*at] != copy[*at];
    Ok(match (SHAPE.into_iter().flatten().find(differs), (0..512).find(|at| *at != FLAGS && differs(at))) {
        (Some(at), _) => Difference::Shape(at),
        (None, Some(at)) => Difference::Harmless(at),
        (None, None) => Difference::None,
    })
}

/// What shows at a glance that a boot sector without a backup leads astray: the root directory was never used, and
/// clusters are.
pub(super) fn looks_misread<S: ReadAt>(volume: &Volume<S>) -> Result<Option<String>> {
    if volume.geometry().backup_boot_offset.is_some() || volume.root()?.end() > 0 {
        return Ok(None);
    }
    let table = volume.table();
    let used = table.clusters().filter(|c| table.raw(*c) != 0).count();
    // The root directory of FAT32 has a cluster itself.
    let unexplained = used > usize::from(volume.geometry().kind == FatKind::Fat32);
    Ok(unexplained.then(|| {
        format!(
            "the root directory was never used, but {used} clusters are: the boot sector may lead to the wrong place"
        )
    }))
}

/// Which copy of the boot sector is wrong and can be written over by the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootSectorCopy {
    /// The boot sector itself.
    First,
    /// Its backup.
    Backup,
}

/// A boot sector and a backup that differ in the shape of the volume, of which the volume bears out one alone.
#[non_exhaustive]
pub struct BootSectorRepair {
    /// The copy that is wrong.
    pub wrong: BootSectorCopy,
    /// The shape by the other one.
    pub geometry: Geometry,
    /// What is wrong, for people.
    pub why: String,
}

/// How the boot sector or its backup can be put right; `None` where they agree, where there is no backup, and where the
/// volume bears out both or none of them.
///
/// # Errors
/// What the source reports.
pub fn boot_sector_repair<S: ReadAt>(volume: &Volume<S>) -> Result<Option<BootSectorRepair>> {
    let (source, first) = (volume.source(), volume.geometry());
    if let Some(why) = &first.lost_boot_sector {
        let repair = BootSectorRepair { wrong: BootSectorCopy::First, geometry: first.clone(), why: why.clone() };
        return Ok(is_borne_out(source, first)?.then_some(repair));
    }
    let (Difference::Shape(at), Some(place)) = (difference(volume)?, first.backup_boot_offset) else { return Ok(None) };
    let backup = Geometry::parse(&read_vec(source, place, 512)?, source.size()).ok();
    let by_backup = match &backup {
        Some(backup) => is_borne_out(source, backup)?,
        None => false,
    };
    let wrong = match (is_borne_out(source, first)?, by_backup) {
        (true, false) => BootSectorCopy::Backup,
        (false, true) => BootSectorCopy::First,
        _ => return Ok(None),
    };
    let geometry = if wrong == BootSectorCopy::First { backup } else { Some(first.clone()) };
    let name = if wrong == BootSectorCopy::First { "boot sector" } else { "backup" };
    let why = format!("they differ at byte {at}, and the {name} does not fit what is on the volume");
    Ok(geometry.map(|geometry| BootSectorRepair { wrong, geometry, why }))
}

/// Whether everything that a boot sector of FAT32 speaks of is where it says: the end of the volume, FSInfo, the
/// backup, every copy of the allocation table, and a directory.
fn is_borne_out<S: ReadAt>(source: &S, geometry: &Geometry) -> Result<bool> {
    let usual = BACKUP_SECTOR * u64::from(geometry.sector_bytes);
    let Some(fsinfo) = geometry.fsinfo_offset else { return Ok(false) };
    if geometry.missing_bytes > 0
        || geometry.backup_boot_offset != Some(usual)
        || !is_fsinfo(&read_vec(source, fsinfo, 512)?)
    {
        return Ok(false);
    }
    for n in geometry.live_copies() {
        let table = AllocationTable::read(source, geometry, n)?;
        if !begins_as_one(geometry, &table) || !leads_to_a_directory(source, geometry, table)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Why the boot sector cannot be believed; `None` where the volume bears it out. Nothing is repaired by a boot sector
/// that only claims where things are.
///
/// # Errors
/// What the source reports; [`crate::Kind::Rejected`] when the root directory cannot be read.
pub fn contradiction<S: ReadAt>(volume: &Volume<S>) -> Result<Option<String>> {
    let g = volume.geometry();
    if g.backup_boot_offset.is_some() && g.lost_boot_sector.is_none() {
        return Ok(match difference(volume)? {
            Difference::Shape(at) => Some(format!("the boot sector and its backup differ at byte {at}")),
            Difference::None | Difference::Harmless(_) => None,
        });
    }
    if let Some(called) = g.called.filter(|called| *called != g.kind) {
        return Ok(Some(format!(
            "the boot sector calls the volume {}, and by its numbers it is {}",
            called.name(),
            g.kind.name()
        )));
    }
    let mut borne_out = false;
    for n in g.live_copies() {
        let table = AllocationTable::read(volume.source(), g, n)?;
        if !begins_as_one(g, &table) {
            return Ok(Some(format!("copy {n} of the allocation table is not where the boot sector says")));
        }
        borne_out |= leads_to_a_directory(volume.source(), g, table)?;
    }
    let why = if g.lost_boot_sector.is_some() {
        "the boot sector is lost, and no directory is where its backup leads to"
    } else {
        "no directory is where the boot sector leads to, and there is no backup of the boot sector to compare it with"
    };
    Ok((!borne_out).then(|| why.to_owned()))
}

/// Entry 0 holds the media byte, all other bits set; entry 1 is an end mark, but for two flags.
fn begins_as_one(geometry: &Geometry, table: &AllocationTable) -> bool {
    let kind = geometry.kind;
    let flags = match kind {
        FatKind::Fat12 => 0,
        FatKind::Fat16 => 0xC000,
        FatKind::Fat32 => 0x0C00_0000,
    };
    let media = kind.mask() & !0xFF;
    table.raw(0) & media == media && table.raw(0) & 0xF0 == 0xF0 && table.raw(1) | flags >= kind.end_mark()
}

/// Whether there is a directory in the root that says itself in which cluster it is. Only then is the data area where
/// the boot sector says.
fn leads_to_a_directory<S: ReadAt>(source: &S, geometry: &Geometry, table: AllocationTable) -> Result<bool> {
    let by_this = Volume::with_table(source, geometry.clone(), table);
    let root = match by_this.root() {
        Err(e) if e.code().is_bad_content() => return Ok(false),
        root => root?,
    };
    for entry in root.entries.iter().filter(|e| e.is_dir() && geometry.is_valid(e.first_cluster)) {
        let at = geometry.cluster_offset(entry.first_cluster);
        if at + 32 > geometry.present_bytes() {
            continue;
        }
        let raw = read_vec(source, at, 32)?;
        let own =
            u32::from(u16::from_le_bytes([raw[20], raw[21]])) << 16 | u32::from(u16::from_le_bytes([raw[26], raw[27]]));
        let own = if geometry.kind == FatKind::Fat32 { own } else { own & 0xFFFF };
        if raw.starts_with(b".          ") && own == entry.first_cluster {
            return Ok(true);
        }
    }
    Ok(false)
}
