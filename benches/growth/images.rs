//! UKIs of any length, and ISOs with any number of files.

use super::measure::Outcome;
use bootsurgeon::block::{FileSource, fan_out};
use bootsurgeon::factory::Schematic;
use bootsurgeon::pcr::{self, Bank, SectionHashes};
use bootsurgeon::pe::{Arch, Head};
use bootsurgeon::testkit::signing::{SigningKey, sign_pe_file};
use bootsurgeon::testkit::squashfs;
use bootsurgeon::testkit::talos::{self, UkiKind, noise};
use bootsurgeon::testkit::uki::{Builder, cpio, extensions_yaml, zstd};
use hadris_fs::{Content, Node, Tree};
use hadris_iso::{IsoId, IsoLevel, IsoOptions};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Content of one archive in a long initrd.
const ARCHIVE: u64 = 16_000_000;
/// The name of the signer of everything here.
const SIGNER: &str = "bootsurgeon bench (test key, everybody has it)";

pub(super) fn key() -> Outcome<SigningKey> {
    Ok(SigningKey::test(SIGNER)?)
}

/// A signed UKI of about so many bytes with its PCR policy. The initrd makes up what is missing: archives that cannot be
/// compressed, and at the end the layers that name extensions and schematic.
pub(super) fn long_uki(out: &Path, bytes: u64) -> Outcome<()> {
    let key = key()?;
    let (stand_in, schematic) = (talos::uki(UkiKind::Uki, &Schematic::default(), &[], &key)?, Schematic::default());
    let head = Head::read(&stand_in)?;
    let section = |name: &str| {
        let data = head.sections.iter().find(|s| s.name == name).map(bootsurgeon::pe::Section::data);
        data.and_then(|d| stand_in.get(d.offset as usize..(d.offset + d.bytes) as usize)).unwrap_or_default()
    };
    let names = [".text", ".sbat", ".sdmagic", ".osrel", ".cmdline", ".splash", ".pcrpkey", ".linux"];
    let room = vec![b' '; policy(&key, &[0; 32])?.len()];
    let builder = names.iter().fold(Builder::new(talos::ARCH), |b, name| b.section(name, section(name)));
    let base = zstd(&cpio(&[("init", b"#!/bin/false\n")])?, 1)?;
    let image = builder.section(".pcrsig", room).section(".initrd", &*base).build();
    let layer = squashfs::image(&[("schematic.yaml", schematic.canonical().as_bytes())])?;
    let yaml = extensions_yaml(&[], &schematic.canonical());
    let layers = zstd(&cpio(&[("0.sqsh", &layer), ("extensions.yaml", yaml.as_bytes())])?, 1)?;

    // The last section grows: its archives go to the file as they are made.
    let head = Head::read(&image)?;
    let initrd = head.sections.last().ok_or("an image without sections")?.data();
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(out)?;
    file.write_all(&image[..(initrd.offset + base.len() as u64) as usize])?;
    let (mut length, end) = (base.len() as u64, bytes.saturating_sub(initrd.offset + layers.len() as u64 + 4096));
    let mut archive = Vec::new();
    while length < end {
        let content = (end - length).min(ARCHIVE);
        if archive.is_empty() || content < ARCHIVE {
            let root = squashfs::image(&[("usr/lib/noise.bin", &noise(content, content as usize))])?;
            archive = zstd(&cpio(&[("rootfs.sqsh", &root)])?, 1)?;
        }
        file.write_all(&archive)?;
        length += archive.len() as u64;
    }
    file.write_all(&layers)?;
    length += layers.len() as u64;
    file.set_len((initrd.offset + length).next_multiple_of(512))?;
    let entry = section_header(&image, b".initrd").ok_or("no header of .initrd")?;
    let address = u32::from_le_bytes(std::array::from_fn(|i| image[entry + 12 + i]));
    let length = u32::try_from(length)?;
    let fields = [
        (entry + 8, length),                                                   // VirtualSize
        (entry + 16, length.next_multiple_of(512)),                            // SizeOfRawData
        (64 + 24 + 56, address.saturating_add(length).next_multiple_of(4096)), // SizeOfImage
    ];
    for (at, value) in fields {
        file.write_all_at(&value.to_le_bytes(), at as u64)?;
    }

    let source = FileSource::open(out)?;
    let head = Head::read(&source)?;
    let mut hashes = SectionHashes::new(&head, &[Bank::Sha256])?;
    fan_out(&source, 0, file.metadata()?.len(), &mut [&mut hashes])?;
    let hashes = hashes.finish()?;
    let profiles = pcr::profiles(&head.sections, pcr::stub_version(section(".sdmagic")));
    let measured = &profiles.first().ok_or("no profile")?.measured;
    let values = pcr::values(Bank::Sha256, measured, &hashes, &pcr::TALOS_PHASES).ok_or("PCR 11 is incomplete")?;
    let place = head.sections.iter().find(|s| s.name == ".pcrsig").ok_or("no .pcrsig")?.data();
    file.write_all_at(&policy(&key, &pcr::policy_digest(Bank::Sha256, values.last()))?, place.offset)?;
    drop(file);
    sign_pe_file(out, &key)?;
    Ok(File::open(out)?.sync_all()?)
}

