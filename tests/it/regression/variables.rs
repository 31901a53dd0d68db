//! Where the variables are that count at the next start.

use crate::board::{Board, ESP_A, boot_option};
use crate::cli::put;
use crate::support::Lab;
use bootsurgeon::efivars::{GLOBAL, LOADER};
use uuid::Uuid;

/// Where the ESPs of `disk-two-esps` begin.
const FIRST_ESP: u64 = 1 << 20;
const SECOND_ESP: u64 = 38 << 20;
const U_BOOT: &str = "b2ac5fc9-92b7-4acd-aeac-11e818c3130c";

/// `ubootefi.var` with these variables (U-Boot's include/efi_variable.h).
pub(super) fn uboot_file(variables: &[(&str, Uuid, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, vendor, data) in variables {
        body.extend((data.len() as u32).to_le_bytes());
        body.extend(7_u32.to_le_bytes());
        body.extend([0; 8]);
        body.extend(vendor.to_bytes_le());
        body.extend(text(name));
        body.extend(*data);
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let length = 24 + body.len() as u32;
    [&[0; 8][..], b"UbEfiVa\x01", &length.to_le_bytes(), &crc32fast::hash(&body).to_le_bytes(), &body].concat()
}

pub(super) fn text(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Crash records that nobody takes away fill NVRAM, and then no variable can be set.
#[test]
fn redk2_cix_5_crash_records_are_counted_and_named_as_a_cause() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    board.text("LoaderInfo", 6, "systemd-boot 257.9-talos");
    let found = |board: &Board| {
        let report = board.json(&["doctor", &disk, "--efivars", "vars", "--json"]);
        let all = report["findings"].as_array().unwrap().clone();
        all.into_iter().find(|f| f["id"] == "crash-records")
    };
    assert_eq!(found(&board), None);
    let record = |n: u32| {
        let name = format!("dump-type0-{}-1-{}-C", n, 1_700_000_000 + n);
        board.variable(&name, "cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0", 7, &[b'x'; 1000]);
    };
    record(1);
    let one = found(&board).unwrap();
    assert!(one["severity"] == "note" && one["what"].as_str().unwrap().starts_with("1 crash record of"), "{one:#}");
    (2..=40).for_each(record);
    let many = found(&board).unwrap();
    assert_eq!(many["severity"], "warning", "{many:#}");
    assert!(
        many["what"]
            .as_str()
            .unwrap()
            .contains("40 crash records of the kernel (dump-type0-…) in the variable store: 39.1 KiB")
    );
}

/// fwupd/fwupd#4374: what somebody sees is that no variable can be set; the line that they paste leads to the records.
#[test]
fn rfwupd_4374_a_full_variable_store_is_explained_by_its_crash_records() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    for n in 1..=40 {
        let name = format!("dump-type0-{n}-1-1700000000-C");
        board.variable(&name, "cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0", 7, &[b'x'; 1000]);
    }
    // The line that somebody pastes finds it, and with the variables at hand they are counted, too.
    let line = "write /sys/firmware/efi/efivars/LoaderEntryDefault-4a67: no space left on device";
    let report = board.json(&["doctor", &disk, "--efivars", "vars", "--error", line, "--json"]);
    let ids: Vec<_> = report["findings"].as_array().unwrap().iter().map(|f| f["id"].clone()).collect();
    assert!(ids.contains(&"variables-full".into()) && ids.contains(&"crash-records".into()), "{ids:?}");
}

/// A board on which U-Boot shows its variables from memory.
fn on_uboot(board: &Board) {
    board.variable("RTStorageVolatile", U_BOOT, 6, b"ubootefi.var\0");
    board.text("LoaderInfo", 6, "systemd-boot 257.9-talos");
    board.text("LoaderEntrySelected", 6, "talos-v1.12.4.efi");
}

fn selected(board: &Board, args: &[&str]) -> (String, String, serde_json::Value) {
    let report = board.json(&[&["status"], args, &["--json"]].concat());
    let text = |v: &serde_json::Value| v.as_str().unwrap_or("nothing").to_owned();
    (text(&report["boot"]["selected"]), text(&report["variables"]["kind"]), report)
}

/// ARM-software/ebbr#143, rhboot/efivar#267: what the running system sees is in memory; the next start goes by the
/// file.
#[test]
fn rebbr_143_the_next_start_goes_by_the_file_and_not_by_memory() {
    let board = Board::new();
    let disk = board.disk("mmcblk0", ESP_A);
    on_uboot(&board);
    // An upgrade wrote this, it could be read back, and it is lost.
    board.text("LoaderEntryDefault", 7, "Talos-v1.12.4~1.efi");
    let args = [disk.as_str(), "--efivars", "vars"];
    let (boots, kind, report) = selected(&board, &args);
    assert_eq!((boots.as_str(), kind.as_str()), ("Talos-v1.12.4.efi", "u-boot"));
    assert!(report["variables"]["why"].to_string().contains("never written"), "{report}");

    // rhboot/efivar#282: somebody saved them.
    let kept = [("LoaderEntryDefault", LOADER, &text("Talos-v1.12.4~1.efi")[..])];
    board.replace(&disk, "", "ubootefi.var", &uboot_file(&kept));
    let (boots, kind, report) = selected(&board, &args);
    assert_eq!((boots.as_str(), kind.as_str()), ("Talos-v1.12.4~1.efi", "u-boot"));
    // What the firmware works out anew at each start still comes from what it shows.
    assert_eq!(report["boot"]["roles"]["running_file"], "Talos-v1.12.4.efi");
    let doctor = board.json(&["doctor", &disk, "--efivars", "vars", "--json"]);
    assert_eq!(doctor["firmware"]["set_variable"], "volatile");
    assert_eq!(doctor["firmware"]["variables"]["place"], "ubootefi.var on the ESP");
    let new = board.lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    let swap = ["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--dry-run", "--json", "--allow-untrusted"];
    assert_eq!(board.json(&swap)["plan"]["boot_before"], "Talos-v1.12.4~1.efi");
}

/// The same with the disk image alone: the file is on its ESP, and `--efivars FILE` takes a copy of it.
#[test]
fn refivar_282_a_file_of_variables_is_read_from_the_image_and_as_a_file() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    let file = uboot_file(&[
        ("LoaderEntryDefault", LOADER, &text("talos-v1.12.4~1.efi")),
        ("Boot0001", GLOBAL, &boot_option("Talos", ESP_A, "\\EFI\\BOOT\\BOOTAA64.EFI")),
        ("BootOrder", GLOBAL, &[1, 0]),
    ]);
    assert_eq!(selected(&board, &[&disk]).0, "Talos-v1.12.4.efi");
    std::fs::write(board.lab.path("saved.var"), &file).unwrap();
    let (boots, _, report) = selected(&board, &[&disk, "--efivars", "saved.var"]);
    assert_eq!(boots, "Talos-v1.12.4~1.efi", "{report}");
    let doctor = board.json(&["doctor", &disk, "--efivars", "saved.var", "--json"]);
    assert_eq!(doctor["boot_options"]["options"][0]["description"], "Talos");
    board.replace(&disk, "", "ubootefi.var", &file);
    for args in [&[disk.as_str()][..], &[&disk, "--efivars", "esp"]] {
        assert_eq!(selected(&board, args).0, "Talos-v1.12.4~1.efi", "{args:?}");
    }
    assert_eq!(selected(&board, &[&disk, "--efivars", "none"]).0, "Talos-v1.12.4.efi");
}

