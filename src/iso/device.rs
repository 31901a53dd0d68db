//! What the ISO reader reads through: a source as a block device, in large pages, with an end to its patience.

use crate::block::ReadAt;
use crate::{Error, Result};
use hadris_fs::{Error as FsError, ErrorKind};
use hadris_io::ErrorType;
use hadris_storage::sync::BlockDevice;
use hadris_storage::{BlockIndex, BlockSize};
use std::cell::Cell;
use std::io;

/// Bytes per page. Directories of an ISO lie side by side before the files, so a page usually holds all of them, and a
/// remote ISO is asked a handful of times.
const PAGE: u64 = 64 * 1024;
/// Pages kept: 1 MiB.
const PAGES: usize = 16;
/// Sector size shown to the reader, in bytes. The smallest logical block of an ISO is 512 bytes.
const SECTOR: u32 = 512;

/// What one operation (listing a directory, reading the catalog) may cost, whatever the ISO says: calls of the reader,
/// and pages fetched. 131,072 well-formed entries need half of it; a structure built to make the reader go round
/// in circles ends here.
const CALLS: u32 = 2_000_000;
const FETCHES: u32 = 1024;

/// A source as a block device with a page cache.
pub(super) struct Paged<S> {
    source: S,
    /// Page number and bytes, the most recently used last.
    pages: Vec<(u64, Vec<u8>)>,
    calls: Cell<u32>,
    fetches: Cell<u32>,
}

impl<S: ReadAt> Paged<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source, pages: Vec::new(), calls: Cell::new(0), fetches: Cell::new(0) }
    }

    /// A new operation begins.
    pub(super) fn new_operation(&self) {
        self.calls.set(0);
        self.fetches.set(0);
    }

    pub(super) fn size(&self) -> u64 {
        self.source.size()
    }

    /// Fills `buf` from `offset`, through the cache.
    fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<()> {
        spend(&self.calls, CALLS)?;
        crate::block::check_range(self.source.size(), offset, buf.len() as u64)?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let inside = (at % PAGE) as usize;
            let page = self.page(at / PAGE)?;
            let part = page.get(inside..).unwrap_or_default();
            let n = part.len().min(rest.len());
            if n == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let (head, tail) = rest.split_at_mut(n);
            head.copy_from_slice(&part[..n]);
            rest = tail;
            at += n as u64;
        }
        Ok(())
    }

    fn page(&mut self, number: u64) -> Result<&[u8]> {
        match self.pages.iter().position(|(n, _)| *n == number) {
            // The last one is asked for again and again; moving the others costs pointers only.
            Some(i) if i + 1 == self.pages.len() => {}
            Some(i) => self.pages[i..].rotate_left(1),
            None => {
                spend(&self.fetches, FETCHES)?;
                let start = number * PAGE;
                let bytes = PAGE.min(self.source.size().saturating_sub(start)) as usize;
                let page = crate::block::read_vec(&self.source, start, bytes)?;
                if self.pages.len() == PAGES {
                    self.pages.remove(0);
                }
                self.pages.push((number, page));
            }
        }
        Ok(self.pages.last().map_or(&[], |(_, page)| page))
    }
}

fn spend(counter: &Cell<u32>, limit: u32) -> Result<()> {
    if counter.get() >= limit {
        return Err(Error::rejected(
            "the ISO's directories are far larger than any real ISO's, or go round in circles",
        ));
    }
    counter.set(counter.get() + 1);
    Ok(())
}

impl<S: ReadAt> ErrorType for Paged<S> {
    type Error = io::Error;
}

impl<S: ReadAt> BlockDevice for Paged<S> {
    fn block_size(&self) -> BlockSize {
        const { BlockSize::new(SECTOR).unwrap() }
    }

    fn block_count(&self) -> u64 {
        self.source.size() / u64::from(SECTOR)
    }

    fn read_blocks(&mut self, first: BlockIndex, buf: &mut [u8]) -> Result<(), FsError<io::Error>> {
        let offset = first
            .get()
            .checked_mul(u64::from(SECTOR))
            .ok_or_else(|| FsError::new(ErrorKind::InvalidInput, "block number out of range"))?;
        // Our own error (the limits above) travels inside the io::Error and comes out of it unharmed.
        self.read(buf, offset).map_err(|e| FsError::device(e.into(), "reading the ISO failed"))
    }
}
