//! What the operating system says about the machine this program runs on. Read once, so that everything behind it is
//! pure. Every file may be absent: in a container, in a rescue system, on a workstation.
//!
//! Everything is looked for below a root, which is `/`, or `/host` where a debug container has the node's own tree.

use crate::sorting::Sort as _;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// More block devices than this are not looked at.
const MAX_DISKS: usize = 1024;
/// `/proc/mounts` of a node with many pods has some hundred kilobytes.
const MAX_MOUNTS: u64 = 4 * 1024 * 1024;
/// Records of the kernel's log that are looked at. Its ring holds some thousand.
const MAX_RECORDS: usize = 65_536;
/// Most bytes of the kernel's log, in all.
const MAX_LOG: usize = 16 * 1024 * 1024;
/// The kernel's own limit for one record is 8 KiB; a shorter buffer makes it fail (kernel documentation "dev-kmsg").
const RECORD: usize = 16 * 1024;

/// A mount of efivarfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Where.
    pub point: String,
    /// Whether the kernel refuses writes there.
    pub read_only: bool,
}

/// What `/proc`, `/sys` and `/dev` tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Where these directories are.
    pub root: PathBuf,
    /// `/sys/firmware/efi` exists: the kernel was started by UEFI.
    pub efi: bool,
    /// Where efivarfs is mounted.
    pub efivarfs: Vec<Mount>,
}

impl Machine {
    /// Reads `proc/mounts` and looks for `sys/firmware/efi` below `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let mut mounts = Vec::new();
        if let Ok(file) = File::open(root.join("proc/mounts")) {
            // Half a table is better than none.
            let _ = file.take(MAX_MOUNTS).read_to_end(&mut mounts);
        }
        Self {
            root: root.to_owned(),
            efi: root.join("sys/firmware/efi").is_dir(),
            efivarfs: efivarfs_mounts(&String::from_utf8_lossy(&mounts)),
        }
    }

    /// Where this machine's variables are.
    #[must_use]
    pub fn variables(&self) -> PathBuf {
        self.root.join("sys/firmware/efi/efivars")
    }

    /// The mount that a directory of variables belongs to. The table may name it as the container or as the host sees
    /// it.
    #[must_use]
    pub fn mount_of(&self, dir: &Path) -> Option<&Mount> {
        let inside = dir.strip_prefix(&self.root).map(|rest| Path::new("/").join(rest));
        let within =
            |m: &&Mount| dir.starts_with(&m.point) || inside.as_ref().is_ok_and(|dir| dir.starts_with(&m.point));
        self.efivarfs.iter().rfind(within)
    }

    /// The nodes of all disks of this machine, sorted by name; the second part names those that have no node. Memory,
    /// loop devices and what is made of other devices is left out.
    #[must_use]
    pub fn disks(&self) -> (Vec<PathBuf>, Vec<String>) {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        let entries = std::fs::read_dir(self.root.join("sys/block")).into_iter().flatten().flatten().take(MAX_DISKS);
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.put_in_order(Ord::cmp);
        for name in names.iter().filter(|n| is_disk(n)) {
            // sysfs writes `!` for the `/` in names such as cciss/c0d0.
            let node = name.replace('!', "/");
            let nodes = [self.root.join("dev").join(&node), Path::new("/host/dev").join(&node)];
            match nodes.into_iter().find(|n| n.exists()) {
                Some(node) => found.push(node),
                None => missing.push(name.clone()),
            }
        }
        (found, missing)
    }

    /// Hands every message of the kernel's log to `each`, the oldest first. Talos writes its own messages there, too.
    /// Without the permission to read it there are none.
    pub fn kernel_log(&self, mut each: impl FnMut(&str)) {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let open = OpenOptions::new().read(true).custom_flags(flags).open(self.root.join("dev/kmsg"));
        let Ok(mut log) = open else { return };
        let mut buffer = vec![0; RECORD];
        let mut bytes = 0;
        for _ in 0..MAX_RECORDS {
            match log.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    bytes += n;
                    let text = String::from_utf8_lossy(&buffer[..n]);
                    for line in text.lines() {
                        // `6,339,5140900,-;message`
                        each(line.split_once(';').map_or(line, |(_, message)| message));
                    }
                }
                // The record was overwritten while it was read: the next one is there.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
                Err(_) => break,
            }
            if bytes > MAX_LOG {
                break;
            }
        }
    }
}

fn is_disk(name: &str) -> bool {
    // mmcblk0boot0 and mmcblk0rpmb are hardware areas of an eMMC, not places for an ESP.
    let areas = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    !areas && !["loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd"].iter().any(|p| name.starts_with(p))
}

/// `device mount-point type options …` (proc(5), fstab(5)); blanks in paths are written as \040.
fn efivarfs_mounts(mounts: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let mut fields = line.split(' ');
        let (_, point, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (kind == "efivarfs")
            .then(|| Mount { point: point.replace("\\040", " "), read_only: options.split(',').any(|o| o == "ro") })
    };
    mounts.lines().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_efivarfs_are_found_with_their_mode() {
        let text = "sysfs /sys sysfs ro,nosuid 0 0\n\
                    efivarfs /sys/firmware/efi/efivars efivarfs ro,nosuid,nodev 0 0\n\
                    efivarfs /host/with\\040blank efivarfs rw,relatime 0 0\nbroken\n";
        let machine = Machine { efi: true, efivarfs: efivarfs_mounts(text), root: "/host".into() };
        assert_eq!(machine.efivarfs.len(), 2);
        assert!(machine.mount_of(Path::new("/sys/firmware/efi/efivars")).unwrap().read_only);
        assert!(machine.mount_of(Path::new("/host/sys/firmware/efi/efivars")).unwrap().read_only);
        assert!(!machine.mount_of(Path::new("/host/with blank")).unwrap().read_only);
        assert_eq!(machine.mount_of(Path::new("/tmp")), None);
    }

    #[test]
    fn memory_and_loops_are_no_disks() {
        for yes in ["sda", "nvme0n1", "mmcblk0", "vda", "xvda"] {
            assert!(is_disk(yes), "{yes}");
        }
        for no in ["loop0", "zram0", "sr0", "dm-1", "mmcblk0boot0", "mmcblk0rpmb"] {
            assert!(!is_disk(no), "{no}");
        }
    }

    #[test]
    fn a_machine_below_another_root_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &[u8]| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("sys/block/sda/size", b"1");
        put("sys/block/nvme0n1/size", b"1");
        put("sys/block/loop0/size", b"1");
        put("dev/sda", b"");
        put("dev/kmsg", b"6,1,2,-;efivars: one\n SUBSYSTEM=x\n4,2,3,-;two\nno record\n\xff\n");
        let machine = Machine::read(dir.path());
        assert!(!machine.efi);
        assert_eq!(machine.disks(), (vec![dir.path().join("dev/sda")], vec!["nvme0n1".to_owned()]));
        let mut lines = Vec::new();
        machine.kernel_log(|line| lines.push(line.to_owned()));
        assert_eq!(lines[..4], ["efivars: one", " SUBSYSTEM=x", "two", "no record"]);
        let nowhere = Machine::read(&dir.path().join("nowhere"));
        assert_eq!(nowhere.disks(), (vec![], vec![]));
        nowhere.kernel_log(|_| panic!("no log"));
    }
}
