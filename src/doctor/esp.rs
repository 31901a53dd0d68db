//! One ESP: is it in order, what starts from it, and what stands in the way of the next change.

use super::words::DiskWords;
use super::{Finding, Objection, Severity, programs, upgrade};
use crate::block::ReadAt;
use crate::boot::MenuEntry;
use crate::bootpath::{BootScenario, ProgramKind};
use crate::esp::{EspFile, FileKind, FutureStart, Inventory, Predictions, Room, Runs};
use crate::fat::{Problem, ProblemClass, ProblemKind, Remedy};
use crate::surgery::{Interrupted, LINUX_DIR, RecordState};
use crate::uki::cmdline;
use crate::units::size;

/// More findings of one kind than this are summed up.
const MAX_SAME: usize = 8;

/// An ESP that is to be looked at.
pub struct EspView<'a, S> {
    /// Its files, health and predictions.
    pub esp: &'a Inventory<S>,
    /// How commands name it.
    pub words: DiskWords,
    /// Whether the board's EFI variables could be looked at. Without them a pin that works looks like none.
    pub variables_known: bool,
    /// Where one more image does not fit: what takes the room, and what makes it.
    pub room: Option<Room>,
    /// What speaks against the programs on the way of the next start.
    pub objections: &'a [Objection],
}

/// What is the matter with an ESP: file system, boot loader, menu, upgrades, room. The order is that of looking; the
/// caller sorts.
#[must_use]
pub fn examine_esp<S: ReadAt>(view: &EspView<'_, S>) -> Vec<Finding> {
    let mut findings = health(view);
    let esp = view.esp;
    if esp.loader.is_none() && esp.files.is_empty() {
        findings.push(Finding::new(
            Severity::Note,
            "not-a-boot-esp",
            "no boot loader in EFI/BOOT and nothing in EFI/Linux",
            "an ESP of another system, or an empty one",
        ));
        return findings;
    }
    findings.extend(loader(view));
    findings.extend(programs::findings(view.objections, &view.words));
    findings.extend(xbootldr(view));
    findings.extend(starts(view));
    findings.extend(running(view));
    if esp.health.is_damaged() {
        return findings; // nothing is written until it is mended, so there is nothing else to recommend
    }
    // Where something else starts, it may start any of these images: what a menu would make of them recommends nothing.
    let is_bare = !esp.context.knows_disk() && esp.loader.is_none();
    if !esp.is_read(BootScenario::Later) && !is_bare {
        return findings;
    }
    let upgrades = upgrade::findings(view);
    let half_done = upgrades.iter().any(|f| f.id == "half-done-upgrade" || f.id == "newer-not-default");
    findings.extend(upgrades);
    findings.extend(depends_on_variables(view).filter(|_| !half_done));
    findings.extend(broken(view));
    // The swap that ends a half-done upgrade takes the duplicates with it.
    findings.extend(duplicates(view).filter(|_| !half_done));
    findings.extend(room(view));
    findings
}

