//! `swap`, `restore`, `prune` and `recover` by the built program, over images that other tools made; mtools,
//! dosfstools, gdisk and sbsigntool say what came of it.

use crate::cli::{DUPLICATE, ESP, NOHALT, TAILSCALE, TARGET, files, named, put, uki, uki_bytes};
use crate::support::{Lab, fsck_clean, gpt_clean, sha256, tool};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::Builder;
use std::collections::BTreeMap;
use std::path::Path;

const INSTALLER: &str = "v1.12.4-arm64-installer";
const PLAIN: &str = "v1.12.4-arm64-plain";
const OTHER_VERSION: &str = "v1.12.3-arm64-installer";

/// Asserts that nothing differs between two volumes but these paths.
#[track_caller]
fn same_but(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>, but: &[&str]) {
    let names = before.keys().chain(after.keys()).filter(|n| !but.contains(&n.as_str()));
    for name in names {
        assert!(before.get(name) == after.get(name), "{name} differs");
    }
}

/// The one file whose path begins like this.
#[track_caller]
fn only<'a>(all: &'a BTreeMap<String, Vec<u8>>, begin: &str) -> &'a str {
    let found = named(all, begin, "");
    assert_eq!(found.len(), 1, "{begin}: {found:?}");
    found[0]
}

/// The whole of a swap on a disk whose ESP holds the plain image and a duplicate.
fn swap_and_judge(disk: &Path, lab: &Lab) {
    let image = uki(lab, INSTALLER);
    let esp = crate::cli::esp_bytes(disk);
    let around = crate::cli::around_esp(disk, esp);
    let mtools = tool("mcopy");
    let before = if mtools { files(disk, ESP) } else { BTreeMap::new() };

    let report = bootsurgeon!("swap", disk, image, "--yes", "--json").code(0).json();
    assert_eq!(report["committed"], true);
    assert_eq!(report["sha256"], sha256(&image));
    assert_eq!(report["plan"]["target"], "Talos-v1.12.4.efi");
    assert_eq!(report["plan"]["disable"], serde_json::json!(["Talos-v1.12.4~1.efi"]));
    assert_eq!(report["plan"]["boot_after"], "Talos-v1.12.4.efi");
    assert_eq!(report["plan"]["bytes_to_write"], image.metadata().unwrap().len());

    fsck_clean(disk, ESP);
    assert_eq!(crate::cli::around_esp(disk, esp), around, "something outside of the ESP has changed");
    if mtools {
        let after = files(disk, ESP);
        let backup = only(&after, &format!("{TARGET}.bak."));
        let disabled = only(&after, &format!("{DUPLICATE}.disabled."));
        assert_eq!(backup, format!("EFI/Linux/{}", report["plan"]["backup"].as_str().unwrap()));
        assert!(after[TARGET] == std::fs::read(&image).unwrap(), "the target is not the new image");
        assert!(after[backup] == uki_bytes(lab, PLAIN), "the backup is not the old image");
        assert!(after[disabled] == before[DUPLICATE], "the duplicate has changed");
        assert!(!after.contains_key(DUPLICATE));
        same_but(&before, &after, &[TARGET, DUPLICATE, backup, disabled]);
        if tool("sbverify") {
            let target = lab.path("target.efi");
            std::fs::write(&target, &after[TARGET]).unwrap();
            assert!(crate::support::sbverify(&target, &crate::cli::fixture("keys/test-signing.crt")));
        }
    }
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert_eq!(status["boot"]["selected"], "Talos-v1.12.4.efi");
    assert_eq!(status["esp"]["healthy"], true);
    assert_eq!(status["interrupted"], serde_json::Value::Null);
}

#[test]
fn a_swap_changes_what_it_says_and_nothing_else() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    swap_and_judge(&disk, &lab);
    gpt_clean(&disk);
    // Once more: nothing to do, nothing written.
    let hash = sha256(&disk);
    let again = bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes", "--json").code(0).json();
    assert_eq!((&again["committed"], &again["already_in_place"]), (&false.into(), &true.into()));
    assert_eq!(sha256(&disk), hash);
}

