//! ESPs that are full: what fills them is named, and what is recommended makes room.

use crate::cli::{ESP, Ran, patch, put, uki};
use crate::support::{Lab, run, run_ok, tools};
use std::path::{Path, PathBuf};

const NEW: &str = "v1.12.3-arm64-installer";

/// Something that takes room.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Filling {
    Capsules,
    Folder,
    Disabled,
    Duplicates,
    Backups,
    Lost,
}

use Filling::{Backups, Capsules, Disabled, Duplicates, Folder, Lost};

/// The disk of the fixtures with these fillings, and hardly any room left.
fn full(lab: &Lab, fillings: &[Filling]) -> PathBuf {
    let disk = lab.fixture_as("disk-512.img.zst", "disk.img");
    bootsurgeon!("prune", disk, "--yes", "--delete", "--keep-backups", "0").code(0);
    let volume = format!("{}@@{ESP}", disk.display());
    let image = std::fs::read(uki(lab, "v1.12.4-arm64-plain")).unwrap();
    for filling in fillings {
        match filling {
            Capsules => {
                run_ok("mmd", &["-i", &volume, "::/EFI/UpdateCapsule"]);
                for n in 0..3 {
                    put(&disk, ESP, &format!("EFI/UpdateCapsule/bios-{n}.cap"), &vec![n; 700_000]);
                }
            }
            Folder => {
                for folder in ["::/backup", "::/backup/2024"] {
                    run_ok("mmd", &["-i", &volume, folder]);
                }
                put(&disk, ESP, "backup/2024/initrd.img", &vec![9; 900_000]);
            }
            Disabled => put(&disk, ESP, "EFI/Linux/Talos-v1.12.1.efi.disabled.1700000000", &image),
            Duplicates => put(&disk, ESP, "EFI/Linux/Talos-v1.12.4~3.efi", &image),
            Backups => {
                for n in 1..4 {
                    put(&disk, ESP, &format!("EFI/Linux/Talos-v1.12.4.efi.bak.170000000{n}"), &image);
                }
            }
            Lost => {
                // A file whose name was overwritten.
                put(&disk, ESP, "LOST.BIN", &image);
                let esp = crate::cli::bytes_at(&disk, ESP, 8 << 20);
                let at = esp.windows(11).position(|w| w == b"LOST    BIN").unwrap();
                patch(&disk, ESP + at as u64, &[0xE5]);
            }
        }
    }
    let free = free(&disk);
    put(&disk, ESP, "FILL.BIN", &vec![5; free as usize - 8 * 1024]);
    disk
}

fn free(disk: &Path) -> u64 {
    bootsurgeon!("status", disk, "--json").code(0).json()["esp"]["free_bytes"].as_u64().unwrap()
}

fn run_recommended(text: &str) -> Option<Ran> {
    let command = text.split('`').nth(1)?.replace('\'', "");
    let args = command.split(' ').skip(1).map(str::to_owned).chain(Some("--yes".to_owned()));
    Some(crate::cli::run(&args.collect::<Vec<_>>()))
}

fn finding(disk: &Path) -> serde_json::Value {
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    let findings = status["findings"].as_array().unwrap();
    findings.iter().find(|f| f["id"] == "no-room").cloned().unwrap_or_else(|| panic!("{status:#}"))
}

