//! The plan for another systemd-boot: where it goes, in which order, and whether the board starts with it what it starts
//! today.
//!
//! Firmware starts one of the places where a systemd-boot lies, and another one where that is not there. What is not
//! started is replaced first: a cut in between leaves the place that is started as it was, and behind it both are new.
//! Each place is an operation of its own, with one sector write that decides.
//!
//! What a systemd-boot chooses depends on its version. So each state is looked at as the firmware and that systemd-boot
//! will find it: the operation goes through a view whose writes stay in memory, and the whole prediction is made of it.

use super::in_place::SCENARIOS;
use super::long_names;
use crate::block::ReadAt;
use crate::boot::Loader;
use crate::bootpath::{BootScenario, Located, Program, ProgramKind};
use crate::esp::{BackupName, Inventory, Runs, backup_of, disabled_of};
use crate::fat::same_name;
use crate::pe::Arch;
use crate::sorting::Sort;
use crate::surgery::{FileStep, Order};
use crate::uki::cmdline::wipes;
use crate::{Code, Error, Result};
use serde::Serialize;

/// A place on the ESP where a systemd-boot lies, or should.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoaderPlace {
    /// Its directory, from the root: `EFI/BOOT`.
    pub directory: String,
    /// Its name there.
    pub name: String,
    /// The systemd-boot that is there; `None` where the file is broken, or there is none.
    pub loader: Option<Loader>,
    /// Whether there is a file.
    pub exists: bool,
}

impl LoaderPlace {
    /// A place that holds nothing yet.
    #[must_use]
    pub fn empty(directory: &str, name: &str) -> Self {
        Self { directory: directory.to_owned(), name: name.to_owned(), loader: None, exists: false }
    }

    /// From the root: `EFI/BOOT/BOOTAA64.EFI`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.directory, self.name)
    }
}

/// The places of an ESP that hold a systemd-boot, and what lies at one of its usual places and is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoaderPlaces {
    /// In the order in which they are replaced: what the firmware starts comes last.
    pub places: Vec<LoaderPlace>,
    /// Paths with what is there: `EFI/BOOT/BOOTX64.EFI is GRUB 2.12`.
    pub others: Vec<String>,
}

/// The usual places of a systemd-boot on an ESP: the removable-media path, and where `bootctl install` puts it.
#[must_use]
pub fn usual_loader_paths(arch: Arch) -> [String; 2] {
    let removable = arch.removable_loader();
    let suffix = removable.trim_start_matches("BOOT").to_ascii_lowercase();
    [format!("EFI/BOOT/{removable}"), format!("EFI/systemd/systemd-boot{suffix}")]
}

/// Where systemd-boot lies on an ESP: at its usual places, and wherever else the way of the boot comes by one. Where the
/// board starts none of them, the removable-media path as well, if nothing is there.
///
/// # Errors
/// What the source reports.
pub fn loader_places<S: ReadAt>(esp: &Inventory<S>, arch: Arch) -> Result<LoaderPlaces> {
    let mut found: Vec<(bool, LoaderPlace)> = Vec::new();
    let mut others = Vec::new();
    let usual = usual_loader_paths(arch);
    let scenarios = [BootScenario::Later, BootScenario::Next, BootScenario::Reset];
    let started: Vec<String> = scenarios
        .iter()
        .flat_map(|scenario| &esp.way(*scenario).programs)
        .filter(|(at, kind)| esp.is_here(at) && matches!(kind, ProgramKind::SystemdBoot(_)))
        .map(|(at, _)| at.path.replace('\\', "/"))
        .collect();
    let lasting = esp.way(BootScenario::Later).programs.iter().filter(|(at, _)| esp.is_here(at));
    let lasting: Vec<String> = lasting.map(|(at, _)| at.path.replace('\\', "/")).collect();
    for path in usual.iter().chain(&started) {
        let Some(entry) = esp.volume.find(path)?.filter(|entry| !entry.is_dir()) else { continue };
        let directory = path.trim_matches('/').rsplit_once('/').map_or("", |(directory, _)| directory);
        let loader = match esp.program(path) {
            Ok(Some(Program { kind: ProgramKind::SystemdBoot(loader), .. })) => Some(loader),
            Ok(Some(program)) => {
                others.push(format!("{path} is {program}"));
                continue;
            }
            // Cut off, or overwritten.
            _ => None,
        };
        if loader.as_ref().is_some_and(|loader| loader.machine != arch.machine()) {
            continue;
        }
        let is_started = lasting.iter().any(|at| same_name(at.trim_matches('/'), path.trim_matches('/')));
        let place = LoaderPlace { directory: directory.to_owned(), name: entry.name, loader, exists: true };
        match found.iter_mut().find(|(_, known)| same_name(&known.path(), &place.path())) {
            Some((known, _)) => *known |= is_started,
            None => found.push((is_started, place)),
        }
    }
    found.put_in_order_by(|(is_started, _)| *is_started);
    let is_any_started = found.iter().any(|(is_started, _)| *is_started);
    let mut places: Vec<LoaderPlace> = found.into_iter().map(|(_, place)| place).collect();
    // Where the board starts none of them, it is missing; else nobody misses it.
    let is_there = esp.volume.find(&usual[0])?.is_some();
    if !is_there && !is_any_started && others.is_empty() {
        places.push(LoaderPlace::empty("EFI/BOOT", arch.removable_loader()));
    }
    Ok(LoaderPlaces { places, others })
}

