//! Disk images packed with zstd or xz, as Talos publishes them (`metal-arm64.raw.zst`, before 1.8 `.raw.xz`): unpacked
//! once, from front to back, into a sparse temporary file without a name; and packed again for a changed copy.
//!
//! Touches temporary files and the files it is handed; never the packed file itself. The zstd and liblzma crates do the
//! coding. Own code stands beside them for what they do not do: holes instead of zeros, the limits on memory, size and
//! room (a few MiB of either format can stand for a tebibyte), and the look at the index of an xz file, which says how
//! much is to come before a byte of it is unpacked.
//!
//! The whole image is unpacked although a command needs little of it: neither format can be read at any place, and the
//! backup partition table lies at the end.

mod cursor;
mod decode;
mod encode;
mod room;
mod xz_dictionary;
mod xz_index;

pub use encode::pack;
pub use room::Folder;

use crate::block::{FileSource, ReadAt, read_vec};
use crate::{Context, Error, Kind, Result};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use room::Sparse;

/// What an image may unpack to, holes included: 64 GiB, the size of a large memory card. Talos' images have a few GiB.
pub const MAX_BYTES: u64 = 64 << 30;

/// How an image is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Packing {
    /// zstd (RFC 8878).
    Zstd,
    /// xz (The .xz File Format 1.2.1).
    Xz,
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// First bytes of packed files. zstd's second kind is a skippable frame (the lowest four bits are free), which pzstd
/// begins with.
const ZSTD: &[u8] = b"\x28\xB5\x2F\xFD";
const ZSTD_SKIPPABLE: &[u8] = b"\x2A\x4D\x18";
const XZ: &[u8] = b"\xFD7zXZ\0";
/// What is known well enough to name the command that unpacks it.
const FOREIGN: [(&[u8], &str, &str); 5] = [
    (b"\x1F\x8B", "gzip", "gzip -dk"),
    (b"BZh", "bzip2", "bzip2 -dk"),
    (b"\x04\x22\x4D\x18", "lz4", "lz4 -dk"),
    (b"LZIP", "lzip", "lzip -dk"),
    (b"7z\xBC\xAF\x27\x1C", "7-Zip", "7z x"),
];

impl Packing {
    /// `zstd` or `xz`: the name of the format and of its tool.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Xz => "xz",
        }
    }

    /// How a source is packed, by its first bytes; `None` when it is not.
    ///
    /// # Errors
    /// [`Kind::Rejected`] when it is packed in a way that is not unpacked here; what the source reports.
    pub fn detect(source: &dyn ReadAt) -> Result<Option<Self>> {
        let head = read_vec(source, 0, source.size().min(8) as usize)?;
        if head.starts_with(XZ) {
            return Ok(Some(Self::Xz));
        }
        let skippable = head.first().is_some_and(|b| b & 0xF0 == 0x50) && head[1..].starts_with(ZSTD_SKIPPABLE);
        if head.starts_with(ZSTD) || skippable {
            return Ok(Some(Self::Zstd));
        }
        match FOREIGN.iter().find(|(magic, ..)| head.starts_with(magic)) {
            Some((_, name, command)) => {
                Err(Error::rejected(format!("it is packed with {name}, which is not unpacked here")).advise(format!(
                    "unpack it with `{command} FILE` and pass the result; zstd and xz are accepted as they are"
                )))
            }
            None => Ok(None),
        }
    }

    /// The error of a place where only unpacked images come: one that was packed twice, for example.
    pub(crate) fn unexpected(self) -> Error {
        Error::rejected(format!("the image is packed ({self})")).advise("unpack it and pass the result")
    }

    /// What the name of a file to be written asks for: `.zst`, `.zstd` and `.xz` are packed, anything else is raw.
    ///
    /// # Errors
    /// [`Kind::Usage`] for the ending of a format that is not written here.
    pub fn of_name(path: &Path) -> Result<Option<Self>> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        match ending.as_str() {
            "zst" | "zstd" => Ok(Some(Self::Zstd)),
            "xz" => Ok(Some(Self::Xz)),
            "gz" | "bz2" | "lz4" | "lzma" | "lz" | "7z" | "zip" | "tar" | "qcow2" | "vmdk" | "vhd" | "vdi" => {
                Err(Error::usage(format!("this program does not write .{ending} files, only raw, .zst and .xz"))
                    .advise("choose another name, and convert the file afterwards"))
            }
            _ => Ok(None),
        }
    }
}

