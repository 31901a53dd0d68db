//! Names: 8.3 short names, long names in directory slots, and how one is made from the other.

use std::fmt;

/// A directory slot, in bytes.
pub(super) const SLOT: usize = 32;

/// Why a name cannot stand on a FAT volume.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// Empty, `.` or `..`.
    NotAName(String),
    /// A character FAT does not allow.
    Character(String, char),
    /// Windows and Linux strip these, so two systems would see two names.
    Trailing(String),
    /// More than 255 UTF-16 units.
    TooLong(String),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAName(name) => write!(f, "{name:?} is not a file name"),
            Self::Character(name, c) => write!(f, "the name {name:?} holds {c:?}, which FAT does not allow"),
            Self::Trailing(name) => write!(f, "the name {name:?} ends in a dot or a space"),
            Self::TooLong(name) => write!(f, "the name {name:?} is longer than 255 characters"),
        }
    }
}

impl std::error::Error for NameError {}

/// Checks a long name by the rules of the specification.
///
/// # Errors
/// [`NameError`] says which rule it breaks.
pub fn check_long_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name == "." || name == ".." {
        return Err(NameError::NotAName(name.into()));
    }
    if let Some(c) = name.chars().find(|c| u32::from(*c) < 0x20 || *c == '\u{7f}' || r#""*/:<>?\|"#.contains(*c)) {
        return Err(NameError::Character(name.into(), c));
    }
    if name.ends_with(['.', ' ']) || name.starts_with(' ') {
        return Err(NameError::Trailing(name.into()));
    }
    if name.encode_utf16().count() > 255 {
        return Err(NameError::TooLong(name.into()));
    }
    Ok(())
}

/// How many directory slots of 32 bytes an entry of this long name takes, the short one included.
#[must_use]
pub fn slots_of(name: &str) -> usize {
    name.encode_utf16().count().div_ceil(13) + 1
}

/// The checksum that ties long-name slots to their short entry.
pub(super) fn checksum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b))
}

/// Compares names as FAT does: without regard to case.
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    // The usual case, and cheap: directories are searched by name a lot.
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    a.chars().map(upper).eq(b.chars().map(upper))
}

/// The name by which FAT tells names apart: equal for [`same_name`] names.
pub(crate) fn folded(name: &str) -> String {
    name.chars().map(upper).collect()
}

/// The upper case of a character as FAT has it: one UTF-16 unit becomes one UTF-16 unit, so `ß` has none, and `Straße`
/// and
/// `STRASSE` are two names.
///
/// This is what Windows does (its table maps no other character onto an ASCII letter, and leaves the micro sign alone).
/// Others go less far: EDK2 knows the letters of Latin-1, Linux with `iocharset=utf8` those of ASCII. Names that are
/// equal for one of them are equal here.
fn upper(c: char) -> char {
    match c {
        'µ' | '\u{10000}'.. => c,
        // Simple mappings of characters whose full mapping is two characters: Greek with iota below.
        'ᾀ'..='ᾇ' | 'ᾐ'..='ᾗ' | 'ᾠ'..='ᾧ' => char::from_u32(u32::from(c) + 8).unwrap_or(c),
        'ᾳ' => 'ᾼ',
        'ῃ' => 'ῌ',
        'ῳ' => 'ῼ',
        _ => {
            let mut all = c.to_uppercase();
            match (all.next(), all.next()) {
                (Some(one), None) if c.is_ascii() || !one.is_ascii() => one,
                _ => c,
            }
        }
    }
}

/// The readable form of a short name, with the case that the NT flags (byte 12) ask for.
pub(super) fn short_to_string(short: &[u8; 11], nt_flags: u8) -> String {
    let mut name = String::with_capacity(12);
    let mut part = |bytes: &[u8], lower: bool| {
        let end = bytes.iter().rposition(|b| *b != b' ').map_or(0, |i| i + 1);
        if end > 0 && bytes.len() == 3 {
            name.push('.');
        }
        for b in &bytes[..end] {
            name.push(match b {
                // Bytes above 0x7F depend on the OEM code page, which nobody records: show them as CP437 would not
                // help either, so they become a visible stand-in.
                0x80.. => '\u{fffd}',
                b if lower => char::from(b.to_ascii_lowercase()),
                b => char::from(*b),
            });
        }
    };
    let mut base = [0; 8];
    base.copy_from_slice(&short[..8]);
    if base[0] == 0x05 {
        base[0] = 0xE5; // the real first byte is the mark of a deleted entry
    }
    part(&base, nt_flags & 0x08 != 0);
    part(&short[8..], nt_flags & 0x10 != 0);
    name
}

/// The short name that equals `name` exactly, if `name` is a plain upper-case 8.3 name.
pub(super) fn exact_short(name: &str) -> Option<[u8; 11]> {
    let (base, ext) = name.split_once('.').unwrap_or((name, ""));
    let fits = |s: &str, max: usize| {
        s.len() <= max
            && s.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"$%'-_@~`!(){}^#&".contains(&b))
    };
    if base.is_empty() || !fits(base, 8) || !fits(ext, 3) || (name.contains('.') && ext.is_empty()) {
        return None;
    }
    Some(pad(base.as_bytes(), ext.as_bytes()))
}

fn pad(base: &[u8], ext: &[u8]) -> [u8; 11] {
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base);
    short[8..8 + ext.len()].copy_from_slice(ext);
    short
}

