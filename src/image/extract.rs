//! A UKI's bytes into a file of their own.
//!
//! The file appears under its name when it is whole and not before ([`NewFile`]). It is not synced: this is an ordinary
//! file on an ordinary disk, as `cp` would make it.

use super::Candidate;
use crate::block::{Extent, FileSource, NewFile, ORDINARY_MODE, ReadAt, check_free};
use crate::{Context, Result};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Bytes read and written at a time where the kernel cannot copy by itself.
const BLOCK: u64 = 1 << 20;
/// Most bytes that the kernel is asked to copy at a time.
const KERNEL_BLOCK: u64 = 64 << 20;

/// Writes the UKI's bytes to `out` and returns how many there were. When the candidate comes from a local file, give it
/// as `source_file`: the kernel then copies by itself. `force` lets it replace a regular file.
///
/// # Errors
/// [`crate::Kind::Unsafe`] when `out` exists (with `force`: when it is no regular file); [`crate::Kind::Io`] when
/// reading or writing fails. After a failure there is no new file under any name.
pub fn extract(candidate: &Candidate, out: &Path, source_file: Option<&FileSource>, force: bool) -> Result<u64> {
    let work = || -> Result<u64> {
        check_free(out, force)?;
        let part = NewFile::create(out, ORDINARY_MODE)?;
        let bytes = candidate.bytes.size();
        let done = match source_file.filter(|f| f.size() == candidate.bytes.source().size()) {
            Some(file) => copy_in_kernel(file.file(), candidate.bytes.extents(), part.file()),
            None => 0,
        };
        copy(&candidate.bytes, done, part.file())?;
        part.commit(force)?;
        Ok(bytes)
    };
    work().while_doing(|| format!("writing the UKI to {}", out.display()))
}

/// Copies as much as the kernel can without us, and returns how much that was. Whatever stops it, the ordinary copy
/// that follows goes on from there or reports it.
fn copy_in_kernel(from: &File, extents: &[Extent], to: &File) -> u64 {
    let mut done = 0u64;
    for extent in extents {
        let (mut at, end) = (extent.offset, extent.offset + extent.bytes);
        while at < end {
            let n = usize::try_from((end - at).min(KERNEL_BLOCK)).unwrap_or(usize::MAX);
            // With explicit offsets (`copy_file_range` then leaves the files' own positions alone).
            match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut done), n) {
                Ok(0) => return done,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return done,
            }
        }
    }
    done
}

/// Copies from byte `done` to the end.
fn copy(bytes: &dyn ReadAt, done: u64, mut to: &File) -> Result<()> {
    use std::io::Seek as _;
    let mut at = done;
    if at == bytes.size() {
        return Ok(());
    }
    to.seek(io::SeekFrom::Start(at))?;
    bytes.will_read(at, bytes.size() - at);
    let mut buf = vec![0; BLOCK.min(bytes.size() - at) as usize];
    while at < bytes.size() {
        let n = BLOCK.min(bytes.size() - at) as usize;
        bytes.read_exact_at(&mut buf[..n], at)?;
        to.write_all(&buf[..n])?;
        at += n as u64;
    }
    Ok(())
}
