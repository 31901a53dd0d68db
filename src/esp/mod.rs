//! What is on an ESP: the files of `EFI/Linux` and the parts they play, space, health, and what the board starts.
//!
//! Reads only. [`Inventory::read`] looks at headers and is quick; [`Inventory::examine`] also reads every image whole,
//! for hashes and schematics.

mod extras;
mod names;
mod room;

pub use names::{BackupName, backup_of, disabled_of};
pub use room::{Room, WayToRoom};

use crate::block::{Pieces, ReadAt, sha256_of};
use crate::boot::{self, Esp, Loader, LoaderVersion, OtherLoaders, Prediction, Type1File, UkiFile, Variables};
use crate::fat::{Entry, Health, Volume, same_name};
use crate::pe::Arch;
use crate::surgery::{Interrupted, LINUX_DIR, LostClusters, interrupted, refuse_unhealthy};
use crate::uki::{Family, Identity};
use crate::{Code, Error, Kind, Result, uki};
use extras::Extras;
use serde::Serialize;
use std::sync::{Mutex, PoisonError};

/// More Type #1 entries than any loader would show.
const MAX_TYPE1: usize = 1024;
/// `loader.conf` and Type #1 entries are short texts.
const MAX_TEXT: u32 = 64 * 1024;

/// The year 2100, in seconds since 1970 UTC: a number beyond it is no time of a swap.
pub(crate) const END_OF_TIME: u64 = 4_102_444_800;

/// What a file in `EFI/Linux` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A UKI in the boot menu.
    Uki,
    /// `….bak.<time>`: what a swap replaced.
    Backup,
    /// `….disabled.<time>`: taken out of the menu.
    Disabled,
    /// Named `.efi`, but it would not start.
    Broken,
    /// Anything else.
    Other,
}

/// A file in `EFI/Linux`.
#[derive(Debug, Clone)]
pub struct EspFile {
    /// What it is.
    pub kind: FileKind,
    /// Its directory entry.
    pub entry: Entry,
    /// What its headers and small sections say, if it is a whole PE image.
    pub facts: Option<uki::Facts>,
    /// Why it is broken.
    pub trouble: Option<String>,
    /// The file in the menu that it doubles: the same system of the same version, kernel and architecture
    /// ([`uki::Identity`]).
    pub duplicate_of: Option<String>,
    /// SHA-256 in hex, once examined.
    pub sha256: Option<String>,
    /// The schematic it was built from, once examined.
    pub schematic: Option<String>,
}

impl EspFile {
    /// File name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// `v1.12.4`.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.facts.as_ref()?.version()
    }

    /// Architecture.
    #[must_use]
    pub fn arch(&self) -> Option<Arch> {
        self.facts.as_ref()?.arch
    }

    /// Whose image it is; unknown for what is none.
    #[must_use]
    pub fn family(&self) -> Family {
        self.facts.as_ref().map_or(Family::Unknown, Family::of)
    }

    /// What it is a copy of, if of anything.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.facts.as_ref()?.identity()
    }
}

/// The state of an ESP.
pub struct Inventory<S> {
    /// The volume it was read from.
    pub volume: Volume<S>,
    /// FAT health.
    pub health: Health,
    /// An operation that did not finish, or what else has its record's name.
    pub interrupted: Option<Interrupted>,
    /// Clusters that belong to no file. On a damaged volume nobody can tell.
    pub lost: LostClusters,
    /// The files of `EFI/Linux`, in on-disk order.
    pub files: Vec<EspFile>,
    /// The boot loader in `EFI/BOOT`: its path, and what it is if it is systemd-boot.
    pub loader: Option<(String, Option<Loader>)>,
    /// The EFI variables, as far as they could be read.
    pub variables: Variables,
    /// What the board starts with these variables, and with none (NVRAM reset).
    pub worlds: [Prediction; 2],
    /// The files as systemd-boot sees them.
    linux: Vec<UkiFile>,
    surroundings: Surroundings,
    extras: Vec<Extras>,
    /// The boot loader's version and machine type.
    rules: (LoaderVersion, u16),
    /// The first error of the medium that was taken for a broken or missing file.
    unreadable: Mutex<Option<String>>,
}

/// What systemd-boot looks at beside `EFI/Linux`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Surroundings {
    type1: Vec<Type1File>,
    loader_conf: Option<Vec<u8>>,
    key_dirs: Vec<String>,
    others: OtherLoaders,
}

