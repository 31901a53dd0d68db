//! PE images as systemd-boot's own reader sees them (pe.c, `file_handle_read` in util.c), version by version.
//!
//! Not [`crate::pe`], which refuses what firmware may refuse: here the question is only what systemd-boot lists.
//! Reading past the end follows EDK2's FAT driver: a read that starts behind the end is an error, one that starts
//! inside is cut short.

use super::skip::Skip;
use super::version::LoaderVersion;
use crate::block::{ReadAt, read_vec};

/// Most that is read of one section's text, in bytes. Upstream reads all of it; the texts of a Talos UKI have less than
/// 2 KiB.
const MAX_TEXT: u64 = 256 * 1024;

/// Why bytes could not be read.
pub(super) enum ReadError {
    /// The read starts behind the end of the file.
    BehindEnd,
    Medium(String),
}

impl ReadError {
    pub(super) fn or(self, behind_end: Skip) -> Skip {
        match self {
            Self::BehindEnd => behind_end,
            Self::Medium(why) => Skip::Unreadable(why),
        }
    }
}

/// A file as EDK2's FAT driver reads it, position included: systemd-boot does not seek to offset 0.
pub(super) struct FirmwareFile<'a> {
    source: &'a dyn ReadAt,
    position: u64,
    /// Up to 254 the file is opened anew for every section.
    reopens: bool,
}

impl<'a> FirmwareFile<'a> {
    pub(super) fn new(source: &'a dyn ReadAt, reopens: bool) -> Self {
        Self { source, position: 0, reopens }
    }

    /// Up to `bytes` bytes (at most [`MAX_TEXT`]) from `offset`; fewer at the end of the file. 0 bytes mean all there
    /// are.
    pub(super) fn read(&mut self, offset: u64, bytes: u64) -> Result<Vec<u8>, ReadError> {
        if offset > 0 || self.reopens {
            self.position = offset;
        }
        let size = self.source.size();
        let wanted = if bytes == 0 { size } else { bytes };
        let available = size.checked_sub(self.position).ok_or(ReadError::BehindEnd)?;
        let text = self.read_here(wanted.min(available).min(MAX_TEXT))?;
        self.position += wanted.min(available).saturating_sub(text.len() as u64);
        Ok(text)
    }

    /// Exactly `bytes` bytes from `offset`.
    fn read_exact(&mut self, offset: u64, bytes: u64) -> Result<Vec<u8>, Skip> {
        self.position = offset;
        if self.source.size().checked_sub(offset).is_none_or(|available| available < bytes) {
            return Err(Skip::NotPe("the file ends inside its headers"));
        }
        self.read_here(bytes).map_err(|e| e.or(Skip::NotPe("the file ends inside its headers")))
    }

    fn read_here(&mut self, bytes: u64) -> Result<Vec<u8>, ReadError> {
        // At most a section table of 65,535 entries: 2.5 MiB.
        let bytes = usize::try_from(bytes).map_err(|e| ReadError::Medium(e.to_string()))?;
        let read = read_vec(self.source, self.position, bytes).map_err(|e| ReadError::Medium(e.to_string()))?;
        self.position += bytes as u64;
        Ok(read)
    }
}

/// One entry of the section table, as far as systemd-boot uses it.
#[derive(Clone, Copy)]
struct Section {
    name: [u8; 8],
    virtual_bytes: u32,
    virtual_address: u32,
    raw_bytes: u32,
    raw_offset: u32,
}

/// Where a section's data lies for systemd-boot.
#[derive(Clone, Copy)]
pub(super) struct Data {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// VirtualSize is not 0. A section for which it is hides others of its name and counts as absent.
    pub(super) present: bool,
}

/// The headers that systemd-boot looks at.
pub(super) struct Image {
    pub(super) machine: u16,
    sections: Vec<Section>,
    /// `SizeOfImage`, for versions that check it.
    image_bytes: Option<u64>,
    strict: bool,
    profiles: bool,
}

/// A range of the section table.
pub(super) struct Sections<'a> {
    sections: &'a [Section],
    image: &'a Image,
}

