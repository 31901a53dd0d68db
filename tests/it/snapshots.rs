//! What `doctor` and `status` say about boards like those of public reports, word for word.
//!
//! Each board is a folder with `dev/`, `sys/` and `proc/`, as `--root` takes it: disks made from the fixtures, EFI
//! variables as the report lists them, the kernel's log where the report quotes it. What the program says is compared
//! with
//! `tests/snapshots/*.txt`; `UPDATE_SNAPSHOTS=1 cargo test --test it snapshots` writes them anew, to be read in the
//! diff.

use crate::board::{Board, ESP_A, ESP_B, boot_option, uki};
use crate::support::sha256;
use serde_json::Value;

/// The variables that systemd-boot and its stub leave at every start.
fn started_with(board: &Board, entry: &str) {
    board.text("LoaderInfo", 6, "systemd-boot 257.9-talos");
    board.text("LoaderImageIdentifier", 6, "\\EFI\\BOOT\\BOOTAA64.EFI");
    board.text("LoaderDevicePartUUID", 6, ESP_A);
    board.text("LoaderEntrySelected", 6, entry);
    board.text("StubInfo", 6, "systemd-stub 257.9-talos");
    board.flag("SecureBoot", 0);
    board.flag("SetupMode", 0);
}

/// siderolabs/talos#11844: every attempt leaves one more `~N`, and the old image starts for ever.
#[test]
fn talos_11844_the_write_is_refused_and_images_pile_up() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    board.rename(&disk, "Talos-v1.12.4~1.efi", "Talos-v1.12.4~6.efi");
    started_with(&board, "talos-v1.12.4.efi");
    board.text("LoaderFirmwareInfo", 6, "EDK II 1.00");
    board.mounted("rw");
    board.log(
        "[talos] task upgrade (1/1): failed: failed to install bootloader: write \
         /sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f: invalid argument",
    );
    board.unchanged(|| {
        board.snapshot("talos-11844-doctor", &["doctor", "--root", "node"]);
        board.snapshot("talos-11844-status", &["status", &disk, "--efivars", "vars"]);
    });

    // The command that is recommended does what it says it does.
    let report = board.json(&["doctor", "--root", "node", "--json"]);
    assert_eq!(report["worst"], "problem");
    board.run_recommended(&board.action(&report, "half-done-upgrade"));
    let after = board.json(&["status", &disk, "--efivars", "vars", "--json"]);
    assert_eq!(after["boot"]["selected"], "Talos-v1.12.4.efi");
    assert_eq!(after["boot"]["menu"].as_array().unwrap().len(), 2, "{after}");
    let new = sha256(&board.lab.fixture("talos-v1.12.4-arm64-installer.efi.zst"));
    let file = after["files"].as_array().unwrap().iter().find(|f| f["name"] == "Talos-v1.12.4.efi").unwrap().clone();
    assert_eq!(file["sha256"], new);
    assert_eq!(after["findings"].as_array().unwrap().iter().filter(|f| f["severity"] == "problem").count(), 0);
    board.snapshot("talos-11844-after", &["status", &disk, "--efivars", "vars"]);
}

/// A board whose variables work looks the same from a workstation that has only the disk: no more than a warning.
#[test]
fn without_variables_a_pin_that_works_looks_like_none() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    board.snapshot("no-variables-status", &["status", &disk]);
    let report = board.json(&["doctor", &disk, "--json"]);
    assert_eq!(report["worst"], "warning", "{report}");
    started_with(&board, "talos-v1.12.4~1.efi");
    board.text("LoaderEntryDefault", 7, "Talos-v1.12.4~1.efi");
    let report = board.json(&["doctor", &disk, "--efivars", "vars", "--json"]);
    assert!(report["findings"].as_array().unwrap().iter().all(|f| f["id"] != "half-done-upgrade"), "{report}");
}

