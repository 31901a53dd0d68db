//! Agreement with systemd-measure (PCR 11), wherever it is installed, and with efitools (db, dbx, `.auth` files), which
//! has to be installed where `BOOTSURGEON_SIGNED_CORPUS` is set (see `tests/corpus/fetch-signed.sh`).

use bootsurgeon::authenticode::{DigestSink, ImageDigest, parse_table, verify};
use bootsurgeon::block::Sink;
use bootsurgeon::efivars::{EfiVars, GLOBAL, SECURITY_DATABASE, SHIM};
use bootsurgeon::pcr::{Bank, BankHashes, policy_digest, values};
use bootsurgeon::pe::Head;
use bootsurgeon::testkit::signing::{SigningKey, sign_pe};
use bootsurgeon::trust::{Anchor, Firmware, SignatureListEntry, parse_signature_lists};
use std::path::{Path, PathBuf};
use std::process::Command;

fn corpus() -> Option<PathBuf> {
    let corpus = std::env::var_os("BOOTSURGEON_SIGNED_CORPUS").map(PathBuf::from);
    if corpus.is_none() {
        crate::support::skip(
            "BOOTSURGEON_SIGNED_CORPUS names no corpus; make one with tests/corpus/fetch-signed.sh DIR",
        );
    }
    corpus
}

fn run(dir: &Path, program: &str, args: &[&str]) -> Vec<u8> {
    let output =
        Command::new(program).args(args).current_dir(dir).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    output.stdout
}

fn digest(file: &[u8]) -> ImageDigest {
    let mut sink = DigestSink::new(&Head::read(&file.to_vec()).unwrap()).unwrap();
    sink.chunk(file).unwrap();
    sink.finish().unwrap()
}

/// An efivars directory with this db and dbx, as efitools write them.
fn efivars(dir: &Path, lists: &[(&str, &[&str])]) -> PathBuf {
    let vars = tempfile::Builder::new().prefix("vars").tempdir_in(dir).unwrap().keep();
    for (name, files) in lists {
        let mut bytes = vec![0x27, 0, 0, 0];
        for file in *files {
            bytes.extend(std::fs::read(dir.join(file)).unwrap());
        }
        std::fs::write(vars.join(format!("{name}-{SECURITY_DATABASE}")), bytes).unwrap();
    }
    std::fs::write(vars.join(format!("SecureBoot-{GLOBAL}")), [6, 0, 0, 0, 1]).unwrap();
    vars
}

#[test]
fn lists_made_with_efitools_are_read_and_decide() {
    let Some(corpus) = corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (key, other) = (SigningKey::test("signer").unwrap(), SigningKey::other_test("other").unwrap());
    // hash-to-efi-sig-list writes zeros for images of other architectures than its own.
    let image = sign_pe(std::fs::read(corpus.join("files/amd64-systemd-bootx64.efi")).unwrap(), &key).unwrap();
    for (name, key) in [("key", &key), ("other", &other)] {
        std::fs::write(dir.join(format!("{name}.pem")), key.certificate_pem().unwrap()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.private_key_pem()).unwrap();
        let (pem, esl) = (format!("{name}.pem"), format!("{name}.esl"));
        run(dir, "cert-to-efi-sig-list", &["-g", "11111111-2222-3333-4444-555555555555", &pem, &esl]);
        run(dir, "cert-to-efi-hash-list", &["-s", "256", &pem, &format!("{name}-for-ever.esl")]);
        let since = ["-t", "2020-01-02 03:04:05", "-s", "256", &pem, &format!("{name}-since.esl")];
        run(dir, "cert-to-efi-hash-list", &since);
    }
    std::fs::write(dir.join("image.efi"), &image).unwrap();
    run(dir, "hash-to-efi-sig-list", &["image.efi", "image.esl"]);
    let hashes = parse_signature_lists(&std::fs::read(dir.join("image.esl")).unwrap()).unwrap();
    assert_eq!(hashes, [SignatureListEntry::ImageSha256(digest(&image).sha256)], "hash-to-efi-sig-list");

    run(dir, "sign-efi-sig-list", &["-k", "other.key", "-c", "other.pem", "db", "key.esl", "db.auth"]);
    let anchors = Anchor::from_db_auth(&std::fs::read(dir.join("db.auth")).unwrap()).unwrap();
    assert_eq!(anchors.len(), 1);
    assert_eq!(anchors[0].certificate, key.certificate().unwrap());

    // db, dbx, trusted, revoked
    let matrix: [(&[&str], &[&str], bool, bool); 8] = [
        (&["key.esl"], &[], true, false),
        (&["other.esl"], &[], false, false),
        (&["other.esl", "key.esl"], &["other.esl"], true, false),
        (&["key.esl"], &["key.esl"], true, true),
        (&["key.esl"], &["image.esl"], true, true),
        (&["key.esl"], &["other.esl", "key-for-ever.esl"], true, true),
        (&["key.esl"], &["key-since.esl"], true, true),
        (&["key.esl"], &["other-for-ever.esl", "other-since.esl"], true, false),
    ];
    for (db, dbx, trusted, revoked) in matrix {
        let vars = efivars(dir, &[("db", db), ("dbx", dbx)]);
        let firmware = Firmware::read(&EfiVars::open(Some(&vars))).unwrap();
        assert_eq!(firmware.secure_boot, Some(true));
        let digest = digest(&image);
        let signatures = parse_table(&digest.certificate_table).unwrap();
        let anchors = firmware.anchors();
        let certificates: Vec<_> = anchors.iter().map(|a| &a.certificate).collect();
        let outcomes = verify(&signatures, &digest.sha256, &certificates);
        assert_eq!(outcomes[0].is_trusted(), trusted, "db {db:?}");
        let reasons = firmware.dbx.unwrap().reasons(&digest, &outcomes);
        assert_eq!(!reasons.is_empty(), revoked, "dbx {dbx:?}: {reasons:?}");
    }
}

