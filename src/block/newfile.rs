//! Every file that this program writes beside the medium itself: downloads, copies, extracted images, backups, manuals.
//!
//! One rule for all of them. A file gets its name when it is whole and not before: the bytes go to another file in the
//! same folder, which is renamed at the end. A file that exists is replaced only where the user asked for that
//! (`--force`), and what is no regular file (a link, a FIFO, a device node) is never replaced. Links among the parent
//! folders are followed.
//!
//! The file on its way is one of the crate `tempfile`. Own are: the renaming, because `persist_noclobber` makes a hard
//! link where the file system cannot refuse to replace, and FAT has none; and [`PartFile`], whose name has to be found
//! again by the next run, so that it is checked and locked instead of being new.

use super::Lock;
use crate::units::size;
use crate::{Code, Context, Error, Result};
use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The permissions of an ordinary new file, before the umask.
pub const ORDINARY_MODE: u32 = 0o666;

/// A file on its way; gone with this value, unless [`Self::commit`] gave it its name.
#[derive(Debug)]
pub struct NewFile {
    temporary: NamedTempFile,
    out: PathBuf,
}

impl NewFile {
    /// Begins a file that will be `out`. It can be read and written, and lies in the folder of `out`. `mode` are its
    /// permissions, from which the umask takes away.
    ///
    /// # Errors
    /// [`Code::Usage`] when `out` is no name of a file; [`Code::Io`] when nothing can be created there.
    pub fn create(out: &Path, mode: u32) -> Result<Self> {
        check_name(out)?;
        let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Not `NAME.part`: that may be somebody's unfinished download.
        let temporary = tempfile::Builder::new()
            .prefix(".bootsurgeon-")
            .suffix(".part")
            .make_in(folder, |part| OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(part))?;
        Ok(Self { temporary, out: out.to_owned() })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// Where it is until it has its name.
    #[must_use]
    pub fn part(&self) -> &Path {
        self.temporary.path()
    }

    /// Gives it its name. `force` lets it replace a regular file. Nothing is synced: that is the caller's to decide.
    ///
    /// # Errors
    /// As [`check_free`]; [`Code::Io`] when it cannot be renamed.
    pub fn commit(self, force: bool) -> Result<()> {
        give_name(self.temporary.path(), &self.out, force)?;
        // Under its first name there is nothing any more to take away.
        self.temporary.into_temp_path().keep().map_err(|e| e.error)?;
        Ok(())
    }
}

/// A file under a name of its own (`FILE.part`) that stays there when the program ends early, so that a later run can
/// go on with it. No other process has it open through this type.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    path: PathBuf,
    /// Bytes that were in it when it was opened.
    found: u64,
    _lock: Lock,
}

