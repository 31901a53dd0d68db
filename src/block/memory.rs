//! A medium in memory.

use super::{ReadAt, WriteAt, check_range};
use std::io;
use std::sync::RwLock;

/// Bytes in memory, readable and writable; for tests, the demonstration and small structures.
#[derive(Debug, Default)]
pub struct Memory {
    bytes: RwLock<Vec<u8>>,
    sector_size: u32,
}

impl Memory {
    /// A medium of 512-byte sectors holding `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::with_sector_size(bytes, 512)
    }

    /// A medium of `sector_size`-byte sectors holding `bytes`.
    #[must_use]
    pub fn with_sector_size(bytes: Vec<u8>, sector_size: u32) -> Self {
        Self { bytes: RwLock::new(bytes), sector_size }
    }

    /// What it holds now.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<u8>> {
        self.bytes.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl ReadAt for Memory {
    fn size(&self) -> u64 {
        self.read().len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read()[..].read_exact_at(buf, offset)
    }
}

impl WriteAt for Memory {
    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        check_range(bytes.len() as u64, offset, buf.len() as u64)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        bytes[start..start + buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn barrier(&self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.len() as u64, offset, buf.len() as u64)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        buf.copy_from_slice(&self[start..start + buf.len()]);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self[..].read_exact_at(buf, offset)
    }
}
