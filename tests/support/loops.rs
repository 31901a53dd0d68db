//! Block devices for tests: loop devices over images, detached with the value.

#![allow(dead_code, unreachable_pub)]

use crate::support::{run, run_ok, skip, tools};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A turn with the loop devices, which are few; one test after the other. Where there are none the caller returns; a
/// line says so, and under `CI` it is a failure.
#[must_use]
pub fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    if !tools(&["losetup", "partx"]) {
        return None;
    }
    let works = run("losetup", &["-f"]).status.success();
    if !works {
        skip("no loop devices (not root?)");
    }
    works.then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// An attached loop device.
pub struct Loop {
    node: PathBuf,
}

impl Loop {
    /// Attaches a file or a device with these options of losetup. The kernel is not asked to look for partitions.
    pub fn attach(file: &Path, options: &[&str]) -> Self {
        let mut args = vec![OsStr::new("-f"), OsStr::new("--show")];
        args.extend(options.iter().map(OsStr::new));
        args.push(file.as_os_str());
        let node = run_ok("losetup", &args);
        let device = Self { node: PathBuf::from(String::from_utf8_lossy(&node).trim()) };
        // Whoever had the device before may have left partitions behind.
        let _ = run("partx", &[OsStr::new("-d"), device.node.as_os_str()]);
        device
    }

    /// Its node.
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// Makes the kernel know the partitions: `losetup -P` for kernels that cannot read a GPT, too.
    pub fn find_partitions(&self) {
        run_ok("partx", &[OsStr::new("-u"), self.node.as_os_str()]);
        // Where a daemon makes the nodes, they come a moment later.
        for _ in 0..100 {
            if self.partition(1).exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The node of a partition.
    pub fn partition(&self, number: u32) -> PathBuf {
        PathBuf::from(format!("{}p{number}", self.node.display()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The kernel forgets only the partitions that it has found by itself.
        let _ = run("partx", &[OsStr::new("-d"), self.node.as_os_str()]);
        let _ = run("losetup", &[OsStr::new("-d"), self.node.as_os_str()]);
    }
}

/// A mounted file system.
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Mounts the FAT volume of a device read-only, as vfat where the kernel can. Elsewhere an empty EROFS is put into
    /// the reserved sectors of the FAT32 volume, which FAT leaves alone, and that is mounted; for a claim on the device
    /// the one is as good as the other. `None` where neither can be mounted.
    pub fn of_fat32(device: &Path, at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a mount point");
        for kind in ["vfat", "erofs"] {
            if kind == "erofs" {
                crate::cli::patch(device, 1024, &empty_erofs());
            }
            let args = [OsStr::new("-r"), OsStr::new("-t"), OsStr::new(kind), device.as_os_str(), at.as_os_str()];
            if run("mount", &args).status.success() {
                return Some(Self { at: at.to_owned() });
            }
        }
        skip("neither vfat nor erofs can be mounted");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run("umount", &[self.at.as_os_str()]);
    }
}

/// Superblock and root directory of an EROFS with nothing in it (Linux, fs/erofs/erofs_fs.h), for byte 1024 of a
/// volume: the inode lies 1024 bytes further, in front of the backup boot sector of FAT32.
fn empty_erofs() -> Vec<u8> {
    let mut image = vec![0; 1024 + 32];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0xe0f5_e1e2_u32.to_le_bytes());
    // Blocks of 4096 bytes; the root is inode 64, counted in 32 bytes from the start of the volume.
    put(12, &[12]);
    put(14, &64_u16.to_le_bytes());
    put(16, &1_u64.to_le_bytes());
    put(36, &1_u32.to_le_bytes());
    // Mode and link count of an empty directory.
    put(1024 + 4, &0o040_755_u16.to_le_bytes());
    put(1024 + 6, &2_u16.to_le_bytes());
    image
}
