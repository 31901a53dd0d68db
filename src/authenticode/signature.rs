//! The signatures in a PE image's certificate table: parsing, and verification against trusted certificates.

use super::Certificate;
use super::certificate::signing_hash;
use super::dates::mended_pkcs7;
use super::hash::Hash;
use crate::{Code, Context, Error, Result};
use authenticode::{AuthenticodeSignature, SPC_INDIRECT_DATA_OBJID};
use cms::{
    cert::CertificateChoices, content_info::ContentInfo, signed_data::SignedData, signed_data::SignerIdentifier,
};
use const_oid::{ObjectIdentifier, db::rfc5911, db::rfc5912};
use der::{Decode, Encode, asn1::OctetStringRef};

/// `WIN_CERT_REVISION_2_0` and `WIN_CERT_TYPE_PKCS_SIGNED_DATA` (Microsoft PE/COFF, "The Attribute Certificate Table").
const REVISION: u16 = 0x0200;
const TYPE_PKCS7: u16 = 0x0002;
const HEADER: usize = 8;
/// Bounds on what one image may carry; shim has 2 signatures with 2 to 4 certificates each.
const MAX_SIGNATURES: usize = 16;
const MAX_CERTIFICATES: usize = 16;

/// One Authenticode signature: what it states, and the certificates it came with. Nothing is verified yet.
#[derive(Debug, Clone)]
pub struct Signature {
    /// The image digest it states.
    pub digest: Vec<u8>,
    /// The hash that the image digest is made with; `None` for one that is not supported here.
    pub digest_hash: Option<Hash>,
    /// Why it cannot be verified here, although nothing is known to be wrong with it.
    pub unsupported: Option<String>,
    /// The certificate of the signer, one of [`Self::certificates`].
    pub signer: Certificate,
    /// All embedded certificates, in the order of the PKCS#7 structure. They prove nothing by themselves.
    pub certificates: Vec<Certificate>,
    /// The content octets whose hash the messageDigest attribute holds.
    content: Vec<u8>,
    message_digest: Vec<u8>,
    /// DER SET OF the signed attributes: what the signature is over.
    attributes: Vec<u8>,
    signature: Vec<u8>,
    /// The hash of the messageDigest attribute and of the signature.
    hash: Hash,
}

/// What became of one signature.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignatureOutcome {
    /// Whether it was made for this image.
    pub digest_matches: bool,
    /// Why the signature itself is wrong (message digest, RSA, ECDSA), if it is, or why that cannot be found out here.
    pub problem: Option<String>,
    /// Whether [`Self::problem`] is that it is not supported here.
    pub unsupported: bool,
    /// The signer and the embedded authorities above it, each proved by its signature: the signer first. Every
    /// certificate reachable is here, for revocation lists.
    pub chain: Vec<Certificate>,
    /// Index of the first trusted certificate, in the order given, that is in the chain or issued one of it.
    pub anchor: Option<usize>,
}

impl SignatureOutcome {
    /// Made for this image, mathematically right, and by somebody trusted.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.is_sound() && self.anchor.is_some()
    }

    /// Made for this image and mathematically right, whoever made it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.digest_matches && self.problem.is_none()
    }
}

