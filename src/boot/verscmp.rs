//! The version order of systemd-boot (`strverscmp_improved`, UAPI.10 version format specification), which decides
//! what starts when nothing else does. No crate has exactly these rules.

use std::cmp::Ordering;

/// Compares two version strings; `Greater` means `a` is newer. An absent version counts as the empty one.
///
/// At one position `~` is oldest, then the end, then `-`, `^`, `.`, then letters, then digits. Anything outside
/// `[0-9A-Za-z~^.-]` only separates.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    // Everything outside ASCII only separates, so bytes are as good as UTF-16 code units.
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        a = skip(a, |c| !is_version_byte(c));
        b = skip(b, |c| !is_version_byte(c));

        if let Some(order) = marker(&mut a, &mut b, b'~') {
            return order;
        }
        if a.is_empty() || b.is_empty() {
            return a.len().min(1).cmp(&b.len().min(1));
        }
        for separator in *b"-^." {
            if let Some(order) = marker(&mut a, &mut b, separator) {
                return order;
            }
        }

        let numeric = a.first().is_some_and(u8::is_ascii_digit) || b.first().is_some_and(u8::is_ascii_digit);
        let of_kind = |c: u8| if numeric { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
        let (run_a, rest_a) = a.split_at(a.len() - skip(a, of_kind).len());
        let (run_b, rest_b) = b.split_at(b.len() - skip(b, of_kind).len());
        let order = if numeric { compare_digits(run_a, run_b) } else { compare_letters(run_a, run_b) };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// The side that stands at `c` alone is older; if both do, both step over it.
fn marker(a: &mut &[u8], b: &mut &[u8], c: u8) -> Option<Ordering> {
    match (a.strip_prefix(&[c]), b.strip_prefix(&[c])) {
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some(rest_a), Some(rest_b)) => {
            (*a, *b) = (rest_a, rest_b);
            None
        }
        (None, None) => None,
    }
}

/// No number is older than any number; leading zeros do not count.
fn compare_digits(a: &[u8], b: &[u8]) -> Ordering {
    let (x, y) = (skip(a, |c| c == b'0'), skip(b, |c| c == b'0'));
    a.is_empty().cmp(&b.is_empty()).reverse().then(x.len().cmp(&y.len())).then_with(|| x.cmp(y))
}

/// By the common length with case, then the longer is newer: the order of byte strings.
fn compare_letters(a: &[u8], b: &[u8]) -> Ordering {
    a.cmp(b)
}

fn is_version_byte(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"~-^.".contains(&c)
}

fn skip(s: &[u8], unwanted: impl Fn(u8) -> bool) -> &[u8] {
    &s[s.iter().position(|c| !unwanted(*c)).unwrap_or(s.len())..]
}

#[cfg(test)]
mod tests {
    use super::compare;
    use std::cmp::Ordering::{self, Equal, Greater, Less};

    fn both_ways(a: &str, b: &str, expected: Ordering) {
        assert_eq!(compare(a, b), expected, "{a} against {b}");
        assert_eq!(compare(b, a), expected.reverse(), "{b} against {a}");
    }

    #[test]
    fn pairs() {
        for (a, b, expected) in [
            ("talos-v1.12.4.efi", "talos-v1.12.4~1.efi", Greater),
            ("talos-v1.12.4~2.efi", "talos-v1.12.4~1.efi", Greater),
            ("talos-v1.12.4~10.efi", "talos-v1.12.4~2.efi", Greater),
            ("v1.13.0", "v1.13.0-beta.1", Less),
            ("talos-v1.13.0.efi", "talos-v1.13.0-beta.1.efi", Greater),
            ("v1.12.10", "v1.12.4", Greater),
            ("v1.12.4.1", "v1.12.4", Greater),
            ("v1.12.4^x", "v1.12.4", Greater),
            ("v1.12.4-dirty", "v1.12.4", Greater),
            ("v1.12.4~1", "v1.12.4", Less),
            ("1.12.4", "v1.13.0", Greater),
            ("v1.12.04", "v1.12.4", Equal),
            ("talos-v1.12.4+1.efi", "talos-v1.12.4.efi", Greater),
            ("talos-v1.12.4_1.efi", "talos-v1.12.4.efi", Greater),
            ("Talos-v1", "talos-v1", Less),
            ("a_b", "a+b", Equal),
            ("", "", Equal),
            ("", "a", Less),
            ("", "~", Greater),
            ("0", "", Greater),
            ("00", "0", Equal),
            ("a", "ä", Greater),
            ("abc", "abcde", Less),
            ("123_a", "123a", Equal),
        ] {
            both_ways(a, b, expected);
        }
    }

    /// Newest first; entries of one group are equal.
    fn descending(groups: &[&[&str]]) {
        for (i, older_or_equal) in groups.iter().enumerate() {
            for a in *older_or_equal {
                for b in *older_or_equal {
                    both_ways(a, b, Equal);
                }
                for b in groups[i + 1..].iter().copied().flatten() {
                    both_ways(a, b, Greater);
                }
            }
        }
    }

    #[test]
    fn ids_newest_first() {
        // As they stand in ids: with their suffix.
        let efi = |s: &str| format!("talos-{s}.efi");
        let names: Vec<Vec<String>> = [
            &["v1.13.0"][..],
            &["v1.13.0-beta.1"],
            &["v1.12.10"],
            &["v1.12.4+1", "v1.12.4_1"],
            &["v1.12.4a"],
            &["v1.12.4", "v1.12.04"],
            &["v1.12.4^1"],
            &["v1.12.4-1"],
            &["v1.12.4-g1234"],
            &["v1.12.4~10"],
            &["v1.12.4~2"],
            &["v1.12.4~1"],
            &["v1.12.3"],
            &["v1.12"],
        ]
        .iter()
        .map(|g| g.iter().map(|s| efi(s)).collect())
        .collect();
        let groups: Vec<Vec<&str>> = names.iter().map(|g| g.iter().map(String::as_str).collect()).collect();
        descending(&groups.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }

    #[test]
    fn version_ids_newest_first() {
        descending(&[
            &["1.12.4"],
            &["v1.13.0-rc.0"],
            &["v1.13.0-beta.1"],
            &["v1.13.0-alpha.2"],
            &["v1.13.0"],
            &["v1.12.10"],
            &["v1.12.4.1"],
            &["v1.12.4^x"],
            &["v1.12.4-5-gabc"],
            &["v1.12.4-dirty"],
            &["v1.12.4"],
            &["v1.12.4~1"],
            &["v1.12"],
            &[""],
        ]);
    }
}
