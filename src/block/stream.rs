//! A pipe as a source that can only go forward, and what has to arrive through it.
//!
//! A lost connection looks like the end of the file to whoever reads a pipe. So a stream is read only when its length
//! or its hash is known beforehand, and [`StreamSource::finish`] says whether that is what came.

use super::forward::{Kept, fill};
use super::{ReadAt, check_range};
use crate::units::exact;
use crate::{Code, Context, Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the cancel flag is looked at while nothing comes.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How long the end of the file is waited for, once everything has come.
const END: Duration = Duration::from_secs(5);
/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// What has to arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrival {
    /// So many bytes.
    pub bytes: Option<u64>,
    /// Bytes with this SHA-256.
    pub sha256: Option<[u8; 32]>,
    /// Something else follows in the same pipe: with the last of the bytes it is complete.
    pub followed: bool,
}

/// A pipe that is read once, from front to back.
#[derive(Debug)]
pub struct StreamSource {
    bytes: u64,
    arrival: Arrival,
    cancel: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    kept: Kept,
    hash: Sha256,
    buffer: Vec<u8>,
}

/// Whether this names standard input (`-`) or a pipe.
#[must_use]
pub fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-" || std::fs::metadata(path).is_ok_and(|m| m.file_type().is_fifo())
}

/// Opens a pipe; `-` is standard input.
fn open(path: &Path) -> Result<File> {
    let open = || -> io::Result<File> {
        if path.as_os_str() == "-" {
            return Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?));
        }
        // Without waiting for somebody at the other end: the wait for bytes can be cancelled.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
        std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
    };
    open().while_doing(|| format!("opening {}", path.display()))
}

impl Arrival {
    /// Refuses a stream of which nobody knows when it is complete.
    ///
    /// # Errors
    /// [`Kind::Usage`] when neither is known.
    pub fn refuse_unknown(&self) -> Result<()> {
        if self.bytes.is_some() || self.sha256.is_some() {
            return Ok(());
        }
        let what = "the image comes through a pipe, where a lost connection looks like the end of the file, and \
                    nothing says what has to arrive";
        Err(Error::usage(what)
            .advise("add --bytes N (`stat -c %s FILE` says it) or --sha256 HEX (`sha256sum FILE` says it), or both"))
    }

    /// Compares with what came.
    fn check(&self, bytes: u64, sha256: impl FnOnce() -> [u8; 32]) -> Result<()> {
        match self.bytes {
            Some(wanted) if bytes < wanted => return Err(ended(bytes, wanted)),
            Some(wanted) if bytes > wanted => return Err(longer(wanted)),
            _ => {}
        }
        let Some(wanted) = self.sha256 else { return Ok(()) };
        let came = sha256();
        if came == wanted {
            return Ok(());
        }
        let (came, wanted, bytes) = (hex::encode(came), hex::encode(wanted), exact(bytes));
        let what = format!("what came through the pipe ({bytes}) has the SHA-256 {came}, and not {wanted}");
        Err(Error::new(Code::WrongImage, what).advise("send it again; if that hash is right, name it with --sha256"))
    }
}

fn ended(came: u64, wanted: u64) -> Error {
    Error::io(format!("the pipe ended after {}, and {} have to arrive", exact(came), exact(wanted)))
        .advise("find out why its sender stopped (a lost connection?), and send it again")
}

fn longer(wanted: u64) -> Error {
    Error::new(Code::WrongImage, format!("more than the {} that have to arrive come through the pipe", exact(wanted)))
        .advise("check --bytes against the file that is sent (`stat -c %s FILE`)")
}

impl StreamSource {
    /// The pipe, as a source of as many bytes as have to arrive. `None` when only their hash is known.
    ///
    /// # Errors
    /// [`Kind::Io`] when it cannot be opened.
    pub fn open(path: &Path, arrival: Arrival, cancel: &Arc<AtomicBool>) -> Result<Option<Self>> {
        let Some(bytes) = arrival.bytes else { return Ok(None) };
        let state = State { file: open(path)?, kept: Kept::default(), hash: Sha256::new(), buffer: vec![0; CHUNK] };
        Ok(Some(Self { bytes, arrival, cancel: Arc::clone(cancel), state: Mutex::new(state) }))
    }

