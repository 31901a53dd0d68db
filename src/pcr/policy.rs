//! The signed policy: `.pcrsig` against `.pcrpkey` and the values computed from the UKI's own sections.
//!
//! Sources: `systemd-measure`(1) and `src/measure/measure-tool.c` for what is signed, `tpm2_unseal` of `tpm2-util.c`
//! for what is looked at when a disk is unlocked; Talos' `internal/pkg/measure`.

use super::phases::{known_paths, walk};
use super::{Bank, TALOS_PHASES, path};
use crate::authenticode::rsa_bits;
use crate::sorting::set;
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
/// Entries looked at in one `.pcrsig`, over all banks; systemd writes 4 banks with 4 phases each, once per `.dtbauto`.
const MAX_ENTRIES: usize = 4096;

/// One element of `.pcrsig`. Fields not named here are ignored.
#[derive(Debug, Deserialize)]
struct Entry {
    pcrs: Vec<u32>,
    /// Left out by offline builders that do not know the key.
    #[serde(default)]
    pkfp: Option<String>,
    pol: String,
    /// Not there yet in an image whose policies are to be signed elsewhere (`ukify --policy-digest`).
    #[serde(default)]
    sig: Option<String>,
    /// `systemd-measure --policyref`: a text that is bound to the signature.
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    /// No known builder says which path it signs; one that does is believed to mean that one.
    #[serde(default, alias = "phases")]
    phase: Option<String>,
}

/// PCR 11 when the stub is done, in one bank, for one of [`super::MeasuredProfile::alternatives`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Measured {
    /// The bank.
    pub bank: Bank,
    /// Which alternative: 0 where no hardware-dependent section is taken; `None` for what no stub measures and a
    /// builder signs all the same ([`super::exchanged`]).
    pub alternative: Option<usize>,
    /// The value, [`super::PcrValues::sections`].
    pub value: Vec<u8>,
}

/// What became of one element of `.pcrsig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "why")]
#[non_exhaustive]
pub enum EntryOutcome {
    /// Key, PCR, policy and signature are right.
    Verified {
        /// The phases it is for: `enter-initrd:leave-initrd`.
        phases: String,
        /// The alternative of the measured sections that it is for.
        alternative: usize,
    },
    /// Signed by systemd-measure 257, which exchanges `.dtbauto` and `.hwids`: no stub measures that.
    Exchanged,
    /// It cannot be judged from the image: the bank was not computed, other PCRs belong to the policy, the kind of key
    /// or signature is not supported here.
    NotChecked(String),
    /// Made with another key than `.pcrpkey`.
    OtherKey,
    /// The signature is for other values: a section was changed after signing, or phases are meant that nobody knows.
    OtherPolicy,
    /// It is malformed, or the signature is wrong.
    Bad(String),
}

/// One element of `.pcrsig`, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SignedPolicy {
    /// The bank's name as it stands there.
    pub bank: String,
    /// The PCRs it is about.
    pub pcrs: Vec<u32>,
    /// The policy reference that is bound to it, if one is: only disks sealed with the same one are unlocked by it.
    pub reference: Option<String>,
    /// What became of it.
    pub outcome: EntryOutcome,
}

/// What became of one profile's `.pcrsig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PcrSignature {
    /// SHA-256 of the public key (of an RSA key: DER PKCS#1), as hexadecimal.
    pub key: String,
    /// Per element.
    pub policies: Vec<SignedPolicy>,
}

impl PcrSignature {
    /// The phase paths and alternatives of the policies that are right.
    pub fn verified(&self) -> impl Iterator<Item = (&SignedPolicy, &str, usize)> {
        self.policies.iter().filter_map(|p| match &p.outcome {
            EntryOutcome::Verified { phases, alternative } => Some((p, phases.as_str(), *alternative)),
            _ => None,
        })
    }

    /// Whether all that fits was signed by systemd-measure 257 with `.dtbauto` and `.hwids` exchanged: the contents are
    /// what was signed, and no TPM releases anything by it.
    #[must_use]
    pub fn is_exchanged(&self) -> bool {
        let any = |outcome: &EntryOutcome| self.policies.iter().any(|p| p.outcome == *outcome);
        let bad = self.policies.iter().any(|p| matches!(p.outcome, EntryOutcome::Bad(_)));
        any(&EntryOutcome::Exchanged) && !bad && self.verified().next().is_none()
    }

    /// Whether the policy is right that Talos unseals with: bank sha256, [`TALOS_PHASES`].
    #[must_use]
    pub fn unlocks_talos(&self) -> bool {
        self.verified().any(|(p, phases, _)| p.bank == Bank::Sha256.name() && phases == path(&TALOS_PHASES))
    }

