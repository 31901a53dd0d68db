//! Agreement with sbverify and osslsigncode on binaries that others signed.
//!
//! The corpus is made by `tests/corpus/fetch-signed.sh DIR`; `BOOTSURGEON_SIGNED_CORPUS=DIR` names it.

use bootsurgeon::authenticode::{DigestSink, ImageDigest, Signature, SignatureOutcome, parse_table, verify};
use bootsurgeon::block::{FileSource, ReadAt, fan_out};
use bootsurgeon::pe::Head;
use bootsurgeon::trust::parse_certificates;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn read(file: &Path) -> (ImageDigest, Vec<Signature>) {
    let source = FileSource::open(file).unwrap();
    let head = Head::read(&source).unwrap();
    let mut sink = DigestSink::new(&head).unwrap();
    fan_out(&source, 0, source.size(), &mut [&mut sink]).unwrap();
    let digest = sink.finish().unwrap();
    let signatures = parse_table(&digest.certificate_table).unwrap();
    (digest, signatures)
}

fn table(path: PathBuf) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

#[test]
fn verdicts_and_digests_agree_with_the_tools() {
    let Some(corpus) = std::env::var_os("BOOTSURGEON_SIGNED_CORPUS").map(PathBuf::from) else {
        crate::support::skip(
            "BOOTSURGEON_SIGNED_CORPUS names no corpus; make one with tests/corpus/fetch-signed.sh DIR",
        );
        return;
    };
    let mut images = BTreeMap::new();
    for row in table(corpus.join("digests.tsv")) {
        let [name, theirs] = &row[..] else { panic!("digests.tsv: {row:?}") };
        let (digest, signatures) = read(&corpus.join("files").join(name));
        for signature in &signatures {
            let is_intact = !name.ends_with("-changed.efi");
            assert_eq!(signature.digest == digest.sha256, is_intact, "{name}: what the signature states");
        }
        if theirs != "none" {
            assert_eq!(hex::encode(digest.sha256), *theirs, "{name}: osslsigncode");
        }
        images.insert(name.clone(), (digest, signatures));
    }
    // An unsigned file has the digest that sbsign puts into its signature.
    for (unsigned, signed) in
        [("amd64-systemd-bootx64.efi", "own-rsa2048.efi"), ("arm64-systemd-bootaa64.efi", "own-arm64.efi")]
    {
        assert_eq!(images[unsigned].0.sha256, images[signed].0.sha256, "{unsigned}");
    }

    let (mut accepted, mut rejected, mut false_accepts) = (0, 0, 0);
    for row in table(corpus.join("verdicts.tsv")) {
        let [name, certificate, sbverify, embedded] = &row[..] else { panic!("verdicts.tsv: {row:?}") };
        let pem = std::fs::read(corpus.join("certs").join(certificate)).unwrap();
        let [trusted] = &parse_certificates(&pem).unwrap()[..] else { panic!("{certificate}") };
        let (digest, signatures) = &images[name];
        let ours = verify(signatures, &digest.sha256, &[trusted]).iter().any(SignatureOutcome::is_trusted);
        let theirs = sbverify == "ok";
        if theirs && !ours {
            // sbverify 0.9.4 says OK for shim, which Microsoft signed, with any certificate.
            assert!(name.contains("shim") && embedded == "no", "{name} with {certificate}: only sbverify accepts");
            false_accepts += 1;
            continue;
        }
        if ours && !theirs {
            // sbverify refuses a trusted leaf when its self-signed root is embedded, too. EDK2 sets
            // X509_V_FLAG_PARTIAL_CHAIN and accepts it.
            assert_eq!((&name[..], &certificate[..]), ("own-leaf-with-ca.efi", "own-leaf.pem"), "only we accept");
            continue;
        }
        if ours { accepted += 1 } else { rejected += 1 }
    }
    eprintln!(
        "{} files; pairs: {accepted} accepted by both, {rejected} rejected by both, {false_accepts} false accepts of \
         sbverify",
        images.len()
    );
    assert!(accepted >= 20 && rejected >= 100, "the corpus is incomplete");
}

/// What the demonstration signs must be right for everybody else, too.
#[test]
fn the_tools_accept_our_signatures() {
    use bootsurgeon::testkit::signing::{SigningKey, sign_pe};
    use std::process::Command;

    let Some(corpus) = std::env::var_os("BOOTSURGEON_SIGNED_CORPUS").map(PathBuf::from) else {
        crate::support::skip(
            "BOOTSURGEON_SIGNED_CORPUS names no corpus; make one with tests/corpus/fetch-signed.sh DIR",
        );
        return;
    };
    let key = SigningKey::test("bootsurgeon agreement").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, out) = (dir.path().join("cert.pem"), dir.path().join("signed.efi"));
    std::fs::write(&cert, key.certificate_pem().unwrap()).unwrap();
    for name in ["amd64-systemd-bootx64.efi", "arm64-systemd-bootaa64.efi", "amd64-grubx64.efi.signed"] {
        let signed = sign_pe(std::fs::read(corpus.join("files").join(name)).unwrap(), &key).unwrap();
        std::fs::write(&out, signed).unwrap();
        let sbverify = Command::new("sbverify").arg("--cert").arg(&cert).arg(&out).output().unwrap();
        assert!(sbverify.status.success(), "{name}: {sbverify:?}");
        // osslsigncode wants every signature to lead to the CA file, and Debian's does not.
        if !name.ends_with(".signed") {
            let mut other = Command::new("osslsigncode");
            let other = other.args(["verify", "-CAfile"]).arg(&cert).arg("-in").arg(&out).output().unwrap();
            assert!(other.status.success(), "{name}: {other:?}");
        }
    }
}
