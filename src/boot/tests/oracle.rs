//! systemd-boot's own functions as the judge, on drawn texts: version order, patterns, lines, UTF-8. `fetch-sources.sh`
//! in `tests/corpus` builds them, a program for each version of systemd that Debian's suites serve.

use super::super::{glob, text, verscmp};
use super::*;
use crate::testkit::crash::Random;
use std::cmp::Ordering;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Of each kind of question, for each version.
const DRAWN: usize = 30_000;

/// A question to the program: see `tests/corpus/oracle/driver.c`.
struct Question {
    kind: char,
    a: Vec<u8>,
    b: Vec<u8>,
}

#[test]
fn issue17_systemds_own_functions_answer_the_same() {
    let Some(corpora) = std::env::var_os("BOOTSURGEON_CORPORA") else {
        return crate::testkit::skipped::not_asked(
            "BOOTSURGEON_CORPORA names no folder; make one with tests/corpus/fetch-sources.sh DIR",
        );
    };
    let oracles = Path::new(&corpora).join("systemd/oracle");
    let mut versions = 0;
    for folder in std::fs::read_dir(&oracles).unwrap_or_else(|e| panic!("{}: {e}", oracles.display())) {
        let folder = folder.unwrap().path();
        let loader = v(folder.file_name().unwrap().to_str().unwrap());
        let random = &mut Random::new(versions);
        let questions: Vec<Question> =
            ['V', 'G', 'D', 'A', 'W'].iter().flat_map(|kind| [*kind; DRAWN]).map(|kind| draw(kind, random)).collect();
        let answers = ask(&folder.join("oracle"), &questions);
        assert_eq!(answers.len(), questions.len());
        for (Question { kind, a, b }, theirs) in questions.iter().zip(answers) {
            let (hint_a, hint_b) = (String::from_utf8_lossy(a), String::from_utf8_lossy(b));
            let ours = ours(*kind, a, b, &loader);
            assert!(
                ours == theirs,
                "{loader:?}: {kind} {hint_a:?} {hint_b:?} ({a:?}): {ours:?}, and theirs: {theirs:?}"
            );
        }
        println!("{}: {} questions", folder.display(), questions.len());
        versions += 1;
    }
    assert!(versions >= 2, "{}: {versions} versions", oracles.display());
}

/// The answer of this crate.
fn ours(kind: char, a: &[u8], b: &[u8], loader: &LoaderVersion) -> Vec<u8> {
    let pairs = |lines: text::Lines<'_>| {
        lines.flat_map(|(key, value)| [key, value]).flat_map(|part| [part, &[0]].concat()).collect()
    };
    match kind {
        'V' => match verscmp::compare(&text::decode(a), &text::decode(b)) {
            Ordering::Less => b"<".to_vec(),
            Ordering::Equal => b"=".to_vec(),
            Ordering::Greater => b">".to_vec(),
        },
        'G' => vec![b'0' + u8::from(glob::matches(&text::decode(a), &text::decode(b)))],
        'D' => text::decode(a).encode_utf16().flat_map(u16::to_le_bytes).collect(),
        'A' => pairs(text::Lines::assignments(a, loader)),
        _ => pairs(text::Lines::words(a, loader)),
    }
}

/// The program's answers. Surrogates by themselves are left out: no text of this crate can hold one, and none matters.
fn ask(oracle: &Path, questions: &[Question]) -> Vec<Vec<u8>> {
    let mut asked = tempfile::NamedTempFile::new().unwrap();
    let mut all = Vec::new();
    for question in questions {
        all.push(question.kind as u8);
        for text in [&question.a, &question.b] {
            all.extend((text.len() as u32).to_le_bytes());
            all.extend(text);
        }
    }
    asked.write_all(&all).unwrap();
    let input = File::open(asked.path()).unwrap();
    let output = Command::new(oracle).stdin(input).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{}: {}", oracle.display(), output.status);
    let mut rest = &output.stdout[..];
    questions
        .iter()
        .map(|question| {
            let (length, text) = rest.split_first_chunk::<4>().unwrap();
            let (text, then) = text.split_at(u32::from_le_bytes(*length) as usize);
            rest = then;
            match question.kind {
                'D' => {
                    let is_text = |unit: &&[u8; 2]| !(0xD800..=0xDFFF).contains(&u16::from_le_bytes(**unit));
                    text.as_chunks::<2>().0.iter().filter(is_text).flatten().copied().collect()
                }
                _ => text.to_vec(),
            }
        })
        .collect()
}

fn draw(kind: char, random: &mut Random) -> Question {
    let (alphabet, longest): (&[&str], usize) = match kind {
        'V' => (&["~", "-", "^", ".", "0", "00", "1", "9", "10", "a", "z", "A", "Z", "_", " ", "é", "rc"], 8),
        'G' => (&["*", "?", "[", "]", "-", "\\", "a", "b", "c", "A", ".", "é", "[a-c]", "[]-]", "[!a]"], 8),
        'D' => (&[], 12),
        _ => (
            &[
                "=", "\"", "'", " ", "\t", "\n", "\r", "\r\n", "#", "key", "v", "\\", "\"x y\"", "é", "=\"", "'\n",
                "\u{b}",
            ],
            24,
        ),
    };
    let word = |random: &mut Random| -> Vec<u8> {
        let length = random.below(longest + 1);
        if kind == 'D' {
            let byte = |random: &mut Random| match random.below(4) {
                0 => b'a' + random.below(26) as u8,
                1 => 0x80 | random.below(64) as u8,
                2 => random.pick(&[0xC3, 0xC0, 0xE2, 0xE0, 0xED, 0xF0, 0xF8, 0xFC, 0xFE, 0xFF]),
                _ => 1 + random.below(255) as u8,
            };
            return std::iter::repeat_with(|| byte(random)).take(length).collect();
        }
        let parts = std::iter::repeat_with(|| random.pick(alphabet)).take(length);
        parts.collect::<String>().into_bytes()
    };
    let a = word(random);
    let b = match kind {
        // What nearly is the same tells more than what is not.
        'V' if random.chance(60) => {
            let mut b = String::from_utf8(a.clone()).unwrap();
            let at = (0..=b.len()).filter(|at| b.is_char_boundary(*at)).collect::<Vec<_>>();
            b.insert_str(random.pick(&at), random.pick(alphabet));
            b.into_bytes()
        }
        'G' => {
            let plain = ["a", "b", "c", "A", ".", "-", "]", "\\", "é", "d"];
            let length = random.below(longest + 1);
            std::iter::repeat_with(|| random.pick(&plain)).take(length).collect::<String>().into_bytes()
        }
        'V' => word(random),
        _ => Vec::new(),
    };
    Question { kind, a, b }
}
