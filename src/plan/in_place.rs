//! The plan for an image that starts by its path: it keeps its name, gets the new content, and the old one lies beside
//! it.
//!
//! Nothing else changes its name, so there is one order of the steps. Each state between them goes through the whole
//! way of the boot, from the firmware on, in every scenario: what starts is what starts today or, behind the commit,
//! the new image.

use super::reach::refuse_xbootldr;
use super::swap::{another_system, lockdown, refuse_wiping_options};
use super::{NewImage, SwapOptions, SwapPlan, long_names};
use crate::block::ReadAt;
use crate::boot::EntryKind;
use crate::bootpath::{BootScenario, Located, Program, ProgramKind};
use crate::esp::{
    Altered, Content, EspFile, FileKind, Inventory, Place, Runs, backup_of, disabled_of, without_counter,
};
use crate::fat::same_name;
use crate::pe::Arch;
use crate::uki::cmdline;
use crate::{Code, Error, Result};
use std::collections::BTreeSet;
use std::rc::Rc;

/// The scenarios that a plan has to hold in.
pub(super) const SCENARIOS: [(BootScenario, &str); 3] = [
    (BootScenario::Next, "at the next start"),
    (BootScenario::Later, "at the starts after the next one"),
    (BootScenario::Reset, "without EFI variables"),
];

/// The image that a swap or restore replaces in its place: what the way of the boot ends in, unless that is an image of
/// the menu in `EFI/Linux` of this volume. `target` is what `--target` says: a path has to be that of the image that
/// starts; a bare name is one in `EFI/Linux`.
///
/// # Errors
/// [`crate::Kind::Usage`] for a path that cannot be one; [`Code::WouldNotBoot`] when the board starts something else,
/// or what is on the Extended Boot Loader Partition is not known; what the source reports.
pub fn place_of<S: ReadAt>(esp: &Inventory<S>, target: Option<&str>) -> Result<Option<Place>> {
    let place = esp.place()?;
    let path = target.map(path_of).transpose()?.flatten();
    let place = match (target, path, place) {
        (None, _, place) => place,
        // A bare name.
        (Some(_), None, _) => None,
        (Some(_), Some(path), Some(place)) if is_path_of(&place, &path) || place.is_at(&path, esp) => Some(place),
        (Some(_), Some(path), _) if crate::esp::linux_file(&path).is_some() => None,
        (Some(target), Some(_), place) => {
            let starts = match place {
                Some(place) => place.words(),
                None => match esp.runs(BootScenario::Later).0 {
                    Runs::Image { at, .. } => esp.describe_place(&at),
                    Runs::Other(what) => what,
                    Runs::Nothing(why) => format!("nothing ({why})"),
                    Runs::Unknown(why) => format!("something that is not known ({why})"),
                    Runs::Enrolment => "the enrolment of Secure Boot keys".to_owned(),
                },
            };
            let what = format!("the board does not start {target}: it starts {starts}");
            return Err(Error::new(Code::WouldNotBoot, what).advise(
                "leave --target out: what starts is replaced, wherever it lies; `status` shows the way to it",
            ));
        }
    };
    if place.is_some() {
        refuse_xbootldr(esp)?;
    }
    Ok(place)
}

/// A path from the root, with slashes and none in front; `None` for a bare name.
fn path_of(target: &str) -> Result<Option<String>> {
    if !target.contains(['/', '\\']) {
        return Ok(None);
    }
    let parts: Vec<&str> = target.split(['/', '\\']).filter(|part| !part.is_empty()).collect();
    for part in &parts {
        crate::fat::check_long_name(part).map_err(|e| Error::usage(format!("--target {target}: {e}")))?;
    }
    if parts.is_empty() {
        return Err(Error::usage(format!("--target {target}: that names no file")));
    }
    Ok(Some(parts.join("/")))
}

