//! Numbers of an allocation table in little memory. Almost all of a table is free clusters, which are zeros, and chains
//! without gaps, where each entry is the number of the next: a piece of either sort is one number, whatever its length.
//! What is neither is kept as it stands.

/// Length of a piece in bytes: a multiple of every sector's length.
const PIECE: usize = 4096;

/// Numbers of 1, 2 or 4 bytes, little-endian on the medium. FAT12's entries of a byte and a half are kept as bytes.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    /// Bytes of a number.
    width: usize,
    /// Bytes of all numbers.
    bytes: usize,
    pieces: Vec<Piece>,
    /// The piece that was changed last: it is packed again when another one is.
    open: Option<usize>,
}

/// `PIECE` bytes; the last one has fewer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    One(Stretch),
    /// In the order of `first`, which is 0 in the first one.
    Few(Box<[Stretch]>),
    Raw(Box<[u8]>),
}

impl Piece {
    /// Bytes of memory beside the piece itself.
    fn memory(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Few(stretches) => std::mem::size_of_val::<[Stretch]>(stretches),
            Self::Raw(raw) => raw.len(),
        }
    }
}

/// Numbers that are all the same, or each greater by one than the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    /// Its first number, counted from the begin of the piece.
    first: u16,
    counts: bool,
    value: u32,
}

impl Stretch {
    fn at(self, n: usize) -> u32 {
        if self.counts { self.value.wrapping_add((n - usize::from(self.first)) as u32) } else { self.value }
    }
}

/// What stands from a place on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) value: u32,
    /// How many numbers at least belong together; 0 behind the end.
    pub(super) count: usize,
    /// Whether each is greater by one than the one before it, 0 behind the greatest; otherwise all are `value`.
    pub(super) counts: bool,
}

impl Packed {
    /// None yet, each of `width` bytes.
    pub(super) fn new(width: usize) -> Self {
        Self { width, bytes: 0, pieces: Vec::new(), open: None }
    }

    /// Adds bytes at the end. All but the last call bring a multiple of 4,096. Returns how many bytes of memory they take
    /// beside their pieces.
    pub(super) fn push(&mut self, bytes: &[u8]) -> usize {
        debug_assert!(self.bytes.is_multiple_of(PIECE), "nothing comes behind a short piece");
        let before = self.pieces.len();
        self.bytes += bytes.len();
        self.pieces.extend(bytes.chunks(PIECE).map(|piece| pack(piece, self.width)));
        self.pieces[before..].iter().map(Piece::memory).sum()
    }

