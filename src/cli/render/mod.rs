//! Reports as text for people, or as one JSON document for programs.

mod change;
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
    paint: Paint,
    paint_errors: Paint,
}

impl Output {
    pub(super) fn new(global: &Global) -> Self {
        let (paint, paint_errors) = Paint::choose(global.color);
        Self { json: global.json, paint, paint_errors }
    }

    /// Prints a report.
    pub(super) fn show(&self, report: &impl Render) -> Result<()> {
        let mut text = String::new();
        if self.json {
            text = serde_json::to_string_pretty(report).map_err(|e| Error::io(e.to_string()))?;
            text.push('\n');
        } else {
            report.text(&mut text, self.paint).map_err(|e| Error::io(e.to_string()))?;
        }
        Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
    }

    /// Prints what went wrong, on stderr; with `--json` also as a document on stdout.
    pub(super) fn error(&self, error: &Error) {
        let p = self.paint_errors;
        eprintln!("{} {error}", p.bad("error:"));
        if let Some(advice) = error.advice() {
            eprintln!("{} {advice}", p.strong("what to do:"));
        }
        if self.json {
            let document = serde_json::json!({
                "error": {"message": error.to_string(), "advice": error.advice(), "exit_code": error.kind().exit_code()}
            });
            let _ = writeln!(std::io::stdout(), "{document:#}");
        }
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
