//! Compressed streams from a buffered reader, without reading past their ends and without trusting their sizes.
//!
//! Crates do the work. Their readers either stop for good behind one frame or insist that nothing but frames
//! follows; an initrd goes on with padding and with other compressions, so the seam is made here.

use super::coding::{Coding, HEADER, MAX_WINDOW_LOG};
use super::lz4::Lz4Legacy;
use super::tally::Tally;
use crate::units::size;
use crate::{Code, Error, Result};
use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use std::io::{self, BufRead, Read};

/// What liblzma may take: a 32 MiB dictionary and a little. Talos used 256 KiB (`xz -0`).
const MAX_XZ_MEMORY: u64 = 34 << 20;
/// What may come out at all: more than any board could unpack into its memory and still run.
const MAX_OUTPUT: u64 = 4 << 30;
/// What may come out per byte that goes in, beside the first 64 MiB. Real initrds hold squashfs files and have a ratio
/// of 1 to 4; zstd can reach 32,000.
const MAX_RATIO: u64 = 256;
const FREE_OUTPUT: u64 = 64 << 20;
/// Frames, counted together: each costs a new decompressor. Talos has one per archive.
const MAX_FRAMES: u64 = 16_384;

/// An error on the way through the readers: our own as it was, a decompressor's as a rejection.
pub(super) fn rejected(e: io::Error) -> Error {
    let early = e.kind() == io::ErrorKind::UnexpectedEof;
    if wants_memory(&e) {
        let why = format!("unpacking it takes more than {} MiB of memory", MAX_XZ_MEMORY >> 20);
        return Error::new(Code::Unsupported, why);
    }
    let e = Error::from(e);
    if e.io_error().is_none() {
        return e;
    }
    Error::rejected(if early { "it ends too early" } else { e.message() })
        .advise("the file is truncated or damaged: fetch it again")
}

/// Whether a decompressor gave up because it would take more memory than it may.
fn wants_memory(e: &io::Error) -> bool {
    let inner = e.get_ref().and_then(|e| e.downcast_ref::<liblzma::stream::Error>());
    matches!(inner, Some(liblzma::stream::Error::MemLimit))
}

/// What all compressed streams of one initrd came to.
#[derive(Default)]
pub(super) struct Totals {
    produced: u64,
    frames: u64,
}

/// The content of all frames of one coding that follow each other. Ends before the first byte that begins none.
pub(super) struct Frames<'a, R> {
    coding: Coding,
    decoder: Option<Decoder<'a, R>>,
    totals: &'a mut Totals,
    /// What others, frames of the same coding before this one included, had produced before.
    before: u64,
}

enum Decoder<'a, R> {
    Zstd(zstd::Decoder<'static, &'a mut Tally<R>>),
    /// xz, and lzma alone.
    Xz(XzDecoder<&'a mut Tally<R>>),
    Gzip(GzDecoder<&'a mut Tally<R>>),
    Bzip2(BzDecoder<&'a mut Tally<R>>),
    Lz4(Lz4Legacy<'a, R>),
}

impl<'a, R: BufRead> Decoder<'a, R> {
    fn new(coding: Coding, input: &'a mut Tally<R>) -> io::Result<Self> {
        coding.check(input.peek(HEADER)?).map_err(io::Error::from)?;
        Ok(match coding {
            Coding::Xz => Self::Xz(XzDecoder::new_stream(input, Stream::new_stream_decoder(MAX_XZ_MEMORY, 0)?)),
            Coding::Lzma => Self::Xz(XzDecoder::new_stream(input, Stream::new_lzma_decoder(MAX_XZ_MEMORY)?)),
            Coding::Gzip => Self::Gzip(GzDecoder::new(input)),
            Coding::Bzip2 => Self::Bzip2(BzDecoder::new(input)),
            Coding::Lz4 => Self::Lz4(Lz4Legacy::new(input)),
            Coding::Zstd | Coding::Plain | Coding::Lzo => {
                let mut decoder = zstd::Decoder::with_buffer(input)?.single_frame();
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Self::Zstd(decoder)
            }
        })
    }

    fn input(&self) -> &Tally<R> {
        match self {
            Self::Zstd(d) => d.get_ref(),
            Self::Xz(d) => d.get_ref(),
            Self::Gzip(d) => d.get_ref(),
            Self::Bzip2(d) => d.get_ref(),
            Self::Lz4(d) => d.input(),
        }
    }

    fn into_input(self) -> &'a mut Tally<R> {
        match self {
            Self::Zstd(d) => d.into_inner(),
            Self::Xz(d) => d.into_inner(),
            Self::Gzip(d) => d.into_inner(),
            Self::Bzip2(d) => d.into_inner(),
            Self::Lz4(d) => d.into_input(),
        }
    }
}

impl<R: BufRead> Read for Decoder<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(d) => d.read(buf),
            Self::Xz(d) => d.read(buf),
            Self::Gzip(d) => d.read(buf),
            Self::Bzip2(d) => d.read(buf),
            Self::Lz4(d) => d.read(buf),
        }
    }
}

impl<'a, R: BufRead> Frames<'a, R> {
    /// Begins with the frame that `input` stands at; `coding` is one that is unpacked here.
    pub(super) fn new(coding: Coding, input: &'a mut Tally<R>, totals: &'a mut Totals) -> Result<Self> {
        let before = totals.produced;
        let mut frames = Self { coding, decoder: None, totals, before };
        frames.begin(input).map_err(rejected)?;
        Ok(frames)
    }

    /// How many frames were begun so far.
    pub(super) fn frames(&self) -> u64 {
        self.totals.frames
    }

    /// Bytes that came out of this frame so far.
    pub(super) fn produced(&self) -> u64 {
        self.totals.produced - self.before
    }

    fn begin(&mut self, input: &'a mut Tally<R>) -> io::Result<()> {
        self.totals.frames += 1;
        if self.totals.frames > MAX_FRAMES {
            return Err(Error::rejected(format!("more than {MAX_FRAMES} compressed frames")).into());
        }
        // The kernel counts anew in each frame.
        self.before = self.totals.produced;
        self.decoder = Some(Decoder::new(self.coding, input)?);
        Ok(())
    }
}

impl<R: BufRead> Read for Frames<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        while let Some(decoder) = &mut self.decoder {
            let n = decoder.read(buf)?;
            if n > 0 {
                self.totals.produced += n as u64;
                let bearable = FREE_OUTPUT + decoder.input().consumed().saturating_mul(MAX_RATIO);
                if self.totals.produced > bearable.min(MAX_OUTPUT) {
                    return Err(Error::rejected(format!(
                        "{} unpack to more than {}: a decompression bomb",
                        size(decoder.input().consumed()),
                        size(self.totals.produced)
                    ))
                    .into());
                }
                return Ok(n);
            }
            let Some(input) = self.decoder.take().map(Decoder::into_input) else { break };
            if Coding::of(input.peek(2)?) == Some(self.coding) {
                self.begin(input)?;
            }
        }
        Ok(0)
    }
}
