//! New directories: what their clusters hold, and how long they have to be.

use super::super::dir::Attributes;
use super::super::name::{SLOT, slots_of};
use super::{Content, Stamp};

/// The names of the first two entries of every directory but the root.
const DOTS: [&[u8; 11]; 2] = [b".          ", b"..         "];

/// What the clusters of a directory hold that has no files yet: `.` and `..`. `own` is its first cluster, `above` that of
/// the directory which it lies in (0 for the root), `bytes` the length of its clusters.
#[must_use]
pub fn empty_directory(own: u32, above: u32, stamp: Stamp, bytes: usize) -> Vec<u8> {
    let mut clusters = vec![0; bytes.max(DOTS.len() * SLOT)];
    for (raw, (name, first)) in clusters.chunks_exact_mut(SLOT).zip(DOTS.into_iter().zip([own, above])) {
        raw[..11].copy_from_slice(name);
        raw[11] = Attributes::DIRECTORY.0;
        raw[13..].copy_from_slice(&Content::new(first, 0, stamp).0);
    }
    clusters
}

/// A length in bytes that is enough for a directory of these names, in whatever order they come: it does not have to grow
/// for them. An entry stands in one sector ([`super::Editor::create`]), of `sector` bytes.
#[must_use]
pub fn length_for_names<'n>(names: impl Iterator<Item = &'n str>, sector: usize) -> u64 {
    let (mut slots, mut longest) = (DOTS.len(), 1);
    for name in names {
        let entry = slots_of(name);
        slots += entry;
        longest = longest.max(entry);
    }
    // A sector is begun where an entry fits into none of those before: each of them is full but for less than that.
    let filled = (sector / SLOT + 1).saturating_sub(longest).max(1);
    ((slots / filled + 1) * sector) as u64
}

#[cfg(test)]
mod tests {
    use super::length_for_names;

    #[test]
    fn a_directory_has_room_for_its_names() {
        assert_eq!(length_for_names([].into_iter(), 512), 512);
        assert_eq!(length_for_names(["A.DTB"; 6].into_iter(), 512), 512);
        // Two slots each, of which 15 are sure to be filled in a sector.
        assert_eq!(length_for_names(["A.DTB"; 7].into_iter(), 512), 2 * 512);
        // Names of 20 long-name slots: a sector is not enough for one.
        assert_eq!(length_for_names([&*"x".repeat(255)].into_iter(), 512), 24 * 512);
    }
}
