//! What is on an ESP: the files of `EFI/Linux` and the parts they play, space, health, and what the board starts.
//!
//! Reads only. [`Inventory::read`] looks at headers and is quick; [`Inventory::examine`] also reads every image whole,
//! for hashes and schematics.

mod altered;
mod context;
mod counting;
mod finder;
mod loader;
mod names;
mod place;
mod predict;
mod read;
mod room;
mod runs;

pub use crate::counter::without_counter;
pub(crate) use altered::{Altered, Content};
pub use context::{EspContext, OtherVolume};
pub use counting::FutureStart;
pub use names::{BackupName, backup_of, disabled_of};
pub use place::Place;
pub use predict::{OneShot, Predictions};
pub use room::{Room, WayToRoom};
pub use runs::{HandedCmdline, Runs};

use crate::block::{ReadAt, sha256_of};
use crate::boot::{Loader, OtherLoaders, Type1File, UkiFile, Variables};
use crate::bootpath::Way;
use crate::fat::{Entry, Health, ProblemClass, Remedy, Volume};
use crate::pe::Arch;
use crate::surgery::{Interrupted, LINUX_DIR, LostClusters, interrupted, refuse_unhealthy};
use crate::uki::{CompanionKind, Companions, Extensions, Family, Identity};
use crate::{Code, Error, Result, uki};
use loader::LoaderRules;
use predict::XbootldrContents;
pub(crate) use predict::linux_file;
use read::{
    EntryTargets, FirstFailure, as_far_as_it_goes, board_arch, describe, find_loader, has_loader, type1_files,
    unhealthy,
};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// More addons than any board has.
const MAX_ADDONS: usize = 64;

/// September 2020, in seconds since 1970 UTC: no swap is older.
pub(crate) const FIRST_TIME: u64 = 1_600_000_000;
/// The year 2100, in seconds since 1970 UTC: a number beyond it is no time of a swap.
pub(crate) const END_OF_TIME: u64 = 4_102_444_800;

/// What a file in `EFI/Linux` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct EspFile {
    /// What it is.
    pub kind: FileKind,
    /// Its directory entry.
    pub entry: Entry,
    /// What its headers and small sections say, if it is a whole PE image ([`uki::Facts::without_contents`]).
    pub facts: Option<Box<uki::Facts>>,
    /// Why it is broken.
    pub trouble: Option<String>,
    /// It is for another architecture whose boot loader is on this ESP, too: another board starts it.
    pub is_foreign: bool,
    /// The file in the menu that it doubles: the same system of the same version, kernel and architecture
    /// ([`uki::Identity`]).
    pub duplicate_of: Option<String>,
    /// SHA-256 in hex, once examined.
    pub sha256: Option<String>,
    /// The schematic it was built from, once examined.
    pub schematic: Option<String>,
    /// Its system extensions, once examined.
    pub extensions: Option<Box<Extensions>>,
    /// Names of its extension services that wait for an ExtensionServiceConfig, once examined.
    pub waiting_services: Vec<String>,
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
        self.facts.as_deref().map_or(Family::Unknown, Family::of)
    }

    /// What it is a copy of, if of anything.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.facts.as_ref()?.identity()
    }
}

/// The state of an ESP.
#[non_exhaustive]
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
    /// What lies around the volume.
    pub context: Arc<EspContext>,
    /// What systemd-boot starts in each scenario. Whether the way of the boot comes by it
    /// at all, [`Self::way`] tells.
    pub predictions: Predictions,
    /// The ways of the boot, in the order of `SCENARIOS`.
    ways: [Way; 3],
    /// The files as systemd-boot sees them.
    linux: Vec<UkiFile>,
    surroundings: Surroundings,
    /// What lies beside the images for systemd's stub to add to them.
    pub companions: Companions,
    /// What the addons among them say, by path, or why they say nothing.
    pub addons: BTreeMap<String, Result<uki::Facts, String>>,
    /// Whether the images were read whole ([`Self::examine`]).
    pub examined: bool,
    /// What systemd-boot reads on the Extended Boot Loader Partition.
    companion: Option<XbootldrContents>,
    /// The systemd-boots of these ways.
    rules: [LoaderRules; 3],
    /// The first error of the medium that was taken for a broken or missing file.
    unreadable: Option<String>,
}

