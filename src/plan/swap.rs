//! Which file gets the image, what leaves the menu for it, and what boots then: for `swap` and `restore`.

use super::states::{Commit, Sequence, sequence};
use super::{Rename, old_backups, refuse_long_names, started_last, steps};
use crate::block::ReadAt;
use crate::boot::{Prediction, Skip, UkiFile, roles};
use crate::bootpath::BootScenario;
use crate::esp::{BackupName, EspFile, FileKind, Inventory, backup_of, disabled_of, linux_file, without_counter};
use crate::fat::same_name;
use crate::sorting::Sort as _;
use crate::surgery::{LINUX_DIR, Order};
use crate::uki::Facts;
use crate::uki::cmdline::{WIPE, parameters, wipes};
use crate::{Code, Error, Result};
use serde::Serialize;

/// What a swap or a restore will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
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
    /// Files that get another name, in the order in which they do.
    pub renames: Vec<Rename>,
    /// How many of them come before the new image is in place: files that would win over it and start nowhere today.
    pub renames_before: usize,
    /// The name that the target's own old content gets, if the target exists: that of a backup, unless it could not
    /// start.
    pub target_backup: Option<String>,
    /// Old backups that are deleted.
    pub delete: Vec<String>,
    /// What somebody should know.
    pub warnings: Vec<String>,
    /// The directory of the names, from the root of the volume. Names in another directory than `EFI/Linux` are given
    /// as paths.
    pub directory: String,
    /// The partition, where that is not the ESP.
    pub partition: Option<String>,
}

/// What the user asked of a swap.
#[derive(Debug, Clone, Default)]
pub struct SwapOptions {
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
    /// What its headers and small sections say, if they could be read.
    pub facts: Option<&'a Facts>,
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
    /// [`crate::Kind::Usage`] for a target name that cannot be one; [`crate::Kind::Io`] when part of the ESP could not
    /// be read.
    pub fn make<S: ReadAt>(esp: &Inventory<S>, image: &NewImage<'_>, options: &SwapOptions) -> Result<Self> {
        esp.refuse_unreadable()?;
        let mut reasons = Vec::new();
        for target in candidates(esp, image, options)? {
            match Self::with_target(esp, image, options, &target)? {
                Ok(plan) => return Ok(plan),
                Err(why) => reasons.push(format!("as {target}: {why}")),
            }
        }
        let why = format!("the board would not start the new image: {}", reasons.join("; "));
        let advice = match esp.place() {
            Ok(Some(place)) if image.from_file.is_some() => match place.backups().first() {
                Some((backup, _)) => format!("name {}: that is the backup of what starts", place.path(backup.name())),
                None => format!("the board starts {}, and no backup lies beside it: `swap` replaces it", place.words()),
            },
            _ if image.from_file.is_some() => "look at `status`: an entry that wins over it has to go".to_owned(),
            Ok(Some(place)) => format!("leave --target out, and {} is replaced, which the board starts", place.words()),
            _ => "look at `status`: an entry that wins over it has to go, or choose another name with --target"
                .to_owned(),
        };
        Err(Error::new(Code::WouldNotBoot, why).advise(advice))
    }

