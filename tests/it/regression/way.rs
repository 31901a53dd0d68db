//! The way of the boot: what the firmware starts, what that starts, and what a swap makes of it.

use super::uki::debian_esp_of;
use super::variables::{text, uboot_file};
use crate::board::{Board, ESP_A, ESP_B, boot_option, systemd_boot, uki};
use crate::makers::{Made, certificate};
use crate::support::{Lab, run_ok, sha256};
use bootsurgeon::efivars::GLOBAL;
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::Builder;
use serde_json::Value;

const GRUB: &str = "sbat,1,SBAT Version,sbat,1,https://x\ngrub,4,Free Software Foundation,grub,2.12,https://y\n";
const SHIM: &str = "sbat,1,SBAT Version,sbat,1,https://x\nshim,4,UEFI shim,shim,15.8,https://y\n";

fn program(section: &str, data: &str, arch: Arch) -> Vec<u8> {
    Builder::new(arch).section(".text", vec![0xC3; 512]).section(section, data).build()
}

fn grub() -> Vec<u8> {
    program(".sbat", GRUB, Arch::Arm64)
}

pub(super) fn shim() -> Vec<u8> {
    Builder::new(Arch::Arm64).section(".sbat", SHIM).section(".vendor_cert", "certificate").build()
}

pub(super) fn status(board: &Board, disk: &str) -> Value {
    board.json(&["status", disk, "--efivars", "vars", "--json"])
}

/// What `status` says to people.
fn said(board: &Board, disk: &str) -> String {
    String::from_utf8(board.run(&["status", disk, "--efivars", "vars"]).stdout).unwrap()
}

fn steps(report: &Value, step: &str) -> Vec<String> {
    let all = report["way"].as_array().unwrap().iter().filter(|s| s["step"] == step);
    all.map(|s| format!("{} @ {}", s["what"].as_str().unwrap(), s["where"].as_str().unwrap_or("-"))).collect()
}

/// Asserts that a swap is refused with 4 and this code, with the same words in a dry run, and changes nothing.
pub(super) fn refused(board: &Board, disk: &str, words: &str) {
    let new = board.lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    let before = sha256(&board.lab.path(disk));
    let mut messages = Vec::new();
    for how in ["--dry-run", "--yes"] {
        let args = ["swap", disk, new.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted", "--json", how];
        let out = board.run(&args);
        assert_eq!(out.status.code(), Some(4), "{how}: {}", String::from_utf8_lossy(&out.stdout));
        let error: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(error["error"]["code"], "would-not-boot", "{error}");
        messages.push(error["error"]["message"].as_str().unwrap().to_owned());
    }
    assert_eq!(messages[0], messages[1]);
    assert!(messages[0].contains(words), "{}", messages[0]);
    assert_eq!(sha256(&board.lab.path(disk)), before);
}

/// siderolabs/talos#11885: GRUB is in EFI/BOOT, and an image in EFI/Linux is one that nobody reads.
#[test]
fn rtalos_11885_grub_starts_and_a_swap_is_refused_in_a_dry_run_too() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &grub());
    let report = status(&board, &disk);
    assert_eq!(steps(&report, "program"), ["GRUB 2.12 @ EFI/BOOT/BOOTAA64.EFI on partition 1"]);
    assert_eq!((&report["boot"]["selected"], &report["boot"]["starts"]), (&Value::Null, &"GRUB 2.12".into()));
    assert!(said(&board, &disk).contains("Starts GRUB 2.12"));
    refused(&board, &disk, "GRUB 2.12");
    // GRUB may start any file of EFI/Linux: none goes, and nothing is recommended by a menu that nobody sees.
    let before = std::fs::read(board.lab.path(&disk)).unwrap();
    for how in ["--dry-run", "--yes"] {
        let prune = ["prune", &disk, "--delete", "--no-fallback", "--efivars", "vars", how];
        let ran = board.run(&prune);
        assert_eq!(ran.status.code(), Some(4), "{ran:?}");
    }
    assert!(before == std::fs::read(board.lab.path(&disk)).unwrap());
    let ids: Vec<&str> = report["findings"].as_array().unwrap().iter().filter_map(|f| f["id"].as_str()).collect();
    assert!(!ids.iter().any(|id| ["half-done-upgrade", "duplicates", "no-room"].contains(id)), "{ids:?}");
    let doctor = board.json(&["doctor", &disk, "--efivars", "vars", "--json"]);
    assert!(doctor["firmware_starts"].as_str().unwrap().contains("GRUB 2.12"), "{doctor}");
}

