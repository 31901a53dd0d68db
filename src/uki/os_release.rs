//! os-release text by the rules of systemd-boot, which are not those of a shell.
//!
//! What systemd-boot makes of the text decides the order of the boot menu, so its reading is followed to the letter:
//! `line_get_key_value` and `xstrn8_to_16` of `src/boot/efi-string.c`. The same rules read `loader.conf` and the
//! `.profile` section, only with other separators.

/// The line rules that differ between files and between versions of systemd-boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRules {
    /// Bytes that end a key; all that follow each other are skipped.
    pub separators: &'static [u8],
    /// Whether a pair of single quotes around a value is removed as well: since 257.13.
    pub single_quotes: bool,
}

impl LineRules {
    /// os-release and `.profile` as systemd-boot 257.13 and later read them.
    pub const OS_RELEASE: Self = Self { separators: b"=", single_quotes: true };
    /// `loader.conf` and Type #1 entries.
    pub const LOADER_CONF: Self = Self { separators: b" \t", single_quotes: true };
}

/// The keys and values of os-release text, in order; see [`LineRules::OS_RELEASE`].
pub fn lines(text: &[u8]) -> impl Iterator<Item = (String, String)> + '_ {
    lines_by(text, LineRules::OS_RELEASE)
}

/// The keys and values of `text`, in order, duplicates included (the last one counts).
///
/// Lines end at `\n` or `\r`. Spaces and tabs around a line are dropped; empty lines, lines that begin with `#` and
/// lines without separator are skipped. There are no escapes and no comments after a value. The text ends at the first
/// NUL. What is no UTF-8, or not in the Basic Multilingual Plane, is left out.
pub fn lines_by(text: &[u8], rules: LineRules) -> impl Iterator<Item = (String, String)> + '_ {
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    text[..end].split(|b| matches!(b, b'\n' | b'\r')).filter_map(move |line| {
        let line = trim(line);
        if line.is_empty() || line[0] == b'#' {
            return None;
        }
        let separator = |b: &u8| rules.separators.contains(b);
        let at = line.iter().position(separator)?;
        let (key, rest) = line.split_at(at);
        let skip = rest.iter().position(|b| !separator(b)).unwrap_or(rest.len());
        let mut value = &rest[skip..];
        if let (Some(first), Some(last)) = (value.first(), value.last())
            && first == last
            && (*first == b'"' || (rules.single_quotes && *first == b'\''))
        {
            // A lone quote is both ends of its pair, and leaves nothing.
            value = if value.len() == 1 { &[] } else { &value[1..value.len() - 1] };
        }
        Some((decode(key), decode(value)))
    })
}

fn trim(mut line: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = line {
        line = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = line {
        line = rest;
    }
    line
}

/// UTF-8 to the characters that UCS-2 has. A sequence with a bad continuation byte is skipped at the length that its
/// first byte announces, whatever stands there, as systemd-boot does.
fn decode(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    while let Some(&first) = bytes.first() {
        let (len, start) = match first {
            0..0x80 => (1, u32::from(first)),
            0xC0..0xE0 => (2, u32::from(first & 0x1F)),
            0xE0..0xF0 => (3, u32::from(first & 0x0F)),
            0xF0..0xF8 => (4, u32::from(first & 0x07)),
            0xF8..0xFC => (5, u32::from(first & 0x03)),
            0xFC..0xFE => (6, u32::from(first & 0x01)),
            _ => {
                bytes = &bytes[1..];
                continue;
            }
        };
        let Some((sequence, rest)) = bytes.split_at_checked(len) else { break };
        bytes = rest;
        if !sequence[1..].iter().all(|b| b & 0xC0 == 0x80) {
            continue;
        }
        let code = sequence[1..].iter().fold(start, |code, b| (code << 6) | u32::from(b & 0x3F));
        // `from_u32` has no surrogates, as UCS-2 here.
        text.extend(char::from_u32(code).filter(|_| code <= 0xFFFF));
    }
    text
}

/// The fields of an os-release text that systemd-boot and this tool use. `None`: the key is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OsRelease {
    /// `ID`: `talos`.
    pub id: Option<String>,
    /// `NAME`: `Talos`.
    pub name: Option<String>,
    /// `PRETTY_NAME`: `Talos (v1.12.4)`.
    pub pretty_name: Option<String>,
    /// `VERSION_ID`: `v1.12.4`.
    pub version_id: Option<String>,
    /// `VERSION`; Talos has none.
    pub version: Option<String>,
    /// `IMAGE_ID`; Talos has none.
    pub image_id: Option<String>,
    /// `IMAGE_VERSION`; Talos has none.
    pub image_version: Option<String>,
    /// `BUILD_ID`; Talos has none.
    pub build_id: Option<String>,
}

