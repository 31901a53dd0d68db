//! A buffered reader that counts, and can look ahead.

use crate::Error;
use std::io::{self, BufRead, Read};

/// Counts what is taken from a reader, marks its errors as errors of the medium, and can look ahead.
pub(super) struct Tally<R> {
    inner: R,
    consumed: u64,
    /// What was looked at and not taken yet.
    ahead: Vec<u8>,
    /// How much of it was taken since.
    taken: usize,
}

impl<R: BufRead> Tally<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, consumed: 0, ahead: Vec::new(), taken: 0 }
    }

    /// Bytes taken so far.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The next bytes, so many or all that are left, without taking them.
    pub(super) fn peek(&mut self, bytes: usize) -> io::Result<&[u8]> {
        if self.ahead.len() - self.taken < bytes {
            self.ahead.drain(..self.taken);
            self.taken = 0;
            while self.ahead.len() < bytes {
                let ready = self.inner.fill_buf().map_err(medium)?;
                if ready.is_empty() {
                    break;
                }
                let n = ready.len().min(bytes - self.ahead.len());
                self.ahead.extend_from_slice(&ready[..n]);
                self.inner.consume(n);
            }
        }
        let ready = &self.ahead[self.taken..];
        Ok(&ready[..ready.len().min(bytes)])
    }
}

fn medium(e: io::Error) -> io::Error {
    Error::io(Error::from(e).to_string()).into()
}

impl<R: BufRead> Read for Tally<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Tally<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken < self.ahead.len() {
            return Ok(&self.ahead[self.taken..]);
        }
        self.inner.fill_buf().map_err(medium)
    }

    fn consume(&mut self, n: usize) {
        self.consumed += n as u64;
        let from_ahead = n.min(self.ahead.len() - self.taken);
        self.taken += from_ahead;
        if n > from_ahead {
            self.inner.consume(n - from_ahead);
        }
    }
}
