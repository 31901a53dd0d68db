//! What boots in every state between two steps of a plan, and an order of the steps in which that is always the old
//! image or the new one.
//!
//! Files leave the menu one after the other, and after each write the power may go. So the directory is followed
//! through every state that a plan takes it through, a rename's with both names included, and each state goes through
//! the boot prediction in every scenario: the variables as they are, none, and none of the one-shot ones any more. In
//! each of them the board has to start what it starts today, until it starts the new image, and that from then on.
//!
//! In one scenario systemd-boot takes the first entry by an order that does not depend on which others are there. So
//! taking away what does not start changes nothing, which gives the rule: what would win over the new image once it is
//! in place, and starts nowhere today, leaves before the commit; everything else leaves after it, what starts today
//! last.

use crate::block::ReadAt;
use crate::boot::{EntryKind, Prediction, UkiFile};
use crate::esp::{EspFile, FileKind, Inventory, Predictions};
use crate::fat::same_name;
use crate::surgery::Rename;
use std::collections::HashSet;
use std::fmt;
use std::rc::Rc;

/// The renames of a plan in an order that is safe.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    /// Those before the commit.
    pub(super) before: Vec<Rename>,
    /// Those after it.
    pub(super) after: Vec<Rename>,
}

/// The commit of a plan: `target` gets the new image.
pub(super) struct Commit<'c> {
    /// The file, as systemd-boot sees it with the new image.
    pub(super) target: &'c UkiFile,
    /// The name of its old content, if it exists.
    pub(super) backup: Option<&'c str>,
    /// The file that the content is taken from and whose name goes, for a restore.
    pub(super) from_file: Option<&'c str>,
}

/// Finds an order for the renames of a swap or a restore: as few as possible before the commit, and else as they are
/// given. Deletions follow at last.
///
/// # Errors
/// The first state for which there is no way round: what would start there.
pub(super) fn sequence<S: ReadAt>(
    esp: &Inventory<S>,
    commit: &Commit<'_>,
    renames: Vec<Rename>,
    delete: &[String],
) -> Result<Sequence, UnsafeState> {
    let mut rest = renames;
    let mut before: Vec<Rename> = Vec::new();
    let mut states = loop {
        let mut states = States::new(esp);
        for rename in &before {
            states.rename(rename)?;
        }
        states.undone(&before)?;
        let Err(fault) = states.commit(commit) else { break states };
        // What wins over the new image has to leave before it comes.
        let Some(at) = rest.iter().position(|r| Some(&r.from) == fault.selected.as_ref()) else { return Err(fault) };
        before.push(rest.remove(at));
    };
    let mut after = Vec::new();
    while !rest.is_empty() {
        let mut first_fault = None;
        let safe = rest.iter().position(|rename| {
            let mut next = states.clone();
            match next.rename(rename) {
                Ok(()) => {
                    states = next;
                    true
                }
                Err(fault) => {
                    first_fault.get_or_insert(fault);
                    false
                }
            }
        });
        match (safe, first_fault) {
            (Some(at), _) => after.push(rest.remove(at)),
            (None, Some(fault)) => return Err(fault),
            (None, None) => break,
        }
    }
    for name in delete {
        states.remove(name)?;
    }
    Ok(Sequence { before, after })
}

/// Makes sure that every state of a prune starts what starts today. Where that is nothing it may start something, and
/// that from then on.
///
/// # Errors
/// The first state that does not.
pub(super) fn keeps_booting<S: ReadAt>(
    esp: &Inventory<S>,
    renames: &[Rename],
    delete: &[String],
) -> Result<(), UnsafeState> {
    let mut states = States { may_wake: true, ..States::new(esp) };
    for rename in renames {
        states.rename(rename)?;
    }
    delete.iter().try_for_each(|name| states.remove(name))
}

/// A state in which the board would start something else than it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnsafeState {
    /// What has just been done.
    step: String,
    /// In which scenario: `without EFI variables`.
    when: &'static str,
    /// The file in `EFI/Linux` that is selected then, dead or alive.
    selected: Option<String>,
    starts: String,
    instead_of: String,
}

impl fmt::Display for UnsafeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, when, starts, instead_of, .. } = self;
        write!(f, "{step}, the board would start {starts} instead of {instead_of} {when}")
    }
}

/// The content of a file: as it was in the beginning, by its place in the directory, or new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    Present(usize),
    New,
}

