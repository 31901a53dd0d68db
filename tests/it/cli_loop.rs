//! The same surgery on block devices: loop devices over the fixtures, as whole disks and as partitions, and the refusal
//! while somebody else uses them.

use crate::cli::{DUPLICATE, ESP, TARGET, files, named, uki, uki_bytes};
use crate::loops::{Loop, Mount};
use crate::support::{Lab, fsck_clean, gpt_clean, sha256, tool};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const INSTALLER: &str = "v1.12.4-arm64-installer";
const PLAIN: &str = "v1.12.4-arm64-plain";
/// `O_EXCL` on a block device: nobody else may claim it (open(2)).
const O_EXCL: i32 = 0o200;

/// One swap on a device over a fresh fixture; `choose` says which node is given as the disk.
fn swap_on(fixture: &str, options: &[&str], partitions: bool, choose: impl Fn(&Loop) -> std::path::PathBuf) {
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    let disk = lab.fixture(fixture);
    let esp = crate::cli::esp_bytes(&disk);
    let around = crate::cli::around_esp(&disk, esp);
    let before = tool("mcopy").then(|| files(&disk, ESP));
    let device = Loop::attach(&disk, options);
    if partitions {
        device.find_partitions();
    }
    let node = choose(&device);
    let whole = node == device.node();

    let status = bootsurgeon!("status", node, "--json").code(0).json();
    let sector_size = if options.is_empty() { 512 } else { 4096 };
    assert_eq!(status["disk"]["sector_size"], sector_size);
    assert_eq!(status["disk"]["partition"]["number"], 1);
    assert_eq!(status["disk"]["partition"]["partuuid"], "d1e6a7b4-0001-4c11-8e55-0123456789ab");
    bootsurgeon!("swap", node, image, "--dry-run").code(0);
    assert_eq!(before, tool("mcopy").then(|| files(&disk, ESP)), "a dry run wrote");

    let report = bootsurgeon!("swap", node, image, "--yes", "--json").code(0).json();
    assert_eq!(report["committed"], true);
    assert_eq!(report["sha256"], sha256(&image));
    // The other node sees it too.
    let other = if whole && partitions { device.partition(1) } else { device.node().to_owned() };
    let status = bootsurgeon!("status", other, "--json").code(0).json();
    assert_eq!(status["files"][0]["sha256"], sha256(&image), "{status:#}");
    let again = bootsurgeon!("swap", node, image, "--yes", "--json").code(0).json();
    assert_eq!(again["already_in_place"], true);
    drop(device);

    fsck_clean(&disk, ESP);
    if sector_size == 512 {
        gpt_clean(&disk);
    }
    assert_eq!(crate::cli::around_esp(&disk, esp), around, "something outside of the ESP has changed");
    if let Some(before) = before {
        let after = files(&disk, ESP);
        assert!(after[TARGET] == std::fs::read(&image).unwrap());
        let backup = named(&after, TARGET, ".bak.");
        assert_eq!(backup.len(), 1);
        assert!(after[backup[0]] == uki_bytes(&lab, PLAIN));
        assert!(after[named(&after, DUPLICATE, ".disabled.")[0]] == before[DUPLICATE]);
        let changed = |n: &&String| n.starts_with("EFI/Linux/");
        assert!(before.iter().filter(|(n, _)| !changed(n)).eq(after.iter().filter(|(n, _)| !changed(n))));
    }
}

#[test]
fn whole_disk() {
    if let Some(_turn) = crate::loops::turn() {
        swap_on("disk-512.img.zst", &[], true, |device| device.node().to_owned());
    }
}

#[test]
fn partition() {
    if let Some(_turn) = crate::loops::turn() {
        swap_on("disk-512.img.zst", &[], true, |device| device.partition(1));
    }
}

#[test]
fn whole_disk_whose_partitions_the_kernel_does_not_know() {
    if let Some(_turn) = crate::loops::turn() {
        swap_on("disk-512.img.zst", &[], false, |device| device.node().to_owned());
    }
}

#[test]
fn whole_disk_and_partition_with_sectors_of_4096_bytes() {
    if let Some(_turn) = crate::loops::turn() {
        let options = ["--sector-size", "4096"];
        swap_on("disk-4096.img.zst", &options, true, |device| device.node().to_owned());
        swap_on("disk-4096.img.zst", &options, true, |device| device.partition(1));
    }
}

