//! What the board starts from an ESP: the way there, and systemd-boot's menu under the rules of the systemd-boot that
//! runs.

use super::context::{OtherVolume, View};
use super::loader::LoaderRules;
use super::read::{EntryTargets, find_targets};
use super::{FutureStart, Inventory, Surroundings, type1_files};
use crate::block::ReadAt;
use crate::boot::{self, Esp, LoaderVersion, Prediction, Skip, Targets, Type1File, UkiFile, Variables, Xbootldr};
use crate::bootpath::{BootScenario, End, Way};
use crate::fat::{Entry, Volume, same_name};
use crate::surgery::LINUX_DIR;

/// The scenarios, in the order of [`Inventory::ways`].
pub(super) const SCENARIOS: [BootScenario; 3] = [BootScenario::Next, BootScenario::Later, BootScenario::Reset];

/// The images and entries of the Extended Boot Loader Partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct XbootldrContents {
    linux: Vec<UkiFile>,
    type1: Vec<Type1File>,
    /// What the entries name.
    found: EntryTargets,
    /// Why these may not be all: the first failure of the medium, or the first damage.
    pub(super) trouble: Option<String>,
}

impl XbootldrContents {
    /// Reads them, as far as it goes: what cannot be read stands in nobody's way who only looks.
    pub(super) fn read(volume: &OtherVolume, rules: &[LoaderRules]) -> Self {
        let mut companion = Self::default();
        match volume.list(LINUX_DIR) {
            Ok(list) => {
                for entry in list.unwrap_or_default() {
                    let broken = if entry.is_dir() { None } else { volume.file(&entry).err() };
                    let seen = seen(volume, &entry, rules);
                    let unreadable = match &seen.content {
                        Err(Skip::Unreadable(why)) => Some(why.clone()),
                        _ => None,
                    };
                    let why = broken.map(|e| e.to_string()).or(unreadable);
                    companion.note(why.map(|why| format!("EFI/Linux/{}: {why}", entry.name)));
                    companion.linux.push(seen);
                }
            }
            Err(e) => companion.note(Some(format!("EFI/Linux: {e}"))),
        }
        match type1_files(volume, false) {
            Ok(type1) => {
                let (found, trouble) = find_targets(volume, &type1, rules);
                companion.note(trouble.map(|why| format!("what loader/entries names: {why}")));
                (companion.type1, companion.found) = (type1, found);
            }
            Err(e) => companion.note(Some(format!("loader/entries: {e}"))),
        }
        companion
    }

    fn note(&mut self, why: Option<String>) {
        self.trouble = self.trouble.take().or(why);
    }
}

/// A file as the systemd-boots that may run see it. A broken chain reads as an empty file: firmware would fail there
/// too.
pub(super) fn seen<S: ReadAt>(volume: &Volume<S>, entry: &Entry, rules: &[LoaderRules]) -> UkiFile {
    if entry.is_dir() {
        return UkiFile::directory(&entry.name);
    }
    let mut seen = match volume.file(entry) {
        Ok(bytes) => probe(&entry.name, &bytes, rules),
        Err(_) => probe(&entry.name, &Vec::new(), rules),
    };
    seen.read_only = entry.attributes.is_read_only();
    seen
}

fn probe(name: &str, source: &dyn ReadAt, rules: &[LoaderRules]) -> UkiFile {
    let Some((first, others)) = rules.split_first() else { return UkiFile::directory(name) };
    let mut known = vec![&first.version];
    let mut seen = UkiFile::probe(name, source, &first.version, first.machine);
    for other in others {
        if !known.contains(&&other.version) {
            known.push(&other.version);
            seen = seen.and_for(source, &other.version, other.machine);
        }
    }
    seen
}

/// What systemd-boot shows and starts at every start that a plan has to hold for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Predictions {
    /// At the next start, with the EFI variables as they are.
    pub next: Prediction,
    /// At a start without EFI variables: NVRAM was reset.
    pub reset: Prediction,
    /// Where something is set for the next start only: at the start after it.
    pub later: Option<(Prediction, OneShot)>,
}

/// What is set for the next start only, and decides there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OneShot {
    /// `LoaderEntryOneShot`, for systemd-boot.
    Entry,
    /// `BootNext`, for the firmware: it leads to a systemd-boot with other rules.
    BootNext,
}

impl Predictions {
    pub(super) fn unknown() -> Self {
        Self { next: Prediction::unknown(), reset: Prediction::unknown(), later: None }
    }

    /// Each prediction, and in words when it holds.
    pub fn all(&self) -> impl Iterator<Item = (&Prediction, &'static str)> {
        let later = self.later.as_ref().map(|(prediction, used_up)| match used_up {
            OneShot::Entry => (prediction, "once the one-shot variable is used up"),
            OneShot::BootNext => (prediction, "once BootNext is used up"),
        });
        [(&self.next, "with the EFI variables as they are"), (&self.reset, "without EFI variables")]
            .into_iter()
            .chain(later)
    }

