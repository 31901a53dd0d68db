//! Images that start from elsewhere than `EFI/Linux` of the ESP: a swap replaces what starts, in its place.

use super::way::{shim, status};
use crate::board::{Board, ESP_A, boot_option, uki};
use crate::support::sha256;
use bootsurgeon::disk::Target;
use bootsurgeon::fat::Volume;
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::Builder;
use serde_json::Value;

const OLD: &str = "talos-v1.12.3-arm64-installer";
const NEW: &str = "talos-v1.12.4-arm64-uki";

fn file(board: &Board, disk: &str, path: &str) -> Option<Vec<u8>> {
    let volume = Volume::open(Target::find(&board.lab.path(disk), None).unwrap().open().unwrap()).unwrap();
    volume.read_small(path, 1 << 24).unwrap()
}

fn names(board: &Board, disk: &str, directory: &str) -> Vec<String> {
    let volume = Volume::open(Target::find(&board.lab.path(disk), None).unwrap().open().unwrap()).unwrap();
    volume.list(directory).unwrap().unwrap().into_iter().map(|e| e.name).collect()
}

/// Swaps, and asserts that `path` holds the new image then, starts, and nothing else has changed; then back again, and the
/// backups away.
fn swaps_in_place(board: &Board, disk: &str, path: &str, options: &[&str]) {
    let new = board.lab.fixture(&format!("{NEW}.efi.zst"));
    let (directory, name) = path.rsplit_once('/').unwrap();
    let shown = if directory == "EFI/Linux" { name } else { path };
    let old = file(board, disk, path).unwrap();
    let linux = names(board, disk, "EFI/Linux");
    let common = ["--efivars", "vars", "--allow-untrusted", "--json"];
    let swap = [&["swap", disk, new.to_str().unwrap()], &common[..], options].concat();

    let before = sha256(&board.lab.path(disk));
    let dry = board.json(&[&swap[..], &["--dry-run"]].concat());
    assert_eq!(sha256(&board.lab.path(disk)), before);
    let report = board.json(&[&swap[..], &["--yes"]].concat());
    for report in [&dry, &report] {
        let plan = &report["plan"];
        assert_eq!((&plan["target"], &plan["boot_after"]), (&shown.into(), &shown.into()), "{plan}");
        assert_eq!((&plan["directory"], &plan["disable"]), (&directory.into(), &Value::Array(vec![])), "{plan}");
    }
    assert_eq!(report["committed"], true);
    assert!(file(board, disk, path).unwrap() == uki(&board.lab, NEW));
    let backup = report["plan"]["backup"].as_str().unwrap();
    assert!(backup.starts_with(&format!("{shown}.bak.")), "{backup}");
    let backup_path = if directory == "EFI/Linux" { format!("EFI/Linux/{backup}") } else { backup.to_owned() };
    assert!(file(board, disk, &backup_path).unwrap() == old);
    let others = |names: Vec<String>| names.into_iter().filter(|n| !n.contains(".bak.")).collect::<Vec<_>>();
    assert_eq!(others(names(board, disk, "EFI/Linux")), linux);
    let now = status(board, disk);
    assert_eq!((&now["boot"]["selected"], &now["esp"]["healthy"]), (&shown.into(), &true.into()), "{now}");

    // The same bytes again change nothing.
    assert_eq!(board.json(&[&swap[..], &["--yes"]].concat())["already_in_place"], true);
    // The path may be given, with either slash; nothing else is what starts.
    for target in [format!("/{path}"), path.replace('/', "\\")] {
        let args = [&swap[..], &["--target", &target, "--dry-run"]].concat();
        assert_eq!(board.json(&args)["plan"]["target"], shown, "{target}");
    }
    for (target, code) in [("EFI/nobody/x.efi", 4), ("EFI/../EFI/x.efi", 2), ("EFI/BOOT/..", 2)] {
        let out = board.run(&[&swap[..], &["--target", target, "--dry-run"]].concat());
        assert_eq!(out.status.code(), Some(code), "{target}: {}", String::from_utf8_lossy(&out.stdout));
    }

    // The way back: the newest backup, and by its name.
    let list = board.json(&["restore", disk, "--efivars", "vars", "--list", "--json"]);
    assert_eq!(list["backups"][0]["name"], backup, "{list}");
    let restore = [&["restore", disk][..], &common, &["--yes"]].concat();
    let report = board.json(&restore);
    assert_eq!((&report["restored"], &report["plan"]["target"]), (&backup.into(), &shown.into()), "{report}");
    assert!(file(board, disk, path).unwrap() == old && file(board, disk, &backup_path).is_none());
    let second = report["plan"]["backup"].as_str().unwrap().to_owned();
    let report = board.json(&[&["restore", disk, &second][..], &common, &["--yes"]].concat());
    assert!(file(board, disk, path).unwrap() == uki(&board.lab, NEW), "{report}");
    // And away with it.
    let prune = ["prune", disk, "--efivars", "vars", "--keep-backups", "0", "--yes", "--json"];
    let report = board.json(&prune);
    assert!(report["plan"]["delete"].to_string().contains(".bak."), "{report}");
    assert!(!names(board, disk, directory).iter().any(|name| name.contains(".bak.")));
    assert!(file(board, disk, path).unwrap() == uki(&board.lab, NEW));
    let now = status(board, disk);
    assert_eq!((&now["boot"]["selected"], &now["esp"]["healthy"]), (&shown.into(), &true.into()), "{now}");
}

