//! What a disk is divided into. Several tables may be found on one medium, left by its former lives; what counts is
//! what firmware and kernel go by, and that is decided by what lies at the beginning:
//!
//! 1. A valid primary GPT under a protective MBR counts, whatever else is found.
//! 2. Without a protective MBR neither firmware nor kernel looks for a GPT: a FAT, an MBR with partitions, or another
//!    file system at the beginning counts.
//! 3. The backup of a GPT counts where the primary is *damaged*, not where something else has taken its place.
//!
//! Where two things contradict each other, one is read and nothing is written ([`DiskLayout::refusal`]).

use super::contents;
use super::gpt::{Copy, HeaderState, read_copy};
use super::mbr::Mbr;
use super::table::{Partition, PartitionTable, Scheme};
use crate::block::{Extent, ReadAt, read_vec};
use crate::units::exact;
use crate::{Code, Error, Result, fat};

/// What to do where two structures claim the start of a medium.
const TWO: &str = "find out which of the two is in use and remove the other: `wipefs DISK` lists them";

/// Something worth knowing about the layout of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// A word for programs: `backup-table-missing`.
    pub id: &'static str,
    /// What is the case.
    pub what: String,
    /// What it means for the board.
    pub meaning: &'static str,
    /// Whether writing the table anew mends it: `sgdisk -e`, on a disk that is no member of anything.
    pub rewriting_helps: bool,
}

impl Note {
    pub(super) fn new(id: &'static str, what: impl Into<String>, meaning: &'static str) -> Self {
        Self { id, what: what.into(), meaning, rewriting_helps: false }
    }

    fn mended_by_rewriting(self) -> Self {
        Self { rewriting_helps: true, ..self }
    }
}

/// Why nothing may be written to the ESP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) why: String,
    pub(super) advice: String,
}

impl Refusal {
    pub(super) fn new(why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { why: why.into(), advice: advice.into() }
    }

    pub(super) fn error(&self) -> Error {
        Error::new(Code::Layout, &*self.why).advise(&*self.advice)
    }
}

/// A disk's layout.
#[derive(Debug)]
pub(super) struct DiskLayout {
    /// Sector size that the table counts in.
    pub(super) sector_size: u32,
    /// The table that counts.
    pub(super) table: Option<PartitionTable>,
    /// Without a table: what has the whole medium, with an article; `None` for FAT and for what is not known.
    pub(super) occupant: Option<&'static str>,
    /// What is worth knowing.
    pub(super) notes: Vec<Note>,
    /// A contradiction in which nothing may be written.
    pub(super) refusal: Option<Refusal>,
    /// The tables themselves.
    pub(super) areas: Vec<Extent>,
    /// Entries in which the two copies of a GPT differ, by number.
    pub(super) differing: Vec<u32>,
}

/// What is seen before anything is decided.
struct Seen<'s> {
    source: &'s dyn ReadAt,
    known: Option<u32>,
    mbr: Option<Mbr>,
    /// A boot sector of FAT, sound or not.
    fat_boot_sector: bool,
    /// A FAT whose allocation table is where the boot sector says.
    live_fat: bool,
}

impl Seen<'_> {
    fn protective(&self) -> bool {
        self.mbr.as_ref().is_some_and(Mbr::is_protective)
    }

    /// Sector sizes to try; that of the device first.
    fn sizes(&self) -> [u32; 2] {
        if self.known == Some(4096) { [4096, 512] } else { [512, 4096] }
    }

    fn last_lba(&self, sector: u32) -> u64 {
        (self.source.size() / u64::from(sector)).saturating_sub(1)
    }

    /// A valid backup at the end of the medium, or at the place that a damaged primary names.
    fn backup(&self, primaries: &[(u32, HeaderState); 2]) -> Result<Option<Copy>> {
        for (sector, primary) in primaries {
            let named = if let HeaderState::Damaged(damage) = primary { Some(damage.alternate_lba) } else { None };
            for lba in [Some(self.last_lba(*sector)), named].into_iter().flatten().filter(|lba| *lba > 1) {
                if let HeaderState::Valid(copy) = read_copy(self.source, *sector, lba)? {
                    return Ok(Some(copy));
                }
            }
        }
        Ok(None)
    }
}

