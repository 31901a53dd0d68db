//! Which files leave the menu although nothing new comes.

use super::in_place::prunable;
use super::reach::refuse_unreached;
use super::states::keeps_booting;
use super::{Rename, old_backups, refuse_long_names, started_last, steps};
use crate::block::ReadAt;
use crate::boot::{Prediction, UkiFile, roles};
use crate::bootpath::BootScenario;
use crate::esp::{EspFile, FileKind, Inventory, Place, Runs, disabled_of, linux_file};
use crate::fat::Entry;
use crate::surgery::{LINUX_DIR, Tidying};
use crate::uki::Family;
use crate::{Code, Error, Result};
use serde::Serialize;
use std::collections::HashSet;

/// What the user asked of `prune`.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Delete instead of renaming, and delete what was disabled before.
    pub delete: bool,
    /// Keep this many backups, the newest.
    pub keep_backups: Option<usize>,
    /// Take the only fallback out of the menu too.
    pub no_fallback: bool,
    /// Now, in seconds since 1970 UTC.
    pub time: u64,
}

/// What `prune` will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PrunePlan {
    /// Files that leave the boot menu by another name.
    pub renames: Vec<Rename>,
    /// Files that are deleted.
    pub delete: Vec<String>,
    /// Files that stay, and why.
    pub keep: Vec<(String, String)>,
    /// Directories whose files were for an image that leaves, and what becomes of them.
    pub warnings: Vec<String>,
    /// What the board starts afterwards, with the variables as they are.
    pub boot: Option<String>,
    /// What it selects today: the same, unless that cannot start.
    pub boot_before: Option<String>,
    /// What is selected afterwards with the variables as they are, and with none.
    #[serde(skip)]
    pub(crate) starts_then: [Option<String>; 2],
    /// The files that are deleted in the directory of an image that has its own place, by their names there.
    #[serde(skip)]
    beside: Option<(String, Vec<String>)>,
    /// The backups of the board's own files that are deleted, by directory.
    #[serde(skip)]
    pub(super) board: Vec<(String, Vec<Entry>)>,
}

/// What lies beside an image that leaves: it stays, and is there again for whatever gets that name.
fn left_beside<S: ReadAt>(esp: &Inventory<S>, name: &str) -> Option<String> {
    let left = esp.companions_of(name);
    (!left.is_empty()).then(|| {
        format!(
            "{name}.extra.d stays as it is, with {} for systemd's stub to add to an image of that name",
            left.join(", ")
        )
    })
}

