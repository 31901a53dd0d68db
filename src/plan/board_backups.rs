//! The backups of the board's own files, which sets and new boot loaders leave beside them: which of them `prune` deletes.

use super::PrunePlan;
use super::board_set::join;
use crate::block::ReadAt;
use crate::board::Sort;
use crate::bootpath::{BootScenario, ProgramKind};
use crate::esp::{END_OF_TIME, FIRST_TIME, Inventory};
use crate::fat::{Entry, Volume, folded};
use crate::sorting::Sort as _;
use crate::surgery::{FileStep, Tidying};
use crate::{Error, Result};
use std::collections::{BTreeMap, HashSet};

/// Directories that are looked into.
const MAX_DIRECTORIES: usize = 4096;

/// A backup of a file of the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BoardBackup {
    /// The directory of both, from the root of the ESP.
    pub(super) directory: String,
    /// Its directory entry.
    pub(super) entry: Entry,
    /// The name of the file whose content it was.
    pub(super) original: String,
    /// The number in its name: when it was made, in seconds since 1970 UTC.
    pub(super) time: u64,
    /// Whether there is a file of the original's name.
    pub(super) is_replaced: bool,
}

impl BoardBackup {
    /// Its path from the root of the ESP.
    pub(super) fn path(&self) -> String {
        join(&self.directory, &self.entry.name)
    }

    /// The path of the file whose content it was.
    pub(super) fn original_path(&self) -> String {
        join(&self.directory, &self.original)
    }

    /// Whether it is of a file that sets replace. Boot loaders, their settings and other programs are none.
    pub(super) fn is_of_a_set(&self) -> bool {
        match Sort::of(&self.original_path()) {
            None | Some(Sort::Loader | Sort::LoaderConfiguration) => false,
            Some(Sort::Other) => !self.original.to_ascii_lowercase().ends_with(".efi"),
            Some(_) => true,
        }
    }
}

/// Every backup of a file of the board, outside of the directory of the images.
///
/// # Errors
/// [`crate::Kind::Rejected`] when a directory cannot be read; what the source reports.
pub(super) fn board_backups<S: ReadAt>(esp: &Volume<S>) -> Result<Vec<BoardBackup>> {
    let mut found = Vec::new();
    // Their contents are read one after the other: a volume may have many, and each may be long.
    let mut left: Vec<(String, Option<Entry>)> = vec![(String::new(), None)];
    let mut seen = HashSet::new();
    while let Some((directory, entry)) = left.pop() {
        let listed = entry.map_or_else(|| esp.root(), |entry| esp.directory(&entry))?;
        for entry in listed.entries.iter().filter(|entry| !entry.is_dot()) {
            let path = join(&directory, &entry.name);
            if entry.is_dir() {
                if Sort::is_passed_over(&path) || !seen.insert(entry.first_cluster) {
                    continue;
                }
                if seen.len() > MAX_DIRECTORIES {
                    let what = format!("the ESP has more than {MAX_DIRECTORIES} directories: no board needs them");
                    return Err(Error::refused(what).advise("look at what fills it, in another system"));
                }
                left.push((path, Some(entry.clone())));
                continue;
            }
            let Some((original, time)) = entry.name.rsplit_once(".bak.") else { continue };
            let is_number = !time.is_empty() && time.bytes().all(|b| b.is_ascii_digit());
            let Some(time) = is_number.then(|| time.parse().ok()).flatten() else { continue };
            if Sort::of(&join(&directory, original)).is_none() {
                continue;
            }
            let is_replaced = listed.find(original).is_some_and(|there| !there.is_dir());
            let (directory, original) = (directory.clone(), original.to_owned());
            found.push(BoardBackup { directory, entry: entry.clone(), original, time, is_replaced });
        }
    }
    Ok(found)
}