/// siderolabs/omni#1192: shim, and GRUB behind it under the name that shim starts.
#[test]
fn romni_1192_shim_and_what_it_starts() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    let loader = systemd_boot("257.9", Arch::Arm64);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &shim());
    refused(&board, &disk, "grubaa64.efi");
    board.replace(&disk, "EFI/BOOT", "grubaa64.efi", &grub());
    assert_eq!(steps(&status(&board, &disk), "program").len(), 2);
    refused(&board, &disk, "GRUB 2.12");
    // systemd-boot under that name is what it says it is.
    board.replace(&disk, "EFI/BOOT", "grubaa64.efi", &loader);
    let report = status(&board, &disk);
    assert_eq!(report["boot"]["selected"], "Talos-v1.12.4.efi");
    assert!(said(&board, &disk).contains("firmware -> shim 15.8 (EFI/BOOT/BOOTAA64.EFI) -> systemd-boot 257.9"));
    let new = board.lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    let swap = ["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted", "--json", "--dry-run"];
    assert_eq!(board.json(&swap)["plan"]["boot_after"], "Talos-v1.12.4.efi");
}

/// cozystack/boot-to-talos#16 and siderolabs/talos#12505: nothing in EFI/BOOT, and no boot option that leads to a
/// loader.
#[test]
fn rboot_to_talos_16_without_a_boot_loader_nothing_starts() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    board.remove_from(&disk, "EFI/BOOT", "BOOTAA64.EFI");
    let report = status(&board, &disk);
    assert_eq!((&report["boot"]["selected"], &report["boot"]["starts"]), (&Value::Null, &"nothing".into()));
    refused(&board, &disk, "EFI/BOOT/BOOTAA64.EFI");
    board.global("BootOrder", 7, &[1, 0]);
    board.global("Boot0001", 7, &boot_option("Talos", ESP_A, "\\EFI\\BOOT\\BOOTAA64.EFI"));
    refused(&board, &disk, "no boot option leads to a program");
}

/// NixOS/nixpkgs#341357: the boot option starts a systemd-boot elsewhere, and it has other rules than the one in
/// EFI/BOOT.
#[test]
fn rnixpkgs_341357_the_boot_option_decides_which_systemd_boot_runs() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    board.directory(&disk, "EFI/systemd");
    board.replace(&disk, "EFI/systemd", "systemd-bootaa64.efi", &systemd_boot("262", Arch::Arm64));
    // Without its closing NUL 257 reads one character less and ignores the pin; 262 does not.
    let pin: Vec<u8> = "Talos-v1.12.4~1.efi".encode_utf16().flat_map(u16::to_le_bytes).collect();
    board.variable("LoaderEntryDefault", "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", 7, &pin);
    assert_eq!(status(&board, &disk)["boot"]["selected"], "Talos-v1.12.4.efi");
    board.global("BootOrder", 7, &[1, 0]);
    board.global("Boot0001", 7, &boot_option("Linux Boot Manager", ESP_A, "\\EFI\\systemd\\systemd-bootaa64.efi"));
    let report = status(&board, &disk);
    assert_eq!(steps(&report, "program"), ["systemd-boot 262 @ EFI/systemd/systemd-bootaa64.efi on partition 1"]);
    assert_eq!(report["boot"]["selected"], "Talos-v1.12.4~1.efi", "{report}");
    // The other world has the other one.
    assert_eq!(report["boot"]["selected_without_variables"], "Talos-v1.12.4.efi");
    // BootNext is for one start.
    board.global("BootNext", 7, &[2, 0]);
    board.global("Boot0002", 7, &boot_option("old", ESP_A, ""));
    let report = status(&board, &disk);
    assert_eq!(report["boot"]["selected"], "Talos-v1.12.4.efi");
    assert!(
        report["way_notes"].to_string().contains("at the starts after the next one: EFI/Linux/Talos-v1.12.4~1.efi"),
        "{report}"
    );
}

