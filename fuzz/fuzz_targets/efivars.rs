//! Signature lists (db, dbx), authenticated variables, SBAT levels, certificates.
#![no_main]

use bootsurgeon::authenticode::ImageDigest;
use bootsurgeon::trust::{Anchor, Dbx, Sbat, certificates, parse_auth, parse_certificates, parse_signature_lists};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeSet;

fuzz_target!(|data: &[u8]| {
    if let Ok(level) = Sbat::parse(data) {
        let names: BTreeSet<_> = level.components.iter().map(|(name, _)| name).collect();
        // A text that names a component twice is judged by the larger number.
        assert!(names.len() < level.components.len() || level.below(&level).is_empty(), "below itself");
    }
    for certificate in parse_certificates(data).unwrap_or_default() {
        let _ = (certificate.subject(), certificate.not_after(), certificate.fingerprint());
    }
    let _ = Anchor::from_db_auth(data);
    for entries in [parse_signature_lists(data), parse_auth(data)].into_iter().flatten() {
        let _ = certificates(&entries);
        let dbx: Dbx = entries.into_iter().collect();
        let digest = ImageDigest {
            sha256: [0; 32],
            unpadded: None,
            certificate_table: Vec::new(),
            gap_bytes: 0,
            others: Vec::new(),
        };
        let _ = (dbx.len(), dbx.reasons(&digest, &[]));
    }
});
