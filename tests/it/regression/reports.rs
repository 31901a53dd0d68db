//! Reports from the field that concern several parts at once: what is recommended is run, and helps.

use super::way::status;
use crate::board::{Board, ESP_A, systemd_boot, uki};
use crate::cli::{patch, put, truncate};
use crate::support::{Lab, run_ok, sha256, tools};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::{Builder, cpio};
use serde_json::{Value, json};

const SOUND: &str = "talos-v1.12.3-arm64-installer";
const NEW: &str = "talos-v1.12.4-arm64-installer";

/// Systems of one version, told apart by their size.
fn image(version: &str, kib: usize) -> Vec<u8> {
    let release = format!("NAME=\"Talos\"\nID=talos\nVERSION_ID={version}\nPRETTY_NAME=\"Talos ({version})\"\n");
    Builder::new(Arch::Arm64)
        .section(".osrel", release)
        .section(".cmdline", "talos.platform=metal")
        .section(".initrd", cpio(&[("init", b"#!/bin/sh\n")]).unwrap())
        .section(".linux", vec![9; kib * 1024])
        .build()
}

pub(super) fn findings(report: &Value, id: &str) -> Vec<Value> {
    report["findings"].as_array().unwrap().iter().filter(|f| f["id"] == id).cloned().collect()
}

/// siderolabs/talos#14146: the image that starts is half copied, there is no backup, and a sound image is on the ESP.
#[test]
fn rtalos_14146_half_copied_image_names_the_sound_one() {
    let board = Board::new();
    // Its beginning is there, and systemd-boot lists it.
    let whole = image("v1.13.0", 64);
    for (dead, length) in [
        ("Talos-v1.13.0.efi", whole.len() / 2),
        ("Talos-v1.13.0.efi", whole.len() - 1),
        ("Talos-v1.12.4.efi", whole.len() / 2),
    ] {
        let disk = board.disk("nvme0n1", ESP_A);
        board.remove(&disk, "Talos-v1.12.4~1.efi");
        board.remove(&disk, "Talos-v1.12.4.efi");
        board.replace(&disk, "EFI/Linux", "Talos-v1.12.3.efi", &uki(&board.lab, SOUND));
        board.replace(&disk, "EFI/Linux", dead, &whole[..length]);
        // Of two sound ones the higher in the menu is named.
        board.replace(&disk, "EFI/Linux", "Talos-v1.11.0.efi", &image("v1.11.0", 8));
        let report = status(&board, &disk);
        assert_eq!(report["boot"]["selected"], dead, "{report:#}");
        let action = board.action(&report, "selected-broken");
        let command = format!("`bootsurgeon swap {disk} {disk} --uki Talos-v1.12.3.efi --efivars vars`");
        assert!(action.starts_with(&command) && !action.contains("restore"), "{action}");
        let doctor = board.json(&["doctor", &disk, "--efivars", "vars", "--json"]);
        assert_eq!(board.action(&doctor, "selected-broken"), action);
        // Who asks for a backup all the same is told.
        let ran = board.run(&["restore", &disk, "--efivars", "vars", "--yes"]);
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.code() == Some(2) && said.contains(&command), "{said}");
        board.run_recommended(&action);
        let report = status(&board, &disk);
        assert!(findings(&report, "selected-broken").is_empty(), "{report:#}");
        let selected = &report["boot"]["selected"];
        let file = report["files"].as_array().unwrap().iter().find(|f| f["name"] == *selected).unwrap().clone();
        assert_eq!((&file["kind"], &file["version"]), (&"uki".into(), &"v1.12.3".into()), "{report:#}");
    }
}

/// The same, where the only sound image was taken out of the menu.
#[test]
fn rtalos_14146_an_image_outside_of_the_menu_is_named_as_well() {
    let board = Board::new();
    let whole = image("v1.13.0", 64);
    let half = &whole[..whole.len() / 2];
    let disk = board.disk("nvme0n1", ESP_A);
    let sound = uki(&board.lab, SOUND);
    board.remove(&disk, "Talos-v1.12.4~1.efi");
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.3.efi.disabled.1700000000", &sound);
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.4.efi", half);
    let action = board.action(&status(&board, &disk), "selected-broken");
    assert!(action.contains(" Talos-v1.12.3.efi.disabled.1700000000 "), "{action}");
    board.run_recommended(&action);
    let report = status(&board, &disk);
    assert!(findings(&report, "selected-broken").is_empty(), "{report:#}");
}

