//! What boot options and entries lead to: paths as they are written, images that are cut off, command lines that are
//! handed over.

use super::place::{OLD, file, names, with_entry};
use super::variables::text;
use super::way::status;
use crate::board::{Board, ESP_A, boot_option, uki};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::Builder;
use serde_json::Value;

/// What a careless copy leaves of an image.
fn broken(image: &[u8]) -> [Vec<u8>; 4] {
    let no_kernel = Builder::new(Arch::Arm64).section(".text", vec![0xC3; 512]).section(".osrel", "ID=x\n").build();
    [image[..image.len() / 2].to_vec(), vec![0; 4096], Vec::new(), no_kernel]
}

/// The way back lies beside an image that is cut off: `restore` finds it, and `status` recommends it.
#[test]
fn issue13_a4_a_cut_off_image_in_its_own_place_does_not_hide_its_backup() {
    for how in ["removable", "option", "option, and a loader behind it", "entry"] {
        for m in 0..4 {
            let (board, disk, path) = match how {
                "entry" => {
                    let (board, disk) = with_entry("");
                    (board, disk, "EFI/k/a.efi")
                }
                "removable" => {
                    let board = Board::new();
                    let disk = board.disk("card.img", ESP_A);
                    (board, disk, "EFI/BOOT/BOOTAA64.EFI")
                }
                _ => {
                    let board = Board::new();
                    let disk = board.disk("card.img", ESP_A);
                    board.directory(&disk, "EFI/x");
                    board.global("BootOrder", 7, &[1, 0]);
                    board.global("Boot0001", 7, &boot_option("it", ESP_A, "\\EFI\\x\\uki.efi"));
                    if how == "option" {
                        board.remove_from(&disk, "EFI/BOOT", "BOOTAA64.EFI");
                    }
                    (board, disk, "EFI/x/uki.efi")
                }
            };
            let (directory, name) = path.rsplit_once('/').unwrap();
            let old = uki(&board.lab, OLD);
            board.replace(&disk, directory, name, &broken(&old)[m]);
            // By itself it tells nothing of an image.
            let hint = format!("{how}, {m}");
            let ids = |report: &Value| report["findings"].to_string();
            assert!(!ids(&status(&board, &disk)).contains("`bootsurgeon restore"), "{hint}");
            board.replace(&disk, directory, &format!("{name}.bak.1700000000"), &old);
            let report = status(&board, &disk);
            assert_ne!(report["boot"]["selected"], path, "{hint}: {report}");
            assert!(report["elsewhere"].to_string().contains(".bak.1700000000"), "{hint}: {report}");
            let action = board.action(&report, "selected-broken");
            assert!(action.contains("`bootsurgeon restore"), "{hint}: {action}");
            assert!(!ids(&report).contains("systemd-boot here starts a.conf"), "{hint}: {report}");
            let dry = board.json(&["restore", &disk, "--efivars", "vars", "--dry-run", "--json", "--allow-untrusted"]);
            assert_eq!((&dry["plan"]["target"], &dry["plan"]["boot_before"]), (&path.into(), &Value::Null), "{hint}");
            board.run_recommended(&action);
            assert!(file(&board, &disk, path).unwrap() == old, "{hint}");
            let report = status(&board, &disk);
            assert_eq!(
                (&report["boot"]["selected"], &report["esp"]["healthy"]),
                (&path.into(), &true.into()),
                "{hint}"
            );
            // What was broken lies beside it, and goes when that is asked for.
            let aside = |board: &Board| names(board, &disk, directory).iter().any(|n| n.contains(".disabled."));
            assert!(aside(&board), "{hint}");
            let prune = board.json(&["prune", &disk, "--efivars", "vars", "--delete", "--yes", "--json"]);
            assert!(!aside(&board), "{hint}: {prune}");
        }
    }
}

/// EDK II and U-Boot go on to the next option when what one leads to cannot be loaded.
#[test]
fn issue13_a4_an_option_that_leads_to_no_program_is_passed_over() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.directory(&disk, "EFI/x");
    board.replace(&disk, "EFI/x", "uki.efi", b"no program");
    board.global("BootOrder", 7, &[1, 0]);
    board.global("Boot0001", 7, &boot_option("it", ESP_A, "\\EFI\\x\\uki.efi"));
    let report = status(&board, &disk);
    assert_eq!(report["boot"]["selected"], "Talos-v1.12.4.efi", "{report}");
    assert!(report["way_notes"].to_string().contains("EFI/x/uki.efi on partition 1 is no EFI program"), "{report}");
}

