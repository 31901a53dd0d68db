//! `--all-members`: what changes an ESP, on all members of a mirror that is not assembled.

use super::change::Change;
use super::recover::{Recover, RecoverReport};
use super::{DiskRequest, Event, Ui};
use crate::block::ReadAt;
use crate::disk::Target;
use crate::fat::Volume;
use crate::surgery::{Member, MembersRecovery, interrupted, recover_members, rehearse_members};
use crate::{Code, Error, Result};
use std::path::PathBuf;

impl DiskRequest {
    /// The members of the mirror, or the disk alone.
    pub(super) fn members(&self) -> Vec<PathBuf> {
        std::iter::once(&self.path).chain(&self.other_members).cloned().collect()
    }

    /// The members of the mirror for a report; nothing for a disk by itself.
    pub(super) fn member_names(&self) -> Vec<String> {
        let members = if self.other_members.is_empty() { Vec::new() } else { self.members() };
        members.iter().map(|path| path.display().to_string()).collect()
    }
}

impl Change {
    /// As [`Change::on`], for all members of a mirror: they are equal before and behind the command.
    pub(super) fn on_members<T>(
        &self,
        disk: &DiskRequest,
        ui: &dyn Ui,
        command: impl FnOnce(&Target) -> Result<T>,
    ) -> Result<T> {
        self.refuse_out_of_mirror()?;
        let target = disk.find(ui)?;
        target.check_writable()?;
        let recover = format!("run {} first", disk.words(&target, None).command("recover", ""));
        refuse_interrupted(&target).map_err(|e| match e.code() {
            // Another version of this program has its own advice: only that version can finish.
            Code::Interrupted => e.instead_advise(&*recover),
            _ => e,
        })?;
        ui.event(Event::Step(format!("comparing {}", target.in_words())));
        target.check_equal().map_err(|e| {
            e.advise(format!(
                "nothing was changed. {} says whether an interrupted operation explains that, and makes them equal",
                disk.words(&target, None).command("recover", "")
            ))
        })?;
        let done = command(&target).map_err(|e| match e.esp_changed() {
            Some(true) => e.instead_advise(recover),
            _ => e,
        })?;
        if !self.dry_run {
            ui.event(Event::Step(format!("comparing {}", target.in_words())));
            target.check_equal().map_err(|e| {
                let advice = "one of the media may have lost writes: do not trust it, replace it";
                e.with_code(Code::Medium).advise(advice).with_esp_changed(true)
            })?;
        }
        Ok(done)
    }

    fn refuse_out_of_mirror(&self) -> Result<()> {
        match self.out {
            None => Ok(()),
            Some(_) => Err(Error::usage("--out makes a copy of one image, and --all-members names several")
                .advise("copy the images first, and work on the copies")),
        }
    }
}

/// Refuses members on which an operation was interrupted: all that they differ in may come from that.
fn refuse_interrupted(target: &Target) -> Result<()> {
    for member in target.members() {
        // One that cannot be read is compared next.
        let found = Volume::open(member.open()?).and_then(|volume| interrupted(&volume));
        if let Ok(Some(found)) = found {
            return Err(found.error().while_doing(member.path.display().to_string()));
        }
    }
    Ok(())
}

impl Recover {
    /// All members of a mirror.
    pub(super) fn recover_members(&self, ui: &dyn Ui) -> Result<RecoverReport> {
        self.change.refuse_out_of_mirror()?;
        let target = self.disk.find(ui)?;
        target.check_writable()?;
        let truth = self.truth.as_ref().map(|truth| place_of(truth, &target)).transpose()?;
        let sources = target.members().map(|m| Ok((m, m.open()?))).collect::<Result<Vec<_>>>()?;
        let readers: Vec<Member<&dyn ReadAt>> = sources.iter().map(|(m, source)| member(m, &**source)).collect();
        ui.event(Event::Step(format!("comparing {}", target.in_words())));
        let words = self.disk.words(&target, None);
        let explained = |e: Error| match e.code() {
            Code::MembersDiffer => {
                let commands = target.paths().into_iter().map(|path| {
                    words.command("recover", &format!("--truth {}", crate::doctor::quoted(&path.display().to_string())))
                });
                e.instead_advise(format!(
                    "find out which of them is right (`status` and `inspect` read each one), then make the others \
                     equal to it: {}",
                    commands.collect::<Vec<_>>().join(" or ")
                ))
            }
            _ => e,
        };
        let planned = rehearse_members(&readers, target.sector_size, &self.options(), truth).map_err(explained)?;
        if self.change.dry_run || planned.recovery.actions.is_empty() {
            return Ok(self.report_members(planned, false));
        }
        let to_do: Vec<String> = planned.recovery.actions.iter().map(|action| action.planned().to_string()).collect();
        self.change.confirm(ui, &format!("Recover {}: {}?", target.in_words(), to_do.join(", ")))?;
        drop(readers);
        drop(sources);
        let opened = target.open_each()?;
        let media: Vec<_> = target.members().zip(&opened).map(|(m, opened)| member(m, opened.medium())).collect();
        let changed = |e: Error| {
            let differ = e.code() == Code::MembersDiffer;
            e.with_esp_changed(!differ)
        };
        let done = recover_members(&media, &self.options(), truth).map_err(changed).map_err(explained)?;
        Ok(self.report_members(done, true))
    }

    fn report_members(&self, done: MembersRecovery, committed: bool) -> RecoverReport {
        let MembersRecovery { truth, recovery } = done;
        RecoverReport { truth: Some(truth), ..self.report(recovery, committed) }
    }
}

fn member<M>(target: &Target, medium: M) -> Member<M> {
    let id = target.member_number().map_or_else(String::new, |n| n.to_string());
    Member { name: target.path.display().to_string(), id, medium }
}

/// The place of `--truth` among the members.
fn place_of(truth: &std::path::Path, target: &Target) -> Result<usize> {
    target.members().position(|m| m.path == truth).ok_or_else(|| {
        Error::usage(format!("--truth {} is not one of the members: {}", truth.display(), target.in_words()))
    })
}
