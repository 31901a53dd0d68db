//! An ESP that was found, and how it is opened.

use super::choice::EspChoice;
use super::guard::{Bounds, Guard};
use super::layout::{DiskLayout, Note, Refusal};
use super::members::{self, ArrayMember};
use super::table::{Partition, PartitionTable};
use super::{busy, choice, device_number, sysfs};
use crate::block::{Cached, Extent, FileSource, Lock, ReadAt, SurgeryFile, Window, WriteAt, read_vec};
use crate::packed::{Packing, Unpacked};
use crate::{Code, Context, Error, Result, fat};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was given as `DISK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// A block device with a partition table.
    WholeDisk,
    /// A block device that is a partition (or holds a file system without a table).
    PartitionDevice,
    /// A file with a partition table.
    DiskImage,
    /// A file that is a FAT volume.
    FatImage,
}

/// An ESP that has been found and can be opened.
#[derive(Debug, Clone)]
pub struct Target {
    /// As given by the user.
    pub path: PathBuf,
    /// What that is.
    pub shape: Shape,
    /// Logical sector size in bytes.
    pub sector_size: u32,
    /// The partition, where there is a table to say so.
    pub partition: Option<Partition>,
    /// What a user should know, for example that the backup partition table was used: [`Self::notes`] in short.
    pub warnings: Vec<String>,
    /// The table that the partition stands in.
    table: Option<PartitionTable>,
    notes: Vec<Note>,
    /// Why nothing may be written here, if so.
    pub(super) refusal: Option<Refusal>,
    /// What this is a member of.
    pub(super) member: Option<ArrayMember>,
    /// The other members, where all members of a mirror were named: this one is written with them.
    pub(super) others: Vec<Self>,
    /// The image that was unpacked, if it was packed: then it can be read only.
    unpacked: Option<Unpacked>,
    /// The file or device node to open.
    pub(super) node: PathBuf,
    /// The ESP's place in `node`; `None` when it is all of it.
    pub(super) window: Option<Extent>,
    /// Where writes to `node` may go.
    pub(super) bounds: Bounds,
    /// The whole disk, if that is another node or the ESP a part of this one: it is locked, by the convention that
    /// keeps udev and Talos away.
    pub(super) disk: Option<PathBuf>,
    /// What keeps it for this process, if [`Self::claimed`] did so.
    claim: Option<SurgeryTarget>,
}

/// The ESP opened for surgery, with the lock on its disk.
#[derive(Clone)]
pub struct SurgeryTarget {
    medium: Arc<dyn WriteAt>,
    _locks: Arc<Vec<Lock>>,
}

/// What [`SurgeryTarget`] is made of: a disk, or a member of a mirror, and the locks on it.
pub(super) struct Opened {
    pub(super) medium: Box<dyn WriteAt>,
    pub(super) locks: Vec<Lock>,
}

impl From<Opened> for SurgeryTarget {
    fn from(Opened { medium, locks }: Opened) -> Self {
        Self { medium: Arc::new(Cached::new(medium)), _locks: Arc::new(locks) }
    }
}

impl std::fmt::Debug for SurgeryTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SurgeryTarget").finish_non_exhaustive()
    }
}

impl SurgeryTarget {
    /// The ESP and nothing else.
    #[must_use]
    pub fn medium(&self) -> &dyn WriteAt {
        &*self.medium
    }
}

impl Target {
    /// Finds the ESP of `path`. `choice` is needed when there are several, and may be any partition that holds a FAT.
    ///
    /// # Errors
    /// [`crate::Kind::Usage`] when the choice is missing or fits nothing; [`crate::Kind::Rejected`] when there is no
    /// ESP or no valid table; [`crate::Kind::Io`] when the device cannot be read.
    pub fn find<'a>(path: &Path, choice: impl Into<EspChoice<'a>>) -> Result<Self> {
        let choice = choice.into();
        let source = FileSource::open(path)?;
        let found = if source.is_block_device() {
            Self::on_device(path, &source, choice)
        } else {
            Self::in_file(path, &source, choice)
        };
        found.while_doing(|| looking(path))
    }

    /// As [`Self::find`], in a packed disk image that was unpacked.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_unpacked<'a>(path: &Path, image: &Unpacked, choice: impl Into<EspChoice<'a>>) -> Result<Self> {
        let found = Self::in_file(path, image.source(), choice.into()).while_doing(|| looking(path))?;
        Ok(Self { unpacked: Some(image.clone()), ..found })
    }

    /// As [`Self::find`], in a raw image file that will be known as `path` and lies at `node` for now.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_at<'a>(path: &Path, node: &Path, choice: impl Into<EspChoice<'a>>) -> Result<Self> {
        let found = Self::in_file(path, &FileSource::open(node)?, choice.into()).while_doing(|| looking(path))?;
        Ok(Self { node: node.to_owned(), ..found })
    }

    /// All of one medium.
    fn whole(path: &Path, shape: Shape, sector_size: u32) -> Self {
        Self {
            path: path.to_owned(),
            shape,
            sector_size,
            partition: None,
            warnings: Vec::new(),
            table: None,
            notes: Vec::new(),
            refusal: None,
            member: None,
            others: Vec::new(),
            unpacked: None,
            node: path.to_owned(),
            window: None,
            bounds: Bounds::whole(),
            disk: None,
            claim: None,
        }
    }

    fn in_file(path: &Path, source: &FileSource, choice: EspChoice<'_>) -> Result<Self> {
        let layout = DiskLayout::read(source, None)?;
        let Some(table) = layout.table.clone() else {
            if !fat::is_fat(source)? {
                return match Packing::detect(source)? {
                    Some(packing) => Err(packing.unexpected()),
                    None => Err(no_table(&layout, source)),
                };
            }
            no_choice(choice.wanted)?;
            let sector = fat::Geometry::read(source)?.sector_bytes;
            return Self::whole(path, Shape::FatImage, sector).bare(layout, source);
        };
        let (esp, notes) = choice::choose(&table, source, choice)?;
        let window = Some(esp.extent);
        let found = Self { window, ..Self::whole(path, Shape::DiskImage, table.sector_size) };
        found.with(layout, table, esp, notes, source)
    }

    fn on_device(path: &Path, source: &FileSource, choice: EspChoice<'_>) -> Result<Self> {
        let sector_size = source.device_sector_size().unwrap_or(512);
        let device = sysfs::Device::of(path)?;
        let layout = DiskLayout::read(source, Some(sector_size))?;
        let Some(table) = layout.table.clone() else {
            if !fat::is_fat(source)? {
                return Err(no_table(&layout, source));
            }
            no_choice(choice.wanted)?;
            return Self::whole(path, Shape::PartitionDevice, sector_size).bare(layout, source)?.on_parent(&device);
        };
        let (esp, notes) = choice::choose(&table, source, choice)?;
        // A kernel that has not looked for partitions (a loop device without `losetup -P`) has no partition node that
        // somebody else could mount or whose cache could differ: then, and only then, the range of the disk is right.
        let in_range = device.has_partitions() == Some(false);
        let (node, window) = if in_range || table.sector_size != sector_size {
            (path.to_owned(), Some(esp.extent))
        } else {
            (device.partition_node(esp.number, path)?, None)
        };
        let found =
            Self { node, window, disk: Some(path.to_owned()), ..Self::whole(path, Shape::WholeDisk, sector_size) };
        found.with(layout, table, esp, notes, source)?.refuse_moved()
    }

    /// A file system over all of the medium.
    fn bare(mut self, layout: DiskLayout, source: &dyn ReadAt) -> Result<Self> {
        self.member = members::membership(&self.path, source, None, None)?;
        self.refusal = layout.refusal;
        self.notes = layout.notes;
        Ok(self.with_warnings())
    }

    /// A partition of a medium.
    fn with(
        mut self,
        layout: DiskLayout,
        table: PartitionTable,
        esp: Partition,
        notes: Vec<Note>,
        source: &dyn ReadAt,
    ) -> Result<Self> {
        self.refusal = layout.refusal_for(&esp);
        self.bounds = bounds(&layout, &table, &esp, if self.window.is_some() { 0 } else { esp.extent.offset });
        self.notes = layout.notes;
        self.notes.extend(notes);
        self.member = members::membership(&self.path, source, Some(&table), Some(&esp))?;
        if self.member.is_some() {
            // What lies behind the end of an array is its superblock, and not a place for a table.
            self.notes.retain(|note| note.id != "backup-table-elsewhere");
            for note in &mut self.notes {
                note.rewriting_helps = false;
            }
        }
        self.partition = Some(esp);
        self.table = Some(table);
        Ok(self.with_warnings())
    }

    /// The disk that this partition's node belongs to knows its label, and what else is on it. Without it the tool
    /// works all the same.
    fn on_parent(mut self, device: &sysfs::Device) -> Result<Self> {
        let Some((disk, number)) = device.parent_node(&self.path).zip(device.partition_number()) else {
            return Ok(self);
        };
        self.disk = Some(disk.clone());
        let Ok(source) = FileSource::open(&disk) else { return Ok(self) };
        let Ok(layout) = DiskLayout::read(&source, Some(self.sector_size)) else { return Ok(self) };
        let Some((table, esp)) = layout.table.clone().and_then(|t| Some((t.clone(), t.partition(number)?.clone())))
        else {
            return Ok(self);
        };
        if self.member.is_none() {
            self.member = members::membership(&disk, &source, Some(&table), None)?
                .map(|member| ArrayMember { esp_offset: esp.extent.offset, ..member });
        }
        if self.refusal.is_none() {
            self.refusal = layout.refusal_for(&esp);
        }
        self.bounds = bounds(&layout, &table, &esp, esp.extent.offset);
        self.partition = Some(esp);
        self.table = Some(table);
        self.refuse_moved()
    }

    /// A kernel that knows another table than the one on the disk, because that was changed while it was in use, has
    /// the partition elsewhere.
    fn refuse_moved(mut self) -> Result<Self> {
        let (Some(esp), None) = (&self.partition, self.window) else { return Ok(self) };
        let known = sysfs::Device::of(&self.node)?.extent();
        if let Some(known) = known.filter(|known| *known != esp.extent) {
            let why = format!(
                "the kernel has {} at byte {} with {} bytes, and the table on the disk at byte {} with {}",
                self.node.display(),
                known.offset,
                known.bytes,
                esp.extent.offset,
                esp.extent.bytes
            );
            self.refusal.get_or_insert(Refusal::new(
                why.clone(),
                "make the kernel read the table again (`partprobe`, `partx -u`, or a restart)",
            ));
            self.notes.push(Note::new("stale-partition", why, "what is read here is not what the table says"));
            return Ok(self.with_warnings());
        }
        Ok(self)
    }

    /// Why this is not written alone.
    fn refusal(&self) -> Option<&Refusal> {
        self.member.as_ref().map(|member| &member.refusal).or(self.refusal.as_ref())
    }

    fn with_warnings(mut self) -> Self {
        self.warnings = self.notes.iter().map(|note| note.what.clone()).collect();
        if let Some(refusal) = self.refusal().filter(|r| !self.warnings.contains(&r.why)).cloned() {
            self.warnings.push(format!("{}: it is read, and nothing is written to it", refusal.why));
        }
        self
    }

    /// The file or device node that is read and written.
    #[must_use]
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// The partition table of the disk, if there is one and it can be read.
    #[must_use]
    pub fn table(&self) -> Option<&PartitionTable> {
        self.table.as_ref()
    }

    /// What is worth knowing about the layout of the disk.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// How the image is packed, if it is.
    #[must_use]
    pub fn packing(&self) -> Option<Packing> {
        self.unpacked.as_ref().map(Unpacked::packing)
    }

    /// Whether `sgdisk` can write the table anew: it counts in sectors of 512 bytes in files.
    #[must_use]
    pub fn rewriting_is_possible(&self) -> bool {
        self.refusal().is_none()
            && self.unpacked.is_none()
            && (self.shape == Shape::WholeDisk || self.sector_size == 512)
    }

    /// Who uses the ESP at the moment: mounts, swap, device-mapper, processes, a loop device over the image file.
    /// Empty when nobody does, or nothing can be found out.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        if self.unpacked.is_some() {
            return Vec::new();
        }
        let mut all = busy::holders(&self.node);
        all.extend(busy::loop_device_over(&self.node).map(|over| over.in_words()));
        all
    }

    /// The same ESP, claimed for this process as by [`Self::open_surgery`] as long as it or a clone of it lives. What is
    /// read of it then is read once: whoever looks at it first and writes to it later looks under the same claim.
    ///
    /// # Errors
    /// As [`Self::open_surgery`].
    pub fn claimed(&self) -> Result<Self> {
        Ok(Self { claim: Some(self.open_surgery()?), ..self.clone() })
    }

    /// Opens the ESP for reading.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when the node cannot be opened.
    pub fn open(&self) -> Result<Box<dyn ReadAt>> {
        if let Some(claim) = &self.claim {
            return Ok(Box::new(Arc::clone(&claim.medium)));
        }
        let file = self.open_node()?;
        Ok(match self.window {
            Some(extent) => Box::new(Window::new(file, extent)?),
            None => Box::new(file),
        })
    }

    /// Opens the whole disk for reading; `None` where only the ESP is known.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when it cannot be opened.
    pub fn open_disk(&self) -> Result<Option<Box<dyn ReadAt>>> {
        Ok(match &self.disk {
            Some(disk) => Some(Box::new(FileSource::open(disk)?)),
            None if self.window.is_some() && self.bounds.node_offset == 0 => Some(Box::new(self.open_node()?)),
            None => None,
        })
    }

    fn open_node(&self) -> Result<Arc<FileSource>> {
        match &self.unpacked {
            Some(image) => Ok(Arc::clone(image.source())),
            None => Ok(Arc::new(FileSource::open(&self.node)?.without_read_ahead())),
        }
    }

    /// The XBOOTLDR partition on the same disk, if there is one: systemd-boot has its entries and images in the same
    /// menu.
    #[must_use]
    pub fn xbootldr(&self) -> Option<&Partition> {
        self.table.as_ref()?.xbootldr()
    }

    /// Another partition of the same disk as a target of its own, to be opened for surgery like this one: that of the
    /// number, or the only ESP.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn sibling(&self, number: Option<u32>) -> Result<Self> {
        let wanted = number.map(|number| number.to_string());
        let choice = EspChoice { wanted: wanted.as_deref(), booted: None };
        if !self.others.is_empty() {
            return self.sibling_of_mirror(choice);
        }
        match (&self.unpacked, self.shape) {
            (Some(image), _) => Self::find_unpacked(&self.path, image, choice),
            (None, Shape::DiskImage) => Self::find_at(&self.path, &self.node, choice),
            (None, _) => Self::find(self.disk.as_deref().unwrap_or(&self.path), choice),
        }
    }

    /// Opens another partition of the same disk for reading: from its own node where the kernel has one, else as a
    /// range of the disk.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when neither can be opened.
    pub fn open_partition(&self, partition: &Partition) -> Result<Box<dyn ReadAt>> {
        // The node of a partition may have a window, too: to the end of the array that it is a member of.
        if self.window.is_some() && self.bounds.node_offset == 0 {
            return Ok(Box::new(Window::new(self.open_node()?, partition.extent)?));
        }
        let disk = self.disk.as_deref().unwrap_or(&self.path);
        let source = match sysfs::Device::of(disk)?.partition_node(partition.number, disk) {
            Ok(node) => return Ok(Box::new(FileSource::open(&node)?)),
            Err(_) => FileSource::open(disk)?,
        };
        Ok(Box::new(Window::new(source, partition.extent)?))
    }

    /// Refuses what [`Self::open_surgery`] would refuse whoever else uses the disk, so that a dry run and the run
    /// after it have one verdict.
    ///
    /// # Errors
    /// [`Code::Layout`] when the partition table contradicts itself, or the ESP is part of an array or volume.
    pub fn check_writable(&self) -> Result<()> {
        let nodes = [Some(self.node.as_path()), self.disk.as_deref()];
        if let Some((node, holder)) = nodes.into_iter().flatten().find_map(|n| Some((n, busy::assembled(n)?))) {
            return Err(members::assembled(node, &holder));
        }
        if !self.others.is_empty() {
            return self.check_members();
        }
        self.refusal().map_or(Ok(()), |refusal| Err(refusal.error()))
    }

    /// Claims the ESP for this process and opens it for writing.
    ///
    /// # Errors
    /// As [`Self::check_writable`]; [`crate::Kind::Unsafe`] when it is mounted, held or locked (the message names the
    /// holder where the system tells), or may not be written.
    pub fn open_surgery(&self) -> Result<SurgeryTarget> {
        if let Some(claim) = &self.claim {
            return Ok(claim.clone());
        }
        if let Some(packing) = self.packing() {
            return Err(super::packed(packing));
        }
        self.check_writable()?;
        let opened = if self.others.is_empty() { self.open_alone(&[])? } else { self.open_mirror()? };
        Ok(opened.into())
    }

    /// Opens this disk, or this member of a mirror, whatever it is a part of. The disks in `locked` are locked by this
    /// process.
    pub(super) fn open_alone(&self, locked: &[&Path]) -> Result<Opened> {
        let unlocked = self.disk.as_deref().filter(|disk| !locked.contains(disk));
        let locks = unlocked.map(lock_disk).transpose()?.into_iter().collect();
        let nodes = [Some(self.node.as_path()), self.disk.as_deref()];
        if let Some((node, over)) =
            nodes.iter().flatten().find_map(|node| busy::loop_device_over(node).map(|over| (node, over)))
        {
            let device = &over.device;
            return Err(Error::refused(format!("{} is {}", node.display(), over.in_words()))
                .advise(format!("work on {device} itself, or detach it with `losetup -d {device}`")));
        }
        if device_number(&self.node).is_some() && sysfs::Device::of(&self.node)?.is_write_protected() {
            return Err(Error::new(
                Code::ReadOnly,
                format!("{} may not be written: the device is write-protected", self.node.display()),
            )
            .advise("look for a switch on the medium, or make it writable with `blockdev --setrw`"));
        }
        let file = SurgeryFile::open(&self.node, self.sector_size).map_err(|e| {
            // Who claims the whole disk holds every partition of it, too.
            let busy = e.code() == Code::Busy;
            let holders = nodes
                .into_iter()
                .flatten()
                .filter(|_| busy)
                .map(busy::holders)
                .find(|h| !h.is_empty())
                .unwrap_or_default();
            if holders.is_empty() {
                e.advise("find out who uses it: `lsblk`, `findmnt`; unmount it and try again")
            } else {
                Error::new(Code::Busy, format!("{e}: {}", holders.join(", ")))
                    .advise("unmount or stop that first, then try again")
            }
        })?;
        let guard = Guard::new(file, self.bounds.clone());
        let medium: Box<dyn WriteAt> = match self.window {
            Some(extent) => Box::new(Window::new(guard, extent)?),
            None => Box::new(guard),
        };
        Ok(Opened { medium, locks })
    }
}

/// Where writes to `node`, which begins at `node_offset` of the disk, may go.
fn bounds(layout: &DiskLayout, table: &PartitionTable, esp: &Partition, node_offset: u64) -> Bounds {
    let others = table.partitions.iter().filter(|p| p.number != esp.number).map(|p| p.extent);
    Bounds { node_offset, esp: Some(esp.extent), others: others.chain(layout.areas.iter().copied()).collect() }
}

fn looking(path: &Path) -> String {
    format!("looking for the EFI System Partition of {}", path.display())
}

fn no_choice(choice: Option<&str>) -> Result<()> {
    match choice {
        None => Ok(()),
        Some(_) => {
            Err(Error::usage("--partition makes no sense here: this is one file system without a partition table"))
        }
    }
}

fn no_table(layout: &DiskLayout, source: &dyn ReadAt) -> Error {
    // Something that calls itself a FAT has a reason of its own.
    let begin = read_vec(source, 0, source.size().min(512) as usize).unwrap_or_default();
    if fat::is_called_fat(&begin)
        && let Err(why) = fat::Geometry::read(source)
    {
        return why.advise("this is not a file system that firmware or an operating system can use: make a new one");
    }
    let mut error = match layout.occupant {
        Some(occupant) => format!("there is no partition table here, but {occupant}"),
        None => "neither a partition table (GPT or MBR) nor a FAT file system is here".to_owned(),
    };
    for note in &layout.notes {
        error = format!("{error}; {}", note.what);
    }
    Error::rejected(error).advise("give a disk, a partition, a raw disk image or a FAT image")
}

/// Takes the advisory lock on the whole disk.
fn lock_disk(path: &Path) -> Result<Lock> {
    let file = File::open(path).while_doing(|| format!("locking {}", path.display()))?;
    Lock::exclusive(&file).map_err(|e| Error::from(e).with_code(Code::Busy))?.ok_or_else(|| {
        Error::new(Code::Busy, format!("another program holds the lock on {}", path.display()))
            .advise("Talos or another bootsurgeon is at work on this disk: wait until it has finished")
    })
}