#[test]
fn a_swap_on_a_disk_with_sectors_of_4096_bytes() {
    let lab = Lab::new();
    swap_and_judge(&lab.fixture("disk-4096.img.zst"), &lab);
}

#[test]
fn two_esps_are_listed_and_one_is_chosen() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-two-esps.img.zst");
    let image = uki(&lab, INSTALLER);
    let second = 38 * 1024 * 1024;
    if !tool("mcopy") {
        return;
    }
    // Nobody would start what is put where no boot loader is.
    let hash = sha256(&disk);
    for partition in ["1", "7"] {
        let refused = bootsurgeon!("swap", disk, image, "--yes", "--partition", partition);
        refused.fails(4, &["EFI/BOOT/BOOTAA64.EFI", "nothing starts"]);
    }
    assert_eq!(sha256(&disk), hash);
    let loader = Builder::new(Arch::Arm64).section(".sdmagic", "#### LoaderInfo: systemd-boot 257.9 ####").build();
    for offset in [ESP, second] {
        put(&disk, offset, "EFI/BOOT/BOOTAA64.EFI", &loader);
    }
    let hash = sha256(&disk);
    let list = ["2 EFI System Partitions", "0001-4c11-8e55-0123456789ab", "0007-4c11-8e55-0123456789ab", "--partition"];
    bootsurgeon!("swap", disk, image, "--yes").fails(2, &list);
    bootsurgeon!("status", disk).fails(2, &list);
    // Both have the label EFI.
    bootsurgeon!("swap", disk, image, "--yes", "--partition", "EFI").fails(2, &list[1..3]);
    bootsurgeon!("swap", disk, image, "--yes", "--partition", "5").fails(2, &list[1..3]);
    assert_eq!(sha256(&disk), hash);

    // There is no db on these ESPs; the installed UKI's signer is trusted.
    let partuuid = "D1E6A7B4-0007-4C11-8E55-0123456789AB";
    let report = bootsurgeon!("swap", disk, image, "--yes", "--json", "--partition", partuuid).code(0).json();
    assert_eq!(report["plan"]["boot_after"], "Talos-v1.12.4.efi");
    let report = bootsurgeon!("swap", disk, image, "--yes", "--json", "--partition", "1").code(0).json();
    assert_eq!(report["plan"]["target"], "Talos-v1.12.4.efi");
    fsck_clean(&disk, ESP);
    fsck_clean(&disk, second);
    gpt_clean(&disk);
    for offset in [ESP, second] {
        assert!(files(&disk, offset)[TARGET] == std::fs::read(&image).unwrap(), "the ESP at {offset}");
    }
    let second = files(&disk, second);
    assert!(second[only(&second, "EFI/Linux/Talos-v1.12.3.efi.")] == uki_bytes(&lab, OTHER_VERSION));
}

#[test]
fn bare_volumes_of_every_kind() {
    for (name, label) in [("fat12", "fat12"), ("fat16", "fat16"), ("fat32", "fat32"), ("fat32-few-clusters", "fat32")] {
        let lab = Lab::new();
        let volume = lab.fixture(&format!("{name}.img.zst"));
        let image = uki(&lab, INSTALLER);
        // mtools does not take a FAT32 volume with few clusters for FAT32.
        let mtools = name != "fat32-few-clusters" && tool("mcopy");
        let before = if mtools { files(&volume, 0) } else { BTreeMap::new() };
        let status = bootsurgeon!("status", volume, "--json").code(0).json();
        assert_eq!(status["esp"]["fat"], label);
        assert_eq!(status["disk"]["partition"], serde_json::Value::Null);

        let report = bootsurgeon!("swap", volume, image, "--yes", "--json").code(0).json();
        fsck_clean(&volume, 0);
        if mtools {
            let after = files(&volume, 0);
            let backup = only(&after, &format!("{TARGET}.bak."));
            assert!(after[TARGET] == std::fs::read(&image).unwrap(), "{name}");
            assert!(after[backup] == uki_bytes(&lab, "v1.12.4-arm64-uki"), "{name}");
            same_but(&before, &after, &[TARGET, backup]);
        }
        for (wanted, file) in [("Talos-v1.12.4.efi", INSTALLER), ("", "v1.12.4-arm64-uki")] {
            let out = lab.path(&format!("{file}-out.efi"));
            match wanted {
                "" => {
                    bootsurgeon!("restore", volume, "--yes").code(0);
                    fsck_clean(&volume, 0);
                }
                _ => assert_eq!(report["plan"]["target"], wanted),
            }
            bootsurgeon!("extract", volume, "--uki", "Talos-v1.12.4.efi", "--out", out).code(0);
            assert!(std::fs::read(&out).unwrap() == uki_bytes(&lab, file), "{name}: {file}");
        }
    }
}

