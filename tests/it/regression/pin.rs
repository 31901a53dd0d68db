//! `pin`: the entry that starts, chosen in loader.conf.

use super::place::{OLD, file, names};
use super::way::{refused as swap_is_refused, shim, status};
use super::xbootldr::with_xbootldr;
use crate::board::{Board, ESP_A, boot_option, systemd_boot, uki};
use crate::cli::ESP;
use crate::support::{Lab, fsck_clean, sha256};
use bootsurgeon::block::{Memory, Sink};
use bootsurgeon::fat::Volume;
use bootsurgeon::pe::Arch;
use bootsurgeon::surgery::{FileStep, INTENT_NAME, Order, Staging, interrupted, open_healthy, recover};
use bootsurgeon::testkit::crash::{self, Frame};
use bootsurgeon::testkit::uki::Builder;
use serde_json::Value;
use sha2::{Digest, Sha256};

const CONF: &str = "loader/loader.conf";
const FIRST: &str = "Talos-v1.12.4.efi";
const SECOND: &str = "Talos-v1.12.4~1.efi";

fn board() -> (Board, String) {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    (board, disk)
}

fn conf(board: &Board, disk: &str) -> String {
    String::from_utf8(file(board, disk, CONF).unwrap()).unwrap()
}

fn pin(board: &Board, disk: &str, what: &[&str]) -> Value {
    board.json(&[&["pin", disk, "--efivars", "vars", "--json"], what].concat())
}

/// Asserts that the pin is refused with this exit code and these words, in a dry run and in a run alike, and that
/// nothing was written.
fn refused(board: &Board, disk: &str, what: &[&str], code: i32, words: &[&str]) {
    let before = sha256(&board.lab.path(disk));
    let mut messages = Vec::new();
    for how in ["--dry-run", "--yes"] {
        let out = board.run(&[&["pin", disk, "--efivars", "vars", "--json", how], what].concat());
        assert_eq!(out.status.code(), Some(code), "{how}: {}", String::from_utf8_lossy(&out.stdout));
        let error: Value = serde_json::from_slice(&out.stdout).unwrap();
        let error = &error["error"];
        assert_eq!(error["esp_changed"], false, "{error}");
        assert!(error["advice"].is_string(), "{error}");
        if code == 4 {
            assert_eq!(error["code"], "would-not-boot", "{error}");
        }
        messages.push(format!("{} {}", error["message"], error["advice"]));
    }
    assert_eq!(messages[0], messages[1]);
    for word in words {
        assert!(messages[0].contains(word), "{word}: {}", messages[0]);
    }
    assert_eq!(sha256(&board.lab.path(disk)), before);
}

#[test]
fn issue19_5_a_pin_is_one_line_of_loader_conf_and_goes_again() {
    let (board, disk) = board();
    let before = sha256(&board.lab.path(&disk));
    let old = conf(&board, &disk);
    assert_eq!(status(&board, &disk)["boot"]["selected"], FIRST);
    // By its file in any case, by its path, by its id.
    for name in [SECOND, "TALOS-V1.12.4~1.EFI", "EFI/Linux/Talos-v1.12.4~1.efi", "talos-v1.12.4~1.efi"] {
        let dry = pin(&board, &disk, &[name, "--dry-run"]);
        assert_eq!(sha256(&board.lab.path(&disk)), before);
        let plan = &dry["plan"];
        assert_eq!((&dry["committed"], &plan["entry"]), (&false.into(), &"talos-v1.12.4~1.efi".into()), "{dry}");
        assert_eq!(plan["default"], "talos-v1.12.4~1.efi");
        assert_eq!((&plan["boot_before"], &plan["boot_after"]), (&FIRST.into(), &SECOND.into()), "{plan}");
        assert_eq!(plan["boot_after_without_variables"], SECOND);
    }
    let done = pin(&board, &disk, &[SECOND, "--yes"]);
    assert_eq!(done["committed"], true);
    assert_eq!(conf(&board, &disk), format!("{old}default talos-v1.12.4~1.efi\n"));
    assert_eq!(status(&board, &disk)["boot"]["selected"], SECOND);
    // No backup and no record stays.
    assert_eq!(names(&board, &disk, "loader"), ["loader.conf", "keys"]);
    assert!(file(&board, &disk, INTENT_NAME).is_none());
    let _ = fsck_clean(&board.lab.path(&disk), ESP);
    // The same again: nothing is asked and nothing written.
    let before = sha256(&board.lab.path(&disk));
    for how in [&[][..], &["--dry-run"], &["--yes"]] {
        let again = pin(&board, &disk, &[&[SECOND], how].concat());
        assert_eq!((&again["already_in_place"], &again["committed"]), (&true.into(), &false.into()));
    }
    assert_eq!(sha256(&board.lab.path(&disk)), before);
    // Another one takes its place, and a pattern.
    pin(&board, &disk, &[FIRST, "--yes"]);
    assert_eq!(conf(&board, &disk), format!("{old}default talos-v1.12.4.efi\n"));
    let report = pin(&board, &disk, &["talos-*~?.efi", "--yes"]);
    assert_eq!(
        (&report["plan"]["boot_after"], &report["plan"]["entry"]),
        (&SECOND.into(), &"talos-v1.12.4~1.efi".into())
    );
    assert_eq!(report["plan"]["default_before"], serde_json::json!(["talos-v1.12.4.efi"]));
    // And out with it.
    let report = pin(&board, &disk, &["--clear", "--yes"]);
    assert_eq!((&report["plan"]["default"], &report["plan"]["boot_after"]), (&Value::Null, &FIRST.into()));
    assert_eq!(conf(&board, &disk), old);
    assert_eq!(pin(&board, &disk, &["--clear"])["already_in_place"], true);
}