fn is_path_of(place: &Place, path: &str) -> bool {
    match path.rsplit_once('/') {
        Some((directory, name)) => same_name(directory, &place.directory) && place.image.entry.is_named(name),
        None => place.directory.is_empty() && place.image.entry.is_named(path),
    }
}

impl SwapPlan {
    /// Plans a swap or a restore of an image that starts by its path.
    ///
    /// # Errors
    /// [`Code::WouldNotBoot`] when the board would not start the new image, or something else at a moment in between.
    pub fn in_place<S: ReadAt>(
        esp: &Inventory<S>,
        place: &Place,
        image: &NewImage<'_>,
        options: &SwapOptions,
    ) -> Result<Self> {
        esp.refuse_unreadable()?;
        let name = place.name();
        let words = place.words();
        let refuse = |why: String| Error::new(Code::WouldNotBoot, why);
        if !name.to_ascii_lowercase().ends_with(".efi") {
            return Err(refuse(format!(
                "the board starts {words}, whose name does not end in .efi: a backup of it would not be recognised as \
                 one"
            ))
            .advise("start it under a name that ends in .efi"));
        }
        if place.profile != 0 {
            return Err(refuse(format!(
                "the board starts profile {} of {words}: with another image that may be something else",
                place.profile
            ))
            .advise("let the entry start the image itself"));
        }
        let new = program_of(image)?;
        if new.kind != ProgramKind::Uki {
            return Err(refuse(format!("the new image is {new}, and {words} starts as a UKI"))
                .advise("take an image with a kernel in it (a .linux section)"));
        }
        if new.machine != place.program.machine {
            let arch = |machine| {
                Arch::from_machine(machine).map_or_else(|| format!("machine 0x{machine:04x}"), |a| a.to_string())
            };
            return Err(refuse(format!(
                "the new image is for {}, and {words} for {}",
                arch(new.machine),
                arch(place.program.machine)
            ))
            .advise("take the image for the board's architecture"));
        }
        let counter = counter(esp, place);
        if let Some(why) = counter.as_ref().filter(|_| options.target.is_none()) {
            return Err(refuse(why.clone()).advise(
                "let the system that runs mark its start as good first (systemd-bless-boot), which takes the counter \
                    off the name",
            ));
        }

        let taken = |name: &str| place.entries.iter().any(|e| e.is_named(name));
        let backup = match place.image.kind {
            FileKind::Broken => disabled_of(name, options.time, taken),
            _ => backup_of(name, options.time, taken),
        };
        // Nothing may have another name here: whatever starts the image names it.
        long_names(place.sector_bytes, [backup.as_str(), name]).map_err(|e| {
            let what = format!("the name of {words} leaves no room for that of a backup: {}", e.message());
            Error::new(e.code(), what).advise(
                "nothing can be done under this name: let the image be started under a shorter one first (a copy of \
                    it, and a \
                 boot option or menu entry that names the copy)",
            )
        })?;
        let delete: Vec<String> = match options.keep_backups {
            None => Vec::new(),
            Some(keep) => {
                let mut old = place.backups();
                old.retain(|(file, _)| image.from_file.is_none_or(|from| !file.entry.is_named(from)));
                let new = usize::from(place.image.kind != FileKind::Broken);
                old.into_iter().skip(keep.saturating_sub(new)).map(|(file, _)| file.name().to_owned()).collect()
            }
        };
        let mut states = States::new(esp, place, image, new)?;
        let warnings = states.go_through(&backup, image.from_file, &delete).map_err(|fault| {
            refuse(fault).advise(
                "look at `status`: something else has to be moved out of the way \
             first",
            )
        })?;

        let mut handed = BTreeSet::new();
        for (scenario, _) in SCENARIOS {
            let (_, by_menu) = esp.runs_if(scenario, &states.altered());
            match by_menu {
                Some(prediction) if prediction.selected_entry().is_none_or(|e| e.kind != EntryKind::Type1) => {
                    refuse_wiping_options(&prediction)?;
                }
                _ => handed.extend(handed_cmdline(esp, scenario)?),
            }
        }

        let mut all = counter.into_iter().collect::<Vec<_>>();
        all.extend(esp.way(BootScenario::Later).in_doubt.iter().map(|doubt| {
            format!(
                "whether the board starts from here is not certain: {doubt}. What is said here holds for a start \
                from this partition"
            )
        }));
        all.extend(warnings);
        all.extend(handed);
        all.extend(lockdown(Some(&place.image), image.facts));
        all.extend(another_system(Some(&place.image), image.facts));
        let beside: Vec<&str> = place.companions.own(name).map(crate::uki::Companion::name).collect();
        if !beside.is_empty() {
            all.push(format!(
                "{name}.extra.d holds {}: systemd's stub adds them to the image (the check `addons` says how far they \
                    are verified)",
                beside.join(", ")
            ));
        }
        let backup = place.path(&backup);
        Ok(Self {
            target: place.path(name),
            backup: Some(backup.clone()),
            disable: Vec::new(),
            bytes_to_write: image.bytes_to_write,
            boot_before: (place.program.kind == ProgramKind::Uki).then(|| place.path(name)),
            boot_after: Some(place.path(name)),
            renames: Vec::new(),
            renames_before: 0,
            target_backup: Some(backup),
            delete: delete.iter().map(|name| place.path(name)).collect(),
            warnings: all,
            directory: place.directory.clone(),
            partition: place.partition.clone(),
        })
    }
}