/// ostreedev/ostree#2753: a boot option starts a UKI itself; what systemd-boot would do is of no interest then.
#[test]
fn rostree_2753_a_boot_option_starts_an_image_itself() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    board.global("BootOrder", 7, &[1, 0]);
    board.global("Boot0001", 7, &boot_option("Talos", ESP_A, "\\EFI\\Linux\\Talos-v1.12.4~1.efi"));
    let report = status(&board, &disk);
    assert_eq!(report["boot"]["selected"], "Talos-v1.12.4~1.efi");
    assert!(steps(&report, "menu").is_empty());
    assert!(said(&board, &disk).contains("Starts Talos-v1.12.4~1.efi"));
    // The partition is on no disk here: nothing is known, and it is said.
    board.global("Boot0001", 7, &boot_option("Talos", ESP_B, "\\EFI\\Linux\\Talos-v1.12.4~1.efi"));
    let report = status(&board, &disk);
    assert_eq!(report["boot"]["selected"], "Talos-v1.12.4.efi");
    assert_eq!(report["way"][0]["certainty"], "unknown");
    let new = board.lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    let swap = ["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted", "--json", "--dry-run"];
    assert!(board.json(&swap)["warnings"].to_string().contains("not certain"));
}

/// No boot loader at all: the image is what the firmware takes from the removable-media path.
#[test]
fn issue13_a_uki_as_the_removable_loader_starts() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &uki(&board.lab, "talos-v1.12.3-arm64-installer"));
    let report = board.json(&["status", &disk, "--json"]);
    assert_eq!(report["boot"]["selected"], "EFI/BOOT/BOOTAA64.EFI");
    assert_eq!(steps(&report, "image"), ["BOOTAA64.EFI (v1.12.3 arm64) @ EFI/BOOT/BOOTAA64.EFI on partition 1"]);
    assert!(report["findings"].to_string().contains("starts EFI/BOOT/BOOTAA64.EFI"), "{report}");
}

/// A Type #1 entry that names a UKI elsewhere is what starts, and no "nothing".
#[test]
fn issue13_a_selected_type_1_entry_is_shown_with_its_file() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.directory(&disk, "EFI/kairos");
    board.directory(&disk, "loader/entries");
    board.replace(&disk, "EFI/kairos", "active.efi", &uki(&board.lab, "talos-v1.12.3-arm64-installer"));
    board.replace(
        &disk,
        "loader/entries",
        "active.conf",
        b"title Kairos\nefi /EFI/kairos/active.efi\nversion 9\nsort-key a\n",
    );
    let report = board.json(&["status", &disk, "--json"]);
    assert_eq!(report["boot"]["selected"], "EFI/kairos/active.efi", "{report}");
    let said = String::from_utf8(board.run(&["status", &disk]).stdout).unwrap();
    assert!(said.contains("Starts EFI/kairos/active.efi") && !said.contains("Starts nothing"), "{said}");
    // It is what is replaced; a bare name is one of the menu.
    let new = board.lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    let wins = "EFI/kairos/active.efi on partition 1 (entry active.conf) would start instead";
    for (target, code, words) in [
        (&[][..], 0, ""),
        (&["--target", "EFI/kairos/active.efi"], 0, ""),
        (&["--target", "Talos-v1.12.4.efi"], 4, wins),
        (&["--target", "/EFI/Linux/Talos-v1.12.4.efi"], 4, "as Talos-v1.12.4.efi: "),
    ] {
        let swap = ["swap", &disk, new.to_str().unwrap(), "--allow-untrusted", "--dry-run"];
        let out = board.run(&[&swap, target].concat());
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(code) && said.contains(words), "{target:?}: {said}");
    }
    // A kernel with its initrd is no UKI.
    let mut kernel = Builder::new(Arch::Arm64).section(".text", vec![0; 4096]).build();
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    board.replace(&disk, "EFI/kairos", "vmlinuz", &kernel);
    board.replace(
        &disk,
        "loader/entries",
        "active.conf",
        b"title x\nlinux /EFI/kairos/vmlinuz\nversion 9\nsort-key a\n",
    );
    let report = board.json(&["status", &disk, "--json"]);
    assert_eq!(report["boot"]["selected"], Value::Null);
    assert!(report["boot"]["starts"].as_str().unwrap().contains("kernel /EFI/kairos/vmlinuz"), "{report}");
}