/// Makes a short name for a long one that `taken` does not hold yet.
///
/// The tail `~N` is always used: the specification asks for it whenever the conversion loses something, and a name that
/// needs none is stored without long-name slots anyway.
pub(super) fn alias(name: &str, taken: impl Fn(&[u8; 11]) -> bool) -> Option<[u8; 11]> {
    let clean = |s: &str, max: usize| -> Vec<u8> {
        s.chars()
            .filter(|c| *c != ' ' && *c != '.')
            .map(|c| match c.to_ascii_uppercase() {
                c if c.is_ascii_alphanumeric() || "$%'-_@~`!(){}^#&".contains(c) => c as u8,
                _ => b'_',
            })
            .take(max)
            .collect()
    };
    let stem = name.trim_start_matches('.');
    let (base, ext) = stem.rsplit_once('.').unwrap_or((stem, ""));
    let (mut base, ext) = (clean(base, 8), clean(ext, 3));
    if base.is_empty() {
        base.push(b'_');
    }
    (1..=999_999u32).find_map(|n| {
        let tail = format!("~{n}");
        let keep = base.len().min(8 - tail.len());
        let short = pad(&[&base[..keep], tail.as_bytes()].concat(), &ext);
        (!taken(&short)).then_some(short)
    })
}

/// The long-name slots of `name`, in on-disk order (last part first), tied to `short`.
pub(super) fn long_slots(name: &str, short: &[u8; 11]) -> Vec<[u8; SLOT]> {
    let mut units: Vec<u16> = name.encode_utf16().collect();
    let count = units.len().div_ceil(13);
    if units.len() % 13 != 0 {
        units.push(0);
    }
    units.resize(count * 13, 0xFFFF);
    let sum = checksum(short);
    let mut slots: Vec<[u8; SLOT]> = units
        .chunks(13)
        .enumerate()
        .map(|(i, part)| {
            let mut slot = [0; SLOT];
            slot[0] = (i + 1) as u8;
            slot[11] = 0x0F;
            slot[13] = sum;
            for (unit, at) in part.iter().zip(UNIT_OFFSETS) {
                slot[at..at + 2].copy_from_slice(&unit.to_le_bytes());
            }
            slot
        })
        .collect();
    if let Some(last) = slots.last_mut() {
        last[0] |= 0x40;
    }
    slots.reverse();
    slots
}

/// Where the 13 characters stand in a long-name slot.
const UNIT_OFFSETS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// The characters of one long-name slot.
pub(super) fn slot_units(slot: &[u8]) -> impl Iterator<Item = u16> {
    UNIT_OFFSETS.into_iter().map(|at| u16::from_le_bytes([slot[at], slot[at + 1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_unique_and_never_keep_efi_for_backups() {
        let name = "Talos-v1.12.4.efi.bak.1771000000";
        let first = alias(name, |_| false).unwrap();
        assert_eq!(&first, b"TALOS-~1177");
        let tenth = alias(name, |s| s != b"TALOS~10177").unwrap();
        assert_eq!(&tenth, b"TALOS~10177");
        assert_eq!(&alias("Ünïcode Ω.efi", |_| false).unwrap(), b"_N_COD~1EFI");
    }

    #[test]
    fn exact_short_names() {
        assert_eq!(exact_short("BOOTSURG.TXN"), Some(*b"BOOTSURGTXN"));
        assert_eq!(exact_short("EFI"), Some(*b"EFI        "));
        for no in ["efi", "TOOLONGNAME", "A.B.C", "A B", ".A", "A."] {
            assert_eq!(exact_short(no), None, "{no}");
        }
    }

    #[test]
    fn long_slots_read_back() {
        for name in ["Talos-v1.12.4.efi", "exactly13char", "Ω", "x".repeat(255).as_str()] {
            let slots = long_slots(name, b"A          ");
            let units: Vec<u16> =
                slots.iter().rev().flat_map(|s| slot_units(s)).take_while(|u| *u != 0 && *u != 0xFFFF).collect();
            assert_eq!(String::from_utf16(&units).unwrap(), name);
            assert_eq!(slots[0][0], 0x40 | slots.len() as u8);
        }
    }

    #[test]
    fn names_that_cannot_stand() {
        for bad in ["", "..", "a/b", "a:b", "a\u{1}", "a.", "a ", "x".repeat(256).as_str()] {
            assert!(check_long_name(bad).is_err(), "{bad}");
        }
        check_long_name("Talos-v1.12.4~1.efi.disabled.1771000000").unwrap();
    }

    #[test]
    fn names_compare_by_one_upper_case_per_unit() {
        for (a, b) in
            [("Talos.EFI", "talos.efi"), ("Größe", "GRÖßE"), ("ÿ", "Ÿ"), ("дом", "ДОМ"), ("ᾳ", "ᾼ"), ("ǆ", "Ǆ")]
        {
            assert!(same_name(a, b) && same_name(b, a), "{a} {b}");
            assert_eq!(folded(a), folded(b));
        }
        // Two names on every system; a full case mapping makes one of each pair.
        for (a, b) in
            [("Straße", "STRASSE"), ("ﬁle", "FILE"), ("ŉ", "ʼN"), ("ı", "I"), ("ſ", "S"), ("µ", "Μ"), ("𐐨", "𐐀")]
        {
            assert!(!same_name(a, b) && !same_name(b, a), "{a} {b}");
            assert_ne!(folded(a), folded(b));
        }
    }

    #[test]
    fn short_names_with_nt_case_flags() {
        assert_eq!(short_to_string(b"LOADER  CON", 0x18), "loader.con");
        assert_eq!(short_to_string(b"LOADER  CON", 0x08), "loader.CON");
        assert_eq!(short_to_string(b"EFI        ", 0), "EFI");
    }
}
