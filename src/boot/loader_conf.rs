//! The `default` line of `loader.conf`, read and written as text. Every other byte of the file stays: comments, unknown
//! keys, line ends of any kind, and what stands behind a NUL, where systemd-boot stops reading.

use super::text::trim;

/// The key that names the entry to start (loader.conf(5)).
const DEFAULT: &[u8] = b"default";

/// The values of all `default` lines, in their order. systemd-boot goes by the last one that it takes.
#[must_use]
pub fn defaults(text: &[u8]) -> Vec<String> {
    let value = |line: Line<'_>| Some(String::from_utf8_lossy(line.default()?).into_owned());
    Lines(read_part(text)).filter_map(value).collect()
}

/// The text with this one `default` line, in the place of the first one or at the end; with `None` without any.
#[must_use]
pub fn with_default(text: &[u8], mut pattern: Option<&str>) -> Vec<u8> {
    let part = read_part(text);
    let usual = Lines(part).map(|line| line.end).find(|end| !end.is_empty()).unwrap_or(b"\n");
    let setting = |pattern: &str| [DEFAULT, b" ", pattern.as_bytes()].concat();
    let mut out = Vec::with_capacity(text.len() + 64);
    for line in Lines(part) {
        if line.default().is_none() {
            out.extend_from_slice(line.content);
            out.extend_from_slice(line.end);
        } else if let Some(pattern) = pattern.take() {
            out.extend(setting(pattern));
            out.extend_from_slice(line.end);
        }
    }
    if let Some(pattern) = pattern {
        if out.last().is_some_and(|last| !matches!(last, b'\n' | b'\r')) {
            out.extend_from_slice(usual);
        }
        out.extend(setting(pattern));
        out.extend_from_slice(usual);
    }
    out.extend_from_slice(&text[part.len()..]);
    out
}

/// What systemd-boot reads of it.
fn read_part(text: &[u8]) -> &[u8] {
    &text[..memchr::memchr(0, text).unwrap_or(text.len())]
}

/// A line, and what ends it: nothing at the end of the text.
#[derive(Clone, Copy)]
struct Line<'a> {
    content: &'a [u8],
    end: &'a [u8],
}

impl<'a> Line<'a> {
    /// The value, if the key is `default`.
    fn default(&self) -> Option<&'a [u8]> {
        let rest = trim(self.content).strip_prefix(DEFAULT)?;
        rest.first().is_some_and(|c| matches!(c, b' ' | b'\t')).then(|| trim(rest))
    }
}

/// The lines of a text.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let (content, rest) = self.0.split_at(memchr::memchr2(b'\n', b'\r', self.0).unwrap_or(self.0.len()));
        let (end, rest) = rest.split_at(if rest.starts_with(b"\r\n") { 2 } else { rest.len().min(1) });
        self.0 = rest;
        Some(Line { content, end })
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::super::{LoaderVersion, Variables};
    use super::*;
    use proptest::prelude::*;

    fn put(text: &str, pattern: Option<&str>) -> String {
        String::from_utf8(with_default(text.as_bytes(), pattern)).unwrap()
    }

    #[test]
    fn one_line_is_written_and_all_else_stays() {
        for (text, with, without) in [
            ("", "default x\n", ""),
            ("timeout 10\n", "timeout 10\ndefault x\n", "timeout 10\n"),
            ("timeout 10", "timeout 10\ndefault x\n", "timeout 10"),
            ("# a\r\ntimeout 10\r\n", "# a\r\ntimeout 10\r\ndefault x\r\n", "# a\r\ntimeout 10\r\n"),
            ("a b\rtimeout 1\r", "a b\rtimeout 1\rdefault x\r", "a b\rtimeout 1\r"),
            ("\tdefault \t y \ntimeout 1\n", "default x\ntimeout 1\n", "timeout 1\n"),
            ("default y\n# default z\ndefault @saved\nb c", "default x\n# default z\nb c", "# default z\nb c"),
            ("timeout 1\ndefault y", "timeout 1\ndefault x", "timeout 1\n"),
            // No key `default` is in these.
            ("default\ndefaults y\n", "default\ndefaults y\ndefault x\n", "default\ndefaults y\n"),
            // Behind a NUL nobody reads.
            ("a b\n\0default y\n", "a b\ndefault x\n\0default y\n", "a b\n\0default y\n"),
        ] {
            assert_eq!((put(text, Some("x")).as_str(), put(text, None).as_str()), (with, without), "{text:?}");
        }
        assert_eq!(defaults(b"default a b\n#default c\ndefault\t*\n"), ["a b", "*"]);
    }

    proptest! {
        /// What was written is what systemd-boot reads, whatever stood there; and taking it out gives back a text
        /// without any `default`, every other line in its place.
        #[test]
        fn what_is_written_is_read(
            text in "(default|timeout|#|editor|[ \t\r\n]|\"|y|\u{feff}|ä){0,24}",
            pattern in "[a-z*?]{1,8}",
        ) {
            let written = with_default(text.as_bytes(), Some(&pattern));
            prop_assert_eq!(defaults(&written), vec![pattern.clone()]);
            let config = Config::read(Some(&written), &Variables::default(), &LoaderVersion::assumed());
            let read: Vec<_> = config.patterns.iter().map(|p| p.pattern.as_deref()).collect();
            prop_assert_eq!(read, vec![Some(pattern.as_str())]);
            let cleared = with_default(&written, None);
            prop_assert!(defaults(&cleared).is_empty());
            let others = |text: &[u8]| -> Vec<Vec<u8>> {
                Lines(text).filter(|l| l.default().is_none()).map(|l| l.content.to_vec()).collect()
            };
            prop_assert_eq!(others(&cleared), others(text.as_bytes()));
            prop_assert_eq!(with_default(&written, Some(&pattern)), written);
        }
    }
}