/// Two boards share one ESP: each has its loader, and what is of the other is left alone.
#[test]
fn issue13_two_architectures_on_one_esp() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.replace(&disk, "EFI/BOOT", "BOOTX64.EFI", &systemd_boot("257.9", Arch::Amd64));
    board.replace(&disk, "EFI/Linux", "Talos-amd64.efi", &uki(&board.lab, "talos-v1.12.4-amd64-uki"));
    let plan = board.json(&["prune", &disk, "--dry-run", "--json"]);
    assert!(!plan["plan"]["renames"].to_string().contains("amd64"), "{plan}");
    let new = board.lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    let swap = ["swap", &disk, new.to_str().unwrap(), "--allow-untrusted", "--json", "--dry-run"];
    assert!(!board.json(&swap)["plan"]["renames"].to_string().contains("amd64"));
    // The other board's loader, when its architecture is said.
    let new = board.lab.fixture("talos-v1.12.4-amd64-uki.efi.zst");
    let swap = ["swap", &disk, new.to_str().unwrap(), "--arch", "amd64", "--allow-untrusted", "--json", "--dry-run"];
    let report = board.json(&swap);
    assert_eq!(report["plan"]["boot_before"], "Talos-amd64.efi", "{report}");
    assert!(!report["plan"]["renames"].to_string().contains("Talos-v1.12.4"), "{report}");
}

/// U-Boot keeps boot options in its file, too.
#[test]
fn rebbr_143_boot_options_come_from_the_file_as_well() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.directory(&disk, "EFI/systemd");
    board.replace(&disk, "EFI/systemd", "systemd-bootaa64.efi", &systemd_boot("262", Arch::Arm64));
    let mut option = boot_option("systemd", ESP_A, "\\EFI\\systemd\\systemd-bootaa64.efi");
    // U-Boot wants number, place and length of the partition as they are.
    let at = 4 + 2 + text("systemd").len() + 4;
    option[at + 4..at + 12].copy_from_slice(&2048_u64.to_le_bytes());
    option[at + 12..at + 20].copy_from_slice(&98_304_u64.to_le_bytes());
    let file = uboot_file(&[("Boot0001", GLOBAL, &option), ("BootOrder", GLOBAL, &[1, 0])]);
    board.replace(&disk, "", "ubootefi.var", &file);
    let report = board.json(&["status", &disk, "--json"]);
    assert_eq!(
        steps(&report, "program"),
        ["systemd-boot 262 @ EFI/systemd/systemd-bootaa64.efi on partition 1"],
        "{report}"
    );
}

