//! The patterns of `LoaderEntryDefault` and its kin, matched as systemd-boot matches them (`efi_fnmatch` in
//! efi-string.c, unchanged from 252 to 262). Own code, because no glob crate has exactly these rules: no negation, no
//! braces, `]` literal as the first of a set, ranges that cannot be chained.

/// Whether `pattern` matches the whole of `text`. Both are compared by UTF-16 code unit and with case.
///
/// `*` any run, `?` one character, `[…]` a set with ranges, `\x` x itself. An unterminated set or a trailing backslash
/// matches nothing.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<u16> = pattern.encode_utf16().collect();
    let text: Vec<u16> = text.encode_utf16().collect();
    let (mut p, mut t) = (&pattern[..], &text[..]);
    let mut first = true;
    loop {
        match literal_part(p, t) {
            Part::Matched => return true,
            // The part before the first star has to stand at the very start.
            Part::Failed if first || t.is_empty() => return false,
            // A star lies before this part: let it take one more character.
            Part::Failed => t = &t[1..],
            Part::Star(p_rest, t_rest) => (p, t) = (p_rest, t_rest),
        }
        first = false;
    }
}

enum Part<'a> {
    Failed,
    /// Pattern and text ended together.
    Matched,
    /// A star was reached: what is left of the pattern behind it, and of the text.
    Star(&'a [u16], &'a [u16]),
}

const ESCAPE: u16 = b'\\' as u16;
const ANY: u16 = b'?' as u16;
const STAR: u16 = b'*' as u16;
const SET: u16 = b'[' as u16;
const SET_END: u16 = b']' as u16;
const RANGE: u16 = b'-' as u16;

/// Matches up to the next star.
fn literal_part<'a>(mut p: &'a [u16], mut t: &'a [u16]) -> Part<'a> {
    loop {
        let Some((&c, rest)) = p.split_first() else {
            return if t.is_empty() { Part::Matched } else { Part::Failed };
        };
        if c == STAR {
            let behind = p.iter().position(|c| *c != STAR).unwrap_or(p.len());
            return Part::Star(&p[behind..], t);
        }
        let Some((&wanted, t_rest)) = t.split_first() else { return Part::Failed };
        p = match c {
            ANY => rest,
            ESCAPE => match rest.split_first() {
                Some((&literal, rest)) if literal == wanted => rest,
                _ => return Part::Failed,
            },
            SET => match set(rest, wanted) {
                Some(rest) => rest,
                None => return Part::Failed,
            },
            literal if literal == wanted => rest,
            _ => return Part::Failed,
        };
        t = t_rest;
    }
}

/// Matches `wanted` against the set that starts behind its `[`; what is left of the pattern behind the `]`.
fn set(p: &[u16], wanted: u16) -> Option<&[u16]> {
    let (mut first, mut can_range, mut matched) = (true, true, false);
    let mut i = 0;
    loop {
        let c = *p.get(i)?;
        if c == ESCAPE {
            i += 1;
            matched |= *p.get(i)? == wanted;
            can_range = true;
        } else if c == SET_END && !first {
            return if matched { p.get(i + 1..) } else { None };
        } else if c == RANGE && can_range && !first && p.get(i + 1) != Some(&SET_END) {
            let low = *p.get(i.checked_sub(1)?)?;
            i += 1;
            if *p.get(i)? == ESCAPE {
                i += 1;
            }
            matched |= (low..=*p.get(i)?).contains(&wanted);
            can_range = false;
        } else {
            matched |= c == wanted;
            can_range = true;
        }
        first = false;
        i += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_whole_ids() {
        for (pattern, text, expected) in [
            ("talos-v1.12.4.efi", "talos-v1.12.4.efi", true),
            ("talos-v1.12.4", "talos-v1.12.4.efi", false),
            ("talos-v1.12.4*.efi", "talos-v1.12.4~1.efi", true),
            ("talos-v1.12.4*.efi", "talos-v1.12.40.efi", true),
            ("talos-v1.12.4.efi*", "talos-v1.12.4.efi@reset-maintenance", true),
            ("?alos-*", "Talos-v1.efi", true),
            ("talos-*", "Talos-v1.efi", false),
            ("x*@*", "x.efi@1", true),
            ("x*@*", "x.efi", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("**a**b**", "xxaxxbxx", true),
            ("*a", "ab", false),
            ("a*", "", false),
            ("?", "", false),
            ("*.efi", ".efi.efi", true),
            ("*aab", "aaab", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn sets_have_ranges_but_no_negation() {
        for (pattern, text, expected) in [
            ("[abc]", "b", true),
            ("[abc]", "d", false),
            ("[a-c]", "b", true),
            ("[!a]", "b", false),
            ("[!a]", "!", true),
            ("[!a]", "a", true),
            ("[]a]", "]", true),
            ("[]a]", "a", true),
            ("[]", "]", false),
            ("[-a]", "-", true),
            ("[a-]", "-", true),
            ("[a-c-f]", "e", false),
            ("[a-c-f]", "-", true),
            ("[a-c-f]", "f", true),
            ("[\\]]", "]", true),
            ("[a-\\c]", "b", true),
            ("[a", "a", false),
            ("[a-", "a", false),
            ("[", "[", false),
            ("v1.1[23].*", "v1.13.0", true),
            ("*[0-9]", "abc7", true),
            ("[a]", "", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn escapes() {
        for (pattern, text, expected) in [
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a\\", "a\\", false),
            ("\\\\", "\\", true),
            ("\\~", "~", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text}");
        }
    }
}
