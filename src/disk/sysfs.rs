//! Block devices as the kernel describes them in sysfs. Names in `/dev` are a convention; `/sys/dev/block` is the
//! truth.

use super::device_number;
use crate::block::Extent;
use crate::container::Place;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// A block device and its directory in sysfs.
pub(super) struct Device {
    name: String,
    sysfs: Option<PathBuf>,
}

impl Device {
    /// Looks a device node up.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let (major, minor) =
            device_number(path).ok_or_else(|| Error::io(format!("{} is not a block device", path.display())))?;
        let sysfs = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok();
        let name = sysfs.as_deref().unwrap_or(path).file_name().map(|n| n.to_string_lossy().into_owned());
        Ok(Self { name: name.unwrap_or_default(), sysfs })
    }

    /// The partition's number, if this is a partition.
    pub(super) fn partition_number(&self) -> Option<u32> {
        read_number(&self.sysfs.as_ref()?.join("partition"))
    }

    /// Whether the kernel knows any partition of this disk; `None` when sysfs does not tell.
    pub(super) fn has_partitions(&self) -> Option<bool> {
        let entries = std::fs::read_dir(self.sysfs.as_ref()?).ok()?;
        Some(entries.flatten().any(|entry| entry.path().join("partition").exists()))
    }

    /// Where the kernel has this partition on its disk; `None` for a whole disk and where sysfs does not tell.
    pub(super) fn extent(&self) -> Option<Extent> {
        self.partition_number()?;
        // Both count in units of 512 bytes, whatever the sector size (Documentation/ABI/stable/sysfs-block).
        let bytes = |name| read_number(&self.sysfs.as_ref()?.join(name)).and_then(|n: u64| n.checked_mul(512));
        Some(Extent { offset: bytes("start")?, bytes: bytes("size")? })
    }

    /// Whether the kernel lets nobody write to it. Opening it for writing may succeed all the same; writing then fails.
    pub(super) fn is_write_protected(&self) -> bool {
        self.sysfs.as_ref().and_then(|dir| read_number(&dir.join("ro"))) == Some(1u32)
    }

    /// The node of the whole disk that this partition belongs to, looked for beside `path`.
    pub(super) fn parent_node(&self, path: &Path) -> Option<PathBuf> {
        self.partition_number()?;
        let parent = self.sysfs.as_ref()?.parent()?;
        node_of(&parent.file_name()?.to_string_lossy(), &std::fs::read_to_string(parent.join("dev")).ok()?, path)
    }

    /// The node of partition `number` of this disk, looked for beside `path` (which may be under `/host/dev`).
    pub(super) fn partition_node(&self, number: u32, path: &Path) -> Result<PathBuf> {
        let missing = |why: String| {
            Error::io(why).advise(match Place::here().is_container() {
                true => "give the container all of the machine's /dev, or the partition's own node",
                false => "re-read the partition table (`partprobe`, `partx -u`) or give the partition's own node",
            })
        };
        let Some(sysfs) = &self.sysfs else {
            return Err(Error::io(format!("sysfs does not describe {}", path.display()))
                .advise("mount sysfs at /sys, or give the partition's own node"));
        };
        let entries = std::fs::read_dir(sysfs)?;
        for entry in entries.flatten() {
            let dir = entry.path();
            if read_number(&dir.join("partition")) == Some(number) {
                let name = entry.file_name().to_string_lossy().into_owned();
                let dev = std::fs::read_to_string(dir.join("dev"))?;
                return node_of(&name, &dev, path).ok_or_else(|| {
                    missing(format!(
                        "the kernel knows partition {number} as {name} ({}), but it has no node",
                        dev.trim()
                    ))
                });
            }
        }
        Err(missing(format!("the kernel does not know partition {number} of {}", self.name)))
    }
}

fn read_number<N: std::str::FromStr>(path: &Path) -> Option<N> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The node called `name` in the directory of `beside`, or in `/dev`, if it has the device number `dev` (`MAJ:MIN`).
fn node_of(name: &str, dev: &str, beside: &Path) -> Option<PathBuf> {
    let number = dev.trim().split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))?;
    let dirs = [beside.parent().map(Path::to_owned), Some(PathBuf::from("/dev")), Some(PathBuf::from("/host/dev"))];
    dirs.into_iter().flatten().map(|d| d.join(name)).find(|node| device_number(node) == Some(number))
}
