//! What has the record's name and is none, records of other versions, lost clusters, boot sectors that differ in
//! nothing that matters: as the commands treat them.

use super::recovery::{Overlay, formatted, prune, with_files};
use crate::cli::{ESP, Ran, files, put, uki};
use crate::support::{self, Lab, fsck_clean, sha256, tools};
use bootsurgeon::fat::{Editor, Stamp, Volume};
use bootsurgeon::surgery::FileStep;
use std::path::{Path, PathBuf};

const RECORD: &str = "BOOTSURG.TXN";

fn disk(lab: &Lab, name: &str) -> (PathBuf, PathBuf) {
    (lab.fixture_as("disk-512.img.zst", name), uki(lab, "v1.12.4-arm64-installer"))
}

/// Makes a directory on the ESP.
fn make_directory(disk: &Path, name: &str) {
    support::run_ok("mmd", &["-i", &format!("{}@@{ESP}", disk.display()), &format!("::/{name}")]);
}

/// Every command that writes, in earnest and as a dry run.
fn writing(disk: &Path, image: &Path) -> Vec<Ran> {
    let mut all = Vec::new();
    for how in ["--yes", "--dry-run"] {
        all.push(bootsurgeon!("swap", disk, image, how));
        all.push(bootsurgeon!("prune", disk, how));
        all.push(bootsurgeon!("restore", disk, how));
        all.push(bootsurgeon!("recover", disk, how));
    }
    all
}

/// The command that the finding recommends first.
fn recommended(disk: &Path, id: &str) -> Vec<String> {
    let report = bootsurgeon!("status", disk, "--json").code(0).json();
    let finding = report["findings"].as_array().unwrap().iter().find(|f| f["id"] == id);
    let finding = finding.unwrap_or_else(|| panic!("no finding {id}: {report:#}"));
    let action = finding["action"].as_str().unwrap();
    let command = action.split('`').nth(1).unwrap().replace('\'', "");
    command.split(' ').skip(1).map(str::to_owned).collect()
}

#[test]
fn issue11_2_what_has_the_records_name_and_is_none_is_never_deleted() {
    if !tools(&["mcopy", "mmd"]) {
        return;
    }
    let lab = Lab::new();
    let torn = b"BOOTSURGEON RECORD 3 0.1.0 part 0001 of 0001 bytes 000002 sum 00000000000000000000000000000000\n{}";
    let contents: [(&str, Option<&[u8]>); 6] = [
        ("directory", None),
        ("text", Some(b"no record")),
        ("empty", Some(b"")),
        ("json", Some(b"{}")),
        ("large", Some(&[b'x'; 300_000])),
        ("damaged", Some(torn)),
    ];
    for (name, content) in contents {
        let (disk, image) = disk(&lab, &format!("{name}.img"));
        match content {
            Some(bytes) => put(&disk, ESP, RECORD, bytes),
            None => {
                make_directory(&disk, RECORD);
                put(&disk, ESP, &format!("{RECORD}/KEYS.TXT"), b"somebody's");
            }
        }
        let (hash, before) = (sha256(&disk), files(&disk, ESP));
        for ran in writing(&disk, &image) {
            let _ = ran.fails(4, &[RECORD, "--set-aside"]);
        }
        let json = bootsurgeon!("swap", disk, image, "--yes", "--json").code(4).json();
        assert_eq!(json["error"]["code"], "foreign-record", "{name}: {json:#}");
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        assert_eq!(status["interrupted"].is_string(), name == "damaged", "{name}");
        assert_eq!(sha256(&disk), hash, "{name}: something was written");

        let mut command = recommended(&disk, "foreign-record");
        command.push("--yes".to_owned());
        let _ = crate::cli::run(&command).code(0);
        let after = files(&disk, ESP);
        assert!(before.values().all(|bytes| after.values().any(|b| b == bytes)), "{name}: a file is lost");
        assert_eq!(before.len(), after.len(), "{name}");
        let aside = |path: &str| path.replace(RECORD, "BOOTSURG.000");
        assert!(
            before.iter().all(|(path, bytes)| after.get(&aside(path)) == Some(bytes)),
            "{name}: {:?}",
            after.keys()
        );
        fsck_clean(&disk, ESP);
        bootsurgeon!("swap", disk, image, "--yes").code(0);
        fsck_clean(&disk, ESP);
    }
}