impl PartFile {
    /// Opens `path`, or creates it.
    ///
    /// # Errors
    /// [`Code::Exists`] when it is no regular file, belongs to another user or has another name too: then what is
    /// written to it would go somewhere else; [`Code::Busy`] when another process writes to it; [`Code::Io`] else.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, found) = match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
            Ok(file) => (file, 0),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => open_own(path, true)?,
            Err(e) => return Err(e.into()),
        };
        let lock = Lock::exclusive(&file)?
            .ok_or_else(|| Error::new(Code::Busy, "another process is writing it").advise("wait for it to finish"))?;
        let part = Self { file, path: path.to_owned(), found, _lock: lock };
        // Who held the lock until now may have given the file its final name.
        if !part.is_at(path) {
            return Err(Error::new(Code::Busy, "another process has just finished it").advise("run it again"));
        }
        Ok(part)
    }

    /// The file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Bytes that were in it when it was opened.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.found
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn is_at(&self, path: &Path) -> bool {
        let here = self.file.metadata().map(|m| (m.dev(), m.ino()));
        path.symlink_metadata().is_ok_and(|m| here.is_ok_and(|here| here == (m.dev(), m.ino())))
    }

    /// Gives it its name. `force` lets it replace a regular file.
    ///
    /// # Errors
    /// As [`check_free`]; [`Code::Io`] when it cannot be renamed, or is no longer where it was.
    pub fn commit(self, out: &Path, force: bool) -> Result<()> {
        if !self.is_at(&self.path) {
            return Err(Error::io(format!("somebody has replaced {}", self.path.display())).advise("run it again"));
        }
        give_name(&self.path, out, force)
    }

    /// Removes it: there is nothing in it to go on from.
    pub fn discard(self) {
        if self.is_at(&self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.file.metadata().is_ok_and(|m| m.len() == 0) && self.is_at(&self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Opens a file that exists and is this user's own, under this name and no other. Returns it with its length.
fn open_own(path: &Path, write: bool) -> Result<(File, u64)> {
    let not_ours = |why: &str| {
        Err(Error::new(Code::Exists, why.to_owned()).advise("remove it, or choose another name for the output"))
    };
    let own = |m: &Metadata| m.is_file() && m.uid() == rustix::process::geteuid().as_raw() && m.nlink() == 1;
    // Before it is opened: to open a device node can have effects of its own.
    let there = path.symlink_metadata()?;
    if !there.is_file() {
        return not_ours("it exists and is not a regular file");
    }
    if !own(&there) {
        return not_ours("it exists, and belongs to another user or has a second name (a hard link)");
    }
    // And once it is open: it may have been exchanged since.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).map_err(|e| Error::io(e.to_string()))?;
    let file = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)?;
    let opened = file.metadata()?;
    if !own(&opened) || (opened.dev(), opened.ino()) != (there.dev(), there.ino()) {
        return not_ours("somebody has exchanged it");
    }
    Ok((file, opened.len()))
}

/// The bytes of a file of this user's, up to `limit`; `None` when there is none.
///
/// # Errors
/// As [`PartFile::open`]; [`Code::Exists`] when it is longer.
pub fn read_own(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    let (file, bytes) = open_own(path, false)?;
    if bytes > limit {
        return Err(Error::new(Code::Exists, format!("it exists, and is longer than {}", size(limit)))
            .advise("remove it, or choose another name for the output"));
    }
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// Writes a small file, whole or not at all.
///
/// # Errors
/// As [`check_free`]; [`Code::Io`] when it cannot be written.
pub fn write_whole(out: &Path, content: &[u8], force: bool) -> Result<()> {
    let write = || -> Result<()> {
        check_free(out, force)?;
        let new = NewFile::create(out, ORDINARY_MODE)?;
        new.file().write_all(content)?;
        new.commit(force)
    };
    write().while_doing(|| format!("writing {}", out.display()))
}

/// Renames within a folder. A file that has the name already is replaced only with `force`, and only a regular one.
fn give_name(part: &Path, out: &Path, force: bool) -> Result<()> {
    if force {
        check_free(out, true)?;
    }
    let flags = if force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    match rustix::fs::renameat_with(CWD, part, CWD, out, flags) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(exists()),
        // A file system without this flag: look again, then rename.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            check_free(out, force)?;
            Ok(std::fs::rename(part, out)?)
        }
        Err(e) => Err(Error::from(io::Error::from(e)).with_code(Code::Io)),
    }
}

/// Whether a file may be created under this name. `force` lets a regular file be replaced.
///
/// # Errors
/// [`Code::Exists`] when it exists (with `force`: when it is no regular file); [`Code::Usage`] when it is no name of a
/// file; [`Code::Io`] when nobody can tell.
pub fn check_free(out: &Path, force: bool) -> Result<()> {
    check_name(out)?;
    match out.symlink_metadata() {
        Ok(there) if force && there.is_file() => Ok(()),
        Ok(there) if there.is_file() => Err(exists()),
        // Renaming over a device node or a link would replace the node, which nobody means.
        Ok(_) => {
            Err(Error::new(Code::Exists, "it exists and is not a regular file").advise("choose the name of a new file"))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Refuses to write over what is being read; `what` that is, for the message: `the disk image`.
///
/// # Errors
/// [`Code::Usage`] when `out` is the same file as `read`, by whatever names.
pub fn check_not_itself(out: &Path, read: &Path, what: &str) -> Result<()> {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    match (id(out), id(read)) {
        (Some(a), Some(b)) if a == b => {
            Err(Error::usage(format!("it is {what} itself")).advise("choose another name, or leave the option away"))
        }
        _ => Ok(()),
    }
}

fn check_name(out: &Path) -> Result<()> {
    // `dir/` has a last part, too, but no file can be made under that name.
    if out.file_name().is_none() || out.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(Error::usage("this is not the name of a file"));
    }
    Ok(())
}

fn exists() -> Error {
    Error::new(Code::Exists, "it exists already")
        .advise("choose another name, remove it first, or replace it with --force")
}
