//! A stretch of a source as a reader.

use crate::block::ReadAt;
use std::io::{self, Read};

/// A source from some place to another, in order.
pub(super) struct Cursor<'a> {
    source: &'a dyn ReadAt,
    pub(super) at: u64,
    pub(super) end: u64,
}

impl<'a> Cursor<'a> {
    /// From `at` to `end`, which lies inside the source.
    pub(super) fn new(source: &'a dyn ReadAt, at: u64, end: u64) -> Self {
        Self { source, at, end }
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buf.len());
        self.source.read_exact_at(&mut buf[..n], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