#[test]
fn rwendyos_builder_227_what_fills_the_esp_is_named_and_no_command_is_recommended_that_frees_nothing() {
    if !tools(&["mmd", "mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let disk = full(&lab, &[Capsules, Folder]);
    let image = uki(&lab, NEW);
    for how in ["--dry-run", "--yes"] {
        let error = bootsurgeon!("swap", disk, image, how, "--json").code(4).json();
        assert_eq!(error["error"]["code"], "no-room", "{error:#}");
        let advice = error["error"]["advice"].as_str().unwrap();
        assert!(advice.contains("/EFI/UpdateCapsule 2.0 MiB (3 files)"), "{advice}");
        assert!(advice.contains("/FILL.BIN") && advice.contains("/backup 880 KiB (1 file)"), "{advice}");
    }
    let finding = finding(&disk);
    assert!(finding["what"].as_str().unwrap().contains("/EFI/UpdateCapsule 2.0 MiB (3 files)"), "{finding:#}");
}

/// dakota#1273: what fills the ESP is a folder that nobody here knows.
#[test]
fn rdakota_1273_a_folder_that_fills_the_esp_is_named_and_left_alone() {
    if !tools(&["mmd", "mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let disk = full(&lab, &[Folder]);
    let error = bootsurgeon!("swap", disk, uki(&lab, NEW), "--dry-run", "--json").code(4).json();
    let advice = error["error"]["advice"].as_str().unwrap();
    assert!(advice.contains("/backup 880 KiB (1 file)") && !advice.contains('`'), "{advice}");
    assert!(!finding(&disk)["action"].as_str().unwrap().contains("bootsurgeon prune"), "{advice}");
}

/// olafkfreund/nixos_config#1300: it is full of backups, and the command that is recommended makes room.
#[test]
fn rnixos_config_1300_backups_that_fill_the_esp_go_by_the_command_that_is_recommended() {
    if !tools(&["mmd", "mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let disk = full(&lab, &[Backups]);
    let error = bootsurgeon!("swap", disk, uki(&lab, NEW), "--dry-run", "--json").code(4).json();
    let advice = error["error"]["advice"].as_str().unwrap();
    assert!(advice.contains("--keep-backups"), "{advice}");
    run_recommended(advice).unwrap().code(0);
    bootsurgeon!("swap", disk, uki(&lab, NEW), "--dry-run").code(0);
}

#[test]
fn issue14_8_what_is_recommended_for_room_makes_it() {
    if !tools(&["mmd", "mcopy"]) {
        return;
    }
    let cases: [(&[Filling], bool, &str); 9] = [
        (&[Disabled], true, "prune"),
        (&[Duplicates, Capsules], true, "prune"),
        (&[Backups], true, "--keep-backups 1"),
        (&[Backups, Disabled], true, "--delete`"),
        (&[Lost], true, "recover"),
        (&[Lost, Folder, Duplicates], true, "recover"),
        (&[Duplicates], true, "Talos-v1.12.4~3.efi would start, and is deleted for good"),
        (&[Folder], false, ""),
        (&[Capsules, Folder], false, ""),
    ];
    for (fillings, enough, word) in cases {
        let lab = Lab::new();
        let disk = full(&lab, fillings);
        let image = uki(&lab, NEW);
        let error = bootsurgeon!("swap", disk, image, "--yes", "--keep-backups", "0", "--json").code(4).json();
        assert_eq!(error["error"]["code"], "no-room", "{fillings:?}: {error:#}");
        let advice = error["error"]["advice"].as_str().unwrap().to_owned();
        let finding = finding(&disk);
        assert!(advice.contains(word), "{fillings:?}: {advice}");
        let before = free(&disk);
        match run_recommended(&advice) {
            Some(ran) => {
                let _ = ran.code(0);
                assert!(free(&disk) > before, "{fillings:?}: nothing was freed by {advice}");
            }
            None => assert!(!enough, "{fillings:?}: {advice}"),
        }
        // The finding recommends the same.
        assert!(finding["action"].as_str().unwrap().contains(word), "{fillings:?}: {finding:#}");
        let after = bootsurgeon!("swap", disk, image, "--dry-run");
        assert_eq!(after.code == 0, enough, "{fillings:?}: {advice}: {after:?}");
    }
}

#[test]
fn issue16_1_the_question_of_prune_names_every_file_and_every_loss() {
    if !tools(&["mmd", "mcopy", "script"]) {
        return;
    }
    let lab = Lab::new();
    let disk = full(&lab, &[Backups, Disabled]);
    let command = format!("{} prune {} --delete --keep-backups 0", env!("CARGO_BIN_EXE_bootsurgeon"), disk.display());
    let said = run("sh", &["-c", &format!("echo n | script -qec '{command}' /dev/null")]);
    let said = String::from_utf8_lossy(&said.stdout).replace(['\r', '\n'], "");
    let names = ["Talos-v1.12.1.efi.disabled.1700000000", "Talos-v1.12.4.efi.bak.1700000003 (a backup)"];
    for words in names.into_iter().chain(["delete for good", "keep no backup"]) {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    assert!(free(&disk) < 64 * 1024, "something was deleted");
}
