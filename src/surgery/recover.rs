//! After a power cut: undo what was cut before its commit, finish what was cut behind it, take leftovers away.
//!
//! Safe against power cuts itself: the intent record goes last, and every step can be done again. It does what the
//! record says and no more: a name that holds something else by now is left as it is, and clusters are freed only where
//! the record accounts for them. The board may have run in between, and somebody's only copy may be among what looks
//! like leftovers.

use super::copies::{choose_table, equalise_copies};
use super::intent::{self, Interrupted, RecordState, interrupted};
use super::lost::{self, Lost, LostChain, LostFiles};
use super::order::{ContentRef, ContentSource, FileStep, Install, Operation, Rename, SetInstall, join};
use super::record::{Clusters, Held, Record};
use super::shadow::Shadow;
use super::steps::{self, take};
use super::{Action, INTENT_NAME, beyond_recovery, discard, seed};
use crate::block::{Pieces, ReadAt, WriteAt, sha256_of};
use crate::fat::{
    AllocationTable, BootSectorCopy, BootSectorRepair, Editor, Entry, Geometry, Health, ProblemClass, ProblemKind, Run,
    Volume, boot_sector_repair, contradiction,
};
use crate::{Code, Error, Result};
use serde::Serialize;

/// What recovery found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Recovery {
    /// The operation that had been interrupted, in words.
    pub interrupted: Option<String>,
    /// Whether it was finished (`true`) or undone (`false`).
    pub finished: Option<bool>,
    /// Whether it had been cut behind its commit.
    pub cut_behind_commit: Option<bool>,
    /// Everything that was done (or would be, in a dry run), in order.
    pub actions: Vec<Action>,
    /// Chains of clusters that belong to no file and that this program did not leave, where they were kept; the longest
    /// first, at most 64.
    pub lost: Vec<LostChain>,
    /// How many more of them there are.
    pub lost_unlisted: usize,
}

/// What is to be done beside ending an interrupted operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryOptions {
    /// What happens to lost chains that this program did not leave.
    pub lost: LostFiles,
    /// Give another name to what has the record's name and is none.
    pub set_aside: bool,
    /// Where an interrupted operation is to end; if not named, its commit decides.
    pub direction: Option<Direction>,
    /// Now, in seconds since 1970 UTC.
    pub time: u64,
}

/// The two ends of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To its end, also where it was cut before its commit.
    Forward,
    /// To its beginning, also where it was cut behind its commit.
    Back,
}

/// What [`recover`] would do.
///
/// # Errors
/// As [`recover`].
pub fn rehearse(source: &dyn ReadAt, sector_size: u32) -> Result<Recovery> {
    rehearse_with(source, sector_size, &RecoveryOptions::default())
}

/// What [`recover_with`] would do. It runs the same code on a view whose writes stay in memory, so what it says is what
/// would be done.
///
/// # Errors
/// As [`recover`].
pub fn rehearse_with(source: &dyn ReadAt, sector_size: u32, options: &RecoveryOptions) -> Result<Recovery> {
    recover_with(&Shadow::new(source, sector_size), options)
}

/// Brings a volume back to a clean state. Lost chains that this program did not leave stay.
///
/// # Errors
/// [`crate::Kind::Unsafe`] when the volume is damaged in a way that no interrupted operation of this program explains,
/// or something else has the record's name ([`Code::ForeignRecord`]); [`Code::RecordVersion`]; what the medium reports.
pub fn recover(medium: &dyn WriteAt) -> Result<Recovery> {
    recover_with(medium, &RecoveryOptions::default())
}

/// [`recover`], with options.
///
/// # Errors
/// As [`recover`].
pub fn recover_with(medium: &dyn WriteAt, options: &RecoveryOptions) -> Result<Recovery> {
    recover_and_mark(medium, options, None)
}

/// [`recover_with`] on one member of a mirror: with `truth`, a mark that names it takes the place of the record at the
/// end, or appears.
pub(super) fn recover_and_mark(
    medium: &dyn WriteAt,
    options: &RecoveryOptions,
    truth: Option<&str>,
) -> Result<Recovery> {
    run(medium, options, truth).map_err(|e| match e.code().is_bad_content() {
        // Whatever of the volume cannot be understood, it is the volume: no image is involved here.
        true => e.with_code(Code::Unhealthy),
        false => e,
    })
}

