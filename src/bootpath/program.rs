//! What an EFI program is: told by its sections and its SBAT data, not by its name.

use crate::block::{ReadAt, read_vec};
use crate::boot::Loader;
use crate::pe::{Head, Section};
use std::fmt;

/// So much of a section is looked through for marks, in bytes.
const MAX_SEARCH: u64 = 4 * 1024 * 1024;
/// A `.sbat` section with more is none, in bytes.
const MAX_SBAT: u64 = 64 * 1024;
/// Longer words of a program about itself are cut, in characters.
const MAX_WORD: usize = 64;

/// A kind of EFI program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgramKind {
    /// systemd-boot.
    SystemdBoot(Loader),
    /// A UKI: kernel, initrd and command line in one program.
    Uki,
    /// shim, which starts another program.
    Shim,
    /// One of shim's own helpers: fallback or MokManager.
    ShimHelper,
    /// GRUB.
    Grub,
    /// rEFInd.
    Refind,
    /// Limine.
    Limine,
    /// Windows' boot manager.
    Windows,
    /// A Linux kernel by itself.
    Kernel,
    /// systemd-stub without a kernel: an addon.
    Addon,
    /// An EFI program that says nothing about itself that is known here.
    Unknown,
}

/// An EFI program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Program {
    /// What it is.
    pub kind: ProgramKind,
    /// Its version in its own words.
    pub version: Option<String>,
    /// What tells.
    pub evidence: String,
    /// Its COFF machine type.
    pub machine: u16,
}

impl Program {
    /// Looks at a file.
    ///
    /// # Errors
    /// Why it is not an EFI program, in words.
    pub fn recognise(source: &dyn ReadAt) -> Result<Self, String> {
        let loader = Loader::probe(source);
        let head = match (Head::read(source), loader) {
            (_, Some(loader)) => {
                let (version, machine) = (loader.version.to_string(), loader.machine);
                let version = version.strip_prefix("systemd-boot ").map(str::to_owned);
                let evidence = "its .sdmagic section says so".to_owned();
                return Ok(Self { kind: ProgramKind::SystemdBoot(loader), version, evidence, machine });
            }
            (Ok(head), None) => head,
            (Err(e), None) => return Err(e.to_string()),
        };
        let machine = head.machine;
        let has = |name: &str| head.sections.iter().any(|s| s.name == name);
        let new = |kind, version: Option<&str>, evidence: &str| {
            let version = version.filter(|v| !v.is_empty()).map(|v| v.chars().take(MAX_WORD).collect());
            Self { kind, version, evidence: evidence.to_owned(), machine }
        };
        let bytes = read_vec(source, 0, source.size().min(MAX_SEARCH) as usize).map_err(|e| e.to_string())?;
        let holds = |bytes: &[u8], mark: &[u8]| memchr::memmem::find(bytes, mark).is_some();
        let in_section = |name: &str, mark: &[u8]| {
            let section = head.sections.iter().find(|s| s.name == name).map(Section::data);
            let data =
                section.and_then(|s| bytes.get(s.offset as usize..).map(|b| &b[..b.len().min(s.bytes as usize)]));
            data.is_some_and(|data| holds(data, mark))
        };
        let sbat = Sbat::read(source, &head);
        if has(".linux") {
            return Ok(new(ProgramKind::Uki, None, "it has a .linux section"));
        }
        if has(".osrel") || in_section(".sdmagic", b"systemd-stub") {
            return Ok(new(ProgramKind::Addon, None, "it is systemd-stub or an addon, without a .linux section"));
        }
        // shim's own certificate has a section whose name is too long for the section table.
        if sbat.version("shim").is_some() && (holds(&bytes, b".vendor_cert\0") || has(".vendor_")) {
            return Ok(new(
                ProgramKind::Shim,
                sbat.version("shim"),
                "its SBAT data name shim, and it has a .vendor_cert section",
            ));
        }
        let by_sbat = [
            ("shim", ProgramKind::ShimHelper),
            ("grub", ProgramKind::Grub),
            ("refind", ProgramKind::Refind),
            ("limine", ProgramKind::Limine),
            ("linux", ProgramKind::Kernel),
        ];
        for (component, kind) in by_sbat {
            if let Some(version) = sbat.version(component) {
                return Ok(new(kind, Some(version), &format!("its SBAT data name {component}")));
            }
        }
        if has("mods") {
            return Ok(new(ProgramKind::Grub, None, "it has a section of GRUB modules (mods)"));
        }
        if is_kernel(&bytes) {
            return Ok(new(ProgramKind::Kernel, None, "it has the header of a Linux kernel"));
        }
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let kind = match () {
            () if in_section(".rsrc", &utf16("bootmgr.exe")) => ProgramKind::Windows,
            () if holds(&bytes, &utf16("rEFInd")) => ProgramKind::Refind,
            () if holds(&bytes, b"Limine ") => ProgramKind::Limine,
            () => return Ok(new(ProgramKind::Unknown, None, "nothing in it is recognized")),
        };
        Ok(new(kind, None, "it contains its own name"))
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            ProgramKind::SystemdBoot(_) => "systemd-boot",
            ProgramKind::Uki => "a UKI",
            ProgramKind::Shim => "shim",
            ProgramKind::ShimHelper => "a helper of shim",
            ProgramKind::Grub => "GRUB",
            ProgramKind::Refind => "rEFInd",
            ProgramKind::Limine => "Limine",
            ProgramKind::Windows => "Windows' boot manager",
            ProgramKind::Kernel => "a Linux kernel",
            ProgramKind::Addon => "an addon without a kernel",
            ProgramKind::Unknown => "an unknown program",
        })?;
        match &self.version {
            Some(version) => write!(f, " {version}"),
            None => Ok(()),
        }
    }
}

/// The arm64 and RISC-V image header, a compressed kernel, or the setup header of x86 (kernel documentation
/// "arm64/booting", "x86/boot"; drivers/firmware/efi/libstub/zboot-header.S).
fn is_kernel(head: &[u8]) -> bool {
    let at = |offset: usize, mark: &[u8]| head.get(offset..offset + mark.len()) == Some(mark);
    at(0x38, b"ARM\x64") || at(0x38, b"RSC\x05") || at(4, b"zimg") || at(0x202, b"HdrS")
}

/// Components of a `.sbat` section with the version of their package.
struct Sbat(Vec<(String, String)>);

impl Sbat {
    fn read(source: &dyn ReadAt, head: &Head) -> Self {
        let section = head.sections.iter().find(|s| s.name == ".sbat").map(Section::data);
        let bytes =
            section.filter(|s| s.bytes <= MAX_SBAT).and_then(|s| read_vec(source, s.offset, s.bytes as usize).ok());
        let text = bytes.unwrap_or_default();
        let text = String::from_utf8_lossy(text.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
        // component, generation, vendor, package, version, address
        let component = |line: &str| {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            Some(((*fields.first()?).to_owned(), (*fields.get(4).unwrap_or(&"")).to_owned()))
        };
        Self(text.lines().filter_map(component).collect())
    }

    /// The version of a component, the one of the distribution's own line (`grub.debian`) first.
    fn version(&self, name: &str) -> Option<&str> {
        let is_own = |c: &str| c.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        let own = self.0.iter().find(|(c, version)| is_own(c) && !version.is_empty());
        own.or_else(|| self.0.iter().find(|(c, _)| c == name)).map(|(_, version)| version.as_str())
    }
}