    /// Reads what nobody has read yet, and says whether what came is what had to. For a little while the end of the
    /// file is waited for: a sender that neither ends nor sends more has sent everything.
    ///
    /// # Errors
    /// [`Code::WrongImage`] when more came, or bytes with another hash; [`Kind::Io`] when less did.
    pub fn finish(&self) -> Result<()> {
        let mut state = self.state();
        while state.kept.at() < self.bytes {
            state.advance(self)?;
        }
        let mut more = [0];
        if !self.arrival.followed
            && state.read(&mut more, &self.cancel, Some(Instant::now() + END))?.is_some_and(|n| n > 0)
        {
            return Err(longer(self.bytes));
        }
        self.arrival.check(self.bytes, || state.hash.clone().finalize().into())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies a pipe into a file and says whether what came is what had to.
///
/// # Errors
/// As [`StreamSource::finish`]; what the file reports.
pub fn receive(path: &Path, arrival: &Arrival, to: &mut File, cancel: &AtomicBool) -> Result<()> {
    let mut state = State { file: open(path)?, kept: Kept::default(), hash: Sha256::new(), buffer: Vec::new() };
    let (mut buffer, mut bytes) = (vec![0; CHUNK], 0);
    loop {
        let until = arrival.bytes.filter(|wanted| bytes >= *wanted).map(|_| Instant::now() + END);
        match state.read(&mut buffer, cancel, until)? {
            None | Some(0) => break,
            Some(n) => {
                bytes += n as u64;
                if let Some(wanted) = arrival.bytes.filter(|wanted| bytes > *wanted) {
                    return Err(longer(wanted));
                }
                state.hash.update(&buffer[..n]);
                to.write_all(&buffer[..n])?;
            }
        }
    }
    arrival.check(bytes, || state.hash.finalize().into())
}

impl AsRef<Kept> for State {
    fn as_ref(&self) -> &Kept {
        &self.kept
    }
}

impl State {
    /// Waits for bytes and takes some; 0 at the end, `None` when nothing came until then.
    fn read(&mut self, buf: &mut [u8], cancel: &AtomicBool, until: Option<Instant>) -> Result<Option<usize>> {
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::new(Kind::Cancelled, "stopped on request"));
            }
            let ready = match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&TICK)) {
                Ok(ready) => ready > 0,
                Err(rustix::io::Errno::INTR) => false,
                Err(e) => return Err(io::Error::from(e).into()),
            };
            if ready {
                match self.file.read(buf) {
                    Ok(n) => return Ok(Some(n)),
                    Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                    Err(e) => return Err(e.into()),
                }
            } else if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
        }
    }

    /// Takes the next bytes in.
    fn advance(&mut self, source: &StreamSource) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let left = usize::try_from(source.bytes - self.kept.at()).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.read(&mut buffer[..left], &source.cancel, None);
        if let Ok(Some(n)) = read {
            if source.arrival.sha256.is_some() {
                self.hash.update(&buffer[..n]);
            }
            self.kept.push(&buffer[..n]);
        }
        self.buffer = buffer;
        match read? {
            None | Some(0) => Err(ended(self.kept.at(), source.bytes)),
            Some(_) => Ok(()),
        }
    }
}

impl ReadAt for StreamSource {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.bytes, offset, buf.len() as u64)?;
        let mut state = self.state();
        let gone = |at| {
            Error::io(format!("byte {at} of what came through the pipe was needed once more, and is gone"))
                .advise("save it to a file first, and name the file")
        };
        fill(&mut *state, buf, offset, |state| state.advance(self), gone)
    }

    /// What has come by cannot be had again.
    fn is_remote(&self) -> bool {
        true
    }
}
