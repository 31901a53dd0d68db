//! `restore`: a backup back in place, the present image becoming a backup. No image byte is copied.

use super::beside::{beside, pointed};
use super::change::{Change, confirm_on_medium, refuse_changed};
use super::examine::examine;
use super::next::{After, NextStep};
use super::programs::refuse_distrusted;
use super::room::advise_room;
use super::swap::rejected;
use super::trust::{TrustRequest, add_disk};
use super::verify::accepted;
use super::{DiskRequest, Event, Ui, boot_variables, now};
use crate::block::ReadAt;
use crate::disk::Target;
use crate::esp::{BackupName, Inventory};
use crate::pcr::Bank;
use crate::plan::{NewImage, SwapOptions, SwapPlan, backups, latest_backup, refuse_unreached};
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
    /// What somebody should know.
    pub warnings: Vec<String>,
    /// What is left to do on the node, in order; empty when nothing was changed.
    pub next: Vec<NextStep>,
}

/// A backup on the ESP.
#[derive(Debug, Serialize)]
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
    let vars = disk.efivars(&target);
    let esp = Inventory::read_in(target.open()?, boot_variables(&vars).0, disk.context(&target, &vars, None))?;
    let report = |(name, b): (String, BackupName)| {
        let file = esp.file(&name);
        BackupReport {
            original: b.original,
            time: rfc3339(b.time),
            bytes: file.map_or(0, |f| f.entry.bytes),
            version: file.and_then(|f| f.version()).map(str::to_owned),
            name,
        }
    };
    Ok(backups(&esp).into_iter().map(report).collect())
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
        let vars = self.disk.efivars(target);
        let (variables, mut warnings) = boot_variables(&vars);
        warnings.extend(target.warnings.iter().cloned());
        let context = self.disk.context(target, &vars, self.trust.arch);
        let esp = Inventory::read_in(target.open()?, variables, context)?;
        esp.refuse_unsafe()?;
        warnings.extend(esp.lost.warning());
        warnings.extend(refuse_unreached(&esp)?);
        warnings.extend(refuse_distrusted(&esp, &vars, self.disk.variables_are_the_boards(target))?);
        let (name, original) = self.choose(&esp)?;
        let Some(file) = esp.file(&name) else { return Err(Error::usage(format!("there is no file {name}"))) };
        let bytes = esp.volume.file(&file.entry)?;

        let mut policy = self.trust.policy(&vars, ui)?;
        policy.firmware_is_the_boards = self.disk.variables_are_the_boards(target);
        policy.arch = policy.arch.or(esp.arch());
        policy.way_back = true;
        add_disk(&mut policy, &esp, ui)?;
        ui.event(Event::Step(format!("verifying {name}")));
        let mut examined = examine(&bytes, &[Bank::Sha256], &mut [], ui)?;
        examined.facts.companions = Ok(beside(&esp, &original));
        examined.facts.pointed = pointed(&bytes, examined.facts.family, &esp.volume);
        let report = verify(&examined.facts, &policy);
        if !accepted(&report) {
            return Err(rejected(&report));
        }
        if let Some(why) = &report.firmware_refuses {
            return Err(Error::refused(format!("the board's firmware would refuse {name}: {why}")));
        }

        let time = esp.stamp(now());
        let image = NewImage { source: &bytes, facts: file.facts.as_ref(), bytes_to_write: 0, from_file: Some(&name) };
        let options = SwapOptions { target: Some(original.clone()), keep_duplicates: false, keep_backups: None, time };
        let plan = SwapPlan::make(&esp, &image, &options)?;
        let report = if plan.target == original {
            report
        } else {
            // What lies beside it depends on its name.
            examined.facts.companions = Ok(beside(&esp, &plan.target));
            verify(&examined.facts, &policy)
        };
        if !accepted(&report) {
            return Err(rejected(&report));
        }
        warnings.extend(plan.warnings.iter().cloned());
        let sha256 = report.image.sha256.clone();
        let done = |plan, committed| RestoreReport {
            restored: name.clone(),
            plan,
            checks: report.checks.clone(),
            committed,
            sha256: sha256.clone(),
            out: self.change.written(),
            warnings: warnings.clone(),
            next: Vec::new(),
        };
        let order = plan.order("restore", time);
        order
            .rehearse_restore(esp.volume.source(), target.sector_size, &name)
            .map_err(|e| advise_room(e, &esp, 0, &self.disk.words(target, esp.arch())))?;
        if self.change.dry_run {
            return Ok(done(plan, false));
        }
        self.change.confirm(ui, &format!("Put {name} back as {} on {}?", plan.target, target.path.display()))?;
        let opened = target.open_surgery()?;
        let editor = open_healthy(opened.medium())?;
        refuse_changed(&esp, &editor.volume()?, &vars)?;
        let entry = &file.entry;
        let verified = ContentRef { cluster: entry.first_cluster, bytes: entry.bytes, sha256: Some(sha256.clone()) };
        let outcome = order.restore(editor, &name, verified)?;
        confirm_on_medium(opened.medium(), &outcome.operation, &esp, [plan.boot_after.as_deref(); 2])?;
        let words = self.disk.words(target, esp.arch());
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

    /// The backup's name and the name it goes back to.
    fn choose<S: ReadAt>(&self, esp: &Inventory<S>) -> Result<(String, String)> {
        let all = backups(esp);
        let list = || all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        match &self.backup {
            None => match latest_backup(esp) {
                Some((name, b)) => Ok((name, b.original)),
                None => Err(Error::usage("there is no backup in EFI/Linux")),
            },
            Some(wanted) => {
                let file = esp.file(wanted).ok_or_else(|| {
                    Error::usage(format!("there is no {wanted} in EFI/Linux; backups are: {}", list()))
                })?;
                let parsed = BackupName::parse(file.name()).ok_or_else(|| {
                    Error::usage(format!("{wanted} is no backup: its name does not end in .bak.TIME or .disabled.TIME"))
                })?;
                Ok((file.name().to_owned(), parsed.original))
            }
        }
    }
}
