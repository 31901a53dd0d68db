//! The Extended Boot Loader Partition beside the ESP.

use super::disks::{INSTALLER, PLAIN, SECOND};
use crate::board::systemd_boot;
use crate::cli::{ESP, bytes_at, esp_bytes, patch, put, uki};
use crate::support::{Lab, run, run_ok, sha256, tools};
use crate::table::Gpt;
use bootsurgeon::fat::Volume;
use bootsurgeon::pe::Arch;

#[test]
fn issue14_6_xbootldr_is_a_volume_of_its_own() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-two-esps.img.zst");
    Gpt::edit(&disk, |table| table.kind(7, "bc13c2ff-59e6-4262-a352-b275fd6f7172"));
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert_eq!(status["disk"]["partition"]["number"], 1, "an ESP is not chosen by hand when there is only one");
    let menu = status["boot"]["menu"].to_string();
    assert!(menu.contains("talos-v1.12.4.efi") && menu.contains("talos-v1.12.3.efi"), "{menu}");
    let status = bootsurgeon!("status", disk, "--partition", "7", "--json").code(0).json();
    assert_eq!(status["files"][0]["version"], "v1.12.3", "{status:#}");
    let ukis = bootsurgeon!("inspect", disk, "--json").code(0).json()["ukis"].clone();
    assert_eq!(ukis.as_array().map(Vec::len), Some(2), "{ukis:#}");
    // Its images are in the menu of the ESP's systemd-boot, and what that starts is told from there: here, one of the
    // ESP.
    put(&disk, ESP, "EFI/BOOT/BOOTAA64.EFI", &systemd_boot("257.9", Arch::Arm64));
    let hash = sha256(&disk);
    let words = ["the board does not start what is on partition 7", "--partition"];
    for how in ["--dry-run", "--yes"] {
        bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--partition", "7", how).fails(4, &words);
        bootsurgeon!("restore", disk, "--partition", "7", how).fails(4, &words);
        bootsurgeon!("prune", disk, "--partition", "7", how).fails(4, &words);
    }
    assert_eq!(sha256(&disk), hash);
}

/// A disk with systemd-boot on its ESP, and its second partition an Extended Boot Loader Partition with these images
/// besides the old one that is there.
pub(super) fn with_xbootldr(lab: &Lab, images: &[(&str, &str)]) -> std::path::PathBuf {
    let disk = lab.fixture("disk-two-esps.img.zst");
    Gpt::edit(&disk, |table| table.kind(7, "bc13c2ff-59e6-4262-a352-b275fd6f7172"));
    put(&disk, ESP, "EFI/BOOT/BOOTAA64.EFI", &systemd_boot("257.9", Arch::Arm64));
    for (name, image) in images {
        put(&disk, SECOND, &format!("EFI/Linux/{name}"), &std::fs::read(uki(lab, image)).unwrap());
    }
    disk
}

