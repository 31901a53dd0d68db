//! The one block abstraction under everything: files, block devices, memory, and (in [`crate::factory`]) HTTP ranges.
//!
//! Reading and writing are two traits, so that danger is in the types: what was opened as [`ReadAt`] cannot be written.
//! Only [`crate::surgery`] ever asks for a [`WriteAt`].
//!
//! All offsets and lengths are in bytes from the start of the source.

mod cache;
mod fanout;
mod file;
mod forward;
mod lock;
mod memory;
mod mirror;
mod newfile;
mod pieces;
mod stream;

pub use cache::Cached;
pub(crate) use cache::KEPT_READ;
pub use fanout::{Chunk, Light, Load, Sink, Watching, fan_out, sha256_of, sha256_watched};
pub use file::{FileSource, SurgeryFile};
#[cfg(feature = "net")]
pub(crate) use forward::{Kept, fill};
pub use lock::Lock;
pub use memory::Memory;
pub use mirror::{Mirror, copy_differences, first_difference};
pub use newfile::{NewFile, ORDINARY_MODE, PartFile, check_free, check_not_itself, read_own, write_whole};
pub use pieces::{Extent, Pieces, Window};
pub use stream::{Arrival, StreamSource, is_stream, receive};

use std::io;
use std::sync::Arc;

/// Bytes that can be read at any place, by any thread.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the range does not lie inside the source; else what the medium reports.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Says that `bytes` from `offset` will be read soon and in order. A source may prefetch; most ignore it.
    fn will_read(&self, offset: u64, bytes: u64) {
        let _ = (offset, bytes);
    }

    /// Whether every byte comes over a network, so that what can be done without a second look is done without.
    fn is_remote(&self) -> bool {
        false
    }
}

/// A medium opened for surgery.
///
/// The model (shared with the power-cut harness): a write of one logical sector happens whole or not at all; writes
/// between two barriers reach the medium in any order, each or none; what was written before a barrier that returned
/// is there.
pub trait WriteAt: ReadAt {
    /// Logical sector size in bytes, the unit that the medium writes atomically.
    fn sector_size(&self) -> u32;

    /// Writes `buf` at `offset`; both are whole multiples of [`Self::sector_size`].
    ///
    /// # Errors
    /// What the medium reports.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Returns once everything written before is on the medium.
    ///
    /// # Errors
    /// What the medium reports; after an error nothing may be assumed about earlier writes.
    fn barrier(&self) -> io::Result<()>;

    /// Makes the next reads come from the medium and not from a cache.
    ///
    /// # Errors
    /// What the medium reports.
    fn drop_caches(&self) -> io::Result<()> {
        Ok(())
    }

    /// Makes the next reads of whatever was written come from the medium and not from a cache. What was read and not
    /// written since may be remembered: nobody else writes to a medium that was claimed.
    ///
    /// # Errors
    /// What the medium reports.
    fn drop_written(&self) -> io::Result<()> {
        self.drop_caches()
    }

    /// Looks on the medium, past the caches, for samples of what is remembered of it and was not written: a medium that
    /// has less room than it says puts what is written where something else was. Behind [`Self::drop_written`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] with the place where it holds something else; what the medium reports.
    fn check_remembered(&self) -> io::Result<()> {
        Ok(())
    }
}

macro_rules! forward_read_at {
    ($($t:ty),*) => {$(
        impl<T: ReadAt + ?Sized> ReadAt for $t {
            fn size(&self) -> u64 {
                (**self).size()
            }
            fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
                (**self).read_exact_at(buf, offset)
            }
            fn will_read(&self, offset: u64, bytes: u64) {
                (**self).will_read(offset, bytes);
            }
            fn is_remote(&self) -> bool {
                (**self).is_remote()
            }
        }
    )*};
}
forward_read_at!(&T, Arc<T>, Box<T>);

macro_rules! forward_write_at {
    ($($t:ty),*) => {$(
        impl<T: WriteAt + ?Sized> WriteAt for $t {
            fn sector_size(&self) -> u32 {
                (**self).sector_size()
            }
            fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
                (**self).write_all_at(buf, offset)
            }
            fn barrier(&self) -> io::Result<()> {
                (**self).barrier()
            }
            fn drop_caches(&self) -> io::Result<()> {
                (**self).drop_caches()
            }
            fn drop_written(&self) -> io::Result<()> {
                (**self).drop_written()
            }
            fn check_remembered(&self) -> io::Result<()> {
                (**self).check_remembered()
            }
        }
    )*};
}
forward_write_at!(&T, Arc<T>, Box<T>);

/// Reads `bytes` bytes from `offset` into a new buffer. The caller has bounded `bytes`.
///
/// # Errors
/// As [`ReadAt::read_exact_at`]; a range past the end is found before anything is allocated.
pub fn read_vec(source: &(impl ReadAt + ?Sized), offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
    check_range(source.size(), offset, bytes as u64)?;
    let mut buf = vec![0; bytes];
    source.read_exact_at(&mut buf, offset)?;
    Ok(buf)
}

/// [`io::ErrorKind::UnexpectedEof`] unless `bytes` from `offset` lie inside `size`.
pub(crate) fn check_range(size: u64, offset: u64, bytes: u64) -> io::Result<()> {
    if offset.checked_add(bytes).is_some_and(|end| end <= size) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{bytes} bytes at {offset} do not lie inside the {size} bytes there are"),
    ))
}