#[test]
fn an_image_that_halts_installed_nodes_is_refused_with_both_ways_out() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let hash = sha256(&disk);
    let ways = [
        "talos.halt_if_installed",
        "metal-arm64-secureboot-uki.efi",
        NOHALT,
        "--allow-halt-if-installed",
        "not changed",
    ];
    for image in [lab.fixture("secureboot-arm64.iso.zst"), uki(&lab, "v1.12.4-arm64-iso")] {
        for how in ["--yes", "--dry-run"] {
            bootsurgeon!("swap", disk, image, how).fails(4, &ways);
        }
    }
    assert_eq!(sha256(&disk), hash);

    // The schematic with the negation passes, and so does who insists.
    bootsurgeon!("swap", disk, uki(&lab, "v1.12.4-arm64-iso-nohalt"), "--yes").code(0);
    let iso = lab.path("secureboot-arm64.iso");
    let report = bootsurgeon!("swap", disk, iso, "--yes", "--allow-halt-if-installed", "--json").code(0).json();
    assert_eq!(report["sha256"], sha256(&lab.path("talos-v1.12.4-arm64-iso.efi")));
    let cmdline = report["checks"].as_array().unwrap().iter().find(|c| c["id"] == "cmdline").unwrap();
    assert_eq!(cmdline["status"], "warn");
    fsck_clean(&disk, ESP);
    if tool("mcopy") {
        assert!(files(&disk, ESP)[TARGET] == uki_bytes(&lab, "v1.12.4-arm64-iso"));
    }
}

#[test]
fn names_that_no_directory_sector_takes_are_refused_before_anything_is_written() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let hash = sha256(&disk);
    let image = uki(&lab, "v1.12.4-arm64-uki");
    let long = format!("{}.efi", "x".repeat(200));
    bootsurgeon!("swap", disk, image, "--yes", "--target", long).fails(4, &["too long", "not changed"]);
    assert_eq!(sha256(&disk), hash);
}