/// No boot loader at all: the image is what the firmware takes from the removable-media path.
#[test]
fn issue13_4_a_uki_as_the_removable_loader_is_replaced() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &uki(&board.lab, OLD));
    let linux = names(&board, &disk, "EFI/Linux");
    swaps_in_place(&board, &disk, "EFI/BOOT/BOOTAA64.EFI", &[]);
    assert_eq!(names(&board, &disk, "EFI/Linux"), linux);
}

/// ostreedev/ostree#2753: a boot option starts a UKI itself, wherever it lies.
#[test]
fn rostree_2753_an_image_that_a_boot_option_starts_is_replaced() {
    for path in ["EFI/ubuntu/uki.efi", "EFI/Linux/Talos-v1.12.4~1.efi"] {
        let board = Board::new();
        let disk = board.disk("card.img", ESP_A);
        let (directory, name) = path.rsplit_once('/').unwrap();
        board.directory(&disk, directory);
        board.replace(&disk, directory, name, &uki(&board.lab, OLD));
        board.global("BootOrder", 7, &[1, 0]);
        board.global("Boot0001", 7, &boot_option("it", ESP_A, &format!("\\{}", path.replace('/', "\\"))));
        swaps_in_place(&board, &disk, path, &[]);
    }
}

/// Kairos and bootc: the entry that wins is of Type #1 and names an image elsewhere.
#[test]
fn issue13_4_the_image_of_a_type_1_entry_is_replaced() {
    for (key, version, path) in [
        ("efi", "257.9", "EFI/kairos/active.efi"),
        ("uki", "259.5", "EFI/Linux/bootc/a.efi"),
        ("efi", "257.9", "EFI/Linux/Talos-v1.12.4~1.efi"),
    ] {
        let board = Board::new();
        let disk = board.disk("card.img", ESP_A);
        let (directory, name) = path.rsplit_once('/').unwrap();
        let loader = format!("#### LoaderInfo: systemd-boot {version} ####");
        let loader = Builder::new(Arch::Arm64).section(".text", vec![0xC3; 512]).section(".sdmagic", loader).build();
        board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &loader);
        board.directory(&disk, directory);
        board.directory(&disk, "loader/entries");
        board.replace(&disk, directory, name, &uki(&board.lab, OLD));
        let entry = format!("title x\n{key} /{path}\nversion 9\nsort-key a\n");
        board.replace(&disk, "loader/entries", "active.conf", entry.as_bytes());
        swaps_in_place(&board, &disk, path, &[]);
    }
}

/// What starts by its path and is none that can be replaced stays refused, in a dry run too.
#[test]
fn issue13_4_what_is_no_uki_is_not_replaced() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.directory(&disk, "loader/entries");
    board.directory(&disk, "EFI/x");
    let mut kernel = Builder::new(Arch::Arm64).section(".text", vec![0; 4096]).build();
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    board.replace(&disk, "EFI/x", "linux.efi", &kernel);
    let entry = b"title x\nlinux /EFI/x/linux.efi\nversion 9\nsort-key a\n";
    board.replace(&disk, "loader/entries", "x.conf", entry);
    super::way::refused(&board, &disk, "EFI/x/linux.efi");
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &kernel);
    super::way::refused(&board, &disk, "a Linux kernel");
    // shim, and the image behind it.
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &shim());
    board.replace(&disk, "EFI/BOOT", "grubaa64.efi", &uki(&board.lab, OLD));
    swaps_in_place(&board, &disk, "EFI/BOOT/grubaa64.efi", &[]);
    // An image for another architecture starts nowhere.
    let other = board.lab.fixture("talos-v1.12.4-amd64-uki.efi.zst");
    for how in ["--dry-run", "--yes"] {
        let args = ["swap", &disk, other.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted", how];
        assert_eq!(board.run(&args).status.code(), Some(3));
    }
}
