//! Test files of other projects: xz's, zstd's and libarchive's own, and systemd's tests of version order and of
//! patterns.
//!
//! `tests/corpus/fetch-sources.sh DIR` fetches them and writes down what the tools make of them;
//! `BOOTSURGEON_CORPORA=DIR` names the folder. Wherever the verdict here is another one than the tool's, it stands in
//! one of the lists below, with the reason; a line there that is not needed is a failure as well.

use bootsurgeon::block::{FileSource, ReadAt, fan_out, read_vec};
use bootsurgeon::boot::{glob, verscmp};
use bootsurgeon::iso::{Iso, IsoEntry};
use bootsurgeon::packed::{self, Watch};
use bootsurgeon::uki::Sha256Sink;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Packed files on which the verdict is another one than that of `xz -t` and `zstd -t`.
const OTHERWISE_PACKED: &[(&str, &str)] = &[
    ("xz/good-1-v0-trailing-1.lz", LZIP),
    ("xz/good-1-v0.lz", LZIP),
    ("xz/good-1-v1-trailing-1.lz", LZIP),
    ("xz/good-1-v1-trailing-2.lz", LZIP),
    ("xz/good-1-v1.lz", LZIP),
    ("xz/good-2-v0-v1.lz", LZIP),
    ("xz/good-2-v1-v0.lz", LZIP),
    ("xz/good-2-v1-v1.lz", LZIP),
    ("xz/good-known_size-with_eopm.lzma", LZMA),
    ("xz/good-known_size-without_eopm.lzma", LZMA),
    ("xz/good-unknown_size-with_eopm.lzma", LZMA),
    // The same bytes come out of both.
    ("xz/unsupported-check.xz", "xz unpacks it as well; that it cannot check it is a warning and an exit code of 2"),
];
const LZIP: &str = "lzip is not unpacked here, and the error says so";
const LZMA: &str = "the old .lzma has no mark to know it by: taken for a plain file, in which there is no disk";

/// ISO images on which the verdict, or the files, are others than those of bsdtar.
const OTHERWISE_ISO: &[(&str, &str)] = &[(
    "iso/test_read_format_iso_zisofs.iso",
    "files packed by zisofs are read as they lie there: no firmware and no loader unpacks them",
)];

fn corpus() -> Option<PathBuf> {
    let dir = std::env::var_os("BOOTSURGEON_CORPORA").map(PathBuf::from);
    if dir.is_none() {
        crate::support::skip("BOOTSURGEON_CORPORA names no folder; make one with tests/corpus/fetch-sources.sh DIR");
    }
    dir
}

fn table(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// What the table of verdicts says about the files in one folder.
fn verdicts(corpus: &Path, folder: &str) -> Vec<(String, bool, String)> {
    let rows = table(&corpus.join("verdicts.tsv")).into_iter();
    rows.filter_map(|row| {
        let [file, verdict, sum] = &row[..] else { panic!("verdicts.tsv: {row:?}") };
        file.starts_with(folder).then(|| (file.clone(), verdict == "ok", sum.clone()))
    })
    .collect()
}

/// Holds the differences against the list of those that have a reason.
fn only_for_a_reason(different: &BTreeMap<String, String>, listed: &[(&str, &str)]) {
    let names: BTreeSet<&str> = different.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = listed.iter().map(|(file, _)| *file).collect();
    assert_eq!(names, known, "{different:#?}");
}

fn sha256(source: &dyn ReadAt) -> String {
    let mut sink = Sha256Sink::new();
    fan_out(source, 0, source.size(), &mut [&mut sink]).unwrap();
    hex::encode(sink.finish())
}

#[test]
fn packed_files_of_xz_and_zstd_come_out_as_the_tools_have_them() {
    let Some(corpus) = corpus() else { return };
    let never = AtomicBool::new(false);
    let watch = Watch { cancelled: &never, progress: &|_, _| {} };
    let (mut different, mut agreed) = (BTreeMap::new(), 0);
    for (file, is_good, sum) in [verdicts(&corpus, "xz/"), verdicts(&corpus, "zstd/")].concat() {
        let source = FileSource::open(&corpus.join(&file)).unwrap();
        let ours = packed::unpack(&source, watch);
        let why = match (&ours, is_good) {
            (Ok(Some(out)), true) if sha256(&**out.source()) == sum => None,
            (Ok(Some(_)), true) => Some("other bytes come out".to_owned()),
            (Ok(Some(_)), false) => Some("only we accept it".to_owned()),
            // Taken for a plain file, which nothing reads as a disk.
            (Ok(None), false) | (Err(_), false) => None,
            (Ok(None), true) => Some("it is not recognised".to_owned()),
            (Err(e), true) => Some(format!("only the tool accepts it: {e}")),
        };
        match why {
            Some(why) => drop(different.insert(file, why)),
            None => agreed += 1,
        }
    }
    println!("{agreed} packed files judged as the tools do, {} otherwise", different.len());
    assert!(agreed >= 60, "the corpus is incomplete");
    only_for_a_reason(&different, OTHERWISE_PACKED);
}

#[test]
fn iso_images_of_libarchive_hold_what_bsdtar_finds() {
    let Some(corpus) = corpus() else { return };
    let mut theirs = BTreeMap::<String, BTreeMap<String, (u64, String)>>::new();
    for row in table(&corpus.join("iso-files.tsv")) {
        let [image, path, bytes, sum] = &row[..] else { panic!("iso-files.tsv: {row:?}") };
        let file = (bytes.trim().parse().unwrap(), sum.clone());
        theirs.entry(format!("iso/{image}")).or_default().insert(path.clone(), file);
    }
    let (mut different, mut agreed, mut files) = (BTreeMap::new(), 0, 0);
    for (image, is_good, _) in verdicts(&corpus, "iso/") {
        let theirs = theirs.remove(&image).unwrap_or_default();
        let why = match (contents(&corpus.join(&image)), is_good) {
            (Ok(ours), true) if ours == theirs => {
                files += ours.len();
                None
            }
            (Ok(ours), true) => Some(format!("{ours:#?} instead of {theirs:#?}")),
            (Ok(_), false) => Some("only we accept it".to_owned()),
            (Err(e), true) => Some(format!("only bsdtar accepts it: {e}")),
            (Err(_), false) => None,
        };
        match why {
            Some(why) => drop(different.insert(image, why)),
            None => agreed += 1,
        }
    }
    println!("{agreed} ISO images with {files} files as bsdtar has them, {} otherwise", different.len());
    assert!(agreed >= 10, "the corpus is incomplete");
    only_for_a_reason(&different, OTHERWISE_ISO);
}

/// Path, length and SHA-256 of every regular file.
fn contents(image: &Path) -> bootsurgeon::Result<BTreeMap<String, (u64, String)>> {
    let source = FileSource::open(image)?;
    let mut iso = Iso::open(&source)?;
    let mut all = BTreeMap::new();
    let mut open: Vec<(String, IsoEntry)> = iso.find("/")?.into_iter().map(|root| (String::new(), root)).collect();
    while let Some((path, dir)) = open.pop() {
        for node in iso.read_dir(&dir)? {
            let path = format!("{path}{}", node.name);
            if node.is_dir {
                open.push((format!("{path}/"), node));
                continue;
            }
            let mut bytes = Vec::new();
            for extent in &node.extents {
                bytes.extend(read_vec(&source, extent.offset, extent.bytes as usize)?);
            }
            bytes.truncate(node.bytes as usize);
            all.insert(path, (node.bytes, sha256(&bytes)));
        }
    }
    Ok(all)
}

/// The arguments of each call of a macro or function in a C source, one call a line.
fn calls<'a>(source: &'a str, name: &'a str) -> impl Iterator<Item = Vec<String>> + 'a {
    source.lines().filter_map(move |line| {
        let arguments = line.trim().strip_prefix(name)?.strip_prefix('(')?.rsplit_once(");")?.0;
        // Commas stand in no literal of these files.
        Some(arguments.split(',').map(|a| a.trim().to_owned()).collect())
    })
}

/// A C string literal of these files, `u"…"` too.
fn literal(text: &str) -> Option<String> {
    let inner = text.trim_start_matches('u').strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().filter(|c| matches!(c, '\\' | '"'))? } else { c });
    }
    Some(out)
}

