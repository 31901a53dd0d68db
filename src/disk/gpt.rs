//! The GUID partition table. The `gpt` crate reads it; three things stand beside the crate, for what it does not do:
//! it panics on an entry size other than 128 (checked here first), it allocates whatever the entry count asks for
//! (bounded here), and it does not fall back to the backup when only the primary *array* is bad (done here).
//!
//! Format: UEFI specification 2.10, chapter 5.

use crate::block::{Extent, ReadAt, read_vec};
use crate::{Error, Result};
use std::io::{self, Read, Seek, SeekFrom, Write};
use uuid::Uuid;

/// Partition type of an EFI System Partition.
pub const ESP_TYPE: Uuid = Uuid::from_u128(0xC12A7328_F81F_11D2_BA4B_00A0C93EC93B);

/// No disk has more; the specification asks for at least 128.
const MAX_ENTRIES: u32 = 4096;

/// One entry of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Slot in the table, counted from 1, as the kernel numbers partitions.
    pub number: u32,
    /// Partition type.
    pub type_guid: Uuid,
    /// `PARTUUID`.
    pub partuuid: Uuid,
    /// Name, which Talos calls the label.
    pub label: String,
    /// Where it lies, in bytes.
    pub extent: Extent,
}

impl Partition {
    /// Whether it is an EFI System Partition.
    #[must_use]
    pub fn is_esp(&self) -> bool {
        self.type_guid == ESP_TYPE
    }

    fn describe(&self) -> String {
        format!("{} (label {:?}, PARTUUID {}, {} MiB)", self.number, self.label, self.partuuid, self.extent.bytes >> 20)
    }
}

/// A valid partition table.
#[derive(Debug, Clone)]
pub struct Gpt {
    /// Logical sector size the table is written for.
    pub sector_size: u32,
    /// Used entries, by number.
    pub partitions: Vec<Partition>,
    /// What is wrong with the other copy, if anything is.
    pub warnings: Vec<String>,
}

impl Gpt {
    /// Reads the table. `sector_size` is known for devices; for files 512 and 4096 are tried. `None` when nothing here
    /// looks like a GPT.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when there is a GPT, but both copies are bad; what the source reports.
    pub fn read(source: &dyn ReadAt, sector_size: Option<u32>) -> Result<Option<Self>> {
        let sizes = sector_size.map_or_else(|| vec![512, 4096], |s| vec![s]);
        let mut problem = None;
        for sector_size in sizes {
            match read_with(source, sector_size) {
                Ok(Some(gpt)) => return Ok(Some(gpt)),
                Ok(None) => {}
                Err(e) => problem = Some(e),
            }
        }
        problem.map_or(Ok(None), Err)
    }

    /// The ESP that `choice` (number, label or PARTUUID) means, or the only one.
    ///
    /// # Errors
    /// [`crate::Kind::Usage`] when there are several and no choice, or the choice fits none; [`crate::Kind::Rejected`]
    /// when the disk has no ESP.
    pub fn choose_esp(&self, choice: Option<&str>) -> Result<Partition> {
        let esps: Vec<&Partition> = self.partitions.iter().filter(|p| p.is_esp()).collect();
        let list = |these: &[&Partition]| these.iter().map(|p| p.describe()).collect::<Vec<_>>().join("; ");
        if esps.is_empty() {
            let all: Vec<&Partition> = self.partitions.iter().collect();
            return Err(Error::rejected(format!(
                "no EFI System Partition (type {ESP_TYPE}) among the partitions: {}",
                if all.is_empty() { "none at all".into() } else { list(&all) }
            ))
            .advise("this disk was not installed for UEFI boot, or it is another disk that you mean"));
        }
        let fits = |p: &&Partition, wanted: &str| {
            wanted.parse() == Ok(p.number) || p.label == wanted || Uuid::parse_str(wanted) == Ok(p.partuuid)
        };
        let chosen: Vec<&Partition> = match choice {
            None => esps.clone(),
            Some(wanted) => esps.iter().filter(|p| fits(p, wanted)).copied().collect(),
        };
        match (chosen.as_slice(), choice) {
            ([one], _) => Ok((*one).clone()),
            ([], wanted) => Err(Error::usage(format!(
                "no EFI System Partition is {:?}; there are: {}",
                wanted.unwrap_or_default(),
                list(&esps)
            ))),
            (several, _) => Err(Error::usage(format!("{} EFI System Partitions: {}", several.len(), list(several)))
                .advise("choose one with --partition NUMBER, LABEL or PARTUUID")),
        }
    }
}

