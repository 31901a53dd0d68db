//! Writes small, valid UKIs and initrds, for the demonstration and for tests. Not part of the surgery.

use crate::pe::Arch;
use cpio::newc;
use std::io;

const FILE_ALIGNMENT: usize = 512;
const SECTION_ALIGNMENT: usize = 4096;
const OPTIONAL_HEADER: usize = 112 + 16 * 8;

/// A PE32+ image made of sections, laid out in the order they are given.
///
/// The headers are those of an EFI application; a `.text` section, if there is one, becomes its entry point. The
/// certificate table directory is there and empty, and the file ends on a multiple of 512 bytes, so that a signature
/// can be appended.
#[derive(Debug, Clone)]
pub struct Builder {
    arch: Arch,
    sections: Vec<(String, Vec<u8>)>,
}

impl Builder {
    /// An image without sections.
    #[must_use]
    pub fn new(arch: Arch) -> Self {
        Self { arch, sections: Vec::new() }
    }

    /// Adds a section; its name is cut to 8 bytes.
    #[must_use]
    pub fn section(mut self, name: &str, data: impl Into<Vec<u8>>) -> Self {
        self.sections.push((name.to_owned(), data.into()));
        self
    }

    /// The image's bytes.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        const PE_AT: usize = 64;
        let table_at = PE_AT + 24 + OPTIONAL_HEADER;
        let headers = (table_at + 40 * self.sections.len()).next_multiple_of(FILE_ALIGNMENT);

        let mut table = Vec::new();
        let mut data = Vec::new();
        let mut memory = headers.next_multiple_of(SECTION_ALIGNMENT);
        let mut entry = 0;
        for (name, content) in &self.sections {
            let code = name == ".text";
            if code {
                entry = memory;
            }
            let mut padded_name = [0; 8];
            let len = name.len().min(8);
            padded_name[..len].copy_from_slice(&name.as_bytes()[..len]);
            table.extend(padded_name);
            let raw = content.len().next_multiple_of(FILE_ALIGNMENT);
            for value in [content.len(), memory, raw, headers + data.len(), 0, 0, 0] {
                table.extend((value as u32).to_le_bytes());
            }
            // CNT_CODE | MEM_EXECUTE | MEM_READ, or CNT_INITIALIZED_DATA | MEM_READ
            table.extend(if code { 0x6000_0020_u32 } else { 0x4000_0040 }.to_le_bytes());
            data.extend(content);
            data.resize(data.len().next_multiple_of(FILE_ALIGNMENT), 0);
            memory += content.len().max(1).next_multiple_of(SECTION_ALIGNMENT);
        }

        let mut pe = vec![0; PE_AT];
        pe[..2].copy_from_slice(b"MZ");
        pe[60..64].copy_from_slice(&(PE_AT as u32).to_le_bytes());
        pe.extend(b"PE\0\0");
        let machine: u16 = match self.arch {
            Arch::Amd64 => 0x8664,
            Arch::Arm64 => 0xAA64,
        };
        put16(&mut pe, &[machine, self.sections.len() as u16]);
        put32(&mut pe, &[0, 0, 0]); // time, symbol table, symbols
        put16(&mut pe, &[OPTIONAL_HEADER as u16, 0x0206]); // executable, line numbers stripped, debug stripped

        put16(&mut pe, &[0x20B, 0]); // PE32+, linker version
        put32(&mut pe, &[0, data.len() as u32, 0, entry as u32, 0]); // code, data, bss, entry point, base of code
        put32(&mut pe, &[0, 0]); // ImageBase
        put32(&mut pe, &[SECTION_ALIGNMENT as u32, FILE_ALIGNMENT as u32]);
        put16(&mut pe, &[0, 0, 1, 0, 0, 0]); // versions: system, image 1.0 (stubs of 262 want it), subsystem
        put32(&mut pe, &[0, memory as u32, headers as u32, 0]); // reserved, SizeOfImage, SizeOfHeaders, CheckSum
        put16(&mut pe, &[10, 0x0160]); // EFI application; high-entropy, dynamic base, NX
        put32(&mut pe, &[0; 8]); // stack and heap
        put32(&mut pe, &[0, 16]); // loader flags, directories
        pe.resize(table_at, 0);
        pe.extend(table);
        pe.resize(headers, 0);
        pe.extend(data);
        pe
    }
}

