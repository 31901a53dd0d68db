//! Images that start from elsewhere than `EFI/Linux` of the ESP: a swap replaces what starts, in its place.

use super::disks::SECOND;
use super::way::{shim, status};
use super::xbootldr::with_xbootldr;
use crate::board::{Board, ESP_A, boot_option, systemd_boot, uki};
use crate::changed::Yes;
use crate::cli::{ESP, bytes_at, patch, put};
use crate::support::{Lab, fsck_clean, run, sha256, tools};
use bootsurgeon::Kind;
use bootsurgeon::command::{Change, DiskRequest, Prune, VariablesChoice};
use bootsurgeon::disk::Target;
use bootsurgeon::fat::Volume;
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::Builder;
use serde_json::Value;
use std::path::Path;

pub(super) const OLD: &str = "talos-v1.12.3-arm64-installer";
const NEW: &str = "talos-v1.12.4-arm64-uki";

pub(super) fn file(board: &Board, disk: &str, path: &str) -> Option<Vec<u8>> {
    let volume = Volume::open(Target::find(&board.lab.path(disk), None).unwrap().open().unwrap()).unwrap();
    volume.read_small(path, 1 << 24).unwrap()
}

pub(super) fn names(board: &Board, disk: &str, directory: &str) -> Vec<String> {
    let volume = Volume::open(Target::find(&board.lab.path(disk), None).unwrap().open().unwrap()).unwrap();
    volume.list(directory).unwrap().unwrap().into_iter().map(|e| e.name).collect()
}

/// Swaps, and asserts that `path` holds the new image then, starts, and nothing else has changed; then back again, and
/// the backups away.
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

/// A board whose boot menu has an entry of Type #1 that wins, with `options` among its lines: `EFI/k/a.efi`.
pub(super) fn with_entry(options: &str) -> (Board, String) {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &systemd_boot("257.9", Arch::Arm64));
    board.directory(&disk, "EFI/k");
    board.directory(&disk, "loader/entries");
    let entry = format!("title x\nefi /EFI/k/a.efi\n{options}version 9\nsort-key a\n");
    board.replace(&disk, "loader/entries", "a.conf", entry.as_bytes());
    board.replace(&disk, "EFI/k", "a.efi", &uki(&board.lab, OLD));
    (board, disk)
}

/// An entry that names a file which is not there yet is hidden. Where the backup gets that very name, the entry appears
/// while the swap is under way: what starts then is looked at, too.
#[test]
fn issue13_4_an_entry_that_a_backup_brings_forward_is_a_refusal() {
    let (board, disk) = with_entry("");
    let new = board.lab.fixture(&format!("{NEW}.efi.zst"));
    // The next backup is named behind the newest one.
    board.replace(&disk, "EFI/k", "a.efi.bak.4000000000", &uki(&board.lab, OLD));
    let next = "EFI/k/a.efi.bak.4000000001";
    let swap = |how| {
        board.run(&["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted", how, "--json"])
    };
    let plan: Value = serde_json::from_slice(&swap("--dry-run").stdout).unwrap();
    assert_eq!(plan["plan"]["backup"], next);
    let entry = format!("title y\nefi /{next}\nversion 9\nsort-key 0\n");
    board.replace(&disk, "loader/entries", "b.conf", entry.as_bytes());
    assert_eq!(status(&board, &disk)["boot"]["selected"], "EFI/k/a.efi");
    let before = sha256(&board.lab.path(&disk));
    for how in ["--dry-run", "--yes"] {
        let out = swap(how);
        assert_eq!(out.status.code(), Some(4), "{how}: {}", String::from_utf8_lossy(&out.stdout));
        let error: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(error["error"]["code"], "would-not-boot", "{error:#}");
        assert!(
            error["error"]["message"].as_str().unwrap().contains("with a.efi.bak.4000000001 prepared"),
            "{error:#}"
        );
    }
    assert_eq!(sha256(&board.lab.path(&disk)), before);
}

fn prune_while(disk: &Path, vars: &Path, meanwhile: impl Fn() + Sync) -> bootsurgeon::Result<()> {
    let disk = DiskRequest { efivars: VariablesChoice::Dir(vars.to_owned()), ..DiskRequest::new(disk) };
    let prune = Prune { disk, change: Change::default(), delete: false, keep_backups: Some(0), no_fallback: false };
    prune.run(&Yes::after(meanwhile)).map(drop)
}