/// siderolabs/talos#14002: several swaps in one second, with a pin that names another file than the menu: each backup has
/// a name of its own, in their order, and a restore takes what ran.
#[test]
fn rtalos_14002_backups_of_one_second_are_in_order() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    board.text("LoaderEntryDefault", 7, "Talos-v1.12.4~1.efi");
    assert_eq!(status(&board, &disk)["boot"]["selected"], "Talos-v1.12.4~1.efi");
    let images: Vec<_> = (0..4).map(|n| image("v1.12.4", 16 + n)).collect();
    for (n, bytes) in images.iter().enumerate() {
        let path = board.lab.path(&format!("{n}.efi"));
        std::fs::write(&path, bytes).unwrap();
        let swap = [
            "swap",
            &disk,
            path.to_str().unwrap(),
            "--efivars",
            "vars",
            "--allow-untrusted",
            "--allow-extension-loss",
            "--yes",
            "--json",
        ];
        assert_eq!(board.json(&swap)["plan"]["target"], "Talos-v1.12.4~1.efi");
    }
    let list = board.json(&["restore", &disk, "--list", "--efivars", "vars", "--json"]);
    let backups: Vec<_> = list["backups"].as_array().unwrap().iter().filter(|b| b["disabled"] == false).collect();
    let bytes: Vec<_> = backups.iter().map(|b| b["bytes"].as_u64().unwrap()).collect();
    let newest_first: Vec<_> = images[..3].iter().rev().map(|i| i.len() as u64).collect();
    assert_eq!(bytes[..3], newest_first, "{list:#}");
    let mut names: Vec<_> = backups.iter().map(|b| b["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), backups.len(), "{list:#}");
    let back = ["restore", &disk, "--efivars", "vars", "--allow-untrusted", "--yes", "--json"];
    assert_eq!(board.json(&back)["sha256"], sha256(&board.lab.path("2.efi")));
}

/// siderolabs/talos#9245: an image that is not signed, on a node with Secure Boot on: no certificate helps, and nothing
/// that is recommended makes it worse.
#[test]
fn rtalos_9245_a_plain_image_on_a_secure_boot_node_and_back() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    board.variables_of(&crate::support::fixtures().join("efivars/secureboot-on"));
    let plain = board.lab.fixture("talos-v1.12.4-arm64-unsigned.efi.zst");
    let signed = board.lab.fixture("talos-v1.12.4-arm64-installer.efi.zst");
    let run = |image: &std::path::Path, more: &[&str]| {
        let swap = ["swap", &disk, image.to_str().unwrap(), "--efivars", "vars"];
        board.run(&[&swap[..], more].concat())
    };
    let before = status(&board, &disk)["files"].clone();
    for how in ["--dry-run", "--yes"] {
        for more in [&[][..], &["--allow-untrusted"]] {
            let ran = run(&plain, &[&[how], more].concat());
            let said = String::from_utf8(ran.stderr).unwrap();
            assert!(matches!(ran.status.code(), Some(3 | 4)), "{more:?}: {said}");
            let why = if more.is_empty() { "not signed" } else { "Secure Boot is on" };
            assert!(said.contains(why) && said.contains("what to do: take an image"), "{more:?}: {said}");
            assert!(!said.contains("--cert"), "{more:?}: {said}");
        }
    }
    let verify = ["verify", plain.to_str().unwrap(), "--efivars", "vars"];
    let said = board.run(&verify);
    assert!(!String::from_utf8_lossy(&said.stdout).contains("--cert"), "{said:?}");
    // What was staged before it was refused lies in free clusters.
    assert_eq!(status(&board, &disk)["files"], before);
    // With Secure Boot off it goes there, and the signed one back.
    board.global("SecureBoot", 6, &[0]);
    for (image, more) in [(&plain, &["--yes", "--allow-untrusted"][..]), (&signed, &["--yes"])] {
        let ran = run(image, more);
        assert!(ran.status.success(), "{ran:?}");
        let selected = &status(&board, &disk)["boot"]["selected"];
        assert_eq!(selected, "Talos-v1.12.4.efi");
    }
}

/// siderolabs/extensions#676: the service of an extension waits for a document of the machine's configuration.
#[test]
fn rextensions_676_a_service_that_waits_comes_with_the_document_to_write() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    let new = board.lab.fixture("talos-v1.12.4-arm64-installer.efi.zst");
    let new = new.to_str().unwrap();
    let document = "apiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: tailscale\nenvironment:";
    let in_text = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        assert!(lines.join("\n").contains(document), "{text}");
    };
    in_text(&board.run(&["verify", new, "--efivars", "vars"]).stdout);
    in_text(&board.run(&["inspect", new]).stdout);
    let verify = board.run(&["verify", new, "--efivars", "vars", "--json"]);
    let verify: Value = serde_json::from_slice(&verify.stdout).unwrap();
    assert_eq!(verify["image"]["waiting_services"], json!(["tailscale"]), "{verify:#}");
    assert!(verify["image"]["service_configs"][0].as_str().unwrap().starts_with(document), "{verify:#}");
    let swap = ["swap", &disk, new, "--efivars", "vars", "--allow-untrusted", "--yes"];
    in_text(&board.run(&swap).stdout);
    board.run(&["restore", &disk, "--efivars", "vars", "--allow-untrusted", "--yes"]);
    let report = board.json(&[&swap[..], &["--json"]].concat());
    let step = &report["next"][0];
    assert!(step["document"].as_str().unwrap().starts_with(document), "{report:#}");
    assert!(step["why"].as_str().unwrap().contains("ext-tailscale waits"), "{report:#}");
    // Until it ran, `status` says so, and the command that it names shows the document.
    let report = status(&board, &disk);
    let [finding] = &findings(&report, "waiting-services")[..] else { panic!("{report:#}") };
    assert!(finding["what"].as_str().unwrap().contains("ext-tailscale of Talos-v1.12.4.efi waits"), "{finding:#}");
    let command = finding["action"].as_str().unwrap().split('`').nth(1).unwrap();
    in_text(&board.run(&command.split(' ').skip(1).collect::<Vec<_>>()).stdout);
    board.text("LoaderEntrySelected", 6, "talos-v1.12.4.efi");
    assert!(findings(&status(&board, &disk), "waiting-services").is_empty());
}

