//! The disk a command works on, and the EFI variables that go with it.

use super::variables::{MachineTree, VariablesChoice};
use crate::bootpath::{BootOptions, Volume};
use crate::disk::{Shape, Target};
use crate::efivars::EfiVars;
use crate::esp::Context;
use crate::pe::Arch;
use std::path::PathBuf;
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
}

impl DiskRequest {
    /// The only ESP of this disk, partition or image file, with the EFI variables of this machine if the disk is in it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), partition: None, efivars: VariablesChoice::default() }
    }

    /// The EFI variables that go with the disk.
    #[must_use]
    pub fn efivars(&self, target: &Target) -> EfiVars {
        let machine = is_device(target).then(|| MachineTree::with_device(&self.path));
        self.efivars.locate(machine.as_ref(), &[target])
    }

    /// What lies around the ESP: the firmware's boot options, the other volumes of the disk. `arch` is the one that was asked
    /// for.
    #[must_use]
    pub fn context(&self, target: &Target, vars: &EfiVars, arch: Option<Arch>) -> Arc<Context> {
        let mut context = Context::new(BootOptions::read(vars));
        context.is_uboot = vars.is_uboot();
        context.arch = arch;
        let Some(partition) = &target.partition else { return Arc::new(context) };
        let sector = u64::from(target.sector_size.max(1));
        context.add_this(Volume {
            name: format!("partition {}", partition.number),
            partuuid: Some(partition.partuuid),
            place: Some((partition.number, partition.extent.offset / sector, partition.extent.bytes / sector)),
        });
        Arc::new(context)
    }

    /// Whether the EFI variables are those of the machine that boots from the disk: they were named, or the disk is in
    /// this machine.
    #[must_use]
    pub fn variables_are_the_boards(&self, target: &Target) -> bool {
        self.efivars.is_named() || is_device(target)
    }
}

fn is_device(target: &Target) -> bool {
    matches!(target.shape, Shape::WholeDisk | Shape::PartitionDevice)
}