impl Image {
    pub(super) fn read(
        file: &mut FirmwareFile<'_>,
        loader: &LoaderVersion,
        machine: Option<u16>,
    ) -> Result<Self, Skip> {
        let strict = loader.strict_sections();
        let dos = file.read_exact(0, 64)?;
        if !dos.starts_with(b"MZ") {
            return Err(Skip::NotPe("it does not start with MZ"));
        }
        let pe_at = u64::from(u32_at(&dos, 60));
        if strict && pe_at < 64 {
            return Err(Skip::NotPe("its PE header lies inside the DOS header"));
        }
        // Signature, COFF header, and the optional header as far as this version's structure goes.
        let pe = file.read_exact(pe_at, if loader.reads_data_directories() { 264 } else { 96 })?;
        if !pe.starts_with(b"PE\0\0") {
            return Err(Skip::NotPe("the PE signature is missing"));
        }
        let found = u16_at(&pe, 4);
        if machine.is_some_and(|machine| machine != found) {
            return Err(Skip::OtherMachine(found));
        }
        let count = u16_at(&pe, 6);
        if count == 0 {
            return Err(Skip::NotPe("it has no sections"));
        }
        let optional_bytes = u16_at(&pe, 20);
        // Where the data directories start in the optional header.
        let directories_at = match u16_at(&pe, 24) {
            0x10B => 96,
            0x20B => 112,
            _ => return Err(Skip::NotPe("its optional header is of no known kind")),
        };
        let mut image_bytes = None;
        if loader.checks_image_size() {
            // Six directories of eight bytes: through the base relocation table.
            if usize::from(optional_bytes) < directories_at + 48 || u32_at(&pe, 24 + directories_at - 4) <= 5 {
                return Err(Skip::NotPe("its optional header has no base relocation directory"));
            }
            image_bytes = Some(u64::from(u32_at(&pe, 24 + 56)));
        }
        let table = file.read_exact(pe_at + 24 + u64::from(optional_bytes), 40 * u64::from(count))?;
        let sections = table.as_chunks::<40>().0.iter().map(Section::parse).collect();
        Ok(Self { machine: found, sections, image_bytes, strict, profiles: loader.profiles() })
    }

    /// The sections before the first `.profile`; all of them for versions that know no profiles.
    pub(super) fn base(&self) -> Sections<'_> {
        let end = if self.profiles { self.profile_starts().next() } else { None };
        Sections { sections: &self.sections[..end.unwrap_or(self.sections.len())], image: self }
    }

    /// From the `.profile` of that number up to the next.
    pub(super) fn profile(&self, number: u32) -> Option<Sections<'_>> {
        let mut starts = self.profile_starts().skip(number as usize);
        let start = starts.next()?;
        let end = starts.next().unwrap_or(self.sections.len());
        Some(Sections { sections: &self.sections[start..end], image: self })
    }

    fn profile_starts(&self) -> impl Iterator<Item = usize> + '_ {
        self.sections.iter().enumerate().filter(|(_, s)| s.is_named(b".profile")).map(|(i, _)| i)
    }
}

impl Section {
    fn parse(raw: &[u8; 40]) -> Self {
        let mut name = [0; 8];
        name.copy_from_slice(&raw[..8]);
        Self {
            name,
            virtual_bytes: u32_at(raw, 8),
            virtual_address: u32_at(raw, 12),
            raw_bytes: u32_at(raw, 16),
            raw_offset: u32_at(raw, 20),
        }
    }

    fn is_named(&self, name: &[u8]) -> bool {
        let end = self.name.iter().position(|b| *b == 0).unwrap_or(8);
        self.name[..end] == *name
    }
}

impl Sections<'_> {
    /// Whether the loader knows profiles at all.
    pub(super) fn may_be_profile(&self) -> bool {
        self.image.profiles
    }

    /// The section of that name, as the version at hand looks for it.
    pub(super) fn find(&self, name: &[u8]) -> Option<Data> {
        let fits = |s: &Section| {
            let end = u64::from(s.virtual_address) + u64::from(s.virtual_bytes);
            self.image.image_bytes.is_none_or(|image| end <= image)
        };
        let (section, bytes) = if self.image.strict {
            let section = self.sections.iter().find(|s| s.is_named(name) && fits(s))?;
            (section, section.raw_bytes.min(section.virtual_bytes))
        } else {
            // Up to 254: only the beginning of the name is compared, and the last one wins.
            let section = self.sections.iter().rfind(|s| s.name.starts_with(name))?;
            (section, section.virtual_bytes)
        };
        Some(Data { offset: section.raw_offset.into(), bytes: bytes.into(), present: section.virtual_bytes != 0 })
    }
}

/// The caller has checked the length.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
}

/// The caller has checked the length.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}