fn run(medium: &dyn WriteAt, options: &RecoveryOptions, truth: Option<&str>) -> Result<Recovery> {
    let mut done = Recovery::default();
    let mut volume = Volume::open(medium)?;
    let repair = boot_sector_repair(&volume)?;
    match &repair {
        Some(repair) => {
            let table = AllocationTable::read(&medium, &repair.geometry, repair.geometry.active_fat)?;
            volume = Volume::with_table(medium, repair.geometry.clone(), table);
        }
        None => {
            if let Some(why) = contradiction(&volume)? {
                return Err(beyond_recovery(&why));
            }
        }
    }
    // Before the first write: what is not ours to end stays as it is, to the last bit. Where the root directory or the
    // record cannot be read whole by this copy of the table, another one may be right.
    let found = interrupted(&volume).or_else(|e| if e.code().is_bad_content() { Ok(None) } else { Err(e) })?;
    refuse_foreign(found.filter(|f| f.state != RecordState::Damaged).as_ref(), options)?;
    if let Some(BootSectorRepair { wrong, why, .. }) = repair {
        let editor = Editor::of_volume(volume)?;
        editor.restore_boot_sector(wrong)?;
        editor.barrier()?;
        done.actions.push(match wrong {
            BootSectorCopy::First => Action::RestoreBootSector { why },
            BootSectorCopy::Backup => Action::RewriteBackupBootSector { why },
        });
    }
    choose_table(medium, &mut done.actions)?;
    let mut editor = Editor::open(medium)?;
    let found = interrupted(&editor.volume()?)?;
    refuse_foreign(found.as_ref(), options)?;
    equalise_copies(&editor, &mut done.actions)?;
    done.actions.extend(seed::remove_unusable(&mut editor)?);
    if options.set_aside && found.as_ref().is_some_and(|f| f.record.is_none()) {
        set_aside(&mut editor, &mut done)?;
    }
    let record = found.as_ref().and_then(|f| f.record.as_ref());
    let course = match record {
        Some(record) => Settling { editor: &mut editor, record, done: &mut done }.course(options.direction)?,
        None => Course::Leave,
    };
    // Finishing may take a cluster, and on a full volume the last one may be lost to a recovery that was cut. Of a
    // damaged tree nobody can say what is lost.
    let health = Health::check(&editor.volume()?)?;
    if !health.is_damaged() {
        done.actions.extend(discard::finish(&mut editor, &health.lost)?);
        if course != Course::Complete {
            free_ours(&mut editor, record, &mut done)?;
        }
        // A name that was being written when an earlier recovery was cut takes the room that the same name needs now.
        clear_orphans(&editor, &health, &mut done)?;
    }
    if let Some(record) = record {
        done.interrupted = found.as_ref().map(ToString::to_string);
        Settling { editor: &mut editor, record, done: &mut done }.settle(course)?;
    }
    clean(&mut editor, record, &mut done)?;
    match truth {
        Some(truth) if record.is_some_and(|r| r.truth.as_deref() == Some(truth)) => {}
        Some(truth) => intent::mark(&mut editor, truth, options.time)?,
        None if record.is_some() => {
            intent::clear(&mut editor)?;
            done.actions.push(Action::RemoveRecord);
        }
        None => {}
    }
    others(&mut editor, options, &mut done)?;
    Ok(done)
}

/// Refuses what is not this program's to end.
fn refuse_foreign(found: Option<&Interrupted>, options: &RecoveryOptions) -> Result<()> {
    let Some(found) = found else { return Ok(()) };
    match found.state {
        RecordState::Sound => Ok(()),
        RecordState::Damaged | RecordState::Foreign(_) if options.set_aside => Ok(()),
        RecordState::Damaged | RecordState::Foreign(_) | RecordState::OtherVersion { .. } => Err(found.error()),
    }
}

