//! How archives of an initrd are packed, and what the kernel's own decompressors take of each format: less than the
//! tools can write.
//!
//! Sources: Linux `lib/decompress.c` (which bytes begin what), `lib/decompress_inflate.c` (gzip headers),
//! `lib/xz/xz_dec_stream.c` (integrity checks, filters), `lib/decompress_unzstd.c` (windows); RFC 1952, The .xz File
//! Format 1.2.1.

use crate::units::size;
use crate::{Code, Error, Result};
use serde::Serialize;
use std::fmt;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Coding {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// LZMA alone, the older format of the xz tools.
    Lzma,
    /// xz: Talos before 1.8.
    Xz,
    /// lzop's format. Recognised, and not unpacked here.
    Lzo,
    /// lz4's legacy format (`lz4 -l`), the only one that the kernel knows.
    Lz4,
    /// zstd: Talos 1.8 and later.
    Zstd,
}

/// The most bytes that [`Coding::check`] wants to see: an xz stream header and the longest block header.
pub(super) const HEADER: usize = 12 + 1024;

/// The zstd window that is unpacked here, as a power of two: 32 MiB. Talos uses 8 MiB; 128 MiB would not fit a small
/// board beside its kernel.
pub(super) const MAX_WINDOW_LOG: u32 = 25;
/// The zstd window that the kernel unpacks (`ZSTD_WINDOWSIZE_MAX`).
const KERNEL_WINDOW: u64 = 128 << 20;

