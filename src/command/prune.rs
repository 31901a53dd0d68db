//! `prune`: duplicates, broken entries and stale versions out of the boot menu.

use super::change::{Change, confirm_on_medium, refuse_changed};
use super::loader::confirm;
use super::medium::{Again, Side};
use super::programs::{refused_images, started_from};
use super::room::advise_room;
use super::{DiskRequest, Event, Ui, boot_variables, now};
use crate::block::ReadAt;
use crate::bootpath::BootScenario;
use crate::disk::Target;
use crate::efivars::EfiVars;
use crate::esp::{FileKind, Inventory, Place};
use crate::plan::{PruneOptions, PrunePlan, place_of, refuse_another_start, refuse_unreached};
use crate::sorting::set;
use crate::surgery::{Tidying, open_healthy};
use crate::{Code, Error, Result};
use serde::Serialize;
use std::sync::Arc;

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
#[non_exhaustive]
pub struct PruneReport {
    /// The plan.
    pub plan: PrunePlan,
    /// Whether it was carried out.
    pub committed: bool,
    /// The file of `--out`, which holds the changed image now (an unchanged one where there was nothing to do); `null`
    /// when none was written.
    pub out: Option<String>,
    /// All members of the mirror that were written, or would be; empty for a disk by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
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
        let side = Side::of(target)?;
        let target = &*side.esp;
        let vars = self.disk.efivars(target);
        let (variables, unreadable) = boot_variables(&vars);
        for warning in target.warnings.iter().chain(&unreadable) {
            ui.event(Event::Warning(warning.clone()));
        }
        let mut esp = Inventory::read_in(target.open()?, variables, self.disk.context(target, &vars, None))?;
        esp.refuse_unsafe()?;
        let place = place_of(&esp, None)?;
        let sibling = side.medium(&esp, place.as_ref())?;
        // What nobody reads is nobody's to tidy up; where an image starts from its own place, its backups are.
        let reads_menu = place.is_none() || esp.is_read(BootScenario::Later);
        if reads_menu {
            for warning in refuse_unreached(&esp)? {
                ui.event(Event::Warning(warning));
            }
        }
        if self.disk.efivars.is_named() || started_from(target, &vars) {
            // The firmware's refusal is as final as a file that is cut off.
            for (name, why) in refused_images(&esp, &vars)? {
                ui.event(Event::Warning(format!("the firmware refuses to start {name}: {why}")));
                for file in esp.files.iter_mut().filter(|f| f.name() == name) {
                    (file.kind, file.trouble) = (FileKind::Broken, Some(format!("the firmware refuses it: {why}")));
                }
            }
        }
        let time = place.as_ref().map_or(0, |place| place.stamp(now())).max(esp.stamp(now()));
        let options =
            PruneOptions { delete: self.delete, keep_backups: self.keep_backups, no_fallback: self.no_fallback, time };
        let menu = reads_menu.then(|| PrunePlan::make(&esp, &options)).transpose()?;
        // The backups in `EFI/Linux` are in the plan for the menu, where there is one.
        let place = place.filter(|place| !(reads_menu && place.is_among_images()));
        let plan = match (menu, &place) {
            (menu, Some(place)) => PrunePlan::with_place(menu, &esp, place, &options)?,
            (Some(menu), None) => menu,
            (None, None) => return Err(Error::new(Code::Bug, "a prune without anything to look at")),
        };
        let plan = match self.keep_backups {
            Some(keep) => plan.with_board_backups(&esp, keep)?,
            None => plan,
        };
        if plan.is_empty() {
            return Ok(self.report(plan, false));
        }
        let beside = sibling.as_ref().unwrap_or(target);
        let menu = (plan.tidying(time), target, None);
        let beside = plan.tidying_beside(time).map(|tidying| (tidying, beside, place.as_ref()));
        let all: Vec<(Tidying, &Target, Option<&Place>)> = std::iter::once(menu).chain(beside).collect();
        let all = || all.iter().filter(|(tidying, ..)| !tidying.steps.is_empty());
        for (tidying, medium, _) in all() {
            let elsewhere = place.as_ref().zip(sibling.as_ref()).filter(|_| medium.partition != target.partition);
            tidying
                .rehearse(&*medium.open()?, medium.sector_size)
                .map_err(|e| advise_room(e, &esp, elsewhere, 0, &self.disk.words(target, esp.arch())))?;
        }
        let board = plan.board_tidyings(time);
        let on_target =
            all().filter(|(_, medium, _)| medium.partition == target.partition).map(|(tidying, ..)| tidying);
        let without = without_backups(target, &esp, &vars, on_target, &board)?;
        if self.change.dry_run {
            return Ok(self.report(plan, false));
        }
        self.change.confirm(ui, &question(&plan, &esp, place.as_ref(), target))?;
        let on_esp = place.as_ref().filter(|place| place.partition.is_none());
        for (n, (tidying, medium, place)) in all().enumerate() {
            // Behind the first one something is changed.
            let changed = |e: Error| if n > 0 { e.with_esp_changed(true) } else { e };
            let opened = medium.open_surgery().map_err(changed)?;
            let editor = open_healthy(opened.medium()).map_err(changed)?;
            match place {
                _ if n == 0 => refuse_changed(&esp, place.or(on_esp), &editor.volume(), &vars)?,
                Some(place) => place.refuse_changed(&editor.volume()).map_err(changed)?,
                None => {}
            }
            let outcome = tidying.run(editor).map_err(changed)?;
            match place {
                Some(place) => {
                    let again = Again { disk: &self.disk, esp: target, vars: &vars, arch: None };
                    again.confirm(opened.medium(), &outcome.operation, &esp, place)?;
                }
                None => {
                    let starts = plan.starts_then.each_ref().map(Option::as_deref);
                    confirm_on_medium(opened.medium(), &outcome.operation, &esp, starts)?;
                }
            }
        }
        let is_first = all().next().is_none();
        for (n, (tidying, states)) in board.iter().zip(without.windows(2)).enumerate() {
            let [before, after] = states else { continue };
            let changed = |e: Error| if n > 0 || !is_first { e.with_esp_changed(true) } else { e };
            let one = || -> Result<()> {
                let opened = target.open_surgery()?;
                let editor = open_healthy(opened.medium())?;
                refuse_changed(before, None, &editor.volume(), &vars)?;
                plan.refuse_other_backups(&editor.volume(), &tidying.directory)?;
                tidying.run(editor)?;
                confirm(opened.medium(), after)
            };
            one().map_err(changed)?;
        }
        Ok(self.report(plan, true))
    }

    fn report(&self, plan: PrunePlan, committed: bool) -> PruneReport {
        PruneReport { plan, committed, out: self.change.written(), members: self.disk.member_names() }
    }
}

