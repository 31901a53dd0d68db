//! Text as systemd-boot reads it: lines of keys and values, UTF-8 to UCS-2, numbers, string variables. Source:
//! efi-string.c and efivars.c. Own code, because what counts is its exact behaviour on malformed text.

use super::version::LoaderVersion;

/// The lines `key<separator>value` of a text. Ends at the first NUL.
///
/// Lines end at `\n` or `\r`; blanks around them and lines with `#` are dropped; all consecutive separators are one; a
/// pair of double quotes around the value goes (`'` too where `single_quotes`). No escapes, no comments behind values.
pub(super) struct Lines<'a> {
    rest: &'a [u8],
    separators: &'static [u8],
    single_quotes: bool,
}

impl<'a> Lines<'a> {
    /// `KEY=value`: os-release and `.profile`.
    pub(super) fn assignments(text: &'a [u8], loader: &LoaderVersion) -> Self {
        Self::new(text, b"=", loader)
    }

    /// `key value`: loader.conf and Type #1 entries.
    pub(super) fn words(text: &'a [u8], loader: &LoaderVersion) -> Self {
        Self::new(text, b" \t", loader)
    }

    fn new(text: &'a [u8], separators: &'static [u8], loader: &LoaderVersion) -> Self {
        let end = memchr::memchr(0, text).unwrap_or(text.len());
        Self { rest: &text[..end], separators, single_quotes: loader.single_quotes() }
    }

    fn split(&self, line: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let line = trim(line);
        if line.starts_with(b"#") {
            return None;
        }
        let key = line.iter().position(|c| self.separators.contains(c))?;
        let value = line[key..].iter().position(|c| !self.separators.contains(c)).map_or(line.len(), |n| key + n);
        Some((&line[..key], self.unquote(&line[value..])))
    }

    fn unquote(&self, value: &'a [u8]) -> &'a [u8] {
        let quoted = |quote: u8| value.first() == Some(&quote) && value.last() == Some(&quote);
        if quoted(b'"') || (self.single_quotes && quoted(b'\'')) {
            // A lone quote is its own partner.
            return value.get(1..value.len() - 1).unwrap_or_default();
        }
        value
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let end = memchr::memchr2(b'\n', b'\r', self.rest).unwrap_or(self.rest.len());
            let line = &self.rest[..end];
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if let Some(found) = self.split(line) {
                return Some(found);
            }
        }
        None
    }
}

pub(super) fn trim(mut line: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = line {
        line = rest;
    }
    line
}

/// UTF-8 to what fits UCS-2: anything invalid, and anything above U+FFFF, is dropped. Ends at a NUL.
pub(super) fn decode(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = bytes;
    while let Some(&lead) = rest.first() {
        if lead == 0 {
            break;
        }
        let (len, bits) = match lead {
            0..=0x7F => (1, lead),
            0xC0..=0xDF => (2, lead & 0x1F),
            0xE0..=0xEF => (3, lead & 0x0F),
            0xF0..=0xF7 => (4, lead & 0x07),
            0xF8..=0xFB => (5, lead & 0x03),
            0xFC..=0xFD => (6, lead & 0x01),
            // A continuation byte, or no lead byte at all.
            _ => (1, 0xFF),
        };
        let tail = rest.get(1..len);
        rest = rest.get(len..).unwrap_or_default();
        let (Some(tail), true) = (tail, bits != 0xFF) else { continue };
        if tail.iter().any(|c| c & 0xC0 != 0x80) {
            continue;
        }
        // At most 5 + 6 × 5 bits; overlong forms are accepted as upstream accepts them.
        let code = tail.iter().fold(u32::from(bits), |code, c| (code << 6) | u32::from(c & 0x3F));
        match char::from_u32(code) {
            Some('\0') => break,
            Some(c) if code <= 0xFFFF => out.push(c),
            _ => {}
        }
    }
    out
}

/// [`decode`] for values: up to 257 an empty value is no value.
pub(super) fn value(bytes: &[u8], loader: &LoaderVersion) -> Option<String> {
    if bytes.is_empty() && !loader.empty_is_set() {
        return None;
    }
    Some(decode(bytes))
}

