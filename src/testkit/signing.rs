//! Signing as Talos' imager does: a test key, a self-signed certificate for it, and a PE image signed with it.
//!
//! The private keys are in the source tree, so everybody has them. A certificate made here must never reach the db of
//! firmware that protects anything; its name should say so. The keys are fixed because `ring` makes no RSA keys, and
//! the one crate that does (`rsa`) has a timing side channel (RUSTSEC-2023-0071) that would then be in every build.

use crate::authenticode::{Certificate, DigestSink};
use crate::block::{FileSource, ReadAt, fan_out};
use crate::pe::Head;
use crate::{Error, Result};
use authenticode::{DigestInfo, SPC_INDIRECT_DATA_OBJID, SpcAttributeTypeAndOptionalValue, SpcIndirectDataContent};
use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use const_oid::{ObjectIdentifier, db::rfc4519, db::rfc5911, db::rfc5912};
use der::asn1::{BitString, OctetString, SetOfVec, UtcTime};
use der::pem::LineEnding;
use der::{Any, DateTime, Decode, Encode, EncodePem, Tag};
use ring::rand::SystemRandom;
use ring::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair};
use sha2::{Digest, Sha256};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use x509_cert::attr::{Attribute, AttributeTypeAndValue};
use x509_cert::ext::AsExtension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

/// The keys of the fixtures: PKCS#8 PEM, RSA-2048.
const TEST_KEY: &str = include_str!("../../fixtures/keys/test-signing.key");
const OTHER_TEST_KEY: &str = include_str!("../../fixtures/keys/test-other-signing.key");
/// `SPC_PE_IMAGE_DATA_OBJID`.
const SPC_PE_IMAGE_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.15");
/// `SpcPeImageData` as every signing tool writes it: no flags, and the file link "<<<Obsolete>>>" in UTF-16.
const PE_IMAGE_DATA: &[u8] = b"\x30\x25\x03\x01\x00\xa0\x20\xa2\x1e\x80\x1c\
    \0<\0<\0<\0O\0b\0s\0o\0l\0e\0t\0e\0>\0>\0>";
/// First and last year of a certificate made here. What is made is the same on every day; UTCTime ends in 2049.
const YEARS: (u16, u16) = (2024, 2049);

/// What goes wrong in here is a mistake in this file or in the name of a certificate.
type Encoding<T> = Result<T, Box<dyn std::error::Error>>;

/// An RSA-2048 test key with a self-signed certificate.
pub struct SigningKey {
    pem: &'static str,
    key: RsaKeyPair,
    certificate: x509_cert::Certificate,
}

/// `CN=<name>`, whatever characters are in the name.
fn common_name(name: &str) -> Encoding<Name> {
    if name.is_empty() {
        return Err("a certificate without a name".into());
    }
    let value = Any::new(Tag::Utf8String, name.as_bytes())?;
    let attribute = AttributeTypeAndValue { oid: rfc4519::COMMON_NAME, value };
    Ok(RdnSequence(vec![RelativeDistinguishedName(SetOfVec::try_from(vec![attribute])?)]))
}

fn failed(what: &str) -> impl FnOnce(&dyn std::fmt::Display) -> Error {
    move |e| Error::io(format!("{what}: {e}"))
}

impl SigningKey {
    /// The test key with a certificate for `CN=<name>`. The same name gives the same certificate, byte for byte.
    ///
    /// # Errors
    /// When `name` is empty or longer than DER can say.
    pub fn test(name: &str) -> Result<Self> {
        Self::new(TEST_KEY, name)
    }

    /// Another test key with a certificate for `CN=<name>`: a signer that nobody trusts.
    ///
    /// # Errors
    /// As [`Self::test`].
    pub fn other_test(name: &str) -> Result<Self> {
        Self::new(OTHER_TEST_KEY, name)
    }

    fn new(pem: &'static str, name: &str) -> Result<Self> {
        let make = || -> Encoding<Self> {
            let (_, pkcs8) = der::pem::decode_vec(pem.as_bytes()).map_err(|e| e.to_string())?;
            let key = RsaKeyPair::from_pkcs8(&pkcs8).map_err(|e| e.to_string())?;
            let certificate = self_signed(&key, &common_name(name)?)?;
            Ok(Self { pem, key, certificate })
        };
        make().map_err(|e| failed("making a certificate")(&e))
    }

    /// The certificate, for use as a trust anchor.
    ///
    /// # Errors
    /// None that can be expected of a certificate made here.
    pub fn certificate(&self) -> Result<Certificate> {
        Certificate::from_der(&self.certificate_der()?)
    }

    /// The certificate in DER.
    ///
    /// # Errors
    /// None that can be expected of a certificate made here.
    pub fn certificate_der(&self) -> Result<Vec<u8>> {
        self.certificate.to_der().map_err(|e| failed("encoding a certificate")(&e))
    }