/// The ESP as it is before `tidyings`, behind those that come `before`, and then behind each of them; and that the board
/// starts there what it starts today, should a boot option or an entry lead to one of the files.
fn without_backups<'t, S: ReadAt>(
    target: &Target,
    esp: &Inventory<S>,
    vars: &EfiVars,
    before: impl Iterator<Item = &'t Tidying>,
    tidyings: &[Tidying],
) -> Result<Vec<Inventory<Box<dyn ReadAt>>>> {
    if tidyings.is_empty() {
        return Ok(Vec::new());
    }
    let (variables, _) = boot_variables(vars);
    let mut below: Arc<dyn ReadAt> = Arc::from(target.open()?);
    let look = |below: &Arc<dyn ReadAt>| {
        let view: Box<dyn ReadAt> = Box::new(Arc::clone(below));
        Inventory::read_in(view, variables.clone(), Arc::clone(&esp.context))
    };
    for tidying in before {
        below = Arc::new(tidying.preview(Arc::clone(&below), target.sector_size)?);
    }
    let mut states = vec![look(&below)?];
    for tidying in tidyings {
        below = Arc::new(tidying.preview(Arc::clone(&below), target.sector_size)?);
        let state = look(&below)?;
        refuse_another_start(&states[0], &state, &format!("without old backups in {}", tidying.directory))?;
        states.push(state);
    }
    Ok(states)
}

/// Names every file and every loss.
fn question<S: ReadAt>(plan: &PrunePlan, esp: &Inventory<S>, place: Option<&Place>, target: &Target) -> String {
    let renamed = plan.renames.iter().map(|r| r.from.as_str()).collect::<Vec<_>>().join(", ");
    let in_menu = esp.files.iter().filter(|f| f.kind == FileKind::Backup).map(|f| f.name().to_owned());
    let beside = place.into_iter().flat_map(|p| p.backups().into_iter().map(|(file, _)| p.path(file.name())));
    let backups = set(in_menu.chain(beside));
    let is_backup = |name: &String| backups.contains(name);
    let deleted =
        plan.delete.iter().map(|name| if is_backup(name) { format!("{name} (a backup)") } else { name.clone() });
    let last = !backups.is_empty() && plan.delete.iter().filter(|name| is_backup(name)).count() == backups.len();
    let parts = [
        (!renamed.is_empty()).then(|| format!("disable {renamed}")),
        (!plan.delete.is_empty()).then(|| format!("delete for good {}", deleted.collect::<Vec<_>>().join(", "))),
        last.then(|| "keep no backup".to_owned()),
    ];
    let what = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
    format!("On {}: {what}?", target.in_words())
}
