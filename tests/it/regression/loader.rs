//! `loader`: another systemd-boot in the place of the one that starts.

use super::loaders::secured;
use super::place::{OLD, file, names};
use super::way::{shim, status};
use crate::board::{Board, ESP_A, boot_option, systemd_boot, uki};
use crate::cli::ESP;
use crate::support::{Lab, fsck_clean, sha256};
use bootsurgeon::block::{Memory, Sink};
use bootsurgeon::boot::Variables;
use bootsurgeon::esp::Inventory;
use bootsurgeon::fat::{Editor, Stamp, Volume};
use bootsurgeon::pe::Arch;
use bootsurgeon::plan::{LoaderStep, loader_places};
use bootsurgeon::surgery::{Staging, interrupted, open_healthy, recover};
use bootsurgeon::testkit::crash::{self, Frame};
use bootsurgeon::testkit::signing::{SigningKey, sign_pe};
use bootsurgeon::testkit::uki::Builder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(super) const REMOVABLE: &str = "EFI/BOOT/BOOTAA64.EFI";
const INSTALLED: &str = "EFI/systemd/systemd-bootaa64.efi";

/// A board with systemd-boot of this version at the removable-media path.
pub(super) fn board(version: &str) -> (Board, String) {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &systemd_boot(version, Arch::Arm64));
    (board, disk)
}

/// The same at both places, with a boot option for the second.
fn both(version: &str) -> (Board, String) {
    let (board, disk) = board(version);
    board.directory(&disk, "EFI/systemd");
    board.replace(&disk, "EFI/systemd", "systemd-bootaa64.efi", &systemd_boot(version, Arch::Arm64));
    board.global("BootOrder", 7, &[1, 0]);
    board.global("Boot0001", 7, &boot_option("Linux Boot Manager", ESP_A, "\\EFI\\systemd\\systemd-bootaa64.efi"));
    (board, disk)
}

fn new_file(board: &Board, bytes: &[u8]) -> &'static str {
    std::fs::write(board.lab.path("new.efi"), bytes).unwrap();
    "new.efi"
}

pub(super) fn run(board: &Board, disk: &str, image: &str, more: &[&str]) -> Value {
    board.json(&[&["loader", disk, image, "--efivars", "vars", "--allow-untrusted", "--json"], more].concat())
}

/// Asserts that it is refused with this exit code and these words, in a dry run and in a run alike, and that nothing was
/// written.
pub(super) fn refused(board: &Board, disk: &str, image: &str, more: &[&str], code: i32, words: &[&str]) {
    let before = sha256(&board.lab.path(disk));
    let mut messages = Vec::new();
    for how in ["--dry-run", "--yes"] {
        let args = [&["loader", disk, image, "--efivars", "vars", "--json", how], more].concat();
        let out = board.run(&args);
        assert_eq!(out.status.code(), Some(code), "{how}: {}", String::from_utf8_lossy(&out.stdout));
        let error: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(error["error"]["esp_changed"], false, "{error}");
        messages.push(format!("{} {}", error["error"]["message"], error["error"]["advice"]));
    }
    assert_eq!(messages[0], messages[1]);
    for word in words {
        assert!(messages[0].contains(word), "{word}: {}", messages[0]);
    }
    assert_eq!(sha256(&board.lab.path(disk)), before);
}

