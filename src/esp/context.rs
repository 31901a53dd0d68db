//! What lies around the volume whose files are looked at: the firmware's boot options, the other volumes of its disk.

use super::board_arch;
use crate::block::ReadAt;
use crate::bootpath::{BootOptions, BootVolume, Located, Program, Unseen, Volumes};
use crate::disk::PartUuid;
use crate::fat;
use crate::pe::Arch;

/// Another volume of the disk, for reading.
pub type OtherVolume = fat::Volume<Box<dyn ReadAt>>;

/// What is known around an ESP.
#[derive(Default)]
pub struct EspContext {
    /// The firmware's boot options.
    pub options: BootOptions,
    /// Whether the firmware is U-Boot.
    pub is_uboot: bool,
    /// The architecture of the machine, where it is known.
    pub arch: Option<Arch>,
    /// The volumes in the order in which firmware meets them; none where nothing is known of a disk.
    volumes: Vec<(BootVolume, Option<OtherVolume>)>,
    /// The volume's place among them that the inventory is of.
    this: usize,
    /// The place of the Extended Boot Loader Partition.
    xbootldr: Option<usize>,
    /// Whether the inventory is of the Extended Boot Loader Partition, and not of the ESP that its menu belongs to.
    pub is_xbootldr: bool,
    /// Why it is not known what systemd-boot finds on the Extended Boot Loader Partition.
    pub xbootldr_trouble: Option<String>,
    /// Partitions that are there and hold no volume that can be looked at, and why what firmware finds on them is not
    /// known; without that it finds nothing.
    unseen: Vec<(PartUuid, Option<String>)>,
}

impl EspContext {
    /// Without anything about a disk.
    #[must_use]
    pub fn new(options: BootOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Adds the volume that the inventory is of.
    pub fn add_this(&mut self, volume: BootVolume) {
        self.this = self.volumes.len();
        self.volumes.push((volume, None));
    }

    /// Adds another volume of the disk.
    pub fn add(&mut self, volume: BootVolume, files: OtherVolume, is_xbootldr: bool) {
        if is_xbootldr {
            self.xbootldr = Some(self.volumes.len());
        }
        self.volumes.push((volume, Some(files)));
    }

    /// Adds a partition that holds no volume that can be looked at. `unknown` says why it is not known what firmware
    /// finds on it; without it there is nothing to find.
    pub fn add_unseen(&mut self, partuuid: PartUuid, unknown: Option<String>) {
        self.unseen.push((partuuid, unknown));
    }

    /// Whether anything is known of the disk that the volume is on.
    #[must_use]
    pub fn knows_disk(&self) -> bool {
        !self.volumes.is_empty()
    }

    /// The volume's place that the inventory is of.
    pub(super) fn this(&self) -> usize {
        self.this
    }

    /// The Extended Boot Loader Partition beside the volume.
    pub(crate) fn xbootldr(&self) -> Option<&OtherVolume> {
        self.volumes.get(self.xbootldr?)?.1.as_ref()
    }

    /// The place of the Extended Boot Loader Partition.
    pub(super) fn xbootldr_place(&self) -> Option<usize> {
        self.xbootldr
    }

    /// The number of a volume's partition, where a table tells.
    #[must_use]
    pub fn partition_number(&self, volume: usize) -> Option<u32> {
        self.volumes.get(volume)?.0.place.map(|(number, ..)| number)
    }

    /// Another volume by its place.
    pub(super) fn other(&self, volume: usize) -> Option<&OtherVolume> {
        self.volumes.get(volume)?.1.as_ref()
    }

    /// For people: the name of one of the volumes.
    #[must_use]
    pub fn name(&self, volume: usize) -> &str {
        self.volumes.get(volume).map_or("", |(v, _)| &v.name)
    }
}

/// The volumes as the way of the boot asks for them.
pub(super) struct View<'a, S> {
    own: &'a fat::Volume<S>,
    context: &'a EspContext,
    list: Vec<BootVolume>,
    arch: Arch,
}

impl<'a, S: ReadAt> View<'a, S> {
    pub(super) fn new(own: &'a fat::Volume<S>, context: &'a EspContext) -> Self {
        let mut list: Vec<BootVolume> = context.volumes.iter().map(|(volume, _)| volume.clone()).collect();
        if list.is_empty() {
            list.push(BootVolume { name: String::new(), partuuid: None, place: None });
        }
        Self { own, context, list, arch: board_arch(own, context) }
    }

    /// Does something with the files of a volume.
    fn on<T>(
        &self,
        at: &Located,
        own: impl FnOnce(&fat::Volume<S>) -> T,
        other: impl FnOnce(&OtherVolume) -> T,
    ) -> Option<T> {
        // Firmware does not read a volume without its boot sector.
        if at.volume == self.context.this {
            return self.own.geometry().lost_boot_sector.is_none().then(|| own(self.own));
        }
        let there = self.context.volumes.get(at.volume)?.1.as_ref();
        there.filter(|there| there.geometry().lost_boot_sector.is_none()).map(other)
    }
}

impl<S: ReadAt> Volumes for View<'_, S> {
    fn list(&self) -> &[BootVolume] {
        &self.list
    }

    fn unseen(&self, partuuid: PartUuid) -> Option<Unseen<'_>> {
        let (_, unknown) = self.context.unseen.iter().find(|(p, _)| *p == partuuid)?;
        Some(unknown.as_deref().map_or(Unseen::Empty, Unseen::Unknown))
    }

    fn complete(&self) -> bool {
        false
    }

    fn this(&self) -> Option<usize> {
        Some(self.context.this)
    }

    fn arch(&self) -> Arch {
        self.arch
    }

    fn is_uboot(&self) -> bool {
        self.context.is_uboot
    }

    fn program(&self, at: &Located) -> Result<Option<Program>, String> {
        self.on(at, |own| program(own, &at.path), |other| program(other, &at.path)).unwrap_or(Ok(None))
    }

    fn is_file(&self, at: &Located) -> bool {
        self.on(at, |own| is_file(own, &at.path), |other| is_file(other, &at.path)).unwrap_or(false)
    }
}

/// A path as firmware follows it: separators of either kind count once, `.` is the directory itself, `..` the one above
/// it. Above the root there is nothing (EDK II's `FatLocateOFile`).
pub(super) fn slashes(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split(['\\', '/']).filter(|part| !matches!(*part, "" | ".")) {
        match parts.last() {
            Some(last) if part == ".." && *last != ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

fn is_file<S: ReadAt>(volume: &fat::Volume<S>, path: &str) -> bool {
    volume.find(&slashes(path)).ok().flatten().is_some_and(|e| !e.is_dir())
}

/// The program in a file; a chain that is broken is no program.
pub(super) fn program<S: ReadAt>(volume: &fat::Volume<S>, path: &str) -> Result<Option<Program>, String> {
    let Some(entry) = volume.find(&slashes(path)).map_err(|e| e.to_string())?.filter(|e| !e.is_dir()) else {
        return Ok(None);
    };
    Program::recognise(&volume.file(&entry).map_err(|e| e.to_string())?).map(Some)
}
