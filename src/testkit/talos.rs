//! UKIs, a boot loader and the keys of a demonstration: small, and true in everything a reader of them looks at.
//!
//! What is left out is what only a running machine would notice: kernel, root file system and stub are stand-ins that
//! start nothing.

use super::signing::{SigningKey, sign_pe};
use super::squashfs;
use super::uki::{Builder, cpio, extensions_yaml, zstd};
use crate::factory::Schematic;
use crate::pcr::{self, Bank, BankHashes};
use crate::pe::{Arch, Head};
use crate::{Context, Error, Result};
use base64::Engine as _;
use std::collections::BTreeMap;

/// The Talos version of everything here.
pub const VERSION: &str = "v1.12.4";
/// The board's architecture.
pub const ARCH: Arch = Arch::Arm64;
const LOADER_MAGIC: &str = "#### LoaderInfo: systemd-boot 257.9-talos ####";
const STUB_MAGIC: &str = "#### LoaderInfo: systemd-stub 257.9-talos ####";
const SBAT: &str = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n";
/// `mov x0, #0; ret`: an EFI program that is done at once.
const NOTHING: [u8; 8] = [0x00, 0x00, 0x80, 0xD2, 0xC0, 0x03, 0x5F, 0xD6];
const CMDLINE: &str = "talos.platform=metal console=ttyAMA0 console=tty0 init_on_alloc=1 slab_nomerge pti=on \
    consoleblank=0 \
    nvme_core.io_timeout=4294967295 printk.devkmsg=on selinux=1 module.sig_enforce=1";
/// Lengths of the stand-ins in bytes.
const KERNEL: usize = 512 * 1024;
const ROOT_FS: usize = 640 * 1024;
const EXTENSION: usize = 96 * 1024;

/// For which place the imager builds a UKI: they differ in command line and profiles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum UkiKind {
    /// Inside the ISO: halts on an installed node, and can wipe the disk.
    Iso,
    /// `metal-arm64-secureboot-uki.efi`.
    Uki,
    /// What the installer puts on a disk.
    Installer,
}

/// A signed UKI.
pub fn uki(kind: UkiKind, schematic: &Schematic, extensions: &[(&str, &str)], key: &SigningKey) -> Result<Vec<u8>> {
    let halt = if kind == UkiKind::Iso { " talos.halt_if_installed=1" } else { "" };
    let cmdline = format!("{CMDLINE}{halt}");
    let public = key.public_key_pem()?.into_bytes();
    let mut sections: Vec<(&str, Vec<u8>)> = vec![
        (".text", NOTHING.to_vec()),
        (".sbat", format!("{SBAT}systemd-stub,1,The systemd Developers,systemd,257,https://systemd.io/\n").into()),
        (".sdmagic", STUB_MAGIC.into()),
        (".osrel", os_release().into()),
        (".cmdline", cmdline.clone().into()),
        (".splash", splash()),
        (".pcrpkey", public.clone()),
        (".linux", kernel()),
        (".initrd", initrd(schematic, extensions).while_doing(|| "making an initrd")?),
        (".profile", "ID=main".into()),
        (".pcrsig", Vec::new()),
    ];
    let wiping = match kind {
        UkiKind::Uki => None,
        UkiKind::Iso => Some(("ID=reset\nTITLE=Reset system disk", "system")),
        UkiKind::Installer => Some(("ID=reset-maintenance\nTITLE=Reset to maintenance mode", "system:EPHEMERAL,STATE")),
    };
    if let Some((profile, what)) = wiping {
        sections.push((".profile", profile.into()));
        sections.push((".cmdline", format!("{cmdline} talos.experimental.wipe={what}").into()));
        sections.push((".pcrsig", Vec::new()));
    }
    sign_policies(&mut sections, &public, key)?;
    sign_pe(build(&sections), key)
}

fn build(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    sections.iter().fold(Builder::new(ARCH), |b, (name, data)| b.section(name, data.as_slice())).build()
}

