//! The partition tables, GPT and MBR, with each sector size, what is chosen from them, and boot loaders in the sectors
//! between.
#![no_main]

use bootsurgeon::board::raw_loaders;
use bootsurgeon::disk::{PartitionTable, boot_volumes, esps};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let data = data.to_vec();
    for sector_size in [None, Some(512), Some(4096)] {
        let Ok(Some(table)) = PartitionTable::read(&data, sector_size) else { continue };
        let _ = esps(&table, &data);
        let places: Vec<_> = table.partitions.iter().map(|p| p.extent).collect();
        let _ = raw_loaders(&data, &places);
        for p in &table.partitions {
            let end = p.extent.offset.checked_add(p.extent.bytes).expect("extents are checked");
            assert!(end <= data.len() as u64, "partition {} ends behind the disk", p.number);
        }
    }
    let _ = (boot_volumes(&data), raw_loaders(&data, &[]));
});
