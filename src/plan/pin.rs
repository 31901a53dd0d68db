//! The plan for a pin: the `default` line of `loader/loader.conf`, which needs no EFI variable.
//!
//! It counts only where no variable asks for something else, and it names an entry by its id, which other rules than
//! those of today's systemd-boot may spell otherwise. So the file as it would be goes through the boot prediction in
//! every scenario, before anything is written.

use super::in_place::SCENARIOS;
use super::refuse_unreached;
use crate::block::ReadAt;
use crate::boot::{Counter, EntryKind, MenuEntry, Prediction, glob, loader_conf, near_miss};
use crate::bootpath::{BootScenario, Located, ProgramKind};
use crate::esp::{FileKind, Inventory, backup_of, linux_file};
use crate::fat::same_name;
use crate::surgery::{FileStep, Order};
use crate::uki::cmdline::{WIPE, wipes};
use crate::{Code, Error, Result};
use serde::Serialize;

/// Where systemd-boot reads its settings, on the partition that it was started from.
const DIRECTORY: &str = "loader";
const FILE: &str = "loader.conf";

/// What a pin will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PinPlan {
    /// The file: `loader/loader.conf`.
    pub file: String,
    /// The entry that the line asks for, by its id; `null` for `--clear`.
    pub entry: Option<String>,
    /// The value of the line `default` then: the entry's id, or the pattern that was given.
    pub default: Option<String>,
    /// The values of the lines `default` now.
    pub default_before: Vec<String>,
    /// Whether the file is made.
    pub creates: bool,
    /// Bytes that are written for the file's new content.
    pub bytes_to_write: u64,
    /// What the board starts now.
    pub boot_before: Option<String>,
    /// What it starts then.
    pub boot_after: Option<String>,
    /// The same without EFI variables, now.
    pub boot_before_without_variables: Option<String>,
    /// And then.
    pub boot_after_without_variables: Option<String>,
    /// Why it starts that.
    pub reason: String,
    /// What somebody should know.
    pub warnings: Vec<String>,
    /// What the file holds then; `None` where it stays as it is.
    #[serde(skip)]
    text: Option<Vec<u8>>,
    #[serde(skip)]
    order: Order,
}

/// What the line is to ask for.
struct Wanted {
    pattern: String,
    /// The one entry, where it was named; with a pattern it is the first that fits, in each scenario.
    only: Option<Identity>,
}

/// An entry, whatever a systemd-boot makes of its id.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    kind: EntryKind,
    xbootldr: bool,
    name: String,
    profile: u32,
}

impl Identity {
    fn of(entry: &MenuEntry) -> Self {
        let name = entry.path.as_ref().filter(|_| entry.kind == EntryKind::Uki).unwrap_or(&entry.id);
        let counter = [".efi", ".conf"].iter().find_map(|suffix| Counter::parse(name, suffix));
        let name = counter.map_or_else(|| name.clone(), |c| c.id).to_lowercase();
        Self { kind: entry.kind, xbootldr: entry.xbootldr, name, profile: entry.profile }
    }
}

