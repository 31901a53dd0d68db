//! `ubootefi.var`: the file on the ESP in which U-Boot keeps its EFI variables (EBBR, "File Format For Storing EFI
//! Variables"; U-Boot's include/efi_variable.h and lib/efi_loader/efi_var_file.c).
//!
//! ```text
//! 0   u64  0
//! 8   u64  magic: "UbEfiVa", then the format's version 1
//! 16  u32  length of the file
//! 20  u32  CRC-32 of what follows
//! 24  entries, each on a multiple of 8: u32 length of the data, u32 attributes, u64 time, GUID, name (UTF-16LE, NUL),
//! data
//! ```
//! U-Boot ignores the file as a whole when one of the first four fields is wrong, and starts without variables then.

use super::entries::{Entries, Stored, name_at};
use super::{GLOBAL, NON_VOLATILE, SECURITY_DATABASE, SHIM, Variable};
use crate::{Error, Result};
use uuid::Uuid;

/// "UbEfiVa" and the version, as bytes.
const MAGIC: [u8; 8] = *b"UbEfiVa\x01";
const HEADER: usize = 24;
const ENTRY: usize = 32;

/// Variables that U-Boot takes from its own binary and never from the file (`efi_auth_var_get_type`).
const NOT_FROM_FILE: [(&str, Uuid); 8] = [
    ("PK", GLOBAL),
    ("KEK", GLOBAL),
    ("db", SECURITY_DATABASE),
    ("dbx", SECURITY_DATABASE),
    ("dbt", SECURITY_DATABASE),
    ("dbr", SECURITY_DATABASE),
    ("AuditMode", GLOBAL),
    ("DeployedMode", GLOBAL),
];

/// Whether a file begins like one of U-Boot's.
pub(super) fn is_store(head: &[u8]) -> bool {
    head.get(8..15) == Some(&MAGIC[..7])
}

/// Whether U-Boot takes a variable of that name from the file.
pub(super) fn keeps(name: &str, vendor: Uuid) -> bool {
    vendor != SHIM && !NOT_FROM_FILE.iter().any(|(n, v)| *n == name && *v == vendor)
}

/// The variables that U-Boot takes from the file.
///
/// # Errors
/// [`crate::Code::Malformed`] when U-Boot would ignore the file.
pub(super) fn parse(bytes: &[u8]) -> Result<Entries> {
    let ignored = |why: String| Err(Error::rejected(format!("{why}: U-Boot ignores such a file")));
    let Some((header, body)) = bytes.split_at_checked(HEADER) else {
        return ignored(format!("it ends after {} bytes, inside its header", bytes.len()));
    };
    let field = |at: usize| header.get(at..at + 4).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b));
    if header[..8] != [0; 8] || header[8..16] != MAGIC {
        return ignored("its header is not of format version 1".to_owned());
    }
    if field(16) as usize != bytes.len() {
        return ignored(format!("it has {} bytes and says that it has {}", bytes.len(), field(16)));
    }
    if crc32fast::hash(body) != field(20) {
        return ignored("its checksum is wrong".to_owned());
    }
    Ok(entries(body))
}

fn entries(body: &[u8]) -> Entries {
    let mut found = Entries::default();
    let mut at = 0;
    while at < body.len() {
        let Some((stored, next)) = entry(body, at) else {
            found.warn(format!("the entry at byte {} reaches past the end; what follows is not read", at + HEADER));
            break;
        };
        at = next;
        let Stored { name, vendor, value } = &stored;
        if !keeps(name, *vendor) || value.attributes & NON_VOLATILE == 0 {
            found.warn(format!("{name} in it is ignored: U-Boot never takes that variable from the file"));
        } else if !value.data.is_empty() {
            found.add(stored);
        }
    }
    found
}

