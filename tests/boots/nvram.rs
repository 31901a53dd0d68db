//! Variables put into the firmware's store from outside, as `virt-fw-vars` does: an EDK2 authenticated variable store
//! (MdeModulePkg/Include/Guid/VariableFormat.h) behind a firmware volume header (PI specification, volume 3).

use uuid::{Uuid, uuid};

/// Boot loader interface.
pub(crate) const LOADER: Uuid = uuid!("4a67b082-0a4c-41cf-b6c7-440b29bb8c4f");
/// `EFI_GLOBAL_VARIABLE`.
pub(crate) const GLOBAL: Uuid = uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
const IMAGE_SECURITY: Uuid = uuid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f");
const SECURE_BOOT_ENABLE: Uuid = uuid!("f0a30bc7-af08-4556-99c4-001009c93a44");
const X509: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
const AUTHENTICATED_STORE: Uuid = uuid!("aaf32c78-947b-439a-a180-2e144ec37792");

/// Non-volatile, for boot and run time.
pub(crate) const PLAIN: u32 = 7;
const BOOT_ONLY: u32 = 3;
const TIME_BASED_AUTHENTICATED: u32 = 0x27;

/// Appends a variable to a store. Panics where there is no store: the firmware has to format it first.
pub(crate) fn add(store: &mut [u8], name: &str, vendor: Uuid, attributes: u32, data: &[u8]) {
    assert_eq!(store.get(40..44), Some(&b"_FVH"[..]), "a formatted variable store");
    let start = usize::from(u16::from_le_bytes([store[48], store[49]]));
    assert_eq!(store[start..start + 16], AUTHENTICATED_STORE.to_bytes_le());
    let mut at = start + 28;
    let u32_at = |at: usize| u32::from_le_bytes(store[at..at + 4].try_into().unwrap()) as usize;
    while store[at..at + 2] == [0xAA, 0x55] {
        at = (at + 60 + u32_at(at + 36) + u32_at(at + 40)).next_multiple_of(4);
    }
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    // VAR_ADDED, no monotonic count.
    let mut record = vec![0xAA, 0x55, 0x3F, 0];
    record.extend(attributes.to_le_bytes());
    record.extend([0; 8]);
    let authenticated = attributes == TIME_BASED_AUTHENTICATED;
    // EFI_TIME: the first of January 2024.
    record.extend(if authenticated { [0xE8, 7, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] } else { [0; 16] });
    record.extend(0_u32.to_le_bytes());
    record.extend((name.len() as u32).to_le_bytes());
    record.extend((data.len() as u32).to_le_bytes());
    record.extend(vendor.to_bytes_le());
    record.extend(name);
    record.extend(data);
    let free = &mut store[at..at + record.len()];
    assert!(free.iter().all(|b| *b == 0xFF), "the variable store is full");
    free.copy_from_slice(&record);
}

/// Takes every variable out of a store.
pub(crate) fn clear(store: &mut [u8]) {
    let start = usize::from(u16::from_le_bytes([store[48], store[49]]));
    let bytes = u32::from_le_bytes(store[start + 16..start + 20].try_into().unwrap()) as usize;
    store[start + 28..start + bytes].fill(0xFF);
}

/// Secure Boot on, with one certificate as platform key, key exchange key, and in the list of what may start.
pub(crate) fn enrol(store: &mut [u8], certificate_der: &[u8]) {
    let mut list = X509.to_bytes_le().to_vec();
    let signature = 16 + certificate_der.len();
    for value in [28 + signature, 0, signature] {
        list.extend((value as u32).to_le_bytes());
    }
    list.extend(LOADER.to_bytes_le());
    list.extend(certificate_der);
    for (name, vendor) in [("db", IMAGE_SECURITY), ("KEK", GLOBAL), ("PK", GLOBAL)] {
        add(store, name, vendor, TIME_BASED_AUTHENTICATED, &list);
    }
    add(store, "SecureBootEnable", SECURE_BOOT_ENABLE, BOOT_ONLY, &[1]);
}