impl PrunePlan {
    /// Adds the backups of the board's own files that are older than the newest `keep` of each. Kept as well is what
    /// belongs to a backup of an image that stays: `restore --with-board-files` puts both back.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when a directory cannot be read; what the source reports.
    pub fn with_board_backups<S: ReadAt>(mut self, esp: &Inventory<S>, keep: usize) -> Result<Self> {
        let images = super::backups(esp).into_iter().filter(|(name, _)| !self.delete.contains(name));
        let images: Vec<u64> = images.map(|(_, backup)| backup.time).collect();
        let mut of_files: BTreeMap<String, Vec<BoardBackup>> = BTreeMap::new();
        for backup in board_backups(&esp.volume)?.into_iter().filter(|backup| is_ours(esp, backup)) {
            of_files.entry(folded(&backup.original_path())).or_default().push(backup);
        }
        let scenarios = [BootScenario::Next, BootScenario::Later, BootScenario::Reset];
        let programs = scenarios.into_iter().flat_map(|scenario| &esp.way(scenario).programs);
        let started: Vec<String> =
            programs.filter(|(at, _)| esp.is_here(at)).map(|(at, _)| folded(&at.path.replace('\\', "/"))).collect();
        let is_started = |backup: &BoardBackup| {
            let path = folded(&backup.path());
            started.iter().any(|started| started.trim_matches('/') == path)
        };
        for mut backups in of_files.into_values() {
            backups.put_in_order_by(|backup| std::cmp::Reverse(backup.time));
            let Some(newest) = backups.first() else { continue };
            if let Some(why) = only_copy(esp, newest) {
                self.keep.push((newest.path(), why.to_owned()));
                backups.remove(0);
            }
            for backup in backups.iter().filter(|backup| is_started(backup)) {
                self.keep.push((backup.path(), "the firmware starts it".to_owned()));
            }
            backups.retain(|backup| !is_started(backup));
            let old = backups.into_iter().skip(keep).filter(|backup| !images.contains(&backup.time));
            for backup in old.filter(|backup| !self.delete.contains(&backup.path())).collect::<Vec<_>>() {
                self.delete.push(backup.path());
                match self.board.iter_mut().find(|(directory, _)| *directory == backup.directory) {
                    Some((_, entries)) => entries.push(backup.entry),
                    None => self.board.push((backup.directory, vec![backup.entry])),
                }
            }
        }
        Ok(self)
    }

    /// The operations that delete backups of the board's own files, one for each directory.
    #[must_use]
    pub fn board_tidyings(&self, time: u64) -> Vec<Tidying> {
        let of = |(directory, entries): &(String, Vec<Entry>)| Tidying {
            command: "prune".to_owned(),
            time,
            directory: directory.clone(),
            steps: entries.iter().map(|entry| FileStep::Remove(entry.name.clone())).collect(),
        };
        self.board.iter().map(of).collect()
    }

    /// Makes sure that the backups in one of these directories are those that the plan was made for.
    ///
    /// # Errors
    /// [`crate::Code::Unsafe`] when one is another file since; [`crate::Kind::Rejected`] when the directory cannot be read.
    pub(crate) fn refuse_other_backups<S: ReadAt>(&self, now: &Volume<S>, directory: &str) -> Result<()> {
        let planned = self.board.iter().filter(|(known, _)| known == directory);
        for entry in planned.flat_map(|(_, entries)| entries) {
            let path = join(directory, &entry.name);
            let there = now.find(&path)?;
            let is_it = |there: &Entry| (there.first_cluster, there.bytes) == (entry.first_cluster, entry.bytes);
            if !there.as_ref().is_some_and(is_it) {
                return Err(
                    Error::refused(format!("{path} has changed since the plan was made")).advise("run it again")
                );
            }
        }
        Ok(())
    }
}

/// Whether this program has made a backup, and nobody else who names files alike: its number is a time, beside a boot
/// loader it is a systemd-boot in the place of one, and of settings of the loader and other programs none is made.
fn is_ours<S: ReadAt>(esp: &Inventory<S>, backup: &BoardBackup) -> bool {
    let original = backup.original_path();
    let is_loader = |path: &str| match esp.program(path) {
        Ok(Some(program)) => matches!(program.kind, ProgramKind::SystemdBoot(_)),
        // What is broken by now may have been one.
        Ok(None) | Err(_) => path == original,
    };
    let is_of_a_loader =
        || Sort::of(&original) == Some(Sort::Loader) && is_loader(&original) && is_loader(&backup.path());
    (FIRST_TIME..END_OF_TIME).contains(&backup.time) && (backup.is_of_a_set() || is_of_a_loader())
}

/// Why the newest backup of a file stays, however few are wanted.
fn only_copy<S: ReadAt>(esp: &Inventory<S>, newest: &BoardBackup) -> Option<&'static str> {
    if !newest.is_replaced {
        return Some("the file that it was is not there");
    }
    let original = newest.original_path();
    let is_lost = Sort::of(&original) == Some(Sort::Loader) && !is_program(esp, &original);
    (is_lost && is_program(esp, &newest.path())).then_some("the file that it was is no program any more")
}

/// Whether a file is a program that firmware could start.
fn is_program<S: ReadAt>(esp: &Inventory<S>, path: &str) -> bool {
    matches!(esp.program(path), Ok(Some(_)))
}
