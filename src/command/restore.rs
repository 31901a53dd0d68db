//! `restore`: a backup back in place, the present image becoming a backup. No image byte is copied.

use super::beside::{beside, beside_place, pointed};
use super::board_set::confirm_set;
use super::change::{Change, confirm_on_medium, refuse_changed};
use super::examine::examine;
use super::medium::{Again, Side};
use super::next::{After, NextStep};
use super::programs::refuse_distrusted;
use super::refusals::{firmware_refuses, rejected};
use super::room::advise_room;
use super::trust::{TrustRequest, add_contents, add_disk};
use super::verify::accepted;
use super::{DiskRequest, Event, Proposal, Ui, boot_variables, now};
use crate::block::ReadAt;
use crate::disk::Target;
use crate::doctor::DiskWords;
use crate::esp::{BackupName, EspFile, FileKind, Inventory, Place, linux_file};
use crate::pcr::Bank;
use crate::pe::Arch;
use crate::plan::{
    BoardSetOptions, BoardSetPlan, NewImage, SwapOptions, SwapPlan, backups, latest_backup, place_of, refuse_unreached,
    started_last,
};
use crate::sorting::Sort as _;
use crate::surgery::{ContentRef, Order, open_healthy};
use crate::units::count;
use crate::verify::{Check, ExtensionFacts, ImageChange, ImageExtensions, installer_image, verify};
use crate::{Code, Error, Result, uki};
use serde::Serialize;

/// What `restore` is asked for.
#[derive(Debug)]
pub struct Restore {
    /// Which disk.
    pub disk: DiskRequest,
    /// Which backup; if none is named, the image that was started last, else the newest.
    pub backup: Option<String>,
    /// Held against what.
    pub trust: TrustRequest,
    /// How.
    pub change: Change,
    /// `--with-board-files`: what changed together with the image goes back with it; and what is accepted for that.
    pub board_files: Option<BoardSetOptions>,
    /// The node's name, for what is said to do next.
    pub node: Option<String>,
}

/// What it did: the shape of a swap's report.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The backup that was put back.
    pub restored: String,
    /// The plan.
    pub plan: SwapPlan,
    /// Every check of the backup.
    pub checks: Vec<Check>,
    /// What is another than with the image that boots now.
    pub change: ImageChange,
    /// Whether it was carried out.
    pub committed: bool,
    /// SHA-256 of the image.
    pub sha256: String,
    /// The board's own files that went back with the image; `null` where nobody asked for that.
    pub board_files: Option<BoardSetPlan>,
    /// The file of `--out`, which holds the changed image now (an unchanged one where there was nothing to do); `null`
    /// when none was written.
    pub out: Option<String>,
    /// All members of the mirror that were written, or would be; empty for a disk by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// What somebody should know.
    pub warnings: Vec<String>,
    /// What is left to do on the node, in order; empty when nothing was changed.
    pub next: Vec<NextStep>,
}

/// A backup on the ESP.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct BackupReport {
    /// Its name.
    pub name: String,
    /// The file it was a backup of.
    pub original: String,
    /// When that was replaced, RFC 3339 UTC.
    pub time: String,
    /// Its length.
    pub bytes: u32,
    /// The version in it.
    pub version: Option<String>,
    /// Whether it was taken out of the menu (`….disabled.<time>`) rather than replaced. It is restored when it is
    /// named.
    pub disabled: bool,
    /// The ID of the schematic that it was built from.
    pub schematic: Option<String>,
    /// Its extensions.
    pub extensions: Vec<ExtensionFacts>,
    /// Whether it holds the image that was started last and is in the menu no more.
    pub started_last: bool,
    /// Whether a restore takes it if none is named.
    pub is_next: bool,
}

/// The image that boots now, for comparison.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct BootsNow {
    /// Its name, or its path where it has a place of its own.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// The ID of the schematic that it was built from.
    pub schematic: Option<String>,
    /// Its extensions.
    pub extensions: Vec<ExtensionFacts>,
}

/// `restore --list`.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct BackupList {
    /// What can be put back, the newest first; what was disabled comes behind the backups.
    pub backups: Vec<BackupReport>,
    /// What boots now.
    pub boots_now: Option<BootsNow>,
}

