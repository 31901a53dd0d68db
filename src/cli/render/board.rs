//! What of a board stays as it is, in few lines.

use super::{Page, Paint};
use crate::board::{Compared, RawLoader, Relation, Sort};
use crate::command::{BoardDifference, BoardReport, StatusReport};
use crate::plan::BoardSetPlan;
use crate::units::count;
use std::fmt;

/// Names are given of so many files of a sort.
const NAMED: usize = 2;

/// The lines of a plan. What becomes of the files of a `set`, that says itself.
pub(super) fn plan(f: &mut Page, board: &BoardReport, set: Option<&BoardSetPlan>) -> fmt::Result {
    if set.is_none() {
        files(f, board)?;
    }
    match outside(&board.raw_loaders) {
        Some(raw) => line(f, "stays", &raw),
        None => Ok(()),
    }
}

fn files(f: &mut Page, board: &BoardReport) -> fmt::Result {
    let source = board.source.as_deref().unwrap_or("the source");
    let told = |file: &&Compared| board.loaders.iter().any(|l| l.path == file.path && l.source_version.is_some());
    for loader in &board.loaders {
        let differs = board.files_that(Relation::Differs).any(|file| file.path == loader.path);
        let there = loader.source_version.as_ref().filter(|_| differs);
        let older = if loader.is_older_than_stub { ", older than the stub of the image" } else { "" };
        let words = match there {
            Some(there) if *there != loader.version => format!("{there} in {source}{older}"),
            Some(_) => format!("the same version with other bytes in {source}{older}"),
            None if loader.is_older_than_stub => {
                format!("older than the stub of the image, systemd {}", board.stub.unwrap_or_default())
            }
            None => continue,
        };
        line(f, "stays", &format!("{}, systemd-boot {}; {words}", loader.path, loader.version))?;
    }
    let differs = grouped(board.files_that(Relation::Differs).filter(|file| !told(file)));
    if !differs.is_empty() {
        line(f, "stays", &format!("{differs}: other bytes in {source}"))?;
    }
    let missing = grouped(board.files_that(Relation::OnlyInSource));
    if !missing.is_empty() {
        line(f, "left out", &format!("{missing}: in {source}, and not on the ESP"))?;
    }
    let unknown = || board.files_that(Relation::NotCompared).filter(|file| is_of_board(file));
    if let Some(first) = unknown().next() {
        let why = board.not_compared.as_ref().or(first.why.as_ref());
        let why = why.map_or(String::new(), |why| format!(" ({why})"));
        line(f, "stays", &format!("{}: whether it fits the image is not known{why}", grouped(unknown())))?;
    }
    Ok(())
}

fn line(f: &mut Page, what: &str, words: &str) -> fmt::Result {
    f.wrapped(format_args!("  {what:13}  "), words)
}

/// A file that not every ESP has.
fn is_of_board(file: &Compared) -> bool {
    !matches!(file.sort, Sort::Loader | Sort::LoaderConfiguration | Sort::Other)
}

/// `12 device trees, 240 overlays, config.txt`.
fn grouped<'a>(files: impl Iterator<Item = &'a Compared>) -> String {
    let files: Vec<&Compared> = files.collect();
    let mut words: Vec<String> = Vec::new();
    for sort in Sort::ALL {
        let these: Vec<&str> = files.iter().filter(|file| file.sort == sort).map(|file| file.path.as_str()).collect();
        if these.len() > NAMED {
            words.push(count(these.len(), sort.noun()));
        } else {
            words.extend(these.into_iter().map(str::to_owned));
        }
    }
    words.join(", ")
}

/// The boot loaders in sectors.
fn outside(found: &[RawLoader]) -> Option<String> {
    let one = |raw: &RawLoader| {
        let version = raw.version.as_ref().map_or(String::new(), |version| format!(" ({version})"));
        format!("{}{version} at byte {} of the disk", raw.what, raw.offset)
    };
    let all: Vec<String> = found.iter().map(one).collect();
    (!all.is_empty()).then(|| format!("{}, outside of any file system", all.join(", ")))
}

/// The part of `status`: nothing where there is what every ESP has.
pub(super) fn status(f: &mut Page, p: Paint, report: &StatusReport) -> fmt::Result {
    let board = &report.board;
    let files = grouped(board.files.iter().filter(|file| is_of_board(file)));
    let older: Vec<_> = board.loaders.iter().filter(|loader| loader.is_older_than_stub).collect();
    let raw = outside(&board.raw_loaders);
    if files.is_empty() && older.is_empty() && raw.is_none() {
        return Ok(());
    }
    writeln!(f)?;
    writeln!(f, "{}  {}", p.strong("Of the board"), p.faint("a swap leaves these as they are"))?;
    for loader in older {
        let (path, version, stub) = (&loader.path, &loader.version, board.stub.unwrap_or_default());
        let older = format!("systemd-boot {version}, older than the stub of the image that starts, systemd {stub}");
        f.wrapped(format_args!("  {path}  "), &older)?;
    }
    for words in [(!files.is_empty()).then_some(files), raw].into_iter().flatten() {
        f.wrapped(format_args!("  "), &words)?;
    }
    Ok(())
}

/// The part of `diff`: files beside the two images.
pub(super) fn difference(f: &mut Page, p: Paint, board: &BoardDifference) -> fmt::Result {
    let of = |relation| grouped(board.files.iter().filter(move |file| file.relation == relation));
    for (relation, what) in [
        (Relation::Differs, "other bytes in the new one"),
        (Relation::OnlyOnEsp, "only in the old one"),
        (Relation::OnlyInSource, "only in the new one"),
        (Relation::NotCompared, "not compared"),
    ] {
        let files = of(relation);
        if !files.is_empty() {
            f.wrapped(format_args!("{} ", p.strong("files beside the image:")), &format!("{files}: {what}"))?;
        }
    }
    Ok(())
}
