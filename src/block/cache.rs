//! What was read once need not be read again: the allocation table, directories and headers of a volume, which every
//! step of an operation looks at.
//!
//! Only short reads are kept, so that what an image holds goes by. What is kept is true as long as nobody else writes:
//! of a medium that was claimed, or for one look at one that is only read. A write goes through, and what it changed is
//! read from the medium again after [`WriteAt::drop_written`]: the cache never vouches for what the medium took.

use super::{Extent, ReadAt, WriteAt, check_range};
use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The unit that is kept, in bytes: a multiple of every sector size.
const PAGE: u64 = 4096;
/// Reads of up to so many bytes are kept.
pub(crate) const KEPT_READ: usize = 64 * 1024;
/// Of pages that follow each other the first so many, and then one of so many, are samples: all of a small directory, and
/// enough of a table, since what is put in a wrong place is longer than that.
const SAMPLED: u64 = 8;
/// So many pages are kept at most: 6 MiB, both copies of the table of 2 GiB in clusters of 4 KiB and half as much again.
const MOST: usize = 1536;

/// A source or medium with a memory of what was read.
#[derive(Debug)]
pub struct Cached<S> {
    source: S,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pages: HashMap<u64, Box<[u8]>>,
    /// The page that is there although there are as many as may be, until the next one comes: whoever reads a header reads
    /// it in small parts.
    surplus: Option<u64>,
    /// What was written since caches were dropped, kept or not.
    written: Vec<Extent>,
}

impl<S: ReadAt> Cached<S> {
    /// Nothing is kept yet.
    pub fn new(source: S) -> Self {
        Self { source, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the pages `from..to`, of which none is kept, and keeps them; where there is no room, the last one.
    fn load(&self, state: &mut State, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let begin = from * PAGE;
        let mut bytes = vec![0; (self.source.size().min(to * PAGE) - begin) as usize];
        self.source.read_exact_at(&mut bytes, begin)?;
        for (page, bytes) in (from..to).zip(bytes.chunks(PAGE as usize)) {
            if state.pages.len() >= MOST {
                if page + 1 < to {
                    continue;
                }
                if let Some(surplus) = state.surplus.replace(page) {
                    state.pages.remove(&surplus);
                }
            }
            state.pages.insert(page, bytes.into());
        }
        Ok(bytes)
    }
}

/// The pages in which a range lies.
fn pages(offset: u64, bytes: u64) -> std::ops::Range<u64> {
    offset / PAGE..(offset + bytes).div_ceil(PAGE)
}

/// Copies what a page, or several that follow each other, and a range have in common. `at` is where the page begins.
fn copy_common(page: &[u8], at: u64, buf: &mut [u8], offset: u64) {
    let begin = at.max(offset);
    let end = (at + page.len() as u64).min(offset + buf.len() as u64);
    if begin < end {
        let bytes = (end - begin) as usize;
        buf[(begin - offset) as usize..][..bytes].copy_from_slice(&page[(begin - at) as usize..][..bytes]);
    }
}

impl<S: ReadAt> ReadAt for Cached<S> {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, buf.len() as u64)?;
        if buf.len() > KEPT_READ {
            return self.source.read_exact_at(buf, offset);
        }
        let mut state = self.state();
        let all = pages(offset, buf.len() as u64);
        let mut page = all.start;
        while page < all.end {
            if let Some(kept) = state.pages.get(&page) {
                copy_common(kept, page * PAGE, buf, offset);
                page += 1;
                continue;
            }
            let upto = (page + 1..all.end).find(|p| state.pages.contains_key(p)).unwrap_or(all.end);
            let bytes = self.load(&mut state, page, upto)?;
            copy_common(&bytes, page * PAGE, buf, offset);
            page = upto;
        }
        Ok(())
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        self.source.will_read(offset, bytes);
    }

    fn is_remote(&self) -> bool {
        self.source.is_remote()
    }
}