impl PinPlan {
    /// Plans the line for an entry (its id, its file, or a pattern as systemd-boot understands it), or with `None` that
    /// there is none. `refused` are images that the firmware refuses to start, with the reasons; `time` is now, in
    /// seconds since 1970 UTC.
    ///
    /// # Errors
    /// [`crate::Kind::Usage`] when nothing in the menu fits; [`Code::WouldNotBoot`] when the line would not do what it
    /// is for, in any scenario, with what would happen instead; what the source reports.
    pub fn make<S: ReadAt>(
        esp: &Inventory<S>,
        entry: Option<&str>,
        refused: &[(String, String)],
        time: u64,
    ) -> Result<Self> {
        esp.refuse_unreadable()?;
        if esp.context.is_xbootldr || !esp.is_read(BootScenario::Later) {
            return Err(would_not(format!(
                "no systemd-boot is started from this partition, and {DIRECTORY}/{FILE} counts only there"
            ))
            .advise("`status` shows what is started, from which partition; --partition names another one"));
        }
        let mut warnings = refuse_unreached(esp)?;
        let named = esp.volume.find(&format!("{DIRECTORY}/{FILE}"))?;
        if named.as_ref().is_some_and(crate::fat::Entry::is_dir) {
            return Err(Error::refused(format!("{DIRECTORY}/{FILE} is a directory"))
                .advise("systemd-boot reads a file of that name: give the directory another one"));
        }
        let wanted = entry.map(|entry| wanted(esp, entry)).transpose()?;
        let pattern = wanted.as_ref().map(|w| w.pattern.as_str());
        let now = esp.loader_conf().unwrap_or_default();
        let default_before = loader_conf::defaults(now);
        let is_there = match (&default_before[..], pattern) {
            ([only], Some(pattern)) => only.eq_ignore_ascii_case(pattern),
            (lines, pattern) => lines.is_empty() && pattern.is_none(),
        };
        let text = if is_there { now.to_vec() } else { loader_conf::with_default(now, pattern) };
        // A file on FAT without a byte has no cluster either.
        let text = if text.is_empty() && !is_there { b"\n".to_vec() } else { text };
        let mut chosen = None;
        for (scenario, when) in SCENARIOS.iter().filter(|(scenario, _)| esp.is_read(*scenario)) {
            let view = World { esp, scenario: *scenario, when, refused };
            match &wanted {
                Some(wanted) => {
                    let entry = view.starts_wanted(&text, wanted)?;
                    if *scenario == BootScenario::Later {
                        chosen = Some(entry);
                    }
                }
                None => view.starts_something(&text)?,
            }
        }
        let starts = |scenario: BootScenario, text: Option<&[u8]>| -> (Option<String>, String) {
            let (runs, prediction) = match text {
                None => (esp.runs(scenario).1, None),
                Some(text) => (None, esp.starts_with(scenario, text).into_iter().next().map(|s| s.prediction)),
            };
            let prediction = runs.or(prediction).filter(|_| esp.is_read(scenario));
            prediction.map_or((None, String::new()), |p| (name_of(esp, &p), p.reason))
        };
        let (boot_after, reason) = starts(BootScenario::Next, Some(&text));
        let (without, _) = starts(BootScenario::Reset, Some(&text));
        warnings.extend(esp.predictions.next.loader.caveat());
        if let (Some(Wanted { only: Some(_), pattern }), Some(entry)) = (&wanted, &chosen) {
            let menu = &esp.predictions.next.menu;
            let others =
                menu.iter().filter(|e| glob::matches(pattern, &e.id) && Identity::of(e) != Identity::of(entry));
            warnings.extend(others.map(|other| {
                format!("{} fits the line, too, and stands further down in the menu", esp.entry_place(other))
            }));
        }
        let target = named.map_or_else(|| FILE.to_owned(), |entry| entry.name);
        let creates = esp.loader_conf().is_none();
        let beside = esp.volume.list(DIRECTORY)?.unwrap_or_default();
        let backup = backup_of(&target, time, |name| beside.iter().any(|e| e.is_named(name)));
        let order = Order {
            command: "pin".to_owned(),
            time,
            directory: DIRECTORY.to_owned(),
            before: Vec::new(),
            target,
            backup: (!creates).then(|| backup.clone()),
            // Its only news is the line, which the report has.
            directories: Vec::new(),
            set: Vec::new(),
            after: if creates { Vec::new() } else { vec![FileStep::Remove(backup)] },
        };
        Ok(Self {
            file: format!("{DIRECTORY}/{FILE}"),
            entry: chosen.map(|e| e.id),
            default: pattern.map(str::to_owned),
            default_before,
            creates: creates && !is_there,
            bytes_to_write: if is_there { 0 } else { text.len() as u64 },
            boot_before: starts(BootScenario::Next, None).0,
            boot_after,
            boot_before_without_variables: starts(BootScenario::Reset, None).0,
            boot_after_without_variables: without,
            reason,
            warnings,
            text: (!is_there).then_some(text),
            order,
        })
    }

    /// What the file holds then; `None` where it stays as it is.
    #[must_use]
    pub fn text(&self) -> Option<&[u8]> {
        self.text.as_deref()
    }

