//! What systemd-boot is told: loader.conf and the variables, decoded as that version decodes them.

use super::Variables;
use super::text::{Lines, boolean, is_unterminated, lenient_string, number, value, variable_string};
use super::version::LoaderVersion;
use serde::Serialize;

/// `menu-hidden`, and the value when nothing is set.
const HIDDEN: u64 = 0;
/// `menu-force`.
const FORCE: u64 = u32::MAX as u64;
/// `menu-disabled`; beyond every number that can be set.
const DISABLED: u64 = FORCE + 1;

/// What the menu does when nobody touches a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MenuMode {
    /// Not drawn; a key held during the first 0.1 seconds opens it.
    Hidden,
    /// Not drawn, whatever is pressed.
    Disabled,
    /// Drawn; the selected entry starts after so many seconds.
    Countdown(u32),
    /// Drawn; waits until somebody presses a key.
    Waits,
}

/// `secure-boot-enroll` of loader.conf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enroll {
    Off,
    Manual,
    IfSafe,
    Force,
}

/// Everything systemd-boot is told before it looks at files.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) auto_entries: bool,
    pub(super) auto_firmware: bool,
    pub(super) auto_poweroff: bool,
    pub(super) auto_reboot: bool,
    pub(super) enroll: Enroll,
    pub(super) timeout: u64,
    /// `LoaderConfigTimeoutOneShot` is there: the menu is shown.
    pub(super) force_menu: bool,
    /// What asks for an entry, the most powerful first.
    pub(super) patterns: Vec<EntryPattern>,
    pub(super) warnings: Vec<String>,
}

/// What asks for certain entries (`entry_default`, `entry_oneshot` … of systemd-boot): a pattern, and how it is
/// applied.
#[derive(Debug, Clone)]
pub(super) struct EntryPattern {
    /// Who asks: a variable's name or `loader.conf default`.
    pub(super) source: &'static str,
    /// Which entry: a pattern. `None` for `@saved` when nothing was saved.
    pub(super) pattern: Option<String>,
    /// The setting is `@saved`.
    pub(super) saved: bool,
    /// Entries without tries left are passed over.
    pub(super) skips_bad: bool,
    /// The entry is marked in the menu as the default.
    pub(super) marked: bool,
    /// For the next boot only.
    pub(super) once: bool,
}

const SAVED: &str = "@saved";

impl Config {
    pub(super) fn read(loader_conf: Option<&[u8]>, vars: &Variables, loader: &LoaderVersion) -> Self {
        let mut config = Self {
            auto_entries: true,
            auto_firmware: true,
            auto_poweroff: false,
            auto_reboot: false,
            enroll: if loader.enrolls_if_safe() { Enroll::IfSafe } else { Enroll::Manual },
            timeout: HIDDEN,
            force_menu: false,
            patterns: Vec::new(),
            warnings: Vec::new(),
        };
        let (default, preferred) = config.read_loader_conf(loader_conf.unwrap_or_default(), loader);

        if let Some(timeout) = config.timeout_variable("LoaderConfigTimeout", &vars.config_timeout, loader) {
            config.timeout = timeout;
        }
        let once = "LoaderConfigTimeoutOneShot";
        if let Some(timeout) = config.timeout_variable(once, &vars.config_timeout_oneshot, loader) {
            config.timeout = timeout;
            config.force_menu = true;
        }
        config.read_patterns(vars, loader, default, preferred);
        config
    }

    /// Takes the settings; returns `default` and `preferred`.
    fn read_loader_conf(&mut self, text: &[u8], loader: &LoaderVersion) -> (Option<String>, Option<String>) {
        let (mut default, mut preferred) = (None, None);
        if text.starts_with(b"\xEF\xBB\xBF") {
            self.warnings.push(
                "loader.conf begins with a byte order mark: systemd-boot does not understand its first line".into(),
            );
        }
        for (key, word) in Lines::words(text, loader) {
            let switch = |target: &mut bool| *target = boolean(word).unwrap_or(*target);
            // Anything with @ that is not @saved is refused, and what was set before stays.
            let special = word.starts_with(b"@") && !word.eq_ignore_ascii_case(SAVED.as_bytes());
            match key {
                b"timeout" => self.timeout = conf_timeout(word, loader).unwrap_or(self.timeout),
                b"default" if !special => default = value(word, loader),
                b"preferred" if !special && loader.preferred() => preferred = value(word, loader),
                b"auto-entries" => switch(&mut self.auto_entries),
                b"auto-firmware" => switch(&mut self.auto_firmware),
                b"auto-poweroff" if loader.power_entries() => switch(&mut self.auto_poweroff),
                b"auto-reboot" if loader.power_entries() => switch(&mut self.auto_reboot),
                b"secure-boot-enroll" => match word {
                    b"off" => self.enroll = Enroll::Off,
                    b"manual" => self.enroll = Enroll::Manual,
                    b"if-safe" if loader.enrolls_if_safe() => self.enroll = Enroll::IfSafe,
                    b"force" => self.enroll = Enroll::Force,
                    _ => {}
                },
                _ => {}
            }
        }
        (default, preferred)
    }