    /// The plan with this target; the inner error says why the board would not start it.
    fn with_target<S: ReadAt>(
        esp: &Inventory<S>,
        image: &NewImage<'_>,
        options: &SwapOptions,
        target: &str,
    ) -> Result<Result<Self, String>> {
        let existing = esp.file(target);
        if existing.is_none() && esp.as_seen().iter().any(|f| f.name.eq_ignore_ascii_case(target)) {
            return Ok(Err("there is a directory of that name".to_owned()));
        }
        // The name keeps the case it has on the volume.
        let target = existing.map_or_else(|| target.to_owned(), |f| f.name().to_owned());
        let before = esp.predictions.next.selected_file().map(str::to_owned);
        // The image that boots now, under another name, is retired rather than disabled: it is the way back.
        let retired = before.clone().filter(|name| *name != target && Some(name.as_str()) != image.from_file);
        let mut disable: Vec<String> = Vec::new();
        if !options.keep_duplicates {
            let old = before.as_deref().and_then(|b| esp.file(b)).and_then(EspFile::identity);
            let new = image.facts.and_then(Facts::identity);
            let doubles = |f: &&EspFile| {
                let identity = f.identity();
                let same = identity.is_some() && (identity == new || identity == old);
                let listed_but_dead = f.kind == FileKind::Broken && esp.lists(f.name());
                f.kind == FileKind::Uki && !f.is_foreign && same || listed_but_dead
            };
            let named = esp.named_by_options();
            let others = esp.files.iter().filter(|f| f.name() != target && Some(f.name()) != retired.as_deref());
            let others = others.filter(|f| !named.iter().any(|(name, _)| name == f.name()));
            disable.extend(others.filter(doubles).map(|f| f.name().to_owned()));
        }

        // Whatever still wins over the target has to go too; each turn takes one file away, so it ends.
        let (mut predictions, mut linux);
        loop {
            let gone = |name: &str| disable.iter().any(|d| d == name) || retired.as_deref() == Some(name);
            linux = arranged(esp, image, &target, gone)?;
            predictions = esp.predict(&linux);
            let wins = |(p, _): (&Prediction, _)| p.selected_file().filter(|f| *f != target).map(str::to_owned);
            let Some(winner) = predictions.all().find_map(wins) else {
                break;
            };
            if options.keep_duplicates || esp.file(&winner).is_none() || disable.contains(&winner) {
                return Ok(Err(format!("{winner} would start instead ({})", predictions.next.reason)));
            }
            disable.push(winner);
        }
        for (prediction, when) in predictions.all() {
            let Some(entry) = prediction.selected_entry() else {
                return Ok(Err(format!("nothing would start {when}: {}", prediction.reason)));
            };
            if prediction.selected_file() != Some(target.as_str()) {
                let winner = esp.entry_place(entry);
                return Ok(Err(format!("{winner} would start instead {when} ({})", prediction.reason)));
            }
            if entry.profile != 0 {
                return Ok(Err(format!("its profile {} would start {when} ({})", entry.id, prediction.reason)));
            }
            refuse_wiping_options(prediction)?;
        }
        let counter = boot_counter(esp, &linux, &target);
        if let Some((why, true)) = &counter
            && (options.target.is_none() || image.from_file.is_some())
        {
            return Ok(Err(why.clone()));
        }
        // Whoever wins over the others goes after them, and the image that boots now goes last.
        let leaving: Vec<&str> = disable.iter().rev().chain(&retired).map(String::as_str).collect();
        let mut names = names_outside_the_menu(esp, existing.map(EspFile::name), &leaving, options.time);
        let target_backup = existing.map(|_| names.remove(0));
        let renames: Vec<Rename> =
            leaving.iter().zip(names).map(|(from, to)| Rename { from: (*from).to_owned(), to }).collect();
        let backup = renames.iter().find(|r| retired.as_ref() == Some(&r.from)).map(|r| r.to.clone());
        let backup = backup.or_else(|| target_backup.clone());
        let made: Vec<&String> = target_backup.iter().chain(renames.iter().map(|r| &r.to)).collect();
        refuse_long_names(esp, made.iter().map(|name| name.as_str()).chain([target.as_str()]))?;
        let delete = match options.keep_backups {
            None => Vec::new(),
            // The backups that this plan makes are the newest.
            Some(keep) => {
                let new = made.iter().filter(|name| BackupName::parse(name).is_some_and(|b| !b.disabled)).count();
                let mut old = old_backups(esp, keep.saturating_sub(new), image.from_file);
                // What ran last is the one that is known to start.
                let ran = started_last(esp);
                old.retain(|name| Some(name) != ran.as_ref());
                old
            }
        };
        let new = linux.iter().find(|f| f.name == target);
        let new = new.ok_or_else(|| Error::new(Code::Bug, format!("{target} is not in its own plan")))?;
        let commit = Commit { target: new, backup: target_backup.as_deref(), from_file: image.from_file };
        let Sequence { before: renames_first, after } = match sequence(esp, &commit, renames, &delete) {
            Ok(sequence) => sequence,
            Err(fault) => return Ok(Err(format!("no order of the steps is safe: {fault}"))),
        };
        let renames_before = renames_first.len();
        let renames = [renames_first, after].concat();
        let next = &predictions.next;
        let mut warnings = next.warnings.clone();
        warnings.extend(lockdown(before.as_deref().and_then(|name| esp.file(name)), image.facts));
        warnings.extend(another_system(before.as_deref().and_then(|name| esp.file(name)), image.facts));
        warnings.extend(pinned_elsewhere(esp, &renames));
        warnings.extend(counter.map(|(why, _)| why));
        warnings.extend(companions(esp, &target));
        let named = esp.named_by_options().into_iter().filter(|(name, _)| renames.iter().any(|r| r.from == *name));
        warnings.extend(named.map(|(name, option)| {
            format!("{option} of the firmware names {name}, which gets another name: that option then leads nowhere")
        }));
        warnings.extend(keeps_its_name(esp, image, options, &target));
        Ok(Ok(Self {
            bytes_to_write: image.bytes_to_write,
            boot_before: before.or_else(|| esp.elsewhere(&esp.predictions.next)),
            boot_after: next.selected_file().map(str::to_owned),
            target,
            backup,
            disable,
            renames,
            delete,
            renames_before,
            warnings,
            target_backup,
            directory: LINUX_DIR.to_owned(),
            partition: None,
        }))
    }

