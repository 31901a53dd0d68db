//! `recover`: after an interruption.

use super::change::Change;
use super::{DiskRequest, Ui, now};
use crate::disk::Target;
use crate::surgery::{
    Action, Direction, LostFiles, Recovery, RecoveryOptions, interrupted, recover_with, rehearse_with,
};
use crate::{Result, fat};
use serde::Serialize;
use std::path::PathBuf;

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
    /// Where an interrupted operation is to end; if not named, its commit decides.
    pub direction: Option<Direction>,
    /// Of the members of a mirror, the one that the others are made equal to; if none is named, what is found on them
    /// decides.
    pub truth: Option<PathBuf>,
}

/// Adds what was done on another partition.
fn add(all: &mut Recovery, on: &str, other: &Recovery) {
    let named = |text: &String| format!("{on}: {text}");
    all.interrupted = all.interrupted.take().or_else(|| other.interrupted.as_ref().map(named));
    all.finished = all.finished.or(other.finished);
    all.cut_behind_commit = all.cut_behind_commit.or(other.cut_behind_commit);
    let there = |action: &Action| Action::Elsewhere { partition: on.to_owned(), action: Box::new(action.clone()) };
    all.actions.extend(other.actions.iter().map(there));
}

/// What it did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RecoverReport {
    /// What was found and done, or would be.
    #[serde(flatten)]
    pub recovery: Recovery,
    /// Whether it was carried out; `false` in a dry run and when there was nothing to do.
    pub committed: bool,
    /// The file of `--out`, which holds the changed image now (an unchanged one where there was nothing to do); `null`
    /// when none was written.
    pub out: Option<String>,
    /// All members of the mirror that were written, or would be; empty for a disk by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// The member that the others were made equal to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth: Option<String>,
}

impl Recover {
    /// Looks, asks, carries out.
    ///
    /// # Errors
    /// As `recover` of the library.
    pub fn run(&self, ui: &dyn Ui) -> Result<RecoverReport> {
        if !self.disk.other_members.is_empty() {
            return self.recover_members(ui).map_err(|e| e.with_esp_changed(false));
        }
        self.change.on(&self.disk, ui, |target| self.recover(target, ui)).map_err(|e| e.with_esp_changed(false))
    }

    fn recover(&self, target: &Target, ui: &dyn Ui) -> Result<RecoverReport> {
        let recovery = rehearse_with(&*target.open()?, target.sector_size, &self.options())?;
        let beside = self.beside(target, recovery.actions.is_empty())?;
        let mut all = recovery.clone();
        if let Some((_, on, recovery)) = &beside {
            add(&mut all, on, recovery);
        }
        if self.change.dry_run || all.actions.is_empty() {
            return Ok(self.report(all, false));
        }
        let to_do: Vec<String> = all.actions.iter().map(|action| action.planned().to_string()).collect();
        self.change.confirm(ui, &format!("Recover {}: {}?", target.path.display(), to_do.join(", ")))?;
        let mut done = recovery;
        if !done.actions.is_empty() {
            let opened = target.open_surgery()?;
            done = recover_with(opened.medium(), &self.options()).map_err(|e| e.with_esp_changed(true))?;
        }
        if let Some((medium, on, _)) = &beside {
            let is_changed = !done.actions.is_empty();
            let changed = |e: crate::Error| if is_changed { e.with_esp_changed(true) } else { e };
            let opened = medium.open_surgery().map_err(changed)?;
            let recovery = recover_with(opened.medium(), &self.options_beside());
            add(&mut done, on, &recovery.map_err(|e| e.with_esp_changed(true))?);
        }
        Ok(self.report(done, true))
    }

    /// The Extended Boot Loader Partition beside the ESP, if there is anything to do there, and what would be done.
    /// `alone`: there is nothing to do on the ESP.
    fn beside(&self, target: &Target, alone: bool) -> Result<Option<(Target, String, Recovery)>> {
        let this = target.partition.as_ref().map(|p| p.number);
        let Some(partition) = target.xbootldr().filter(|p| Some(p.number) != this) else { return Ok(None) };
        let source = target.open_partition(partition)?;
        if !fat::is_fat(&source)? {
            return Ok(None);
        }
        // What is not ours there, or cannot be read, does not concern the ESP: whoever means that partition names it.
        let found = fat::Volume::open(source).and_then(|volume| interrupted(&volume));
        let is_recorded = match found {
            Ok(Some(found)) if found.is_operation() => true,
            Ok(Some(_)) => return Ok(None),
            Ok(None) => false,
            Err(e) if e.code().is_failed_access() => return Err(e),
            // One copy of the allocation table may be half written.
            Err(_) => false,
        };
        let medium = target.sibling(Some(partition.number))?;
        let options = self.options_beside();
        let on = partition.name();
        let recovery = match rehearse_with(&*medium.open()?, medium.sector_size, &options) {
            // A cut before the record was there, or behind its end, leaves no more than this.
            Ok(recovery) if is_recorded || !recovery.actions.is_empty() => recovery,
            Ok(_) => return Ok(None),
            Err(e) if !is_recorded && !e.code().is_failed_access() => return Ok(None),
            Err(e) => return Err(e.while_doing(on)),
        };
        match medium.check_writable() {
            // Somebody uses it, and what is left there waits.
            Err(_) if !is_recorded && !alone => Ok(None),
            writable => writable.map(|()| Some((medium, on, recovery))),
        }
    }

    /// Lost chains on the other partition are described and dealt with where that is named.
    fn options_beside(&self) -> RecoveryOptions {
        RecoveryOptions { lost: LostFiles::Keep, ..self.options() }
    }

    pub(super) fn options(&self) -> RecoveryOptions {
        RecoveryOptions { lost: self.lost, set_aside: self.set_aside, direction: self.direction, time: now() }
    }

    pub(super) fn report(&self, recovery: Recovery, committed: bool) -> RecoverReport {
        RecoverReport {
            recovery,
            committed,
            out: self.change.written(),
            members: self.disk.member_names(),
            truth: None,
        }
    }
}