    /// Bytes of all numbers.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.pieces.iter().map(|piece| size_of::<Piece>() + piece.memory()).sum()
    }

    fn per_piece(&self) -> usize {
        PIECE / self.width
    }

    /// The `n`th number; 0 behind the end.
    pub(super) fn get(&self, n: usize) -> u32 {
        if n >= self.bytes / self.width {
            return 0;
        }
        let (piece, n) = (n / self.per_piece(), n % self.per_piece());
        match self.pieces.get(piece) {
            None => 0,
            Some(Piece::One(stretch)) => stretch.at(n),
            Some(Piece::Few(stretches)) => stretch_of(stretches, n).1.at(n),
            Some(Piece::Raw(raw)) => number(raw, n, self.width),
        }
    }

    /// What stands from the `n`th number on.
    pub(super) fn span(&self, n: usize) -> Span {
        if n >= self.bytes / self.width {
            return Span { value: 0, count: 0, counts: false };
        }
        let (piece, n) = (n / self.per_piece(), n % self.per_piece());
        let end = self.piece_bytes(piece) / self.width;
        let span =
            |stretch: &Stretch, end: usize| Span { value: stretch.at(n), count: end - n, counts: stretch.counts };
        match self.pieces.get(piece) {
            None => Span { value: 0, count: 0, counts: false },
            Some(Piece::One(stretch)) => span(stretch, end),
            Some(Piece::Few(stretches)) => {
                let (i, stretch) = stretch_of(stretches, n);
                span(stretch, stretches.get(i + 1).map_or(end, |next| usize::from(next.first)))
            }
            Some(Piece::Raw(raw)) => Span { value: number(raw, n, self.width), count: 1, counts: false },
        }
    }

    /// Sets the `n`th number. Nothing happens behind the end.
    pub(super) fn set(&mut self, n: usize, value: u32) {
        let (piece, n) = (n / self.per_piece(), n % self.per_piece());
        if let Some(open) = self.open.filter(|open| *open != piece)
            && let Some(Piece::Raw(raw)) = self.pieces.get(open)
        {
            self.pieces[open] = pack(raw, self.width);
        }
        if !matches!(self.pieces.get(piece), None | Some(Piece::Raw(_))) {
            self.pieces[piece] = Piece::Raw(self.unpacked(piece).into());
        }
        self.open = Some(piece);
        if let Some(Piece::Raw(raw)) = self.pieces.get_mut(piece)
            && let Some(bytes) = raw.get_mut(n * self.width..(n + 1) * self.width)
        {
            bytes.copy_from_slice(&value.to_le_bytes()[..self.width]);
        }
    }

    /// Bytes from `at` on, as they stand on the medium; `None` when they go beyond the end.
    pub(super) fn read(&self, at: usize, bytes: usize) -> Option<Vec<u8>> {
        let end = at.checked_add(bytes).filter(|end| *end <= self.bytes)?;
        let mut all = Vec::with_capacity(bytes);
        for piece in at / PIECE..end.div_ceil(PIECE) {
            let raw = self.unpacked(piece);
            let begin = piece * PIECE;
            all.extend_from_slice(&raw[at.saturating_sub(begin)..(end - begin).min(raw.len())]);
        }
        Some(all)
    }

    /// Whether these bytes are all zero.
    pub(super) fn is_zero(&self, mut at: usize, bytes: usize) -> bool {
        let end = (at + bytes).min(self.bytes);
        while at < end {
            let span = self.span(at / self.width);
            if span.value != 0 || span.counts && span.count > 1 || span.count == 0 {
                return false;
            }
            at += span.count * self.width;
        }
        true
    }

    /// The pieces that are not the same in `other`: where they begin, and both as they stand on the medium.
    pub(super) fn differing<'p>(&'p self, other: &'p Self) -> impl Iterator<Item = (usize, Vec<u8>, Vec<u8>)> + 'p {
        let differ = |n: &usize| self.pieces.get(*n) != other.pieces.get(*n);
        let both = |n: usize| (n * PIECE, self.unpacked(n), other.unpacked(n));
        // One of them may be kept as it stands and the other not.
        let pieces = (0..self.pieces.len().max(other.pieces.len())).filter(differ).map(both);
        pieces.filter(|(_, ours, theirs)| ours != theirs)
    }

    fn piece_bytes(&self, piece: usize) -> usize {
        self.bytes.saturating_sub(piece * PIECE).min(PIECE)
    }

    fn unpacked(&self, piece: usize) -> Vec<u8> {
        let count = self.piece_bytes(piece) / self.width;
        let fill = |stretches: &[Stretch]| {
            let mut raw = Vec::with_capacity(PIECE);
            for (i, stretch) in stretches.iter().enumerate() {
                let end = stretches.get(i + 1).map_or(count, |next| usize::from(next.first));
                for n in usize::from(stretch.first)..end {
                    raw.extend_from_slice(&stretch.at(n).to_le_bytes()[..self.width]);
                }
            }
            raw
        };
        match self.pieces.get(piece) {
            None => Vec::new(),
            Some(Piece::One(stretch)) => fill(std::slice::from_ref(stretch)),
            Some(Piece::Few(stretches)) => fill(stretches),
            Some(Piece::Raw(raw)) => raw.to_vec(),
        }
    }
}

impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.width == other.width && self.bytes == other.bytes && self.differing(other).next().is_none()
    }
}

impl Eq for Packed {}

fn number(raw: &[u8], n: usize, width: usize) -> u32 {
    let value = match width {
        4 => raw.as_chunks().0.get(n).map(|bytes| u32::from_le_bytes(*bytes)),
        2 => raw.as_chunks().0.get(n).map(|bytes| u32::from(u16::from_le_bytes(*bytes))),
        _ => raw.get(n).map(|byte| u32::from(*byte)),
    };
    value.unwrap_or_default()
}

/// The stretch that the `n`th number of a piece is in, with its place.
fn stretch_of(stretches: &[Stretch], n: usize) -> (usize, &Stretch) {
    let i = stretches.partition_point(|s| usize::from(s.first) <= n).saturating_sub(1);
    (i, &stretches[i])
}