fn health<S: ReadAt>(view: &EspView<'_, S>) -> Vec<Finding> {
    let (esp, words) = (view.esp, &view.words);
    let mut findings = Vec::new();
    findings.extend(esp.interrupted.as_ref().map(|found| record(found, words)));
    let beside = esp.interrupted_beside().ok().flatten().filter(|(found, _)| found.is_operation());
    findings.extend(beside.map(|(found, on)| Finding { what: format!("{found}, on {on}"), ..record(&found, words) }));
    findings.extend(esp.leftovers_beside().ok().flatten().map(|(what, on)| {
        Finding::new(
            Severity::Warning,
            "fat-leftovers",
            format!("the file system of {on} is not tidy, by an interruption or a careless program: {what}"),
            "nothing is written there until it is put right",
        )
        .then(words.command("recover", ""))
    }));
    let of = |class| {
        // Lost clusters have a finding of their own, where it can be told whose they are.
        let counts =
            |p: &&Problem| p.class == class && (p.kind != ProblemKind::LostClusters || esp.health.is_damaged());
        let all: Vec<&str> = esp.health.problems.iter().filter(counts).map(|p| p.what.as_str()).collect();
        let more = all.len().saturating_sub(MAX_SAME);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        (!all.is_empty()).then(|| format!("{}{more}", all.into_iter().take(MAX_SAME).collect::<Vec<_>>().join("; ")))
    };
    if let Some(what) = of(ProblemClass::Damage) {
        findings.push(
            Finding::new(
                Severity::Problem,
                "fat-damaged",
                format!("the file system is damaged: {what}"),
                meaning_of_damage(esp.health.remedy),
            )
            .then(mending(esp.health.remedy, words, &words.extract(esp.predictions.next.selected_file()))),
        );
    }
    let alone = esp.interrupted.is_none() && !esp.health.is_damaged();
    if let Some(what) = of(ProblemClass::Leftover).filter(|_| alone) {
        findings.push(
            Finding::new(
                Severity::Warning,
                "fat-leftovers",
                format!("the file system is not tidy, by an interruption or a careless program: {what}"),
                "no file depends on it; nothing else is written until it is put right",
            )
            .then(words.command("recover", "")),
        );
    }
    findings.extend(lost(view));
    if let Some(what) = of(ProblemClass::Note) {
        let lost = esp.health.is_damaged() && !esp.health.lost.is_empty();
        let meaning = if lost {
            "clusters without a file may hold the last copy of one: save an image of the partition before you mend it"
        } else {
            "no file depends on it"
        };
        findings.push(Finding::new(Severity::Note, "fat-note", what, meaning));
    }
    if esp.health.is_healthy() && esp.interrupted.is_none() {
        findings.push(Finding::new(Severity::Ok, "fat-healthy", "the file system is healthy", "as before every write"));
    }
    findings
}

fn meaning_of_damage(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::Recover => {
            "firmware and most systems find no file here until it is put right; nothing else is written before"
        }
        _ => "files may be lost or share their content; nothing is written here until it is mended",
    }
}

/// What puts a damaged file system right; `save`: the command that saves what boots.
fn mending(remedy: Remedy, words: &DiskWords, save: &str) -> String {
    match remedy {
        Remedy::Recover => words.command("recover", ""),
        Remedy::AskedFsck => format!(
            "save what can be read ({save}), then `fsck.fat -r` on the unmounted partition from another system: it asks which \
             copy of the boot sector is right"
        ),
        Remedy::Elsewhere => format!(
            "save what can be read ({save}); then make a new file system on a medium, partition or image of the right size"
        ),
        _ => format!("save what can be read ({save}), then `fsck.fat` on the unmounted partition from another system"),
    }
}

/// An operation that was interrupted, or what else has its record's name.
fn record(found: &Interrupted, words: &DiskWords) -> Finding {
    let (id, meaning) = match found.state {
        RecordState::Sound => (
            "interrupted",
            "nothing else is written here until it is finished or undone; `status` shows what the board starts meanwhile",
        ),
        RecordState::OtherVersion { .. } => {
            let meaning = "nothing is written here until the version that wrote it has finished; `status` shows what the board starts";
            return Finding::new(Severity::Problem, "record-version", found.to_string(), meaning)
                .then(found.error().advice().unwrap_or_default());
        }
        RecordState::Damaged => (
            "foreign-record",
            "nothing is written here as long as the record has its name. No power cut damages a record: somebody wrote to it, or \
             the medium fails",
        ),
        RecordState::Foreign(_) => {
            ("foreign-record", "nothing is written here as long as it has that name; it is left as it is")
        }
    };
    let rest = if found.state == RecordState::Sound { "" } else { "--set-aside" };
    Finding::new(Severity::Problem, id, found.to_string(), meaning).then(words.command("recover", rest))
}

/// Clusters that belong to no file.
fn lost<S: ReadAt>(view: &EspView<'_, S>) -> Vec<Finding> {
    let (esp, words) = (view.esp, &view.words);
    let mut findings = Vec::new();
    if esp.lost.ours > 0 && esp.interrupted.is_none() {
        findings.push(
            Finding::new(
                Severity::Note,
                "own-leftovers",
                format!("{} clusters that an interrupted operation left belong to no file", esp.lost.ours),
                "no file depends on them; they take room",
            )
            .then(words.command("recover", "")),
        );
    }
    if let Some(what) = esp.lost.others_in_words() {
        findings.push(
            Finding::new(
                Severity::Warning,
                "lost-clusters",
                what,
                "a file that lost its name, or what an interrupted copy left. They take room and hinder nothing; this may be the \
                 last copy of something",
            )
            .then(format!(
                "{} gives them names to look at, {} frees them",
                words.command("recover", "--salvage"),
                words.command("recover", "--free-lost")
            )),
        );
    }
    findings
}

