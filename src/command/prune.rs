//! `prune`: duplicates, broken entries and stale versions out of the boot menu.

use super::change::{Change, confirm_on_medium, refuse_changed};
use super::{DiskRequest, Event, Ui, boot_variables, now};
use crate::Result;
use crate::disk::Target;
use crate::esp::Inventory;
use crate::plan::{PrunePlan, PruneWishes};
use crate::surgery::open_healthy;
use serde::Serialize;

/// What `prune` is asked for.
#[derive(Debug)]
pub struct Prune {
    /// The disk.
    pub disk: DiskRequest,
    /// How.
    pub change: Change,
    /// Delete instead of renaming.
    pub delete: bool,
    /// Keep this many backups.
    pub keep_backups: Option<usize>,
    /// Take the only fallback out too.
    pub no_fallback: bool,
}

/// What it did.
#[derive(Debug, Serialize)]
pub struct PruneReport {
    /// The plan.
    pub plan: PrunePlan,
    /// Whether it was carried out.
    pub committed: bool,
    /// The file of `--out`, which holds the changed image now (an unchanged one where there was nothing to do); `null`
    /// when none was written.
    pub out: Option<String>,
}

impl Prune {
    /// Plans, asks, carries out.
    ///
    /// # Errors
    /// As [`PrunePlan::make`] and [`open_healthy`]; what the medium reports.
    pub fn run(&self, ui: &dyn Ui) -> Result<PruneReport> {
        self.change.on(&self.disk, ui, |target| self.prune(target, ui)).map_err(|e| e.with_esp_changed(false))
    }

    fn prune(&self, target: &Target, ui: &dyn Ui) -> Result<PruneReport> {
        let vars = self.disk.efivars(target);
        let (variables, unreadable) = boot_variables(&vars);
        for warning in target.warnings.iter().chain(&unreadable) {
            ui.event(Event::Warning(warning.clone()));
        }
        let esp = Inventory::read(target.open()?, variables)?;
        esp.refuse_unsafe()?;
        let time = esp.stamp(now());
        let wishes =
            PruneWishes { delete: self.delete, keep_backups: self.keep_backups, no_fallback: self.no_fallback, time };
        let plan = PrunePlan::make(&esp, &wishes)?;
        if plan.is_empty() {
            return Ok(self.report(plan, false));
        }
        let tidying = plan.tidying(time);
        tidying.rehearse(esp.volume.source(), target.sector_size)?;
        if self.change.dry_run {
            return Ok(self.report(plan, false));
        }
        let count = plan.renames.len() + plan.delete.len();
        self.change.confirm(ui, &format!("Take {count} files out of the way on {}?", target.path.display()))?;
        let opened = target.open_surgery()?;
        let editor = open_healthy(opened.medium())?;
        refuse_changed(&esp, &editor.volume()?, &vars)?;
        let outcome = tidying.run(editor)?;
        confirm_on_medium(
            opened.medium(),
            &outcome.operation,
            &esp.variables,
            plan.starts_then.each_ref().map(Option::as_deref),
        )?;
        Ok(self.report(plan, true))
    }

    fn report(&self, plan: PrunePlan, committed: bool) -> PruneReport {
        PruneReport { plan, committed, out: self.change.written() }
    }
}