fn pack(raw: &[u8], width: usize) -> Piece {
    // As long as it is worth it.
    let most = raw.len() / 2 / size_of::<Stretch>();
    let mut stretches: Vec<Stretch> = Vec::new();
    for n in 0..raw.len() / width {
        let value = number(raw, n, width);
        let count = stretches.len();
        match stretches.last_mut() {
            Some(last) if last.at(n) == value => {}
            // The second number tells of which sort the stretch is.
            Some(last) if usize::from(last.first) + 1 == n && last.value.checked_add(1) == Some(value) => {
                last.counts = true;
            }
            _ if count == most => return Piece::Raw(raw.into()),
            _ => stretches.push(Stretch { first: n as u16, counts: false, value }),
        }
    }
    match stretches[..] {
        [one] => Piece::One(one),
        _ => Piece::Few(stretches.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers as tables have them: free, chains, ends, and any.
    fn numbers(width: usize) -> impl Strategy<Value = Vec<u32>> {
        let mask = if width == 4 { u32::MAX } else { (1 << (8 * width)) - 1 };
        let near_the_end = (mask - 200)..=mask;
        let stretch = prop_oneof![
            (1usize..3000).prop_map(|n| vec![0; n]),
            (0u32..70_000, 1usize..3000).prop_map(|(from, n)| (from..).take(n).collect()),
            (near_the_end, 1usize..3000).prop_map(|(from, n)| (0..n as u32).map(|i| from.wrapping_add(i)).collect()),
            proptest::collection::vec(any::<u32>(), 1..900),
            (any::<u32>(), 1usize..5).prop_map(|(value, n)| vec![value; n]),
        ];
        proptest::collection::vec(stretch, 1..8)
            .prop_map(move |all| all.concat().into_iter().map(|n: u32| n & mask).collect())
    }

    fn packed(numbers: &[u32], width: usize) -> Packed {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()[..width].to_vec()).collect();
        let mut packed = Packed::new(width);
        for part in bytes.chunks(4 * PIECE) {
            packed.push(part);
        }
        packed
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn numbers_are_as_they_were_put_in(
            (width, mut all, changes) in prop_oneof![Just(1usize), Just(2), Just(4)].prop_flat_map(|width| {
                (Just(width), numbers(width), proptest::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 0..40))
            }),
            ranges in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..9000), 4),
        ) {
            let before = packed(&all, width);
            let mut table = before.clone();
            let mask = (u64::MAX >> (64 - 8 * width)) as u32;
            for (i, (at, value)) in changes.iter().enumerate() {
                // Some of them follow each other.
                let n = if i % 3 == 0 { at.index(all.len()) } else { (changes[i - i % 3].0.index(all.len()) + i % 3) % all.len() };
                let value = if i % 2 == 0 { n as u32 + 1 } else { *value } & mask;
                all[n] = value;
                table.set(n, value);
            }
            table.set(all.len(), 7);
            let bytes: Vec<u8> = all.iter().flat_map(|n| n.to_le_bytes()[..width].to_vec()).collect();
            prop_assert_eq!(table.len(), bytes.len());
            let mut n = 0;
            while n < all.len() {
                let span = table.span(n);
                prop_assert!(span.count > 0);
                for i in 0..span.count {
                    prop_assert_eq!(all[n + i], if span.counts { span.value.wrapping_add(i as u32) } else { span.value });
                    prop_assert_eq!(table.get(n + i), all[n + i]);
                }
                n += span.count;
            }
            prop_assert_eq!(table.span(n).count, 0);
            prop_assert_eq!(table.get(n), 0);
            for (at, length) in ranges {
                let at = at.index(bytes.len()) / width * width;
                let length = (length / width * width).min(bytes.len() - at);
                let part = table.read(at, length).unwrap();
                prop_assert_eq!(&part, &bytes[at..at + length]);
                prop_assert_eq!(table.is_zero(at, length), part.iter().all(|b| *b == 0));
            }
            prop_assert!(table.read(0, bytes.len() + 1).is_none());
            let fresh = packed(&all, width);
            prop_assert!(table == fresh);
            let original = before.read(0, before.len()).unwrap();
            prop_assert_eq!(before == fresh, original == bytes);
            for (at, ours, theirs) in before.differing(&table) {
                prop_assert_eq!(&original[at..at + ours.len()], &ours[..]);
                prop_assert_eq!(&bytes[at..at + theirs.len()], &theirs[..]);
            }
        }
    }

    #[test]
    fn what_a_table_looks_like_takes_little_memory() {
        let entries = 1 << 20;
        let mut table: Vec<u32> = (0..entries).map(|n| if n < entries / 2 { n + 1 } else { 0 }).collect();
        assert!(packed(&table, 4).memory() < 50_000);
        // A thousand files.
        for n in (0..entries / 2).step_by(512) {
            table[n as usize] = 0x0FFF_FFFF;
        }
        assert!(packed(&table, 4).memory() < 80_000);
        let random: Vec<u32> = (0..entries).map(|n| n.wrapping_mul(2_654_435_761)).collect();
        assert!(packed(&random, 4).memory() > 4 * entries as usize);
    }

    #[test]
    fn a_piece_is_packed_again_when_the_next_is_changed() {
        let mut table = packed(&[0; 8 * 1024], 4);
        for n in 2..8000 {
            table.set(n, n as u32 + 1);
        }
        assert!(table.memory() < 2 * PIECE, "{}", table.memory());
    }
}
