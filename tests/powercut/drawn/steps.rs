//! Steps by lot: the program's operations, planned and carried out by its own code; and what others do in between.

use super::board::{LINUX, longest};
use super::images::{Image, VERSIONS};
use crate::crash::Frame;
use crate::crash::Random;
use bootsurgeon::block::{Memory, ReadAt, Sink, WriteAt};
use bootsurgeon::boot::Variables;
use bootsurgeon::bootpath::BootVolume;
use bootsurgeon::esp::{BackupName, EspContext, Inventory, Place};
use bootsurgeon::fat::{Editor, Stamp, Volume};
use bootsurgeon::pe::Arch;
use bootsurgeon::plan::{NewImage, PruneOptions, PrunePlan, SwapOptions, SwapPlan, backups, place_of};
use bootsurgeon::surgery::{
    ContentRef, FileStep as Action, Order, Rename, Staging, open_healthy, recover, rehearse_recovery,
};
use bootsurgeon::{Error, Result, uki};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What somebody does to the ESP.
#[derive(Clone)]
pub enum Step {
    Swap {
        image: Image,
        target: Option<String>,
        keep_duplicates: bool,
        keep_backups: Option<usize>,
        /// The image can be read only once, so it is staged before there is a plan.
        once: bool,
    },
    Restore {
        backup: Option<String>,
    },
    Prune {
        delete: bool,
        keep_backups: Option<usize>,
        no_fallback: bool,
    },
    Recover,
    /// `talosctl upgrade`: every `Talos-*.efi` but the one that boots goes, and one comes, under a name that is free.
    Upgrade(Image),
    /// Somebody puts a file under this name, which is free.
    Put(String, Image),
    /// systemd-boot starts a file with a boot counter, and renames it.
    Boot,
}

/// What a step came to.
#[derive(Default)]
pub struct Done {
    /// Whether there was anything to do.
    pub changed: bool,
    /// Files that the plan said would be deleted.
    pub deletes: Vec<String>,
    /// Every name that the plan said would change; where there is a plan.
    pub names: Option<Vec<String>>,
    /// The path of the image that was replaced in its place.
    pub in_place: Option<String>,
}

const NOTHING: Done = Done { changed: false, deletes: Vec::new(), names: None, in_place: None };

/// A mistake in the order of a plan's steps, made on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tampering {
    /// What leaves the menu before the commit leaves after it.
    Late,
    /// What leaves the menu after the commit leaves before it.
    Early,
    /// What leaves the menu after the commit leaves in the reverse order.
    Reversed,
}

impl Tampering {
    fn apply(self, order: &mut Order) {
        let renames = |steps: &[Action]| -> Vec<Rename> {
            let rename = |s: &Action| match s {
                Action::Rename(rename) => Some(rename.clone()),
                Action::Remove(_) => None,
            };
            steps.iter().filter_map(rename).collect()
        };
        match self {
            Self::Late => {
                let late: Vec<Action> = order.before.drain(..).map(Action::Rename).collect();
                order.after.splice(0..0, late);
            }
            Self::Early => {
                order.before.extend(renames(&order.after));
                order.after.retain(|s| matches!(s, Action::Remove(_)));
            }
            Self::Reversed => {
                let mut late = renames(&order.after);
                order.after.retain(|s| matches!(s, Action::Remove(_)));
                late.reverse();
                order.after.splice(0..0, late.into_iter().map(Action::Rename));
            }
        }
    }
}

/// How a step is carried out.
#[derive(Clone, Copy)]
pub struct How<'a> {
    pub variables: &'a Variables,
    /// The number of the step: a second passes between two.
    pub nth: u64,
    pub tampering: Option<Tampering>,
    /// The ESP, where the volume is the Extended Boot Loader Partition beside it.
    pub esp: Option<&'a Frame>,
    /// Where the image lies that starts.
    pub directory: &'static str,
}