    /// The order of the steps that carry the plan out.
    #[must_use]
    pub fn order(&self, command: &str, time: u64) -> Order {
        let (before, after) = self.renames.split_at(self.renames_before.min(self.renames.len()));
        Order {
            command: command.to_owned(),
            time,
            directory: self.directory.clone(),
            before: before.to_vec(),
            target: name_of(&self.target),
            backup: self.target_backup.as_deref().map(name_of),
            directories: Vec::new(),
            set: Vec::new(),
            after: steps(after, &self.delete.iter().map(|path| name_of(path)).collect::<Vec<_>>()),
        }
    }
}

/// The name of a file in its directory: a path is given where that is not `EFI/Linux`.
fn name_of(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// What the target's old content and the files that leave the menu are called then, in this order. Sound images that
/// boot now, were started at the last boot, or give way to the new one stay as backups; everything else is disabled.
/// Backups are told apart by their numbers: what was started last has the highest, for it is what a restore takes, and
/// what boots now the next.
fn names_outside_the_menu<S: ReadAt>(
    esp: &Inventory<S>,
    target: Option<&str>,
    leaving: &[&str],
    time: u64,
) -> Vec<String> {
    let running = roles(&esp.predictions.next, &esp.variables).running_file;
    let running = running.as_deref().and_then(|name| esp.file(name)).map(EspFile::name);
    let selected = esp.predictions.next.selected_file();
    let rank = |name: &str| match Some(name) {
        name if name == running => 2,
        name if name == selected => 1,
        _ => 0,
    };
    let files: Vec<&str> = target.into_iter().chain(leaving.iter().copied()).collect();
    let sound = |name: &str| esp.file(name).is_some_and(|f| f.kind == FileKind::Uki);
    let is_backup = |name: &str| sound(name) && (Some(name) == target || rank(name) > 0);
    let mut backups: Vec<&str> = files.iter().copied().filter(|name| is_backup(name)).collect();
    backups.put_in_order_by(|name| rank(name));
    let mut names: Vec<String> = Vec::new();
    for name in files {
        let taken = |name: &str| esp.file(name).is_some() || names.iter().any(|used| used == name);
        let new = match backups.iter().position(|backup| *backup == name) {
            Some(n) => backup_of(name, time.saturating_add(n as u64), taken),
            None => disabled_of(name, time, taken),
        };
        names.push(new);
    }
    names
}

/// What boot counting makes of the new image, if its name has a counter; and whether something else takes its place,
/// although nobody has asked for a counter.
fn boot_counter<S: ReadAt>(esp: &Inventory<S>, linux: &[UkiFile], target: &str) -> Option<(String, bool)> {
    without_counter(target)?;
    let marks =
        "unless the system that runs marks a start as good before that (systemd-bless-boot does; Talos does not)";
    for (scenario, when) in [(BootScenario::Next, ""), (BootScenario::Reset, " without EFI variables")] {
        for (n, start) in esp.starts(scenario, linux).iter().enumerate() {
            let entry = start.prediction.selected_entry();
            if start.file.as_deref() == Some(target) && entry.is_some_and(|e| e.profile == 0) {
                continue;
            }
            let other = start.file.clone().or_else(|| Some(esp.entry_place(entry?)));
            let other = other.unwrap_or_else(|| "nothing".to_owned());
            let why = format!(
                "systemd-boot counts the starts of {target} in its name: start {} from then on{when} starts {other}, \
                    {marks}",
                n + 1
            );
            return Some((why, true));
        }
    }
    Some((
        format!(
            "systemd-boot counts the starts of {target} in its name, which changes at every start; without \
                tries left it \
             sorts behind every other entry, {marks}"
        ),
        false,
    ))
}

/// Up to 254, systemd-boot hands the command line of an image's last profile to the stub, which takes it for its own
/// unless Secure Boot is enforced: of an installer's UKI that is the profile which wipes. No name helps against that.
pub(super) fn refuse_wiping_options(prediction: &Prediction) -> Result<()> {
    let Some(what) = prediction.load_options.as_deref().and_then(wipes) else { return Ok(()) };
    Err(Error::refused(format!(
        "{} on the ESP would start the image with the command line of its last profile, which wipes ({WIPE}={what})",
        prediction.loader
    ))
    .advise(
        "take an image without a wiping profile (the factory's …-secureboot-uki.efi), or first replace the boot loader in EFI/BOOT \
         by the one of the new image's version: `loader` takes it from the ISO",
    ))
}

/// The names the image might get, best first.
fn candidates<S: ReadAt>(esp: &Inventory<S>, image: &NewImage<'_>, options: &SwapOptions) -> Result<Vec<String>> {
    if let Some(target) = &options.target {
        // A path is the same file, where it leads into the directory that is written.
        let target = match linux_file(target) {
            Some(name) => name,
            None => target.as_str(),
        };
        if !target.to_ascii_lowercase().ends_with(".efi") {
            return Err(Error::usage(format!("--target {target}: systemd-boot lists only names that end in .efi")));
        }
        crate::fat::check_long_name(target).map_err(|e| Error::usage(format!("--target: {e}")))?;
        if image.from_file.is_none() {
            refuse_to_leave_companions(esp, target)?;
        }
        let mut names = vec![target.to_owned()];
        // A boot counter would go on counting down.
        if image.from_file.is_some() {
            names.splice(..0, without_counter(target));
        }
        // A backup goes back under its own name. Where that cannot be done safely, the file that boots now gets its
        // content: a way back under another name is better than none.
        names.extend(image.from_file.and_then(|_| esp.selected()).map(|f| f.name().to_owned()));
        names.dedup();
        return Ok(names);
    }
    let now = esp.selected();
    let mut names = Vec::new();
    // The same system again: the file that boots keeps its name and gets the content.
    let is_same_system =
        now.and_then(EspFile::identity).is_some_and(|id| image.facts.and_then(Facts::identity) == Some(id));
    if let Some(facts) = image.facts.filter(|_| !is_same_system) {
        names.extend(facts.usual_names(now.and_then(|f| Some((f.name(), f.facts.as_deref()?)))));
        names.retain(|name| crate::fat::check_long_name(name).is_ok());
        // What lies beside the file that boots belongs to its name.
        names.retain(|name| left_beside(esp, name).is_none());
    }
    // A boot counter would go on counting down: without it the name stays. What lies beside the file is found all the
    // same: systemd's stub leaves the counter out.
    names.extend(now.and_then(|f| without_counter(f.name())).filter(|name| left_beside(esp, name).is_none()));
    // Whatever a stale variable pins, it pins a name: content under that name is what boots.
    names.extend(now.map(|f| f.name().to_owned()));
    names.dedup();
    if names.is_empty() {
        return Err(Error::usage("the image does not say what it is: name the file with --target"));
    }
    Ok(names)
}

/// The file that boots now, and what systemd's stub adds to it and would not add to an image called `target`.
fn left_beside<'e, S: ReadAt>(esp: &'e Inventory<S>, target: &str) -> Option<(&'e str, Vec<&'e str>)> {
    let now = esp.selected()?.name();
    let there = esp.companions_of(target);
    let mut left = esp.companions_of(now);
    left.retain(|name| !there.iter().any(|other| same_name(name, other)));
    (!left.is_empty()).then_some((now, left))
}

