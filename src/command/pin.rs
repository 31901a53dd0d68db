//! `pin`: which entry of the boot menu starts, without an EFI variable.

use super::change::{Change, refuse_changed, unconfirmed};
use super::programs::{refuse_distrusted, refused_images, started_from};
use super::room::advise_room;
use super::{DiskRequest, Event, Ui, boot_variables, now};
use crate::block::{ReadAt, Sink, WriteAt};
use crate::disk::Target;
use crate::esp::Inventory;
use crate::plan::PinPlan;
use crate::surgery::{Staging, open_healthy};
use crate::{Error, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What `pin` is asked for.
#[derive(Debug)]
pub struct Pin {
    /// Which disk.
    pub disk: DiskRequest,
    /// How.
    pub change: Change,
    /// The entry: its id, its file, or a pattern as systemd-boot understands it; `None` for none (`--clear`).
    pub entry: Option<String>,
}

/// What it did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct PinReport {
    /// The plan.
    pub plan: PinPlan,
    /// Whether it was carried out.
    pub committed: bool,
    /// Whether the file said so already.
    pub already_in_place: bool,
    /// The file of `--out`, which holds the changed image now (an unchanged one where there was nothing to do); `null`
    /// when none was written.
    pub out: Option<String>,
    /// All members of the mirror that were written, or would be; empty for a disk by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// What somebody should know.
    pub warnings: Vec<String>,
}

impl Pin {
    /// Plans, asks, carries out.
    ///
    /// # Errors
    /// As [`PinPlan::make`] and [`open_healthy`]; what the medium reports.
    pub fn run(&self, ui: &dyn Ui) -> Result<PinReport> {
        let done = self.change.on(&self.disk, ui, |target| self.pin(target, ui));
        let report = done.map_err(|e| e.with_esp_changed(false))?;
        Ok(PinReport { out: self.change.written(), members: self.disk.member_names(), ..report })
    }

    fn pin(&self, target: &Target, ui: &dyn Ui) -> Result<PinReport> {
        let vars = self.disk.efivars(target);
        let (variables, mut warnings) = boot_variables(&vars);
        warnings.extend(target.warnings.iter().cloned());
        let esp = Inventory::read_in(target.open()?, variables, self.disk.context(target, &vars, None))?;
        esp.refuse_unsafe()?;
        let refused = match self.disk.efivars.is_named() || started_from(target, &vars) {
            true => refused_images(&esp, &vars)?,
            false => Vec::new(),
        };
        let time = now();
        let plan = PinPlan::make(&esp, self.entry.as_deref(), &refused, time)?;
        let are_the_boards = self.disk.variables_are_the_boards(target);
        warnings.extend(refuse_distrusted(&esp, &vars, are_the_boards, None)?);
        warnings.extend(plan.warnings.iter().cloned());
        let done = |plan: PinPlan, committed, already_in_place| PinReport {
            plan,
            committed,
            already_in_place,
            out: None,
            members: Vec::new(),
            warnings: warnings.clone(),
        };
        let Some(text) = plan.text() else { return Ok(done(plan, false, true)) };
        let order = plan.order();
        order
            .rehearse(&*target.open()?, target.sector_size, text.len() as u64)
            .map_err(|e| advise_room(e, &esp, None, text.len() as u64, &self.disk.words(target, esp.arch())))?;
        if self.change.dry_run {
            return Ok(done(plan, false, false));
        }
        if self.change.cannot_be_confirmed(ui) {
            return Err(unconfirmed());
        }
        if !self.change.yes {
            warnings.iter().for_each(|warning| ui.event(Event::Warning(warning.clone())));
        }
        self.change.confirm(ui, &question(&plan, target))?;
        let opened = target.open_surgery()?;
        let editor = open_healthy(opened.medium())?;
        refuse_changed(&esp, None, &editor.volume(), &vars)?;
        let mut staging = Staging::begin(editor, text.len() as u64)?;
        staging.chunk(text)?;
        let staged = staging.seal(Sha256::digest(text).into())?;
        staged.commit(order)?;
        confirm(opened.medium(), &esp, &plan)?;
        Ok(done(plan, true, false))
    }
}

/// What changes, in one line.
fn question(plan: &PinPlan, target: &Target) -> String {
    let starts = plan.boot_after.as_deref().unwrap_or("nothing");
    let line = plan.default.as_ref().map_or("no line `default`".to_owned(), |value| format!("`default {value}`"));
    format!("{} on {}: {line}; the board starts {starts} then. Commit?", plan.file, target.in_words())
}

/// Reads the ESP anew, past the caches, and makes sure that it is sound and holds what the plan says.
fn confirm<S: ReadAt>(medium: &dyn WriteAt, before: &Inventory<S>, plan: &PinPlan) -> Result<()> {
    let look = || -> Result<()> {
        medium.drop_written()?;
        let esp = Inventory::read_in(medium, before.variables.clone(), Arc::clone(&before.context))?;
        esp.refuse_unreadable()?;
        if esp.health.is_healthy() && esp.interrupted.is_none() && esp.loader_conf() == plan.text() {
            // This looks once more whether the name that the user gave still leads here.
            return Ok(medium.drop_written()?);
        }
        Err(Error::io("the ESP does not look as planned after the change: the medium may have lost writes"))
    };
    look().map_err(|e| e.advise("look at it with `status`, and run it again").with_esp_changed(true))
}
