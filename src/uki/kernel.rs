//! The kernel's version, out of the kernel itself.
//!
//! Where it stands depends on the form: the header of an x86 bzImage points to it; in an arm64 Image it is the text of
//! `/proc/version`; in a zboot image (a decompressor with a compressed Image) that text has to be unpacked first.
//! Sources: Linux `Documentation/arch/x86/boot.rst` (offset 0x20E), `drivers/firmware/efi/libstub/zboot-header.S`,
//! `init/version-timestamp.c`.
//!
//! Takes up to half a second; for showing and comparing, not for verifying.

use super::frames::rejected;
use crate::block::{Extent, ReadAt, Window, read_vec};
use crate::{Context, Error, Result};
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use std::io::{self, BufRead, BufReader, Read};

/// What of a kernel is searched, unpacked. Talos' arm64 kernel has about 60 MiB.
const MAX_SEARCH: u64 = 256 << 20;
/// The same for a frame whose window is so large that what was unpacked stays in memory.
const MAX_SEARCH_WIDE: u64 = 40 << 20;
/// The text is looked for in front of the version.
const BANNER: &[u8] = b"Linux version ";
/// The longest version that is believed.
const MAX_VERSION: usize = 128;

/// The version of the kernel at `extent`, for example `6.18.5-talos`; `None` when it has none that can be found.
///
/// # Errors
/// [`crate::Kind::Rejected`] when its compressed payload is damaged or too large; else what the source reports.
pub fn kernel_version(source: &dyn ReadAt, extent: Extent) -> Result<Option<String>> {
    let doing = || "looking for the kernel's version";
    let kernel = Window::new(source, extent).while_doing(doing)?;
    let header = read_vec(&kernel, 0, extent.bytes.min(1024) as usize).while_doing(doing)?;
    if header.get(4..8) == Some(b"zimg") {
        return zboot(&kernel, &header).while_doing(doing);
    }
    if header.get(0x202..0x206) == Some(b"HdrS") {
        return bz_image(&kernel, &header).while_doing(doing);
    }
    search(BufReader::new(Stretch { source: &kernel, at: 0, end: extent.bytes }), MAX_SEARCH).while_doing(doing)
}

/// The pointer at 0x20E, counted from 0x200, to a text like `6.18.5-talos (user@host) #1 SMP …`.
fn bz_image(kernel: &dyn ReadAt, header: &[u8]) -> Result<Option<String>> {
    let Some(&[low, high]) = header.get(0x20E..0x210) else { return Ok(None) };
    let at = u64::from(u16::from_le_bytes([low, high]));
    if at == 0 || at + 0x200 >= kernel.size() {
        return Ok(None);
    }
    let bytes = (kernel.size() - at - 0x200).min(MAX_VERSION as u64) as usize;
    Ok(version(&read_vec(kernel, at + 0x200, bytes)?))
}

