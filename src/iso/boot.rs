//! The EFI boot images of an ISO: FAT volumes that firmware boots from.
//!
//! El Torito's sector count is a hint for BIOSes and has 16 bits: it cannot say how long a FAT image of 100 MB is, and
//! xorriso writes 0 when the image is an appended partition. The MBR and the FAT's own boot sector know.

use super::{Iso, iso_error};
use crate::block::{Extent, ReadAt};
use crate::{Context, Error, Result};

/// Bytes of a boot catalog that are looked at: the reader gives up after 1024 entries of 32 bytes.
const CATALOG: usize = 34 * 1024;
/// The MBR partition type of an EFI System Partition (UEFI 2.10 section 5.2.2).
const MBR_TYPE_ESP: u8 = 0xEF;
/// MBR sectors are 512 bytes on an ISO.
const SECTOR: u64 = 512;
/// The tree file that held everything in the ISOs of Talos 1.5 to 1.8.
const TREE_IMAGE: &str = "efiboot.img";

/// Who names a boot image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EfiImageOrigin {
    /// The El Torito boot catalog: what firmware boots from an optical medium.
    ElTorito,
    /// An MBR partition of type 0xEF: what firmware boots from a USB stick.
    AppendedPartition,
    /// A file in the ISO's tree, by name.
    TreeFile(String),
}

/// A FAT image in an ISO.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EfiImage {
    /// Who names it; the first of several.
    pub origin: EfiImageOrigin,
    /// Where it lies in the source of the ISO.
    pub extent: Extent,
}

impl<S: ReadAt> Iso<S> {
    /// The FAT images in the ISO, each place once: those of the El Torito catalog's EFI entries (platform 0xEF), those
    /// of the MBR's 0xEF partitions, and a tree file `efiboot.img`. All lie inside the source.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when the catalog is malformed, nothing tells how long an image is, or an image lies
    /// past the end of the source.
    pub fn efi_images(&mut self) -> Result<Vec<EfiImage>> {
        self.collect_efi_images().while_doing(|| "looking for EFI boot images in the ISO")
    }

    fn collect_efi_images(&mut self) -> Result<Vec<EfiImage>> {
        let tree = self.tree_image()?;
        self.fs.device().new_operation();
        let partitions = self.mbr_esps()?;
        let mut images: Vec<EfiImage> = Vec::new();
        let mut add = |origin, extent: Extent| {
            if images.iter().all(|i| i.extent.offset != extent.offset) {
                images.push(EfiImage { origin, extent });
            }
        };
        for (offset, sectors) in self.catalog()? {
            let same_start = partitions.iter().chain(tree.as_ref()).find(|e| e.offset == offset);
            let bytes = match same_start {
                Some(extent) => extent.bytes,
                None => self.boot_image_bytes(offset, sectors)?,
            };
            add(EfiImageOrigin::ElTorito, Extent { offset, bytes });
        }
        for extent in partitions {
            add(EfiImageOrigin::AppendedPartition, extent);
        }
        if let Some(extent) = tree {
            add(EfiImageOrigin::TreeFile(TREE_IMAGE.to_owned()), extent);
        }
        for image in &images {
            self.check_inside(image.extent, "the EFI boot image")?;
        }
        Ok(images)
    }

    fn tree_image(&mut self) -> Result<Option<Extent>> {
        let Some(node) = self.find(TREE_IMAGE)?.filter(|node| !node.is_dir) else { return Ok(None) };
        match node.extents[..] {
            [extent] => Ok(Some(extent)),
            _ => Err(Error::rejected(format!("{} lies in {} pieces, one expected", node.name, node.extents.len()))),
        }
    }

    /// Start in bytes and sector count of the bootable EFI entries.
    fn catalog(&mut self) -> Result<Vec<(u64, u16)>> {
        let size = self.size();
        let mut buf = vec![0; CATALOG];
        let catalog = self.fs.boot_catalog(&mut buf).map_err(|e| iso_error(e, size))?;
        let Some(catalog) = catalog else { return Ok(Vec::new()) };
        let efi = catalog.entries().filter(|e| e.is_bootable() && e.platform() == hadris_iso::Platform::Efi);
        Ok(efi.map(|e| (self.fs.boot_image(&e).offset(), e.sector_count())).collect())
    }

    /// The 0xEF entries of the MBR's partition table; empty without an MBR.
    fn mbr_esps(&mut self) -> Result<Vec<Extent>> {
        let mbr = self.first_sector(0)?;
        if mbr[510..] != [0x55, 0xAA] {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in mbr[446..510].chunks_exact(16) {
            let extent =
                Extent { offset: u64::from(u32_at(entry, 8)) * SECTOR, bytes: u64::from(u32_at(entry, 12)) * SECTOR };
            if entry[4] == MBR_TYPE_ESP && extent.bytes > 0 {
                found.push(extent);
            }
        }
        Ok(found)
    }

    /// How long a boot image is that neither the MBR nor the tree knows.
    fn boot_image_bytes(&mut self, offset: u64, sectors: u16) -> Result<u64> {
        self.check_inside(Extent { offset, bytes: SECTOR }, "the EFI boot image")?;
        if let Some(bytes) = fat_bytes(&self.first_sector(offset)?) {
            return Ok(bytes);
        }
        if sectors > 1 {
            return Ok(u64::from(sectors) * SECTOR);
        }
        Err(Error::rejected(format!(
            "the EFI boot image at byte {offset} has {sectors} sectors in the boot catalog, no MBR partition and no \
                FAT \
             boot sector: nothing tells how long it is"
        )))
    }

    fn first_sector(&mut self, offset: u64) -> Result<[u8; SECTOR as usize]> {
        let size = self.size();
        let mut sector = [0; SECTOR as usize];
        self.fs.read_raw(offset, &mut sector).map_err(|e| iso_error(e, size))?;
        Ok(sector)
    }
}

/// The length in bytes of the FAT volume that begins with `sector` (its first 512 bytes); `None` when that is no FAT
/// boot sector. (Microsoft FAT specification, section 3: jump, BytsPerSec, SecPerClus, NumFATs, TotSec16, TotSec32.)
fn fat_bytes(sector: &[u8; 512]) -> Option<u64> {
    let u16_at = |at: usize| u16::from_le_bytes([sector[at], sector[at + 1]]);
    let jump = sector[0] == 0xE9 || (sector[0] == 0xEB && sector[2] == 0x90);
    let bytes_per_sector = u16_at(11);
    let total = match u16_at(19) {
        0 => u32_at(sector, 32),
        n => u32::from(n),
    };
    let plausible = jump
        && sector[510..] == [0x55, 0xAA]
        && matches!(bytes_per_sector, 512 | 1024 | 2048 | 4096)
        && sector[13].is_power_of_two()
        && matches!(sector[16], 1 | 2)
        && u16_at(14) != 0
        && total != 0;
    plausible.then(|| u64::from(bytes_per_sector) * u64::from(total))
}

/// Little-endian; the caller's slice is long enough.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut le = [0; 4];
    le.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(le)
}