impl<'a> How<'a> {
    /// What is on the ESP, with the volume beside it where that is another one.
    fn inventory(&self, medium: &'a dyn WriteAt) -> Result<Inventory<&'a dyn ReadAt>> {
        let Some(esp) = self.esp else { return Inventory::read(medium as &dyn ReadAt, self.variables.clone()) };
        let bytes = bootsurgeon::block::read_vec(medium, 0, medium.size() as usize)?;
        let copy: Box<dyn ReadAt> = Box::new(Memory::with_sector_size(bytes, medium.sector_size()));
        let volume = |number: u32| BootVolume {
            name: format!("partition {number}"),
            partuuid: None,
            place: Some((number, 2048, 4096)),
        };
        let mut context = EspContext::default();
        context.add_this(volume(1));
        context.add(volume(2), Volume::open(copy)?, true);
        Inventory::read_in(esp as &dyn ReadAt, self.variables.clone(), Arc::new(context))
    }

    /// The image in its own place, if there is one on this volume.
    fn place<S: ReadAt>(&self, esp: &Inventory<S>) -> Result<Option<Place>> {
        let place = place_of(esp, None)?;
        if self.esp.is_some() && place.as_ref().is_none_or(|place| place.partition.is_none()) {
            return Err(Error::refused("what starts is on the ESP"));
        }
        Ok(place)
    }

    fn now(&self) -> u64 {
        TIME + self.nth
    }

    /// The order that a plan gives, or what tampering makes of it.
    fn order(&self, plan: &SwapPlan, command: &str, time: u64) -> Order {
        let mut order = plan.order(command, time);
        if let Some(tampering) = self.tampering {
            tampering.apply(&mut order);
        }
        order
    }
}
/// When the first step happens.
const TIME: u64 = 1_700_000_000;

impl Step {
    /// An operation of the program on a directory of these names.
    pub fn draw(random: &mut Random, arch: Arch, sector: u32, names: &[String], selected: Option<&str>) -> Self {
        let keep_backups = |random: &mut Random| random.chance(20).then(|| random.below(3));
        match random.below(20) {
            0..=9 => {
                let version = random.pick(&VERSIONS);
                let image = Image::sound(random, arch, version);
                let bootable: Vec<&String> =
                    names.iter().filter(|n| n.to_ascii_lowercase().ends_with(".efi")).collect();
                let target = match random.below(12) {
                    0..=5 => None,
                    6 | 7 => selected.map(str::to_owned),
                    8 | 9 if !bootable.is_empty() => {
                        let name = random.pick(&bootable).clone();
                        // FAT does not tell them apart.
                        Some(if random.chance(25) { name.to_ascii_uppercase() } else { name })
                    }
                    10 => Some("Talos.efi".to_owned()),
                    _ => {
                        let n = longest(sector) - random.pick(&[5, 10, 20, 40]);
                        Some(format!("{}.efi", &"Another-name-".repeat(25)[..n.min(200)]))
                    }
                };
                let keep_duplicates = random.chance(20);
                Self::Swap {
                    image,
                    target,
                    keep_duplicates,
                    keep_backups: keep_backups(random),
                    once: random.chance(15),
                }
            }
            10..=14 => {
                let known: Vec<&String> = names.iter().filter(|n| BackupName::parse(n).is_some()).collect();
                let backup = (random.chance(50) && !known.is_empty()).then(|| random.pick(&known).clone());
                Self::Restore { backup }
            }
            15..=18 => {
                let delete = random.chance(50);
                Self::Prune { delete, keep_backups: keep_backups(random), no_fallback: random.chance(30) }
            }
            _ => Self::Recover,
        }
    }

    /// What somebody else does; `names` are those of an operation that was cut.
    pub fn draw_other(random: &mut Random, arch: Arch, names: &[String]) -> Self {
        let version = random.pick(&VERSIONS);
        match random.below(10) {
            0..=4 => Self::Upgrade(Image::sound(random, arch, version)),
            5..=7 if !names.is_empty() => Self::Put(random.pick(names), Image::sound(random, arch, version)),
            _ => Self::Boot,
        }
    }