/// Payload offset and size at 8 and 12, the compression's name at 24.
fn zboot(kernel: &dyn ReadAt, header: &[u8]) -> Result<Option<String>> {
    let field =
        |at: usize| header.get(at..at + 4).map_or(0, |b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    let (offset, bytes) = (field(8), field(12));
    let coding = header.get(24..56).unwrap_or_default();
    let coding = &coding[..coding.iter().position(|b| *b == 0).unwrap_or(coding.len())];
    if offset + bytes > kernel.size() {
        let why = format!("a payload of {bytes} bytes at {offset} in {} bytes", kernel.size());
        return Err(Error::malformed("zboot header", 8, why));
    }
    let payload = || BufReader::with_capacity(128 * 1024, Stretch { source: kernel, at: offset, end: offset + bytes });
    match coding {
        b"gzip" => search(BufReader::new(GzDecoder::new(payload())), MAX_SEARCH),
        b"xzkern" | b"xz" => {
            let stream = Stream::new_stream_decoder(34 << 20, 0).map_err(|e| rejected(e.into()))?;
            search(BufReader::new(XzDecoder::new_stream(payload(), stream)), MAX_SEARCH)
        }
        b"zstd" | b"zstd22" => {
            let open = |window_log| -> io::Result<_> {
                let mut decoder = zstd::Decoder::with_buffer(payload())?.single_frame();
                decoder.window_log_max(window_log)?;
                let mut reader = BufReader::with_capacity(128 * 1024, decoder);
                reader.fill_buf()?;
                Ok(reader)
            };
            // Kernel builds use zstd -22, which announces a window of 128 MiB for a payload that is smaller than that.
            match open(25) {
                Ok(reader) => search(reader, MAX_SEARCH),
                Err(_) => search(open(27).map_err(rejected)?, MAX_SEARCH_WIDE),
            }
        }
        _ => Ok(None),
    }
}

/// The first version behind [`BANNER`] in at most `limit` bytes.
fn search(input: impl BufRead, limit: u64) -> Result<Option<String>> {
    let finder = memchr::memmem::Finder::new(BANNER);
    let mut input = input.take(limit);
    let mut window = Vec::with_capacity(512 * 1024);
    loop {
        let n = input.by_ref().take(256 * 1024).read_to_end(&mut window).map_err(rejected)?;
        for at in finder.find_iter(&window) {
            // Format strings have a % there.
            let found = version(&window[at + BANNER.len()..]);
            if found.is_some() && (window.len() - at > BANNER.len() + MAX_VERSION || n == 0) {
                return Ok(found);
            }
        }
        if n == 0 {
            return Ok(None);
        }
        // A banner may go on in what comes next.
        window.drain(..window.len().saturating_sub(BANNER.len() + MAX_VERSION));
    }
}

/// The word at the start of `text`, if it looks like a version.
fn version(text: &[u8]) -> Option<String> {
    let end = text.iter().position(|b| !b.is_ascii_graphic())?;
    let word = text.get(..end).filter(|w| w.len() <= MAX_VERSION && w.first().is_some_and(u8::is_ascii_digit))?;
    String::from_utf8(word.to_vec()).ok()
}

/// A range of a source, read from front to back.
struct Stretch<'a> {
    source: &'a dyn ReadAt,
    at: u64,
    end: u64,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (self.end - self.at).min(buf.len() as u64) as usize;
        let medium = |e: io::Error| io::Error::from(Error::io(e.to_string()));
        self.source.read_exact_at(&mut buf[..n], self.at).map_err(medium)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn whole(kernel: &[u8]) -> Result<Option<String>> {
        kernel_version(&kernel, Extent { offset: 0, bytes: kernel.len() as u64 })
    }

    fn image() -> Vec<u8> {
        let mut image = vec![0x55; 1_300_000];
        let banner = b"Linux version %s\0Linux version 6.18.5-talos (build@host) (gcc) #1 SMP\n\0";
        image[1_200_000..1_200_000 + banner.len()].copy_from_slice(banner);
        image
    }

    fn zimg(coding: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut kernel = vec![0; 64];
        kernel[..8].copy_from_slice(b"MZ\0\0zimg");
        kernel[8..12].copy_from_slice(&64u32.to_le_bytes());
        kernel[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        kernel[24..24 + coding.len()].copy_from_slice(coding);
        kernel.extend(payload);
        kernel
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(data).unwrap();
        e.finish().unwrap()
    }

    fn zstd_with_window(data: &[u8], log: u32) -> Vec<u8> {
        let mut e = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
        e.window_log(log).unwrap();
        e.write_all(data).unwrap();
        e.finish().unwrap()
    }

    #[test]
    fn every_form_gives_its_version() {
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&image()).unwrap();
        let mut bz = vec![0; 3000];
        bz[0x202..0x206].copy_from_slice(b"HdrS");
        bz[0x20E..0x210].copy_from_slice(&0x300u16.to_le_bytes());
        bz[0x500..0x50E].copy_from_slice(b"6.18.5-talos (");
        for (what, kernel) in [
            ("Image", image()),
            ("bzImage", bz),
            ("gzip", zimg(b"gzip", &gzip(&image()))),
            ("zstd", zimg(b"zstd", &zstd_with_window(&image(), 23))),
            ("zstd -22", zimg(b"zstd", &zstd_with_window(&image(), 27))),
            ("xz", zimg(b"xzkern", &xz.finish().unwrap())),
        ] {
            assert_eq!(whole(&kernel).unwrap().as_deref(), Some("6.18.5-talos"), "{what}");
        }
    }

    #[test]
    fn a_banner_on_any_seam_is_found() {
        for at in (256 * 1024 - 200..256 * 1024 + 20).step_by(7) {
            let mut image = vec![b'%'; 600_000];
            image[at..at + 30].copy_from_slice(b"Linux version 6.1.0-longer-one");
            image[at + 30] = b' ';
            assert_eq!(whole(&image).unwrap().as_deref(), Some("6.1.0-longer-one"), "{at}");
        }
    }

    #[test]
    fn no_version_is_no_error() {
        let mut pointing_out = vec![0; 1000];
        pointing_out[0x202..0x206].copy_from_slice(b"HdrS");
        pointing_out[0x20E..0x210].copy_from_slice(&[0xFF, 0xFF]);
        for kernel in [vec![], vec![0; 5], pointing_out, b"Linux version ".to_vec(), zimg(b"lzo", b"abc")] {
            assert_eq!(whole(&kernel).unwrap(), None);
        }
    }

    #[test]
    fn damaged_payloads_are_rejected() {
        let mut outside = zimg(b"gzip", b"abc");
        outside[12..16].fill(0xFF);
        let mut cut = gzip(&image());
        cut.truncate(cut.len() / 2);
        for kernel in [outside, zimg(b"gzip", b"abc"), zimg(b"zstd", b"abcdef"), zimg(b"gzip", &cut)] {
            assert_eq!(whole(&kernel).unwrap_err().kind(), crate::Kind::Rejected);
        }
    }
}
