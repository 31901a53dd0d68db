use super::*;
use crate::testkit::crash::Random;
use serde_json::{Map, Number, Value as Json};

const LIMITS: Limits = Limits { documents: 3, nodes: 1000, text: 10_000, depth: 20, aliases: 10 };

fn one(text: &str) -> Node<'_> {
    documents(text, &LIMITS).unwrap().remove(0)
}

#[test]
fn nodes_know_their_place_tag_and_quotes() {
    let document = one("a: 1\nb:\n  - 'x'\n  - !!str 5\n  - ~\n");
    let fields = document.fields(Merge::Refuse).unwrap();
    let list = fields.need("b").unwrap().list().unwrap();
    assert_eq!((list[0].at, list[0].text().unwrap()), (Place { line: 3, column: 5 }, "x"));
    assert!(matches!(list[0].value, Value::Scalar { plain: false, .. }));
    assert_eq!((list[1].tag, list[1].text().unwrap()), (Tag::Text, "5"));
    assert!(list[2].is_null() && list[2].text().is_err());
    assert_eq!(fields.find("a").unwrap().text().unwrap(), "1");
    assert_eq!(fields.need("c").unwrap_err().to_string(), "line 1, column 1: c is missing");
    let unknown = document.fields(Merge::Refuse).unwrap().only(&["a"]).unwrap_err();
    assert_eq!(unknown.to_string(), "line 2, column 1: unknown field `b`, expected one of `a`");
}

#[test]
fn merge_keys_bring_what_is_not_there() {
    let document = one("x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  <<: [*x, *y]\n  a: 0\n");
    let z = document.fields(Merge::Refuse).unwrap().need("z").unwrap();
    let merged: Vec<_> =
        z.fields(Merge::Apply).unwrap().iter().map(|f| format!("{}{}", f.name, f.value.text().unwrap())).collect();
    assert_eq!(merged, ["a0", "b1", "c2"]);
    assert_eq!(z.fields(Merge::Refuse).unwrap_err().at, Place { line: 4, column: 3 });
    let twice = one("a: 1\nb: 2\na: 3\n");
    assert_eq!(twice.fields(Merge::Apply).unwrap_err().to_string(), "line 3, column 1: the field `a` is there twice");
}

#[test]
fn a_document_gets_what_it_may_ask_for_and_no_more() {
    let bomb: String =
        (1..12).fold("a0: &a0 [x,x]\n".into(), |s, i| s + &format!("a{i}: &a{i} [*a{0},*a{0}]\n", i - 1));
    let few = Limits { aliases: 1000, ..LIMITS };
    for (text, limits, what) in [
        (bomb.as_str(), &LIMITS, "10 anchors"),
        (&bomb, &few, "1000 values"),
        (&format!("a: {}", "x".repeat(10_001)), &LIMITS, "10000 bytes"),
        (&("[".repeat(21) + &"]".repeat(21)), &LIMITS, "20 deep"),
        (&"- ".repeat(100_000), &LIMITS, "20 deep"),
        ("--- a\n--- b\n--- c\n--- d\n", &LIMITS, "that many documents"),
        ("a: &a 1", &Limits { aliases: 0, ..LIMITS }, "no place here"),
        ("&a [*a]", &LIMITS, "stands in"),
        ("[!!map x]", &LIMITS, "another kind"),
        ("a: [", &LIMITS, "line "),
        ("a: b\n\tc", &LIMITS, "line "),
    ] {
        let e = documents(text, limits).unwrap_err().to_string();
        assert!(e.contains(what), "{e}");
    }
    assert_eq!(documents("--- a\n--- b\n", &LIMITS).unwrap().len(), 2);
    assert_eq!(documents("# nothing\n", &LIMITS).unwrap(), []);
}

