//! Menu entries: how files become ids and titles, what boot counters do, and the order of the menu.

use super::probe::{ProfileEntry, UkiFile};
use super::verscmp;
use super::version::LoaderVersion;
use crate::counter::Counter;
use crate::sorting::Sort as _;
use serde::Serialize;
use std::cmp::Ordering;
use std::sync::Arc;

/// Where systemd-boot looks for UKIs.
const LINUX: &str = "\\EFI\\Linux";

/// What an entry of the menu stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EntryKind {
    /// A UKI in `\EFI\Linux` (Type #2).
    Uki,
    /// A file in `\loader\entries` (Type #1).
    Type1,
    /// Another boot loader that was found.
    OtherLoader,
    /// Something the boot loader does itself: firmware setup, power off, reboot.
    Action,
    /// Enrolment of Secure Boot keys.
    EnrollKeys,
}

/// A line of the menu. What it shares with the file that it is of, and with other menus, is one text: there may be ten
/// thousand lines, and several menus at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MenuEntry {
    /// What variables and loader.conf name it by, as systemd-boot writes it into `LoaderEntries`.
    pub id: String,
    /// The text of the line.
    pub title: Arc<str>,
    /// What it stands for.
    pub kind: EntryKind,
    /// Name of the UKI in `\EFI\Linux`, with its case.
    pub file: Option<String>,
    /// Path of what is started, from the root of its volume, with backslashes.
    pub path: Option<String>,
    /// Whether it lies on the Extended Boot Loader Partition instead of the ESP.
    pub xbootldr: bool,
    /// Number of the UKI's profile; 0 is the system itself.
    pub profile: u32,
    /// The version it sorts by.
    pub version: Option<Arc<str>>,
    /// The key it sorts by before anything else.
    pub sort_key: Option<Arc<str>>,
    /// The machine it belongs to; Type #1 only.
    pub machine_id: Option<String>,
    /// Kernel command line: of the UKI, or of the Type #1 entry.
    pub options: Option<Arc<str>>,
    /// Boot counting: tries left, if the name has a counter. 0 means the entry is bad.
    pub tries_left: Option<u32>,
    /// Boot counting: tries done.
    pub tries_done: u32,
    /// Boot counting: the name that the file gets when it is chosen.
    #[serde(skip)]
    pub(super) next_name: Option<String>,
    /// For profiles other than 0: the id of the file they belong to.
    #[serde(skip)]
    pub(super) id_without_profile: Option<String>,
}

impl MenuEntry {
    /// Whether boot counting has given it up.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.tries_left == Some(0)
    }

    pub(super) fn new(id: String, title: impl Into<Arc<str>>, kind: EntryKind) -> Self {
        Self {
            id,
            title: title.into(),
            kind,
            file: None,
            path: None,
            xbootldr: false,
            profile: 0,
            version: None,
            sort_key: None,
            machine_id: None,
            options: None,
            tries_left: None,
            tries_done: 0,
            next_name: None,
            id_without_profile: None,
        }
    }

    pub(super) fn count(&mut self, counter: &Counter) {
        self.tries_left = Some(counter.left);
        self.tries_done = counter.done;
        self.next_name = Some(counter.next_name.clone());
    }

    /// What systemd-boot hands to the image as LoadOptions.
    pub(super) fn load_options(&self, loader: &LoaderVersion) -> Option<String> {
        // The command line inside a UKI is the UKI's own business; older versions read it and pass it all the same, and
        // the one they read is the last in the file: that of the last profile.
        let passed = self.kind == EntryKind::Type1 || self.kind == EntryKind::Uki && loader.passes_uki_options();
        let own = if passed { self.options.as_deref().filter(|o| !o.is_empty()) } else { None };
        match (self.profile, own) {
            (0, own) => own.map(str::to_owned),
            (n, None) => Some(format!("@{n}")),
            (n, Some(own)) => Some(format!("@{n} {own}")),
        }
    }
}

/// The entries of a file in `\EFI\Linux`.
pub(super) fn of_uki(file: &UkiFile, loader: &LoaderVersion, xbootldr: bool, menu: &mut Vec<MenuEntry>) {
    let Ok(profiles) = file.listed(loader) else { return };
    let counter = Counter::parse(&file.name, ".efi");
    for profile in profiles {
        let (id, id_without_profile) = uki_id(&file.name, profile, counter.as_ref(), loader);
        let title: Arc<str> = match (&profile.title, &profile.id, profile.number) {
            (Some(title), _, _) => format!("{} ({title})", profile.os).into(),
            (None, _, 0) => profile.os.clone(),
            (None, Some(id), _) => format!("{} ({id})", profile.os).into(),
            (None, None, n) => format!("{} (Profile #{})", profile.os, u64::from(n) + 1).into(),
        };
        let mut entry = MenuEntry {
            file: Some(file.name.clone()),
            path: Some(format!("{LINUX}\\{}", file.name)),
            xbootldr,
            profile: profile.number,
            version: profile.version.clone(),
            sort_key: profile.sort_key.clone(),
            options: profile.options.clone(),
            id_without_profile,
            ..MenuEntry::new(id, title, EntryKind::Uki)
        };
        if let Some(counter) = &counter {
            entry.count(counter);
            if file.read_only && loader.spares_read_only() {
                entry.next_name = None;
            }
        }
        menu.push(entry);
    }
}

