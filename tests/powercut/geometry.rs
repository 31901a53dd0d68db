//! The BIOS parameter block, read from Microsoft's FAT specification (fatgen103) alone: the checker shares no code with
//! what it judges.

use crate::frame::Frame;
use bootsurgeon::block::ReadAt;

/// The width of a FAT entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// Where everything lies; sectors are those of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    pub width: Width,
    pub sector: u64,
    pub cluster_sectors: u64,
    pub fat_start: u64,
    pub fat_sectors: u64,
    pub fats: u64,
    /// The only FAT in use when mirroring is off.
    pub active: Option<u64>,
    pub root_entries: u64,
    pub root_start: u64,
    /// FAT32 only.
    pub root_cluster: u32,
    pub data_start: u64,
    /// Data clusters; they are numbered from 2.
    pub clusters: u32,
    pub fsinfo: Option<u64>,
    pub backup_boot: Option<u64>,
    pub media: u8,
}

impl Geometry {
    pub fn read(frame: &Frame) -> Result<Self, String> {
        let mut b = [0; 512];
        frame.read_exact_at(&mut b, 0).map_err(|e| e.to_string())?;
        let u8_at = |o: usize| u64::from(b[o]);
        let u16_at = |o: usize| u64::from(u16::from_le_bytes([b[o], b[o + 1]]));
        let u32_at = |o: usize| u64::from(u32::from_le_bytes([b[o], b[o + 1], b[o + 2], b[o + 3]]));
        if b[510..] != [0x55, 0xAA] {
            return Err("no 55 AA at 510".into());
        }
        let (sector, cluster_sectors, reserved) = (u16_at(11), u8_at(13), u16_at(14));
        if ![512, 1024, 2048, 4096].contains(&sector) || sector != frame.sector_size() as u64 {
            return Err(format!("{sector} bytes per sector"));
        }
        if !cluster_sectors.is_power_of_two() || reserved == 0 {
            return Err("sectors per cluster or reserved sectors".into());
        }
        let (fats, root_entries) = (u8_at(16), u16_at(17));
        let total = if u16_at(19) != 0 { u16_at(19) } else { u32_at(32) };
        let is_fat32 = root_entries == 0 && u16_at(22) == 0;
        let fat_sectors = if is_fat32 { u32_at(36) } else { u16_at(22) };
        let root_sectors = (root_entries * 32).div_ceil(sector);
        let root_start = reserved + fats * fat_sectors;
        let data_start = root_start + root_sectors;
        if fats == 0 || fat_sectors == 0 || total > frame.sector_count() || data_start >= total {
            return Err("FATs or sectors in all".into());
        }
        let clusters = (total - data_start) / cluster_sectors;
        let width = match clusters {
            _ if is_fat32 => Width::Fat32,
            0..4085 => Width::Fat12,
            4085..65525 => Width::Fat16,
            _ => return Err("too many clusters for FAT16".into()),
        };
        let needed = match width {
            Width::Fat12 => ((clusters + 2) * 3).div_ceil(2),
            Width::Fat16 => (clusters + 2) * 2,
            Width::Fat32 => (clusters + 2) * 4,
        };
        if needed > fat_sectors * sector {
            return Err("a FAT too small for the clusters".into());
        }
        let active = (is_fat32 && b[40] & 0x80 != 0).then(|| u64::from(b[40] & 0x0F));
        if active.is_some_and(|a| a >= fats) {
            return Err("the active FAT does not exist".into());
        }
        let reserved_sector = |o: usize| Some(u16_at(o)).filter(|s| is_fat32 && (1..reserved).contains(s));
        Ok(Self {
            width,
            sector,
            cluster_sectors,
            fat_start: reserved,
            fat_sectors,
            fats,
            active,
            root_entries,
            root_start,
            root_cluster: if is_fat32 { u32_at(44) as u32 } else { 0 },
            data_start,
            clusters: clusters as u32,
            fsinfo: reserved_sector(48),
            backup_boot: reserved_sector(50),
            media: b[21],
        })
    }

    pub fn cluster_sector(&self, cluster: u32) -> u64 {
        self.data_start + u64::from(cluster - 2) * self.cluster_sectors
    }

    /// The cluster of a sector of the data area.
    pub fn cluster_of(&self, sector: u64) -> Option<u32> {
        let n = sector.checked_sub(self.data_start)? / self.cluster_sectors;
        u32::try_from(n + 2).ok().filter(|c| *c <= self.last())
    }

    /// Whether no FAT in use gives this cluster to anybody.
    pub fn is_free(&self, frame: &Frame, cluster: u32) -> bool {
        let live = (0..self.fats).filter(|fat| self.active.is_none_or(|a| a == *fat));
        { live }.all(|fat| self.entry(frame, fat, cluster) & self.mask() == 0)
    }

    pub fn cluster_bytes(&self) -> u64 {
        self.cluster_sectors * self.sector
    }

    /// The largest cluster number.
    pub fn last(&self) -> u32 {
        self.clusters + 1
    }

    pub fn mask(&self) -> u32 {
        match self.width {
            Width::Fat12 => 0xFFF,
            Width::Fat16 => 0xFFFF,
            Width::Fat32 => 0x0FFF_FFFF,
        }
    }

    /// The mark of a bad cluster; greater values end a chain.
    pub fn bad(&self) -> u32 {
        self.mask() & !8
    }

    /// The entries that have a byte in sector `n` of a FAT.
    pub fn entries_in(&self, n: u64) -> std::ops::Range<u32> {
        let (from, to) = (n * self.sector, (n + 1) * self.sector);
        let (first, end) = match self.width {
            Width::Fat12 => ((from * 2 / 3).saturating_sub(1), (to * 2).div_ceil(3)),
            Width::Fat16 => (from / 2, to / 2),
            Width::Fat32 => (from / 4, to / 4),
        };
        let all = u64::from(self.clusters) + 2;
        first.min(all) as u32..end.min(all) as u32
    }

    /// One raw entry of one FAT: of FAT32 all 32 bits.
    pub fn entry(&self, frame: &Frame, fat: u64, cluster: u32) -> u32 {
        let start = (self.fat_start + fat * self.fat_sectors) * self.sector;
        let byte = |at: u64| {
            let at = start + at;
            u32::from(frame.get(at / self.sector).bytes[(at % self.sector) as usize])
        };
        let c = u64::from(cluster);
        match self.width {
            Width::Fat12 => {
                let at = c * 3 / 2;
                let pair = byte(at) | byte(at + 1) << 8;
                if c.is_multiple_of(2) { pair & 0xFFF } else { pair >> 4 }
            }
            Width::Fat16 => byte(c * 2) | byte(c * 2 + 1) << 8,
            Width::Fat32 => (0..4).map(|i| byte(c * 4 + i) << (8 * i)).sum(),
        }
    }
}
