//! `loader`: another systemd-boot in the place of the one that starts; and a backup of one back in its place.

use super::change::{Change, refuse_changed, unconfirmed};
use super::examine::examine;
use super::medium::Side;
use super::refusals::{firmware_refuses, rejected};
use super::restore::{Restore, RestoreReport};
use super::room::advise_room;
use super::source::ImageSource;
#[cfg(feature = "net")]
use super::swap::Swap;
use super::trust::{TrustRequest, add_disk};
use super::{DiskRequest, Event, NextStep, OpenImage, Ui, boot_variables, check_cancelled, now};
use crate::block::{ReadAt, Sink, WriteAt, read_vec};
use crate::boot::Loader;
use crate::bootpath::{BootScenario, Program, ProgramKind};
use crate::disk::Target;
use crate::efivars::EfiVars;
use crate::esp::{BackupName, Inventory};
use crate::fat::same_name;
use crate::image::{ImageKind, files_at};
use crate::pe::Arch;
use crate::plan::{
    LoaderPlace, LoaderPlan, LoaderStep, SwapPlan, is_older, loader_places, refuse_another_start, starts_next,
    usual_loader_paths,
};
use crate::surgery::{ContentRef, Order, Preview, Staging, is_linux_dir, open_healthy};
use crate::units::size;
use crate::verify::{Check, CheckId, CheckStatus, ImageChange, Policy, Report, Verdict, verify};
use crate::{Code, Error, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// A systemd-boot is a tenth of this, in bytes.
const MAX_LOADER: u64 = 8 << 20;
/// What is checked of a program that is no UKI.
const CHECKS: [CheckId; 5] =
    [CheckId::Pe, CheckId::Arch, CheckId::AuthenticodeDigest, CheckId::AuthenticodeSigner, CheckId::Revocation];

/// What `loader` is asked for.
#[derive(Debug)]
pub struct ReplaceLoader {
    /// Which disk.
    pub disk: DiskRequest,
    /// What holds the systemd-boot; with a factory it is asked for there.
    pub image: ImageSource,
    /// Held against what.
    pub trust: TrustRequest,
    /// How.
    pub change: Change,
    /// `--allow-downgrade`.
    pub allow_downgrade: bool,
    /// `--keep-backups`.
    pub keep_backups: Option<usize>,
}

/// What it did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ReplaceLoaderReport {
    /// The plan.
    pub plan: LoaderPlan,
    /// Every check of the new one.
    pub checks: Vec<Check>,
    /// Whether every place holds it now that was to.
    pub committed: bool,
    /// SHA-256 of the new one.
    pub sha256: String,
    /// Where it was found.
    pub source: String,
    /// Whether the very same bytes were at every place already.
    pub already_in_place: bool,
    /// The file of `--out`, which holds the changed image now (an unchanged one where there was nothing to do); `null`
    /// when none was written.
    pub out: Option<String>,
    /// All members of the mirror that were written, or would be; empty for a disk by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// What somebody should know.
    pub warnings: Vec<String>,
    /// What is left to do, in order; empty when nothing was changed.
    pub next: Vec<NextStep>,
}

/// What a place gets.
#[derive(Clone, Copy)]
enum NewLoader<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// What a file of the same directory holds.
    File(&'a str, &'a ContentRef),
}

/// A systemd-boot that was found.
struct Found {
    place: String,
    bytes: Vec<u8>,
    loader: Loader,
}

impl ReplaceLoader {
    /// Plans, asks, carries out.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when it fails a check, or is no systemd-boot; [`Code::WouldNotBoot`] when the board
    /// would start something else with it; what disk and network report.
    pub fn run(&self, ui: &dyn Ui) -> Result<ReplaceLoaderReport> {
        let done = self.change.on(&self.disk, ui, |target| self.replace(target, ui));
        let report = done.map_err(|e| e.with_esp_changed(false))?;
        Ok(ReplaceLoaderReport { out: self.change.written(), members: self.disk.member_names(), ..report })
    }

