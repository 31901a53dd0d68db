//! `swap`: the whole job. Plan, ask, write into free clusters while verifying, read back, commit, tidy.

use super::beside::{beside, beside_place, pointed};
use super::change::{Change, confirm_on_medium, refuse_changed};
use super::examine::{Examined, examine};
#[cfg(feature = "net")]
use super::from_factory::FactoryImage;
use super::image::OpenImage;
use super::medium::{Again, Side};
use super::next::{After, NextStep};
use super::programs::refuse_distrusted;
use super::remote::Remote;
use super::room::advise_room;
use super::trust::{TrustRequest, add_disk};
use super::verify::{accepted, without_halt};
use super::{DiskRequest, Event, ImageRequest, Ui, boot_variables, check_cancelled, now};
use crate::authenticode::{DigestSink, Hash, parse_table};
use crate::block::{ReadAt, Sink, WriteAt, check_free, check_not_itself, fan_out, read_vec, sha256_of};
use crate::disk::Target;
use crate::efivars::EfiVars;
use crate::esp::{Inventory, Place};
use crate::factory::is_url;
use crate::image::Candidate;
use crate::pcr::Bank;
use crate::pe::{Arch, Head};
use crate::plan::{NewImage, SwapOptions, SwapPlan, place_of, refuse_unreached};
use crate::surgery::{Staged, Staging, open_healthy};
use crate::uki::Family;
use crate::verify::{Check, CheckId, CheckStatus, ImageFacts, Policy, Report, verify};
use crate::{Code, Context, Error, Kind, Result, uki};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What `swap` is asked for.
#[derive(Debug)]
pub struct Swap {
    /// Which disk.
    pub disk: DiskRequest,
    /// The image; with a factory it is asked for there.
    pub image: ImageSource,
    /// Held against what.
    pub trust: TrustRequest,
    /// How.
    pub change: Change,
    /// `--target`.
    pub target: Option<String>,
    /// `--keep-duplicates`.
    pub keep_duplicates: bool,
    /// `--keep-backups`.
    pub keep_backups: Option<usize>,
    /// `--backup-to`.
    pub backup_to: Option<PathBuf>,
    /// `--force`: replace the file of `--backup-to` if it exists.
    pub force: bool,
    /// `--allow-halt-if-installed`.
    pub allow_halt_if_installed: bool,
    /// The node's name, for what is said to do next.
    pub node: Option<String>,
}

/// Where the image comes from.
#[derive(Debug, Clone)]
pub enum ImageSource {
    /// It was named.
    Named(ImageRequest),
    /// The factory is asked for it.
    #[cfg(feature = "net")]
    Factory(FactoryImage),
}

/// What `swap` did. The fields of the contract come first.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct SwapReport {
    /// The plan.
    pub plan: SwapPlan,
    /// Every check.
    pub checks: Vec<Check>,
    /// Whether the ESP holds the new image now.
    pub committed: bool,
    /// SHA-256 of the image.
    pub sha256: String,
    /// Whether the very same bytes were in place already.
    pub already_in_place: bool,
    /// Bytes that came over the network, for a remote image.
    pub wire_bytes: Option<u64>,
    /// The file of `--out`, which holds the changed image now (an unchanged one where there was nothing to do); `null`
    /// when none was written.
    pub out: Option<String>,
    /// All members of the mirror that were written, or would be; empty for a disk by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// Names of the image's extension services that wait for an ExtensionServiceConfig.
    pub waiting_services: Vec<String>,
    /// What somebody should know.
    pub warnings: Vec<String>,
    /// What is left to do on the node, in order; empty when nothing was changed.
    pub next: Vec<NextStep>,
}

impl Swap {
    /// A swap without any options.
    #[must_use]
    pub fn new(disk: DiskRequest, image: ImageSource, trust: TrustRequest, change: Change) -> Self {
        Self {
            disk,
            image,
            trust,
            change,
            target: None,
            keep_duplicates: false,
            keep_backups: None,
            backup_to: None,
            force: false,
            allow_halt_if_installed: false,
            node: None,
        }
    }