/// The question says what is a backup and that none is left, wherever the backups lie.
#[test]
fn issue16_1_the_question_of_prune_knows_backups_beside_an_image() {
    if !tools(&["script"]) {
        return;
    }
    let (board, disk) = with_entry("");
    for time in [1_700_000_000, 1_700_000_001] {
        board.replace(&disk, "EFI/k", &format!("a.efi.bak.{time}"), &uki(&board.lab, OLD));
    }
    let ask = |keep: u32| {
        let program = env!("CARGO_BIN_EXE_bootsurgeon");
        let (disk, vars) = (board.lab.path(&disk), board.lab.path("vars"));
        let command = format!("{program} prune {} --efivars {} --keep-backups {keep}", disk.display(), vars.display());
        let said = run("sh", &["-c", &format!("echo n | script -qec '{command}' /dev/null")]);
        String::from_utf8_lossy(&said.stdout).replace(['\r', '\n'], "")
    };
    let (one, all) = (ask(1), ask(0));
    assert!(one.contains("EFI/k/a.efi.bak.1700000000 (a backup)") && !one.contains("keep no backup"), "{one}");
    assert!(!one.contains("a.efi.bak.1700000001 (a backup)"), "{one}");
    assert!(all.contains("EFI/k/a.efi.bak.1700000001 (a backup)") && all.contains("keep no backup"), "{all}");
}

/// A backup that somebody replaces between the plan and the answer is not the one that was to be deleted, also where
/// the menu is tidied first.
#[test]
fn issue13_4_a_backup_that_changed_since_the_plan_is_not_deleted() {
    let (board, disk) = with_entry("");
    let backup = "a.efi.bak.1700000000";
    board.replace(&disk, "EFI/k", backup, &uki(&board.lab, NEW));
    let after = std::sync::Mutex::new(String::new());
    let refused = prune_while(&board.lab.path(&disk), &board.lab.path("vars"), || {
        board.replace(&disk, "EFI/k", backup, b"another file");
        *after.lock().unwrap() = sha256(&board.lab.path(&disk));
    });
    let error = refused.expect_err("EFI/k has changed");
    assert_eq!((error.kind(), error.esp_changed()), (Kind::Unsafe, Some(false)), "{error}");
    assert!(error.to_string().contains("EFI/k has changed"), "{error}");
    assert_eq!(sha256(&board.lab.path(&disk)), *after.lock().unwrap(), "something was written");
    prune_while(&board.lab.path(&disk), &board.lab.path("vars"), || ()).expect("nothing has changed");

    // On the other partition it would be the second step.
    let lab = Lab::new();
    let disk = with_xbootldr(&lab, &[("zalos.efi", "v1.12.4-arm64-installer")]);
    let image = uki(&lab, NEW);
    put(&disk, ESP, "EFI/Linux/b.efi.bak.1700000000", &image);
    put(&disk, SECOND, "EFI/Linux/zalos.efi.bak.1700000000", &image);
    std::fs::create_dir(lab.path("vars")).unwrap();
    let refused = prune_while(&disk, &lab.path("vars"), || {
        put(&disk, SECOND, "EFI/Linux/zalos.efi.bak.1700000000", b"another file");
    });
    let error = refused.expect_err("partition 7 has changed");
    assert!(error.kind() == Kind::Unsafe && error.to_string().contains("has changed"), "{error}");
    let volume = bytes_at(&disk, SECOND, 32 << 20);
    let kept = Volume::open(&volume).unwrap().read_small("EFI/Linux/zalos.efi.bak.1700000000", 100).unwrap();
    assert_eq!(kept.as_deref(), Some(&b"another file"[..]));
}

