//! File systems that are odd, damaged at one place, or cut off: read as far as they go, put right where the volume
//! itself tells how.

use crate::cli::{ESP, bytes_at, patch, put, truncate, uki};
use crate::support::{Lab, fsck_clean, mtools_read, run_ok, sha256, tools};
use std::path::{Path, PathBuf};

const IMAGE: &str = "v1.12.4-arm64-installer";
const INSTALLED: &str = "EFI/Linux/Talos-v1.12.4.efi";

/// A bare volume of so many KiB with an image on it.
fn volume(lab: &Lab, options: &[&str], kib: &str) -> PathBuf {
    let path = lab.path("volume.img");
    let _ = std::fs::remove_file(&path);
    let name = path.display().to_string();
    run_ok("mkfs.vfat", &[&["-C"], options, &[&name, kib]].concat());
    for folder in ["::/EFI", "::/EFI/Linux"] {
        run_ok("mmd", &["-i", &name, folder]);
    }
    put(&path, 0, INSTALLED, &std::fs::read(uki(lab, "v1.12.4-arm64-plain")).unwrap());
    path
}

/// `status` and `extract` work.
#[track_caller]
fn is_read(lab: &Lab, disk: &Path) -> serde_json::Value {
    let out = lab.path("extracted.efi");
    bootsurgeon!("extract", disk, "--uki", "Talos-v1.12.4.efi", "--out", out, "--force").code(0);
    bootsurgeon!("status", disk, "--json").code(0).json()
}

#[test]
fn rdosfstools_8_a_boot_sector_comes_back_from_its_backup() {
    if !tools(&["mkfs.vfat", "mmd", "mcopy", "fsck.fat"]) {
        return;
    }
    let losses: [(&str, Vec<u8>); 4] = [
        ("zeros", vec![0; 512]),
        ("noise", (0..512u32).map(|i| (i * 77 + 13) as u8).collect()),
        ("half of it", vec![0; 256]),
        ("the signature", Vec::new()),
    ];
    for (what, bytes) in losses {
        let lab = Lab::new();
        let disk = lab.fixture("disk-512.img.zst");
        let sound = bytes_at(&disk, ESP, 512);
        match what {
            "the signature" => patch(&disk, ESP + 510, &[0, 0]),
            _ => patch(&disk, ESP, &bytes),
        }
        let status = is_read(&lab, &disk);
        assert_eq!(status["esp"]["healthy"], false, "{what}: {status:#}");
        let image = uki(&lab, IMAGE);
        for how in ["--dry-run", "--yes"] {
            bootsurgeon!("swap", disk, image, how).fails(4, &["boot sector is lost", "run `recover` first"]);
        }
        let doctor = bootsurgeon!("doctor", disk).code(0).out;
        assert!(doctor.contains("bootsurgeon recover") && !doctor.contains("fsck.fat"), "{what}: {doctor}");
        let hash = sha256(&disk);
        let told = bootsurgeon!("recover", disk, "--dry-run", "--json").code(0).json();
        assert_eq!(sha256(&disk), hash, "a dry run wrote");
        let done = bootsurgeon!("recover", disk, "--yes", "--json").code(0).json();
        assert_eq!(told["actions"], done["actions"], "{what}");
        assert!(done["actions"].to_string().contains("restored the boot sector"), "{what}: {done:#}");
        assert_eq!(bytes_at(&disk, ESP, 512), sound, "{what}");
        fsck_clean(&disk, ESP);
        bootsurgeon!("swap", disk, image, "--yes").code(0);
    }
}

#[test]
fn issue14_7_another_file_system_or_table_is_no_lost_boot_sector() {
    if !tools(&["mkfs.vfat", "mmd", "mcopy", "sfdisk", "mkfs.ext4"]) {
        return;
    }
    let lab = Lab::new();
    // A disk that was a bare volume and has an MBR now: its first partition begins behind the old boot sector's backup.
    let disk = volume(&lab, &["-F", "32", "-s", "1"], "65536");
    let table = lab.path("table");
    std::fs::write(&table, "label: dos\nstart=2048, type=83\n").unwrap();
    let script = format!("sfdisk -q --wipe never {} < {}", disk.display(), table.display());
    run_ok("sh", &["-c", &script]);
    let hash = sha256(&disk);
    for how in ["--dry-run", "--yes"] {
        let ran = bootsurgeon!("recover", disk, how);
        assert!(ran.code != 0, "{ran:?}");
    }
    assert_eq!(sha256(&disk), hash);
    // ext4 leaves the first kilobyte alone, and the backup may survive.
    let disk = volume(&lab, &["-F", "32", "-s", "1"], "65536");
    run_ok("mkfs.ext4", &["-q", "-F", &disk.display().to_string()]);
    let hash = sha256(&disk);
    for command in ["status", "recover"] {
        let ran = bootsurgeon!(command, disk);
        assert_eq!(ran.code, 3, "{ran:?}");
    }
    assert_eq!(sha256(&disk), hash);
}

