//! Reports as text for people, or as one JSON document for programs.

mod change;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod image;
mod status;
mod style;

use super::args::Global;
use crate::{Error, Result};
pub(super) use change::Backups;
use serde::Serialize;
use std::fmt;
use std::io::Write;
pub(super) use style::Paint;

/// A report that can be shown to people.
pub(super) trait Render: Serialize {
    /// Writes it as text, a newline at the end.
    fn text(&self, f: &mut dyn fmt::Write, paint: Paint) -> fmt::Result;
}

/// Stdout, in the form that was asked for.
pub(super) struct Output {
    json: bool,
    quiet: bool,
    paint: Paint,
    paint_errors: Paint,
}

impl Output {
    pub(super) fn new(global: &Global) -> Self {
        let (paint, paint_errors) = Paint::choose(global.color);
        Self { json: global.json, quiet: global.quiet, paint, paint_errors }
    }

    /// Prints a report.
    pub(super) fn show(&self, report: &impl Render) -> Result<()> {
        let mut text = String::new();
        if self.json {
            text = serde_json::to_string_pretty(report).map_err(|e| Error::io(e.to_string()))?;
            text.push('\n');
        } else {
            report.text(&mut text, self.paint).map_err(|e| Error::io(e.to_string()))?;
            text = harmless(&text);
        }
        Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
    }

    /// Prints a part of a report while the rest is still being made; nothing with `--json`, which gives one document.
    #[cfg(feature = "demo")]
    pub(super) fn show_part(&self, part: &impl Render) -> Result<()> {
        if self.json { Ok(()) } else { self.show(part) }
    }

    /// Prints what went wrong, on stderr; with `--json` also as a document on stdout, and with `--json --quiet` only there:
    /// the log of a container is both in one.
    pub(super) fn error(&self, error: &Error) {
        if !(self.json && self.quiet) {
            let mut text = String::new();
            let _ = error_text(&mut text, self.paint_errors, error);
            eprint!("{text}");
        }
        if self.json {
            error_document(error);
        }
    }
}

/// Text for a terminal: names on a damaged or hostile disk may hold control characters, and only line ends and colours get
/// through.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() && c != '\n') {
        let (before, special) = rest.split_at(at);
        out.push_str(before);
        let mut chars = special.chars();
        rest = match (colour(special), chars.next()) {
            (Some(code), _) => {
                out.push_str(code);
                &special[code.len()..]
            }
            (None, c) => {
                out.extend(c.into_iter().flat_map(char::escape_unicode));
                chars.as_str()
            }
        };
    }
    out + rest
}

/// The colour code that a text begins with: `ESC [ 31 ; 1 m` (ECMA-48, "SGR").
fn colour(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    parameters[end..].starts_with('m').then(|| &text[..end + 3])
}

/// What went wrong, whether the ESP was changed, and what to do now.
pub(super) fn error_text(f: &mut dyn fmt::Write, p: Paint, error: &Error) -> fmt::Result {
    writeln!(f, "{} {}", p.bad("error:"), harmless(&error.to_string()))?;
    match error.esp_changed() {
        Some(false) => writeln!(f, "the ESP was not changed")?,
        Some(true) => writeln!(f, "{}", p.warn("the ESP was changed, or may have been"))?,
        None => {}
    }
    match error.advice() {
        Some(advice) => writeln!(f, "{} {}", p.strong("what to do:"), harmless(advice)),
        None => Ok(()),
    }
}

/// Prints the document of an error on stdout.
pub(super) fn error_document(error: &Error) {
    let document = serde_json::json!({ "error": error });
    let _ = writeln!(std::io::stdout(), "{document:#}");
}

/// `pod`: the manifest as YAML, for `kubectl`.
impl Render for crate::command::PodReport {
    fn text(&self, f: &mut dyn fmt::Write, _: Paint) -> fmt::Result {
        f.write_str(&self.manifest.to_yaml().map_err(|_| fmt::Error)?)
    }
}

/// `completions`: the script, and nothing else, for a shell to read.
#[derive(Serialize)]
pub(super) struct Completions {
    pub(super) shell: String,
    pub(super) script: String,
}

impl Render for Completions {
    fn text(&self, f: &mut dyn fmt::Write, _: Paint) -> fmt::Result {
        f.write_str(&self.script)
    }
}

/// `man`: where the pages are now.
#[derive(Serialize)]
pub(super) struct ManPages {
    pub(super) dir: String,
}

impl Render for ManPages {
    fn text(&self, f: &mut dyn fmt::Write, _: Paint) -> fmt::Result {
        writeln!(f, "the manual pages are in {}; read one with `man -l {}/bootsurgeon.1`", self.dir, self.dir)
    }
}

/// A number of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_line_ends_and_colours_reach_the_terminal() {
        for (text, shown) in [
            ("plain\ntext", "plain\ntext"),
            ("\x1b[31;1mred\x1b[0m", "\x1b[31;1mred\x1b[0m"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\x1b]0;title\x07b", "a\\u{1b}]0;title\\u{7}b"),
            ("\x1b", "\\u{1b}"),
            ("\x1b[", "\\u{1b}["),
            ("\x1b[31", "\\u{1b}[31"),
            ("\u{9b}2Jé\r", "\\u{9b}2Jé\\u{d}"),
        ] {
            assert_eq!(harmless(text), shown, "{text:?}");
        }
    }
}
