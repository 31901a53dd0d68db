//! PCR 11: what the stub measures, and the signed policy in the UKI.
//!
//! A TPM releases the key of a disk when PCR 11 has a value that the holder of a key has signed. The stub measures the
//! sections of the UKI into PCR 11, the system adds a word at each phase of its way up (`systemd-pcrphase`, Talos'
//! machined), and `.pcrsig` holds signatures over the values expected. All of it can be computed offline, which this
//! module does. It touches nothing.
//!
//! Hashing is one [`crate::block::Sink`] in the pass that everything else takes; what follows is pure. Sources:
//! systemd's `stub.c`, `uki.h`, `measure.c` and `tpm2-util.c`; Talos' `internal/pkg/measure`; TPM 2.0 Library Part 3,
//! TPM2_PolicyPCR.

mod bank;
mod phases;
mod policy;
mod sections;

pub use bank::{Bank, BankHashes};
pub use phases::{SYSTEMD_PHASES, TALOS_PHASES, path};
pub use policy::{
    EntryOutcome, Measured, PcrSignature, SignedPolicy, banks_of, key_fingerprint, policy_digest, verify_pcrsig,
};
pub use sections::{MeasuredProfile, SectionHashes, exchanged, profiles, stub_version};

use std::collections::BTreeMap;

/// PCR 11 of one profile in one bank.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PcrValues {
    /// When the stub is done.
    pub sections: Vec<u8>,
    /// After each phase word, in order.
    pub phases: Vec<(String, Vec<u8>)>,
}

impl PcrValues {
    /// The value after the last phase.
    #[must_use]
    pub fn last(&self) -> &[u8] {
        self.phases.last().map_or(&self.sections, |(_, value)| value)
    }
}

/// PCR 11 after measured sections (names and places in the section table, in measuring order;
/// [`MeasuredProfile::measured`] or one of [`MeasuredProfile::alternatives`]) and the phase words. `None` when a
/// section was not hashed in this bank.
#[must_use]
pub fn values(
    bank: Bank,
    measured: &[(String, usize)],
    hashes: &BTreeMap<usize, BankHashes>,
    phases: &[&str],
) -> Option<PcrValues> {
    let mut pcr = vec![0; bank.bytes()];
    for (name, index) in measured {
        let data = hashes.get(index)?.get(bank)?;
        let mut named = name.clone().into_bytes();
        named.push(0);
        pcr = bank.extend(&pcr, &bank.hash(&named));
        pcr = bank.extend(&pcr, data);
    }
    let sections = pcr.clone();
    let phases = phases
        .iter()
        .map(|word| {
            pcr = bank.extend(&pcr, &bank.hash(word.as_bytes()));
            ((*word).to_owned(), pcr.clone())
        })
        .collect();
    Some(PcrValues { sections, phases })
}

#[cfg(test)]
mod tests;
