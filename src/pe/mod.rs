//! The headers of a PE32+ image: machine, sections, certificate table. goblin reads the headers; this module reads the
//! section table and checks every offset and length against the file before anyone uses it, because firmware and
//! systemd-boot will.
//!
//! Only the first 64 KiB are read: goblin's own section data, imports and certificates would want the whole file.
//! Format: Microsoft PE/COFF specification, sections "COFF File Header", "Optional Header", "Section Table".

mod profiles;

pub use profiles::{MAX_PROFILES, Profiles};

use crate::block::{Extent, ReadAt, read_vec};
use crate::{Error, Result};
use goblin::pe::header::Header;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// How much of a file's head is read, in bytes. Talos' UKIs need less than 4 KiB.
const HEAD: u64 = 64 * 1024;
/// As far as most of them go.
const FIRST_LOOK: u64 = 4096;
/// systemd-boot takes any number; the format allows 65,535. No UKI comes near this.
const MAX_SECTIONS: usize = 1024;
/// The names of the sections that UKIs and their stubs have.
const USUAL_NAMES: [&str; 22] = [
    ".text", ".rodata", ".data", ".reloc", ".dynamic", ".rela", ".dynsym", ".sdmagic", ".sbat", ".osrel", ".cmdline",
    ".uname", ".profile", ".dtb", ".dtbauto", ".hwids", ".ucode", ".splash", ".linux", ".initrd", ".pcrpkey",
    ".pcrsig",
];

/// The processor architectures this tool knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// `IMAGE_FILE_MACHINE_ARM64`, 0xAA64.
    Arm64,
    /// `IMAGE_FILE_MACHINE_AMD64`, 0x8664.
    Amd64,
}

impl Arch {
    /// From the COFF machine type.
    #[must_use]
    pub const fn from_machine(machine: u16) -> Option<Self> {
        match machine {
            0xAA64 => Some(Self::Arm64),
            0x8664 => Some(Self::Amd64),
            _ => None,
        }
    }

    /// All of them.
    pub const ALL: [Self; 2] = [Self::Arm64, Self::Amd64];

    /// The COFF machine type.
    #[must_use]
    pub const fn machine(self) -> u16 {
        match self {
            Self::Arm64 => 0xAA64,
            Self::Amd64 => 0x8664,
        }
    }

    /// The name that Talos and the Image Factory use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::Amd64 => "amd64",
        }
    }

    /// The name of the removable-media boot loader in `EFI/BOOT`.
    #[must_use]
    pub const fn removable_loader(self) -> &'static str {
        match self {
            Self::Arm64 => "BOOTAA64.EFI",
            Self::Amd64 => "BOOTX64.EFI",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Arch {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "arm64" | "aarch64" => Ok(Self::Arm64),
            "amd64" | "x86_64" | "x64" => Ok(Self::Amd64),
            _ => Err(format!("unknown architecture {s:?}: arm64 or amd64")),
        }
    }
}

/// One entry of the section table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Name without its padding; several sections may share one. Those of UKIs take no memory of their own: there may be
    /// ten thousand images.
    pub name: Cow<'static, str>,
    /// `VirtualAddress`.
    pub virtual_address: u32,
    /// `VirtualSize`: how many bytes of data there are.
    pub virtual_bytes: u32,
    /// `PointerToRawData` and `SizeOfRawData`: where the data lies in the file, padding included.
    pub raw: Extent,
}

impl Section {
    /// The section's data in the file without its padding. Shorter than `virtual_bytes` where the loader fills up with
    /// zeros.
    #[must_use]
    pub fn data(&self) -> Extent {
        Extent { offset: self.raw.offset, bytes: self.raw.bytes.min(u64::from(self.virtual_bytes)) }
    }
}

/// What the headers of a PE32+ image say. Every range lies inside the file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Head {
    /// Length of the whole file in bytes.
    pub file_bytes: u64,
    /// COFF machine type.
    pub machine: u16,
    /// `SizeOfHeaders`.
    pub size_of_headers: u32,
    /// `SizeOfImage`.
    pub size_of_image: u32,
    /// `SectionAlignment`.
    pub section_alignment: u32,
    /// Where the 4 bytes of `CheckSum` stand; not part of the Authenticode digest.
    pub checksum_at: u64,
    /// Where the 8 bytes of data directory 4 (certificate table) stand, if there is one; not part of the digest.
    pub security_directory_at: Option<u64>,
    /// The certificate table in the file, if there is one.
    pub certificate_table: Option<Extent>,
    /// The section table, in table order.
    pub sections: Vec<Section>,
}

impl Head {
    /// The architecture, if it is one of those Talos is built for.
    #[must_use]
    pub fn arch(&self) -> Option<Arch> {
        Arch::from_machine(self.machine)
    }

    /// Whether the file begins like a PE image at all (`MZ`).
    ///
    /// # Errors
    /// What the source reports.
    pub fn is_candidate(source: &dyn ReadAt) -> Result<bool> {
        if source.size() < 64 {
            return Ok(false);
        }
        Ok(read_vec(source, 0, 2)? == b"MZ")
    }