/// A whole decimal number.
pub(super) fn number(text: &str) -> Option<u64> {
    // `parse` would take a sign.
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// systemd's words for yes and no.
pub(super) fn boolean(word: &[u8]) -> Option<bool> {
    match word {
        b"1" | b"yes" | b"y" | b"true" | b"t" | b"on" => Some(true),
        b"0" | b"no" | b"n" | b"false" | b"f" | b"off" => Some(false),
        _ => None,
    }
}

/// A string variable as this version of systemd-boot reads it; `None` for an odd number of bytes. `data` is UTF-16LE
/// and should end with NUL; where it does not, versions up to 260 lose its last character.
#[must_use]
pub fn variable_string(data: &[u8], loader: &LoaderVersion) -> Option<String> {
    let (units, odd) = data.as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    let mut units: Vec<u16> = units.iter().map(|u| u16::from_le_bytes(*u)).collect();
    if units.last() != Some(&0) && loader.drops_last_character() {
        units.pop();
    }
    let end = units.iter().position(|u| *u == 0).unwrap_or(units.len());
    units.truncate(end);
    Some(String::from_utf16_lossy(&units))
}

/// Whether a string variable lacks its closing NUL.
pub(super) fn is_unterminated(data: &[u8]) -> bool {
    !data.is_empty() && !data.ends_with(&[0, 0])
}

/// A string variable as it was meant, for showing it and for what the operating system makes of it.
#[must_use]
pub fn lenient_string(data: &[u8]) -> String {
    let (units, _) = data.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|u| u16::from_le_bytes(*u)).take_while(|u| *u != 0).collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> LoaderVersion {
        LoaderVersion::parse(text).unwrap()
    }

    fn assignments(text: &str, version: &str) -> Vec<(String, String)> {
        let s = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Lines::assignments(text.as_bytes(), &v(version)).map(|(k, v)| (s(k), s(v))).collect()
    }

    #[test]
    fn lines_are_split_as_systemd_boot_splits_them() {
        for (text, expected) in [
            ("A=x", vec![("A", "x")]),
            ("A==x", vec![("A", "x")]),
            ("\tA=x \r\n\n B = y", vec![("A", "x"), ("B ", " y")]),
            ("#A=x\n # B=y\nC=#z", vec![("C", "#z")]),
            ("A=\"x y\"", vec![("A", "x y")]),
            ("A=\"x", vec![("A", "\"x")]),
            ("A=\"", vec![("A", "")]),
            ("A=\"\"", vec![("A", "")]),
            ("A=x\\n\"y\"", vec![("A", "x\\n\"y\"")]),
            ("no separator\nA=", vec![("A", "")]),
            ("A=x\0B=y", vec![("A", "x")]),
            ("=x", vec![("", "x")]),
            ("", vec![]),
        ] {
            let got = assignments(text, "257.9");
            let got: Vec<_> = got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(got, expected, "{text:?}");
        }
    }

    #[test]
    fn single_quotes_depend_on_the_version() {
        for (version, expected) in
            [("252.39", "'x'"), ("254.26", "'x'"), ("257.9", "'x'"), ("257.13", "x"), ("259.5", "x"), ("262", "x")]
        {
            assert_eq!(assignments("A='x'", version)[0].1, expected, "{version}");
        }
        assert_eq!(assignments("A='", "262")[0].1, "");
    }

    #[test]
    fn words_are_split_at_blanks() {
        let loader = v("257.9");
        let got: Vec<_> = Lines::words(b"timeout 10\ndefault\t \ttalos*\ntimeout=7\nalone \n", &loader).collect();
        assert_eq!(got, [(&b"timeout"[..], &b"10"[..]), (b"default", b"talos*")]);
    }

    #[test]
    fn only_ucs2_survives() {
        assert_eq!(decode("Talos \u{e4}\u{20ac}\u{1F600}x".as_bytes()), "Talos \u{e4}\u{20ac}x");
        assert_eq!(decode(b"a\x80b\xFFc"), "abc");
        assert_eq!(decode(b"a\xC3"), "a");
        // The bytes that a broken sequence claims are lost with it.
        assert_eq!(decode(b"a\xE2bcd"), "ad");
        assert_eq!(decode(b"\xED\xA0\x80x"), "x");
        assert_eq!(decode(b"a\0b"), "a");
        assert_eq!(decode(b"\xC1\x81\xC0\x80x"), "A");
    }

    #[test]
    fn empty_values_depend_on_the_version() {
        assert_eq!(value(b"", &v("257.13")), None);
        assert_eq!(value(b"", &v("259.5")), Some(String::new()));
    }

    #[test]
    fn numbers_have_no_sign() {
        assert_eq!(number("10"), Some(10));
        for bad in ["", "+1", "-1", " 1", "1 ", "1x", "18446744073709551616"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn variables_without_nul_lose_a_character_up_to_260() {
        let raw = |s: &str| s.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        for (version, expected) in [("252.39", "x~1.ef"), ("257.9", "x~1.ef"), ("259.5", "x~1.ef"), ("262", "x~1.efi")]
        {
            assert_eq!(variable_string(&raw("x~1.efi"), &v(version)).as_deref(), Some(expected), "{version}");
            assert_eq!(variable_string(&raw("x~1.efi\0"), &v(version)).as_deref(), Some("x~1.efi"), "{version}");
        }
        assert_eq!(variable_string(b"x\0y", &v("257.9")), None);
        assert_eq!(variable_string(b"", &v("257.9")).as_deref(), Some(""));
        assert_eq!(variable_string(&raw("a\0b\0"), &v("257.9")).as_deref(), Some("a"));
        assert_eq!(lenient_string(&raw("Talos.efi")), "Talos.efi");
    }
}