/// Fills each profile's `.pcrsig`: what the stub will have measured by then, signed in the three banks Talos signs.
fn sign_policies(sections: &mut [(&str, Vec<u8>)], public: &[u8], key: &SigningKey) -> Result<()> {
    let fingerprint = pcr::key_fingerprint(public)?;
    let hashes: BTreeMap<usize, BankHashes> =
        sections.iter().enumerate().map(|(i, (_, data))| (i, BankHashes::of(data, &Bank::ALL))).collect();
    let head = Head::read(&build(sections))?;
    let stub = pcr::stub_version(STUB_MAGIC.as_bytes());
    let places: Vec<usize> =
        sections.iter().enumerate().filter(|(_, (name, _))| *name == ".pcrsig").map(|(i, _)| i).collect();
    for (profile, place) in pcr::profiles(&head.sections, stub).iter().zip(places) {
        let mut banks = serde_json::Map::new();
        for bank in Bank::ALL {
            let values = pcr::values(bank, &profile.measured, &hashes, &pcr::TALOS_PHASES)
                .ok_or_else(|| Error::rejected("a measured section is missing"))?;
            let policy = pcr::policy_digest(bank, values.last());
            let signature = match bank {
                Bank::Sha256 => key.sign_sha256(&policy),
                Bank::Sha384 => key.sign_sha384(&policy),
                Bank::Sha512 => key.sign_sha512(&policy),
            }?;
            let entry = serde_json::json!([{
                "pcrs": [11],
                "pkfp": fingerprint,
                "pol": hex::encode(policy),
                "sig": base64::engine::general_purpose::STANDARD.encode(signature),
            }]);
            banks.insert(bank.name().to_owned(), entry);
        }
        if let Some((_, data)) = sections.get_mut(place) {
            *data = serde_json::Value::Object(banks).to_string().into_bytes();
        }
    }
    Ok(())
}

/// A signed stand-in for systemd-boot.
pub fn loader(key: &SigningKey) -> Result<Vec<u8>> {
    let pe = Builder::new(ARCH)
        .section(".text", NOTHING)
        .section(".sbat", format!("{SBAT}systemd-boot,1,The systemd Developers,systemd,257,https://systemd.io/\n"))
        .section(".sdmagic", LOADER_MAGIC)
        .section(".osrel", "ID=systemd-boot\nVERSION=\"257.9-talos\"\nNAME=\"systemd-boot 257.9-talos\"\n")
        .build();
    sign_pe(pe, key)
}

/// `db.auth`, the update of the firmware's db that systemd-boot enrols in setup mode: `EFI_VARIABLE_AUTHENTICATION_2`
/// with a signature list of one certificate behind it (UEFI 2.10, 8.2.2 and 32.4.1). The signature over the update is
/// empty: firmware in setup mode asks for none.
pub fn db_auth(key: &SigningKey) -> Result<Vec<u8>> {
    let guid = |text: &str| uuid::Uuid::parse_str(text).map(|g| g.to_bytes_le()).map_err(|e| Error::io(e.to_string()));
    let certificate = key.certificate_der()?;
    let mut auth = vec![0xEA, 0x07, 1, 15]; // EFI_TIME: 2026-01-15
    auth.resize(16, 0);
    auth.extend(24u32.to_le_bytes()); // WIN_CERTIFICATE_UEFI_GUID: its length, revision, type
    auth.extend([0x00, 0x02, 0xF1, 0x0E]);
    auth.extend(guid("4aafd29d-68df-49ee-8aa9-347d375665a7")?); // EFI_CERT_TYPE_PKCS7_GUID
    auth.extend(guid("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")?); // EFI_CERT_X509_GUID
    let entry = 16 + certificate.len() as u32;
    for n in [28 + entry, 0, entry] {
        auth.extend(n.to_le_bytes());
    }
    auth.extend(uuid::Uuid::new_v4().to_bytes_le()); // the owner
    auth.extend(certificate);
    Ok(auth)
}

