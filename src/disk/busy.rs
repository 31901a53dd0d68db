//! Who uses a device: told from `/proc` and sysfs, as far as they tell.

use super::device_number;
use std::collections::BTreeSet;
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

fn processes() -> impl Iterator<Item = PathBuf> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.path());
    all.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().bytes().all(|b| b.is_ascii_digit())))
}

/// The loop device that a file or block device is attached to, if any: the kernel does not count that as a claim, but what is
/// written behind its back is not seen there.
pub(super) fn loop_device_over(node: &Path) -> Option<String> {
    let node = std::fs::canonicalize(node).ok()?;
    let number = device_number(&node);
    let loops = std::fs::read_dir("/sys/block").ok()?.flatten().map(|e| e.path());
    loops.into_iter().find_map(|dev| {
        let backing = std::fs::read_to_string(dev.join("loop/backing_file")).ok()?;
        let backing = Path::new(backing.trim_end());
        (backing == node || number.is_some() && device_number(backing) == number)
            .then(|| format!("/dev/{}", dev.file_name().unwrap_or_default().to_string_lossy()))
    })
}