#[test]
fn issue19_2_both_places_get_the_new_one_and_the_started_one_comes_last() {
    let (board, disk) = both("255.4");
    let (old, new) = (systemd_boot("255.4", Arch::Arm64), systemd_boot("257.9", Arch::Arm64));
    let image = new_file(&board, &new);
    let before = sha256(&board.lab.path(&disk));
    let dry = run(&board, &disk, image, &["--dry-run"]);
    assert_eq!((&dry["committed"], sha256(&board.lab.path(&disk))), (&false.into(), before));
    let done = run(&board, &disk, image, &["--yes"]);
    let mut backups = Vec::new();
    for report in [&dry, &done] {
        let plan = &report["plan"];
        let targets: Vec<&Value> = plan["places"].as_array().unwrap().iter().map(|p| &p["target"]).collect();
        assert_eq!(targets, [REMOVABLE, INSTALLED], "{plan:#}");
        assert_eq!((&plan["version"], &plan["places"][1]["version_before"]), (&"257.9".into(), &"255.4".into()));
        assert_eq!(plan["bytes_to_write"], 2 * new.len());
        assert_eq!(
            (&plan["boot_before"], &plan["boot_after"]),
            (&"Talos-v1.12.4.efi".into(), &"Talos-v1.12.4.efi".into())
        );
        let ids: Vec<&str> = report["checks"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["pe", "arch", "authenticode-digest", "authenticode-signer", "revocation", "version"]);
    }
    for (n, (path, directory)) in [(REMOVABLE, "EFI/BOOT"), (INSTALLED, "EFI/systemd")].into_iter().enumerate() {
        assert!(file(&board, &disk, path).unwrap() == new);
        let backup = done["plan"]["places"][n]["backup"].as_str().unwrap();
        assert!(backup.starts_with(&format!("{path}.bak.")), "{backup}");
        assert!(file(&board, &disk, backup).unwrap() == old);
        assert_eq!(names(&board, &disk, directory).len(), 2);
        backups.push(backup.to_owned());
    }
    assert!(status(&board, &disk)["way"].to_string().contains("systemd-boot 257.9"));
    let _ = fsck_clean(&board.lab.path(&disk), ESP);
    // The same again: nothing is asked, and nothing written.
    let before = sha256(&board.lab.path(&disk));
    for how in [&[][..], &["--dry-run"], &["--yes"]] {
        let again = run(&board, &disk, image, how);
        assert_eq!((&again["already_in_place"], &again["committed"]), (&true.into(), &false.into()));
    }
    assert_eq!(sha256(&board.lab.path(&disk)), before);
    // And back, one place after the other, by the command that the report names.
    for (n, path) in [REMOVABLE, INSTALLED].into_iter().enumerate() {
        let next: Vec<&str> = done["next"][n]["run"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
        assert!(next.contains(&backups[n].as_str()), "{next:?}");
        let restore = [&next[1..], &["--yes", "--json"]].concat();
        let report = board.json(&restore);
        assert_eq!((&report["restored"], &report["plan"]["target"]), (&backups[n].as_str().into(), &path.into()));
        assert!(file(&board, &disk, path).unwrap() == old && file(&board, &disk, &backups[n]).is_none());
        assert!(file(&board, &disk, report["plan"]["backup"].as_str().unwrap()).unwrap() == new);
    }
    assert_eq!(status(&board, &disk)["boot"]["selected"], "Talos-v1.12.4.efi");
    // What is left half-way by a cut between the two places, the same command completes.
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &new);
    let rest = run(&board, &disk, image, &["--yes"]);
    assert_eq!(rest["plan"]["places"][0]["already_in_place"], true);
    assert!(file(&board, &disk, INSTALLED).unwrap() == new);
    // Backups do not pile up where that is asked for.
    let next = new_file(&board, &systemd_boot("259.5", Arch::Arm64));
    let kept = run(&board, &disk, next, &["--keep-backups", "1", "--yes"]);
    assert!(!kept["plan"]["places"][0]["delete"].as_array().unwrap().is_empty(), "{kept:#}");
    assert_eq!((names(&board, &disk, "EFI/BOOT").len(), names(&board, &disk, "EFI/systemd").len()), (2, 2));
    let _ = fsck_clean(&board.lab.path(&disk), ESP);
}

