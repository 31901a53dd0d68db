//! A view of a volume that can be written without writing: what would be done is done on it.

use crate::block::{ReadAt, WriteAt};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most that is remembered of what was read, in bytes. The allocation table of an ESP and its directories take a part
/// of it.
const MAX_REMEMBERED: usize = 16 << 20;

/// A medium whose writes stay in memory. What was read from the one below is remembered, for it is read again and
/// again.
pub(super) struct Shadow<'m> {
    below: &'m dyn ReadAt,
    sector_size: u32,
    written: Mutex<BTreeMap<u64, Vec<u8>>>,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    /// By offset and length.
    reads: HashMap<(u64, usize), Vec<u8>>,
    bytes: usize,
}

impl<'m> Shadow<'m> {
    pub(super) fn new(below: &'m dyn ReadAt, sector_size: u32) -> Self {
        Self { below, sector_size, written: Mutex::default(), remembered: Mutex::default() }
    }

    /// What was written, by offset.
    pub(super) fn into_written(self) -> BTreeMap<u64, Vec<u8>> {
        self.written.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<u8>>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_below(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (offset, buf.len());
        if let Some(bytes) = remembered.reads.get(&key) {
            buf.copy_from_slice(bytes);
            return Ok(());
        }
        self.below.read_exact_at(buf, offset)?;
        if remembered.bytes + buf.len() <= MAX_REMEMBERED {
            remembered.bytes += buf.len();
            remembered.reads.insert(key, buf.to_vec());
        }
        Ok(())
    }
}

impl ReadAt for Shadow<'_> {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_below(buf, offset)?;
        overlay(&self.written(), self.sector_size, buf, offset);
        Ok(())
    }
}

/// Puts what was written in the place of what was read.
pub(super) fn overlay(written: &BTreeMap<u64, Vec<u8>>, sector_size: u32, buf: &mut [u8], offset: u64) {
    let unit = u64::from(sector_size);
    let end = offset + buf.len() as u64;
    for (at, sector) in written.range(offset.saturating_sub(unit - 1)..end) {
        let (from, to) = ((*at).max(offset), (at + unit).min(end));
        if from < to {
            let source = &sector[(from - at) as usize..(to - at) as usize];
            buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
        }
    }
}

impl WriteAt for Shadow<'_> {
    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let unit = self.sector_size as usize;
        for (i, sector) in buf.chunks(unit).enumerate() {
            self.written().insert(offset + (i * unit) as u64, sector.to_vec());
        }
        Ok(())
    }

    fn barrier(&self) -> io::Result<()> {
        Ok(())
    }
}