fn loader<S: ReadAt>(view: &EspView<'_, S>) -> Option<Finding> {
    let known = |path: &str| view.esp.program(&path.replace('/', "\\")).ok().flatten();
    match &view.esp.loader {
        Some((_, Some(_))) => None,
        // It leads to systemd-boot, or is an image itself.
        Some(_)
            if view.esp.is_read(BootScenario::Next)
                || matches!(view.esp.runs(BootScenario::Next).0, Runs::Image { .. }) =>
        {
            None
        }
        Some((path, None)) => {
            let program = known(path).filter(|p| p.kind != ProgramKind::Unknown);
            let other = "GRUB (older installations of Talos, and some single-board computers), shim, or a boot loader of another \
                         system";
            let what = match program {
                Some(program) => format!("{path} is {program}"),
                None => format!("{path} is no boot loader that is known"),
            };
            let new = |meaning| Finding::new(Severity::Warning, "not-systemd-boot", what, meaning);
            Some(if boots_by_other_means(view) {
                new(format!(
                    "{other}. There are no images in EFI/Linux, and this loader would start none: a swap is no use here"
                ))
                .then("upgrade with `talosctl upgrade`: without systemd-boot it sets no loader variable")
            } else {
                new(format!("{other}. What is predicted here holds only if it hands over to systemd-boot"))
            })
        }
        // What the firmware does then depends on its variables and on the other ESPs: see `several_esps`.
        None => None,
    }
}

/// The menu has entries of two partitions, and one of them cannot be looked at.
fn xbootldr<S: ReadAt>(view: &EspView<'_, S>) -> Option<Finding> {
    let why = view.esp.xbootldr_trouble()?;
    Some(Finding::new(
        Severity::Warning,
        "xbootldr-unknown",
        format!("what lies on the Extended Boot Loader Partition is not known: {why}"),
        "systemd-boot shows its entries in one menu with those of the ESP: what is said here holds if there are none",
    ))
}

/// Another boot loader, and nothing for systemd-boot: GRUB starts what lies in another partition.
fn boots_by_other_means<S: ReadAt>(view: &EspView<'_, S>) -> bool {
    let no_images = !view.esp.files.iter().any(|f| matches!(f.kind, FileKind::Uki | FileKind::Broken));
    matches!(view.esp.loader, Some((_, None))) && no_images
}

fn starts<S: ReadAt>(view: &EspView<'_, S>) -> Vec<Finding> {
    let (esp, words) = (view.esp, &view.words);
    if let Some(findings) = starts_by_other_means(view) {
        return findings;
    }
    let now = &esp.predictions.next;
    let Some(entry) = now.selected_entry() else {
        if now.enrolls_keys || boots_by_other_means(view) {
            return Vec::new();
        }
        let finding = Finding::new(
            Severity::Problem,
            "nothing-starts",
            "systemd-boot finds nothing to start",
            format!(
                "{}. The firmware goes on to its next boot option, and most end in their setup or a shell",
                now.reason
            ),
        );
        let has_backups = esp.files.iter().any(|f| f.kind == FileKind::Backup && f.facts.is_some());
        let then = if esp.volume.find_directory(LINUX_DIR).is_ok_and(|found| found.is_none()) {
            // A swap makes no directory, and puts nothing elsewhere.
            format!(
                "make the directory {LINUX_DIR} on the mounted volume, or with mtools' `mmd`, then {}",
                words.swap_from_factory()
            )
        } else if has_backups {
            format!("{}, or {}", words.command("restore", ""), words.swap_from_factory())
        } else {
            words.swap_from_factory()
        };
        return vec![finding.then(then)];
    };
    let mut findings = Vec::new();
    let file = entry.file.as_deref().and_then(|name| esp.file(name));
    // What is there already comes first.
    let is_kept = |f: &&EspFile| f.kind == FileKind::Backup && f.facts.is_some();
    let is_sound = |f: &&EspFile| f.kind == FileKind::Uki && Some(f.name()) != entry.file.as_deref();
    let here = match (esp.files.iter().find(is_kept), esp.files.iter().find(is_sound)) {
        (Some(_), _) => Some(words.command("restore", "")),
        (None, Some(sound)) => Some(words.swap_from_itself(sound.name())),
        (None, None) => None,
    };
    let way_out = || match &here {
        Some(here) => format!("{here}, or {}", words.swap_from_factory()),
        None => words.swap_from_factory(),
    };
    if let Some(file) = file.filter(|f| f.kind == FileKind::Broken) {
        findings.push(
            Finding::new(
                Severity::Problem,
                "selected-broken",
                format!("{} starts next, and it is broken: it {}", file.name(), trouble(file)),
                "systemd-boot tries no other entry: the board does not come up",
            )
            .then(way_out()),
        );
    }
    if entry.profile > 0 {
        findings.push(
            Finding::new(
                Severity::Problem,
                "profile-starts",
                format!("{} starts next: profile {} of its image{}", entry.id, entry.profile, wipes(entry)),
                format!("not the system itself. Why: {}", now.reason),
            )
            .then(way_out()),
        );
    }
    if entry.profile == 0 && entry.options.as_deref().is_some_and(cmdline::halt_if_installed) {
        findings.push(
            Finding::new(
                Severity::Problem,
                "halts-if-installed",
                format!("{} starts next, and it is an ISO's image: talos.halt_if_installed=1", entry.id),
                "Talos stops for up to 70 minutes before it loads its configuration, at every start",
            )
            .then(way_out()),
        );
    }
    findings.extend(counter(view, entry));
    if findings.is_empty() && esp.loader.is_some() {
        let name = file.map_or(entry.id.as_str(), EspFile::name);
        findings.push(Finding::new(
            Severity::Ok,
            "starts",
            format!("systemd-boot here starts {name}"),
            now.reason.clone(),
        ));
    }
    findings
}