    fn replace(&self, target: &Target, ui: &dyn Ui) -> Result<ReplaceLoaderReport> {
        let side = Side::of(target)?;
        let target = &*side.esp;
        let vars = self.disk.efivars(target);
        let (variables, mut warnings) = boot_variables(&vars);
        warnings.extend(target.warnings.iter().cloned());
        let esp = Inventory::read_in(target.open()?, variables, self.disk.context(target, &vars, self.trust.arch))?;
        esp.refuse_unsafe()?;
        esp.refuse_unreadable()?;
        let arch = self.trust.arch.or(esp.arch()).ok_or_else(|| {
            Error::usage("for which architecture? The ESP does not tell it").advise("name it with --arch arm64|amd64")
        })?;
        let found = loader_places(&esp, arch)?;
        if found.places.is_empty() {
            return Err(Error::new(
                Code::WouldNotBoot,
                format!("there is no systemd-boot to replace: {}", found.others.join(", ")),
            )
            .advise("another boot loader is replaced by its own means; `status` shows what it is on the way to"));
        }
        warnings.extend(found.others.iter().map(|other| format!("{other}, and stays as it is")));
        let mut policy = policy(&self.trust, &self.disk, target, &vars, &esp, arch, ui)?;
        let new = self.open(&mut policy, arch, ui)?;
        let policy = of_a_program(policy);
        let sha256 = Sha256::digest(&new.bytes);
        let report = judge(&new.bytes, &new.loader, &policy, ui)?;
        let mut checks = report.checks;
        checks.push(self.version_check(&new.loader, &found.places));

        let time = esp.stamp(now());
        let mut places = Vec::new();
        for place in &found.places {
            places.push(match holds(&esp, place, &new.bytes)? {
                true => LoaderStep::nothing(place),
                false => LoaderStep::replace(&esp, place, None, self.keep_backups, time)?,
            });
        }
        let orders: Vec<Order> = places.iter().filter_map(|step| step.order().cloned()).collect();
        let (before, count) = (starts_next(&esp), orders.len() as u64);
        let plan = LoaderPlan {
            version: new.loader.version.text.clone(),
            places,
            bytes_to_write: count * new.bytes.len() as u64,
            boot_after: before.clone(),
            boot_before: before,
            warnings: new.loader.version.caveat().into_iter().collect(),
        };
        let done = |plan: LoaderPlan, checks: Vec<Check>, committed, warnings: &[String], next| ReplaceLoaderReport {
            warnings: warnings.iter().chain(&plan.warnings).cloned().collect(),
            plan,
            checks,
            committed,
            sha256: hex::encode(sha256),
            source: new.place.clone(),
            already_in_place: count == 0,
            out: None,
            members: Vec::new(),
            next,
        };
        if count == 0 {
            return Ok(done(plan, Vec::new(), false, &warnings, Vec::new()));
        }
        if checks.iter().any(|c| c.status == CheckStatus::Fail) {
            return Err(rejected(&Report { checks, verdict: Verdict::Reject, ..report }));
        }
        if let Some(why) = report.firmware_refuses.filter(|_| !behind_shim(&esp)) {
            return Err(firmware_refuses("this boot loader", &why));
        }
        if behind_shim(&esp) {
            warnings.push("shim starts it: whether shim trusts its signer is shim's to know".to_owned());
        }
        let words = self.disk.words(target, esp.arch());
        let content = NewLoader::Bytes(&new.bytes);
        let states = foresee(target, &esp, &vars, &orders, content)
            .map_err(|e| advise_room(e, &esp, None, new.bytes.len() as u64, &words))?;
        let plan = LoaderPlan { boot_after: states.last().and_then(starts_next), ..plan };
        if self.change.dry_run {
            return Ok(done(plan, checks, false, &warnings, Vec::new()));
        }
        if self.change.cannot_be_confirmed(ui) {
            return Err(unconfirmed());
        }
        if !self.change.yes {
            warnings.iter().chain(&plan.warnings).for_each(|warning| ui.event(Event::Warning(warning.clone())));
        }
        self.change.confirm(ui, &question(&plan, target))?;
        carry_out(target, &esp, &states, &vars, &orders, content, ui)?;
        let backups = plan.places.iter().filter_map(|step| step.backup.as_deref());
        let way_back = |backup: &str| {
            let mut run = words.arguments("restore");
            run.push(backup.to_owned());
            run.extend(self.trust.believing());
            NextStep::new(run, "the way back")
        };
        let next = if self.change.out.is_some() { Vec::new() } else { backups.map(way_back).collect() };
        Ok(done(plan, checks, true, &warnings, next))
    }

    /// Whether a newer one is there already.
    fn version_check(&self, new: &Loader, places: &[LoaderPlace]) -> Check {
        let newest = places.iter().filter_map(|p| Some((p.loader.as_ref()?, p))).find(|(old, _)| is_older(new, old));
        let (status, detail) = match newest {
            None => (CheckStatus::Pass, format!("It is {}, and none that it replaces is newer.", new.version)),
            Some((old, place)) => {
                let what =
                    format!("It is {}, and {} is {}: that is a downgrade.", new.version, place.path(), old.version);
                match self.allow_downgrade {
                    true => (CheckStatus::Warn, format!("{what} Accepted because of --allow-downgrade.")),
                    false => (CheckStatus::Fail, format!("{what} --allow-downgrade accepts that.")),
                }
            }
        };
        Check { id: CheckId::Version, status, detail }
    }

