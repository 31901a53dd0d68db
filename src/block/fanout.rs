//! One pass over a source for several consumers: a 120 MB image is read once, however many hashes are taken of it.

use super::{ReadAt, check_range};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

/// A shared piece of the stream.
pub type Chunk = Arc<Vec<u8>>;

/// Size of a chunk in bytes, and how many of them may wait for a slow consumer: memory is bounded by their product
/// times the number of consumers.
const CHUNK: usize = 512 * 1024;
const WAITING: usize = 4;

/// Takes a stream in order, chunk by chunk, on a thread of its own.
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
}

impl<F: FnMut(&[u8]) -> Result<()> + Send> Sink for F {
    fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        self(bytes)
    }
}

/// Reads `bytes` bytes of `source` from `offset` once, in order, and hands every chunk to every sink. Each sink runs on
/// its own thread. The first failure (of a sink, else of the source) ends the pass and is returned.
///
/// # Errors
/// What a sink or the source reports.
pub fn fan_out(source: &dyn ReadAt, offset: u64, bytes: u64, sinks: &mut [&mut dyn Sink]) -> Result<()> {
    check_range(source.size(), offset, bytes)?;
    source.will_read(offset, bytes);
    std::thread::scope(|scope| {
        let mut inlets = Vec::with_capacity(sinks.len());
        let mut workers = Vec::with_capacity(sinks.len());
        for sink in sinks.iter_mut() {
            let (inlet, outlet) = sync_channel::<Chunk>(WAITING);
            inlets.push(inlet);
            workers.push(scope.spawn(move || -> Result<()> {
                for chunk in outlet {
                    sink.shared(&chunk)?;
                }
                Ok(())
            }));
        }
        let read = || -> Result<()> {
            let (mut at, end) = (offset, offset + bytes);
            while at < end {
                let n = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
                let mut buf = vec![0; n];
                source.read_exact_at(&mut buf, at)?;
                at += n as u64;
                let chunk = Arc::new(buf);
                for inlet in &inlets {
                    if inlet.send(Arc::clone(&chunk)).is_err() {
                        return Ok(()); // that worker has failed and says why below
                    }
                }
            }
            Ok(())
        };
        let outcome = read();
        drop(inlets);
        let mut failed = None;
        for worker in workers {
            match worker.join() {
                Ok(Ok(())) => {}
                Ok(Err(e)) => failed = failed.or(Some(e)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        failed.map_or(outcome, Err::<(), Error>)
    })
}

/// SHA-256 of the first `bytes` bytes of a source.
///
/// # Errors
/// What the source reports.
pub fn sha256_of(source: &dyn ReadAt, bytes: u64) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut sink = |chunk: &[u8]| -> Result<()> {
        hash.update(chunk);
        Ok(())
    };
    fan_out(source, 0, bytes, &mut [&mut sink])?;
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
    fn a_sink_that_fails_ends_the_pass() {
        let source = vec![0; 64 * CHUNK];
        let mut bad = |_: &[u8]| -> Result<()> { Err(Error::rejected("no")) };
        let mut good = |_: &[u8]| -> Result<()> { Ok(()) };
        let e = fan_out(&source, 0, source.len() as u64, &mut [&mut good, &mut bad]).unwrap_err();
        assert_eq!(e.to_string(), "no");
    }
}
