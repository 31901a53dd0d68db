//! What helps where a device cannot be opened. The system says "operation not permitted" or "no such file" and not
//! which of a machine's, a container's or a pod's settings is meant.

use super::this_pod::is_device;
use super::{NODE, Place, beginning};
use crate::sorting::Sort as _;
use rustix::io::Errno;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// More disks are not named.
const MAX_DISKS: usize = 8;

/// What helps where `path` cannot be opened for this reason; `None` where nothing is known to help, and for what is no
/// device.
pub(crate) fn advice(path: &Path, error: &io::Error) -> Option<String> {
    let errno = Errno::from_io_error(error)?;
    let name = path.to_string_lossy();
    let is_block = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device());
    if !is_block && !is_device(&name) {
        return None;
    }
    let failure = Failure {
        path: &name,
        errno,
        is_on_nodev: is_block
            && rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NODEV)),
        elsewhere: elsewhere(&name),
        is_known: kernel_knows(&name),
        disks: if errno == Errno::NOENT { disks(&name) } else { Vec::new() },
    };
    failure.advice(&Process::this())
}

/// What was to be opened, and what is known of it.
struct Failure<'a> {
    path: &'a str,
    errno: Errno,
    /// Its file system makes no devices of its nodes.
    is_on_nodev: bool,
    /// The same device in the other place where containers have them.
    elsewhere: Option<String>,
    /// The kernel has a device of this name, whatever nodes there are.
    is_known: bool,
    /// The disks that there are.
    disks: Vec<String>,
}

/// The process that wanted it.
struct Process {
    place: Place,
    is_root: bool,
    /// Whether its root is that of the machine.
    is_in_user_namespace: bool,
    node: Option<String>,
}

impl Process {
    fn this() -> Self {
        // Columns: the first ID inside, the first outside, how many (user_namespaces(7)).
        let map = beginning("/proc/self/uid_map");
        let all: Vec<&str> = map.split_whitespace().collect();
        Self {
            place: Place::here(),
            is_root: rustix::process::geteuid().is_root(),
            is_in_user_namespace: !matches!(all.as_slice(), [] | ["0", "0", "4294967295"]),
            node: std::env::var(NODE).ok().filter(|node| {
                !node.is_empty() && node.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c))
            }),
        }
    }
}

impl Failure<'_> {
    fn advice(&self, process: &Process) -> Option<String> {
        match self.errno {
            Errno::PERM | Errno::ACCESS => self.not_permitted(process),
            Errno::NOENT => self.no_node(process),
            Errno::NXIO | Errno::NODEV if process.place.is_container() => Some(format!(
                "no device is behind this node: take the node's own /dev, not nodes made by hand. {}",
                process.with_devices(self.path)
            )),
            _ => None,
        }
    }

    fn not_permitted(&self, process: &Process) -> Option<String> {
        let helps = match process.place {
            _ if process.is_in_user_namespace => {
                "this process is in a user namespace, whose root is not the machine's: run it outside of one (podman \
                 and docker: as root; Kubernetes: without `hostUsers: false`)"
                    .to_owned()
            }
            _ if self.is_on_nodev => {
                "it lies on a file system that is mounted with `nodev`: take the machine's own /dev".to_owned()
            }
            Place::Machine if process.is_root => return None,
            Place::Machine => "run it as root, for example with `sudo`".to_owned(),
            Place::Container => {
                let root = if process.is_root { "" } else { ", and runs as another user than root" };
                format!("this container was not given the device{root}. {}", process.with_devices(self.path))
            }
            Place::Pod => {
                let root = if process.is_root { "" } else { " and runs as root (`runAsUser: 0`)" };
                format!(
                    "a pod may use the node's devices only if it is privileged{root}. {}",
                    process.with_devices(self.path)
                )
            }
        };
        Some(helps)
    }

    fn no_node(&self, process: &Process) -> Option<String> {
        if let Some(elsewhere) = &self.elsewhere {
            return Some(format!("it is {elsewhere} here"));
        }
        if self.is_known && process.place.is_container() {
            return Some(format!(
                "the machine has this device, and this container has no node for it. {}",
                process.with_devices(self.path)
            ));
        }
        (!self.disks.is_empty()).then(|| format!("the disks here are {}", self.disks.join(", ")))
    }
}

impl Process {
    /// How to get a container with the machine's devices.
    fn with_devices(&self, path: &str) -> String {
        if self.place == Place::Container {
            let device = path.strip_prefix("/host").unwrap_or(path);
            return format!("Start it with `--privileged`, or with `--device {device}`");
        }
        let node = self.node.as_deref().unwrap_or("NODE");
        format!(
            "`bootsurgeon pod manifest` makes such a pod (`privileged: true`, the node's /dev as a hostPath); or: \
             `kubectl debug node/{node} -n kube-system -it --profile=sysadmin --image=REF --arguments-only -- COMMAND \
             {}`",
            super::this_pod::below_host(Path::new(path))
        )
    }
}

