//! Boot loaders that the firmware does not start, with Secure Boot on.

use super::way::{refused, shim, status};
use crate::board::{Board, ESP_A};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::signing::{SigningKey, sign_pe};
use bootsurgeon::testkit::uki::Builder;
use serde_json::Value;

const SECURITY: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";
const SHIM_LOCK: &str = "605dab50-e046-4300-abb6-3dd810dd8b23";
const X509: uuid::Uuid = uuid::uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");

/// An EFI_SIGNATURE_LIST with one certificate.
fn list(certificate: &[u8]) -> Vec<u8> {
    let one = 16 + certificate.len() as u32;
    let head = [28 + one, 0, one].map(u32::to_le_bytes).concat();
    [&X509.to_bytes_le()[..], &head, &[0; 16], certificate].concat()
}

fn systemd_boot() -> Vec<u8> {
    let sbat = "sbat,1,SBAT Version,sbat,1,https://x\nsystemd-boot,1,The systemd Developers,systemd,257.9,https://y\n";
    Builder::new(Arch::Arm64)
        .section(".text", vec![0xC3; 512])
        .section(".sdmagic", "#### LoaderInfo: systemd-boot 257.9 ####")
        .section(".sbat", sbat)
        .build()
}

/// A board with Secure Boot on, whose db stands for the images and for this key.
pub(super) fn secured(key: &SigningKey) -> (Board, String) {
    let board = Board::new();
    let disk = board.disk("nvme0n1", ESP_A);
    let vars = crate::support::fixtures().join("efivars/secureboot-on");
    board.variables_of(&vars);
    let db = std::fs::read(vars.join(format!("db-{SECURITY}"))).unwrap();
    board.variable("db", SECURITY, 0x27, &[&db[4..], &list(&key.certificate_der().unwrap())].concat());
    (board, disk)
}

fn finding(board: &Board, disk: &str, id: &str) -> Option<Value> {
    let one = |report: Value| report["findings"].as_array().unwrap().iter().find(|f| f["id"] == id).cloned();
    let by_status = one(status(board, disk));
    assert_eq!(
        by_status,
        one(board.json(&["doctor", disk, "--efivars", "vars", "--json"])).map(|mut f| {
            f["subject"] = Value::Null;
            f
        })
    );
    by_status
}

/// Asserts that the loader is objected to with these words and nothing else is done.
fn objected(board: &Board, disk: &str, words: &str) {
    let found = finding(board, disk, "loader-refused").unwrap();
    assert!(found["what"].as_str().unwrap().contains(words), "{found}");
    refused(board, disk, words);
}

fn accepted(board: &Board, disk: &str) {
    assert_eq!(finding(board, disk, "loader-refused"), None);
    let new = board.lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    let report = board.json(&["swap", disk, new.to_str().unwrap(), "--efivars", "vars", "--json", "--dry-run"]);
    assert_eq!(report["plan"]["boot_after"], "Talos-v1.12.4.efi");
}

/// Foxboron/sbctl#479: the images are signed and the boot loader is not, and "nothing is wrong".
#[test]
fn rsbctl_479_a_boot_loader_that_the_firmware_refuses_is_named() {
    let (key, other) = (SigningKey::test("loader").unwrap(), SigningKey::other_test("stranger").unwrap());
    let (board, disk) = secured(&key);
    let install = |loader: &[u8]| board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", loader);
    let good = sign_pe(systemd_boot(), &key).unwrap();
    install(&good);
    accepted(&board, &disk);
    install(&systemd_boot());
    objected(&board, &disk, "it is not signed");
    install(&sign_pe(systemd_boot(), &other).unwrap());
    objected(&board, &disk, "no certificate or hash in the firmware's db covers it");
    let mut changed = good.clone();
    let at = changed.windows(4).position(|w| w == b"257.").unwrap();
    changed[at] = b'9';
    install(&changed);
    objected(&board, &disk, "was changed after it was signed");
    // The variables of another machine refuse nothing, and neither does a firmware that does not look.
    install(&systemd_boot());
    board.flag("SecureBoot", 0);
    accepted(&board, &disk);
    board.flag("SecureBoot", 1);
    let new = board.lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    board.json(&["swap", &disk, new.to_str().unwrap(), "--allow-untrusted", "--json", "--dry-run"]);
}