    /// The steps that carry the plan out.
    #[must_use]
    pub fn order(&self) -> &Order {
        &self.order
    }
}

fn would_not(why: String) -> Error {
    Error::new(Code::WouldNotBoot, why)
}

/// What somebody would call what a menu starts.
fn name_of<S: ReadAt>(esp: &Inventory<S>, prediction: &Prediction) -> Option<String> {
    let entry = prediction.selected_entry()?;
    prediction.selected_file().map(str::to_owned).or_else(|| Some(esp.entry_place(entry)))
}

/// The entry that is meant, and the line for it.
fn wanted<S: ReadAt>(esp: &Inventory<S>, entry: &str) -> Result<Wanted> {
    let later = esp.runs(BootScenario::Later).1;
    let menu = later.as_ref().map_or(&[][..], |prediction| &prediction.menu);
    let name = linux_file(entry).unwrap_or(entry);
    let by_id = menu.iter().find(|e| e.id.eq_ignore_ascii_case(name));
    let by_file = || menu.iter().find(|e| e.profile == 0 && e.file.as_deref().is_some_and(|f| same_name(f, name)));
    if let Some(found) = by_id.or_else(by_file) {
        return Ok(Wanted { pattern: literal(&found.id), only: Some(Identity::of(found)) });
    }
    let pattern = entry.to_ascii_lowercase();
    // A line end would end the line.
    if !pattern.contains(char::is_control) && menu.iter().any(|e| glob::matches(&pattern, &e.id)) {
        return Ok(Wanted { pattern: entry.to_owned(), only: None });
    }
    let what = Error::usage(format!("no entry of the boot menu is called {entry}, or fits it as a pattern"));
    Err(match (near_miss(menu, &pattern), menu.is_empty()) {
        (Some((id, _)), _) => what.advise(format!("the entry is called {id}")),
        (None, true) => what.advise("the menu is empty: look at `status`"),
        (None, false) => {
            let ids: Vec<&str> = menu.iter().map(|e| e.id.as_str()).take(16).collect();
            what.advise(format!("the entries are: {}", ids.join(", ")))
        }
    })
}

/// A pattern for this id. systemd-boot makes the line lower case and not the id, where that has kept its case.
fn literal(id: &str) -> String {
    let mut pattern = String::new();
    for c in id.chars() {
        match c {
            '*' | '?' | '[' | '\\' => pattern.extend(['\\', c]),
            'A'..='Z' => pattern.push('?'),
            c => pattern.push(c),
        }
    }
    pattern
}

/// The starts of one scenario.
struct World<'a, S> {
    esp: &'a Inventory<S>,
    scenario: BootScenario,
    when: &'static str,
    refused: &'a [(String, String)],
}

