//! What an xz file says of itself at its end: each of its streams ends with an index of its blocks and their sizes. So
//! truncated files and bombs are found without unpacking a byte. What the index says is a claim; the decoder holds it
//! against the blocks, and [`super::decode`] stops where more comes than was claimed.
//!
//! Format: The .xz File Format 1.2.1, sections 2.1 and 4. liblzma can read it (`lzma_file_info_decoder`), its crate
//! does not offer that.

use super::XZ;
use super::cursor::Cursor;
use crate::block::{ReadAt, read_vec};
use crate::{Error, Result};
use std::io::{BufReader, Bytes, Read};

/// Stream header and stream footer have 12 bytes each.
const FRAME: u64 = 12;
/// Real files have one stream; those of parallel packers one per few MiB.
const MAX_STREAMS: u32 = 65_536;
/// Bytes read at a time where padding is skipped.
const BLOCK: u64 = 64 * 1024;

/// The bytes that all streams of a file unpack to, as their indices claim.
pub(super) fn claimed_bytes(source: &dyn ReadAt) -> Result<u64> {
    let (mut end, mut total) = (source.size(), 0u64);
    for _ in 0..MAX_STREAMS {
        end = without_padding(source, end)?;
        let (start, bytes) = stream_before(source, end)?;
        total = total.saturating_add(bytes);
        if start == 0 {
            return Ok(total);
        }
        end = start;
    }
    Err(Error::rejected(format!("more than {MAX_STREAMS} xz streams in one file")))
}

/// The stream that ends at `end`: where it begins, and the bytes it unpacks to.
fn stream_before(source: &dyn ReadAt, end: u64) -> Result<(u64, u64)> {
    let bad = |at: u64, why: &str| {
        Error::malformed("xz file", at, why)
            .advise("it is truncated, damaged, or something was put behind it: fetch it again")
    };
    let Some(footer_at) = end.checked_sub(FRAME) else { return Err(bad(end, "it is too short for an xz stream")) };
    let footer = read_vec(source, footer_at, FRAME as usize)?;
    if &footer[10..] != b"YZ" {
        return Err(bad(footer_at, "no xz stream ends here"));
    }
    let backward = u64::from(u32::from_le_bytes([footer[4], footer[5], footer[6], footer[7]]));
    let Some(index_at) = footer_at.checked_sub((backward + 1) * 4) else {
        return Err(bad(footer_at, "its index would begin before the file"));
    };
    let index = Cursor::new(source, index_at, footer_at);
    let mut index = BufReader::with_capacity(64 * 1024, index).bytes();
    let mut sums = || -> Result<Option<(u64, u64)>> {
        if byte(&mut index)? != Some(0) {
            return Ok(None);
        }
        let Some(records) = number(&mut index)? else { return Ok(None) };
        let (mut blocks, mut unpacked) = (0u64, 0u64);
        for _ in 0..records {
            let (Some(block), Some(bytes)) = (number(&mut index)?, number(&mut index)?) else { return Ok(None) };
            let Some(padded) = block.checked_next_multiple_of(4) else { return Ok(None) };
            blocks = blocks.saturating_add(padded);
            unpacked = unpacked.saturating_add(bytes);
        }
        Ok(Some((blocks, unpacked)))
    };
    let Some((blocks, unpacked)) = sums()? else { return Err(bad(index_at, "the index is malformed")) };
    let start = index_at.checked_sub(blocks).and_then(|at| at.checked_sub(FRAME));
    let Some(start) = start else { return Err(bad(index_at, "the blocks in the index do not fit in front of it")) };
    if read_vec(source, start, XZ.len())? != XZ {
        return Err(bad(start, "no xz stream begins here, and one that ends behind it should"));
    }
    Ok((start, unpacked))
}

/// Where the zeros before `end` begin: streams may be padded with them (section 2.2), in fours.
fn without_padding(source: &dyn ReadAt, end: u64) -> Result<u64> {
    // Most streams have none.
    let (mut at, mut block_bytes) = (end, 4);
    while at > 0 {
        let n = at.min(block_bytes);
        block_bytes = BLOCK;
        let block = read_vec(source, at - n, n as usize)?;
        if let Some(last) = block.iter().rposition(|b| *b != 0) {
            let begin = at - n + last as u64 + 1;
            // A footer ends in letters, so all the zeros are padding; what is over belongs to something broken.
            return Ok(begin + (end - begin) % 4);
        }
        at -= n;
    }
    Ok(at)
}

fn byte(from: &mut Bytes<impl Read>) -> Result<Option<u8>> {
    Ok(from.next().transpose()?)
}

/// A number of variable length: seven bits a byte, the lowest first, at most nine bytes (section 1.2).
fn number(from: &mut Bytes<impl Read>) -> Result<Option<u64>> {
    let mut value = 0u64;
    for shift in 0..9 {
        let Some(b) = byte(from)? else { return Ok(None) };
        value |= u64::from(b & 0x7F) << (7 * shift);
        if b & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Ok(None)
}
