//! Signing as Talos' imager does, for the demonstration and for tests: a key made on the spot, a self-signed
//! certificate, and a PE image signed with it. Never used on anything that is kept.

use crate::authenticode::{Certificate, DigestSink};
use crate::block::{Extent, Sink};
use crate::pe::Head;
use crate::{Error, Result};
use authenticode::{DigestInfo, SPC_INDIRECT_DATA_OBJID, SpcAttributeTypeAndOptionalValue, SpcIndirectDataContent};
use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use const_oid::{ObjectIdentifier, db::rfc5911, db::rfc5912};
use der::asn1::{OctetString, SetOfVec};
use der::pem::LineEnding;
use der::{Any, Decode, Encode, EncodePem, Tag};
use rsa::pkcs1v15;
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey};
use rsa::rand_core::{OsRng, RngCore};
use rsa::sha2::{Digest, Sha256};
use rsa::signature::{SignatureEncoding, Signer};
use spki::AlgorithmIdentifierOwned;
use std::str::FromStr;
use std::time::Duration;
use x509_cert::attr::Attribute;
use x509_cert::builder::{Builder, CertificateBuilder, Profile};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Validity;

/// `SPC_PE_IMAGE_DATA_OBJID`.
const SPC_PE_IMAGE_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.15");
/// `SpcPeImageData` as every signing tool writes it: no flags, and the file link "<<<Obsolete>>>" in UTF-16.
const PE_IMAGE_DATA: &[u8] = b"\x30\x25\x03\x01\x00\xa0\x20\xa2\x1e\x80\x1c\
    \0<\0<\0<\0O\0b\0s\0o\0l\0e\0t\0e\0>\0>\0>";
/// How long a certificate made here is valid: a year.
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// An RSA-2048 key with a self-signed certificate.
pub struct SigningKey {
    key: rsa::RsaPrivateKey,
    certificate: x509_cert::Certificate,
}

fn failed(what: &str) -> impl FnOnce(&dyn std::fmt::Display) -> Error {
    move |e| Error::io(format!("{what}: {e}"))
}

