//! The one place that decides what a terminal may be given, and a shell.
//!
//! Names on a damaged or hostile disk, texts inside an image, variables of the firmware and answers of servers are
//! other people's. A control character in them could move the cursor, hide text or change its colours; a line end could
//! make a line that looks like one of this program's; a bidirectional control could make one name look like another
//! (CVE-2021-42574); what has no width cannot be seen at all. All of these are written as `\u{202e}`.

use std::borrow::Cow;

/// Text from outside on one line, with every character that acts, or cannot be seen, made visible.
#[must_use]
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Whether a terminal acts upon the character, or shows nothing of it: controls (Unicode's category Cc), format
/// characters (Cf), line and paragraph separators (Zl, Zp), and what else is "default ignorable" or blank without being
/// a space.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}'
            | '\u{8e2}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A word as a POSIX shell takes it: as it is when it is harmless, else in single quotes.
#[must_use]
pub fn quoted(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "._-~/+:@%=,".contains(c);
    if !word.is_empty() && word.chars().all(harmless) && !word.starts_with(['~', '-', '=']) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Words as a shell takes them. The dashes of an option need no quotes.
pub(crate) fn shell_line<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> String {
    let word = |word: &str| {
        let name = word.trim_start_matches('-');
        match &word[..word.len() - name.len()] {
            "" => quoted(name),
            dashes if name.is_empty() => dashes.to_owned(),
            dashes => format!("{dashes}{}", quoted(name)),
        }
    };
    words.into_iter().map(|own| word(own.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_or_hides_is_made_visible_and_the_rest_stays() {
        for (text, shown) in [
            ("Talos-v1.12.4~1.efi", "Talos-v1.12.4~1.efi"),
            ("Größe 名前 имя", "Größe 名前 имя"),
            ("a\nerror: b\r\t", r"a\u{a}error: b\u{d}\u{9}"),
            ("\x1b[8mhidden\x1b[0m", r"\u{1b}[8mhidden\u{1b}[0m"),
            ("\u{9b}2J\u{7f}", r"\u{9b}2J\u{7f}"),
            ("a\u{202e}b\u{2066}c\u{2069}\u{61c}", r"a\u{202e}b\u{2066}c\u{2069}\u{61c}"),
            ("a\u{200b}\u{feff}\u{ad}\u{2028}b", r"a\u{200b}\u{feff}\u{ad}\u{2028}b"),
            ("\u{e0041}\u{fe0f}\u{3164}", r"\u{e0041}\u{fe0f}\u{3164}"),
        ] {
            assert_eq!(harmless(text), shown, "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_is_shown_the_same_again() {
        for c in (0..0x11_0000).filter_map(char::from_u32) {
            let once = harmless(c.encode_utf8(&mut [0; 4])).into_owned();
            assert_eq!(harmless(&once), once);
        }
    }
}
