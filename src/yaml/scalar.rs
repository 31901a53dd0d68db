//! What a scalar means where a number or a boolean is expected: YAML 1.2's core schema, and of YAML 1.1 what Go's
//! readers still take, octal numbers with a leading zero and underscores.

/// A boolean of YAML 1.2.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match trim(text) {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// A boolean of YAML 1.1, in whatever case.
pub(crate) fn loose_boolean(text: &str) -> Option<bool> {
    let is = |words: [&str; 4]| words.iter().any(|word| trim(text).eq_ignore_ascii_case(word));
    if is(["true", "yes", "y", "on"]) {
        return Some(true);
    }
    is(["false", "no", "n", "off"]).then_some(false)
}

/// A whole number: `0x`, `0o`, `0b`, a leading zero for octal, underscores between digits. Without a sign of `-`.
pub(crate) fn unsigned(text: &str) -> Option<u64> {
    let text = trim(text);
    magnitude(text.strip_prefix('+').unwrap_or(text)).and_then(|value| value.try_into().ok())
}

/// The same with a sign of `-`, or without.
pub(crate) fn signed(text: &str) -> Option<i64> {
    let text = trim(text);
    match text.strip_prefix('-') {
        Some(rest) => magnitude(rest).and_then(|value| i64::try_from(-value).ok()),
        None => magnitude(text.strip_prefix('+').unwrap_or(text)).and_then(|value| value.try_into().ok()),
    }
}

/// A number that is not whole, or too large to be; infinite, or none, where it says so or exceeds 64 bits.
pub(crate) fn float(text: &str) -> Option<f64> {
    let text = trim(text);
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    match unsigned {
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        ".inf" | ".Inf" | ".INF" if negative => return Some(f64::NEG_INFINITY),
        ".inf" | ".Inf" | ".INF" => return Some(f64::INFINITY),
        _ => {}
    }
    // Rust's own names for what is not finite (`inf`, `nan`) are text in YAML.
    text.parse::<f64>().ok().filter(|value| value.is_finite() || unsigned.starts_with(|c: char| c.is_ascii_digit()))
}

fn magnitude(text: &str) -> Option<i128> {
    let prefixed = |prefixes: [&str; 2]| prefixes.iter().find_map(|prefix| text.strip_prefix(prefix));
    let (radix, digits) = if let Some(digits) = prefixed(["0x", "0X"]) {
        (16, digits)
    } else if let Some(digits) = prefixed(["0o", "0O"]) {
        (8, digits)
    } else if let Some(digits) = prefixed(["0b", "0B"]) {
        (2, digits)
    } else {
        match text.strip_prefix('0') {
            Some(digits) if !digits.is_empty() => (8, digits),
            _ => return whole(text, 10),
        }
    };
    whole(digits.strip_prefix('_').unwrap_or(digits), radix)
}

fn whole(digits: &str, radix: u32) -> Option<i128> {
    if digits.is_empty() || digits.starts_with('_') || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    digits
        .chars()
        .filter(|c| *c != '_')
        .try_fold(0_i128, |value, c| value.checked_mul(radix.into())?.checked_add(c.to_digit(radix)?.into()))
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\n'])
}
