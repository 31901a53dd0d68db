//! Planning: pure decisions over an [`Inventory`], checked against the boot prediction before anything is written.
//!
//! systemd-boot has no fallback: what it chooses either boots or the node is down. So a plan has to hold in two worlds,
//! with the EFI variables as they are and with none of them (NVRAM reset), and in both the entry that starts must be
//! the intended file itself, not one of its extra profiles (which wipe disks).

use super::operation::{ContentRef, Install, Operation, Source, Tidy};
use crate::block::ReadAt;
use crate::boot::{Prediction, UkiFile};
use crate::esp::{BackupName, EspFile, FileKind, Inventory, backup_of, disabled_of};
use crate::{Error, Result};
use serde::Serialize;

/// A file gets another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rename {
    /// Its name now.
    pub from: String,
    /// Its name then.
    pub to: String,
}

/// What a swap or a restore will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SwapPlan {
    /// The file that gets the new content.
    pub target: String,
    /// Where the image that boots now stays reachable.
    pub backup: Option<String>,
    /// Files that leave the boot menu.
    pub disable: Vec<String>,
    /// Image bytes that go to the medium.
    pub bytes_to_write: u64,
    /// What the board starts now.
    pub boot_before: Option<String>,
    /// What it starts afterwards, by prediction, with the variables as they are and with none.
    pub boot_after: Option<String>,
    /// Every name that changes.
    pub renames: Vec<Rename>,
    /// Old backups that are deleted.
    pub delete: Vec<String>,
    /// What somebody should know.
    pub warnings: Vec<String>,
    /// The name that the target's own old content gets, if the target exists.
    #[serde(skip)]
    pub(super) target_backup: Option<String>,
}

/// What the user asked of a swap.
#[derive(Debug, Clone, Default)]
pub struct SwapWishes {
    /// `--target`.
    pub target: Option<String>,
    /// `--keep-duplicates`.
    pub keep_duplicates: bool,
    /// `--keep-backups`: delete older ones beyond this many.
    pub keep_backups: Option<usize>,
    /// Now, in seconds since 1970 UTC.
    pub time: u64,
}

/// The image that is to be started, as far as planning needs it.
pub struct NewImage<'a> {
    /// Its bytes.
    pub source: &'a dyn ReadAt,
    /// `v1.12.4`.
    pub version: Option<&'a str>,
    /// Length in bytes that will be written; 0 when its clusters are on the volume already.
    pub bytes_to_write: u64,
    /// The file on the ESP it comes from, for a restore.
    pub from_file: Option<&'a str>,
}

impl SwapPlan {
    /// Plans a swap: which file gets the image, what leaves the menu, what boots afterwards.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`] when no arrangement makes the board start the new image, with the reasons;
    /// [`crate::Kind::Usage`] for a target name that cannot be one.
    pub fn make<S: ReadAt>(esp: &Inventory<S>, image: &NewImage<'_>, wishes: &SwapWishes) -> Result<Self> {
        let mut reasons = Vec::new();
        for target in candidates(esp, image, wishes)? {
            match Self::with_target(esp, image, wishes, &target)? {
                Ok(plan) => return Ok(plan),
                Err(why) => reasons.push(format!("as {target}: {why}")),
            }
        }
        Err(Error::refused(format!("the board would not start the new image: {}", reasons.join("; ")))
            .advise("look at `status`: an entry that wins over it has to go, or choose another name with --target"))
    }

