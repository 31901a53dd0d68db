//! UKIs of every maker: good ones are taken, bad ones are not.

use crate::cli::Ran;
use crate::makers::{DEFAULT_PATHS, Made, certificate};
use crate::support::Lab;
use bootsurgeon::pcr::Bank;
use serde_json::Value;
use std::path::Path;

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
