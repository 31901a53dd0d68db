//! Files and block devices. Both look the same to `pread` and `pwrite`; they differ in how a medium is claimed and in
//! who knows its sector size.

use super::{Lock, ReadAt, WriteAt, check_range};
use crate::{Code, Context, Error, Result, container};
use rustix::fs::{Advice, OFlags};
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file or block device opened for reading only.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    bytes: u64,
    path: PathBuf,
    block_device: bool,
}

impl FileSource {
    /// Opens a file or block device for reading.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when it cannot be opened or is neither a file nor a block device.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || -> Result<Self> {
            let mut file = open_without_waiting(path)?;
            let kind = file.metadata()?.file_type();
            refuse_other_kinds(kind)?;
            // The metadata of a block device says 0 bytes; its end says how long it is.
            let bytes = file.seek(SeekFrom::End(0))?;
            Ok(Self { file, bytes, path: path.to_owned(), block_device: kind.is_block_device() })
        };
        open().map_err(|e| advised(e, path)).while_doing(|| format!("opening {}", path.display()))
    }

    /// A file that is open already and need not have a name. `path` is what it is called in messages.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when its length cannot be found out.
    pub fn of_file(mut file: File, path: &Path) -> Result<Self> {
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, bytes, path: path.to_owned(), block_device: false })
    }

    /// The same for somebody who looks here and there: the kernel reads what is asked for and nothing ahead, up to
    /// where a pass is announced ([`ReadAt::will_read`]).
    #[must_use]
    pub fn without_read_ahead(self) -> Self {
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::Random);
        self
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself, for copies inside the kernel.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether this is a block device rather than a file.
    #[must_use]
    pub fn is_block_device(&self) -> bool {
        self.block_device
    }

    /// The logical sector size that the kernel knows, in bytes; `None` for a file.
    #[must_use]
    pub fn device_sector_size(&self) -> Option<u32> {
        self.block_device.then(|| rustix::fs::ioctl_blksszget(&self.file).ok()).flatten()
    }
}

impl ReadAt for FileSource {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.bytes, offset, buf.len() as u64)?;
        self.file.read_exact_at(buf, offset)
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        // Only a hint: nothing depends on it.
        let _ = rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(bytes), Advice::Sequential);
    }
}

/// A file or block device opened for surgery: writable, claimed for this process alone.
#[derive(Debug)]
pub struct SurgeryFile {
    file: File,
    bytes: u64,
    sector_size: u32,
    path: PathBuf,
    /// Of a file; a block device is claimed by how it is opened.
    _lock: Option<Lock>,
}

impl SurgeryFile {
    /// Opens a file or block device for reading and writing.
    ///
    /// A block device is opened with `O_EXCL`, which fails when it is mounted or claimed; a file is locked with
    /// `flock`. `sector_size` is used for files; a block device knows its own.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`] when it is mounted, claimed or locked, or may not be written; [`crate::Kind::Io`] else.
    pub fn open(path: &Path, sector_size: u32) -> Result<Self> {
        let opened = Self::open_inner(path, sector_size).map_err(|e| advised(e, path));
        opened.while_doing(|| format!("opening {} for writing", path.display()))
    }

