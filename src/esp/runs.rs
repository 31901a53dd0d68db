//! What runs in the end, and the whole way there in steps.

use super::context::{OtherVolume, View, program, slashes};
use super::{Inventory, without_counter};
use crate::block::ReadAt;
use crate::boot::{EntryKind, MenuEntry, Prediction};
use crate::bootpath::{
    BootScenario, Certainty, End, FirmwareStart, Located, Program, ProgramKind, StepKind, WayStep, split_profile,
};
use crate::fat::Volume;
use crate::{Result, uki};

/// Longer command lines are cut, in characters.
const MAX_CMDLINE: usize = 2048;
/// More addons are counted and not named.
const MAX_NAMED: usize = 8;

/// A command line that an image gets from what starts it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandedCmdline {
    /// The command line.
    pub cmdline: String,
    /// Where it is from: a boot option, or an entry of the menu.
    pub by: String,
    /// Whether systemd's stub takes it in place of the image's own: not with Secure Boot on, where the image has one.
    /// `None` where it is not known whether Secure Boot is on.
    pub counts: Option<bool>,
}

/// What runs when the board starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runs {
    /// A UKI.
    Image {
        /// Where it lies, in [`super::EspContext`]'s numbers.
        at: Located,
        /// The profile of it; 0 is the system itself.
        profile: u32,
    },
    /// Something that is no UKI, and what.
    Other(String),
    /// Nothing that is here, and why.
    Nothing(String),
    /// It cannot be told, and why.
    Unknown(String),
    /// Secure Boot keys are enrolled, and the board starts again.
    Enrolment,
}

impl<S: ReadAt> Inventory<S> {
    /// What runs in a scenario, and the prediction for it where systemd-boot's menu is on the way.
    #[must_use]
    pub fn runs(&self, scenario: BootScenario) -> (Runs, Option<Prediction>) {
        match &self.way(scenario).end {
            End::Menu { at, .. } if at.volume == self.context.this() => {
                let prediction = match scenario {
                    BootScenario::Next => self.predictions.next.clone(),
                    BootScenario::Reset => self.predictions.reset.clone(),
                    BootScenario::Later => self.predict_in(scenario, self.as_seen()),
                };
                (self.runs_by_menu(&prediction, |at| self.program_there(at)), Some(prediction))
            }
            End::Menu { loader, at } => {
                let on = self.context.name(at.volume);
                (Runs::Other(format!("{} on {on}, which reads the images of that partition", loader.version)), None)
            }
            End::Uki(at) => (Runs::Image { at: at.clone(), profile: self.way(scenario).profile() }, None),
            End::Other(what) => (Runs::Other(what.clone()), None),
            End::Nothing(why) => (Runs::Nothing(why.clone()), None),
            End::Unknown(why) => (Runs::Unknown(why.clone()), None),
        }
    }

    /// The command line that the image which runs in a scenario gets from what starts it, if it gets one.
    #[must_use]
    pub fn handed_cmdline(&self, scenario: BootScenario) -> Option<HandedCmdline> {
        let (runs, by_menu) = self.runs(scenario);
        let Runs::Image { at, .. } = &runs else { return None };
        let way = self.way(scenario);
        let (options, by) = match (&by_menu, &way.by) {
            (Some(p), _) => (p.load_options.clone()?, format!("the entry {}", p.selected_entry()?.id)),
            (None, FirmwareStart::Option(name)) => (way.load_options.clone()?, format!("the boot option {name}")),
            (None, _) => return None,
        };
        let cmdline = split_profile(&options).1.to_owned();
        if cmdline.is_empty() {
            return None;
        }
        let has_own = self.facts_at(at).is_ok_and(|facts| facts.cmdline().is_some());
        let counts = match (self.variables.secure_boot, has_own) {
            (Some(true), true) => Some(false),
            (None, true) => None,
            (Some(_), _) | (None, false) => Some(true),
        };
        Some(HandedCmdline { cmdline, by, counts })
    }

    /// The command line that the image which runs in a scenario starts with, addons aside: its own, or the one that it
    /// gets where that may count.
    #[must_use]
    pub fn cmdline(&self, scenario: BootScenario) -> Option<String> {
        let Runs::Image { at, .. } = self.runs(scenario).0 else { return None };
        let handed = self.handed_cmdline(scenario).filter(|handed| handed.counts != Some(false));
        handed.map(|handed| handed.cmdline).or_else(|| self.facts_at(&at).ok()?.cmdline().map(str::to_owned))
    }

