//! A medium as a stream, for file system code that is written over `Read`, `Write` and `Seek` (the `fatfs` crate).

use crate::block::WriteAt;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// A stream over a medium. A write of a few bytes writes their sectors whole, as an operating system does.
pub struct MediumStream<'a> {
    medium: &'a dyn WriteAt,
    at: u64,
    flush: Flush,
}

/// What a flush of the stream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// It is a barrier: `fsync`.
    Barrier,
    /// Nothing reaches the medium, as with a flush of a file.
    Nothing,
}

impl<'a> MediumStream<'a> {
    /// A stream that begins at the first byte.
    #[must_use]
    pub fn new(medium: &'a dyn WriteAt, flush: Flush) -> Self {
        Self { medium, at: 0, flush }
    }
}

impl Read for MediumStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.medium.size().saturating_sub(self.at).min(buf.len() as u64) as usize;
        self.medium.read_exact_at(&mut buf[..n], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for MediumStream<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let unit = u64::from(self.medium.sector_size());
        let (first, end) = (self.at / unit * unit, (self.at + buf.len() as u64).next_multiple_of(unit));
        let mut sectors = vec![0; (end - first) as usize];
        self.medium.read_exact_at(&mut sectors, first)?;
        sectors[(self.at - first) as usize..][..buf.len()].copy_from_slice(buf);
        self.medium.write_all_at(&sectors, first)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.flush {
            Flush::Barrier => self.medium.barrier(),
            Flush::Nothing => Ok(()),
        }
    }
}

impl Seek for MediumStream<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.medium.size().checked_add_signed(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
