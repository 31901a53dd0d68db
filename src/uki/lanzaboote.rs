//! What a lanzaboote stub (NixOS) starts: a kernel and an initrd that lie beside it on the ESP, named by path and by
//! hash.
//!
//! Format: lanzaboote's `rust/uefi/linux-bootloader`: `.linux` and `.initrd` hold the paths, `.linuxh` and `.initrdh`
//! the SHA-256 of the files.

use super::facts::Facts;
use crate::block::{ReadAt, read_vec};
use crate::{Error, Result};

/// Longest path in bytes.
const MAX_PATH: u64 = 4096;

/// A file that a stub names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pointer {
    /// What it is: `kernel` or `initrd`.
    pub what: &'static str,
    /// Its path from the root of the volume, with slashes: `EFI/nixos/kernel.efi`.
    pub path: String,
    /// The SHA-256 that it has to have.
    pub sha256: [u8; 32],
}

/// The files that a stub names.
///
/// # Errors
/// [`crate::Kind::Rejected`] when a section holds no path or no hash; what the source reports.
pub fn pointers(source: &dyn ReadAt, facts: &Facts) -> Result<Vec<Pointer>> {
    let sections = [("kernel", ".linux", ".linuxh"), ("initrd", ".initrd", ".initrdh")];
    sections.into_iter().map(|(what, path, hash)| pointer(source, facts, what, path, hash)).collect()
}

fn pointer(source: &dyn ReadAt, facts: &Facts, what: &'static str, path: &str, hash: &str) -> Result<Pointer> {
    let read = |name: &str| {
        let extent = facts.extent(name).ok_or_else(|| Error::rejected(format!("the stub has no {name} section")))?;
        if extent.bytes > MAX_PATH {
            return Err(Error::rejected(format!("section {name} of the stub has {} bytes", extent.bytes)));
        }
        Ok(read_vec(source, extent.offset, extent.bytes as usize)?)
    };
    let text = String::from_utf8(read(path)?);
    let text = text.map_err(|_| Error::rejected(format!("section {path} of the stub holds no path")))?;
    let path = text.trim_end_matches('\0').replace('\\', "/").trim_start_matches('/').to_owned();
    let sha256 = <[u8; 32]>::try_from(read(hash)?);
    let sha256 = sha256.map_err(|_| Error::rejected(format!("section {hash} of the stub holds no SHA-256")))?;
    Ok(Pointer { what, path, sha256 })
}