/// Drawn documents, read by serde-saphyr too.
#[test]
fn another_reader_agrees_on_drawn_documents() {
    let mut random = Random::new(20);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut text = String::new();
        draw(&mut random, &mut text, 0);
        let options = serde_saphyr::options! {
            legacy_octal_numbers: true,
            strict_booleans: true,
            with_snippet: false,
        };
        let theirs: Result<Json, _> = serde_saphyr::from_str_with_options(&text, options);
        let limits = Limits { documents: 1, ..LIMITS };
        let ours = documents(&text, &limits).ok().and_then(|mut all| json(&all.pop()?));
        match (theirs, ours) {
            (Ok(theirs), Some(ours)) => {
                assert_eq!(theirs, ours, "{text}");
                read += 1;
            }
            (Err(_), None) => refused += 1,
            (theirs, ours) => panic!("{text}\nserde-saphyr: {theirs:?}\nhere: {ours:?}"),
        }
    }
    assert!(read > 5_000 && refused > 1_000, "{read} {refused}");
}

const SCALARS: [&str; 48] = [
    "a",
    "b c",
    "~",
    "null",
    "true",
    "False",
    "yes",
    "0",
    "-0",
    "+5",
    "007",
    "08",
    "0x1F",
    "0o17",
    "0b11",
    "1_000",
    "1__0",
    "_1",
    "0x_10",
    "18446744073709551616",
    "-9223372036854775809",
    "1.5",
    "-.5",
    "1e3",
    "1.",
    ".",
    "+.inf",
    "inf",
    "nan",
    "'x'",
    "'it''s'",
    "\"a\\tb\"",
    "\"~\"",
    "''",
    "2024-01-02",
    "12:30",
    "a:b",
    "a#b",
    "- x",
    "x: y",
    "!!str 5",
    "!!str",
    "! 5",
    "é",
    "\"\\u00e9\"",
    "<<",
    "=",
    "1_0.5",
];

/// Block and flow collections of scalars of every kind, now and then with an anchor, and some that are no YAML.
fn draw(random: &mut Random, text: &mut String, depth: usize) {
    let entries = 1 + random.below(3);
    let pad = "  ".repeat(depth);
    let list = random.below(2) == 0;
    for i in 0..entries {
        let key = if random.below(40) == 0 { SCALARS[random.below(48)].to_owned() } else { format!("k{i}") };
        let lead = if list { "-".to_owned() } else { format!("{key}:") };
        text.push_str(&format!("{pad}{lead}"));
        match random.below(10) {
            0..3 if depth < 4 => {
                text.push('\n');
                draw(random, text, depth + 1);
            }
            3 => text.push_str(&format!(" [{}, {{q: {}}}]\n", SCALARS[random.below(48)], SCALARS[random.below(48)])),
            4 => text.push_str(&format!(" |\n{pad}    some: text\n\n{pad}    more\n")),
            5 => text.push_str(&format!(" >-\n{pad}    some\n{pad}    text\n")),
            6 => text.push_str([" &a x\n", " *a\n", "\n"][random.below(3)]),
            _ => text.push_str(&format!(" {}\n", SCALARS[random.below(48)])),
        }
    }
}

fn json(node: &Node<'_>) -> Option<Json> {
    if node.is_null() {
        return Some(Json::Null);
    }
    Some(match &node.value {
        Value::Scalar { text, plain, .. } if *plain && node.tag == Tag::None => {
            if let Some(value) = scalar::boolean(text) {
                return Some(value.into());
            }
            let whole = if text.starts_with('-') {
                scalar::signed(text).map(Number::from)
            } else {
                scalar::unsigned(text).map(Number::from)
            };
            match (whole, scalar::float(text)) {
                (Some(whole), _) => Json::Number(whole),
                (None, Some(float)) => Json::Number(Number::from_f64(float)?),
                (None, None) => Json::String(text.clone().into_owned()),
            }
        }
        Value::Scalar { .. } => Json::String(node.text().ok()?.to_owned()),
        Value::List(items) => Json::Array(items.iter().map(json).collect::<Option<_>>()?),
        Value::Map(_) => {
            let fields = node.fields(Merge::Apply).ok()?;
            Json::Object(
                fields.iter().map(|f| Some((f.name.to_owned(), json(f.value)?))).collect::<Option<Map<_, _>>>()?,
            )
        }
    })
}