/// siderolabs/talos#12300: the disk was written anew, NVRAM still pins an image of the old installation.
#[test]
fn talos_12300_a_stale_pin_after_a_new_image() {
    let board = Board::new();
    let disk = board.disk("vda", ESP_A);
    board.remove(&disk, "Talos-v1.12.4~1.efi");
    started_with(&board, "talos-v1.12.4.efi");
    board.text("LoaderEntryDefault", 7, "Talos-v1.11.5~9.efi");
    board.text("LoaderConfigTimeout", 7, "5");
    board.text("LoaderEntryRebootReason", 7, "reboot");
    board.global("BootOrder", 7, &[2, 0, 1, 0]);
    board.global("BootCurrent", 6, &[1, 0]);
    // The entry of the old installation: that partition is gone.
    board.global("Boot0002", 7, &boot_option("Talos Linux UKI", ESP_B, "\\EFI\\BOOT\\BOOTAA64.EFI"));
    board.global("Boot0001", 7, &boot_option("UEFI Misc Device", ESP_A, "\\EFI\\BOOT\\BOOTAA64.EFI"));
    board.mounted("rw");
    board.unchanged(|| {
        board.snapshot("talos-12300-doctor", &["doctor", "--root", "node"]);
        board.snapshot("talos-12300-status", &["status", &disk, "--efivars", "vars"]);
    });
    // Whatever is put in place, the pin is counted with.
    let new = board.lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    let args = ["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--dry-run", "--json"];
    assert_eq!(board.json(&args)["plan"]["boot_after"], "Talos-v1.12.4.efi");
}

/// siderolabs/talos#11909: "Error loading \EFI\Linux\…: Not found", and a second ESP on another disk.
#[test]
fn talos_11909_another_disk_has_an_esp_too() {
    let board = Board::new();
    let other = board.disk("sda", ESP_B);
    for name in ["Talos-v1.12.4.efi", "Talos-v1.12.4~1.efi"] {
        board.remove(&other, name);
    }
    let disk = board.disk("sdb", ESP_A);
    board.remove(&disk, "Talos-v1.12.4~1.efi");
    started_with(&board, "talos-v1.12.4.efi");
    board.text("LoaderDevicePartUUID", 6, ESP_B);
    board.global("BootOrder", 7, &[1, 0, 2, 0]);
    board.global("BootCurrent", 6, &[1, 0]);
    board.global("Boot0001", 7, &boot_option("EFI Fixed Disk Boot Device 1", ESP_B, ""));
    board.global("Boot0002", 7, &boot_option("Talos Linux UKI", ESP_A, "\\EFI\\BOOT\\BOOTAA64.EFI"));
    board.mounted("rw");
    let line = "./src/boot/boot.c:2560:image_start: Error loading \\EFI\\Linux\\Talos-v1.10.5.efi: Not found";
    board.unchanged(|| {
        board.snapshot("talos-11909-doctor", &["doctor", "--root", "node"]);
        board.snapshot("talos-11909-error", &["doctor", "--error", line]);
        board.snapshot("talos-11909-status", &["status", &disk, "--efivars", "vars"]);
    });
}

/// siderolabs/talos#10859: no efivarfs, another boot loader, an ESP all the same.
#[test]
fn talos_10859_no_variables_is_not_no_esp() {
    let board = Board::new();
    let disk = board.disk("mmcblk0", ESP_A);
    for name in ["Talos-v1.12.4.efi", "Talos-v1.12.4~1.efi"] {
        board.remove(&disk, name);
    }
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &uki(&board.lab, "talos-v1.12.3-arm64-installer")[..60_000]);
    board.log("Error: failed to probe bootloader on upgrade: file does not exist");
    board.without_variables();
    board.unchanged(|| {
        board.snapshot("talos-10859-doctor", &["doctor", "--root", "node"]);
        board.snapshot("talos-10859-status", &["status", &disk]);
        board.snapshot(
            "talos-10859-error",
            &["doctor", "--error", "failed to probe bootloader on upgrade: file does not exist"],
        );
    });
}

/// siderolabs/sbc-raspberrypi#56: the firmware cannot set variables at run time. The new version starts by luck of the
/// order.
#[test]
fn sbc_raspberrypi_56_the_firmware_sets_no_variables() {
    let board = Board::new();
    let disk = board.disk("mmcblk0", ESP_A);
    board.remove(&disk, "Talos-v1.12.4~1.efi");
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.3.efi", &uki(&board.lab, "talos-v1.12.3-arm64-installer"));
    started_with(&board, "talos-v1.12.3.efi");
    board.text("LoaderFirmwareInfo", 6, "Das U-Boot 8229.1792");
    board.variable("RTStorageVolatile", "b2ac5fc9-92b7-4acd-aeac-11e818c3130c", 6, b"ubootefi.var\0");
    board.mounted("ro");
    board.log("Firmware does not support SetVariableRT. Can not remount with rw");
    board.unchanged(|| {
        board.snapshot("sbc-raspberrypi-56-doctor", &["doctor", "--root", "node"]);
        board.snapshot("sbc-raspberrypi-56-status", &["status", &disk, "--efivars", "vars"]);
    });
}