    fn open(&self, policy: &mut Policy, arch: Arch, ui: &dyn Ui) -> Result<Found> {
        let opened = match &self.image {
            ImageSource::Named(request) => request.open_to_look_around(ui)?,
            #[cfg(feature = "net")]
            ImageSource::Factory(from) => {
                // What is looked at here and there is not read from front to back.
                let change = Change { dry_run: true, ..Change::default() };
                let swap = Swap::new(self.disk.clone(), self.image.clone(), self.trust.clone(), change);
                swap.open_from_factory(from, policy, ui)?
            }
        };
        #[cfg(not(feature = "net"))]
        let _ = policy;
        find(&opened, arch)
    }
}

/// What a program is held against.
fn policy<S: ReadAt>(
    trust: &TrustRequest,
    disk: &DiskRequest,
    target: &Target,
    vars: &EfiVars,
    esp: &Inventory<S>,
    arch: Arch,
    ui: &dyn Ui,
) -> Result<Policy> {
    let mut policy = trust.policy(vars, ui)?;
    policy.firmware_is_the_boards = disk.variables_are_the_boards(target);
    policy.arch = Some(arch);
    add_disk(&mut policy, esp, esp.place().ok().flatten().as_ref(), ui)?;
    Ok(policy)
}

/// Without what is of UKIs alone: which of the factory's ISOs is meant goes by it, and nothing behind that.
fn of_a_program(policy: Policy) -> Policy {
    Policy { version: None, installed: None, ..policy }
}

/// The systemd-boot for an architecture in what was opened.
fn find(opened: &OpenImage, arch: Arch) -> Result<Found> {
    let kind = opened.found.kind;
    let advise = format!(
        "give systemd-boot itself ({}), or what holds it: the Secure Boot ISO, a disk image",
        usual_loader_paths(arch).join(" or ")
    );
    if kind == ImageKind::Oci {
        return Err(Error::new(Code::Unsupported, "no boot loader is looked for in an OCI image").advise(advise));
    }
    let mut others = Vec::new();
    for file in files_at(&opened.source(), kind, &usual_loader_paths(arch))? {
        let bytes = match file.bytes {
            Ok(bytes) if bytes.size() <= MAX_LOADER => bytes,
            Ok(bytes) => {
                others.push(format!("{} has {}", file.place, size(bytes.size())));
                continue;
            }
            Err(why) => {
                others.push(format!("{}: {why}", file.place));
                continue;
            }
        };
        match Program::recognise(&bytes) {
            Ok(Program { kind: ProgramKind::SystemdBoot(loader), .. }) => {
                let bytes = read_vec(&bytes, 0, bytes.size() as usize)?;
                return Ok(Found { place: file.place, bytes, loader });
            }
            Ok(program) => others.push(format!("{} is {program}", file.place)),
            Err(why) => others.push(format!("{} is no EFI program: {why}", file.place)),
        }
    }
    let others = if others.is_empty() { String::new() } else { format!(": {}", others.join("; ")) };
    Err(Error::new(Code::WrongImage, format!("no systemd-boot for {arch} in the {kind}{others}")).advise(advise))
}

/// What is to be known of a systemd-boot that is no matter of where it goes.
fn judge(bytes: &dyn ReadAt, loader: &Loader, policy: &Policy, ui: &dyn Ui) -> Result<Report> {
    let facts = examine(bytes, &[], &mut [], ui)?.facts;
    let mut report = verify(&facts, policy);
    report.checks.retain(|check| CHECKS.contains(&check.id));
    for check in report.checks.iter_mut().filter(|c| c.id == CheckId::Pe && c.status == CheckStatus::Pass) {
        check.detail = format!("{}.", loader.version);
    }
    Ok(report)
}

/// Whether shim comes before it on the way.
fn behind_shim<S: ReadAt>(esp: &Inventory<S>) -> bool {
    esp.way(BootScenario::Later).programs.iter().any(|(_, kind)| *kind == ProgramKind::Shim)
}

fn holds<S: ReadAt>(esp: &Inventory<S>, place: &LoaderPlace, bytes: &[u8]) -> Result<bool> {
    let Some(entry) = esp.volume.find(&place.path())? else { return Ok(false) };
    if u64::from(entry.bytes) != bytes.len() as u64 {
        return Ok(false);
    }
    match esp.volume.file(&entry) {
        Ok(file) => Ok(read_vec(&file, 0, bytes.len())? == bytes),
        Err(e) if e.code().is_bad_content() => Ok(false),
        Err(e) => Err(e),
    }
}