impl PrunePlan {
    /// Plans what leaves the menu: duplicates, broken entries, and versions other than what runs, what starts next and
    /// one fallback.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`] when the board would start something else afterwards or starts something else than these
    /// images (that may start any of them), or what is in the menu is not known; [`crate::Kind::Io`] when part of the
    /// ESP could not be read.
    pub fn make<S: ReadAt>(esp: &Inventory<S>, options: &PruneOptions) -> Result<Self> {
        let _unsure = refuse_unreached(esp)?;
        esp.refuse_unreadable()?;
        let roles = roles(&esp.predictions.next, &esp.variables);
        let mut keep: Vec<(String, String)> = Vec::new();
        let mut hold = |name: Option<&str>, why: &str| {
            if let Some(name) = name
                && let Some(file) = esp.file(name)
                && !keep.iter().any(|(n, _)| n == file.name())
            {
                keep.push((file.name().to_owned(), why.to_owned()));
            }
        };
        // What is listed and cannot start leaves, also where it is selected: what starts without it is what counts.
        let broken = esp.files.iter().filter(|f| f.kind == FileKind::Broken);
        let broken: HashSet<&str> = broken.map(EspFile::name).collect();
        let alive = esp.as_seen().iter().filter(|f| !broken.contains(f.name.as_str()));
        let alive: Vec<UkiFile> = alive.cloned().collect();
        let predictions = esp.predict(&alive);
        let starts = |prediction: &Prediction| {
            let entry = prediction.selected_entry().filter(|e| !e.xbootldr)?;
            // A Type #1 entry may start a file of this directory too.
            entry.file.clone().or_else(|| linux_file(entry.path.as_deref()?).map(str::to_owned))
        };
        let (next, reset) = (starts(&predictions.next), starts(&predictions.reset));
        let later = predictions.later.as_ref().and_then(|(prediction, _)| starts(prediction));
        hold(next.as_deref(), "starts next");
        hold(reset.as_deref(), "starts if the EFI variables are lost");
        let alive_now = |name: &&str| !esp.file(name).is_some_and(|f| broken.contains(f.name()));
        hold(roles.running_file.as_deref().filter(alive_now), "was started at the last boot");
        for scenario in [BootScenario::Next, BootScenario::Reset] {
            for start in esp.starts(scenario, &alive) {
                hold(start.file.as_deref(), "starts once boot counting has used up the tries of others");
            }
        }
        hold(later.as_deref(), "starts once what is set for one start is used up");
        for (name, option) in esp.named_by_options() {
            hold(Some(name.as_str()).filter(alive_now), &format!("{option} of the firmware starts it itself"));
        }
        for file in esp.files.iter().filter(|f| f.is_foreign) {
            hold(Some(file.name()), "for another architecture, whose boot loader is here as well");
        }
        if !options.no_fallback {
            let kept = [next.as_deref(), reset.as_deref()].into_iter().flatten();
            let kept_versions: Vec<&str> = kept.filter_map(|n| esp.file(n)?.version()).collect();
            let other =
                |f: &&EspFile| f.kind == FileKind::Uki && !kept_versions.iter().any(|v| Some(*v) == f.version());
            let in_order = esp
                .predictions
                .next
                .menu
                .iter()
                .filter(|e| e.profile == 0)
                .filter_map(|e| esp.file(e.file.as_deref()?));
            hold(in_order.filter(other).map(|f| f.name()).next(), "the fallback");
        }
        // Whatever variables and counters say, an image that starts stays here if there is one.
        let sound = |f: &EspFile| f.kind == FileKind::Uki && !f.is_foreign;
        if !keep.iter().any(|(name, _)| esp.file(name).is_some_and(sound)) {
            let in_order = esp.predictions.next.menu.iter().filter_map(|e| esp.file(e.file.as_deref()?));
            let only = in_order.chain(&esp.files).find(|f| sound(f));
            keep.extend(only.map(|f| (f.name().to_owned(), "nothing else here would start".to_owned())));
        }
        // Old versions of other systems belong to their package managers, which would miss them.
        for f in esp.files.iter().filter(|f| f.kind == FileKind::Uki && f.duplicate_of.is_none()) {
            if f.family() != Family::Talos && !keep.iter().any(|(n, _)| n == f.name()) {
                keep.push((f.name().to_owned(), "belongs to whoever installed it".to_owned()));
            }
        }
        let leaves = |f: &&EspFile| {
            matches!(f.kind, FileKind::Uki | FileKind::Broken) && !keep.iter().any(|(n, _)| n == f.name())
        };
        let mut renames = Vec::new();
        let mut delete = Vec::new();
        let taken = |name: &str| esp.file(name).is_some();
        for f in esp.files.iter().filter(leaves) {
            if options.delete {
                delete.push(f.name().to_owned());
            } else {
                renames.push(Rename { from: f.name().to_owned(), to: disabled_of(f.name(), options.time, taken) });
            }
        }
        if options.delete {
            delete.extend(esp.files.iter().filter(|f| f.kind == FileKind::Disabled).map(|f| f.name().to_owned()));
        }
        if let Some(n) = options.keep_backups {
            delete.extend(old_backups(esp, n, None));
        }
        if let Some(name) = started_last(esp)
            && delete.contains(&name)
        {
            delete.retain(|d| *d != name);
            keep.push((name, "holds what was started at the last boot".to_owned()));
        }
        refuse_long_names(esp, renames.iter().map(|r| r.to.as_str()))?;
        let gone: HashSet<&String> = delete.iter().chain(renames.iter().map(|r| &r.from)).collect();
        let left: Vec<UkiFile> = esp.as_seen().iter().filter(|f| !gone.contains(&f.name)).cloned().collect();
        let starts_then = esp.predict(&left).selected_files().map(|file| file.map(str::to_owned));
        keeps_booting(esp, &renames, &delete)
            .map_err(|fault| Error::new(Code::WouldNotBoot, format!("no order of the steps is safe: {fault}")))?;
        let elsewhere = esp.elsewhere(&esp.predictions.next);
        let boot_before = esp.predictions.next.selected_file().map(str::to_owned).or_else(|| elsewhere.clone());
        // Every state was held against what starts today: what lies elsewhere starts afterwards as well.
        let boot = starts_then[0].clone().or(elsewhere);
        let leaving = renames.iter().map(|r| &r.from).chain(&delete);
        let warnings = leaving.filter_map(|name| left_beside(esp, name)).collect();
        Ok(Self { renames, delete, keep, warnings, boot, boot_before, starts_then, beside: None, board: Vec::new() })
    }