impl<S: ReadAt> Inventory<S> {
    /// Reads an ESP. A damaged volume is read as far as it goes: `health` tells.
    ///
    /// # Errors
    /// [`Kind::Unsafe`] when the volume cannot be opened or its root directory not read.
    pub fn read(source: S, variables: Variables) -> Result<Self> {
        let volume = Volume::open(source).map_err(unhealthy)?;
        let health = Health::check(&volume).map_err(unhealthy)?;
        let interrupted = interrupted(&volume)?;
        let damaged = health.is_damaged();
        let lost = if damaged { &[][..] } else { &health.lost };
        let lost = LostClusters::look(&volume, lost, interrupted.as_ref())?;
        // What cannot be read looks like what is not there; whoever decides by it has to know.
        let watch = Watch { source: volume.source(), first_error: Mutex::default() };
        let watched = Volume::with_table(watch, volume.geometry().clone(), volume.table().clone());
        let loader = as_far_as_it_goes(find_loader(&watched), damaged)?;
        let rules = rules(&watched, loader.as_ref())?;
        let (version, machine) = rules.clone();
        let mut files = Vec::new();
        let mut linux = Vec::new();
        for entry in as_far_as_it_goes(watched.list(LINUX_DIR), damaged)?.unwrap_or_default() {
            let seen = if entry.is_dir() {
                UkiFile::directory(&entry.name)
            } else {
                probe(&watched, &entry, &version, machine)
            };
            if !entry.is_dir() {
                files.push(describe(&watched, entry, &seen, &version));
            }
            linux.push(seen);
        }
        let surroundings = Surroundings::read(&watched, damaged)?;
        let extras = Extras::read(&watched, damaged)?;
        let unreadable =
            Mutex::new(watched.into_source().first_error.into_inner().unwrap_or_else(PoisonError::into_inner));
        let unknown = || boot::predict(&nothing(), &Variables::default());
        let worlds = [unknown(), unknown()];
        let mut inventory = Self {
            volume,
            health,
            interrupted,
            lost,
            files,
            loader,
            variables,
            worlds,
            linux,
            surroundings,
            extras,
            rules,
            unreadable,
        };
        inventory.worlds = inventory.predict(&inventory.linux);
        inventory.mark_duplicates();
        Ok(inventory)
    }

    /// Refuses an ESP that must not be written: an operation interrupted, the file system not healthy.
    ///
    /// # Errors
    /// [`crate::Kind::Interrupted`], [`crate::Kind::Unsafe`].
    pub fn refuse_unsafe(&self) -> Result<()> {
        if let Some(found) = &self.interrupted {
            return Err(found.error());
        }
        refuse_unhealthy(&self.health)
    }

