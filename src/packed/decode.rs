//! Unpacking within limits.

use super::cursor::Cursor;
use super::room::Sparse;
use super::{BLOCK, MAX_BYTES, Packing, Watch, ZSTD, xz_dictionary, xz_index};
use crate::block::{FileSource, ReadAt, read_vec};
use crate::units::{exact, size};
use crate::{Code, Error, Result};
use liblzma::stream::{CONCATENATED, Stream};
use std::io::{self, BufReader, Read};

/// The window a zstd frame may ask for: 32 MiB, the most of `zstd --ultra -20`. Talos' images (`zstd -18`) take 8 MiB;
/// `--long` and `--ultra -22` ask for 128 MiB, which a small board does not have.
const MAX_WINDOW_LOG: u32 = 25;
/// What liblzma may take: enough for `xz -8` (32 MiB dictionary). Talos' images (`xz -0`) take 1 MiB; `xz -9` asks for
/// 65 MiB, of which no more is given than there is content.
const MAX_XZ_MEMORY: u64 = 34 << 20;
/// Packed bytes read at a time.
const INPUT: usize = 256 * 1024;

/// Unpacks all of `source` into `to`, up to [`MAX_BYTES`].
pub(super) fn unpack(source: &FileSource, packing: Packing, to: Sparse<'_>, watch: Watch<'_>) -> Result<()> {
    unpack_at_most(source, packing, to, watch, MAX_BYTES)
}

/// [`unpack`], up to `limit` bytes.
pub(super) fn unpack_at_most(
    source: &FileSource,
    packing: Packing,
    mut to: Sparse<'_>,
    watch: Watch<'_>,
    limit: u64,
) -> Result<()> {
    let claimed = match packing {
        Packing::Xz => Some(xz_index::claimed_bytes(source)?),
        Packing::Zstd => check_first_frame(source)?,
    };
    if let Some(claimed) = claimed.filter(|c| *c > limit) {
        return Err(too_large(&format!("{} GiB", claimed >> 30), limit));
    }
    // Only an xz file tells all: of a zstd file the first of several frames was seen.
    let most = claimed.filter(|_| packing == Packing::Xz).unwrap_or(limit);
    let instead = match (packing, claimed) {
        (Packing::Xz, Some(bytes)) => xz_dictionary::smaller(source, bytes)?,
        _ => None,
    };
    let input = Input { inner: Cursor::new(source, 0, source.size()), instead, watch };
    let input = BufReader::with_capacity(INPUT, input);
    let mut decoder: Box<dyn Read + '_> = match packing {
        Packing::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Packing::Xz => {
            let stream = Stream::new_stream_decoder(MAX_XZ_MEMORY, CONCATENATED).map_err(io::Error::from)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
    };
    let mut buf = Vec::with_capacity(BLOCK);
    let mut produced = 0u64;
    loop {
        watch.check()?;
        buf.clear();
        (&mut decoder).take(BLOCK as u64).read_to_end(&mut buf).map_err(|e| rejected(e, packing))?;
        if buf.is_empty() {
            return to.finish();
        }
        produced += buf.len() as u64;
        if produced > limit {
            return Err(too_large(&format!("more than {} GiB", limit >> 30), limit));
        }
        if produced > most {
            return Err(Error::rejected(format!("it unpacks to more than the {} that its index names", exact(most)))
                .advise("it is damaged: fetch it again"));
        }
        to.write(&buf)?;
    }
}

fn too_large(what: &str, limit: u64) -> Error {
    Error::rejected(format!("it unpacks to {what}; {} GiB is the limit", limit >> 30))
        .advise("if that is the true size of a disk, unpack it yourself and give the raw image or the disk")
}

/// What the header of the first frame says of its content's length; refuses a window that is too large, with its size.
/// Format: RFC 8878, section 3.1.1.1.
fn check_first_frame(source: &dyn ReadAt) -> Result<Option<u64>> {
    let head = read_vec(source, 0, source.size().min(18) as usize)?;
    let (Some(fields), Some(descriptor)) = (head.strip_prefix(ZSTD), head.get(4)) else { return Ok(None) };
    let single = descriptor & 0x20 != 0;
    let window_bytes = usize::from(!single);
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = match descriptor >> 6 {
        0 => usize::from(single),
        n => 1 << n,
    };
    if let Some(window) = fields.get(1).filter(|_| !single) {
        let base = 1u64 << (10 + (window >> 3));
        let window = base + base / 8 * u64::from(window & 7);
        if window > 1 << MAX_WINDOW_LOG {
            return Err(needs_memory(Packing::Zstd, &format!("a window of {}", size(window))));
        }
    }
    let at = 1 + window_bytes + dictionary_bytes;
    let Some(raw) = fields.get(at..at + size_bytes).filter(|raw| !raw.is_empty()) else { return Ok(None) };
    let mut size = [0; 8];
    size[..raw.len()].copy_from_slice(raw);
    let size = u64::from_le_bytes(size);
    Ok(Some(if size_bytes == 2 { size + 256 } else { size }))
}

fn needs_memory(packing: Packing, what: &str) -> Error {
    let (limit, how, command) = match packing {
        Packing::Zstd => ("a window of 32 MiB", "with --long or --ultra", "zstd -d --long=31"),
        Packing::Xz => ("34 MiB", "with -9 or a large dictionary", "xz -dk"),
    };
    Error::rejected(format!("to unpack it takes {what}; {limit} is the limit here: it was packed {how}"))
        .advise(format!("unpack it with `{command} FILE` on a machine with more memory, and pass the result"))
}

/// An error on the way through a decoder: the medium's and our own as they were, the decoder's as a rejection.
fn rejected(e: io::Error, packing: Packing) -> Error {
    let memory = match packing {
        Packing::Zstd => e.to_string().contains("too much memory"),
        Packing::Xz => {
            let inner = e.get_ref().and_then(|e| e.downcast_ref::<liblzma::stream::Error>());
            matches!(inner, Some(liblzma::stream::Error::MemLimit))
        }
    };
    if memory {
        return needs_memory(packing, "more");
    }
    let early = e.kind() == io::ErrorKind::UnexpectedEof;
    let e = Error::from(e);
    if e.io_error().is_none() {
        return e; // made by `Input`
    }
    let what = if early {
        "it ends too early".to_owned()
    } else {
        format!(
            "it is not a valid {packing} file \
                                                                    ({})",
            e.message()
        )
    };
    Error::rejected(what).advise("it is truncated, damaged, or something was put behind it: fetch it again")
}

/// The packed bytes, for a decoder. Errors of the medium are marked as such, so that nobody takes them for its own.
struct Input<'a> {
    inner: Cursor<'a>,
    /// What is handed over in place of the bytes at an offset.
    instead: Option<(u64, Vec<u8>)>,
    watch: Watch<'a>,
}

impl Read for Input<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.watch.check()?;
        (self.watch.progress)(self.inner.at, self.inner.end);
        let from = self.inner.at;
        let medium = |e| io::Error::from(Error::from(e).with_code(Code::Io).while_doing("reading it"));
        let n = self.inner.read(buf).map_err(medium)?;
        if let Some((at, bytes)) = &self.instead {
            let (start, end) = (from.max(*at), (from + n as u64).min(at + bytes.len() as u64));
            if start < end {
                let source = &bytes[(start - at) as usize..(end - at) as usize];
                buf[(start - from) as usize..(end - from) as usize].copy_from_slice(source);
            }
        }
        Ok(n)
    }
}