    /// The files of `EFI/Linux` that are started at the next start and after a reset of NVRAM.
    #[must_use]
    pub fn selected_files(&self) -> [Option<&str>; 2] {
        [self.next.selected_file(), self.reset.selected_file()]
    }
}

/// What systemd-boot reads in its menu's directories, as it is or as it might be.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) linux: Vec<UkiFile>,
    type1: Vec<Type1File>,
    /// What the entries of this volume name.
    pub(super) found: EntryTargets,
    companion: XbootldrContents,
    /// `loader/loader.conf`.
    pub(super) loader_conf: Option<Vec<u8>>,
    /// `LoaderEntryLastBooted`, where a start has changed it.
    pub(super) last_booted: Option<Vec<u8>>,
}

impl Scene {
    pub(super) fn of<S>(inventory: &Inventory<S>, linux: &[UkiFile]) -> Self {
        Self {
            linux: linux.to_vec(),
            type1: inventory.surroundings.type1.clone(),
            found: inventory.surroundings.found.clone(),
            companion: inventory.companion.clone().unwrap_or_default(),
            loader_conf: inventory.surroundings.loader_conf.clone(),
            last_booted: None,
        }
    }

    /// The files of `EFI/Linux` on one of the two partitions.
    pub(super) fn linux_on(&mut self, xbootldr: bool) -> &mut Vec<UkiFile> {
        if xbootldr { &mut self.companion.linux } else { &mut self.linux }
    }

    /// What the entries on one of the two partitions name.
    pub(super) fn found_on(&mut self, xbootldr: bool) -> &mut EntryTargets {
        if xbootldr { &mut self.companion.found } else { &mut self.found }
    }

    /// The files of `loader/entries` on one of the two partitions.
    pub(super) fn type1_on(&mut self, xbootldr: bool) -> &mut [Type1File] {
        if xbootldr { &mut self.companion.type1 } else { &mut self.type1 }
    }
}

impl<S: ReadAt> Inventory<S> {
    /// The boot loader's rules and machine type that predictions for the next start are made for.
    #[must_use]
    pub fn rules(&self) -> (LoaderVersion, u16) {
        (self.rules[0].version.clone(), self.rules[0].machine)
    }

    /// A new file in `EFI/Linux` as the systemd-boots that may run would see it.
    #[must_use]
    pub fn probe(&self, name: &str, source: &dyn ReadAt) -> UkiFile {
        probe(name, source, &self.rules)
    }

    /// Whether systemd-boot lists a file of this name.
    #[must_use]
    pub fn lists(&self, name: &str) -> bool {
        self.linux.iter().any(|f| f.name == name && f.listed(&self.predictions.next.loader).is_ok())
    }

    /// The files of `EFI/Linux` as systemd-boot sees them, in on-disk order.
    #[must_use]
    pub fn as_seen(&self) -> &[UkiFile] {
        &self.linux
    }

    /// The way of the boot in a scenario, up to the program that chooses a system.
    #[must_use]
    pub fn way(&self, scenario: BootScenario) -> &Way {
        &self.ways[place(scenario)]
    }

    /// Whether the way of a scenario comes by a systemd-boot that reads this volume.
    #[must_use]
    pub fn is_read(&self, scenario: BootScenario) -> bool {
        // Firmware does not read a volume without its boot sector.
        let is_readable = self.volume.geometry().lost_boot_sector.is_none();
        is_readable && matches!(&self.way(scenario).end, End::Menu { at, .. } if at.volume == self.context.this())
    }

    /// What systemd-boot would show and start if `EFI/Linux` held these files, at every start that a plan has to hold
    /// for.
    pub fn predict(&self, linux: &[UkiFile]) -> Predictions {
        // The menu is mostly the same, and may be long.
        let esp = self.seen_in(BootScenario::Next, Scene::of(self, linux));
        let mut menu = None;
        let next = boot::predict_with(&esp, &self.variables_in(BootScenario::Next), &mut menu);
        let mut another = |scenario| match self.rules[place(scenario)] == self.rules[place(BootScenario::Next)] {
            true => boot::predict_with(&esp, &self.variables_in(scenario), &mut menu),
            false => self.predict_in(scenario, linux),
        };
        let later = if self.variables.oneshot.is_some() {
            Some((another(BootScenario::Later), OneShot::Entry))
        } else if self.rules[place(BootScenario::Next)] != self.rules[place(BootScenario::Later)] {
            Some((another(BootScenario::Later), OneShot::BootNext))
        } else {
            None
        };
        Predictions { reset: another(BootScenario::Reset), later, next }
    }