    /// The plan with this target; the inner error says why the board would not start it.
    fn with_target<S: ReadAt>(
        esp: &Inventory<S>,
        image: &NewImage<'_>,
        wishes: &SwapWishes,
        target: &str,
    ) -> Result<Result<Self, String>> {
        let taken = |name: &str| esp.file(name).is_some();
        let existing = esp.file(target);
        // The name keeps the case it has on the volume.
        let target = existing.map_or_else(|| target.to_owned(), |f| f.name().to_owned());
        let before = esp.worlds[0].selected_file().map(str::to_owned);
        let mut renames: Vec<Rename> = Vec::new();
        let mut used: Vec<String> = Vec::new();
        let target_backup = existing.map(|_| backup_of(&target, wishes.time, taken));
        used.extend(target_backup.clone());

        // The image that boots now, under another name, is retired rather than disabled: it is the way back.
        let retired = before.clone().filter(|name| *name != target && Some(name.as_str()) != image.from_file);
        if let Some(from) = &retired {
            let to = backup_of(from, wishes.time, |n| taken(n) || used.iter().any(|u| u == n));
            used.push(to.clone());
            renames.push(Rename { from: from.clone(), to });
        }
        let mut disable: Vec<String> = Vec::new();
        if !wishes.keep_duplicates {
            let old_version = before.as_deref().and_then(|b| esp.file(b)).and_then(EspFile::version);
            let doubles = |f: &&EspFile| {
                let same = f.version().is_some() && (f.version() == image.version || f.version() == old_version);
                let listed_but_dead = f.kind == FileKind::Broken && esp.lists(f.name());
                f.kind == FileKind::Uki && same || listed_but_dead
            };
            let others = esp.files.iter().filter(|f| f.name() != target && Some(f.name()) != retired.as_deref());
            disable.extend(others.filter(doubles).map(|f| f.name().to_owned()));
        }

        // Whatever still wins over the target has to go too; each turn takes one file away, so it ends.
        let (mut worlds, mut linux);
        loop {
            let gone = |name: &str| disable.iter().any(|d| d == name) || renames.iter().any(|r| r.from == name);
            linux = arranged(esp, image, &target, gone)?;
            worlds = esp.predict(&linux);
            let Some(winner) = worlds.iter().filter_map(Prediction::selected_file).find(|f| *f != target) else {
                break;
            };
            let winner = winner.to_owned();
            if wishes.keep_duplicates || esp.file(&winner).is_none() || disable.contains(&winner) {
                return Ok(Err(format!("{winner} would start instead ({})", worlds[0].reason)));
            }
            disable.push(winner);
        }
        for (world, name) in worlds.iter().zip(["with the EFI variables as they are", "without EFI variables"]) {
            let Some(entry) = world.selected_entry() else {
                return Ok(Err(format!("nothing would start {name}: {}", world.reason)));
            };
            if entry.file.as_deref() != Some(target.as_str()) {
                return Ok(Err(format!("{} would start instead {name} ({})", entry.id, world.reason)));
            }
            if entry.profile != 0 {
                return Ok(Err(format!("its profile {} would start {name} ({})", entry.id, world.reason)));
            }
        }
        for name in &disable {
            let to = disabled_of(name, wishes.time, |n| taken(n) || used.iter().any(|u| u == n));
            used.push(to.clone());
            renames.push(Rename { from: name.clone(), to });
        }
        let backup = match (&retired, &target_backup) {
            (Some(from), _) => renames.iter().find(|r| r.from == *from).map(|r| r.to.clone()),
            (None, own) => own.clone(),
        };
        let mut warnings = worlds[0].warnings.clone();
        warnings.extend(pinned_elsewhere(esp, &renames));
        let delete = match wishes.keep_backups {
            None => Vec::new(),
            // The backup this plan makes is the newest one.
            Some(keep) => old_backups(esp, keep.saturating_sub(usize::from(backup.is_some())), image.from_file),
        };
        Ok(Ok(Self {
            bytes_to_write: image.bytes_to_write,
            boot_before: before,
            boot_after: worlds[0].selected_file().map(str::to_owned),
            target,
            backup,
            disable,
            renames,
            delete,
            warnings,
            target_backup,
        }))
    }