/// kairos-io/kairos#3831: an image that goes into `Talos-…+2-1.efi` is gone two starts later.
#[test]
fn rkairos_3831_a_boot_counter_does_not_stay_in_the_name_of_the_new_image() {
    let counters = [("Talos-v1.12.4+2-1.efi", "2 tries left"), ("Talos-v1.12.4+0-3.efi", "no tries left")];
    for (version, (counted, left)) in ["257.9", "262"].into_iter().flat_map(|v| counters.map(|c| (v, c))) {
        let board = Board::new();
        let disk = board.disk("card.img", ESP_A);
        board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &systemd_boot(version, Arch::Arm64));
        board.rename(&disk, "Talos-v1.12.4.efi", counted);
        board.remove(&disk, "Talos-v1.12.4~1.efi");
        board.replace(&disk, "EFI/Linux", "Talos-v1.12.3.efi", &uki(&board.lab, "talos-v1.12.3-arm64-installer"));
        if counted.contains("+0") {
            board.remove(&disk, "Talos-v1.12.3.efi");
        }
        let report = board.json(&["status", &disk, "--json"]);
        assert_eq!(report["boot"]["selected"], counted, "{report}");
        let finding = report["findings"].as_array().unwrap().iter().find(|f| f["id"] == "boot-counter").unwrap();
        assert!(finding["what"].as_str().unwrap().contains(left), "{finding}");
        let takes_over = finding["meaning"].as_str().unwrap().contains("start 3 from now on starts Talos-v1.12.3.efi");
        assert_eq!(takes_over, left.starts_with('2'), "{finding}");

        let new = board.lab.fixture("talos-v1.12.4-arm64-installer.efi.zst");
        let new = new.to_str().unwrap();
        let report = board.json(&["swap", &disk, new, "--allow-untrusted", "--json", "--dry-run"]);
        assert_eq!(report["plan"]["target"], "Talos-v1.12.4.efi", "{report}");
        // Whoever asks for the counter is told what it does.
        let args = ["swap", &disk, new, "--target", counted, "--allow-untrusted", "--json", "--dry-run"];
        let said = board.json(&args)["warnings"].to_string();
        assert!(said.contains("counts the starts") && said.contains("Talos does not"), "{said}");
        assert_eq!(said.contains("start 3 from then on starts Talos-v1.12.3.efi"), left.starts_with('2'), "{said}");

        // The command that is recommended takes the counter away.
        board.run_recommended(&board.action(&board.json(&["status", &disk, "--json"]), "boot-counter"));
        let report = board.json(&["status", &disk, "--json"]);
        assert_eq!(report["boot"]["selected"], "Talos-v1.12.4.efi", "{report}");
        assert!(!report["findings"].to_string().contains("boot-counter"), "{report}");
    }
}

/// What starts only when others have no tries left is not pruned.
#[test]
fn issue13_prune_keeps_what_boot_counting_comes_to() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.rename(&disk, "Talos-v1.12.4.efi", "Talos-v1.12.4+1-2.efi");
    board.remove(&disk, "Talos-v1.12.4~1.efi");
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.3.efi", &uki(&board.lab, "talos-v1.12.3-arm64-installer"));
    let report = board.json(&["prune", &disk, "--no-fallback", "--delete", "--json", "--dry-run"]);
    assert!(!report["plan"]["delete"].to_string().contains("v1.12.3"), "{report}");
}

/// systemd/systemd#15068: `default` without the suffix matches nothing, and that is not because the file is gone.
#[test]
fn rsystemd_15068_a_default_without_its_suffix_is_explained() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.replace(&disk, "loader", "loader.conf", b"default talos-v1.12.4~1\n");
    let report = board.json(&["status", &disk, "--json"]);
    let reason = report["boot"]["reason"].as_str().unwrap();
    let words = "the entry is called talos-v1.12.4~1.efi, and systemd-boot wants the suffix";
    assert!(reason.contains(words) && !reason.contains("gone"), "{reason}");
    // The variable is read in the same way.
    board.text("LoaderEntryDefault", 7, "Talos-v1.12.4~1");
    let report = status(&board, &disk);
    let finding = report["findings"].as_array().unwrap().iter().find(|f| f["id"] == "stale-pin").unwrap();
    assert!(finding["what"].as_str().unwrap().contains("the entry is called talos-v1.12.4~1.efi"), "{finding}");
    // A name that nothing has is gone.
    board.replace(
        &disk,
        "loader",
        "loader.conf",
        b"\xEF\xBB\xBFdefault talos-v1.12.4~1.efi\r\ndefault talos-v9.efi\r\n",
    );
    let report = board.json(&["status", &disk, "--json"]);
    assert!(report["boot"]["reason"].as_str().unwrap().contains("names talos-v9.efi, which is gone"), "{report}");
    // The line behind a byte order mark is none.
    assert!(report["warnings"].to_string().contains("byte order mark"), "{report}");
}

