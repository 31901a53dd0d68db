//! Authenticode: the PE image digest and the PKCS#7 signatures over it.
//!
//! Pure computation over bytes that others read; touches nothing. The structures come from the crates `authenticode`,
//! `cms` and `x509-cert`, RSA and ECDSA from `ring`. Own code stands beside them for four things:
//!
//! * the digest, because the crate wants the whole file as a slice (UKIs have over 100 MB) and does not pad unsigned
//!   files;
//! * the walk over the certificate table, because it must end exactly where firmware wants it to end;
//! * dates before 1970, which the crates do not take;
//! * chains, because `rustls-webpki` and its kind check dates and server names, which firmware does not.
//!
//! Sources: Microsoft "Windows Authenticode Portable Executable Signature Format", RFC 2315 and RFC 5652, and the
//! behaviour of EDK2's `DxeImageVerificationLib`, which is what nearly all firmware runs.

mod certificate;
mod dates;
mod digest;
mod hash;
mod signature;
#[cfg(test)]
mod tests;

pub use certificate::Certificate;
pub(crate) use certificate::rsa_bits;
pub use digest::{DigestSink, ImageDigest};
pub use hash::Hash;
pub(crate) use hash::Hasher;
pub use signature::{Signature, SignatureOutcome, parse_table, verify, verify_by};