/// An unsigned image that wins by its version: the firmware refuses it, and systemd-boot tries no other.
#[test]
fn secure_boot_and_an_unsigned_image_that_starts() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    board.remove(&disk, "Talos-v1.12.4~1.efi");
    board.remove(&disk, "Talos-v1.12.4.efi");
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.3.efi", &uki(&board.lab, "talos-v1.12.3-arm64-installer"));
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.4.efi", &uki(&board.lab, "talos-v1.12.4-arm64-unsigned"));
    let vars = crate::support::fixtures().join("efivars/secureboot-on");
    board.variables_of(&vars);
    board.snapshot("secure-boot-unsigned", &["doctor", &disk, "--efivars", "vars"]);
}

/// An ESP without a loader, and boot options that lead nowhere: what the firmware would do.
#[test]
fn dangling_boot_options_and_no_loader() {
    let board = Board::new();
    let disk = board.disk("sda", ESP_A);
    board.remove_from(&disk, "EFI/BOOT", "BOOTAA64.EFI");
    started_with(&board, "talos-v1.12.4.efi");
    board.global("BootOrder", 7, &[1, 0, 3, 0, 9, 0]);
    board.global("Boot0001", 7, &boot_option("Talos Linux UKI", ESP_A, "\\EFI\\BOOT\\BOOTAA64.EFI"));
    board.global("Boot0002", 7, &[1, 0, 0]);
    board.global("Boot0003", 7, &boot_option("debian", ESP_B, "\\EFI\\debian\\shimaa64.efi"));
    board.mounted("rw");
    board.snapshot("dangling", &["doctor", "--root", "node"]);
    // With the disk alone nothing is known of other disks: the debian entry may be good.
    let report = board.json(&["doctor", &disk, "--efivars", "vars", "--json"]);
    let dangling: Vec<&Value> =
        report["findings"].as_array().unwrap().iter().filter(|f| f["id"] == "dangling-boot-option").collect();
    assert_eq!(dangling.len(), 1, "{dangling:?}");
    assert_eq!(report["boot_options"]["options"][1]["found"], Value::Null);
}

/// `LoaderEntryDefault` keeps the older version: an upgrade that stopped before its last step, or a rollback.
#[test]
fn a_pin_keeps_the_older_version() {
    for (choice, starts) in [(1, "Talos-v1.12.4.efi"), (3, "Talos-v1.12.3.efi")] {
        let board = Board::new();
        let disk = board.disk("sda", ESP_A);
        board.remove(&disk, "Talos-v1.12.4~1.efi");
        board.replace(&disk, "EFI/Linux", "Talos-v1.12.3.efi", &uki(&board.lab, "talos-v1.12.3-arm64-installer"));
        started_with(&board, "talos-v1.12.3.efi");
        board.text("LoaderEntryDefault", 7, "Talos-v1.12.3.efi");
        let report = board.json(&["doctor", &disk, "--efivars", "vars", "--json"]);
        let action = board.action(&report, "newer-not-default");
        let commands: Vec<&str> = action.split('`').collect();
        board.run_recommended(&format!("`{}`", commands[choice]));
        let after = board.json(&["status", &disk, "--efivars", "vars", "--json"]);
        assert_eq!(after["boot"]["selected"], starts);
        assert_eq!(after["boot"]["selected_without_variables"], starts, "{after}");
    }
}

/// The pin names the right image: it starts until NVRAM is lost. The recommended command makes it start in any case.
#[test]
fn what_starts_hangs_on_a_variable() {
    let board = Board::new();
    let disk = board.disk("sda", ESP_A);
    started_with(&board, "talos-v1.12.4~1.efi");
    board.text("LoaderEntryDefault", 7, "Talos-v1.12.4~1.efi");
    let report = board.json(&["doctor", &disk, "--efivars", "vars", "--json"]);
    board.run_recommended(&board.action(&report, "depends-on-variables"));
    let after = board.json(&["status", &disk, "--efivars", "vars", "--json"]);
    assert_eq!(after["boot"]["selected"], "Talos-v1.12.4~1.efi");
    assert_eq!(after["boot"]["selected_without_variables"], "Talos-v1.12.4~1.efi");
}

