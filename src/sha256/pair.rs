//! Blocks of two streams, compressed at once with the processor's instructions for SHA-256; one after the other where it
//! has none.
//!
//! The only `unsafe` of this crate: the calls of functions that use such instructions, behind the question whether the
//! processor has them. Those functions themselves touch no memory but what Rust gives them.
#![allow(unsafe_code)]

use super::{Block, State};
use sha2::block_api::compress256;

/// Compresses blocks of both streams, as many of one as of the other.
pub(super) fn compress_both(a: &mut State, blocks_a: &[Block], b: &mut State, blocks_b: &[Block]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1") {
        // SAFETY: the processor has these features; the function has no other condition.
        return unsafe { x86_64::compress_both([a, b], [blocks_a, blocks_b]) };
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("sha2") {
        // SAFETY: the processor has this feature; the function has no other condition.
        return unsafe { aarch64::compress_both([a, b], [blocks_a, blocks_b]) };
    }
    compress256(a, blocks_a);
    compress256(b, blocks_b);
}

/// The constants of the rounds (FIPS 180-4, 4.2.2): four of them for each step.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const ROUNDS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// The sixteen steps of a block, each for both streams before the next one: written out, because a loop would keep the
/// words in memory where the program is compiled for size.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! all_rounds {
    ($four_rounds:ident) => {
        all_rounds!($four_rounds: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    ($four_rounds:ident: $($step:literal)*) => {
        $($four_rounds!($step, 0); $four_rounds!($step, 1);)*
    };
}

/// Intel SHA Extensions (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, SHA256RNDS2).
#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{Block, ROUNDS, State};
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x, _mm_setzero_si128,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    #[target_feature(enable = "sse2")]
    fn words([a, b, c, d]: [u32; 4]) -> __m128i {
        _mm_set_epi32(a as i32, b as i32, c as i32, d as i32)
    }

    #[target_feature(enable = "sse2,sse4.1")]
    fn back(v: __m128i) -> [u32; 4] {
        let [a, b] = [_mm_extract_epi32::<3>(v), _mm_extract_epi32::<2>(v)];
        let [c, d] = [_mm_extract_epi32::<1>(v), _mm_extract_epi32::<0>(v)];
        [a as u32, b as u32, c as u32, d as u32]
    }

    /// The block as its sixteen words, four in each.
    #[target_feature(enable = "sse2,ssse3")]
    fn load(block: &Block) -> [__m128i; 4] {
        let swap = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
        let (halves, _) = block.as_chunks::<8>();
        let mut words = [_mm_setzero_si128(); 4];
        for (word, [low, high]) in words.iter_mut().zip(halves.as_chunks::<2>().0) {
            *word = _mm_shuffle_epi8(_mm_set_epi64x(i64::from_le_bytes(*high), i64::from_le_bytes(*low)), swap);
        }
        words
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(super) fn compress_both(states: [&mut State; 2], blocks: [&[Block]; 2]) {
        // The instruction wants the words a, b, e, f in one register and c, d, g, h in another.
        let [mut abef, mut cdgh] = [[_mm_setzero_si128(); 2]; 2];
        for (n, [a, b, c, d, e, f, g, h]) in states.iter().map(|state| **state).enumerate() {
            (abef[n], cdgh[n]) = (words([a, b, e, f]), words([c, d, g, h]));
        }
        for (x, y) in blocks[0].iter().zip(blocks[1]) {
            let (abef_before, cdgh_before) = (abef, cdgh);
            let mut w = [load(x), load(y)];
            macro_rules! four_rounds {
                ($step:literal, $n:literal) => {
                    if $step >= 4 {
                        let [w0, w1] = [w[$n][$step % 4], w[$n][($step + 1) % 4]];
                        let [w2, w3] = [w[$n][($step + 2) % 4], w[$n][($step + 3) % 4]];
                        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
                        w[$n][$step % 4] = _mm_sha256msg2_epu32(sum, w3);
                    }
                    let [k0, k1, k2, k3] = ROUNDS[$step];
                    let wk = _mm_add_epi32(w[$n][$step % 4], words([k3, k2, k1, k0]));
                    cdgh[$n] = _mm_sha256rnds2_epu32(cdgh[$n], abef[$n], wk);
                    abef[$n] = _mm_sha256rnds2_epu32(abef[$n], cdgh[$n], _mm_shuffle_epi32::<0x0E>(wk));
                };
            }
            all_rounds!(four_rounds);
            for n in 0..2 {
                abef[n] = _mm_add_epi32(abef[n], abef_before[n]);
                cdgh[n] = _mm_add_epi32(cdgh[n], cdgh_before[n]);
            }
        }
        for (n, state) in states.into_iter().enumerate() {
            let ([a, b, e, f], [c, d, g, h]) = (back(abef[n]), back(cdgh[n]));
            *state = [a, b, c, d, e, f, g, h];
        }
    }
}

/// The Cryptographic Extension of Armv8 (Arm Architecture Reference Manual, SHA256H, SHA256H2, SHA256SU0, SHA256SU1).
#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::{Block, ROUNDS, State};
    use std::arch::aarch64::{
        uint32x4_t, vaddq_u32, vcombine_u32, vcreate_u32, vgetq_lane_u32, vsha256h2q_u32, vsha256hq_u32,
        vsha256su0q_u32, vsha256su1q_u32,
    };

    #[target_feature(enable = "neon")]
    fn words([a, b, c, d]: [u32; 4]) -> uint32x4_t {
        let half = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        vcombine_u32(vcreate_u32(half(a, b)), vcreate_u32(half(c, d)))
    }

    #[target_feature(enable = "neon")]
    fn back(v: uint32x4_t) -> [u32; 4] {
        [vgetq_lane_u32::<0>(v), vgetq_lane_u32::<1>(v), vgetq_lane_u32::<2>(v), vgetq_lane_u32::<3>(v)]
    }

    /// The block as its sixteen words, four in each.
    #[target_feature(enable = "neon")]
    fn load(block: &Block) -> [uint32x4_t; 4] {
        let (all, _) = block.as_chunks::<4>();
        let mut loaded = [words([0; 4]); 4];
        for (four, [a, b, c, d]) in loaded.iter_mut().zip(all.as_chunks::<4>().0) {
            *four = words([a, b, c, d].map(|bytes| u32::from_be_bytes(*bytes)));
        }
        loaded
    }

    #[target_feature(enable = "neon,sha2")]
    pub(super) fn compress_both(states: [&mut State; 2], blocks: [&[Block]; 2]) {
        let [mut abcd, mut efgh] = [[words([0; 4]); 2]; 2];
        for (n, [a, b, c, d, e, f, g, h]) in states.iter().map(|state| **state).enumerate() {
            (abcd[n], efgh[n]) = (words([a, b, c, d]), words([e, f, g, h]));
        }
        for (x, y) in blocks[0].iter().zip(blocks[1]) {
            let (abcd_before, efgh_before) = (abcd, efgh);
            let mut w = [load(x), load(y)];
            macro_rules! four_rounds {
                ($step:literal, $n:literal) => {
                    if $step >= 4 {
                        let [w0, w1] = [w[$n][$step % 4], w[$n][($step + 1) % 4]];
                        let [w2, w3] = [w[$n][($step + 2) % 4], w[$n][($step + 3) % 4]];
                        w[$n][$step % 4] = vsha256su1q_u32(vsha256su0q_u32(w0, w1), w2, w3);
                    }
                    let wk = vaddq_u32(w[$n][$step % 4], words(ROUNDS[$step]));
                    let before = abcd[$n];
                    abcd[$n] = vsha256hq_u32(before, efgh[$n], wk);
                    efgh[$n] = vsha256h2q_u32(efgh[$n], before, wk);
                };
            }
            all_rounds!(four_rounds);
            for n in 0..2 {
                abcd[n] = vaddq_u32(abcd[n], abcd_before[n]);
                efgh[n] = vaddq_u32(efgh[n], efgh_before[n]);
            }
        }
        for (n, state) in states.into_iter().enumerate() {
            let ([a, b, c, d], [e, f, g, h]) = (back(abcd[n]), back(efgh[n]));
            *state = [a, b, c, d, e, f, g, h];
        }
    }
}