    /// Reads and checks the headers.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when it is no PE32+ image, or a header, section or certificate table points outside
    /// the file.
    pub fn read(source: &dyn ReadAt) -> Result<Self> {
        let file_bytes = source.size();
        let mut bytes = read_vec(source, 0, file_bytes.min(FIRST_LOOK) as usize)?;
        if end_of_headers(&bytes).is_none_or(|end| end > bytes.len()) {
            bytes = read_vec(source, 0, file_bytes.min(HEAD) as usize)?;
        }
        let bad = |offset: usize, why: String| Error::malformed("PE header", offset as u64, why);

        // Not `goblin::pe::PE`: that one also follows data directories (base relocations, exports …) to places that lie
        // far behind the head that was read, and section names into a symbol table there.
        let header = Header::parse(&bytes).map_err(|e| bad(0, format!("not a PE image ({e})")))?;
        let optional = header.optional_header.ok_or_else(|| bad(0, "no optional header".into()))?;
        if optional.standard_fields.magic != goblin::pe::optional_header::MAGIC_64 {
            return Err(bad(0, format!("PE32+ (0x20B) expected, found 0x{:X}", optional.standard_fields.magic)));
        }
        let coff = &header.coff_header;
        let section_count = usize::from(coff.number_of_sections);
        if section_count > MAX_SECTIONS {
            return Err(bad(0, format!("a section table of {} entries", coff.number_of_sections)));
        }

        let size_of_headers = optional.windows_fields.size_of_headers;
        // e_lfanew, signature (4), COFF header (20), then the optional header: CheckSum at 64, data directories at 112.
        let optional_at = u64::from(header.dos_header.pe_pointer) + 24;
        let optional_end = optional_at + u64::from(coff.size_of_optional_header);
        let table_end = optional_end + 40 * section_count as u64;
        if table_end > u64::from(size_of_headers) || u64::from(size_of_headers) > file_bytes {
            return Err(bad(
                optional_at as usize,
                format!(
                    "SizeOfHeaders is {size_of_headers}; the section table ends at {table_end}, the file at \
                        {file_bytes}"
                ),
            ));
        }
        if table_end > bytes.len() as u64 {
            return Err(bad(optional_at as usize, format!("headers of more than {} KiB", HEAD / 1024)));
        }

        let mut sections = Vec::with_capacity(section_count);
        let table = bytes.get(optional_end as usize..table_end as usize).unwrap_or_default();
        for (i, entry) in table.as_chunks::<40>().0.iter().enumerate() {
            let field = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
            let end = entry[..8].iter().position(|b| *b == 0).unwrap_or(8);
            let name = String::from_utf8_lossy(&entry[..end]);
            let usual = USUAL_NAMES.iter().find(|usual| **usual == name);
            let name = usual.map_or_else(|| Cow::Owned(name.into_owned()), |usual| Cow::Borrowed(*usual));
            let raw = Extent { offset: u64::from(field(20)), bytes: u64::from(field(16)) };
            if raw.bytes > 0 && raw.offset + raw.bytes > file_bytes {
                return Err(Error::malformed(
                    "PE section table",
                    optional_end + 40 * i as u64,
                    format!("section {name} ends at {} in a file of {file_bytes} bytes", raw.offset + raw.bytes),
                )
                .advise("the file is truncated or damaged: fetch it again"));
            }
            sections.push(Section { name, virtual_address: field(12), virtual_bytes: field(8), raw });
        }

        let directories = u64::from(optional.windows_fields.number_of_rva_and_sizes);
        let security_directory_at =
            (directories > 4 && optional_at + 112 + 5 * 8 <= optional_end).then_some(optional_at + 112 + 4 * 8);
        let certificate_table = match security_directory_at {
            None => None,
            Some(at) => {
                let field = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                let (offset, len) = (u64::from(field(at as usize)), u64::from(field(at as usize + 4)));
                if len > 0 && (offset < u64::from(size_of_headers) || offset + len > file_bytes) {
                    return Err(Error::malformed(
                        "PE certificate table directory",
                        at,
                        format!(
                            "{len} bytes at {offset} do not lie behind the headers in a file of {file_bytes} bytes"
                        ),
                    )
                    .advise("the file is truncated or damaged: fetch it again"));
                }
                (len > 0).then_some(Extent { offset, bytes: len })
            }
        };

        Ok(Self {
            file_bytes,
            machine: coff.machine,
            size_of_headers,
            size_of_image: optional.windows_fields.size_of_image,
            section_alignment: optional.windows_fields.section_alignment,
            checksum_at: optional_at + 64,
            security_directory_at,
            certificate_table,
            sections,
        })
    }
}

/// Where the section table ends, if it begins inside `bytes`.
fn end_of_headers(bytes: &[u8]) -> Option<usize> {
    let le16 = |at: usize| Some(usize::from(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
    let pe = u32::from_le_bytes(bytes.get(0x3C..0x40)?.try_into().ok()?) as usize;
    let (sections, optional) = (le16(pe.checked_add(6)?)?, le16(pe.checked_add(20)?)?);
    Some(pe + 24 + optional + 40 * sections)
}
