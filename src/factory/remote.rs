//! A remote file as a source of blocks, so that an ISO's UKI can be read without the rest of the ISO.
//!
//! Small reads go through a cache of blocks; what [`ReadAt::will_read`] announces comes in one streaming request.

use super::http::{Control, Http, network};
use super::options::{Options, TransferEvent};
use super::transfer::{Endpoint, Entity, Piece, Transfer};
use super::url::show_url;
use crate::block::{ReadAt, check_range};
use crate::{Context, Result};
use sha2::{Digest, Sha256};
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes of a cached block, and how many are kept: 16 MiB together.
const BLOCK: u64 = 256 * 1024;
const BLOCKS: usize = 64;
/// Announced ranges that are remembered.
const MAX_ANNOUNCED: usize = 256;
/// An announced range of fewer bytes than this is left to the cache.
const STREAM_FROM: u64 = 4 * BLOCK;

/// Takes events from whatever thread reads.
pub type SharedEvents = Box<dyn FnMut(TransferEvent) + Send>;

/// A file on a server that serves byte ranges.
pub struct HttpSource {
    http: Arc<Http>,
    endpoint: Arc<Endpoint>,
    entity: Entity,
    bytes: u64,
    cancel: Arc<AtomicBool>,
    deadline: Option<Instant>,
    state: Mutex<State>,
}

struct State {
    events: SharedEvents,
    /// Number and bytes of each block, the most recently used last.
    cache: Vec<(u64, Vec<u8>)>,
    /// Ranges that will be read in order: start and end.
    announced: Vec<(u64, u64)>,
    stream: Option<Stream>,
}

/// One request for a long range, served in order.
struct Stream {
    transfer: Option<Transfer>,
    at: u64,
    end: u64,
    chunk: Vec<u8>,
    used: usize,
}

impl HttpSource {
    /// Opens `url`; `None` when the server does not serve ranges (then [`stream`] it). `events` is told, from then on,
    /// by whatever thread reads.
    ///
    /// # Errors
    /// As [`super::fetch`].
    pub fn open(
        url: &str,
        options: &Options,
        cancel: Arc<AtomicBool>,
        mut events: SharedEvents,
    ) -> Result<Option<Self>> {
        let http = Http::new(options.clone())?;
        let deadline = options.overall.and_then(|limit| Instant::now().checked_add(limit));
        let endpoint = Endpoint::new(url);
        let mut control = Control { cancel: &cancel, deadline, events: &mut *events };
        let first = first_block(&http, &endpoint, &mut control).while_doing(|| format!("opening {}", show_url(url)))?;
        let Some((entity, block)) = first else { return Ok(None) };
        let bytes = entity.length.unwrap_or_default();
        let state = Mutex::new(State { events, cache: vec![(0, block)], announced: Vec::new(), stream: None });
        Ok(Some(Self { http, endpoint, entity, bytes, cancel, deadline, state }))
    }

    /// Bytes that have come over the network so far, bodies only.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        self.http.wire.load(Ordering::Relaxed)
    }

    /// The URL, without its query.
    #[must_use]
    pub fn shown_url(&self) -> String {
        show_url(&self.endpoint.url)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transfer(&self, at: u64, end: u64) -> Transfer {
        Transfer::new(&self.http, &self.endpoint, at, Some(end), Some(self.entity.clone()))
    }

    fn read(&self, state: &mut State, buf: &mut [u8], offset: u64) -> Result<()> {
        let State { events, cache, announced, stream } = state;
        let mut control = Control { cancel: &self.cancel, deadline: self.deadline, events: &mut **events };
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let number = at / BLOCK;
            let cached = cache.iter().position(|(n, _)| *n == number);
            if let Some(i) = announced.iter().position(|(start, end)| *start == at && end - start >= STREAM_FROM) {
                let (at, end) = announced.remove(i);
                *stream = Some(Stream { transfer: None, at, end, chunk: Vec::new(), used: 0 });
            }
            let streaming = stream.as_ref().is_some_and(|s| s.at == at && s.at < s.end);
            let n = if streaming && (cached.is_none() || stream.as_ref().is_some_and(|s| s.transfer.is_some())) {
                let Some(stream) = stream.as_mut() else { break };
                stream.read(rest, &mut control, |at, end| self.transfer(at, end))?
            } else {
                let i = match cached {
                    Some(i) => i,
                    None => {
                        let block = self.block(number, &mut control)?;
                        if cache.len() >= BLOCKS {
                            cache.remove(0);
                        }
                        cache.push((number, block));
                        cache.len() - 1
                    }
                };
                let entry = cache.remove(i);
                let inside = (at % BLOCK) as usize;
                let part = entry.1.get(inside..).unwrap_or_default();
                let n = part.len().min(rest.len());
                rest[..n].copy_from_slice(&part[..n]);
                cache.push(entry);
                if streaming && let Some(stream) = stream.as_mut() {
                    stream.at += n as u64; // what is here already need not come again
                }
                n
            };
            if n == 0 {
                return Err(network(format!("{}: no bytes at {at}", self.shown_url())));
            }
            at += n as u64;
            rest = &mut rest[n..];
        }
        Ok(())
    }

    fn block(&self, number: u64, control: &mut Control<'_>) -> Result<Vec<u8>> {
        let at = number * BLOCK;
        let mut transfer = self.transfer(at, self.bytes.min(at + BLOCK));
        collect(&mut transfer, control)
    }
}

