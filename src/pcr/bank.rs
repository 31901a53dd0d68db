//! The hash algorithms of a TPM's PCR banks.

use crate::authenticode::{Hash, Hasher};
use serde::Serialize;
use std::fmt;

/// A PCR bank. SHA-1 is left out: Talos signs none, and no policy should rest on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bank {
    /// The bank that Talos unseals with.
    Sha256,
    /// Signed by Talos' builder, never extended by Talos at run time.
    Sha384,
    /// As [`Bank::Sha384`].
    Sha512,
}

impl Bank {
    /// Every bank known.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name in `.pcrsig`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// From its name in `.pcrsig`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bank| bank.name() == name)
    }

    /// `TPM_ALG_ID` (TCG Algorithm Registry).
    #[must_use]
    pub const fn algorithm(self) -> u16 {
        match self {
            Self::Sha256 => 0x000B,
            Self::Sha384 => 0x000C,
            Self::Sha512 => 0x000D,
        }
    }

    /// Length of a value in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    pub(super) fn hasher(self) -> Hasher {
        Hasher::new(match self {
            Self::Sha256 => Hash::Sha256,
            Self::Sha384 => Hash::Sha384,
            Self::Sha512 => Hash::Sha512,
        })
    }

    /// The hash of `data`.
    #[must_use]
    pub fn hash(self, data: &[u8]) -> Vec<u8> {
        let mut hasher = self.hasher();
        hasher.update(data);
        hasher.finish()
    }

    /// `TPM2_PCR_Extend`: the hash of the old value and a digest.
    #[must_use]
    pub fn extend(self, pcr: &[u8], digest: &[u8]) -> Vec<u8> {
        let mut hasher = self.hasher();
        hasher.update(pcr);
        hasher.update(digest);
        hasher.finish()
    }
}

impl fmt::Display for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The hashes of one section's data, in the banks that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BankHashes(Vec<(Bank, Vec<u8>)>);

impl BankHashes {
    /// The hashes of `data` in `banks`.
    #[must_use]
    pub fn of(data: &[u8], banks: &[Bank]) -> Self {
        Self(banks.iter().map(|bank| (*bank, bank.hash(data))).collect())
    }

    pub(super) fn add(&mut self, bank: Bank, hash: Vec<u8>) {
        self.0.push((bank, hash));
    }

    /// The hash in `bank`, if it was computed.
    #[must_use]
    pub fn get(&self, bank: Bank) -> Option<&[u8]> {
        self.0.iter().find(|(b, _)| *b == bank).map(|(_, hash)| &hash[..])
    }

    /// The other's banks beside these, for hashes that were taken by sinks of their own.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}