    /// What is wrong with it for a system that takes any of its policies; `None` when nothing is, and when nothing can
    /// be said ([`Self::unjudged`]).
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.is_exchanged() {
            return Some(
                "systemd-measure 257 computed it, which exchanges .dtbauto and .hwids, and the stub measures them \
                 right: it fits \
                 no board (build the image with a newer systemd-measure)"
                    .into(),
            );
        }
        let bad = self.policies.iter().find_map(|p| match &p.outcome {
            EntryOutcome::Bad(why) => Some(why.clone()),
            _ => None,
        });
        if bad.is_some() || self.verified().next().is_some() {
            return bad;
        }
        // The outcome that came furthest says most.
        let any = |outcome: &EntryOutcome| self.policies.iter().any(|p| p.outcome == *outcome);
        if self.policies.is_empty() {
            Some("it holds no signature".into())
        } else if any(&EntryOutcome::OtherPolicy) {
            Some(
                "it is for other contents: a measured section was changed after signing, or the stub measures other \
                 sections than the signer assumed"
                    .into(),
            )
        } else if self.unjudged().is_none() {
            Some("it was made with another key than the one in .pcrpkey".into())
        } else {
            None
        }
    }

    /// As [`Self::problem`], for Talos.
    #[must_use]
    pub fn problem_for_talos(&self) -> Option<String> {
        if self.unlocks_talos() {
            return None;
        }
        Some(self.problem().unwrap_or_else(|| {
            format!(
                "it holds no signature for {} in the sha256 bank, which is what Talos unseals with",
                path(&TALOS_PHASES)
            )
        }))
    }

    /// Why none of it can be judged from the image; `None` when some of it can.
    #[must_use]
    pub fn unjudged(&self) -> Option<&str> {
        let mut first = None;
        for policy in &self.policies {
            match &policy.outcome {
                EntryOutcome::NotChecked(why) => first = first.or(Some(why.as_str())),
                EntryOutcome::OtherKey => {}
                _ => return None,
            }
        }
        first
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

/// The key of the policies.
struct PublicKey {
    /// The contents of `subjectPublicKey`: of an RSA key DER PKCS#1, of an elliptic curve the point.
    bytes: Vec<u8>,
    /// Why signatures of it cannot be verified here.
    unsupported: Option<String>,
}

impl PublicKey {
    /// From a PEM `PUBLIC KEY` (SubjectPublicKeyInfo).
    fn parse(pem: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::rejected(format!(".pcrpkey is not a public key in PEM ({why})"));
        // The section's data ends where the PEM does, but builders may pad it.
        let (label, der) = der::pem::decode_vec(unpadded(pem)).map_err(|e| bad(e.to_string()))?;
        if label != "PUBLIC KEY" {
            return Err(bad(format!("it is a {label}")));
        }
        let spki = SubjectPublicKeyInfoRef::from_der(&der).map_err(|e| bad(e.to_string()))?;
        let bytes = spki.subject_public_key.as_bytes().unwrap_or_default().to_vec();
        let unsupported = if spki.algorithm.oid == const_oid::db::rfc5912::RSA_ENCRYPTION {
            let bits = rsa_bits(&bytes).ok_or_else(|| bad("no RSA key in it".into()))?;
            (!(2048..=8192).contains(&bits)).then(|| format!("an RSA key of {bits} bits"))
        } else {
            Some(format!("a key of the algorithm {}", spki.algorithm.oid))
        };
        Ok(Self { bytes, unsupported })
    }

    fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.bytes))
    }
}

/// Without the zeros and blanks behind it that builders reserve room with.
fn unpadded(section: &[u8]) -> &[u8] {
    let end = section.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    section.get(..end).unwrap_or_default()
}

/// The fingerprint that `.pcrsig` names a key by: SHA-256 of the DER PKCS#1 form, as hexadecimal.
///
/// # Errors
/// [`crate::Kind::Rejected`] when it is not a public key in PEM.
pub fn key_fingerprint(pem: &[u8]) -> Result<String> {
    Ok(PublicKey::parse(pem)?.fingerprint())
}

/// The elements of a `.pcrsig`, by bank.
fn parse(json: &[u8]) -> Result<BTreeMap<String, Vec<Entry>>> {
    let bad = |why: String| Error::rejected(format!(".pcrsig: {why}"));
    if json.len() > MAX_JSON {
        return Err(bad(format!("{} bytes", json.len())));
    }
    let banks: BTreeMap<String, Vec<Entry>> = serde_json::from_slice(unpadded(json)).map_err(|e| bad(e.to_string()))?;
    if banks.values().map(Vec::len).sum::<usize>() > MAX_ENTRIES {
        return Err(bad(format!("more than {MAX_ENTRIES} signatures")));
    }
    Ok(banks)
}