/// What the new image is as a program.
fn program_of(image: &NewImage<'_>) -> Result<Program> {
    Program::recognise(image.source).map_err(|why| Error::rejected(format!("the new image is no EFI program: {why}")))
}

/// What somebody should know of the command line that a boot option or an entry passes to the image, which stays as
/// it is.
///
/// # Errors
/// [`Code::WouldNotBoot`] when the board would wipe itself.
fn handed_cmdline<S: ReadAt>(esp: &Inventory<S>, scenario: BootScenario) -> Result<Option<String>> {
    let Some(handed) = esp.handed_cmdline(scenario).filter(|handed| handed.counts != Some(false)) else {
        return Ok(None);
    };
    let unless = if handed.counts.is_none() { ", unless Secure Boot is on" } else { "" };
    if let Some(what) = cmdline::wipes(&handed.cmdline) {
        let what = format!(
            "{} passes a command line that replaces the image's own{unless}, and with it the board wipes ({}={what})",
            handed.by,
            cmdline::WIPE
        );
        return Err(Error::new(Code::WouldNotBoot, what).advise("take these options out of it first"));
    }
    Ok(Some(match cmdline::halt_if_installed(&handed.cmdline) {
        true => format!(
            "{} passes {}=1{unless}: an installed Talos stops for up to 70 minutes at every start",
            handed.by,
            cmdline::HALT_IF_INSTALLED
        ),
        false => format!(
            "{} passes the command line {:?}, which replaces the new image's own{unless}",
            handed.by, handed.cmdline
        ),
    }))
}

/// What boot counting makes of it, if the entry has a counter that leads elsewhere.
fn counter<S: ReadAt>(esp: &Inventory<S>, place: &Place) -> Option<String> {
    let (_, prediction) = esp.runs(BootScenario::Later);
    let entry = prediction.as_ref()?.selected_entry()?;
    if entry.tries_left.is_none() && without_counter(place.name()).is_none() {
        return None;
    }
    let path = entry.path.clone();
    let other = esp.starts(BootScenario::Later, esp.as_seen()).into_iter().find_map(|start| {
        let then = start.prediction.selected_entry()?;
        let same = then.xbootldr == entry.xbootldr && (then.path == path || then.id == entry.id);
        (!same).then(|| esp.entry_place(then))
    });
    // The file of an image is renamed at every start, and a name that changes is none to work on.
    let renamed = without_counter(place.name()).is_some() && entry.file.is_some();
    match (other, renamed) {
        (Some(other), _) => Some(format!(
            "systemd-boot counts the starts of {} (entry {}): without a mark that one was good, {other} starts once \
                the tries are used up",
            place.words(),
            entry.id
        )),
        (None, true) => Some(format!("systemd-boot counts the starts of {} in its name", place.words())),
        (None, false) => None,
    }
}

