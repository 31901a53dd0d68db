//! The text of a report, line by line. What goes into it may hold other people's text, so nothing in a line gets through but
//! characters that can be seen, and the colours of [`super::Paint`].

use crate::harmless::harmless;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

/// A text under construction. `writeln!` and `write!` in this folder end in [`Self::line`] and [`Self::part`].
pub(in crate::cli) struct Page {
    text: String,
    /// Whether it goes to somebody's terminal. A file gets texts that are for machines byte for byte.
    terminal: bool,
}

impl Page {
    pub(super) fn new(terminal: bool) -> Self {
        Self { text: String::new(), terminal }
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
        self.text.push_str(&harmless(pieces.next().unwrap_or_default()));
        for piece in pieces {
            let (code, rest) = piece.split_once('m').unwrap_or((piece, ""));
            self.text.push_str("\x1b[");
            self.text.push_str(code);
            self.text.push('m');
            self.text.push_str(&harmless(rest));
        }
        Ok(())
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
}