/// Gives another name to what has the record's name.
fn set_aside(editor: &mut Editor<'_>, done: &mut Recovery) -> Result<()> {
    let health = Health::check(&editor.volume()?)?;
    if let Some(p) = health.problems.iter().find(|p| p.class == ProblemClass::Damage) {
        return Err(beyond_recovery(&p.what));
    }
    let root = editor.directory("")?;
    let Some(entry) = root.find(INTENT_NAME).cloned() else { return Ok(()) };
    let mut names = (0..1000).map(|n| format!("BOOTSURG.{n:03}"));
    let name = names.find(|name| root.find(name).is_none());
    let name = name.ok_or_else(|| Error::refused(format!("no name is left for {INTENT_NAME}")))?;
    editor.rename("", &entry, &name)?;
    done.actions.push(Action::SetAside { to: name });
    Ok(())
}

/// Finishes or undoes an interrupted operation.
struct Settling<'a, 'm> {
    editor: &'a mut Editor<'m>,
    record: &'a Record,
    done: &'a mut Recovery,
}

/// How an interrupted operation is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It was cut before its commit and is undone.
    Undo,
    /// It was cut before its commit and is carried out to its end.
    Complete,
    /// It was cut behind its commit and is finished.
    Finish,
    /// It was cut behind its commit and is taken back.
    TakeBack,
    /// Somebody else has changed what it was about.
    Leave,
}

/// What a name leads to, next to what the record says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// No such name: the step was taken, or somebody else took it.
    Absent,
    /// The file that is meant.
    Same,
    /// Another file.
    Other,
}

impl Settling<'_, '_> {
    /// How the operation is to be ended. Nothing is written.
    ///
    /// # Errors
    /// [`Code::Unsafe`] when it cannot end where the user wants it to, with what can be done instead.
    fn course(&self, direction: Option<Direction>) -> Result<Course> {
        let operation = &self.record.operation;
        let committed = match &operation.install {
            Some(install) => {
                let dir = &operation.directory;
                // Somebody else's file of the same length may lie in the very clusters that were staged.
                let committed = self.holds_new(dir, install)?;
                if !committed && !self.holds_old(dir, install)? {
                    // The board may have run since and replaced it. The names of this operation then lead to images
                    // that somebody may need: none of them is touched.
                    return Ok(Course::Leave);
                }
                committed
            }
            None => true,
        };
        match (committed, direction) {
            (false, None | Some(Direction::Back)) => Ok(Course::Undo),
            (true, None | Some(Direction::Forward)) => Ok(Course::Finish),
            (false, Some(Direction::Forward)) => {
                self.refuse_incomplete()?;
                Ok(Course::Complete)
            }
            (true, Some(Direction::Back)) => {
                self.refuse_irreversible()?;
                Ok(Course::TakeBack)
            }
        }
    }

    fn settle(&mut self, course: Course) -> Result<()> {
        let operation = &self.record.operation;
        self.done.cut_behind_commit = match course {
            Course::Undo | Course::Complete => Some(false),
            Course::Finish | Course::TakeBack => Some(true),
            Course::Leave => None,
        };
        self.done.finished = match course {
            Course::Undo | Course::TakeBack => Some(false),
            Course::Complete | Course::Finish => Some(true),
            Course::Leave => None,
        };
        match course {
            Course::Undo => self.undo(operation),
            Course::Complete => {
                steps::change(self.editor, operation, &[])?;
                self.done.actions.push(Action::Complete { files: operation.installs().count() });
                Ok(())
            }
            Course::Finish => self.finish(operation),
            Course::TakeBack => {
                for (n, step) in operation.after.iter().enumerate().rev() {
                    let FileStep::Rename(Rename { from, to }) = step else { continue };
                    let back = FileStep::Rename(Rename { from: to.clone(), to: from.clone() });
                    let meant = self.record.meant(n);
                    if !self.step(&back, meant.as_ref())? {
                        return Ok(());
                    }
                }
                self.undo(operation)
            }
            Course::Leave => {
                let installs = operation.installs().map(|(_, install)| install.target.clone());
                self.done.actions.extend(installs.map(|target| Action::LeaveAlone { target }));
                Ok(())
            }
        }
    }