    /// One word, for tables.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Swap { target: None, .. } => "swap",
            Self::Swap { target: Some(_), .. } => "swap --target",
            Self::Restore { .. } => "restore",
            Self::Prune { delete: false, .. } => "prune",
            Self::Prune { delete: true, .. } => "prune --delete",
            Self::Recover => "recover",
            Self::Upgrade(_) => "talosctl upgrade",
            Self::Put(..) => "a copy by hand",
            Self::Boot => "boot",
        }
    }

    /// For people: the command line.
    pub fn describe(&self) -> String {
        let keep = |k: &Option<usize>| k.map_or(String::new(), |n| format!(" --keep-backups {n}"));
        let flag = |yes: &bool, name: &str| if *yes { format!(" {name}") } else { String::new() };
        match self {
            Self::Swap { image, target, keep_duplicates, keep_backups, once } => format!(
                "swap {} of {}{}{}{}",
                if *once { "-" } else { "IMAGE" },
                image.version.as_deref().unwrap_or("no version"),
                target.as_ref().map_or(String::new(), |t| format!(" --target {t}")),
                flag(keep_duplicates, "--keep-duplicates"),
                keep(keep_backups),
            ),
            Self::Restore { backup } => format!("restore {}", backup.as_deref().unwrap_or("")),
            Self::Prune { delete, keep_backups, no_fallback } => {
                let (delete, last) = (flag(delete, "--delete"), flag(no_fallback, "--no-fallback"));
                format!("prune{delete}{}{last}", keep(keep_backups))
            }
            Self::Upgrade(image) => format!("talosctl upgrade to {}", image.version.as_deref().unwrap_or("?")),
            Self::Put(name, _) => format!("somebody puts a file there as {name}"),
            Self::Recover | Self::Boot => self.word().to_owned(),
        }
    }

    /// The image that the step brings.
    pub fn image(&self) -> Option<&Image> {
        match self {
            Self::Swap { image, .. } | Self::Upgrade(image) | Self::Put(_, image) => Some(image),
            _ => None,
        }
    }

    /// Does it, as the command does.
    pub fn perform(&self, medium: &dyn WriteAt, how: &How<'_>) -> Result<Done> {
        match self {
            Self::Swap { .. } => self.swap(medium, how),
            Self::Restore { backup } => restore(medium, how, backup.as_deref()),
            Self::Prune { delete, keep_backups, no_fallback } => {
                let esp = how.inventory(medium)?;
                esp.refuse_unsafe()?;
                let place = how.place(&esp)?;
                let time = place.as_ref().map_or_else(|| esp.stamp(how.now()), |place| place.stamp(how.now()));
                let options =
                    PruneOptions { delete: *delete, keep_backups: *keep_backups, no_fallback: *no_fallback, time };
                let plan = match &place {
                    Some(place) => PrunePlan::with_place(None, &esp, place, &options)?,
                    None => PrunePlan::make(&esp, &options)?,
                };
                if plan.is_empty() {
                    return Ok(NOTHING);
                }
                let tidying = plan.tidying_beside(time).unwrap_or_else(|| plan.tidying(time));
                tidying.rehearse(medium, medium.sector_size())?;
                let _ = tidying.run(open_healthy(medium)?)?;
                let renamed = plan.renames.iter().flat_map(|r| [r.from.clone(), r.to.clone()]);
                let names = Some(renamed.chain(plan.delete.iter().map(|path| name_of(path))).collect());
                Ok(Done { changed: true, deletes: plan.delete, names, in_place: None })
            }
            Self::Recover => {
                // Now and then it is asked first what would be done.
                let told = (how.nth % 4 == 0).then(|| rehearse_recovery(medium, medium.sector_size())).transpose()?;
                let done = recover(medium)?;
                if told.is_some_and(|told| told != done) {
                    return Err(Error::io(format!("the dry run promised something else than {done:?}")));
                }
                Ok(Done { changed: !done.actions.is_empty(), ..Done::default() })
            }
            Self::Upgrade(image) => upgrade(medium, how.variables, image),
            Self::Put(name, image) => put(medium, how.directory, name, image),
            Self::Boot => boot(medium, how.variables),
        }
    }

    fn swap(&self, medium: &dyn WriteAt, how: &How<'_>) -> Result<Done> {
        let Self::Swap { image, target, keep_duplicates, keep_backups, once } = self else { return Ok(NOTHING) };
        let esp = how.inventory(medium)?;
        esp.refuse_unsafe()?;
        let place = how.place(&esp)?;
        let time = place.as_ref().map_or_else(|| esp.stamp(how.now()), |place| place.stamp(how.now()));
        let bytes = &image.bytes;
        let facts = uki::probe(bytes)?;
        let (target, keep_duplicates, keep_backups) = (target.clone(), *keep_duplicates, *keep_backups);
        let options = SwapOptions { target, keep_duplicates, keep_backups, time };
        let bytes_to_write = bytes.len() as u64;
        let new = NewImage { source: bytes, facts: Some(&facts), bytes_to_write, from_file: None };
        let make = |new: &NewImage<'_>| match &place {
            Some(place) => SwapPlan::in_place(&esp, place, new, &options),
            None => SwapPlan::make(&esp, new, &options),
        };
        let early = if *once { None } else { Some(make(&new)?) };
        let is_there = |plan: &SwapPlan| {
            if let Some(place) = &place {
                let there = esp.open_at(&place.at)?.map(|there| read_all(&there)).transpose()?;
                return Ok(plan.delete.is_empty() && there.as_ref() == Some(bytes));
            }
            let Some(file) = esp.file(&plan.target) else { return Ok::<_, Error>(false) };
            let quiet = plan.renames.is_empty() && plan.delete.is_empty();
            let same_length = file.entry.bytes as usize == bytes.len();
            Ok(quiet && same_length && read_all(&esp.volume.file(&file.entry)?)? == *bytes)
        };
        if let Some(plan) = &early {
            if is_there(plan)? {
                return Ok(NOTHING);
            }
            how.order(plan, "swap", time).rehearse(medium, medium.sector_size(), bytes_to_write)?;
        }
        let mut staging = Staging::begin(open_healthy(medium)?, bytes.len() as u64)?;
        if *once {
            // Over a network or through a pipe: read back while the rest arrives.
            staging = staging.in_pieces(8192);
        }
        for chunk in bytes.chunks(8192) {
            staging.chunk(chunk)?;
        }
        let staged = staging.seal(Sha256::digest(bytes).into())?;
        let plan = match early {
            Some(plan) => plan,
            None => make(&NewImage { source: &staged.image()?, ..new })?,
        };
        if is_there(&plan)? {
            return Ok(NOTHING);
        }
        let _ = staged.commit(&how.order(&plan, "swap", time))?;
        let (names, in_place) = (Some(names(&plan, None)), place.map(|place| path_in(&place)));
        Ok(Done { changed: true, deletes: plan.delete, names, in_place })
    }
}

