//! Where the way of the boot ends in an image that systemd-boot does not find in `EFI/Linux` of the ESP by its name:
//! one that the firmware or shim starts itself, one that a Type #1 entry names, one on the Extended Boot Loader
//! Partition. It is one file, and whatever takes its place has its name.

use super::context::slashes;
use super::{BackupName, END_OF_TIME, EspFile, FIRST_TIME, FileKind, Inventory, Runs, without_counter};
use crate::block::ReadAt;
use crate::boot::{EntryKind, Prediction};
use crate::bootpath::{BootScenario, Located, Program, ProgramKind};
use crate::fat::{Entry, Volume, same_name};
use crate::pe::Arch;
use crate::sorting::Sort as _;
use crate::surgery::is_linux_dir;
use crate::uki::{self, Companions};
use crate::{Error, Result};

/// An image that starts by its path, and what lies in its directory.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub at: Located,
    /// Its directory, from the root of its volume: `EFI/BOOT`.
    pub directory: String,
    /// For people: the partition, where that is another one than the inventory's.
    pub partition: Option<String>,
    /// The image.
    pub image: EspFile,
    /// What has the name of a backup or of a disabled file there, in on-disk order. In a directory of others that says
    /// nothing yet of what it is: see [`Self::is_of_image`].
    pub aside: Vec<EspFile>,
    /// What the image is; where it is cut off or overwritten, an unknown program of its backups' architecture.
    pub program: Program,
    /// The profile of it that starts.
    pub profile: u32,
    /// What systemd's stub adds to the images of that directory.
    pub companions: Companions,
    /// Bytes of a sector of that volume.
    pub(crate) sector_bytes: u32,
    /// Everything in the directory.
    pub(crate) entries: Vec<Entry>,
}

impl Place {
    /// Its name in the directory.
    #[must_use]
    pub fn name(&self) -> &str {
        self.image.name()
    }