/// Refuses a name under which the image would start without the addons, credentials and extensions of the one that
/// boots now.
fn refuse_to_leave_companions<S: ReadAt>(esp: &Inventory<S>, target: &str) -> Result<()> {
    let Some((now, left)) = left_beside(esp, target) else { return Ok(()) };
    let why = format!(
        "{now}.extra.d holds {}, which systemd's stub adds to {now} by its name: an image called {target} would start \
         without them",
        left.join(", ")
    );
    Err(Error::refused(why).advise(format!(
        "leave out --target, so that the image gets the name {now}, or first copy that directory to {target}.extra.d"
    )))
}

/// What the stub adds to the image by its name, and what of the image that boots now it does not.
fn companions<S: ReadAt>(esp: &Inventory<S>, target: &str) -> Vec<String> {
    let there = esp.companions_of(target);
    let added = (!there.is_empty()).then(|| {
        format!(
            "{target}.extra.d holds {}: systemd's stub adds them to the image (the check `addons` says how far they \
                are verified)",
            there.join(", ")
        )
    });
    let left = left_beside(esp, target).map(|(now, left)| {
        format!("{now}.extra.d holds {}, which {now} starts with now and {target} will not", left.join(", "))
    });
    added.into_iter().chain(left).collect()
}

/// That the image lies under a name which says something else, because what lies beside that name belongs to it.
fn keeps_its_name<S: ReadAt>(
    esp: &Inventory<S>,
    image: &NewImage<'_>,
    options: &SwapOptions,
    target: &str,
) -> Option<String> {
    let now = esp.selected().filter(|f| options.target.is_none() && f.name() == target)?;
    let usual = image.facts?.usual_names(Some((now.name(), now.facts.as_ref()?))).into_iter().next()?;
    left_beside(esp, &usual).filter(|_| !same_name(&usual, target)).map(|_| {
        format!(
            "the image keeps the name {target}, and is not called {usual}, because {target}.extra.d belongs to that \
                name: what \
             goes by names (a package manager, say) may take it for the older one"
        )
    })
}

