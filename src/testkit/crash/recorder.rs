//! A medium in memory that remembers every sector write and barrier, and fails where it is told to.

use super::frame::{Frame, Sector, sector};
use crate::block::{ReadAt, WriteAt};
use std::io;
use std::sync::{Mutex, MutexGuard};

/// What reached the medium, in program order.
#[derive(Clone)]
pub enum IoEvent {
    /// A sector was written.
    Write {
        /// Its number.
        sector: u64,
        /// What it holds now.
        data: Sector,
        /// What the sector held before.
        before: Sector,
    },
    /// Everything before is on the medium.
    Barrier,
    /// What is read next comes from the medium.
    DropCaches,
}

/// A kind of access that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A barrier.
    Barrier,
}

/// How an access fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// EIO, once, and nothing happens.
    Fails,
    /// EIO, once, after so many sectors of the write reached the medium.
    Short(usize),
    /// This access and every one after it fails.
    Vanishes,
}

/// One failure to inject: the `nth` (from 0) access of its kind.
#[derive(Debug, Clone, Copy)]
pub struct IoFault {
    /// The kind of access.
    pub on: Access,
    /// Which of them, from 0.
    pub nth: u64,
    /// What happens.
    pub how: How,
}

/// How often each kind of access was requested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Writes, each of any number of sectors.
    pub writes: u64,
    /// Barriers.
    pub barriers: u64,
}

/// What a run did: the medium at its end and the way there.
pub struct Recording {
    /// The medium at the end.
    pub frame: Frame,
    /// What reached it, in order.
    pub events: Vec<IoEvent>,
    /// What was requested.
    pub counts: Counts,
    /// A write that was not whole sectors inside the medium: a bug of the code under test, refused by the recorder.
    pub misuse: Option<String>,
}

impl Recording {
    /// The medium as it was before the run, and what reached it.
    #[must_use]
    pub fn rewind(self) -> (Frame, Vec<IoEvent>) {
        let mut frame = self.frame;
        for event in self.events.iter().rev() {
            if let IoEvent::Write { sector, before, .. } = event {
                frame.set(*sector, before.clone());
            }
        }
        (frame, self.events)
    }

    /// Whether anything was written.
    #[must_use]
    pub fn wrote(&self) -> bool {
        self.events.iter().any(|e| matches!(e, IoEvent::Write { .. }))
    }
}

/// The recording medium.
pub struct Recorder {
    size: u64,
    sector_size: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    recording: Recording,
    fault: Option<IoFault>,
    gone: bool,
}

impl Recorder {
    /// A medium that works.
    #[must_use]
    pub fn new(frame: Frame) -> Self {
        Self::build(frame, None)
    }

    /// A medium that fails once.
    #[must_use]
    pub fn with_fault(frame: Frame, fault: IoFault) -> Self {
        Self::build(frame, Some(fault))
    }

    fn build(frame: Frame, fault: Option<IoFault>) -> Self {
        let (size, sector_size) = (frame.size(), frame.sector_size());
        let recording = Recording { frame, events: Vec::new(), counts: Counts::default(), misuse: None };
        Self { size, sector_size, inner: Mutex::new(Inner { recording, fault, gone: false }) }
    }

    /// What was done to it.
    #[must_use]
    pub fn into_recording(self) -> Recording {
        self.inner.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).recording
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    /// Counts an access; how many sectors of it still reach the medium (`None`: all), or the failure.
    fn admit(&mut self, access: Access) -> io::Result<Option<usize>> {
        let counts = &mut self.recording.counts;
        let count = match access {
            Access::Read => &mut counts.reads,
            Access::Write => &mut counts.writes,
            Access::Barrier => &mut counts.barriers,
        };
        let nth = *count;
        *count += 1;
        if self.gone {
            return Err(no_device());
        }
        match self.fault {
            Some(f) if f.on == access && f.nth == nth => match f.how {
                How::Fails => Err(eio()),
                How::Short(sectors) => Ok(Some(sectors)),
                How::Vanishes => {
                    self.gone = true;
                    Err(no_device())
                }
            },
            _ => Ok(None),
        }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn no_device() -> io::Error {
    io::Error::from_raw_os_error(19)
}

impl ReadAt for Recorder {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut inner = self.lock();
        inner.admit(Access::Read)?;
        inner.recording.frame.read_exact_at(buf, offset)
    }
}

impl WriteAt for Recorder {
    fn sector_size(&self) -> u32 {
        self.sector_size as u32
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let unit = self.sector_size as u64;
        let mut inner = self.lock();
        let reach = inner.admit(Access::Write)?;
        let end = offset.checked_add(buf.len() as u64);
        if !offset.is_multiple_of(unit) || !(buf.len() as u64).is_multiple_of(unit) || end.is_none_or(|e| e > self.size)
        {
            let what =
                format!("a write of {} bytes at {offset} is not whole sectors of {unit} inside the medium", buf.len());
            inner.recording.misuse.get_or_insert(what.clone());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let first = offset / unit;
        for (i, bytes) in buf.chunks_exact(self.sector_size).enumerate() {
            if reach.is_some_and(|n| i >= n) {
                return Err(eio());
            }
            let n = first + i as u64;
            let data = sector(bytes);
            let before = inner.recording.frame.set(n, data.clone());
            inner.recording.events.push(IoEvent::Write { sector: n, data, before });
        }
        reach.map_or(Ok(()), |_| Err(eio()))
    }

    fn barrier(&self) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.admit(Access::Barrier)?.is_some() {
            return Err(eio());
        }
        inner.recording.events.push(IoEvent::Barrier);
        Ok(())
    }

    fn drop_caches(&self) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.gone {
            return Err(no_device());
        }
        inner.recording.events.push(IoEvent::DropCaches);
        Ok(())
    }
}
