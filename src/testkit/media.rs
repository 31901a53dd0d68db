//! The media of the demonstration: a disk like an upgraded node's, and a Secure Boot ISO.

use super::signing::SigningKey;
use crate::block::{Memory, WriteAt};
use crate::disk::Target;
use crate::fat::{Editor, Stamp};
use crate::{Context, Error, Result};
use hadris_fs::{Content, Node, Tree};
use hadris_iso::{BootEntry, ElTorito, Hybrid, IsoId, IsoLevel, IsoOptions};
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;
/// Length of the disk in bytes. A file with holes: what is not written takes no room.
const DISK: u64 = 2048 * MIB;
/// Clusters of the ESP in bytes.
const CLUSTER: u32 = 4096;
/// The partitions of a node whose disk began as dual-boot: BIOS and BOOT have gone and left holes in the table. Slot,
/// name, start and length in MiB.
const PARTITIONS: [(u32, &str, u64, u64); 4] =
    [(1, "EFI", 1, 1101), (4, "META", 1103, 1), (5, "STATE", 1104, 100), (6, "EPHEMERAL", 1204, 843)];
/// Free room in the FAT image of the ISO, in bytes.
const ROOM: u64 = 2 * MIB;

/// Files by path, `EFI/BOOT/BOOTAA64.EFI`.
pub type Files = Vec<(String, Vec<u8>)>;

/// What is on every medium that boots: loader, its settings, the keys it would enrol.
pub fn boot_files(key: &SigningKey) -> Result<Files> {
    Ok(vec![
        (format!("EFI/BOOT/{}", super::talos::ARCH.removable_loader()), super::talos::loader(key)?),
        ("loader/loader.conf".into(), b"timeout 10\n".to_vec()),
        ("loader/keys/auto/db.auth".into(), super::talos::db_auth(key)?),
    ])
}

/// A whole disk: GPT, partitions with something in them, and an ESP with `files`.
pub fn disk(path: &Path, files: &Files, stamp: Stamp) -> Result<()> {
    let make = || -> Result<()> {
        let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.set_len(DISK)?;
        table(&mut file)?;
        for (slot, name, start, length) in PARTITIONS {
            let mut part = Portion::new(&file, start * MIB, length * MIB);
            if slot == 1 {
                let options = fatfs::FormatVolumeOptions::new()
                    .fat_type(fatfs::FatType::Fat32)
                    .bytes_per_cluster(CLUSTER)
                    .volume_label(*b"EFI        ");
                fatfs::format_volume(&mut part, options)?;
            } else {
                part.write_all(&super::talos::noise(u64::from(slot), 64 * 1024))
                    .while_doing(|| format!("filling {name}"))?;
            }
        }
        let esp = Target::find(path, None)?.open_surgery()?;
        populate(esp.medium(), files, stamp)
    };
    make().while_doing(|| format!("making the disk {}", path.display()))
}

fn table(file: &mut File) -> Result<()> {
    let wrong = |e: &dyn std::fmt::Display| Error::io(format!("writing a partition table: {e}"));
    let last = u32::try_from(DISK / SECTOR - 1).unwrap_or(u32::MAX);
    gpt::mbr::ProtectiveMBR::with_lb_size(last).overwrite_lba0(file).map_err(|e| wrong(&e))?;
    let config = gpt::GptConfig::new().writable(true).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
    let mut table = config.create_from_device(file, None).map_err(|e| wrong(&e))?;
    for (slot, name, start, length) in PARTITIONS {
        let kind = if slot == 1 { gpt::partition_types::EFI } else { gpt::partition_types::LINUX_FS };
        table
            .add_partition_at(name, slot, start * MIB / SECTOR, length * MIB / SECTOR, kind, 0)
            .map_err(|e| wrong(&e))?;
    }
    table.write().map(drop).map_err(|e| wrong(&e))
}

/// Puts files on a fresh FAT volume.
fn populate(medium: &dyn WriteAt, files: &Files, stamp: Stamp) -> Result<()> {
    let mut editor = Editor::open(medium)?;
    for (path, bytes) in files {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        editor.make_directories(directory, stamp)?;
        editor.make_file(directory, name, bytes, stamp).while_doing(|| format!("writing {path}"))?;
    }
    editor.write_fsinfo()?;
    editor.barrier()
}