    /// Refuses to go on when the ESP is not what this inventory saw: somebody else wrote between the plan and the claim on
    /// it.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`]; what the source reports.
    pub fn refuse_changed<N: ReadAt>(&self, now: &Volume<N>) -> Result<()> {
        // What the medium failed to give, then or now, looks like something that is not there.
        self.refuse_unreadable()?;
        let watch = Watch { source: now.source(), first_error: Mutex::default() };
        let watched = Volume::with_table(watch, now.geometry().clone(), now.table().clone());
        let compared = self.compare(&watched);
        match watched.into_source().first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => Err(unreadable(&why)),
            None => compared,
        }
    }

    fn compare<N: ReadAt>(&self, now: &Volume<N>) -> Result<()> {
        let changed =
            |what| Err(Error::refused(format!("{what} has changed since the plan was made")).advise("run it again"));
        let files = now.list(LINUX_DIR)?.unwrap_or_default();
        if !files.iter().filter(|e| !e.is_dir()).eq(self.files.iter().map(|f| &f.entry)) {
            return changed(LINUX_DIR);
        }
        if Surroundings::read(now, false)? != self.surroundings {
            return changed("what systemd-boot reads in loader/");
        }
        if Extras::read(now, false)? != self.extras {
            return changed("what lies beside an image for the stub to add");
        }
        if find_loader(now)? != self.loader {
            return changed("the boot loader in EFI/BOOT");
        }
        Ok(())
    }

    /// Reads every image whole: hashes and schematics.
    ///
    /// # Errors
    /// What the source reports. An image that cannot be understood keeps its hash.
    pub fn examine(&mut self) -> Result<()> {
        for file in &mut self.files {
            let Ok(bytes) = self.volume.file(&file.entry) else { continue };
            if file.facts.is_some()
                && let Ok(uki) = uki::analyse(&bytes, &mut [])
            {
                file.sha256 = Some(hex::encode(uki.sha256));
                file.schematic = uki.schematic().map(|s| s.id.clone());
            } else {
                file.sha256 = Some(hex::encode(sha256_of(&bytes, bytes.size())?));
            }
        }
        Ok(())
    }

    /// Refuses decisions by what could not be read: a file that the medium does not give looks broken, and a plan would
    /// take it out of the menu.
    ///
    /// # Errors
    /// [`crate::Kind::Io`].
    pub fn refuse_unreadable(&self) -> Result<()> {
        match &*self.unreadable.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(why) => Err(unreadable(why)),
        }
    }

    /// The boot loader's rules and machine type that predictions are made for.
    #[must_use]
    pub fn rules(&self) -> (LoaderVersion, u16) {
        self.rules.clone()
    }

    /// The addons, credentials and extension images in `<name>.extra.d/`, which systemd's stub adds to the UKI of this name.
    #[must_use]
    pub fn companions_of(&self, name: &str) -> Vec<&str> {
        Extras::of(&self.extras, name)
    }

    /// Whether systemd-boot lists a file of this name.
    #[must_use]
    pub fn lists(&self, name: &str) -> bool {
        self.linux.iter().any(|f| f.name == name && f.listed(&self.worlds[0].loader).is_ok())
    }

    /// The files of `EFI/Linux` as systemd-boot sees them, in on-disk order.
    #[must_use]
    pub fn as_seen(&self) -> &[UkiFile] {
        &self.linux
    }

    /// What the board would start if `EFI/Linux` held these files: with the variables as they are, and with none.
    pub fn predict(&self, linux: &[UkiFile]) -> [Prediction; 2] {
        self.with_esp(linux, |esp| boot::worlds(esp, &self.variables))
    }

    /// Every boot that a plan has to hold for, and its name: as [`Self::predict`], and where a one-shot variable is set, the
    /// boot after the one that uses it up.
    pub fn futures(&self, linux: &[UkiFile]) -> Vec<(Prediction, &'static str)> {
        self.with_esp(linux, |esp| {
            let [now, reset] = boot::worlds(esp, &self.variables);
            let mut all = vec![(now, "with the EFI variables as they are"), (reset, "without EFI variables")];
            if self.variables.oneshot.is_some() {
                let later = boot::predict(esp, &self.variables.after_one_boot());
                all.push((later, "once the one-shot variable is used up"));
            }
            all
        })
    }

    fn with_esp<T>(&self, linux: &[UkiFile], then: impl FnOnce(&Esp<'_>) -> T) -> T {
        let find = |path: &str| match self.volume.find(&path.replace('\\', "/")) {
            Ok(found) => found,
            Err(e) => {
                if e.kind() == Kind::Io {
                    self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| e.to_string());
                }
                None
            }
        };
        // A Type #1 entry may name a file of the directory that is looked at as it would be.
        let there = |name: &str| linux.iter().any(|f| same_name(&f.name, name));
        let exists = |path: &str| match (linux_file(path), find(path)) {
            (None, found) => found.is_some(),
            // By its short name, perhaps.
            (Some(_), Some(entry)) => there(&entry.name),
            (Some(name), None) => there(name),
        };
        let (loader, machine) = self.rules();
        let s = &self.surroundings;
        let esp = Esp {
            loader,
            machine,
            loader_path: self
                .loader
                .as_ref()
                .map_or_else(String::new, |(path, _)| format!("\\{}", path.replace('/', "\\"))),
            linux: linux.to_vec(),
            type1: s.type1.clone(),
            loader_conf: s.loader_conf.clone(),
            key_dirs: s.key_dirs.clone(),
            others: s.others,
            exists: &exists,
            xbootldr: None,
        };
        then(&esp)
    }

    /// The time for names of backups: `now`, and on a board without a clock one second after the newest backup, so that
    /// the newest has the latest time.
    #[must_use]
    pub fn stamp(&self, now: u64) -> u64 {
        let backups = self.files.iter().filter_map(|f| BackupName::parse(f.name()));
        let newest = backups.map(|b| b.time).filter(|t| *t < END_OF_TIME).max();
        newest.map_or(now, |t| now.max(t + 1))
    }

    /// The file the board starts now.
    #[must_use]
    pub fn selected(&self) -> Option<&EspFile> {
        let name = self.worlds[0].selected_file()?;
        self.files.iter().find(|f| f.name() == name)
    }

    /// The architecture of the board, as its boot loader tells, else its images.
    #[must_use]
    pub fn arch(&self) -> Option<Arch> {
        let loader = self.loader.as_ref().and_then(|(_, l)| Arch::from_machine(l.as_ref()?.machine));
        loader.or_else(|| self.files.iter().find_map(EspFile::arch))
    }

    /// The file of this name, by FAT's rules.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&EspFile> {
        self.files.iter().find(|f| f.entry.is_named(name))
    }

    fn mark_duplicates(&mut self) {
        // The one that starts is the original; else the one highest in the menu.
        let menu: Vec<String> = {
            let w = &self.worlds[0];
            w.selected_file()
                .into_iter()
                .chain(w.menu.iter().filter_map(|e| e.file.as_deref()))
                .map(str::to_owned)
                .collect()
        };
        let rank = |f: &EspFile| menu.iter().position(|name| name == f.name()).unwrap_or(usize::MAX);
        let key = EspFile::identity;
        let originals: Vec<_> = self
            .files
            .iter()
            .map(|f| {
                let in_menu =
                    self.files.iter().filter(|o| o.kind == FileKind::Uki && key(o).is_some() && key(o) == key(f));
                in_menu.min_by_key(|o| rank(o)).map(|o| o.name().to_owned())
            })
            .collect();
        for (file, original) in self.files.iter_mut().zip(originals) {
            file.duplicate_of = original.filter(|o| file.kind == FileKind::Uki && o != file.name());
        }
    }
}

