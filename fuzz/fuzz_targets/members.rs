//! The marks of arrays, volume groups, pools and caches, and of file systems: at the start and the end of what may bear
//! them.
#![no_main]

use bootsurgeon::disk::{Membership, file_system};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Length of the disk in sectors, how much of the rest is its beginning, and in which sector the other part stands.
    let Some((numbers, rest)) = data.split_first_chunk::<6>() else { return };
    let number = |at: usize| usize::from(u16::from_le_bytes([numbers[at], numbers[at + 1]]));
    // More than 256 KiB, so that the superblock of metadata 0.90 need not be at the start.
    let mut disk = vec![0; number(0) % 600 * 512];
    let (begin, other) = rest.split_at(number(2).min(rest.len()));
    for (at, bytes) in [(0, begin), (number(4) * 512, other)] {
        let Some(room) = disk.get_mut(at..) else { continue };
        let fits = room.len().min(bytes.len());
        room[..fits].copy_from_slice(&bytes[..fits]);
    }
    let member = Membership::of(&disk).expect("bytes in memory can be read");
    let _ = (member.map(|m| m.to_string()), file_system(&disk));
});
