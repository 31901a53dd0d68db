//! UKIs of every maker: good ones are taken, bad ones are not.

use crate::board::systemd_boot;
use crate::makers::{DEFAULT_PATHS, Made, bz_image, certificate, verify};
use crate::support::{Lab, run_ok, tool, tools};
use bootsurgeon::pcr::Bank;
use bootsurgeon::pe::{Arch, Head};
use bootsurgeon::testkit::squashfs;
use bootsurgeon::testkit::uki::{cpio, extensions_yaml};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;

/// A check's status and detail.
pub(super) fn check(report: &Value, id: &str) -> (String, String) {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("no {id}: {report:#}"));
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (text("status"), text("detail"))
}

#[track_caller]
fn expect(lab: &Lab, made: &Made, id: &str, status: &str, words: &str) {
    let image = made.file(lab, "image.efi");
    let ran = verify(lab, &image).code(if status == "fail" { 3 } else { 0 });
    let (found, detail) = check(&ran.json(), id);
    assert!(found == status && detail.contains(words), "{id} {status} {words:?}: {found}: {detail}");
}

#[test]
fn issue15_1_policies_that_systemd_signs_fit() {
    let lab = Lab::new();
    let made = Made::debian("6.12.1-arm64");
    let fits = "fits the measured sections";
    for banks in [&[Bank::Sha256][..], &Bank::ALL, &[Bank::Sha384], &[Bank::Sha512, Bank::Sha384]] {
        expect(&lab, &made.clone().with_policies(banks, &DEFAULT_PATHS, &[&[]]), "pcr-signature", "pass", fits);
    }
    // Any other path that a builder may be told to sign, the empty one and one without an initrd included.
    for path in [&[][..], &["sysinit"], &["sysinit", "ready", "shutdown", "final"], &["enter-initrd", "ready"]] {
        expect(&lab, &made.clone().with_policies(&[Bank::Sha256], &[path], &[&[]]), "pcr-signature", "pass", fits);
    }
    // A section that changed after signing, in whatever bank.
    for banks in [&[Bank::Sha256][..], &[Bank::Sha512]] {
        let changed = made.clone().with_policies(banks, &DEFAULT_PATHS, &[&[]]).instead(".cmdline", *b"init=/bin/sh");
        expect(&lab, &changed, "pcr-signature", "fail", "changed after signing");
    }
}

#[test]
fn issue15_1_a_policy_that_depends_on_the_board_is_skipped_with_the_reason() {
    let lab = Lab::new();
    let two = Made::debian("6.12.1-arm64").with(".dtbauto", *b"board one").with(".dtbauto", *b"board two");
    let two = two.with(".hwids", *b"ids");
    let all = two.clone().with_policies(&[Bank::Sha256], &DEFAULT_PATHS, &[&[8], &[9]]);
    expect(&lab, &all, "pcr-signature", "skip", "signed for 2 of them, and no policy for a board");
    let some = two.clone().with_policies(&[Bank::Sha256], &DEFAULT_PATHS, &[&[], &[9]]);
    expect(&lab, &some, "pcr-signature", "skip", "signed for 1 of them, and one for a board");
    let changed = all.instead(".linux", [0x4C; 3000]);
    expect(&lab, &changed, "pcr-signature", "fail", "changed after signing");
    let one = Made::debian("6.12.1-arm64").with(".dtbauto", *b"board one");
    let one = one.with_policies(&[Bank::Sha256], &DEFAULT_PATHS, &[&[8]]);
    expect(&lab, &one, "pcr-signature", "pass", "where the board takes the device tree");
}