impl DiskLayout {
    /// Looks at both ends of the medium. `known`: the sector size, for devices.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when there is a GPT and both copies are damaged; what the source reports.
    pub(super) fn read(source: &dyn ReadAt, known: Option<u32>) -> Result<Self> {
        if source.size() < 512 {
            return Ok(Self::empty(known.unwrap_or(512)));
        }
        let start = read_vec(source, 0, 512)?;
        let seen = Seen {
            source,
            known,
            mbr: Mbr::parse(&start),
            fat_boot_sector: fat::is_boot_sector(&start),
            live_fat: fat::is_live(source)?,
        };
        let sizes = seen.sizes();
        let primaries = [(sizes[0], read_copy(source, sizes[0], 1)?), (sizes[1], read_copy(source, sizes[1], 1)?)];
        let mut layout = match primaries {
            [(_, HeaderState::Valid(primary)), _] | [_, (_, HeaderState::Valid(primary))] => {
                Self::under_primary(&seen, primary)?
            }
            damaged => Self::without_primary(&seen, &damaged)?,
        };
        if let (Some(known), Some(_)) = (known, &layout.table)
            && known != layout.sector_size
        {
            let what = format!(
                "the partition table counts in sectors of {} bytes, and the device has sectors of {known}",
                layout.sector_size
            );
            layout.refuse(
                &what,
                "attach the disk in the way in which it was partitioned, without the adapter that changes its sectors",
            );
            layout.notes.push(Note::new(
                "table-of-other-sectors",
                what,
                "neither kernel nor firmware finds the partitions here",
            ));
        }
        Ok(layout)
    }

    fn empty(sector_size: u32) -> Self {
        Self {
            sector_size,
            table: None,
            occupant: None,
            notes: Vec::new(),
            refusal: None,
            areas: Vec::new(),
            differing: Vec::new(),
        }
    }

    fn refuse(&mut self, why: &str, advice: &str) {
        self.refusal.get_or_insert_with(|| Refusal::new(why, advice));
    }

    fn under_primary(seen: &Seen<'_>, primary: Copy) -> Result<Self> {
        if seen.protective() {
            let mut layout = Self::of_gpt(seen, &primary)?;
            if seen.live_fat {
                let what = "a GPT and a FAT file system both begin at the start of this medium";
                layout.notes.push(Note::new(
                    "gpt-and-fat",
                    what,
                    "the GPT counts for firmware and kernel; software that uses the FAT writes into it",
                ));
                layout.refuse(what, TWO);
            } else if contents::is_iso(seen.source)? {
                layout.refuse(
                    "this is an ISO 9660 image whose partitions are files of it",
                    "make a new ISO, or install from it and change the installed disk",
                );
            }
            return Ok(layout);
        }
        let leftover = "a GPT without a protective MBR, which firmware and kernel ignore";
        if let Some(mbr) = seen.mbr.as_ref().filter(|m| m.has_own()) {
            let mut layout = Self::of_mbr(seen, mbr)?;
            let what = format!("the disk has an MBR with partitions, and {leftover}");
            layout.refuse(&what, TWO);
            layout.notes.push(Note::new("gpt-and-mbr", what, "the MBR counts"));
            return Ok(layout);
        }
        if seen.fat_boot_sector {
            let mut layout = Self::bare(seen, None)?;
            let what =
                format!("the medium begins with a FAT file system, and behind its first sector stands {leftover}");
            layout.refuse(&what, TWO);
            layout.notes.push(Note::new("gpt-and-fat", what, "the FAT counts"));
            return Ok(layout);
        }
        if let Some(occupant) = contents::file_system(seen.source)? {
            return Self::bare(seen, Some(occupant));
        }
        let mut layout = Self::of_gpt(seen, &primary)?;
        let what = "the disk has no protective MBR in front of its partition table";
        layout.notes.push(
            Note::new(
                "no-protective-mbr",
                what,
                "firmware and kernel ignore a table without it: neither finds the partitions",
            )
            .mended_by_rewriting(),
        );
        Ok(layout)
    }

