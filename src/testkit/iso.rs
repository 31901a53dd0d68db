//! A tiny ISO 9660 image made by hand, for tests: byte for byte under control, so that it can also be wrong.

/// Logical block size in bytes.
pub(crate) const BLOCK: usize = 2048;
/// Where the directories, the continuation area, the boot catalog and the first free block are.
pub(crate) const ROOT: u32 = 20;
pub(crate) const EFI: u32 = 21;
pub(crate) const LINUX: u32 = 22;
pub(crate) const CONTINUATION: u32 = 23;
pub(crate) const CATALOG: u32 = 24;
pub(crate) const DATA: u32 = 30;

/// Flags of a directory record.
pub(crate) const DIRECTORY: u8 = 0x02;
pub(crate) const NOT_FINAL: u8 = 0x80;

/// An image with the directories `/EFI/Linux`, Rock Ridge, and no files yet.
pub(crate) struct TinyIso(pub(crate) Vec<u8>);

impl TinyIso {
    pub(crate) fn new(blocks: usize) -> Self {
        let mut iso = Self(vec![0; blocks * BLOCK]);
        let mut pvd = vec![0; BLOCK];
        pvd[..7].copy_from_slice(b"\x01CD001\x01");
        pvd[40..72].copy_from_slice(format!("{:32}", "TINY").as_bytes());
        pvd[80..88].copy_from_slice(&both32(blocks as u32));
        for (at, n) in [(120, 1), (124, 1), (128, BLOCK as u16)] {
            pvd[at..at + 4].copy_from_slice(&both16(n));
        }
        pvd[156..190].copy_from_slice(&record(&[0], DIRECTORY, ROOT, BLOCK as u32, &[]));
        pvd[881] = 1;
        iso.put(16, &pvd);
        for terminator in [17, 18] {
            iso.put(terminator, b"\xffCD001\x01");
        }
        iso.directory(ROOT, ROOT, &[record(b"EFI", DIRECTORY, EFI, BLOCK as u32, &entry("EFI", 0o040_555, 2))]);
        iso.directory(EFI, ROOT, &[record(b"LINUX", DIRECTORY, LINUX, BLOCK as u32, &entry("Linux", 0o040_555, 2))]);
        iso.directory(LINUX, EFI, &[]);
        iso
    }