/// An upgrade left the very bytes under another name, and that name wins: there is nothing to do, and the file that
/// holds them is named.
#[test]
fn issue17_what_is_in_place_under_another_name_is_named() {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    let bytes = uki(&board.lab, NEW);
    board.remove(&disk, "Talos-v1.12.4.efi");
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.4~1.efi", &bytes);
    board.replace(&disk, "EFI/Linux", "Talos-v1.12.3.efi", &uki(&board.lab, SOUND));
    let new = board.lab.fixture("talos-v1.12.4-arm64-installer.efi.zst");
    let swap = ["swap", &disk, new.to_str().unwrap(), "--efivars", "vars", "--allow-untrusted"];
    let before = sha256(&board.lab.path(&disk));
    for how in ["--dry-run", "--yes"] {
        let said = String::from_utf8(board.run(&[&swap[..], &[how]].concat()).stdout).unwrap();
        assert!(said.starts_with("Nothing to do: Talos-v1.12.4~1.efi already holds these very bytes"), "{said}");
        let report = board.json(&[&swap[..], &[how, "--json"]].concat());
        assert_eq!(
            (&report["already_in_place"], &report["plan"]["target"]),
            (&true.into(), &"Talos-v1.12.4~1.efi".into())
        );
    }
    assert_eq!(sha256(&board.lab.path(&disk)), before);
}