    /// Does the job.
    ///
    /// # Errors
    /// [`Kind::Rejected`] when the image fails a check; [`Kind::Unsafe`] when the board would not boot it, or the ESP
    /// is busy, full or damaged; what disk and network report.
    pub fn run(&self, ui: &dyn Ui) -> Result<SwapReport> {
        self.check_backup_to().map_err(|e| e.with_esp_changed(false))?;
        let done = self.change.on(&self.disk, ui, |target| self.swap(target, ui));
        let report = done.map_err(|e| e.with_esp_changed(false))?;
        Ok(SwapReport { out: self.change.written(), members: self.disk.member_names(), ..report })
    }

    /// Whether the old image can be copied there: said before anything else, and by a dry run, too.
    fn check_backup_to(&self) -> Result<()> {
        let Some(path) = &self.backup_to else { return Ok(()) };
        let check = || {
            check_not_itself(path, &self.disk.path, "the disk")?;
            match &self.image {
                ImageSource::Named(image) if !is_url(&image.image) => {
                    check_not_itself(path, Path::new(&image.image), "the new image")?;
                }
                _ => {}
            }
            if self.change.out.as_ref().is_some_and(|out| out.file == *path) {
                return Err(Error::usage("it is the file of --out, too").advise("choose two names"));
            }
            check_free(path, self.force)
        };
        check().while_doing(|| format!("--backup-to {}", path.display()))
    }

    fn swap(&self, target: &Target, ui: &dyn Ui) -> Result<SwapReport> {
        let side = Side::of(target)?;
        let target = &*side.esp;
        let vars = self.disk.efivars(target);
        let (variables, mut warnings) = boot_variables(&vars);
        warnings.extend(target.warnings.iter().cloned());
        let context = self.disk.context(target, &vars, self.trust.arch);
        let esp = Inventory::read_in(target.open()?, variables, context)?;
        esp.refuse_unsafe()?;
        warnings.extend(esp.lost.warning());
        let place = place_of(&esp, self.target.as_deref())?;
        if place.is_none() {
            warnings.extend(refuse_unreached(&esp)?);
        }
        let medium = side.medium(&esp, place.as_ref())?;
        let are_the_boards = self.disk.variables_are_the_boards(target);
        warnings.extend(refuse_distrusted(&esp, &vars, are_the_boards, place.as_ref())?);

        let mut policy = self.trust.policy(&vars, ui)?;
        policy.firmware_is_the_boards = are_the_boards;
        policy.refuse_halt = !self.allow_halt_if_installed;
        let placed = place.as_ref().and_then(|place| Arch::from_machine(place.program.machine));
        policy.arch = policy.arch.or(placed).or(esp.arch());
        add_disk(&mut policy, &esp, place.as_ref(), ui)?;

        let opened = match &self.image {
            ImageSource::Named(request) => self.open_named(request, ui)?,
            #[cfg(feature = "net")]
            ImageSource::Factory(from) => self.open_from_factory(from, &mut policy, ui)?,
        };
        let candidate = opened.uki()?;
        let candidate_bytes = candidate.bytes.size();
        let job = Job {
            swap: self,
            target,
            medium: medium.as_ref().unwrap_or(target),
            esp: &esp,
            place: place.as_ref(),
            vars: &vars,
            policy,
            candidate,
            facts: None,
            time: place.as_ref().map_or_else(|| esp.stamp(now()), |place| place.stamp(now())),
            ui,
        };
        let done =
            if opened.is_sequential() { job.stage_and_plan() } else { job.plan_and_stage(opened.remote.is_some()) };
        let words = self.disk.words(target, esp.arch());
        let mut report = done.map_err(|e| match medium {
            None => advise_room(e, &esp, candidate_bytes, &words),
            Some(_) => e,
        })?;
        report.wire_bytes = opened.remote.as_ref().map(Remote::wire_bytes);
        warnings.extend(report.plan.warnings.iter().cloned());
        report.warnings = warnings;
        Ok(report)
    }