    /// The certificate in PEM.
    ///
    /// # Errors
    /// None that can be expected of a certificate made here.
    pub fn certificate_pem(&self) -> Result<String> {
        self.certificate.to_pem(LineEnding::LF).map_err(|e| failed("encoding a certificate")(&e))
    }

    /// The private key in PKCS#8 PEM, for other tools.
    #[must_use]
    pub fn private_key_pem(&self) -> &'static str {
        self.pem
    }

    /// The public key as PEM `PUBLIC KEY`, as it stands in `.pcrpkey`.
    ///
    /// # Errors
    /// None that can be expected of a key made here.
    pub fn public_key_pem(&self) -> Result<String> {
        let make = || -> Encoding<String> {
            let der = public_key(&self.key)?.to_der()?;
            der::pem::encode_string("PUBLIC KEY", LineEnding::LF, &der).map_err(|e| e.to_string().into())
        };
        make().map_err(|e| failed("encoding a key")(&e))
    }

    /// RSASSA-PKCS1-v1_5 over `message` with SHA-256: for a PCR policy of the sha256 bank, `message` is the 32 bytes of
    /// the policy digest.
    ///
    /// # Errors
    /// When the RSA operation fails.
    pub fn sign_sha256(&self, message: &[u8]) -> Result<Vec<u8>> {
        sign_with(&RSA_PKCS1_SHA256, &self.key, message)
    }

    /// As [`Self::sign_sha256`] with SHA-384, for the sha384 bank.
    ///
    /// # Errors
    /// When the RSA operation fails.
    pub fn sign_sha384(&self, message: &[u8]) -> Result<Vec<u8>> {
        sign_with(&RSA_PKCS1_SHA384, &self.key, message)
    }

    /// As [`Self::sign_sha256`] with SHA-512, for the sha512 bank.
    ///
    /// # Errors
    /// When the RSA operation fails.
    pub fn sign_sha512(&self, message: &[u8]) -> Result<Vec<u8>> {
        sign_with(&RSA_PKCS1_SHA512, &self.key, message)
    }
}

fn sign_with(encoding: &'static dyn RsaEncoding, key: &RsaKeyPair, message: &[u8]) -> Result<Vec<u8>> {
    let mut signature = vec![0; key.public().modulus_len()];
    let signed = key.sign(encoding, &SystemRandom::new(), message, &mut signature);
    signed.map_err(|e| failed("an RSA signature")(&e))?;
    Ok(signature)
}

fn public_key(key: &RsaKeyPair) -> der::Result<SubjectPublicKeyInfoOwned> {
    let subject_public_key = BitString::from_bytes(key.public_key().as_ref())?;
    Ok(SubjectPublicKeyInfoOwned { algorithm: algorithm(rfc5912::RSA_ENCRYPTION), subject_public_key })
}

/// A certificate for signing images and not certificates: OpenSSL wants that key usage of a signer.
fn self_signed(key: &RsaKeyPair, name: &Name) -> Encoding<x509_cert::Certificate> {
    let public = public_key(key)?;
    // Fifteen bytes, positive and without leading zeros: always as long in DER.
    let mut serial = Sha256::digest([public.to_der()?, name.to_der()?].concat())[..15].to_vec();
    serial[0] = serial[0] & 0x3F | 0x40;
    let time = |year, month, day| -> der::Result<Time> {
        Ok(Time::UtcTime(UtcTime::from_date_time(DateTime::new(year, month, day, 0, 0, 0)?)?))
    };
    let usage = KeyUsage(KeyUsages::DigitalSignature | KeyUsages::NonRepudiation);
    let constraints = BasicConstraints { ca: false, path_len_constraint: None };
    let extensions = vec![usage.to_extension(name, &[])?, constraints.to_extension(name, &[])?];
    let tbs_certificate = x509_cert::TbsCertificate {
        version: x509_cert::Version::V3,
        serial_number: SerialNumber::new(&serial)?,
        signature: algorithm(rfc5912::SHA_256_WITH_RSA_ENCRYPTION),
        issuer: name.clone(),
        validity: Validity { not_before: time(YEARS.0, 1, 1)?, not_after: time(YEARS.1, 12, 31)? },
        subject: name.clone(),
        subject_public_key_info: public,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions),
    };
    let signature = sign_with(&RSA_PKCS1_SHA256, key, &tbs_certificate.to_der()?)?;
    Ok(x509_cert::Certificate {
        signature_algorithm: tbs_certificate.signature.clone(),
        tbs_certificate,
        signature: BitString::from_bytes(&signature)?,
    })
}

fn algorithm(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid, parameters: Some(Any::null()) }
}

/// Appends a signature to a PE image, behind those that are there. CheckSum becomes 0, as in Talos' UKIs.
///
/// # Errors
/// [`crate::Kind::Rejected`] when the image is no PE32+, has no place for a certificate table, or a layout that
/// firmware would not hash; [`crate::Kind::Io`] when the RSA operation fails.
pub fn sign_pe(mut pe: Vec<u8>, key: &SigningKey) -> Result<Vec<u8>> {
    let added = signature(&pe, key)?;
    pe.resize(added.at as usize, 0);
    pe.extend(added.bytes);
    for (at, value) in added.fields {
        let at = usize::try_from(at).map_err(|e| failed("the place of a header field")(&e))?;
        let field = pe.get_mut(at..at + 4).ok_or_else(|| Error::rejected("a header field outside the file"))?;
        field.copy_from_slice(&value);
    }
    Ok(pe)
}

