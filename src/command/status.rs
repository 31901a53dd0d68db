//! `status`: the ESP as it is, and what boots.

use super::board::BoardReport;
use super::programs::objections;
use super::{DiskRequest, Event, Ui, boot_variables, now};
use crate::Result;
use crate::block::{Cached, ReadAt, sha256_of};
use crate::boot::{MenuMode, Prediction, Roles};
use crate::bootpath::{BootScenario, WayStep};
use crate::disk::Target;
use crate::doctor::{DiskWords, EspView, Finding, examine_esp};
use crate::efivars::VariablesOrigin;
use crate::esp::{EspFile, FileKind, Inventory, Predictions, Runs};
use crate::fat::{FatKind, ProblemClass};
use crate::packed::Packing;
use crate::pe::Arch;
use crate::plan::{LoaderPlace, loader_places, room_for_one_more};
use crate::surgery::LostChain;
use crate::uki::{Companion, CompanionKind, Companions, Host};
use serde::Serialize;

/// The request: a disk.
pub type Status = DiskRequest;

/// What `status` says. The fields of the contract come first; the others are for people and may grow.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct StatusReport {
    /// The disk and the partition.
    pub disk: DiskReport,
    /// The file system.
    pub esp: EspReport,
    /// The files of `EFI/Linux`.
    pub files: Vec<FileReport>,
    /// What lies beside the images for systemd's stub to add to them.
    pub companions: Vec<BesideReport>,
    /// The boot menu and what starts.
    pub boot: BootReport,
    /// The image that the board starts from elsewhere than the menu's own directory on this partition, and its backups.
    /// Their names are paths, and on another partition that is said.
    pub elsewhere: Vec<FileReport>,
    /// An operation that did not finish.
    pub interrupted: Option<String>,
    /// The way of the boot at the next start, step by step.
    pub way: Vec<WayStep>,
    /// What makes the way another one, or unsure: boot options that lead nowhere or where nothing can be looked at, a
    /// start without variables.
    pub way_notes: Vec<String>,
    /// The boot loader.
    pub loader: Option<LoaderReport>,
    /// Every place of the ESP with a systemd-boot, or with a file that should be one and is broken.
    pub loaders: Vec<LoaderReport>,
    /// Where the EFI variables come from that the prediction goes by.
    pub variables: VariablesOrigin,
    /// What of the board a swap leaves as it is: files beside the images, boot loaders.
    pub board: BoardReport,
    /// Whether the images were read whole. If not, `null` for a hash or a schematic says nothing of the image.
    pub examined: bool,
    /// What is noteworthy.
    pub warnings: Vec<String>,
    /// What is wrong, what it means, and the command that mends it; the worst first.
    pub findings: Vec<Finding>,
}

/// A disk and a partition of it.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct DiskReport {
    /// As given.
    pub path: String,
    /// How the image is packed; `null` for a raw image and for a disk.
    pub packed: Option<Packing>,
    /// Logical sector size in bytes.
    pub sector_size: u32,
    /// The partition; `null` for a file system without a table.
    pub partition: Option<PartitionReport>,
}

/// A partition.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct PartitionReport {
    /// Its number.
    pub number: u32,
    /// Its label.
    pub label: String,
    /// Its PARTUUID.
    pub partuuid: String,
    /// Where it begins on the disk, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The file system of an ESP.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct EspReport {
    /// FAT12, FAT16 or FAT32.
    pub fat: FatKind,
    /// Bytes per cluster.
    pub cluster_bytes: u32,
    /// Bytes in all clusters.
    pub total_bytes: u64,
    /// Bytes in free clusters.
    pub free_bytes: u64,
    /// Not unmounted cleanly.
    pub dirty: bool,
    /// Nothing stands in the way of writing.
    pub healthy: bool,
    /// What does.
    pub problems: Vec<String>,
    /// What is worth knowing and stands in nobody's way.
    pub notes: Vec<String>,
    /// Chains of clusters that belong to no file and that this program did not leave, the longest first, at most 64.
    pub lost: Vec<LostChain>,
}