    /// What the headers of an image say.
    fn facts_at(&self, at: &Located) -> Result<uki::Facts, String> {
        if let Some(facts) = self.in_linux(at).and_then(|name| self.file(name)).and_then(|f| f.facts.clone()) {
            return Ok(*facts);
        }
        let path = slashes(&at.path);
        self.on(at, |v| probe(v, &path), |v| probe(v, &path)).unwrap_or(Err("it is not there".into()))
    }

    /// What a menu starts; `program` looks at a file that an entry names.
    pub(super) fn runs_by_menu(
        &self,
        prediction: &Prediction,
        program: impl Fn(&Located) -> Result<Option<Program>, String>,
    ) -> Runs {
        if prediction.enrolls_keys {
            return Runs::Enrolment;
        }
        let Some(entry) = prediction.selected_entry() else { return Runs::Nothing(prediction.reason.clone()) };
        let Some(path) = &entry.path else {
            return match entry.kind {
                EntryKind::Type1 => Runs::Unknown(format!("{} is fetched from the network", entry.id)),
                _ => Runs::Other(format!("{} ({})", entry.title, entry.id)),
            };
        };
        let at = Located { volume: self.volume_of(entry), path: path.clone() };
        if entry.kind == EntryKind::Uki {
            return Runs::Image { at, profile: entry.profile };
        }
        match program(&at) {
            Ok(Some(Program { kind: ProgramKind::Uki, .. })) => Runs::Image { at, profile: entry.profile },
            Ok(Some(Program { kind: ProgramKind::Kernel, .. })) => {
                Runs::Other(format!("the kernel {} with its initrd (entry {})", path.replace('\\', "/"), entry.id))
            }
            Ok(Some(program)) => Runs::Other(format!("{program}, {} (entry {})", path.replace('\\', "/"), entry.id)),
            Ok(None) => Runs::Nothing(format!("{path} is not there")),
            Err(why) => Runs::Nothing(format!("{path} is not an EFI program: {why}")),
        }
    }

    /// The volume that an entry's file is on.
    pub(crate) fn volume_of(&self, entry: &MenuEntry) -> usize {
        let xbootldr = if entry.xbootldr { self.context.xbootldr_place() } else { None };
        xbootldr.unwrap_or(self.context.this())
    }

    /// Why it is not known what systemd-boot finds on the Extended Boot Loader Partition.
    #[must_use]
    pub fn xbootldr_trouble(&self) -> Option<String> {
        let name = || self.context.xbootldr_place().map_or("", |place| self.context.name(place));
        let inside = self
            .companion
            .as_ref()
            .and_then(|c| c.trouble.as_ref())
            .map(|why| format!("{} is damaged or does not give what is on it: {why}", name()));
        self.context.xbootldr_trouble.clone().or(inside)
    }

    /// Whether a place is on the volume that the inventory is of.
    #[must_use]
    pub fn is_here(&self, at: &Located) -> bool {
        at.volume == self.context.this()
    }

    /// For people: the file that an entry of the menu starts, and on which partition where that is not this one; the
    /// entry's name where it names no file.
    #[must_use]
    pub fn entry_place(&self, entry: &MenuEntry) -> String {
        match (&entry.path, entry.kind) {
            (Some(path), EntryKind::Type1) => {
                let at = Located { volume: self.volume_of(entry), path: path.clone() };
                format!("{} (entry {})", self.describe_place(&at), entry.id)
            }
            (Some(path), _) if entry.xbootldr => {
                self.describe_place(&Located { volume: self.volume_of(entry), path: path.clone() })
            }
            _ => entry.id.clone(),
        }
    }

    /// What a prediction starts, if it lies on the Extended Boot Loader Partition.
    #[must_use]
    pub fn elsewhere(&self, prediction: &Prediction) -> Option<String> {
        prediction.selected_entry().filter(|e| e.xbootldr).map(|e| self.entry_place(e))
    }

    /// The program at a path of this volume; `None` when there is no such file.
    ///
    /// # Errors
    /// Why the file there is not an EFI program.
    pub fn program(&self, path: &str) -> Result<Option<Program>, String> {
        program(&self.volume, path)
    }