/// The files beside an image in its own place that `prune` deletes: of that image, disabled ones with `disabled`, and
/// the backups beyond the newest so many.
///
/// # Errors
/// [`Code::WouldNotBoot`] when one of them is started by anything; what the source reports.
pub(super) fn prunable<S: ReadAt>(
    esp: &Inventory<S>,
    place: &Place,
    disabled: bool,
    keep_backups: Option<usize>,
) -> Result<Vec<String>> {
    let is_disabled = |f: &&EspFile| f.kind == FileKind::Disabled && place.is_of_image(f);
    let disabled = place.aside.iter().filter(|f| disabled && is_disabled(f));
    let mut names: Vec<String> = disabled.map(|f| f.name().to_owned()).collect();
    // The last backup of an image that is broken is the way back.
    let least = usize::from(place.image.kind == FileKind::Broken);
    let old = keep_backups.map(|keep| place.backups().into_iter().skip(keep.max(least)));
    names.extend(old.into_iter().flatten().map(|(file, _)| file.name().to_owned()));
    let Some(bytes) = esp.open_at(&place.at)? else { return Ok(Vec::new()) };
    let content = Rc::new(Content { program: place.loads(), seen: esp.probe(place.name(), &bytes) });
    let held = std::iter::once((place.name().to_owned(), Some(Image::Old)));
    let held = held.chain(names.iter().map(|name| (name.clone(), Some(Image::Aside)))).collect();
    let mut states = States::of(esp, place, Rc::clone(&content), content, held);
    for name in &names {
        states.set(name, None);
        states
            .check(false, &format!("after {name} was deleted"))
            .map_err(|fault| Error::new(Code::WouldNotBoot, fault).advise("look at `status`"))?;
    }
    Ok(names)
}

/// The content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    Old,
    New,
    /// Another backup.
    Aside,
}

/// What a board starts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    Held(Image, u32),
    Elsewhere(Runs),
}

/// The directory at a moment between two steps.
struct States<'e, S> {
    esp: &'e Inventory<S>,
    place: &'e Place,
    old: Rc<Content>,
    new: Rc<Content>,
    today: Vec<Start>,
    /// In which scenarios the new image starts by now.
    is_new: [bool; 3],
    names: Vec<(String, Option<Image>)>,
}

impl<'e, S: ReadAt> States<'e, S> {
    fn new(esp: &'e Inventory<S>, place: &'e Place, image: &NewImage<'_>, new: Program) -> Result<Self> {
        let name = place.name();
        let Some(bytes) = esp.open_at(&place.at)? else {
            return Err(Error::refused(format!("{} is not there any more", place.words())).advise("run it again"));
        };
        let old = Content { program: place.loads(), seen: esp.probe(name, &bytes) };
        let new = Content { program: Ok(new), seen: esp.probe(name, image.source) };
        let mut names = vec![(name.to_owned(), Some(Image::Old))];
        names.extend(image.from_file.map(|from| (from.to_owned(), Some(Image::New))));
        Ok(Self::of(esp, place, Rc::new(old), Rc::new(new), names))
    }

    fn of(
        esp: &'e Inventory<S>,
        place: &'e Place,
        old: Rc<Content>,
        new: Rc<Content>,
        names: Vec<(String, Option<Image>)>,
    ) -> Self {
        let mut states = Self { esp, place, old, new, today: Vec::new(), is_new: [false; 3], names };
        states.today = SCENARIOS.iter().map(|(scenario, _)| states.start(*scenario).0).collect();
        states
    }

