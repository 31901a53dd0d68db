//! Volumes and disks for the virtual machine, written by the fatfs and gpt crates and not by this project.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Cursor, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

const SECTOR: u64 = 512;

/// A FAT volume with these files, written in this order; a path that ends in `/` is a directory.
pub(crate) fn fat(bytes: usize, files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut raw = Cursor::new(vec![0; bytes]);
    let (kind, cluster) = if bytes < 64 << 20 { (fatfs::FatType::Fat16, 512) } else { (fatfs::FatType::Fat32, 1024) };
    let options = fatfs::FormatVolumeOptions::new()
        .fat_type(kind)
        .bytes_per_cluster(cluster.max(bytes as u32 >> 15).next_power_of_two().min(4096))
        .volume_label(*b"EFI        ");
    fatfs::format_volume(&mut raw, options).unwrap();
    let volume = fatfs::FileSystem::new(&mut raw, fatfs::FsOptions::new()).unwrap();
    for (path, content) in files {
        let mut dir = volume.root_dir();
        let mut parts = path.split('/').peekable();
        while let Some(name) = parts.next().filter(|n| !n.is_empty()) {
            if parts.peek().is_some() {
                dir = dir.create_dir(name).unwrap();
            } else {
                let mut file = dir.create_file(name).unwrap_or_else(|e| panic!("{path}: {e}"));
                file.truncate().unwrap();
                file.write_all(content).unwrap();
            }
        }
    }
    volume.unmount().unwrap();
    raw.into_inner()
}

/// A FAT16 volume just large enough for these files.
pub(crate) fn small(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let content: usize = files.iter().map(|(_, content)| content.len() + 1024).sum();
    fat((content + (256 << 10)).next_multiple_of(64 << 10).max(2304 << 10), files)
}

/// A disk with a GPT and these volumes as EFI System Partitions, the first at 1 MiB. Holes where there is nothing.
pub(crate) fn disk<'a>(path: &Path, volumes: impl Iterator<Item = &'a Vec<u8>>) {
    let volumes: Vec<_> = volumes.collect();
    let total = volumes.iter().map(|v| v.len() as u64).sum::<u64>() + (2 << 20);
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    file.set_len(total).unwrap();
    gpt::mbr::ProtectiveMBR::with_lb_size(u32::try_from(total / SECTOR - 1).unwrap())
        .overwrite_lba0(&mut file)
        .unwrap();
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(gpt::disk::LogicalBlockSize::Lb512)
        .create_from_device(file, None)
        .unwrap();
    let mut at = 2048;
    let mut starts = HashMap::new();
    for (i, volume) in volumes.iter().enumerate() {
        let sectors = volume.len() as u64 / SECTOR;
        let label = if i == 0 { "EFI".to_owned() } else { format!("STATE{i}") };
        table
            .add_partition_at(&label, i as u32 + 1, at, sectors, gpt::partition_types::EFI, 0)
            .unwrap_or_else(|e| panic!("partition {i}: {e}"));
        starts.insert(i, at * SECTOR);
        at += sectors;
    }
    let file = table.write().unwrap();
    for (i, volume) in volumes.iter().enumerate() {
        for (n, chunk) in volume.chunks(4096).enumerate() {
            if chunk.iter().any(|b| *b != 0) {
                file.write_all_at(chunk, starts[&i] + 4096 * n as u64).unwrap();
            }
        }
    }
}