/// [`sign_pe`] for an image in a file, of which no more than a piece is in memory.
///
/// # Errors
/// As [`sign_pe`]; and what the file reports.
pub fn sign_pe_file(path: &Path, key: &SigningKey) -> Result<()> {
    let added = signature(&FileSource::open(path)?, key)?;
    let file = File::options().write(true).open(path)?;
    file.write_all_at(&added.bytes, added.at)?;
    added.fields.iter().try_for_each(|(at, value)| file.write_all_at(value, *at))?;
    Ok(())
}

/// What a signature adds to an image.
struct Added {
    /// Where it goes, in bytes: the end of the image, padded to 8 bytes.
    at: u64,
    /// The entry of the certificate table.
    bytes: Vec<u8>,
    /// Fields of the header, and where they are.
    fields: [(u64, [u8; 4]); 3],
}

fn signature(pe: &dyn ReadAt, key: &SigningKey) -> Result<Added> {
    let head = Head::read(pe)?;
    let directory = head.security_directory_at.ok_or_else(|| Error::rejected("no place for a certificate table"))?;
    let mut sink = DigestSink::new(&head)?;
    fan_out(pe, 0, pe.size(), &mut [&mut sink])?;
    let digest = sink.finish()?;

    let at = pe.size().next_multiple_of(8);
    let pkcs7 = pkcs7(&digest.sha256, key).map_err(|e| failed("encoding a signature")(&e))?;
    let narrow = |n: u64| u32::try_from(n).map_err(|e| failed("the place of the certificate table")(&e));
    let mut bytes = narrow(pkcs7.len() as u64 + 8)?.to_le_bytes().to_vec();
    bytes.extend([0x00, 0x02, 0x02, 0x00]);
    bytes.extend(pkcs7);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let start = head.certificate_table.map_or(at, |t| t.offset);
    let length = at + bytes.len() as u64 - start;
    let fields = [(directory, narrow(start)?), (directory + 4, narrow(length)?), (head.checksum_at, 0)];
    Ok(Added { at, bytes, fields: fields.map(|(at, value)| (at, value.to_le_bytes())) })
}

/// PKCS#7 SignedData over an image digest, as `sbsign` and Talos' imager write it.
fn pkcs7(digest: &[u8; 32], key: &SigningKey) -> Encoding<Vec<u8>> {
    let content = SpcIndirectDataContent {
        data: SpcAttributeTypeAndOptionalValue { value_type: SPC_PE_IMAGE_DATA, value: Any::from_der(PE_IMAGE_DATA)? },
        message_digest: DigestInfo {
            digest_algorithm: algorithm(rfc5912::ID_SHA_256),
            digest: OctetString::new(digest.as_slice())?,
        },
    };
    let content = Any::encode_from(&content)?;
    let attribute =
        |oid, value: Any| -> der::Result<Attribute> { Ok(Attribute { oid, values: SetOfVec::try_from(vec![value])? }) };
    // The hash is over the content octets, without tag and length (RFC 2315, 9.3).
    let hash = OctetString::new(Sha256::digest(content.value()).as_slice())?;
    let attributes = SetOfVec::try_from(vec![
        attribute(rfc5911::ID_CONTENT_TYPE, Any::encode_from(&SPC_INDIRECT_DATA_OBJID)?)?,
        attribute(rfc5911::ID_MESSAGE_DIGEST, Any::new(Tag::OctetString, hash.as_bytes())?)?,
    ])?;
    let signature = key.sign_sha256(&attributes.to_der()?)?;
    let tbs = &key.certificate.tbs_certificate;
    let signer = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: tbs.issuer.clone(),
            serial_number: tbs.serial_number.clone(),
        }),
        digest_alg: algorithm(rfc5912::ID_SHA_256),
        signed_attrs: Some(attributes),
        signature_algorithm: algorithm(rfc5912::RSA_ENCRYPTION),
        signature: OctetString::new(signature)?,
        unsigned_attrs: None,
    };
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![algorithm(rfc5912::ID_SHA_256)])?,
        encap_content_info: EncapsulatedContentInfo { econtent_type: SPC_INDIRECT_DATA_OBJID, econtent: Some(content) },
        certificates: Some(CertificateSet(SetOfVec::try_from(vec![CertificateChoices::Certificate(
            key.certificate.clone(),
        )])?)),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::try_from(vec![signer])?),
    };
    let info = ContentInfo { content_type: rfc5911::ID_SIGNED_DATA, content: Any::encode_from(&signed)? };
    Ok(info.to_der()?)
}