/// NixOS/nixpkgs#86422 for the one who writes: what somebody wrote there stays, to the last byte.
#[test]
fn issue19_5_comments_other_lines_and_line_ends_stay() {
    let (board, disk) = board();
    for (old, new) in [
        ("# mine\r\ntimeout 3\r\n", "# mine\r\ntimeout 3\r\ndefault talos-v1.12.4~1.efi\r\n"),
        ("default talos-*\ntimeout 3\n#default x", "default talos-v1.12.4~1.efi\ntimeout 3\n#default x"),
        ("", "default talos-v1.12.4~1.efi\n"),
        ("editor no", "editor no\ndefault talos-v1.12.4~1.efi\n"),
    ] {
        board.replace(&disk, "loader", "loader.conf", old.as_bytes());
        pin(&board, &disk, &[SECOND, "--yes"]);
        assert_eq!(conf(&board, &disk), new);
    }
    // A file that is gone is made, under its name; what is left of one with nothing else in it is a line end.
    board.remove_from(&disk, "loader", "loader.conf");
    let report = pin(&board, &disk, &[SECOND, "--yes"]);
    assert_eq!(report["plan"]["creates"], true);
    assert_eq!(conf(&board, &disk), "default talos-v1.12.4~1.efi\n");
    pin(&board, &disk, &["--clear", "--yes"]);
    assert_eq!(conf(&board, &disk), "\n");
    let _ = fsck_clean(&board.lab.path(&disk), ESP);
}

/// Whatever would start something else is a refusal that says what, in a dry run too.
#[test]
fn issue19_5_a_pin_that_would_not_hold_is_refused() {
    let (board, disk) = board();
    // A variable wins.
    board.text("LoaderEntryDefault", 7, "talos-v1.12.4.efi");
    refused(&board, &disk, &[SECOND], 4, &["LoaderEntryDefault pins talos-v1.12.4.efi", "delete it"]);
    board.text("LoaderEntryDefault", 7, "talos-*~1.efi");
    pin(&board, &disk, &[SECOND, "--dry-run"]);
    // Gone from the menu: the line counts.
    board.text("LoaderEntryDefault", 7, "talos-v1.10.0.efi");
    pin(&board, &disk, &[SECOND, "--dry-run"]);
    board.text("LoaderEntryOneShot", 7, FIRST);
    refused(&board, &disk, &[SECOND], 4, &["at the next start", "LoaderEntryOneShot asks for", "restart the board"]);
    board.text("LoaderEntryOneShot", 7, SECOND);
    pin(&board, &disk, &[SECOND, "--dry-run"]);
    std::fs::remove_file(board.lab.path("vars/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")).unwrap();
    std::fs::remove_file(board.lab.path("vars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")).unwrap();
    // A setting of the file itself, that later versions know.
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &systemd_boot("260", Arch::Arm64));
    board.replace(&disk, "loader", "loader.conf", b"preferred talos-v1.12.4.efi\n");
    refused(&board, &disk, &[SECOND], 4, &["loader.conf preferred", "take the line"]);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &systemd_boot("257.9", Arch::Arm64));
    pin(&board, &disk, &[SECOND, "--dry-run"]);
    // What wipes, what is cut off, what is no system.
    refused(&board, &disk, &["talos-v1.12.4.efi@reset-maintenance"], 4, &["talos.experimental.wipe"]);
    refused(&board, &disk, &["*@reset*"], 4, &["talos.experimental.wipe"]);
    let image = uki(&board.lab, "talos-v1.12.4-arm64-plain");
    board.replace(&disk, "EFI/Linux", "Talos-v1.13.0.efi", &image[..image.len() - 5000]);
    refused(&board, &disk, &["Talos-v1.13.0.efi"], 4, &["fail"]);
    board.global("OsIndicationsSupported", 6, &1u64.to_le_bytes());
    refused(&board, &disk, &["auto-reboot-to-firmware-setup"], 4, &["start no system"]);
    board.directory(&disk, "loader/entries");
    let kernel = Builder::new(Arch::Arm64).section(".osrel", "ID=x\n").build();
    board.replace(&disk, "EFI/Linux", "stub.bin", &kernel);
    board.replace(&disk, "loader/entries", "x.conf", b"title x\nefi /EFI/Linux/stub.bin\n");
    refused(&board, &disk, &["x.conf"], 4, &["no kernel"]);
    // To clear a line may bring forward what does not start, too.
    board.replace(&disk, "loader", "loader.conf", b"default talos-v1.12.4.efi\n");
    assert_eq!(status(&board, &disk)["boot"]["selected"], FIRST);
    let selected = status(&board, &disk);
    if selected["boot"]["selected_without_variables"] == FIRST {
        refused(&board, &disk, &["--clear"], 4, &["fail"]);
    }
}

