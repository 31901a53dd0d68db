//! A UKI's bytes into a file of their own.
//!
//! The file appears under its name when it is whole and not before: the bytes go to a temporary file beside it, which
//! is renamed at the end. It is not synced: this is an ordinary file on an ordinary disk, as `cp` would make it.

use super::Candidate;
use crate::block::{Extent, FileSource, ReadAt};
use crate::{Context, Error, Kind, Result};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes read and written at a time where the kernel cannot copy by itself.
const BLOCK: u64 = 1 << 20;
/// Most bytes that the kernel is asked to copy at a time.
const KERNEL_BLOCK: u64 = 64 << 20;

/// Writes the UKI's bytes to `out` and returns how many there were. When the candidate comes from a local file, give it
/// as `source_file`: the kernel then copies by itself. `force` lets it replace a regular file.
///
/// # Errors
/// [`Kind::Unsafe`] when `out` exists (with `force`: when it is no regular file); [`Kind::Io`] when reading or writing
/// fails. After a failure there is no new file under any name.
pub fn extract(candidate: &Candidate, out: &Path, source_file: Option<&FileSource>, force: bool) -> Result<u64> {
    let work = || -> Result<u64> {
        check_free(out, force)?;
        let mut part = Part::create(out)?;
        let bytes = candidate.bytes.size();
        let done = match source_file.filter(|f| f.size() == candidate.bytes.source().size()) {
            Some(file) => copy_in_kernel(file.file(), candidate.bytes.extents(), &part.file),
            None => 0,
        };
        copy(&candidate.bytes, done, &mut part.file)?;
        part.rename_to(out, force)?;
        Ok(bytes)
    };
    work().while_doing(|| format!("writing the UKI to {}", out.display()))
}

fn check_free(out: &Path, force: bool) -> Result<()> {
    match out.symlink_metadata() {
        Ok(there) if force && there.is_file() => Ok(()),
        Ok(there) if there.is_file() => Err(exists()),
        // Renaming over a device node or a link would replace the node, which nobody means.
        Ok(_) => Err(Error::refused("it exists and is no regular file").advise("choose another name")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn exists() -> Error {
    Error::refused("it exists already").advise("choose another name, or remove it first")
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
fn copy(bytes: &dyn ReadAt, done: u64, to: &mut File) -> Result<()> {
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

/// The temporary file; removed unless it was renamed.
struct Part {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Part {
    fn create(out: &Path) -> Result<Self> {
        // Not `NAME.part`: that may be somebody's unfinished download.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if out.file_name().is_none() {
            return Err(Error::usage("this is not the name of a file"));
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = out.with_file_name(format!(".bootsurgeon-{}-{count}.part", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path, renamed: false })
    }

    fn rename_to(&mut self, out: &Path, force: bool) -> Result<()> {
        let flags = if force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        match rustix::fs::renameat_with(CWD, &self.path, CWD, out, flags) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(exists()),
            // A file system without this flag: look again, then rename.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                check_free(out, force)?;
                std::fs::rename(&self.path, out)?;
            }
            Err(e) => return Err(Error::from(io::Error::from(e)).as_kind(Kind::Io)),
        }
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