#[test]
fn a_device_that_is_one_file_system() {
    let Some(_turn) = crate::loops::turn() else { return };
    let lab = Lab::new();
    let volume = lab.fixture("fat32.img.zst");
    let device = Loop::attach(&volume, &[]);
    let report = bootsurgeon!("swap", device.node(), uki(&lab, INSTALLER), "--yes", "--json").code(0).json();
    assert_eq!(report["committed"], true);
    bootsurgeon!("swap", device.node(), uki(&lab, PLAIN), "--yes", "--partition", "1").fails(2, &["--partition"]);
    drop(device);
    fsck_clean(&volume, 0);
    if tool("mcopy") {
        assert!(files(&volume, 0)[TARGET] == uki_bytes(&lab, INSTALLER));
    }
}

/// Every command that writes refuses these nodes, with these words, and nothing is written.
#[track_caller]
fn all_refused(lab: &Lab, disk: &Path, nodes: &[&Path], words: &[&str]) {
    let hash = sha256(disk);
    let image = uki(lab, INSTALLER);
    for node in nodes {
        bootsurgeon!("swap", node, image, "--yes").fails(4, words);
        bootsurgeon!("prune", node, "--yes").fails(4, words);
        // Looking is not refused.
        bootsurgeon!("status", node).code(0);
        bootsurgeon!("swap", node, image, "--dry-run").code(0);
    }
    assert_eq!(sha256(disk), hash, "something was written");
}

#[test]
fn refused_while_a_process_claims_it_and_the_process_is_named() {
    let Some(_turn) = crate::loops::turn() else { return };
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let device = Loop::attach(&disk, &[]);
    let claim = |path: &Path| OpenOptions::new().read(true).write(true).custom_flags(O_EXCL).open(path).unwrap();
    let us = format!("process {}", std::process::id());
    let words = ["mounted or in use", us.as_str(), "unmount or stop"];
    {
        let _claim = claim(device.node());
        all_refused(&lab, &disk, &[device.node()], &words);
    }
    device.find_partitions();
    let partition = device.partition(1);
    for claimed in [device.node(), &partition] {
        let _claim = claim(claimed);
        all_refused(&lab, &disk, &[device.node(), &partition], &words);
    }
    {
        // Another partition in use, as STATE and EPHEMERAL of a running node are, is in nobody's way.
        let _claim = claim(&device.partition(4));
        bootsurgeon!("swap", device.node(), uki(&lab, INSTALLER), "--yes").code(0);
    }
    drop(device);
    fsck_clean(&disk, ESP);
    gpt_clean(&disk);
}

#[test]
fn refused_while_mounted_and_the_mount_point_is_named() {
    let Some(_turn) = crate::loops::turn() else { return };
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let device = Loop::attach(&disk, &[]);
    device.find_partitions();
    let partition = device.partition(1);
    let at = lab.path("boot");
    let Some(mount) = Mount::of_fat32(&partition, &at) else { return };
    let mounted = format!("mounted at {}", at.display());
    all_refused(&lab, &disk, &[device.node(), &partition], &[&mounted, "unmount"]);
    drop(mount);
    bootsurgeon!("swap", partition, uki(&lab, INSTALLER), "--yes").code(0);
    drop(device);
    fsck_clean(&disk, ESP);
}

#[test]
fn refused_behind_the_back_of_a_loop_device() {
    let Some(_turn) = crate::loops::turn() else { return };
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let device = Loop::attach(&disk, &[]);
    let under = device.node().display().to_string();
    all_refused(&lab, &disk, &[&disk], &[&under, "losetup -d"]);
    device.find_partitions();
    let partition = device.partition(1);
    let top = Loop::attach(&partition, &[]);
    let over = top.node().display().to_string();
    all_refused(&lab, &disk, &[device.node(), &partition], &[&over, "losetup -d"]);
    bootsurgeon!("swap", top.node(), uki(&lab, INSTALLER), "--yes").code(0);
    drop(top);
    drop(device);
    fsck_clean(&disk, ESP);
}

#[test]
fn refused_while_another_program_holds_the_lock_of_the_disk() {
    let Some(_turn) = crate::loops::turn() else { return };
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let device = Loop::attach(&disk, &[]);
    device.find_partitions();
    let lock = std::fs::File::open(device.node()).unwrap();
    lock.lock().unwrap();
    let node = device.node().display().to_string();
    all_refused(&lab, &disk, &[device.node(), &device.partition(1)], &["holds the lock", &node, "wait"]);
}

#[test]
fn refused_on_a_write_protected_device() {
    let Some(_turn) = crate::loops::turn() else { return };
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let device = Loop::attach(&disk, &["-r"]);
    all_refused(&lab, &disk, &[device.node()], &["may not be written", "write-protected"]);
}