/// systemd-measure 257, with which Debian 13's ukify signs, exchanges the two sections that it does not measure
/// everywhere.
#[test]
fn issue15_1_a_policy_that_systemd_measure_257_got_wrong_is_told_from_a_changed_image() {
    let lab = Lab::new();
    let debian = Made::debian("6.12.1-arm64");
    for (made, choice) in [
        (debian.clone().with(".dtbauto", *b"board one"), &[8][..]),
        (debian.clone().with(".hwids", *b"ids"), &[]),
        (debian.with(".dtbauto", *b"board one").with(".hwids", *b"ids"), &[8]),
    ] {
        let made = made.with_exchanged_policies(&[choice]);
        expect(&lab, &made, "pcr-signature", "warn", "exchanges .dtbauto and .hwids");
        let image = made.file(&lab, "image.efi");
        let args = crate::args![
            "verify",
            image,
            "--cert",
            certificate(&lab),
            "--efivars",
            "none",
            "--json",
            "--require-pcr-key"
        ];
        assert_eq!(check(&crate::cli::run(&args).code(3).json(), "pcr-signature").0, "fail");
        let disk = lab.fixture("disk-512.img.zst");
        let args = crate::args![
            "verify",
            image,
            "--cert",
            certificate(&lab),
            "--efivars",
            "none",
            "--json",
            "--installed",
            disk
        ];
        assert_eq!(check(&crate::cli::run(&args).code(3).json(), "pcr-signature").0, "fail");
        let changed = made.instead(".cmdline", *b"init=/bin/sh");
        expect(&lab, &changed, "pcr-signature", "fail", "changed after signing");
    }
}

#[test]
fn issue15_1_a_pcr_key_without_signatures_is_a_warning_unless_they_are_needed() {
    let lab = Lab::new();
    let made = Made::debian("6.12.1-arm64").with_policies(&[Bank::Sha256], &DEFAULT_PATHS, &[&[]]).without(".pcrsig");
    expect(&lab, &made, "pcr-signature", "warn", "has a PCR key (.pcrpkey) and no PCR signature");
    let image = made.file(&lab, "image.efi");
    let ran =
        bootsurgeon!("verify", image, "--cert", certificate(&lab), "--efivars", "none", "--json", "--require-pcr-key");
    assert_eq!(check(&ran.code(3).json(), "pcr-signature").0, "fail");
    // The fixtures' node has signed policies.
    let disk = lab.fixture("disk-512.img.zst");
    let ran =
        bootsurgeon!("verify", image, "--cert", certificate(&lab), "--efivars", "none", "--json", "--installed", disk);
    let (status, detail) = check(&ran.code(3).json(), "pcr-signature");
    assert!(status == "fail" && detail.contains("The installed UKI has one"), "{status}: {detail}");
}

#[test]
fn issue17_an_initrd_that_the_kernel_cannot_unpack_is_refused_and_every_other_is_read() {
    let lab = Lab::new();
    let archive = cpio(&[("init", b"#!/bin/sh\n"), ("etc/os-release", b"ID=debian\n")]).unwrap();
    let plain = lab.path("initrd");
    std::fs::write(&plain, &archive).unwrap();
    let pack = |command: &[&str]| {
        let packed = Command::new(command[0]).args(&command[1..]).arg(&plain).output().unwrap();
        assert!(packed.status.success(), "{command:?}: {packed:?}");
        packed.stdout
    };
    let debian = Made::debian("6.12.1-arm64");
    for command in [
        &["gzip", "-9", "-c"][..],
        &["bzip2", "-c"],
        &["xz", "--format=lzma", "-c"],
        &["xz", "--check=crc32", "-c"],
        &["xz", "--check=none", "--x86", "--lzma2", "-c"],
        &["lz4", "-l", "-9", "-c"],
        &["zstd", "-q", "-19", "-c"],
    ] {
        if tool(command[0]) {
            expect(&lab, &debian.clone().instead(".initrd", pack(command)), "initrd", "pass", "1 archive, 2 entries");
        }
    }
    // What the kernel's own xz does not take.
    for (command, why) in [
        (&["xz", "-c"][..], "CRC64"),
        (&["xz", "--check=sha256", "-c"], "SHA-256"),
        (&["xz", "--check=crc32", "--delta=dist=4", "--lzma2", "-c"], "delta"),
        (&["xz", "--check=crc32", "--x86", "--arm", "--lzma2", "-c"], "at most one branch filter"),
    ] {
        if tool(command[0]) {
            expect(&lab, &debian.clone().instead(".initrd", pack(command)), "initrd", "fail", why);
        }
    }
    let trailer = archive.windows(10).position(|w| w == b"TRAILER!!!").unwrap() - 110;
    let no_trailer = debian.clone().instead(".initrd", &archive[..trailer]);
    expect(&lab, &no_trailer, "initrd", "pass", "end without a trailer");
    let lzo = debian.clone().instead(".initrd", *b"\x89LZO\0\r\n\x1a\n");
    expect(&lab, &lzo, "initrd", "skip", "lzo is not unpacked here");
    expect(&lab, &debian.clone().without(".initrd"), "initrd", "pass", "no initrd");
    // Nothing of this is softened: a damaged one is damaged.
    let mut damaged = archive.clone();
    damaged.truncate(150);
    expect(&lab, &debian.instead(".initrd", damaged), "initrd", "fail", "ends too early");
}