    /// The operation that carries the plan out, once the content is known.
    #[must_use]
    pub fn operation<S: ReadAt>(
        &self,
        command: &str,
        esp: &Inventory<S>,
        new: ContentRef,
        source: Source,
        time: u64,
    ) -> Operation {
        let old = esp.file(&self.target).map(|f| ContentRef {
            cluster: f.entry.first_cluster,
            bytes: f.entry.bytes,
            sha256: f.sha256.clone(),
        });
        let renames = self.renames.iter().map(|r| Tidy::Rename { from: r.from.clone(), to: r.to.clone() });
        let removals = self.delete.iter().cloned().map(Tidy::Remove);
        Operation {
            command: command.to_owned(),
            time,
            install: Some(Install {
                target: self.target.clone(),
                backup: self.target_backup.clone(),
                old,
                new,
                source,
            }),
            tidy: renames.chain(removals).collect(),
        }
    }
}

/// The names the image might get, best first.
fn candidates<S: ReadAt>(esp: &Inventory<S>, image: &NewImage<'_>, wishes: &SwapWishes) -> Result<Vec<String>> {
    if let Some(target) = &wishes.target {
        if !target.to_ascii_lowercase().ends_with(".efi") {
            return Err(Error::usage(format!("--target {target}: systemd-boot lists only names that end in .efi")));
        }
        crate::fat::check_long_name(target).map_err(|e| Error::usage(format!("--target: {e}")))?;
        return Ok(vec![target.clone()]);
    }
    let now = esp.selected();
    let mut names = Vec::new();
    match (now, image.version) {
        // The same version again: the file that boots keeps its name and gets the content.
        (Some(now), version) if version.is_none() || now.version() == version => names.push(now.name().to_owned()),
        (_, Some(version)) if !version.contains(['/', '\\', ':']) => names.push(format!("Talos-{version}.efi")),
        _ => {}
    }
    // Whatever a stale variable pins, it pins a name: content under that name is what boots.
    names.extend(now.map(|f| f.name().to_owned()));
    names.dedup();
    if names.is_empty() {
        return Err(Error::usage("the image does not say which version it is: name the file with --target"));
    }
    Ok(names)
}

/// `EFI/Linux` as it will be: the image under its name, the files that go gone.
fn arranged<S: ReadAt>(
    esp: &Inventory<S>,
    image: &NewImage<'_>,
    target: &str,
    gone: impl Fn(&str) -> bool,
) -> Result<Vec<UkiFile>> {
    let (loader, machine) = esp.rules()?;
    let new = UkiFile::probe(target, image.source, &loader, machine);
    let mut linux: Vec<UkiFile> = esp.as_seen().iter().filter(|f| !gone(&f.name)).cloned().collect();
    match linux.iter_mut().find(|f| f.name == target) {
        Some(place) => *place = new,
        None => linux.push(new),
    }
    Ok(linux)
}

/// Deletes the oldest backups beyond `keep`.
fn old_backups<S: ReadAt>(esp: &Inventory<S>, keep: usize, except: Option<&str>) -> Vec<String> {
    let mut backups = backups(esp);
    backups.retain(|(name, _)| Some(name.as_str()) != except);
    backups.into_iter().skip(keep).map(|(name, _)| name).collect()
}

/// All backups, the newest first.
pub fn backups<S: ReadAt>(esp: &Inventory<S>) -> Vec<(String, BackupName)> {
    let mut all: Vec<_> = esp
        .files
        .iter()
        .filter(|f| f.kind == FileKind::Backup)
        .filter_map(|f| Some((f.name().to_owned(), BackupName::parse(f.name())?)))
        .collect();
    all.sort_by_key(|(_, b)| std::cmp::Reverse(b.time));
    all
}

/// Variables that go on naming a file which leaves.
fn pinned_elsewhere<S: ReadAt>(esp: &Inventory<S>, renames: &[Rename]) -> Option<String> {
    let pinned = crate::boot::lenient_string(esp.variables.default.as_deref()?);
    let leaves = renames.iter().find(|r| r.from.eq_ignore_ascii_case(&pinned))?;
    Some(format!(
        "LoaderEntryDefault names {}, which leaves the menu: systemd-boot then goes by its order, and the prediction counts on that",
        leaves.from
    ))
}