/// The whole matrix through the program: what the firmware's lists, its SBAT level and Secure Boot make of one UKI.
#[test]
fn verdicts_by_db_dbx_sbat_level_and_secure_boot() {
    if corpus().is_none() {
        return;
    }
    let lab = crate::support::Lab::new();
    let dir = lab.path("lists");
    std::fs::create_dir(&dir).unwrap();
    // hash-to-efi-sig-list writes zeros for images of other architectures than its own.
    let image = crate::cli::uki(&lab, "v1.12.4-amd64-uki");
    for (name, certificate) in [("signer", "test-signing.crt"), ("other", "test-other-signing.crt")] {
        std::fs::copy(crate::cli::fixture("keys").join(certificate), dir.join(format!("{name}.pem"))).unwrap();
        let (pem, esl) = (format!("{name}.pem"), format!("{name}.esl"));
        run(&dir, "cert-to-efi-sig-list", &["-g", "11111111-2222-3333-4444-555555555555", &pem, &esl]);
        run(&dir, "cert-to-efi-hash-list", &["-s", "256", &pem, &format!("{name}-tbs.esl")]);
    }
    run(&dir, "hash-to-efi-sig-list", &[image.to_str().unwrap(), "image.esl"]);

    // systemd's stub 257 has systemd-stub of generation 1 in its .sbat.
    let (old, new) = ("sbat,1,2024010900\nshim,4\ngrub,3\n", "sbat,1,2030010100\nsystemd-stub,2\n");
    let newer_format = "sbat,2,2030010100\n";
    // db, dbx, SBAT level, Secure Boot; signer, revocation, accepted
    type Case<'a> = (&'a [&'a str], &'a [&'a str], Option<&'a str>, bool, &'a str, &'a str, bool);
    let matrix: [Case<'_>; 14] = [
        (&["signer.esl"], &[], None, true, "pass", "pass", true),
        (&["signer.esl"], &[], Some(old), true, "pass", "pass", true),
        (&["signer.esl"], &[], Some(new), true, "pass", "fail", false),
        (&["signer.esl"], &[], Some(newer_format), true, "pass", "fail", false),
        (&["signer.esl"], &[], Some(new), false, "pass", "warn", true),
        (&["signer.esl"], &["image.esl"], Some(old), true, "pass", "fail", false),
        (&["signer.esl"], &["image.esl"], Some(old), false, "pass", "warn", true),
        (&["signer.esl"], &["signer.esl"], None, true, "pass", "fail", false),
        (&["signer.esl"], &["signer-tbs.esl"], None, true, "pass", "fail", false),
        (&["signer.esl"], &["other.esl", "other-tbs.esl"], Some(old), true, "pass", "pass", true),
        (&["signer.esl"], &["other.esl"], Some(new), true, "pass", "fail", false),
        (&["other.esl"], &[], None, true, "fail", "pass", false),
        (&["other.esl", "signer.esl"], &["other.esl"], Some(old), true, "pass", "pass", true),
        (&["image.esl"], &[], None, true, "pass", "pass", true),
    ];
    for (db, dbx, level, secure_boot, signer, revocation, accepted) in matrix {
        let vars = efivars(&dir, &[("db", db), ("dbx", dbx)]);
        std::fs::write(vars.join(format!("SecureBoot-{GLOBAL}")), [6, 0, 0, 0, u8::from(secure_boot)]).unwrap();
        if let Some(level) = level {
            std::fs::write(vars.join(format!("SbatLevelRT-{SHIM}")), [&[6, 0, 0, 0], level.as_bytes()].concat())
                .unwrap();
        }
        let case = format!("db {db:?}, dbx {dbx:?}, SBAT level {level:?}, Secure Boot {secure_boot}");
        let ran = bootsurgeon!("verify", image, "--efivars", vars, "--json");
        let report = ran.code(if accepted { 0 } else { 3 }).json();
        let status = |id: &str| {
            let checks = report["checks"].as_array().unwrap();
            checks.iter().find(|c| c["id"] == id).unwrap()["status"].as_str().unwrap().to_owned()
        };
        assert_eq!(status("authenticode-signer"), signer, "{case}: {report:#}");
        assert_eq!(status("revocation"), revocation, "{case}: {report:#}");
        assert_eq!(report["verdict"] == "accept", accepted, "{case}: {report:#}");
        // The same level from a file says the same.
        if let Some(level) = level {
            std::fs::remove_file(vars.join(format!("SbatLevelRT-{SHIM}"))).unwrap();
            let file = lab.path("level.csv");
            std::fs::write(&file, level).unwrap();
            let again = bootsurgeon!("verify", image, "--efivars", vars, "--sbat-level", file, "--json").json();
            let revoked = |r: &serde_json::Value| {
                r["checks"].as_array().unwrap().iter().find(|c| c["id"] == "revocation").cloned()
            };
            assert_eq!(revoked(&again).unwrap()["status"], revocation, "{case}, from a file: {again:#}");
        }
    }
}

#[test]
fn pcr_11_equals_that_of_systemd_measure() {
    let Some(measure) = ["/usr/lib/systemd/systemd-measure", "/lib/systemd/systemd-measure"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
    else {
        crate::support::skip("tool missing: systemd-measure (package systemd, or systemd-ukify)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // What systemd 252 knows; newer versions know more and take these the same way.
    let sections: [(&str, Vec<u8>); 6] = [
        (".linux", vec![1; 70_000]),
        (".osrel", b"ID=talos\nVERSION_ID=v1.12.4\n".to_vec()),
        (".cmdline", b"console=ttyS0".to_vec()),
        (".initrd", vec![2; 12_345]),
        (".splash", vec![3; 99]),
        (".dtb", vec![4; 1]),
    ];
    let mut args = vec!["calculate".to_owned(), "--json=short".into()];
    for bank in Bank::ALL {
        args.push(format!("--bank={bank}"));
    }
    args.push("--phase=enter-initrd:leave-initrd:enter-machined".into());
    for (name, data) in &sections {
        let file = name.trim_start_matches('.');
        std::fs::write(dir.join(file), data).unwrap();
        args.push(format!("--{file}={file}"));
    }
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let theirs: serde_json::Value = serde_json::from_slice(&run(dir, measure, &args)).unwrap();

    let measured: Vec<_> = sections.iter().enumerate().map(|(i, (name, _))| ((*name).to_owned(), i)).collect();
    let hashes = sections.iter().enumerate().map(|(i, (_, data))| (i, BankHashes::of(data, &Bank::ALL))).collect();
    for bank in Bank::ALL {
        let ours = values(bank, &measured, &hashes, &bootsurgeon::pcr::TALOS_PHASES).unwrap();
        assert_eq!(theirs[bank.name()][0]["hash"], hex::encode(ours.last()), "{bank}");
        assert_eq!(policy_digest(bank, ours.last()).len(), 32);
    }
}