fn read_with(source: &dyn ReadAt, sector_size: u32) -> Result<Option<Gpt>> {
    let sector = u64::from(sector_size);
    if source.size() < 3 * sector {
        return Ok(None);
    }
    let primary = header_problem(source, sector)?;
    let backup = header_problem(source, source.size() / sector * sector - sector)?;
    if matches!((&primary, &backup), (HeaderState::Absent, HeaderState::Absent)) {
        return Ok(None);
    }
    let lb_size =
        if sector_size == 4096 { ::gpt::disk::LogicalBlockSize::Lb4096 } else { ::gpt::disk::LogicalBlockSize::Lb512 };
    let usable = [matches!(primary, HeaderState::Plausible), matches!(backup, HeaderState::Plausible)];
    let open = |hidden: [bool; 2]| {
        ::gpt::GptConfig::new()
            .writable(false)
            .logical_block_size(lb_size)
            .open_from_device(View::new(source, sector, hidden))
    };
    let first = open([!usable[0], !usable[1]]);
    let (disk, mut warnings) = match first {
        Ok(disk) => {
            let mut warnings = Vec::new();
            if disk.primary_header().is_err() {
                warnings.push("the primary partition table is damaged: its backup was used".to_owned());
            } else if disk.backup_header().is_err() {
                warnings.push("the backup partition table at the end of the disk is missing or damaged".to_owned());
            }
            (disk, warnings)
        }
        // The primary header may be good and its array bad: without that header the crate turns to the backup.
        Err(first) => match open([true, !usable[1]]) {
            Ok(disk) => (disk, vec!["the primary partition table is damaged: its backup was used".to_owned()]),
            Err(second) => {
                return Err(Error::rejected(format!(
                    "both partition tables are damaged (primary: {first}; backup: {second})"
                ))
                .advise("repair the table with `sgdisk --verify` and its recovery menu before anything else"));
            }
        },
    };
    let partitions = disk
        .partitions()
        .iter()
        .filter_map(|(number, p)| {
            let sectors = p.last_lba.checked_sub(p.first_lba)?.checked_add(1)?;
            let extent = Extent { offset: p.first_lba.checked_mul(sector)?, bytes: sectors.checked_mul(sector)? };
            let inside = extent.offset.checked_add(extent.bytes).is_some_and(|end| end <= source.size());
            if !inside {
                warnings.push(format!("partition {number} ({}) reaches past the end of the disk: ignored", p.name));
                return None;
            }
            Some(Partition {
                number: *number,
                type_guid: p.part_type_guid.guid,
                partuuid: p.part_guid,
                label: p.name.clone(),
                extent,
            })
        })
        .collect();
    Ok(Some(Gpt { sector_size, partitions, warnings }))
}

/// What stands where a header should be.
enum HeaderState {
    /// No signature.
    Absent,
    /// A signature, and an entry size and count that the crate can be given.
    Plausible,
    /// A signature with values that no disk has.
    Absurd,
}

fn header_problem(source: &dyn ReadAt, at: u64) -> Result<HeaderState> {
    let raw = read_vec(source, at, 92)?;
    if &raw[..8] != b"EFI PART" {
        return Ok(HeaderState::Absent);
    }
    let field = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    let plausible = field(84) == 128 && field(80) <= MAX_ENTRIES;
    Ok(if plausible { HeaderState::Plausible } else { HeaderState::Absurd })
}

/// A source as the crate wants it: `Read + Write + Seek`. Writing fails. A hidden header reads as zeros, so that the
/// crate turns to the other one.
struct View<'s> {
    source: &'s dyn ReadAt,
    at: u64,
    hidden: Vec<std::ops::Range<u64>>,
}

impl<'s> View<'s> {
    fn new(source: &'s dyn ReadAt, sector: u64, hidden: [bool; 2]) -> Self {
        let last = source.size() / sector * sector - sector;
        let headers = [sector..2 * sector, last..last + sector];
        let hidden = headers.into_iter().zip(hidden).filter_map(|(range, hide)| hide.then_some(range)).collect();
        Self { source, at: 0, hidden }
    }
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View at {}", self.at)
    }
}

impl Read for View<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(usize::try_from(self.source.size().saturating_sub(self.at)).unwrap_or(usize::MAX));
        self.source.read_exact_at(&mut buf[..n], self.at)?;
        for range in &self.hidden {
            let start = range.start.max(self.at);
            let end = range.end.min(self.at + n as u64);
            if start < end {
                buf[(start - self.at) as usize..(end - self.at) as usize].fill(0);
            }
        }
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for View<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading"))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for View<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let base = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(d) => self.at.checked_add_signed(d),
            SeekFrom::End(d) => self.source.size().checked_add_signed(d),
        };
        self.at = base.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek before the start"))?;
        Ok(self.at)
    }
}
