//! The BIOS parameter block (BPB): where everything on the volume lies.

use crate::block::{ReadAt, read_vec};
use crate::units::{exact, size};
use crate::{Error, Result};
use serde::Serialize;

/// The width of the entries of the allocation table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FatKind {
    /// 12-bit entries, fixed root directory.
    Fat12,
    /// 16-bit entries, fixed root directory.
    Fat16,
    /// 28 of 32 bits, root directory in clusters.
    Fat32,
}

impl FatKind {
    /// `fat12`, `fat16` or `fat32`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fat12 => "fat12",
            Self::Fat16 => "fat16",
            Self::Fat32 => "fat32",
        }
    }

    /// The lowest value that means "last cluster of its chain".
    pub(crate) const fn end_mark(self) -> u32 {
        match self {
            Self::Fat12 => 0xFF8,
            Self::Fat16 => 0xFFF8,
            Self::Fat32 => 0x0FFF_FFF8,
        }
    }

    /// All bits of an entry.
    pub(crate) const fn mask(self) -> u32 {
        match self {
            Self::Fat12 => 0xFFF,
            Self::Fat16 => 0xFFFF,
            Self::Fat32 => 0x0FFF_FFFF,
        }
    }

    /// The value that marks a defective cluster.
    pub(crate) const fn bad_mark(self) -> u32 {
        self.end_mark() - 1
    }
}

/// Where the root directory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// FAT12 and FAT16: a fixed area before the data.
    Fixed {
        /// Byte offset in the volume.
        offset: u64,
        /// Length in bytes.
        bytes: u64,
    },
    /// FAT32: a chain like any directory.
    Chain(u32),
}

/// The shape of a volume. Every offset is in bytes from the start of the volume, and every area lies inside it; where
/// the source is shorter than the volume, the tables are there all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// FAT12, FAT16 or FAT32.
    pub kind: FatKind,
    /// Bytes per sector as the BPB says: 512 to 4096.
    pub sector_bytes: u32,
    /// Bytes per cluster.
    pub cluster_bytes: u32,
    /// Start of the first copy of the allocation table.
    pub fat_offset: u64,
    /// Length of one copy.
    pub fat_bytes: u64,
    /// Number of copies, 1 or 2 (the format allows more; nothing makes them).
    pub fats: u8,
    /// The copy in use.
    pub active_fat: u8,
    /// Whether all copies are kept equal.
    pub mirrored: bool,
    /// The root directory.
    pub root: Root,
    /// Start of cluster 2.
    pub data_offset: u64,
    /// Number of data clusters; valid cluster numbers are `2..clusters + 2`.
    pub clusters: u32,
    /// The FSInfo sector (FAT32).
    pub fsinfo_offset: Option<u64>,
    /// The copy of the boot sector (FAT32).
    pub backup_boot_offset: Option<u64>,
    /// Total length of the volume as the BPB says.
    pub total_bytes: u64,
    /// Bytes at the end of the volume that are not there: the partition or image is shorter than its file system. The
    /// tables and the first cluster always are.
    pub missing_bytes: u64,
    /// Clusters at the end of the data area for which the allocation table has no entries. They are not among
    /// `clusters`, as for Linux (`fat_fill_super`, fs/fat/inode.c).
    pub unnumbered_clusters: u32,
    /// Why the boot sector is no boot sector, where its backup was read in its place.
    pub lost_boot_sector: Option<String>,
    /// Volume serial number, if the extended boot signature is there.
    pub serial: Option<u32>,
    /// Set in the BPB by Linux and Windows while mounted: byte 0x41 (FAT32) or 0x25, bit 0.
    pub dirty_in_bpb: bool,
    /// What the boot sector calls the volume in words, if it says one of the three. Readers go by the numbers.
    pub called: Option<FatKind>,
}

fn le16(b: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([b[at], b[at + 1]]))
}

