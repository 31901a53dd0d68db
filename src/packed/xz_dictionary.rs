//! A dictionary no larger than what there is to find in it. `xz -9` writes 64 MiB into the header of a block, whatever
//! the length of the file, and a decoder takes them at their word: more memory than a small board should give for a
//! tiny image.
//!
//! LZMA2 never looks further back than to the beginning of its block, so a block of N bytes needs N bytes of
//! dictionary. The header of the first block is handed to the decoder with the smallest size that is enough; files of
//! several blocks have blocks that are longer than a dictionary, or are left as they are.
//!
//! Format: The .xz File Format 1.2.1, sections 3.1 and 5.3.1.

use crate::Result;
use crate::block::{ReadAt, read_vec};

/// Where the first block begins.
const BLOCK_AT: u64 = 12;
const LZMA2: u64 = 0x21;
/// The smallest dictionary: property 0.
const SMALLEST: u64 = 4096;

/// Bytes to be read in place of those at an offset: a smaller dictionary for a file that unpacks to `bytes`. `None`
/// where the file's own is small enough, or is not understood, which the decoder will then say.
pub(super) fn smaller(source: &dyn ReadAt, bytes: u64) -> Result<Option<(u64, Vec<u8>)>> {
    let room = source.size().saturating_sub(BLOCK_AT).min(1024) as usize;
    let start = read_vec(source, BLOCK_AT.min(source.size()), room)?;
    Ok(capped(&start, bytes).map(|header| (BLOCK_AT, header)))
}

fn capped(start: &[u8], bytes: u64) -> Option<Vec<u8>> {
    // A size of 0 is an index: there is no block.
    let size = usize::from(*start.first().filter(|size| **size != 0)?);
    let mut header = start.get(..(size + 1) * 4)?.to_vec();
    let checked = header.len() - 4;
    if crc32fast::hash(&header[..checked]).to_le_bytes() != header[checked..] {
        return None;
    }
    let at = property(&header)?;
    let needed = (0..=40).find(|property| dictionary(*property) >= bytes.max(SMALLEST))?;
    if needed >= *header.get(at)? {
        return None;
    }
    *header.get_mut(at)? = needed;
    let crc = crc32fast::hash(&header[..checked]).to_le_bytes();
    header[checked..].copy_from_slice(&crc);
    Some(header)
}

/// Where LZMA2's one property is.
fn property(header: &[u8]) -> Option<usize> {
    let flags = *header.get(1)?;
    let mut at = 2;
    for present in [0x40, 0x80] {
        if flags & present != 0 {
            number(header, &mut at)?;
        }
    }
    for _ in 0..=flags & 3 {
        let (id, properties) = (number(header, &mut at)?, number(header, &mut at)?);
        if id == LZMA2 && properties == 1 {
            return Some(at);
        }
        at = at.checked_add(usize::try_from(properties).ok()?)?;
    }
    None
}

/// The size that a property stands for.
fn dictionary(property: u8) -> u64 {
    if property == 40 { u64::from(u32::MAX) } else { u64::from(2 | property & 1) << (property / 2 + 11) }
}

/// A number of variable length: seven bits a byte, the lowest first, at most nine bytes.
fn number(header: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in 0..9 {
        let byte = *header.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7F) << (7 * shift);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn properties_are_sizes() {
        assert_eq!(
            [0, 1, 2, 16, 26, 28, 40].map(dictionary),
            [4096, 6144, 8192, 1 << 20, 32 << 20, 64 << 20, 0xFFFF_FFFF]
        );
    }

    proptest! {
        #[test]
        fn any_header_will_do(start in proptest::collection::vec(any::<u8>(), 0..200), bytes in any::<u64>()) {
            let _ = capped(&start, bytes);
            let _ = property(&start);
        }
    }
}