/// A file in `EFI/Linux`.
#[derive(Debug, Clone)]
struct Held {
    name: String,
    image: Image,
    /// What systemd-boot sees of the content.
    content: Rc<UkiFile>,
    /// Listed, and would not start.
    dead: bool,
    /// It can change what starts ([`Inventory::may_start`]).
    counts: bool,
}

impl Held {
    /// As systemd-boot sees it.
    fn seen(&self) -> UkiFile {
        UkiFile { name: self.name.clone(), ..(*self.content).clone() }
    }
}

/// What a board starts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    /// No entry, or one that cannot start.
    Nothing,
    /// A UKI of `EFI/Linux`.
    Uki { image: Image, profile: u32 },
    /// Another entry, and the file in `EFI/Linux` that it names, if it does.
    Entry { id: String, image: Option<Image> },
}

impl Start {
    const NEW: Self = Self::Uki { image: Image::New, profile: 0 };
}

/// What has to start in one scenario.
#[derive(Debug, Clone)]
struct Expected {
    when: &'static str,
    /// What starts today, and what it is called.
    today: Start,
    title: String,
    /// The new image starts by now.
    is_new: bool,
}

/// `EFI/Linux` at a moment between two steps.
struct States<'e, S> {
    esp: &'e Inventory<S>,
    files: Vec<Held>,
    expected: Vec<Expected>,
    committed: bool,
    /// Where nothing starts today, something may.
    may_wake: bool,
}

impl<S> Clone for States<'_, S> {
    fn clone(&self) -> Self {
        Self {
            esp: self.esp,
            files: self.files.clone(),
            expected: self.expected.clone(),
            committed: self.committed,
            may_wake: self.may_wake,
        }
    }
}

impl<'e, S: ReadAt> States<'e, S> {
    fn new(esp: &'e Inventory<S>) -> Self {
        let broken = esp.files.iter().filter(|f| f.kind == FileKind::Broken);
        let broken: HashSet<&str> = broken.map(EspFile::name).collect();
        let held = |(i, file): (usize, &UkiFile)| Held {
            name: file.name.clone(),
            image: Image::Present(i),
            content: Rc::new(file.clone()),
            dead: broken.contains(file.name.as_str()),
            counts: esp.may_start(file),
        };
        let files: Vec<Held> = esp.as_seen().iter().enumerate().map(held).collect();
        let mut states = Self { esp, files, expected: Vec::new(), committed: false, may_wake: false };
        let today = states.predict();
        states.expected = today
            .all()
            .map(|(prediction, when)| Expected {
                when,
                today: states.start(prediction),
                title: title(prediction),
                is_new: false,
            })
            .collect();
        states
    }

    /// The new name appears, then the old one goes. Where both stand in one sector it is one step.
    fn rename(&mut self, rename: &Rename) -> Result<(), UnsafeState> {
        let Some(at) = self.place(&rename.from) else { return Ok(()) };
        let copy = self.named(&rename.to, &self.files[at]);
        self.files.push(copy);
        self.check(|| format!("with both {} and {} there", rename.from, rename.to))?;
        self.files.remove(at);
        self.check(|| format!("after {} left the menu", rename.from))
    }

