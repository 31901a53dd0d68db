use super::*;

/// Expected texts follow from the rules of the factory's YAML library: what a plain scalar would be read back as
/// decides between plain and double quotes; indicators and blanks at the edges between plain and single quotes;
/// characters that need an escape force double quotes.
#[test]
fn scalars_get_the_quotes_that_the_factory_gives_them() {
    let plain = [
        "console=tty0",
        "-talos.halt_if_installed",
        "tRue",
        "=",
        "0x",
        ".5_",
        "1e999",
        "1.2.3",
        "12:75",
        "2024-02-30",
        "a:b",
        "a#b",
        "?x",
        ":x",
        "a, b",
        "it's",
        "a\\b",
        "é",
        "v1.12.4",
    ];
    // Each of these would be read back as null, a boolean, a number, a time stamp or a merge key by YAML 1.1 or 1.2.
    let double = [
        "",
        "~",
        "true",
        "no",
        "<<",
        "0x1f",
        "0o17",
        "017",
        "08",
        "1_000",
        "18446744073709551616",
        "1e3",
        ".5",
        ".5_1",
        "-.inf",
        "12:30:45",
        "2024-01-02",
        "2024-1-2T3:4:5Z",
    ];
    let single = [" lead", "trail ", "a: b", "a:", "a #b", "- x", "-", "? x", "---", "@a", "`a", "%a", "[a", "\"q"];
    let escaped = [
        ("tab\there", r#""tab\there""#),
        ("bell\x07", r#""bell\a""#),
        ("\u{1}", r#""\x01""#),
        ("cr\r", r#""cr\r""#),
        ("\u{85}", r#""\N""#),
        ("\u{1f600}", r#""\U0001F600""#),
        ("\u{feff}a", r#""\uFEFF\x61""#),
        ("\n", r#""\n""#),
        ("\n\n", r#""\n\n""#),
        ("a \nb", r#""a \nb""#), // a blank before a break cannot be seen in a block
        ("'q", "'''q'"),
    ];
    let table = (plain.iter().map(|s| (*s, (*s).to_owned())))
        .chain(double.iter().map(|s| (*s, format!("\"{s}\""))))
        .chain(single.iter().map(|s| (*s, format!("'{s}'"))))
        .chain(escaped.iter().map(|(s, e)| (*s, (*e).to_owned())));
    for (value, expected) in table {
        let mut out = String::new();
        scalar(&mut out, value, 4, false);
        assert_eq!(out, expected, "{value:?}");
    }
}

#[test]
fn blocks_keep_their_line_ends_and_name_their_indentation() {
    let table = [
        ("a\nb", "|-\n    a\n    b\n"),
        ("a\nb\n", "|\n    a\n    b\n"),
        ("a\n\nb\n\n", "|+\n    a\n\n    b\n\n"),
        (" a\nb\n", "|4\n     a\n    b\n"),
        ("a:\n\tb\n", "|\n    a:\n    \tb\n"),
    ];
    for (value, expected) in table {
        let mut out = String::new();
        assert!(scalar(&mut out, value, 4, false));
        assert_eq!(out, expected, "{value:?}");
    }
}

#[test]
fn nested_collections_are_indented_as_the_factory_does() {
    let text = |s: &str| YamlNode::Text(s.into());
    let inner =
        YamlNode::Map(vec![("k".into(), YamlNode::Seq(vec![text("v"), YamlNode::Seq(vec![]), YamlNode::Map(vec![])]))]);
    let root = [
        ("a".to_owned(), YamlNode::Seq(vec![inner, YamlNode::Seq(vec![text("x"), text("y\nz")])])),
        ("no".to_owned(), YamlNode::Map(vec![])),
    ];
    let expected = r#"a:
    - k:
        - v
        - []
        - {}
    - - x
      - |-
        y
        z
"no": {}
"#;
    assert_eq!(print(&root), expected);
}

#[test]
fn keys_are_sorted_by_number_and_letters_come_last() {
    let expected = ["1x", "10x", "A", "a", "a_b", "a1", "a1b", "a01", "a9", "a09", "a10", "a100", "ab", "b", "é"];
    let mut entries: Vec<_> = expected.iter().rev().map(|k| ((*k).to_owned(), ())).collect();
    sort_by_key(&mut entries);
    assert!(entries.iter().map(|(k, ())| k).eq(expected));
}

#[test]
fn floats_are_printed_as_go_does() {
    let table = [
        (1.0, "1"),
        (1.5, "1.5"),
        (100_000.0, "100000"),
        (1e6, "1e+06"),
        (1_234_567.0, "1.234567e+06"),
        (1e-4, "0.0001"),
        (1e-5, "1e-05"),
        (-0.5, "-0.5"),
        (1e100, "1e+100"),
    ];
    for (value, expected) in table {
        assert_eq!(float(value), expected);
    }
}
