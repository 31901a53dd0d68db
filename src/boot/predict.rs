//! The prediction itself: menu, choice, and what is noteworthy about them.

use super::config::{Config, Enroll, MenuMode};
use super::entry::{self, EntryKind, MenuEntry};
use super::probe::UkiFile;
use super::select::{self, Choice};
use super::version::LoaderVersion;
use super::{Esp, Targets, Type1File, Variables, type1};
use crate::uki::cmdline::wipes;
use serde::Serialize;
use std::sync::Arc;

/// More lines than any menu has.
const MAX_ENTRIES: usize = 16_384;
/// Where names have counters: sorting takes time in the square of their number.
const MAX_COUNTED: usize = 4096;
/// `EFI_OS_INDICATIONS_BOOT_TO_FW_UI`.
const FIRMWARE_SETUP: u64 = 1;

/// What systemd-boot will do.
#[derive(Debug, Clone, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct Prediction {
    /// The systemd-boot whose rules were applied.
    pub loader: LoaderVersion,
    /// The menu from top to bottom, whether it is drawn or not; the ids are those of `LoaderEntries`. A copy shares it:
    /// it may have ten thousand lines.
    pub menu: Arc<[MenuEntry]>,
    /// The entry that starts without a key press. `None` when there is no menu, or keys are enrolled instead.
    pub selected: Option<usize>,
    /// Why that one, in words.
    pub reason: String,
    /// The entry that would start if the selected file were not there.
    pub fallback: Option<usize>,
    /// The entry that the menu marks as the persistent default.
    pub marked: Option<usize>,
    /// What the selected image gets as LoadOptions.
    pub load_options: Option<String>,
    /// Boot counting: the name that the selected file is renamed to before it starts.
    pub renamed_to: Option<String>,
    /// What happens on the screen.
    pub mode: MenuMode,
    /// Secure Boot keys are enrolled and the machine restarts, before anything is selected.
    pub enrolls_keys: bool,
    /// What somebody should know.
    pub warnings: Vec<String>,
}

impl Prediction {
    /// Before anything is known.
    pub(crate) fn unknown() -> Self {
        Self {
            loader: LoaderVersion::assumed(),
            menu: Arc::default(),
            selected: None,
            reason: String::new(),
            fallback: None,
            marked: None,
            load_options: None,
            renamed_to: None,
            mode: MenuMode::Hidden,
            enrolls_keys: false,
            warnings: Vec::new(),
        }
    }

    /// The entry that starts without a key press.
    #[must_use]
    pub fn selected_entry(&self) -> Option<&MenuEntry> {
        self.menu.get(self.selected?)
    }

    /// The file in `\EFI\Linux` of the ESP that is started, with its case.
    #[must_use]
    pub fn selected_file(&self) -> Option<&str> {
        self.selected_file_on(false)
    }

    /// The file in `\EFI\Linux` that is started, if it is on that one of the two partitions.
    #[must_use]
    pub fn selected_file_on(&self, xbootldr: bool) -> Option<&str> {
        self.selected_entry().filter(|e| e.xbootldr == xbootldr)?.file.as_deref()
    }
}

/// The menu of an ESP. The variables decide about what stands at its end, and that is mostly the same.
pub(crate) struct Menu {
    entries: Arc<[MenuEntry]>,
    /// What stands at its end.
    automatic: Vec<MenuEntry>,
    warnings: Vec<String>,
}

impl Menu {
    fn of(esp: &Esp, automatic: Vec<MenuEntry>) -> Self {
        let mut warnings = Vec::new();
        let mut menu = entries(esp, &mut warnings);
        entry::sort(&mut menu, &esp.loader);
        menu.extend(automatic.iter().cloned());
        entry::distinguish_titles(&mut menu);
        Self { entries: menu.into(), automatic, warnings }
    }
}

/// Predicts what the systemd-boot of `esp` shows and starts with these variables.
pub fn predict(esp: &Esp, vars: &Variables) -> Prediction {
    predict_with(esp, vars, &mut None)
}

