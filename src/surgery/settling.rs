//! How an interrupted operation is ended: undone, finished, carried to its end or taken back, as its record says. Nothing
//! is touched that the record does not prove to be meant.

use super::order::{ContentRef, ContentSource, FileStep, Install, NewDirectory, Operation, Rename, SetInstall, join};
use super::record::{Held, Record};
use super::recovery::{Direction, Recovery};
use super::steps::{self, take};
use super::{Action, intent};
use crate::block::{Pieces, ReadAt, read_vec, sha256_of};
use crate::fat::{Clusters, Editor, Entry, Health, MAX_DIRECTORY, ProblemKind, Run};
use crate::{Code, Error, Result};

/// Finishes or undoes an interrupted operation.
pub(super) struct Settling<'a, 'm> {
    pub(super) editor: &'a mut Editor<'m>,
    pub(super) record: &'a Record,
    pub(super) done: &'a mut Recovery,
}

/// How an interrupted operation is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
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
    /// The same; the files that were to change with it get their old contents back.
    UndoSet,
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
    pub(super) fn course(&self, direction: Option<Direction>) -> Result<Course> {
        let operation = &self.record.operation;
        let committed = match &operation.install {
            Some(install) => {
                let dir = &operation.directory;
                // Somebody else's file of the same length may lie in the very clusters that were staged.
                let committed = self.holds_new(dir, install)?;
                if !committed && !self.holds_old(dir, install)? {
                    // The board may have run since and replaced it. The names of this operation then lead to images
                    // that somebody may need: none of them is touched.
                    return self.course_without_image(install, direction);
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

    /// The same where somebody has replaced the image, or what took its part. Files of a set that still have their old
    /// content say that the cut was before the commit: no board should keep a part of the new ones for good.
    fn course_without_image(&self, image: &Install, direction: Option<Direction>) -> Result<Course> {
        let set = &self.record.operation.set;
        if set.is_empty() {
            return Ok(Course::Leave);
        }
        match direction {
            Some(Direction::Forward) => {
                let what =
                    format!("the operation cannot be carried to its end: {} is another file since", image.target);
                Err(Error::refused(what).advise(
                    "run `recover` without --forward: the board's files get their old contents back, and the image stays",
                ))
            }
            Some(Direction::Back) => Ok(Course::UndoSet),
            None => {
                let mut is_cut_before_commit = false;
                for SetInstall { directory, install } in set {
                    is_cut_before_commit |= self.holds_old(directory, install)?;
                }
                Ok(if is_cut_before_commit { Course::UndoSet } else { Course::Leave })
            }
        }
    }

    pub(super) fn settle(&mut self, course: Course) -> Result<()> {
        let operation = &self.record.operation;
        self.done.cut_behind_commit = match course {
            Course::Undo | Course::Complete => Some(false),
            Course::Finish | Course::TakeBack => Some(true),
            Course::Leave | Course::UndoSet => None,
        };
        self.done.finished = match course {
            Course::Undo | Course::TakeBack => Some(false),
            Course::Complete | Course::Finish => Some(true),
            Course::Leave | Course::UndoSet => None,
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
                        // Neither end: what the actions say is what was done.
                        self.done.finished = None;
                        return Ok(());
                    }
                }
                self.undo(operation)
            }
            Course::Leave | Course::UndoSet => {
                let image = operation.install.iter().map(|install| install.target.clone());
                self.done.actions.extend(image.map(|target| Action::LeaveAlone { target }));
                if course == Course::UndoSet {
                    return self.undo_set(operation);
                }
                for SetInstall { directory, install } in &operation.set {
                    let path = join(directory, &install.target);
                    self.leave(match self.holds_new(directory, install)? {
                        true => format!("{path} keeps its new content, and its backup stays"),
                        false => format!("{path} is another file since"),
                    });
                }
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
        let volume = self.editor.volume();
        let lost = Clusters::of(Health::check_whole(&volume)?.lost.iter().copied());
        for new in &operation.directories {
            let path = new.path();
            match self.entry(&new.parent, &new.name)? {
                Some(entry) if new.is_of(&entry) => continue,
                Some(_) => return impossible(format!("{path} is something else since")),
                None => {}
            }
            let chain = volume.table().chain(new.cluster).unwrap_or_default();
            let bytes = Pieces::new(volume.source(), volume.extents_of(&chain))?;
            let length = Some(bytes.size()).filter(|length| *length <= MAX_DIRECTORY).map(|length| length as usize);
            let is_whole =
                match length.filter(|_| chain.iter().flat_map(|run| run.clusters()).all(|c| lost.contains(c))) {
                    Some(length) if length > 0 => {
                        let expected = steps::begin_of_directory(self.editor, operation, new, length)?;
                        read_vec(&bytes, 0, length)? == expected
                    }
                    _ => false,
                };
            if !is_whole {
                return impossible(format!("the directory {path} is not whole on the medium"));
            }
        }
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
                .advise("run `recover` without --back: it is finished"))
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
        Ok(intent::others_in_menu(&self.editor.volume(), &self.record.operation)? != *menu)
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
        self.undo_set(operation)
    }

    /// The files that changed with the image get their old contents back; the directories go that were made for them.
    fn undo_set(&mut self, operation: &Operation) -> Result<()> {
        for SetInstall { directory, install } in operation.set.iter().rev() {
            self.undo_install(directory, install)?;
        }
        for new in operation.directories.iter().rev() {
            self.undo_directory(new)?;
        }
        Ok(())
    }

    /// A directory goes that was made, unless somebody has put something into it.
    fn undo_directory(&mut self, new: &NewDirectory) -> Result<()> {
        let Some(entry) = self.entry(&new.parent, &new.name)?.filter(|entry| new.is_of(entry)) else { return Ok(()) };
        let path = new.path();
        let directory = self.editor.directory(&path)?;
        if directory.entries.iter().any(|entry| !entry.is_dot()) {
            self.leave(format!("the directory {path} stays: somebody has put something into it"));
            return Ok(());
        }
        self.editor.remove(&new.parent, &entry)?;
        self.editor.free(&directory.runs)?;
        self.editor.barrier()?;
        self.done.actions.push(Action::RemoveDirectory(path));
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
        Ok(Health::check_whole(&self.editor.volume())?.problems.iter().any(|p| p.kind == ProblemKind::Shared))
    }

    fn leave(&mut self, why: String) {
        self.done.actions.push(Action::LeaveOut { why });
    }

    fn entry(&self, dir: &str, name: &str) -> Result<Option<Entry>> {
        // Whoever took the directory away took the files with it.
        let directory = self.editor.volume().find_directory(dir)?;
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
        let volume = self.editor.volume();
        let bytes = Pieces::new(volume.source(), volume.extents_of(chain))?;
        Ok(content.sha256.as_deref() == Some(&hex::encode(sha256_of(&bytes, u64::from(content.bytes))?)))
    }

    /// Whether a file holds these bytes. What nobody knows the hash of, it does not hold.
    fn holds_sha256(&self, entry: &Entry, expected: Option<&str>) -> Result<bool> {
        let Some(expected) = expected else { return Ok(false) };
        let volume = self.editor.volume();
        let bytes = match volume.file(entry) {
            Err(e) if e.code().is_bad_content() => return Ok(false),
            bytes => bytes?,
        };
        Ok(hex::encode(sha256_of(&bytes, bytes.size())?) == expected)
    }
}