/// What systemd-boot looks at beside `EFI/Linux`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Surroundings {
    type1: Vec<Type1File>,
    /// What the entries name.
    found: EntryTargets,
    loader_conf: Option<Vec<u8>>,
    key_dirs: Vec<String>,
    others: OtherLoaders,
}

impl<S: ReadAt> Inventory<S> {
    /// Reads an ESP of which nothing else is known. A damaged volume is read as far as it goes: `health` tells.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`] when the volume cannot be opened or its root directory not read.
    pub fn read(source: S, variables: Variables) -> Result<Self> {
        Self::read_in(source, variables, Arc::default())
    }

    /// Reads an ESP in its surroundings.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_in(source: S, variables: Variables, context: Arc<EspContext>) -> Result<Self> {
        Self::read_with(source, variables, context, None)
    }

    /// The same ESP once more, with the variables as they were. What images say of themselves is not kept
    /// ([`EspFile::facts`]), and what systemd-boot sees of them is shared where it is the same.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_again<B>(source: S, before: &Inventory<B>) -> Result<Self> {
        let known = before.linux.iter().map(|file| (file.name.as_str(), file)).collect();
        Self::read_with(source, before.variables.clone(), Arc::clone(&before.context), Some(&known))
    }

    /// `known`: the files that another inventory has, by their names.
    fn read_with(
        source: S,
        variables: Variables,
        context: Arc<EspContext>,
        known: Option<&HashMap<&str, &UkiFile>>,
    ) -> Result<Self> {
        let volume = Volume::open(source).map_err(unhealthy)?;
        let health = Health::check(&volume).map_err(unhealthy)?;
        let interrupted = interrupted(&volume)?;
        let damaged = health.is_damaged();
        let lost = if damaged { &[][..] } else { &health.lost };
        let lost = LostClusters::look(&volume, lost, interrupted.as_ref())?;
        // What cannot be read looks like what is not there; whoever decides by it has to know.
        let watch = FirstFailure { source: volume.source(), first_error: Mutex::default() };
        let watched = Volume::with_table(watch, volume.geometry().clone(), volume.shared_table());
        let arch = board_arch(&watched, &context);
        let loader = as_far_as_it_goes(find_loader(&watched, arch), damaged)?;
        let ways = predict::ways(&watched, &context);
        let rules = ways.each_ref().map(|way| LoaderRules::of(way, &watched, context.this(), arch));
        let others: Vec<Arch> = Arch::ALL.into_iter().filter(|a| *a != arch && has_loader(&watched, *a)).collect();
        let entries = as_far_as_it_goes(watched.list(LINUX_DIR), damaged)?.unwrap_or_default();
        let mut files = Vec::with_capacity(entries.len());
        let mut linux = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut seen = predict::seen(&watched, &entry, &rules);
            if let Some(known) = known.and_then(|known| known.get(seen.name.as_str()))
                && known.content == seen.content
            {
                seen.content.clone_from(&known.content);
            }
            if !entry.is_dir() {
                let mut file = describe(&watched, entry, &seen, &rules[0].version, &others);
                file.facts = file.facts.filter(|_| known.is_none());
                files.push(file);
            }
            linux.push(seen);
        }
        let surroundings = Surroundings::read(&watched, &rules, damaged)?;
        let companions = Companions::read(&watched, damaged)?;
        let addons = read_addons(&watched, &companions);
        let companion = context.xbootldr().map(|x| XbootldrContents::read(x, &rules));
        let unreadable = watched.into_source().first_error.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut inventory = Self {
            volume,
            health,
            interrupted,
            lost,
            files,
            loader,
            variables,
            context,
            predictions: Predictions::unknown(),
            ways,
            linux,
            surroundings,
            companions,
            addons,
            examined: false,
            companion,
            rules,
            unreadable,
        };
        inventory.predictions = inventory.predict(&inventory.linux);
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
        // The menu is one: what was cut there may have left it half-way.
        if let Some((found, on)) = self.interrupted_beside()?.filter(|(found, _)| found.is_operation()) {
            return Err(found.error().while_doing(format!("on {on}, the Extended Boot Loader Partition")));
        }
        refuse_unhealthy(&self.health)
    }

    /// What stands under the record's name on the Extended Boot Loader Partition, and that partition's name.
    ///
    /// # Errors
    /// What the source reports.
    pub fn interrupted_beside(&self) -> Result<Option<(Interrupted, &str)>> {
        let (Some(volume), Some(place)) = (self.context.xbootldr(), self.context.xbootldr_place()) else {
            return Ok(None);
        };
        match interrupted(volume) {
            // What cannot be read there is said elsewhere.
            Err(e) if e.code().is_bad_content() => Ok(None),
            found => Ok(found?.map(|found| (found, self.context.name(place)))),
        }
    }

    /// What is not in order on the Extended Boot Loader Partition and `recover` puts right, where no record is there,
    /// and that partition's name.
    ///
    /// # Errors
    /// What the source reports.
    pub fn leftovers_beside(&self) -> Result<Option<(String, &str)>> {
        let (Some(volume), Some(place)) = (self.context.xbootldr(), self.context.xbootldr_place()) else {
            return Ok(None);
        };
        if self.interrupted_beside()?.is_some() {
            return Ok(None);
        }
        let health = match Health::check(volume) {
            Err(e) if e.code().is_bad_content() => return Ok(None),
            health => health?,
        };
        if health.is_healthy() || health.is_damaged() && !matches!(health.remedy, Remedy::Recover | Remedy::DropSeed) {
            return Ok(None);
        }
        let what = health.problems.iter().filter(|p| p.class != ProblemClass::Note).take(4);
        let what: Vec<&str> = what.map(|p| p.what.as_str()).collect();
        Ok(Some((what.join("; "), self.context.name(place))))
    }

    /// Refuses to go on when the ESP is not what this inventory saw: somebody else wrote between the plan and the claim
    /// on it.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`]; what the source reports.
    pub fn refuse_changed<N: ReadAt>(&self, now: &Volume<N>) -> Result<()> {
        // What the medium failed to give, then or now, looks like something that is not there.
        self.refuse_unreadable()?;
        let watch = FirstFailure { source: now.source(), first_error: Mutex::default() };
        let watched = Volume::with_table(watch, now.geometry().clone(), now.shared_table());
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
        if Surroundings::read(now, &self.rules, false)? != self.surroundings {
            return changed("what systemd-boot reads in loader/");
        }
        if Companions::read(now, false)? != self.companions {
            return changed("what lies beside an image for the stub to add");
        }
        if find_loader(now, board_arch(now, &self.context))? != self.loader {
            return changed("the boot loader in EFI/BOOT");
        }
        if predict::ways(now, &self.context) != self.ways {
            return changed("what the firmware starts");
        }
        let companion = self.context.xbootldr().map(|x| XbootldrContents::read(x, &self.rules));
        if companion != self.companion {
            return changed("the Extended Boot Loader Partition");
        }
        Ok(())
    }

    /// Reads every image whole: hashes and schematics.
    ///
    /// # Errors
    /// What the source reports. An image that cannot be understood keeps its hash.
    pub fn examine(&mut self) -> Result<()> {
        self.examined = true;
        for file in &mut self.files {
            let Ok(bytes) = self.volume.file(&file.entry) else { continue };
            if file.facts.is_some()
                && let Ok(uki) = uki::analyse(&bytes, &mut [])
            {
                file.sha256 = uki.sha256.map(hex::encode);
                file.schematic = uki.schematic().map(|s| s.id.clone());
                file.waiting_services = uki.waiting_services().0;
                file.extensions = uki.extensions.ok().map(|extensions| Box::new(extensions.unwrap_or_default()));
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
        match &self.unreadable {
            None => Ok(()),
            Some(why) => Err(unreadable(why)),
        }
    }

    /// The addons, credentials and extension images in `<name>.extra.d/`, which systemd's stub adds to the UKI of this
    /// name.
    #[must_use]
    pub fn companions_of(&self, name: &str) -> Vec<&str> {
        self.companions.own(name).map(uki::Companion::name).collect()
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
        let name = self.predictions.next.selected_file()?;
        self.files.iter().find(|f| f.name() == name)
    }

    /// A sound image that is not the one that starts, the highest in the menu: `swap` can put it in that one's place.
    #[must_use]
    pub fn other_sound_image(&self) -> Option<&EspFile> {
        let next = &self.predictions.next;
        let listed = next.menu.iter().filter_map(|entry| self.file(entry.file.as_deref()?));
        let is_sound =
            |f: &&EspFile| f.kind == FileKind::Uki && !f.is_foreign && next.selected_file() != Some(f.name());
        listed.chain(&self.files).find(is_sound)
    }

    /// The architecture of the board, as it is known or its boot loader tells, else its images.
    #[must_use]
    pub fn arch(&self) -> Option<Arch> {
        let loader = self.loader.as_ref().and_then(|(_, l)| Arch::from_machine(l.as_ref()?.machine));
        let asked = self.context.arch.filter(|arch| has_loader(&self.volume, *arch));
        asked.or(loader).or_else(|| self.files.iter().find_map(EspFile::arch))
    }

    /// Whether the board is another one than the volume would tell without being asked for an architecture.
    #[must_use]
    pub fn is_arch_chosen(&self) -> bool {
        read::board_arch(&self.volume, &self.context) != read::find_arch(&self.volume)
    }

    /// The file of this name, by FAT's rules.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&EspFile> {
        self.files.iter().find(|f| f.entry.is_named(name))
    }

    fn mark_duplicates(&mut self) {
        // The one that starts is the original; else the one highest in the menu.
        let next = &self.predictions.next;
        let menu = next.selected_file().into_iter().chain(next.menu.iter().filter_map(|e| e.file.as_deref()));
        let mut ranks = HashMap::new();
        for (rank, name) in menu.enumerate() {
            ranks.entry(name).or_insert(rank);
        }
        let mut originals: HashMap<uki::Identity, (usize, String)> = HashMap::new();
        for file in self.files.iter().filter(|f| f.kind == FileKind::Uki) {
            let Some(identity) = file.identity() else { continue };
            let rank = ranks.get(file.name()).copied().unwrap_or(usize::MAX);
            let best = originals.entry(identity).or_insert_with(|| (rank, file.name().to_owned()));
            if rank < best.0 {
                *best = (rank, file.name().to_owned());
            }
        }
        for file in self.files.iter_mut().filter(|f| f.kind == FileKind::Uki) {
            let original = file.identity().and_then(|identity| originals.get(&identity));
            file.duplicate_of = original.map(|(_, name)| name.clone()).filter(|name| name != file.name());
        }
    }
}

/// The refusal to decide by what the medium did not give.
fn unreadable(why: &str) -> Error {
    Error::new(Code::Medium, format!("the medium does not give what is on it: {why}"))
        .advise("nothing was changed; try again, and do not trust a medium that goes on failing")
}

/// The headers and small sections of the addons, as many as any board has.
fn read_addons<S: ReadAt>(volume: &Volume<S>, companions: &Companions) -> BTreeMap<String, Result<uki::Facts, String>> {
    let addons = companions.iter().filter(|c| c.kind == CompanionKind::Addon).take(MAX_ADDONS);
    let read =
        |c: &uki::Companion| volume.file(&c.entry).and_then(|bytes| uki::probe(&bytes)).map_err(|e| e.to_string());
    addons.map(|c| (c.path.clone(), read(c))).collect()
}
