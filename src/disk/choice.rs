//! Which partition is meant.

use super::layout::Note;
use super::table::{ESP_TYPE, Partition, PartitionTable, PartitionType};
use crate::block::{ReadAt, Window};
use crate::{Error, Result, fat};

/// MBR types of FAT partitions: FAT12, FAT16 (small, large, LBA), FAT32 (CHS, LBA).
const MBR_FAT: [u8; 6] = [0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0E];
/// Partitions that Talos makes beside the ESP, by label.
const TALOS_LABELS: [&str; 3] = ["META", "STATE", "EPHEMERAL"];
/// The label by which Talos finds its ESP.
const TALOS_ESP: &str = "EFI";

/// Which ESP of a disk is meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct EspChoice<'a> {
    /// A partition number, label or PARTUUID: what the user says.
    pub wanted: Option<&'a str>,
    /// The PARTUUID of the one that this machine was started from. It counts where there are several and none was
    /// named.
    pub booted: Option<&'a str>,
}

impl<'a> From<Option<&'a str>> for EspChoice<'a> {
    fn from(wanted: Option<&'a str>) -> Self {
        Self { wanted, booted: None }
    }
}

/// The partitions of a disk that firmware may start from: those whose type says ESP; where there is none, those that
/// hold a FAT file system with a folder `EFI`, or have the label `EFI` and a FAT.
///
/// # Errors
/// What the source reports.
pub(super) fn esps<'t>(table: &'t PartitionTable, source: &dyn ReadAt) -> Result<Vec<&'t Partition>> {
    let typed: Vec<&Partition> = table.partitions.iter().filter(|p| p.is_esp()).collect();
    if !typed.is_empty() {
        return Ok(typed);
    }
    let mut likely = Vec::new();
    for p in table.partitions.iter().filter(|p| may_stand_in(p)) {
        let volume = Window::new(source, p.extent)?;
        if fat::is_fat(&volume)? && (p.label == TALOS_ESP || fat::has_root_folder(&volume, "EFI")?) {
            likely.push(p);
        }
    }
    Ok(likely)
}

/// Whether a partition of another type than that of an ESP may be one all the same.
fn may_stand_in(p: &Partition) -> bool {
    match p.kind {
        PartitionType::Gpt(_) => !p.is_xbootldr(),
        PartitionType::Mbr(byte) => MBR_FAT.contains(&byte),
    }
}

/// The partition that `choice` (a number, a label or a PARTUUID) means, or the only ESP; and what has to be said
/// about it.
///
/// # Errors
/// [`crate::Kind::Usage`] when there are several and no choice, or the choice fits none, several, or one without FAT;
/// [`crate::Kind::Rejected`] when the disk has no ESP.
pub(super) fn choose(
    table: &PartitionTable,
    source: &dyn ReadAt,
    choice: EspChoice<'_>,
) -> Result<(Partition, Vec<Note>)> {
    let esps = esps(table, source)?;
    let Some(wanted) = choice.wanted else {
        let booted = choice.booted.and_then(|booted| esps.iter().find(|p| p.partuuid.is(booted)));
        return match (esps.as_slice(), booted) {
            ([one], _) => Ok(((*one).clone(), esp_for_whom(table, one))),
            ([], _) => Err(no_esp(table, source.size())),
            (several, Some(booted)) => {
                let mut notes = esp_for_whom(table, booted);
                let what = format!(
                    "{} of {} ESPs is used: systemd-boot was started from it (LoaderDevicePartUUID)",
                    booted.name(),
                    several.len()
                );
                let meaning = "the firmware may start from another one next time; --partition names one";
                notes.push(Note::new("esp-by-boot", what, meaning));
                Ok(((*booted).clone(), notes))
            }
            (several, None) => Err(Error::usage(format!("{} EFI System Partitions: {}", several.len(), list(several)))
                .advise("choose one with --partition NUMBER, LABEL or PARTUUID")),
        };
    };
    let meant: Vec<&Partition> = table.partitions.iter().filter(|p| p.is_meant(wanted)).collect();
    // A label may be that of an ESP and of other partitions, too.
    let among_esps: Vec<&Partition> = meant.iter().copied().filter(|p| esps.contains(p)).collect();
    let there_are = || if esps.is_empty() { list(&table.partitions.iter().collect::<Vec<_>>()) } else { list(&esps) };
    match (among_esps.as_slice(), meant.as_slice()) {
        ([one], _) | ([], [one]) => {
            if !one.is_esp() && !fat::is_fat(&Window::new(source, one.extent)?)? {
                return Err(Error::usage(format!(
                    "partition {} holds no FAT file system; the EFI System Partitions are: {}",
                    one.describe(),
                    there_are()
                )));
            }
            Ok(((*one).clone(), esp_for_whom(table, one)))
        }
        ([], []) if table.cut_off.iter().any(|p| p.is_meant(wanted)) => {
            let meant: Vec<&Partition> = table.cut_off.iter().filter(|p| p.is_meant(wanted)).collect();
            Err(is_cut_off(&meant, source.size()))
        }
        ([], []) => Err(Error::usage(format!("no partition is {wanted:?}; there are: {}", there_are()))),
        ([], several) | (several, _) => {
            Err(Error::usage(format!("{} partitions are {wanted:?}: {}", several.len(), list(several)))
                .advise("choose one by its number or PARTUUID"))
        }
    }
}