    fn without_primary(seen: &Seen<'_>, primaries: &[(u32, HeaderState); 2]) -> Result<Self> {
        let protective = seen.protective();
        let replaced = !protective || seen.live_fat;
        let backup = seen.backup(primaries)?;
        let leftover = || {
            Note::new(
                "old-backup-table",
                "a partition table from an earlier use of the disk is left at its end: it is ignored",
                "firmware and kernel go by what lies at the beginning",
            )
        };
        let leftover = |layout: &mut Self| layout.notes.extend(backup.is_some().then(leftover));
        if let Some(mbr) = seen.mbr.as_ref().filter(|m| m.has_own() && !protective) {
            let mut layout = Self::of_mbr(seen, mbr)?;
            leftover(&mut layout);
            if seen.live_fat {
                let what = "an MBR with partitions and a FAT file system both begin at the start of this medium";
                layout.notes.push(Note::new(
                    "mbr-and-fat",
                    what,
                    "the MBR counts for the kernel; software that uses the FAT writes into it",
                ));
                layout.refuse(what, TWO);
            }
            return Ok(layout);
        }
        if seen.fat_boot_sector && (replaced || backup.is_none()) {
            let mut layout = Self::bare(seen, None)?;
            leftover(&mut layout);
            if protective {
                layout.refuse(
                    "the medium begins with a FAT file system and a protective MBR: it is not clear which of them is \
                     in use",
                    TWO,
                );
            }
            return Ok(layout);
        }
        let damage = primaries.iter().find_map(|(_, found)| match found {
            HeaderState::Damaged(damage) => Some(damage.why.as_str()),
            _ => None,
        });
        let occupant = if protective { None } else { contents::file_system(seen.source)? };
        if occupant.is_some() {
            let mut layout = Self::bare(seen, occupant)?;
            leftover(&mut layout);
            return Ok(layout);
        }
        let Some(backup) = backup else {
            if !protective && damage.is_none() {
                return Self::bare(seen, None);
            }
            return Err(Error::rejected(format!(
                "both partition tables are damaged or missing (primary: {}; backup: not valid at the end of the disk)",
                damage.unwrap_or("there is none behind the protective MBR"),
            ))
            .advise(
                "`sgdisk -v` says more; a table that was saved with `sgdisk --backup` can be put back with `sgdisk \
                 --load-backup`",
            ));
        };
        let mut layout = Self::of_backup(seen, &backup);
        if protective {
            layout.notes.push(
                Note::new(
                    "primary-table-damaged",
                    format!("the primary partition table is damaged: its backup was used{}", because(damage)),
                    "firmware uses the backup, too, or finds no partitions: that depends on the firmware",
                )
                .mended_by_rewriting(),
            );
        } else {
            let what =
                "there is a partition table at the end of the disk, and nothing that belongs to it at the beginning";
            layout.notes.push(Note::new(
                "table-without-beginning",
                what,
                "firmware and kernel find no partitions: the beginning was erased or written over",
            ));
            layout.refuse(
                what,
                "if this disk should hold those partitions, the recovery menu of `gdisk` (r, then b and c) makes the \
                 table anew from its backup; \
                 if not, give the partition or image that is meant",
            );
        }
        Ok(layout)
    }

    /// One file system over all of the medium, or nothing that is known.
    fn bare(seen: &Seen<'_>, occupant: Option<&'static str>) -> Result<Self> {
        Ok(Self { occupant, ..Self::empty(seen.known.unwrap_or(512)) })
    }

    fn of_mbr(seen: &Seen<'_>, mbr: &Mbr) -> Result<Self> {
        // Nothing in an MBR says what it counts in. The partitions that begin with FAT do.
        let fats = |sector: u32| -> Result<usize> {
            let all = mbr.partitions(seen.source, sector)?.partitions;
            all.iter().try_fold(0, |n, p| Ok(n + usize::from(fat::is_fat(&seen.source_at(p.extent)?)?)))
        };
        let sector_size = match seen.known {
            Some(known) => known,
            None if fats(512)? == 0 && fats(4096)? > 0 => 4096,
            None => 512,
        };
        let found = mbr.partitions(seen.source, sector_size)?;
        let mut layout = Self::empty(sector_size);
        layout.notes.extend(found.nonsense.into_iter().map(nonsense));
        layout.notes.extend(cut_off_notes(&found.cut_off));
        layout.areas = found.records;
        layout.table = Some(PartitionTable {
            scheme: Scheme::Mbr { signature: mbr.signature },
            sector_size,
            partitions: found.partitions,
            cut_off: found.cut_off,
        });
        Ok(layout)
    }

    fn of_backup(seen: &Seen<'_>, copy: &Copy) -> Self {
        let mut layout = Self::empty(copy.sector);
        layout.areas.extend(copy.areas());
        // Where the primary is, or will be when it is mended.
        let sector = u64::from(copy.sector);
        layout.areas.push(Extent { offset: 0, bytes: (2 * sector).saturating_add(copy.array.bytes) });
        layout.take_partitions(seen, copy);
        layout
    }