/// The id of an entry, and for profiles other than 0 the id they sort by.
fn uki_id(
    name: &str,
    profile: &ProfileEntry,
    counter: Option<&Counter>,
    loader: &LoaderVersion,
) -> (String, Option<String>) {
    let lower = name.to_ascii_lowercase();
    let file_id = match counter {
        Some(counter) if loader.counted_uki_keeps_case() => counter.id.clone(),
        Some(counter) if loader.counter_left_out_of_id() => counter.id.to_ascii_lowercase(),
        _ => lower.clone(),
    };
    if profile.number == 0 {
        return (file_id, None);
    }
    if counter.is_some() && loader.counted_profiles_share_id() {
        return (file_id, Some(lower));
    }
    let mut suffix = profile.id.clone().unwrap_or_else(|| profile.number.to_string());
    if !loader.profile_id_keeps_case() {
        suffix.make_ascii_lowercase();
    }
    (format!("{file_id}@{suffix}"), Some(file_id))
}

/// The place of `a` in the menu relative to `b`; `Less` is above (`boot_entry_compare`).
pub(super) fn compare(a: &MenuEntry, b: &MenuEntry, loader: &LoaderVersion) -> Ordering {
    first_difference(a, b, loader).map_or(Ordering::Equal, |(order, _)| order)
}

/// What decides between two entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Criterion {
    Bad,
    HasSortKey,
    SortKey,
    MachineId,
    Version,
    Profile,
    Id,
    Tries,
}

/// The first criterion by which two entries differ.
pub(super) fn first_difference(a: &MenuEntry, b: &MenuEntry, loader: &LoaderVersion) -> Option<(Ordering, Criterion)> {
    // Sort keys hold nothing outside UCS-2, where the order of UTF-8 is that of UTF-16.
    let both = a.sort_key.is_some() && b.sort_key.is_some();
    let versions = || {
        let [a, b] = [a, b].map(|e| e.version.as_deref().unwrap_or_default());
        verscmp::compare(a, b).reverse()
    };
    let ids = || {
        let [a, b] = [a, b].map(|e| e.id_without_profile.as_ref().unwrap_or(&e.id));
        verscmp::compare(a, b).reverse()
    };
    let tries = || match (a.tries_left, b.tries_left) {
        (Some(x), Some(y)) => y.cmp(&x).then(a.tries_done.cmp(&b.tries_done)),
        _ => Ordering::Equal,
    };
    let both_profiles = a.id_without_profile.is_some() && b.id_without_profile.is_some();
    let steps: [(bool, Criterion, &dyn Fn() -> Ordering); 9] = [
        (true, Criterion::Bad, &|| a.is_bad().cmp(&b.is_bad())),
        (true, Criterion::HasSortKey, &|| a.sort_key.is_none().cmp(&b.sort_key.is_none())),
        (both, Criterion::SortKey, &|| a.sort_key.cmp(&b.sort_key)),
        (both, Criterion::MachineId, &|| a.machine_id.cmp(&b.machine_id)),
        (both, Criterion::Version, &versions),
        (both && loader.sorts_by_profile_first(), Criterion::Profile, &|| a.profile.cmp(&b.profile)),
        (true, Criterion::Id, &ids),
        (both_profiles, Criterion::Profile, &|| a.profile.cmp(&b.profile)),
        (true, Criterion::Tries, &tries),
    ];
    steps.iter().filter(|(applies, ..)| *applies).find_map(|(_, criterion, order)| match order() {
        Ordering::Equal => None,
        order => Some((order, *criterion)),
    })
}

/// Sorts the menu. An insertion sort, like upstream's: with counters "equal" is not transitive, and then the result
/// depends on the algorithm.
///
/// Where the order is total every stable sort has the same result, and ten thousand entries need not be compared each
/// with each. (No sort of the standard library: they may panic where an order is not what it should be.)
pub(super) fn sort(menu: &mut [MenuEntry], loader: &LoaderVersion) {
    if is_total(menu) {
        let mut order: Vec<usize> = Vec::with_capacity(menu.len());
        for (i, entry) in menu.iter().enumerate() {
            let at = order.partition_point(|other| compare(entry, &menu[*other], loader) != Ordering::Less);
            order.insert(at, i);
        }
        menu.arrange(order);
        return;
    }
    for i in 1..menu.len() {
        let mut at = i;
        while at > 0 && compare(&menu[at], &menu[at - 1], loader) == Ordering::Less {
            menu.swap(at, at - 1);
            at -= 1;
        }
    }
}

/// Whether these entries have one order only: no name has a counter, and every entry is a whole image's.
pub(super) fn is_total(menu: &[MenuEntry]) -> bool {
    menu.iter().all(|entry| entry.tries_left.is_none() && entry.id_without_profile.is_none())
}

/// What may be added to a title.
type Detail<'a> = &'a dyn Fn(&MenuEntry) -> Option<String>;

/// Makes equal titles different, as far as that goes (`generate_boot_entry_titles`).
pub(super) fn distinguish_titles(menu: &mut [MenuEntry]) {
    let with_version = |e: &MenuEntry| e.version.as_deref().map(str::to_owned);
    let with_machine = |e: &MenuEntry| e.machine_id.as_ref().map(|id| id.chars().take(8).collect());
    let with_id = |e: &MenuEntry| Some(e.id.clone());
    let passes: [Detail<'_>; 3] = [&with_version, &with_machine, &with_id];
    for detail in passes {
        let mut seen = std::collections::HashMap::<Arc<str>, usize>::new();
        for entry in menu.iter() {
            *seen.entry(entry.title.clone()).or_default() += 1;
        }
        for entry in menu.iter_mut() {
            let twice = seen.get(&entry.title).is_some_and(|n| *n > 1);
            if let Some(detail) = detail(entry).filter(|_| twice) {
                entry.title = format!("{} ({detail})", entry.title).into();
            }
        }
    }
}