/// systemd/systemd#39886: the only entry is a Type #1 one with a key that this systemd-boot does not know.
#[test]
fn rsystemd_39886_a_key_that_makes_no_entry_is_why_nothing_starts() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    for file in ["Talos-v1.12.4.efi", "Talos-v1.12.4~1.efi"] {
        board.remove(&disk, file);
    }
    board.directory(&disk, "EFI/images");
    board.directory(&disk, "loader/entries");
    board.replace(&disk, "EFI/images", "a.efi", &uki(&board.lab, SOUND));
    board.replace(&disk, "loader/entries", "only.conf", b"title x\nuki /EFI/images/a.efi\nversion 1\n");
    let report = board.json(&["status", &disk, "--json"]);
    assert_eq!(report["boot"]["selected"], Value::Null, "{report:#}");
    assert!(report["warnings"].to_string().contains("does not know its key `uki`"), "{report:#}");
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &systemd_boot("258", Arch::Arm64));
    let report = board.json(&["status", &disk, "--json"]);
    assert_eq!(report["boot"]["selected"], "EFI/images/a.efi", "{report:#}");
    assert!(!report["warnings"].to_string().contains("does not know"), "{report:#}");
}

/// NixOS/nixpkgs#86422: line ends of Windows, quotes, and a byte order mark in loader.conf.
#[test]
fn rnixpkgs_86422_line_ends_quotes_and_a_byte_order_mark() {
    let board = Board::new();
    let disk = board.disk("card.img", ESP_A);
    for (text, selected, words) in [
        ("timeout 3\r\ndefault talos-v1.12.4~1.efi\r\n", "Talos-v1.12.4~1.efi", ""),
        ("default \"talos-v1.12.4~1.efi\"\n", "Talos-v1.12.4~1.efi", ""),
        ("default 'talos-v1.12.4~1.efi'\n", "Talos-v1.12.4~1.efi", ""),
        ("default talos-v1.12.4~1\r\n", "Talos-v1.12.4.efi", "systemd-boot wants the suffix"),
        ("\u{feff}default talos-v1.12.4~1.efi\n", "Talos-v1.12.4.efi", "byte order mark"),
    ] {
        board.replace(&disk, "loader", "loader.conf", text.as_bytes());
        let report = board.json(&["status", &disk, "--json"]);
        assert_eq!(report["boot"]["selected"], selected, "{text:?}: {report:#}");
        let said = format!("{}{}", report["boot"]["reason"], report["warnings"]);
        assert!(said.contains(words) && !said.contains("gone"), "{text:?}: {said}");
    }
}

/// Drive-Trust-Alliance/sedutil#401: the file system is longer than the partition that it lies in.
#[test]
fn rsedutil_401_a_fat_longer_than_its_partition_is_read_and_not_written() {
    if !tools(&["mkfs.vfat", "mmd", "mcopy", "sgdisk"]) {
        return;
    }
    let lab = Lab::new();
    let (disk, volume) = (lab.path("disk.img"), lab.path("volume.img"));
    let [disk_name, volume_name] = [&disk, &volume].map(|path| path.display().to_string());
    run_ok("mkfs.vfat", &["-C", "-F", "32", "-s", "1", &volume_name, "40960"]);
    for folder in ["::/EFI", "::/EFI/Linux"] {
        run_ok("mmd", &["-i", &volume_name, folder]);
    }
    put(&volume, 0, "EFI/Linux/Talos-v1.12.4.efi", &uki(&lab, NEW));
    std::fs::write(&disk, []).unwrap();
    truncate(&disk, 40 << 20);
    run_ok("sgdisk", &["-n", "1:2048:+32M", "-t", "1:ef00", &disk_name]);
    patch(&disk, 1 << 20, &std::fs::read(&volume).unwrap()[..32 << 20]);
    let report = bootsurgeon!("status", disk, "--json").code(0).json();
    assert!(report["esp"]["problems"].to_string().contains("ends 8.0 MiB earlier"), "{report:#}");
    let out = lab.path("saved.efi");
    bootsurgeon!("extract", disk, "--uki", "Talos-v1.12.4.efi", "--out", out).code(0);
    assert!(std::fs::read(&out).unwrap() == uki(&lab, NEW));
    let hash = sha256(&disk);
    for how in ["--dry-run", "--yes"] {
        bootsurgeon!("swap", disk, out, how).fails(4, &["ends 8.0 MiB earlier"]);
        bootsurgeon!("recover", disk, how).fails(4, &["ends 8.0 MiB earlier"]);
    }
    assert_eq!(sha256(&disk), hash);
}
