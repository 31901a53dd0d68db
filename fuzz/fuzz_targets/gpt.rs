//! The partition table, with each sector size, and what is chosen from it.
#![no_main]

use bootsurgeon::disk::{Gpt, esp_extents};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let data = data.to_vec();
    for sector_size in [None, Some(512), Some(4096)] {
        let Ok(Some(gpt)) = Gpt::read(&data, sector_size) else { continue };
        for choice in [None, Some("1"), Some("EFI"), Some("d1e6a7b4-0001-4c11-8e55-0123456789ab")] {
            let _ = gpt.choose_esp(choice);
        }
        for p in &gpt.partitions {
            let end = p.extent.offset.checked_add(p.extent.bytes).expect("extents are checked");
            assert!(end <= data.len() as u64, "partition {} ends behind the disk", p.number);
        }
    }
    let _ = esp_extents(&data);
});