/// A file in `EFI/Linux`.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Its length.
    pub bytes: u32,
    /// Its SHA-256.
    pub sha256: Option<String>,
    /// The Talos version in it.
    pub version: Option<String>,
    /// The architecture it is for.
    pub arch: Option<Arch>,
    /// The schematic it was built from.
    pub schematic: Option<String>,
    /// The file it doubles.
    pub duplicate_of: Option<String>,
    /// Why no loader would start it.
    pub trouble: Option<String>,
}

/// A file that systemd's stub adds to images.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct BesideReport {
    /// From the root of the volume.
    pub path: String,
    /// What it is.
    pub kind: CompanionKind,
    /// Its length.
    pub bytes: u32,
    /// The name of the image that it is for, whether there is one or not; `null` when it is for every image.
    pub image: Option<String>,
    /// The files in the menu that start with it, signatures aside.
    pub added_to: Vec<String>,
    /// What an addon adds to the command line.
    pub cmdline: Option<String>,
    /// Why an addon can be added to nothing.
    pub trouble: Option<String>,
}

/// What boots.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct BootReport {
    /// Entry ids in menu order.
    pub menu: Vec<String>,
    /// The file that is started: its name where it lies in `EFI/Linux`, else its path; `null` where that is no UKI.
    pub selected: Option<String>,
    /// What is started, in words.
    pub starts: String,
    /// Whether the menu is on the way of the boot; else it is what a systemd-boot in `EFI/BOOT` would show.
    pub is_on_the_way: bool,
    /// Why that one.
    pub reason: String,
    /// The menu with titles.
    pub entries: Vec<EntryReport>,
    /// What happens on the screen.
    pub mode: MenuMode,
    /// What starts if the EFI variables are lost.
    pub selected_without_variables: Option<String>,
    /// The part each file plays.
    pub roles: Roles,
}

/// A line of the menu.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct EntryReport {
    /// Its id.
    pub id: String,
    /// Its text.
    pub title: String,
    /// The file in `EFI/Linux`.
    pub file: Option<String>,
    /// The profile of that file.
    pub profile: u32,
    /// What it does to an installed node, if it is more than booting.
    pub danger: Option<String>,
}

/// A boot loader.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct LoaderReport {
    /// Where it is.
    pub path: String,
    /// Its version, if it is systemd-boot.
    pub systemd_boot: Option<String>,
}

/// Reads an ESP.
///
/// # Errors
/// As [`Target::find`] and [`Inventory::read`].
pub fn status(request: &Status, ui: &dyn Ui) -> Result<StatusReport> {
    look(request, true, ui)
}

/// As [`status`], by the headers of the images alone: no hash, no schematic, no extensions. On a slow medium this takes
/// no longer than reading the allocation table.
///
/// # Errors
/// As [`status`].
pub fn status_without_hashes(request: &Status, ui: &dyn Ui) -> Result<StatusReport> {
    look(request, false, ui)
}

fn look(request: &Status, whole: bool, ui: &dyn Ui) -> Result<StatusReport> {
    let target = request.find(ui)?;
    let vars = request.efivars(&target);
    let (variables, unreadable) = boot_variables(&vars);
    ui.event(Event::Step("reading the ESP".into()));
    let context = request.context(&target, &vars, None);
    let mut inventory = Inventory::read_in(Cached::new(target.open()?), variables, context)?;
    if whole {
        inventory.examine()?;
    }
    let mut warnings = target.warnings.clone();
    warnings.extend(unreadable);
    warnings.extend(inventory.predictions.next.warnings.iter().cloned());
    let words = request.words(&target, inventory.arch());
    let room = room_for_one_more(&inventory, inventory.stamp(now()))?;
    let objections = objections(&inventory, &vars, BootScenario::Next)?;
    let view = EspView {
        esp: &inventory,
        words,
        variables_known: vars.unavailable().is_none(),
        room,
        objections: &objections,
    };
    let mut findings = examine_esp(&view);
    crate::doctor::sort(&mut findings);
    Ok(report(&target, &inventory, vars.origin(), warnings, findings))
}

impl DiskRequest {
    /// How the commands that are recommended name the disk.
    pub(super) fn words(&self, target: &Target, arch: Option<Arch>) -> DiskWords {
        // The partition's own node: what lies in the page cache of the whole disk may be older.
        DiskWords::new(&self.path, target.node(), self.partition.as_deref(), self.efivars.as_argument())
            .for_arch(arch)
            .for_packed(target.packing())
            .for_members(&target.paths())
    }
}