/// bootc-dev/bootc#1802: systemd-boot before 258 does not know `uki`, and shows no entry.
#[test]
fn rbootc_1802_an_ignored_uki_key_is_explained() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.directory(&disk, "EFI/Linux/bootc");
    board.directory(&disk, "loader/entries");
    board.replace(&disk, "EFI/Linux/bootc", "a.efi", &uki(&board.lab, "talos-v1.12.3-arm64-installer"));
    let entry = b"title bootc\nuki /EFI/Linux/bootc/a.efi\nversion 9\nsort-key a\n";
    board.replace(&disk, "loader/entries", "bootc.conf", entry);
    board.replace(&disk, "loader/entries", "gone.conf", b"title x\nefi /EFI/gone.efi\n");
    let report = board.json(&["status", &disk, "--json"]);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("bootc.conf makes no entry: systemd-boot 257"), "{warnings}");
    assert!(warnings.contains("does not know its key `uki`"), "{warnings}");
    assert!(warnings.contains("gone.conf makes no entry"), "{warnings}");
    assert_eq!(report["boot"]["selected"], "Talos-v1.12.4.efi");
    // 259 knows it, and starts it.
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &systemd_boot("259.5", Arch::Arm64));
    let report = board.json(&["status", &disk, "--json"]);
    assert_eq!(report["boot"]["selected"], "EFI/Linux/bootc/a.efi", "{report}");
}

/// bootc-dev/bootc#2228: what cannot start is not kept because it "starts next", and the last image that can is not
/// deleted.
#[test]
fn rbootc_2228_prune_keeps_the_sound_image_and_no_dead_one() {
    let choices = [&["--delete", "--no-fallback"][..], &["--no-fallback"], &[]];
    for choice in choices {
        let board = Board::new();
        let disk = board.disk("card.img", ESP_A);
        let sound = uki(&board.lab, "talos-v1.12.3-arm64-installer");
        board.remove(&disk, "Talos-v1.12.4~1.efi");
        board.replace(&disk, "EFI/Linux", "Talos-v1.12.3.efi", &sound);
        let dead = Builder::new(Arch::Arm64).section(".osrel", "ID=talos\nVERSION_ID=v1.12.4\nPRETTY_NAME=x\n").build();
        board.replace(&disk, "EFI/Linux", "Talos-v1.12.4.efi", &dead);
        // It is pinned, and it ran while it was whole.
        board.text("LoaderEntryDefault", 7, "Talos-v1.12.4.efi");
        board.text("LoaderEntrySelected", 6, "talos-v1.12.4.efi");
        let prune = [&["prune", &disk, "--efivars", "vars", "--yes", "--json"], choice].concat();
        let report = board.json(&prune);
        assert_eq!(report["plan"]["boot"], "Talos-v1.12.3.efi", "{report}");
        let now = status(&board, &disk);
        assert_eq!(now["boot"]["selected"], "Talos-v1.12.3.efi", "{now}");
        assert!(!now["boot"]["menu"].to_string().contains("v1.12.4"), "{now}");
    }
}