/// The ESP behind each of the operations, looked at as firmware and systemd-boot will find it; and that it starts there
/// what it starts today.
fn foresee<S: ReadAt>(
    target: &Target,
    esp: &Inventory<S>,
    vars: &EfiVars,
    orders: &[Order],
    new: NewLoader<'_>,
) -> Result<Vec<Inventory<Box<dyn ReadAt>>>> {
    let (variables, _) = boot_variables(vars);
    let mut below: Arc<dyn ReadAt> = Arc::from(target.open()?);
    let mut states: Vec<Inventory<Box<dyn ReadAt>>> = Vec::new();
    for order in orders {
        let then: Preview = match new {
            NewLoader::Bytes(bytes) => order.preview(Arc::clone(&below), target.sector_size, bytes)?,
            NewLoader::File(from, _) => order.preview_restore(Arc::clone(&below), target.sector_size, from)?,
        };
        below = Arc::new(then);
        let context = Arc::clone(&esp.context);
        let view: Box<dyn ReadAt> = Box::new(Arc::clone(&below));
        let state = Inventory::read_in(view, variables.clone(), context)?;
        let step = format!("with the new {}/{}", order.directory, order.target);
        match states.last() {
            Some(before) => refuse_another_start(before, &state, &step)?,
            None => refuse_another_start(esp, &state, &step)?,
        }
        states.push(state);
    }
    Ok(states)
}

/// One operation after the other, each looked at before the next one.
fn carry_out<S: ReadAt>(
    target: &Target,
    esp: &Inventory<S>,
    states: &[Inventory<Box<dyn ReadAt>>],
    vars: &EfiVars,
    orders: &[Order],
    new: NewLoader<'_>,
    ui: &dyn Ui,
) -> Result<()> {
    for (n, (order, state)) in orders.iter().zip(states).enumerate() {
        // Behind the first one something is changed.
        let changed = |e: Error| if n > 0 { e.with_esp_changed(true) } else { e };
        let one = || -> Result<()> {
            check_cancelled(ui)?;
            let opened = target.open_surgery()?;
            let editor = open_healthy(opened.medium())?;
            match n.checked_sub(1).and_then(|before| states.get(before)) {
                Some(before) => refuse_changed(before, None, &editor.volume(), vars)?,
                None => refuse_changed(esp, None, &editor.volume(), vars)?,
            }
            ui.event(Event::Step(format!("writing {}/{}", order.directory, order.target)));
            match new {
                NewLoader::Bytes(bytes) => {
                    let mut staging = Staging::begin(editor, bytes.len() as u64)?;
                    staging.chunk(bytes)?;
                    staging.seal(Sha256::digest(bytes).into())?.commit(order)?;
                }
                NewLoader::File(from, verified) => drop(order.restore(editor, from, verified.clone())?),
            }
            confirm(opened.medium(), state)
        };
        one().map_err(changed)?;
    }
    Ok(())
}

/// Reads the ESP anew, past the caches, and makes sure that it is sound and starts what was foreseen, by the same way.
pub(super) fn confirm<S: ReadAt>(medium: &dyn WriteAt, expected: &Inventory<S>) -> Result<()> {
    let look = || -> Result<()> {
        medium.drop_written()?;
        let esp = Inventory::read_in(medium, expected.variables.clone(), Arc::clone(&expected.context))?;
        esp.refuse_unreadable()?;
        let same = [BootScenario::Next, BootScenario::Later, BootScenario::Reset].into_iter().all(|scenario| {
            esp.way(scenario) == expected.way(scenario) && esp.runs(scenario).0 == expected.runs(scenario).0
        });
        if esp.health.is_healthy() && esp.interrupted.is_none() && same && esp.loader == expected.loader {
            // This looks once more whether the name that the user gave still leads here.
            return Ok(medium.drop_written()?);
        }
        Err(Error::io("the ESP does not look as planned after the change: the medium may have lost writes"))
    };
    look().map_err(|e| e.advise("look at it with `status`; `restore` puts a backup back").with_esp_changed(true))
}

/// What changes, in one line.
fn question(plan: &LoaderPlan, target: &Target) -> String {
    let steps = plan.places.iter().filter(|step| !step.already_in_place).map(|step| {
        let old = step.version_before.as_deref().map_or(String::new(), |old| format!(" (now {old})"));
        let kept = step.backup.as_ref().map_or(String::new(), |backup| format!(", old one kept as {backup}"));
        format!("{}{old}{kept}", step.target)
    });
    let steps: Vec<String> = steps.collect();
    format!("systemd-boot {} on {}: {}. Commit?", plan.version, target.in_words(), steps.join("; "))
}