/// The signatures in the raw bytes of a certificate table (`WIN_CERTIFICATE` entries, each aligned to 8 bytes).
///
/// # Errors
/// [`crate::Kind::Rejected`] when an entry runs over the end, bytes are left over, an entry is of another kind than
/// PKCS#7, or a signature breaks its format. Firmware refuses such images, too.
pub fn parse_table(table: &[u8]) -> Result<Vec<Signature>> {
    let mut signatures = Vec::new();
    let mut at = 0;
    while at < table.len() {
        let bad = |why: String| Error::malformed("certificate table", at as u64, why);
        let rest = table.get(at..).unwrap_or_default();
        let Some(([l0, l1, l2, l3, r0, r1, t0, t1], _)) = rest.split_first_chunk::<HEADER>() else {
            return Err(bad(format!("{} bytes are left over", rest.len())));
        };
        if signatures.len() == MAX_SIGNATURES {
            return Err(bad(format!("more than {MAX_SIGNATURES} signatures")));
        }
        let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]);
        let (revision, kind) = (u16::from_le_bytes([*r0, *r1]), u16::from_le_bytes([*t0, *t1]));
        let blob = usize::try_from(length).ok().filter(|n| *n > HEADER).and_then(|n| rest.get(HEADER..n));
        let Some(blob) = blob else {
            return Err(bad(format!("an entry of {length} bytes where {} are left", rest.len())));
        };
        if (revision, kind) != (REVISION, TYPE_PKCS7) {
            return Err(bad(format!(
                "revision 0x{revision:04x}, type 0x{kind:04x}: only PKCS#7 (0x0200, 0x0002) is known"
            )));
        }
        let n = signatures.len() + 1;
        signatures.push(Signature::parse(blob).while_doing(|| format!("reading signature {n}"))?);
        // dwLength is what is used, and the padding behind it belongs to the table: EDK2 refuses an image whose
        // aligned entries do not end where the directory says.
        let aligned = (HEADER + blob.len()).next_multiple_of(8);
        if aligned > rest.len() {
            return Err(bad(format!("the padding of an entry of {length} bytes to {aligned} lies behind the table")));
        }
        at += aligned;
    }
    Ok(signatures)
}