/// Short names, dots, separators and case: a path leads where firmware follows it to, in boot options and in entries,
/// and what is there is replaced under its own name.
#[test]
fn issue13_a1_a_path_is_followed_as_firmware_follows_it() {
    let long = "EFI/some directory/an image with a long name.efi";
    for path in [
        "\\EFI\\some directory\\ANIMAG~1.EFI",
        "\\EFI\\SOMEDI~1\\an image with a long name.efi",
        "\\EFI\\some directory\\..\\BOOT\\.\\..\\some directory\\an image with a long name.efi",
        "\\.\\EFI\\\\some directory\\\\\\AN IMAGE with a long NAME.EFI",
        "EFI/some directory/an image with a long name.efi",
    ] {
        for by_entry in [false, true] {
            let board = Board::new();
            let disk = board.disk("card.img", ESP_A);
            let (directory, name) = long.rsplit_once('/').unwrap();
            board.directory(&disk, directory);
            board.replace(&disk, directory, name, &uki(&board.lab, OLD));
            if by_entry {
                board.directory(&disk, "loader/entries");
                let entry = format!("title x\nefi {path}\nversion 9\nsort-key a\n");
                board.replace(&disk, "loader/entries", "a.conf", entry.as_bytes());
            } else {
                board.global("BootOrder", 7, &[1, 0]);
                board.global("Boot0001", 7, &boot_option("it", ESP_A, path));
            }
            let report = status(&board, &disk);
            assert!(report["boot"]["selected"].as_str().is_some_and(|s| s.to_uppercase().contains(".EFI")), "{path}");
            assert!(!report["boot"]["selected"].as_str().unwrap().contains("Talos"), "{path}: {report}");
            assert_ne!(report["way"][0]["certainty"], "unknown", "{path}: {report}");
            let new = board.lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
            let swap = ["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted", "--json"];
            for target in ["EFI/some directory/ANIMAG~1.EFI", "efi/somedi~1/AN image with a long name.efi", long] {
                let dry = board.json(&[&swap[..], &["--dry-run", "--target", target]].concat());
                assert!(dry["plan"]["target"].as_str().unwrap().ends_with(name), "{path}, {target}: {dry}");
            }
            let done = board.json(&[&swap[..], &["--yes"]].concat());
            assert_eq!(done["committed"], true, "{path}, by an entry: {by_entry}: {done}");
            assert!(file(&board, &disk, long).unwrap() == uki(&board.lab, "talos-v1.12.4-arm64-uki"), "{path}");
            assert!(names(&board, &disk, directory).iter().any(|n| n.starts_with(&format!("{name}.bak."))), "{path}");
        }
    }
    // There is nothing above the root.
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.global("BootOrder", 7, &[1, 0]);
    board.global("Boot0001", 7, &boot_option("it", ESP_A, "\\..\\EFI\\Linux\\Talos-v1.12.4~1.efi"));
    assert_eq!(status(&board, &disk)["boot"]["selected"], "Talos-v1.12.4.efi");
}

fn with_data(path: &str, data: &str) -> Vec<u8> {
    [boot_option("it", ESP_A, path), text(data)].concat()
}

