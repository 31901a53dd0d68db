//! `restore`: a backup back in place, the present image becoming a backup. No image byte is copied.

use super::beside::{beside, beside_place, pointed};
use super::change::{Change, confirm_on_medium, refuse_changed};
use super::examine::examine;
use super::medium::{Again, Side};
use super::next::{After, NextStep};
use super::programs::refuse_distrusted;
use super::room::advise_room;
use super::swap::rejected;
use super::trust::{TrustRequest, add_disk};
use super::verify::accepted;
use super::{DiskRequest, Event, Ui, boot_variables, now};
use crate::block::ReadAt;
use crate::disk::Target;
use crate::esp::{BackupName, EspFile, Inventory, Place, linux_file};
use crate::pcr::Bank;
use crate::pe::Arch;
use crate::plan::{NewImage, SwapOptions, SwapPlan, backups, latest_backup, place_of, refuse_unreached};
use crate::surgery::{ContentRef, open_healthy};
use crate::verify::{Check, verify};
use crate::{Error, Result};
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
    /// Whether it was carried out.
    pub committed: bool,
    /// SHA-256 of the image.
    pub sha256: String,
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
}

/// The backups of a disk, the newest first.
///
/// # Errors
/// As [`Inventory::read`].
pub fn list_backups(disk: &DiskRequest, ui: &dyn Ui) -> Result<Vec<BackupReport>> {
    let target = disk.find(ui)?;
    let side = Side::of(&target)?;
    let target = &*side.esp;
    let vars = disk.efivars(target);
    let esp = Inventory::read_in(target.open()?, boot_variables(&vars).0, disk.context(target, &vars, None))?;
    let report = |name: String, original: String, time: u64, file: Option<&EspFile>| BackupReport {
        name,
        original,
        time: rfc3339(time),
        bytes: file.map_or(0, |f| f.entry.bytes),
        version: file.and_then(EspFile::version).map(str::to_owned),
    };
    let all = backups(&esp).into_iter();
    let mut all: Vec<BackupReport> = all
        .map(|(name, b)| {
            let file = esp.file(&name);
            report(name, b.original, b.time, file)
        })
        .collect();
    // A bare name is one in `EFI/Linux`, which is listed already.
    if let Some(place) = place_of(&esp, None)?.filter(|place| !place.is_among_images()) {
        let beside = place.backups().into_iter();
        let mut beside: Vec<BackupReport> = beside
            .map(|(file, b)| report(place.path(file.name()), place.path(&b.original), b.time, Some(file)))
            .collect();
        beside.append(&mut all);
        all = beside;
    }
    Ok(all)
}

/// A time in the contract's form. Times that no clock shows become the last one that it can write.
fn rfc3339(seconds: u64) -> String {
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
        let found = place_of(&esp, None)?;
        let has_place = found.is_some();
        if !has_place {
            warnings.extend(refuse_unreached(&esp)?);
        }
        let sibling = side.medium(&esp, found.as_ref())?;
        let Chosen { file, original, place } = self.choose(&esp, found)?;
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
            return Err(Error::refused(format!("the board's firmware would refuse {shown}: {why}")));
        }

        let time = place.map_or_else(|| esp.stamp(now()), |place| place.stamp(now()));
        let image = NewImage { source: &bytes, facts: file.facts.as_ref(), bytes_to_write: 0, from_file: Some(&name) };
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
        let sha256 = report.image.sha256.clone();
        let done = |plan, committed| RestoreReport {
            restored: shown.clone(),
            plan,
            checks: report.checks.clone(),
            committed,
            sha256: sha256.clone(),
            out: self.change.written(),
            members: self.disk.member_names(),
            warnings: warnings.clone(),
            next: Vec::new(),
        };
        let order = plan.order("restore", time);
        order.rehearse_restore(&*medium.open()?, medium.sector_size, &name).map_err(|e| match sibling {
            None => advise_room(e, &esp, 0, &self.disk.words(target, esp.arch())),
            Some(_) => e,
        })?;
        if self.change.dry_run {
            return Ok(done(plan, false));
        }
        self.change.confirm(ui, &format!("Put {shown} back as {} on {}?", plan.target, target.in_words()))?;
        let opened = medium.open_surgery()?;
        let editor = open_healthy(opened.medium())?;
        refuse_changed(&esp, place, &editor.volume()?, &vars)?;
        let entry = &file.entry;
        let verified = ContentRef { cluster: entry.first_cluster, bytes: entry.bytes, sha256: Some(sha256.clone()) };
        let outcome = order.restore(editor, &name, verified)?;
        match place {
            Some(place) => {
                let again = Again { disk: &self.disk, esp: target, vars: &vars, arch: self.trust.arch };
                again.confirm(opened.medium(), &outcome.operation, &esp, place)?;
            }
            None => confirm_on_medium(opened.medium(), &outcome.operation, &esp, [plan.boot_after.as_deref(); 2])?,
        }
        let asked = self.trust.arch.filter(|_| esp.is_arch_chosen());
        let words = self.disk.words(target, esp.arch()).for_asked_arch(asked);
        let after = After {
            target,
            words: &words,
            on_a_copy: self.change.out.is_some(),
            node: self.node.as_deref(),
            family: report.family,
            extensions: &report.image.extensions,
            waiting: &report.image.waiting_services,
        };
        Ok(RestoreReport { next: after.steps(), ..done(plan, true) })
    }

    /// The backup, the name it goes back to, and the place of the image that it replaces, where that has one of its own.
    fn choose<S: ReadAt>(&self, esp: &Inventory<S>, place: Option<Place>) -> Result<Chosen> {
        let all = backups(esp);
        let Some(wanted) = &self.backup else {
            if let Some(place) = place {
                let (file, b) = newest_beside(&place)?;
                return Ok(Chosen { file, original: b.original, place: Some(place) });
            }
            let none = || Error::usage("there is no backup in EFI/Linux");
            let (name, b) = latest_backup(esp).ok_or_else(none)?;
            let file = esp.file(&name).ok_or_else(none)?.clone();
            return Ok(Chosen { file, original: b.original, place: None });
        };
        let parsed = |file: &EspFile| {
            BackupName::parse(file.name()).ok_or_else(|| {
                Error::usage(format!("{wanted} is no backup: its name does not end in .bak.TIME or .disabled.TIME"))
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
            let beside = place.iter().filter(|place| !place.is_among_images());
            let beside = beside.flat_map(|p| p.backups().into_iter().map(|(file, _)| p.path(file.name())));
            beside.chain(all.iter().map(|(name, _)| name.clone())).collect::<Vec<_>>().join(", ")
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
