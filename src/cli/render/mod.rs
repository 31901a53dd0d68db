//! Reports as text for people, or as one JSON document for programs.

/// As the standard one, for a [`Page`]: what stands between the braces may be other people's text, line ends and all.
macro_rules! writeln {
    ($page:expr) => { $page.end_line() };
    ($page:expr, $($text:tt)*) => { $page.line(format_args!($($text)*)) };
}

mod bar;
mod board;
mod board_set;
mod change;
mod config;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod image;
mod page;
mod rollout;
mod status;
mod style;
mod svg;
mod way;

use super::args::Global;
use crate::pod::{DeskEvent, listening};
use crate::{Code, Error, Result};
pub(super) use change::proposal_text;
pub(in crate::cli) use page::Page;
use serde::Serialize;
use std::fmt;
use std::io::{ErrorKind, IsTerminal, Write};
pub(super) use style::Paint;
pub(super) use svg::picture;

/// A report that can be shown to people.
pub(super) trait Render: Serialize {
    /// Whether it is what was requested in itself (a manifest, a script) rather than a report on what was done.
    const IS_DATA: bool = false;

    /// Writes it as text, a newline at the end.
    fn text(&self, f: &mut Page, paint: Paint) -> fmt::Result;
}

/// Stdout, in the form that was requested.
pub(super) struct Output {
    json: bool,
    quiet: bool,
    verbose: bool,
    paint: Paint,
    paint_errors: Paint,
}

impl Output {
    pub(super) fn new(global: &Global) -> Self {
        let (paint, paint_errors) = Paint::choose(global.color);
        Self { json: global.json, quiet: global.quiet, verbose: global.verbose > 0, paint, paint_errors }
    }

    /// Prints a report; with `--quiet` only as JSON. That nobody reads it to its end (a closed pipe) is no failure: the
    /// exit code is the command's own.
    ///
    /// # Errors
    /// [`Code::Output`] when it cannot be written.
    pub(super) fn show<R: Render>(&self, report: &R) -> Result<()> {
        if self.quiet && !self.json && !R::IS_DATA {
            return Ok(());
        }
        let text = if self.json {
            serde_json::to_string_pretty(report).map_err(|e| Error::new(Code::Bug, e.to_string()))? + "\n"
        } else {
            let page = Page::new(std::io::stdout().is_terminal()).verbose(self.verbose);
            let mut page = if self.verbose || R::IS_DATA { page } else { page.with_short_hashes() };
            report.text(&mut page, self.paint).map_err(|e| Error::new(Code::Bug, e.to_string()))?;
            page.finish()
        };
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => {
                Err(Error::from(e).with_code(Code::Output).while_doing("writing the report to standard output"))
            }
            _ => Ok(()),
        }
    }

    /// Prints the report of a command that may have changed the ESP: where that fails, the error says whether it has.
    pub(super) fn show_change(&self, report: &impl Render, changed: bool) -> Result<()> {
        self.show(report).map_err(|e| {
            let advice = match changed {
                true => {
                    "only the report is lost: the command has done what it was requested; `bootsurgeon status` \
                         shows the ESP"
                }
                false => "only the report is lost: make room where standard output goes, and run it again",
            };
            e.with_esp_changed(changed).advise(advice)
        })
    }

    /// Prints a part of a report while the rest is still being made; nothing with `--json`, which gives one document.
    #[cfg(feature = "demo")]
    pub(super) fn show_part(&self, part: &impl Render) -> Result<()> {
        if self.json { Ok(()) } else { self.show(part) }
    }

    /// Prints what went wrong, on stderr; with `--json` also as a document on stdout, and with `--json --quiet` only
    /// there: the log of a container is both in one.
    pub(super) fn error(&self, error: &Error) {
        self.error_in_words(error);
        if self.json {
            error_document(error);
        }
    }

    /// The same, where a report was shown that holds the error.
    pub(super) fn error_in_words(&self, error: &Error) {
        if !(self.json && self.quiet) {
            let mut page = Page::new(true);
            let _ = error_text(&mut page, self.paint_errors, error);
            on_stderr(&page.finish());
        }
    }
}

/// Writes to stderr, for a desk that listens as a line of JSON.
pub(super) fn on_stderr(text: &str) {
    match listening() {
        // Line by line: a container's runtime takes longer ones apart.
        Some(_) => text.split_inclusive('\n').for_each(|line| to_desk(&DeskEvent::Text { text: line.to_owned() })),
        None => write_stderr(text),
    }
}

/// Tells a desk that listens.
pub(super) fn to_desk(event: &DeskEvent) {
    write_stderr(&event.line());
}

/// Where stderr is full or closed there is nobody left to tell, and what the program does goes on.
fn write_stderr(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// What went wrong, whether the ESP was changed, and what to do now.
pub(super) fn error_text(f: &mut Page, p: Paint, error: &Error) -> fmt::Result {
    writeln!(f, "{} {error}", p.bad("error:"))?;
    match error.esp_changed() {
        Some(false) => writeln!(f, "the ESP was not changed")?,
        Some(true) => writeln!(f, "{}", p.warn("the ESP was changed, or may have been"))?,
        None => {}
    }
    match error.advice() {
        Some(advice) => writeln!(f, "{} {}", p.strong("what to do:"), advice),
        None => Ok(()),
    }
}

/// Prints the document of an error on stdout.
pub(super) fn error_document(error: &Error) {
    let document = serde_json::json!({ "error": error });
    let _ = std::io::stdout().write_all(format!("{document:#}\n").as_bytes());
}

/// `pod`: the manifest as YAML, for `kubectl`.
impl Render for crate::command::PodReport {
    const IS_DATA: bool = true;

    fn text(&self, f: &mut Page, _: Paint) -> fmt::Result {
        f.block(&self.manifest.to_yaml())
    }
}

/// A schematic without its ID, for a pipe; JSON has both.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Yaml(pub(super) crate::command::SchematicReport);

impl Render for Yaml {
    const IS_DATA: bool = true;

    fn text(&self, f: &mut Page, _: Paint) -> fmt::Result {
        f.block(&self.0.schematic)
    }
}

/// `completions`: the script, and nothing else, for a shell to read.
#[derive(Serialize)]
pub(super) struct Completions {
    pub(super) shell: String,
    pub(super) script: String,
}

impl Render for Completions {
    const IS_DATA: bool = true;

    fn text(&self, f: &mut Page, _: Paint) -> fmt::Result {
        f.block(&self.script)
    }
}

/// `man`: where the pages are now.
#[derive(Serialize)]
pub(super) struct ManPages {
    pub(super) dir: String,
}

impl Render for ManPages {
    fn text(&self, f: &mut Page, _: Paint) -> fmt::Result {
        writeln!(f, "the manual pages are in {}; read one with `man -l {}/bootsurgeon.1`", self.dir, self.dir)
    }
}