/// The same where it is asked for several sets of variables: `known` is the menu that an earlier call for this ESP has
/// left, and is made anew where these variables have another one.
pub(crate) fn predict_with(esp: &Esp, vars: &Variables, known: &mut Option<Menu>) -> Prediction {
    let loader = &esp.loader;
    let mut config = Config::read(esp.loader_conf.as_deref(), vars, loader);
    let mut warnings: Vec<String> = loader.caveat().into_iter().collect();
    warnings.append(&mut config.warnings);

    let automatic = automatic(esp, vars, &config);
    if known.as_ref().is_some_and(|known| known.automatic != automatic) {
        *known = None;
    }
    let known = known.get_or_insert_with(|| Menu::of(esp, automatic));
    warnings.extend(known.warnings.iter().cloned());
    let menu = &known.entries;

    let choice = select::choose(menu, &config.patterns, loader, |_| true);
    let enrolls_keys = enrolls(esp, vars, &config, &mut warnings);
    let mut prediction = Prediction {
        loader: loader.clone(),
        selected: None,
        reason: "there is no entry at all: control returns to the firmware".to_owned(),
        fallback: choice.as_ref().and_then(|c| fallback(menu, &config, loader, c.index)),
        marked: choice.as_ref().filter(|c| c.marked).map(|c| c.index),
        load_options: None,
        renamed_to: None,
        mode: config.menu_mode(choice.as_ref().is_none_or(|c| c.nothing_to_start)),
        enrolls_keys,
        menu: Arc::clone(menu),
        warnings,
    };
    if enrolls_keys {
        prediction.reason =
            "the firmware is in setup mode: the keys in loader\\keys\\auto are enrolled, then it restarts".to_owned();
    } else if let Some(choice) = choice {
        apply(&mut prediction, &choice, esp);
    }
    warn_of_unlisted(esp, &mut prediction.warnings);
    prediction
}

fn apply(prediction: &mut Prediction, choice: &Choice, esp: &Esp) {
    let Some(entry) = prediction.menu.get(choice.index) else { return };
    let taken = entry.next_name.as_ref().is_some_and(|name| is_taken(name, entry, esp));
    prediction.selected = Some(choice.index);
    prediction.reason.clone_from(&choice.reason);
    prediction.load_options = entry.load_options(&prediction.loader);
    prediction.renamed_to = entry.next_name.clone().filter(|_| !taken);

    let mut warn = |text: String| prediction.warnings.push(text);
    if entry.profile > 0 {
        warn(format!("{} is profile {} of its image and not the system itself", entry.id, entry.profile));
    }
    if let Some(what) = prediction.load_options.as_deref().and_then(wipes) {
        let loader = &prediction.loader;
        let which = if entry.kind == EntryKind::Type1 { "its options" } else { "the command line of its last profile" };
        warn(format!("{loader} starts {} with {which} unless Secure Boot is on: that wipes ({what})", entry.id));
    }
    if entry.is_bad() {
        warn(format!("{} has no tries left and is started all the same", entry.id));
    }
    if let Some(name) = &entry.next_name
        && taken
    {
        warn(format!("boot counting cannot rename the file of {} to {name}: there is such a file", entry.id));
    } else if let Some(name) = &entry.next_name {
        warn(format!("boot counting renames the file of {} to {name} before it starts", entry.id));
    }
    if choice.once {
        warn("the one-shot variable is used up by the next boot; the boot after it may choose differently".to_owned());
    }
    if entry.kind == EntryKind::EnrollKeys {
        warn("the firmware is in setup mode, and with no system to start the keys on the ESP are enrolled".to_owned());
    }
    if choice.nothing_to_start {
        warn("no entry of the menu is a system to start".to_owned());
    }
}

/// Whether there is a file of that name where the entry's own file lies. The firmware refuses the renaming then, and
/// systemd-boot goes on without.
fn is_taken(name: &str, entry: &MenuEntry, esp: &Esp) -> bool {
    let (linux, type1) = match &esp.xbootldr {
        Some(x) if entry.xbootldr => (&x.linux, &x.type1),
        _ => (&esp.linux, &esp.type1),
    };
    match entry.kind {
        EntryKind::Uki => linux.iter().any(|f| f.name.eq_ignore_ascii_case(name)),
        _ => type1.iter().any(|f| f.name.eq_ignore_ascii_case(name)),
    }
}

/// The entries of both partitions, in the order of the scan.
fn entries(esp: &Esp, warnings: &mut Vec<String>) -> Vec<MenuEntry> {
    let on_xbootldr = esp.xbootldr.as_ref().map_or(0, |x| x.linux.len() + x.type1.len());
    let mut menu = Vec::with_capacity(esp.linux.len() + esp.type1.len() + on_xbootldr);
    let own_path = Some(esp.loader_path.as_str());
    scan(esp, &esp.linux, &esp.type1, own_path, &esp.targets, &mut menu, warnings);
    if let Some(x) = &esp.xbootldr {
        scan(esp, &x.linux, &x.type1, None, &x.targets, &mut menu, warnings);
    }
    let most = if entry::is_total(&menu) { MAX_ENTRIES } else { MAX_COUNTED };
    if menu.len() > most {
        warnings.push(format!("only the first {most} of {} entries are considered", menu.len()));
        menu.truncate(most);
    }
    menu
}

