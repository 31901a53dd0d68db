//! A remote file from a server without ranges, as a block source that can only go forward.
//!
//! The transfer runs on a thread of its own and waits while nobody reads. Kept are the beginning of the file, where an
//! ISO has its directories, and a window behind the reading position, so that headers can be looked at before the whole
//! is read. Going back further is an error; whoever needs that has to download the file first.

use super::http::network;
use super::options::{Options, TransferEvent};
use super::remote::stream;
use crate::block::{Kept, ReadAt, check_range, fill};
use crate::{Error, Kind, Result};
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Chunks that may wait for the reader.
const WAITING: usize = 2;
/// How often the cancel flag is looked at while nothing comes.
const TICK: Duration = Duration::from_millis(100);

/// A remote file that is read once, from front to back.
pub struct SequentialSource {
    bytes: u64,
    state: Mutex<State>,
    wire: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

struct State {
    chunks: Receiver<Vec<u8>>,
    /// Takes chunks back, for their memory.
    spares: Sender<Vec<u8>>,
    cancel: Arc<AtomicBool>,
    transfer: Option<JoinHandle<Result<u64>>>,
    kept: Kept,
}

impl SequentialSource {
    /// Asks for the file and waits for its first bytes. `None` when the server does not say how long it is.
    ///
    /// # Errors
    /// As [`super::fetch`].
    pub fn open(
        url: &str,
        options: &Options,
        cancel: Arc<AtomicBool>,
        events: &mut dyn FnMut(TransferEvent),
    ) -> Result<Option<Self>> {
        let (chunk_in, chunks) = sync_channel::<Vec<u8>>(WAITING);
        let (spares, spares_out) = channel::<Vec<u8>>();
        let (event_in, news) = sync_channel::<TransferEvent>(64);
        let (stop, wire) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let transfer = {
            let (url, options) = (url.to_owned(), options.clone());
            let (stop, wire) = (Arc::clone(&stop), Arc::clone(&wire));
            let feed = Feed { chunks: chunk_in, spares: spares_out, stop, wire };
            std::thread::spawn(move || feed.run(&url, &options, &event_in))
        };
        let mut source = Self {
            bytes: 0,
            state: Mutex::new(State {
                chunks,
                spares,
                cancel: Arc::clone(&cancel),
                transfer: Some(transfer),
                kept: Kept::default(),
            }),
            wire,
            stop,
        };
        loop {
            match news.recv_timeout(TICK) {
                Ok(TransferEvent::Progress { total: Some(total), .. }) => {
                    source.bytes = total;
                    return Ok(Some(source));
                }
                Ok(TransferEvent::Progress { total: None, .. }) => return Ok(None),
                Ok(event) => events(event),
                Err(RecvTimeoutError::Timeout) => check(&cancel)?,
                // The transfer ended before its first byte: it says why.
                Err(RecvTimeoutError::Disconnected) => return Err(source.state().end()),
            }
        }
    }

    /// Bytes that have come over the network so far, bodies only.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        self.wire.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SequentialSource {
    fn drop(&mut self) {
        // The transfer sees this at its next chunk, or when it finds that nobody takes its chunks any more.
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn check(cancel: &AtomicBool) -> Result<()> {
    match cancel.load(Ordering::Relaxed) {
        true => Err(Error::new(Kind::Cancelled, "stopped on request")),
        false => Ok(()),
    }
}

/// The side of the transfer.
struct Feed {
    chunks: SyncSender<Vec<u8>>,
    spares: Receiver<Vec<u8>>,
    stop: Arc<AtomicBool>,
    wire: Arc<AtomicU64>,
}

impl Feed {
    fn run(&self, url: &str, options: &Options, news: &SyncSender<TransferEvent>) -> Result<u64> {
        // Only the beginning is worth telling: afterwards the reader tells how far it is.
        let mut tell = |event: TransferEvent| {
            let _ = news.try_send(event);
        };
        stream(url, options, &self.stop, &mut tell, &mut |bytes| {
            self.wire.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            let mut chunk = self.spares.try_recv().unwrap_or_default();
            chunk.clear();
            chunk.extend_from_slice(bytes);
            let taken = self.chunks.send(chunk).is_ok() && !self.stop.load(Ordering::Relaxed);
            Ok(if taken { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })
    }
}

impl AsRef<Kept> for State {
    fn as_ref(&self) -> &Kept {
        &self.kept
    }
}

impl State {
    /// Why no more chunks come.
    fn end(&mut self) -> Error {
        match self.transfer.take().map(JoinHandle::join) {
            Some(Ok(Err(e))) => e,
            _ => network("the file ended before it should"),
        }
    }

    /// Takes the next chunk in.
    fn advance(&mut self) -> Result<()> {
        let chunk = loop {
            match self.chunks.recv_timeout(TICK) {
                Ok(chunk) => break chunk,
                Err(RecvTimeoutError::Disconnected) => return Err(self.end()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            check(&self.cancel)?;
        };
        // A slow server, too, has to be left at once: whoever reads wants a lot of chunks at a time.
        check(&self.cancel)?;
        self.kept.push(&chunk);
        let _ = self.spares.send(chunk);
        Ok(())
    }
}

impl ReadAt for SequentialSource {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.bytes, offset, buf.len() as u64)?;
        let mut state = self.state();
        let gone = |at| {
            network(format!("the server does not support byte ranges, and byte {at} has already passed"))
                .advise("download the file first, with `fetch` or any other tool")
        };
        fill(&mut *state, buf, offset, State::advance, gone)
    }

    fn is_remote(&self) -> bool {
        true
    }
}