impl SigningKey {
    /// Makes a key and a certificate for `CN=<name>`. Takes up to a second.
    ///
    /// # Errors
    /// When the system gives no random numbers, or `name` is no RFC 4514 value.
    pub fn generate(name: &str) -> Result<Self> {
        let key = rsa::RsaPrivateKey::new(&mut OsRng, 2048).map_err(|e| failed("making an RSA key")(&e))?;
        let signer = pkcs1v15::SigningKey::<Sha256>::new(key.clone());
        let subject = Name::from_str(&format!("CN={name}")).map_err(|e| failed("the name of a certificate")(&e))?;
        let make = || -> Result<x509_cert::Certificate, Box<dyn std::error::Error>> {
            let mut serial = [0; 15];
            OsRng.try_fill_bytes(&mut serial)?;
            serial[0] = serial[0] & 0x3F | 0x40; // positive and without leading zeros: always as long in DER
            let spki = spki::SubjectPublicKeyInfoOwned::try_from(key.to_public_key().to_public_key_der()?.as_bytes())?;
            let builder = CertificateBuilder::new(
                // Self-signed, but for signing images and not certificates: OpenSSL wants that key usage of a signer.
                Profile::Leaf { issuer: subject.clone(), enable_key_agreement: false, enable_key_encipherment: false },
                SerialNumber::new(&serial)?,
                Validity::from_now(VALIDITY)?,
                subject,
                spki,
                &signer,
            )?;
            Ok(builder.build::<pkcs1v15::Signature>()?)
        };
        let certificate = make().map_err(|e| failed("making a certificate")(&e))?;
        Ok(Self { key, certificate })
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
    ///
    /// # Errors
    /// None that can be expected of a key made here.
    pub fn private_key_pem(&self) -> Result<String> {
        let pem = self.key.to_pkcs8_pem(LineEnding::LF).map_err(|e| failed("encoding a key")(&e))?;
        Ok(pem.to_string())
    }

    /// The public key as PEM `PUBLIC KEY`, as it stands in `.pcrpkey`.
    ///
    /// # Errors
    /// None that can be expected of a key made here.
    pub fn public_key_pem(&self) -> Result<String> {
        self.key.to_public_key().to_public_key_pem(LineEnding::LF).map_err(|e| failed("encoding a key")(&e))
    }

    /// RSASSA-PKCS1-v1_5 over `message` with SHA-256: for a PCR policy of the sha256 bank, `message` is the 32 bytes of
    /// the policy digest.
    ///
    /// # Errors
    /// When the RSA operation fails.
    pub fn sign_sha256(&self, message: &[u8]) -> Result<Vec<u8>> {
        sign_with::<Sha256>(&self.key, message)
    }

    /// As [`Self::sign_sha256`] with SHA-384, for the sha384 bank.
    ///
    /// # Errors
    /// When the RSA operation fails.
    pub fn sign_sha384(&self, message: &[u8]) -> Result<Vec<u8>> {
        sign_with::<rsa::sha2::Sha384>(&self.key, message)
    }

    /// As [`Self::sign_sha256`] with SHA-512, for the sha512 bank.
    ///
    /// # Errors
    /// When the RSA operation fails.
    pub fn sign_sha512(&self, message: &[u8]) -> Result<Vec<u8>> {
        sign_with::<rsa::sha2::Sha512>(&self.key, message)
    }
}

fn sign_with<D>(key: &rsa::RsaPrivateKey, message: &[u8]) -> Result<Vec<u8>>
where
    D: Digest + rsa::pkcs8::AssociatedOid,
{
    let signature =
        pkcs1v15::SigningKey::<D>::new(key.clone()).try_sign(message).map_err(|e| failed("an RSA signature")(&e))?;
    Ok(signature.to_vec())
}

/// Appends a signature to a PE image, behind those that are there. CheckSum becomes 0, as in Talos' UKIs.
///
/// # Errors
/// [`crate::Kind::Rejected`] when the image is no PE32+, has no place for a certificate table, or a layout that firmware
/// would not hash; [`crate::Kind::Io`] when the RSA operation fails.
pub fn sign_pe(mut pe: Vec<u8>, key: &SigningKey) -> Result<Vec<u8>> {
    let head = Head::read(&pe)?;
    let directory = head.security_directory_at.ok_or_else(|| Error::rejected("no place for a certificate table"))?;
    let mut sink = DigestSink::new(&head)?;
    sink.chunk(&pe)?;
    let digest = sink.finish()?;

    pe.resize(pe.len().next_multiple_of(8), 0);
    let pkcs7 = pkcs7(&digest.sha256, key).map_err(|e| failed("encoding a signature")(&e))?;
    let length = u32::try_from(pkcs7.len() + 8).map_err(|e| failed("a signature's length")(&e))?;
    let start = head.certificate_table.map_or(pe.len() as u64, |t| t.offset);
    pe.extend(length.to_le_bytes());
    pe.extend([0x00, 0x02, 0x02, 0x00]);
    pe.extend(pkcs7);
    pe.resize(pe.len().next_multiple_of(8), 0);

    let table = Extent { offset: start, bytes: pe.len() as u64 - start };
    for (at, value) in [(directory, table.offset), (directory + 4, table.bytes), (head.checksum_at, 0)] {
        let value = u32::try_from(value).map_err(|e| failed("the place of the certificate table")(&e))?;
        let at = usize::try_from(at).map_err(|e| failed("the place of a header field")(&e))?;
        let field = pe.get_mut(at..at + 4).ok_or_else(|| Error::rejected("a header field outside the file"))?;
        field.copy_from_slice(&value.to_le_bytes());
    }
    Ok(pe)
}

/// PKCS#7 SignedData over an image digest, as `sbsign` and Talos' imager write it.
fn pkcs7(digest: &[u8; 32], key: &SigningKey) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let algorithm = |oid| AlgorithmIdentifierOwned { oid, parameters: Some(Any::null()) };
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
