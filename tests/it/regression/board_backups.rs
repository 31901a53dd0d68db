//! `prune` and the backups of the board's own files.

use super::place::names;
use crate::board::{Board, ESP_A, boot_option, systemd_boot};
use crate::changed::Yes;
use crate::support::{fsck_clean, sha256};
use bootsurgeon::Kind;
use bootsurgeon::command::{Change, DiskRequest, Prune, VariablesChoice};
use bootsurgeon::pe::Arch;
use serde_json::Value;

const LOADER: &str = "BOOTAA64.EFI";

/// A board that has seen some changes.
fn board() -> (Board, String) {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    board.replace(&disk, "EFI/BOOT", LOADER, &systemd_boot("257.9", Arch::Arm64));
    for (number, version) in [(1_771_000_000, "254.1"), (1_771_000_100, "255.1"), (1_771_000_200, "256.1")] {
        let backup = format!("{LOADER}.bak.{number}");
        board.replace(&disk, "EFI/BOOT", &backup, &systemd_boot(version, Arch::Arm64));
    }
    board.directory(&disk, "overlays");
    for (directory, name) in [
        ("overlays", "a rather long name.dtbo"),
        ("overlays", "a rather long name.dtbo.bak.1771000000"),
        ("overlays", "a rather long name.dtbo.bak.1771000200"),
        ("", "start4.elf"),
        ("", "start4.elf.bak.1771000200"),
        // Somebody else's: that is no time.
        ("", "start4.elf.bak.20240102"),
        // What it was is gone: it is the last copy.
        ("", "fixup4.dat.bak.1771000000"),
        // Of these no backup is made here: a menu program, settings of the boot loader.
        ("EFI/BOOT", "grubaa64.efi.bak.1771000000"),
        ("loader", "loader.conf"),
        ("loader", "loader.conf.bak.1771000000"),
        ("", "shell.efi"),
        ("", "shell.efi.bak.1771000000"),
        // No files of the board.
        ("", "start4.elf.bak.x"),
        ("loader", "random-seed.bak.1771000000"),
    ] {
        board.replace(&disk, directory, name, name.as_bytes());
    }
    (board, disk)
}

fn prune(board: &Board, disk: &str, more: &[&str]) -> Value {
    board.json(&[&["prune", disk, "--efivars", "vars", "--json"], more].concat())
}

