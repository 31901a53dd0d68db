//! One pass over a source for several consumers: a 120 MB image is read once, however many hashes are taken of it.

use super::{ReadAt, check_range};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A shared piece of the stream.
pub type Chunk = Arc<Vec<u8>>;

/// Size of a chunk in bytes, and how many of them may wait for the slowest consumer. The consumers share the chunks:
/// memory is bounded by the product, and by what a consumer holds back.
const CHUNK: usize = 1024 * 1024;
const WAITING: usize = 4;

/// What it takes to hand a chunk to a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Next to nothing: counting it, picking out a few bytes, handing it on. Whoever reads does that, and reads no
    /// further until it is done.
    Light,
    /// A processor.
    Compute,
    /// Waiting for a device.
    Wait,
}

/// Takes a stream in order, chunk by chunk.
pub trait Sink: Send {
    /// The next bytes of the stream.
    ///
    /// # Errors
    /// Ends the whole pass.
    fn chunk(&mut self, bytes: &[u8]) -> Result<()>;

    /// The same for a sink that hands the bytes to yet another thread, and need not copy them for that.
    ///
    /// # Errors
    /// As [`Self::chunk`].
    fn shared(&mut self, chunk: &Chunk) -> Result<()> {
        self.chunk(chunk)
    }

    /// What a chunk takes.
    fn load(&self) -> Load {
        Load::Compute
    }
}

impl<F: FnMut(&[u8]) -> Result<()> + Send> Sink for F {
    fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        self(bytes)
    }
}

/// A sink that is [`Load::Light`].
#[derive(Debug)]
pub struct Light<F>(pub F);

impl<F: FnMut(&[u8]) -> Result<()> + Send> Sink for Light<F> {
    fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        (self.0)(bytes)
    }

    fn load(&self) -> Load {
        Load::Light
    }
}

/// Reads `bytes` bytes of `source` from `offset` once, in order, and hands every chunk to every sink, in order. As many
/// threads as there are processors share the work: one reads as long as there is room for chunks, the others serve the
/// sink that is furthest behind; [`Load::Light`] sinks are served by whoever has just read the chunk. The first failure
/// (of a sink or of the source) ends the pass and is returned.
///
/// # Errors
/// What a sink or the source reports.
pub fn fan_out(source: &dyn ReadAt, offset: u64, bytes: u64, sinks: &mut [&mut dyn Sink]) -> Result<()> {
    check_range(source.size(), offset, bytes)?;
    source.will_read(offset, bytes);
    let (mut light, mut heavy) = (Vec::<&mut dyn Sink>::new(), Vec::<&mut dyn Sink>::new());
    let mut waiting = 0;
    for sink in sinks {
        waiting += usize::from(sink.load() == Load::Wait);
        let kind = if sink.load() == Load::Light { &mut light } else { &mut heavy };
        kind.push(&mut **sink);
    }
    // Of one chunk nothing can be read while it is served. Else two at least: the source may wait, too. No more than
    // there are things to do at a time.
    let threads = match bytes <= CHUNK as u64 {
        true => 1,
        false => {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            (processors + waiting).clamp(2, (heavy.len() + 1).max(2))
        }
    };
    let pass = Pass::new(Reader { source, at: offset, end: offset + bytes, light }, heavy);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| pass.work())).collect();
        pass.work();
        for other in others {
            if let Err(panic) = other.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    pass.state.into_inner().unwrap_or_else(PoisonError::into_inner).failed.map_or(Ok(()), Err)
}

/// The source, and the sinks that a chunk goes to at once.
struct Reader<'a> {
    source: &'a dyn ReadAt,
    at: u64,
    end: u64,
    light: Vec<&'a mut dyn Sink>,
}

impl Reader<'_> {
    /// The next chunk, in this memory.
    fn read(&mut self, mut memory: Vec<u8>) -> Result<Chunk> {
        memory.resize((self.end - self.at).min(CHUNK as u64) as usize, 0);
        self.source.read_exact_at(&mut memory, self.at)?;
        self.at += memory.len() as u64;
        let chunk = Arc::new(memory);
        for sink in &mut self.light {
            sink.shared(&chunk)?;
        }
        Ok(chunk)
    }
}

/// A pass under way.
struct Pass<'a> {
    state: Mutex<State<'a>>,
    changed: Condvar,
}