#[test]
fn a_directory_in_the_way_is_no_place_for_an_image() {
    if !tool("mmd") {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let volume = format!("{}@@{ESP}", disk.display());
    crate::support::run_ok("mmd", &["-i", &volume, "::/EFI/Linux/talos-v1.12.3.EFI"]);
    let image = uki(&lab, "v1.12.3-arm64-installer");
    bootsurgeon!("swap", disk, image, "--yes", "--target", "Talos-v1.12.3.efi").fails(4, &["directory", "not changed"]);
    // Left to itself, the program takes the name that boots now.
    let report = bootsurgeon!("swap", disk, image, "--yes", "--json").code(0).json();
    assert_eq!(report["plan"]["target"], "Talos-v1.12.4.efi");
    fsck_clean(&disk, ESP);
}

/// A board without a clock takes today for 1970, and `restore` and `--keep-backups` go by the times in the names.
#[test]
fn the_newest_backup_has_the_latest_time_whatever_the_clock_says() {
    if !tool("mcopy") {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let earlier = "EFI/Linux/Talos-v1.12.4.efi.bak.4000000000";
    put(&disk, ESP, earlier, &uki_bytes(&lab, "v1.12.3-arm64-installer"));
    let report = bootsurgeon!("swap", disk, uki(&lab, "v1.12.4-arm64-uki"), "--yes", "--json").code(0).json();
    assert_eq!(report["plan"]["backup"], "Talos-v1.12.4.efi.bak.4000000001");
    let report = bootsurgeon!("restore", disk, "--yes", "--json").code(0).json();
    assert_eq!(report["restored"], "Talos-v1.12.4.efi.bak.4000000001");
    assert!(files(&disk, ESP).contains_key(earlier));
}

#[test]
fn a_one_shot_choice_is_not_the_boot_that_a_plan_counts_on() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let vars = lab.path("efivars");
    std::fs::create_dir(&vars).unwrap();
    let set = |name: &str, value: &str| {
        let mut raw = vec![7, 0, 0, 0];
        raw.extend(value.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        std::fs::write(vars.join(format!("{name}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")), raw).unwrap();
    };
    set("LoaderEntryOneShot", "talos-v1.12.4.efi");
    set("LoaderEntryDefault", "talos-v1.12.4~1.efi");
    let (vars, image) = (vars.display().to_string(), uki(&lab, "v1.12.4-arm64-uki"));
    let swap = |more: &str| bootsurgeon!("swap", disk, image, "--efivars", vars, "--dry-run", "--json", more);
    // The name that starts next gets the image; behind the next boot the other one would win, so it has to leave.
    let plan = swap("--yes").code(0).json();
    assert_eq!(plan["plan"]["target"], "Talos-v1.12.4.efi");
    assert_eq!(plan["plan"]["disable"], serde_json::json!(["Talos-v1.12.4~1.efi"]));
    swap("--keep-duplicates").fails(4, &["Talos-v1.12.4~1.efi would start instead"]);
}

/// Up to 254, systemd-boot passes the command line of a UKI's last profile to its stub.
#[test]
fn an_old_boot_loader_that_would_start_the_wiping_profile_is_found_out() {
    if !tool("mcopy") {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let loader = |version: &str| {
        let magic = format!("#### LoaderInfo: systemd-boot {version} ####");
        let pe = Builder::new(Arch::Arm64).section(".text", [0; 16]).section(".sdmagic", magic).build();
        put(&disk, ESP, "EFI/BOOT/BOOTAA64.EFI", &pe);
        sha256(&disk)
    };
    let installer = uki(&lab, "v1.12.3-arm64-installer");
    let hash = loader("254.26");
    assert!(bootsurgeon!("status", disk).code(0).out.contains("command line of its last profile"));
    for how in ["--yes", "--dry-run"] {
        let ran = bootsurgeon!("swap", disk, installer, how, "--allow-halt-if-installed");
        ran.fails(4, &["systemd-boot 254.26", "talos.experimental.wipe=system", "EFI/BOOT", "not changed"]);
    }
    assert_eq!(sha256(&disk), hash);
    // An image without such a profile is no danger, nor is a boot loader that leaves the command line to the image.
    bootsurgeon!("swap", disk, uki(&lab, "v1.12.4-arm64-uki"), "--yes").code(0);
    loader("257.9");
    bootsurgeon!("swap", disk, installer, "--yes").code(0);
}

#[test]
fn images_that_are_not_what_the_board_or_the_user_wants_are_rejected() {
    let lab = Lab::new();
    let mut disk = lab.fixture("disk-512.img.zst");
    let hash = sha256(&disk);
    let zeros = "0".repeat(64);
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("v1.12.4-arm64-other-signer", &[], &["authenticode-signer", "TEST other signing key", "--cert"]),
        ("v1.12.4-arm64-unsigned", &[], &["authenticode-digest", "not signed", "--allow-untrusted"]),
        ("v1.12.4-amd64-uki", &[], &["arch", "amd64", "arm64"]),
        (INSTALLER, &["--arch", "amd64"], &["arch", "amd64", "arm64"]),
        (INSTALLER, &["--talos", "v1.12.3"], &["version", "v1.12.4", "v1.12.3"]),
        (INSTALLER, &["--schematic", &zeros], &["schematic", TAILSCALE, &zeros]),
        (INSTALLER, &["--require-extension", "iscsi-tools"], &["extensions", "iscsi-tools", "tailscale"]),
        (INSTALLER, &["--require-extension", "tailscale", "--require-extension", "x"], &["Not in the image: x."]),
        ("v1.12.4-arm64-other-pcrpkey", &["--require-pcr-key"], &["pcr-key", "locked"]),
    ];
    let before = tool("mcopy").then(|| files(&disk, ESP));
    for (image, options, words) in cases {
        for how in ["--dry-run", "--yes"] {
            let mut args = args!["swap", disk, uki(&lab, image), how].to_vec();
            args.extend(options.iter().map(Into::into));
            crate::cli::run(&args).fails(3, words).says(&["the ESP was not changed"]);
            fsck_clean(&disk, ESP);
            if how == "--dry-run" {
                assert_eq!(sha256(&disk), hash);
            }
        }
        // The bytes may have gone into free clusters while they were verified; nothing refers to them.
        assert_eq!(before, tool("mcopy").then(|| files(&disk, ESP)), "{image}");
        disk = lab.fixture("disk-512.img.zst");
    }
}

#[test]
fn trust_can_be_widened_on_purpose() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let pem = crate::cli::fixture("keys/test-other-signing.crt");
    let der = lab.path("other.der");
    if tool("openssl") {
        crate::support::run_ok("openssl", &args!["x509", "-in", pem, "-outform", "DER", "-out", der]);
        bootsurgeon!("swap", disk, uki(&lab, "v1.12.4-arm64-other-signer"), "--dry-run", "--cert", der).code(0);
    }
    let other = uki(&lab, "v1.12.4-arm64-other-signer");
    bootsurgeon!("swap", disk, other, "--dry-run", "--cert", pem).code(0);
    bootsurgeon!("swap", disk, uki(&lab, "v1.12.4-arm64-two-signatures"), "--dry-run").code(0);
    let good =
        args!["--schematic", TAILSCALE, "--talos", "v1.12.4", "--arch", "arm64", "--require-extension", "tailscale"];
    let mut wanted = args!["swap", disk, uki(&lab, INSTALLER), "--dry-run"].to_vec();
    wanted.extend(good);
    crate::cli::run(&wanted).code(0);
    // Unsigned is for boards without Secure Boot, and only on request.
    let unsigned = uki(&lab, "v1.12.4-arm64-unsigned");
    let report = bootsurgeon!("swap", disk, unsigned, "--yes", "--allow-untrusted", "--json").code(0).json();
    let signer = report["checks"].as_array().unwrap().iter().find(|c| c["id"] == "authenticode-signer").unwrap();
    assert_eq!(signer["status"], "warn");
    fsck_clean(&disk, ESP);
}

#[test]
fn another_version_gets_its_own_name_and_the_old_one_leaves_the_menu() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let (down, up) = (uki(&lab, OTHER_VERSION), uki(&lab, INSTALLER));
    // A downgrade: a higher version on the ESP would win the menu, so it has to leave it.
    let report = bootsurgeon!("swap", disk, down, "--yes", "--json").code(0).json();
    assert_eq!(report["plan"]["target"], "Talos-v1.12.3.efi");
    assert_eq!(report["plan"]["boot_before"], "Talos-v1.12.4.efi");
    assert_eq!(report["plan"]["boot_after"], "Talos-v1.12.3.efi");
    fsck_clean(&disk, ESP);
    if tool("mcopy") {
        let all = files(&disk, ESP);
        assert!(all["EFI/Linux/Talos-v1.12.3.efi"] == std::fs::read(&down).unwrap());
        assert!(all[only(&all, &format!("{TARGET}.bak."))] == uki_bytes(&lab, PLAIN));
        assert!(!all.contains_key(TARGET) && !all.contains_key(DUPLICATE));
    }
    // And up again.
    let report = bootsurgeon!("swap", disk, up, "--yes", "--json").code(0).json();
    assert_eq!(report["plan"]["target"], "Talos-v1.12.4.efi");
    assert_eq!(report["plan"]["boot_after"], "Talos-v1.12.4.efi");
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert_eq!(status["boot"]["selected"], "Talos-v1.12.4.efi");
    fsck_clean(&disk, ESP);
    gpt_clean(&disk);
    if tool("mcopy") {
        let all = files(&disk, ESP);
        assert!(all[TARGET] == std::fs::read(&up).unwrap());
        assert!(all[only(&all, "EFI/Linux/Talos-v1.12.3.efi.bak.")] == std::fs::read(&down).unwrap());
    }
}