fn deleted(report: &Value) -> Vec<String> {
    let all = report["plan"]["delete"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    let mut names: Vec<String> = all.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn issue19_prune_deletes_old_backups_of_the_boards_files() {
    let (board, disk) = board();
    let before = sha256(&board.lab.path(&disk));
    let expected = [
        "EFI/BOOT/BOOTAA64.EFI.bak.1771000000",
        "EFI/BOOT/BOOTAA64.EFI.bak.1771000100",
        "overlays/a rather long name.dtbo.bak.1771000000",
    ];
    assert_eq!(deleted(&prune(&board, &disk, &["--dry-run"])), Vec::<String>::new());
    let planned = prune(&board, &disk, &["--keep-backups", "1", "--dry-run"]);
    assert_eq!(sha256(&board.lab.path(&disk)), before);
    let done = prune(&board, &disk, &["--keep-backups", "1", "--yes"]);
    for report in [&planned, &done] {
        assert_eq!(deleted(report), expected);
    }
    let there = |directory: &str| names(&board, &disk, directory);
    assert!(there("EFI/BOOT").contains(&format!("{LOADER}.bak.1771000200")));
    assert!(!there("EFI/BOOT").contains(&format!("{LOADER}.bak.1771000100")));
    assert!(fsck_clean(&board.lab.path(&disk), crate::cli::ESP));

    // Without any, what is the last copy of its file stays.
    let done = prune(&board, &disk, &["--keep-backups", "0", "--yes"]);
    assert_eq!(deleted(&done).len(), 3, "{done:#}");
    assert!(there("").contains(&"fixup4.dat.bak.1771000000".to_owned()));
    assert!(there("").contains(&"start4.elf.bak.x".to_owned()));
    assert!(there("").contains(&"start4.elf.bak.20240102".to_owned()));
    assert!(there("loader").contains(&"random-seed.bak.1771000000".to_owned()));
    assert!(there("loader").contains(&"loader.conf.bak.1771000000".to_owned()));
    assert!(there("").contains(&"shell.efi.bak.1771000000".to_owned()));
    assert!(there("EFI/BOOT").contains(&"grubaa64.efi.bak.1771000000".to_owned()));
    assert!(fsck_clean(&board.lab.path(&disk), crate::cli::ESP));
    let again = prune(&board, &disk, &["--keep-backups", "0", "--yes"]);
    assert_eq!(again["committed"], false, "{again:#}");
}

#[test]
fn issue19_prune_keeps_the_way_back_of_a_broken_loader() {
    let (board, disk) = board();
    board.replace(&disk, "EFI/BOOT", LOADER, b"MZ, and no more");
    board.directory(&disk, "EFI/systemd");
    board.replace(&disk, "EFI/systemd", "systemd-bootaa64.efi", &systemd_boot("257.9", Arch::Arm64));
    board.global("BootOrder", 7, &[1, 0]);
    board.global("Boot0001", 7, &boot_option("Linux Boot Manager", ESP_A, "\\EFI\\systemd\\systemd-bootaa64.efi"));
    let done = prune(&board, &disk, &["--keep-backups", "0", "--dry-run"]);
    let kept = done["plan"]["keep"].to_string();
    assert!(kept.contains("BOOTAA64.EFI.bak.1771000200"), "{kept}");
    assert!(!deleted(&done).contains(&"EFI/BOOT/BOOTAA64.EFI.bak.1771000200".to_owned()), "{done:#}");
}

#[test]
fn issue19_prune_keeps_a_backup_that_a_boot_option_starts() {
    let (board, disk) = board();
    board.global("BootOrder", 7, &[1, 0]);
    let path = format!("\\EFI\\BOOT\\{LOADER}.bak.1771000000");
    board.global("Boot0001", 7, &boot_option("somebody's own", ESP_A, &path));
    let done = prune(&board, &disk, &["--keep-backups", "1", "--yes"]);
    let kept = done["plan"]["keep"].to_string();
    assert!(kept.contains(&format!("[\"EFI/BOOT/{LOADER}.bak.1771000000\",\"the firmware starts it\"]")), "{kept}");
    assert!(!deleted(&done).contains(&format!("EFI/BOOT/{LOADER}.bak.1771000000")), "{done:#}");
    assert!(names(&board, &disk, "EFI/BOOT").contains(&format!("{LOADER}.bak.1771000000")));
}

/// Whoever writes while the question stands: what is deleted then is what the plan named, or nothing of it.
#[test]
fn issue19_prune_leaves_a_backup_that_is_another_file_since() {
    let (board, disk) = board();
    // The menu has nothing to tidy up any more: the backups are all there is to do.
    prune(&board, &disk, &["--yes"]);
    let path = board.lab.path(&disk);
    let meanwhile = || {
        let name = "a rather long name.dtbo.bak.1771000000";
        board.replace(&disk, "overlays", name, b"somebody's only copy");
    };
    let request = DiskRequest { efivars: VariablesChoice::None, ..DiskRequest::new(&path) };
    let change = Change::default();
    let asked = Prune { disk: request, change, delete: false, keep_backups: Some(1), no_fallback: false };
    let error = asked.run(&Yes::after(meanwhile)).expect_err("it has changed");
    assert_eq!(error.kind(), Kind::Unsafe, "{error}");
    assert!(error.to_string().contains("has changed since the plan was made"), "{error}");
    assert!(names(&board, &disk, "overlays").contains(&"a rather long name.dtbo.bak.1771000000".to_owned()));
    assert!(fsck_clean(&path, crate::cli::ESP));
}
