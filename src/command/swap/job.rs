//! One swap: planned, staged and verified, shown, committed.

use super::super::beside::{beside, beside_place, pointed};
use super::super::board::BoardReport;
use super::super::board_set::{PreparedSet, confirm_set};
use super::super::change::{confirm_on_medium, refuse_changed, unconfirmed};
use super::super::examine::{Examined, examine};
use super::super::in_place::{hash_if_equal, open_target, same_by_signature};
use super::super::loss::refusal;
use super::super::medium::Again;
use super::super::next::After;
use super::super::refusals::{firmware_refuses, halts, rejected};
use super::super::ui::watching;
use super::super::verify::{accepted, without_halt};
use super::super::{Event, Proposal, Ui, check_cancelled};
use super::Swap;
use super::report::{SwapReport, report, with_set};
use crate::block::{ReadAt, Sink, StreamSource, WriteAt, sha256_of};
use crate::disk::Target;
use crate::efivars::EfiVars;
use crate::esp::{BackupName, Inventory, Place};
use crate::image::Candidate;
use crate::pcr::Bank;
use crate::plan::{NewImage, SwapOptions, SwapPlan};
use crate::surgery::{Order, Staged, Staging, open_healthy};
use crate::uki::Family;
use crate::units::count;
use crate::verify::{ImageChange, ImageFacts, Policy, Report, installer_image, verify};
use crate::{Code, Context, Error, Result, uki};
use std::path::Path;

/// An image that comes over a network is read back while the rest arrives, in pieces of so many bytes: long enough that
/// waiting for the medium does not count, and short enough for what arrives meanwhile to find room in memory.
const PIECE: u64 = 4 << 20;

/// A planned swap of one image.
pub(super) struct Job<'a, S> {
    pub(super) swap: &'a Swap,
    pub(super) target: &'a Target,
    /// The partition that is written: the ESP, or the Extended Boot Loader Partition.
    pub(super) medium: &'a Target,
    pub(super) esp: &'a Inventory<S>,
    /// The image that is replaced in its own place.
    pub(super) place: Option<&'a Place>,
    pub(super) vars: &'a EfiVars,
    pub(super) policy: Policy,
    pub(super) candidate: &'a Candidate,
    /// The pipe that it comes through.
    pub(super) stream: Option<&'a StreamSource>,
    /// What was read of the image, once it was.
    pub(super) facts: Option<ImageFacts>,
    pub(super) time: u64,
    /// What changes with the image.
    pub(super) set: Option<PreparedSet>,
    /// What is known before there is a plan.
    pub(super) warnings: &'a [String],
    pub(super) board: &'a BoardReport,
    pub(super) ui: &'a dyn Ui,
}