/// A Secure Boot ISO: the files in its tree (ISO 9660 level 3 with Rock Ridge), and once more in a FAT image that is an
/// appended EFI system partition and what El Torito boots.
///
/// Three things of the ISOs that xorriso makes for Talos are missing, because the crate does not write them: the
/// appended partition is in a GPT, not in an MBR; the El Torito entry has a sector count; and there is no second set of
/// volume descriptors (`-partition_offset 16`). The ISOs in `fixtures/` have all three.
pub fn iso(files: &Files, stamp: Stamp) -> Result<Vec<u8>> {
    let make = || -> Result<Vec<u8>> {
        let wrong = |e: &dyn std::fmt::Display| Error::io(e.to_string());
        let mut tree = Tree::new();
        for (path, bytes) in files {
            tree.insert(path, Node::file(Content::bytes(bytes.clone()))).map_err(|e| wrong(&e))?;
        }
        let image = Content::bytes(fat_image(files, stamp)?);
        let options = IsoOptions::new()
            .with_id(IsoId::Volume, "TALOS_SB_ARM64")
            .with_level(IsoLevel::L3)
            .with_rock_ridge()
            .with_el_torito(ElTorito::new().with_entry(BootEntry::uefi_appended(0)))
            .with_hybrid(Hybrid::gpt().with_appended(hadris_iso::AppendedPartition::esp(image)));
        let mut iso = Vec::new();
        hadris_iso::sync::write(&mut iso, &tree, &options).map_err(|e| wrong(&e))?;
        Ok(iso)
    };
    make().while_doing(|| "making the ISO")
}

fn fat_image(files: &Files, stamp: Stamp) -> Result<Vec<u8>> {
    let content: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let mut image = Cursor::new(vec![0; (content + ROOM).next_multiple_of(MIB) as usize]);
    fatfs::format_volume(&mut image, fatfs::FormatVolumeOptions::new().volume_label(*b"EFI        "))?;
    let medium = Memory::new(image.into_inner());
    populate(&medium, files, stamp)?;
    Ok(medium.into_bytes())
}

/// A part of a file as a file of its own, for the fatfs crate.
pub struct Portion<'f> {
    file: &'f File,
    start: u64,
    bytes: u64,
    at: u64,
}

impl<'f> Portion<'f> {
    /// `bytes` bytes of `file`, from `start` on.
    pub fn new(file: &'f File, start: u64, bytes: u64) -> Self {
        Self { file, start, bytes, at: 0 }
    }

    /// So much of `wanted` lies in front of the end.
    fn part(&self, wanted: usize) -> usize {
        usize::try_from(self.bytes.saturating_sub(self.at)).unwrap_or(usize::MAX).min(wanted)
    }
}

impl Read for Portion<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let part = self.part(buf.len());
        let n = std::os::unix::fs::FileExt::read_at(self.file, &mut buf[..part], self.start + self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for Portion<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = std::os::unix::fs::FileExt::write_at(self.file, &buf[..self.part(buf.len())], self.start + self.at)?;
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Portion<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{TwinVerdict, choose, compare_twins, locate};
    use std::sync::Arc;

    #[test]
    fn the_iso_holds_the_uki_twice_as_talos_does() {
        let uki = crate::testkit::uki::Builder::new(crate::pe::Arch::Arm64)
            .section(".osrel", "ID=talos\nVERSION_ID=v1.12.4\n")
            .section(".linux", vec![1; 5000])
            .build();
        let files = vec![
            ("EFI/Linux/Talos-v1.12.4.efi".to_owned(), uki.clone()),
            ("loader/loader.conf".into(), b"timeout 10\n".to_vec()),
        ];
        let bytes = iso(&files, Stamp(1_771_000_000)).unwrap();
        let found = locate(Arc::new(bytes)).unwrap();
        let candidate = choose(&found, None).unwrap();
        assert_eq!(candidate.name.as_deref(), Some("Talos-v1.12.4.efi"));
        assert_eq!(crate::block::read_vec(&candidate.bytes, 0, uki.len()).unwrap(), uki);
        assert!(matches!(compare_twins(candidate).unwrap(), TwinVerdict::Same));
    }
}