#[test]
fn what_the_firmware_variables_pin_is_what_gets_swapped() {
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    // The pinned entry is gone: the menu's first is started, and that is swapped.
    let disk = lab.fixture("disk-512.img.zst");
    let stale = crate::cli::fixture("efivars/pinned-stale");
    let report = bootsurgeon!("swap", disk, image, "--yes", "--json", "--efivars", stale).code(0).json();
    assert_eq!(report["plan"]["boot_after"], "Talos-v1.12.4.efi");
    let status = bootsurgeon!("status", disk, "--json", "--efivars", stale).code(0).json();
    assert_eq!(status["boot"]["selected"], "Talos-v1.12.4.efi");
    assert!(status["boot"]["reason"].as_str().unwrap().to_lowercase().contains("talos-v1.12.3.efi"), "{status:#}");
    // The old version under the pinned name would come back to life: the board would start it, and the plan says what
    // does.
    let report =
        bootsurgeon!("swap", disk, uki(&lab, OTHER_VERSION), "--yes", "--json", "--efivars", stale).code(0).json();
    assert_eq!(report["plan"]["boot_after"], "Talos-v1.12.3.efi");
    fsck_clean(&disk, ESP);

    // The duplicate is pinned: it is the one that boots, so it is the target, whatever the versions say.
    let disk = lab.fixture_as("disk-512.img.zst", "pinned.img");
    let pinned = crate::cli::fixture("efivars/pinned-new");
    let report = bootsurgeon!("swap", disk, image, "--dry-run", "--json", "--efivars", pinned).code(0).json();
    assert_eq!(report["plan"]["boot_before"], "Talos-v1.12.4~1.efi");
    assert_eq!(report["plan"]["boot_after"], report["plan"]["target"]);
}

