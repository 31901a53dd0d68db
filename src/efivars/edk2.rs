//! The variable store of EDK II: a firmware volume of its own inside the flash image. `RPI_EFI.fd`, the Raspberry Pi's
//! firmware, has it inside the file it was loaded from; a virtual machine in a file of its own (`OVMF_VARS.fd`).
//!
//! Formats: UEFI Platform Initialization specification, volume 3, 3.2.1 (EFI_FIRMWARE_VOLUME_HEADER); EDK II's
//! MdeModulePkg/Include/Guid/VariableFormat.h (VARIABLE_STORE_HEADER and the headers of variables).

use super::entries::{Entries, Stored, name_at};
use super::{GLOBAL, Variable};
use crate::block::{ReadAt, read_vec};
use crate::{Error, Result};
use uuid::Uuid;

/// `gEfiSystemNvDataFvGuid`: the firmware volume of the variables.
const NV_DATA: Uuid = uuid::uuid!("fff12b8d-7696-4c8b-a985-2747075b4f50");
/// `gEfiAuthenticatedVariableGuid`.
const AUTHENTICATED: Uuid = uuid::uuid!("aaf32c78-947b-439a-a180-2e144ec37792");
/// `gEfiVariableGuid`: stores of firmware without Secure Boot.
const PLAIN: Uuid = uuid::uuid!("ddcf3616-3275-4164-98b6-fe85707ffe7d");
/// `gEfiSecureBootEnableDisableGuid`.
const SECURE_BOOT_SWITCH: Uuid = uuid::uuid!("f0a30bc7-af08-4556-99c4-001009c93a44");

/// Firmware volumes begin at multiples of this.
const ALIGNMENT: u64 = 4096;
/// Flash images are not searched beyond this.
const MAX_SEARCH: u64 = 64 * 1024 * 1024;
/// So much is read at once.
const STEP: u64 = 1024 * 1024;
/// A variable store has 56 to 256 KiB.
const MAX_STORE: u64 = 4 * 1024 * 1024;
/// `VARIABLE_STORE_HEADER`.
const STORE_HEADER: usize = 28;
/// Completely written.
const ADDED: u8 = 0x3F;
/// Completely written, and about to be replaced: it counts until the new one is complete.
const BEING_REPLACED: u8 = 0x3E;

/// The variables of the first store in a flash image.
///
/// # Errors
/// [`crate::Code::Malformed`] when there is none or it is damaged; what the source reports.
pub(super) fn read(source: &dyn ReadAt) -> Result<Entries> {
    let Some((at, header)) = find_volume(source)? else {
        return Err(Error::rejected("it is not a known file of EFI variables (U-Boot's, or a flash image of EDK II)"));
    };
    let header_bytes = u64::from(u16_at(&header, 48));
    let volume_bytes = header.get(32..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b));
    let damaged = |why: &str| Error::rejected(format!("the variable store at byte {at} is damaged: {why}"));
    if !(56..ALIGNMENT).contains(&header_bytes) || volume_bytes > source.size() - at {
        return Err(damaged("its firmware volume is longer than the file"));
    }
    let full = read_vec(source, at, header_bytes as usize).map_err(|_| damaged("it is cut off"))?;
    if full.as_chunks::<2>().0.iter().fold(0_u16, |sum, b| sum.wrapping_add(u16::from_le_bytes(*b))) != 0 {
        return Err(damaged("the checksum of its firmware volume is wrong"));
    }
    let store_at = at + header_bytes;
    let head = read_vec(source, store_at, STORE_HEADER).map_err(|_| damaged("it is cut off"))?;
    let bytes = u64::from(u32_at(&head, 16));
    if bytes > volume_bytes - header_bytes || !(STORE_HEADER as u64..=MAX_STORE).contains(&bytes) {
        return Err(damaged("its length is impossible"));
    }
    let authenticated = match guid_at(&head, 0) {
        Some(AUTHENTICATED) => true,
        Some(PLAIN) => false,
        _ => return Err(damaged("its signature is unknown")),
    };
    if head[20..22] != [0x5A, 0xFE] {
        return Err(damaged("it is not marked as formatted and healthy"));
    }
    let store = read_vec(source, store_at, bytes as usize)?;
    let mut found = variables(&store, authenticated);
    secure_boot(&mut found);
    Ok(found)
}

