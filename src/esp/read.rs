//! Reading an ESP: what its files are, and what cannot be read.

use super::context::slashes;
use super::finder::{Finder, Listing};
use super::loader::LoaderRules;
use super::{BackupName, EspContext, EspFile, FileKind, Surroundings};
use crate::block::{Pieces, ReadAt, read_vec};
use crate::boot::{Loader, LoaderVersion, OtherLoaders, Skip, Type1File, UkiFile, type1_target};
use crate::fat::{Entry, Volume};
use crate::pe::{Arch, Head};
use crate::surgery::LINUX_DIR;
use crate::{Code, Error, Result, uki};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// More Type #1 entries than any loader would show.
const MAX_TYPE1: usize = 1024;
/// `loader.conf` and Type #1 entries are short texts.
const MAX_TEXT: u32 = 64 * 1024;

/// Where the targets of Type #1 entries lead: by their path in lower case the name that was found there.
pub(super) type EntryTargets = BTreeMap<String, Option<String>>;

/// Looks for the targets of Type #1 entries, by the rules of each loader that may run; and the first failure of the
/// medium. What is damaged is not there: firmware does not find it either.
pub(super) fn find_targets<S: ReadAt>(
    volume: &Volume<S>,
    type1: &[Type1File],
    rules: &[LoaderRules],
) -> (EntryTargets, Option<String>) {
    let (mut found, mut trouble) = (EntryTargets::new(), None);
    let mut finder = Finder::new(volume);
    let named = rules.iter().flat_map(|r| type1.iter().filter_map(|file| type1_target(file, &r.version)));
    for path in named {
        found.entry(path.to_lowercase()).or_insert_with(|| match finder.find(&slashes(&path)) {
            Ok(entry) => entry.map(|entry| entry.name),
            Err(e) => {
                if e.code().is_failed_access() {
                    trouble.get_or_insert_with(|| e.to_string());
                }
                None
            }
        });
    }
    (found, trouble)
}

