//! Colours, where they are wanted.

use super::page::mark;
use crate::cli::args::Color;
use std::io::IsTerminal;

/// Paints words, or leaves them alone.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Paint(bool);

impl Paint {
    #[cfg(test)]
    pub(super) const ALWAYS: Self = Self(true);
    /// No colours at all.
    pub(super) const PLAIN: Self = Self(false);

    /// For stdout and for stderr.
    pub(in crate::cli) fn choose(color: Color) -> (Self, Self) {
        // https://no-color.org: any value but the empty one.
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let auto = |terminal: bool| match color {
            Color::Always => Self(true),
            Color::Never => Self(false),
            Color::Auto => Self(terminal && wanted),
        };
        (auto(std::io::stdout().is_terminal()), auto(std::io::stderr().is_terminal()))
    }

    fn code(self, code: &str, text: impl std::fmt::Display) -> String {
        // A page makes colours of these marks; see there.
        if self.0 { format!("{0}{code}m{text}{0}0m", mark()) } else { text.to_string() }
    }

    pub(in crate::cli) fn good(self, text: impl std::fmt::Display) -> String {
        self.code("32", text)
    }

    pub(in crate::cli) fn warn(self, text: impl std::fmt::Display) -> String {
        self.code("33", text)
    }

    pub(in crate::cli) fn bad(self, text: impl std::fmt::Display) -> String {
        self.code("31;1", text)
    }

    pub(in crate::cli) fn strong(self, text: impl std::fmt::Display) -> String {
        self.code("1", text)
    }

    pub(in crate::cli) fn faint(self, text: impl std::fmt::Display) -> String {
        self.code("2", text)
    }
}
