//! `recover`: after an interruption.

use super::change::Change;
use super::{DiskRequest, Ui};
use crate::Result;
use crate::surgery::{Recovery, recover};
use serde::Serialize;

/// What `recover` is asked for.
#[derive(Debug)]
pub struct Recover {
    /// The disk.
    pub disk: DiskRequest,
    /// How.
    pub change: Change,
}

/// What it did.
#[derive(Debug, Serialize)]
pub struct RecoverReport {
    /// What was found and done, or would be.
    #[serde(flatten)]
    pub recovery: Recovery,
    /// Whether it was carried out; `false` in a dry run and when there was nothing to do.
    pub committed: bool,
}

impl Recover {
    /// Looks, asks, carries out.
    ///
    /// # Errors
    /// As [`recover`].
    pub fn run(&self, ui: &dyn Ui) -> Result<RecoverReport> {
        self.recover(ui).map_err(|e| e.with_esp_changed(false))
    }

    fn recover(&self, ui: &dyn Ui) -> Result<RecoverReport> {
        let target = self.disk.find()?;
        let source = target.open()?;
        let recovery = crate::surgery::rehearse_recovery(&source, target.sector_size)?;
        if self.change.dry_run || recovery.actions.is_empty() {
            return Ok(RecoverReport { recovery, committed: false });
        }
        drop(source);
        self.change.confirm(ui, &format!("Do this on {}: {}?", target.path.display(), recovery.actions.join("; ")))?;
        let opened = target.open_surgery()?;
        Ok(RecoverReport { recovery: recover(opened.medium()).map_err(|e| e.with_esp_changed(true))?, committed: true })
    }
}