/// By which rules a partition is an ESP for others, where it is not one for all of them.
fn esp_for_whom(table: &PartitionTable, p: &Partition) -> Vec<Note> {
    if p.is_xbootldr() {
        return Vec::new();
    }
    if !p.is_esp() {
        let what = format!("{} is used as the ESP, and its type is {} and not that of an ESP", p.name(), p.kind);
        let meaning = match p.kind {
            PartitionType::Gpt(_) => {
                "UEFI asks for the type; most firmware starts from any FAT, some only from an ESP; Talos goes by the \
                 label EFI"
            }
            PartitionType::Mbr(_) => {
                "UEFI asks for type 0xef in an MBR; most firmware starts from any FAT; the Raspberry Pi's boot ROM \
                 wants a FAT type"
            }
        };
        return vec![Note::new("esp-by-content", what, meaning)];
    }
    let talos = table.partitions.iter().any(|p| TALOS_LABELS.contains(&p.label.as_str()));
    if talos && p.label != TALOS_ESP {
        return vec![Note::new(
            "esp-without-label",
            format!("{} has the type of an ESP and not the label EFI", p.name()),
            "firmware goes by the type; Talos finds its ESP by the label EFI, and would not find this one at an \
             upgrade",
        )];
    }
    Vec::new()
}

fn no_esp(table: &PartitionTable, bytes: u64) -> Error {
    let cut_off = cut_off_esps(table);
    if !cut_off.is_empty() {
        return is_cut_off(&cut_off, bytes);
    }
    let all: Vec<&Partition> = table.partitions.iter().collect();
    Error::rejected(format!(
        "no EFI System Partition (type {ESP_TYPE}, or a FAT with a folder EFI) among the partitions: {}",
        if all.is_empty() { "none at all".into() } else { list(&all) }
    ))
    .advise("this disk was not installed for UEFI boot, or it is another disk that you mean")
}

/// The partitions past the end of the disk of which one would be the ESP: by type; where none has it, those whose type
/// does not speak against it.
pub(super) fn cut_off_esps(table: &PartitionTable) -> Vec<&Partition> {
    let typed: Vec<&Partition> = table.cut_off.iter().filter(|p| p.is_esp()).collect();
    if typed.is_empty() { table.cut_off.iter().filter(|p| may_stand_in(p)).collect() } else { typed }
}

/// The disk ends before the end of these partitions.
fn is_cut_off(these: &[&Partition], bytes: u64) -> Error {
    let end = these.iter().map(|p| p.extent.offset + p.extent.bytes).max().unwrap_or_default();
    Error::rejected(format!(
        "partition {} reaches past the end of the disk: it has {bytes} bytes, and should have {end} at least",
        list(these)
    ))
    .advise("the image was cut off, or the disk is smaller than the image that was written to it: copy it again, whole")
}

fn list(these: &[&Partition]) -> String {
    these.iter().map(|p| p.describe()).collect::<Vec<_>>().join("; ")
}
