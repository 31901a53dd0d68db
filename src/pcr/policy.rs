//! The signed policy: `.pcrsig` against `.pcrpkey` and the values computed from the UKI's own sections.

use super::Bank;
use crate::{Error, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use der::Decode;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use spki::SubjectPublicKeyInfoRef;
use std::collections::BTreeMap;

/// `TPM2_CC_PolicyPCR`.
const POLICY_PCR: u32 = 0x17F;
/// Larger `.pcrsig` sections are refused, in bytes. Talos' have about 2 KiB.
const MAX_JSON: usize = 1024 * 1024;
/// Entries looked at in one `.pcrsig`, over all banks; systemd writes 4 banks with 4 phases each.
const MAX_ENTRIES: usize = 256;

/// One element of `.pcrsig`. Fields not named here are ignored.
#[derive(Debug, Deserialize)]
struct Entry {
    pcrs: Vec<u32>,
    pkfp: String,
    pol: String,
    sig: String,
}

/// What became of one element of `.pcrsig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "why")]
pub enum EntryOutcome {
    /// Key, PCR, policy and RSA signature are right.
    Verified,
    /// The bank was not computed.
    NotChecked,
    /// Made with another key than `.pcrpkey`.
    OtherKey,
    /// The signature is for other values: a section was changed after signing, or other phases are meant.
    OtherPolicy,
    /// It is malformed, or the RSA signature is wrong.
    Bad(String),
}

/// What became of one profile's `.pcrsig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PcrSignature {
    /// SHA-256 of the public key (DER PKCS#1), as hexadecimal.
    pub key: String,
    /// Per element: the bank's name and the outcome.
    pub entries: Vec<(String, EntryOutcome)>,
}

impl PcrSignature {
    /// Whether a policy of the sha256 bank, which is the one that Talos unseals with, is right.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.entries.iter().any(|(bank, outcome)| bank == "sha256" && *outcome == EntryOutcome::Verified)
    }

    /// Why no policy of the sha256 bank is right; `None` when one is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.is_verified() {
            return None;
        }
        let of_bank: Vec<_> = self.entries.iter().filter(|(bank, _)| bank == "sha256").map(|(_, o)| o).collect();
        // The outcome that came furthest says most.
        Some(if of_bank.is_empty() {
            "it holds no signature for the sha256 bank".into()
        } else if let Some(why) =
            of_bank.iter().find_map(|o| if let EntryOutcome::Bad(why) = o { Some(why) } else { None })
        {
            why.clone()
        } else if of_bank.contains(&&EntryOutcome::OtherPolicy) {
            "it is for other contents: a measured section was changed after signing, or the stub measures other \
             sections than the signer assumed"
                .into()
        } else if of_bank.contains(&&EntryOutcome::OtherKey) {
            "it was made with another key than the one in .pcrpkey".into()
        } else {
            "the sha256 bank was not computed".into()
        })
    }
}

/// The policy digest that a TPM computes for PCR 11 of `bank` at `value`.
#[must_use]
pub fn policy_digest(bank: Bank, value: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([0; 32]);
    hash.update(POLICY_PCR.to_be_bytes());
    // TPML_PCR_SELECTION: one selection, the bank, 3 bytes of bitmap with bit 11 set.
    hash.update(1u32.to_be_bytes());
    hash.update(bank.algorithm().to_be_bytes());
    hash.update([3, 0x00, 0x08, 0x00]);
    hash.update(Sha256::digest(value));
    hash.finalize().into()
}

/// The RSA key in a PEM `PUBLIC KEY` (SubjectPublicKeyInfo), as DER PKCS#1.
fn public_key(pem: &[u8]) -> Result<Vec<u8>> {
    let bad = |why: String| Error::rejected(format!(".pcrpkey is no RSA public key in PEM ({why})"));
    // The section's data ends where the PEM does, but builders may pad it.
    let end = pem.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let (label, der) = der::pem::decode_vec(pem.get(..end).unwrap_or_default()).map_err(|e| bad(e.to_string()))?;
    if label != "PUBLIC KEY" {
        return Err(bad(format!("it is a {label}")));
    }
    let spki = SubjectPublicKeyInfoRef::from_der(&der).map_err(|e| bad(e.to_string()))?;
    if spki.algorithm.oid != const_oid::db::rfc5912::RSA_ENCRYPTION {
        return Err(bad(format!("algorithm {}", spki.algorithm.oid)));
    }
    Ok(spki.subject_public_key.as_bytes().unwrap_or_default().to_vec())
}

/// The fingerprint that `.pcrsig` names a key by: SHA-256 of the DER PKCS#1 form, as hexadecimal.
///
/// # Errors
/// [`crate::Kind::Rejected`] when it is no RSA public key in PEM.
pub fn key_fingerprint(pem: &[u8]) -> Result<String> {
    Ok(hex::encode(Sha256::digest(public_key(pem)?)))
}

/// Verifies one profile's `.pcrsig` (JSON) with the key in `.pcrpkey` (PEM) against PCR 11 values, given per bank after
/// the signed phases. Banks without a value are not checked.
///
/// # Errors
/// [`crate::Kind::Rejected`] when the key or the JSON is malformed. A signature that does not fit is an outcome.
pub fn verify_pcrsig(json: &[u8], pem: &[u8], values: &BTreeMap<Bank, Vec<u8>>) -> Result<PcrSignature> {
    let key = public_key(pem)?;
    let fingerprint = hex::encode(Sha256::digest(&key));
    let bad = |why: String| Error::rejected(format!(".pcrsig: {why}"));
    if json.len() > MAX_JSON {
        return Err(bad(format!("{} bytes", json.len())));
    }
    let end = json.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let banks: BTreeMap<String, Vec<Entry>> =
        serde_json::from_slice(json.get(..end).unwrap_or_default()).map_err(|e| bad(e.to_string()))?;
    if banks.values().map(Vec::len).sum::<usize>() > MAX_ENTRIES {
        return Err(bad(format!("more than {MAX_ENTRIES} signatures")));
    }
    let entries = banks
        .iter()
        .flat_map(|(name, entries)| entries.iter().map(move |entry| (name, entry)))
        .map(|(name, entry)| {
            let computed = Bank::from_name(name).and_then(|bank| Some((bank, values.get(&bank)?)));
            let outcome = match computed {
                None => EntryOutcome::NotChecked,
                Some((bank, value)) => check(entry, bank, value, &key, &fingerprint),
            };
            (name.clone(), outcome)
        })
        .collect();
    Ok(PcrSignature { key: fingerprint, entries })
}

fn check(entry: &Entry, bank: Bank, value: &[u8], key: &[u8], fingerprint: &str) -> EntryOutcome {
    let policy = policy_digest(bank, value);
    if !entry.pkfp.eq_ignore_ascii_case(fingerprint) {
        return EntryOutcome::OtherKey;
    }
    if entry.pcrs != [11] || !entry.pol.eq_ignore_ascii_case(&hex::encode(policy)) {
        return EntryOutcome::OtherPolicy;
    }
    let Ok(rsa) = STANDARD.decode(&entry.sig) else {
        return EntryOutcome::Bad("the signature is not in base64".into());
    };
    let algorithm: &'static dyn VerificationAlgorithm = match bank {
        Bank::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Bank::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Bank::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
    };
    match UnparsedPublicKey::new(algorithm, key).verify(&policy, &rsa) {
        Ok(()) => EntryOutcome::Verified,
        Err(_) => EntryOutcome::Bad("the RSA signature over the policy does not verify".into()),
    }
}