const SCHEMATIC: &str = "customization: {}\n";

/// An extension, and the layer of the schematic.
fn layers() -> (Vec<u8>, Vec<u8>) {
    let service = b"name: tailscale\ndepends:\n  - configuration: true\n";
    let extension = squashfs::image(&[("usr/local/etc/containers/tailscale.yaml", service)]).unwrap();
    (extension, squashfs::image(&[("schematic.yaml", SCHEMATIC.as_bytes())]).unwrap())
}

#[test]
fn issue15_3_a_squashfs_that_linux_would_not_mount_is_refused() {
    let lab = Lab::new();
    let (good, schematic) = layers();
    let yaml = extensions_yaml(&[("tailscale", "1.90.6")], SCHEMATIC);
    let made = |image: &[u8]| Made::talos("v1.12.4", &[("0.sqsh", image), ("1.sqsh", &schematic)], &yaml);
    expect(&lab, &made(&good), "extensions", "warn", "ext-tailscale waits");

    // `bytes_used` is at 40, the inode table at 64, the root inode at 32.
    let with = |at: usize, value: u64| {
        let mut bad = good.clone();
        bad[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bad
    };
    let used = u64::from_le_bytes(*good[40..].first_chunk().unwrap());
    for (what, bad) in [
        ("is truncated", good[..used as usize - 1].to_vec()),
        ("is truncated", good[..100].to_vec()),
        ("too short", good[..50].to_vec()),
        ("too short", Vec::new()),
        ("not a squashfs image", vec![7; 4096]),
        ("is truncated", with(40, 1 << 40)),
        ("table of inodes lies outside", with(64, 1 << 40)),
        ("table of owners lies outside", with(48, used)),
        ("root directory lies outside", with(32, 1 << 40)),
    ] {
        expect(&lab, &made(&bad), "extensions", "fail", what);
    }
    // Nor the layer of the schematic, nor the root file system.
    let cut = Made::talos("v1.12.4", &[("0.sqsh", &good), ("1.sqsh", &schematic[..90])], &yaml);
    expect(&lab, &cut, "extensions", "fail", "1.sqsh");
}

#[test]
fn issue12_2_places_that_state_different_versions_are_a_contradiction() {
    let lab = Lab::new();
    let (extension, schematic) = layers();
    let layers = [("0.sqsh", &extension[..]), ("1.sqsh", &schematic[..])];
    let yaml = extensions_yaml(&[("tailscale", "1.90.6")], SCHEMATIC);
    let good = Made::talos("v1.12.4", &layers, &yaml);
    expect(&lab, &good, "version", "skip", "The image is v1.12.4");
    let contradicts = |made: &Made, words: &str| expect(&lab, made, "version", "fail", words);
    contradicts(&Made::talos("v1.12.3", &layers, &yaml), "its root file system is v1.12.3");
    let pretty = *b"ID=talos\nVERSION_ID=v1.12.4\nPRETTY_NAME=\"Talos (v1.11.0)\"\n";
    contradicts(&good.clone().instead(".osrel", pretty), "PRETTY_NAME says v1.11.0");
    contradicts(&good.clone().instead(".uname", *b"6.12.0-talos"), "the kernel says it is 6.18.1-talos");
    contradicts(&good.clone().instead(".linux", bz_image("6.12.0-talos")), "the kernel says it is 6.12.0-talos");
    let newer =
        yaml.replacen("      author: ", "      compatibility: {talos: {version: '>= v1.13.0'}}\n      author: ", 1);
    contradicts(&Made::talos("v1.12.4", &layers, &newer), "tailscale is for Talos >= v1.13.0");
    let mut modules = layers.to_vec();
    modules.push(("modules.dep.sqsh", &schematic));
    let more =
        format!("{yaml}  - image: modules.dep.sqsh\n    metadata: {{name: modules.dep, version: 6.12.0-talos}}\n");
    contradicts(&Made::talos("v1.12.4", &modules, &more), "modules of its extensions are for 6.12.0-talos");
    // Other makers write other things: only what is the same thing is compared.
    expect(&lab, &Made::debian("6.12.1-arm64"), "version", "skip", "The image is 13");
    let other_arch = Made::debian("6.12.1-arm64").instead(".linux", bz_image("6.12.1-arm64"));
    contradicts(&other_arch, "headers say arm64, and the kernel in it is for amd64");
}

/// The words that only Talos' own images may bring up.
const TALOS_WORDS: [&str; 5] = ["alos", "factory", "EPHEMERAL", "secureboot-uki", "ExtensionService"];

#[test]
fn issue15_4_whose_image_it_is_is_found_by_evidence() {
    let lab = Lab::new();
    let (extension, schematic) = layers();
    let yaml = extensions_yaml(&[("tailscale", "1.90.6")], SCHEMATIC);
    let talos = Made::talos("v1.12.4", &[("0.sqsh", &extension), ("1.sqsh", &schematic)], &yaml);
    let debian = Made::debian("6.12.1-arm64");
    // Somebody's own name for Talos changes nothing about its layers.
    let renamed = talos.clone().instead(".osrel", *b"ID=acme\nNAME=Acme\nVERSION_ID=v1.12.4\n");
    let lanzaboote = debian
        .clone()
        .instead(".linux", *b"\\EFI\\nixos\\kernel-6.12.efi")
        .instead(".initrd", *b"\\EFI\\nixos\\initrd-6.12.efi")
        .instead(".sdmagic", *b"")
        .with(".linuxh", [1; 32])
        .with(".initrdh", [2; 32]);
    let unknown = debian.clone().without(".sdmagic");
    for (made, family) in [
        (&talos, "talos"),
        (&renamed, "talos"),
        (&debian, "systemd"),
        (&lanzaboote, "lanzaboote"),
        (&unknown, "unknown"),
    ] {
        let image = made.file(&lab, "image.efi");
        assert_eq!(verify(&lab, &image).code(0).json()["family"], family);
        assert_eq!(bootsurgeon!("inspect", image, "--json").code(0).json()["uki"]["family"], family);
        let text = bootsurgeon!("verify", image, "--cert", certificate(&lab), "--efivars", "none").code(0).out;
        for word in TALOS_WORDS {
            assert!(family == "talos" || !text.contains(word), "{family} {word}: {text}");
        }
        assert!(bootsurgeon!("inspect", image).code(0).out.contains(&format!("family         {family}")));
    }
}

/// lanzaboote's stub starts what lies beside it, if that has the hash that the stub states.
#[test]
fn issue15_1_what_a_lanzaboote_stub_points_to_is_verified() {
    let lab = Lab::new();
    let (kernel, initrd) = (b"the kernel", b"the initrd");
    let made = Made::debian("6.12.1-arm64")
        .instead(".linux", *b"\\EFI\\nixos\\kernel-6.12.efi")
        .instead(".initrd", *b"\\EFI\\nixos\\initrd-6.12.efi")
        .instead(".sdmagic", *b"")
        .with(".linuxh", Sha256::digest(kernel).to_vec())
        .with(".initrdh", Sha256::digest(initrd).to_vec());
    let stub = made.file(&lab, "nixos-generation-1.efi");
    let Some(esp) = debian_esp_of(&lab, 24, &[("nixos-generation-1.efi", &stub)]) else { return };
    let image = esp.to_str().unwrap();
    run_ok("mmd", &["-i", image, "::/EFI/nixos"]);
    let put = |name: &str, content: &[u8]| {
        let file = lab.path("content");
        std::fs::write(&file, content).unwrap();
        run_ok("mcopy", &["-o", "-i", image, file.to_str().unwrap(), &format!("::/EFI/nixos/{name}")]);
    };
    let judged = |code| check(&verify(&lab, &esp).code(code).json(), "initrd");
    assert!(judged(3).1.contains("EFI/nixos/kernel-6.12.efi is not on the ESP"));
    put("kernel-6.12.efi", kernel);
    put("initrd-6.12.efi", b"another");
    assert!(judged(3).1.contains("EFI/nixos/initrd-6.12.efi is not the initrd that the stub was made for"));
    put("initrd-6.12.efi", initrd);
    assert_eq!(judged(0).0, "pass");
    assert_eq!(check(&verify(&lab, &stub).code(0).json(), "initrd").0, "skip");

    // A newer generation whose initrd nobody copied.
    let newer =
        made.instead(".osrel", *b"ID=nixos\nVERSION_ID=26\n").instead(".initrd", *b"\\EFI\\nixos\\initrd-2.efi");
    let newer = newer.file(&lab, "new.efi");
    for more in [&["--dry-run"][..], &[]] {
        let args = crate::args!["swap", esp, newer, "--cert", certificate(&lab), "--yes"];
        let more: Vec<std::ffi::OsString> = more.iter().map(Into::into).collect();
        crate::cli::run(&[&args[..], &more].concat()).fails(3, &["EFI/nixos/initrd-2.efi is not on the ESP"]);
    }
    put("initrd-2.efi", initrd);
    bootsurgeon!("swap", esp, newer, "--cert", certificate(&lab), "--yes").code(0);
}

/// A FAT image like the ESP of a machine with Debian, with these files in `EFI/Linux`.
fn debian_esp(lab: &Lab, files: &[(&str, &Path)]) -> Option<std::path::PathBuf> {
    debian_esp_of(lab, 128, files)
}

/// The same of so many MiB; FAT32 where there are enough for it.
pub(crate) fn debian_esp_of(lab: &Lab, mib: u64, files: &[(&str, &Path)]) -> Option<std::path::PathBuf> {
    if !tools(&["mkfs.vfat", "mmd", "mcopy"]) {
        return None;
    }
    let esp = lab.path("esp.img");
    std::fs::File::create(&esp).unwrap().set_len(mib << 20).unwrap();
    let image = esp.to_str().unwrap();
    let kind = if mib >= 64 { "32" } else { "16" };
    run_ok("mkfs.vfat", &["-F", kind, "-s", "1", "-n", "ESP", image]);
    run_ok("mmd", &["-i", image, "::/EFI", "::/EFI/BOOT", "::/EFI/Linux", "::/loader"]);
    let machine = files.first().and_then(|(_, file)| Head::read(&std::fs::read(file).unwrap()).ok()?.arch());
    let arch = machine.unwrap_or(Arch::Arm64);
    crate::cli::put(&esp, 0, &format!("EFI/BOOT/{}", arch.removable_loader()), &systemd_boot("257.9-1~deb13u1", arch));
    for (name, file) in files {
        run_ok("mcopy", &["-i", image, file.to_str().unwrap(), &format!("::/EFI/Linux/{name}")]);
    }
    Some(esp)
}

#[test]
fn issue15_4_kernels_of_one_debian_release_are_no_duplicates() {
    let lab = Lab::new();
    let names = ["4f5e-6.10.9-arm64.efi", "4f5e-6.11.7-arm64.efi", "4f5e-6.12.1-arm64.efi"];
    let files: Vec<_> = names.iter().map(|n| Made::debian(&n[5..n.len() - 4]).file(&lab, n)).collect();
    let listed: Vec<_> = names.iter().copied().zip(files.iter().map(std::path::PathBuf::as_path)).collect();
    let Some(esp) = debian_esp(&lab, &listed) else { return };
    let status = bootsurgeon!("status", esp, "--json").code(0).json();
    assert!(status["files"].as_array().unwrap().iter().all(|f| f["duplicate_of"].is_null()), "{status:#}");
    assert_eq!(status["boot"]["selected"], names[2]);

    let new = Made::debian("6.12.2-arm64").file(&lab, "new.efi");
    let args = crate::args!["swap", esp, new, "--cert", certificate(&lab), "--yes"];
    let dry = crate::cli::run(&[&args[..], &crate::args!["--dry-run", "--json"]].concat()).code(0).json();
    assert_eq!(dry["plan"]["target"], "4f5e-6.12.2-arm64.efi");
    assert_eq!(dry["plan"]["disable"], serde_json::json!([]));
    let ran = crate::cli::run(&args).code(0);
    for word in TALOS_WORDS {
        assert!(!ran.out.contains(word) && !ran.err.contains(word), "{word}: {}{}", ran.out, ran.err);
    }
    let status = bootsurgeon!("status", esp, "--json").code(0).json();
    assert_eq!(status["boot"]["selected"], "4f5e-6.12.2-arm64.efi");
    let menu = status["boot"]["menu"].as_array().unwrap();
    assert_eq!(menu.len(), 3, "{status:#}");

    // Nor does pruning take what a package manager put there; a copy of the same kernel goes.
    let copy = Made::debian("6.12.2-arm64").with(".splash", *b"BM").file(&lab, "copy.efi");
    run_ok("mcopy", &["-i", esp.to_str().unwrap(), copy.to_str().unwrap(), "::/EFI/Linux/4f5e-6.12.2-arm64~1.efi"]);
    let pruned = bootsurgeon!("prune", esp, "--yes", "--json").code(0).json();
    let renamed: Vec<_> = pruned["plan"]["renames"].as_array().unwrap().iter().map(|r| r["from"].clone()).collect();
    assert_eq!(renamed, ["4f5e-6.12.2-arm64~1.efi"], "{pruned:#}");
}

#[test]
fn issue15_5_a_schematic_without_its_text_cannot_be_compared() {
    let lab = Lab::new();
    let (extension, schematic) = layers();
    let yaml = extensions_yaml(&[("tailscale", "1.90.6")], SCHEMATIC);
    let yaml = &yaml[..yaml.find("      extraInfo").unwrap()];
    let made = Made::talos("v1.12.4", &[("0.sqsh", &extension), ("1.sqsh", &schematic)], yaml);
    expect(&lab, &made, "schematic", "skip", "cannot be compared");
}

#[test]
fn r_particleos_64_more_than_25_sections_are_worth_a_warning() {
    let lab = Lab::new();
    let many = (0..20).fold(Made::debian("6.12.1-arm64"), |m, i| m.with(&format!(".dtb{i}"), *b"x"));
    expect(&lab, &many, "sections", "warn", "28 sections");
}

#[test]
fn r_talos_8097_changed_after_signing_comes_before_nothing_in_db() {
    let lab = Lab::new();
    let image = Made::debian("6.12.1-arm64").file(&lab, "image.efi");
    let mut bytes = std::fs::read(&image).unwrap();
    let at = bytes.windows(9).position(|w| w == b"root=UUID").unwrap();
    bytes[at] = b'R';
    std::fs::write(&image, bytes).unwrap();
    let vars = crate::support::fixtures().join("efivars/secureboot-on");
    let cert = certificate(&lab);
    let report = bootsurgeon!("verify", image, "--cert", cert, "--efivars", vars, "--json").code(3).json();
    let (status, detail) = check(&report, "authenticode-signer");
    assert!(status == "fail" && detail.contains("made for another image"), "{detail}");
    // With signature problems waved through, the firmware still has the last word, and says why.
    let disk = lab.fixture("disk-512.img.zst");
    let ran = bootsurgeon!("swap", disk, image, "--cert", cert, "--efivars", vars, "--allow-untrusted", "--yes");
    ran.code(4).says(&["changed after it was signed"]);
}

#[test]
fn issue15_5_an_iso_without_rock_ridge_holds_one_image() {
    let lab = Lab::new();
    if !tools(&["xorriso", "mkfs.vfat", "mmd", "mcopy"]) {
        return;
    }
    let uki = Made::debian("6.12.1-arm64").file(&lab, "Debian-6.12.1-arm64.efi");
    let tree = lab.path("tree");
    std::fs::create_dir_all(tree.join("EFI/Linux")).unwrap();
    std::fs::copy(&uki, tree.join("EFI/Linux/Debian-6.12.1-arm64.efi")).unwrap();
    let fat = tree.join("efiboot.img");
    std::fs::File::create(&fat).unwrap().set_len(8 << 20).unwrap();
    let image = fat.to_str().unwrap();
    run_ok("mkfs.vfat", &[image]);
    run_ok("mmd", &["-i", image, "::/EFI", "::/EFI/Linux"]);
    run_ok("mcopy", &["-i", image, uki.to_str().unwrap(), "::/EFI/Linux/Debian-6.12.1-arm64.efi"]);
    let iso = lab.path("image.iso");
    let options = ["-as", "mkisofs", "--norock", "-iso-level", "3", "-e", "efiboot.img", "-no-emul-boot", "-o"];
    run_ok("xorriso", &[&options[..], &[iso.to_str().unwrap(), tree.to_str().unwrap()]].concat());
    let found = bootsurgeon!("inspect", iso, "--json").code(0).json();
    assert_eq!(found["ukis"].as_array().unwrap().len(), 1, "{found:#}");
    let report = verify(&lab, &iso).code(0).json();
    assert_eq!(check(&report, "iso-copies").0, "pass");
    for name in ["Debian-6.12.1-arm64", "DEBIAN_6.EFI", "DEBIAN_6_12_1_ARM64.EFI"] {
        let ran =
            bootsurgeon!("verify", iso, "--uki", name, "--cert", certificate(&lab), "--efivars", "none", "--json");
        assert!(ran.code == 0 || name == "DEBIAN_6.EFI", "{name}: {}", ran.err);
    }
    // Other bytes under another name are another image.
    let other = Made::debian("6.12.2-arm64").file(&lab, "other.efi");
    run_ok("mcopy", &["-o", "-i", image, other.to_str().unwrap(), "::/EFI/Linux/Debian-6.12.1-arm64.efi"]);
    run_ok("xorriso", &[&options[..], &[iso.to_str().unwrap(), tree.to_str().unwrap()]].concat());
    verify(&lab, &iso).fails(2, &["holds 2 UKIs"]);
}

#[test]
fn issue15_7_a_change_of_lockdown_is_said() {
    let lab = Lab::new();
    let (extension, schematic) = layers();
    let yaml = extensions_yaml(&[("tailscale", "1.90.6")], SCHEMATIC);
    let plain = Made::talos("v1.12.4", &[("0.sqsh", &extension), ("1.sqsh", &schematic)], &yaml);
    let locked = plain.clone().instead(".cmdline", *b"talos.platform=metal console=tty0 lockdown=confidentiality");
    let (plain, locked) = (plain.file(&lab, "plain.efi"), locked.file(&lab, "locked.efi"));
    let changes = bootsurgeon!("diff", plain, locked, "--json").code(0).json()["changes"].clone();
    let change = changes.as_array().unwrap().iter().find(|c| c["what"] == "kernel lockdown of profile 0");
    assert_eq!(change.unwrap()["new"], "confidentiality", "{changes:#}");
    let Some(esp) = debian_esp(&lab, &[("Talos-v1.12.4.efi", &plain)]) else { return };
    let ran = bootsurgeon!("swap", esp, locked, "--cert", certificate(&lab), "--dry-run", "--json");
    let warnings = ran.code(0).json()["warnings"].clone();
    assert!(warnings.to_string().contains("lockdown changes from not set to confidentiality"), "{warnings:#}");
}

#[test]
fn issue17_a_file_compressed_with_zisofs_is_not_taken_for_an_image() {
    let lab = Lab::new();
    if !tools(&["xorriso", "mkfs.vfat", "mmd", "mcopy"]) {
        return;
    }
    let tree = lab.path("tree");
    std::fs::create_dir_all(tree.join("EFI/Linux")).unwrap();
    let made = Made::debian("6.12.1-arm64").with(".splash", vec![0; 300_000]);
    let uki = made.file(&lab, "image.efi");
    std::fs::copy(&uki, tree.join("EFI/Linux/Debian.efi")).unwrap();
    let build = |name: &str, extra: &[&str]| {
        let iso = lab.path(name);
        let base = ["-outdev", iso.to_str().unwrap(), "-map", tree.to_str().unwrap(), "/"];
        let filter = ["-set_filter_r", "--zisofs", "/EFI/Linux", "--"];
        run_ok("xorriso", &[&base[..], extra, &filter].concat());
        iso
    };
    let out = lab.path("out.efi");
    let ran = bootsurgeon!("extract", build("alone.iso", &[]), "--out", out);
    ran.fails(3, &["compressed with zisofs"]);
    assert!(!out.exists());
    // The copy that firmware boots is there as it is.
    let fat = tree.join("efiboot.img");
    std::fs::File::create(&fat).unwrap().set_len(8 << 20).unwrap();
    let image = fat.to_str().unwrap();
    run_ok("mkfs.vfat", &[image]);
    run_ok("mmd", &["-i", image, "::/EFI", "::/EFI/Linux"]);
    run_ok("mcopy", &["-i", image, uki.to_str().unwrap(), "::/EFI/Linux/Debian.efi"]);
    let iso = build("both.iso", &["-boot_image", "any", "efi_path=/efiboot.img"]);
    bootsurgeon!("extract", iso, "--out", out).code(0);
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&uki).unwrap());
}