    /// Adds the backups and disabled files beside an image that has its own place. Without `self` that is all: no menu
    /// is on the way of the boot.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`] when the board would start something else afterwards; what the source reports.
    pub fn with_place<S: ReadAt>(
        plan: Option<Self>,
        esp: &Inventory<S>,
        place: &Place,
        options: &PruneOptions,
    ) -> Result<Self> {
        let boot = Some(match esp.runs(BootScenario::Next).0 {
            // What is set for one start may lead elsewhere.
            Runs::Image { at, .. } if at != place.at => esp.describe_place(&at),
            _ => place.words(),
        });
        let mut plan = plan.unwrap_or_else(|| Self {
            renames: Vec::new(),
            delete: Vec::new(),
            keep: Vec::new(),
            warnings: Vec::new(),
            boot: None,
            boot_before: None,
            starts_then: [None, None],
            beside: None,
            board: Vec::new(),
        });
        // Where the menu has no image of its own to start, it is this one.
        if plan.boot.is_none() && plan.boot_before.is_none() {
            (plan.boot, plan.boot_before) = (boot.clone(), boot);
        }
        let names = prunable(esp, place, options.delete, options.keep_backups)?;
        let why = if place.image.kind == FileKind::Broken { "should start, and is broken" } else { "starts next" };
        plan.keep.push((place.path(place.name()), why.to_owned()));
        plan.delete.extend(names.iter().map(|name| place.path(name)));
        plan.beside = Some((place.directory.clone(), names));
        Ok(plan)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.renames.is_empty() && self.delete.is_empty()
    }

    /// The operation that carries the plan out.
    #[must_use]
    pub fn tidying(&self, time: u64) -> Tidying {
        let elsewhere: usize = self.board.iter().map(|(_, entries)| entries.len()).sum();
        let elsewhere = elsewhere + self.beside().map_or(0, |(_, names)| names.len());
        Tidying {
            command: "prune".to_owned(),
            time,
            directory: LINUX_DIR.to_owned(),
            steps: steps(&self.renames, &self.delete[..self.delete.len() - elsewhere]),
        }
    }

    /// The operation in the directory of an image that has its own place, if there is anything to do.
    #[must_use]
    pub fn tidying_beside(&self, time: u64) -> Option<Tidying> {
        let (directory, names) = self.beside().filter(|(_, names)| !names.is_empty())?;
        Some(Tidying { command: "prune".to_owned(), time, directory: directory.clone(), steps: steps(&[], names) })
    }

    /// The names of what is deleted in that directory.
    pub(crate) fn deleted_beside(&self) -> &[String] {
        self.beside().map_or(&[], |(_, names)| names)
    }

    fn beside(&self) -> Option<&(String, Vec<String>)> {
        self.beside.as_ref()
    }
}
