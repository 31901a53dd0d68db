//! The program in a container: the node's devices under `/host/dev`, nodes and whole trees that are missing, the node's
//! own EFI variables, and what is said to do next on a node whose name is known.

use crate::cli::{Ran, TARGET, files, fixture, uki, uki_bytes};
use crate::loops::Loop;
use crate::support::{Lab, fsck_clean, run_ok, sha256, tool, tools};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const INSTALLER: &str = "v1.12.4-arm64-installer";
const PLAIN: &str = "v1.12.4-arm64-plain";

/// A disk with two nodes, and the tree of a host that has them under its `dev`.
struct Host {
    lab: Lab,
    disk: PathBuf,
    device: Loop,
    root: PathBuf,
}

impl Host {
    fn new() -> Self {
        let lab = Lab::new();
        let disk = lab.fixture("disk-512.img.zst");
        let device = Loop::attach(&disk, &[]);
        device.find_partitions();
        let root = lab.path("host");
        std::fs::create_dir_all(root.join("dev")).unwrap();
        Self { lab, disk, device, root }
    }

    /// Makes the node of a device below the host's tree, as a mounted `/dev` would show it.
    fn node(&self, of: &Path) -> PathBuf {
        let number = std::fs::metadata(of).unwrap().rdev();
        let node = self.root.join("dev").join(of.file_name().unwrap());
        let (major, minor) = (rustix::fs::major(number).to_string(), rustix::fs::minor(number).to_string());
        run_ok("mknod", &[node.as_os_str(), OsStr::new("b"), OsStr::new(&major), OsStr::new(&minor)]);
        node
    }
}

/// Runs the program where these directories are empty.
fn without(dirs: &[&str], command: &Command) -> Ran {
    let hide: String = dirs.iter().map(|dir| format!("mount -t tmpfs none {dir} && ")).collect();
    let mut wrapped = Command::new("unshare");
    wrapped.args(["-m", "sh", "-c", &format!("{hide}exec \"$@\""), "sh"]);
    wrapped.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    crate::cli::finish(wrapped)
}

/// A turn with the loop devices, and the tools that make a container.
fn turn() -> Option<std::sync::MutexGuard<'static, ()>> {
    if !tools(&["unshare", "mknod", "mount"]) {
        return None;
    }
    crate::loops::turn()
}

#[test]
fn a_disk_below_the_hosts_tree() {
    let Some(_turn) = turn() else { return };
    let host = Host::new();
    let whole = host.node(host.device.node());
    host.node(&host.device.partition(1));
    let image = uki(&host.lab, INSTALLER);
    // No device node but those of the host, and nobody's processes.
    let swap = crate::cli::command(&args![&"swap", &whole, &image, &"--yes", &"--json", &"--node", &"altra"]);
    let report = without(&["/dev", "/proc"], &swap).code(0).json();
    assert_eq!(report["committed"], true);
    assert_eq!(report["sha256"], sha256(&image));
    let next: Vec<_> = report["next"].as_array().unwrap().iter().filter_map(|s| s["command"].as_str()).collect();
    // What its extension waits for comes before the restart.
    assert!(next[0].starts_with("talosctl -n altra patch machineconfig"), "{next:?}");
    assert_eq!(next[1], "talosctl -n altra reboot --mode powercycle", "{next:?}");
    assert_eq!(next.last().copied(), Some(format!("bootsurgeon restore {}", whole.display()).as_str()));
    drop(host.device);
    fsck_clean(&host.disk, crate::cli::ESP);
    if tool("mcopy") {
        assert!(files(&host.disk, crate::cli::ESP)[TARGET] == uki_bytes(&host.lab, INSTALLER));
    }
}

#[test]
fn a_partition_without_a_node_is_named() {
    let Some(_turn) = turn() else { return };
    let host = Host::new();
    let whole = host.node(host.device.node());
    let before = sha256(&host.disk);
    let image = uki(&host.lab, INSTALLER);
    let swap = crate::cli::command(&args![&"swap", &whole, &image, &"--yes"]);
    let name = format!("{}p1", whole.file_name().unwrap().to_string_lossy());
    without(&["/dev"], &swap)
        .fails(1, &["the kernel knows partition 1 as", &name, "it has no node", "was not changed"]);
    assert_eq!(sha256(&host.disk), before);
}

#[test]
fn without_sysfs_the_partition_has_to_be_named() {
    let Some(_turn) = turn() else { return };
    let host = Host::new();
    let image = uki(&host.lab, INSTALLER);
    let (whole, partition) = (host.device.node().to_owned(), host.device.partition(1));
    let before = sha256(&host.disk);
    let swap = |node: &Path| crate::cli::command(&args![&"swap", &node, &image, &"--yes", &"--json"]);
    without(&["/sys"], &swap(&whole)).fails(1, &["sysfs does not describe", "mount", "/sys"]);
    assert_eq!(sha256(&host.disk), before);
    let report = without(&["/sys"], &swap(&partition)).code(0).json();
    assert_eq!(report["committed"], true);
    drop(host.device);
    fsck_clean(&host.disk, crate::cli::ESP);
}

#[test]
fn the_nodes_efi_variables_are_found_beside_its_devices() {
    let Some(_turn) = turn() else { return };
    let host = Host::new();
    let whole = host.node(host.device.node());
    host.node(&host.device.partition(1));
    let status = |node: &Path| crate::cli::command(&args![&"status", &node, &"--json"]);
    let reason = |ran: Ran| ran.code(0).json()["boot"]["reason"].as_str().unwrap().to_owned();
    let without_variables = reason(without(&["/sys/firmware"], &status(&whole)));
    assert!(!without_variables.contains("LoaderEntryDefault"), "{without_variables}");

    let efivars = host.root.join("sys/firmware/efi/efivars");
    std::fs::create_dir_all(&efivars).unwrap();
    for file in std::fs::read_dir(fixture("efivars/pinned-new")).unwrap().flatten() {
        std::fs::copy(file.path(), efivars.join(file.file_name())).unwrap();
    }
    let with_variables = reason(without(&["/sys/firmware"], &status(&whole)));
    assert!(with_variables.contains("LoaderEntryDefault"), "{with_variables}");
    // The device of the same name in this machine's own tree has nothing to do with them.
    assert_eq!(reason(without(&["/sys/firmware"], &status(host.device.node()))), without_variables);
}

#[test]
fn the_nodes_name_comes_from_the_environment_too() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let swap = |image: &str, node: &str| {
        let mut command = crate::cli::command(&args![&"swap", &disk, &uki(&lab, image), &"--yes"]);
        command.env("BOOTSURGEON_NODE", node);
        crate::cli::finish(command)
    };
    let said = swap(INSTALLER, "10.0.0.7").code(0);
    assert!(said.out.contains("talosctl -n 10.0.0.7 get extensions"), "{}", said.out);
    // An image file does not restart.
    assert!(!said.out.contains("--mode powercycle"), "{}", said.out);
    swap(PLAIN, "a; b").fails(2, &["--node", "host name or an IP address"]);
}