    /// Every state that the steps of the operation lead through. Returns what somebody should know of scenarios that
    /// start something else, before and after.
    ///
    /// # Errors
    /// The first state that starts what it should not.
    fn go_through(&mut self, backup: &str, from_file: Option<&str>, delete: &[String]) -> Result<Vec<String>, String> {
        let name = self.place.name().to_owned();
        for image in [Image::New, Image::Old] {
            self.set(backup, Some(image));
            self.check(false, &format!("with {backup} prepared"))?;
        }
        self.set(&name, Some(Image::New));
        self.check(true, "with the new image in place")?;
        if let Some(from) = from_file {
            self.set(from, None);
            self.check(true, "with the new image in place")?;
        }
        for name in delete {
            self.set(name, Some(Image::Aside));
            self.set(name, None);
            self.check(true, &format!("after {name} was deleted"))?;
        }
        if !self.is_new[1] {
            let (_, starts) = self.start(BootScenario::Later);
            return Err(format!("the board would not start the new image: {starts} would start instead"));
        }
        let others = SCENARIOS.iter().zip(self.is_new).filter(|(_, is_new)| !is_new);
        Ok(others
            .map(|((scenario, when), _)| {
                format!(
                    "{when} the board starts something else, before and after the change: {}",
                    self.start(*scenario).1
                )
            })
            .collect())
    }

    fn set(&mut self, name: &str, image: Option<Image>) {
        match self.names.iter_mut().find(|(known, _)| same_name(known, name)) {
            Some((_, known)) => *known = image,
            None => self.names.push((name.to_owned(), image)),
        }
    }

    fn check(&mut self, committed: bool, step: &str) -> Result<(), String> {
        for (n, (scenario, when)) in SCENARIOS.iter().enumerate() {
            let (start, words) = self.start(*scenario);
            if committed && start == Start::Held(Image::New, 0) {
                self.is_new[n] = true;
            } else if self.is_new[n] || start != self.today[n] || committed && start == Start::Held(Image::Old, 0) {
                return Err(format!("no order of the steps is safe: {step}, the board would start {words} {when}"));
            }
        }
        Ok(())
    }

    fn altered(&self) -> Altered {
        let content = |image: &Image| match image {
            Image::New => Rc::clone(&self.new),
            // What is in other backups does not matter: none of them is started, or that is told by its place.
            Image::Old | Image::Aside => Rc::clone(&self.old),
        };
        Altered {
            volume: self.place.at.volume,
            directory: self.place.directory.clone(),
            alias: self.place.alias(),
            names: self.names.iter().map(|(name, i)| (name.clone(), i.as_ref().map(content))).collect(),
        }
    }

    /// What starts, and what it is called.
    fn start(&self, scenario: BootScenario) -> (Start, String) {
        let altered = self.altered();
        let (runs, _) = self.esp.runs_if(scenario, &altered);
        let held = |at: &Located| self.names.get(altered.position(at)?)?.1;
        match &runs {
            Runs::Image { at, profile } => {
                let words = match held(at) {
                    Some(Image::New) if *profile == 0 => "the new image".to_owned(),
                    _ if *profile == 0 => self.esp.describe_place(at),
                    _ => format!("profile {profile} of {}", self.esp.describe_place(at)),
                };
                let start = held(at).map(|image| Start::Held(image, *profile));
                (start.unwrap_or_else(|| Start::Elsewhere(runs.clone())), words)
            }
            Runs::Other(what) => (Start::Elsewhere(runs.clone()), what.clone()),
            Runs::Nothing(why) => (Start::Elsewhere(runs.clone()), format!("nothing ({why})")),
            Runs::Unknown(why) => (Start::Elsewhere(runs.clone()), format!("something that is not known ({why})")),
            Runs::Enrolment => (Start::Elsewhere(runs), "the enrolment of Secure Boot keys".to_owned()),
        }
    }
}