/// The same device below the other directory, if it is there.
fn elsewhere(path: &str) -> Option<String> {
    let other = match path.strip_prefix("/host") {
        Some(rest) => rest.to_owned(),
        None => format!("/host{path}"),
    };
    std::fs::metadata(&other).is_ok_and(|meta| meta.file_type().is_block_device()).then_some(other)
}

/// Whether sysfs, which shows a container all devices of the machine, has one of this name.
fn kernel_knows(path: &str) -> bool {
    let name = path.strip_prefix("/host").unwrap_or(path).strip_prefix("/dev/");
    // sysfs writes `!` for the `/` in names such as cciss/c0d0.
    name.is_some_and(|name| Path::new("/sys/class/block").join(name.replace('/', "!")).exists())
}

/// The nodes of disks in the directory of devices that `path` is below.
fn disks(path: &str) -> Vec<String> {
    let dir = if path.starts_with("/host/") { "/host/dev" } else { "/dev" };
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten().flatten().take(1024);
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.put_in_order(Ord::cmp);
    let is_disk = |name: &String| !["loop", "ram", "zram", "sr", "fd", "dm-"].iter().any(|kind| name.starts_with(kind));
    let nodes = names.iter().filter(|name| is_disk(name)).map(|name| format!("{dir}/{}", name.replace('!', "/")));
    nodes.filter(|node| Path::new(node).exists()).take(MAX_DISKS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(place: Place) -> Process {
        Process { place, is_root: true, is_in_user_namespace: false, node: Some("altra".into()) }
    }

    fn failure(errno: Errno) -> Failure<'static> {
        Failure { path: "/dev/nvme0n1", errno, is_on_nodev: false, elsewhere: None, is_known: false, disks: Vec::new() }
    }

    #[test]
    fn what_is_not_permitted_depends_on_where() {
        for errno in [Errno::PERM, Errno::ACCESS] {
            let says = |process: &Process| failure(errno).advice(process).unwrap_or_default();
            assert_eq!(says(&process(Place::Machine)), "");
            let nobody = |place| Process { is_root: false, ..process(place) };
            assert_eq!(says(&nobody(Place::Machine)), "run it as root, for example with `sudo`");
            let pod = says(&process(Place::Pod));
            for part in [
                "`privileged: true`",
                "`kubectl debug node/altra -n kube-system -it --profile=sysadmin",
                "COMMAND /host/dev/nvme0n1`",
            ] {
                assert!(pod.contains(part), "{pod}");
            }
            assert!(!pod.contains("runAsUser"), "{pod}");
            assert!(says(&nobody(Place::Pod)).contains("runs as root (`runAsUser: 0`)"));
            let docker = says(&process(Place::Container));
            assert!(docker.contains("`--privileged`") && !docker.contains("kubectl"), "{docker}");
            let mapped = Process { is_in_user_namespace: true, ..process(Place::Pod) };
            assert!(says(&mapped).contains("hostUsers") && !says(&mapped).contains("privileged"));
            let nodev = Failure { is_on_nodev: true, ..failure(errno) };
            assert!(nodev.advice(&process(Place::Pod)).unwrap().contains("`nodev`"));
        }
    }

    #[test]
    fn a_node_that_is_missing_is_looked_for() {
        let found = Failure { elsewhere: Some("/host/dev/nvme0n1".into()), ..failure(Errno::NOENT) };
        assert_eq!(found.advice(&process(Place::Pod)).unwrap(), "it is /host/dev/nvme0n1 here");
        let hidden = || Failure { is_known: true, ..failure(Errno::NOENT) };
        assert!(hidden().advice(&process(Place::Pod)).unwrap().contains("this container has no node for it"));
        assert_eq!(hidden().advice(&process(Place::Machine)), None);
        let other = Failure { disks: vec!["/dev/sda".into(), "/dev/sdb".into()], ..failure(Errno::NOENT) };
        assert_eq!(other.advice(&process(Place::Machine)).unwrap(), "the disks here are /dev/sda, /dev/sdb");
        assert_eq!(failure(Errno::NOENT).advice(&process(Place::Pod)), None);
    }

    #[test]
    fn a_node_without_a_device_is_no_device() {
        assert!(failure(Errno::NXIO).advice(&process(Place::Pod)).unwrap().contains("no device is behind"));
        for errno in [Errno::NXIO, Errno::IO, Errno::BUSY, Errno::NOMEDIUM] {
            assert_eq!(failure(errno).advice(&process(Place::Machine)), None, "{errno}");
        }
    }

    #[test]
    fn files_are_left_to_their_owners() {
        let dir = tempfile::tempdir().unwrap();
        let denied = io::Error::from_raw_os_error(13);
        assert_eq!(advice(&dir.path().join("disk.img"), &denied), None);
        assert_eq!(advice(Path::new("/dev/no-such-disk"), &io::Error::other("no errno")), None);
    }
}