/// An ESP in the shape of `status`.
pub(super) fn report<S: ReadAt>(
    target: &Target,
    esp: &Inventory<S>,
    variables: VariablesOrigin,
    warnings: Vec<String>,
    findings: Vec<Finding>,
) -> StatusReport {
    StatusReport {
        variables,
        findings,
        board: board(target, esp),
        examined: esp.examined,
        disk: disk_report(target),
        esp: esp_report(esp),
        files: esp.files.iter().map(FileReport::of).collect(),
        elsewhere: elsewhere(esp),
        companions: esp.companions.iter().map(|c| BesideReport::of(esp, c)).collect(),
        boot: boot_report(esp),
        way: esp.steps(BootScenario::Next),
        way_notes: way_notes(esp),
        interrupted: esp.interrupted.as_ref().filter(|i| i.is_operation()).map(ToString::to_string).or_else(|| {
            let (found, on) = esp.interrupted_beside().ok().flatten().filter(|(found, _)| found.is_operation())?;
            Some(format!("{found}, on {on}"))
        }),
        loader: esp.loader.as_ref().map(|(path, known)| LoaderReport {
            path: path.clone(),
            systemd_boot: known.as_ref().map(|l| l.version.to_string()),
        }),
        loaders: loaders(esp),
        warnings,
    }
}

fn loaders<S: ReadAt>(esp: &Inventory<S>) -> Vec<LoaderReport> {
    let found = esp.arch().and_then(|arch| loader_places(esp, arch).ok()).unwrap_or_default();
    let there = found.places.into_iter().filter(|place| place.exists);
    let report = |place: LoaderPlace| LoaderReport {
        path: place.path(),
        systemd_boot: place.loader.map(|loader| loader.version.to_string()),
    };
    there.map(report).collect()
}

fn board<S: ReadAt>(target: &Target, esp: &Inventory<S>) -> BoardReport {
    let starts = esp.selected().and_then(|file| file.facts.as_ref());
    BoardReport::of_esp(target, &esp.volume).for_stub(starts.and_then(|facts| Host::of(facts).stub))
}

fn elsewhere<S: ReadAt>(esp: &Inventory<S>) -> Vec<FileReport> {
    let Ok(Some(place)) = esp.place() else { return Vec::new() };
    if place.is_among_images() {
        return Vec::new();
    }
    let on = place.partition.as_ref().map_or(String::new(), |partition| format!(" on {partition}"));
    let report = |file: &EspFile| {
        let bytes = esp.open_at(&place.at_name(file.name())).ok().flatten().filter(|_| esp.examined);
        let hash = bytes.and_then(|bytes| sha256_of(&bytes, bytes.size()).ok());
        let name = format!("{}{on}", place.path(file.name()));
        FileReport { name, sha256: hash.map(hex::encode), ..FileReport::of(file) }
    };
    std::iter::once(&place.image).chain(place.aside.iter().filter(|file| place.is_of_image(file))).map(report).collect()
}

fn disk_report(target: &Target) -> DiskReport {
    DiskReport {
        path: target.path.display().to_string(),
        packed: target.packing(),
        sector_size: target.sector_size,
        partition: target.partition.as_ref().map(|p| PartitionReport {
            number: p.number,
            label: p.label.clone(),
            partuuid: p.partuuid.to_string(),
            offset: p.extent.offset,
            bytes: p.extent.bytes,
        }),
    }
}

fn esp_report<S: ReadAt>(esp: &Inventory<S>) -> EspReport {
    let (volume, health) = (&esp.volume, &esp.health);
    let g = volume.geometry();
    let (notes, problems): (Vec<_>, Vec<_>) = health.problems.iter().partition(|p| p.class == ProblemClass::Note);
    let text = |these: Vec<&crate::fat::Problem>| these.into_iter().map(|p| p.what.clone()).collect::<Vec<_>>();
    EspReport {
        fat: g.kind,
        cluster_bytes: g.cluster_bytes,
        total_bytes: u64::from(g.clusters) * u64::from(g.cluster_bytes),
        free_bytes: volume.free_bytes(),
        dirty: health.dirty,
        healthy: health.is_healthy(),
        problems: text(problems),
        notes: text(notes),
        lost: esp.lost.others.clone(),
    }
}

