//! Prints YAML byte for byte as the Image Factory does, because a schematic's ID is the hash of that text.
//!
//! The factory prints with Go's `go.yaml.in/yaml` (`Marshal`, versions 3 and 4: four spaces, no line folding, double
//! quotes for what would otherwise be read as another type). No Rust crate prints the same text, so the rules stand
//! here: which scalars stay plain, which quotes they get, how deep things are indented, how map keys are sorted. They
//! follow the library's observable behaviour, oddities included: a hash forgives nothing.
//!
//! Version 4.0.0-rc.6 alone printed `yes`, `no`, `on`, `<<` and `12:30` in single quotes; everything before it, and the
//! fix after it (yaml/go-yaml pull request 380), uses double quotes, and so does this module.

use std::fmt::Write as _;

/// A piece of a YAML document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum YamlNode {
    /// Text that is already a YAML scalar: a number, `true`, `null`.
    Verbatim(String),
    /// A string, quoted as needed.
    Text(String),
    /// A sequence in block style.
    Seq(Vec<Self>),
    /// A mapping in block style, in this order. Keys are single lines of at most 128 bytes.
    Map(Vec<(String, Self)>),
}

#[cfg(feature = "cli")]
impl From<&serde_json::Value> for YamlNode {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => Self::Seq(items.iter().map(Self::from).collect()),
            Value::Object(fields) => {
                Self::Map(fields.iter().map(|(name, field)| (name.clone(), field.into())).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Verbatim(value.to_string()),
        }
    }
}

/// The document of these fields of a JSON object.
#[cfg(feature = "cli")]
pub(crate) fn to_yaml(fields: &serde_json::Map<String, serde_json::Value>) -> String {
    print(&fields.iter().map(|(name, field)| (name.clone(), field.into())).collect::<Vec<_>>())
}

/// Indentation in spaces.
const INDENT: usize = 4;

/// The document whose root is a mapping of these entries.
pub(super) fn print(root: &[(String, YamlNode)]) -> String {
    let mut out = String::new();
    if root.is_empty() {
        out.push_str("{}\n");
    }
    map(&mut out, root, 0, false);
    out
}

/// The next multiple of the indentation. Inside a sequence item `- ` counts as two, so `indent` may lie between.
fn deeper(indent: usize) -> usize {
    INDENT * ((indent + INDENT) / INDENT)
}

fn map(out: &mut String, entries: &[(String, YamlNode)], indent: usize, mut on_this_line: bool) {
    for (key, value) in entries {
        if !std::mem::take(&mut on_this_line) {
            pad(out, indent);
        }
        scalar(out, key, indent, true);
        out.push(':');
        match value {
            YamlNode::Map(e) if !e.is_empty() => {
                out.push('\n');
                map(out, e, deeper(indent), false);
            }
            YamlNode::Seq(items) if !items.is_empty() => {
                out.push('\n');
                seq(out, items, deeper(indent), false);
            }
            leaf => {
                out.push(' ');
                leaf_value(out, leaf, deeper(indent));
            }
        }
    }
}

fn seq(out: &mut String, items: &[YamlNode], indent: usize, mut on_this_line: bool) {
    for item in items {
        if !std::mem::take(&mut on_this_line) {
            pad(out, indent);
        }
        out.push_str("- ");
        match item {
            YamlNode::Map(e) if !e.is_empty() => map(out, e, indent + 2, true),
            YamlNode::Seq(i) if !i.is_empty() => seq(out, i, indent + 2, true),
            leaf => leaf_value(out, leaf, indent + 2),
        }
    }
}

fn leaf_value(out: &mut String, leaf: &YamlNode, indent: usize) {
    match leaf {
        YamlNode::Verbatim(s) => out.push_str(s),
        YamlNode::Text(s) => return scalar_line(out, s, indent),
        YamlNode::Seq(_) => out.push_str("[]"),
        YamlNode::Map(_) => out.push_str("{}"),
    }
    out.push('\n');
}

fn scalar_line(out: &mut String, s: &str, indent: usize) {
    // A literal block brings its own line ends.
    if !scalar(out, s, indent, false) {
        out.push('\n');
    }
}

fn pad(out: &mut String, spaces: usize) {
    out.extend(std::iter::repeat_n(' ', spaces));
}