    /// A dry run plans without writing, so it has to look at the image more than once.
    pub(super) fn open_named(&self, request: &ImageRequest, ui: &dyn Ui) -> Result<OpenImage> {
        if self.change.dry_run { request.open_to_look_around(ui) } else { request.open(false, ui) }
    }
}

/// The refusal of an image that halts. The flag is in the first kilobytes, so this comes before anything is written.
fn halts(facts: &uki::Facts, policy: &Policy) -> Error {
    Error::refused(
        "the image has talos.halt_if_installed=1 in its signed command line, as every ISO's UKI has: an installed \
             node that boots it stops for up to 70 minutes before it loads its configuration",
    )
    .advise(format!(
        "use the factory's metal-{}-secureboot-uki.efi (`swap DISK --schematic … --talos …` asks for it), or a \
             schematic with -talos.halt_if_installed in extraKernelArgs{}; --allow-halt-if-installed overrides",
        facts.arch.map_or("<arch>", |a| a.name()),
        policy.schematic_without_halt.as_ref().map_or(String::new(), |id| format!(" (its ID is {id})"))
    ))
}

/// A planned swap of one image.
struct Job<'a, S> {
    swap: &'a Swap,
    target: &'a Target,
    /// The partition that is written: the ESP, or the Extended Boot Loader Partition.
    medium: &'a Target,
    esp: &'a Inventory<S>,
    /// The image that is replaced in its own place.
    place: Option<&'a Place>,
    vars: &'a EfiVars,
    policy: Policy,
    candidate: &'a Candidate,
    /// What was read of the image, once it was.
    facts: Option<ImageFacts>,
    time: u64,
    ui: &'a dyn Ui,
}