impl Surroundings {
    fn read<S: ReadAt>(volume: &Volume<S>, damaged: bool) -> Result<Self> {
        let text = |path: &str| as_far_as_it_goes(volume.read_small(path, MAX_TEXT), damaged);
        let list = |path: &str| Ok::<_, Error>(as_far_as_it_goes(volume.list(path), damaged)?.unwrap_or_default());
        let mut type1 = Vec::new();
        for e in list("loader/entries")?.into_iter().take(MAX_TYPE1) {
            let text = if e.is_dir() { None } else { text(&format!("loader/entries/{}", e.name))? };
            type1.push(Type1File { is_dir: e.is_dir(), text: text.unwrap_or_default(), name: e.name });
        }
        let keys = list("loader/keys")?;
        let there = |path: &str| volume.find(path).ok().flatten().is_some();
        Ok(Self {
            type1,
            loader_conf: text("loader/loader.conf")?,
            key_dirs: keys.into_iter().filter(Entry::is_dir).map(|e| e.name).collect(),
            others: OtherLoaders {
                macos: there("System/Library/CoreServices/boot.efi"),
                windows: there("EFI/Microsoft/Boot/bootmgfw.efi"),
                efi_shell: there("shellx64.efi") || there("shellaa64.efi"),
                default_loader: false,
            },
        })
    }
}

/// On a damaged volume, what cannot be read counts as not there: firmware fails on it too, and nothing is decided by it,
/// because a damaged volume is not written. On a sound one it stays an error.
fn as_far_as_it_goes<T>(read: Result<Option<T>>, damaged: bool) -> Result<Option<T>> {
    match read {
        Err(e) if damaged && e.kind() == Kind::Rejected => Ok(None),
        read => read,
    }
}

/// The name of the file, if a path of a Type #1 entry leads into `EFI/Linux`.
pub(crate) fn linux_file(path: &str) -> Option<&str> {
    let mut parts = path.split(['\\', '/']).filter(|part| !part.is_empty());
    let named = |part: Option<&str>, name: &str| part.is_some_and(|part| part.eq_ignore_ascii_case(name));
    let inside = named(parts.next(), "EFI") && named(parts.next(), "Linux");
    let name = parts.next()?;
    (inside && parts.next().is_none()).then_some(name)
}

/// A volume that is no FAT at all, or without a root directory: it is the ESP that is bad, not an image.
fn unhealthy(e: Error) -> Error {
    if e.kind() != Kind::Rejected {
        return e;
    }
    e.while_doing("the file system of the ESP is not healthy")
        .with_code(Code::Unhealthy)
        .advise("make an image of the partition first, then repair it with `fsck.fat` from another system")
}

/// The refusal to decide by what the medium did not give.
fn unreadable(why: &str) -> Error {
    Error::new(Code::Medium, format!("the medium does not give what is on it: {why}"))
        .advise("nothing was changed; try again, and do not trust a medium that goes on failing")
}

