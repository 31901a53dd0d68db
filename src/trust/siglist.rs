//! `EFI_SIGNATURE_LIST`: the contents of db and dbx, and of `.auth` files (UEFI specification 2.10, 32.4.1 and 8.2.2).

use crate::authenticode::Certificate;
use crate::{Context, Error, Result};
use sha2::{Digest, Sha256, Sha384, Sha512};
use uuid::{Uuid, uuid};

const X509: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
const SHA256: Uuid = uuid!("c1c41626-504c-4092-aca9-41f936934328");
const X509_SHA256: Uuid = uuid!("3bd2a492-96c0-4079-b420-fcf98ef103ed");
const X509_SHA384: Uuid = uuid!("7076876e-80c2-4ee6-aad2-28b349a6865b");
const X509_SHA512: Uuid = uuid!("446dbf63-2502-4cda-bcfa-2465d2b0fe9d");
/// `EFI_CERT_TYPE_PKCS7_GUID`, the type of every authenticated variable update.
const PKCS7: Uuid = uuid!("4aafd29d-68df-49ee-8aa9-347d375665a7");
/// The GUID of the owner before each signature.
const OWNER: usize = 16;
const LIST_HEADER: usize = 28;
/// `EFI_TIME`.
const TIME: usize = 16;
/// More entries than this are an error. Microsoft's dbx has about 500.
const MAX_ENTRIES: usize = 65_536;

/// One entry of a signature list, of the types that matter for images signed with SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureListEntry {
    /// A certificate: what it or its descendants signed.
    Certificate(Box<Certificate>),
    /// The Authenticode SHA-256 of one image.
    ImageSha256([u8; 32]),
    /// The hash of a certificate's to-be-signed part, and since when it counts.
    Tbs(TbsHash),
    /// What is not looked at: another type (its GUID), or a certificate that cannot be read (why).
    Other(String),
}

/// A certificate revoked by the hash of its to-be-signed part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TbsHash {
    /// SHA-256, SHA-384 or SHA-512, told apart by the length.
    pub hash: Vec<u8>,
    /// `TimeOfRevocation` as RFC 3339; `None` when it is all zero: revoked for all time.
    ///
    /// A later time would spare images that a timestamp authority in `dbt` proves to be older. No UKI carries such a
    /// timestamp, so firmware takes every listed certificate as revoked, and so does this tool.
    pub since: Option<String>,
}

impl TbsHash {
    /// Whether it means this certificate.
    #[must_use]
    pub fn matches(&self, certificate: &Certificate) -> bool {
        let tbs = certificate.tbs_der();
        match self.hash.len() {
            32 => Sha256::digest(tbs).as_slice() == self.hash,
            48 => Sha384::digest(tbs).as_slice() == self.hash,
            64 => Sha512::digest(tbs).as_slice() == self.hash,
            _ => false,
        }
    }
}

/// All entries of the signature lists in `bytes`, which stand one behind the other to the end.
///
/// # Errors
/// [`crate::Kind::Rejected`] when a list breaks its format. A certificate that cannot be parsed is an
/// [`SignatureListEntry::Other`]: vendors put odd ones into db, and one of them must not hide the rest.
pub fn parse(bytes: &[u8]) -> Result<Vec<SignatureListEntry>> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let bad = |why: String| Error::malformed("EFI signature list", at as u64, why);
        let rest = bytes.get(at..).unwrap_or_default();
        let Some((header, _)) = rest.split_first_chunk::<LIST_HEADER>() else {
            return Err(bad(format!("{} bytes are left over", rest.len())));
        };
        let kind = guid(header);
        let field = |at: usize| u32_at(header, at) as usize;
        let (list_bytes, header_bytes, entry_bytes) = (field(16), field(20), field(24));
        let body = (list_bytes >= LIST_HEADER)
            .then(|| rest.get(LIST_HEADER..list_bytes))
            .flatten()
            .ok_or_else(|| bad(format!("a list of {list_bytes} bytes where {} are left", rest.len())))?;
        let body = body
            .get(header_bytes..)
            .ok_or_else(|| bad(format!("a header of {header_bytes} bytes in a list of {list_bytes}")))?;
        if entry_bytes <= OWNER || body.len() % entry_bytes != 0 {
            return Err(bad(format!("{} bytes of entries with {entry_bytes} bytes each", body.len())));
        }
        if entries.len() + body.len() / entry_bytes > MAX_ENTRIES {
            return Err(bad(format!("more than {MAX_ENTRIES} entries")));
        }
        for entry in body.chunks_exact(entry_bytes) {
            let data = entry.get(OWNER..).unwrap_or_default();
            entries.push(parse_entry(kind, data).while_doing(|| format!("EFI signature list at byte {at}"))?);
        }
        at += list_bytes;
    }
    Ok(entries)
}

