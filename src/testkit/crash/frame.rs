//! The bytes of a medium at one moment, as shared sectors: setting, undoing and comparing states costs a few pointers.

use crate::block::ReadAt;
use sha2::{Digest, Sha256};
use std::io;
use std::sync::Arc;

/// The bytes of one logical sector and a digest of them.
#[derive(Debug)]
pub struct SectorData {
    /// The first 16 bytes of the SHA-256 of `bytes`.
    pub id: u128,
    /// The bytes.
    pub bytes: Box<[u8]>,
}

/// A sector, shared by every state that contains it.
pub type Sector = Arc<SectorData>;

/// A sector holding `bytes`.
#[must_use]
pub fn sector(bytes: &[u8]) -> Sector {
    Arc::new(SectorData { id: digest(bytes), bytes: bytes.into() })
}

/// The first 16 bytes of the SHA-256 of `bytes`.
#[must_use]
pub fn digest(bytes: &[u8]) -> u128 {
    let mut head = [0; 16];
    head.copy_from_slice(&Sha256::digest(bytes)[..16]);
    u128::from_le_bytes(head)
}

/// What a medium holds. Sectors of zeros share one allocation, so a large and empty volume is small.
#[derive(Clone, Default)]
pub struct Frame {
    sector_size: usize,
    sectors: Vec<Sector>,
    key: u128,
}

impl Frame {
    /// A medium of `sector_size`-byte sectors holding `bytes`.
    ///
    /// # Panics
    /// When `bytes` are not whole sectors.
    #[must_use]
    pub fn new(bytes: &[u8], sector_size: usize) -> Self {
        assert!(bytes.len().is_multiple_of(sector_size), "an image of whole sectors");
        let blank = vec![0; sector_size];
        let zeros = sector(&blank);
        let share = |b: &[u8]| if b == blank { zeros.clone() } else { sector(b) };
        // The key says how a state differs from the first one; where it starts does not matter.
        Self { sector_size, sectors: bytes.chunks_exact(sector_size).map(share).collect(), key: 0 }
    }

    /// Bytes of a logical sector.
    #[must_use]
    pub fn sector_size(&self) -> usize {
        self.sector_size
    }

    /// Number of sectors.
    #[must_use]
    pub fn sector_count(&self) -> u64 {
        self.sectors.len() as u64
    }

    /// The nth sector.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn get(&self, n: u64) -> &Sector {
        &self.sectors[n as usize]
    }

    /// Replaces a sector and returns what was there.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn set(&mut self, n: u64, new: Sector) -> Sector {
        let place = &mut self.sectors[n as usize];
        if place.id != new.id {
            self.key = self.key.wrapping_sub(mix(n, place.id)).wrapping_add(mix(n, new.id));
        }
        std::mem::replace(place, new)
    }

    /// Equal for two states descending from one frame when they hold the same bytes (up to a collision of 128 bits).
    #[must_use]
    pub fn key(&self) -> u128 {
        self.key
    }

    /// As [`Self::key`], whatever these sectors hold. Each is named once.
    #[must_use]
    pub fn key_without(&self, sectors: impl Iterator<Item = u64>) -> u128 {
        sectors.fold(self.key, |key, n| key.wrapping_sub(mix(n, self.get(n).id)))
    }

    /// So many sectors from this one on, as a medium of their own.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn part(&self, first: u64, count: u64) -> Self {
        let sectors = self.sectors[first as usize..(first + count) as usize].to_vec();
        Self { sector_size: self.sector_size, sectors, key: 0 }
    }

    /// All bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.sectors.len() * self.sector_size);
        for s in &self.sectors {
            bytes.extend_from_slice(&s.bytes);
        }
        bytes
    }

    /// Writes the image to `file`, which is empty: sectors of zeros stay holes.
    ///
    /// # Errors
    /// What the file reports.
    pub fn write_sparse(&self, file: &std::fs::File) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        file.set_len(self.size())?;
        let zeros = digest(&vec![0; self.sector_size]);
        for (n, s) in self.sectors.iter().enumerate() {
            if s.id != zeros {
                file.write_all_at(&s.bytes, (n * self.sector_size) as u64)?;
            }
        }
        Ok(())
    }
}

impl ReadAt for Frame {
    fn size(&self) -> u64 {
        (self.sectors.len() * self.sector_size) as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let inside = offset.checked_add(buf.len() as u64).is_some_and(|end| end <= self.size());
        if !inside {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut at, mut rest) = (offset as usize, buf);
        while !rest.is_empty() {
            let from = &self.sectors[at / self.sector_size].bytes[at % self.sector_size..];
            let part = from.len().min(rest.len());
            let (head, tail) = rest.split_at_mut(part);
            head.copy_from_slice(&from[..part]);
            (at, rest) = (at + part, tail);
        }
        Ok(())
    }
}

/// Spreads a sector's digest by its place, so that the sum over all sectors identifies a state.
fn mix(n: u64, id: u128) -> u128 {
    let x = id.wrapping_add(u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
    let x = (x ^ (x >> 64)).wrapping_mul(0xD6E8_FEB8_6659_FD93_2545_F491_4F6C_DD1D);
    x ^ (x >> 61)
}