#[test]
fn versions_are_ordered_as_systemds_tests_want_them() {
    let Some(corpus) = corpus() else { return };
    let source = std::fs::read_to_string(corpus.join("systemd/test-string-util.c")).unwrap();
    let mut count = 0;
    let mut check = |a: &str, b: &str, expected: Ordering| {
        assert_eq!(verscmp::compare(a, b), expected, "{a:?} against {b:?}");
        assert_eq!(verscmp::compare(b, a), expected.reverse(), "{b:?} against {a:?}");
        count += 1;
    };
    let list = source.split("versions[] = {").nth(1).unwrap().split("NULL").next().unwrap();
    let list: Vec<String> = list.split(',').filter_map(|item| literal(item.trim())).collect();
    for (i, older) in list.iter().enumerate() {
        for newer in &list[i + 1..] {
            check(older, newer, Ordering::Less);
        }
    }
    for call in calls(&source, "test_strverscmp_improved_newer") {
        if let [Some(older), Some(newer)] = [literal(&call[0]), literal(&call[1])] {
            check(&older, &newer, Ordering::Less);
        }
    }
    for call in calls(&source, "RPMVERCMP") {
        let [a, b, expected] = &call[..] else { continue };
        if let Ok(expected) = expected.parse::<i32>() {
            check(a, b, expected.cmp(&0));
        }
    }
    for line in source.lines().filter_map(|l| l.trim().strip_prefix("assert_se(strverscmp_improved(")) {
        let Some((arguments, rest)) = line.split_once(") ") else { continue };
        let Some((a, b)) = arguments.split_once(", ") else { continue };
        let (Some(a), Some(b)) = (literal(a), literal(b)) else { continue };
        let expected = match rest.split(')').next().unwrap() {
            "== 0" => Ordering::Equal,
            "> 0" => Ordering::Greater,
            "< 0" => Ordering::Less,
            other => panic!("{other}"),
        };
        check(&a, &b, expected);
    }
    println!("{count} pairs of versions");
    assert!(count >= 350, "the corpus is incomplete: {count}");
}

#[test]
fn patterns_match_as_systemds_tests_want_them() {
    let Some(corpus) = corpus() else { return };
    let source = std::fs::read_to_string(corpus.join("systemd/test-efi-string.c")).unwrap();
    let (mut count, mut left_out) = (0, 0);
    for name in ["TEST_FNMATCH_ONE", "TEST_FNMATCH_ONE_MAY_SKIP_LIBC"] {
        for call in calls(&source, name) {
            let [Some(pattern), Some(text)] = [literal(&call[0]), literal(&call[1])] else {
                left_out += 1;
                continue;
            };
            assert_eq!(glob::matches(&pattern, &text), call[2] == "true", "{pattern:?} on {text:?}");
            count += 1;
        }
    }
    println!("{count} patterns, {left_out} left out");
    assert!(count >= 40 && left_out <= 4, "{count}, {left_out}");
}
