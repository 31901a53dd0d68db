//! `status --svg`: the ESP's space by file, the boot menu and the way of the boot as one picture, for a ticket or a
//! wiki page.
//!
//! SVG 1.1 by hand: rectangles and lines of text, colours for a light and a dark background. Other people's text gets
//! through [`escaped`] alone.

use super::{Paint, way};
use crate::bootpath::Certainty;
use crate::command::StatusReport;
use crate::esp::FileKind;
use crate::harmless::harmless;
use crate::units::size;
use std::fmt::Write;

const WIDTH: u32 = 960;
const MARGIN: u32 = 24;
const LINE: u32 = 20;
/// Characters of the font for a line of the picture.
const COLUMNS: usize = 116;

/// Colours on white, and on black where the reader's screen is dark.
const STYLE: &str = "
text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2328;white-space:pre}
.h{font-weight:bold}.faint{fill:#59636e}
.page{fill:#ffffff}.free{fill:#eaeef2}.box{fill:none;stroke:#8c959f}.unsure{stroke-dasharray:4 3}
.start{fill:#1a7f37}.uki{fill:#0969da}.backup{fill:#bf8700}.disabled{fill:#8c959f}.broken{fill:#cf222e}.other{fill:#8250df}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9198a1}.page{fill:#0d1117}.free{fill:#212830}
.box{stroke:#656c76}.start{fill:#3fb950}.uki{fill:#4493f8}.backup{fill:#d29922}.disabled{fill:#9198a1}.broken{fill:#f85149}
.other{fill:#ab7df8}}
";

/// The picture.
pub(in crate::cli) fn picture(report: &StatusReport) -> String {
    let mut drawing = Drawing { body: String::new(), y: MARGIN };
    let partition = report.disk.partition.as_ref();
    let partition = partition.map_or(String::new(), |p| format!(", partition {} {:?}", p.number, p.label));
    drawing.line("h", &format!("{}{partition}", report.disk.path));
    let e = &report.esp;
    let state = if e.healthy { "healthy" } else { "not healthy" };
    let (free, total) = (size(e.free_bytes), size(e.total_bytes));
    drawing.line("faint", &format!("{}, {free} of {total} free, {state}", e.fat.name()));
    space(&mut drawing, report);
    menu(&mut drawing, report);
    draw_way(&mut drawing, report);
    drawing.finish(&format!("The ESP of {}", report.disk.path))
}

/// What takes the space: a bar, and a line for each file with its colour.
fn space(drawing: &mut Drawing, report: &StatusReport) {
    let e = &report.esp;
    let selected = report.boot.selected.as_deref();
    let class = |name: &str, kind: FileKind| match kind {
        FileKind::Uki if selected == Some(name) => "start",
        FileKind::Uki => "uki",
        FileKind::Backup => "backup",
        FileKind::Disabled => "disabled",
        FileKind::Broken => "broken",
        FileKind::Other => "other",
    };
    let mut parts: Vec<(&str, String, u64, String)> = Vec::new();
    for file in &report.files {
        let words = report.parts(file, Paint::PLAIN);
        parts.push((class(&file.name, file.kind), file.name.clone(), u64::from(file.bytes), words));
    }
    let used = e.total_bytes.saturating_sub(e.free_bytes);
    let listed: u64 = parts.iter().map(|(_, _, bytes, _)| bytes).sum();
    let rest = used.saturating_sub(listed);
    parts.push(("other", "everything else".to_owned(), rest, "boot loader, settings, directories".to_owned()));

    drawing.heading("Space");
    let (all, height) = (u64::from(WIDTH - 2 * MARGIN), 28);
    drawing.rect("free", MARGIN, drawing.y, WIDTH - 2 * MARGIN, height);
    let mut x = 0;
    for (class, _, bytes, _) in &parts {
        let share = u128::from(*bytes) * u128::from(all) / u128::from(e.total_bytes.max(1));
        // What is there can be seen.
        let width = (share as u64).max(u64::from(*bytes > 0) * 2).min(all - x);
        if width > 0 {
            drawing.rect(class, MARGIN + x as u32, drawing.y, width as u32, height);
        }
        x += width;
    }
    drawing.y += height + 12;
    let width = parts.iter().map(|(_, name, ..)| shown(name).chars().count()).max().unwrap_or(0).min(56);
    for (class, name, bytes, words) in parts {
        drawing.rect(class, MARGIN, drawing.y, 12, 12);
        let name = cut(&shown(&name), width);
        drawing.text_at(MARGIN + 20, "", &format!("{name:width$} {:>10}  {words}", size(bytes)));
    }
}

fn menu(drawing: &mut Drawing, report: &StatusReport) {
    drawing.heading("Boot menu");
    if !report.boot.is_on_the_way {
        drawing.line("faint", "not on the way of the boot: what systemd-boot would show here");
    }
    if report.boot.entries.is_empty() {
        drawing.line("faint", "empty");
    }
    for (i, entry) in report.boot.entries.iter().enumerate() {
        let starts = report.boot.roles.selected == Some(i);
        let (arrow, class) = if starts { ("->", "h") } else { ("  ", "") };
        drawing
            .line(class, &format!("{arrow} {}  {}", shown(&entry.title), report.entry_parts(i, entry, Paint::PLAIN)));
    }
    drawing.line("faint", &report.boot.reason);
}

/// The steps, each in its box.
fn draw_way(drawing: &mut Drawing, report: &StatusReport) {
    drawing.heading("Way of the boot");
    for step in &report.way {
        let (kind, sure) = (way::kind(step), way::certainty(step));
        let class = if step.certainty == Certainty::Unknown { "box unsure" } else { "box" };
        let top = drawing.y;
        drawing.y += 10;
        let place = step.place.as_ref().map_or(String::new(), |place| format!(", {place}"));
        drawing.text_at(MARGIN + 12, "", &format!("{kind:9} {}{place}", step.what));
        drawing.text_at(MARGIN + 12, "faint", &format!("{:9} {sure}{}", "", step.why));
        drawing.y += 4;
        drawing.rect(class, MARGIN, top, WIDTH - 2 * MARGIN, drawing.y - top);
        drawing.y += 10;
    }
    if report.boot.selected.is_none() {
        drawing.line("h", &format!("Starts {}", report.boot.starts));
    }
}

/// A picture under construction, from top to bottom.
struct Drawing {
    body: String,
    y: u32,
}

impl Drawing {
    fn heading(&mut self, text: &str) {
        self.y += LINE;
        self.line("h", text);
        self.y += 4;
    }

    fn line(&mut self, class: &str, text: &str) {
        self.text_at(MARGIN, class, text);
    }

    /// A text on as many lines as it needs.
    fn text_at(&mut self, x: u32, class: &str, text: &str) {
        let text = shown(text);
        let indent = text.chars().take_while(|c| *c == ' ').count();
        for (n, part) in lines(&text, COLUMNS - (x - MARGIN) as usize / 8).into_iter().enumerate() {
            let indent = if n > 0 { " ".repeat(indent.max(4)) } else { String::new() };
            let baseline = self.y + 12;
            let _ = std::writeln!(
                self.body,
                r#"<text x="{x}" y="{baseline}" class="{class}">{indent}{}</text>"#,
                escaped(&part)
            );
            self.y += LINE;
        }
    }

    fn rect(&mut self, class: &str, x: u32, y: u32, width: u32, height: u32) {
        let _ =
            std::writeln!(self.body, r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}"/>"#);
    }

    fn finish(self, title: &str) -> String {
        let (body, height) = (self.body, self.y + MARGIN);
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" xml:space="preserve">
<title>{}</title>
<style>{STYLE}</style>
<rect class="page" width="{WIDTH}" height="{height}"/>
{body}</svg>
"#,
            escaped(&shown(title))
        )
    }
}

/// What a reader may be given of somebody else's text.
fn shown(text: &str) -> String {
    harmless(text).into_owned()
}

/// As the content of an element: what [`harmless`] leaves, with XML's own characters and what XML cannot hold at all
/// written otherwise.
pub(in crate::cli) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in harmless(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// The first characters of a text that is too long.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Lines of at most so many characters, broken at blanks where there are any.
fn lines(text: &str, width: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut line = String::new();
    let mut column = 0;
    for word in text.split_inclusive(' ') {
        let mut rest: Vec<char> = word.chars().collect();
        while column + rest.iter().collect::<String>().trim_end().chars().count() > width {
            if column == 0 {
                all.push(rest.drain(..width).collect());
            } else {
                all.push(std::mem::take(&mut line).trim_end().to_owned());
                column = 0;
            }
        }
        column += rest.len();
        line.extend(rest);
    }
    if !line.is_empty() || all.is_empty() {
        all.push(line.trim_end().to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Of no text anything is left that ends an element or an attribute, begins one, or that XML cannot hold.
        #[test]
        fn no_text_gets_out_of_its_element(text in any::<String>()) {
            let escaped = escaped(&text);
            let none = ['<', '>', '"', '\'', '\0', '\n', '\u{fffe}', '\u{ffff}', '\x1b'];
            prop_assert!(!escaped.contains(none), "{escaped}");
            let entities = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
            for (at, _) in escaped.match_indices('&') {
                prop_assert!(entities.iter().any(|e| escaped[at..].starts_with(e)), "{escaped}");
            }
        }

        #[test]
        fn lines_hold_the_text_and_no_more_than_their_width(words in proptest::collection::vec("[a-z]{1,30}", 0..20)) {
            let text = words.join(" ");
            let lines = lines(&text, 16);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= 16), "{lines:?}");
            prop_assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
        }
    }
}