/// An ISO, a disk image, packed too, a FAT image; what is no systemd-boot for the board is none, whatever holds it.
#[test]
fn issue19_2_it_is_found_in_what_holds_it() {
    let (board, disk) = board("252.39");
    let real = {
        let other = board.lab.fixture_as("disk-512.img.zst", "other.img");
        let volume = bootsurgeon::disk::Target::find(&other, None).unwrap().open().unwrap();
        Volume::open(volume).unwrap().read_small(REMOVABLE, 1 << 24).unwrap().unwrap()
    };
    let _ = board.lab.fixture("secureboot-arm64.iso.zst");
    std::fs::copy(crate::support::fixtures().join("disk/disk-512.img.zst"), board.lab.path("packed.zst")).unwrap();
    for image in ["secureboot-arm64.iso", "other.img", "packed.zst"] {
        let dry = run(&board, &disk, image, &["--dry-run"]);
        assert!(dry["source"].as_str().unwrap().starts_with(REMOVABLE), "{dry:#}");
        assert_eq!(dry["plan"]["places"][0]["target"], REMOVABLE);
        let expected = hex::encode(Sha256::digest(&real));
        assert_eq!(dry["sha256"], expected, "{image}");
    }
    // The signer of the installed image, and that of the ESP's own keys, is whom it is signed by.
    let dry = board.json(&["loader", &disk, "secureboot-arm64.iso", "--efivars", "vars", "--json", "--dry-run"]);
    assert_eq!(dry["checks"][3]["status"], "pass", "{dry:#}");
    let done = run(&board, &disk, "secureboot-arm64.iso", &["--yes"]);
    assert_eq!((&done["committed"], file(&board, &disk, REMOVABLE).unwrap() == real), (&true.into(), true));
    // Others.
    let _ = board.lab.fixture("secureboot-amd64.iso.zst");
    refused(&board, &disk, "secureboot-amd64.iso", &[], 3, &["no systemd-boot for arm64"]);
    std::fs::write(board.lab.path("uki.efi"), uki(&board.lab, OLD)).unwrap();
    refused(&board, &disk, "uki.efi", &[], 3, &["the file itself is a UKI", "give systemd-boot itself"]);
    std::fs::write(board.lab.path("shim.efi"), shim()).unwrap();
    refused(&board, &disk, "shim.efi", &[], 3, &["the file itself is shim"]);
    std::fs::write(board.lab.path("x64.efi"), systemd_boot("259.5", Arch::Amd64)).unwrap();
    refused(&board, &disk, "x64.efi", &["--allow-untrusted"], 3, &["for amd64"]);
    std::fs::write(board.lab.path("text"), "no image").unwrap();
    refused(&board, &disk, "text", &[], 3, &["neither"]);
    refused(&board, &disk, "nowhere.iso", &[], 1, &["nowhere.iso"]);
}

/// Signed by nobody who is trusted, changed since, revoked, older: as an image.
#[test]
fn issue19_2_it_is_verified_as_an_image_is() {
    let key = SigningKey::test("loader").unwrap();
    let (board, disk) = secured(&key);
    let old = sign_pe(systemd_boot("257.9", Arch::Arm64), &key).unwrap();
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &old);
    let new = sign_pe(systemd_boot("259.5", Arch::Arm64), &key).unwrap();
    let go = |bytes: &[u8], code: i32, words: &[&str]| {
        let image = new_file(&board, bytes);
        refused(&board, &disk, image, &[], code, words);
    };
    go(&systemd_boot("259.5", Arch::Arm64), 3, &["not signed"]);
    let other = SigningKey::other_test("stranger").unwrap();
    go(&sign_pe(systemd_boot("259.5", Arch::Arm64), &other).unwrap(), 3, &["no trusted certificate vouches for"]);
    let mut changed = new.clone();
    let at = changed.windows(4).position(|w| w == b"259.").unwrap();
    changed[at] = b'9';
    go(&changed, 3, &["changed after it was signed"]);
    // With Secure Boot on the firmware has the last word.
    let image = new_file(&board, &systemd_boot("259.5", Arch::Arm64));
    refused(&board, &disk, image, &["--allow-untrusted"], 4, &["the board's firmware would refuse"]);
    let older = new_file(&board, &sign_pe(systemd_boot("255.4", Arch::Arm64), &key).unwrap());
    refused(&board, &disk, older, &[], 3, &["that is a downgrade", "--allow-downgrade"]);
    let dry = board.json(&["loader", &disk, older, "--efivars", "vars", "--allow-downgrade", "--dry-run", "--json"]);
    assert_eq!(dry["checks"][5]["status"], "warn", "{dry:#}");
    let image = new_file(&board, &new);
    let done = board.json(&["loader", &disk, image, "--efivars", "vars", "--yes", "--json"]);
    assert_eq!((&done["committed"], file(&board, &disk, REMOVABLE).unwrap() == new), (&true.into(), true));
}

