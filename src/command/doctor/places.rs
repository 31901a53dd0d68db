//! Which ESPs `doctor` looks at.

use super::super::copy::unpack;
use super::super::{DiskRequest, MachineTree, Ui};
use super::Doctor;
use crate::Result;
use crate::block::FileSource;
use crate::disk::{PartitionTable, Target, esps, is_esp_cut_off};
use crate::doctor::{Finding, Machine, Severity};
use crate::efivars::EfiVars;
use crate::packed::Unpacked;
use crate::units::count;
use std::path::Path;
use std::sync::Arc;

/// An ESP that is to be looked at.
pub(super) struct EspCandidate {
    pub(super) request: DiskRequest,
    /// The disk image, if it is packed.
    unpacked: Option<Unpacked>,
}

impl EspCandidate {
    pub(super) fn find(&self) -> Result<Target> {
        let DiskRequest { path, partition, .. } = &self.request;
        match &self.unpacked {
            Some(image) => Target::find_unpacked(path, image, partition.as_deref()),
            None => Target::find(path, partition.as_deref()),
        }
    }
}

impl Doctor {
    /// Every ESP that is to be looked at, and the disks of this machine that may have one and cannot be looked at.
    pub(super) fn requests(
        &self,
        machine: &Machine,
        findings: &mut Vec<Finding>,
        ui: &dyn Ui,
    ) -> Result<(Vec<EspCandidate>, Vec<String>)> {
        if !self.disks.is_empty() {
            let mut all = Vec::new();
            for disk in &self.disks {
                let found = self.esps_of(disk, ui)?;
                if found.is_empty() {
                    findings.push(no_esp(disk));
                }
                all.extend(found);
            }
            return Ok((all, Vec::new()));
        }
        let (disks, missing) = machine.disks();
        let mut unread = Vec::new();
        for name in missing {
            findings.push(
                Finding::new(
                    Severity::Warning,
                    "disk-without-node",
                    format!("the kernel has the disk {name}, but there is no node for it in /dev"),
                    "a container only has the devices that were passed to it: the ESP may be on this disk",
                )
                .then("give the container all of the machine's /dev (in a pod: a hostPath, privileged)"),
            );
            unread.push(name);
        }
        let mut all = Vec::new();
        for disk in &disks {
            match self.esps_of(disk, ui) {
                Ok(found) => all.extend(found),
                // Most disks of a machine have no ESP, and some no medium.
                Err(e) if e.code().is_bad_content() => {}
                Err(e) => {
                    unread.push(disk.display().to_string());
                    let meaning = "whether it has an ESP is not known: no medium, or this process may not read it";
                    let finding = Finding::new(Severity::Warning, "disk-unreadable", e.to_string(), meaning);
                    findings.push(finding.then(e.advice().unwrap_or("ignore it if it is an empty card reader")));
                }
            }
        }
        if all.is_empty() {
            let looked = match disks.len() {
                0 => "no disk is visible here".to_owned(),
                n => format!("no EFI System Partition on {}", count(n, "disk")),
            };
            findings.push(
                Finding::new(
                    Severity::Warning,
                    "no-esp",
                    looked,
                    if unread.is_empty() {
                        "UEFI firmware has nothing to start from"
                    } else {
                        "there may be one where nothing could be read"
                    },
                )
                .then("name the disk or image: `bootsurgeon doctor DISK`"),
            );
        }
        Ok((all, unread))
    }

    /// The ESPs of a disk; the disk itself when it has no partition table.
    fn esps_of(&self, disk: &Path, ui: &dyn Ui) -> Result<Vec<EspCandidate>> {
        let unpacked = unpack(disk, ui)?;
        let request = |partition| EspCandidate {
            request: DiskRequest { partition, efivars: self.efivars.clone(), ..DiskRequest::new(disk) },
            unpacked: unpacked.clone(),
        };
        if self.partition.is_some() {
            return Ok(vec![request(self.partition.clone())]);
        }
        let source = match &unpacked {
            Some(image) => Arc::clone(image.source()),
            None => Arc::new(FileSource::open(disk)?),
        };
        let Some(table) = PartitionTable::read(&*source, source.device_sector_size())? else {
            // Not a partition table: a bare FAT volume, or an error that says what it is not.
            let place = request(None);
            place.find()?;
            return Ok(vec![place]);
        };
        let esps = esps(&table, &*source)?;
        if esps.is_empty() && is_esp_cut_off(&table) {
            request(None).find()?;
        }
        Ok(match esps.as_slice() {
            [_] => vec![request(None)],
            several => several.iter().map(|p| request(Some(p.number.to_string()))).collect(),
        })
    }

    /// The EFI variables of the board that these ESPs belong to.
    pub(super) fn variables(&self, is_this_machine: bool, places: &[EspCandidate]) -> EfiVars {
        let ours = || self.disks.iter().all(|d| FileSource::open(d).is_ok_and(|s| s.is_block_device()));
        let machine = (is_this_machine || ours()).then(|| MachineTree::at(&self.root));
        let targets: Vec<Target> = places.iter().filter_map(|place| place.find().ok()).collect();
        self.efivars.locate(machine.as_ref(), &targets.iter().collect::<Vec<_>>())
    }
}

fn no_esp(disk: &Path) -> Finding {
    Finding::new(
        Severity::Problem,
        "no-esp",
        "the disk has a partition table and no EFI System Partition",
        "UEFI firmware finds nothing to start here: it was installed for BIOS, or is a data disk, or another disk is \
         meant",
    )
    .then("`bootsurgeon doctor` without a disk looks at all of this machine")
    .of(&disk.display().to_string())
}

pub(super) fn name_of(request: &DiskRequest) -> String {
    let partition = request.partition.as_ref().map_or(String::new(), |p| format!(" partition {p}"));
    format!("{}{partition}", request.path.display())
}