/// Who is told how far it is, and who may stop it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Set once the user wants to stop.
    pub cancelled: &'a AtomicBool,
    /// Told the bytes that are done, and of how many.
    pub progress: &'a dyn Fn(u64, u64),
}

impl Watch<'_> {
    fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Cancelled, "stopped on request"));
        }
        Ok(())
    }
}

/// A packed image, unpacked. The file has no name and is gone with the last clone of this value.
#[derive(Debug, Clone)]
pub struct Unpacked {
    source: Arc<FileSource>,
    packing: Packing,
    packed_bytes: u64,
}

impl Unpacked {
    /// What was in it.
    #[must_use]
    pub fn source(&self) -> &Arc<FileSource> {
        &self.source
    }

    /// How it was packed.
    #[must_use]
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Length of the packed file in bytes.
    #[must_use]
    pub fn packed_bytes(&self) -> u64 {
        self.packed_bytes
    }
}

/// Unpacks an image into the directory for temporary files (`TMPDIR`); `None` when it is not packed, or a device.
///
/// # Errors
/// [`Kind::Rejected`] when it is malformed, truncated or followed by something else, or needs more memory or room than
/// any real image; [`Kind::Io`] when it cannot be read, or there is no room; [`Kind::Cancelled`].
pub fn unpack(source: &FileSource, watch: Watch<'_>) -> Result<Option<Unpacked>> {
    let work = || -> Result<Option<Unpacked>> {
        if source.is_block_device() {
            return Ok(None);
        }
        let Some(packing) = Packing::detect(source)? else { return Ok(None) };
        let dir = std::env::temp_dir();
        let file = tempfile::tempfile_in(&dir)
            .while_doing(|| format!("making a temporary file in {}", dir.display()))
            .map_err(|e| e.advise("set TMPDIR to a folder that can be written to"))?;
        let place =
            Folder { advice: "make room there, or set TMPDIR to a folder with more; zeros take none".into(), dir };
        decode::unpack(source, packing, Sparse::new(&file, &place), watch)?;
        let unpacked = Arc::new(FileSource::of_file(file, source.path())?);
        Ok(Some(Unpacked { source: unpacked, packing, packed_bytes: source.size() }))
    };
    work().while_doing(|| format!("unpacking {}", source.path().display()))
}

/// Puts the raw content of an image, packed or not, into the empty file `to`, which lies in `place`: as a reflink where
/// the file system can do that, else with holes for zeros.
///
/// # Errors
/// As [`unpack`].
pub fn copy(source: &FileSource, to: &File, place: &Folder, watch: Watch<'_>) -> Result<()> {
    let work = || -> Result<()> {
        let sparse = Sparse::new(to, place);
        match Packing::detect(source)? {
            Some(packing) => decode::unpack(source, packing, sparse, watch),
            // All or nothing: a failed clone has written nothing.
            None if rustix::fs::ioctl_ficlone(to, source.file()).is_ok() => Ok(()),
            None => copy_data(source, sparse, watch),
        }
    };
    work().while_doing(|| format!("copying {}", source.path().display()))
}

/// Bytes read at a time.
const BLOCK: usize = 1 << 20;

/// Copies a raw image; its holes are not even read.
fn copy_data(source: &FileSource, mut to: Sparse<'_>, watch: Watch<'_>) -> Result<()> {
    let (mut at, end) = (0, source.size());
    let mut buf = vec![0; BLOCK];
    while at < end {
        let data = data_from(source.file(), at, end);
        to.skip(data.start - at);
        at = data.start;
        while at < data.end {
            watch.check()?;
            let n = usize::try_from(data.end - at).unwrap_or(BLOCK).min(BLOCK);
            source.read_exact_at(&mut buf[..n], at)?;
            to.write(&buf[..n])?;
            at += n as u64;
            (watch.progress)(at, end);
        }
    }
    to.finish()
}

/// The next piece from `at` on that is no hole; all the rest where the file system does not tell.
fn data_from(file: &File, at: u64, end: u64) -> std::ops::Range<u64> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start.clamp(at, end),
        Err(Errno::NXIO) => end,
        Err(_) => at,
    };
    let stop = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(end);
    start..if stop > start { stop.min(end) } else { end }
}

#[cfg(test)]
mod tests;