/// Found with real U-Boot: it keeps the variables on the first ESP of a disk, for all of them; a file on the second
/// counts for nothing.
#[test]
fn issue13_uboot_keeps_its_variables_on_the_first_esp_for_every_other() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-two-esps.img.zst");
    let file = uboot_file(&[("LoaderEntryDefault", LOADER, &text("talos-v1.12.3.efi"))]);
    let place = |partition: &str| {
        let report = crate::cli::run(&args!["status", disk, "--partition", partition, "--json"]).code(0).json();
        report["variables"]["place"].as_str().map(str::to_owned)
    };
    put(&disk, SECOND_ESP, "ubootefi.var", &file);
    assert_eq!((place("1"), place("7")), (None, None));
    put(&disk, FIRST_ESP, "ubootefi.var", &file);
    assert_eq!(place("1").as_deref(), Some("ubootefi.var on the ESP"));
    assert!(place("7").is_some_and(|place| place.starts_with("ubootefi.var on partition 1")));
}

/// A file that U-Boot would ignore gives no value, and it is said.
#[test]
fn issue13_a_damaged_file_of_variables_is_a_warning_and_no_value() {
    let good = uboot_file(&[("LoaderEntryDefault", LOADER, &text("talos-v1.12.4~1.efi"))]);
    let mut flipped = good.clone();
    flipped[60] ^= 1;
    for (what, bytes) in [("checksum", &flipped[..]), ("has", &good[..good.len() - 8]), ("header", &good[..20])] {
        let board = Board::new();
        let disk = board.disk("card.img", ESP_A);
        board.replace(&disk, "", "ubootefi.var", bytes);
        std::fs::write(board.lab.path("saved.var"), bytes).unwrap();
        for args in [&[disk.as_str()][..], &[&disk, "--efivars", "esp"], &[&disk, "--efivars", "saved.var"]] {
            let (boots, _, report) = selected(&board, args);
            assert_eq!(boots, "Talos-v1.12.4.efi", "{what}");
            assert!(report["warnings"].to_string().contains(what), "{args:?}: {}", report["warnings"]);
        }
        on_uboot(&board);
        board.text("LoaderEntryDefault", 7, "Talos-v1.12.4~1.efi");
        let (boots, _, report) = selected(&board, &[&disk, "--efivars", "vars"]);
        assert_eq!(boots, "Talos-v1.12.4.efi", "{what}");
        assert!(report["warnings"].to_string().contains(what), "{}", report["warnings"]);
    }
}
