//! One X.509 certificate, as much of it as firmware looks at.

use super::dates::{end_before_1970, mended_certificate};
use super::hash::Hash;
use crate::{Code, Error, Result};
use const_oid::db::rfc5912;
use der::{Decode, Encode, Reader, oid::ObjectIdentifier};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use sha2::{Digest, Sha256};
use std::fmt;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

/// Larger certificates are refused, in bytes. UEFI certificates have 1 to 2 KiB.
const MAX_DER: usize = 64 * 1024;

/// An X.509 certificate in DER with its parsed form.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    tbs: Vec<u8>,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    /// Parses one DER certificate; bytes behind it are an error.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when it is no X.509 certificate, or not in the one canonical form that DER allows.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        if der.len() > MAX_DER {
            return Err(Error::rejected(format!("a certificate of {} bytes", der.len())));
        }
        let mended = mended_certificate(der);
        let bad = |e: der::Error| Error::rejected(format!("not an X.509 certificate in DER ({e})"));
        let parsed = x509_cert::Certificate::from_der(&mended).map_err(bad)?;
        Self::from_parsed(parsed, &mended, der)
    }

    /// From a certificate that was parsed out of `mended`. Signatures and revocation hashes are over the bytes that
    /// stand in the original, so the parsed form has to encode to these very bytes, mended dates aside.
    fn from_parsed(parsed: x509_cert::Certificate, mended: &[u8], der: &[u8]) -> Result<Self> {
        let bad = |e: der::Error| Error::rejected(format!("a certificate cannot be encoded ({e})"));
        let not_canonical = || {
            let subject = &parsed.tbs_certificate.subject;
            Error::rejected(format!("the certificate of {subject} is not in canonical DER"))
        };
        let tbs = parsed.tbs_certificate.to_der().map_err(bad)?;
        if parsed.to_der().map_err(bad)? != mended {
            return Err(not_canonical());
        }
        // The same place in the original: its dates are as long as the mended ones.
        let at = memchr::memmem::find(mended, &tbs).ok_or_else(not_canonical)?;
        let tbs = der.get(at..at + tbs.len()).ok_or_else(not_canonical)?.to_vec();
        Ok(Self { der: der.to_vec(), tbs, parsed })
    }

    /// The certificate in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The to-be-signed part in DER: what a dbx entry of type X.509-SHA256 is the hash of.
    #[must_use]
    pub fn tbs_der(&self) -> &[u8] {
        &self.tbs
    }

    /// SHA-256 of the DER, in bytes.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// The subject in the form of RFC 4514.
    #[must_use]
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate.subject.to_string()
    }

    /// The issuer in the form of RFC 4514.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.parsed.tbs_certificate.issuer.to_string()
    }

    /// The serial number as hexadecimal.
    #[must_use]
    pub fn serial(&self) -> String {
        hex::encode(self.parsed.tbs_certificate.serial_number.as_bytes())
    }

    /// The end of its validity as RFC 3339 in UTC. Shown, never enforced: firmware has no clock to trust.
    #[must_use]
    pub fn not_after(&self) -> String {
        let usual = || self.parsed.tbs_certificate.validity.not_after.to_date_time().to_string();
        end_before_1970(&self.der).unwrap_or_else(usual)
    }

    /// Whether its validity has ended at `now`.
    #[must_use]
    pub fn expired(&self, now: std::time::SystemTime) -> bool {
        let end = self.parsed.tbs_certificate.validity.not_after.to_unix_duration();
        now.duration_since(std::time::UNIX_EPOCH).is_ok_and(|now| now > end)
    }

    /// Whether this is the certificate that a signer identifier (issuer and serial number) means.
    pub(super) fn is_identified_by(&self, id: &cms::cert::IssuerAndSerialNumber) -> bool {
        let tbs = &self.parsed.tbs_certificate;
        tbs.issuer == id.issuer && tbs.serial_number == id.serial_number
    }

    /// Verifies a signature that the holder of this certificate made over `message`: RSA PKCS#1 v1.5, or ECDSA in DER.
    ///
    /// # Errors
    /// [`Code::Unsupported`] for a key that is not supported here; [`Code::Malformed`] when the signature is wrong.
    pub(super) fn verify(&self, hash: Hash, message: &[u8], sig: &[u8]) -> Result<()> {
        let spki = &self.parsed.tbs_certificate.subject_public_key_info;
        let key = spki.subject_public_key.as_bytes().unwrap_or_default();
        let unsupported = |what: String| {
            Err(Error::new(Code::Unsupported, format!("{what} of {} is not supported here", self.subject())))
        };
        let algorithm: &'static dyn VerificationAlgorithm = match spki.algorithm.oid {
            rfc5912::RSA_ENCRYPTION => match rsa_bits(key) {
                Some(2048..=8192) | None => match hash {
                    Hash::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Hash::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Hash::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                },
                Some(bits) => return unsupported(format!("the RSA key of {bits} bits")),
            },
            rfc5912::ID_EC_PUBLIC_KEY => {
                let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
                match (curve, hash) {
                    (Some(rfc5912::SECP_256_R_1), Hash::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
                    (Some(rfc5912::SECP_256_R_1), Hash::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
                    (Some(rfc5912::SECP_384_R_1), Hash::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
                    (Some(rfc5912::SECP_384_R_1), Hash::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
                    (Some(rfc5912::SECP_256_R_1 | rfc5912::SECP_384_R_1), Hash::Sha512) => {
                        return unsupported("an ECDSA signature with SHA-512".into());
                    }
                    _ => return unsupported("the elliptic curve of the key".into()),
                }
            }
            other => return unsupported(format!("the key (algorithm {other})")),
        };
        UnparsedPublicKey::new(algorithm, key)
            .verify(message, sig)
            .map_err(|_| Error::rejected(format!("the signature does not verify with the key of {}", self.subject())))
    }

    /// Whether `issuer` signed this certificate and may do so. `below` is the number of intermediate authorities
    /// between the two ends of the chain below `issuer`.
    #[must_use]
    pub fn is_issued_by(&self, issuer: &Self, below: usize) -> bool {
        let tbs = &self.parsed.tbs_certificate;
        tbs.issuer == issuer.parsed.tbs_certificate.subject
            && self.parsed.signature_algorithm == tbs.signature
            && issuer.may_issue(below)
            && signing_hash(self.parsed.signature_algorithm.oid).is_some_and(|hash| {
                issuer.verify(hash, &self.tbs, self.parsed.signature.as_bytes().unwrap_or_default()).is_ok()
            })
    }

    /// The rules of OpenSSL's `check_ca`, which EDK2 relies on: basic constraints decide; without them a version 1
    /// root or the key usage does.
    fn may_issue(&self, below: usize) -> bool {
        let tbs = &self.parsed.tbs_certificate;
        let (Ok(usage), Ok(basic)) = (tbs.get::<KeyUsage>(), tbs.get::<BasicConstraints>()) else { return false };
        let may_sign = usage.map(|(_, usage)| usage.key_cert_sign());
        if may_sign == Some(false) {
            return false;
        }
        match basic {
            Some((_, basic)) => basic.ca && basic.path_len_constraint.is_none_or(|max| below <= usize::from(max)),
            None if tbs.version == x509_cert::Version::V1 => tbs.issuer == tbs.subject,
            None => may_sign == Some(true),
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.subject())
    }
}

/// The size of the modulus of an RSA key in DER PKCS#1.
pub(crate) fn rsa_bits(key: &[u8]) -> Option<usize> {
    let mut reader = der::SliceReader::new(key).ok()?;
    let modulus = reader.sequence(|fields| {
        let modulus: der::asn1::UintRef<'_> = fields.decode()?;
        let _exponent: der::asn1::UintRef<'_> = fields.decode()?;
        Ok(modulus.as_bytes().to_vec())
    });
    let modulus = modulus.ok()?;
    Some(8 * modulus.len() - modulus.first()?.leading_zeros() as usize)
}

/// The hash of a way to sign a certificate. SHA-1 is not among them, on purpose.
pub(super) fn signing_hash(oid: ObjectIdentifier) -> Option<Hash> {
    match oid {
        rfc5912::SHA_256_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_256 => Some(Hash::Sha256),
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => Some(Hash::Sha384),
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => Some(Hash::Sha512),
        _ => None,
    }
}
