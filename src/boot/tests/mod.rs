//! Golden vectors: ESPs and variables with what real systemd-boot of each version did with them under QEMU and OVMF,
//! and what its sources say where a version was not run.

mod counting;
mod files;
mod oracle;
mod ordering;
mod secure_boot;
mod selection;
mod type1;

use super::*;

pub(super) const X64: u16 = 0x8664;
pub(super) const VERSIONS: [&str; 6] = ["252.39", "254.26", "257.9", "257.13", "259.5", "262"];

pub(super) fn v(text: &str) -> LoaderVersion {
    LoaderVersion::parse(text).unwrap()
}

/// A PE32+ image of these sections, laid out one behind the other in 512-byte steps.
pub(super) fn pe(machine: u16, sections: &[(&str, &[u8])]) -> Vec<u8> {
    let optional_bytes = 112 + 16 * 8;
    let mut image = vec![0u8; 128 + 24 + optional_bytes + 40 * sections.len()];
    image[..2].copy_from_slice(b"MZ");
    image[60] = 128;
    let coff = 128 + 4;
    image[128..132].copy_from_slice(b"PE\0\0");
    image[coff..coff + 2].copy_from_slice(&machine.to_le_bytes());
    image[coff + 2..coff + 4].copy_from_slice(&(sections.len() as u16).to_le_bytes());
    image[coff + 16..coff + 18].copy_from_slice(&(optional_bytes as u16).to_le_bytes());
    let optional = 128 + 24;
    image[optional..optional + 2].copy_from_slice(&0x20Bu16.to_le_bytes());
    image[optional + 56..optional + 60].copy_from_slice(&0x1000_0000u32.to_le_bytes());
    image[optional + 108] = 16;
    for (i, (name, data)) in sections.iter().enumerate() {
        image.resize(image.len().next_multiple_of(512), 0);
        let offset = image.len() as u32;
        let header = optional + optional_bytes + 40 * i;
        image[header..header + name.len()].copy_from_slice(name.as_bytes());
        let raw = (data.len() as u32).next_multiple_of(512);
        for (at, value) in [(8, data.len() as u32), (12, 0x1000 * (i as u32 + 1)), (16, raw), (20, offset)] {
            image[header + at..header + at + 4].copy_from_slice(&value.to_le_bytes());
        }
        image.extend_from_slice(data);
    }
    image.resize(image.len().next_multiple_of(512), 0);
    image
}

/// os-release as Talos writes it.
pub(super) fn talos_os_release(version: &str) -> String {
    format!("NAME=\"Talos\"\nID=talos\nVERSION_ID={version}\nPRETTY_NAME=\"Talos ({version})\"\nVENDOR_NAME=Sidero\n")
}

/// A UKI of one profile with this os-release.
pub(super) fn plain_uki(os_release: &str) -> Vec<u8> {
    pe(X64, &[(".osrel", os_release.as_bytes()), (".cmdline", b"console=ttyS0"), (".linux", b"kernel")])
}

/// A UKI as Talos installs it: the system and a profile that wipes it.
pub(super) fn talos_uki(version: &str) -> Vec<u8> {
    pe(
        X64,
        &[
            (".osrel", talos_os_release(version).as_bytes()),
            (".cmdline", b"console=ttyS0\n"),
            (".linux", b"kernel"),
            (".profile", b"ID=main"),
            (".profile", b"ID=reset-maintenance\nTITLE=Reset to maintenance mode\n"),
            (".cmdline", b"talos.experimental.wipe=system:EPHEMERAL,STATE"),
        ],
    )
}

/// An ESP with these files in `\EFI\Linux` and one systemd-boot.
pub(super) fn esp_of(version: &str, files: &[(&str, Vec<u8>)]) -> Esp {
    let loader = v(version);
    Esp {
        linux: files.iter().map(|(name, bytes)| UkiFile::probe(name, bytes, &loader, X64)).collect(),
        loader,
        machine: X64,
        loader_path: "\\EFI\\BOOT\\BOOTX64.EFI".into(),
        type1: Vec::new(),
        loader_conf: None,
        key_dirs: Vec::new(),
        others: OtherLoaders::default(),
        targets: Targets::All,
        xbootldr: None,
    }
}

/// An ESP of single-profile Talos images: names and their versions.
pub(super) fn esp(version: &str, files: &[(&str, &str)]) -> Esp {
    let files: Vec<_> = files.iter().map(|(name, v)| (*name, plain_uki(&talos_os_release(v)))).collect();
    esp_of(version, &files)
}

/// A string variable with its closing NUL.
pub(super) fn var(text: &str) -> Option<Vec<u8>> {
    Some(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect())
}

/// A string variable without it.
pub(super) fn open_var(text: &str) -> Option<Vec<u8>> {
    Some(text.encode_utf16().flat_map(u16::to_le_bytes).collect())
}

pub(super) fn default(text: &str) -> Variables {
    Variables { default: var(text), ..Variables::default() }
}

pub(super) fn ids(p: &Prediction) -> Vec<&str> {
    p.menu.iter().map(|e| e.id.as_str()).collect()
}

pub(super) fn titles(p: &Prediction) -> Vec<&str> {
    p.menu.iter().map(|e| &*e.title).collect()
}

pub(super) fn selected(p: &Prediction) -> &str {
    p.selected_entry().map_or("", |e| e.id.as_str())
}