impl OsRelease {
    /// Parses the content of an `.osrel` section. Any bytes will do; what is not understood is left out.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut found = Self::default();
        for (key, value) in lines(text) {
            let field = match key.as_str() {
                "ID" => &mut found.id,
                "NAME" => &mut found.name,
                "PRETTY_NAME" => &mut found.pretty_name,
                "VERSION_ID" => &mut found.version_id,
                "VERSION" => &mut found.version,
                "IMAGE_ID" => &mut found.image_id,
                "IMAGE_VERSION" => &mut found.image_version,
                "BUILD_ID" => &mut found.build_id,
                _ => continue,
            };
            *field = Some(value);
        }
        found
    }

    /// The name a person would call it by: `PRETTY_NAME`, `IMAGE_ID`, `NAME` or `ID`, the first that says something.
    /// systemd-boot leaves a UKI without any of them out of its menu.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        [&self.pretty_name, &self.image_id, &self.name, &self.id]
            .into_iter()
            .filter_map(Option::as_deref)
            .find(|t| !t.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &[u8], rules: LineRules) -> Vec<(String, String)> {
        lines_by(text, rules).collect()
    }

    #[test]
    fn lines_are_read_as_systemd_boot_reads_them() {
        for (line, expected) in [
            ("ID=talos", Some(("ID", "talos"))),
            ("  ID=talos \t", Some(("ID", "talos"))),
            ("A==x", Some(("A", "x"))),
            ("A =x", Some(("A ", "x"))),
            ("A= x", Some(("A", " x"))),
            ("NAME=\"Talos\"", Some(("NAME", "Talos"))),
            ("NAME='Talos'", Some(("NAME", "Talos"))),
            ("NAME=\"Talos", Some(("NAME", "\"Talos"))),
            ("NAME=\"Talos'", Some(("NAME", "\"Talos'"))),
            ("NAME=\"", Some(("NAME", ""))),
            ("NAME=\"\"", Some(("NAME", ""))),
            ("NAME=", Some(("NAME", ""))),
            ("NAME=\"a\\\"b\" # c", Some(("NAME", "\"a\\\"b\" # c"))),
            ("=x", Some(("", "x"))),
            ("no separator", None),
            ("# ID=x", None),
            ("", None),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            assert_eq!(parse(line.as_bytes(), LineRules::OS_RELEASE), expected, "{line:?}");
        }
        let old = LineRules { single_quotes: false, ..LineRules::OS_RELEASE };
        assert_eq!(parse(b"A='x'", old), [("A".into(), "'x'".into())]);
        assert_eq!(parse(b"timeout \t 10", LineRules::LOADER_CONF), [("timeout".into(), "10".into())]);
    }

    #[test]
    fn line_ends_and_nul() {
        let text = b"A=1\rB=2\r\n\nC=3\0D=4";
        let keys: Vec<_> = lines(text).map(|(k, _)| k).collect();
        assert_eq!(keys, ["A", "B", "C"]);
    }

    #[test]
    fn only_ucs2_survives() {
        for (bytes, text) in [
            (&b"T\xC3\xA4st"[..], "Täst"),
            ("a\u{1F600}b".as_bytes(), "ab"),
            (b"a\xFFb\x80c", "abc"),
            (b"a\xC3bc", "ac"),
            (b"a\xE2\x82", "a"),
            (b"a\xED\xA0\x80b", "ab"),
            (b"\xC1\x81", "A"),
        ] {
            assert_eq!(decode(bytes), text, "{bytes:x?}");
        }
    }

    #[test]
    fn a_talos_os_release() {
        let text =
            b"NAME=\"Talos\"\nID=talos\nVERSION_ID=v1.12.3\nPRETTY_NAME=\"Talos (v1.12.4)\"\nVERSION_ID=v1.12.4\n";
        let os = OsRelease::parse(text);
        assert_eq!(os.version_id.as_deref(), Some("v1.12.4"));
        assert_eq!(os.title(), Some("Talos (v1.12.4)"));
        assert_eq!((os.id.as_deref(), os.version), (Some("talos"), None));
        assert_eq!(OsRelease::parse(b"ID=x\nNAME=").title(), Some("x"));
    }

    proptest! {
        #[test]
        fn any_bytes_will_do(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = OsRelease::parse(&text);
            let _ = parse(&text, LineRules::LOADER_CONF);
        }
    }
}