/// What happens at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LoaderStep {
    /// The file.
    pub target: String,
    /// The version of the systemd-boot that is there; `null` where the file is broken, or not there.
    pub version_before: Option<String>,
    /// The name that it gets then.
    pub backup: Option<String>,
    /// Older backups of it that are deleted.
    pub delete: Vec<String>,
    /// Whether it holds the new one already: nothing is done there.
    pub already_in_place: bool,
    #[serde(skip)]
    order: Option<Order>,
}

impl LoaderStep {
    /// The step for a place that holds other bytes; `restored` is the backup that is put back, by its name there.
    ///
    /// # Errors
    /// [`Code::Unsafe`] for a name that leaves no room for that of a backup; what the source reports.
    pub fn replace<S: ReadAt>(
        esp: &Inventory<S>,
        place: &LoaderPlace,
        restored: Option<&str>,
        keep_backups: Option<usize>,
        time: u64,
    ) -> Result<Self> {
        let beside = esp.volume.list(&place.directory)?.unwrap_or_default();
        let taken = |name: &str| beside.iter().any(|e| e.is_named(name));
        let backup = place.exists.then(|| match &place.loader {
            Some(_) => backup_of(&place.name, time, taken),
            None => disabled_of(&place.name, time, taken),
        });
        let names = backup.iter().map(String::as_str).chain([place.name.as_str()]);
        long_names(esp.volume.geometry().sector_bytes, names)?;
        let own = |name: &str| BackupName::parse(name).filter(|b| same_name(&b.original, &place.name) && !b.disabled);
        let mut old: Vec<_> = beside.iter().filter(|e| !e.is_dir() && Some(e.name.as_str()) != restored).collect();
        old.retain(|e| own(&e.name).is_some());
        old.put_in_order_by(|e| std::cmp::Reverse(own(&e.name).map(|b| b.time)));
        let keep = keep_backups.map_or(usize::MAX, |keep| keep.saturating_sub(usize::from(place.loader.is_some())));
        let delete: Vec<String> = old.into_iter().skip(keep).map(|e| e.name.clone()).collect();
        let path = |name: &String| format!("{}/{name}", place.directory);
        Ok(Self {
            target: place.path(),
            version_before: place.loader.as_ref().map(|loader| loader.version.text.clone()),
            backup: backup.as_ref().map(path),
            delete: delete.iter().map(path).collect(),
            already_in_place: false,
            order: Some(Order {
                command: if restored.is_some() { "restore" } else { "loader" }.to_owned(),
                time,
                directory: place.directory.clone(),
                before: Vec::new(),
                directories: Vec::new(),
                set: Vec::new(),
                target: place.name.clone(),
                backup,
                after: delete.into_iter().map(FileStep::Remove).collect(),
            }),
        })
    }

