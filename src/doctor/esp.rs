//! One ESP: is it in order, what starts from it, and what stands in the way of the next change.

use super::view::trouble;
use super::words::DiskWords;
use super::{EspView, Finding, Severity, placed, programs, seed, services, upgrade};
use crate::block::ReadAt;
use crate::boot::{EntryKind, MenuEntry};
use crate::bootpath::{BootScenario, ProgramKind};
use crate::esp::{EspFile, FileKind, FutureStart, Inventory, Predictions, Runs};
use crate::fat::{Health, Problem, ProblemClass, ProblemKind, Remedy, Volume};
use crate::harmless::quoted;
use crate::surgery::{Interrupted, LINUX_DIR, RecordState};
use crate::uki::cmdline;
use crate::units::{count, size};

/// More findings of one kind than this are summed up.
const MAX_SAME: usize = 8;

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
    findings.extend(services::finding(view));
    if esp.health.is_damaged() {
        return findings; // nothing is written until it is repaired, so there is nothing else to recommend
    }
    // Where something else starts, it may start any of these images: what a menu would make of them recommends nothing.
    let is_bare = !esp.context.knows_disk() && esp.loader.is_none();
    if !esp.is_read(BootScenario::Later) && !is_bare {
        if matches!(esp.runs(BootScenario::Later).0, Runs::Image { .. }) {
            findings.extend(room(view));
        }
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
    let starts = starts_next(esp);
    findings.extend(esp.interrupted.as_ref().map(|found| record(found, words, &outcome(&esp.volume, &starts))));
    let beside = esp.interrupted_beside().ok().flatten().filter(|(found, _)| found.is_operation());
    findings.extend(beside.map(|(found, on)| {
        let outcome = esp.context.xbootldr().map(|volume| outcome(volume, &starts)).unwrap_or_default();
        Finding { what: format!("{found}, on {on}"), ..record(&found, words, &outcome) }
    }));
    findings.extend(esp.leftovers_beside().ok().flatten().map(|(what, on)| {
        Finding::new(
            Severity::Warning,
            "fat-leftovers",
            format!("the file system of {on} has leftovers of an interruption or a careless program: {what}"),
            "nothing is written there until it is repaired",
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
                meaning_of_damage(&esp.health),
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
                format!("the file system has leftovers of an interruption or a careless program: {what}"),
                "no file depends on it; nothing else is written until it is repaired",
            )
            .then(words.command("recover", "")),
        );
    }
    findings.extend(lost(view));
    findings.extend(seed::finding(view).filter(|_| !esp.health.is_damaged()));
    if let Some(what) = of(ProblemClass::Note) {
        let lost = esp.health.is_damaged() && !esp.health.lost.is_empty();
        let meaning = if lost {
            "clusters without a file may hold the last copy of one: save an image of the partition before you repair it"
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

fn meaning_of_damage(health: &Health) -> &'static str {
    let shares = health.problems.iter().any(|p| p.kind == ProblemKind::Shared);
    match health.remedy {
        Remedy::DropSeed if shares => {
            "the firmware writes loader/random-seed at every start, and with it into the other file, which may be \
             damaged by now; nothing is written here until the seed is removed. systemd-boot goes on without it"
        }
        Remedy::DropSeed => {
            "systemd-boot goes on without loader/random-seed, and no start fails for it; nothing is written here until \
             it is removed"
        }
        Remedy::Recover => {
            "firmware and most systems find no file here until it is repaired; nothing else is written before"
        }
        _ => "files may be lost or share their content; nothing is written here until it is repaired",
    }
}

/// What puts a damaged file system right; `save`: the command that saves what boots.
fn mending(remedy: Remedy, words: &DiskWords, save: &str) -> String {
    match remedy {
        Remedy::Recover => words.command("recover", ""),
        Remedy::DropSeed => format!("{} removes it; {}", words.command("recover", ""), seed::NEW_ONE),
        Remedy::AskedFsck => format!(
            "save what can be read ({save}), then `fsck.fat -r` on the unmounted partition from another system: it \
             asks which \
             copy of the boot sector is right"
        ),
        Remedy::Elsewhere => format!(
            "save what can be read ({save}); then make a new file system on a medium, partition or image of the right \
             size"
        ),
        _ => format!("save what can be read ({save}), then `fsck.fat` on the unmounted partition from another system"),
    }
}

/// What the board starts as it is, for a sentence.
fn starts_next<S: ReadAt>(esp: &Inventory<S>) -> String {
    match esp.runs(BootScenario::Next).0 {
        Runs::Image { at, .. } => format!("the board starts {}", esp.describe_place(&at)),
        Runs::Nothing(why) => format!("the board starts nothing ({why})"),
        Runs::Other(what) => format!("the board starts {what}"),
        Runs::Unknown(why) => format!("what the board starts is not known ({why})"),
        Runs::Enrolment => "the board enrols Secure Boot keys at its next start".to_owned(),
    }
}

/// How far an interrupted operation came, what starts meanwhile, and what `recover` will do: the same code says it that
/// would do it.
fn outcome<S: ReadAt>(volume: &Volume<S>, starts: &str) -> String {
    let waits = "nothing else is written here until then";
    let sector = volume.geometry().sector_bytes;
    let Ok(recovery) = crate::surgery::rehearse_recovery(volume.source(), sector) else {
        return format!("{starts}; nothing else is written here until it is finished or undone");
    };
    match recovery.finished {
        Some(true) => format!("it is past its commit, and {starts}; `recover` will finish it; {waits}"),
        Some(false) => format!("it is not committed, and {starts}; `recover` will roll it back; {waits}"),
        None => format!("what it was about was replaced since, and {starts}; `recover` will leave that alone; {waits}"),
    }
}

/// An operation that was interrupted, or what else has its record's name.
fn record(found: &Interrupted, words: &DiskWords, outcome: &str) -> Finding {
    let (id, meaning) = match found.state {
        RecordState::Sound => ("interrupted", outcome),
        RecordState::OtherVersion { .. } => {
            let meaning = "nothing is written here until the version that wrote it has finished; `status` shows what \
                           the board starts";
            return Finding::new(Severity::Problem, "record-version", found.to_string(), meaning)
                .then(found.error().advice().unwrap_or_default());
        }
        RecordState::Damaged => (
            "foreign-record",
            "nothing is written here as long as the record has its name. No power cut damages a record: somebody \
             wrote to it, or \
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
                format!("an interrupted operation left {} that belong to no file", count(esp.lost.ours, "cluster")),
                "no file depends on them; they use space",
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
                "a file that lost its name, or what an interrupted copy left. They take room and do no harm; this \
                 may be the \
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
            let other = "GRUB (older installations of Talos, and some single-board computers), shim, or a boot loader \
                         of another \
                         system";
            let what = match program {
                Some(program) => format!("{path} is {program}"),
                None => format!("{path} is not a known boot loader"),
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
    if let Some(finding) = placed::broken(view) {
        return vec![finding];
    }
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
                "{}. The firmware goes on to its next boot option, and most firmware ends in its setup or a shell",
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
        } else {
            let here = if has_backups { Some(words.command("restore", "")) } else { instead(view) };
            let or = here.map_or_else(String::new, |here| format!("{here}, or "));
            format!("{or}{}", words.swap_from_factory())
        };
        return vec![finding.then(then)];
    };
    let mut findings = Vec::new();
    let file = entry.file.as_deref().and_then(|name| esp.file(name));
    // What is there already comes first.
    let is_kept = |f: &&EspFile| f.kind == FileKind::Backup && f.facts.is_some();
    let here = match esp.files.iter().any(|f| is_kept(&f)) {
        true => Some(words.command("restore", "")),
        false => instead(view),
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
    if let (Runs::Nothing(why), true) = (esp.runs(BootScenario::Next).0, findings.is_empty()) {
        let what = format!("{} starts next, and its file does not start: {why}", entry.id);
        let then = format!("repair what the entry names, or take {} out of loader/entries", entry.id);
        let meaning = "systemd-boot tries no other entry: the board does not come up";
        return vec![Finding::new(Severity::Problem, "selected-broken", what, meaning).then(then)];
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
    if entry.profile == 0
        && entry.kind == EntryKind::Uki
        && entry.options.as_deref().is_some_and(cmdline::halt_if_installed)
    {
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
    if entry.kind == EntryKind::Type1 {
        findings.extend(placed::dangerous_cmdline(view));
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

/// The command that puts another image of this ESP in the place of the one that starts: one of the menu, or one that
/// was taken out of it.
pub(super) fn instead<S: ReadAt>(view: &EspView<'_, S>) -> Option<String> {
    let disabled = || view.esp.files.iter().find(|f| f.kind == FileKind::Disabled && f.facts.is_some());
    match view.esp.other_sound_image() {
        Some(sound) => Some(view.words.swap_from_itself(sound.name())),
        None => disabled().map(|file| view.words.command("restore", &quoted(file.name()))),
    }
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
        n => format!("{} has a boot counter with {} left", entry.id, count(n, "try")),
    };
    let meaning = match (left, other) {
        (0, _) => "it sorts after every entry that has tries left, and starts only if there is none".to_owned(),
        (_, Some((n, other))) => format!(
            "systemd-boot renames its file at every start, and start {n} from now on starts {} instead, unless the \
             system that runs \
             marks a start as good before that (systemd-bless-boot does; Talos does not)",
            name(other)
        ),
        (_, None) => "systemd-boot renames its file at every start, and without tries left it sorts behind every \
                      other entry, unless \
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
    if let Some(finding) = placed::dangerous_cmdline(view) {
        return Some(vec![finding]);
    }
    let finding = match runs {
        Runs::Image { at, profile } if profile > 0 => Finding::new(
            Severity::Problem,
            "profile-starts",
            format!("the firmware starts profile {profile} of {} itself", esp.describe_place(&at)),
            "not the system itself: the boot option asks for it (@N in its data)",
        ),
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
    let Predictions { next: now, reset, later, .. } = &view.esp.predictions;
    let is_sound = |e: &&MenuEntry| match e.file.as_deref().filter(|_| !e.xbootldr).and_then(|f| view.esp.file(f)) {
        Some(file) => file.kind == FileKind::Uki,
        None => matches!(e.kind, EntryKind::Uki | EntryKind::Type1),
    };
    // Where a line in loader.conf can do it.
    let may_be_pinned = later.is_none() && !reset.reason.starts_with("loader.conf preferred");
    let pinned = now.selected_entry().filter(|e| may_be_pinned && e.profile == 0 && e.tries_left.is_none());
    let command = match pinned.filter(is_sound) {
        Some(entry) => view.words.command("pin", &quoted(&entry.id)),
        None => now.selected_file().map_or_else(String::new, |file| view.words.swap_from_itself(file)),
    };
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
        .then(format!("to make it start in any case: {command}"))
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
            "names and EFI variables decide which one starts, and each takes room",
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
            "`talosctl reboot` may kexec, bypassing systemd-boot",
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