/// Prints a string in the style it needs; `true` when that was a literal block, which ends in a line break.
fn scalar(out: &mut String, s: &str, indent: usize, key: bool) -> bool {
    let a = Analysis::of(s);
    if s.contains('\n') {
        // Blank text would be lost in a block.
        if !key && a.block_allowed && s.len() >= 2 && !s.chars().all(char::is_whitespace) {
            literal(out, s, indent);
            return true;
        }
        double_quoted(out, s);
    } else if resolves_to_another_type(s) || looks_like_yaml_1_1(s) {
        double_quoted(out, s);
    } else if a.plain_allowed {
        out.push_str(s);
    } else if a.single_allowed {
        single_quoted(out, s, indent);
    } else {
        double_quoted(out, s);
    }
    false
}

/// What the characters of a string allow.
struct Analysis {
    plain_allowed: bool,
    single_allowed: bool,
    block_allowed: bool,
}

impl Analysis {
    fn of(s: &str) -> Self {
        let chars: Vec<char> = s.chars().collect();
        let mut indicators = s.starts_with("---") || s.starts_with("...");
        let (mut breaks, mut special, mut tabs, mut break_space, mut space_break) = (false, false, false, false, false);
        let mut before: Option<char> = None;
        for (i, &c) in chars.iter().enumerate() {
            let blank_follows = chars.get(i + 1).is_none_or(|n| matches!(n, ' ' | '\t'));
            let blank_before = before.is_none_or(|b| matches!(b, ' ' | '\t' | '\0') || is_break(b));
            indicators |= match c {
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => i == 0,
                '?' | '-' => i == 0 && blank_follows,
                ':' => blank_follows,
                '#' => blank_before,
                _ => false,
            };
            tabs |= c == '\t';
            special |= c != '\t' && !is_printable(c);
            breaks |= is_break(c);
            break_space |= c == ' ' && before.is_some_and(is_break);
            space_break |= is_break(c) && before == Some(' ');
            before = Some(c);
        }
        let edge = |c: Option<&char>| c.is_some_and(|c| *c == ' ' || is_break(*c));
        let single_allowed = !(break_space || space_break || tabs || special);
        Self {
            plain_allowed: single_allowed && !breaks && !indicators && !edge(chars.first()) && !edge(chars.last()),
            single_allowed,
            block_allowed: !(space_break || special || chars.last() == Some(&' ')),
        }
    }
}

/// Line breaks of YAML 1.1.
fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What may stand unescaped. Characters above U+FFFF are escaped by this family of printers.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
}

/// A literal block: header, then every line at `indent`, empty lines bare.
fn literal(out: &mut String, s: &str, indent: usize) {
    out.push('|');
    if s.starts_with(' ') {
        // The printer always names its indentation here, not the distance to the parent.
        let _ = write!(out, "{INDENT}");
    }
    let mut back = s.chars().rev();
    if !back.next().is_some_and(is_break) {
        out.push('-');
    } else if back.next().is_none_or(is_break) {
        out.push('+');
    }
    out.push('\n');
    let mut line_starts = true;
    for c in s.chars() {
        if is_break(c) {
            line_starts = true;
        } else if std::mem::take(&mut line_starts) {
            pad(out, indent);
        }
        out.push(c);
    }
    if !s.ends_with(is_break) {
        out.push('\n');
    }
}

fn single_quoted(out: &mut String, s: &str, indent: usize) {
    out.push('\'');
    let mut line_starts = false;
    for c in s.chars() {
        if is_break(c) {
            line_starts = true; // only U+2028 and U+2029 come here
        } else if std::mem::take(&mut line_starts) {
            pad(out, indent);
        }
        if c == '\'' {
            out.push('\'');
        }
        out.push(c);
    }
    out.push('\'');
}