impl FileReport {
    fn of(file: &EspFile) -> Self {
        Self {
            name: file.name().to_owned(),
            kind: file.kind,
            bytes: file.entry.bytes,
            sha256: file.sha256.clone(),
            version: file.version().map(str::to_owned),
            arch: file.arch(),
            schematic: file.schematic.clone(),
            duplicate_of: file.duplicate_of.clone(),
            trouble: file.trouble.clone(),
        }
    }
}

/// Boot options that lead nowhere, doubts, and the ways of other scenarios where they end elsewhere.
fn way_notes<S: ReadAt>(esp: &Inventory<S>) -> Vec<String> {
    let way = esp.way(BootScenario::Next);
    let mut notes: Vec<String> = way.passed_over.iter().map(|why| format!("passed over: {why}")).collect();
    notes.extend(way.in_doubt.iter().map(|why| format!("perhaps before that: {why}")));
    let (now, _) = esp.runs(BootScenario::Next);
    notes.extend(esp.context.options.next.map(|next| after_boot_next(esp, next)));
    for (scenario, when) in
        [(BootScenario::Later, "at the start after the next one"), (BootScenario::Reset, "without EFI variables")]
    {
        if scenario == BootScenario::Later && esp.context.options.next.is_some() {
            continue;
        }
        let (then, _) = esp.runs(scenario);
        if then != now || esp.way(scenario).end != way.end {
            notes.push(format!("{when}: {}", in_words(esp, &then)));
        }
    }
    notes
}

/// BootNext, and what starts after it; a boot counter can make the third start another than the second.
fn after_boot_next<S: ReadAt>(esp: &Inventory<S>, next: u16) -> String {
    // A start that does not come by the menu takes no try from a counter.
    let by_menu = esp.is_read(BootScenario::Next);
    let first = if by_menu { BootScenario::Next } else { BootScenario::Later };
    let starts = if esp.is_read(BootScenario::Later) { esp.starts(first, esp.as_seen()) } else { Vec::new() };
    let entry = |n: usize| starts.get(n).or(starts.last()).and_then(|start| start.prediction.selected_entry());
    let (second, third) = (entry(usize::from(by_menu)), entry(1 + usize::from(by_menu)));
    let then = in_words(esp, &esp.runs(BootScenario::Later).0);
    let after = match third.filter(|third| Some(&third.id) != second.map(|second| &second.id)) {
        Some(third) => {
            format!("at the start after the next one: {then}, and at the third one: {}", esp.entry_place(third))
        }
        None => format!("at the starts after the next one: {then}"),
    };
    format!("BootNext (Boot{next:04X}) applies to one start; {after}")
}

fn in_words<S: ReadAt>(esp: &Inventory<S>, runs: &Runs) -> String {
    match runs {
        Runs::Image { at, profile: 0 } => esp.describe_place(at),
        Runs::Image { at, profile } => format!("profile {profile} of {}", esp.describe_place(at)),
        Runs::Other(what) => what.clone(),
        Runs::Nothing(why) => format!("nothing: {why}"),
        Runs::Unknown(why) => format!("not known: {why}"),
        Runs::Enrolment => "keys are enrolled".to_owned(),
    }
}

/// What is started, in few words.
fn starts(runs: &Runs, selected: Option<&str>) -> String {
    match (selected, runs) {
        (Some(file), _) => file.to_owned(),
        (None, Runs::Other(what)) => what.clone(),
        (None, Runs::Enrolment) => "the enrolment of Secure Boot keys".to_owned(),
        (None, Runs::Unknown(_)) => "something that is not known".to_owned(),
        (None, Runs::Nothing(_) | Runs::Image { .. }) => "nothing".to_owned(),
    }
}

