//! Entries of the Boot Loader Specification's Type #1: the files of `\loader\entries` (`boot_entry_add_type1` in
//! boot.c).

use super::entry::{EntryKind, MenuEntry};
use super::probe::refused;
use super::text::{Lines, number, value};
use super::version::LoaderVersion;
use super::{Targets, Type1File};
use crate::counter::Counter;

/// Why a file in `\loader\entries` makes no entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unlisted {
    /// It is none by its name, or stands for the boot loader itself.
    NoEntry,
    /// Its `architecture` is another one.
    OtherArchitecture,
    /// It names nothing to start. The key that does, and that this version does not know.
    NoTarget(Option<&'static str>),
    /// It names several things to start.
    SeveralTargets,
    /// What it names is not there.
    Missing(String),
}

impl Unlisted {
    /// In words, where somebody may have meant an entry of this board.
    pub(super) fn in_words(&self, loader: &LoaderVersion) -> Option<String> {
        Some(match self {
            Self::NoEntry | Self::OtherArchitecture => return None,
            Self::NoTarget(Some(key)) => {
                format!("{loader} does not know its key `{key}`: `efi` names an image for all versions")
            }
            Self::NoTarget(None) => "it names nothing to start".to_owned(),
            Self::SeveralTargets => "it names several things to start".to_owned(),
            Self::Missing(path) => format!("{path} is not there"),
        })
    }
}

/// The entry of a file in `\loader\entries`. `own_path` is where the loader itself lies on that volume.
///
/// # Errors
/// Why it makes none.
pub(super) fn of_file(
    file: &Type1File,
    loader: &LoaderVersion,
    machine: u16,
    own_path: Option<&str>,
    targets: &Targets,
) -> Result<MenuEntry, Unlisted> {
    if file.is_dir || refused(&file.name, b".conf", loader).is_some() {
        return Err(Unlisted::NoEntry);
    }
    let mut unknown_key = None;
    let mut entry = MenuEntry::new(file.name.to_ascii_lowercase(), String::new(), EntryKind::Type1);
    let (mut title, mut options): (Option<String>, Option<String>) = (None, None);
    let mut target: Option<Target> = None;
    let mut initrds = Vec::new();
    for (key, v) in Lines::words(&file.text, loader) {
        let is_target = match key {
            b"linux" | b"efi" => true,
            b"uki" | b"uki-url" => loader.type1_ukis(),
            _ => false,
        };
        match key {
            b"uki" if !is_target => unknown_key = Some("uki"),
            b"uki-url" if !is_target => unknown_key = unknown_key.or(Some("uki-url")),
            _ => {}
        }
        if is_target {
            let kind = TargetKind::of(key);
            if loader.type1_ukis() && target.as_ref().is_some_and(|t| t.kind != kind) {
                return Err(Unlisted::SeveralTargets);
            }
            let path = efi_path(&value(v, loader).unwrap_or_default());
            // The loader leaves itself out of its menu.
            if kind == TargetKind::Efi && own_path.is_some_and(|own| own.eq_ignore_ascii_case(&path)) {
                return Err(Unlisted::NoEntry);
            }
            target = Some(Target { kind, path });
            continue;
        }
        match key {
            b"title" => title = value(v, loader),
            b"sort-key" => entry.sort_key = value(v, loader).map(Into::into),
            b"version" => entry.version = value(v, loader).map(Into::into),
            b"machine-id" => entry.machine_id = value(v, loader),
            b"architecture" if !v.eq_ignore_ascii_case(architecture(machine)) => {
                return Err(Unlisted::OtherArchitecture);
            }
            b"profile" if loader.type1_profiles() => {
                if let Some(n) = value(v, loader).and_then(|v| u32::try_from(number(&v)?).ok()) {
                    entry.profile = n;
                }
            }
            b"initrd" => initrds.push(efi_path(&value(v, loader).unwrap_or_default())),
            b"options" => {
                let new = value(v, loader).unwrap_or_default();
                options = Some(options.map_or(new.clone(), |old| format!("{old} {new}")));
            }
            _ => {}
        }
    }

    let target = target.ok_or(Unlisted::NoTarget(unknown_key))?;
    if target.kind != TargetKind::UkiUrl {
        if target.path.is_empty() {
            return Err(Unlisted::NoTarget(unknown_key));
        }
        if !targets.has(&target.path) {
            return Err(Unlisted::Missing(target.path));
        }
        entry.path = Some(target.path);
    }
    if target.kind == TargetKind::Linux && !initrds.is_empty() {
        let all: Vec<String> = initrds.iter().map(|path| format!("initrd={path}")).chain(options).collect();
        options = Some(all.join(" "));
    }
    entry.options = options.map(Into::into);
    if let Some(counter) = Counter::parse(&file.name, ".conf") {
        entry.count(&counter);
        if loader.counter_left_out_of_id() {
            entry.id = counter.id;
            if !loader.counted_type1_keeps_case() {
                entry.id.make_ascii_lowercase();
            }
        }
    }
    entry.title = title.unwrap_or_else(|| entry.id.clone()).into();
    Ok(entry)
}

/// What a file in `\loader\entries` names as the thing to start, whether it makes an entry or not: a path from the root
/// of its volume, with backslashes.
#[must_use]
pub fn type1_target(file: &Type1File, loader: &LoaderVersion) -> Option<String> {
    let is_target = |key: &[u8]| matches!(key, b"linux" | b"efi") || key == b"uki" && loader.type1_ukis();
    let (_, path) = Lines::words(&file.text, loader).filter(|(key, _)| is_target(key)).last()?;
    Some(efi_path(&value(path, loader)?)).filter(|path| !path.is_empty())
}

struct Target {
    kind: TargetKind,
    path: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TargetKind {
    Linux,
    Efi,
    Uki,
    UkiUrl,
}

impl TargetKind {
    fn of(key: &[u8]) -> Self {
        match key {
            b"linux" => Self::Linux,
            b"efi" => Self::Efi,
            b"uki" => Self::Uki,
            _ => Self::UkiUrl,
        }
    }
}

/// Slashes become backslashes, several become one.
fn efi_path(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for c in text.chars().map(|c| if c == '/' { '\\' } else { c }) {
        if c != '\\' || !path.ends_with('\\') {
            path.push(c);
        }
    }
    path
}

/// The architecture's name in Type #1 entries and in the names of boot loaders.
fn architecture(machine: u16) -> &'static [u8] {
    match machine {
        0x8664 => b"x64",
        0xAA64 => b"aa64",
        0x014C => b"ia32",
        0x01C2 => b"arm",
        0x5064 => b"riscv64",
        0x6264 => b"loongarch64",
        _ => b"",
    }
}
