//! Compressed streams from a buffered reader, without reading past their ends and without trusting their sizes.
//!
//! zstd and liblzma do the work. Their readers either stop for good behind one frame or insist that nothing but frames
//! follows; an initrd goes on with padding and with other compressions, so the seam is made here.

use crate::{Error, Result};
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use serde::Serialize;
use std::fmt;
use std::io::{self, BufRead, Read};

/// The window a zstd frame may ask for: 32 MiB. Talos uses 8 MiB; 128 MiB would not fit a small board beside its kernel.
const MAX_WINDOW_LOG: u32 = 25;
/// What liblzma may take: its 32 MiB dictionary and a little. Talos used 256 KiB (`xz -0`).
const MAX_XZ_MEMORY: u64 = 34 << 20;
/// What may come out at all: more than any board could unpack into its memory and still run.
const MAX_OUTPUT: u64 = 4 << 30;
/// What may come out per byte that goes in, beside the first 64 MiB. Real initrds hold squashfs files and have a ratio
/// of 1 to 4; zstd can reach 32,000.
const MAX_RATIO: u64 = 256;
const FREE_OUTPUT: u64 = 64 << 20;
/// Frames, counted together: each costs a new decompressor. Talos has one per archive.
const MAX_FRAMES: u64 = 16_384;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// Not at all.
    Plain,
    /// zstd: Talos 1.8 and later.
    Zstd,
    /// xz: before.
    Xz,
}

impl Coding {
    /// From the first byte; a wrong second one is found by whoever reads on.
    pub(super) fn of(first: u8) -> Option<Self> {
        match first {
            b'0' => Some(Self::Plain),
            0x28 => Some(Self::Zstd),
            0xFD => Some(Self::Xz),
            _ => None,
        }
    }

    /// The other formats that kernels know, for a better message.
    pub(super) fn foreign(first: u8) -> Option<&'static str> {
        match first {
            0x1F => Some("gzip"),
            b'B' => Some("bzip2"),
            0x5D => Some("lzma"),
            0x89 => Some("lzo"),
            0x02 => Some("lz4"),
            _ => None,
        }
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
        })
    }
}

/// An error on the way through the readers: our own as it was, a decompressor's as a rejection.
pub(super) fn rejected(e: io::Error) -> Error {
    let early = e.kind() == io::ErrorKind::UnexpectedEof;
    let e = Error::from(e);
    if e.io_error().is_none() {
        return e;
    }
    Error::rejected(if early { "it ends too early" } else { e.message() })
        .advise("the file is truncated or damaged: fetch it again")
}

/// Counts what is taken from a reader, and marks its errors as errors of the medium.
pub(super) struct Tally<R> {
    inner: R,
    consumed: u64,
}

impl<R: BufRead> Tally<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, consumed: 0 }
    }

    /// Bytes taken so far.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }
}

impl<R: BufRead> Read for Tally<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Tally<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf().map_err(|e| Error::io(Error::from(e).to_string()).into())
    }

    fn consume(&mut self, n: usize) {
        self.consumed += n as u64;
        self.inner.consume(n);
    }
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
    decoder: Option<Decoder<&'a mut Tally<R>>>,
    totals: &'a mut Totals,
    /// What others had produced before.
    before: u64,
}

enum Decoder<R> {
    Zstd(zstd::Decoder<'static, R>),
    Xz(XzDecoder<R>),
}

impl<R: BufRead> Decoder<R> {
    fn new(coding: Coding, input: R) -> io::Result<Self> {
        if coding == Coding::Xz {
            let stream = Stream::new_stream_decoder(MAX_XZ_MEMORY, 0)?;
            return Ok(Self::Xz(XzDecoder::new_stream(input, stream)));
        }
        let mut decoder = zstd::Decoder::with_buffer(input)?.single_frame();
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        Ok(Self::Zstd(decoder))
    }

    fn input(&self) -> &R {
        match self {
            Self::Zstd(d) => d.get_ref(),
            Self::Xz(d) => d.get_ref(),
        }
    }

    fn into_input(self) -> R {
        match self {
            Self::Zstd(d) => d.into_inner(),
            Self::Xz(d) => d.into_inner(),
        }
    }
}

impl<'a, R: BufRead> Frames<'a, R> {
    /// Begins with the frame that `input` stands at.
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

    /// Bytes produced so far.
    pub(super) fn produced(&self) -> u64 {
        self.totals.produced - self.before
    }

    fn begin(&mut self, input: &'a mut Tally<R>) -> io::Result<()> {
        self.totals.frames += 1;
        if self.totals.frames > MAX_FRAMES {
            return Err(Error::rejected(format!("more than {MAX_FRAMES} compressed frames")).into());
        }
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
            let n = match decoder {
                Decoder::Zstd(d) => d.read(buf)?,
                Decoder::Xz(d) => d.read(buf)?,
            };
            if n > 0 {
                self.totals.produced += n as u64;
                let bearable = FREE_OUTPUT + decoder.input().consumed.saturating_mul(MAX_RATIO);
                if self.totals.produced > bearable.min(MAX_OUTPUT) {
                    return Err(Error::rejected(format!(
                        "{} bytes unpack to more than {}: a decompression bomb",
                        decoder.input().consumed,
                        self.totals.produced
                    ))
                    .into());
                }
                return Ok(n);
            }
            let Some(input) = self.decoder.take().map(Decoder::into_input) else { break };
            if input.fill_buf()?.first().copied().and_then(Coding::of) == Some(self.coding) {
                self.begin(input)?;
            }
        }
        Ok(0)
    }
}