fn parse_entry(kind: Uuid, data: &[u8]) -> Result<SignatureListEntry> {
    let wrong = || Error::rejected(format!("an entry of {} bytes for type {kind}", data.len()));
    let tbs = |hash_bytes: usize| {
        let (hash, time) = data.split_at_checked(hash_bytes).filter(|(_, t)| t.len() == TIME).ok_or_else(wrong)?;
        Ok(SignatureListEntry::Tbs(TbsHash { hash: hash.to_vec(), since: efi_time(time) }))
    };
    match kind {
        X509 => Ok(Certificate::from_der(data).map_or_else(
            |e| SignatureListEntry::Other(format!("a certificate that cannot be read: {e}")),
            |certificate| SignatureListEntry::Certificate(Box::new(certificate)),
        )),
        SHA256 => Ok(SignatureListEntry::ImageSha256(data.try_into().map_err(|_| wrong())?)),
        X509_SHA256 => tbs(32),
        X509_SHA384 => tbs(48),
        X509_SHA512 => tbs(64),
        other => Ok(SignatureListEntry::Other(other.to_string())),
    }
}

/// The signature lists in an authenticated variable update (`db.auth`): `EFI_VARIABLE_AUTHENTICATION_2`, which is a
/// time and a `WIN_CERTIFICATE_UEFI_GUID`, and behind it the lists. The signature over the update is not verified: a
/// file on the ESP is as trustworthy as the ESP.
///
/// # Errors
/// [`crate::Kind::Rejected`] when it breaks its format.
pub fn parse_auth(bytes: &[u8]) -> Result<Vec<SignatureListEntry>> {
    let bad = |why: String| Error::malformed("authenticated variable update", 0, why);
    let Some((header, _)) = bytes.split_first_chunk::<40>() else {
        return Err(bad(format!("{} bytes", bytes.len())));
    };
    let length = u32_at(header, TIME) as usize;
    let (revision, kind) = (u32_at(header, 20) & 0xFFFF, u32_at(header, 20) >> 16);
    let certificate = guid(header.get(24..).unwrap_or_default());
    if (revision, kind, certificate) != (0x0200, 0x0EF1, PKCS7) {
        return Err(bad(format!("revision 0x{revision:04x}, type 0x{kind:04x}, {certificate}: not PKCS#7")));
    }
    let lists = length
        .checked_add(TIME)
        .filter(|_| length >= 24)
        .and_then(|end| bytes.get(end..))
        .ok_or_else(|| bad(format!("a signature of {length} bytes in a file of {}", bytes.len())))?;
    parse(lists)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn guid(bytes: &[u8]) -> Uuid {
    bytes.first_chunk::<16>().map_or(Uuid::nil(), |b| Uuid::from_bytes_le(*b))
}

/// `EFI_TIME` (UTC is meant) as RFC 3339, or `None` when it is all zero.
fn efi_time(bytes: &[u8]) -> Option<String> {
    let [y0, y1, month, day, hour, minute, second, ..] = bytes else { return None };
    if bytes.iter().all(|b| *b == 0) {
        return None;
    }
    let year = u16::from_le_bytes([*y0, *y1]);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn list(kind: Uuid, entries: &[&[u8]]) -> Vec<u8> {
        let entry_bytes = OWNER + entries[0].len();
        let mut out = kind.to_bytes_le().to_vec();
        out.extend(((LIST_HEADER + entry_bytes * entries.len()) as u32).to_le_bytes());
        out.extend(0u32.to_le_bytes());
        out.extend((entry_bytes as u32).to_le_bytes());
        for entry in entries {
            out.extend([0x11; OWNER]);
            out.extend(*entry);
        }
        out
    }

    pub(crate) fn hashes(entries: &[&[u8]]) -> Vec<u8> {
        list(SHA256, entries)
    }

    pub(crate) fn certificates(der: &[u8]) -> Vec<u8> {
        list(X509, &[der])
    }

    pub(crate) fn tbs256(hash: &[u8], time: [u8; 16]) -> Vec<u8> {
        list(X509_SHA256, &[&[hash, &time].concat()])
    }

    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

    #[test]
    fn lists_of_every_type() {
        let mut bytes = hashes(&[&[1; 32], &[2; 32]]);
        bytes.extend(tbs256(&[3; 32], [0; 16]));
        bytes.extend(tbs256(&[4; 32], [0xE8, 7, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        bytes.extend(list(X509_SHA384, &[&[5; 64]]));
        bytes.extend(list(Uuid::nil(), &[&[6; 20]]));
        let tbs = |hash: &[u8], since: Option<&str>| {
            SignatureListEntry::Tbs(TbsHash { hash: hash.to_vec(), since: since.map(str::to_owned) })
        };
        let expected = [
            SignatureListEntry::ImageSha256([1; 32]),
            SignatureListEntry::ImageSha256([2; 32]),
            tbs(&[3; 32], None),
            tbs(&[4; 32], Some("2024-05-06T07:08:09Z")),
            tbs(&[5; 48], Some("1285-05-05T05:05:05Z")),
            SignatureListEntry::Other(Uuid::nil().to_string()),
        ];
        assert_eq!(parse(&bytes).unwrap(), expected);
        assert_eq!(parse(&[]).unwrap(), []);
    }

    #[test]
    fn an_update_is_unwrapped() {
        let mut auth = vec![0; 16];
        auth.extend((24u32 + 100).to_le_bytes());
        auth.extend([0x00, 0x02, 0xF1, 0x0E]);
        auth.extend(PKCS7.to_bytes_le());
        auth.extend([0xAA; 100]);
        auth.extend(hashes(&[&[7; 32]]));
        assert_eq!(parse_auth(&auth).unwrap(), [SignatureListEntry::ImageSha256([7; 32])]);
        for at in [16, 20, 22, 24] {
            let mut bad = auth.clone();
            bad[at] ^= 0x40;
            assert!(parse_auth(&bad).is_err(), "byte {at}");
        }
        assert!(parse_auth(&auth[..39]).is_err());
    }

    #[test]
    fn lists_that_break_their_format() {
        let good = hashes(&[&[1; 32]]);
        let cases: &[(&str, Damage<'_>)] = &[
            ("cut", &|b| b.truncate(b.len() - 1)),
            ("left over", &|b| b.push(0)),
            ("entry size 0", &|b| b[24..28].fill(0)),
            ("entry size", &|b| b[24] = 47),
            ("list size", &|b| b[16..20].fill(0xFF)),
            ("header size", &|b| b[20..24].fill(0xFF)),
        ];
        for (what, damage) in cases {
            let mut bytes = good.clone();
            damage(&mut bytes);
            assert!(parse(&bytes).is_err(), "{what}");
        }
        assert!(matches!(&parse(&list(X509, &[&[0; 40]])).unwrap()[..], [SignatureListEntry::Other(_)]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = parse_auth(&bytes);
        }
    }
}
