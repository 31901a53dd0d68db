//! The fixtures are what their makers said, and the helpers that unpack and judge them work.

use std::path::Path;

use crate::support::{Lab, fixtures};

/// First byte of the ESP on every disk fixture that has one.
const ESP: u64 = 1024 * 1024;

#[test]
fn every_fixture_matches_its_checksum() {
    let sums = std::fs::read_to_string(fixtures().join("SHA256SUMS")).unwrap();
    let mut count = 0;
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        assert_eq!(crate::support::sha256(&fixtures().join(name)), sum, "{name}");
        count += 1;
    }
    assert!(count > 40, "{count} fixtures");
}

#[test]
fn unpacked_volumes_pass_the_tools_that_judge_them() {
    let lab = Lab::new();
    for name in ["fat12", "fat16", "fat32", "fat32-few-clusters"] {
        crate::support::fsck_clean(&lab.fixture(&format!("{name}.img.zst")), 0);
    }
    for name in ["disk-512", "disk-4096", "disk-two-esps"] {
        crate::support::fsck_clean(&lab.fixture(&format!("disk/{name}.img.zst")), ESP);
    }
    crate::support::gpt_clean(&lab.path("disk-512.img"));
}

#[test]
fn other_tools_read_the_ukis_back() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let installed = lab.fixture("talos-v1.12.4-arm64-plain.efi.zst");
    if crate::support::tool("mcopy") {
        let path = "EFI/Linux/Talos-v1.12.4.efi";
        assert!(crate::support::mtools_list(&disk, ESP).iter().any(|name| name == path));
        assert_eq!(crate::support::mtools_read(&disk, ESP, path).unwrap(), std::fs::read(&installed).unwrap());
        assert!(crate::support::mtools_read(&disk, ESP, "EFI/Linux/absent.efi").is_none());
    }
    if crate::support::tool("sbverify") {
        let certificate = |name: &str| fixtures().join(Path::new("keys")).join(name);
        assert!(crate::support::sbverify(&installed, &certificate("test-signing.crt")));
        assert!(!crate::support::sbverify(&installed, &certificate("test-other-signing.crt")));
    }
    if crate::support::tool("bsdtar") {
        let iso = lab.fixture("secureboot-arm64.iso.zst");
        let uki = lab.fixture("talos-v1.12.4-arm64-iso.efi.zst");
        assert_eq!(crate::support::bsdtar_read(&iso, "EFI/Linux/Talos-v1.12.4.efi"), std::fs::read(uki).unwrap());
    }
}