/// Both archives of an initrd, each compressed: the base, and the layers with `extensions.yaml`.
fn initrd(schematic: &Schematic, extensions: &[(&str, &str)]) -> Result<Vec<u8>> {
    let os_release = os_release();
    let root: [(&str, &[u8]); 2] = [("etc/os-release", os_release.as_bytes()), ("sbin/init", &noise(1, ROOT_FS))];
    let base = cpio(&[("init", b"#!/bin/false\n"), ("rootfs.sqsh", &squashfs::image(&root)?)])?;
    let mut initrd = zstd(&base, 1)?;
    let yaml = extensions_yaml(extensions, &schematic.canonical());
    // One image per extension and one for the schematic layer.
    let mut layers = Vec::new();
    for (i, (name, _)) in extensions.iter().enumerate() {
        layers.push((format!("{i}.sqsh"), extension(name, 100 + i as u64)?));
    }
    let schematic = schematic.canonical();
    let layer = squashfs::image(&[("schematic.yaml", schematic.as_bytes())])?;
    layers.push((format!("{}.sqsh", extensions.len()), layer));
    let mut files: Vec<(&str, &[u8])> = vec![("extensions.yaml", yaml.as_bytes())];
    files.extend(layers.iter().map(|(name, data)| (name.as_str(), data.as_slice())));
    initrd.extend(zstd(&cpio(&files)?, 1)?);
    Ok(initrd)
}

/// An extension with a service that waits for its configuration, as tailscale's does.
fn extension(name: &str, seed: u64) -> Result<Vec<u8>> {
    let description = format!(
        "name: {name}\ndepends:\n  - service: cri\n  - network: [addresses, connectivity]\n  - configuration: true\n\
         container:\n  entrypoint: /usr/local/bin/{name}\nrestart: always\n"
    );
    let paths = [format!("usr/local/etc/containers/{name}.yaml"), format!("usr/local/lib/containers/{name}/{name}")];
    Ok(squashfs::image(&[(&paths[0], description.as_bytes()), (&paths[1], &noise(seed, EXTENSION))])?)
}

fn os_release() -> String {
    format!("NAME=\"Talos\"\nID=talos\nVERSION_ID={VERSION}\nPRETTY_NAME=\"Talos ({VERSION})\"\n")
}

/// The header of an arm64 Image (Linux, Documentation/arch/arm64/booting.rst), the text of `/proc/version`, and noise.
fn kernel() -> Vec<u8> {
    let mut image = vec![0; 64];
    image.splice(..2, *b"MZ");
    image.splice(16..24, 0x10000u64.to_le_bytes()); // image_size
    image.splice(24..32, 0xAu64.to_le_bytes()); // flags: little-endian, 4K pages, anywhere in memory
    image.splice(56..60, *b"ARM\x64");
    image.extend(
        b"Linux version 6.18.1-talos (root@buildkitsandbox) (gcc 14.2.0) #1 SMP Thu Jan 15 00:00:00 UTC 2026\n\0",
    );
    image.extend(noise(2, KERNEL));
    image
}

/// A bitmap of one pixel.
fn splash() -> Vec<u8> {
    let mut bmp = b"BM".to_vec();
    for n in [58u32, 0, 54, 40, 1, 1, 24 << 16 | 1, 0, 4, 2835, 2835, 0, 0] {
        bmp.extend(n.to_le_bytes());
    }
    bmp.extend([0x17, 0x3A, 0xFF, 0]);
    bmp
}

/// Bytes that no compressor makes shorter, the same for the same seed (xorshift64*).
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        bytes.extend(x.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Anchor;

    #[test]
    fn the_key_update_names_the_signer() {
        let key = SigningKey::test("demo").unwrap();
        let anchors = Anchor::from_db_auth(&db_auth(&key).unwrap()).unwrap();
        assert_eq!(anchors.len(), 1);
        assert_eq!(anchors[0].certificate, key.certificate().unwrap());
    }
}