/// The content of `.pcrsig` for a policy.
fn policy(key: &SigningKey, digest: &[u8]) -> Outcome<Vec<u8>> {
    use base64::Engine as _;
    let signature = base64::engine::general_purpose::STANDARD.encode(key.sign_sha256(digest)?);
    let fingerprint = pcr::key_fingerprint(key.public_key_pem()?.as_bytes())?;
    let policy = hex::encode(digest);
    let json = format!(r#"{{"sha256":[{{"pcrs":[11],"pkfp":"{fingerprint}","pol":"{policy}","sig":"{signature}"}}]}}"#);
    Ok(json.into_bytes())
}

/// Where a section's header is.
fn section_header(image: &[u8], name: &[u8]) -> Option<usize> {
    image.windows(8).take(4096).position(|w| w.starts_with(name) && w[name.len()..].iter().all(|b| *b == 0))
}

/// A UKI of 3 kB that systemd-boot lists.
pub(super) fn short_uki(version: &str) -> Vec<u8> {
    let os_release = format!("ID=talos\nNAME=Talos\nVERSION_ID={version}\nPRETTY_NAME=\"Talos ({version})\"\n");
    Builder::new(Arch::Arm64)
        .section(".text", [0xC3])
        .section(".sdmagic", "#### LoaderInfo: systemd-stub 257.9-talos ####")
        .section(".osrel", os_release)
        .section(".cmdline", "talos.platform=metal console=ttyAMA0")
        .section(".linux", b"MZ, and no more of a kernel")
        .build()
}

/// The UKI that is put in place where its length is not what is measured.
pub(super) fn new_uki(out: &Path) -> Outcome<()> {
    Ok(std::fs::write(out, talos::uki(UkiKind::Uki, &Schematic::default(), &[], &key()?)?)?)
}

/// An ISO with so many entries in its first directory, and a UKI.
pub(super) fn iso(out: &Path, entries: usize) -> Outcome<()> {
    let uki = talos::uki(UkiKind::Uki, &Schematic::default(), &[], &key()?)?;
    let mut tree = Tree::new();
    tree.insert("EFI/Linux/Talos-v1.12.4.efi", Node::file(Content::bytes(uki)))?;
    for n in 1..entries {
        tree.insert(format!("file-number-{n:06}.txt"), Node::file(Content::bytes(n.to_string().into_bytes())))?;
    }
    let options = IsoOptions::new().with_id(IsoId::Volume, "GROWTH").with_level(IsoLevel::L3).with_rock_ridge();
    let mut iso = Vec::new();
    hadris_iso::sync::write(&mut iso, &tree, &options).map_err(|e| e.to_string())?;
    Ok(std::fs::write(out, iso)?)
}