struct State<'a> {
    /// `None` while somebody reads.
    reader: Option<Reader<'a>>,
    /// Everything was read.
    ended: bool,
    /// Chunks that some sink has not taken yet, and the number of the first of them.
    chunks: VecDeque<Chunk>,
    first: usize,
    /// Chunks that every sink has taken, for their memory: fresh memory is a page fault for every page. A sink may have
    /// handed one on, so that it is still in use.
    taken: Vec<Chunk>,
    /// The sinks, `None` while somebody serves one, and the number of the chunk that each gets next.
    sinks: Vec<(Option<&'a mut dyn Sink>, usize)>,
    /// How many threads wait for a change.
    waiting: usize,
    failed: Option<Error>,
    /// A thread has panicked: nobody must wait for what it was doing.
    panicked: bool,
}

/// A piece of work.
enum Task<'a> {
    Read(Reader<'a>, Vec<u8>),
    Serve(usize, &'a mut dyn Sink, Chunk),
}

impl<'a> State<'a> {
    fn is_over(&self) -> bool {
        self.failed.is_some() || self.panicked || (self.ended && self.chunks.is_empty())
    }

    /// What is to be done next, if there is anything that nobody is at.
    fn task(&mut self) -> Option<Task<'a>> {
        if self.chunks.len() < WAITING
            && !self.ended
            && let Some(reader) = self.reader.take()
        {
            return Some(Task::Read(reader, self.memory()));
        }
        let end = self.first + self.chunks.len();
        let idle = self.sinks.iter_mut().enumerate().filter(|(_, (sink, next))| sink.is_some() && *next < end);
        let (i, (sink, next)) = idle.min_by_key(|(_, (_, next))| *next)?;
        let chunk = Arc::clone(self.chunks.get(*next - self.first)?);
        Some(Task::Serve(i, sink.take()?, chunk))
    }

    /// Memory for a chunk.
    fn memory(&mut self) -> Vec<u8> {
        let free = self.taken.iter_mut().position(|chunk| Arc::get_mut(chunk).is_some());
        free.and_then(|i| Arc::into_inner(self.taken.swap_remove(i))).unwrap_or_default()
    }

    /// Puts the chunks aside that every sink has taken.
    fn put_aside(&mut self) {
        let end = self.first + self.chunks.len();
        let first = self.sinks.iter().map(|(_, next)| *next).min().unwrap_or(end);
        self.taken.extend(self.chunks.drain(..first - self.first));
        self.taken.truncate(WAITING);
        self.first = first;
    }
}

impl<'a> Pass<'a> {
    fn new(reader: Reader<'a>, sinks: Vec<&'a mut dyn Sink>) -> Self {
        let state = State {
            ended: reader.at == reader.end,
            reader: Some(reader),
            chunks: VecDeque::new(),
            first: 0,
            taken: Vec::new(),
            sinks: sinks.into_iter().map(|sink| (Some(sink), 0)).collect(),
            waiting: 0,
            failed: None,
            panicked: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is to be done until nothing is left.
    fn work(&self) {
        let _watch = Watch(self);
        let mut state = self.lock();
        while !state.is_over() {
            let Some(task) = state.task() else {
                state.waiting += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.waiting -= 1;
                continue;
            };
            drop(state);
            let outcome = match task {
                Task::Read(mut reader, memory) => {
                    let chunk = reader.read(memory);
                    state = self.lock();
                    state.ended = reader.at == reader.end;
                    state.reader = Some(reader);
                    chunk.map(|chunk| state.chunks.push_back(chunk))
                }
                Task::Serve(i, sink, chunk) => {
                    let outcome = sink.shared(&chunk);
                    drop(chunk);
                    state = self.lock();
                    let next = state.sinks[i].1 + 1;
                    state.sinks[i] = (Some(sink), next);
                    outcome
                }
            };
            if let Err(e) = outcome {
                state.failed.get_or_insert(e);
            }
            state.put_aside();
            if state.waiting > 0 {
                self.changed.notify_all();
            }
        }
    }
}

/// Tells the others when its thread panics.
struct Watch<'p, 'a>(&'p Pass<'a>);

impl Drop for Watch<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().panicked = true;
            self.0.changed.notify_all();
        }
    }
}

/// SHA-256 of the first `bytes` bytes of a source.
///
/// # Errors
/// What the source reports.
pub fn sha256_of(source: &dyn ReadAt, bytes: u64) -> Result<[u8; 32]> {
    sha256_watched(source, bytes, &mut |_, _| Ok(()))
}