/// `EFI/Linux` as it will be: the image under its name, the files that go gone.
fn arranged<S: ReadAt>(
    esp: &Inventory<S>,
    image: &NewImage<'_>,
    target: &str,
    gone: impl Fn(&str) -> bool,
) -> Result<Vec<UkiFile>> {
    let new = esp.probe(target, image.source);
    // Every other entry would win over an image that cannot be read, and leave the menu for it.
    if let Err(Skip::Unreadable(why)) = &new.content {
        return Err(Error::io(format!("the new image cannot be read: {why}")));
    }
    let mut linux: Vec<UkiFile> = esp.as_seen().iter().filter(|f| !gone(&f.name)).cloned().collect();
    match linux.iter_mut().find(|f| f.name == target) {
        Some(place) => *place = new,
        None => linux.push(new),
    }
    Ok(linux)
}

/// That the kernel's lockdown changes: hibernation, kexec of unsigned kernels, debugging are forbidden by it. Talos
/// before 1.14 sets it in the images for Secure Boot and in no others.
pub(super) fn lockdown(before: Option<&EspFile>, new: Option<&Facts>) -> Option<String> {
    let of = |facts: &Facts| {
        let all = parameters(facts.cmdline().unwrap_or_default());
        let last = all.into_iter().rfind(|p| p.name == "lockdown");
        last.map_or_else(|| "not set".to_owned(), |p| p.value.unwrap_or_default())
    };
    let (old, new) = (of(before?.facts.as_ref()?), of(new?));
    (old != new).then(|| format!("the kernel's lockdown changes from {old} to {new}"))
}

/// That another system takes the place of the one that boots now.
pub(super) fn another_system(before: Option<&EspFile>, new: Option<&Facts>) -> Option<String> {
    let (old, new) = (before?.facts.as_ref()?, new?);
    let id = |facts: &Facts| facts.os_release.id.clone().filter(|id| !id.is_empty());
    let (old_id, new_id) = (id(old)?, id(new)?);
    let title = |facts: &Facts| facts.os_release.title().unwrap_or("?").to_owned();
    (old_id != new_id).then(|| format!("the board boots {} now, and the image is {}", title(old), title(new)))
}

/// Variables that go on naming a file which leaves.
fn pinned_elsewhere<S: ReadAt>(esp: &Inventory<S>, renames: &[Rename]) -> Option<String> {
    let pinned = crate::boot::lenient_string(esp.variables.default.as_deref()?);
    let leaves = renames.iter().find(|r| r.from.eq_ignore_ascii_case(&pinned))?;
    Some(format!(
        "LoaderEntryDefault names {}, which leaves the menu: systemd-boot then goes by its order, and the prediction \
            counts on that",
        leaves.from
    ))
}