/// Every name that a plan says will change.
fn names(plan: &SwapPlan, from: Option<&str>) -> Vec<String> {
    let renamed = plan.renames.iter().flat_map(|r| [r.from.clone(), r.to.clone()]);
    let backups = plan.backup.iter().chain(&plan.target_backup).cloned();
    let all = renamed.chain(backups).chain(plan.delete.iter().cloned()).chain(from.map(str::to_owned));
    all.chain(Some(plan.target.clone())).map(|path| name_of(&path)).collect()
}

/// A name in its directory: plans give a path where that is not `EFI/Linux`.
fn name_of(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

fn path_in(place: &Place) -> String {
    format!("{}/{}", place.directory, place.name())
}

fn restore(medium: &dyn WriteAt, how: &How<'_>, backup: Option<&str>) -> Result<Done> {
    let esp = how.inventory(medium)?;
    esp.refuse_unsafe()?;
    let place = how.place(&esp)?;
    let of_place = place.as_ref().and_then(|place| Some(place.backups().first()?.0.name().to_owned()));
    let name = match backup {
        None if place.is_some() => of_place.ok_or_else(|| Error::usage("there is no backup"))?,
        Some(name) => name.to_owned(),
        None => backups(&esp).first().ok_or_else(|| Error::usage("there is no backup in EFI/Linux"))?.0.clone(),
    };
    let file = match &place {
        Some(place) => place.file(&name),
        None => esp.file(&name),
    };
    let file = file.ok_or_else(|| Error::usage(format!("there is no {name}")))?;
    let parsed = BackupName::parse(file.name()).ok_or_else(|| Error::usage("no backup"))?;
    let arch = place.as_ref().map_or_else(|| esp.arch(), |place| Arch::from_machine(place.program.machine));
    // What `verify` would not accept comes to no plan.
    let sound = file.facts.as_ref().is_some_and(|f| f.extent(".linux").is_some() && f.arch == arch);
    if !sound {
        return Err(Error::rejected("the backup is no image that starts here"));
    }
    let bytes: Box<dyn ReadAt + '_> = match &place {
        Some(place) => esp.open_at(&place.at_name(&name))?.ok_or_else(|| Error::usage("it is gone"))?,
        None => Box::new(esp.volume.file(&file.entry)?),
    };
    let time = place.as_ref().map_or_else(|| esp.stamp(how.now()), |place| place.stamp(how.now()));
    let image = NewImage { source: &bytes, facts: file.facts.as_deref(), bytes_to_write: 0, from_file: Some(&name) };
    let options = SwapOptions { target: Some(parsed.original), keep_duplicates: false, keep_backups: None, time };
    let plan = match &place {
        Some(place) => SwapPlan::in_place(&esp, place, &image, &options)?,
        None => SwapPlan::make(&esp, &image, &options)?,
    };
    let sha256 = Some(hex::encode(Sha256::digest(read_all(&bytes)?)));
    let new = ContentRef { cluster: file.entry.first_cluster, bytes: file.entry.bytes, sha256 };
    let order = how.order(&plan, "restore", time);
    order.rehearse_restore(medium, medium.sector_size(), &name)?;
    let _ = order.restore(open_healthy(medium)?, &name, new)?;
    let names = Some(names(&plan, Some(&name)));
    let in_place = place.as_ref().map(path_in);
    Ok(Done { changed: true, deletes: plan.delete, names, in_place })
}