impl Coding {
    /// From the first two bytes, as the kernel tells them apart.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        match *start {
            [b'0', ..] => Some(Self::Plain),
            [0x1F, 0x8B | 0x9E, ..] => Some(Self::Gzip),
            [b'B', b'Z', ..] => Some(Self::Bzip2),
            [0x5D, 0x00, ..] => Some(Self::Lzma),
            [0xFD, 0x37, ..] => Some(Self::Xz),
            [0x89, 0x4C, ..] => Some(Self::Lzo),
            [0x02, 0x21, ..] => Some(Self::Lz4),
            [0x28, 0xB5, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Looks at the header of a frame for what unpackers take and the kernel does not. `start` is the frame's
    /// beginning, [`HEADER`] bytes of it where there are so many.
    pub(super) fn check(self, start: &[u8]) -> Result<()> {
        match self {
            Self::Gzip => check_gzip(start),
            Self::Xz => check_xz(start),
            Self::Zstd => check_zstd(start),
            _ => Ok(()),
        }
    }
}

/// The kernel skips the name of a file in a gzip header and knows no other optional field.
fn check_gzip(start: &[u8]) -> Result<()> {
    match *start {
        [0x1F, 0x8B, 8, flags, ..] if flags & 0x16 == 0 => Ok(()),
        [0x1F, 0x8B, 8, _, ..] => Err(Error::rejected(
            "its gzip header has fields that the kernel does not skip: only a file name may be there",
        )),
        _ => Err(Error::rejected("not a gzip header that the kernel accepts")),
    }
}

/// The kernel checks CRC32 or nothing, and takes LZMA2 behind at most one branch filter without an offset.
fn check_xz(start: &[u8]) -> Result<()> {
    match start.get(7).map(|flags| flags & 0x0F) {
        None | Some(0 | 1) => {}
        Some(4) => {
            return Err(Error::rejected(
                "its xz check is CRC64: the kernel accepts only CRC32 or none (xz \
             --check=crc32)",
            ));
        }
        Some(10) => {
            return Err(Error::rejected(
                "its xz check is SHA-256: the kernel accepts only CRC32 or none (xz \
             --check=crc32)",
            ));
        }
        Some(n) => {
            return Err(Error::rejected(format!(
                "its xz check is number {n}: the kernel accepts only CRC32 or \
         none"
            )));
        }
    }
    // The first block's header; the decoder has the last word on whether it is sound at all. A size of 0 is an index:
    // no block.
    let Some(block) = start.get(12..).filter(|b| b.first().is_some_and(|size| *size != 0)) else { return Ok(()) };
    let block = block.get(..(usize::from(block[0]) + 1) * 4).unwrap_or(block);
    let filters = |block: &[u8]| -> Option<Vec<(u64, u64)>> {
        let flags = *block.get(1)?;
        let mut rest = block.get(2..)?;
        for present in [0x40, 0x80] {
            if flags & present != 0 {
                number(&mut rest)?;
            }
        }
        (0..=flags & 3)
            .map(|_| {
                let (id, properties) = (number(&mut rest)?, number(&mut rest)?);
                rest = rest.get(usize::try_from(properties).ok()?..)?;
                Some((id, properties))
            })
            .collect()
    };
    const LZMA2: u64 = 0x21;
    match filters(block).as_deref() {
        None | Some([(LZMA2, _)] | [(0x04..=0x0B, 0), (LZMA2, _)]) => Ok(()),
        Some([(0x04..=0x0B, _), (LZMA2, _)]) => {
            Err(Error::rejected("its xz branch filter begins at an offset, which the kernel does not take"))
        }
        Some(chain) if chain.iter().any(|(id, _)| *id == 0x03) => {
            Err(Error::rejected("its xz filters include delta, which the kernel does not have"))
        }
        Some(chain) => Err(Error::rejected(format!(
            "its xz filters are {}: the kernel takes LZMA2 and at most one branch filter before it",
            chain.iter().map(|(id, _)| format!("0x{id:02x}")).collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// The window that a frame asks for (RFC 8878, section 3.1.1.1). A frame in one segment asks for all of its content.
fn check_zstd(start: &[u8]) -> Result<()> {
    let Some((descriptor, fields)) = start.get(4..).and_then(<[u8]>::split_first) else { return Ok(()) };
    let window = if descriptor & 0x20 == 0 {
        let Some(window) = fields.first() else { return Ok(()) };
        let base = 1u64 << (10 + (window >> 3));
        base + base / 8 * u64::from(window & 7)
    } else {
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let bytes = 1usize << (descriptor >> 6);
        let Some(field) = fields.get(dictionary..dictionary + bytes) else { return Ok(()) };
        let mut size = [0; 8];
        size[..bytes].copy_from_slice(field);
        u64::from_le_bytes(size) + if bytes == 2 { 256 } else { 0 }
    };
    if window > KERNEL_WINDOW {
        return Err(Error::rejected(format!(
            "its zstd window has {}: the kernel takes {}",
            size(window),
            size(KERNEL_WINDOW)
        )));
    }
    if window > 1 << MAX_WINDOW_LOG {
        let why = format!("its zstd window has {}, and 32 MiB is the limit here", size(window));
        return Err(Error::new(Code::Unsupported, why));
    }
    Ok(())
}

/// A number of variable length: seven bits a byte, the lowest first, at most nine bytes (.xz, section 1.2).
fn number(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in 0..9 {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7F) << (7 * shift);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
    use std::io::Write;

    fn xz(filters: &Filters, check: Check) -> Vec<u8> {
        let stream = Stream::new_stream_encoder(filters, check).unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(&[7; 5000]).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn of_xz_the_kernel_takes_less_than_xz_writes() {
        let lzma = LzmaOptions::new_preset(0).unwrap();
        let plain = || {
            let mut filters = Filters::new();
            filters.lzma2(&lzma);
            filters
        };
        let verdict = |filters: &Filters, check| Coding::Xz.check(&xz(filters, check)).map_err(|e| e.to_string());
        assert_eq!(verdict(&plain(), Check::None), Ok(()));
        assert_eq!(verdict(&plain(), Check::Crc32), Ok(()));
        assert!(verdict(&plain(), Check::Crc64).unwrap_err().contains("CRC64"));
        assert!(verdict(&plain(), Check::Sha256).unwrap_err().contains("SHA-256"));

        let mut one = Filters::new();
        one.x86().lzma2(&lzma);
        assert_eq!(verdict(&one, Check::Crc32), Ok(()));
    }

    #[test]
    fn filters_that_the_kernel_does_not_take_are_told_apart() {
        // A block header: its size in fours less one, the number of filters less one, then each with its properties.
        let verdict = |filters: &[u8], count: u8| {
            let mut start = b"\xFD7zXZ\0\0\x01crc.".to_vec();
            start.extend([(filters.len() as u8 + 2 + 4) / 4, count - 1]);
            start.extend(filters);
            start.resize(40, 0);
            Coding::Xz.check(&start).map_err(|e| e.to_string())
        };
        assert_eq!(verdict(&[0x21, 1, 22], 1), Ok(()));
        assert_eq!(verdict(&[0x04, 0, 0x21, 1, 22], 2), Ok(()));
        assert_eq!(verdict(&[0x0A, 0, 0x21, 1, 22], 2), Ok(()));
        for (filters, count, why) in [
            (&[0x03, 1, 3, 0x21, 1, 22][..], 2, "delta"),
            (&[0x04, 0, 0x03, 1, 3, 0x21, 1, 22], 3, "delta"),
            (&[0x04, 0, 0x07, 0, 0x21, 1, 22], 3, "at most one branch filter"),
            (&[0x04, 4, 0, 0, 0, 1, 0x21, 1, 22], 2, "begins at an offset"),
            (&[0x04, 0], 1, "at most one branch filter"),
        ] {
            let e = verdict(filters, count).unwrap_err();
            assert!(e.contains(why), "{filters:?}: {e}");
        }
    }

    #[test]
    fn of_gzip_headers_the_kernel_knows_names_only() {
        for (flags, good) in [(0, true), (1, true), (8, true), (2, false), (4, false), (0x10, false), (0x0C, false)] {
            assert_eq!(Coding::Gzip.check(&[0x1F, 0x8B, 8, flags, 0, 0]).is_ok(), good, "{flags}");
        }
        assert!(Coding::Gzip.check(&[0x1F, 0x9E, 8, 0]).is_err());
        assert!(Coding::Gzip.check(&[0x1F, 0x8B]).is_err());
    }

    #[test]
    fn any_header_will_do() {
        for n in 0..40 {
            for byte in 0..=255 {
                let start = [&b"\xFD7zXZ\0\0\x01crc."[..], &vec![byte; n]].concat();
                let _ = Coding::Xz.check(&start);
            }
        }
    }
}