    /// What a file of the directory is called in plans and reports: a bare name stands for a file in `EFI/Linux` of the
    /// ESP.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        if self.is_among_images() { name.to_owned() } else { format!("{}/{name}", self.directory.trim_matches('/')) }
    }

    /// Whether it lies in `EFI/Linux` of the inventory's own volume, all the same.
    #[must_use]
    pub fn is_among_images(&self) -> bool {
        self.partition.is_none() && is_linux_dir(&self.directory)
    }

    /// Where a file of the directory lies.
    #[must_use]
    pub fn at_name(&self, name: &str) -> Located {
        Located { volume: self.at.volume, path: format!("{}/{name}", self.directory) }
    }

    /// What firmware finds in the image: a program, or why there is none.
    pub(crate) fn loads(&self) -> Result<Program, String> {
        match &self.image.trouble {
            Some(why) if self.program.kind == ProgramKind::Unknown => Err(why.clone()),
            _ => Ok(self.program.clone()),
        }
    }

    /// The image for people: its path, and the partition where that is another one.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.partition {
            None => self.path(self.name()),
            Some(partition) => format!("{} on {partition}", self.path(self.name())),
        }
    }

    /// The image or a backup, by its name or its path.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&EspFile> {
        let name = name.replace('\\', "/");
        let path = name.trim_start_matches('/');
        let name = match path.rsplit_once('/') {
            None if path.len() == name.len() || self.directory.is_empty() => path,
            None => return None,
            Some((directory, name)) if directory.eq_ignore_ascii_case(&self.directory) => name,
            Some(_) => return None,
        };
        std::iter::once(&self.image).chain(&self.aside).find(|f| f.entry.is_named(name))
    }

    /// What the way of the boot calls it, and its long name, where that is another one: a short name.
    pub(crate) fn alias(&self) -> Option<(String, String)> {
        let path = slashes(&self.at.path);
        let called = path.rsplit('/').next().unwrap_or_default();
        (!same_name(called, self.name())).then(|| (called.to_owned(), self.name().to_owned()))
    }

    /// Whether a path of its volume leads to the image.
    #[must_use]
    pub fn is_at<S: ReadAt>(&self, path: &str, esp: &Inventory<S>) -> bool {
        let found = esp.on(&self.at, |v| v.find(path).ok().flatten(), |v| v.find(path).ok().flatten()).flatten();
        found.is_some_and(|found| {
            found.name == self.image.entry.name && found.first_cluster == self.image.entry.first_cluster
        })
    }

    /// Whether a file is this image as it was before: an image, under its name. The directory may be one of others, who
    /// name their files alike: their boot loaders are no backups, and nobody's here to delete.
    #[must_use]
    pub fn is_of_image(&self, file: &EspFile) -> bool {
        let plain = |name: &str| without_counter(name).unwrap_or_else(|| name.to_owned());
        let is_own = |b: BackupName| same_name(&plain(&b.original), &plain(self.name()));
        let Some(name) = BackupName::parse(file.name()) else { return false };
        // What was broken when it was replaced is ours by a name that nobody else gives: with a time of ours.
        let is_dead = name.disabled && (FIRST_TIME..END_OF_TIME).contains(&name.time);
        (file.trouble.is_none() || is_dead) && is_own(name)
    }

    /// The backups of the image, the newest first.
    #[must_use]
    pub fn backups(&self) -> Vec<(&EspFile, BackupName)> {
        let backups = self.aside.iter().filter(|f| f.kind == FileKind::Backup && self.is_of_image(f));
        let mut all: Vec<_> = backups.filter_map(|f| Some((f, BackupName::parse(f.name())?))).collect();
        all.put_in_order_by(|(_, b)| std::cmp::Reverse((b.time < END_OF_TIME, b.time)));
        all
    }

    /// The time for names of backups: as [`Inventory::stamp`].
    #[must_use]
    pub fn stamp(&self, now: u64) -> u64 {
        let newest = self.backups().into_iter().map(|(_, b)| b.time).filter(|t| *t < END_OF_TIME).max();
        newest.map_or(now, |t| now.max(t + 1))
    }

    /// The number of its partition, where that is another one than the inventory's.
    #[must_use]
    pub fn partition_number<S: ReadAt>(&self, esp: &Inventory<S>) -> Option<u32> {
        self.partition.as_ref().and_then(|_| esp.context.partition_number(self.at.volume))
    }

    /// Refuses to go on when the directory is not what was seen.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`]; what the source reports.
    pub fn refuse_changed<S: ReadAt>(&self, now: &Volume<S>) -> Result<()> {
        let same = now.list(&self.directory)?.unwrap_or_default() == self.entries
            && Companions::read_in(now, &self.directory, false)? == self.companions;
        if same {
            return Ok(());
        }
        Err(Error::refused(format!("{} has changed since the plan was made", self.directory)).advise("run it again"))
    }
}

impl<S: ReadAt> Inventory<S> {
    /// The image that the board starts at the starts after the next one, unless it is one of the menu in `EFI/Linux` of
    /// this volume, or nothing that can be replaced. What should start and is cut off counts as long as a sound backup
    /// lies beside it, whatever the firmware turns to instead.
    ///
    /// # Errors
    /// What the source reports.
    pub fn place(&self) -> Result<Option<Place>> {
        if let Some((at, profile)) = self.cut_off()
            && let Some(place) = self.place_at(at, profile)?
        {
            return Ok(Some(place));
        }
        let (runs, by_menu) = self.runs(BootScenario::Later);
        let Runs::Image { at, profile } = runs else { return Ok(None) };
        if by_menu.as_ref().is_some_and(|p| p.selected_file().is_some()) {
            return Ok(None);
        }
        self.place_at(at, profile)
    }

