//! `recover`: after an interruption.

use super::change::Change;
use super::{DiskRequest, Ui, now};
use crate::Result;
use crate::disk::Target;
use crate::surgery::{LostFiles, Recovery, RecoveryOptions, recover_with, rehearse_with};
use serde::Serialize;

/// What `recover` is asked for.
#[derive(Debug)]
pub struct Recover {
    /// The disk.
    pub disk: DiskRequest,
    /// How.
    pub change: Change,
    /// What happens to chains of clusters that belong to no file and that this program did not leave.
    pub lost: LostFiles,
    /// Give another name to what has the record's name and is none.
    pub set_aside: bool,
}

/// What it did.
#[derive(Debug, Serialize)]
pub struct RecoverReport {
    /// What was found and done, or would be.
    #[serde(flatten)]
    pub recovery: Recovery,
    /// Whether it was carried out; `false` in a dry run and when there was nothing to do.
    pub committed: bool,
    /// The file of `--out`, which holds the changed image now (an unchanged one where there was nothing to do); `null`
    /// when none was written.
    pub out: Option<String>,
}

impl Recover {
    /// Looks, asks, carries out.
    ///
    /// # Errors
    /// As `recover` of the library.
    pub fn run(&self, ui: &dyn Ui) -> Result<RecoverReport> {
        self.change.on(&self.disk, ui, |target| self.recover(target, ui)).map_err(|e| e.with_esp_changed(false))
    }

    fn recover(&self, target: &Target, ui: &dyn Ui) -> Result<RecoverReport> {
        let source = target.open()?;
        let recovery = rehearse_with(&source, target.sector_size, &self.options())?;
        if self.change.dry_run || recovery.actions.is_empty() {
            return Ok(self.report(recovery, false));
        }
        drop(source);
        self.change.confirm(ui, &format!("Do this on {}: {}?", target.path.display(), recovery.actions.join("; ")))?;
        let opened = target.open_surgery()?;
        Ok(self.report(recover_with(opened.medium(), &self.options()).map_err(|e| e.with_esp_changed(true))?, true))
    }

    fn options(&self) -> RecoveryOptions {
        RecoveryOptions { lost: self.lost, set_aside: self.set_aside, time: now() }
    }

    fn report(&self, recovery: Recovery, committed: bool) -> RecoverReport {
        RecoverReport { recovery, committed, out: self.change.written() }
    }
}
