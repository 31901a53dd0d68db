//! Who uses a device: told from `/proc` and sysfs, as far as they tell.

use super::device_number;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What holds the device: mounts, swap, device-mapper, processes. Empty when nothing can be found out.
pub(super) fn holders(node: &Path) -> Vec<String> {
    let Some((major, minor)) = device_number(node) else { return Vec::new() };
    let id = format!("{major}:{minor}");
    let mut found = BTreeSet::new();
    for process in processes() {
        if let Ok(mounts) = std::fs::read_to_string(process.join("mountinfo")) {
            // Field 3 is the device, field 5 the mount point (proc(5)).
            for fields in mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>()) {
                if fields.get(2) == Some(&id.as_str()) {
                    found.insert(format!("mounted at {}", fields.get(4).unwrap_or(&"?")));
                }
            }
        }
    }
    for holder in std::fs::read_dir(format!("/sys/dev/block/{id}/holders")).into_iter().flatten().flatten() {
        found.insert(format!("held by {}", holder.file_name().to_string_lossy()));
    }
    if let Ok(swaps) = std::fs::read_to_string("/proc/swaps") {
        let uses =
            |line: &str| line.split(' ').next().is_some_and(|p| device_number(Path::new(p)) == Some((major, minor)));
        if swaps.lines().skip(1).any(uses) {
            found.insert("used as swap".to_owned());
        }
    }
    if found.is_empty() {
        let us = std::process::id().to_string();
        for process in processes().filter(|p| !p.ends_with(&us) && !p.ends_with("self")) {
            let fds = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            if fds.map(|fd| fd.path()).any(|fd| device_number(&fd) == Some((major, minor))) {
                let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
                let pid = process.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.insert(format!("open in process {pid} ({})", name.trim()));
            }
        }
    }
    found.into_iter().collect()
}

/// The array, volume or cache that the kernel has made of this device and others: `/dev/md126`.
pub(super) fn assembled(node: &Path) -> Option<String> {
    let (major, minor) = device_number(node)?;
    let holders = std::fs::read_dir(format!("/sys/dev/block/{major}:{minor}/holders")).ok()?;
    let names = holders.flatten().map(|h| h.file_name().to_string_lossy().into_owned());
    names.min().map(|name| format!("/dev/{name}"))
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.path());
    all.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().bytes().all(|b| b.is_ascii_digit())))
}

/// A loop device over a file or block device.
pub(super) struct OverIt {
    /// `/dev/loop7`.
    pub(super) device: String,
    /// Whether it is known to be over this file. Where its own file is not to be found, length and beginning agree.
    pub(super) known: bool,
}

impl OverIt {
    /// `attached to /dev/loop7`, or that it may be.
    pub(super) fn in_words(&self) -> String {
        if self.known {
            format!("attached to {}", self.device)
        } else {
            format!(
                "perhaps attached to {0} (the file of {0} is not to be found under its name; length and beginning are \
                    the same)",
                self.device
            )
        }
    }
}

/// The loop device that a file or block device is attached to, if any: the kernel does not count that as a claim, but
/// what is written behind its back is not seen there. Files are told apart by device and inode: a hard link or a bind
/// mount is the same file under another name.
pub(super) fn loop_device_over(node: &Path) -> Option<OverIt> {
    let node = std::fs::canonicalize(node).ok()?;
    let number = device_number(&node);
    let file = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let ours = file(&node);
    let loops = std::fs::read_dir("/sys/block").ok()?.flatten().map(|e| e.path());
    loops.into_iter().find_map(|dev| {
        let backing = std::fs::read_to_string(dev.join("loop/backing_file")).ok()?;
        let backing = Path::new(backing.trim_end());
        let device = Path::new("/dev").join(dev.file_name().unwrap_or_default());
        let known = backing == node
            || number.is_some() && device_number(backing) == number
            || ours.is_some() && file(backing) == ours;
        let may_be = || number.is_none() && file(backing).is_none() && may_be_over(&dev, &device, &node);
        (known || may_be()).then(|| OverIt { device: device.display().to_string(), known })
    })
}

/// Whether a loop device, whose file is not to be found under the name by which it was attached, may be over this
/// file: that was renamed or unlinked since, and may have another name, or the name is one of another mount
/// namespace. Only an ioctl tells the inode; what can be read tells the length and how it begins, which two different
/// images rarely have in common.
fn may_be_over(sysfs: &Path, device: &Path, file: &Path) -> bool {
    let number = |name: &str| std::fs::read_to_string(sysfs.join(name)).ok()?.trim().parse::<u64>().ok();
    let Some((sectors, offset)) = number("size").zip(number("loop/offset")) else { return false };
    let Ok(ours) = File::open(file) else { return false };
    let Ok(length) = ours.metadata().map(|m| m.len()) else { return false };
    if sectors == 0 || length.saturating_sub(offset) / 512 != sectors {
        return false;
    }
    let mut start = [[0; 4096]; 2];
    let [here, there] = &mut start;
    match (ours.read_exact_at(here, offset), File::open(device).and_then(|d| d.read_exact_at(there, 0))) {
        (Ok(()), Ok(())) => here == there,
        // What cannot be read cannot be told apart.
        _ => true,
    }
}