    /// Behind the commit: what is left to do.
    fn finish(&mut self, operation: &Operation) -> Result<()> {
        for (dir, install) in operation.installs() {
            self.remove_source_name(dir, install)?;
        }
        let leaves_menu = operation.after.iter().any(|step| intent::is_entry(step.name()));
        if leaves_menu && (self.menu_is_another()? || self.entries_are_others()?) {
            // The order of the renames was found for the menu as it was: with other entries in it, taking one away may
            // bring forward what nobody has looked at.
            self.leave(format!("{} has other entries than when the operation began", operation.directory));
            self.done.actions.push(Action::LeaveOutRest);
            return Ok(());
        }
        for (n, step) in operation.after.iter().enumerate() {
            let meant = self.record.meant(n);
            if !self.step(step, meant.as_ref())? && matches!(step, FileStep::Rename(_)) {
                break;
            }
        }
        Ok(())
    }

    /// Refuses to carry an operation to its end of which something is not on the medium, or around which the volume is
    /// another one by now.
    fn refuse_incomplete(&self) -> Result<()> {
        let impossible = |why: String| {
            Err(Error::refused(format!("the operation cannot be carried to its end: {why}"))
                .advise("run `recover` without --forward: it is undone, and can be begun anew"))
        };
        let operation = &self.record.operation;
        if self.menu_is_another()? {
            return impossible(format!("{} has other entries than when it began", operation.directory));
        }
        let volume = self.editor.volume()?;
        let lost = Clusters::of(Health::check(&volume)?.lost.iter().copied());
        for (dir, install) in operation.installs() {
            let target = &install.target;
            if self.holds_new(dir, install)? {
                continue;
            }
            if !self.holds_old(dir, install)? {
                return impossible(format!("{target} is another file since"));
            }
            if let ContentSource::File(name) = &install.source {
                if self.fits(dir, name, &install.new)? != Fit::Same {
                    return impossible(format!("{name} is another file since"));
                }
                continue;
            }
            let new = &install.new;
            let named = match &install.backup {
                Some(backup) => self.fits(dir, backup, new)? == Fit::Same,
                None => false,
            };
            let chain = match new.cluster {
                0 => Vec::new(),
                first => volume.table().chain(first).unwrap_or_default(),
            };
            let mut clusters = chain.iter().flat_map(|run| run.clusters());
            let is_whole = chain.iter().map(|run| u64::from(run.count)).sum::<u64>()
                == volume.geometry().clusters_for(u64::from(new.bytes))
                && (named || clusters.all(|c| lost.contains(c)))
                && self.holds_bytes(&chain, new)?;
            if !is_whole {
                return impossible(format!("what {target} is to hold is not whole on the medium"));
            }
        }
        Ok(())
    }

    /// Refuses to take an operation back behind its commit where something is gone for good, or the volume is another
    /// one by now.
    fn refuse_irreversible(&self) -> Result<()> {
        let impossible = |why: String| {
            Err(Error::refused(format!("the operation cannot be taken back: {why}"))
                .advise("run `recover` without --back: it is finished; `restore` puts a backup back then"))
        };
        let operation = &self.record.operation;
        if operation.install.is_none() {
            return impossible("it gives no file a new content".into());
        }
        if self.menu_is_another()? || self.entries_are_others()? {
            return impossible(format!("{} has other entries than when it began", operation.directory));
        }
        for step in &operation.after {
            if let FileStep::Remove(name) = step
                && self.entry(&operation.directory, name)?.is_none()
            {
                return impossible(format!("{name} was deleted already"));
            }
        }
        for (dir, install) in operation.installs() {
            if let ContentSource::File(name) = &install.source {
                return impossible(format!("it took the content of {name}"));
            }
            let kept = match (&install.backup, &install.old) {
                (Some(backup), Some(old)) => self.fits(dir, backup, old)? == Fit::Same,
                _ => true,
            };
            if !self.holds_new(dir, install)? || !kept {
                return impossible(format!("{} or its backup is another file since", install.target));
            }
        }
        Ok(())
    }

    /// Whether somebody else has added entries to the menu since, or taken some away.
    fn menu_is_another(&self) -> Result<bool> {
        let Some(menu) = &self.record.menu else { return Ok(false) };
        Ok(intent::others_in_menu(&self.editor.volume()?, &self.record.operation)? != *menu)
    }

    /// Whether the target leads to the new content.
    fn holds_new(&self, dir: &str, install: &Install) -> Result<bool> {
        Ok(match self.entry(dir, &install.target)? {
            Some(entry) if install.new.is_of(&entry) => {
                let known = install.new.sha256.as_deref();
                known.is_none() || self.holds_sha256(&entry, known)?
            }
            _ => false,
        })
    }