/// With Secure Boot on an image that the firmware refuses is as dead as one that is cut off.
#[test]
fn issue13_prune_does_not_delete_the_only_image_that_the_firmware_takes() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.remove(&disk, "Talos-v1.12.4~1.efi");
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.3.efi", &uki(&board.lab, "talos-v1.12.3-arm64-installer"));
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.4.efi", &uki(&board.lab, "talos-v1.12.4-arm64-unsigned"));
    board.variables_of(&crate::support::fixtures().join("efivars/secureboot-on"));
    let report = board.json(&["prune", &disk, "--efivars", "vars", "--delete", "--no-fallback", "--json", "--dry-run"]);
    assert_eq!(report["plan"]["delete"], serde_json::json!(["Talos-v1.12.4.efi"]), "{report}");
    assert_eq!(report["plan"]["boot"], "Talos-v1.12.3.efi", "{report}");

    // Variables that refuse every image are another machine's, a workstation's that the disk is attached to: nothing
    // goes for that.
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.3.efi", &uki(&board.lab, "talos-v1.12.4-arm64-other-signer"));
    for options in [&["--no-fallback", "--delete"][..], &[]] {
        let prune = ["prune", &disk, "--efivars", "vars", "--yes", "--json"];
        let report = board.json(&[&prune, options].concat());
        assert_eq!(report["plan"]["boot"], report["plan"]["boot_before"], "{report}");
        assert_ne!(report["plan"]["boot"], Value::Null, "{report}");
    }
}

/// What ran last lies aside and nowhere else: neither `prune` nor a swap deletes it.
#[test]
fn issue13_what_ran_last_is_not_deleted() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.rename(&disk, "Talos-v1.12.4~1.efi", "Talos-v1.12.2.efi.disabled.1771000000");
    board.text("LoaderEntrySelected", 6, "talos-v1.12.2.efi");
    let report = board.json(&["prune", &disk, "--efivars", "vars", "--delete", "--json", "--dry-run"]);
    assert!(!report["plan"]["delete"].to_string().contains("v1.12.2"), "{report}");
    assert!(report["plan"]["keep"].to_string().contains("v1.12.2"), "{report}");
    board.rename(&disk, "Talos-v1.12.2.efi.disabled.1771000000", "Talos-v1.12.2.efi.bak.1771000000");
    let new = board.lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    let args = ["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted", "--json", "--dry-run"];
    let report = board.json(&[&args[..], &["--keep-backups", "0"]].concat());
    assert!(!report["plan"]["delete"].to_string().contains("v1.12.2"), "{report}");
}

/// An ESP with a boot loader and no directory for images: a swap that cannot work is not recommended alone.
#[test]
fn issue14_9_a_volume_without_the_directory_of_images_says_what_to_make() {
    let lab = Lab::new();
    let old = Made::debian("6.12.1-arm64").file(&lab, "old.efi");
    let Some(esp) = debian_esp_of(&lab, 24, &[("old.efi", &old)]) else { return };
    let image = esp.to_str().unwrap();
    run_ok("mdeltree", &["-i", image, "::/EFI/Linux"]);
    let action = || {
        let status = bootsurgeon!("status", esp, "--efivars", "none", "--json").code(0).json();
        let findings = status["findings"].as_array().unwrap().clone();
        findings.iter().find(|f| f["id"] == "nothing-starts").unwrap()["action"].as_str().unwrap().to_owned()
    };
    let swap = |how: &str| bootsurgeon!("swap", esp, old, "--cert", certificate(&lab), how, "--efivars", "none");
    assert!(action().contains("make the directory EFI/Linux") && action().contains("bootsurgeon swap"), "{}", action());
    for how in ["--dry-run", "--yes"] {
        swap(how).fails(4, &["no directory EFI/Linux", "`mmd`", "not changed"]);
    }
    run_ok("mmd", &["-i", image, "::/EFI/Linux"]);
    assert!(!action().contains("make the directory"), "{}", action());
    swap("--yes").code(0);
    let status = bootsurgeon!("status", esp, "--efivars", "none", "--json").code(0).json();
    assert_eq!(status["boot"]["selected"], status["files"][0]["name"], "{status:#}");
}