    fn timeout_variable(&mut self, name: &str, data: &Option<Vec<u8>>, loader: &LoaderVersion) -> Option<u64> {
        let text = self.string(name, data, loader)?;
        match text.as_str() {
            "menu-hidden" => Some(HIDDEN),
            "menu-force" => Some(FORCE),
            "menu-disabled" if loader.menu_disabled() => Some(DISABLED),
            _ => number(&text).map(|n| n.min(FORCE)),
        }
    }

    /// A string variable, with a warning where the loader misreads it.
    fn string(&mut self, name: &str, data: &Option<Vec<u8>>, loader: &LoaderVersion) -> Option<String> {
        let data = data.as_deref()?;
        let text = variable_string(data, loader);
        match &text {
            None => self.warnings.push(format!("{name} has an odd number of bytes and is ignored")),
            Some(text) if is_unterminated(data) && *text != lenient_string(data) => self.warnings.push(format!(
                "{name} has no closing NUL: {loader} reads {text:?} instead of {:?}",
                lenient_string(data)
            )),
            Some(_) => {}
        }
        text
    }

    /// Puts the patterns in the order in which they count (`config_select_default_entry`).
    fn read_patterns(
        &mut self,
        vars: &Variables,
        loader: &LoaderVersion,
        default: Option<String>,
        preferred: Option<String>,
    ) {
        let fold = |text: Option<String>| text.map(|text| text.to_ascii_lowercase());
        let once = fold(self.string("LoaderEntryOneShot", &vars.oneshot, loader));
        let var_default = fold(self.string("LoaderEntryDefault", &vars.default, loader));
        let var_preferred =
            if loader.preferred() { fold(self.string("LoaderEntryPreferred", &vars.preferred, loader)) } else { None };
        // Read after the others are folded, and not folded itself: an upper-case letter in it never matches.
        let is_saved = |text: &Option<String>| text.as_deref() == Some(SAVED);
        let (conf_default, conf_preferred) = (fold(default), fold(preferred));
        let any_saved = [&var_default, &var_preferred, &conf_default, &conf_preferred].into_iter().any(is_saved);
        let saved = if any_saved { self.string("LoaderEntryLastBooted", &vars.last_booted, loader) } else { None };

        // A second @saved would only find the same again.
        let conf_default = conf_default.filter(|d| !(d == SAVED && is_saved(&var_default)));
        let pattern_of = |source: &'static str, skips_bad: bool, marked: bool, once: bool, text: Option<String>| {
            text.map(|text| {
                let by_saved = text == SAVED && !once;
                let pattern = if by_saved { saved.clone() } else { Some(text) };
                EntryPattern { source, pattern, saved: by_saved, skips_bad, marked, once }
            })
        };
        self.patterns = [
            pattern_of("LoaderEntryOneShot", false, false, true, once),
            pattern_of("LoaderEntryPreferred", true, true, false, var_preferred),
            pattern_of("loader.conf preferred", true, false, false, conf_preferred),
            pattern_of("LoaderEntryDefault", false, true, false, var_default),
            pattern_of("loader.conf default", false, false, false, conf_default),
        ]
        .into_iter()
        .flatten()
        .collect();
    }

    /// What happens on the screen. `nothing_to_start`: no entry qualified on its own.
    pub(super) fn menu_mode(&self, nothing_to_start: bool) -> MenuMode {
        let timeout = if nothing_to_start && self.timeout == HIDDEN { 10 } else { self.timeout };
        if !self.force_menu {
            match timeout {
                HIDDEN => return MenuMode::Hidden,
                DISABLED => return MenuMode::Disabled,
                _ => {}
            }
        }
        match timeout {
            HIDDEN | FORCE | DISABLED => MenuMode::Waits,
            seconds => u32::try_from(seconds).map_or(MenuMode::Waits, MenuMode::Countdown),
        }
    }
}

fn conf_timeout(word: &[u8], loader: &LoaderVersion) -> Option<u64> {
    match word {
        b"menu-hidden" => Some(HIDDEN),
        b"menu-force" => Some(FORCE),
        b"menu-disabled" if loader.menu_disabled() => Some(DISABLED),
        _ => number(std::str::from_utf8(word).ok()?).filter(|n| *n <= FORCE),
    }
}