    /// The bytes of a file on one of the volumes; `None` when there is no such file.
    ///
    /// # Errors
    /// What the source reports.
    pub fn open_at(&self, at: &Located) -> Result<Option<Box<dyn ReadAt + '_>>> {
        let path = slashes(&at.path);
        if at.volume == self.context.this() {
            return open(&self.volume, &path);
        }
        self.context.other(at.volume).map_or(Ok(None), |other| open(other, &path))
    }

    /// The program at a place of one of the volumes.
    pub(crate) fn program_there(&self, at: &Located) -> Result<Option<Program>, String> {
        self.on(at, |own| program(own, &at.path), |other| program(other, &at.path)).unwrap_or(Ok(None))
    }

    pub(super) fn on<T>(
        &self,
        at: &Located,
        own: impl FnOnce(&Volume<S>) -> T,
        other: impl FnOnce(&OtherVolume) -> T,
    ) -> Option<T> {
        if at.volume == self.context.this() {
            Some(own(&self.volume))
        } else {
            self.context.other(at.volume).map(other)
        }
    }

    /// A file's name if it lies in `EFI/Linux` of this volume.
    #[must_use]
    pub fn in_linux<'p>(&self, at: &'p Located) -> Option<&'p str> {
        let (dir, name) = at.path.rsplit_once('\\')?;
        (at.volume == self.context.this() && dir.eq_ignore_ascii_case("\\EFI\\Linux")).then_some(name)
    }

    /// The files of `EFI/Linux` that boot options of the firmware name, each with the option's name.
    #[must_use]
    pub fn named_by_options(&self) -> Vec<(String, String)> {
        let view = View::new(&self.volume, &self.context);
        let named = self.context.options.files(&view).into_iter();
        named.filter_map(|(option, at)| Some((self.file(self.in_linux(&at)?)?.name().to_owned(), option))).collect()
    }

    /// `EFI/Linux/Talos-v1.12.4.efi`, and on which partition where that is not this one.
    #[must_use]
    pub fn describe_place(&self, at: &Located) -> String {
        let path = at.path.trim_start_matches('\\').replace('\\', "/");
        match self.context.name(at.volume) {
            "" => path,
            name => format!("{path} on {name}"),
        }
    }

    /// The whole way in a scenario, from the firmware to the kernel.
    #[must_use]
    pub fn steps(&self, scenario: BootScenario) -> Vec<WayStep> {
        let mut steps = self.way(scenario).steps.clone();
        let (runs, prediction) = self.runs(scenario);
        if let Some(prediction) = &prediction {
            steps.push(self.menu_step(prediction));
        }
        match &runs {
            Runs::Image { at, profile } => {
                let (step, cmdline) = self.image_step(at);
                steps.push(step);
                let entry = prediction.as_ref().and_then(Prediction::selected_entry);
                let handed = self.handed_cmdline(scenario);
                steps.push(self.kernel_step(at, *profile, entry, handed, cmdline));
            }
            Runs::Other(what) | Runs::Unknown(what) if prediction.is_some() => steps.push(WayStep {
                step: StepKind::Image,
                what: what.clone(),
                place: None,
                why: "the entry says so".to_owned(),
                certainty: if matches!(runs, Runs::Unknown(_)) { Certainty::Unknown } else { Certainty::Known },
            }),
            _ => {}
        }
        steps
    }

    fn menu_step(&self, prediction: &Prediction) -> WayStep {
        let entry = prediction.selected_entry();
        let place = entry.map(|e| {
            let dir = if e.kind == EntryKind::Uki { "EFI/Linux" } else { "loader/entries" };
            match self.context.name(self.volume_of(e)) {
                "" => dir.to_owned(),
                name => format!("{dir} on {name}"),
            }
        });
        WayStep {
            step: StepKind::Menu,
            what: match (prediction.enrolls_keys, entry) {
                (true, _) => "enrolment of Secure Boot keys".to_owned(),
                (false, Some(e)) => e.id.clone(),
                (false, None) => "nothing".to_owned(),
            },
            place: place.filter(|_| !prediction.enrolls_keys),
            why: prediction.reason.clone(),
            certainty: Certainty::Known,
        }
    }

    /// The step of a UKI, and the command line in it.
    fn image_step(&self, at: &Located) -> (WayStep, Option<String>) {
        let name = at.path.rsplit('\\').next().unwrap_or_default();
        let facts = self.facts_at(at);
        let (words, why, cmdline) = match &facts {
            Ok(facts) => {
                let words: Vec<String> = [facts.version().map(str::to_owned), facts.arch.map(|a| a.name().to_owned())]
                    .into_iter()
                    .flatten()
                    .collect();
                let words = if words.is_empty() { String::new() } else { format!(" ({})", words.join(" ")) };
                (words, "a UKI: kernel, initrd and command line in one".to_owned(), facts.cmdline().map(str::to_owned))
            }
            Err(why) => (String::new(), format!("it would not start: {why}"), None),
        };
        let step = WayStep {
            step: StepKind::Image,
            what: format!("{name}{words}"),
            place: Some(self.describe_place(at)),
            why,
            certainty: Certainty::Known,
        };
        (step, cmdline)
    }

    fn kernel_step(
        &self,
        at: &Located,
        profile: u32,
        entry: Option<&MenuEntry>,
        handed: Option<HandedCmdline>,
        cmdline: Option<String>,
    ) -> WayStep {
        let own = entry
            .filter(|e| e.kind == EntryKind::Uki)
            .and_then(|e| e.options.as_deref().map(str::to_owned))
            .or(cmdline);
        let addons = self.addons(at);
        let mut why = match profile {
            0 => "the image's own command line".to_owned(),
            n => format!("the command line of the image's profile {n}"),
        };
        let mut certainty = if addons.is_empty() { Certainty::Known } else { Certainty::Unknown };
        let mut own = own;
        if let Some(HandedCmdline { cmdline, by, counts }) = handed {
            why = match counts {
                Some(false) => {
                    format!("{why}; {by} passes {cmdline:?}, which is ignored while Secure Boot is on")
                }
                Some(true) => format!("{by} passes it, and systemd's stub uses it instead of the image's own"),
                None => format!(
                    "{by} passes it, and systemd's stub uses it instead of the image's own unless Secure Boot is \
                        on"
                ),
            };
            if counts.is_none() && own.as_ref() != Some(&cmdline) {
                certainty = Certainty::Unknown;
            }
            own = if counts == Some(false) { own } else { Some(cmdline) };
        }
        if !addons.is_empty() {
            let named = addons.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
            why = format!("{why}; {} addons may add to it: {named}", addons.len());
        }
        let text: String = own.unwrap_or_default().chars().take(MAX_CMDLINE).collect();
        let what = if text.is_empty() { "no command line".to_owned() } else { text };
        WayStep { step: StepKind::Kernel, what, place: None, why, certainty }
    }

    /// The addons that the stub of a UKI looks at: `<uki>.extra.d` beside it and `loader/addons` (systemd-stub(7)).
    fn addons(&self, at: &Located) -> Vec<String> {
        let path = at.path.trim_start_matches('\\').replace('\\', "/");
        let path = without_counter(&path).unwrap_or(path);
        let dirs = [format!("{path}.extra.d"), "loader/addons".to_owned()];
        let list = |dir: &String| {
            let all = self.on(at, |v| v.list(dir).ok().flatten(), |v| v.list(dir).ok().flatten()).flatten();
            let is_addon = |name: &str| name.to_ascii_lowercase().ends_with(".addon.efi");
            all.unwrap_or_default().into_iter().map(|e| e.name).filter(|name| is_addon(name)).collect::<Vec<_>>()
        };
        dirs.iter().flat_map(list).collect()
    }
}

fn open<'v, S: ReadAt>(volume: &'v Volume<S>, path: &str) -> Result<Option<Box<dyn ReadAt + 'v>>> {
    let Some(entry) = volume.find(path)?.filter(|e| !e.is_dir()) else { return Ok(None) };
    Ok(Some(Box::new(volume.file(&entry)?)))
}

fn probe<S: ReadAt>(volume: &Volume<S>, path: &str) -> Result<uki::Facts, String> {
    let entry = volume.find(path).map_err(|e| e.to_string())?.ok_or("it is not there")?;
    uki::probe(&volume.file(&entry).map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}
