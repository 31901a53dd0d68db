//! Stores of EFI variables, of U-Boot and EDK II, and boot options.
//!
//! Input: one byte for what is put around the rest (0: nothing, 1: the header of `ubootefi.var`, 2 and 3: the headers
//! of an EDK II store, with authentication and without): lengths and checksums are right then, and what is in the store
//! is looked at.
#![no_main]

use bootsurgeon::bootpath::{BootOption, BootOptions};
use bootsurgeon::efivars::{EfiVars, Store};
use libfuzzer_sys::fuzz_target;

/// CRC-32 (IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// `ubootefi.var`: reserved, magic, length, checksum, entries.
fn uboot(entries: &[u8]) -> Vec<u8> {
    let length = 24 + entries.len() as u32;
    [&[0; 8], b"UbEfiVa\x01", &length.to_le_bytes()[..], &crc32(entries).to_le_bytes(), entries].concat()
}

/// A firmware volume (EFI_FIRMWARE_VOLUME_HEADER) with a variable store in it (VARIABLE_STORE_HEADER).
fn edk2(variables: &[u8], authenticated: bool) -> Vec<u8> {
    let mut header = vec![0; 72];
    header[16..32].copy_from_slice(b"\x8d\x2b\xf1\xff\x96\x76\x8b\x4c\xa9\x85\x27\x47\x07\x5b\x4f\x50");
    header[32..40].copy_from_slice(&(72 + 28 + variables.len() as u64).to_le_bytes());
    header[40..44].copy_from_slice(b"_FVH");
    header[48..50].copy_from_slice(&72_u16.to_le_bytes());
    let sum = header.as_chunks::<2>().0.iter().fold(0_u16, |sum, b| sum.wrapping_add(u16::from_le_bytes(*b)));
    header[50..52].copy_from_slice(&0_u16.wrapping_sub(sum).to_le_bytes());
    let signature: &[u8; 16] = if authenticated {
        b"\x78\x2c\xf3\xaa\x7b\x94\x9a\x43\xa1\x80\x2e\x14\x4e\xc3\x77\x92"
    } else {
        b"\x16\x36\xcf\xdd\x75\x32\x64\x41\x98\xb6\xfe\x85\x70\x7f\xfe\x7d"
    };
    let length = (28 + variables.len() as u32).to_le_bytes();
    [&header[..], signature, &length, &[0x5A, 0xFE, 0, 0, 0, 0, 0, 0], variables].concat()
}

fuzz_target!(|data: &[u8]| {
    let [sort, rest @ ..] = data else { return };
    let _ = BootOption::decode(1, rest);
    let file = match sort % 4 {
        0 => rest.to_vec(),
        1 => uboot(rest),
        2 => edk2(rest, true),
        _ => edk2(rest, false),
    };
    let store = Store::read(&file, "here");
    assert!(sort % 4 == 0 || store.is_ok(), "headers that are right");
    let Ok(store) = store else { return };
    let vars = EfiVars::of_store(store);
    for (name, vendor) in vars.list().expect("a store that was read") {
        let _ = vars.read(&name, vendor);
    }
    let _ = BootOptions::read(&vars);
});
