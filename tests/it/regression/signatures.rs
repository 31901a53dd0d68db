//! Signatures by every kind of key and hash that tools sign with, and certificates with odd dates.

use crate::makers::Made;
use crate::support::{Lab, run, run_ok, tools};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A key and a self-signed certificate, by openssl.
fn key(lab: &Lab, name: &str, kind: &[&str]) -> (PathBuf, PathBuf) {
    let (key, certificate) = (lab.path(&format!("{name}.key")), lab.path(&format!("{name}.pem")));
    let subject = format!("/CN={name}");
    let files = ["-keyout", key.to_str().unwrap(), "-out", certificate.to_str().unwrap(), "-subj", &subject];
    run_ok("openssl", &[&["req", "-x509", "-nodes", "-days", "1000"], kind, &files].concat());
    (key, certificate)
}

fn sign(lab: &Lab, name: &str, (key, certificate): &(PathBuf, PathBuf), hash: &str, image: &Path) -> PathBuf {
    let signed = lab.path(&format!("{name}-{hash}.efi"));
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    let arguments = [
        "sign",
        "-certs",
        &path(certificate),
        "-key",
        &path(key),
        "-h",
        hash,
        "-in",
        &path(image),
        "-out",
        &path(&signed),
    ];
    run_ok("osslsigncode", &arguments);
    signed
}

/// Status and detail of the two checks about the signature, and the exit code.
fn verdict(image: &Path, certificate: &Path) -> ([(String, String); 2], i32) {
    let ran = bootsurgeon!("verify", image, "--cert", certificate, "--efivars", "none", "--json");
    let report: Value = ran.json();
    let check = |id: &str| {
        let all = report["checks"].as_array().unwrap();
        let found = all.iter().find(|c| c["id"] == id).unwrap();
        (found["status"].as_str().unwrap().to_owned(), found["detail"].as_str().unwrap().to_owned())
    };
    ([check("authenticode-digest"), check("authenticode-signer")], ran.code)
}

