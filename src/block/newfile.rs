//! A new file that appears under its name when it is whole and not before: the bytes go to a temporary file beside it,
//! which is renamed at the end.

use crate::{Code, Error, Result};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The permissions of an ordinary new file, before the umask.
pub const ORDINARY_MODE: u32 = 0o666;

/// A file on its way; gone with this value, unless [`Self::commit`] gave it its name.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    part: PathBuf,
    out: PathBuf,
    renamed: bool,
}

impl NewFile {
    /// Begins a file that will be `out`. It can be read and written, and lies in the folder of `out`. `mode` are its
    /// permissions, from which the umask takes away.
    ///
    /// # Errors
    /// [`crate::Kind::Usage`] when `out` is no name of a file; [`crate::Kind::Io`] when nothing can be created there.
    pub fn create(out: &Path, mode: u32) -> Result<Self> {
        // Not `NAME.part`: that may be somebody's unfinished download.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if out.file_name().is_none() {
            return Err(Error::usage("this is not the name of a file"));
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let part = out.with_file_name(format!(".bootsurgeon-{}-{count}.part", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&part)?;
        Ok(Self { file, part, out: out.to_owned(), renamed: false })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is until it has its name.
    #[must_use]
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Gives it its name. `force` lets it replace a regular file. Nothing is synced: that is the caller's to decide.
    ///
    /// # Errors
    /// As [`check_free`]; [`crate::Kind::Io`] when it cannot be renamed.
    pub fn commit(mut self, force: bool) -> Result<()> {
        let flags = if force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        match rustix::fs::renameat_with(CWD, &self.part, CWD, &self.out, flags) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(exists()),
            // A file system without this flag: look again, then rename.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                check_free(&self.out, force)?;
                std::fs::rename(&self.part, &self.out)?;
            }
            Err(e) => return Err(Error::from(io::Error::from(e)).with_code(Code::Io)),
        }
        self.renamed = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

/// Whether a file may be created under this name. `force` lets a regular file be replaced.
///
/// # Errors
/// [`crate::Kind::Unsafe`] when it exists (with `force`: when it is no regular file); [`crate::Kind::Io`] when nobody can tell.
pub fn check_free(out: &Path, force: bool) -> Result<()> {
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
    Error::refused("it exists already").advise("choose another name, remove it first, or replace it with --force")
}