/// What starts next has a boot counter in its name, and what comes of that.
fn counter<S: ReadAt>(view: &EspView<'_, S>, entry: &MenuEntry) -> Option<Finding> {
    let left = entry.tries_left?;
    let today = entry.file.as_deref();
    let starts = view.esp.starts(BootScenario::Next, view.esp.as_seen());
    let other = starts.iter().position(|s| s.file.as_deref() != today).map(|n| (n + 1, &starts[n]));
    let name = |s: &FutureStart| {
        s.file
            .clone()
            .or_else(|| Some(view.esp.entry_place(s.prediction.selected_entry()?)))
            .unwrap_or("nothing".into())
    };
    let what = match left {
        0 => format!("{} has no tries left: none of its starts was ever marked as good", entry.id),
        1 => format!("{} has a boot counter with one try left", entry.id),
        n => format!("{} has a boot counter with {n} tries left", entry.id),
    };
    let meaning = match (left, other) {
        (0, _) => "it sorts behind every entry that has tries left, and starts as long as there is none".to_owned(),
        (_, Some((n, other))) => format!(
            "systemd-boot renames its file at every start, and start {n} from now on starts {} instead, unless the system that runs \
             marks a start as good before that (systemd-bless-boot does; Talos does not)",
            name(other)
        ),
        (_, None) => "systemd-boot renames its file at every start, and without tries left it sorts behind every other entry, unless \
                      the system that runs marks a start as good before that (systemd-bless-boot does; Talos does not)"
            .to_owned(),
    };
    let finding = Finding::new(Severity::Warning, "boot-counter", what, meaning);
    Some(match entry.file.as_deref() {
        Some(file) if !entry.xbootldr => {
            finding.then(format!("to give the image a name without a counter: {}", view.words.swap_from_itself(file)))
        }
        _ => finding,
    })
}

/// The findings where the way of the boot does not come by the menu of a systemd-boot here.
fn starts_by_other_means<S: ReadAt>(view: &EspView<'_, S>) -> Option<Vec<Finding>> {
    let esp = view.esp;
    let (runs, by_menu) = esp.runs(BootScenario::Next);
    if by_menu.is_some() {
        return None;
    }
    let images = esp.files.iter().any(|f| f.kind == FileKind::Uki);
    let meaning = "a swap replaces an image that starts, and is refused as long as this starts";
    let finding = match runs {
        Runs::Image { at, .. } => Finding::new(
            Severity::Ok,
            "starts",
            format!("the firmware starts {} itself", esp.describe_place(&at)),
            "without a boot menu; a swap replaces it in its place",
        ),
        Runs::Other(what) if images => Finding::new(
            Severity::Warning,
            "images-not-started",
            format!("the images in EFI/Linux are not started: the board starts {what}"),
            meaning,
        ),
        Runs::Other(_) | Runs::Nothing(_) => return Some(Vec::new()), // said of the boot loader, and where ESPs are compared
        Runs::Unknown(_) | Runs::Enrolment => return None,
    };
    Some(vec![finding])
}