impl<S: ReadAt> Job<'_, S> {
    /// The usual order: the plan comes from the image's headers, and the user agrees to it before anything is written.
    fn plan_and_stage(mut self, remote: bool) -> Result<SwapReport> {
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
        if let Some(sha256) = self.in_place(&plan, remote)? {
            return Ok(report(plan, None, false, sha256, true));
        }
        let order = plan.order("swap", self.time);
        order.rehearse(&*self.medium.open()?, self.medium.sector_size, self.candidate.bytes.size())?;
        if self.swap.change.dry_run {
            let (judged, sha256) = self.judge(&mut [], Some(&plan.target))?;
            return Ok(report(plan, Some(judged), false, hex::encode(sha256), false));
        }
        self.swap.change.confirm(self.ui, &question(&plan, self.target))?;
        let opened = self.medium.open_surgery()?;
        let (judged, staged) = self.stage(opened.medium(), Some(&plan.target))?;
        let image = staged.image()?;
        if self.plan(&image, &uki::probe(&image)?)? != plan {
            return Err(Error::refused("the image is not the one that was planned for: it changed while it was read")
                .advise("run it again, when nobody writes to the image"));
        }
        self.commit(plan, judged, staged, opened.medium())
    }

    /// For an image that can be read only once: it goes into free clusters first, and the plan comes from there. Nothing
    /// refers to those clusters until there is a plan.
    fn stage_and_plan(mut self) -> Result<SwapReport> {
        let question = format!(
            "Read the image and write it into free space on {}? It is verified and planned before anything refers to it",
            self.target.in_words()
        );
        self.swap.change.confirm(self.ui, &question)?;
        let opened = self.medium.open_surgery()?;
        let (_, staged) = self.stage(opened.medium(), None)?;
        let image = staged.image()?;
        let plan = self.plan(&image, &uki::probe(&image)?)?;
        drop(image);
        // What lies beside the image depends on the name that it gets.
        let judged = self.judge_beside(&plan.target)?;
        if let Some(installed) = self.installed(&plan.target)?
            && plan.renames.is_empty()
            && plan.delete.is_empty()
            && installed.size() == u64::from(staged.bytes())
        {
            let hash = hex::encode(sha256_of(&installed, installed.size())?);
            if hash == judged.image.sha256 {
                return Ok(report(plan, Some(judged), false, hash, true));
            }
        }
        self.commit(plan, judged, staged, opened.medium())
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

    /// Writes the image into free clusters while it is verified, and reads it back.
    fn stage<'m>(&mut self, medium: &'m dyn WriteAt, target: Option<&str>) -> Result<(Report, Staged<'m>)> {
        if let Some(path) = &self.swap.backup_to {
            self.copy_old(path)?;
        }
        // The ESP as it is now that nobody else can write to it; the plan was made before that.
        let editor = open_healthy(medium)?;
        refuse_changed(self.esp, self.place, &editor.volume()?, self.vars)?;
        let mut staging = Staging::begin(editor, self.candidate.bytes.size())?;
        self.ui.event(Event::Step("writing the image into free space and verifying it".into()));
        let (judged, sha256) = self.judge(&mut [&mut staging], target)?;
        self.ui.event(Event::Step("reading it back from the medium".into()));
        Ok((judged, staging.seal(sha256)?))
    }

    fn commit(self, plan: SwapPlan, judged: Report, staged: Staged<'_>, medium: &dyn WriteAt) -> Result<SwapReport> {
        check_cancelled(self.ui)?;
        self.ui.event(Event::Step("committing".into()));
        let done = staged.commit(&plan.order("swap", self.time))?;
        match self.place {
            Some(place) => {
                let (disk, arch) = (&self.swap.disk, self.swap.trust.arch);
                let again = Again { disk, esp: self.target, vars: self.vars, arch };
                again.confirm(medium, &done.operation, self.esp, place)?;
            }
            None => confirm_on_medium(medium, &done.operation, self.esp, [plan.boot_after.as_deref(); 2])?,
        }
        let sha256 = judged.image.sha256.clone();
        let asked = self.swap.trust.arch.filter(|_| self.esp.is_arch_chosen());
        let words = self.swap.disk.words(self.target, self.esp.arch()).for_asked_arch(asked);
        let after = After {
            target: self.target,
            words: &words,
            on_a_copy: self.swap.change.out.is_some(),
            node: self.swap.node.as_deref(),
            family: judged.family,
            extensions: &judged.image.extensions,
            waiting: &judged.image.waiting_services,
        };
        let next = after.steps();
        Ok(SwapReport { next, ..report(plan, Some(judged), true, sha256, false) })
    }

    /// Reads and verifies the image in one pass, with `extra` sinks; as `target`, or as the file that boots now.
    fn judge(&mut self, extra: &mut [&mut dyn Sink], target: Option<&str>) -> Result<(Report, [u8; 32])> {
        let examined: Examined = examine(&self.candidate.bytes, &[Bank::Sha256], extra, self.ui)?;
        without_halt(&mut self.policy, examined.uki.as_ref());
        let sha256 = examined.facts.sha256;
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
            return Err(Error::refused(format!("the board's firmware would refuse the image: {why}")));
        }
        Ok(report)
    }

    /// The hash, if the target holds the very same bytes and nothing else is to be done.
    fn in_place(&self, plan: &SwapPlan, remote: bool) -> Result<Option<String>> {
        let Some(installed) = self.installed(&plan.target)? else { return Ok(None) };
        let tidy = plan.renames.is_empty() && plan.delete.is_empty();
        let size = self.candidate.bytes.size();
        if !tidy || installed.size() != size {
            return Ok(None);
        }
        if remote {
            return same_by_signature(&installed, &self.candidate.bytes);
        }
        let (old, new) = std::thread::scope(|scope| {
            let old = scope.spawn(|| sha256_of(&installed, size));
            let new = sha256_of(&self.candidate.bytes, size);
            (old.join().unwrap_or_else(|_| Err(Error::io("a thread failed"))), new)
        });
        let (old, new) = (old?, new?);
        Ok((old == new).then(|| hex::encode(new)))
    }

    /// `--backup-to`: the image that boots now, on another medium, before anything is written.
    fn copy_old(&self, path: &std::path::Path) -> Result<()> {
        let old = match (self.place, self.esp.selected()) {
            (Some(place), _) => self.esp.open_at(&place.at)?,
            (None, Some(file)) => Some(Box::new(self.esp.volume.file(&file.entry)?) as Box<dyn ReadAt + '_>),
            (None, None) => None,
        };
        old.map_or(Ok(()), |old| super::copy::copy_out(&old, path, self.swap.force))
    }

    /// The file that the plan's target is now.
    fn installed(&self, target: &str) -> Result<Option<Box<dyn ReadAt + '_>>> {
        match (self.place, self.esp.file(target)) {
            (Some(place), _) => self.esp.open_at(&place.at),
            (None, Some(file)) => Ok(Some(Box::new(self.esp.volume.file(&file.entry)?))),
            (None, None) => Ok(None),
        }
    }
}

