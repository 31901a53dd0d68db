//! The disk a command works on, and the EFI variables that go with it.

use super::variables::{MachineTree, VariablesChoice};
use crate::block::{ReadAt, read_vec};
use crate::boot::lenient_string;
use crate::bootpath::{BootOptions, BootVolume};
use crate::disk::{EspChoice, Partition, Shape, Target};
use crate::efivars::{EfiVars, LOADER};
use crate::esp::{EspContext, OtherVolume};
use crate::pe::Arch;
use crate::units::size;
use crate::{Error, Result, disk, fat};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A disk, which ESP of it, and the EFI variables that go with it.
#[derive(Debug, Clone)]
pub struct DiskRequest {
    /// `DISK`.
    pub path: PathBuf,
    /// `--partition`.
    pub partition: Option<String>,
    /// `--efivars`.
    pub efivars: VariablesChoice,
    /// The other members of the mirror that `path` is one of (`--all-members`): what is written is written to all of
    /// them.
    pub other_members: Vec<PathBuf>,
}

impl DiskRequest {
    /// The only ESP of this disk, partition or image file, with the EFI variables of this machine if the disk is in it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), partition: None, efivars: VariablesChoice::default(), other_members: Vec::new() }
    }

    /// The EFI variables that go with the disk.
    #[must_use]
    pub fn efivars(&self, target: &Target) -> EfiVars {
        let machine = is_device(target).then(|| MachineTree::with_device(&self.path));
        self.efivars.locate(machine.as_ref(), &[target])
    }

    /// The PARTUUID of the ESP that the machine of these variables was started from, as systemd-boot has left it.
    pub(super) fn booted_esp(&self) -> Option<String> {
        let machine = is_block_device(&self.path).then(|| MachineTree::with_device(&self.path));
        // What is shown now, wherever the next start takes its variables from.
        let vars = self.efivars.locate(machine.as_ref(), &[]);
        let variable = vars.read("LoaderDevicePartUUID", LOADER).ok().flatten()?;
        Some(lenient_string(&variable.data))
    }

    /// Which ESP is meant; `booted` is [`Self::booted_esp`].
    pub(super) fn choice<'a>(&'a self, booted: &'a Option<String>) -> EspChoice<'a> {
        EspChoice { wanted: self.partition.as_deref(), booted: booted.as_deref() }
    }

    /// What lies around the ESP: the firmware's boot options, the other volumes of the disk. `arch` is the one that was
    /// asked for.
    #[must_use]
    pub fn context(&self, target: &Target, vars: &EfiVars, arch: Option<Arch>) -> Arc<EspContext> {
        let mut context = EspContext::new(BootOptions::read(vars));
        context.is_uboot = vars.is_uboot();
        context.arch = arch;
        let Some(this) = &target.partition else { return Arc::new(context) };
        let sector = u64::from(target.sector_size.max(1));
        let volume = |p: &Partition| BootVolume {
            name: format!("partition {}", p.number),
            partuuid: Some(p.partuuid),
            place: Some((p.number, p.extent.offset / sector, p.extent.bytes / sector)),
        };
        context.is_xbootldr = this.kind.is_xbootldr();
        let xbootldr = target.xbootldr().map(|p| p.number);
        let mut left = MAX_TABLES;
        for p in target.table().map_or(std::slice::from_ref(this), |table| &table.partitions) {
            if p.number == this.number {
                context.add_this(volume(p));
                continue;
            }
            let is_xbootldr = xbootldr == Some(p.number);
            let unknown = match holds(target, p, &mut left) {
                Ok(Holds::Fat(files)) => {
                    context.add(volume(p), *files, is_xbootldr);
                    continue;
                }
                Ok(Holds::Other(what)) => {
                    Some(format!("{} holds {what}: whether the firmware reads that is not known", p.name()))
                }
                Ok(Holds::Nothing) => None,
                Err(why) => Some(format!("{} cannot be read: {why}", p.name())),
            };
            if is_xbootldr {
                context.xbootldr_trouble.clone_from(&unknown);
            }
            context.add_unseen(p.partuuid, unknown);
        }
        Arc::new(context)
    }

    /// Whether the EFI variables are those of the machine that boots from the disk: they were named, or the disk is in
    /// this machine.
    #[must_use]
    pub fn variables_are_the_boards(&self, target: &Target) -> bool {
        self.efivars.is_named() || is_device(target)
    }
}

/// What another partition of the disk holds, as far as firmware is concerned.
enum Holds {
    Fat(Box<OtherVolume>),
    /// Another file system, with an article. U-Boot reads ext4 and btrfs, and systemd-boot loads drivers for others.
    Other(&'static str),
    Nothing,
}

/// Allocation tables of other partitions may take so many bytes of memory: as a rule each takes a few kilobytes.
const MAX_TABLES: u64 = 32 << 20;

/// `left`: bytes of tables that may still be kept.
fn holds(target: &Target, partition: &Partition, left: &mut u64) -> Result<Holds> {
    let source = target.open_partition(partition)?;
    if !fat::is_fat(&source)? {
        if let Some(other) = disk::file_system(&source)? {
            return Ok(Holds::Other(other));
        }
        if !begins_as_fat(&source)? {
            return Ok(Holds::Nothing);
        }
    }
    // One that is damaged is no partition without files: that it cannot be opened is an error. Whether a firmware reads
    // what is read here from a backup, or as far as it is there, is not known.
    let volume = fat::Volume::open(source)?;
    *left = left
        .checked_sub(volume.table().memory())
        .ok_or_else(|| Error::rejected("there are more partitions than this program looks at"))?;
    let geometry = volume.geometry();
    if let Some(why) = &geometry.lost_boot_sector {
        return Err(Error::rejected(format!("its boot sector is damaged: {why}")));
    }
    if geometry.missing_bytes > 0 {
        return Err(Error::rejected(format!(
            "its file system is {} longer than the partition",
            size(geometry.missing_bytes)
        )));
    }
    Ok(Holds::Fat(Box::new(volume)))
}

/// Whether the first sector has the jump and the signature of a boot sector.
fn begins_as_fat(source: &dyn ReadAt) -> Result<bool> {
    if source.size() < 512 {
        return Ok(false);
    }
    let sector = read_vec(source, 0, 512)?;
    Ok(matches!(sector[0], 0xEB | 0xE9) && sector[510..] == [0x55, 0xAA])
}

fn is_block_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device())
}

fn is_device(target: &Target) -> bool {
    matches!(target.shape, Shape::WholeDisk | Shape::PartitionDevice)
}