impl Stream {
    fn read(
        &mut self,
        buf: &mut [u8],
        control: &mut Control<'_>,
        start: impl Fn(u64, u64) -> Transfer,
    ) -> Result<usize> {
        let transfer = self.transfer.get_or_insert_with(|| start(self.at, self.end));
        if self.used == self.chunk.len() {
            transfer.give_back(std::mem::take(&mut self.chunk));
            self.used = 0;
            match transfer.next(control)? {
                Piece::Data(chunk) => self.chunk = chunk,
                Piece::StartOver => {
                    return Err(network("the file changed while it was being read").advise("run it again"));
                }
                Piece::End => return Ok(0),
            }
        }
        let part = &self.chunk[self.used..];
        let n = part.len().min(buf.len());
        buf[..n].copy_from_slice(&part[..n]);
        self.used += n;
        self.at += n as u64;
        Ok(n)
    }
}

impl ReadAt for HttpSource {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.bytes, offset, buf.len() as u64)?;
        let outcome = self.read(&mut self.state(), buf, offset);
        Ok(outcome.while_doing(|| format!("reading {}", self.shown_url()))?)
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        if bytes == 0 || check_range(self.bytes, offset, bytes).is_err() {
            return;
        }
        let announced = &mut self.state().announced;
        // Neighbouring pieces of a file become one request.
        if let Some((_, end)) = announced.last_mut()
            && *end == offset
        {
            *end += bytes;
            return;
        }
        announced.retain(|(start, _)| *start != offset);
        if announced.len() == MAX_ANNOUNCED {
            announced.remove(0);
        }
        announced.push((offset, offset + bytes));
    }

    fn is_remote(&self) -> bool {
        true
    }
}

fn collect(transfer: &mut Transfer, control: &mut Control<'_>) -> Result<Vec<u8>> {
    let mut block = Vec::new();
    loop {
        match transfer.next(control)? {
            Piece::Data(chunk) => {
                block.extend_from_slice(&chunk);
                transfer.give_back(chunk);
            }
            Piece::StartOver => block.clear(),
            Piece::End => return Ok(block),
        }
    }
}

/// The first block and what the file is; `None` without ranges.
fn first_block(
    http: &Arc<Http>,
    endpoint: &Arc<Endpoint>,
    control: &mut Control<'_>,
) -> Result<Option<(Entity, Vec<u8>)>> {
    let mut transfer = Transfer::new(http, endpoint, 0, Some(BLOCK), None);
    match collect(&mut transfer, control) {
        Ok(block) => Ok(transfer.entity.take().map(|entity| (entity, block))),
        Err(_) if transfer.without_ranges => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads `url` from its first byte in order, for servers without ranges, until `each` breaks off or it ends. Returns
/// the bytes that came over the network. `each` sees every byte once: when a connection breaks and cannot be continued,
/// the file is asked for again, and what comes again must have the same hash.
///
/// # Errors
/// As [`super::fetch`]; what `each` returns; a file that changed meanwhile.
pub fn stream(
    url: &str,
    options: &Options,
    cancel: &AtomicBool,
    events: &mut dyn FnMut(TransferEvent),
    each: &mut dyn FnMut(&[u8]) -> Result<ControlFlow<()>>,
) -> Result<u64> {
    let http = Http::new(options.clone())?;
    let deadline = options.overall.and_then(|limit| Instant::now().checked_add(limit));
    let mut control = Control { cancel, deadline, events };
    let mut transfer = Transfer::new(&http, &Endpoint::new(url), 0, None, None);
    let (mut seen, mut hash) = (0u64, Sha256::new());
    // Bytes that come again, and their hash.
    let mut repeated: Option<(u64, Sha256)> = None;
    let mut run = || -> Result<()> {
        loop {
            let chunk = match transfer.next(&mut control)? {
                Piece::Data(chunk) => chunk,
                Piece::StartOver => {
                    repeated = (seen > 0).then(|| (seen, Sha256::new()));
                    continue;
                }
                Piece::End if repeated.is_some() => {
                    return Err(network("it is shorter than it was before").advise("run it again"));
                }
                Piece::End => return Ok(()),
            };
            let mut fresh = &chunk[..];
            if let Some((left, second)) = &mut repeated {
                let n = fresh.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                second.update(&fresh[..n]);
                *left -= n as u64;
                fresh = &fresh[n..];
                if *left == 0 {
                    if second.clone().finalize() != hash.clone().finalize() {
                        return Err(network("it changed while it was being read").advise("run it again"));
                    }
                    repeated = None;
                }
            }
            if !fresh.is_empty() {
                hash.update(fresh);
                seen += fresh.len() as u64;
                (control.events)(TransferEvent::Progress { bytes: seen, total: transfer.total() });
                if each(fresh)?.is_break() {
                    return Ok(());
                }
            }
            transfer.give_back(chunk);
        }
    };
    run().while_doing(|| format!("reading {}", show_url(url)))?;
    Ok(http.wire.load(Ordering::Relaxed))
}
