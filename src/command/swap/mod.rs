//! `swap`: the whole job. Here is what it is asked for, and what is looked at first: the ESP, the way of the boot, the
//! image. [`job`] plans, writes into free clusters while it verifies, reads back, asks and commits; [`report`] is what it
//! says of that.

mod job;
mod report;

pub use report::SwapReport;

use self::job::Job;
use super::board::BoardReport;
use super::board_set::{BoardSetRequest, PreparedSet, refuse_source};
use super::change::Change;
use super::image::OpenImage;
use super::in_place::summary_of;
use super::medium::Side;
use super::programs::refuse_distrusted;
use super::remote::Remote;
use super::room::advise_room;
use super::source::ImageSource;
use super::trust::{TrustRequest, add_contents, add_disk};
use super::{DiskRequest, ImageRequest, Ui, boot_variables, now};
use crate::block::{ReadAt as _, check_free, check_not_itself};
use crate::disk::Target;
use crate::esp::Inventory;
use crate::factory::is_url;
use crate::pe::Arch;
use crate::plan::{place_of, refuse_unreached};
use crate::{Context, Error, Result};
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
    /// `--allow-extension-loss`.
    pub allow_extension_loss: bool,
    /// `--no-extension-check`: what the installed image has stays unknown.
    pub no_extension_check: bool,
    /// `--with-board-files`.
    pub board_files: Option<BoardSetRequest>,
    /// The node's name, for what is said to do next.
    pub node: Option<String>,
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
            allow_extension_loss: false,
            no_extension_check: false,
            board_files: None,
            node: None,
        }
    }

    /// Does the job.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when the image fails a check; [`crate::Kind::Unsafe`] when the board would not boot it, or the ESP
    /// is busy, full or damaged; what disk and network report.
    pub fn run(&self, ui: &dyn Ui) -> Result<SwapReport> {
        self.check_backup_to().map_err(|e| e.with_esp_changed(false))?;
        if self.board_files.is_some() {
            refuse_source(&self.image).map_err(|e| e.with_esp_changed(false))?;
        }
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
                ImageSource::Named(image) if !is_url(&image.image) && !image.is_stream() => {
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
        let claimed = self.claimed(&side.esp, ui);
        let target = claimed.as_ref().unwrap_or(&side.esp);
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
        if !self.no_extension_check {
            add_contents(&mut policy, &esp, place.as_ref(), ui);
        }

        let opened = match &self.image {
            ImageSource::Named(request) => self.open_named(request, ui)?,
            #[cfg(feature = "net")]
            ImageSource::Factory(from) => self.open_from_factory(from, &mut policy, ui)?,
        };
        let candidate = opened.uki()?;
        let candidate_bytes = candidate.bytes.size();
        let time = place.as_ref().map_or_else(|| esp.stamp(now()), |place| place.stamp(now()));
        let set = match &self.board_files {
            Some(request) => {
                Some(PreparedSet::prepare(request, (&opened, candidate), (&esp, place.as_ref()), time, ui)?)
            }
            None => None,
        };
        let replaced = place.as_ref().filter(|place| place.partition.is_none()).map(|place| place.path(place.name()));
        let board = BoardReport::against(target, &esp.volume, &opened, candidate, replaced.as_deref());
        warnings.extend(board.not_looked_at.iter().cloned());
        let job = Job {
            swap: self,
            target,
            medium: medium.as_ref().unwrap_or(target),
            esp: &esp,
            place: place.as_ref(),
            vars: &vars,
            policy,
            candidate,
            stream: opened.stream.as_deref(),
            facts: None,
            time,
            set,
            warnings: &warnings,
            board: &board,
            ui,
        };
        let done =
            if opened.is_sequential() { job.stage_and_plan() } else { job.plan_and_stage(opened.remote.is_some()) };
        let words = self.disk.words(target, esp.arch());
        let elsewhere = place.as_ref().zip(medium.as_ref());
        let mut report = done.map_err(|e| advise_room(e, &esp, elsewhere, candidate_bytes, &words))?;
        if report.image.is_none() {
            report.image = summary_of(&esp, place.as_ref(), &report.plan.target, ui)?;
            report.waiting_services = report.image.iter().flat_map(|i| i.waiting_services.clone()).collect();
        }
        report.board = board.for_stub(report.image.as_ref().and_then(|image| image.stub));
        report.wire_bytes = opened.remote.as_ref().map(Remote::wire_bytes);
        warnings.extend(report.plan.warnings.iter().cloned());
        report.warnings = warnings;
        Ok(report)
    }

    /// The ESP, claimed before it is looked at, where this will write to it and to nothing else. Why it could not be
    /// claimed, if it could not, is for later: there may be nothing to do, or something worse to say.
    fn claimed(&self, esp: &Target, ui: &dyn Ui) -> Option<Target> {
        let is_alone = esp.xbootldr().is_none();
        let writes = !self.change.dry_run && !self.change.cannot_be_confirmed(ui);
        // Who sends an image through a pipe may be gone: nothing is held while nothing comes.
        let waits = matches!(&self.image, ImageSource::Named(request) if request.is_stream());
        (is_alone && writes && !waits).then(|| esp.claimed().ok()).flatten()
    }

    /// What plans without writing has to look at the image more than once.
    pub(super) fn open_named(&self, request: &ImageRequest, ui: &dyn Ui) -> Result<OpenImage> {
        if self.change.dry_run || self.change.cannot_be_confirmed(ui) {
            request.open_to_look_around(ui)
        } else {
            request.open_once(ui)
        }
    }
}