impl<S: ReadAt> Job<'_, S> {
    /// The usual order: the plan comes from the image's headers, the checks from the one pass over it in which it is
    /// staged. The user agrees to both before anything refers to it.
    pub(super) fn plan_and_stage(mut self, remote: bool) -> Result<SwapReport> {
        let facts = uki::probe(&self.candidate.bytes)?;
        let plan = match self.plan(&self.candidate.bytes, &facts) {
            Ok(plan) => plan,
            // No menu lists an image that is unfit in itself, one for another architecture say: then that is the news.
            Err(refusal) => {
                if matches!(refusal.code(), Code::WouldNotBoot | Code::Unsafe) {
                    let _accepted = self.judge(&mut [], None)?;
                }
                return Err(refusal);
            }
        };
        let talos = Family::of(&facts) == Family::Talos;
        if talos && self.policy.refuse_halt && uki::cmdline::halt_if_installed(facts.cmdline().unwrap_or_default()) {
            // The schematic stands in the initrd. From a remote image it is not worth the transfer.
            let whole = if remote { None } else { uki::analyse(&self.candidate.bytes, &mut []).ok() };
            without_halt(&mut self.policy, whole.as_ref());
            return Err(halts(&facts, &self.policy));
        }
        let is_changing = self.set.as_ref().is_some_and(|set| !set.plan.change.is_empty());
        let in_place = self.in_place(&plan, remote)?;
        let mut is_there = in_place.is_some();
        let plan = if is_there { self.without_deleting(plan) } else { plan };
        if let Some(sha256) = in_place.filter(|_| plan.renames.is_empty()) {
            return match self.set.take() {
                Some(set) if is_changing => self.change_set_alone(plan, set, sha256),
                set => Ok(with_set(report(plan, None, false, sha256, true), set)),
            };
        }
        if let (Some(set), Some(backup)) = (&mut self.set, plan.backup.as_deref().and_then(BackupName::parse)) {
            set.plan.named_after(&self.esp.volume, backup.time)?;
        }
        if let (true, Some(place)) = (is_changing, self.place.filter(|place| place.partition.is_some())) {
            let what = format!("the image lies on another partition ({}) than the board's files", place.words());
            return Err(Error::new(Code::Unsupported, what)
                .advise("swap the image first, without --with-board-files; then run it again with it"));
        }
        let order = self.order(&plan);
        order.rehearse(&*self.medium.open()?, self.medium.sector_size, self.candidate.bytes.size())?;
        if self.swap.change.dry_run {
            let (judged, sha256) = self.judge(&mut [], Some(&plan.target))?;
            let sha256 = hex::encode(sha256);
            is_there |= remote && self.holds(&plan.target, self.candidate.bytes.size(), &sha256)?;
            let plan = if is_there { self.without_deleting(plan) } else { plan };
            let is_done = is_there && plan.renames.is_empty();
            return Ok(with_set(report(plan, Some(judged), false, sha256, is_done), self.set));
        }
        if self.swap.change.cannot_be_confirmed(self.ui) {
            return Err(unconfirmed());
        }
        let opened = self.medium.open_surgery()?;
        let (judged, mut staged) = self.stage(opened.medium(), Some(&plan.target))?;
        // Of an image on a server that nobody signed it is known only now.
        let sha256 = judged.image.taken_sha256()?;
        is_there |= remote && self.holds(&plan.target, u64::from(staged.bytes()), &sha256)?;
        let plan = if is_there { self.without_deleting(plan) } else { plan };
        if is_there && plan.renames.is_empty() {
            return Ok(with_set(report(plan, Some(judged), false, sha256, true), self.set));
        }
        if let Some(set) = self.set.as_ref().filter(|_| is_changing) {
            set.stage(&mut staged, self.ui)?;
        }
        let image = staged.image()?;
        let again = self.plan(&image, &uki::probe(&image)?)?;
        if (if is_there { self.without_deleting(again) } else { again }) != plan {
            return Err(Error::refused("the image is not the one that was planned for: it changed while it was read")
                .advise("run it again, when nobody writes to the image"));
        }
        self.commit(plan, judged, staged, opened.medium())
    }

    fn order(&self, plan: &SwapPlan) -> Order {
        let order = plan.order("swap", self.time);
        match &self.set {
            Some(set) => Order { set: set.plan.set(), directories: set.plan.directories.clone(), ..order },
            None => order,
        }
    }

    /// The image is in place; the board's files are not yet.
    fn change_set_alone(self, plan: SwapPlan, set: PreparedSet, sha256: String) -> Result<SwapReport> {
        let order = set.order_alone(self.time)?;
        let last = set.plan.change.last().map_or(0, |file| u64::from(file.bytes));
        order.rehearse(&*self.target.open()?, self.target.sector_size, last)?;
        let plan = SwapPlan { bytes_to_write: 0, ..plan };
        if self.swap.change.dry_run {
            return Ok(with_set(report(plan, None, false, sha256, true), Some(set)));
        }
        if self.swap.change.cannot_be_confirmed(self.ui) {
            return Err(unconfirmed());
        }
        let opened = self.target.open_surgery()?;
        let medium = opened.medium();
        let editor = open_healthy(medium)?;
        self.esp.refuse_changed(&editor.volume())?;
        let staged = set.stage_alone(editor, self.ui)?;
        if !self.swap.change.yes {
            self.ui.show(&Proposal {
                restored: None,
                plan: &plan,
                checks: &[],
                change: &ImageChange::default(),
                board_files: Some(&set.plan),
                board: None,
                members: self.swap.disk.member_names(),
                warnings: self.warnings.to_vec(),
            });
            let files = count(set.plan.change.len(), "file");
            let on = self.target.in_words();
            self.swap.change.confirm(self.ui, &format!("{files} of the board on {on}, and no image. Commit?"))?;
            medium.drop_caches()?;
            self.esp.refuse_changed(&open_healthy(medium)?.volume())?;
            staged.refuse_changed()?;
        }
        check_cancelled(self.ui)?;
        self.ui.event(Event::Step("committing".into()));
        let done = staged.commit(&order)?;
        confirm_set(medium, &done.operation)?;
        Ok(with_set(report(plan, None, true, sha256, true), Some(set)))
    }

    /// For an image that can be read only once: it goes into free clusters first, and the plan comes from there.
    /// Nothing refers to those clusters until there is a plan.
    pub(super) fn stage_and_plan(mut self) -> Result<SwapReport> {
        let opened = self.medium.open_surgery()?;
        let staged = match self.stage(opened.medium(), None) {
            Ok((_, staged)) => staged,
            Err(e) => return self.in_place_after_all(e),
        };
        self.refuse_other_arrival()?;
        let image = staged.image()?;
        let mut plan = self.plan(&image, &uki::probe(&image)?)?;
        // What lies beside the image depends on the name that it gets.
        let judged = self.judge_beside(&plan.target)?;
        let sha256 = judged.image.taken_sha256()?;
        if self.holds(&plan.target, u64::from(staged.bytes()), &sha256)? {
            plan = self.without_deleting(plan);
            if plan.renames.is_empty() {
                return Ok(report(plan, Some(judged), false, sha256, true));
            }
        }
        drop(image);
        self.commit(plan, judged, staged, opened.medium())
    }

    /// An image that cannot be staged, for want of room or because it fails a check, may be the very one that is in
    /// place: then there is nothing to do, as a dry run says.
    fn in_place_after_all(&mut self, e: Error) -> Result<SwapReport> {
        if self.facts.is_none() && e.code() == Code::NoRoom {
            // Nothing of it was read yet.
            self.facts = Some(examine(&self.candidate.bytes, &[Bank::Sha256], &mut [], self.ui)?.facts);
        }
        let Some(sha256) = self.facts.as_ref().and_then(|facts| facts.sha256) else { return Err(e) };
        self.refuse_other_arrival()?;
        let name = self.esp.selected().map(|file| file.name().to_owned()).unwrap_or_default();
        let Some(installed) = self.installed(&name)? else { return Err(e) };
        let sha256 = hex::encode(sha256);
        if !self.holds(&name, self.candidate.bytes.size(), &sha256)? {
            return Err(e);
        }
        match self.plan(&installed, &uki::probe(&installed)?) {
            Ok(plan) if plan.renames.is_empty() && (self.place.is_some() || plan.target == name) => {
                Ok(report(self.without_deleting(plan), None, false, sha256, true))
            }
            _ => Err(e),
        }
    }

    /// What comes through a pipe has to be all that was to arrive, and nothing else.
    fn refuse_other_arrival(&self) -> Result<()> {
        self.stream.map_or(Ok(()), StreamSource::finish).while_doing(|| "reading the image from a pipe")
    }

    fn plan(&self, image: &dyn ReadAt, facts: &uki::Facts) -> Result<SwapPlan> {
        let image = NewImage { source: image, facts: Some(facts), bytes_to_write: image.size(), from_file: None };
        let options = SwapOptions {
            target: self.swap.target.clone(),
            keep_duplicates: self.swap.keep_duplicates,
            keep_backups: self.swap.keep_backups,
            time: self.time,
        };
        match self.place {
            Some(place) => SwapPlan::in_place(self.esp, place, &image, &options),
            None => SwapPlan::make(self.esp, &image, &options),
        }
    }

    /// The plan for an image whose bytes the target has already: it deletes no backup. The one that it would make is of
    /// these very bytes, and the older ones are the way back.
    fn without_deleting(&self, mut plan: SwapPlan) -> SwapPlan {
        if let Some(keep) = self.swap.keep_backups.filter(|_| !plan.delete.is_empty()) {
            plan.delete.clear();
            plan.warnings.push(format!(
                "no backup is deleted, since {} holds these very bytes already: `prune --keep-backups {keep}` deletes \
                 old ones",
                plan.target
            ));
        }
        plan
    }

    /// Writes the image into free clusters while it is verified, and reads it back.
    fn stage<'m>(&mut self, medium: &'m dyn WriteAt, target: Option<&str>) -> Result<(Report, Staged<'m>)> {
        // The ESP as it is now that nobody else can write to it; the plan was made before that.
        let editor = open_healthy(medium)?;
        refuse_changed(self.esp, self.place, &editor.volume(), self.vars)?;
        let mut staging = Staging::begin(editor, self.candidate.bytes.size())?;
        if self.candidate.bytes.is_remote() || self.stream.is_some() {
            staging = staging.in_pieces(PIECE);
        }
        self.ui.event(Event::Step("writing the image into free space and verifying it".into()));
        let (judged, sha256) = self.judge(&mut [&mut staging], target)?;
        self.ui.event(Event::Step("reading it back from the medium".into()));
        Ok((judged, staging.seal_watched(sha256, &mut watching(self.ui))?))
    }

    /// Shows plan and checks, and asks. Whatever somebody else did meanwhile ends it.
    fn ask(&self, plan: &SwapPlan, judged: &Report, staged: &Staged<'_>, medium: &dyn WriteAt) -> Result<()> {
        if self.swap.change.yes {
            return check_cancelled(self.ui);
        }
        self.ui.show(&Proposal {
            restored: None,
            plan,
            checks: &judged.checks,
            change: &judged.change,
            board_files: self.set.as_ref().map(|set| &set.plan),
            board: Some(&self.board.for_stub(judged.image.stub)),
            members: self.swap.disk.member_names(),
            warnings: self.warnings.iter().chain(&plan.warnings).cloned().collect(),
        });
        let files = self.set.as_ref().map_or(0, |set| set.plan.change.len());
        self.swap.change.confirm(self.ui, &question(plan, &judged.change, files, self.target))?;
        self.ui.event(Event::Step("reading it back once more".into()));
        medium.drop_caches()?;
        refuse_changed(self.esp, self.place, &open_healthy(medium)?.volume(), self.vars)?;
        staged.refuse_changed_watched(&mut watching(self.ui))
    }

    fn commit(self, plan: SwapPlan, judged: Report, staged: Staged<'_>, medium: &dyn WriteAt) -> Result<SwapReport> {
        self.ask(&plan, &judged, &staged, medium)?;
        if let Some(path) = &self.swap.backup_to {
            self.copy_old(path)?;
        }
        check_cancelled(self.ui)?;
        self.ui.event(Event::Step("committing".into()));
        let done = staged.commit(&self.order(&plan))?;
        if !done.operation.set.is_empty() {
            confirm_set(medium, &done.operation)?;
        }
        match self.place {
            Some(place) => {
                let (disk, arch) = (&self.swap.disk, self.swap.trust.arch);
                let again = Again { disk, esp: self.target, vars: self.vars, arch };
                again.confirm(medium, &done.operation, self.esp, place)?;
            }
            None => confirm_on_medium(medium, &done.operation, self.esp, [plan.boot_after.as_deref(); 2])?,
        }
        let sha256 = judged.image.taken_sha256()?;
        let asked = self.swap.trust.arch.filter(|_| self.esp.is_arch_chosen());
        let words = self.swap.disk.words(self.target, self.esp.arch()).for_asked_arch(asked);
        let installer = self.facts.as_ref().and_then(|facts| installer_image(facts, self.swap.image.factory_host()));
        let after = After {
            target: self.target,
            words: &words,
            on_a_copy: self.swap.change.out.is_some(),
            node: self.swap.node.as_deref(),
            family: judged.family,
            extensions: &judged.image.extensions,
            waiting: &judged.image.waiting_services,
            installer: installer.as_deref(),
            trust: &self.swap.trust,
            set: self.set.as_ref().filter(|set| set.plan.replaces()).map(|set| set.plan.mixture.is_some()),
        };
        let next = after.steps();
        Ok(with_set(SwapReport { next, ..report(plan, Some(judged), true, sha256, false) }, self.set))
    }

    /// Reads and verifies the image in one pass, with `extra` sinks; as `target`, or as the file that boots now.
    fn judge(&mut self, extra: &mut [&mut dyn Sink], target: Option<&str>) -> Result<(Report, [u8; 32])> {
        let examined: Examined = examine(&self.candidate.bytes, &[Bank::Sha256], extra, self.ui)?;
        without_halt(&mut self.policy, examined.uki.as_ref());
        let sha256 = examined.facts.sha256.ok_or_else(|| Error::new(Code::Bug, "the SHA-256 was not taken"))?;
        let pointed = pointed(&self.candidate.bytes, examined.facts.family, &self.esp.volume);
        self.facts = Some(ImageFacts { pointed, ..examined.facts });
        let name = target.or_else(|| Some(self.esp.selected()?.name())).unwrap_or_default().to_owned();
        Ok((self.judge_beside(&name)?, sha256))
    }

    /// Verifies the image that was read, with what lies beside it under this name.
    fn judge_beside(&mut self, name: &str) -> Result<Report> {
        let Some(facts) = &mut self.facts else { return Err(Error::new(Code::Bug, "the image was not read yet")) };
        facts.companions = Ok(self.place.map_or_else(|| beside(self.esp, name), |place| beside_place(self.esp, place)));
        let report = verify(facts, &self.policy);
        if !accepted(&report) {
            return Err(rejected(&report));
        }
        if let Some(why) = &report.firmware_refuses {
            return Err(firmware_refuses("the image", why));
        }
        match &report.extension_loss {
            Some(loss) if !self.swap.allow_extension_loss => {
                Err(refusal(loss, self.swap.image.edit_command(self.swap.trust.schematic.as_deref()), self.ui))
            }
            _ => Ok(report),
        }
    }

    /// The hash, if the target holds the very same bytes.
    fn in_place(&self, plan: &SwapPlan, remote: bool) -> Result<Option<String>> {
        let Some(installed) = self.installed(&plan.target)? else { return Ok(None) };
        if installed.size() != self.candidate.bytes.size() {
            return Ok(None);
        }
        if remote {
            return same_by_signature(&installed, &self.candidate.bytes);
        }
        hash_if_equal(&installed, &self.candidate.bytes)
    }

    /// Whether the target holds these bytes.
    fn holds(&self, target: &str, bytes: u64, sha256: &str) -> Result<bool> {
        let Some(installed) = self.installed(target)?.filter(|installed| installed.size() == bytes) else {
            return Ok(false);
        };
        Ok(hex::encode(sha256_of(&installed, bytes)?) == sha256)
    }

    /// `--backup-to`: the image that boots now, on another medium, before anything refers to the new one.
    fn copy_old(&self, path: &Path) -> Result<()> {
        let old = match (self.place, self.esp.selected()) {
            (Some(place), _) => self.esp.open_at(&place.at)?,
            (None, Some(file)) => Some(Box::new(self.esp.volume.file(&file.entry)?) as Box<dyn ReadAt + '_>),
            (None, None) => None,
        };
        old.map_or(Ok(()), |old| super::super::copy::copy_out(&old, path, self.swap.force))
    }

    /// The file that the plan's target is now.
    fn installed(&self, target: &str) -> Result<Option<Box<dyn ReadAt + '_>>> {
        open_target(self.esp, self.place, target)
    }
}

/// What changes for the user, what becomes of the old image, in one line.
fn question(plan: &SwapPlan, change: &ImageChange, files: usize, target: &Target) -> String {
    let mut parts = vec![format!("{} on {}: {change}", plan.target, target.in_words())];
    if files > 0 {
        parts.push(format!("with it {} of the board", count(files, "file")));
    }
    parts.extend(plan.backup.as_ref().map(|backup| format!("old image kept as {backup}")));
    if !plan.disable.is_empty() {
        parts.push(format!("disable {}", plan.disable.join(", ")));
    }
    if !plan.delete.is_empty() {
        parts.push(format!("delete for good {}", plan.delete.join(", ")));
    }
    format!("{}. Commit?", parts.join("; "))
}
