//! Which entry starts without a key press, and the reason in words.

use super::config::EntryPattern;
use super::entry::{Criterion, EntryKind, MenuEntry, first_difference};
use super::glob;
use super::version::LoaderVersion;
use crate::sorting::Sort as _;
use std::sync::Arc;

/// The outcome of the search for an entry.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    /// Its place in the menu.
    pub(super) index: usize,
    pub(super) reason: String,
    /// Nothing qualified: the first line was taken.
    pub(super) nothing_to_start: bool,
    /// The line is marked as the persistent default.
    pub(super) marked: bool,
    pub(super) once: bool,
}

/// Finds the entry (`config_select_default_entry`) among those that `allowed` leaves; `None` when the menu is empty.
pub(super) fn choose(
    menu: &[MenuEntry],
    patterns: &[EntryPattern],
    loader: &LoaderVersion,
    allowed: impl Fn(&MenuEntry) -> bool,
) -> Option<Choice> {
    let mut missed = Vec::new();
    for setting in patterns {
        let Some(pattern) = &setting.pattern else {
            missed.push(format!("{} is @saved, and nothing was saved", setting.source));
            continue;
        };
        let matches = |e: &&MenuEntry| allowed(e) && glob::matches(pattern, &e.id);
        let found = menu.iter().position(|e| matches(&e) && !(setting.skips_bad && e.is_bad()));
        let Some(index) = found else {
            let bad = menu.iter().any(|e| matches(&e));
            missed.push(missed_reason(setting, pattern, bad, menu));
            continue;
        };
        let matched = matched_reason(setting, pattern, &menu[index].id);
        let reason =
            if missed.is_empty() { matched } else { format!("{}: next in line, {matched}", missed.join("; ")) };
        return Some(Choice { index, reason, nothing_to_start: false, marked: setting.marked, once: setting.once });
    }

    let candidates: Vec<usize> =
        (0..menu.len()).filter(|i| allowed(&menu[*i]) && may_fall_to(&menu[*i], loader)).collect();
    let (index, nothing_to_start, why) = match candidates.first() {
        Some(&index) => (index, false, order_reason(menu, &candidates, loader)),
        None => {
            let first = menu.iter().position(&allowed)?;
            (first, true, "first line of the menu: there is no system to start".to_owned())
        }
    };
    let reason = if missed.is_empty() { why } else { format!("{}: falls back to the {why}", missed.join("; ")) };
    Some(Choice { index, reason, nothing_to_start, marked: false, once: false })
}

/// Whether an entry may be taken when nobody asks for one.
fn may_fall_to(entry: &MenuEntry, loader: &LoaderVersion) -> bool {
    match entry.kind {
        EntryKind::Uki | EntryKind::Type1 => entry.profile == 0 || !loader.never_falls_to_profiles(),
        EntryKind::EnrollKeys => !loader.never_falls_to_enrolment(),
        EntryKind::OtherLoader | EntryKind::Action => false,
    }
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

fn matched_reason(setting: &EntryPattern, pattern: &str, id: &str) -> String {
    let source = setting.source;
    match (setting.saved, setting.once) {
        (true, _) => format!("{source} is @saved: {id} was started last"),
        (_, true) if is_pattern(pattern) => format!("{source} asks for {pattern:?} for this boot only: {id}"),
        (_, true) => format!("{source} asks for {id} for this boot only"),
        _ if is_pattern(pattern) => format!("{source} asks for {pattern:?}: {id} comes first"),
        _ => format!("{source} pins {id}"),
    }
}

/// The entry that somebody may have meant by a pattern which matches none, and why it does not.
pub fn near_miss<'m>(menu: &'m [MenuEntry], pattern: &str) -> Option<(&'m str, &'static str)> {
    let ids = || menu.iter().map(|e| e.id.as_str());
    let with_suffix = [".efi", ".conf"].map(|suffix| format!("{pattern}{suffix}"));
    let whole = ids().find(|id| with_suffix.iter().any(|p| glob::matches(p, id)));
    let folded = || ids().find(|id| glob::matches(pattern, &id.to_ascii_lowercase()));
    let by_suffix = whole.map(|id| (id, "systemd-boot wants the suffix"));
    by_suffix.or_else(|| Some((folded()?, "systemd-boot makes the setting lower case, and not this name")))
}

fn missed_reason(setting: &EntryPattern, pattern: &str, bad: bool, menu: &[MenuEntry]) -> String {
    let source = setting.source;
    let near = near_miss(menu, pattern).filter(|_| !pattern.is_empty());
    match () {
        () if bad => format!("{source} names {pattern}, which has no tries left"),
        () if pattern.is_empty() => format!("{source} is empty"),
        () if setting.saved => format!("{source} is @saved, and {pattern} is not in the menu"),
        () if let Some((id, why)) = near => {
            format!("{source} names {pattern}, which matches nothing: the entry is called {id}, and {why}")
        }
        () if is_pattern(pattern) => format!("{source} asks for {pattern:?}, which matches nothing"),
        () => format!("{source} names {pattern}, which is gone"),
    }
}

/// Why the first of the candidates is the first: completes "falls back to the …".
fn order_reason(menu: &[MenuEntry], candidates: &[usize], loader: &LoaderVersion) -> String {
    let Some(winner) = candidates.first().map(|i| &menu[*i]) else { return "first".to_owned() };
    if winner.kind == EntryKind::EnrollKeys {
        return "enrolment of Secure Boot keys: there is no system to start".to_owned();
    }
    // Profiles of one file are one system.
    let owner = |e: &MenuEntry| (e.xbootldr, e.path.clone().unwrap_or_else(|| e.id.clone()));
    let mut owners: Vec<_> = candidates.iter().map(|i| owner(&menu[*i])).collect();
    let rival = candidates.iter().map(|i| &menu[*i]).find(|e| owner(e) != owner(winner));
    owners.put_in_order(Ord::cmp);
    owners.dedup();
    let n = owners.len();
    let Some(rival) = rival else { return "only entry".to_owned() };
    let show = |text: &Option<Arc<str>>| text.as_deref().filter(|t| !t.is_empty()).unwrap_or("none").to_owned();
    match first_difference(winner, rival, loader).map(|(_, criterion)| criterion) {
        Some(Criterion::Bad) => format!("first among {n} entries that has tries left"),
        Some(Criterion::HasSortKey) => format!("first among {n} entries: {} has no sort key", rival.id),
        Some(Criterion::SortKey) => {
            format!("first among {n} entries by sort key ({} before {})", show(&winner.sort_key), show(&rival.sort_key))
        }
        Some(Criterion::MachineId) => format!("first among {n} entries by machine id"),
        Some(Criterion::Version) => {
            format!("highest version among {n} entries ({} before {})", show(&winner.version), show(&rival.version))
        }
        Some(Criterion::Id) => {
            format!("highest name among {n} entries, the versions being equal ({} before {})", winner.id, rival.id)
        }
        Some(Criterion::Profile) => format!("first among {n} entries by number of profile"),
        Some(Criterion::Tries) => format!("first among {n} equal entries by tries left"),
        None => format!("first of {n} equal entries by its place in the directory ({} before {})", winner.id, rival.id),
    }
}