/// What a newer systemd-boot makes of the same files may be something else: that is known before.
#[test]
fn issue19_2_other_rules_that_start_something_else_are_a_refusal() {
    let (board, disk) = both("257.9");
    let image = new_file(&board, &systemd_boot("260", Arch::Arm64));
    board.replace(&disk, "loader", "loader.conf", b"preferred talos-v1.12.4~1.efi\n");
    refused(
        &board,
        &disk,
        image,
        &["--allow-untrusted"],
        4,
        &["the board would start EFI/Linux/Talos-v1.12.4~1.efi", "loader.conf preferred", "`pin`"],
    );
    // A name that versions up to 254 list, and later ones do not.
    let (board, disk) = self::board("254.26");
    for name in ["AUTO-z.efi", "Talos-v1.12.4.efi"] {
        board.replace(&disk, "EFI/Linux", name, &uki(&board.lab, "talos-v1.12.4-arm64-uki"));
    }
    board.replace(&disk, "loader", "loader.conf", b"default auto-z.efi\n");
    assert_eq!(status(&board, &disk)["boot"]["selected"], "AUTO-z.efi");
    let image = new_file(&board, &systemd_boot("257.9", Arch::Arm64));
    refused(&board, &disk, image, &["--allow-untrusted"], 4, &["instead of EFI/Linux/AUTO-z.efi"]);
    // With the entry chosen that both know, it goes.
    board.json(&["pin", &disk, "Talos-v1.12.4.efi", "--efivars", "vars", "--yes", "--json"]);
    let done = run(&board, &disk, image, &["--yes"]);
    assert_eq!(done["plan"]["boot_after"], "Talos-v1.12.4.efi", "{done:#}");
    // Back to rules that hand over the last profile's command line, which wipes.
    let (board, disk) = self::board("257.9");
    let image = new_file(&board, &systemd_boot("254.26", Arch::Arm64));
    refused(&board, &disk, image, &["--allow-untrusted", "--allow-downgrade"], 4, &["talos.experimental.wipe"]);
}

/// Another boot loader is named and left alone; a file that is broken, or missing, is what the command is for.
#[test]
fn issue19_2_what_is_no_systemd_boot_stays_and_what_is_broken_goes() {
    let (board, disk) = board("257.9");
    let new = systemd_boot("257.9", Arch::Arm64);
    let image = new_file(&board, &new);
    let grub = "sbat,1,SBAT Version,sbat,1,https://x\ngrub,4,Free Software Foundation,grub,2.12,https://y\n";
    let grub = Builder::new(Arch::Arm64).section(".text", vec![0xC3; 512]).section(".sbat", grub).build();
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &grub);
    refused(&board, &disk, image, &["--allow-untrusted"], 4, &["EFI/BOOT/BOOTAA64.EFI is GRUB 2.12"]);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &uki(&board.lab, OLD));
    refused(&board, &disk, image, &["--allow-untrusted"], 4, &["is a UKI"]);
    // Behind shim it is what shim starts.
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &shim());
    board.replace(&disk, "EFI/BOOT", "grubaa64.efi", &systemd_boot("252.39", Arch::Arm64));
    let done = run(&board, &disk, image, &["--yes"]);
    assert_eq!(
        done["plan"]["places"],
        json!([{
            "target": "EFI/BOOT/grubaa64.efi",
            "version_before": "252.39",
            "backup": done["plan"]["places"][0]["backup"],
            "delete": [],
            "already_in_place": false,
        }])
    );
    assert!(done["warnings"].to_string().contains("is shim 15.8, and stays as it is"), "{done:#}");
    // Cut off.
    let (board, disk) = self::board("257.9");
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &new[..100]);
    assert_eq!(status(&board, &disk)["boot"]["starts"], "nothing");
    let image = new_file(&board, &new);
    let done = run(&board, &disk, image, &["--yes"]);
    assert_eq!(
        (&done["plan"]["boot_before"], &done["plan"]["boot_after"]),
        (&Value::Null, &"Talos-v1.12.4.efi".into())
    );
    assert!(done["plan"]["places"][0]["backup"].as_str().unwrap().contains(".disabled."), "{done:#}");
    // Gone.
    for name in names(&board, &disk, "EFI/BOOT") {
        board.remove_from(&disk, "EFI/BOOT", &name);
    }
    let done = run(&board, &disk, image, &["--yes"]);
    assert_eq!((&done["plan"]["places"][0]["backup"], &done["committed"]), (&Value::Null, &true.into()));
    assert_eq!(status(&board, &disk)["boot"]["selected"], "Talos-v1.12.4.efi");
    assert_eq!(names(&board, &disk, "EFI/BOOT"), ["BOOTAA64.EFI"]);
    let _ = fsck_clean(&board.lab.path(&disk), ESP);
}

