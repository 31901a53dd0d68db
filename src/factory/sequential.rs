//! A remote file from a server without ranges, as a block source that can only go forward.
//!
//! The transfer runs on a thread of its own and waits while nobody reads. Kept are the beginning of the file, where an
//! ISO has its directories, and a window behind the reading position, so that headers can be looked at before the whole
//! is read. Going back further is an error; whoever needs that has to download the file first.

use super::http::network;
use super::options::{Options, TransferEvent};
use super::remote::stream;
use crate::block::{ReadAt, check_range};
use crate::{Error, Kind, Result};
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How much of the beginning is kept, in bytes. The directories of a Talos ISO end within the first MiB.
const BEGINNING: usize = 4 << 20;
/// How much behind the reading position is kept.
const WINDOW: usize = 2 << 20;
/// Chunks that may wait for the reader.
const WAITING: usize = 8;
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
    cancel: Arc<AtomicBool>,
    transfer: Option<JoinHandle<Result<u64>>>,
    beginning: Vec<u8>,
    /// The last bytes that came; they end at `at`.
    window: VecDeque<u8>,
    at: u64,
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
        let (event_in, news) = sync_channel::<TransferEvent>(64);
        let (stop, wire) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let transfer = {
            let (url, options) = (url.to_owned(), options.clone());
            let (stop, wire) = (Arc::clone(&stop), Arc::clone(&wire));
            std::thread::spawn(move || run(&url, &options, &stop, &wire, &chunk_in, &event_in))
        };
        let mut source = Self {
            bytes: 0,
            state: Mutex::new(State {
                chunks,
                cancel: Arc::clone(&cancel),
                transfer: Some(transfer),
                beginning: Vec::new(),
                window: VecDeque::new(),
                at: 0,
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

fn run(
    url: &str,
    options: &Options,
    stop: &AtomicBool,
    wire: &AtomicU64,
    chunks: &SyncSender<Vec<u8>>,
    news: &SyncSender<TransferEvent>,
) -> Result<u64> {
    // Only the beginning is worth telling: afterwards the reader tells how far it is.
    let mut tell = |event: TransferEvent| {
        let _ = news.try_send(event);
    };
    stream(url, options, stop, &mut tell, &mut |bytes| {
        wire.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let taken = chunks.send(bytes.to_vec()).is_ok() && !stop.load(Ordering::Relaxed);
        Ok(if taken { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })
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
        if self.beginning.len() < BEGINNING {
            let room = BEGINNING - self.beginning.len();
            self.beginning.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        self.window.extend(&chunk);
        let surplus = self.window.len().saturating_sub(WINDOW);
        self.window.drain(..surplus);
        self.at += chunk.len() as u64;
        Ok(())
    }

    /// What is kept of the file from `offset` on, as much as fits into `buf`. Returns how much that was.
    fn take(&self, buf: &mut [u8], offset: u64) -> Option<usize> {
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

impl ReadAt for SequentialSource {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.bytes, offset, buf.len() as u64)?;
        let mut state = self.state();
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            match state.take(&mut buf[done..], at) {
                Some(n) if n > 0 => done += n,
                None if at < state.at => {
                    return Err(network(format!("the server serves no ranges: byte {at} has gone by"))
                        .advise("download the file first, with `fetch` or any other tool")
                        .into());
                }
                _ => state.advance().map_err(io::Error::from)?,
            }
        }
        Ok(())
    }

    fn is_remote(&self) -> bool {
        true
    }
}