/// `EFI/BOOT` is everybody's: what others call a backup there is neither deleted nor put back.
#[test]
fn issue13_4_backups_of_others_beside_an_image_stay() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    let old = uki(&board.lab, OLD);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &old);
    let loader = systemd_boot("257.9", Arch::Arm64);
    let others = [
        ("BOOTX64.EFI.bak.20240102", &loader),
        ("MMX64.EFI.bak.20240101", &old),
        ("BOOTAA64.EFI.bak.20240103", &loader),
        ("BOOTAA64.EFI.disabled.20240104", &loader),
    ];
    for (name, bytes) in others {
        board.replace(&disk, "EFI/BOOT", name, bytes);
    }
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI.bak.1700000000", &old);
    let own = Value::from(vec!["EFI/BOOT/BOOTAA64.EFI.bak.1700000000"]);
    let list = board.json(&["restore", &disk, "--efivars", "vars", "--list", "--json"]);
    let listed: Vec<&Value> = list["backups"].as_array().unwrap().iter().map(|b| &b["name"]).collect();
    assert_eq!(listed, [&own[0]], "{list}");
    let new = board.lab.fixture(&format!("{NEW}.efi.zst"));
    let swap = ["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted", "--json", "--yes"];
    let report = board.json(&[&swap[..], &["--keep-backups", "1"]].concat());
    assert_eq!(report["plan"]["delete"], own, "{report}");
    let report =
        board.json(&["prune", &disk, "--efivars", "vars", "--delete", "--keep-backups", "0", "--yes", "--json"]);
    assert_eq!(report["plan"]["delete"].as_array().map(Vec::len), Some(1), "{report}");
    let left = names(&board, &disk, "EFI/BOOT");
    assert!(others.iter().all(|(name, _)| left.iter().any(|n| n == name)), "{left:?}");
    assert!(!left.iter().any(|n| n.starts_with("BOOTAA64.EFI.bak.1")), "{left:?}");
}

/// A cut on the Extended Boot Loader Partition before the record was there: what a swap asks for first, `recover` of
/// the disk does, and `doctor` names.
#[test]
fn issue13_4_leftovers_on_the_xbootldr_partition_are_put_right() {
    let lab = Lab::new();
    let disk = with_xbootldr(&lab, &[("zalos.efi", "v1.12.4-arm64-installer")]);
    // The second copy of the allocation table has a chain that the first one does not have.
    let boot = bytes_at(&disk, SECOND, 512);
    let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let sectors = if word(22) > 0 { word(22) } else { word(36) };
    let second = SECOND + (word(14) + sectors) * word(11);
    patch(&disk, second + sectors * word(11) / 2 / 4 * 4, &[0xFF, 0xFF, 0xFF, 0x0F]);
    let new = lab.fixture(&format!("{NEW}.efi.zst"));
    let swap = |how: &str| bootsurgeon!("swap", disk, new, "--allow-untrusted", "--efivars", "none", how);
    swap("--dry-run").fails(4, &["recover"]);
    let doctor = bootsurgeon!("doctor", disk, "--efivars", "none", "--json").out;
    assert!(doctor.contains("fat-leftovers") && doctor.contains("bootsurgeon recover"), "{doctor}");
    let hash = sha256(&disk);
    let dry = bootsurgeon!("recover", disk, "--dry-run", "--json").code(0).json();
    assert_eq!(sha256(&disk), hash);
    let report = bootsurgeon!("recover", disk, "--yes", "--json").code(0).json();
    assert_eq!((&report["committed"], &report["actions"]), (&true.into(), &dry["actions"]), "{report:#}");
    assert!(report["actions"].to_string().contains("partition 7 ("), "{report:#}");
    fsck_clean(&disk, SECOND);
    let again = bootsurgeon!("recover", disk, "--yes", "--json").code(0).json();
    assert_eq!(again["committed"], false, "{again:#}");
    swap("--yes").code(0);
}

/// The menu has no image of its own to start, and what starts all the same is said.
#[test]
fn issue13_4_prune_says_what_starts_beside_the_menu() {
    let (board, disk) = with_entry("");
    let report = board.json(&["prune", &disk, "--efivars", "vars", "--dry-run", "--json"]);
    for when in ["boot", "boot_before"] {
        assert_eq!(report["plan"][when], "EFI/k/a.efi", "{report}");
    }
}