/// An entry that is not there, or no request at all.
#[test]
fn issue19_5_what_names_no_entry_is_a_clear_error() {
    let (board, disk) = board();
    refused(&board, &disk, &["Talos-v9.efi"], 2, &["Talos-v9.efi", "the entries are: talos-v1.12.4.efi"]);
    refused(&board, &disk, &["Talos-v1.12.4"], 2, &["the entry is called talos-v1.12.4.efi"]);
    refused(&board, &disk, &["@saved"], 2, &["@saved"]);
    refused(&board, &disk, &["talos*\ntimeout 1"], 2, &["no entry"]);
    refused(&board, &disk, &["talos[\n-]*"], 2, &["no entry"]);
    for bad in [&[][..], &[FIRST, "--clear"]] {
        let out = board.run(&[&["pin", &disk, "--dry-run"], bad].concat());
        assert_eq!(out.status.code(), Some(2));
    }
    // No directory for the file, or another thing of its name.
    board.remove_from(&disk, "loader", "loader.conf");
    board.directory(&disk, "loader/loader.conf");
    let out = board.run(&["pin", &disk, FIRST, "--efivars", "vars", "--yes"]);
    assert!(out.status.code() == Some(4) && String::from_utf8_lossy(&out.stderr).contains("is a directory"));
    // Nobody to ask.
    let (board, disk) = self::board();
    let out = board.run(&["pin", &disk, SECOND, "--efivars", "vars", "--json"]);
    assert_eq!(out.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&out.stdout).contains("\"unconfirmed\""));
}

/// Where another loader starts, or an image by itself, nobody reads the file.
#[test]
fn issue19_5_without_a_systemd_boot_there_is_nothing_to_pin() {
    let (board, disk) = board();
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &uki(&board.lab, OLD));
    refused(&board, &disk, &[FIRST], 4, &["no systemd-boot is started from this partition"]);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &shim());
    refused(&board, &disk, &[FIRST], 4, &["no systemd-boot is started from this partition"]);
    swap_is_refused(&board, &disk, "shim");
    board.replace(&disk, "EFI/BOOT", "grubaa64.efi", &systemd_boot("257.9", Arch::Arm64));
    pin(&board, &disk, &[SECOND, "--dry-run"]);
    // For one start something else is set: that is said.
    board.directory(&disk, "EFI/x");
    board.replace(&disk, "EFI/x", "x.efi", &uki(&board.lab, OLD));
    board.global("BootNext", 7, &[1, 0]);
    board.global("Boot0001", 7, &boot_option("it", ESP_A, "\\EFI\\x\\x.efi"));
    let report = pin(&board, &disk, &[SECOND, "--dry-run"]);
    assert!(report["warnings"].to_string().contains("the next start is an exception"), "{report}");
    assert_eq!(report["plan"]["boot_after_without_variables"], SECOND);
}

