//! What the factory's YAML reader (Go's `go.yaml.in/yaml`, version 4) takes otherwise than ours, or not at all. Such a
//! document is refused here: it would get another ID than the factory gives it, or one that the factory never gives.
//!
//! Found by reading documents drawn at random with that library and with ours. It goes over the parser's events and not
//! over nodes: what decides is also how a scalar is written, and what stands in further documents.

use super::Error;
use crate::Result;
use granit_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

/// The first document of the text, which is all that the factory reads. What the two readers do not read alike is
/// refused, and another document with something in it; what breaks the rules of YAML itself is left to the reader.
pub(super) fn first_document(text: &str) -> Result<&str> {
    let is_break = |c| matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}');
    if let Some(line) = text.lines().position(|line| line.contains(is_break)) {
        let what = "a character that ends a line in YAML 1.1 (U+0085, U+2028 or U+2029)";
        return refuse(line + 1, what, "write it as \\N, \\L or \\P in double quotes");
    }
    let mut place = Place::default();
    let (mut began, mut end) = (false, None);
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { return Ok(text) };
        let line = span.start.line();
        match &event {
            Event::DocumentStart(..) if began => end = end.or(span.start.byte_offset()),
            Event::DocumentStart(_, version) => {
                began = true;
                if version.as_ref().is_some_and(|version| (version.major, version.minor) != (1, 1)) {
                    return refuse(line, "a %YAML directive for another version than 1.1", "leave it out");
                }
            }
            Event::Scalar(value, ScalarStyle::Plain, _, None)
                if end.is_some() && matches!(&**value, "" | "~" | "null") => {}
            Event::SequenceStart(..) | Event::MappingStart(..) | Event::Scalar(..) if end.is_some() => {
                return refuse(line, "a second document", "the factory reads the first one alone: remove the other");
            }
            Event::SequenceStart(_, _, tag) => {
                known(tag.as_deref(), span.start)?;
                place.enter(Step::Item);
            }
            Event::MappingStart(_, _, tag) => {
                known(tag.as_deref(), span.start)?;
                place.enter(Step::Key);
            }
            Event::SequenceEnd | Event::MappingEnd => place.leave(),
            Event::Scalar(value, style, _, tag) => {
                known(tag.as_deref(), span.start)?;
                scalar(value, *style, tag.is_some(), &place, text, span)?;
                place.pass(Some(value));
            }
            Event::Alias(_) => place.pass(None),
            _ => {}
        }
    }
    Ok(end.and_then(|end| text.get(..end)).unwrap_or(text))
}

fn scalar(value: &str, style: ScalarStyle, tagged: bool, place: &Place, text: &str, span: Span) -> Result<()> {
    let line = span.start.line();
    if style == ScalarStyle::Plain && !tagged && value == "-0" && place.is_option() {
        return refuse(line, "-0, which the factory keeps", "write 0, or \"-0\" for the text");
    }
    if style != ScalarStyle::Plain && place.is_meta_key() {
        return refuse(line, "a META key in quotes", "it is a number: write it without them");
    }
    if style == ScalarStyle::DoubleQuoted
        && let Some(raw) = span.byte_range().and_then(|range| text.get(range))
        && let Some((escape, advice)) = escape_of_others(raw)
    {
        return refuse(line, &format!("the escape {escape}"), advice);
    }
    Ok(())
}

/// An escape sequence that YAML 1.2 or JSON knows, and the factory's reader does not.
fn escape_of_others(raw: &str) -> Option<(String, &'static str)> {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        let mut chars = rest[at..].chars();
        chars.next();
        match chars.next()? {
            '/' => return Some(("\\/".into(), "write / alone")),
            'u' => {
                let digits: String = chars.by_ref().take(4).collect();
                if u32::from_str_radix(&digits, 16).is_ok_and(|unit| (0xD800..0xE000).contains(&unit)) {
                    return Some((format!("\\u{digits}"), "write the character itself, or \\U and its eight digits"));
                }
            }
            _ => {}
        }
        rest = chars.as_str();
    }
    None
}

/// Of tags, `!!str` is read alike.
fn known(tag: Option<&Tag>, at: Marker) -> Result<()> {
    match tag {
        Some(tag) if tag.core_suffix() != Some("str") => {
            let name = format!("the tag {}{}", tag.original_handle(), tag.suffix());
            refuse(at.line(), &name, "write the value without it, in quotes if it is text")
        }
        _ => Ok(()),
    }
}

fn refuse<T>(line: usize, what: &str, advice: &str) -> Result<T> {
    let error = Error::usage(format!("schematic: line {line}: {what} is not read as the factory reads it"));
    Err(error.advise(advice))
}

/// A step from the root of the document to a node.
enum Step {
    /// An item of a sequence.
    Item,
    /// In a mapping where a key comes next.
    Key,
    /// In a mapping, the value of this key; `None` where the key is no plain scalar.
    Value(Option<String>),
}

/// Where in the document the next node is.
#[derive(Default)]
struct Place(Vec<Step>);

impl Place {
    fn enter(&mut self, step: Step) {
        self.0.push(step);
    }

    fn leave(&mut self) {
        self.0.pop();
        self.pass(None);
    }

    /// A node has been read here; `name` if it may be a key.
    fn pass(&mut self, name: Option<&str>) {
        match self.0.last_mut() {
            Some(step @ Step::Key) => *step = Step::Value(name.map(str::to_owned)),
            Some(step @ Step::Value(_)) => *step = Step::Key,
            Some(Step::Item) | None => {}
        }
    }

    fn is(&self, depth: usize, key: &str) -> bool {
        matches!(self.0.get(depth), Some(Step::Value(Some(name))) if name == key)
    }

    fn is_option(&self) -> bool {
        self.is(0, "overlay") && self.is(1, "options")
    }

    fn is_meta_key(&self) -> bool {
        self.is(0, "customization") && self.is(1, "meta") && self.is(3, "key") && self.0.len() == 4
    }
}
