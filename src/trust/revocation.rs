//! The firmware's list of what may not start.

use super::siglist::{SignatureListEntry, TbsHash};
use crate::authenticode::{Certificate, ImageDigest, SignatureOutcome};

/// dbx, sorted by type.
#[derive(Debug, Clone, Default)]
pub struct Dbx {
    /// Authenticode SHA-256 of images.
    pub images: Vec<[u8; 32]>,
    /// Certificates: whatever chains to one is revoked.
    pub certificates: Vec<Certificate>,
    /// Certificates by the hash of their to-be-signed part.
    pub tbs_hashes: Vec<TbsHash>,
    /// Entries of types that are not looked at, or that cannot be read.
    pub not_looked_at: usize,
}

impl FromIterator<SignatureListEntry> for Dbx {
    fn from_iter<T: IntoIterator<Item = SignatureListEntry>>(entries: T) -> Self {
        let mut dbx = Self::default();
        for entry in entries {
            match entry {
                SignatureListEntry::ImageSha256(hash) => dbx.images.push(hash),
                SignatureListEntry::Certificate(certificate) => dbx.certificates.push(*certificate),
                SignatureListEntry::Tbs(hash) => dbx.tbs_hashes.push(hash),
                SignatureListEntry::Other(_) => dbx.not_looked_at += 1,
            }
        }
        dbx
    }
}

impl Dbx {
    /// How many entries are looked at.
    #[must_use]
    pub fn len(&self) -> usize {
        self.images.len() + self.certificates.len() + self.tbs_hashes.len()
    }

    /// Whether it revokes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why firmware would refuse the image, one sentence per reason. Firmware refuses as soon as one of several
    /// signatures is revoked, and looks at every certificate of the chain.
    #[must_use]
    pub fn reasons(&self, digest: &ImageDigest, signatures: &[SignatureOutcome]) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.images.contains(&digest.sha256) || digest.unpadded.is_some_and(|d| self.images.contains(&d)) {
            reasons.push(format!("the image itself ({}) is in dbx", hex::encode(digest.sha256)));
        }
        for certificate in signatures.iter().flat_map(|s| &s.chain) {
            // Any depth will do: a revoked issuer revokes, also where its own path length forbids the chain.
            let by_certificate = self.certificates.iter().any(|c| c == certificate || certificate.is_issued_by(c, 0));
            if by_certificate {
                reasons.push(format!("the certificate of {} or its issuer is in dbx", certificate.subject()));
            } else if let Some(hash) = self.tbs_hashes.iter().find(|hash| hash.matches(certificate)) {
                let since = hash.since.as_ref().map(|time| format!(" since {time}")).unwrap_or_default();
                reasons.push(format!("the certificate of {} is in dbx by its hash{since}", certificate.subject()));
            }
        }
        reasons.dedup();
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::super::siglist::tests::{certificates, hashes, tbs256};
    use super::super::siglist::{self};
    use super::*;
    use crate::authenticode::{DigestSink, parse_table, verify};
    use crate::block::Sink;
    use crate::pe::Head;
    use crate::testkit::pe::pe;
    use crate::testkit::signing::{SigningKey, sign_pe};
    use sha2::{Digest, Sha256};

    #[test]
    fn images_certificates_and_hashes_are_revoked() {
        let (key, other) = (SigningKey::test("signer").unwrap(), SigningKey::other_test("other").unwrap());
        let signed = sign_pe(pe(&[(".linux", &[1; 100], 0)]), &key).unwrap();
        let mut sink = DigestSink::new(&Head::read(&signed).unwrap()).unwrap();
        sink.chunk(&signed).unwrap();
        let digest = sink.finish().unwrap();
        let outcomes = verify(&parse_table(&digest.certificate_table).unwrap(), &digest.sha256, &[]);

        let tbs = |key: &SigningKey| Sha256::digest(key.certificate().unwrap().tbs_der());
        let der = |key: &SigningKey| key.certificate_der().unwrap();
        let later = [0xF0, 7, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let cases = [
            ("empty", vec![], None),
            ("this image", hashes(&[&[9; 32], &digest.sha256]), Some("the image itself")),
            ("another image", hashes(&[&[9; 32]]), None),
            ("its certificate", certificates(&der(&key)), Some("signer")),
            ("another certificate", certificates(&der(&other)), None),
            ("its hash for ever", tbs256(&tbs(&key), [0; 16]), Some("by its hash")),
            ("its hash from a time on", tbs256(&tbs(&key), later), Some("since 2032-01-01")),
            ("another hash", tbs256(&tbs(&other), [0; 16]), None),
        ];
        for (what, bytes, expected) in cases {
            let dbx: Dbx = siglist::parse(&bytes).unwrap().into_iter().collect();
            let reasons = dbx.reasons(&digest, &outcomes);
            match expected {
                None => assert!(reasons.is_empty(), "{what}: {reasons:?}"),
                Some(text) => assert!(reasons.len() == 1 && reasons[0].contains(text), "{what}: {reasons:?}"),
            }
        }
    }
}