/// An image whose starts are counted in its name is called something else at every start.
#[test]
fn issue19_5_a_counter_in_the_name_ends_a_pin() {
    let (board, disk) = board();
    for version in ["257.9", "257.13", "259.5", "262.1"] {
        board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &systemd_boot(version, Arch::Arm64));
        board.replace(&disk, "EFI/Linux", "talos-v1.11.0+3.efi", &uki(&board.lab, "talos-v1.12.4-arm64-uki"));
        let id = status(&board, &disk)["boot"]["menu"].to_string();
        let counted = id.contains("talos-v1.11.0+3.efi");
        if counted {
            refused(&board, &disk, &["talos-v1.11.0+3.efi"], 4, &["counts the starts", "mark it as good"]);
        } else {
            // The id is without the counter, and systemd-boot's pin does not end with the tries.
            pin(&board, &disk, &["talos-v1.11.0+3.efi", "--dry-run"]);
        }
        pin(&board, &disk, &["talos-v1.11.0*", "--dry-run"]);
        // An id that has kept its case is asked for by question marks.
        board.remove(&disk, "talos-v1.11.0+3.efi");
        board.replace(&disk, "EFI/Linux", "Talos-v1.11.0+3.efi", &uki(&board.lab, "talos-v1.12.4-arm64-uki"));
        if !counted {
            let report = pin(&board, &disk, &["Talos-v1.11.0+3.efi", "--dry-run"]);
            let expected = if version == "262.1" { "talos-v1.11.0.efi" } else { "?alos-v1.11.0.efi" };
            assert_eq!(report["plan"]["default"], expected, "{version}: {report}");
        }
        board.remove(&disk, "Talos-v1.11.0+3.efi");
    }
}

/// An entry of the Extended Boot Loader Partition is pinned on the ESP, where systemd-boot reads the file.
#[test]
fn issue19_5_an_image_on_the_xbootldr_partition_is_pinned_on_the_esp() {
    let lab = Lab::new();
    let disk = with_xbootldr(&lab, &[("aalos.efi", "v1.12.4-arm64-installer")]);
    let report = bootsurgeon!("pin", disk, "aalos.efi", "--yes", "--json").code(0).json();
    assert_eq!(report["plan"]["boot_after"], "EFI/Linux/aalos.efi on partition 7", "{report:#}");
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert_eq!(status["boot"]["selected"], "EFI/Linux/aalos.efi on partition 7");
    bootsurgeon!("pin", disk, "--partition", "7", "--clear").fails(4, &["no systemd-boot is started from this"]);
}

/// A cut operation is named for what it is, and brought to an end; nothing of it is left.
#[test]
fn issue19_5_recover_ends_a_pin_that_was_cut() {
    let lab = Lab::new();
    let volume = std::fs::read(lab.fixture("fat16.img.zst")).unwrap();
    let text = b"timeout 10\ndefault talos-v1.12.4~1.efi\n";
    let backup = "loader.conf.bak.1771000000";
    let order = Order {
        command: "pin".into(),
        time: 1_771_000_000,
        directory: "loader".into(),
        before: Vec::new(),
        target: "loader.conf".into(),
        backup: Some(backup.into()),
        directories: Vec::new(),
        set: Vec::new(),
        after: vec![FileStep::Remove(backup.into())],
    };
    let recording = crash::record(&Frame::new(&volume, 512), |medium| {
        let mut staging = Staging::begin(open_healthy(medium)?, text.len() as u64)?;
        staging.chunk(text)?;
        staging.seal(Sha256::digest(text).into())?.commit(&order).map(drop)
    });
    let (mut frame, events) = recording.unwrap().rewind();
    let mut seen = Vec::new();
    for event in &events {
        crash::redo(&mut frame, std::slice::from_ref(event));
        let medium = Memory::new(frame.to_bytes());
        let Some(found) = interrupted(&Volume::open(&medium).unwrap()).unwrap() else { continue };
        assert!(found.to_string().starts_with("pin of loader/loader.conf was interrupted"), "{found}");
        let done = recover(&medium).unwrap();
        assert!(done.lost.is_empty(), "{done:?}");
        let volume = Volume::open(&medium).unwrap();
        let now = volume.read_small(CONF, 4096).unwrap().unwrap();
        assert_eq!(now == text, done.finished.unwrap(), "{done:?}");
        assert!(volume.find(&format!("loader/{backup}")).unwrap().is_none());
        open_healthy(&medium).unwrap();
        seen.extend(done.actions.iter().map(ToString::to_string));
    }
    for words in [format!("deleted {backup}"), format!("removed the prepared backup name {backup}")] {
        assert!(seen.contains(&words), "{words}: {seen:?}");
    }
    assert!(seen.iter().any(|words| words.starts_with("freed")), "{seen:?}");
}
