//! PCR 11: what the stub measures, and the signed policy in the UKI.
