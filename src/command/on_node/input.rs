//! What goes from the desk to a pod's standard input: an image of this machine, and before it this program itself.

use crate::block::{Arrival, ReadAt, fan_out};
use crate::command::{Event, ImageRequest, OpenImage, Ui, ui::check_cancelled};
use crate::pe::Arch;
use crate::pod::BLOCK;
use crate::uki::Sha256Sink;
use crate::{Context, Error, Result};
use goblin::container::Ctx;
use goblin::elf::{Elf, ProgramHeader, header, program_header};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes that are read and sent at a time.
const CHUNK: usize = 256 << 10;

/// An image that is sent to the node: the UKI alone, whatever it lies in.
pub struct DeskImage {
    from: From,
    /// What has to arrive.
    pub arrival: Arrival,
}

enum From {
    Image(OpenImage),
    /// Standard input, which nobody has looked at.
    Stdin,
}

impl DeskImage {
    /// Opens an image of this machine, and reads it once to know its hash. Of a pipe its user says what has to arrive.
    ///
    /// # Errors
    /// As [`ImageRequest::open`].
    pub fn open(request: &ImageRequest, ui: &dyn Ui) -> Result<Self> {
        if request.image == "-" {
            let arrival = request.arrival.unwrap_or_default();
            arrival.refuse_unknown()?;
            return Ok(Self { from: From::Stdin, arrival });
        }
        let opened = request.open(false, ui)?;
        let uki = opened.uki()?;
        ui.event(Event::Step(format!("reading {uki}")));
        let bytes = uki.bytes.size();
        let (mut hash, mut done) = (Sha256Sink::new(), 0);
        let mut told = |chunk: &[u8]| {
            check_cancelled(ui)?;
            done += chunk.len() as u64;
            ui.event(Event::Progress { done, total: Some(bytes) });
            Ok(())
        };
        fan_out(&uki.bytes, 0, bytes, &mut [&mut told, &mut hash])?;
        let arrival = Arrival { bytes: Some(bytes), sha256: Some(hash.finish()), followed: false };
        Ok(Self { from: From::Image(opened), arrival })
    }

    /// Whether it comes from standard input, where nobody can answer then.
    #[must_use]
    pub fn is_stdin(&self) -> bool {
        matches!(self.from, From::Stdin)
    }

    /// Sends it, unless somebody stops that.
    pub(super) fn send(&self, to: &mut (impl Write + Send), is_stopped: impl Fn() -> bool) -> Result<()> {
        match &self.from {
            From::Image(opened) => {
                let uki = opened.uki()?;
                let mut send = |chunk: &[u8]| Ok(to.write_all(chunk)?);
                fan_out(&uki.bytes, 0, uki.bytes.size(), &mut [&mut send])
            }
            From::Stdin => {
                let (stdin, mut buffer) = (io::stdin(), vec![0; CHUNK]);
                // A read would wait for whoever holds the other end, however long.
                while !is_stopped() {
                    if poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&TICK)).unwrap_or_default() == 0 {
                        continue;
                    }
                    match stdin.lock().read(&mut buffer)? {
                        0 => break,
                        n => to.write_all(&buffer[..n])?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// How often it is looked whether standard input is still wanted.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// This program, to be carried to a node that has no image of it: a static program for the node's architecture.
#[derive(Debug)]
pub(super) struct Carried {
    bytes: Vec<u8>,
}

impl Carried {
    /// Reads the program: the one that runs here, if it is not another that is named.
    ///
    /// # Errors
    /// [`crate::Code::Usage`] when it is for another architecture, or needs libraries.
    pub(super) fn read(named: Option<&Path>, arch: &str) -> Result<Self> {
        const MOST: u64 = 256 << 20;
        let path = match named {
            Some(path) => path.to_owned(),
            None => std::env::current_exe().while_doing(|| "finding this program's own file")?,
        };
        let reading = || format!("reading {}", path.display());
        let mut bytes = Vec::new();
        std::fs::File::open(&path).and_then(|file| file.take(MOST).read_to_end(&mut bytes)).while_doing(reading)?;
        Self::check(&bytes, arch).map_err(|why| {
            Error::usage(format!("--push-self: {} {why}", path.display())).advise(format!(
                "name the program of the release for linux/{arch} with --binary FILE, or an image with --image-ref"
            ))
        })?;
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        Ok(Self { bytes })
    }

    fn check(bytes: &[u8], arch: &str) -> std::result::Result<(), String> {
        let unlike = |e: goblin::error::Error| format!("is no program for Linux: {e}");
        let header = Elf::parse_header(bytes).map_err(unlike)?;
        let is = match header.e_machine {
            header::EM_AARCH64 => Arch::Arm64.name(),
            header::EM_X86_64 => Arch::Amd64.name(),
            _ => "another architecture",
        };
        if is != arch {
            return Err(format!("is for {is}, and the node is {arch}"));
        }
        let context = Ctx::new(header.container().map_err(unlike)?, header.endianness().map_err(unlike)?);
        let (at, count) = (usize::try_from(header.e_phoff).unwrap_or(usize::MAX), usize::from(header.e_phnum));
        let segments = ProgramHeader::parse(bytes, at, count, context).map_err(unlike)?;
        if segments.iter().any(|h| h.p_type == program_header::PT_INTERP) {
            return Err("needs the libraries of this machine, which the container does not have".into());
        }
        Ok(())
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> u64 {
        (self.bytes.len() / BLOCK) as u64
    }

    pub(super) fn send(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.bytes)
    }
}

/// `--push-self`: how the program gets to the node without a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushSelf {
    /// The program's file, where it is not the one that runs here.
    pub binary: Option<PathBuf>,
}