/// systemd/mkosi#2738: systemd-boot's menu has the images of both partitions, and the winner lies on the other one: it
/// is what a swap replaces, by the disk and by that partition.
#[test]
fn rmkosi_2738_the_newest_image_on_the_xbootldr_partition_is_what_swap_replaces() {
    let lab = Lab::new();
    // Of one version, the higher name is first in the menu.
    let disk = with_xbootldr(&lab, &[("zalos.efi", INSTALLER)]);
    let before = std::fs::read(&disk).unwrap();
    for partition in [&[][..], &["--partition", "7"]] {
        std::fs::write(&disk, &before).unwrap();
        let run = |words: &[&str]| {
            let words = words.iter().chain(partition).map(std::ffi::OsString::from);
            crate::cli::run(&words.collect::<Vec<_>>())
        };
        let at = disk.to_str().unwrap();
        let new = uki(&lab, PLAIN);
        let swap = ["swap", at, new.to_str().unwrap(), "--allow-untrusted", "--allow-extension-loss", "--json"];
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        assert_eq!(status["boot"]["selected"], "EFI/Linux/zalos.efi on partition 7", "{status:#}");
        assert!(status["elsewhere"][0]["name"] == "EFI/Linux/zalos.efi on partition 7", "{status:#}");

        let esp = esp_bytes(&disk);
        let dry = run(&[&swap[..], &["--dry-run"]].concat()).code(0).json();
        assert!(std::fs::read(&disk).unwrap() == before);
        let report = run(&[&swap[..], &["--yes"]].concat()).code(0).json();
        for plan in [&dry["plan"], &report["plan"]] {
            assert_eq!((&plan["target"], &plan["partition"]), (&"EFI/Linux/zalos.efi".into(), &"partition 7".into()));
        }
        assert!(esp_bytes(&disk) == esp, "the ESP was written");
        let backup = report["plan"]["backup"].as_str().unwrap().to_owned();
        let file =
            |path: &str| Volume::open(&bytes_at(&disk, SECOND, 32 << 20)).unwrap().read_small(path, 1 << 24).unwrap();
        assert!(file("EFI/Linux/zalos.efi").unwrap() == std::fs::read(&new).unwrap());
        assert!(file(&backup).unwrap() == std::fs::read(uki(&lab, INSTALLER)).unwrap());
        crate::support::fsck_clean(&disk, ESP);
        crate::support::fsck_clean(&disk, SECOND);
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        assert_eq!(status["boot"]["selected"], "EFI/Linux/zalos.efi on partition 7", "{status:#}");

        let list = run(&["restore", at, "--list", "--json"]).code(0).json();
        assert_eq!(list["backups"][0]["name"], *backup, "{list:#}");
        let restore = run(&["restore", at, "--allow-untrusted", "--yes", "--json"]).code(0).json();
        assert_eq!(restore["restored"], *backup, "{restore:#}");
        assert!(file("EFI/Linux/zalos.efi").unwrap() == std::fs::read(uki(&lab, INSTALLER)).unwrap());
        let prune = run(&["prune", at, "--keep-backups", "0", "--yes", "--json"]).code(0).json();
        assert!(prune["plan"]["delete"].to_string().contains("zalos.efi.bak."), "{prune:#}");
        assert!(file("EFI/Linux/zalos.efi").unwrap() == std::fs::read(uki(&lab, INSTALLER)).unwrap());
        let volume = Volume::open(&bytes_at(&disk, SECOND, 32 << 20)).unwrap().list("EFI/Linux").unwrap().unwrap();
        assert!(!volume.iter().any(|e| e.name.contains(".bak.")));
        crate::support::fsck_clean(&disk, SECOND);
    }
}

/// An operation that was cut on one of the two partitions stops every change on both, and `recover` of the disk ends
/// it.
#[test]
fn issue13_4_an_operation_that_was_cut_on_the_xbootldr_partition_stops_a_swap_on_the_esp() {
    let lab = Lab::new();
    let record = br#"{"bootsurgeon": 1, "operation": {"command": "prune", "time": 1, "install": null, "tidy": []}}"#;
    for cut in [ESP, SECOND] {
        for images in [&[][..], &[("zalos.efi", INSTALLER)]] {
            let disk = with_xbootldr(&lab, images);
            put(&disk, cut, "BOOTSURG.TXN", record);
            let hash = sha256(&disk);
            for how in ["--dry-run", "--yes"] {
                bootsurgeon!("swap", disk, uki(&lab, PLAIN), "--allow-untrusted", how).fails(5, &["recover"]);
                bootsurgeon!("prune", disk, "--keep-backups", "0", how).fails(5, &["recover"]);
            }
            assert_eq!(sha256(&disk), hash);
            let status = bootsurgeon!("status", disk, "--json").code(0).json();
            assert!(status["interrupted"].as_str().is_some_and(|w| w.contains("prune")), "{status:#}");
            assert!(status["findings"].to_string().contains("interrupted"), "{status:#}");
            let _ = bootsurgeon!("recover", disk, "--dry-run").code(0);
            assert_eq!(sha256(&disk), hash);
            let report = bootsurgeon!("recover", disk, "--yes", "--json").code(0).json();
            assert_eq!((&report["committed"], &report["finished"]), (&true.into(), &true.into()), "{report:#}");
            let status = bootsurgeon!("status", disk, "--json").code(0).json();
            assert_eq!(status["interrupted"], serde_json::Value::Null, "{status:#}");
            let image = uki(&lab, PLAIN);
            bootsurgeon!("swap", disk, image, "--allow-untrusted", "--allow-extension-loss", "--yes").code(0);
            crate::support::fsck_clean(&disk, ESP);
            crate::support::fsck_clean(&disk, SECOND);
        }
    }
}

