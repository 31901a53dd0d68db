//! Consumers of the one pass over a UKI: the hash of the file, and the initrd on a thread of its own.

use super::initrd::{Initrd, Members, read_initrd};
use super::texts::slice_of;
use crate::block::{Chunk, Extent, Load, Sink};
use crate::sha256::{HashSink, Sha256Stream};
use crate::{Error, Result};
use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// The SHA-256 of everything that comes by.
#[derive(Debug, Default)]
pub struct Sha256Sink(Sha256Stream);

impl Sha256Sink {
    /// Nothing hashed so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.finish()
    }
}

impl HashSink for Sha256Sink {
    fn hashed<'s, 'b>(&'s mut self, bytes: &'b [u8]) -> Result<Option<(&'s mut Sha256Stream, &'b [u8])>> {
        Ok(Some((&mut self.0, bytes)))
    }
}

impl Sink for Sha256Sink {
    fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.update(bytes);
        Ok(())
    }
}

/// How many pieces may wait for the decompressor; more would only be memory.
const WAITING: usize = 2;

/// Reads the initrd out of a stream of the whole file.
///
/// Decompressors and the archive reader pull, a stream pushes: the reading is done by a thread that waits for pieces on
/// a bounded channel. An initrd that is malformed does not end the pass for the other sinks: it is the outcome of
/// [`Self::finish`].
#[derive(Debug)]
pub struct InitrdSink {
    extent: Extent,
    at: u64,
    /// `None` as soon as nobody listens any more.
    inlet: Option<SyncSender<Piece>>,
    worker: JoinHandle<Result<Initrd>>,
}

impl InitrdSink {
    /// For the initrd at `extent` of the file; `members` gets the content of the files it wants.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when the system has no thread left.
    pub fn new(extent: Extent, mut members: impl Members + 'static) -> Result<Self> {
        let (inlet, outlet) = sync_channel(WAITING);
        let input = Pieces { outlet, chunk: Chunk::default(), range: 0..0, missing: extent.bytes };
        let worker =
            std::thread::Builder::new().name("initrd".into()).spawn(move || read_initrd(input, &mut members))?;
        Ok(Self { extent, at: 0, inlet: Some(inlet), worker })
    }

    /// What the initrd holds. Waits until it is read.
    ///
    /// # Errors
    /// As [`read_initrd`]; [`crate::Kind::Io`] when the stream ended before the initrd did.
    pub fn finish(self) -> Result<Initrd> {
        drop(self.inlet);
        self.worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Sink for InitrdSink {
    fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        // Somebody drives this sink without shared chunks: copy what concerns it.
        let part = slice_of(bytes, self.at, self.extent);
        if !part.is_empty()
            && let Some(inlet) = &self.inlet
            && inlet.send(Piece { range: 0..part.len(), chunk: Arc::new(part.to_vec()) }).is_err()
        {
            self.inlet = None;
        }
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn shared(&mut self, chunk: &Chunk) -> Result<()> {
        let part = slice_of(chunk, self.at, self.extent);
        if !part.is_empty()
            && let Some(inlet) = &self.inlet
        {
            let start = self.extent.offset.saturating_sub(self.at) as usize;
            // The reader has failed and says why in `finish`.
            if inlet.send(Piece { range: start..start + part.len(), chunk: Arc::clone(chunk) }).is_err() {
                self.inlet = None;
            }
        }
        self.at += chunk.len() as u64;
        Ok(())
    }

    fn load(&self) -> Load {
        Load::Light
    }
}

/// The part of a chunk that belongs to the initrd.
#[derive(Debug)]
struct Piece {
    chunk: Chunk,
    range: Range<usize>,
}

/// The other end of the channel.
struct Pieces {
    outlet: Receiver<Piece>,
    chunk: Chunk,
    /// What of `chunk` is not read yet.
    range: Range<usize>,
    /// Bytes that have not come out of the channel yet.
    missing: u64,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.range.is_empty() && self.missing > 0 {
            let Ok(piece) = self.outlet.recv() else {
                return Err(Error::io("the image ended before its initrd").into());
            };
            self.missing = self.missing.saturating_sub(piece.range.len() as u64);
            self.range = piece.range;
            self.chunk = piece.chunk;
        }
        Ok(&self.chunk[self.range.clone()])
    }

    fn consume(&mut self, n: usize) {
        self.range.start = (self.range.start + n).min(self.range.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::testkit::uki::{cpio, zstd};

    fn file() -> (Vec<u8>, Extent) {
        let archive = cpio(&[("0.sqsh", &[7; 9000]), ("extensions.yaml", b"layers: []")]).unwrap();
        let initrd = zstd(&archive, 1).unwrap();
        let extent = Extent { offset: 1000, bytes: initrd.len() as u64 };
        ([vec![0xEE; 1000], initrd, vec![0xEE; 1000]].concat(), extent)
    }

    #[test]
    fn the_initrd_is_read_from_a_stream_in_any_pieces() {
        let (file, extent) = file();
        for piece in [1, 13, 999, 100_000] {
            for shared in [false, true] {
                let mut sink = InitrdSink::new(extent, ()).unwrap();
                for chunk in file.chunks(piece) {
                    if shared { sink.shared(&Arc::new(chunk.to_vec())) } else { sink.chunk(chunk) }.unwrap();
                }
                let initrd = sink.finish().unwrap();
                assert_eq!((initrd.entries(), initrd.squashfs.len()), (2, 1));
            }
        }
    }

    #[test]
    fn a_malformed_initrd_leaves_the_pass_alone() {
        let (mut file, extent) = file();
        file[1000] = 0xEE;
        let mut sink = InitrdSink::new(extent, ()).unwrap();
        for _ in 0..100 {
            sink.chunk(&file).unwrap();
        }
        assert_eq!(sink.finish().unwrap_err().kind(), Kind::Rejected);
    }

    #[test]
    fn a_pass_that_ends_early_is_an_error_and_no_hang() {
        let (file, extent) = file();
        let mut sink = InitrdSink::new(extent, ()).unwrap();
        sink.chunk(&file[..1010]).unwrap();
        assert_eq!(sink.finish().unwrap_err().kind(), Kind::Io);
        drop(InitrdSink::new(extent, ()).unwrap());
    }
}
