//! What several targets share: a small FAT volume of each width, and everything that is readable on a volume.

use bootsurgeon::block::{Memory, ReadAt};
use bootsurgeon::fat::{Editor, Stamp, Volume};
use std::collections::BTreeMap;

/// The files of a volume by path, with their content; at most so many, and nothing that cannot be read.
pub fn files<S: ReadAt>(volume: &Volume<S>) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![String::new()];
    for _ in 0..64 {
        let Some(dir) = open.pop() else { break };
        let Ok(Some(entries)) = volume.list(&dir) else { continue };
        for entry in entries.into_iter().filter(|e| !e.is_dot()).take(256) {
            let path = if dir.is_empty() { entry.name.clone() } else { format!("{dir}/{}", entry.name) };
            if entry.is_dir() {
                open.push(path);
            } else if let Ok(pieces) = volume.file(&entry)
                && pieces.size() <= 1 << 20
            {
                let mut bytes = vec![0; pieces.size() as usize];
                if pieces.read_exact_at(&mut bytes, 0).is_ok() {
                    found.insert(path, bytes);
                }
            }
        }
    }
    found
}

/// Where UKIs are.
pub const DIR: &str = "EFI/Linux";
/// When everything happens.
pub const STAMP: Stamp = Stamp(1_760_000_000);
/// Names of files that operations are tried with: plain, long, forbidden.
pub const NAMES: [&str; 8] = [
    "Talos-v1.12.4.efi",
    "Talos-v1.12.4~1.efi",
    "Talos-v1.12.4.efi.bak.1760000000",
    "SHORT.EFI",
    "a name that is long enough to need quite a few slots of its own, more than a sector of them can hold.efi",
    "bad/name",
    "ünïcödé Ω.efi",
    "x",
];

/// A volume with two UKIs, a configuration and a file in the root directory.
pub fn volume(width: Width) -> Vec<u8> {
    let medium = Memory::new(format(width));
    let mut editor = Editor::open(&medium).expect("a volume");
    editor.make_directories(DIR, STAMP).expect("room");
    editor.make_directories("loader/entries", STAMP).expect("room");
    for (dir, name, bytes) in
        [(DIR, NAMES[0], 1300), (DIR, NAMES[1], 700), ("loader", "loader.conf", 11), ("", "B.BIN", 2000)]
    {
        let content: Vec<u8> = (0..bytes).map(|i| (i * 7 + bytes) as u8).collect();
        editor.make_file(dir, name, &content, STAMP).expect("room");
    }
    let _ = editor.write_fsinfo();
    medium.into_bytes()
}

/// The width of table entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 12 bits.
    Fat12,
    /// 16 bits: 4085 clusters at least, so the largest of the three.
    Fat16,
    /// 32 bits, with far fewer clusters than Microsoft's rule asks for, as on small ESPs of Talos.
    Fat32,
}

/// An empty volume of 512-byte sectors and clusters, with two copies of the table.
pub fn format(width: Width) -> Vec<u8> {
    let (sectors, reserved, fat_sectors, root_sectors) = match width {
        Width::Fat12 => (96u32, 1u32, 1u32, 2u32),
        Width::Fat16 => (4200, 1, 17, 2),
        Width::Fat32 => (160, 8, 2, 0),
    };
    let mut v = vec![0; sectors as usize * 512];
    v[..3].copy_from_slice(&[0xEB, 0x58, 0x90]);
    v[3..11].copy_from_slice(b"MSWIN4.1");
    v[11..13].copy_from_slice(&512u16.to_le_bytes());
    v[13] = 1;
    v[14..16].copy_from_slice(&(reserved as u16).to_le_bytes());
    v[16] = 2;
    v[17..19].copy_from_slice(&((root_sectors * 16) as u16).to_le_bytes());
    v[19..21].copy_from_slice(&(sectors as u16).to_le_bytes());
    v[21] = 0xF8;
    v[510..512].copy_from_slice(&[0x55, 0xAA]);
    if width == Width::Fat32 {
        v[36..40].copy_from_slice(&fat_sectors.to_le_bytes());
        v[44..48].copy_from_slice(&2u32.to_le_bytes());
        v[48..50].copy_from_slice(&1u16.to_le_bytes());
        v[50..52].copy_from_slice(&6u16.to_le_bytes());
        v[66] = 0x29;
        let boot = v[..512].to_vec();
        v[6 * 512..7 * 512].copy_from_slice(&boot);
        v[512..516].copy_from_slice(b"RRaA");
        v[512 + 484..512 + 488].copy_from_slice(b"rrAa");
        v[512 + 488..512 + 496].fill(0xFF);
        v[512 + 510..1024].copy_from_slice(&[0x55, 0xAA]);
    } else {
        v[22..24].copy_from_slice(&(fat_sectors as u16).to_le_bytes());
        v[38] = 0x29;
    }
    for copy in 0..2 {
        let at = ((reserved + copy * fat_sectors) * 512) as usize;
        let marks: &[u8] = match width {
            Width::Fat12 => &[0xF8, 0xFF, 0xFF],
            Width::Fat16 => &[0xF8, 0xFF, 0xFF, 0xFF],
            Width::Fat32 => &[0xF8, 0xFF, 0xFF, 0x0F, 0xFF, 0xFF, 0xFF, 0x0F, 0xFF, 0xFF, 0xFF, 0x0F],
        };
        v[at..at + marks.len()].copy_from_slice(marks);
    }
    v
}
