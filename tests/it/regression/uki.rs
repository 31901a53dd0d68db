//! UKIs of every maker: good ones are taken, bad ones are not.

use crate::cli::Ran;
use crate::makers::{DEFAULT_PATHS, Made, bz_image, certificate};
use crate::support::{Lab, tool};
use bootsurgeon::pcr::Bank;
use bootsurgeon::testkit::squashfs;
use bootsurgeon::testkit::uki::{cpio, extensions_yaml};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// `verify --json`, with the maker's certificate trusted and no variables.
fn verify(lab: &Lab, image: &Path) -> Ran {
    bootsurgeon!("verify", image, "--cert", certificate(lab), "--efivars", "none", "--json")
}

/// A check's status and detail.
fn check(report: &Value, id: &str) -> (String, String) {
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
fn issue15_2_every_compression_of_the_kernel_is_read() {
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
            expect(&lab, &debian.clone().instead(".initrd", pack(command)), "initrd", "pass", "1 archives, 2 entries");
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
        ("is cut", good[..used as usize - 1].to_vec()),
        ("is cut", good[..100].to_vec()),
        ("too short", good[..50].to_vec()),
        ("too short", Vec::new()),
        ("no squashfs image", vec![7; 4096]),
        ("is cut", with(40, 1 << 40)),
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
