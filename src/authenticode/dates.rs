//! Certificates dated before 1970, which the certificate crate does not take and firmware, which has no clock to trust,
//! does not look at: Go's zero time is 0001-01-01.
//!
//! The crate is given a copy with 1970 in the place of these years. Signatures and hashes are over the original bytes,
//! which are found here as well; the years that are shown are the original ones.

use std::ops::Range;

const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// One DER value: its tag, where its content is, and where it ends.
struct Value {
    tag: u8,
    content: Range<usize>,
}

/// The value at `at`. Lengths of up to four bytes, as certificates have.
fn value(der: &[u8], at: usize) -> Option<Value> {
    let tag = *der.get(at)?;
    let first = usize::from(*der.get(at + 1)?);
    let (length, start) = if first < 0x80 {
        (first, at + 2)
    } else {
        let bytes = der.get(at + 2..)?.get(..first & 0x7F).filter(|b| (1..=4).contains(&b.len()))?;
        (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), at + 2 + bytes.len())
    };
    let end = start.checked_add(length).filter(|end| *end <= der.len())?;
    Some(Value { tag, content: start..end })
}

/// The values that stand one after the other in `within`.
fn values(der: &[u8], within: Range<usize>) -> Vec<Value> {
    let mut at = within.start;
    let mut all = Vec::new();
    while at < within.end {
        let Some(next) = value(der, at).filter(|v| v.content.end <= within.end) else { break };
        at = next.content.end;
        all.push(next);
    }
    all
}

/// Puts 1970 in the place of earlier years in the validity of the certificate at `certificate`.
fn mend_certificate(der: &mut [u8], certificate: &Value) -> Option<()> {
    let tbs = values(der, certificate.content.clone()).into_iter().next()?;
    let fields = values(der, tbs.content);
    // version [0] (optional), serialNumber, signature, issuer, validity
    let validity = fields.get(3 + usize::from(fields.first()?.tag == CONTEXT_0))?;
    for time in values(der, validity.content.clone()) {
        let text = der.get_mut(time.content)?;
        match (time.tag, &*text) {
            // Two digits: 50 to 99 are of the 20th century.
            (UTC_TIME, [b'5' | b'6', ..]) => text.get_mut(..2)?.copy_from_slice(b"70"),
            (GENERALIZED_TIME, [a, b, c, d, ..]) if [*a, *b, *c, *d] < *b"1970" => {
                text.get_mut(..4)?.copy_from_slice(b"1970");
            }
            _ => {}
        }
    }
    Some(())
}

/// A certificate that the crate takes.
pub(super) fn mended_certificate(der: &[u8]) -> Vec<u8> {
    let mut mended = der.to_vec();
    if let Some(certificate) = value(der, 0) {
        let _ = mend_certificate(&mut mended, &certificate);
    }
    mended
}

/// PKCS#7 SignedData that the crates take, and the certificates in it as they stand in the original.
pub(super) fn mended_pkcs7(pkcs7: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut mended = pkcs7.to_vec();
    let mut originals = Vec::new();
    for certificate in certificates(pkcs7).unwrap_or_default() {
        let _ = mend_certificate(&mut mended, &certificate);
        originals.push(certificate);
    }
    let originals = originals.into_iter().map(|c| pkcs7[header_of(pkcs7, &c)..c.content.end].to_vec()).collect();
    (mended, originals)
}

/// Where the value begins, its tag included.
fn header_of(der: &[u8], value: &Value) -> usize {
    let length = value.content.len();
    let bytes = if length < 0x80 { 0 } else { (usize::BITS - length.leading_zeros()).div_ceil(8) as usize };
    let usual = value.content.start - 2 - bytes;
    // A length in more bytes than it needs is no DER; the crates refuse it.
    if der.get(usual) == Some(&value.tag) { usual } else { value.content.start }
}

/// ContentInfo { contentType, [0] SignedData { version, digestAlgorithms, encapContentInfo, [0] certificates, … } }.
fn certificates(pkcs7: &[u8]) -> Option<Vec<Value>> {
    let info = value(pkcs7, 0)?;
    let content = values(pkcs7, info.content).into_iter().nth(1)?;
    let signed = values(pkcs7, content.content).into_iter().next()?;
    let set = values(pkcs7, signed.content).into_iter().find(|v| v.tag == CONTEXT_0)?;
    Some(values(pkcs7, set.content).into_iter().filter(|v| v.tag == SEQUENCE).collect())
}

/// The end of a certificate's validity as it stands there, where it is before 1970.
pub(super) fn end_before_1970(der: &[u8]) -> Option<String> {
    let certificate = value(der, 0)?;
    let tbs = values(der, certificate.content).into_iter().next()?;
    let fields = values(der, tbs.content);
    let validity = fields.get(3 + usize::from(fields.first()?.tag == CONTEXT_0))?;
    let end = values(der, validity.content.clone()).into_iter().nth(1)?;
    let text = std::str::from_utf8(der.get(end.content)?).ok().filter(|t| t.is_ascii())?;
    let (century, rest) = match end.tag {
        UTC_TIME => ("19", text),
        _ => ("", text),
    };
    let full = format!("{century}{rest}");
    let part = |range: Range<usize>| full.get(range).unwrap_or("00");
    let year = part(0..4);
    let early = match end.tag {
        UTC_TIME => matches!(text.as_bytes().first(), Some(b'5' | b'6')),
        _ => year < "1970",
    };
    early.then(|| format!("{year}-{}-{}T{}:{}:{}Z", part(4..6), part(6..8), part(8..10), part(10..12), part(12..14)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_will_do(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (mended, _) = mended_pkcs7(&bytes);
            prop_assert_eq!(mended.len(), bytes.len());
            prop_assert_eq!(mended_certificate(&bytes).len(), bytes.len());
            let _ = end_before_1970(&bytes);
        }
    }
}
