//! Sizes and numbers in words: binary units that fit, singular and plural.

/// `532 bytes`, `1.4 MiB`, `750 MiB`, `2.0 GiB`: at most four digits, and never more than 5 % beside the truth.
#[must_use]
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return count(bytes, "byte");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.6 would be printed as 1024.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    // 99.96 would be printed as 100.0.
    if value < 99.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// `1 file`, `2 files`, `0 entries`.
#[must_use]
pub(crate) fn count(n: impl TryInto<u64>, noun: &str) -> String {
    match n.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        n => format!("{n} {}", plural(noun)),
    }
}

/// A size that the text compares with another one: `59.5 GiB (63864569856 bytes)`.
#[must_use]
pub(crate) fn exact(bytes: u64) -> String {
    if bytes < 1024 { size(bytes) } else { format!("{} ({bytes} bytes)", size(bytes)) }
}

/// The plural of a noun of this program: `files`, `entries`, `boxes`, `keys`.
fn plural(noun: &str) -> String {
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if noun.ends_with(['s', 'x']) || noun.ends_with("ch") => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::{count, exact, size};

    #[test]
    fn sizes_have_units_that_fit() {
        for (bytes, words) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (512, "512 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (102_348, "99.9 KiB"),
            (102_360, "100 KiB"),
            (1_048_063, "1023 KiB"),
            (1_048_065, "1.0 MiB"),
            (1_048_575, "1.0 MiB"),
            (1_441_280, "1.4 MiB"),
            (1_468_006, "1.4 MiB"),
            (314_572_800, "300 MiB"),
            (1 << 31, "2.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), words);
        }
    }

    proptest::proptest! {
        /// Whatever the size: a unit that fits, at most four digits before it, and right within 5 %.
        #[test]
        fn a_size_of_any_kind_is_short_and_right(log in 0_u32..64, part in 0_u64..=u64::MAX) {
            let bytes = (1 << log) + part % (1 << log);
            let words = size(bytes);
            let (number, unit) = words.split_once(' ').unwrap();
            let digits = number.chars().filter(char::is_ascii_digit).count();
            let scale = match unit {
                "byte" | "bytes" => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                "TiB" => 40,
                "PiB" => 50,
                "EiB" => 60,
                _ => panic!("{words}"),
            };
            let value: f64 = number.parse().unwrap();
            proptest::prop_assert!((1..=4).contains(&digits), "{words}");
            proptest::prop_assert!((1.0..1024.0).contains(&value), "{words}");
            let (said, is) = (value * 2_f64.powi(scale), bytes as f64);
            proptest::prop_assert!((said - is).abs() <= is * 0.05, "{bytes} is not {words}");
        }
    }

    #[test]
    fn nouns_have_a_singular_and_a_plural() {
        assert_eq!(count(1_u32, "file"), "1 file");
        assert_eq!(count(0_usize, "file"), "0 files");
        assert_eq!(count(2_i32, "allocation table entry"), "2 allocation table entries");
        assert_eq!(count(3_u64, "key"), "3 keys");
        assert_eq!(count(2_u64, "address"), "2 addresses");
        assert_eq!(exact(512), "512 bytes");
        assert_eq!(exact(1 << 20), "1.0 MiB (1048576 bytes)");
    }
}
