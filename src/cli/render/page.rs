//! The text of a report, line by line. What goes into it may hold other people's text, so nothing in a line gets
//! through but characters that can be seen, and the colours of [`super::Paint`].

use crate::harmless::harmless;
use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

/// A text under construction. `writeln!` in this folder ends in [`Self::line`].
pub(in crate::cli) struct Page {
    text: String,
    /// Whether it goes to somebody's terminal. A file gets texts that are for machines byte for byte.
    terminal: bool,
    /// Whether everything is wanted (`--verbose`).
    verbose: bool,
    /// Columns that running text is broken at.
    width: usize,
    /// Whether hashes are shown whole.
    whole_hashes: bool,
}

/// So many digits of a hash are for people.
const SHORT: usize = 12;
/// From this many hexadecimal digits on it is a hash (SHA-1).
const HASH: usize = 40;

impl Page {
    pub(super) fn new(terminal: bool) -> Self {
        Self { text: String::new(), terminal, verbose: false, width: width(), whole_hashes: true }
    }

    /// The same with everything in it, if that is wanted.
    pub(super) fn verbose(self, verbose: bool) -> Self {
        Self { verbose, ..self }
    }

    /// Hashes get their first digits only, but for those in a command between backticks and in a URL: these are for
    /// copying.
    pub(super) fn with_short_hashes(self) -> Self {
        Self { whole_hashes: false, ..self }
    }

    /// Columns that running text is broken at.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// A line. Line ends in it are other people's, and made visible.
    #[allow(clippy::unnecessary_wraps, reason = "as fmt::Write, for `writeln!`")]
    pub(super) fn line(&mut self, text: fmt::Arguments<'_>) -> fmt::Result {
        self.part(text)?;
        self.end_line()
    }

    /// A part of a line.
    #[allow(clippy::unnecessary_wraps, reason = "as fmt::Write, for `write!`")]
    pub(super) fn part(&mut self, text: fmt::Arguments<'_>) -> fmt::Result {
        let text = text.to_string();
        let mut pieces = text.split(mark());
        self.push(pieces.next().unwrap_or_default());
        for piece in pieces {
            let (code, rest) = piece.split_once('m').unwrap_or((piece, ""));
            self.text.push_str("\x1b[");
            self.text.push_str(code);
            self.text.push('m');
            self.push(rest);
        }
        Ok(())
    }

    fn push(&mut self, text: &str) {
        let text = harmless(text);
        match self.whole_hashes {
            true => self.text.push_str(&text),
            false => self.text.push_str(&shortened(&text)),
        }
    }

    /// `begin`, and behind it a text that is broken at blanks where the line would be too long; the lines after the
    /// first are indented as the first. Commands in backticks are never broken: they are for copying.
    pub(super) fn wrapped(&mut self, begin: fmt::Arguments<'_>, text: &str) -> fmt::Result {
        let begin = begin.to_string();
        let mut column = shown_width(&begin);
        // A long name leaves no room beside it: what does not fit there goes below it.
        let is_narrow = column + 32 > self.width;
        let indent = if is_narrow { 6 } else { column };
        if is_narrow && column + shown_width(text) > self.width {
            self.part(format_args!("{}", begin.trim_end()))?;
            self.end_line()?;
            self.part(format_args!("{:indent$}", ""))?;
            column = indent;
        } else {
            self.part(format_args!("{begin}"))?;
        }
        for (i, word) in words(text).enumerate() {
            let short = if self.whole_hashes { Cow::Borrowed(word) } else { shortened(word) };
            let width = shown_width(&short);
            if i > 0 && column + 1 + width > self.width {
                self.end_line()?;
                self.part(format_args!("{:indent$}", ""))?;
                column = indent;
            } else if i > 0 {
                self.part(format_args!(" "))?;
                column += 1;
            }
            self.part(format_args!("{word}"))?;
            column += width;
        }
        self.end_line()
    }

    /// The end of a line.
    #[allow(clippy::unnecessary_wraps, reason = "as the others")]
    pub(super) fn end_line(&mut self) -> fmt::Result {
        self.text.push('\n');
        Ok(())
    }

    /// A text of several lines that is for machines as well (YAML, a script): as it is, unless somebody looks at it.
    #[allow(clippy::unnecessary_wraps, reason = "as the others")]
    pub(super) fn block(&mut self, text: &str) -> fmt::Result {
        if !self.terminal {
            self.text.push_str(text);
            return Ok(());
        }
        for line in text.split_inclusive('\n') {
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            self.text.push_str(&harmless(line));
            self.text.push_str(end);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// What begins a colour of ours while a line is put together: nobody else's text can hold it, because nobody knows it.
pub(super) fn mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| {
        let random = || std::hash::RandomState::new().build_hasher().finish();
        format!("\x1b{:016x}{:016x}[", random(), random())
    })
}

/// The columns of the terminal that standard output is, from 80 to 200; 100 where it is none. `COLUMNS` comes first, as
/// in other programs: `watch` sets it for what it runs.
fn width() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.trim().parse().ok()).filter(|columns| *columns > 0);
    let is = || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
    said.or_else(|| is().filter(|columns| *columns > 0)).unwrap_or(100).clamp(80, 200)
}