/// Is told how many bytes are done, of so many; its failure ends the pass.
pub type Watching<'a> = dyn FnMut(u64, u64) -> Result<()> + Send + 'a;

/// As [`sha256_of`], with somebody who watches.
///
/// # Errors
/// What the source reports, or who watches.
pub fn sha256_watched(source: &dyn ReadAt, bytes: u64, watching: &mut Watching<'_>) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut done = 0;
    let mut watch = Light(|chunk: &[u8]| {
        done += chunk.len() as u64;
        watching(done, bytes)
    });
    let mut sink = |chunk: &[u8]| -> Result<()> {
        hash.update(chunk);
        Ok(())
    };
    fan_out(source, 0, bytes, &mut [&mut watch, &mut sink])?;
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sink_gets_every_byte_in_order() {
        let source: Vec<u8> = (0..3 * CHUNK + 17).map(|i| (i % 251) as u8).collect();
        let (mut a, mut b) = (Vec::new(), 0u64);
        let mut first = |bytes: &[u8]| -> Result<()> {
            a.extend_from_slice(bytes);
            Ok(())
        };
        let mut second = |bytes: &[u8]| -> Result<()> {
            b += bytes.len() as u64;
            Ok(())
        };
        fan_out(&source, 5, source.len() as u64 - 5, &mut [&mut first, &mut second]).unwrap();
        assert_eq!(a, source[5..]);
        assert_eq!(b, source.len() as u64 - 5);
    }

    #[test]
    fn sinks_of_every_load_see_the_same() {
        struct Slow(Vec<u8>);
        impl Sink for Slow {
            fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
                std::thread::sleep(std::time::Duration::from_millis(2));
                self.0.extend_from_slice(bytes);
                Ok(())
            }
            fn load(&self) -> Load {
                Load::Wait
            }
        }
        /// Holds on to every chunk, as one that hands them to another thread.
        struct Keeps(Vec<Chunk>);
        impl Sink for Keeps {
            fn chunk(&mut self, _: &[u8]) -> Result<()> {
                unreachable!("chunks are shared");
            }
            fn shared(&mut self, chunk: &Chunk) -> Result<()> {
                self.0.push(Arc::clone(chunk));
                Ok(())
            }
            fn load(&self) -> Load {
                Load::Light
            }
        }
        let source: Vec<u8> =
            (0..(3 * WAITING * CHUNK + 5) as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (mut slow, mut keeps, mut seen) = (Slow(Vec::new()), Keeps(Vec::new()), Vec::new());
        let mut quick = |bytes: &[u8]| -> Result<()> {
            seen.extend_from_slice(bytes);
            Ok(())
        };
        fan_out(&source, 0, source.len() as u64, &mut [&mut slow, &mut keeps, &mut quick]).unwrap();
        assert!(slow.0 == source && seen == source && keeps.0.iter().flat_map(|c| c.iter()).eq(&source));
        // Nobody there, nothing there.
        fan_out(&source, 0, source.len() as u64, &mut []).unwrap();
        fan_out(&source, 7, 0, &mut [&mut slow]).unwrap();
        assert_eq!(slow.0.len(), source.len());
    }

    #[test]
    fn a_sink_that_panics_takes_the_pass_with_it() {
        let source = vec![0; 9 * CHUNK];
        let mut bad = |_: &[u8]| -> Result<()> { panic!("as a test") };
        let (mut a, mut b) = (|_: &[u8]| -> Result<()> { Ok(()) }, |_: &[u8]| -> Result<()> { Ok(()) });
        let pass =
            std::panic::AssertUnwindSafe(|| fan_out(&source, 0, source.len() as u64, &mut [&mut a, &mut bad, &mut b]));
        assert!(std::panic::catch_unwind(pass).is_err());
    }

    #[test]
    fn a_sink_that_fails_ends_the_pass() {
        let source = vec![0; 64 * CHUNK];
        let mut bad = |_: &[u8]| -> Result<()> { Err(Error::rejected("no")) };
        let mut good = |_: &[u8]| -> Result<()> { Ok(()) };
        let e = fan_out(&source, 0, source.len() as u64, &mut [&mut good, &mut bad]).unwrap_err();
        assert_eq!(e.to_string(), "no");
    }
}