#[test]
fn a_restore_exchanges_the_image_and_its_backup() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    bootsurgeon!("restore", disk, "--yes").fails(2, &["no backup"]);
    let report = bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes", "--json").code(0).json();
    let backup = report["plan"]["backup"].as_str().unwrap();
    let listed = bootsurgeon!("restore", disk, "--list", "--json").code(0).json();
    assert_eq!(listed["backups"].as_array().unwrap().iter().filter(|b| b["name"] == backup).count(), 1);
    assert_eq!(listed["backups"][0]["version"], "v1.12.4");

    let hash = sha256(&disk);
    let plan = bootsurgeon!("restore", disk, "--dry-run", "--json").code(0).json();
    assert_eq!((&plan["committed"], &plan["restored"]), (&false.into(), &backup.into()));
    bootsurgeon!("restore", disk).fails(4, &["confirmation", "--yes", "not changed"]);
    bootsurgeon!("restore", disk, "Talos-v1.12.4.efi.bak.1", "--yes").fails(2, &["there is no", backup]);
    bootsurgeon!("restore", disk, "Talos-v1.12.4.efi", "--yes").fails(2, &["is not a backup"]);
    assert_eq!(sha256(&disk), hash);

    let report = bootsurgeon!("restore", disk, "--yes", "--json").code(0).json();
    assert_eq!((&report["committed"], &report["restored"]), (&true.into(), &backup.into()));
    fsck_clean(&disk, ESP);
    if tool("mcopy") {
        let all = files(&disk, ESP);
        assert!(all[TARGET] == uki_bytes(&lab, PLAIN));
        assert!(all[only(&all, &format!("{TARGET}.bak."))] == uki_bytes(&lab, INSTALLER));
    }
    // Back once more, by name, and a swap in between has left more than one.
    let name = report["plan"]["backup"].as_str().unwrap().to_owned();
    bootsurgeon!("swap", disk, uki(&lab, "v1.12.4-arm64-uki"), "--yes").code(0);
    bootsurgeon!("restore", disk, name, "--yes").code(0);
    fsck_clean(&disk, ESP);
    gpt_clean(&disk);
    if tool("mcopy") {
        assert!(files(&disk, ESP)[TARGET] == uki_bytes(&lab, INSTALLER));
    }
    // What the disabled duplicate holds can come back, too.
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    let files = status["files"].as_array().unwrap();
    assert!(files.iter().any(|f| f["kind"] == "disabled"), "{status:#}");
}