/// The first firmware volume for variables, and its first 64 bytes.
fn find_volume(source: &dyn ReadAt) -> Result<Option<(u64, Vec<u8>)>> {
    let end = source.size().min(MAX_SEARCH);
    for start in (0..end).step_by(STEP as usize) {
        let chunk = read_vec(source, start, (end - start).min(STEP) as usize)?;
        for at in (0..chunk.len()).step_by(ALIGNMENT as usize) {
            let Some(head) = chunk.get(at..at + 64) else { break };
            if head[40..44] == *b"_FVH" && guid_at(head, 16) == Some(NV_DATA) {
                return Ok(Some((start + at as u64, head.to_vec())));
            }
        }
    }
    Ok(None)
}

fn variables(store: &[u8], authenticated: bool) -> Entries {
    // StartId, State, Reserved, Attributes; with authentication a counter, a time and a key's index; then both sizes,
    // GUID.
    let (header, sizes_at) = if authenticated { (60, 36) } else { (32, 8) };
    let mut found = Entries::default();
    let mut replaced = Vec::new();
    let mut at = STORE_HEADER;
    while let Some(head) = store.get(at..at + header).filter(|head| head[..2] == [0xAA, 0x55]) {
        let name_bytes = u32_at(head, sizes_at) as usize;
        let data_bytes = u32_at(head, sizes_at + 4) as usize;
        let name_at_byte = at + header;
        // A header that was never finished has sizes of all ones: its variable ends with it (`GetNextVariablePtr`).
        let size = |n: usize| if n == u32::MAX as usize { 0 } else { n };
        let data_at = name_at_byte.checked_add(size(name_bytes));
        let end = data_at.and_then(|at| at.checked_add(size(data_bytes)));
        let (Some(data_at), Some(end)) = (data_at, end.filter(|end| *end <= store.len())) else {
            found
                .warn(format!("the variable at byte {at} of the store reaches past its end; what follows is not read"));
            break;
        };
        let state = head[2];
        if matches!(state, ADDED | BEING_REPLACED)
            && let Some((name, _)) = name_at(&store[..data_at], name_at_byte)
            && let Some(vendor) = guid_at(head, sizes_at + 8)
            && let Some(data) = store.get(data_at..end)
        {
            let value = Variable { attributes: u32_at(head, 4), data: data.to_vec() };
            let stored = Stored { name, vendor, value };
            if state == ADDED { found.add(stored) } else { replaced.push(stored) }
        }
        at = end.next_multiple_of(4);
    }
    for stored in replaced {
        found.add(stored); // counts only where there is no complete one
    }
    found
}

/// `SecureBoot` and `SetupMode` are worked out by the firmware at each start: from the platform key and the switch in
/// its setup (EDK II's AuthVariableLib). Only firmware that can enforce signatures keeps either of the two.
fn secure_boot(found: &mut Entries) {
    let platform_key = found.get("PK", GLOBAL).is_some_and(|v| !v.data.is_empty());
    let switch = found.get("SecureBootEnable", SECURE_BOOT_SWITCH).and_then(|v| v.data.first().copied());
    if !platform_key && switch.is_none() {
        return;
    }
    let on = platform_key && switch.unwrap_or(1) == 1;
    for (name, value) in [("SecureBoot", on), ("SetupMode", !platform_key)] {
        let value = Variable { attributes: 6, data: vec![u8::from(value)] };
        found.add(Stored { name: name.to_owned(), vendor: GLOBAL, value });
    }
}

