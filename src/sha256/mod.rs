//! SHA-256 of two streams at once.
//!
//! The file itself and its Authenticode image are two hashes over nearly the same bytes. A processor with instructions
//! for SHA-256 waits in each round for the one before it; the rounds of another stream fit into that time. So two
//! streams that are hashed by one thread take little longer than one ([`update_both`]).
//!
//! Compression of one stream is the crate `sha2`'s, which has nothing for two. FIPS 180-4.

mod pair;

use crate::Result;
use crate::block::Sink;
use sha2::block_api::compress256;

/// Length of a block in bytes.
const BLOCK: usize = 64;
/// The state before the first block (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The state between two blocks.
type State = [u32; 8];
/// What is compressed at once.
type Block = [u8; BLOCK];

/// A running SHA-256.
#[derive(Debug, Clone)]
pub(crate) struct Sha256Stream {
    state: State,
    /// The begin of the block that is not full yet.
    pending: Block,
    /// Bytes taken so far.
    bytes: u64,
}

impl Default for Sha256Stream {
    fn default() -> Self {
        Self { state: INITIAL, pending: [0; BLOCK], bytes: 0 }
    }
}

impl Sha256Stream {
    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let (blocks, rest) = self.complete(bytes).as_chunks::<BLOCK>();
        compress256(&mut self.state, blocks);
        self.took(blocks);
        self.keep(rest);
    }

    /// The hash of all bytes.
    #[must_use]
    pub(crate) fn finish(mut self) -> [u8; 32] {
        let bits = self.bytes.wrapping_mul(8);
        self.update(&[0x80]);
        // Zeros up to the last eight bytes of a block, which are the length.
        let filled = self.filled();
        let zeros = (2 * BLOCK - 8 - filled) % BLOCK;
        self.update(&[0; BLOCK][..zeros]);
        self.update(&bits.to_be_bytes());
        let mut hash = [0; 32];
        for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        hash
    }

    /// How much of a block is pending.
    const fn filled(&self) -> usize {
        (self.bytes % BLOCK as u64) as usize
    }

    /// Takes what completes the pending block, if there is one; what is left of `bytes` then.
    fn complete<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let filled = self.filled();
        if filled == 0 {
            return bytes;
        }
        let (begin, rest) = bytes.split_at(bytes.len().min(BLOCK - filled));
        self.keep(begin);
        if self.filled() == 0 {
            compress256(&mut self.state, &[self.pending]);
        }
        rest
    }

    /// Counts blocks that were compressed.
    fn took(&mut self, blocks: &[Block]) {
        self.bytes = self.bytes.wrapping_add((blocks.len() * BLOCK) as u64);
    }

    /// Keeps bytes that fit into the pending block.
    fn keep(&mut self, bytes: &[u8]) {
        let filled = self.filled();
        if let Some(place) = self.pending.get_mut(filled..filled + bytes.len()) {
            place.copy_from_slice(bytes);
            self.bytes = self.bytes.wrapping_add(bytes.len() as u64);
        }
    }
}

/// `a` takes `x` and `b` takes `y`: as [`Sha256Stream::update`] of each, in less time.
pub(crate) fn update_both(a: &mut Sha256Stream, x: &[u8], b: &mut Sha256Stream, y: &[u8]) {
    let (x, y) = (a.complete(x), b.complete(y));
    let ((blocks_a, _), (blocks_b, _)) = (x.as_chunks::<BLOCK>(), y.as_chunks::<BLOCK>());
    let both = blocks_a.len().min(blocks_b.len());
    let (blocks_a, blocks_b) = (&blocks_a[..both], &blocks_b[..both]);
    // Where a pending block is not full, nothing is left to take.
    pair::compress_both(&mut a.state, blocks_a, &mut b.state, blocks_b);
    a.took(blocks_a);
    b.took(blocks_b);
    a.update(&x[both * BLOCK..]);
    b.update(&y[both * BLOCK..]);
}

/// A [`Sink`] whose work is one SHA-256.
pub(crate) trait HashSink: Sink {
    /// Takes a chunk, but for a last part that is to go into a hash as it is: that hash and that part. `None` where
    /// nothing is left to do.
    ///
    /// # Errors
    /// As [`Sink::chunk`].
    fn hashed<'s, 'b>(&'s mut self, bytes: &'b [u8]) -> Result<Option<(&'s mut Sha256Stream, &'b [u8])>>;
}

/// Two of them, served together.
pub(crate) struct BothSinks<'a>(pub(crate) &'a mut dyn HashSink, pub(crate) &'a mut dyn HashSink);

impl Sink for BothSinks<'_> {
    fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        match (self.0.hashed(bytes)?, self.1.hashed(bytes)?) {
            (Some((a, x)), Some((b, y))) => update_both(a, x, b, y),
            (Some((hash, part)), None) | (None, Some((hash, part))) => hash.update(part),
            (None, None) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Sha256Stream, update_both};
    use crate::testkit::crash::Random;
    use sha2::{Digest, Sha256};

    fn expected(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    #[test]
    fn every_length_is_as_sha2_has_it() {
        let bytes = Random::new(1).bytes(1200);
        for length in 0..bytes.len() {
            let mut stream = Sha256Stream::default();
            stream.update(&bytes[..length]);
            assert_eq!(stream.finish(), expected(&bytes[..length]), "{length}");
        }
    }

    #[test]
    fn two_streams_of_every_length_are_as_sha2_has_them() {
        let bytes = Random::new(2).bytes(700);
        for x in 0..300 {
            for y in [0, 1, 63, 64, 65, 127, 128, 129, 200, 256, 300 - x, 300] {
                let (mut a, mut b) = (Sha256Stream::default(), Sha256Stream::default());
                update_both(&mut a, &bytes[..x], &mut b, &bytes[x..x + y]);
                assert_eq!(a.finish(), expected(&bytes[..x]), "{x} {y}");
                assert_eq!(b.finish(), expected(&bytes[x..x + y]), "{x} {y}");
            }
        }
    }

    #[test]
    fn two_streams_in_any_pieces_are_as_sha2_has_them() {
        let mut random = Random::new(3);
        for turn in 0..2000 {
            let (mut a, mut b) = (Sha256Stream::default(), Sha256Stream::default());
            let (mut all_a, mut all_b) = (Vec::new(), Vec::new());
            for _ in 0..random.below(8) {
                let (long, short) = (random.below(900), random.below(70));
                let (x, y) = if random.below(2) == 0 { (long, short) } else { (long, long) };
                let (x, y) = (random.bytes(x), random.bytes(y));
                update_both(&mut a, &x, &mut b, &y);
                all_a.extend(x);
                all_b.extend(y);
            }
            assert_eq!((a.finish(), b.finish()), (expected(&all_a), expected(&all_b)), "{turn}");
        }
    }
}