impl<S: ReadAt> World<'_, S> {
    /// Makes sure that the entry starts which is wanted, also when its tries are counted, and that it is one to start.
    fn starts_wanted(&self, text: &[u8], wanted: &Wanted) -> Result<MenuEntry> {
        let mut first = None;
        for (n, start) in self.esp.starts_with(self.scenario, text).iter().enumerate() {
            let prediction = &start.prediction;
            let pattern = wanted.pattern.to_ascii_lowercase();
            let fits = prediction.menu.iter().find(|e| glob::matches(&pattern, &e.id));
            let meant = wanted.only.clone().or_else(|| first.as_ref().or(fits).map(Identity::of));
            match prediction.selected_entry() {
                Some(entry) if !prediction.enrolls_keys && Some(Identity::of(entry)) == meant => {
                    if n == 0 {
                        self.refuse_unfit(prediction, entry)?;
                        first = Some(entry.clone());
                    }
                }
                // What another scenario is for.
                _ if first.as_ref().is_some_and(|e| e.tries_left.is_none()) => break,
                _ if n > 0 => {
                    let starts = name_of(self.esp, prediction).unwrap_or_else(|| "nothing".to_owned());
                    return Err(would_not(format!(
                        "systemd-boot counts the starts of this entry in its name: start {} from then on starts \
                         {starts} ({})",
                        n + 1,
                        prediction.reason
                    ))
                    .advise(
                        "let the system that runs mark it as good first (systemd-bless-boot), which takes the \
                         counter off the name; or give a pattern that fits the name with any counter",
                    ));
                }
                _ => return Err(self.instead(prediction)),
            }
        }
        first.ok_or_else(|| Error::new(Code::Bug, "a prediction without a start"))
    }

    /// Makes sure that the board starts what it starts today, or something that is fit to.
    fn starts_something(&self, text: &[u8]) -> Result<()> {
        let today = self.esp.runs(self.scenario).1.and_then(|p| p.selected_entry().map(Identity::of));
        let Some(start) = self.esp.starts_with(self.scenario, text).into_iter().next() else { return Ok(()) };
        match start.prediction.selected_entry() {
            Some(entry) if Some(Identity::of(entry)) == today => Ok(()),
            Some(entry) => self.refuse_unfit(&start.prediction, entry),
            None if today.is_none() => Ok(()),
            None => Err(self.instead(&start.prediction)),
        }
    }

    /// What would happen instead, and what decides that.
    fn instead(&self, prediction: &Prediction) -> Error {
        let starts = match name_of(self.esp, prediction) {
            _ if prediction.enrolls_keys => "Secure Boot keys would be enrolled".to_owned(),
            Some(name) => format!("{name} would start"),
            None => "nothing would start".to_owned(),
        };
        let reason = &prediction.reason;
        let winner = reason.rsplit_once("next in line, ").map_or(reason.as_str(), |(_, winner)| winner);
        let advice = match () {
            () if winner.contains(": falls back to") => "look at `status`: it shows the menu, what starts, and why",
            () if winner.starts_with("LoaderEntryOneShot") => {
                "that variable is used up at the next start: restart the board first"
            }
            () if winner.starts_with("LoaderEntry") => {
                "the variable wins over the file: delete it, or point it at this entry, where the firmware lets the \
                 system do that; else put the image under the name that starts with `swap`"
            }
            () if winner.starts_with("loader.conf preferred") => {
                "take the line `preferred` out of loader/loader.conf on the mounted volume first"
            }
            () => "look at `status`: it shows the menu, what starts, and why",
        };
        would_not(format!("{} {starts} all the same: {reason}", self.when)).advise(advice)
    }

    /// Refuses an entry that nobody can mean to start for good.
    fn refuse_unfit(&self, prediction: &Prediction, entry: &MenuEntry) -> Result<()> {
        let refuse = |why: String| {
            would_not(format!("{} the board would start {} and {why}", self.when, entry.id))
                .advise("choose another entry of the menu: `status` shows them")
        };
        let own = entry.options.as_deref().filter(|_| entry.kind == EntryKind::Uki);
        if let Some(what) = prediction.load_options.as_deref().and_then(wipes).or_else(|| own.and_then(wipes)) {
            return Err(refuse(format!("wipe: {WIPE}={what} is in the command line that it gets")));
        }
        let Some(path) = &entry.path else {
            return match entry.kind {
                EntryKind::Uki | EntryKind::Type1 | EntryKind::OtherLoader => Ok(()),
                EntryKind::Action | EntryKind::EnrollKeys => Err(refuse("start no system".to_owned())),
            };
        };
        if let Some((_, why)) = self.refused.iter().find(|(name, _)| Some(name) == entry.file.as_ref()) {
            return Err(refuse(format!("the firmware refuses it: {why}")));
        }
        let broken = entry.file.as_deref().filter(|_| !entry.xbootldr).and_then(|name| self.esp.file(name));
        if let Some(file) = broken.filter(|file| file.kind == FileKind::Broken) {
            return Err(refuse(format!("fail: {}", file.trouble.as_deref().unwrap_or("it is no whole image"))));
        }
        let at = Located { volume: self.esp.volume_of(entry), path: path.clone() };
        match self.esp.program_there(&at) {
            Ok(Some(program)) if program.kind != ProgramKind::Addon => Ok(()),
            Ok(Some(_)) => Err(refuse("fail: it has no kernel (.linux section)".to_owned())),
            Ok(None) => Err(refuse(format!("fail: {path} is not there"))),
            Err(why) => Err(refuse(format!("fail: {why}"))),
        }
    }
}