/// nix-community/lanzaboote#173: what lies on the XBOOTLDR partition is in the menu; where it loses, a swap goes on.
#[test]
fn rlanzaboote_173_older_images_on_the_xbootldr_partition_are_in_the_menu_and_lose() {
    let lab = Lab::new();
    let disk = with_xbootldr(&lab, &[]);
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    let menu = status["boot"]["menu"].to_string();
    assert!(menu.contains("v1.12.3"), "{menu}");
    let report = bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes", "--json").code(0).json();
    assert_eq!(report["plan"]["boot_after"], report["plan"]["target"]);
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert_eq!(status["boot"]["selected"], report["plan"]["target"]);
    crate::support::fsck_clean(&disk, ESP);
    crate::support::fsck_clean(&disk, SECOND);
}

#[test]
fn issue13_an_xbootldr_partition_that_cannot_be_read_is_no_empty_one() {
    let lab = Lab::new();
    let disk = with_xbootldr(&lab, &[]);
    let sound = bytes_at(&disk, SECOND, 2 << 20);
    let zeros = vec![0; 2 << 20];
    let ext4 = || {
        let mut start = zeros.clone();
        start[1080..1082].copy_from_slice(&[0x53, 0xEF]);
        start
    };
    let with = |at: usize, bytes: &[u8]| {
        let mut start = sound.clone();
        start[at..at + bytes.len()].copy_from_slice(bytes);
        start
    };
    // The entry of EFI leads to a cluster that is none.
    let directory = {
        let place = sound.windows(12).position(|w| w == b"EFI        \x10").unwrap();
        with(place + 26, &[0xF0, 0xFF])
    };
    let words = ["Extended Boot Loader Partition", "partition 7"];
    // No reserved sectors: by its signature a FAT, and not to be read.
    for (start, why) in
        [(with(14, &[0, 0]), "cannot be read"), (ext4(), "an ext2, ext3 or ext4 file system"), (directory, "damaged")]
    {
        patch(&disk, SECOND, &start);
        let hash = sha256(&disk);
        for how in ["--dry-run", "--yes"] {
            bootsurgeon!("swap", disk, uki(&lab, INSTALLER), how).fails(4, &words).fails(4, &[why]);
            bootsurgeon!("prune", disk, how).fails(4, &words);
        }
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        assert!(status["findings"].to_string().contains("xbootldr-unknown"), "{why}: {status:#}");
        assert_eq!(sha256(&disk), hash);
    }
    // Without a file system it has no entries, whatever its type.
    patch(&disk, SECOND, &zeros);
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert!(!status["findings"].to_string().contains("xbootldr-unknown"), "{status:#}");
    bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes").code(0);
}

/// A full Extended Boot Loader Partition: what is recommended makes room there, and the swap goes on.
#[test]
fn issue13_4_what_is_recommended_for_room_on_the_xbootldr_partition_makes_it() {
    let lab = Lab::new();
    let image = std::fs::read(uki(&lab, PLAIN)).unwrap();
    let free = |disk: &std::path::Path| {
        let status = bootsurgeon!("status", disk, "--partition", "7", "--json").code(0).json();
        status["esp"]["free_bytes"].as_u64().unwrap()
    };
    for (left, enough, word) in [
        (&["zalos.efi.bak.1700000001", "zalos.efi.bak.1700000002", "zalos.efi.bak.1700000003"][..], true, "prune"),
        (&["zalos.efi.disabled.1700000000"], true, "prune"),
        (&["zalos~1.efi"], false, "zalos~1.efi"),
        (&[], false, "FILL.BIN"),
    ] {
        let disk = with_xbootldr(&lab, &[("zalos.efi", INSTALLER)]);
        for name in left {
            put(&disk, SECOND, &format!("EFI/Linux/{name}"), &image);
        }
        put(&disk, SECOND, "FILL.BIN", &vec![5; free(&disk) as usize - 8 * 1024]);
        let new = uki(&lab, PLAIN);
        let swap =
            ["swap", disk.to_str().unwrap(), new.to_str().unwrap(), "--allow-untrusted", "--allow-extension-loss"];
        let (esp, before) = (esp_bytes(&disk), free(&disk));
        let mut advice = Vec::new();
        for how in ["--dry-run", "--yes"] {
            let error = crate::cli::run(&[&swap[..], &["--keep-backups", "0", "--json", how]].concat()).code(4).json();
            assert_eq!(error["error"]["code"], "no-room", "{left:?}: {error:#}");
            advice.push(error["error"]["advice"].as_str().unwrap().to_owned());
        }
        assert_eq!(advice[0], advice[1]);
        assert!(advice[0].contains(word), "{left:?}: {}", advice[0]);
        match advice[0].split('`').nth(1) {
            Some(command) => {
                let words = command.replace('\'', "");
                let words = words.split(' ').skip(1).chain(Some("--yes"));
                let _ = crate::cli::run(&words.collect::<Vec<_>>()).code(0);
                assert!(free(&disk) > before, "{left:?}: nothing was freed there by {command}");
            }
            None => assert!(!enough, "{left:?}: {}", advice[0]),
        }
        assert!(esp_bytes(&disk) == esp, "{left:?}: the ESP was written");
        let again = crate::cli::run(&[&swap[..], &["--dry-run"]].concat());
        assert_eq!(again.code == 0, enough, "{left:?}: {}: {again:?}", advice[0]);
        crate::support::fsck_clean(&disk, SECOND);
    }
}

