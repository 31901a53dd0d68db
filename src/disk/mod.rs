//! Finding the ESP: what `DISK` is, its partition table, and the node to open.
//!
//! `DISK` is a whole-disk device, a partition device, a raw disk image or a bare FAT image. On a device the *partition's*
//! own node is opened, not a range of the whole disk: the two have separate page caches, and only the partition node
//! answers `O_EXCL` with "busy" for exactly this partition. Only where the kernel knows no partition at all is the range
//! opened.
//!
//! A packed disk image is unpacked before it comes here ([`crate::packed`]); it can be read and not written.
//!
//! Everything here reads; [`Target::open_surgery`] hands out the one writable medium.

mod busy;
mod gpt;
mod sysfs;

pub use self::gpt::{ESP_TYPE, Gpt, Partition};

use crate::block::{Extent, FileSource, ReadAt, SurgeryFile, Window, WriteAt};
use crate::packed::{Packing, Unpacked};
use crate::{Code, Context, Error, Kind, Result, fat};
use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was given as `DISK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// The image that was unpacked, if it was packed: then it can be read only.
    unpacked: Option<Unpacked>,
    /// What a user should know, for example that the backup partition table was used.
    pub warnings: Vec<String>,
    /// The file or device node to open.
    node: PathBuf,
    /// The ESP's place in `node`; `None` when it is all of it.
    window: Option<Extent>,
    /// The whole-disk node to lock, by the convention that keeps udev and Talos away.
    lock: Option<PathBuf>,
}

/// The ESP opened for surgery, with the lock on its disk.
pub struct SurgeryTarget {
    medium: Box<dyn WriteAt>,
    _lock: Option<File>,
}

impl SurgeryTarget {
    /// The ESP and nothing else.
    #[must_use]
    pub fn medium(&self) -> &dyn WriteAt {
        &*self.medium
    }
}

impl Target {
    /// Finds the ESP of `path`. `choice` is a partition number, label or PARTUUID; it is needed when there are several.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the choice is missing or fits nothing; [`Kind::Rejected`] when there is no ESP or no valid
    /// table; [`Kind::Io`] when the device cannot be read.
    pub fn find(path: &Path, choice: Option<&str>) -> Result<Self> {
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
    pub fn find_unpacked(path: &Path, image: &Unpacked, choice: Option<&str>) -> Result<Self> {
        let found = Self::in_file(path, image.source(), choice).while_doing(|| looking(path))?;
        Ok(Self { unpacked: Some(image.clone()), ..found })
    }

    /// As [`Self::find`], in a raw image file that will be known as `path` and lies at `node` for now.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_at(path: &Path, node: &Path, choice: Option<&str>) -> Result<Self> {
        let found = Self::in_file(path, &FileSource::open(node)?, choice).while_doing(|| looking(path))?;
        Ok(Self { node: node.to_owned(), ..found })
    }

    fn in_file(path: &Path, source: &FileSource, choice: Option<&str>) -> Result<Self> {
        let bare = |shape, sector_size| Self {
            path: path.to_owned(),
            shape,
            sector_size,
            partition: None,
            warnings: Vec::new(),
            node: path.to_owned(),
            window: None,
            lock: None,
            unpacked: None,
        };
        match Gpt::read(source, None)? {
            Some(gpt) => {
                let esp = gpt.choose_esp(choice)?;
                let window = Some(esp.extent);
                Ok(Self {
                    partition: Some(esp),
                    window,
                    warnings: gpt.warnings,
                    ..bare(Shape::DiskImage, gpt.sector_size)
                })
            }
            None if fat::is_fat(source)? => {
                no_choice(choice)?;
                let sector = fat::Geometry::read(source)?.sector_bytes;
                Ok(bare(Shape::FatImage, sector))
            }
            None => match Packing::detect(source)? {
                Some(packing) => Err(packing.unexpected()),
                None => Err(no_table()),
            },
        }
    }

    fn on_device(path: &Path, source: &FileSource, choice: Option<&str>) -> Result<Self> {
        let sector_size = source.device_sector_size().unwrap_or(512);
        let device = sysfs::Device::of(path)?;
        if let Some(gpt) = Gpt::read(source, Some(sector_size))? {
            let esp = gpt.choose_esp(choice)?;
            // A kernel that has not looked for partitions (a loop device without `losetup -P`) has no partition node that
            // somebody else could mount or whose cache could differ: then, and only then, the range of the disk is right.
            let (node, window) = match device.has_partitions() {
                Some(false) => (path.to_owned(), Some(esp.extent)),
                _ => (device.partition_node(esp.number, path)?, None),
            };
            return Ok(Self {
                path: path.to_owned(),
                shape: Shape::WholeDisk,
                sector_size,
                partition: Some(esp),
                warnings: gpt.warnings,
                node,
                window,
                lock: Some(path.to_owned()),
                unpacked: None,
            });
        }
        if !fat::is_fat(source)? {
            return Err(no_table());
        }
        no_choice(choice)?;
        // The parent disk knows the partition's label; without it the tool works all the same.
        let parent = device.parent_node(path);
        let partition = parent.as_ref().zip(device.partition_number()).and_then(|(disk, number)| {
            let table = Gpt::read(&FileSource::open(disk).ok()?, Some(sector_size)).ok()??;
            table.partitions.into_iter().find(|p| p.number == number)
        });
        Ok(Self {
            path: path.to_owned(),
            shape: Shape::PartitionDevice,
            sector_size,
            partition,
            warnings: Vec::new(),
            node: path.to_owned(),
            window: None,
            lock: parent,
            unpacked: None,
        })
    }

    /// The file or device node that is read and written.
    #[must_use]
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// How the image is packed, if it is.
    #[must_use]
    pub fn packing(&self) -> Option<Packing> {
        self.unpacked.as_ref().map(Unpacked::packing)
    }

    /// Who uses the ESP at the moment: mounts, swap, device-mapper, processes, a loop device over the image file. Empty when
    /// nobody does, or nothing can be found out.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        if self.unpacked.is_some() {
            return Vec::new();
        }
        let mut all = busy::holders(&self.node);
        all.extend(busy::loop_device_over(&self.node).map(|device| format!("attached to {device}")));
        all
    }

    /// Opens the ESP for reading.
    ///
    /// # Errors
    /// [`Kind::Io`] when the node cannot be opened.
    pub fn open(&self) -> Result<Box<dyn ReadAt>> {
        let file: Arc<FileSource> = match &self.unpacked {
            Some(image) => Arc::clone(image.source()),
            None => Arc::new(FileSource::open(&self.node)?),
        };
        Ok(match self.window {
            Some(extent) => Box::new(Window::new(file, extent)?),
            None => Box::new(file),
        })
    }

    /// Claims the ESP for this process and opens it for writing.
    ///
    /// # Errors
    /// [`Kind::Unsafe`] when it is mounted, held or locked (the message names the holder where the system tells), or
    /// may not be written.
    pub fn open_surgery(&self) -> Result<SurgeryTarget> {
        if let Some(packing) = self.packing() {
            return Err(packed(packing));
        }
        let lock = self.lock.as_deref().map(lock_disk).transpose()?;
        let nodes = [Some(self.node.as_path()), self.lock.as_deref()];
        if let Some((node, user)) =
            nodes.iter().flatten().find_map(|node| busy::loop_device_over(node).map(|user| (node, user)))
        {
            return Err(Error::refused(format!("{} is attached to {user}", node.display()))
                .advise(format!("work on {user} itself, or detach it with `losetup -d {user}`")));
        }
        if device_number(&self.node).is_some() && sysfs::Device::of(&self.node)?.is_write_protected() {
            return Err(Error::refused(format!(
                "{} may not be written: the device is write-protected",
                self.node.display()
            ))
            .advise("look for a switch on the medium, or make it writable with `blockdev --setrw`"));
        }
        let file = SurgeryFile::open(&self.node, self.sector_size).map_err(|e| {
            // Who claims the whole disk holds every partition of it, too.
            let busy = e.kind() == Kind::Unsafe;
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
                Error::refused(format!("{e}: {}", holders.join(", ")))
                    .advise("unmount or stop that first, then try again")
            }
        })?;
        let medium: Box<dyn WriteAt> = match self.window {
            Some(extent) => Box::new(Window::new(file, extent)?),
            None => Box::new(file),
        };
        Ok(SurgeryTarget { medium, _lock: lock })
    }
}

/// The ESPs of a source that may hold a partition table, for images that are looked into and not written.
///
/// # Errors
/// What the source reports; [`Kind::Rejected`] when both tables are bad.
pub fn esp_extents(source: &dyn ReadAt) -> Result<Option<Vec<Extent>>> {
    let Some(gpt) = Gpt::read(source, None)? else { return Ok(None) };
    Ok(Some(gpt.partitions.iter().filter(|p| p.is_esp()).map(|p| p.extent).collect()))
}

fn looking(path: &Path) -> String {
    format!("looking for the EFI System Partition of {}", path.display())
}

/// The refusal to write into a packed image.
pub(crate) fn packed(packing: Packing) -> Error {
    Error::refused(format!("the image is packed ({packing}), and nothing can be changed in a packed file"))
        .advise("name a file for a changed copy with --out FILE (packed again if it ends in .zst or .xz), or unpack the image first")
}

fn no_choice(choice: Option<&str>) -> Result<()> {
    match choice {
        None => Ok(()),
        Some(_) => {
            Err(Error::usage("--partition makes no sense here: this is one file system without a partition table"))
        }
    }
}

fn no_table() -> Error {
    Error::rejected("neither a GPT partition table nor a FAT file system is here")
        .advise("give a disk, a partition, a raw disk image or a FAT image")
}

/// Takes the advisory lock on the whole disk.
fn lock_disk(path: &Path) -> Result<File> {
    let file = File::open(path).while_doing(|| format!("locking {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|e| {
        if e == rustix::io::Errno::WOULDBLOCK {
            Error::refused(format!("another program holds the lock on {}", path.display()))
                .advise("Talos or another bootsurgeon is at work on this disk: wait until it has finished")
        } else {
            Error::from(std::io::Error::from(e)).with_code(Code::Busy)
        }
    })?;
    Ok(file)
}

/// Major and minor number of a block device node.
fn device_number(path: &Path) -> Option<(u32, u32)> {
    let meta = std::fs::metadata(path).ok()?;
    meta.file_type().is_block_device().then(|| (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())))
}