/// The banks that a `.pcrsig` (JSON) holds policies for, of those known here; none when it cannot be read.
#[must_use]
pub fn banks_of(json: &[u8]) -> Vec<Bank> {
    let Ok(banks) = parse(json) else { return Vec::new() };
    let filled = banks.iter().filter(|(_, entries)| !entries.is_empty());
    filled.filter_map(|(name, _)| Bank::from_name(name)).collect()
}

/// Verifies one profile's `.pcrsig` (JSON) with the key in `.pcrpkey` (PEM) against PCR 11 as measured, per bank and
/// alternative. Banks without a value are not checked.
///
/// # Errors
/// [`crate::Kind::Rejected`] when the key or the JSON is malformed. A signature that does not fit is an outcome.
pub fn verify_pcrsig(json: &[u8], pem: &[u8], measured: &[Measured]) -> Result<PcrSignature> {
    let key = PublicKey::parse(pem)?;
    let banks = parse(json)?;
    let named = banks.values().flatten().filter_map(|e| e.phase.clone());
    let paths = set(known_paths().chain(named));
    let mut expected = BTreeMap::new();
    for Measured { bank, alternative, value } in measured {
        for path in &paths {
            let policy = policy_digest(*bank, &walk(*bank, value, path));
            expected.entry((*bank, policy)).or_insert((path.clone(), *alternative));
        }
    }
    let computed = |bank: &Bank| measured.iter().any(|m| m.bank == *bank);
    let mut policies = Vec::new();
    for (name, entry) in banks.iter().flat_map(|(name, entries)| entries.iter().map(move |e| (name, e))) {
        let outcome = match Bank::from_name(name).filter(computed) {
            None => EntryOutcome::NotChecked(format!("the {} bank was not computed", printable(name))),
            Some(bank) => check(entry, bank, &expected, &key),
        };
        policies.push(SignedPolicy {
            bank: name.clone(),
            pcrs: entry.pcrs.clone(),
            reference: entry.reference.clone().filter(|r| !r.is_empty()),
            outcome,
        });
    }
    Ok(PcrSignature { key: key.fingerprint(), policies })
}

/// A name out of the image, as it may be shown.
fn printable(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).take(32).collect()
}

/// Per bank and policy: the phases and the alternative it belongs to.
type Expected = BTreeMap<(Bank, [u8; 32]), (String, Option<usize>)>;

fn check(entry: &Entry, bank: Bank, expected: &Expected, key: &PublicKey) -> EntryOutcome {
    if entry.pkfp.as_ref().is_some_and(|pkfp| !pkfp.eq_ignore_ascii_case(&key.fingerprint())) {
        return EntryOutcome::OtherKey;
    }
    if entry.pcrs != [11] {
        let list: Vec<_> = entry.pcrs.iter().map(u32::to_string).collect();
        return EntryOutcome::NotChecked(format!("it is for the PCRs {}, not for PCR 11 alone", list.join(", ")));
    }
    let Some(policy) = hex::decode(&entry.pol).ok().and_then(|p| <[u8; 32]>::try_from(p).ok()) else {
        return EntryOutcome::Bad("the policy is not a SHA-256 in hexadecimal".into());
    };
    let Some((phases, alternative)) = expected.get(&(bank, policy)) else { return EntryOutcome::OtherPolicy };
    if let Some(what) = &key.unsupported {
        return EntryOutcome::NotChecked(format!("{what} is not supported here"));
    }
    let Some(signature) = &entry.sig else {
        return EntryOutcome::Bad("the policy is there and is not signed".into());
    };
    let Ok(signature) = STANDARD.decode(signature) else {
        return EntryOutcome::Bad("the signature is not in base64".into());
    };
    let mut message = policy.to_vec();
    if let Some(reference) = entry.reference.as_ref().filter(|r| !r.is_empty()) {
        message.extend(Sha256::digest(reference));
    }
    // systemd signs with SHA-256 whatever the bank since 258; before, and in Talos, it is the bank's own hash.
    let own: &'static dyn VerificationAlgorithm = match bank {
        Bank::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Bank::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Bank::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
    };
    let sha256: &'static dyn VerificationAlgorithm = &signature::RSA_PKCS1_2048_8192_SHA256;
    let fits = |algorithm| UnparsedPublicKey::new(algorithm, &key.bytes).verify(&message, &signature).is_ok();
    if !fits(sha256) && !fits(own) {
        return EntryOutcome::Bad("the RSA signature over the policy does not verify".into());
    }
    match alternative {
        Some(alternative) => EntryOutcome::Verified { phases: phases.clone(), alternative: *alternative },
        None => EntryOutcome::Exchanged,
    }
}