    /// Whether a file in `EFI/Linux` can change what starts: a systemd-boot lists it, or a Type #1 entry names it.
    /// Backups cannot.
    pub(crate) fn may_start(&self, file: &UkiFile) -> bool {
        let is_named = |(path, found): (&String, &Option<String>)| {
            let names = linux_file(path).into_iter().flat_map(|name| [Some(name), found.as_deref()]);
            names.flatten().any(|name| same_name(&file.name, name))
        };
        self.rules.iter().any(|rules| file.listed(&rules.version).is_ok())
            || self.surroundings.found.iter().any(is_named)
    }

    /// What the systemd-boot of one scenario shows and starts.
    pub(super) fn predict_in(&self, scenario: BootScenario, linux: &[UkiFile]) -> Prediction {
        boot::predict(&self.seen_in(scenario, Scene::of(self, linux)), &self.variables_in(scenario))
    }

    /// What stands in `loader/loader.conf`, if it is there.
    #[must_use]
    pub fn loader_conf(&self) -> Option<&[u8]> {
        self.surroundings.loader_conf.as_deref()
    }

    /// The starts from a state with this `loader/loader.conf`, as [`Self::starts`]; there is always one.
    #[must_use]
    pub fn starts_with(&self, first: BootScenario, loader_conf: &[u8]) -> Vec<FutureStart> {
        self.starts_from(first, Scene { loader_conf: Some(loader_conf.to_vec()), ..Scene::of(self, self.as_seen()) })
    }

    /// The same, of everything that the menu is made from.
    pub(super) fn predict_scene(&self, scenario: BootScenario, scene: &Scene) -> Prediction {
        let mut variables = self.variables_in(scenario);
        if scene.last_booted.is_some() {
            variables.last_booted.clone_from(&scene.last_booted);
        }
        boot::predict(&self.seen_in(scenario, scene.clone()), &variables)
    }

    /// The variables of a scenario.
    fn variables_in(&self, scenario: BootScenario) -> Variables {
        match scenario {
            BootScenario::Next => self.variables.clone(),
            BootScenario::Later => self.variables.after_one_boot(),
            BootScenario::Reset => self.variables.reset(),
        }
    }

    /// What the systemd-boot of one scenario would see.
    fn seen_in(&self, scenario: BootScenario, scene: Scene) -> Esp {
        let Scene { linux, type1, found, companion, loader_conf, .. } = scene;
        // A Type #1 entry may name a file of the directory that is looked at as it would be.
        let held = |name: &str| linux.iter().any(|f| same_name(&f.name, name));
        let here = |(path, found): &(&String, &Option<String>)| match (linux_file(path), found) {
            (None, found) => found.is_some(),
            // By its short name, perhaps.
            (Some(_), Some(name)) => held(name),
            (Some(name), None) => held(name),
        };
        let rules = &self.rules[place(scenario)];
        let s: &Surroundings = &self.surroundings;
        let xbootldr = self.companion.is_some().then(|| Xbootldr {
            linux: companion.linux,
            type1: companion.type1,
            targets: Targets::these(
                companion.found.iter().filter(|(_, name)| name.is_some()).map(|(path, _)| path.clone()),
            ),
        });
        let targets = Targets::these(found.iter().filter(here).map(|(path, _)| path.clone()));
        Esp {
            loader: rules.version.clone(),
            machine: rules.machine,
            loader_path: rules.path.clone(),
            linux,
            type1,
            loader_conf,
            key_dirs: s.key_dirs.clone(),
            others: s.others,
            targets,
            xbootldr,
        }
    }
}

/// The name of the file, if a path of a Type #1 entry leads into `EFI/Linux`.
pub(crate) fn linux_file(path: &str) -> Option<&str> {
    let mut parts = path.split(['\\', '/']).filter(|part| !part.is_empty());
    let named = |part: Option<&str>, name: &str| part.is_some_and(|part| part.eq_ignore_ascii_case(name));
    let inside = named(parts.next(), "EFI") && named(parts.next(), "Linux");
    let name = parts.next()?;
    (inside && parts.next().is_none()).then_some(name)
}

/// The ways of all scenarios.
pub(super) fn ways<S: ReadAt>(volume: &Volume<S>, context: &super::EspContext) -> [Way; 3] {
    let view = View::new(volume, context);
    SCENARIOS.map(|scenario| Way::follow(&context.options, scenario, &view))
}

/// The place of a scenario in lists of them.
fn place(scenario: BootScenario) -> usize {
    match scenario {
        BootScenario::Next => 0,
        BootScenario::Later => 1,
        BootScenario::Reset => 2,
    }
}