/// A boot option or an entry hands a command line over, and systemd's stub takes it in place of the image's own unless
/// Secure Boot is on: a start that wipes or halts is none that is good.
#[test]
fn issue13_a2_a_command_line_that_is_handed_over_is_judged_as_the_stub_takes_it() {
    let kernel = |report: &Value| {
        let step = report["way"].as_array().unwrap().iter().find(|step| step["step"] == "kernel").cloned();
        step.unwrap_or_else(|| panic!("no kernel in {report}"))
    };
    for by_entry in [false, true] {
        for (data, finding) in [
            ("talos.experimental.wipe=system", "wipes-at-start"),
            ("talos.platform=metal talos.halt_if_installed=1", "halts-if-installed"),
            ("talos.platform=metal quiet", ""),
            ("@1", "profile-starts"),
        ] {
            for secure_boot in [None, Some(0), Some(1)] {
                let (board, disk) = if by_entry {
                    with_entry(&format!("options {data}\n"))
                } else {
                    let board = Board::new();
                    let disk = board.disk("card.img", ESP_A);
                    board.directory(&disk, "EFI/k");
                    board.replace(&disk, "EFI/k", "a.efi", &uki(&board.lab, OLD));
                    board.global("BootOrder", 7, &[1, 0]);
                    board.global("Boot0001", 7, &with_data("\\EFI\\k\\a.efi", data));
                    (board, disk)
                };
                if let Some(value) = secure_boot {
                    board.flag("SecureBoot", value);
                }
                let hint = format!("{data:?}, by an entry: {by_entry}, Secure Boot: {secure_boot:?}");
                if data.starts_with('@') && by_entry {
                    continue;
                }
                let report = status(&board, &disk);
                let ids: Vec<&str> =
                    report["findings"].as_array().unwrap().iter().filter_map(|f| f["id"].as_str()).collect();
                let bad = ["wipes-at-start", "halts-if-installed", "profile-starts"];
                let found: Vec<&str> = bad.into_iter().filter(|id| ids.contains(id)).collect();
                let ignored = secure_boot == Some(1) && !data.starts_with('@');
                let expected: Vec<&str> = [finding].into_iter().filter(|id| !id.is_empty() && !ignored).collect();
                assert_eq!(found, expected, "{hint}: {report}");
                let kernel = kernel(&report);
                if !data.starts_with('@') {
                    assert_eq!(kernel["what"] == data, !ignored, "{hint}: {kernel}");
                }
                if secure_boot == Some(1) {
                    continue;
                }
                let new = board.lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
                for how in ["--dry-run", "--yes"] {
                    let swap = ["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted", how];
                    let out = board.run(&[&swap[..], &["--json"]].concat());
                    let said = String::from_utf8_lossy(&out.stdout).into_owned();
                    let refused = matches!(finding, "wipes-at-start" | "profile-starts");
                    assert_eq!(out.status.code(), Some(if refused { 4 } else { 0 }), "{hint}: {said}");
                    assert!(refused || said.contains(" passes "), "{hint}: {said}");
                }
            }
        }
    }
}

/// BootNext counts for one start: what comes after it is said, and that it leads nowhere, where it does.
#[test]
fn issue13_a3_bootnext_counts_once_and_what_starts_after_it_is_said() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.global("BootOrder", 7, &[1, 0]);
    board.global("Boot0001", 7, &boot_option("menu", ESP_A, "\\EFI\\BOOT\\BOOTAA64.EFI"));
    board.global("Boot0002", 7, &boot_option("once", ESP_A, "\\EFI\\Linux\\Talos-v1.12.4~1.efi"));
    board.global("BootNext", 7, &[2, 0]);
    let report = status(&board, &disk);
    assert_eq!(report["boot"]["selected"], "Talos-v1.12.4~1.efi");
    let notes = report["way_notes"].to_string();
    let once = "BootNext (Boot0002) applies to one start; at the starts after the next one: ";
    assert!(notes.contains(once), "{notes}");
    // Where a counter makes the third start another one.
    board.remove(&disk, "Talos-v1.12.4.efi");
    board.remove(&disk, "Talos-v1.12.4~1.efi");
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.3.efi", &uki(&board.lab, OLD));
    board.global("Boot0002", 7, &boot_option("once", ESP_A, "\\EFI\\Linux\\Talos-v1.12.3.efi"));
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.4+1.efi", &uki(&board.lab, "talos-v1.12.4-arm64-uki"));
    let notes = status(&board, &disk)["way_notes"].to_string();
    let then = "at the start after the next one: EFI/Linux/Talos-v1.12.4+1.efi on partition 1, and at the third one: \
        talos-v1.12.3.efi";
    assert!(notes.contains(then), "{notes}");
    // It leads nowhere, and what starts instead is known.
    board.global("Boot0002", 7, &boot_option("once", ESP_A, "\\EFI\\gone.efi"));
    let report = status(&board, &disk);
    assert!(report["way_notes"].to_string().contains("BootNext, which counts for one start, is Boot0002"), "{report}");
    assert!(report["way"][0]["why"].as_str().unwrap().contains("BootNext leads to none"), "{report}");
    assert_eq!(report["way"][0]["certainty"], "known");
}

/// Only what is an earlier content of the image is listed beside it.
#[test]
fn issue13_a5_what_others_keep_beside_an_image_is_not_listed() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &uki(&board.lab, OLD));
    board.replace(&disk, "EFI/BOOT", "BOOTX64.EFI.bak.20240102", b"a loader");
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI.bak.1700000000", &uki(&board.lab, OLD));
    let report = status(&board, &disk);
    let listed: Vec<&str> = report["elsewhere"].as_array().unwrap().iter().filter_map(|f| f["name"].as_str()).collect();
    assert_eq!(listed, ["EFI/BOOT/BOOTAA64.EFI", "EFI/BOOT/BOOTAA64.EFI.bak.1700000000"], "{report}");
}