#[test]
fn issue17_a_small_image_packed_with_the_largest_dictionary_is_unpacked() {
    let lab = Lab::new();
    if !tools(&["xz", "mkfs.vfat"]) {
        return;
    }
    let uki = Made::debian("6.12.1-arm64").file(&lab, "image.efi");
    let Some(esp) = debian_esp_of(&lab, 24, &[("Debian.efi", &uki)]) else { return };
    for options in [&["-9"][..], &["-9e"], &["-9", "--check=sha256"], &["--lzma2=preset=9,dict=1GiB"]] {
        let packed = lab.path("esp.img.xz");
        let done = Command::new("xz").args(options).args(["-c", "-T1"]).arg(&esp).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        std::fs::write(&packed, done.stdout).unwrap();
        let found = bootsurgeon!("inspect", packed, "--json").code(0).json();
        assert_eq!(found["packed"], "xz");
        assert_eq!(found["ukis"][0]["name"], "Debian.efi", "{options:?}");
    }
}

/// systemd's stub looks beside the file it was started from, by that file's name.
#[test]
fn issue15_5_addons_are_not_left_behind_in_silence() {
    let lab = Lab::new();
    let old = Made::debian("6.12.1-arm64").file(&lab, "old.efi");
    let new = Made::debian("6.12.2-arm64").file(&lab, "new.efi");
    let (name, usual) = ("4f5e-6.12.1-arm64.efi", "4f5e-6.12.2-arm64.efi");
    let Some(esp) = debian_esp_of(&lab, 24, &[(name, &old)]) else { return };
    let image = esp.to_str().unwrap();
    let beside = |uki: &str, file: &str| {
        let directory = format!("::/EFI/Linux/{uki}.extra.d");
        let _there_already = Command::new("mmd").args(["-D", "s", "-i", image, &directory]).output().unwrap();
        run_ok("mcopy", &["-i", image, old.to_str().unwrap(), &format!("{directory}/{file}")]);
    };
    let swap = |more: &[&str]| {
        let args = crate::args!["swap", esp, new, "--cert", certificate(&lab), "--yes", "--json"];
        let more: Vec<std::ffi::OsString> = more.iter().map(Into::into).collect();
        crate::cli::run(&[&args[..], &more].concat())
    };
    let plan = |more: &[&str]| swap(&[more, &["--dry-run"]].concat()).code(0).json();
    // What the stub passes over is no addon.
    beside(name, "README");
    assert_eq!(plan(&[])["plan"]["target"], usual);
    beside(name, "root.addon.efi");
    // The usual name would lose it, and so would one that somebody chooses.
    assert_eq!(plan(&[])["plan"]["target"], name);
    for more in [&[][..], &["--dry-run"]] {
        let ran = swap(&[&["--target", "other.efi"], more].concat());
        ran.fails(4, &["root.addon.efi", "would start without them", "leave out --target"]);
    }
    // Copied first, as the refusal says, it is there under the new name.
    beside("other.efi", "root.addon.efi");
    let warnings = plan(&["--target", "other.efi"])["warnings"].to_string();
    assert!(warnings.contains("other.efi.extra.d holds root.addon.efi"), "{warnings}");
    let done = swap(&[]).code(0).json();
    assert_eq!(done["plan"]["target"], name);
    let warnings = done["warnings"].to_string();
    assert!(warnings.contains("root.addon.efi: systemd's stub adds them to the image"), "{warnings}");
    assert_eq!(bootsurgeon!("status", esp, "--json").code(0).json()["boot"]["selected"], name);
}