/// The image on the Extended Boot Loader Partition is cut off, and its backup lies beside it.
#[test]
fn issue13_a4_a_cut_off_image_on_the_xbootldr_partition_has_its_way_back() {
    if !tools(&["mmd", "mdel"]) {
        return;
    }
    let lab = Lab::new();
    let sound = std::fs::read(uki(&lab, INSTALLER)).unwrap();
    for (place, alone) in [("EFI/Linux/zalos.efi", false), ("EFI/Linux/zalos.efi", true), ("EFI/k/a.efi", false)] {
        for broken in [&sound[..sound.len() / 2], &[0; 4096][..], &[]] {
            let disk = with_xbootldr(&lab, &[]);
            let volume = format!("{}@@{SECOND}", disk.display());
            if place.starts_with("EFI/k") {
                for folder in ["::/EFI/k", "::/loader", "::/loader/entries"] {
                    // `loader` may be there.
                    let _ = run("mmd", &["-i", &volume, folder]);
                }
                put(&disk, SECOND, "loader/entries/a.conf", b"title x\nefi /EFI/k/a.efi\nversion 99\nsort-key a\n");
            }
            if alone {
                for (at, names) in [(ESP, "::/EFI/Linux/Talos*"), (SECOND, "::/EFI/Linux/Talos*")] {
                    run_ok("mdel", &["-i", &format!("{}@@{at}", disk.display()), names]);
                }
            }
            put(&disk, SECOND, place, broken);
            put(&disk, SECOND, &format!("{place}.bak.1700000000"), &sound);
            let hint = format!("{place}, alone: {alone}, {} bytes", broken.len());
            let status = bootsurgeon!("status", disk, "--json").code(0).json();
            let all = status["findings"].as_array().unwrap();
            let commands: Vec<&str> = all
                .iter()
                .filter_map(|f| f["action"].as_str()?.split('`').nth(1))
                .filter(|c| c.starts_with("bootsurgeon restore"))
                .collect();
            if place.starts_with("EFI/Linux") {
                // It is not even listed. What starts instead, or does not, lies on the ESP, and is replaced there.
                let nothing = all.iter().any(|f| f["id"] == "nothing-starts");
                assert_eq!(nothing, alone, "{hint}: {status:#}");
                assert!(commands.is_empty(), "{hint}: {status:#}");
                let said = format!("{}{}", status["findings"], status["warnings"]);
                assert!(
                    said.contains("zalos.efi on the Extended Boot Loader Partition is not listed"),
                    "{hint}: {status:#}"
                );
                bootsurgeon!("swap", disk, uki(&lab, PLAIN), "--allow-untrusted", "--allow-extension-loss", "--yes")
                    .code(0);
                let status = bootsurgeon!("status", disk, "--json").code(0).json();
                let starts = status["boot"]["selected"].as_str().unwrap_or_else(|| panic!("{hint}: {status:#}"));
                assert!(!starts.contains("partition 7"), "{hint}: {status:#}");
                continue;
            }
            let [command] = commands[..] else { panic!("{hint}: {commands:?}: {status:#}") };
            let words = command.replace('\'', "");
            let words = words.split(' ').skip(1).chain(["--yes", "--allow-untrusted"]);
            let _ = crate::cli::run(&words.collect::<Vec<_>>()).code(0);
            let second = bytes_at(&disk, SECOND, 32 << 20);
            let now = Volume::open(&second).unwrap().read_small(place, 1 << 24).unwrap();
            assert!(now.as_deref() == Some(&sound[..]), "{hint}: after {command}");
            let status = bootsurgeon!("status", disk, "--json").code(0).json();
            assert!(status["boot"]["selected"].as_str().unwrap().contains(place), "{hint}: {status:#}");
            crate::support::fsck_clean(&disk, SECOND);
        }
    }
}