/// The entry at an offset, and where the next one begins.
fn entry(body: &[u8], at: usize) -> Option<(Stored, usize)> {
    let head = body.get(at..at.checked_add(ENTRY)?)?;
    let bytes = u32::from_le_bytes(*head.first_chunk()?) as usize;
    let attributes = u32::from_le_bytes(*head.get(4..)?.first_chunk()?);
    let vendor = Uuid::from_slice_le(head.get(16..32)?).ok()?;
    let (name, data_at) = name_at(body, at + ENTRY)?;
    let end = data_at.checked_add(bytes)?;
    let data = body.get(data_at..end)?.to_vec();
    Some((Stored { name, vendor, value: Variable { attributes, data } }, end.checked_next_multiple_of(8)?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::efivars::{LOADER, Store, StoreFormat};

    /// What U-Boot 2023.01 wrote for three variables: PlatformLang, LoaderEntryDefault (81 bytes of text), and `Odd`.
    const WRITTEN_BY_UBOOT: &str = "\
        0000000000000000556245666956610120010000316aa4e30600000007000000000000000000000061dfe48bca93d211aa0d00e098032b8c\
        50006c006100740066006f0072006d004c0061006e0067000000656e2d5553005100000007000000000000000000000082b0674a4c0acf41\
        b6c7440b29bb8c4f4c006f00610064006500720045006e00740072007900440065006600610075006c00740000003d353430303631303036\
        6330303666303037333030326430303736303033313030326530303331303033323030326530303334303037653030333130303265303036\
        353030363630303639303030303030000300000007000000000000000000000061dfe48bca93d211aa0d00e098032b8c4f00640064000000\
        6162630045006e00";

    /// A file of U-Boot's with these variables.
    pub(in super::super) fn file(variables: &[(&str, Uuid, u32, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, vendor, attributes, data) in variables {
            body.extend((data.len() as u32).to_le_bytes());
            body.extend(attributes.to_le_bytes());
            body.extend([0; 8]);
            body.extend(vendor.to_bytes_le());
            body.extend(name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
            body.extend(*data);
            body.resize(body.len().next_multiple_of(8), 0x55);
        }
        let length = (HEADER + body.len()) as u32;
        [&[0; 8], &MAGIC[..], &length.to_le_bytes(), &crc32fast::hash(&body).to_le_bytes(), &body].concat()
    }

    fn store(bytes: &[u8]) -> Result<Store> {
        Store::read(&bytes.to_vec(), "ubootefi.var")
    }

    #[test]
    fn a_file_that_uboot_wrote_is_read() {
        let store = store(&hex::decode(WRITTEN_BY_UBOOT).unwrap()).unwrap();
        assert_eq!(store.format, StoreFormat::UBoot);
        assert_eq!(store.get("PlatformLang", GLOBAL).unwrap().data, b"en-US\0");
        assert_eq!(store.get("LoaderEntryDefault", LOADER).unwrap().data.len(), 0x51);
        assert_eq!(store.get("Odd", GLOBAL), Some(&Variable { attributes: 7, data: b"abc".to_vec() }));
        assert_eq!(store.list().len(), 3);
        assert!(store.warnings().is_empty());
    }

    #[test]
    fn what_uboot_ignores_is_an_error_and_never_a_value() {
        let good = file(&[("LoaderEntryDefault", LOADER, 7, b"x\0y\0\0\0")]);
        assert!(store(&good).is_ok());
        for len in 16..good.len() {
            assert!(store(&good[..len]).is_err(), "{len} bytes");
        }
        assert!(store(&[&good[..], &[0; 8]].concat()).unwrap_err().to_string().contains("ignores"));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(store(&bad).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn variables_that_uboot_does_not_take_from_the_file_are_named() {
        let bytes = file(&[
            ("db", SECURITY_DATABASE, 0x27, b"key"),
            ("PK", GLOBAL, 0x27, b"key"),
            ("SbatLevel", SHIM, 7, b"sbat"),
            ("Volatile", LOADER, 6, b"v"),
            ("Twice", LOADER, 7, b"first"),
            ("Twice", LOADER, 7, b"second"),
            ("Empty", LOADER, 7, b""),
        ]);
        let store = store(&bytes).unwrap();
        assert_eq!(store.list(), [("Twice".to_owned(), LOADER)]);
        assert_eq!(store.get("Twice", LOADER).unwrap().data, b"first");
        assert_eq!(store.warnings().len(), 4, "{:?}", store.warnings());
    }

    #[test]
    fn entries_that_reach_past_the_end_are_no_panic() {
        for length in [1_u32, 9, 1 << 20, u32::MAX] {
            let mut bytes = file(&[("A", LOADER, 7, b"a"), ("B", LOADER, 7, b"b")]);
            bytes[64..68].copy_from_slice(&length.to_le_bytes());
            let crc = crc32fast::hash(&bytes[24..]).to_le_bytes();
            bytes[20..24].copy_from_slice(&crc);
            let store = store(&bytes).unwrap();
            assert!(store.get("A", LOADER).is_some());
            assert_eq!(store.get("B", LOADER).is_some(), length == 1);
            assert_eq!(store.warnings().is_empty(), length == 1);
        }
    }
}
