//! ISO 9660 with Rock Ridge, and the EFI boot images in it.
#![no_main]

use bootsurgeon::iso::{Iso, IsoEntry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(mut iso) = Iso::open(data.to_vec()) else { return };
    let _ = iso.volume_id();
    let _ = iso.efi_images();
    let _ = iso.find("EFI/Linux/Talos-v1.12.4.efi");
    let Ok(Some(root)) = iso.find("") else { return };
    // Any tree, loops included: so many directories and no more.
    let mut open: Vec<IsoEntry> = vec![root];
    for _ in 0..16 {
        let Some(dir) = open.pop() else { return };
        open.extend(iso.read_dir(&dir).unwrap_or_default());
    }
});