impl Surroundings {
    pub(super) fn read<S: ReadAt>(volume: &Volume<S>, rules: &[LoaderRules], damaged: bool) -> Result<Self> {
        let keys = as_far_as_it_goes(volume.list("loader/keys"), damaged)?.unwrap_or_default();
        let there = |path: &str| volume.find(path).ok().flatten().is_some();
        let type1 = type1_files(volume, damaged)?;
        let (found, _) = find_targets(volume, &type1, rules);
        Ok(Self {
            type1,
            found,
            loader_conf: as_far_as_it_goes(volume.read_small("loader/loader.conf", MAX_TEXT), damaged)?,
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

/// The files of `loader/entries`.
pub(super) fn type1_files<S: ReadAt>(volume: &Volume<S>, damaged: bool) -> Result<Vec<Type1File>> {
    let mut type1 = Vec::new();
    let Some(directory) = as_far_as_it_goes(volume.find_directory("loader/entries"), damaged)? else {
        return Ok(type1);
    };
    let listing = Listing::of(directory);
    for e in listing.directory.entries.iter().filter(|e| !e.is_dot()).take(MAX_TYPE1) {
        let text = || match listing.find(&e.name).filter(|e| !e.is_dir()) {
            None => Ok(None),
            Some(entry) if entry.bytes > MAX_TEXT => volume.read_small(&format!("loader/entries/{}", e.name), MAX_TEXT),
            Some(entry) => Ok(Some(read_vec(&volume.file(entry)?, 0, entry.bytes as usize)?)),
        };
        let text = if e.is_dir() { None } else { as_far_as_it_goes(text(), damaged)? };
        type1.push(Type1File { is_dir: e.is_dir(), text: text.unwrap_or_default(), name: e.name.clone() });
    }
    Ok(type1)
}

/// On a damaged volume, what cannot be read counts as not there: firmware fails on it too, and nothing is decided by
/// it, because a damaged volume is not written. On a sound one it stays an error.
pub(super) fn as_far_as_it_goes<T>(read: Result<Option<T>>, damaged: bool) -> Result<Option<T>> {
    match read {
        Err(e) if damaged && e.code().is_bad_content() => Ok(None),
        read => read,
    }
}

/// A volume that is no FAT at all, or without a root directory: it is the ESP that is bad, not an image.
pub(super) fn unhealthy(e: Error) -> Error {
    if e.code() == Code::Unsupported {
        return e.with_code(Code::Unsafe).advise(
            "copy its files to another place, make its file system anew with larger clusters (`mkfs.fat -s 8`), and copy \
             them back",
        );
    }
    if !e.code().is_bad_content() {
        return e;
    }
    e.while_doing("the file system of the ESP is not healthy")
        .with_code(Code::Unhealthy)
        .advise("make an image of the partition first, then repair it with `fsck.fat` from another system")
}

/// The architecture that a volume is for, as its removable-media loader tells, and where there are several or none, its
/// images.
pub(super) fn find_arch<S: ReadAt>(volume: &Volume<S>) -> Arch {
    let loaders: Vec<Arch> = [Arch::Arm64, Arch::Amd64].into_iter().filter(|arch| has_loader(volume, *arch)).collect();
    if let [only] = loaders[..] {
        return only;
    }
    // A directory that cannot be read tells nothing; who lists it for its own sake finds out.
    let images = volume.list(LINUX_DIR).ok().flatten().unwrap_or_default();
    let arch = |entry: &Entry| Head::read(&volume.file(entry).ok()?).ok()?.arch();
    images.iter().filter(|e| !e.is_dir()).find_map(arch).or_else(|| loaders.first().copied()).unwrap_or(Arch::Arm64)
}

/// The architecture of the board: the one that was requested, if a loader for it is here; else as the volume tells.
pub(super) fn board_arch<S: ReadAt>(volume: &Volume<S>, context: &EspContext) -> Arch {
    context.arch.filter(|arch| has_loader(volume, *arch)).unwrap_or_else(|| find_arch(volume))
}

/// Whether there is a removable-media loader for an architecture.
pub(super) fn has_loader<S: ReadAt>(volume: &Volume<S>, arch: Arch) -> bool {
    let path = format!("EFI/BOOT/{}", arch.removable_loader());
    volume.find(&path).ok().flatten().is_some_and(|e| !e.is_dir())
}

/// The removable-media loader of an architecture, which is what Talos installs.
pub(super) fn find_loader<S: ReadAt>(volume: &Volume<S>, arch: Arch) -> Result<Option<(String, Option<Loader>)>> {
    let path = format!("EFI/BOOT/{}", arch.removable_loader());
    let Some(entry) = volume.find(&path)?.filter(|e| !e.is_dir()) else { return Ok(None) };
    let loader = volume.file(&entry).ok().and_then(|bytes| Loader::probe(&bytes));
    Ok(Some((path, loader)))
}

/// What a file is. `others` are the architectures, beside the board's own, that have a loader on this ESP.
pub(super) fn describe<S: ReadAt>(
    volume: &Volume<S>,
    entry: Entry,
    seen: &UkiFile,
    loader: &LoaderVersion,
    others: &[Arch],
) -> EspFile {
    let bytes: Result<Pieces<&S>> = volume.file(&entry);
    let facts = bytes.and_then(|b| uki::probe(&b));
    let mut trouble = None;
    let mut is_foreign = false;
    let named_efi = entry.name.to_ascii_lowercase().ends_with(".efi");
    let kind = match BackupName::parse(&entry.name) {
        Some(BackupName { disabled: false, .. }) => FileKind::Backup,
        Some(BackupName { disabled: true, .. }) => FileKind::Disabled,
        None if !named_efi => FileKind::Other,
        None => {
            let no_kernel = |facts: &uki::Facts| {
                facts.extent(".linux").is_none().then(|| "has no kernel (.linux section)".to_owned())
            };
            trouble = match (seen.listed(loader), &facts) {
                // Another board's, whose loader is here as well.
                (Err(Skip::OtherMachine(machine)), Ok(facts)) if is_of(machine, others) => {
                    is_foreign = true;
                    no_kernel(facts)
                }
                (Err(skip), _) => Some(skip.to_string()),
                (Ok(_), Err(e)) => Some(e.to_string()),
                (Ok(_), Ok(facts)) => no_kernel(facts),
            };
            if trouble.is_some() { FileKind::Broken } else { FileKind::Uki }
        }
    };
    let facts = facts.ok().map(|facts| Box::new(facts.without_contents()));
    EspFile {
        kind,
        entry,
        facts,
        trouble,
        is_foreign,
        duplicate_of: None,
        sha256: None,
        schematic: None,
        extensions: None,
        waiting_services: Vec::new(),
    }
}

fn is_of(machine: u16, archs: &[Arch]) -> bool {
    Arch::from_machine(machine).is_some_and(|arch| archs.contains(&arch))
}

/// A source that remembers the first failure of the medium, for code that takes a failure for a broken file.
pub(super) struct FirstFailure<'s, S> {
    pub(super) source: &'s S,
    pub(super) first_error: Mutex<Option<String>>,
}

impl<S: ReadAt> ReadAt for FirstFailure<'_, S> {
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
