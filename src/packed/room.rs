//! Writing with holes, and not beyond the room there is.

use crate::units::size;
use crate::{Context, Error, Result};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// The unit of holes: a block of most file systems.
const PAGE: usize = 4096;
/// Most that is granted before somebody looks again how much is free, in bytes.
const GRANT: u64 = 32 << 20;
/// What is left free for others: a sixteenth of the file system, and this at most, in bytes.
const MAX_RESERVE: u64 = 256 << 20;

/// A folder that is written to, and what to do when it is full.
#[derive(Debug, Clone)]
pub struct Folder {
    /// The folder, for messages.
    pub dir: PathBuf,
    /// What the user can do.
    pub advice: String,
}

/// Keeps an account of what is stored in a file, and refuses before its file system is full: where it lies in memory
/// (tmpfs), that would take the memory of everybody.
pub(super) struct FreeSpace<'a> {
    file: &'a File,
    place: &'a Folder,
    granted: u64,
    stored: u64,
}

impl<'a> FreeSpace<'a> {
    pub(super) fn new(file: &'a File, place: &'a Folder) -> Self {
        Self { file, place, granted: 0, stored: 0 }
    }

    /// Stores bytes.
    pub(super) fn store(&mut self, bytes: &[u8], at: u64) -> Result<()> {
        let n = bytes.len() as u64;
        if self.granted < n {
            self.granted = self.grant(n)?;
        }
        self.file.write_all_at(bytes, at).map_err(|e| match e.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => self.full("and the file system takes no more"),
            _ => Error::from(e).while_doing(format!("writing in {}", self.place.dir.display())),
        })?;
        self.granted -= n;
        self.stored += n;
        Ok(())
    }

    /// How much may be written before the next look.
    fn grant(&self, need: u64) -> Result<u64> {
        let Ok(fs) = rustix::fs::fstatvfs(self.file) else { return Ok(GRANT.max(need)) };
        let (total, free) = (fs.f_blocks.saturating_mul(fs.f_frsize), fs.f_bavail.saturating_mul(fs.f_frsize));
        if total == 0 {
            return Ok(GRANT.max(need)); // a file system that does not tell
        }
        let usable = free.saturating_sub((total / 16).min(MAX_RESERVE));
        if usable < need {
            return Err(self.full(&format!("{} are free and part of that has to stay", size(free))));
        }
        Ok(usable.min(GRANT).max(need))
    }

    fn full(&self, why: &str) -> Error {
        let (dir, stored) = (self.place.dir.display(), size(self.stored));
        Error::io(format!("no room in {dir}: {stored} of the image are there, {why}")).advise(self.place.advice.clone())
    }
}

/// Writes a file from front to back and leaves holes where it would be zeros.
pub(super) struct Sparse<'a> {
    room: FreeSpace<'a>,
    at: u64,
}

impl<'a> Sparse<'a> {
    /// Into this empty file.
    pub(super) fn new(file: &'a File, place: &'a Folder) -> Self {
        Self { room: FreeSpace::new(file, place), at: 0 }
    }

    /// The next bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let zeros = pages(rest, true);
            self.skip(zeros as u64);
            rest = &rest[zeros..];
            let data = pages(rest, false);
            if data > 0 {
                self.room.store(&rest[..data], self.at)?;
                self.at += data as u64;
                rest = &rest[data..];
            }
        }
        Ok(())
    }

    /// The next bytes are zeros, so many.
    pub(super) fn skip(&mut self, zeros: u64) {
        self.at = self.at.saturating_add(zeros);
    }

    /// Gives the file its length.
    pub(super) fn finish(self) -> Result<()> {
        let bytes = self.at;
        self.room
            .file
            .set_len(bytes)
            .while_doing(|| format!("making a file of {} in {}", size(bytes), self.room.place.dir.display()))
    }
}

/// How many bytes from the beginning lie in pages that are all zeros (or are not).
fn pages(bytes: &[u8], zero: bool) -> usize {
    static ZEROS: [u8; PAGE] = [0; PAGE];
    bytes.chunks(PAGE).take_while(|page| (**page == ZEROS[..page.len()]) == zero).map(<[u8]>::len).sum()
}