/// How many columns a text takes, without our own colours.
pub(super) fn shown_width(text: &str) -> usize {
    let mut pieces = text.split(mark());
    let first = pieces.next().unwrap_or_default();
    let rest = pieces.map(|piece| piece.split_once('m').map_or("", |(_, rest)| rest));
    std::iter::once(first).chain(rest).map(|piece| harmless(piece).chars().count()).sum()
}

/// Words at blanks, empty ones between two blanks (a name may hold them); what stands in backticks is one word with
/// whatever touches it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut in_command = false;
    text.split(move |c: char| {
        in_command ^= c == '`';
        c == ' ' && !in_command
    })
}

/// Runs of hexadecimal digits as long as a hash, to their first digits.
fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() < HASH {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut in_command = false;
    let mut before = ' ';
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if word == 0 {
            in_command ^= c == '`';
            before = c;
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let is_hash = word >= HASH && rest[..word].bytes().all(|b| b.is_ascii_hexdigit());
        let keep = if is_hash && !in_command && before != '/' { SHORT } else { word };
        out.push_str(&rest[..keep]);
        before = 'x';
        rest = &rest[word..];
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::super::Paint;
    use super::*;

    #[test]
    fn only_our_own_colours_and_line_ends_get_through() {
        let mut page = Page::new(true);
        let hostile = "a\x1b[8mb\nerror: c\u{202e}\x1b[32m";
        page.line(format_args!("{} {hostile}", Paint::ALWAYS.good(hostile))).unwrap();
        page.block("x\ty\n\x1bz\n").unwrap();
        let shown = r"a\u{1b}[8mb\u{a}error: c\u{202e}\u{1b}[32m";
        let expected = format!("\x1b[32m{shown}\x1b[0m {shown}\nx\\u{{9}}y\n\\u{{1b}}z\n");
        assert_eq!(page.finish(), expected);
        let mut page = Page::new(false);
        page.block("x\ty\n").unwrap();
        assert_eq!(page.finish(), "x\ty\n");
    }

    #[test]
    fn commands_are_never_broken() {
        let mut page = Page { width: 100, ..Page::new(true) };
        let long = "x".repeat(60);
        let text = format!("{long} `swap disk.img disk.img --uki name of file`, or");
        page.wrapped(format_args!("  - "), &text).unwrap();
        assert_eq!(page.finish(), format!("  - {long}\n    `swap disk.img disk.img --uki name of file`, or\n"));
        assert_eq!(words("a  `b c`, d").collect::<Vec<_>>(), ["a", "", "`b c`,", "d"]);
        assert_eq!(words("it's `open to the end").collect::<Vec<_>>(), ["it's", "`open to the end"]);
    }

    #[test]
    fn no_line_is_wider_than_the_page_and_colours_take_no_room() {
        let text = (1..60).map(|n| "w".repeat(n % 9 + 1)).collect::<Vec<_>>().join(" ");
        for width in [80, 100, 137, 200] {
            for paint in [Paint::ALWAYS, Paint::PLAIN] {
                let mut page = Page { width, ..Page::new(true) };
                page.wrapped(format_args!("{}  ", paint.good("pass")), &paint.bad(&text)).unwrap();
                let shown = page.finish().replace("\x1b[32m", "").replace("\x1b[31;1m", "").replace("\x1b[0m", "");
                assert!(shown.lines().all(|line| line.chars().count() <= width), "{width}:\n{shown}");
                assert!(shown.lines().skip(1).all(|line| line.starts_with("      w")), "{shown}");
                assert_eq!(shown.split_whitespace().collect::<Vec<_>>().join(" "), format!("pass {text}"));
            }
        }
    }

    #[test]
    fn hashes_are_short_but_where_they_are_copied() {
        let hash = "df3be5cb8f3fd20df2220303a19d2de6de9d2dc8e0f577dc5c7336e5d0eaee3f";
        for (text, shown) in [
            (format!("sha256 {hash}, and"), "sha256 df3be5cb8f3f, and".to_owned()),
            (format!("\"{hash}\""), "\"df3be5cb8f3f\"".to_owned()),
            (format!("run `schematic show {hash}` of {hash}"), format!("run `schematic show {hash}` of df3be5cb8f3f")),
            (format!("https://x.example/{hash}/y:z"), format!("https://x.example/{hash}/y:z")),
            (format!("{hash}x"), format!("{hash}x")),
            (
                "9f3d2a1b-0c4e-4f5a-8b6d-7e8f9a0b1c2d Größe".to_owned(),
                "9f3d2a1b-0c4e-4f5a-8b6d-7e8f9a0b1c2d Größe".to_owned(),
            ),
        ] {
            let mut page = Page::new(true).with_short_hashes();
            page.line(format_args!("{text}")).unwrap();
            assert_eq!(page.finish(), format!("{shown}\n"));
            let mut page = Page::new(true);
            page.line(format_args!("{text}")).unwrap();
            assert_eq!(page.finish(), format!("{text}\n"));
        }
    }
}