/// An interrupted operation comes first, and `recover` ends it.
#[test]
fn an_interrupted_operation_comes_first() {
    let board = Board::new();
    let disk = board.disk("sda", ESP_A);
    let record = br#"{"bootsurgeon": 1, "operation": {"command": "prune", "time": 1, "install": null, "tidy": []}}"#;
    board.replace(&disk, "", "BOOTSURG.TXN", record);
    let report = board.json(&["doctor", &disk, "--json"]);
    assert_eq!(report["findings"][0]["id"], "interrupted");
    assert!(report["esps"][0]["interrupted"].is_string());
    board.run_recommended(&board.action(&report, "interrupted"));
    let report = board.json(&["doctor", &disk, "--json"]);
    assert!(report["findings"].as_array().unwrap().iter().all(|f| f["id"] != "interrupted"), "{report}");
}

/// Damage is named, and every command says so in the same words.
#[test]
fn a_damaged_file_system() {
    let board = Board::new();
    let disk = board.disk("sda", ESP_A);
    board.cross_link(&disk, "Talos-v1.12.4.efi", "Talos-v1.12.4~1.efi");
    board.snapshot("fat-damaged", &["doctor", &disk]);
    let swap = board.run(&["swap", &disk, &disk, "--uki", "Talos-v1.12.4.efi", "--yes"]);
    assert_eq!(swap.status.code(), Some(4));
}

#[test]
fn exit_codes_and_disks_that_are_none() {
    let board = Board::new();
    let disk = board.disk("sda", ESP_A);
    assert_eq!(board.run(&["doctor", &disk]).status.code(), Some(0), "findings are no failure");
    assert_eq!(board.run(&["doctor", "nowhere.img"]).status.code(), Some(1));
    std::fs::write(board.lab.path("zeros.img"), vec![0; 1 << 20]).unwrap();
    assert_eq!(board.run(&["doctor", "zeros.img"]).status.code(), Some(3));
    assert_eq!(board.run(&["doctor", "--partition", "1"]).status.code(), Some(2));
    let _ = board.lab.fixture("disk-no-esp.img.zst");
    let report = board.json(&["doctor", "disk-no-esp.img", "--json"]);
    assert_eq!(report["findings"][0]["id"], "no-esp");
    let _ = board.lab.fixture("disk-two-esps.img.zst");
    let report = board.json(&["doctor", "disk-two-esps.img", "--json"]);
    assert_eq!(report["esps"].as_array().unwrap().len(), 2);
    let report = board.json(&["doctor", "disk-two-esps.img", "--partition", "7", "--json"]);
    assert_eq!(report["esps"].as_array().unwrap().len(), 1);
}

/// Variables of any bytes: every command ends in a report.
#[test]
fn hostile_variables_are_reported_and_nothing_panics() {
    let board = Board::new();
    let disk = board.disk("sda", ESP_A);
    let names = [
        "LoaderEntryDefault",
        "LoaderEntryOneShot",
        "LoaderEntries",
        "LoaderFeatures",
        "LoaderDevicePartUUID",
        "LoaderInfo",
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |n: usize| -> Vec<u8> {
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    };
    for len in [0, 1, 2, 3, 5, 8, 17, 64, 300, 5000] {
        for name in names {
            board.variable(name, "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", 7, &random(len));
        }
        for name in ["SecureBoot", "BootOrder", "BootNext", "Boot0000", "Boot0001", "BootFFFF"] {
            board.global(name, 7, &random(len));
        }
        board.variable("db", "d719b2cb-3d3a-4596-a3bc-dad00e67656f", 0x27, &random(len));
        let report = board.json(&["doctor", &disk, "--efivars", "vars", "--json"]);
        assert_eq!(report["esps"][0]["esp"]["healthy"], true);
        let text = board.run(&["doctor", &disk, "--efivars", "vars"]);
        assert_eq!(text.status.code(), Some(0));
        let acts = |b: &u8| (*b < 0x20 && *b != b'\n') || *b == 0x7F;
        assert!(!text.stdout.iter().any(acts), "control characters reach the terminal");
    }
}