fn put16(to: &mut Vec<u8>, values: &[u16]) {
    to.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

fn put32(to: &mut Vec<u8>, values: &[u32]) {
    to.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

/// A newc archive of regular files, trailer included.
///
/// # Errors
/// When a file has 4 GiB or more.
pub fn cpio(files: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (i, (name, data)) in files.iter().enumerate() {
        let bytes = u32::try_from(data.len()).map_err(io::Error::other)?;
        let mut entry = newc::Builder::new(name).ino(i as u32 + 1).mode(0o100_644).write(&mut archive, bytes);
        io::Write::write_all(&mut entry, data)?;
        entry.finish()?;
    }
    newc::trailer(&mut archive)?;
    Ok(archive)
}

/// `data` as Talos compresses its initrd: one zstd frame with an 8 MiB window and a checksum, padded to 4 bytes.
///
/// # Errors
/// What zstd reports.
pub fn zstd(data: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), level)?;
    encoder.include_checksum(true)?;
    encoder.window_log(23)?;
    io::Write::write_all(&mut encoder, data)?;
    let mut frame = encoder.finish()?;
    frame.resize(frame.len().next_multiple_of(4), 0);
    Ok(frame)
}

/// The `extensions.yaml` that the Image Factory writes: one layer per (name, version), then the `schematic` layer.
/// `schematic` is its canonical YAML. Extension names must be plain words.
#[must_use]
pub fn extensions_yaml(extensions: &[(&str, &str)], schematic: &str) -> String {
    use std::fmt::Write;
    let mut yaml = "layers:\n".to_owned();
    let mut image = 0;
    let mut layer = |yaml: &mut String, name: &str, version: &str, author: &str| {
        let _ = write!(
            yaml,
            "  - image: {image}.sqsh\n    metadata:\n      name: {name}\n      version: \"{version}\"\n      author: \
                {author}\n"
        );
        image += 1;
    };
    for (name, version) in extensions {
        layer(&mut yaml, name, version, "Sidero Labs");
    }
    layer(&mut yaml, "schematic", &schematic_id(schematic), "Image Factory");
    yaml.push_str("      extraInfo: |\n");
    for line in schematic.lines() {
        let _ = writeln!(yaml, "        {line}");
    }
    yaml
}

/// The ID of a canonical schematic.
fn schematic_id(schematic: &str) -> String {
    hex::encode(<sha2::Sha256 as sha2::Digest>::digest(schematic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pe::Head;

    #[test]
    fn what_is_built_reads_back() {
        let pe = Builder::new(Arch::Arm64)
            .section(".text", [0xC3])
            .section(".osrel", *b"ID=talos\n")
            .section(".linux", vec![7; 1000])
            .build();
        assert_eq!(pe.len() % 512, 0);
        let head = Head::read(&pe).unwrap();
        assert_eq!(head.arch(), Some(Arch::Arm64));
        assert_eq!((head.checksum_at, head.security_directory_at, head.certificate_table), (152, Some(232), None));
        let data: Vec<_> = head
            .sections
            .iter()
            .map(|s| {
                let e = s.data();
                (&*s.name, &pe[e.offset as usize..(e.offset + e.bytes) as usize])
            })
            .collect();
        assert_eq!(data, [(".text", &[0xC3][..]), (".osrel", b"ID=talos\n"), (".linux", &[7; 1000])]);
        assert!(head.sections.windows(2).all(|w| w[0].virtual_address < w[1].virtual_address));
    }
}