/// nix-community/lanzaboote#252: the key of the boot loader was revoked.
#[test]
fn rlanzaboote_252_a_revoked_boot_loader_and_one_below_the_sbat_level() {
    let key = SigningKey::test("loader").unwrap();
    let (board, disk) = secured(&key);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &sign_pe(systemd_boot(), &key).unwrap());
    accepted(&board, &disk);
    board.variable("dbx", SECURITY, 0x27, &list(&key.certificate_der().unwrap()));
    objected(&board, &disk, "is in dbx");
    std::fs::remove_file(board.lab.path("vars").join(format!("dbx-{SECURITY}"))).unwrap();

    // The firmware does not look at SBAT data, and shim does.
    board.variable("SbatLevelRT", SHIM_LOCK, 6, b"sbat,1,2026010100\nsystemd-boot,2\n");
    accepted(&board, &disk);
    let note = finding(&board, &disk, "loader-below-sbat-level").unwrap();
    assert!(note["what"].as_str().unwrap().contains("its systemd-boot is of SBAT generation 1"), "{note}");
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &sign_pe(shim(), &key).unwrap());
    board.replace(&disk, "EFI/BOOT", "grubaa64.efi", &sign_pe(systemd_boot(), &key).unwrap());
    objected(&board, &disk, "shim refuses to start EFI/BOOT/grubaa64.efi");
    board.variable("SbatLevelRT", SHIM_LOCK, 6, b"sbat,1,2026010100\n");
    accepted(&board, &disk);
    // Whose certificates shim brings along is not known here; that it wants a signature is.
    board.replace(&disk, "EFI/BOOT", "grubaa64.efi", &systemd_boot());
    objected(&board, &disk, "it is not signed");
    board.variable("MokListRT", SHIM_LOCK, 6, &[0]);
    accepted(&board, &disk);
}

/// siderolabs/talos#10205: another signer changes PCR 7, and disks sealed to it stay locked.
#[test]
fn rtalos_10205_another_signer_changes_pcr_7() {
    let key = SigningKey::test("loader").unwrap();
    let (board, disk) = secured(&key);
    let uki = |name: &str| board.lab.fixture(&format!("talos-v1.12.4-arm64-{name}.efi.zst")).display().to_string();
    let check = |image: &str, more: &[&str]| {
        let args = ["verify", image, "--installed", &disk, "--allow-untrusted", "--json"];
        let out = board.run(&[&args, more].concat());
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        let check = report["checks"].as_array().unwrap().iter().find(|c| c["id"] == "pcr7").cloned().unwrap();
        (check["status"].as_str().unwrap().to_owned(), check["detail"].as_str().unwrap().to_owned(), out.status.code())
    };
    let (same, other) = (uki("uki"), uki("other-signer"));
    let none = ["--efivars", "none"];
    assert_eq!(check(&same, &none).0, "pass");
    let (status, detail, code) = check(&other, &none);
    assert_eq!((status.as_str(), code), ("warn", Some(0)), "{detail}");
    assert!(detail.contains("TEST other signing key") && detail.contains("stay locked"), "{detail}");
    assert_eq!(check(&other, &["--efivars", "none", "--require-pcr-key"]).2, Some(3));
    // db tells which of its entries stands for each.
    let (status, detail, _) = check(&same, &["--efivars", "vars"]);
    assert!(status == "pass" && detail.contains("One entry of the firmware's db"), "{detail}");
    let db = std::fs::read(board.lab.path("vars").join(format!("db-{SECURITY}"))).unwrap();
    let pem = std::fs::read(crate::support::fixtures().join("keys/test-other-signing.crt")).unwrap();
    let other_key = bootsurgeon::trust::parse_certificates(&pem).unwrap().remove(0);
    board.variable("db", SECURITY, 0x27, &[&db[4..], &list(other_key.der())].concat());
    let (status, detail, _) = check(&other, &["--efivars", "vars"]);
    assert!(status == "warn" && detail.contains("The firmware's db covers the image by"), "{detail}");
    let report = board.json(&["diff", &same, &other, "--json"]);
    assert!(report["changes"].to_string().contains("PCR 7"), "{report}");
}