#[test]
fn prune_takes_duplicates_out_of_the_menu_or_off_the_volume() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let mtools = tool("mcopy");
    let before = if mtools { files(&disk, ESP) } else { BTreeMap::new() };
    let hash = sha256(&disk);
    bootsurgeon!("prune", disk, "--dry-run").code(0);
    bootsurgeon!("prune", disk).fails(4, &["confirmation", "--yes"]);
    assert_eq!(sha256(&disk), hash);
    let report = bootsurgeon!("prune", disk, "--yes", "--json").code(0).json();
    assert_eq!(report["committed"], true);
    fsck_clean(&disk, ESP);
    if mtools {
        let after = files(&disk, ESP);
        let disabled = only(&after, &format!("{DUPLICATE}.disabled."));
        assert!(after[disabled] == before[DUPLICATE]);
        same_but(&before, &after, &[DUPLICATE, disabled]);
    }
    // Nothing more to do, and nobody has to be asked for that.
    let hash = sha256(&disk);
    bootsurgeon!("prune", disk).code(0);
    assert_eq!(sha256(&disk), hash);
    bootsurgeon!("prune", disk, "--yes", "--delete").code(0);
    fsck_clean(&disk, ESP);
    if mtools {
        let after = files(&disk, ESP);
        same_but(&before, &after, &[DUPLICATE]);
        assert!(!after.contains_key(DUPLICATE));
    }

    for image in [INSTALLER, "v1.12.4-arm64-uki", PLAIN] {
        bootsurgeon!("swap", disk, uki(&lab, image), "--yes", "--allow-extension-loss").code(0);
    }
    let backups = |n| {
        let list = bootsurgeon!("restore", disk, "--list", "--json").code(0).json();
        assert_eq!(list["backups"].as_array().unwrap().len(), n, "{list:#}");
    };
    backups(3);
    bootsurgeon!("prune", disk, "--yes", "--keep-backups", "1").code(0);
    backups(1);
    fsck_clean(&disk, ESP);
    gpt_clean(&disk);
    if mtools {
        let after = files(&disk, ESP);
        assert!(after[only(&after, &format!("{TARGET}.bak."))] == uki_bytes(&lab, "v1.12.4-arm64-uki"), "the newest");
    }
}