/// The removable-media loader, which is what Talos installs.
fn find_loader<S: ReadAt>(volume: &Volume<S>) -> Result<Option<(String, Option<Loader>)>> {
    for arch in [Arch::Arm64, Arch::Amd64] {
        let path = format!("EFI/BOOT/{}", arch.removable_loader());
        if let Some(entry) = volume.find(&path)?.filter(|e| !e.is_dir()) {
            let loader = volume.file(&entry).ok().and_then(|bytes| Loader::probe(&bytes));
            return Ok(Some((path, loader)));
        }
    }
    Ok(None)
}

/// The version and machine type to predict by: the loader's; without one the first image tells the machine.
fn rules<S: ReadAt>(volume: &Volume<S>, loader: Option<&(String, Option<Loader>)>) -> Result<(LoaderVersion, u16)> {
    if let Some((path, known)) = loader {
        if let Some(l) = known {
            return Ok((l.version.clone(), l.machine));
        }
        let machine = if path.ends_with(Arch::Arm64.removable_loader()) { 0xAA64 } else { 0x8664 };
        return Ok((LoaderVersion::assumed(), machine));
    }
    // A directory that cannot be read tells nothing; who lists it for its own sake finds out.
    for entry in volume.list(LINUX_DIR).ok().flatten().unwrap_or_default() {
        if let Some(arch) = volume.file(&entry).ok().and_then(|f| crate::pe::Head::read(&f).ok()).map(|h| h.machine) {
            return Ok((LoaderVersion::assumed(), arch));
        }
    }
    Ok((LoaderVersion::assumed(), 0xAA64))
}

/// A file as systemd-boot sees it. A broken chain reads as an empty file: firmware would fail there too.
fn probe<S: ReadAt>(volume: &Volume<S>, entry: &Entry, version: &LoaderVersion, machine: u16) -> UkiFile {
    let mut seen = match volume.file(entry) {
        Ok(bytes) => UkiFile::probe(&entry.name, &bytes, version, machine),
        Err(_) => UkiFile::probe(&entry.name, &Vec::new(), version, machine),
    };
    seen.read_only = entry.attributes.is_read_only();
    seen
}

fn describe<S: ReadAt>(volume: &Volume<S>, entry: Entry, seen: &UkiFile, loader: &LoaderVersion) -> EspFile {
    let bytes: Result<Pieces<&S>> = volume.file(&entry);
    let facts = bytes.and_then(|b| uki::probe(&b));
    let mut trouble = None;
    let named_efi = entry.name.to_ascii_lowercase().ends_with(".efi");
    let kind = match BackupName::parse(&entry.name) {
        Some(BackupName { disabled: false, .. }) => FileKind::Backup,
        Some(BackupName { disabled: true, .. }) => FileKind::Disabled,
        None if !named_efi => FileKind::Other,
        None => {
            trouble = match (seen.listed(loader), &facts) {
                (Err(skip), _) => Some(skip.to_string()),
                (Ok(_), Err(e)) => Some(e.to_string()),
                (Ok(_), Ok(facts)) if facts.extent(".linux").is_none() => Some("has no kernel (.linux section)".into()),
                (Ok(_), Ok(_)) => None,
            };
            if trouble.is_some() { FileKind::Broken } else { FileKind::Uki }
        }
    };
    EspFile { kind, entry, facts: facts.ok(), trouble, duplicate_of: None, sha256: None, schematic: None }
}

/// A source that remembers the first failure of the medium, for code that takes a failure for a broken file.
struct Watch<'s, S> {
    source: &'s S,
    first_error: Mutex<Option<String>>,
}

impl<S: ReadAt> ReadAt for Watch<'_, S> {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        let result = self.source.read_exact_at(buf, offset);
        // A range that does not exist is the file system's mistake.
        if let Err(e) = &result
            && e.kind() != std::io::ErrorKind::UnexpectedEof
        {
            let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| format!("byte {offset} of the ESP: {e}"));
        }
        result
    }
}

fn nothing() -> Esp<'static> {
    Esp {
        loader: LoaderVersion::assumed(),
        machine: 0,
        loader_path: String::new(),
        linux: Vec::new(),
        type1: Vec::new(),
        loader_conf: None,
        key_dirs: Vec::new(),
        others: OtherLoaders::default(),
        exists: &|_| false,
        xbootldr: None,
    }
}