    /// The file that should start and is no program with a kernel, and the profile of it.
    fn cut_off(&self) -> Option<(Located, u32)> {
        if let Some(at) = &self.way(BootScenario::Later).broken {
            return Some((at.clone(), 0));
        }
        let (_, by_menu) = self.runs(BootScenario::Later);
        let entry = by_menu.as_ref().and_then(Prediction::selected_entry).filter(|e| e.kind == EntryKind::Type1)?;
        let at = Located { volume: self.volume_of(entry), path: entry.path.clone()? };
        let is_broken = match self.program_there(&at) {
            Ok(program) => program.is_some_and(|p| p.kind == ProgramKind::Addon),
            Err(_) => true,
        };
        is_broken.then_some((at, entry.profile))
    }

    fn place_at(&self, at: Located, profile: u32) -> Result<Option<Place>> {
        let path = slashes(&at.path);
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let program = match self.program_there(&at) {
            Ok(Some(program)) => program,
            Ok(None) => return Ok(None),
            Err(evidence) => Program { kind: ProgramKind::Unknown, version: None, evidence, machine: 0 },
        };
        let partition = (!self.is_here(&at)).then(|| self.context.name(at.volume).to_owned());
        let directory = directory.to_owned();
        if !self.is_here(&at) && self.context.xbootldr_place() != Some(at.volume) {
            // Another ESP has a menu of its own: whoever means it names it.
            return Ok(None);
        }
        let found = self.on(&at, |v| Found::read(v, &directory, name), |v| Found::read(v, &directory, name));
        let Some(Found { image, aside, entries, companions, sector_bytes }) = found.transpose()?.flatten() else {
            return Ok(None);
        };
        let mut place =
            Place { at, directory, partition, image, aside, program, profile, companions, sector_bytes, entries };
        if place.program.kind != ProgramKind::Uki {
            // What else tells that it was an image?
            let arch = place.backups().first().map(|(backup, _)| backup.arch());
            let Some(arch) = arch else { return Ok(None) };
            place.program.machine = arch.or(self.arch()).map_or(place.program.machine, Arch::machine);
        }
        Ok(Some(place))
    }
}

/// What is in a directory.
struct Found {
    image: EspFile,
    aside: Vec<EspFile>,
    entries: Vec<Entry>,
    companions: Companions,
    sector_bytes: u32,
}

impl Found {
    /// `None` when there is no such file.
    fn read<S: ReadAt>(volume: &Volume<S>, directory: &str, name: &str) -> Result<Option<Self>> {
        let entries = volume.list(directory)?.unwrap_or_default();
        let Some(image) = entries.iter().find(|e| !e.is_dir() && e.is_named(name)) else { return Ok(None) };
        let aside = entries.iter().filter(|e| !e.is_dir() && e.name != image.name);
        let aside = aside.filter(|e| BackupName::parse(&e.name).is_some());
        let aside = aside.map(|e| describe(volume, e)).collect();
        let image = describe(volume, image);
        let companions = Companions::read_in(volume, directory, false)?;
        let sector_bytes = volume.geometry().sector_bytes;
        Ok(Some(Self { image, aside, entries, companions, sector_bytes }))
    }
}

fn describe<S: ReadAt>(volume: &Volume<S>, entry: &Entry) -> EspFile {
    let facts = volume.file(entry).and_then(|bytes| uki::probe(&bytes));
    let trouble = match &facts {
        Err(e) => Some(e.to_string()),
        Ok(facts) => facts.extent(".linux").is_none().then(|| "has no kernel (.linux section)".to_owned()),
    };
    let kind = match (BackupName::parse(&entry.name), &trouble) {
        (Some(BackupName { disabled: false, .. }), _) => FileKind::Backup,
        (Some(BackupName { disabled: true, .. }), _) => FileKind::Disabled,
        (None, Some(_)) => FileKind::Broken,
        (None, None) => FileKind::Uki,
    };
    EspFile {
        kind,
        entry: entry.clone(),
        facts: facts.ok().map(Box::new),
        trouble,
        is_foreign: false,
        duplicate_of: None,
        sha256: None,
        schematic: None,
        extensions: None,
        waiting_services: Vec::new(),
    }
}