    /// A place that has the new one already.
    #[must_use]
    pub fn nothing(place: &LoaderPlace) -> Self {
        let version_before = place.loader.as_ref().map(|loader| loader.version.text.clone());
        let (backup, delete) = (None, Vec::new());
        Self { target: place.path(), version_before, backup, delete, already_in_place: true, order: None }
    }

    /// The operation, where there is anything to do.
    #[must_use]
    pub fn order(&self) -> Option<&Order> {
        self.order.as_ref()
    }
}

/// What replacing systemd-boot will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LoaderPlan {
    /// The version of the new one.
    pub version: String,
    /// The places, in the order in which they are written.
    pub places: Vec<LoaderStep>,
    /// Bytes that go to the medium.
    pub bytes_to_write: u64,
    /// What the board starts now.
    pub boot_before: Option<String>,
    /// What it starts then.
    pub boot_after: Option<String>,
    /// What somebody should know.
    pub warnings: Vec<String>,
}

/// What somebody would call what runs at the next start.
#[must_use]
pub fn starts_next<S: ReadAt>(esp: &Inventory<S>) -> Option<String> {
    match esp.runs(BootScenario::Next) {
        (Runs::Image { at, .. }, Some(prediction)) if esp.in_linux(&at).is_some() => {
            prediction.selected_file().map(str::to_owned)
        }
        (Runs::Image { at, .. }, _) => Some(esp.describe_place(&at)),
        (Runs::Other(what), _) => Some(what),
        _ => None,
    }
}

/// Makes sure that a board starts behind a step what it starts before it. Where that is nothing, it may start something.
///
/// # Errors
/// [`Code::WouldNotBoot`], with what would start in which scenario.
pub fn refuse_another_start<B: ReadAt, A: ReadAt>(
    before: &Inventory<B>,
    after: &Inventory<A>,
    step: &str,
) -> Result<()> {
    for (scenario, when) in SCENARIOS {
        let (old, old_menu) = before.runs(scenario);
        let (new, new_menu) = after.runs(scenario);
        let options = |menu: &Option<crate::boot::Prediction>| {
            let options = menu.as_ref().and_then(|p| p.load_options.clone());
            options.as_deref().and_then(wipes).map(str::to_owned)
        };
        if let (Some(what), None) = (options(&new_menu), options(&old_menu)) {
            let why = format!(
                "{step}, {when} the image would get a command line that wipes ({}={what})",
                crate::uki::cmdline::WIPE
            );
            return Err(Error::new(Code::WouldNotBoot, why)
                .advise("take a systemd-boot of 255 or newer: older ones pass the last profile's options"));
        }
        let wakes = matches!(old, Runs::Nothing(_) | Runs::Unknown(_)) && matches!(new, Runs::Image { .. });
        if old == new || wakes {
            continue;
        }
        let words = |esp: &dyn Fn(&Located) -> String, runs: &Runs| match runs {
            Runs::Image { at, profile: 0 } => esp(at),
            Runs::Image { at, profile } => format!("profile {profile} of {}", esp(at)),
            Runs::Other(what) => what.clone(),
            Runs::Nothing(why) => format!("nothing ({why})"),
            Runs::Unknown(why) => format!("something that is not known ({why})"),
            Runs::Enrolment => "the enrolment of Secure Boot keys".to_owned(),
        };
        let (new, old) = (words(&|at| after.describe_place(at), &new), words(&|at| before.describe_place(at), &old));
        let reason = new_menu.map_or(String::new(), |p| format!(" ({})", p.reason));
        return Err(Error::new(
            Code::WouldNotBoot,
            format!("{step}, {when} the board would start {new}{reason} instead of {old}"),
        )
        .advise(
            "its rules are others: choose the entry first, for both versions, with `pin`; or put the image that is \
             meant under the name that starts, with `swap`",
        ));
    }
    Ok(())
}

/// Whether a systemd-boot is older than another, by release and update.
#[must_use]
pub fn is_older(new: &Loader, old: &Loader) -> bool {
    (new.version.major, new.version.minor) < (old.version.major, old.version.minor)
}