/// A bare name is one in `EFI/Linux`, as the list has it; a path is that of the image that starts elsewhere.
#[test]
fn issue13_4_restore_takes_the_backup_that_is_named() {
    let (board, disk) = with_entry("");
    let backup = "a.efi.bak.1700000000";
    board.replace(&disk, "EFI/k", backup, &uki(&board.lab, OLD));
    let restore = |name: &str| {
        let args = ["restore", &disk, name, "--efivars", "vars", "--allow-untrusted", "--dry-run", "--json"];
        let out = board.run(&args);
        (out.status.code(), serde_json::from_slice::<Value>(&out.stdout).unwrap())
    };
    // There is one of that name only.
    assert_eq!(restore(backup).1["restored"], format!("EFI/k/{backup}"));
    board.replace(&disk, "EFI/Linux", backup, &uki(&board.lab, NEW));
    assert_eq!(restore(&format!("EFI/k/{backup}")).1["restored"], format!("EFI/k/{backup}"));
    let (_, bare) = restore(backup);
    assert!(!bare["restored"].to_string().contains("EFI/k/a.efi.bak"), "{bare}");
    let (code, none) = restore("b.efi.bak.1");
    assert_eq!(code, Some(2), "{none}");
    assert!(none.to_string().contains(&format!("EFI/k/{backup}")), "{none}");

    // In the root directory, by the name that the list gives.
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.replace(&disk, "", "uki.efi", &uki(&board.lab, OLD));
    board.replace(&disk, "", "uki.efi.bak.1700000000", &uki(&board.lab, OLD));
    board.global("BootOrder", 7, &[1, 0]);
    board.global("Boot0001", 7, &boot_option("it", ESP_A, "\\uki.efi"));
    let list = board.json(&["restore", &disk, "--efivars", "vars", "--list", "--json"]);
    let name = list["backups"][0]["name"].as_str().unwrap();
    let args = ["restore", &disk, name, "--efivars", "vars", "--allow-untrusted", "--dry-run", "--json"];
    assert_eq!(board.json(&args)["restored"], name);
}

/// Without room for the name of a backup there is no advice that would take the image from its boot option.
#[test]
fn issue13_4_a_name_without_room_for_a_backup_is_not_to_be_changed() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    let name = format!("{}.efi", "l".repeat(190));
    board.directory(&disk, "EFI/x");
    board.replace(&disk, "EFI/x", &name, &uki(&board.lab, OLD));
    board.global("BootOrder", 7, &[1, 0]);
    board.global("Boot0001", 7, &boot_option("it", ESP_A, &format!("\\EFI\\x\\{name}")));
    let new = board.lab.fixture(&format!("{NEW}.efi.zst"));
    let args = ["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted", "--dry-run"];
    let out = board.run(&args);
    let said = String::from_utf8(out.stderr).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(out.status.code(), Some(4), "{said}");
    assert!(said.contains("no room for that of a backup") && !said.contains("--target"), "{said}");
}

/// Secure Boot refuses the image that the firmware starts itself: a swap is the cure, and is recommended.
#[test]
fn issue13_4_a_swap_cures_an_image_that_the_firmware_refuses() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &uki(&board.lab, "talos-v1.12.4-arm64-other-signer"));
    board.variables_of(&crate::cli::fixture("efivars/secureboot-on"));
    let now = status(&board, &disk);
    let action = board.action(&now, "loader-refused");
    assert!(action.contains(&format!("`bootsurgeon swap {disk} IMAGE")), "{action}");
    assert!(!now["findings"].to_string().contains("swap is refused"), "{now}");
    let new = board.lab.fixture(&format!("{NEW}.efi.zst"));
    let swap = ["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted", "--dry-run", "--json"];
    assert_eq!(board.json(&swap)["plan"]["target"], "EFI/BOOT/BOOTAA64.EFI");
}

/// `doctor` reads the image that starts in its own place whole, as it does one of the menu.
#[test]
fn issue13_4_doctor_verifies_an_image_in_its_own_place() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    let mut image = uki(&board.lab, OLD);
    let at = image.len() - 20_000;
    image[at] ^= 1;
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &image);
    let said = String::from_utf8(board.run(&["doctor", &disk, "--efivars", "vars", "--json"]).stdout).unwrap();
    assert!(said.contains("selected-image-bad") && said.contains("EFI/BOOT/BOOTAA64.EFI starts next"), "{said}");
}

/// The way back asks for the architecture where without it another board would be meant.
#[test]
fn issue13_4_the_way_back_asks_for_the_architecture() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.replace(&disk, "EFI/BOOT", "BOOTX64.EFI", &uki(&board.lab, "talos-v1.12.4-amd64-uki"));
    let new = board.lab.fixture("talos-v1.12.4-amd64-iso.efi.zst");
    let swap = ["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted", "--json", "--yes"];
    let report = board.json(&[&swap[..], &["--arch", "amd64", "--allow-halt-if-installed"]].concat());
    assert_eq!(report["plan"]["target"], "EFI/BOOT/BOOTX64.EFI", "{report}");
    assert!(report["next"].to_string().contains("--arch amd64"), "{report}");
}