fn le32(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// `FSI_LeadSig` and `FSI_StrucSig`.
pub(super) const FSINFO_LEAD: u32 = 0x4161_5252;
pub(super) const FSINFO_STRUCT: u32 = 0x6141_7272;

/// Whether 512 bytes are an FSInfo sector, by its three signatures.
pub(super) fn is_fsinfo(raw: &[u8]) -> bool {
    le32(raw, 0) == FSINFO_LEAD && le32(raw, 484) == FSINFO_STRUCT && raw[510..512] == [0x55, 0xAA]
}

/// Whether the source begins with a boot sector that [`Geometry::read`] would take for FAT.
///
/// # Errors
/// What the source reports.
pub fn is_fat(source: &(impl ReadAt + ?Sized)) -> Result<bool> {
    match Geometry::read(source) {
        Err(e) if e.code().is_bad_content() => Ok(false),
        geometry => geometry.map(|_| true),
    }
}

/// FAT32 keeps the backup of its boot sector here, counted in sectors (`fatgen103`: "no value other than 6 is
/// recommended").
pub(super) const BACKUP_SECTOR: u64 = 6;

impl Geometry {
    /// Reads and checks the boot sector, or where it is lost its backup.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when it is not FAT or its areas do not fit together; what the source reports.
    pub fn read(source: &(impl ReadAt + ?Sized)) -> Result<Self> {
        if source.size() < 512 {
            return Err(Error::rejected(format!("not a FAT volume: only {} long", size(source.size()))));
        }
        let first = read_vec(source, 0, 512)?;
        match Self::parse(&first, source.size()) {
            Err(lost) => match Self::of_backup(source, &first)? {
                Some(geometry) => Ok(Self { lost_boot_sector: Some(lost.message().to_owned()), ..geometry }),
                None => Err(lost),
            },
            geometry => geometry,
        }
    }

    /// What the backup of a lost boot sector says, where enough else is left of the volume: FSInfo, and an allocation
    /// table whose copies begin with the media byte. Other file systems and partition tables overwrite one of them, or
    /// leave their mark in the first sector.
    fn of_backup(source: &(impl ReadAt + ?Sized), first: &[u8]) -> Result<Option<Self>> {
        let is_table = first[510..] == [0x55, 0xAA]
            && first[446..510].chunks(16).all(|entry| entry[0] & 0x7F == 0)
            && first[446..510].chunks(16).any(|entry| entry[4] != 0);
        if is_table {
            return Ok(None);
        }
        for sector in [512u64, 1024, 2048, 4096] {
            let at = BACKUP_SECTOR * sector;
            if at + sector > source.size() {
                break;
            }
            let backup = read_vec(source, at, 512)?;
            let Some(geometry) = is_boot_sector(&backup).then(|| Self::parse(&backup, source.size()).ok()).flatten()
            else {
                continue;
            };
            let of_itself = u64::from(geometry.sector_bytes) == sector && geometry.backup_boot_offset == Some(at);
            let Some(fsinfo) = geometry.fsinfo_offset.filter(|_| of_itself) else { continue };
            if !is_fsinfo(&read_vec(source, fsinfo, 512)?) {
                continue;
            }
            let mut copies = 0..geometry.fats;
            let begins =
                |n| Ok::<_, Error>(read_vec(source, geometry.fat_copy_offset(n), 3)? == [backup[21], 0xFF, 0xFF]);
            if copies.try_fold(true, |all, n| Ok::<_, Error>(all && begins(n)?))? {
                return Ok(Some(geometry));
            }
        }
        Ok(None)
    }

    pub(super) fn parse(b: &[u8], available: u64) -> Result<Self> {
        let bad = |at: u64, why: String| Err(Error::malformed("FAT boot sector", at, why));
        if b[510..512] != [0x55, 0xAA] {
            return bad(510, "no 0x55 0xAA signature".into());
        }
        if !(b[0] == 0xEB && b[2] == 0x90 || b[0] == 0xE9) {
            return bad(0, "no jump instruction".into());
        }
        let sector_bytes = le16(b, 11);
        if ![512, 1024, 2048, 4096].contains(&sector_bytes) {
            return bad(11, format!("{sector_bytes} bytes per sector"));
        }
        let sectors_per_cluster = u32::from(b[13]);
        if !sectors_per_cluster.is_power_of_two() {
            return bad(13, format!("{sectors_per_cluster} sectors per cluster"));
        }
        let cluster_bytes = sector_bytes * sectors_per_cluster;
        if cluster_bytes > 256 * 1024 {
            return bad(13, format!("clusters of {cluster_bytes} bytes"));
        }
        let reserved = le16(b, 14);
        let fats = b[16];
        let root_entries = le16(b, 17);
        let total_16 = le16(b, 19);
        let fat_16 = le16(b, 22);
        let total_sectors = if total_16 != 0 { total_16 } else { le32(b, 32) };
        // A volume whose root entry count and 16-bit FAT size are both 0 is FAT32 whatever its cluster count: Talos
        // makes such volumes with fewer than 65,525 clusters (`mkfs.vfat -F 32` on 100 MiB).
        let fat32 = fat_16 == 0 && root_entries == 0;
        // Only FAT32 has no 16-bit FAT size, and FAT32 has no fixed root directory. Readers that go by one or the other
        // would see two volumes.
        if fat_16 == 0 && root_entries != 0 {
            return bad(
                17,
                format!("a fixed root directory of {root_entries} entries, and no FAT size for FAT12 or FAT16"),
            );
        }
        let fat_sectors = if fat_16 != 0 { fat_16 } else { le32(b, 36) };
        if reserved == 0 {
            return bad(14, "no reserved sectors".into());
        }
        if fats == 0 || fats > 2 {
            return bad(16, format!("{fats} copies of the allocation table"));
        }
        if fat_sectors == 0 {
            return bad(if fat32 { 36 } else { 22 }, "allocation table of 0 sectors".into());
        }
        let sector = u64::from(sector_bytes);
        let fat_bytes = u64::from(fat_sectors) * sector;
        let fat_offset = u64::from(reserved) * sector;
        let root_offset = fat_offset + fat_bytes * u64::from(fats);
        let root_bytes = (u64::from(root_entries) * 32).next_multiple_of(sector);
        let data_offset = root_offset + root_bytes;
        let total_bytes = u64::from(total_sectors) * sector;
        if data_offset + u64::from(cluster_bytes) > total_bytes {
            return bad(32, format!("{total_sectors} sectors do not hold the tables, which end at byte {data_offset}"));
        }
        if data_offset + u64::from(cluster_bytes) > available {
            return bad(
                32,
                format!(
                    "the volume is {} long and its tables {}, but only {} are there",
                    exact(total_bytes),
                    exact(data_offset),
                    exact(available)
                ),
            );
        }
        let clusters = (total_bytes - data_offset) / u64::from(cluster_bytes);
        let kind = if fat32 {
            FatKind::Fat32
        } else if clusters < 4085 {
            FatKind::Fat12
        } else {
            FatKind::Fat16
        };
        let entry_bits = match kind {
            FatKind::Fat12 => 12,
            FatKind::Fat16 => 16,
            FatKind::Fat32 => 32,
        };
        let limit = u64::from(kind.bad_mark()) - 2;
        if clusters > limit {
            return bad(32, format!("{clusters} clusters are more than {} can number", kind.name()));
        }
        let entries = fat_bytes * 8 / entry_bits;
        if entries < 3 {
            return bad(22, format!("the allocation table has no room for {clusters} clusters"));
        }
        let unnumbered_clusters = clusters.saturating_sub(entries - 2) as u32;
        let clusters = clusters as u32 - unnumbered_clusters;

        let (mut active_fat, mut mirrored) = (0, true);
        let (mut fsinfo_offset, mut backup_boot_offset) = (None, None);
        let root = if fat32 {
            let flags = le16(b, 40);
            if flags & 0x80 != 0 {
                mirrored = false;
                active_fat = (flags & 0xF) as u8;
                if active_fat >= fats {
                    return bad(40, format!("copy {active_fat} of the allocation table is active, there are {fats}"));
                }
            }
            if le16(b, 42) != 0 {
                return bad(42, format!("unknown FAT32 version {:#06x}", le16(b, 42)));
            }
            let first = le32(b, 44);
            if first < 2 || first >= clusters + 2 {
                return bad(44, format!("root directory in cluster {first}, there are {clusters}"));
            }
            let inside = |n: u32| (n != 0 && n != 0xFFFF && n < reserved).then_some(u64::from(n) * sector);
            fsinfo_offset = inside(le16(b, 48));
            backup_boot_offset = inside(le16(b, 50));
            Root::Chain(first)
        } else {
            if root_entries == 0 {
                return bad(17, "no room for a root directory".into());
            }
            Root::Fixed { offset: root_offset, bytes: u64::from(root_entries) * 32 }
        };
        let extended = if fat32 { 64 } else { 36 };
        Ok(Self {
            kind,
            sector_bytes,
            cluster_bytes,
            fat_offset,
            fat_bytes,
            fats,
            active_fat,
            mirrored,
            root,
            data_offset,
            clusters,
            fsinfo_offset,
            backup_boot_offset,
            total_bytes,
            missing_bytes: total_bytes.saturating_sub(available),
            unnumbered_clusters,
            lost_boot_sector: None,
            serial: (b[extended + 2] == 0x29).then(|| le32(b, extended + 3)),
            dirty_in_bpb: b[extended + 1] & 1 != 0,
            called: match &b[extended + 18..extended + 26] {
                b"FAT12   " => Some(FatKind::Fat12),
                b"FAT16   " => Some(FatKind::Fat16),
                b"FAT32   " => Some(FatKind::Fat32),
                _ => None,
            },
        })
    }

    /// Bytes of the volume that are there.
    #[must_use]
    pub fn present_bytes(&self) -> u64 {
        self.total_bytes - self.missing_bytes
    }

    /// Byte offset of a cluster, which must be valid.
    #[must_use]
    pub fn cluster_offset(&self, cluster: u32) -> u64 {
        self.data_offset + u64::from(cluster.saturating_sub(2)) * u64::from(self.cluster_bytes)
    }

    /// Whether a cluster of this number exists.
    #[must_use]
    pub fn is_valid(&self, cluster: u32) -> bool {
        (2..self.clusters + 2).contains(&cluster)
    }

    /// How many clusters `bytes` bytes need.
    #[must_use]
    pub fn clusters_for(&self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.cluster_bytes))
    }

    /// Start of copy `n` of the allocation table.
    #[must_use]
    pub fn fat_copy_offset(&self, n: u8) -> u64 {
        self.fat_offset + u64::from(n) * self.fat_bytes
    }

    /// The copies that are to be kept equal to the active one: all, or the active one alone when mirroring is off.
    pub fn live_copies(&self) -> impl Iterator<Item = u8> + use<> {
        let (active, mirrored) = (self.active_fat, self.mirrored);
        // The active copy comes first: it is the one everybody reads.
        std::iter::once(active).chain((0..self.fats).filter(move |n| mirrored && *n != active))
    }
}

/// Whether these 512 bytes are a boot sector of FAT, though perhaps one with wrong numbers in it. NTFS and exFAT,
/// whose boot sectors look alike, have no copies of an allocation table here.
#[must_use]
pub fn is_boot_sector(sector: &[u8]) -> bool {
    let Some(b) = sector.get(..512) else { return false };
    let sector_bytes = u16::from_le_bytes([b[11], b[12]]);
    b[510..] == [0x55, 0xAA]
        && (b[0] == 0xEB && b[2] == 0x90 || b[0] == 0xE9)
        && [512, 1024, 2048, 4096].contains(&sector_bytes)
        && b[13].is_power_of_two()
        && b[14..16] != [0, 0]
        && matches!(b[16], 1 | 2)
        && is_media(b[21])
}

/// Values of the media byte (`fatgen103`, BPB_Media).
fn is_media(byte: u8) -> bool {
    byte == 0xF0 || byte >= 0xF8
}