/// What can be restored on a disk. Every image is read whole, for its extensions.
///
/// # Errors
/// As [`Inventory::read`].
pub fn list_backups(disk: &DiskRequest, ui: &dyn Ui) -> Result<BackupList> {
    let target = disk.find(ui)?;
    let side = Side::of(&target)?;
    let target = &*side.esp;
    let vars = disk.efivars(target);
    let esp = Inventory::read_in(target.open()?, boot_variables(&vars).0, disk.context(target, &vars, None))?;
    let extensions =
        |bytes: &dyn ReadAt| uki::analyse(bytes, &mut []).map(|u| ImageExtensions::of(&u)).unwrap_or_default();
    let in_linux = |file: &EspFile| esp.volume.file(&file.entry).map(|bytes| extensions(&bytes)).unwrap_or_default();
    // A bare name is one in `EFI/Linux`.
    let place = place_of(&esp, None)?;
    let in_place = |place: &Place, file: &EspFile| {
        let bytes = esp.open_at(&place.at_name(file.name())).ok().flatten();
        bytes.map(|bytes| extensions(&*bytes)).unwrap_or_default()
    };
    let report = |name: String, original: String, b: &BackupName, file: &EspFile, has: ImageExtensions| BackupReport {
        name,
        original,
        time: rfc3339(b.time),
        bytes: file.entry.bytes,
        version: file.version().map(str::to_owned),
        disabled: b.disabled,
        schematic: has.schematic,
        extensions: has.extensions,
        started_last: false,
        is_next: false,
    };
    let mut all = Vec::new();
    for place in place.iter().filter(|place| !place.is_among_images()) {
        for (file, b) in place.backups() {
            let has = in_place(place, file);
            all.push(report(place.path(file.name()), place.path(&b.original), &b, file, has));
        }
    }
    for (name, b) in backups(&esp).into_iter().chain(disabled(&esp)) {
        if let Some(file) = esp.file(&name) {
            all.push(report(name, b.original.clone(), &b, file, in_linux(file)));
        }
    }
    let (started, next) = match &place {
        Some(place) => (None, place.backups().first().map(|(file, _)| place.path(file.name()))),
        None => (started_last(&esp), latest_backup(&esp).map(|(name, _)| name)),
    };
    for backup in &mut all {
        backup.started_last = started.as_ref() == Some(&backup.name);
        backup.is_next = next.as_ref() == Some(&backup.name);
    }
    let now = match &place {
        Some(place) => Some((place.words(), &place.image, in_place(place, &place.image))),
        None => esp.selected().map(|file| (file.name().to_owned(), file, in_linux(file))),
    };
    let boots_now = now.map(|(name, file, has)| BootsNow {
        name,
        version: file.version().map(str::to_owned),
        schematic: has.schematic,
        extensions: has.extensions,
    });
    Ok(BackupList { backups: all, boots_now })
}

/// What can be restored, by the names that `restore` takes: what lies beside an image in a place of its own, then the
/// backups in `EFI/Linux`, then what was disabled there, each the newest first.
pub(super) fn restorable<'e, S: ReadAt>(
    esp: &'e Inventory<S>,
    place: Option<&'e Place>,
) -> Vec<(String, BackupName, &'e EspFile)> {
    let beside = place.filter(|place| !place.is_among_images()).into_iter();
    let beside =
        beside.flat_map(|place| place.backups().into_iter().map(|(file, b)| (place.path(file.name()), b, file)));
    let in_linux = backups(esp).into_iter().chain(disabled(esp));
    beside.chain(in_linux.filter_map(|(name, b)| Some((name.clone(), b, esp.file(&name)?)))).collect()
}

/// The images in `EFI/Linux` that were taken out of the menu, the newest first.
fn disabled<S: ReadAt>(esp: &Inventory<S>) -> Vec<(String, BackupName)> {
    let is_image = |f: &&EspFile| f.kind == FileKind::Disabled && f.facts.is_some();
    let named =
        esp.files.iter().filter(is_image).filter_map(|f| Some((f.name().to_owned(), BackupName::parse(f.name())?)));
    let mut all: Vec<_> = named.collect();
    all.put_in_order_by(|(_, b)| std::cmp::Reverse(b.time));
    all
}