#[test]
fn issue11_7_a_record_of_another_version_is_left_to_that_version() {
    if !tools(&["mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let header = "BOOTSURGEON RECORD 99 1.7.0 part 0001 of 0001 bytes 000002 sum 00000000000000000000000000000000\n{}";
    let json =
        r#"{"bootsurgeon": 2, "operation": {"command": "swap", "time": 1771000000, "install": null, "tidy": []}}"#;
    for (name, content, words) in [("header", header, "bootsurgeon 1.7.0"), ("json", json, "newer version")] {
        let (disk, image) = disk(&lab, &format!("{name}.img"));
        put(&disk, ESP, RECORD, content.as_bytes());
        let hash = sha256(&disk);
        for ran in writing(&disk, &image) {
            let _ = ran.fails(5, &["format", words]);
        }
        let _ = bootsurgeon!("recover", disk, "--yes", "--set-aside").fails(5, &[words]);
        let report = bootsurgeon!("recover", disk, "--yes", "--json").code(5).json();
        assert_eq!(report["error"]["code"], "record-version", "{report:#}");
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        assert!(status["interrupted"].as_str().unwrap().contains("format"), "{status:#}");
        assert_eq!(sha256(&disk), hash, "{name}: something was written");
    }
}

/// The sector of `EFI/Linux` that holds its files reads as zeros.
fn lose_the_images(disk: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(disk).unwrap();
    let volume = Volume::open(&bytes[ESP as usize..]).unwrap();
    let directory = volume.find_directory("EFI/Linux").unwrap().unwrap();
    let first = directory.offset_of(2).unwrap();
    crate::cli::patch(disk, ESP + first, &vec![0; 512 - 64]);
    let lost = files_of(disk, &bytes);
    assert_eq!(lost.len(), 2);
    lost
}

fn files_of(now: &Path, before: &[u8]) -> Vec<Vec<u8>> {
    let lab = Lab::new();
    let old = lab.path("before.img");
    std::fs::write(&old, before).unwrap();
    let now = files(now, ESP);
    files(&old, ESP).into_iter().filter(|(path, _)| !now.contains_key(path)).map(|(_, bytes)| bytes).collect()
}

#[test]
fn issue11_4_lost_clusters_may_be_somebodys_last_copy() {
    if !tools(&["mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let (disk, image) = disk(&lab, "disk.img");
    let lost = lose_the_images(&disk);
    let hash = sha256(&disk);
    let free =
        |disk: &Path| bootsurgeon!("status", disk, "--json").code(0).json()["esp"]["free_bytes"].as_u64().unwrap();
    let kept = free(&disk);

    // They are kept, and described.
    let report = bootsurgeon!("recover", disk, "--yes", "--json").code(0).json();
    assert_eq!(free(&disk), kept);
    let chains = report["lost"].as_array().unwrap();
    assert_eq!(chains.len(), 2, "{report:#}");
    assert!(chains.iter().all(|c| c["looks_like"] == "a UKI of Talos v1.12.4"), "{report:#}");
    let text = bootsurgeon!("recover", disk, "--dry-run").code(0);
    assert!(text.out.contains("--salvage") && text.out.contains("UKI of Talos v1.12.4"), "{}", text.out);
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert_eq!(status["esp"]["lost"].as_array().unwrap().len(), 2, "{status:#}");
    assert_eq!(sha256(&disk), hash, "nothing is to be done");

    // They hinder nothing.
    let other = crate::cli::copy(&disk, &lab.path("swapped.img"));
    let report = bootsurgeon!("swap", other, image, "--yes", "--json").code(0).json();
    assert!(report["warnings"].to_string().contains("belong to no file"), "{report:#}");
    let report = bootsurgeon!("recover", other, "--yes", "--json").code(0).json();
    assert_eq!(report["lost"].as_array().unwrap().len(), 2, "{report:#}");

    // They get names, which no menu lists, and no byte is wrong.
    let saved = crate::cli::copy(&disk, &lab.path("saved.img"));
    let mut command = recommended(&disk, "lost-clusters");
    assert_eq!(command.remove(1), disk.display().to_string());
    command.insert(1, saved.display().to_string());
    let _ = crate::cli::run(&command).fails(4, &["confirmation"]);
    command.extend(["--yes".to_owned(), "--json".to_owned()]);
    let report = crate::cli::run(&command).code(0).json();
    let now = files(&saved, ESP);
    for bytes in &lost {
        let found = now.iter().find(|(_, b)| *b == bytes).map(|(path, _)| path.as_str());
        assert!(found.is_some_and(|p| p.starts_with("EFI/Linux/Talos-v1.12.4.efi.salvaged.")), "{found:?}: {report:#}");
    }
    let status = bootsurgeon!("status", saved, "--json").code(0).json();
    assert_eq!(status["boot"]["menu"].as_array().unwrap().len(), 0, "{status:#}");
    assert_eq!(status["esp"]["lost"], serde_json::json!([]));
    fsck_clean(&saved, ESP);

    // They are freed when that is asked for.
    let report = bootsurgeon!("recover", disk, "--yes", "--json", "--free-lost").code(0).json();
    assert!(report["actions"].to_string().contains("UKI of Talos v1.12.4"), "{report:#}");
    assert!(free(&disk) > kept);
    fsck_clean(&disk, ESP);
    let _ = bootsurgeon!("recover", disk, "--salvage", "--free-lost").code(2);
}

#[test]
fn issue11_a_backup_boot_sector_that_differs_in_nothing_that_matters_does_not_refuse() {
    let lab = Lab::new();
    for (what, at, bytes) in [
        ("OEM name", 3, &b"MSWIN4.1"[..]),
        ("drive number", 64, &[0]),
        ("state flags", 65, &[1]),
        ("serial number", 67, &[1, 2, 3, 4]),
        ("label", 71, b"OTHER      "),
        ("boot code", 100, b"boot code"),
        ("sectors per track", 24, &[9, 0]),
    ] {
        let (disk, image) = disk(&lab, "disk.img");
        crate::cli::patch(&disk, ESP + at, bytes);
        let _ = bootsurgeon!("swap", disk, image, "--dry-run").code(0);
        let _ = bootsurgeon!("recover", disk, "--yes").code(0);
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        assert_eq!(status["esp"]["healthy"], true, "{what}: {status:#}");
    }
    // The shape of the volume does matter. What is on this one fits a smaller one as well.
    let (disk, image) = disk(&lab, "disk.img");
    crate::cli::patch(&disk, ESP + 32, &[0, 0x70]);
    for ran in writing(&disk, &image) {
        let _ = ran.fails(4, &["boot sector and its backup differ at byte"]);
    }
}

/// A deletion on a volume without room for a record, cut after every write: what a dry run says is said as yet to come,
/// to the last verb of it.
#[test]
fn issue16_a_dry_run_of_recover_says_nothing_as_if_it_were_done() {
    let lab = Lab::new();
    let volume = with_files(&formatted(fatfs::FatType::Fat12, 1 << 20));
    let full = Overlay::new(&volume);
    let mut editor = Editor::open(&full).unwrap();
    let free = editor.table().free_clusters() as usize;
    editor.make_file("", "FILLER.BIN", &vec![1; free * 512], Stamp(1_771_000_000)).unwrap();
    editor.write_fsinfo().unwrap();
    let full = full.to_bytes();
    let image = lab.path("full.img");
    let mut deletions = 0;
    for writes in 0..30 {
        let medium = Overlay::cut_after(&full, writes);
        let _ = prune(&medium, vec![FileStep::Remove("Old image.efi".into())]);
        std::fs::write(&image, medium.to_bytes()).unwrap();
        let ran = bootsurgeon!("recover", image, "--dry-run").code(0);
        for line in ran.out.lines().filter(|line| line.starts_with("would ")) {
            let done = ["freed", "finished", "removed", "deleted", "updated", "cleared", "left", "made"];
            assert!(!line.split(' ').any(|word| done.contains(&word)), "after {writes} writes: {line}");
            deletions += usize::from(line.starts_with("would finish an interrupted deletion: free "));
        }
    }
    assert!(deletions > 0, "no state with a deletion that was cut");
}