    pub(crate) fn put(&mut self, block: u32, bytes: &[u8]) {
        let at = block as usize * BLOCK;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes a directory; records do not straddle blocks. Returns its length in bytes.
    pub(crate) fn directory(&mut self, block: u32, parent: u32, records: &[Vec<u8>]) -> u32 {
        let mut own = b"SP\x07\x01\xbe\xef\x00".to_vec();
        own.extend(px(0o040_555, 2));
        let mut bytes = record(&[0], DIRECTORY, block, BLOCK as u32, &own);
        bytes.extend(record(&[1], DIRECTORY, parent, BLOCK as u32, &px(0o040_555, 2)));
        for r in records {
            if bytes.len() % BLOCK + r.len() > BLOCK {
                bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
            }
            bytes.extend(r);
        }
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let len = bytes.len() as u32;
        bytes[10..18].copy_from_slice(&both32(len));
        self.put(block, &bytes);
        len
    }

    /// A file of one extent in `EFI/Linux`, the only one there.
    pub(crate) fn with_file(mut self, name: &str, block: u32, bytes: &[u8]) -> Self {
        self.put(block, bytes);
        self.directory(LINUX, EFI, &[file(name, block, bytes.len() as u32)]);
        self
    }

    /// A boot record and a catalog whose only entry boots `block` on UEFI.
    pub(crate) fn el_torito(&mut self, block: u32, sectors: u16) {
        let mut boot = b"\x00CD001\x01EL TORITO SPECIFICATION".to_vec();
        boot.resize(71, 0);
        boot.extend(CATALOG.to_le_bytes());
        self.put(17, &boot);
        let mut catalog = vec![0; 64];
        catalog[..2].copy_from_slice(&[1, 0xEF]);
        catalog[30..34].copy_from_slice(&[0x55, 0xAA, 0x88, 0]);
        let words = catalog[..32].chunks_exact(2).map(|w| u16::from_le_bytes([w[0], w[1]]));
        let sum = words.fold(0u16, u16::wrapping_add);
        catalog[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
        catalog[38..40].copy_from_slice(&sectors.to_le_bytes());
        catalog[40..44].copy_from_slice(&block.to_le_bytes());
        self.put(CATALOG, &catalog);
    }

    /// An MBR whose second entry is an ESP; both figures in 512-byte sectors.
    pub(crate) fn mbr_esp(&mut self, start: u32, sectors: u32) {
        self.0[466] = 0xEF;
        self.0[470..474].copy_from_slice(&start.to_le_bytes());
        self.0[474..478].copy_from_slice(&sectors.to_le_bytes());
        self.0[510..512].copy_from_slice(&[0x55, 0xAA]);
    }
}

/// The record of a file of one extent with a Rock Ridge name.
pub(crate) fn file(name: &str, block: u32, bytes: u32) -> Vec<u8> {
    record(b"FILE.EFI;1", 0, block, bytes, &entry(name, 0o100_444, 1))
}

/// A directory record (ECMA-119 9.1) with its system use area.
pub(crate) fn record(name: &[u8], flags: u8, block: u32, bytes: u32, system_use: &[u8]) -> Vec<u8> {
    let mut r = vec![0, 0];
    r.extend(both32(block));
    r.extend(both32(bytes));
    r.extend([126, 1, 1, 0, 0, 0, 0, flags, 0, 0]);
    r.extend(both16(1));
    r.push(name.len() as u8);
    r.extend(name);
    if r.len() % 2 == 1 {
        r.push(0);
    }
    r.extend(system_use);
    if r.len() % 2 == 1 {
        r.push(0);
    }
    r[0] = u8::try_from(r.len()).unwrap();
    r
}

/// Rock Ridge mode and name.
pub(crate) fn entry(name: &str, mode: u32, links: u32) -> Vec<u8> {
    let mut area = px(mode, links);
    area.extend(nm(0, name));
    area
}

pub(crate) fn px(mode: u32, links: u32) -> Vec<u8> {
    let mut area = b"PX\x24\x01".to_vec();
    for n in [mode, links, 0, 0] {
        area.extend(both32(n));
    }
    area
}

/// A name entry; flag 1 says that the name goes on.
pub(crate) fn nm(flags: u8, name: &str) -> Vec<u8> {
    let mut area = vec![b'N', b'M', 5 + name.len() as u8, 1, flags];
    area.extend(name.as_bytes());
    area
}

/// A continuation entry.
pub(crate) fn ce(block: u32, offset: u32, bytes: u32) -> Vec<u8> {
    let mut area = b"CE\x1c\x01".to_vec();
    for n in [block, offset, bytes] {
        area.extend(both32(n));
    }
    area
}

/// The first sector of a FAT volume of `sectors` 512-byte sectors.
pub(crate) fn fat_boot_sector(sectors: u16) -> Vec<u8> {
    let mut s = vec![0; 512];
    s[..3].copy_from_slice(&[0xEB, 0x3C, 0x90]);
    s[11..17].copy_from_slice(&[0, 2, 1, 1, 0, 2]);
    s[19..21].copy_from_slice(&sectors.to_le_bytes());
    s[510..].copy_from_slice(&[0x55, 0xAA]);
    s
}

pub(crate) fn both32(n: u32) -> [u8; 8] {
    (u64::from(n) | u64::from(n.swap_bytes()) << 32).to_le_bytes()
}

fn both16(n: u16) -> [u8; 4] {
    (u32::from(n) | u32::from(n.swap_bytes()) << 16).to_le_bytes()
}