/// What the user asked of `prune`.
#[derive(Debug, Clone, Default)]
pub struct PruneWishes {
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
pub struct PrunePlan {
    /// Files that leave the boot menu by another name.
    pub renames: Vec<Rename>,
    /// Files that are deleted.
    pub delete: Vec<String>,
    /// Files that stay, and why.
    pub keep: Vec<(String, String)>,
    /// What the board starts, before and after.
    pub boot: Option<String>,
}

impl PrunePlan {
    /// Plans what leaves the menu: duplicates, broken entries, and versions other than what runs, what starts next and
    /// one fallback.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`] when the board would start something else afterwards.
    pub fn make<S: ReadAt>(esp: &Inventory<S>, wishes: &PruneWishes) -> Result<Self> {
        let roles = crate::boot::roles(&esp.worlds[0], &esp.variables);
        let mut keep: Vec<(String, String)> = Vec::new();
        let mut hold = |name: Option<&str>, why: &str| {
            if let Some(name) = name
                && esp.file(name).is_some()
                && !keep.iter().any(|(n, _)| n == name)
            {
                keep.push((name.to_owned(), why.to_owned()));
            }
        };
        hold(esp.worlds[0].selected_file(), "starts next");
        hold(esp.worlds[1].selected_file(), "starts if the EFI variables are lost");
        hold(roles.running_file.as_deref(), "was started at the last boot");
        if !wishes.no_fallback {
            let kept_versions: Vec<_> = [esp.worlds[0].selected_file(), esp.worlds[1].selected_file()]
                .into_iter()
                .flatten()
                .filter_map(|n| esp.file(n)?.version().map(str::to_owned))
                .collect();
            let other = |f: &&EspFile| {
                f.kind == FileKind::Uki && !kept_versions.iter().any(|v| Some(v.as_str()) == f.version())
            };
            let in_order =
                esp.worlds[0].menu.iter().filter(|e| e.profile == 0).filter_map(|e| esp.file(e.file.as_deref()?));
            hold(in_order.filter(other).map(|f| f.name()).next(), "the fallback");
        }
        let leaves = |f: &&EspFile| {
            matches!(f.kind, FileKind::Uki | FileKind::Broken) && !keep.iter().any(|(n, _)| n == f.name())
        };
        let mut renames = Vec::new();
        let mut delete = Vec::new();
        let taken = |name: &str| esp.file(name).is_some();
        for f in esp.files.iter().filter(leaves) {
            if wishes.delete {
                delete.push(f.name().to_owned());
            } else {
                renames.push(Rename { from: f.name().to_owned(), to: disabled_of(f.name(), wishes.time, taken) });
            }
        }
        if wishes.delete {
            delete.extend(esp.files.iter().filter(|f| f.kind == FileKind::Disabled).map(|f| f.name().to_owned()));
        }
        if let Some(n) = wishes.keep_backups {
            delete.extend(old_backups(esp, n, None));
        }
        let gone = |name: &str| delete.iter().any(|d| d == name) || renames.iter().any(|r| r.from == name);
        let linux: Vec<UkiFile> = esp.as_seen().iter().filter(|f| !gone(&f.name)).cloned().collect();
        let after = esp.predict(&linux);
        for (before, after) in esp.worlds.iter().zip(&after) {
            if before.selected_entry().map(|e| &e.id) != after.selected_entry().map(|e| &e.id) {
                return Err(Error::refused(format!(
                    "after that the board would start {} instead of {}",
                    after.selected_file().unwrap_or("nothing"),
                    before.selected_file().unwrap_or("nothing")
                )));
            }
        }
        Ok(Self { renames, delete, keep, boot: esp.worlds[0].selected_file().map(str::to_owned) })
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.renames.is_empty() && self.delete.is_empty()
    }

    /// The operation that carries the plan out.
    #[must_use]
    pub fn operation(&self, time: u64) -> Operation {
        let renames = self.renames.iter().map(|r| Tidy::Rename { from: r.from.clone(), to: r.to.clone() });
        let removals = self.delete.iter().cloned().map(Tidy::Remove);
        Operation { command: "prune".to_owned(), time, install: None, tidy: renames.chain(removals).collect() }
    }
}