impl<S: WriteAt> WriteAt for Cached<S> {
    fn sector_size(&self) -> u32 {
        self.source.sector_size()
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, buf.len() as u64)?;
        let bytes = buf.len() as u64;
        let mut state = self.state();
        match state.written.last_mut() {
            Some(last) if last.offset + last.bytes == offset => last.bytes += bytes,
            _ => state.written.push(Extent { offset, bytes }),
        }
        let outcome = self.source.write_all_at(buf, offset);
        for page in pages(offset, bytes) {
            if outcome.is_err() {
                // Nobody knows how much of it was written.
                state.pages.remove(&page);
            } else if let Some(kept) = state.pages.get_mut(&page) {
                copy_common(buf, offset, kept, page * PAGE);
            }
        }
        outcome
    }

    fn barrier(&self) -> io::Result<()> {
        self.source.barrier()
    }

    fn drop_caches(&self) -> io::Result<()> {
        *self.state() = State::default();
        self.source.drop_caches()
    }

    fn drop_written(&self) -> io::Result<()> {
        let mut state = self.state();
        for extent in std::mem::take(&mut state.written) {
            let of_it = pages(extent.offset, extent.bytes);
            state.pages.retain(|page, _| !of_it.contains(page));
        }
        drop(state);
        self.source.drop_written()
    }

    fn check_remembered(&self) -> io::Result<()> {
        let state = self.state();
        let is_sample = |page: u64| {
            page % SAMPLED == 0 || (1..=SAMPLED).any(|n| page < n || !state.pages.contains_key(&(page - n)))
        };
        let is_written = |page: u64| state.written.iter().any(|e| pages(e.offset, e.bytes).contains(&page));
        for (page, kept) in state.pages.iter().filter(|(page, _)| is_sample(**page) && !is_written(**page)) {
            let mut there = vec![0; kept.len()];
            self.source.read_exact_at(&mut there, page * PAGE)?;
            if there != **kept {
                let what = format!("byte {} and what follows are not what they were before", page * PAGE);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Memory, read_vec};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Counts the bytes that are read of it, and forgets a write at `lost`, as soon as caches are dropped.
    struct Counted {
        memory: Memory,
        read: AtomicU64,
        lost: Mutex<Option<u64>>,
    }

    impl Counted {
        fn new(bytes: usize) -> Self {
            let bytes: Vec<u8> = (0..bytes).map(|i| (i / 512) as u8).collect();
            Self { memory: Memory::new(bytes), read: AtomicU64::new(0), lost: Mutex::default() }
        }

        fn read(&self) -> u64 {
            self.read.swap(0, Ordering::Relaxed)
        }
    }

    impl ReadAt for Counted {
        fn size(&self) -> u64 {
            self.memory.size()
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
            self.memory.read_exact_at(buf, offset)
        }
    }

    impl WriteAt for Counted {
        fn sector_size(&self) -> u32 {
            512
        }

        fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
            self.memory.write_all_at(buf, offset)
        }

        fn barrier(&self) -> io::Result<()> {
            Ok(())
        }

        fn drop_caches(&self) -> io::Result<()> {
            self.lost.lock().unwrap().map_or(Ok(()), |at| self.memory.write_all_at(&[0xEE; 512], at))
        }
    }

    #[test]
    fn what_was_read_is_not_read_again_and_long_reads_go_by() {
        let below = Counted::new(1 << 20);
        let cached = Cached::new(&below);
        assert_eq!(read_vec(&cached, 700, 3).unwrap(), [1; 3]);
        assert_eq!(below.read(), PAGE);
        // What lies around a page that is there is read in one go each, and that page not again.
        assert_eq!(read_vec(&cached, 0, KEPT_READ).unwrap(), read_vec(&below.memory, 0, KEPT_READ).unwrap());
        assert_eq!(below.read(), KEPT_READ as u64 - PAGE);
        read_vec(&cached, 5000, 60_000).unwrap();
        assert_eq!(below.read(), 0);
        for _ in 0..2 {
            read_vec(&cached, 0, KEPT_READ + 1).unwrap();
            assert_eq!(below.read(), KEPT_READ as u64 + 1);
        }
    }

    #[test]
    fn every_range_reads_as_it_is_also_at_the_end_and_between_writes() {
        let below = Counted::new(50_000 / 512 * 512);
        let cached = Cached::new(&below);
        let mut random = 1_u64;
        let mut draw = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % limit
        };
        for turn in 0..3000 {
            let offset = draw(below.size());
            let bytes = draw(below.size() - offset + 1);
            assert_eq!(read_vec(&cached, offset, bytes as usize).unwrap(), {
                read_vec(&below.memory, offset, bytes as usize).unwrap()
            });
            match draw(4) {
                0 => cached.drop_written().unwrap(),
                1 => cached.drop_caches().unwrap(),
                _ => {
                    let sector = draw(below.size() / 512);
                    let sectors = draw((below.size() / 512 - sector).min(20)) + 1;
                    cached.write_all_at(&vec![turn as u8; 512 * sectors as usize], 512 * sector).unwrap();
                }
            }
        }
        assert!(read_vec(&cached, below.size() - 1, 2).is_err());
    }

    #[test]
    fn what_was_written_is_read_back_from_the_medium_whether_it_was_kept_or_not() {
        for kept_before in [false, true] {
            let below = Counted::new(1 << 20);
            let cached = Cached::new(&below);
            read_vec(&cached, 65_536, 512).unwrap();
            if kept_before {
                read_vec(&cached, 8192, 512).unwrap();
            }
            *below.lost.lock().unwrap() = Some(8192);
            cached.write_all_at(&[0xAA; 512], 8192).unwrap();
            // As from any cache, until it is dropped.
            assert_eq!(read_vec(&cached, 8192, 512).unwrap(), [0xAA; 512]);
            cached.drop_written().unwrap();
            below.read();
            assert_eq!(read_vec(&cached, 8192, 512).unwrap(), [0xEE; 512], "the medium has lost it");
            assert_eq!(below.read(), PAGE);
            read_vec(&cached, 65_536, 512).unwrap();
            assert_eq!(below.read(), 0, "nobody has written there");
            cached.drop_caches().unwrap();
            read_vec(&cached, 65_536, 512).unwrap();
            assert_eq!(below.read(), PAGE, "whatever somebody else may have written");
        }
    }

    #[test]
    fn what_is_remembered_is_looked_for_on_the_medium() {
        let below = Counted::new(1 << 20);
        let cached = Cached::new(&below);
        read_vec(&cached, 0, KEPT_READ).unwrap();
        read_vec(&cached, 500_000, 10).unwrap();
        cached.write_all_at(&[0xAA; 512], 4096).unwrap();
        cached.drop_written().unwrap();
        below.read();
        cached.check_remembered().unwrap();
        // Of 16 pages the first, eight behind the one that was written, and the one by itself.
        assert_eq!(below.read(), 10 * PAGE);
        for at in [0, 8192, 9 * PAGE, 500_000 / PAGE * PAGE] {
            let before = read_vec(&below.memory, at, 512).unwrap();
            below.memory.write_all_at(&[0xEE; 512], at).unwrap();
            let e = cached.check_remembered().unwrap_err();
            assert!(e.to_string().starts_with(&format!("byte {at} ")), "{e}");
            below.memory.write_all_at(&before, at).unwrap();
        }
        // What was written and is still in a cache says nothing.
        cached.write_all_at(&[0xBB; 512], 0).unwrap();
        below.memory.write_all_at(&[0xEE; 512], 0).unwrap();
        cached.check_remembered().unwrap();
    }

    #[test]
    fn memory_is_bounded() {
        let below = Counted::new(3 * MOST * PAGE as usize);
        let cached = Cached::new(&below);
        for at in (0..below.size()).step_by(KEPT_READ) {
            read_vec(&cached, at, KEPT_READ).unwrap();
        }
        assert_eq!(cached.state().pages.len(), MOST + 1);
        below.read();
        read_vec(&cached, below.size() - 100, 100).unwrap();
        assert_eq!(below.read(), 0, "the last page is still there");
    }
}