#[test]
fn options_of_a_swap() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let copy = lab.path("old.efi");
    bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes", "--backup-to", copy).code(0);
    assert!(std::fs::read(&copy).unwrap() == uki_bytes(&lab, PLAIN), "the copy off the ESP is not the old image");
    // A copy that exists is not written over, and the ESP is left alone then.
    let hash = sha256(&disk);
    let other = uki(&lab, "v1.12.4-arm64-uki");
    bootsurgeon!("swap", disk, other, "--yes", "--backup-to", copy).fails(4, &["old.efi", "not changed"]);
    assert_eq!(sha256(&disk), hash);

    bootsurgeon!("swap", disk, other, "--yes", "--keep-backups", "1").code(0);
    let plain = uki(&lab, PLAIN);
    bootsurgeon!("swap", disk, plain, "--yes", "--keep-backups", "1", "--allow-extension-loss").code(0);
    fsck_clean(&disk, ESP);
    if tool("mcopy") {
        let all = files(&disk, ESP);
        assert!(all[only(&all, &format!("{TARGET}.bak."))] == std::fs::read(&other).unwrap(), "the newest backup");
    }

    let disk = lab.fixture_as("disk-512.img.zst", "target.img");
    bootsurgeon!("swap", disk, other, "--yes", "--target", "../x.efi").fails(2, &["--target"]);
    bootsurgeon!("swap", disk, other, "--yes", "--target", "x.txt").fails(2, &["--target"]);
    let report = bootsurgeon!("swap", disk, other, "--yes", "--json", "--target", "Talos-new.efi").code(0).json();
    assert_eq!(report["plan"]["target"], "Talos-new.efi");
    assert_eq!(report["plan"]["boot_after"], "Talos-new.efi");

    let disk = lab.fixture_as("disk-512.img.zst", "keep.img");
    let report = bootsurgeon!("swap", disk, other, "--yes", "--json", "--keep-duplicates").code(0).json();
    assert_eq!(report["plan"]["disable"], serde_json::json!([]));
    fsck_clean(&disk, ESP);
    if tool("mcopy") {
        assert!(files(&disk, ESP).contains_key(DUPLICATE));
    }
}

#[test]
fn after_an_interruption_recover_comes_first() {
    if !tool("mcopy") {
        return;
    }
    let lab = Lab::new();
    let record = |target: &str| {
        serde_json::json!({"bootsurgeon": 1, "operation": {
            "command": "swap", "time": 1_771_000_000_u64,
            "install": {
                "target": target, "backup": format!("{target}.bak.1771000000"),
                "old": {"cluster": 5, "bytes": 110_688, "sha256": null},
                "new": {"cluster": 60_000, "bytes": 111_200, "sha256": null},
                "source": "staged"},
            "tidy": []}})
        .to_string()
    };
    {
        // A record of the first release.
        let (name, content, title) = ("cut.img", record("Talos-v1.12.4.efi"), "swap of Talos-v1.12.4.efi");
        let disk = lab.fixture_as("disk-512.img.zst", name);
        let before = files(&disk, ESP);
        crate::cli::put(&disk, ESP, "BOOTSURG.TXN", content.as_bytes());
        let hash = sha256(&disk);
        let image = uki(&lab, INSTALLER);
        for how in ["--yes", "--dry-run"] {
            bootsurgeon!("swap", disk, image, how).fails(5, &[title, "recover"]);
            bootsurgeon!("prune", disk, how).fails(5, &[title, "recover"]);
            bootsurgeon!("restore", disk, how).fails(5, &[title, "recover"]);
        }
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        assert!(status["interrupted"].as_str().unwrap().contains(title), "{status:#}");
        bootsurgeon!("recover", disk, "--dry-run").code(0);
        bootsurgeon!("recover", disk).fails(4, &["confirmation", "--yes"]);
        assert_eq!(sha256(&disk), hash);

        let report = bootsurgeon!("recover", disk, "--yes", "--json").code(0).json();
        assert_eq!(report["committed"], true);
        fsck_clean(&disk, ESP);
        same_but(&before, &files(&disk, ESP), &[]);
        let again = bootsurgeon!("recover", disk, "--yes", "--json").code(0).json();
        assert_eq!(again["committed"], false);
        bootsurgeon!("swap", disk, image, "--yes").code(0);
        fsck_clean(&disk, ESP);
    }
}