/// A time in the contract's form. Times that no clock shows become the last one that it can write.
pub(super) fn rfc3339(seconds: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.min(253_402_300_799));
    humantime::format_rfc3339_seconds(at).to_string()
}

impl Restore {
    /// Does it.
    ///
    /// # Errors
    /// As for a swap; [`crate::Kind::Usage`] when there is no such backup.
    pub fn run(&self, ui: &dyn Ui) -> Result<RestoreReport> {
        self.change.on(&self.disk, ui, |target| self.restore(target, ui)).map_err(|e| e.with_esp_changed(false))
    }

    fn restore(&self, target: &Target, ui: &dyn Ui) -> Result<RestoreReport> {
        let side = Side::of(target)?;
        let target = &*side.esp;
        let vars = self.disk.efivars(target);
        let (variables, mut warnings) = boot_variables(&vars);
        warnings.extend(target.warnings.iter().cloned());
        let context = self.disk.context(target, &vars, self.trust.arch);
        let esp = Inventory::read_in(target.open()?, variables, context)?;
        esp.refuse_unsafe()?;
        warnings.extend(esp.lost.warning());
        if let Some(done) = super::loader::restore(self, target, &esp, &vars, &warnings, ui)? {
            return Ok(done);
        }
        let found = place_of(&esp, None)?;
        let has_place = found.is_some();
        if !has_place {
            warnings.extend(refuse_unreached(&esp)?);
        }
        let sibling = side.medium(&esp, found.as_ref())?;
        let words = self.disk.words(target, esp.arch());
        let Chosen { file, original, place } = self.choose(&esp, found, &words)?;
        let place = place.as_ref();
        // A backup in `EFI/Linux` of the ESP goes back there.
        let sibling = sibling.filter(|_| place.is_some());
        if has_place && place.is_none() {
            // It is one of `EFI/Linux`, and something else starts.
            warnings.extend(refuse_unreached(&esp)?);
        }
        let medium = sibling.as_ref().unwrap_or(target);
        let are_the_boards = self.disk.variables_are_the_boards(target);
        warnings.extend(refuse_distrusted(&esp, &vars, are_the_boards, place)?);
        let name = file.name().to_owned();
        let shown = place.map_or_else(|| name.clone(), |place| place.path(&name));
        let bytes = match place {
            Some(place) => esp.open_at(&place.at_name(&name))?,
            None => Some(Box::new(esp.volume.file(&file.entry)?) as Box<dyn ReadAt + '_>),
        };
        let Some(bytes) = bytes else { return Err(Error::usage(format!("there is no file {shown}"))) };

        let mut policy = self.trust.policy(&vars, ui)?;
        policy.firmware_is_the_boards = are_the_boards;
        let placed = place.and_then(|place| Arch::from_machine(place.program.machine));
        policy.arch = policy.arch.or(placed).or(esp.arch());
        policy.way_back = true;
        add_disk(&mut policy, &esp, place, ui)?;
        add_contents(&mut policy, &esp, place, ui);
        ui.event(Event::Step(format!("verifying {shown}")));
        let mut examined = examine(&bytes, &[Bank::Sha256], &mut [], ui)?;
        let companions = |name: &str| place.map_or_else(|| beside(&esp, name), |place| beside_place(&esp, place));
        examined.facts.companions = Ok(companions(&original));
        examined.facts.pointed = pointed(&bytes, examined.facts.family, &esp.volume);
        let report = verify(&examined.facts, &policy);
        if !accepted(&report) {
            return Err(rejected(&report));
        }
        if let Some(why) = &report.firmware_refuses {
            return Err(firmware_refuses(&shown, why));
        }

        let time = place.map_or_else(|| esp.stamp(now()), |place| place.stamp(now()));
        let image =
            NewImage { source: &bytes, facts: file.facts.as_deref(), bytes_to_write: 0, from_file: Some(&name) };
        let options = SwapOptions { target: Some(original.clone()), keep_duplicates: false, keep_backups: None, time };
        let plan = match place {
            Some(place) => SwapPlan::in_place(&esp, place, &image, &options)?,
            None => SwapPlan::make(&esp, &image, &options)?,
        };
        let report = if place.is_some() || plan.target == original {
            report
        } else {
            // What lies beside it depends on its name.
            examined.facts.companions = Ok(companions(&plan.target));
            verify(&examined.facts, &policy)
        };
        if !accepted(&report) {
            return Err(rejected(&report));
        }
        warnings.extend(plan.warnings.iter().cloned());
        let set = self.board_set(&esp, &name, place, time, &mut warnings)?;
        let sha256 = report.image.taken_sha256()?;
        let done = |plan, committed| RestoreReport {
            restored: shown.clone(),
            plan,
            checks: report.checks.clone(),
            change: report.change.clone(),
            committed,
            sha256: sha256.clone(),
            board_files: set.clone(),
            out: self.change.written(),
            members: self.disk.member_names(),
            warnings: warnings.clone(),
            next: Vec::new(),
        };
        let files = set.as_ref().map_or_else(Vec::new, BoardSetPlan::set);
        let order = Order { set: files, ..plan.order("restore", time) };
        let elsewhere = place.zip(sibling.as_ref());
        order
            .rehearse_restore(&*medium.open()?, medium.sector_size, &name)
            .map_err(|e| advise_room(e, &esp, elsewhere, 0, &self.disk.words(target, esp.arch())))?;
        if self.change.dry_run {
            return Ok(done(plan, false));
        }
        if !self.change.yes && ui.can_ask() {
            ui.show(&Proposal {
                restored: Some(&shown),
                plan: &plan,
                checks: &report.checks,
                change: &report.change,
                board_files: set.as_ref(),
                board: None,
                members: self.disk.member_names(),
                warnings: warnings.clone(),
            });
        }
        let kept = plan.backup.as_ref().map_or_else(String::new, |b| format!("; present image kept as {b}"));
        let files = order.set.len();
        let files = if files > 0 { format!("; with it {} of the board", count(files, "file")) } else { String::new() };
        let what = format!("{shown} back as {} on {}: {}{files}{kept}", plan.target, target.in_words(), report.change);
        self.change.confirm(ui, &format!("{what}. Commit?"))?;
        let opened = medium.open_surgery()?;
        let editor = open_healthy(opened.medium())?;
        refuse_changed(&esp, place, &editor.volume(), &vars)?;
        let entry = &file.entry;
        let verified = ContentRef { cluster: entry.first_cluster, bytes: entry.bytes, sha256: Some(sha256.clone()) };
        let outcome = order.restore(editor, &name, verified)?;
        if !outcome.operation.set.is_empty() {
            confirm_set(opened.medium(), &outcome.operation)?;
        }
        match place {
            Some(place) => {
                let again = Again { disk: &self.disk, esp: target, vars: &vars, arch: self.trust.arch };
                again.confirm(opened.medium(), &outcome.operation, &esp, place)?;
            }
            None => confirm_on_medium(opened.medium(), &outcome.operation, &esp, [plan.boot_after.as_deref(); 2])?,
        }
        let asked = self.trust.arch.filter(|_| esp.is_arch_chosen());
        let words = words.for_asked_arch(asked);
        let installer = installer_image(&examined.facts, None);
        let after = After {
            target,
            words: &words,
            on_a_copy: self.change.out.is_some(),
            node: self.node.as_deref(),
            family: report.family,
            extensions: &report.image.extensions,
            waiting: &report.image.waiting_services,
            installer: installer.as_deref(),
            trust: &self.trust,
            set: set.as_ref().filter(|set| set.replaces()).map(|set| set.mixture.is_some()),
        };
        Ok(RestoreReport { next: after.steps(), ..done(plan, true) })
    }

    /// The board's files that changed together with the image that is replaced: as a plan where the user wants them
    /// back, as a warning where nobody said so.
    fn board_set<S: ReadAt>(
        &self,
        esp: &Inventory<S>,
        backup: &str,
        place: Option<&Place>,
        time: u64,
        warnings: &mut Vec<String>,
    ) -> Result<Option<BoardSetPlan>> {
        let Some(made) = BackupName::parse(backup).map(|backup| backup.time) else { return Ok(None) };
        if let Some(options) = &self.board_files {
            let set = BoardSetPlan::restoring(&esp.volume, made, &BoardSetOptions { time, ..options.clone() })?;
            return match place.filter(|place| place.partition.is_some() && !set.change.is_empty()) {
                Some(place) => Err(Error::new(
                    Code::Unsupported,
                    format!("the image lies on another partition ({}) than the board's files", place.words()),
                )),
                None => Ok(Some(set)),
            };
        }
        let all = BoardSetOptions { accept_mixture: true, time, ..BoardSetOptions::default() };
        // A directory that cannot be read is no reason not to restore an image.
        let changed = BoardSetPlan::restoring(&esp.volume, made, &all).map_or(0, |set| set.change.len());
        if changed > 0 {
            let files = count(changed, "file");
            warnings.push(format!("{files} of the board changed with this image and stay new: --with-board-files"));
        }
        Ok(None)
    }

    /// The backup, the name it goes back to, and the place of the image that it replaces, where that has one of its
    /// own.
    fn choose<S: ReadAt>(&self, esp: &Inventory<S>, place: Option<Place>, words: &DiskWords) -> Result<Chosen> {
        let Some(wanted) = &self.backup else {
            if let Some(place) = place {
                let (file, b) = newest_beside(&place)?;
                return Ok(Chosen { file, original: b.original, place: Some(place) });
            }
            let is_sound = esp.selected().is_some_and(|file| file.kind == FileKind::Uki);
            let other = esp.other_sound_image().filter(|_| !is_sound).map(|f| words.swap_from_itself(f.name()));
            let other = other.map(|swap| format!("{swap} puts another image of this ESP in its place"));
            let none = || {
                let none = Error::usage("there is no backup in EFI/Linux");
                let disabled: Vec<String> = disabled(esp).into_iter().map(|(name, _)| name).collect();
                let by_name = "images that were disabled can be restored by their names";
                match (disabled.is_empty(), &other) {
                    (false, _) => none.advise(format!("{by_name}: {}", disabled.join(", "))),
                    (true, Some(other)) => none.advise(other),
                    (true, None) => none,
                }
            };
            let (name, b) = latest_backup(esp).ok_or_else(none)?;
            let file = esp.file(&name).ok_or_else(none)?.clone();
            return Ok(Chosen { file, original: b.original, place: None });
        };
        let parsed = |file: &EspFile| {
            BackupName::parse(file.name()).ok_or_else(|| {
                Error::usage(format!("{wanted} is not a backup: its name does not end in .bak.TIME or .disabled.TIME"))
            })
        };
        // A bare name is one in `EFI/Linux`, as `--list` has it, as long as there is such a file.
        let is_there = !wanted.contains(['/', '\\']) && esp.file(wanted).is_some();
        let meant = place.as_ref().filter(|place| place.is_among_images() || !is_there);
        if let Some(file) = meant.and_then(|place| place.file(wanted)).cloned() {
            let original = parsed(&file)?.original;
            return Ok(Chosen { file, original, place });
        }
        let name = linux_file(wanted).unwrap_or(wanted);
        let list = || {
            let names = restorable(esp, place.as_ref()).into_iter().map(|(name, ..)| name);
            names.collect::<Vec<_>>().join(", ")
        };
        let file = esp
            .file(name)
            .ok_or_else(|| Error::usage(format!("there is no {wanted} in EFI/Linux; backups are: {}", list())))?;
        Ok(Chosen { file: file.clone(), original: parsed(file)?.original, place: None })
    }
}

/// What is put back.
struct Chosen {
    file: EspFile,
    original: String,
    place: Option<Place>,
}

/// The backup of an image in its own place that a restore takes if none is named: the newest.
fn newest_beside(place: &Place) -> Result<(EspFile, BackupName)> {
    let newest = place.backups().into_iter().next();
    let none = || Error::usage(format!("there is no backup beside {}, which the board starts", place.words()));
    newest.map(|(file, b)| (file.clone(), b)).ok_or_else(none)
}