fn double_quoted(out: &mut String, s: &str) {
    // A string that starts with a byte order mark is escaped throughout: an oddity of the original.
    let everything = s.starts_with('\u{feff}');
    out.push('"');
    for c in s.chars() {
        if !everything && is_printable(c) && !is_break(c) && c != '"' && c != '\\' {
            out.push(c);
            continue;
        }
        let _ = match c {
            '\0' => write!(out, "\\0"),
            '\x07' => write!(out, "\\a"),
            '\x08' => write!(out, "\\b"),
            '\t' => write!(out, "\\t"),
            '\n' => write!(out, "\\n"),
            '\x0b' => write!(out, "\\v"),
            '\x0c' => write!(out, "\\f"),
            '\r' => write!(out, "\\r"),
            '\x1b' => write!(out, "\\e"),
            '"' => write!(out, "\\\""),
            '\\' => write!(out, "\\\\"),
            '\u{85}' => write!(out, "\\N"),
            '\u{a0}' => write!(out, "\\_"),
            '\u{2028}' => write!(out, "\\L"),
            '\u{2029}' => write!(out, "\\P"),
            c if u32::from(c) <= 0xff => write!(out, "\\x{:02X}", u32::from(c)),
            c if u32::from(c) <= 0xffff => write!(out, "\\u{:04X}", u32::from(c)),
            c => write!(out, "\\U{:08X}", u32::from(c)),
        };
    }
    out.push('"');
}

/// Whether the plain text would be read back as null, a boolean, a number, a time stamp or a merge key.
pub(super) fn resolves_to_another_type(s: &str) -> bool {
    let words = [
        "", "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", ".nan", ".NaN", ".NAN",
        ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF", "<<",
    ];
    if words.contains(&s) {
        return true;
    }
    match s.bytes().next() {
        // Here underscores count only between two digits.
        Some(b'.') => {
            let bytes = s.as_bytes();
            let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
            let ok = (1..bytes.len()).all(|i| bytes[i] != b'_' || digit(i - 1) && digit(i + 1));
            ok && is_finite_float(&s.replace('_', ""))
        }
        Some(b'0'..=b'9' | b'+' | b'-') => {
            let plain = s.replace('_', "");
            is_timestamp(s) || parse_integer(&plain).is_some() || is_finite_float(&plain)
        }
        _ => false,
    }
}

/// An integer as Go reads it: sign, `0x`, `0b`, `0o` or a leading zero for octal, 64 bits. Underscores are gone
/// already.
fn parse_integer(s: &str) -> Option<i128> {
    let (negative, signed, digits) = match s.as_bytes().first()? {
        b'-' => (true, true, &s[1..]),
        b'+' => (false, true, &s[1..]),
        _ => (false, false, s),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -magnitude } else { magnitude };
    let greatest = if signed { i128::from(i64::MAX) } else { i128::from(u64::MAX) };
    (i128::from(i64::MIN)..=greatest).contains(&value).then_some(value)
}

/// `[-+]? ( .digits | digits [ . digits* ] ) ( [eE] [-+]? digits )?`, not too large for 64 bits.
fn is_finite_float(s: &str) -> bool {
    let body = s.strip_prefix(['-', '+']).unwrap_or(s);
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(i) => (&body[..i], Some(&body[i + 1..])),
        None => (body, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let shape = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|e| {
        let digits = e.strip_prefix(['-', '+']).unwrap_or(e);
        !digits.is_empty() && all_digits(digits)
    });
    shape && exponent_ok && s.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Values that YAML 1.1 takes for a boolean or a sexagesimal number; quoted for older readers.
fn looks_like_yaml_1_1(s: &str) -> bool {
    let booleans = ["y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF"];
    booleans.contains(&s) || is_sexagesimal(s)
}

/// `[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?`
fn is_sexagesimal(s: &str) -> bool {
    let body = s.strip_prefix(['-', '+']).unwrap_or(s);
    let (body, fraction) = body.split_once('.').unwrap_or((body, ""));
    let mut parts = body.split(':');
    let first = parts.next().unwrap_or_default();
    let mut groups = 0;
    for part in parts {
        groups += 1;
        if !matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']) {
            return false;
        }
    }
    groups > 0
        && first.starts_with(|c: char| c.is_ascii_digit())
        && [first, fraction].iter().all(|p| p.bytes().all(|b| b.is_ascii_digit() || b == b'_'))
}