/// `restore` of a backup that is a systemd-boot, named by its path; `None` where it is none.
///
/// # Errors
/// As [`ReplaceLoader::run`].
pub(super) fn restore<S: ReadAt>(
    request: &Restore,
    target: &Target,
    esp: &Inventory<S>,
    vars: &EfiVars,
    warnings: &[String],
    ui: &dyn Ui,
) -> Result<Option<RestoreReport>> {
    let Some(path) = request.backup.as_ref().map(|path| path.replace('\\', "/")) else { return Ok(None) };
    let path = path.trim_matches('/');
    let Some((directory, _)) = path.rsplit_once('/').filter(|(directory, _)| !is_linux_dir(directory)) else {
        return Ok(None);
    };
    let Some(entry) = esp.volume.find(path)?.filter(|entry| !entry.is_dir()) else { return Ok(None) };
    let Some(name) = BackupName::parse(&entry.name) else { return Ok(None) };
    let Ok(Some(Program { kind: ProgramKind::SystemdBoot(loader), .. })) = esp.program(path) else { return Ok(None) };
    let Some(arch) = Arch::from_machine(loader.machine) else { return Ok(None) };
    if request.board_files.is_some() {
        return Err(Error::usage(format!("{path} is a boot loader: --with-board-files goes with an image"))
            .advise("leave it out"));
    }
    let original = format!("{directory}/{}", name.original);
    let found = loader_places(esp, arch)?;
    let known = found.places.into_iter().find(|place| same_name(&place.path(), &original));
    let place = match (known, esp.volume.find(&original)?) {
        (Some(place), _) => place,
        (None, None) => LoaderPlace::empty(directory, &name.original),
        (None, Some(_)) => {
            return Err(Error::new(Code::WouldNotBoot, format!("{original} is no systemd-boot: it stays as it is"))
                .advise("`status` shows what it is"));
        }
    };
    let policy = of_a_program(policy(&request.trust, &request.disk, target, vars, esp, arch, ui)?);
    let policy = Policy { way_back: true, ..policy };
    let bytes = esp.volume.file(&entry)?;
    let report = judge(&bytes, &loader, &policy, ui)?;
    let sha256 = report.image.taken_sha256()?;
    let version_before = place.loader.as_ref().map(|loader| loader.version.text.clone());
    let mut plan = SwapPlan {
        target: original,
        backup: None,
        disable: Vec::new(),
        bytes_to_write: 0,
        boot_before: starts_next(esp),
        boot_after: None,
        renames: Vec::new(),
        renames_before: 0,
        target_backup: None,
        delete: Vec::new(),
        warnings: loader.version.caveat().into_iter().collect(),
        directory: directory.to_owned(),
        partition: None,
    };
    if report.checks.iter().any(|c| c.status == CheckStatus::Fail) {
        return Err(rejected(&report));
    }
    if let Some(why) = report.firmware_refuses.as_ref().filter(|_| !behind_shim(esp)) {
        return Err(firmware_refuses(path, why));
    }
    let step = LoaderStep::replace(esp, &place, Some(&entry.name), None, esp.stamp(now()))?;
    let orders: Vec<Order> = step.order().cloned().into_iter().collect();
    let verified = ContentRef { cluster: entry.first_cluster, bytes: entry.bytes, sha256: Some(sha256.clone()) };
    let content = NewLoader::File(&entry.name, &verified);
    let states = foresee(target, esp, vars, &orders, content)?;
    (plan.backup, plan.target_backup) = (step.backup.clone(), step.backup.clone());
    plan.boot_after = states.last().and_then(starts_next);
    if !request.change.dry_run {
        let old = step.version_before.as_deref().map_or(String::new(), |old| format!(" (now {old})"));
        let what = format!("{path}, {}, back as {}{old} on {}", loader.version, plan.target, target.in_words());
        request.change.confirm(ui, &format!("{what}. Commit?"))?;
        carry_out(target, esp, &states, vars, &orders, content, ui)?;
    }
    Ok(Some(RestoreReport {
        restored: path.to_owned(),
        board_files: None,
        checks: report.checks,
        change: ImageChange { version_before, version: Some(loader.version.text.clone()), ..ImageChange::default() },
        committed: !request.change.dry_run,
        sha256,
        out: request.change.written(),
        members: request.disk.member_names(),
        warnings: warnings.iter().chain(&plan.warnings).cloned().collect(),
        next: Vec::new(),
        plan,
    }))
}