#[test]
fn issue17_signatures_by_every_key_and_hash_that_is_supported() {
    if !tools(&["openssl", "osslsigncode"]) {
        return;
    }
    let lab = Lab::new();
    let image = lab.path("plain.efi");
    std::fs::write(&image, Made::debian("6.12.1-arm64").unsigned()).unwrap();
    for (name, kind) in [
        ("rsa2048", &["-newkey", "rsa:2048"][..]),
        ("p256", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        ("p384", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ] {
        let pair = key(&lab, name, kind);
        for hash in ["sha256", "sha384", "sha512"] {
            let signed = sign(&lab, name, &pair, hash, &image);
            let ([digest, signer], code) = verdict(&signed, &pair.1);
            if hash == "sha512" && name != "rsa2048" {
                // Nothing is claimed of what is not supported: neither damage nor what firmware would do.
                assert_eq!((digest.0.as_str(), signer.0.as_str(), code), ("pass", "fail", 3), "{name} {hash}");
                assert!(
                    signer.1.contains("is not supported here") && signer.1.contains("is not known"),
                    "{}",
                    signer.1
                );
                assert!(!signer.1.contains("Fetch the image again"), "{}", signer.1);
                continue;
            }
            assert_eq!((digest.0.as_str(), signer.0.as_str(), code), ("pass", "pass", 0), "{name} {hash}: {signer:?}");
            // The image is still what the signature is about.
            let mut bytes = std::fs::read(&signed).unwrap();
            let at = bytes.windows(9).position(|w| w == b"root=UUID").unwrap();
            bytes[at] ^= 1;
            let changed = lab.path("changed.efi");
            std::fs::write(&changed, bytes).unwrap();
            let ([digest, _], code) = verdict(&changed, &pair.1);
            assert!(code == 3 && digest.1.contains("changed after it was signed"), "{name} {hash}: {}", digest.1);
        }
    }
}

#[test]
fn issue17_what_is_not_supported_is_not_called_wrong() {
    if !tools(&["openssl", "osslsigncode"]) {
        return;
    }
    let lab = Lab::new();
    let image = lab.path("plain.efi");
    std::fs::write(&image, Made::debian("6.12.1-arm64").unsigned()).unwrap();
    for (name, kind, what) in [
        ("rsa1024", &["-newkey", "rsa:1024"][..], "RSA key of 1024 bits"),
        ("p521", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"], "elliptic curve"),
    ] {
        let pair = key(&lab, name, kind);
        let ([digest, signer], code) = verdict(&sign(&lab, name, &pair, "sha256", &image), &pair.1);
        assert_eq!((digest.0.as_str(), signer.0.as_str(), code), ("pass", "fail", 3), "{name}: {signer:?}");
        assert!(signer.1.contains(what) && signer.1.contains("not supported here"), "{name}: {}", signer.1);
        assert!(!signer.1.contains("is wrong"), "{name}: {}", signer.1);
    }
    let pair = key(&lab, "old", &["-newkey", "rsa:2048"]);
    let ([digest, _], code) = verdict(&sign(&lab, "old", &pair, "sha1", &image), &pair.1);
    assert!(code == 3 && digest.1.contains("not supported here"), "{digest:?}");
    assert!(!digest.1.contains("firmware refuses") && !digest.1.contains("changed after"), "{digest:?}");
}

#[test]
fn issue17_certificates_dated_before_1970_are_certificates() {
    if !tools(&["openssl", "osslsigncode", "sbsign", "sbverify"]) {
        return;
    }
    let lab = Lab::new();
    let image = lab.path("plain.efi");
    std::fs::write(&image, Made::debian("6.12.1-arm64").unsigned()).unwrap();
    let config = lab.path("ca.cnf");
    let folder = lab.path("");
    let folder = folder.to_str().unwrap().trim_end_matches('/');
    std::fs::write(
        &config,
        format!(
            "[ca]\ndefault_ca=own\n[own]\ndatabase={folder}/index\nnew_certs_dir={folder}\nserial={folder}/serial\n\
             default_md=sha256\npolicy=any\nunique_subject=no\n[any]\ncommonName=supplied\n"
        ),
    )
    .unwrap();
    std::fs::write(lab.path("index"), "").unwrap();
    std::fs::write(lab.path("serial"), "01\n").unwrap();
    let (private, request) = (lab.path("key"), lab.path("csr"));
    let (private, request) = (private.to_str().unwrap(), request.to_str().unwrap());
    run_ok(
        "openssl",
        &["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=early", "-keyout", private, "-out", request],
    );
    // Go's zero time, and two that UTCTime can say.
    for (start, end, shown) in [
        ("00010101000000Z", "00010101000000Z", "0001-01-01T00:00:00Z"),
        ("510101000000Z", "691231235959Z", "1969-12-31T23:59:59Z"),
        ("00010101000000Z", "20400101000000Z", "2040-01-01T00:00:00Z"),
    ] {
        let certificate = lab.path(&format!("{end}.pem"));
        let out = certificate.to_str().unwrap();
        let made = run(
            "openssl",
            &[
                "ca",
                "-batch",
                "-notext",
                "-selfsign",
                "-config",
                config.to_str().unwrap(),
                "-keyfile",
                private,
                "-in",
                request,
                "-out",
                out,
                "-startdate",
                start,
                "-enddate",
                end,
            ],
        );
        assert!(made.status.success(), "{made:?}");
        let pair = (PathBuf::from(private), certificate.clone());
        let signed = sign(&lab, end, &pair, "sha256", &image);
        let ([digest, signer], code) = verdict(&signed, &certificate);
        assert_eq!((digest.0.as_str(), signer.0.as_str(), code), ("pass", "pass", 0), "{end}: {signer:?}");
        assert!(signer.1.contains(&format!("valid until {shown}")), "{}", signer.1);
        // The tool that the report names.
        assert!(crate::support::sbverify(&signed, &certificate), "{end}");
    }
}
