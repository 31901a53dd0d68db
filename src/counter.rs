//! Boot counters in file names: `+LEFT[-DONE]` before the suffix (UAPI.1, "Boot counting").
//!
//! systemd-boot renames the file at every start, so everything that knows a file by its name has to look past the
//! counter: the menu, the directory of addons beside an image, the record of an operation that a start may come
//! between.

/// The highest number that systemd takes, `INT_MAX`.
const MAX: u32 = i32::MAX as u32;

/// The boot counter of a file (`boot_entry_parse_tries`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counter {
    /// Tries left.
    pub left: u32,
    /// Tries done.
    pub done: u32,
    /// The name without counter, its suffix in lower case.
    pub id: String,
    /// The name that the file gets at a start.
    pub next_name: String,
}

impl Counter {
    /// The counter in a file's name, if it has one; `suffix` is `.efi` or `.conf`.
    #[must_use]
    pub fn parse(name: &str, suffix: &str) -> Option<Self> {
        let (prefix, left, done, rest) = split(name)?;
        if !rest.eq_ignore_ascii_case(suffix) {
            return None;
        }
        let next_name = format!("{prefix}+{}-{}{suffix}", left.saturating_sub(1), done.saturating_add(1).min(MAX));
        Some(Self { left, done, id: format!("{prefix}{suffix}"), next_name })
    }
}

/// The name of a UKI without its counter, if it has one.
#[must_use]
pub fn without_counter(name: &str) -> Option<String> {
    Counter::parse(name, ".efi").map(|counter| counter.id)
}

/// The parts of a name with a counter: what stands before it, tries left, tries done, what stands behind it.
fn split(name: &str) -> Option<(&str, u32, u32, &str)> {
    let digits = |text| str::split_at(text, text.bytes().take_while(u8::is_ascii_digit).count());
    // No digits at all are no number.
    let number = |digits: &str| digits.parse().ok().filter(|n| *n <= MAX);

    let (prefix, rest) = name.rsplit_once('+')?;
    let (left, rest) = digits(rest);
    let left = number(left)?;
    match rest.strip_prefix('-') {
        None => Some((prefix, left, 0, rest)),
        Some(rest) => {
            let (done, rest) = digits(rest);
            Some((prefix, left, number(done)?, rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_no_part_of_the_name() {
        for name in ["linux+3.efi", "linux+3-1.efi", "linux+0.EFI", "linux+2147483647-2147483647.efi"] {
            assert_eq!(without_counter(name).as_deref(), Some("linux.efi"), "{name}");
        }
        assert_eq!(without_counter("a+b+1.efi").as_deref(), Some("a+b.efi"));
        for name in [
            "linux",
            "linux.efi",
            "linux+.efi",
            "linux+x.efi",
            "linux+1-.efi",
            "linux+1-1-1.efi",
            "linux+1.conf",
            "linux+1.efi.bak.1771000000",
            "linux+2147483648.efi",
            "linux+99999999999999999999.efi",
        ] {
            assert_eq!(without_counter(name), None, "{name}");
        }
    }
}
