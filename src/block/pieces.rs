//! Parts of a source that read like a source of their own: a partition, a file's extents.

use super::{ReadAt, WriteAt, check_range};
use std::io;

/// A run of bytes inside some source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// One range of a source, for example a partition of a disk. Writable when the source is.
#[derive(Debug, Clone)]
pub struct Window<S> {
    source: S,
    extent: Extent,
}

impl<S: ReadAt> Window<S> {
    /// The bytes of `source` in `extent`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the extent does not lie inside the source.
    pub fn new(source: S, extent: Extent) -> io::Result<Self> {
        check_range(source.size(), extent.offset, extent.bytes)?;
        Ok(Self { source, extent })
    }

    /// Where the window lies in its source.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    fn place(&self, offset: u64, bytes: usize) -> io::Result<u64> {
        check_range(self.extent.bytes, offset, bytes as u64)?;
        Ok(self.extent.offset + offset)
    }
}

impl<S: ReadAt> ReadAt for Window<S> {
    fn size(&self) -> u64 {
        self.extent.bytes
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.source.read_exact_at(buf, self.place(offset, buf.len())?)
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        if check_range(self.extent.bytes, offset, bytes).is_ok() {
            self.source.will_read(self.extent.offset + offset, bytes);
        }
    }

    fn is_remote(&self) -> bool {
        self.source.is_remote()
    }
}

impl<S: WriteAt> WriteAt for Window<S> {
    fn sector_size(&self) -> u32 {
        self.source.sector_size()
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.source.write_all_at(buf, self.place(offset, buf.len())?)
    }

    fn barrier(&self) -> io::Result<()> {
        self.source.barrier()
    }

    fn drop_caches(&self) -> io::Result<()> {
        self.source.drop_caches()
    }

    fn drop_written(&self) -> io::Result<()> {
        self.source.drop_written()
    }

    fn check_remembered(&self) -> io::Result<()> {
        self.source.check_remembered()
    }
}

/// Extents of a source, one behind the other: a file in an ISO or a FAT volume.
#[derive(Debug, Clone)]
pub struct Pieces<S> {
    source: S,
    extents: Vec<Extent>,
    /// Where each extent starts in the whole.
    starts: Vec<u64>,
    bytes: u64,
}

impl<S: ReadAt> Pieces<S> {
    /// The bytes of `source` in `extents`, in that order.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when an extent does not lie inside the source.
    pub fn new(source: S, extents: Vec<Extent>) -> io::Result<Self> {
        let mut starts = Vec::with_capacity(extents.len());
        let mut bytes = 0u64;
        for e in &extents {
            check_range(source.size(), e.offset, e.bytes)?;
            starts.push(bytes);
            bytes = bytes.checked_add(e.bytes).ok_or_else(|| io::Error::other("extents longer than 2^64 bytes"))?;
        }
        Ok(Self { source, extents, starts, bytes })
    }

    /// Where the bytes lie in the source.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The source the extents belong to.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Calls `each` with the source range of every part of `offset..offset + bytes`, in order.
    fn for_each_part(
        &self,
        offset: u64,
        bytes: u64,
        mut each: impl FnMut(u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        check_range(self.bytes, offset, bytes)?;
        let (mut at, end) = (offset, offset + bytes);
        // Empty extents share a start with their successor: take the last extent that starts at or before `at`.
        let mut i = self.starts.partition_point(|s| *s <= at).saturating_sub(1);
        while at < end {
            let inside = at - self.starts[i];
            let part = (self.extents[i].bytes - inside).min(end - at);
            if part > 0 {
                each(self.extents[i].offset + inside, part)?;
            }
            at += part;
            i += 1;
        }
        Ok(())
    }
}

impl<S: ReadAt> ReadAt for Pieces<S> {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut rest = &mut buf[..];
        let bytes = rest.len() as u64;
        self.for_each_part(offset, bytes, |at, part| {
            // A part is never longer than what is left of `buf`.
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(part as usize);
            rest = tail;
            self.source.read_exact_at(head, at)
        })
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        let _ = self.for_each_part(offset, bytes, |at, part| {
            self.source.will_read(at, part);
            Ok(())
        });
    }

    fn is_remote(&self) -> bool {
        self.source.is_remote()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_read_across_their_seams_and_not_past_their_end() {
        let source: Vec<u8> = (0..100).collect();
        let e = |offset, bytes| Extent { offset, bytes };
        let pieces = Pieces::new(&source, vec![e(10, 3), e(50, 0), e(90, 4)]).unwrap();
        assert_eq!(pieces.size(), 7);
        let mut buf = [0; 5];
        pieces.read_exact_at(&mut buf, 1).unwrap();
        assert_eq!(buf, [11, 12, 90, 91, 92]);
        assert!(pieces.read_exact_at(&mut buf, 3).is_err());
        assert!(pieces.read_exact_at(&mut buf, u64::MAX).is_err());
        pieces.read_exact_at(&mut [], 7).unwrap();
        assert!(Pieces::new(&source, vec![e(99, 2)]).is_err());
        assert!(Pieces::new(&source, vec![e(u64::MAX, 2)]).is_err());
    }

    #[test]
    fn a_window_keeps_inside_its_extent() {
        let source: Vec<u8> = (0..100).collect();
        let w = Window::new(&source, Extent { offset: 20, bytes: 10 }).unwrap();
        let mut buf = [0; 2];
        w.read_exact_at(&mut buf, 8).unwrap();
        assert_eq!(buf, [28, 29]);
        assert!(w.read_exact_at(&mut buf, 9).is_err());
        assert!(Window::new(&source, Extent { offset: 95, bytes: 6 }).is_err());
    }
}