/// A date, or a date and time, in one of the four forms that the library reads: short fields allowed, `T` or `t` with a
/// zone, or spaces without one.
fn is_timestamp(s: &str) -> bool {
    fn number(s: &mut &str, most: usize) -> Option<u32> {
        let digits = s.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let value = s.get(..digits)?.parse().ok()?;
        *s = &s[digits..];
        Some(value)
    }
    fn skip(s: &mut &str, c: char) -> Option<()> {
        *s = s.strip_prefix(c)?;
        Some(())
    }
    fn time(s: &mut &str) -> Option<()> {
        let hour = number(s, 2)?;
        skip(s, ':')?;
        let minute = number(s, 2)?;
        skip(s, ':')?;
        let second = number(s, 2)?;
        if let Some(rest) = s.strip_prefix(['.', ','])
            && rest.starts_with(|c: char| c.is_ascii_digit())
        {
            *s = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        (hour < 24 && minute < 60 && second < 60).then_some(())
    }
    fn zone(s: &str) -> bool {
        if s == "Z" {
            return true;
        }
        let b = s.as_bytes();
        let digits =
            |i: usize| b[i..i + 2].iter().all(u8::is_ascii_digit).then(|| (b[i] - b'0') * 10 + b[i + 1] - b'0');
        matches!(b, [b'+' | b'-', _, _, b':', _, _])
            && digits(1).is_some_and(|h| h <= 24)
            && digits(4).is_some_and(|m| m < 60)
    }
    let parse = || -> Option<bool> {
        let mut rest = s;
        let year = number(&mut rest, 4)?;
        if s.len() - rest.len() != 4 {
            return None;
        }
        skip(&mut rest, '-')?;
        let month = number(&mut rest, 2)?;
        skip(&mut rest, '-')?;
        let day = number(&mut rest, 2)?;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            4 | 6 | 9 | 11 => 30,
            2 => 28 + u32::from(leap),
            1..=12 => 31,
            _ => return None,
        };
        if !(1..=days).contains(&day) {
            return None;
        }
        if rest.is_empty() {
            return Some(true);
        }
        if let Some(r) = rest.strip_prefix(['T', 't']) {
            rest = r;
            time(&mut rest)?;
            return Some(zone(rest));
        }
        skip(&mut rest, ' ')?;
        rest = rest.trim_start_matches(' ');
        time(&mut rest)?;
        Some(rest.is_empty())
    };
    parse().unwrap_or(false)
}

/// A finite float as Go prints it (`%g`, shortest): an exponent when it is below -4 or above 5, with at least two
/// digits.
pub(super) fn float(value: f64) -> String {
    // Rust's shortest digits are Go's: both print the fewest that read back the same.
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    format!("{value}")
}

/// Sorts map entries as the factory does: digits by value, letters after other characters.
///
/// An insertion sort, because the original's order is not quite transitive, which the standard sorts may punish with a
/// panic. The caller bounds the number of entries.
pub(super) fn sort_by_key<T>(entries: &mut [(String, T)]) {
    for i in 1..entries.len() {
        let mut j = i;
        while j > 0 && key_less(&entries[j].0, &entries[j - 1].0) {
            entries.swap(j, j - 1);
            j -= 1;
        }
    }
}

fn key_less(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut after_digit = false;
    for (i, (&x, &y)) in a.iter().zip(&b).enumerate() {
        if x == y {
            after_digit = is_digit(x);
            continue;
        }
        let (x_letter, y_letter) = (x.is_alphabetic(), y.is_alphabetic());
        if x_letter && y_letter {
            return x < y;
        }
        if x_letter || y_letter {
            // Inside a number a letter ends it, so it comes first; elsewhere other characters come first.
            return if after_digit { x_letter } else { y_letter };
        }
        // A zero that is not a leading one counts: 10 is more than 1.
        let significant =
            (x == '0' || y == '0') && a[..i].iter().rev().take_while(|c| is_digit(**c)).any(|c| *c != '0');
        let run = |s: &[char]| {
            let digits = s[i..].iter().take_while(|c| is_digit(**c));
            digits.fold((0usize, i64::from(significant)), |(n, value), c| {
                (n + 1, value.wrapping_mul(10).wrapping_add(i64::from(u32::from(*c)) - i64::from(u32::from('0'))))
            })
        };
        let ((x_digits, x_value), (y_digits, y_value)) = (run(&a), run(&b));
        if x_value != y_value {
            return x_value < y_value;
        }
        if x_digits != y_digits {
            return x_digits < y_digits;
        }
        return x < y;
    }
    a.len() < b.len()
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

#[cfg(test)]
mod tests;