/// The file that runs: its name where it lies in `EFI/Linux`, else its path, with the partition where that is another.
fn selected<S: ReadAt>(
    esp: &Inventory<S>,
    scenario: BootScenario,
    prediction: &Prediction,
) -> (Option<String>, String) {
    let (runs, by_menu) = esp.runs(scenario);
    let reason = match (&runs, &by_menu) {
        (_, Some(by_menu)) => by_menu.reason.clone(),
        (_, None) => esp.way(scenario).steps.first().map_or_else(String::new, |step| step.why.clone()),
    };
    match runs {
        Runs::Image { at, .. } if !esp.is_here(&at) => (Some(esp.describe_place(&at)), reason),
        Runs::Image { at, .. } => {
            let path = || at.path.trim_start_matches('\\').replace('\\', "/");
            (Some(esp.in_linux(&at).map_or_else(path, str::to_owned)), reason)
        }
        Runs::Enrolment => (None, reason),
        // A program that is not known may hand over to systemd-boot: then this is what it shows.
        Runs::Unknown(why) if by_menu.is_none() => (
            prediction.selected_file().map(str::to_owned),
            format!("if systemd-boot comes next: {} ({why})", prediction.reason),
        ),
        Runs::Other(what) | Runs::Nothing(what) | Runs::Unknown(what) => {
            (None, if by_menu.is_some() { reason } else { what })
        }
    }
}

impl BesideReport {
    fn of<S: ReadAt>(esp: &Inventory<S>, companion: &Companion) -> Self {
        let addon = esp.addons.get(&companion.path);
        let says = addon.and_then(|a| a.as_ref().ok());
        let has_it = |file: &&EspFile| file.kind == FileKind::Uki && Companions::is_for(companion, file.name());
        let taken = |file: &&EspFile| {
            companion.kind != CompanionKind::Addon
                || file
                    .facts
                    .as_ref()
                    .zip(says)
                    .is_some_and(|(facts, says)| Host::of(facts).passes_over(says).is_none())
        };
        let added_to = esp.files.iter().filter(has_it).filter(taken);
        Self {
            path: companion.path.clone(),
            kind: companion.kind,
            bytes: companion.entry.bytes,
            image: companion.image().map(str::to_owned),
            added_to: added_to.map(|f| f.name().to_owned()).collect(),
            cmdline: says.and_then(|s| s.cmdline()).map(str::to_owned),
            trouble: addon.and_then(|a| a.as_ref().err().cloned()),
        }
    }
}

/// What the addons that its stub takes add to the command line of a file in the menu.
fn added_to<'e, S: ReadAt>(esp: &'e Inventory<S>, name: &str) -> Vec<&'e str> {
    let addons: Vec<_> = esp.companions.of(name).filter_map(|c| esp.addons.get(&c.path)?.as_ref().ok()).collect();
    // The file is looked for among all, and there may be ten thousand lines.
    if addons.is_empty() {
        return Vec::new();
    }
    let Some(host) = esp.file(name).and_then(|f| f.facts.as_deref()).map(Host::of) else { return Vec::new() };
    addons.into_iter().filter(|says| host.passes_over(says).is_none()).filter_map(|says| says.cmdline()).collect()
}

fn boot_report<S: ReadAt>(esp: &Inventory<S>) -> BootReport {
    let Predictions { next: now, reset, .. } = &esp.predictions;
    let danger = |entry: &crate::boot::MenuEntry| {
        let own = entry.options.as_deref().unwrap_or_default();
        let added = entry.file.as_deref().map_or(Vec::new(), |name| added_to(esp, name));
        let cmdline = std::iter::once(own).chain(added).collect::<Vec<_>>().join(" ");
        crate::uki::cmdline::wipes(&cmdline).map(|what| format!("wipes {what}"))
    };
    let (selected, reason) = selected(esp, BootScenario::Next, now);
    let is_on_the_way = esp.is_read(BootScenario::Next);
    let mut roles = crate::boot::roles(now, &esp.variables);
    if !is_on_the_way && !matches!(esp.runs(BootScenario::Next).0, Runs::Unknown(_)) {
        (roles.selected, roles.fallback) = (None, None);
    }
    BootReport {
        starts: starts(&esp.runs(BootScenario::Next).0, selected.as_deref()),
        is_on_the_way,
        menu: now.menu.iter().map(|e| e.id.clone()).collect(),
        selected,
        reason,
        entries: now
            .menu
            .iter()
            .map(|e| EntryReport {
                id: e.id.clone(),
                title: e.title.to_string(),
                file: e.file.clone(),
                profile: e.profile,
                danger: danger(e),
            })
            .collect(),
        mode: now.mode,
        selected_without_variables: self::selected(esp, BootScenario::Reset, reset).0,
        roles,
    }
}