    fn of_gpt(seen: &Seen<'_>, primary: &Copy) -> Result<Self> {
        let mut layout = Self::empty(primary.sector);
        let sector = u64::from(primary.sector);
        layout.areas.push(Extent { offset: 0, bytes: sector });
        layout.areas.extend(primary.areas());
        let last = seen.last_lba(primary.sector);
        let backup = match primary.alternate_lba {
            0 | 1 => HeaderState::Absent,
            lba => read_copy(seen.source, primary.sector, lba)?,
        };
        match &backup {
            HeaderState::Valid(copy) => {
                layout.areas.extend(copy.areas());
                layout.differing = primary.differences(copy);
                layout.notes.extend(layout.differing.iter().map(|n| {
                    Note::new(
                        "tables-differ",
                        format!("the two copies of the partition table differ in partition {n}: the primary counts"),
                        "software that reads the backup sees another disk",
                    )
                }));
                if copy.disk != primary.disk {
                    layout.notes.push(Note::new(
                        "tables-differ",
                        "the two copies of the partition table name different disks: the primary counts",
                        "the backup is from an earlier use of this disk",
                    ));
                }
                if copy.lba < last {
                    layout.notes.push(Note::new(
                        "backup-table-elsewhere",
                        format!(
                            "the backup partition table is not at the end of the disk, but where the primary says \
                                 (LBA {})",
                            copy.lba
                        ),
                        "the disk was enlarged or its image was copied to a larger one: nothing is wrong with it",
                    ));
                }
            }
            _ if primary.alternate_lba > last => {
                let what = format!(
                    "the partition table is that of a disk of {}, and this one has {}",
                    exact(primary.alternate_lba.saturating_add(1).saturating_mul(sector)),
                    exact(seen.source.size())
                );
                if primary.last_usable_lba > last {
                    layout.refuse(&what, "copy the image again and whole: what is missing at its end belongs to it");
                }
                layout.notes.push(Note::new(
                    "table-of-larger-disk",
                    what,
                    "it was cut off, or copied to a disk that is too small",
                ));
            }
            found => {
                let why =
                    if let HeaderState::Damaged(damage) = found { because(Some(&damage.why)) } else { String::new() };
                layout.notes.push(
                    Note::new(
                        "backup-table-missing",
                        format!("the backup partition table at the end of the disk is missing or damaged{why}"),
                        "the primary counts; when that is damaged, too, the partitions are lost",
                    )
                    .mended_by_rewriting(),
                );
            }
        }
        if seen.mbr.as_ref().is_some_and(Mbr::has_own) {
            layout.notes.push(Note::new(
                "hybrid-mbr",
                "the MBR has partitions beside the one that protects the GPT (hybrid MBR): the GPT counts",
                "UEFI firmware and Linux go by the GPT; the boot ROM of a Raspberry Pi and a BIOS may go by the MBR",
            ));
        }
        layout.take_partitions(seen, primary);
        Ok(layout)
    }

    fn take_partitions(&mut self, seen: &Seen<'_>, copy: &Copy) {
        self.notes.extend(copy.nonsense.iter().map(|what| nonsense(format!("{what}: ignored"))));
        let fits = |p: &Partition| p.extent.offset + p.extent.bytes <= seen.source.size();
        let (partitions, cut_off): (Vec<_>, Vec<_>) = copy.partitions.iter().cloned().partition(fits);
        self.notes.extend(cut_off_notes(&cut_off));
        self.table = Some(PartitionTable {
            scheme: Scheme::Gpt { disk: copy.disk },
            sector_size: copy.sector,
            partitions,
            cut_off,
        });
    }

    /// Why nothing may be written to this partition, by what the tables say.
    pub(super) fn refusal_for(&self, partition: &Partition) -> Option<Refusal> {
        let table = self.table.as_ref()?;
        let advice = "look at the table with `sgdisk -p` or `sfdisk -l` and correct it before anything is written";
        if let Some(other) =
            table.partitions.iter().find(|p| p.number != partition.number && overlap(p.extent, partition.extent))
        {
            return Some(Refusal::new(format!("{} overlaps {}", partition.name(), other.name()), advice));
        }
        if self.areas.iter().any(|area| overlap(*area, partition.extent)) {
            return Some(Refusal::new(format!("{} overlaps the partition table itself", partition.name()), advice));
        }
        if self.differing.contains(&partition.number) {
            return Some(Refusal::new(
                format!("the two copies of the partition table differ in {}", partition.name()),
                "find out which copy is right (`sgdisk -p` shows the primary) and make both equal before anything is \
                 written",
            ));
        }
        self.refusal.clone()
    }
}

impl<'s> Seen<'s> {
    fn source_at(&self, extent: Extent) -> Result<crate::block::Window<&'s dyn ReadAt>> {
        Ok(crate::block::Window::new(self.source, extent)?)
    }
}

/// Whether two stretches have a byte in common.
pub(super) fn overlap(a: Extent, b: Extent) -> bool {
    let end = |e: Extent| e.offset.saturating_add(e.bytes);
    a.offset < end(b) && b.offset < end(a)
}

fn cut_off_notes(cut_off: &[Partition]) -> impl Iterator<Item = Note> {
    cut_off.iter().map(|p| nonsense(format!("{} reaches past the end of the disk: ignored", p.name())))
}

fn nonsense(what: String) -> Note {
    Note::new("bad-entry", what, "it cannot be used as it is")
}

fn because(why: Option<&str>) -> String {
    why.map_or(String::new(), |why| format!(" ({why})"))
}

impl PartitionTable {
    /// The table of a disk. `sector_size` is known for devices; for files 512 and 4096 are tried. `None` when there
    /// is none, or another structure at the beginning of the disk has taken its place.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when there is a GPT and both copies are damaged; what the source reports.
    pub fn read(source: &dyn ReadAt, sector_size: Option<u32>) -> Result<Option<Self>> {
        Ok(DiskLayout::read(source, sector_size)?.table)
    }
}