fn scan(
    esp: &Esp,
    linux: &[UkiFile],
    type1: &[Type1File],
    own_path: Option<&str>,
    targets: &Targets,
    menu: &mut Vec<MenuEntry>,
    warnings: &mut Vec<String>,
) {
    let xbootldr = own_path.is_none();
    for file in linux {
        entry::of_uki(file, &esp.loader, xbootldr, menu);
    }
    for file in type1 {
        match type1::of_file(file, &esp.loader, esp.machine, own_path, targets) {
            Ok(entry) => menu.push(MenuEntry { xbootldr, ..entry }),
            Err(why) => {
                let why = why.in_words(&esp.loader);
                warnings.extend(why.map(|why| format!("loader/entries/{} makes no entry: {why}", file.name)));
            }
        }
    }
}

/// What stands behind the sorted entries, in fixed order.
fn automatic(esp: &Esp, vars: &Variables, config: &Config) -> Vec<MenuEntry> {
    let mut menu = Vec::new();
    let (others, auto) = (&esp.others, config.auto_entries);
    let setup = config.auto_firmware && vars.os_indications_supported & FIRMWARE_SETUP != 0;
    let loader = EntryKind::OtherLoader;
    let action = EntryKind::Action;
    for (there, id, title, kind) in [
        (auto && others.macos, "auto-osx", "macOS", loader),
        (auto && others.windows, "auto-windows", "Windows Boot Manager", loader),
        (auto && others.efi_shell, "auto-efi-shell", "EFI Shell", loader),
        (auto && others.default_loader, "auto-efi-default", "EFI Default Loader", loader),
        (setup, "auto-reboot-to-firmware-setup", "Reboot Into Firmware Interface", action),
        (config.auto_poweroff, "auto-poweroff", "Power Off The System", action),
        (config.auto_reboot, "auto-reboot", "Reboot The System", action),
    ] {
        if there {
            menu.push(MenuEntry::new(id.to_owned(), title.to_owned(), kind));
        }
    }
    if config.enroll != Enroll::Off && accepts_keys(vars) {
        for dir in key_dirs(esp) {
            menu.push(MenuEntry::new(
                format!("secure-boot-keys-{dir}"),
                format!("Enroll Secure Boot keys: {dir}"),
                EntryKind::EnrollKeys,
            ));
        }
    }
    menu
}

fn key_dirs(esp: &Esp) -> impl Iterator<Item = &String> {
    esp.key_dirs.iter().filter(|dir| !dir.starts_with('.'))
}

/// Setup mode or audit mode (UEFI specification, figure "Secure Boot Modes").
fn accepts_keys(vars: &Variables) -> bool {
    vars.secure_boot == Some(false) && vars.setup_mode && !vars.deployed_mode
}

/// Whether keys are enrolled before anything is selected.
fn enrolls(esp: &Esp, vars: &Variables, config: &Config, warnings: &mut Vec<String>) -> bool {
    if !accepts_keys(vars) || !key_dirs(esp).any(|dir| dir.eq_ignore_ascii_case("auto")) {
        return false;
    }
    match (config.enroll, vars.virtual_machine) {
        (Enroll::Force, Some(true)) | (Enroll::IfSafe, Some(true)) => true,
        (Enroll::Force, _) => {
            warnings.push("outside a virtual machine the enrolment of keys can be stopped for 15 seconds".to_owned());
            true
        }
        (Enroll::IfSafe, None) => {
            warnings.push(
                "the firmware is in setup mode: if this is a virtual machine, the keys in loader\\keys\\auto are \
                 enrolled and it restarts"
                    .to_owned(),
            );
            false
        }
        _ => false,
    }
}

/// What would start without the selected file.
fn fallback(menu: &[MenuEntry], config: &Config, loader: &LoaderVersion, selected: usize) -> Option<usize> {
    let gone = menu.get(selected)?;
    let other = |e: &MenuEntry| match (&e.path, &gone.path) {
        (Some(path), Some(gone_path)) => (path, e.xbootldr) != (gone_path, gone.xbootldr),
        _ => e.id != gone.id,
    };
    // A one-shot pattern is used up by then.
    let patterns: Vec<_> = config.patterns.iter().filter(|pattern| !pattern.once).cloned().collect();
    let choice = select::choose(menu, &patterns, loader, other)?;
    (!choice.nothing_to_start).then_some(choice.index)
}

/// Files that mean to be started and never will be.
fn warn_of_unlisted(esp: &Esp, warnings: &mut Vec<String>) {
    let on_esp = esp.linux.iter().map(|file| (file, ""));
    let on_xbootldr = esp.xbootldr.iter().flat_map(|x| &x.linux);
    for (file, place) in on_esp.chain(on_xbootldr.map(|file| (file, " on the Extended Boot Loader Partition"))) {
        match file.listed(&esp.loader) {
            Ok(_) => {}
            Err(skip) => {
                if skip.is_broken() {
                    warnings.push(format!("{}{place} is not listed: it {skip}", file.name));
                }
                continue;
            }
        }
        for (number, skip) in file.lost_for(&esp.loader) {
            warnings.push(format!("profile {number} of {}{place} is not listed: it {skip}", file.name));
        }
    }
}