fn read_all(source: &dyn ReadAt) -> Result<Vec<u8>> {
    Ok(bootsurgeon::block::read_vec(source, 0, source.size() as usize)?)
}

fn put(medium: &dyn WriteAt, directory: &str, name: &str, image: &Image) -> Result<Done> {
    let mut editor = Editor::open(medium)?;
    if editor.directory(directory)?.find(name).is_some() {
        return Ok(NOTHING);
    }
    editor.make_file(directory, name, &image.bytes, Stamp(TIME))?;
    editor.write_fsinfo()?;
    Ok(Done { changed: true, ..Done::default() })
}

fn upgrade(medium: &dyn WriteAt, variables: &Variables, image: &Image) -> Result<Done> {
    let esp = Inventory::read(medium, variables.clone())?;
    let booted = esp.selected().map(|f| f.name().to_owned());
    let mut editor = Editor::open(medium)?;
    let stale = |name: &str| name.starts_with("Talos-") && name.ends_with(".efi") && Some(name) != booted.as_deref();
    let mut chains: Vec<u32> = esp.files.iter().map(|f| f.entry.first_cluster).collect();
    chains.sort_unstable();
    for file in esp.files.iter().filter(|f| stale(f.name())) {
        let first = file.entry.first_cluster;
        if chains.iter().filter(|c| **c == first && first != 0).count() > 1 {
            continue; // in the middle of an operation two names lead there
        }
        let runs = if first == 0 { Vec::new() } else { editor.table().chain(first)? };
        let directory = editor.directory(LINUX)?;
        let Some(entry) = directory.find(file.name()) else { continue };
        editor.remove(LINUX, entry)?;
        editor.free(&runs)?;
    }
    let version = image.version.as_deref().unwrap_or("v0");
    let directory = editor.directory(LINUX)?;
    let free = |name: &String| directory.find(name).is_none();
    let numbered = (1..).map(|n| format!("Talos-{version}~{n}.efi"));
    let name = Some(format!("Talos-{version}.efi")).into_iter().chain(numbered).find(free).unwrap_or_default();
    editor.make_file(LINUX, &name, &image.bytes, Stamp(TIME))?;
    editor.write_fsinfo()?;
    Ok(Done { changed: true, ..Done::default() })
}

fn boot(medium: &dyn WriteAt, variables: &Variables) -> Result<Done> {
    let esp = Inventory::read(medium, variables.clone())?;
    let (Some(file), Some(name)) = (esp.selected(), &esp.predictions.next.renamed_to) else { return Ok(NOTHING) };
    let mut editor = Editor::open(medium)?;
    editor.rename(LINUX, &file.entry, name)?;
    Ok(Done { changed: true, ..Done::default() })
}