fn wipes(entry: &MenuEntry) -> String {
    let what = entry.options.as_deref().and_then(cmdline::wipes);
    what.map_or(String::new(), |what| format!(", which wipes {what}"))
}

/// With NVRAM reset something else would start.
fn depends_on_variables<S: ReadAt>(view: &EspView<'_, S>) -> impl Iterator<Item = Finding> {
    let Predictions { next: now, reset, .. } = &view.esp.predictions;
    let id = |p: &crate::boot::Prediction| p.selected_entry().map(|e| e.id.clone());
    let finding = (id(now) != id(reset) && !now.enrolls_keys && now.selected.is_some()).then(|| {
        Finding::new(
            Severity::Warning,
            "depends-on-variables",
            format!(
                "without EFI variables {} would start instead of {}",
                reset.selected_file().unwrap_or("nothing"),
                now.selected_file().unwrap_or("another entry")
            ),
            "a firmware update, an empty battery or a cleared NVRAM changes what the board starts",
        )
        .then(format!(
            "to make it start in any case: {}",
            now.selected_file().map_or_else(String::new, |file| view.words.swap_from_itself(file))
        ))
    });
    finding.into_iter()
}

fn broken<S: ReadAt>(view: &EspView<'_, S>) -> Option<Finding> {
    let starts = view.esp.predictions.next.selected_file();
    let dead = view.esp.files.iter().filter(|f| f.kind == FileKind::Broken && Some(f.name()) != starts);
    let named: Vec<String> = dead.map(|f| format!("{} {}", f.name(), trouble(f))).collect();
    let more = named.len().saturating_sub(MAX_SAME);
    (!named.is_empty()).then(|| {
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Finding::new(
            Severity::Warning,
            "broken-images",
            format!("no loader would start: {}{more}", named.into_iter().take(MAX_SAME).collect::<Vec<_>>().join("; ")),
            "systemd-boot may list such a file all the same, and one that is chosen ends the boot",
        )
        .then(view.words.command("prune", ""))
    })
}

fn duplicates<S: ReadAt>(view: &EspView<'_, S>) -> impl Iterator<Item = Finding> {
    let doubles: Vec<&str> =
        view.esp.files.iter().filter(|f| f.duplicate_of.is_some()).map(EspFile::name).take(MAX_SAME).collect();
    let finding = (!doubles.is_empty()).then(|| {
        Finding::new(
            Severity::Warning,
            "duplicates",
            format!("the menu has one version more than once: {}", doubles.join(", ")),
            "which of them starts hangs on names and variables, and each takes room",
        )
        .then(view.words.command("prune", ""))
    });
    finding.into_iter()
}

/// What runs and what starts next are not the same.
fn running<S: ReadAt>(view: &EspView<'_, S>) -> Option<Finding> {
    let esp = view.esp;
    let roles = crate::boot::roles(&esp.predictions.next, &esp.variables);
    let (ran, next) = (roles.running_file?, esp.predictions.next.selected_file()?);
    if ran.eq_ignore_ascii_case(next) {
        return None;
    }
    let gone = if esp.file(&ran).is_none() { ", which is not on the ESP any more" } else { "" };
    Some(
        Finding::new(
            Severity::Note,
            "restart-changes",
            format!("the last start was {ran}{gone}; the next one is {next}"),
            "`talosctl reboot` may kexec and pass systemd-boot by",
        )
        .then("`talosctl -n NODE reboot --mode powercycle` goes through the firmware"),
    )
}

/// Whether another image of the same size fits.
fn room<S: ReadAt>(view: &EspView<'_, S>) -> Option<Finding> {
    let room = view.room.as_ref()?;
    let what = format!(
        "{} are free, and one more image needs {}; what takes the room: {}",
        size(room.free_bytes),
        size(room.needed_bytes),
        room.largest_in_words()
    );
    let meaning = "a swap writes the new image beside the old one before anything changes";
    let advice = room.advice(|command, options| view.words.command(command, options));
    Some(Finding::new(Severity::Warning, "no-room", what, meaning).then(advice))
}

fn trouble(file: &EspFile) -> &str {
    file.trouble.as_deref().unwrap_or("would not start")
}