    /// Whether the target is as it was before the operation.
    fn holds_old(&self, dir: &str, install: &Install) -> Result<bool> {
        Ok(match &install.old {
            None => self.entry(dir, &install.target)?.is_none(),
            Some(old) => self.fits(dir, &install.target, old)? == Fit::Same,
        })
    }

    /// Whether somebody else has written or taken away an entry that is to leave the menu: it has another content, or
    /// is neither under its name nor under the one that it was to get.
    fn entries_are_others(&self) -> Result<bool> {
        let after = &self.record.operation.after;
        for (n, step) in after.iter().enumerate().filter(|(_, step)| intent::is_entry(step.name())) {
            let Some(meant) = self.record.meant(n) else { continue };
            let is_meant = |entry: &Entry| (entry.first_cluster, entry.bytes) == (meant.cluster, meant.bytes);
            match (self.entry(&self.record.operation.directory, step.name())?, step) {
                (Some(entry), _) if !is_meant(&entry) => return Ok(true),
                (None, FileStep::Rename(Rename { to, .. })) => {
                    let removed = after[n + 1..].iter().any(|s| matches!(s, FileStep::Remove(name) if name == to));
                    let directory = &self.record.operation.directory;
                    if !removed && !self.entry(directory, to)?.is_some_and(|entry| is_meant(&entry)) {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
        Ok(false)
    }

    /// Every file gets its old content back, and its old name, through the states through which they came.
    fn undo(&mut self, operation: &Operation) -> Result<()> {
        if let Some(install) = &operation.install {
            self.undo_install(&operation.directory, install)?;
        }
        for rename in operation.before.iter().rev() {
            let back = FileStep::Rename(Rename { from: rename.to.clone(), to: rename.from.clone() });
            if !self.step(&back, self.record.files.get(&rename.from))? {
                break;
            }
        }
        for SetInstall { directory, install } in operation.set.iter().rev() {
            self.undo_install(directory, install)?;
        }
        Ok(())
    }

    /// A file gets its old content back, where it has the new one; then the name goes that was prepared for the old one.
    fn undo_install(&mut self, dir: &str, install: &Install) -> Result<()> {
        let target = &install.target;
        if self.holds_new(dir, install)?
            && let Some(entry) = self.entry(dir, target)?
        {
            match (&install.old, &install.backup) {
                (Some(old), Some(name)) => match self.entry(dir, name)? {
                    Some(backup) if old.is_of(&backup) => {
                        steps::put_back(self.editor, dir, &entry, &backup)?;
                        self.done.actions.push(Action::PutBack { name: join(dir, target) });
                    }
                    _ => {
                        self.leave(format!("{target} keeps its new content: {name} is another file since"));
                        return Ok(());
                    }
                },
                _ => {
                    let loses_nothing = match &install.source {
                        ContentSource::File(from) => self.fits(dir, from, &install.new)? == Fit::Same,
                        // What was staged loses its only name here, and that it is this was just read.
                        ContentSource::Staged => install.new.sha256.is_some(),
                    };
                    if loses_nothing {
                        self.editor.remove(dir, &entry)?;
                        self.done.actions.push(Action::Delete(join(dir, target)));
                    }
                }
            }
        } else if !self.holds_old(dir, install)? {
            self.leave(format!("{target} is another file since"));
            return Ok(());
        }
        self.remove_prepared_name(dir, install)
    }

    /// The backup's name is this operation's where it leads to the old content, which the target still has, or to the
    /// new one. A file that had the name before has a chain of its own.
    fn remove_prepared_name(&mut self, dir: &str, install: &Install) -> Result<()> {
        let Some(name) = &install.backup else { return Ok(()) };
        let Some(entry) = self.entry(dir, name)? else { return Ok(()) };
        let shares_old = install.old.as_ref().is_some_and(|old| old.is_of(&entry));
        let loses_nothing = shares_old
            || install.new.is_of(&entry)
                && match &install.source {
                    ContentSource::File(from) => self.fits(dir, from, &install.new)? == Fit::Same,
                    // The staged image loses its only name here.
                    ContentSource::Staged => self.holds_sha256(&entry, install.new.sha256.as_deref())?,
                };
        if loses_nothing {
            self.editor.remove(dir, &entry)?;
            self.done.actions.push(Action::RemovePreparedName(entry.name));
        } else {
            self.leave(format!("{} is another file than the one that was prepared", entry.name));
        }
        Ok(())
    }

    /// Directly behind the commit: the target has the content of another file, whose name goes.
    fn remove_source_name(&mut self, dir: &str, install: &Install) -> Result<()> {
        let ContentSource::File(name) = &install.source else { return Ok(()) };
        match self.fits(dir, name, &install.new)? {
            Fit::Absent => {}
            // The target leads to the same clusters: only a name is lost.
            Fit::Same => {
                if let Some(entry) = self.entry(dir, name)? {
                    self.editor.remove(dir, &entry)?;
                    let target = install.target.clone();
                    self.done.actions.push(Action::RemoveSourceName { name: name.to_owned(), target });
                }
            }
            Fit::Other => self.leave(format!("{name} is another file since")),
        }
        Ok(())
    }

    /// Takes a step, or says why it is left out; `false` then.
    ///
    /// What is refused now will be refused tomorrow. An ESP that every command refuses until the impossible is done
    /// would be the greater harm.
    fn step(&mut self, step: &FileStep, meant: Option<&Held>) -> Result<bool> {
        let why = match self.why_not(step, meant)? {
            Some(why) => why,
            None => match take(self.editor, &self.record.operation.directory, step) {
                Ok(action) => {
                    self.done.actions.extend(action);
                    return Ok(true);
                }
                Err(e) if e.code().is_failed_access() || e.code() == Code::Bug => return Err(e),
                Err(e) => e.to_string(),
            },
        };
        self.leave(why);
        // The renames are in the order that keeps the old image or the new one in front at each moment.
        if matches!(step, FileStep::Rename(_)) {
            self.done.actions.push(Action::LeaveOutRest);
        }
        Ok(false)
    }

    fn why_not(&self, step: &FileStep, meant: Option<&Held>) -> Result<Option<String>> {
        let Some(entry) = self.entry(&self.record.operation.directory, step.name())? else { return Ok(None) };
        let name = &entry.name;
        let Some(meant) = meant.filter(|m| (m.cluster, m.bytes) == (entry.first_cluster, entry.bytes)) else {
            return Ok(Some(format!("{name} is another file since")));
        };
        if let FileStep::Remove(_) = step {
            if meant.sha256.is_none() {
                return Ok(Some(format!(
                    "{name} stays: the record does not say what was in it, `prune` can delete it"
                )));
            }
            if !self.holds_sha256(&entry, meant.sha256.as_deref())? {
                return Ok(Some(format!("{name} stays: its content has changed since")));
            }
            if self.shares_clusters()? {
                return Ok(Some(format!("{name} stays: files share clusters")));
            }
        }
        Ok(None)
    }

    fn shares_clusters(&self) -> Result<bool> {
        Ok(Health::check(&self.editor.volume()?)?.problems.iter().any(|p| p.kind == ProblemKind::Shared))
    }

    fn leave(&mut self, why: String) {
        self.done.actions.push(Action::LeaveOut { why });
    }

    fn entry(&self, dir: &str, name: &str) -> Result<Option<Entry>> {
        // Whoever took the directory away took the files with it.
        let directory = self.editor.volume()?.find_directory(dir)?;
        Ok(directory.and_then(|d| d.find(name).cloned()))
    }

    /// Whether a name leads to a content, by first cluster and length.
    fn fits(&self, dir: &str, name: &str, content: &ContentRef) -> Result<Fit> {
        Ok(match self.entry(dir, name)? {
            None => Fit::Absent,
            Some(e) if content.is_of(&e) => Fit::Same,
            Some(_) => Fit::Other,
        })
    }

    /// Whether a chain holds a content, by its SHA-256.
    fn holds_bytes(&self, chain: &[Run], content: &ContentRef) -> Result<bool> {
        let volume = self.editor.volume()?;
        let bytes = Pieces::new(volume.source(), volume.extents_of(chain))?;
        Ok(content.sha256.as_deref() == Some(&hex::encode(sha256_of(&bytes, u64::from(content.bytes))?)))
    }

    /// Whether a file holds these bytes. What nobody knows the hash of, it does not hold.
    fn holds_sha256(&self, entry: &Entry, expected: Option<&str>) -> Result<bool> {
        let Some(expected) = expected else { return Ok(false) };
        let volume = self.editor.volume()?;
        let bytes = match volume.file(entry) {
            Err(e) if e.code().is_bad_content() => return Ok(false),
            bytes => bytes?,
        };
        Ok(hex::encode(sha256_of(&bytes, bytes.size())?) == expected)
    }
}

/// Takes away what no file depends on and this program left: orphaned name slots, clusters, a stale FSInfo.
fn clean(editor: &mut Editor<'_>, record: Option<&Record>, done: &mut Recovery) -> Result<()> {
    let health = Health::check(&editor.volume()?)?;
    if let Some(p) = health.problems.iter().find(|p| p.class == ProblemClass::Damage) {
        return Err(beyond_recovery(&p.what));
    }
    clear_orphans(editor, &health, done)?;
    for dot in &health.wrong_dots {
        editor.set_first_cluster(&dot.path, dot.slot, dot.cluster)?;
        editor.barrier()?;
        let name = if dot.slot == 0 { "." } else { ".." };
        done.actions.push(Action::PointDot { name, directory: dot.path.clone(), cluster: dot.cluster });
    }
    let freed = free_ours(editor, record, done)?;
    if health.fsinfo_lost && fsinfo_has_its_place(editor.geometry()) {
        editor.rebuild_fsinfo()?;
        editor.barrier()?;
        done.actions.push(Action::RewriteFsInfo);
    } else if health.fsinfo_stale || freed > 0 {
        write_fsinfo(editor, done)?;
    }
    Ok(())
}

fn clear_orphans(editor: &Editor<'_>, health: &Health, done: &mut Recovery) -> Result<()> {
    for (path, slots) in &health.orphan_slots {
        for slot in editor.directory(path)?.orphans {
            editor.clear(path, &(slot..slot + 1))?;
        }
        editor.barrier()?;
        done.actions.push(Action::ClearSlots { slots: *slots, directory: path.clone() });
    }
    Ok(())
}

/// Whether the boot sector's backup bears out where FSInfo is, and it is not where the backup stands.
fn fsinfo_has_its_place(geometry: &Geometry) -> bool {
    geometry.backup_boot_offset.is_some_and(|backup| geometry.fsinfo_offset.is_some_and(|fsinfo| fsinfo != backup))
}

fn write_fsinfo(editor: &mut Editor<'_>, done: &mut Recovery) -> Result<()> {
    editor.write_fsinfo()?;
    editor.barrier()?;
    done.actions.push(Action::UpdateFsInfo);
    Ok(())
}

/// Frees the lost clusters that this program left; how many there were.
fn free_ours(editor: &mut Editor<'_>, record: Option<&Record>, done: &mut Recovery) -> Result<u64> {
    let volume = editor.volume()?;
    let health = Health::check(&volume)?;
    let freed = lost::free(editor, &Lost::sort(&volume, &health.lost, record)?.ours)?;
    if freed > 0 {
        let bytes = freed * u64::from(editor.geometry().cluster_bytes);
        done.actions.push(Action::FreeOwn { clusters: freed, bytes });
    }
    Ok(freed)
}

/// The lost chains that this program did not leave: kept and described, named, or freed.
fn others(editor: &mut Editor<'_>, options: &RecoveryOptions, done: &mut Recovery) -> Result<()> {
    let volume = editor.volume()?;
    let others = Lost::sort(&volume, &Health::check(&volume)?.lost, None)?.others;
    if others.is_empty() {
        return Ok(());
    }
    match options.lost {
        LostFiles::Keep => (done.lost, done.lost_unlisted) = lost::describe(&volume, others)?,
        LostFiles::Salvage => done.actions.extend(lost::salvage(editor, others, options.time)?),
        LostFiles::Free => {
            let (described, unlisted) = lost::describe(&volume, others.clone())?;
            lost::free(editor, &others)?;
            done.actions.extend(described.into_iter().map(Action::FreeLost));
            if unlisted > 0 {
                done.actions.push(Action::FreeOtherLost { chains: unlisted });
            }
        }
    }
    if options.lost != LostFiles::Keep && editor.geometry().fsinfo_offset.is_some() {
        write_fsinfo(editor, done)?;
    }
    Ok(())
}
