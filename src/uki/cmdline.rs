//! Facts about kernel command lines: what the kernel and what Talos read out of them.
//!
//! The two split differently. The kernel (`next_arg` in `lib/cmdline.c`) honours double quotes; Talos splits
//! `/proc/cmdline` at white space and knows no quotes. [`parameters`] is the kernel's view, for showing and comparing;
//! the questions about Talos' own flags are answered with Talos' rule, because Talos is who acts on them.

/// Talos loops for up to 70 minutes before it loads its configuration when this is set on an installed machine.
pub const HALT_IF_INSTALLED: &str = "talos.halt_if_installed";
/// Talos wipes the system disk, or the partitions listed, when this is set.
pub const WIPE: &str = "talos.experimental.wipe";

/// One parameter as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// What stands before the first `=`, or the whole word.
    pub name: String,
    /// What stands after it, without the quotes around it.
    pub value: Option<String>,
}

/// Splits a command line as the kernel does: at white space outside double quotes.
#[must_use]
pub fn parameters(cmdline: &str) -> Vec<Parameter> {
    let mut found = Vec::new();
    let mut rest = cmdline.trim_start_matches(is_space);
    while !rest.is_empty() {
        let mut in_quotes = false;
        let end = rest
            .find(|c: char| {
                in_quotes ^= c == '"';
                is_space(c) && !in_quotes
            })
            .unwrap_or(rest.len());
        found.push(parameter(&rest[..end]));
        rest = rest[end..].trim_start_matches(is_space);
    }
    found
}

/// One word: `name`, `name=value`, `name="value"` or `"name=value"`.
fn parameter(word: &str) -> Parameter {
    let word = match word.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => word,
    };
    let Some((name, value)) = word.split_once('=') else {
        return Parameter { name: word.to_owned(), value: None };
    };
    let value = match value.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => value,
    };
    Parameter { name: name.to_owned(), value: Some(value.to_owned()) }
}

/// The kernel's `isspace` for ASCII.
fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

/// The values that Talos finds for `name`, in order; a bare word has the value "".
pub fn talos_values<'a>(cmdline: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    cmdline.split_whitespace().filter_map(move |word| {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        (key == name).then_some(value)
    })
}

/// Whether Talos, booted with this command line on an installed machine, halts instead of starting: the first value of
/// [`HALT_IF_INSTALLED`] is a Go boolean that is true. A bare `talos.halt_if_installed` is none.
#[must_use]
pub fn halt_if_installed(cmdline: &str) -> bool {
    talos_values(cmdline, HALT_IF_INSTALLED)
        .next()
        .is_some_and(|value| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// What Talos wipes when booted with this command line: `system` (the whole system disk) or
/// `system:EPHEMERAL,STATE` (those partitions).
#[must_use]
pub fn wipes(cmdline: &str) -> Option<&str> {
    talos_values(cmdline, WIPE).next().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_a_parameter_together() {
        let p = |name: &str, value: Option<&str>| Parameter { name: name.into(), value: value.map(Into::into) };
        for (line, expected) in [
            ("", vec![]),
            ("  \t\n", vec![]),
            (
                "quiet console=ttyS0,115200 a=b=c",
                vec![p("quiet", None), p("console", Some("ttyS0,115200")), p("a", Some("b=c"))],
            ),
            (
                r#"dyndbg="file a.c +p" "x=1 2" last"#,
                vec![p("dyndbg", Some("file a.c +p")), p("x", Some("1 2")), p("last", None)],
            ),
            (r#"open="to the end"#, vec![p("open", Some("to the end"))]),
            (r#"empty= e="" ""#, vec![p("empty", Some("")), p("e", Some("")), p("", None)]),
        ] {
            assert_eq!(parameters(line), expected, "{line}");
        }
    }

    #[test]
    fn the_halt_flag_counts_when_talos_says_so() {
        for (line, halts) in [
            ("talos.platform=metal talos.halt_if_installed=1", true),
            ("talos.halt_if_installed=true", true),
            ("talos.halt_if_installed=0 talos.halt_if_installed=1", false),
            ("talos.halt_if_installed", false),
            ("talos.halt_if_installed=yes", false),
            ("-talos.halt_if_installed=1", false),
            ("note=talos.halt_if_installed=1", false),
            ("", false),
        ] {
            assert_eq!(halt_if_installed(line), halts, "{line}");
        }
    }

    #[test]
    fn wiping_is_seen_with_its_targets() {
        assert_eq!(wipes("a talos.experimental.wipe=system:EPHEMERAL,STATE b"), Some("system:EPHEMERAL,STATE"));
        assert_eq!(wipes("talos.experimental.wipe=system"), Some("system"));
        assert_eq!(wipes("talos.experimental.wipe="), None);
        assert_eq!(wipes("talos.platform=metal"), None);
    }
}