#[test]
fn rdosfstools_227_a_volume_longer_than_what_it_lies_on_is_read_and_not_written() {
    if !tools(&["mkfs.vfat", "mmd", "mcopy"]) {
        return;
    }
    for options in [&["-F", "32", "-s", "1"][..], &["-F", "16", "-s", "4"], &["-F", "12", "-s", "32"]] {
        let lab = Lab::new();
        let disk = volume(&lab, options, "40960");
        put(&disk, 0, "FILL.BIN", &vec![7; 20 << 20]);
        truncate(&disk, 16 << 20);
        let status = is_read(&lab, &disk);
        let problems = status["esp"]["problems"].to_string();
        assert!(problems.contains("ends 24.0 MiB earlier") && problems.contains("/FILL.BIN"), "{status:#}");
        let hash = sha256(&disk);
        for how in ["--dry-run", "--yes"] {
            let words = &["ends 24.0 MiB earlier"];
            bootsurgeon!("swap", disk, uki(&lab, IMAGE), how).fails(4, words);
            bootsurgeon!("recover", disk, how).fails(4, words);
        }
        let doctor = bootsurgeon!("doctor", disk).code(0).out;
        assert!(!doctor.contains("fsck.fat") && doctor.contains("make a new file system"), "{doctor}");
        assert_eq!(sha256(&disk), hash);
    }
}

#[test]
fn issue14_7_clusters_without_an_entry_in_the_table_are_left_alone() {
    if !tools(&["mkfs.vfat", "mmd", "mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let disk = volume(&lab, &["-F", "16", "-s", "1"], "8192");
    // The volume was made longer, and its table was not.
    truncate(&disk, 12 << 20);
    patch(&disk, 19, &24576u16.to_le_bytes());
    let status = is_read(&lab, &disk);
    assert!(status["esp"]["notes"].to_string().contains("no entries for the last"), "{status:#}");
    assert_eq!(status["esp"]["healthy"], true, "{status:#}");
    bootsurgeon!("swap", disk, uki(&lab, IMAGE), "--yes").code(0);
    assert_eq!(mtools_read(&disk, 0, INSTALLED), Some(std::fs::read(uki(&lab, IMAGE)).unwrap()));
    // What has no entry has not been written: the new half of the volume is as it was.
    assert!(bytes_at(&disk, 10 << 20, 2 << 20).iter().all(|b| *b == 0));
}

#[test]
fn issue14_7_an_fsinfo_without_signatures_is_no_reason_to_refuse() {
    let lab = Lab::new();
    for at in [0, 484, 510] {
        let disk = lab.fixture_as("disk-512.img.zst", "disk.img");
        patch(&disk, ESP + 512 + at, &[0, 0]);
        is_read(&lab, &disk);
        bootsurgeon!("swap", disk, uki(&lab, IMAGE), "--yes").code(0);
        let done = bootsurgeon!("recover", disk, "--yes", "--json").code(0).json();
        assert!(done["actions"].to_string().contains("new FSInfo sector"), "{done:#}");
        fsck_clean(&disk, ESP);
        let again = bootsurgeon!("recover", disk, "--yes", "--json").code(0).json();
        assert_eq!(again["actions"], serde_json::json!([]), "{again:#}");
    }
}

#[test]
fn rnixpkgs_51150_dot_entries_without_a_cluster_are_said_and_mended() {
    if !tools(&["fsck.fat"]) {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    // `.` and `..` of EFI/Linux: the slots before its first entry.
    let esp = bytes_at(&disk, ESP, 8 << 20);
    let is_dot = |at: &usize| esp[*at..].starts_with(b".          ") && esp[*at + 11] & 0x10 != 0;
    let dots: Vec<usize> = (0..8 << 20).step_by(512).filter(is_dot).collect();
    assert!(dots.len() >= 2, "{dots:?}");
    for at in dots {
        for entry in [at, at + 32] {
            patch(&disk, ESP + entry as u64 + 26, &[0, 0]);
        }
    }
    let status = is_read(&lab, &disk);
    assert!(status["esp"]["problems"].to_string().contains("nothing is found by it"), "{status:#}");
    // Of a power cut there would be lost clusters as well, and then such entries may mean more: they are mended first.
    bootsurgeon!("swap", disk, uki(&lab, IMAGE), "--yes").fails(4, &["run `recover` first"]);
    let done = bootsurgeon!("recover", disk, "--yes", "--json").code(0).json();
    assert!(done["actions"].to_string().contains("pointed"), "{done:#}");
    fsck_clean(&disk, ESP);
    bootsurgeon!("swap", disk, uki(&lab, IMAGE), "--yes").code(0);
}

#[test]
fn issue17_what_calls_itself_a_fat_and_is_none_has_a_reason() {
    if !tools(&["mkfs.vfat", "mmd", "mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let disk = volume(&lab, &["-F", "16"], "16384");
    patch(&disk, 16, &[4]);
    bootsurgeon!("status", disk).fails(3, &["4 copies of the allocation table"]);
    bootsurgeon!("swap", disk, uki(&lab, IMAGE), "--yes").fails(3, &["4 copies of the allocation table"]);
}
