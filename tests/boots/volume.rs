//! Volumes and disks for the virtual machine, written by the fatfs and gpt crates where that can be.

use bootsurgeon::block::{Memory, read_vec};
use bootsurgeon::fat::{Editor, Stamp};
use std::fs::File;
use std::io::{Cursor, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

const SECTOR: u64 = 512;

/// A FAT volume without files.
fn format(bytes: usize) -> Cursor<Vec<u8>> {
    let mut raw = Cursor::new(vec![0; bytes]);
    let (kind, cluster) = if bytes < 64 << 20 { (fatfs::FatType::Fat16, 512) } else { (fatfs::FatType::Fat32, 1024) };
    let options = fatfs::FormatVolumeOptions::new()
        .fat_type(kind)
        .bytes_per_cluster(cluster.max(bytes as u32 >> 15).next_power_of_two().min(4096))
        .volume_label(*b"EFI        ");
    fatfs::format_volume(&mut raw, options).unwrap();
    raw
}

/// A volume that is to be operated on, with files written by this project: fatfs gives `.` and `..` long names, which a
/// swap takes for damage.
pub(crate) fn esp(bytes: usize, files: &[(String, Vec<u8>)]) -> Vec<u8> {
    const STAMP: Stamp = Stamp(1_771_000_000);
    let medium = Memory::with_sector_size(format(bytes).into_inner(), SECTOR as u32);
    let mut editor = Editor::open(&medium).unwrap();
    for (path, content) in files {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        if !dir.is_empty() {
            editor.make_directories(dir, STAMP).unwrap();
        }
        editor.make_file(dir, name, content, STAMP).unwrap();
    }
    editor.write_fsinfo().unwrap();
    read_vec(&medium, 0, bytes).unwrap()
}

/// A FAT volume with these files, written in this order; a path that ends in `/` is a directory.
pub(crate) fn fat(bytes: usize, files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut raw = format(bytes);
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

/// A disk with a GPT and volumes of these sizes as EFI System Partitions, the first at 1 MiB; made one after the other.
/// Holes where there is nothing.
pub(crate) fn disk(path: &Path, sizes: &[usize], volume: impl FnMut(usize) -> Vec<u8>) {
    let partitions: Vec<_> = sizes.iter().map(|bytes| (*bytes, gpt::partition_types::EFI)).collect();
    partitioned(path, &partitions, volume);
}

/// [`disk`] with partitions of any types.
pub(crate) fn partitioned(
    path: &Path,
    partitions: &[(usize, gpt::partition_types::Type)],
    mut volume: impl FnMut(usize) -> Vec<u8>,
) {
    let total = partitions.iter().map(|(bytes, _)| *bytes as u64).sum::<u64>() + (2 << 20);
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
    let mut first = 2048;
    for (i, (bytes, kind)) in partitions.iter().enumerate() {
        let sectors = *bytes as u64 / SECTOR;
        table
            .add_partition_at(&format!("EFI{i}"), i as u32 + 1, first, sectors, kind.clone(), 0)
            .unwrap_or_else(|e| panic!("partition {i}: {e}"));
        first += sectors;
    }
    let file = table.write().unwrap();
    let mut at = 2048 * SECTOR;
    for (i, (bytes, _)) in partitions.iter().enumerate() {
        let volume = volume(i);
        assert_eq!(volume.len(), *bytes);
        for (n, chunk) in volume.chunks(4096).enumerate() {
            if chunk.iter().any(|b| *b != 0) {
                file.write_all_at(chunk, at + 4096 * n as u64).unwrap();
            }
        }
        at += *bytes as u64;
    }
}