fn guid_at(bytes: &[u8], at: usize) -> Option<Uuid> {
    Uuid::from_slice_le(bytes.get(at..at + 16)?).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::efivars::{LOADER, Store, StoreFormat};

    /// A variable of a store: its state, name, vendor, data.
    type Item<'a> = (u8, &'a str, Uuid, &'a [u8]);

    /// A flash image with a store at `at` that holds these variables.
    pub(in super::super) fn flash(at: usize, authenticated: bool, items: &[Item<'_>]) -> Vec<u8> {
        let mut store = vec![0; STORE_HEADER];
        for (state, name, vendor, data) in items {
            let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            store.resize(store.len().next_multiple_of(4), 0xFF);
            store.extend([0xAA, 0x55, *state, 0, 7, 0, 0, 0]);
            if authenticated {
                store.extend([0; 28]);
            }
            store.extend((name.len() as u32).to_le_bytes());
            store.extend((data.len() as u32).to_le_bytes());
            store.extend(vendor.to_bytes_le());
            store.extend(name);
            store.extend(*data);
        }
        store.resize(0x2000, 0xFF);
        store[..16].copy_from_slice(&if authenticated { AUTHENTICATED } else { PLAIN }.to_bytes_le());
        store[16..20].copy_from_slice(&0x2000_u32.to_le_bytes());
        store[20..22].copy_from_slice(&[0x5A, 0xFE]);
        let mut header = vec![0; 72];
        header[16..32].copy_from_slice(&NV_DATA.to_bytes_le());
        header[32..40].copy_from_slice(&0x4000_u64.to_le_bytes());
        header[40..44].copy_from_slice(b"_FVH");
        header[48..50].copy_from_slice(&72_u16.to_le_bytes());
        let sum = header.as_chunks::<2>().0.iter().fold(0_u16, |sum, b| sum.wrapping_add(u16::from_le_bytes(*b)));
        header[50..52].copy_from_slice(&0_u16.wrapping_sub(sum).to_le_bytes());
        let mut image = vec![0x5A; at];
        image.extend(header);
        image.extend(store);
        image.resize(at + 0x4000, 0xFF);
        image
    }

    fn store(bytes: &[u8]) -> Result<Store> {
        Store::read(&bytes.to_vec(), "RPI_EFI.fd")
    }

    #[test]
    fn variables_in_a_flash_image_are_found() {
        for authenticated in [true, false] {
            for at in [0, 4096, 3 * 1024 * 1024 + 8192] {
                let store = store(&flash(at, authenticated, &[(ADDED, "LoaderEntryDefault", LOADER, b"abc")])).unwrap();
                assert_eq!(store.format, StoreFormat::Edk2);
                let value = Variable { attributes: 7, data: b"abc".to_vec() };
                assert_eq!(store.get("LoaderEntryDefault", LOADER), Some(&value));
                assert_eq!(store.list().len(), 1);
            }
        }
    }

    #[test]
    fn only_complete_variables_count() {
        let deleted = 0x3D & 0xFD;
        let items: [Item<'_>; 8] = [
            (BEING_REPLACED, "Half", LOADER, b"old"),
            (BEING_REPLACED, "Full", LOADER, b"old"),
            (0x7F, "HeaderOnly", LOADER, b"x"),
            (deleted, "Gone", LOADER, b"x"),
            (0x3C, "Gone", LOADER, b"y"),
            (0xFF, "Never", LOADER, b"x"),
            (ADDED, "Full", LOADER, b"new"),
            (ADDED, "Last", LOADER, b"z"),
        ];
        let store = store(&flash(0, true, &items)).unwrap();
        let names: Vec<String> = store.list().into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["Full", "Half", "Last"]);
        assert_eq!(store.get("Full", LOADER).unwrap().data, b"new");
        assert_eq!(store.get("Half", LOADER).unwrap().data, b"old");
    }

    #[test]
    fn secure_boot_follows_from_the_key_and_the_switch() {
        let key: Item<'_> = (ADDED, "PK", GLOBAL, b"key");
        let switch = |data: &'static [u8]| (ADDED, "SecureBootEnable", SECURE_BOOT_SWITCH, data);
        for (items, secure_boot, setup_mode) in [
            (vec![], None, None),
            (vec![key], Some(true), Some(false)),
            (vec![key, switch(&[1])], Some(true), Some(false)),
            (vec![key, switch(&[0])], Some(false), Some(false)),
            (vec![switch(&[1])], Some(false), Some(true)),
        ] {
            let store = store(&flash(0, true, &items)).unwrap();
            let flag = |name| store.get(name, GLOBAL).map(|v| v.data == [1]);
            assert_eq!((flag("SecureBoot"), flag("SetupMode")), (secure_boot, setup_mode), "{items:?}");
        }
    }

    #[test]
    fn damaged_stores_are_errors_and_no_panic() {
        let good = flash(0, true, &[(ADDED, "A", LOADER, b"a"), (ADDED, "B", LOADER, b"b")]);
        for len in [0, 15, 16, 63, 71, 72, 90, 100, 200, 0x2047, 0x3FFF] {
            assert!(store(&good[..len]).is_err(), "{len} bytes");
        }
        // Attributes of the volume, and a store that is somewhat longer, still make sense.
        for at in (0..72 + 22).filter(|at| ![44, 45, 46, 47, 72 + 16, 72 + 17].contains(at)) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(store(&bad).is_err(), "byte {at}");
        }
        // Sizes of the first variable.
        for at in 72 + STORE_HEADER + 36..72 + STORE_HEADER + 44 {
            for byte in [0, 1, 0x7F, 0xFF] {
                let mut bad = good.clone();
                bad[at] = byte;
                let _ = store(&bad);
            }
        }
        assert!(store(&vec![0; 1 << 20]).unwrap_err().to_string().contains("not a known file of EFI variables"));
    }
}
