//! Reports as text for people, or as one JSON document for programs.

mod change;
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
        match error.esp_changed() {
            Some(false) => eprintln!("the ESP was not changed"),
            Some(true) => eprintln!("{}", p.warn("the ESP was changed, or may have been")),
            None => {}
        }
        if let Some(advice) = error.advice() {
            eprintln!("{} {advice}", p.strong("what to do:"));
        }
        if self.json {
            error_document(error);
        }
    }
}

/// Prints the document of an error on stdout.
pub(super) fn error_document(error: &Error) {
    let document = serde_json::json!({
        "error": {
            "message": error.to_string(),
            "advice": error.advice(),
            "exit_code": error.kind().exit_code(),
            "esp_changed": error.esp_changed(),
        }
    });
    let _ = writeln!(std::io::stdout(), "{document:#}");
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