impl Signature {
    /// Parses one PKCS#7 SignedData in the way of Authenticode.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`], saying what is wrong.
    pub fn parse(pkcs7: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::rejected(format!("not an Authenticode signature: {why}"));
        let (mended, originals) = mended_pkcs7(pkcs7);
        let parsed = AuthenticodeSignature::from_bytes(&mended).map_err(|e| bad(e.to_string()))?;

        let mut unsupported = None;
        let mut not_here = |what: String| {
            unsupported.get_or_insert_with(|| format!("{what} is not supported here"));
        };
        let digest = parsed.digest().to_vec();
        let digest_oid = parsed.digest_algorithm().oid;
        let digest_hash = Hash::from_oid(digest_oid);
        match digest_hash {
            None => not_here(format!("an image digest by the algorithm {digest_oid}")),
            Some(hash) if digest.len() != hash.of(b"").len() => {
                return Err(bad("the image digest has a wrong length".into()));
            }
            Some(_) => {}
        }
        let content = parsed.encapsulated_content().unwrap_or_default().to_vec();

        let info = parsed.signer_info();
        let hash = Hash::from_oid(info.digest_alg.oid).unwrap_or_else(|| {
            not_here(format!("a signature with the hash {}", info.digest_alg.oid));
            Hash::Sha256
        });
        let by = info.signature_algorithm.oid;
        let fits = match by {
            rfc5912::RSA_ENCRYPTION | rfc5912::ID_EC_PUBLIC_KEY => true,
            other => signing_hash(other) == Some(hash),
        };
        if !fits {
            not_here(format!("a signature by the algorithm {by}"));
        }
        let Some(signed) = &info.signed_attrs else {
            return Err(bad("it has no signed attributes".into()));
        };
        let attribute = |oid: ObjectIdentifier| {
            let mut all = signed.iter().filter(|a| a.oid == oid);
            match (all.next(), all.next()) {
                (Some(one), None) if one.values.len() == 1 => one.values.get(0),
                _ => None,
            }
        };
        let content_type = attribute(rfc5911::ID_CONTENT_TYPE).and_then(|v| v.decode_as::<ObjectIdentifier>().ok());
        if content_type != Some(SPC_INDIRECT_DATA_OBJID) {
            return Err(bad("the contentType attribute is not SpcIndirectDataContent".into()));
        }
        let message_digest = attribute(rfc5911::ID_MESSAGE_DIGEST)
            .and_then(|v| v.decode_as::<OctetStringRef<'_>>().ok())
            .ok_or_else(|| bad("not exactly one messageDigest attribute".into()))?
            .as_bytes()
            .to_vec();
        let attributes = signed.to_der().map_err(|e| bad(e.to_string()))?;

        let certificates = embedded_certificates(&mended, &originals)?;
        let SignerIdentifier::IssuerAndSerialNumber(id) = &info.sid else {
            return Err(bad("the signer is not named by issuer and serial number".into()));
        };
        let signer = certificates.iter().find(|c| c.is_identified_by(id)).cloned().ok_or_else(|| {
            bad(format!("the signer's certificate (issued by {}) is not in the signature", id.issuer))
        })?;
        Ok(Self {
            digest,
            digest_hash,
            unsupported,
            hash,
            signer,
            certificates,
            content,
            message_digest,
            attributes,
            signature: parsed.signature().to_vec(),
        })
    }

    /// Everything that can be verified without trusting anybody.
    fn check(&self) -> Result<()> {
        if let Some(why) = &self.unsupported {
            return Err(Error::new(Code::Unsupported, why.clone()));
        }
        if self.hash.of(&self.content) != self.message_digest {
            return Err(Error::rejected("the messageDigest attribute is not the hash of the signed content"));
        }
        self.signer.verify(self.hash, &self.attributes, &self.signature)
    }

    /// The signer and every embedded certificate that a chain of signatures leads to, each with the number of
    /// authorities below it.
    fn chain(&self) -> Vec<(Certificate, usize)> {
        let mut chain = vec![(self.signer.clone(), 0)];
        let mut left: Vec<&Certificate> = self.certificates.iter().filter(|c| **c != self.signer).collect();
        let mut next = 0;
        while let Some((subject, depth)) = chain.get(next).cloned() {
            left.retain(|issuer| {
                let found = subject.is_issued_by(issuer, depth);
                if found {
                    chain.push(((*issuer).clone(), depth + 1));
                }
                !found
            });
            next += 1;
        }
        chain
    }
}

/// The certificates of a PKCS#7 structure. `AuthenticodeSignature::certificates` panics when there are none.
/// `originals` are the same certificates as they stand in the original.
fn embedded_certificates(pkcs7: &[u8], originals: &[Vec<u8>]) -> Result<Vec<Certificate>> {
    let parse = || -> der::Result<SignedData> {
        let mut reader = der::SliceReader::new(pkcs7)?;
        let info = ContentInfo::decode(&mut reader)?;
        info.content.decode_as::<SignedData>()
    };
    let signed = parse().map_err(|e| Error::rejected(format!("not PKCS#7 SignedData ({e})")))?;
    let set = signed.certificates.map(|set| set.0.into_vec()).unwrap_or_default();
    if set.len() > MAX_CERTIFICATES {
        return Err(Error::rejected(format!("a signature with {} certificates", set.len())));
    }
    if set.iter().any(|choice| matches!(choice, CertificateChoices::Other(_))) {
        return Err(Error::rejected("a certificate that is not X.509"));
    }
    if set.len() != originals.len() {
        return Err(Error::rejected("the certificates are not in canonical DER"));
    }
    originals.iter().map(|der| Certificate::from_der(der)).collect()
}

/// Verifies each signature against the image's digest and the trusted certificates. A trusted certificate may be the
/// signer's own, an embedded authority, or the issuer of one of them; its own validity and issuer do not matter, and no
/// expiry does.
#[must_use]
pub fn verify(signatures: &[Signature], image_digest: &[u8; 32], trusted: &[&Certificate]) -> Vec<SignatureOutcome> {
    verify_by(signatures, &[(Hash::Sha256, image_digest)], trusted)
}

/// As [`verify`], with the image's digest by every hash that is at hand.
#[must_use]
pub fn verify_by(
    signatures: &[Signature],
    digests: &[(Hash, &[u8])],
    trusted: &[&Certificate],
) -> Vec<SignatureOutcome> {
    signatures
        .iter()
        .map(|signature| {
            let chain = signature.chain();
            let anchor =
                trusted.iter().position(|t| chain.iter().any(|(c, depth)| c == *t || c.is_issued_by(t, *depth)));
            let problem = signature.check().err();
            SignatureOutcome {
                digest_matches: digests
                    .iter()
                    .any(|(hash, digest)| signature.digest_hash == Some(*hash) && signature.digest == *digest),
                unsupported: problem.as_ref().is_some_and(|e| e.code() == Code::Unsupported),
                problem: problem.map(|e| e.message().to_owned()),
                chain: chain.into_iter().map(|(c, _)| c).collect(),
                anchor,
            }
        })
        .collect()
}