    /// These renames taken back, the last one first. A file that comes back may stand anywhere in its directory, and
    /// between equal entries the one that stands first starts: so the first place and the last are tried.
    fn undone(&self, renames: &[Rename]) -> Result<(), UnsafeState> {
        for first in [true, false] {
            let mut states = self.clone();
            for rename in renames.iter().rev() {
                let Some(at) = states.place(&rename.to) else { continue };
                let back = states.files.remove(at);
                let back = states.named(&rename.from, &back);
                let place = if first { 0 } else { states.files.len() };
                states.files.insert(place, back);
                states.check(|| format!("if the power goes before the commit and {} is put back", rename.from))?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), UnsafeState> {
        let Some(at) = self.place(name) else { return Ok(()) };
        let gone = self.files.remove(at);
        // No state of its own, to whoever starts what is left. There may be a thousand backups.
        if !gone.counts {
            return Ok(());
        }
        self.check(|| format!("after {name} was deleted"))
    }

    /// The backup's name appears, with the new content or, where the two do not stand in one sector, with the old one.
    /// Then the target holds the new content. At last, for a restore, the name goes that it had.
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), UnsafeState> {
        let target = commit.target.name.as_str();
        let content = Rc::new(commit.target.clone());
        let new = Held { name: target.to_owned(), image: Image::New, content, dead: false, counts: true };
        match self.place(target) {
            None => {
                // Its entry may stand before all others.
                let mut first = self.clone();
                first.files.insert(0, new.clone());
                first.committed = true;
                first.check(|| format!("with the new image in place as {target}"))?;
                self.files.push(new);
            }
            Some(at) => {
                let old = self.files[at].clone();
                if let Some(backup) = commit.backup {
                    let place = self.files.len();
                    self.files.push(self.named(backup, &new));
                    self.check(|| format!("with {backup} prepared"))?;
                    self.files[place] = self.named(backup, &old);
                    self.check(|| format!("with {backup} prepared"))?;
                }
                self.files[at] = new;
            }
        }
        self.committed = true;
        self.check(|| format!("with the new image in place as {target}"))?;
        if let Some(at) = commit.from_file.and_then(|name| self.place(name)) {
            self.files.remove(at);
            self.check(|| format!("with the new image in place as {target}"))?;
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.files.iter().position(|f| f.name == name)
    }

    /// The same file under another name.
    fn named(&self, name: &str, file: &Held) -> Held {
        let mut file = Held { name: name.to_owned(), ..file.clone() };
        file.counts = self.esp.may_start(&file.seen());
        file
    }

    /// Predicts this state in every scenario.
    fn predict(&self) -> Predictions {
        let linux: Vec<UkiFile> = self.files.iter().filter(|f| f.counts).map(Held::seen).collect();
        let predictions = self.esp.predict(&linux);
        debug_assert!(self.starts_the_same_with_all(&predictions), "a file that does not count changes what starts");
        predictions
    }

    /// Whether the files that were left out of these predictions change nothing.
    fn starts_the_same_with_all(&self, without: &Predictions) -> bool {
        let with = self.esp.predict(&self.files.iter().map(Held::seen).collect::<Vec<_>>());
        with.all().zip(without.all()).all(|((a, _), (b, _))| self.start(a) == self.start(b) && title(a) == title(b))
    }

    /// Holds this state against what has to start.
    fn check(&mut self, step: impl Fn() -> String) -> Result<(), UnsafeState> {
        let predictions = self.predict();
        for (i, (prediction, _)) in predictions.all().enumerate() {
            let start = self.start(prediction);
            let Some(expected) = self.expected.get_mut(i) else { continue };
            if start == Start::NEW && self.committed {
                expected.is_new = true;
            } else if self.may_wake && expected.today == Start::Nothing && start != Start::Nothing {
                (expected.today, expected.title) = (start, title(prediction));
            } else if expected.is_new || start != expected.today {
                return Err(UnsafeState {
                    step: step(),
                    when: expected.when,
                    selected: prediction.selected_file().map(str::to_owned),
                    starts: match (start, prediction.selected_entry()) {
                        (Start::Nothing, _) => "nothing".into(),
                        (_, Some(entry)) if entry.xbootldr || entry.file.is_none() => self.esp.entry_place(entry),
                        _ => title(prediction),
                    },
                    instead_of: if expected.is_new { "the new image".into() } else { expected.title.clone() },
                });
            }
        }
        Ok(())
    }

    fn start(&self, prediction: &Prediction) -> Start {
        let Some(entry) = prediction.selected_entry() else { return Start::Nothing };
        let held = |name: &str| self.files.iter().find(|f| same_name(&f.name, name));
        if entry.kind == EntryKind::Uki
            && !entry.xbootldr
            && let Some(file) = entry.file.as_deref().and_then(held)
        {
            return match file.dead {
                true => Start::Nothing,
                false => Start::Uki { image: file.image, profile: entry.profile },
            };
        }
        let named = entry.path.as_deref().filter(|_| !entry.xbootldr).and_then(crate::esp::linux_file).and_then(held);
        Start::Entry { id: entry.id.clone(), image: named.map(|f| f.image) }
    }
}

/// What somebody would call what starts.
fn title(prediction: &Prediction) -> String {
    match prediction.selected_entry() {
        None => "nothing".to_owned(),
        Some(entry) if entry.profile != 0 => entry.id.clone(),
        Some(entry) => entry.file.clone().unwrap_or_else(|| entry.id.clone()),
    }
}
