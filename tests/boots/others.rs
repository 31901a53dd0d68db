//! Other boot loaders than systemd-boot, as `prepare.sh` laid them ready.

use crate::expected::payload;
use crate::lab::{Systemd, efi_name, read};
use bootsurgeon::pe::Arch;
use std::path::Path;

/// Debian's shim and GRUB, for one architecture.
pub(crate) struct Others {
    pub(crate) shim: Vec<u8>,
    pub(crate) grub: Vec<u8>,
}

impl Others {
    pub(crate) fn open(dir: &Path, arch: Arch) -> Self {
        let file = |name: &str| read(&dir.join("others").join(efi_name(arch)).join(name));
        Self { shim: file("shim.efi"), grub: file("grub.efi") }
    }

    /// What has the GRUB that lies at `path` start a program that prints that name: Debian's looks for its settings in
    /// `EFI/debian` of its own volume.
    pub(crate) fn grub_config(&self, systemd: &Systemd, volume: usize, path: &str) -> [(String, Vec<u8>); 2] {
        let config = b"chainloader /EFI/debian/payload.efi\nboot\n".to_vec();
        let program = systemd.payload(&payload(volume, path));
        [("EFI/debian/grub.cfg".to_owned(), config), ("EFI/debian/payload.efi".to_owned(), program)]
    }
}