fn report(plan: SwapPlan, judged: Option<Report>, committed: bool, sha256: String, in_place: bool) -> SwapReport {
    let (checks, waiting_services) = judged.map(|j| (j.checks, j.image.waiting_services)).unwrap_or_default();
    SwapReport {
        plan,
        checks,
        committed,
        sha256,
        already_in_place: in_place,
        wire_bytes: None,
        out: None,
        members: Vec::new(),
        waiting_services,
        warnings: Vec::new(),
        next: Vec::new(),
    }
}

/// The installed image's hash, if a remote image of the same length is the same, without transferring it: the same
/// headers, the same certificate table, and the installed bytes are the ones its signatures were made for. A signature
/// covers every byte but those two.
fn same_by_signature(installed: &dyn ReadAt, remote: &dyn ReadAt) -> Result<Option<String>> {
    let (Ok(old), new) = (Head::read(installed), Head::read(remote)?) else { return Ok(None) };
    let Some(table) = new.certificate_table.filter(|t| t.bytes <= 1 << 20) else { return Ok(None) };
    if old.bytes != new.bytes {
        return Ok(None);
    }
    let raw = read_vec(remote, table.offset, table.bytes as usize)?;
    if read_vec(installed, table.offset, table.bytes as usize)? != raw {
        return Ok(None);
    }
    let (Ok(mut digest), Ok(signatures)) = (DigestSink::new(&old), parse_table(&raw)) else { return Ok(None) };
    let mut hash = uki::Sha256Sink::new();
    fan_out(installed, 0, installed.size(), &mut [&mut digest, &mut hash])?;
    let digest = digest.finish()?;
    let signed = digest.gap_bytes == 0
        && signatures.first().is_some_and(|s| s.digest_hash == Some(Hash::Sha256) && s.digest == digest.sha256);
    Ok(signed.then(|| hex::encode(hash.finish())))
}

fn question(plan: &SwapPlan, target: &Target) -> String {
    let backup = plan.backup.as_ref().map_or(String::new(), |b| format!(", the old one stays as {b}"));
    format!(
        "Write {} MiB to {} as {}{backup}{}?",
        plan.bytes_to_write >> 20,
        target.in_words(),
        plan.target,
        if plan.disable.is_empty() { String::new() } else { format!(", disable {}", plan.disable.join(", ")) }
    )
}

/// The refusal of an image that failed checks.
pub(super) fn rejected(report: &Report) -> Error {
    let failed: Vec<&Check> = report.checks.iter().filter(|c| c.status == CheckStatus::Fail).collect();
    let list: Vec<String> = failed.iter().map(|c| format!("{}: {}", c.id.name(), c.detail)).collect();
    let only_halt = failed.iter().all(|c| c.id == CheckId::Cmdline);
    let error = Error::new(
        if only_halt { Kind::Unsafe } else { Kind::Rejected },
        format!("the image was rejected: {}", list.join(" ")),
    );
    let signer = failed.iter().any(|c| c.id == CheckId::AuthenticodeSigner);
    if signer { error.advise("name the signer you trust with --cert FILE") } else { error }
}
