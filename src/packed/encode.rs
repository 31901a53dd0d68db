//! Packing within limits: on several threads, in memory that a small board has.

use super::room::FreeSpace;
use super::{BLOCK, Folder, Packing, Watch, data_from};
use crate::block::{FileSource, ReadAt};
use crate::{Context, Error, Result};
use liblzma::stream::{Check, MtStreamBuilder};
use std::fs::File;
use std::io::{self, Write};
use zstd::zstd_safe::CParameter;

/// zstd's default level. What is large in an image is packed already; Talos' `-18` would take minutes to gain a few per
/// cent.
const ZSTD_LEVEL: i32 = 3;
/// What a thread works on at a time, in bytes. zstd's own choice, 8 MiB, takes 84 MiB of memory on four threads; this
/// takes 30, and the result grows by 0.4 %.
const ZSTD_JOB: u32 = 2 << 20;
/// Talos' own preset for xz (`xz -0`). The default preset 6 would take 94 MiB for each thread.
const XZ_PRESET: u32 = 0;
/// More threads would need more memory than there may be: each has its own piece of the image and what becomes of it.
const MAX_THREADS: u32 = 4;

/// Packs `from`, from front to back, into the empty file `to`, which lies in `place`.
///
/// # Errors
/// [`crate::Kind::Io`] when reading or writing fails, or there is no room; [`crate::Kind::Cancelled`].
pub fn pack(from: &FileSource, packing: Packing, to: &File, place: &Folder, watch: Watch<'_>) -> Result<()> {
    let work = || -> Result<()> {
        let out = Output { room: FreeSpace::new(to, place), at: 0 };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u32).min(MAX_THREADS);
        match packing {
            Packing::Zstd => {
                let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                encoder.set_pledged_src_size(Some(from.size()))?;
                if threads > 1 {
                    encoder.multithread(threads)?;
                    encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
                }
                feed(from, &mut encoder, watch)?;
                encoder.finish()?;
            }
            Packing::Xz => {
                let mut builder = MtStreamBuilder::new();
                let stream = builder.preset(XZ_PRESET).check(Check::Crc64).threads(threads).encoder();
                let mut encoder = liblzma::write::XzEncoder::new_stream(out, stream.map_err(io::Error::from)?);
                feed(from, &mut encoder, watch)?;
                encoder.finish()?;
            }
        }
        Ok(())
    };
    work().while_doing(|| format!("packing the image with {packing}"))
}

fn feed(from: &FileSource, to: &mut dyn Write, watch: Watch<'_>) -> Result<()> {
    let (mut at, end) = (0, from.size());
    let (mut buf, zeros) = (vec![0; BLOCK], vec![0; BLOCK]);
    from.will_read(at, end);
    while at < end {
        let data = data_from(from.file(), at, end);
        while at < data.end {
            watch.check()?;
            let hole = at < data.start;
            let n = usize::try_from(if hole { data.start } else { data.end } - at).unwrap_or(BLOCK).min(BLOCK);
            if hole {
                to.write_all(&zeros[..n])?; // to read a hole takes longer than to pack it
            } else {
                from.read_exact_at(&mut buf[..n], at)?;
                to.write_all(&buf[..n])?;
            }
            at += n as u64;
            (watch.progress)(at, end);
        }
    }
    Ok(())
}

/// What comes out of an encoder. Dropped with its encoder after an error, it takes no harm: the file is thrown away.
struct Output<'a> {
    room: FreeSpace<'a>,
    at: u64,
}

impl Write for Output<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.room.store(buf, self.at).map_err(|e: Error| io::Error::from(e))?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
