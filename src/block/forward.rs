//! What is kept of bytes that come by once, so that headers can be looked at before the whole is read.

use crate::{Error, Result};
use std::collections::VecDeque;
use std::io;

/// How much of the beginning is kept, in bytes. The directories of a Talos ISO end within the first MiB.
const BEGINNING: usize = 4 << 20;
/// How much behind the reading position is kept.
const WINDOW: usize = 2 << 20;

/// The beginning of what came, and a window of what came last.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    beginning: Vec<u8>,
    /// The last bytes that came; they end at `at`.
    window: VecDeque<u8>,
    at: u64,
}

impl Kept {
    /// How many bytes have come.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The next bytes.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        // At once: to grow step by step would take twice as much. What is not written to takes no memory.
        self.beginning.reserve_exact(BEGINNING - self.beginning.len());
        self.window.reserve_exact(WINDOW - self.window.len());
        let room = BEGINNING - self.beginning.len();
        self.beginning.extend_from_slice(&chunk[..chunk.len().min(room)]);
        let last = &chunk[chunk.len().saturating_sub(WINDOW)..];
        let surplus = (self.window.len() + last.len()).saturating_sub(WINDOW);
        self.window.drain(..surplus);
        self.window.extend(last);
        self.at += chunk.len() as u64;
    }

    /// What is kept from `offset` on, as much as fits into `buf`. Returns how much that was; `None` where nothing is
    /// kept.
    pub(crate) fn take(&self, buf: &mut [u8], offset: u64) -> Option<usize> {
        if let Some(kept) =
            usize::try_from(offset).ok().and_then(|at| self.beginning.get(at..)).filter(|k| !k.is_empty())
        {
            let n = kept.len().min(buf.len());
            buf[..n].copy_from_slice(&kept[..n]);
            return Some(n);
        }
        let start = self.at - self.window.len() as u64;
        let from = usize::try_from(offset.checked_sub(start)?).ok().filter(|from| *from <= self.window.len())?;
        let n = (self.window.len() - from).min(buf.len());
        for (to, byte) in buf.iter_mut().zip(self.window.range(from..from + n)) {
            *to = *byte;
        }
        Some(n)
    }
}

/// Fills `buf` from `offset` of a source whose bytes come by once: from what is kept, or with `advance` until it has
/// come. `gone` is the error for a byte that came by and is not kept.
///
/// # Errors
/// As `advance` and `gone`.
pub(crate) fn fill<S: AsRef<Kept>>(
    state: &mut S,
    buf: &mut [u8],
    offset: u64,
    mut advance: impl FnMut(&mut S) -> Result<()>,
    gone: impl FnOnce(u64) -> Error,
) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset + done as u64;
        let kept = state.as_ref();
        match kept.take(&mut buf[done..], at) {
            Some(n) if n > 0 => done += n,
            None if at < kept.at() => return Err(gone(at).into()),
            _ => advance(state)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_window_are_kept_and_what_lies_between_is_gone() {
        let bytes: Vec<u8> = (0..(9 << 20)).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut kept = Kept::default();
        bytes.chunks(70_001).for_each(|chunk| kept.push(chunk));
        assert_eq!(kept.at(), bytes.len() as u64);
        assert!(kept.beginning.capacity() == BEGINNING && kept.window.capacity() == WINDOW);
        let mut buf = [0; 100];
        for at in [0, 5, BEGINNING - 100, bytes.len() - WINDOW, bytes.len() - 100] {
            assert_eq!(kept.take(&mut buf, at as u64), Some(100));
            assert_eq!(buf, bytes[at..at + 100], "{at}");
        }
        assert_eq!(kept.take(&mut buf, BEGINNING as u64 - 7), Some(7));
        assert_eq!(kept.take(&mut buf, bytes.len() as u64), Some(0));
        assert_eq!(kept.take(&mut buf, BEGINNING as u64), None);
        assert_eq!(kept.take(&mut buf, (bytes.len() - WINDOW) as u64 - 1), None);
    }
}