    fn open_inner(path: &Path, sector_size: u32) -> Result<Self> {
        let metadata = std::fs::metadata(path)?;
        let kind = metadata.file_type();
        // Root could write to it all the same; whoever took the permission away meant it.
        if kind.is_file() && metadata.permissions().readonly() {
            return Err(Error::new(Code::ReadOnly, "the file is read-only").advise("`chmod u+w` it, or work on a copy"));
        }
        refuse_other_kinds(kind)?;
        let device = kind.is_block_device();
        // A file may have been replaced by a FIFO since, and opening that must not wait for somebody at its other end.
        let exclusive = if device { OFlags::EXCL } else { OFlags::NONBLOCK };
        let flags = i32::try_from(exclusive.bits()).map_err(|e| Error::io(e.to_string()))?;
        let mut file =
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).map_err(|e| {
                match e.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                    Some(rustix::io::Errno::BUSY) => Error::new(Code::Busy, "it is mounted or in use"),
                    Some(rustix::io::Errno::ROFS | rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
                        let error = Error::new(Code::ReadOnly, format!("it may not be written ({e})"));
                        error.advise(container::advice(path, &e).unwrap_or_else(|| {
                            "check the permissions, and that the medium is not write-protected".to_owned()
                        }))
                    }
                    _ => e.into(),
                }
            })?;
        let lock = match device {
            true => None,
            false => {
                let lock = Lock::exclusive(&file).map_err(|e| Error::from(e).with_code(Code::Busy))?;
                Some(lock.ok_or_else(|| {
                    Error::new(Code::Busy, "another process holds a lock on it")
                        .advise("wait until that process has finished")
                })?)
            }
        };
        refuse_other_kinds(file.metadata()?.file_type())?;
        let sector_size =
            if device { rustix::fs::ioctl_blksszget(&file).map_err(io::Error::from)? } else { sector_size };
        let bytes = file.seek(SeekFrom::End(0))?;
        // What is read ahead of the table or behind an image is read for nothing. Only a hint.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        Ok(Self { file, bytes, sector_size, path: path.to_owned(), _lock: lock })
    }

    /// Makes sure that the path still leads to this file or device. An image that is renamed over during a run would
    /// be changed where nobody finds it, and whoever looks at the path would be told of a success that is not there.
    ///
    /// # Errors
    /// [`Code::Medium`] when it leads elsewhere or nowhere.
    pub fn check_name(&self) -> Result<()> {
        let ours = self.file.metadata()?;
        let same = |there: std::fs::Metadata| match ours.file_type().is_block_device() {
            true => there.file_type().is_block_device() && there.rdev() == ours.rdev(),
            false => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
        };
        if std::fs::metadata(&self.path).is_ok_and(same) {
            return Ok(());
        }
        let path = self.path.display();
        Err(Error::new(
            Code::Medium,
            format!(
                "{path} was moved or replaced during the run: what was written is in the file that had this name \
                     before"
            ),
        )
        .advise(format!(
            "whatever is at {path} now was not changed; if the other file is still somewhere, run `bootsurgeon \
             recover` on it"
        )))
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// With what helps where a device cannot be opened.
fn advised(error: Error, path: &Path) -> Error {
    match error.io_error().and_then(|e| container::advice(path, e)) {
        Some(advice) => error.advise(advice),
        None => error,
    }
}

/// Opens a file for reading. A FIFO would be waited for without end, until somebody writes to it; a device that would
/// give the flag a meaning of its own (a drive without a medium) is opened without it.
fn open_without_waiting(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path)?.file_type().is_block_device() {
        return File::open(path);
    }
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    // A socket cannot be opened at all; what it is says more than the error of that.
    OpenOptions::new().read(true).custom_flags(flags).open(path).or_else(|e| {
        let kind = std::fs::metadata(path)?.file_type();
        Err(refuse_other_kinds(kind).map_or_else(io::Error::from, |()| e))
    })
}

/// Only files and block devices can be read at any place.
fn refuse_other_kinds(kind: FileType) -> Result<()> {
    let what = match () {
        () if kind.is_file() || kind.is_block_device() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO or pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() => "a character device",
        () => "something else",
    };
    Err(Error::io(format!("neither a file nor a block device, but {what}"))
        .advise("give a disk, a partition or an image file; save what comes through a pipe to a file first"))
}

impl ReadAt for SurgeryFile {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.bytes, offset, buf.len() as u64)?;
        self.file.read_exact_at(buf, offset)
    }
}

impl WriteAt for SurgeryFile {
    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.bytes, offset, buf.len() as u64)?;
        self.file.write_all_at(buf, offset)
    }

    fn barrier(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// After a barrier no page is dirty, so the kernel can forget all of them; the next read goes to the medium. It
    /// is told to forget the whole file: of a range it would keep the pages that lie in it only in part.
    fn drop_caches(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }
}