#[test]
fn issue19_2_a_request_that_makes_no_sense_is_a_clear_error() {
    let (board, disk) = board("257.9");
    for bad in [
        &["loader", &disk][..],
        &["loader", &disk, "x.iso", "--schematic", "x", "--talos", "v1.12.4"],
        &["loader", &disk, "--schematic", "x"],
        &["loader", &disk, "x.iso", "--talos", "v1.12.4"],
    ] {
        assert_eq!(board.run(bad).status.code(), Some(2), "{bad:?}");
    }
    // Nobody to ask.
    let image = new_file(&board, &systemd_boot("259.5", Arch::Arm64));
    let out = board.run(&["loader", &disk, image, "--efivars", "vars", "--allow-untrusted", "--json"]);
    assert_eq!(out.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&out.stdout).contains("\"unconfirmed\""));
}

/// At every cut of the two operations each place holds the old one or the new one, whole, and what the firmware starts
/// is the old one until the other place has the new one.
#[test]
fn issue19_2_a_cut_anywhere_leaves_a_loader_at_both_places() {
    let lab = Lab::new();
    let (old, new) = (systemd_boot("255.4", Arch::Arm64), systemd_boot("257.9", Arch::Arm64));
    let medium = Memory::new(std::fs::read(lab.fixture("fat16.img.zst")).unwrap());
    let mut editor = Editor::open(&medium).unwrap();
    let stamp = Stamp(1_771_000_000);
    for path in [REMOVABLE, INSTALLED] {
        let (directory, name) = path.rsplit_once('/').unwrap();
        editor.make_directories(directory, stamp).unwrap();
        if editor.volume().find(path).unwrap().is_none() {
            editor.make_file(directory, name, &old, stamp).unwrap();
        }
    }
    editor.write_fsinfo().unwrap();
    let volume = medium.into_bytes();
    let esp = Inventory::read(volume.clone(), Variables::default()).unwrap();
    let old = |path: &str| Volume::open(&volume).unwrap().read_small(path, 1 << 24).unwrap().unwrap();
    let found = loader_places(&esp, Arch::Arm64).unwrap();
    let paths: Vec<String> = found.places.iter().map(|place| place.path()).collect();
    // Without variables the removable-media path is what starts: it comes last.
    assert_eq!(paths, [INSTALLED, REMOVABLE]);
    let recording = crash::record(&Frame::new(&volume, 512), |medium| {
        for place in &found.places {
            let step = LoaderStep::replace(&esp, place, None, None, 1_771_000_000)?;
            let mut staging = Staging::begin(open_healthy(medium)?, new.len() as u64)?;
            staging.chunk(&new)?;
            staging.seal(Sha256::digest(&new).into())?.commit(step.order().unwrap()).map(drop)?;
        }
        Ok(())
    });
    let (mut frame, events) = recording.unwrap().rewind();
    let mut seen = Vec::new();
    for event in &events {
        crash::redo(&mut frame, std::slice::from_ref(event));
        let medium = Memory::new(frame.to_bytes());
        for recovered in [false, true] {
            if recovered {
                if let Some(found) = interrupted(&Volume::open(&medium).unwrap()).unwrap() {
                    assert!(found.to_string().starts_with("loader of EFI/"), "{found}");
                }
                recover(&medium).unwrap();
                open_healthy(&medium).unwrap();
            }
            let now = Volume::open(&medium).unwrap();
            let is_new = |path: &str| {
                let bytes = now.read_small(path, 1 << 24).unwrap().unwrap();
                assert!(bytes == new || bytes == old(path), "{path} is neither");
                bytes == new
            };
            let state = (is_new(INSTALLED), is_new(REMOVABLE));
            assert_ne!(state, (false, true), "what starts was first");
            if !seen.contains(&state) {
                seen.push(state);
            }
        }
    }
    assert_eq!(seen, [(false, false), (true, false), (true, true)]);
}
