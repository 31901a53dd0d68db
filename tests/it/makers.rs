//! UKIs as makers other than Talos build them, section by section.

#![allow(unreachable_pub)]

use base64::Engine as _;
use bootsurgeon::pcr::{self, Bank, BankHashes};
use bootsurgeon::pe::{Arch, Head};
use bootsurgeon::testkit::signing::{SigningKey, sign_pe};
use bootsurgeon::testkit::squashfs;
use bootsurgeon::testkit::uki::{Builder, cpio, zstd};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use crate::support::Lab;

/// Signs policies and images.
pub static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::test("maker").unwrap());

/// What `systemd-measure sign` signs when it is told nothing else.
pub const DEFAULT_PATHS: [&[&str]; 4] = [
    &["enter-initrd"],
    &["enter-initrd", "leave-initrd"],
    &["enter-initrd", "leave-initrd", "sysinit"],
    &["enter-initrd", "leave-initrd", "sysinit", "ready"],
];

/// A UKI in the making: sections in the order of the table.
#[derive(Clone)]
pub struct Made {
    pub arch: Arch,
    pub sections: Vec<(String, Vec<u8>)>,
}

impl Made {
    /// What ukify of Debian 13 makes of Debian's kernel `uname`.
    pub fn debian(uname: &str) -> Self {
        let initrd = cpio(&[("init", b"#!/bin/sh\n"), ("etc/os-release", b"ID=debian\n")]).unwrap();
        let made = Self { arch: Arch::Arm64, sections: Vec::new() };
        made.with(".text", [0x00, 0x00, 0x80, 0xD2, 0xC0, 0x03, 0x5F, 0xD6])
            .with(".sbat", *b"sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n")
            .with(".sdmagic", *b"#### LoaderInfo: systemd-stub 257.13-1~deb13u1 ####\0")
            .with(
                ".osrel",
                *b"PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian \
                    GNU/Linux\"\nVERSION_ID=\"13\"\nVERSION=\"13 (trixie)\"\nID=debian\n",
            )
            .with(".cmdline", *b"root=UUID=1b7e0c1e-5f5d-4a55-9a52-3a7dbd5d9d0b ro quiet")
            .with(".uname", uname.as_bytes())
            .with(".linux", [0x4B; 3000])
            .with(".initrd", initrd)
    }

    /// What Talos' imager makes for amd64, with these layers behind a root file system of `root` (its version).
    pub fn talos(root: &str, layers: &[(&str, &[u8])], yaml: &str) -> Self {
        let os_release = format!("NAME=\"Talos\"\nID=talos\nVERSION_ID={root}\n");
        let root = squashfs::image(&[("etc/os-release", os_release.as_bytes())]).unwrap();
        let base = cpio(&[("init", b"#!"), ("rootfs.sqsh", &root)]).unwrap();
        let mut files = vec![("extensions.yaml", yaml.as_bytes())];
        files.extend_from_slice(layers);
        let initrd = [zstd(&base, 3).unwrap(), zstd(&cpio(&files).unwrap(), 3).unwrap()].concat();
        let made = Self { arch: Arch::Amd64, sections: Vec::new() };
        made.with(".text", [0x31, 0xC0, 0xC3])
            .with(".sbat", *b"sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n")
            .with(".sdmagic", *b"#### LoaderInfo: systemd-stub 257.9-talos ####\0")
            .with(".osrel", *b"NAME=\"Talos\"\nID=talos\nVERSION_ID=v1.12.4\nPRETTY_NAME=\"Talos (v1.12.4)\"\n")
            .with(".cmdline", *b"talos.platform=metal console=tty0")
            .with(".uname", *b"6.18.1-talos")
            .with(".linux", bz_image("6.18.1-talos"))
            .with(".initrd", initrd)
    }

    /// With one more section at the end.
    pub fn with(mut self, name: &str, data: impl Into<Vec<u8>>) -> Self {
        self.sections.push((name.to_owned(), data.into()));
        self
    }

    /// With other content in the first section of that name.
    pub fn instead(mut self, name: &str, data: impl Into<Vec<u8>>) -> Self {
        let place = self.sections.iter_mut().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}"));
        place.1 = data.into();
        self
    }

    /// Without the sections of that name.
    pub fn without(mut self, name: &str) -> Self {
        self.sections.retain(|(n, _)| n != name);
        self
    }

    /// With the PCR key, and behind everything else the policies that it signs: per bank and path one for each of
    /// `choices`, which are the places of hardware-dependent sections that the stub takes.
    pub fn with_policies(self, banks: &[Bank], paths: &[&[&str]], choices: &[&[usize]]) -> Self {
        self.signed_policies(banks, paths, choices, <[_]>::to_vec)
    }

    /// The same as systemd-measure 257 computes them, for the first hardware-dependent section.
    pub fn with_exchanged_policies(self, choices: &[&[usize]]) -> Self {
        let exchanged = |sections: &[(String, usize)]| pcr::exchanged(sections).unwrap();
        self.signed_policies(&[Bank::Sha256], &DEFAULT_PATHS, choices, exchanged)
    }

    fn signed_policies(
        self,
        banks: &[Bank],
        paths: &[&[&str]],
        choices: &[&[usize]],
        computed: impl Fn(&[(String, usize)]) -> Vec<(String, usize)>,
    ) -> Self {
        let public = KEY.public_key_pem().unwrap();
        let made = self.with(".pcrpkey", public.as_bytes());
        let pkfp = pcr::key_fingerprint(public.as_bytes()).unwrap();
        let hashes: BTreeMap<usize, BankHashes> =
            made.sections.iter().enumerate().map(|(i, (_, data))| (i, BankHashes::of(data, banks))).collect();
        let profile = pcr::profiles(&Head::read(&made.unsigned()).unwrap().sections, Some(257)).remove(0);
        let mut json = serde_json::Map::new();
        for bank in banks {
            let mut entries = Vec::new();
            for choice in choices {
                let fits = |all: &&Vec<(String, usize)>| {
                    let taken: Vec<usize> =
                        all.iter().map(|(_, i)| *i).filter(|i| !is_measured(&profile, *i)).collect();
                    taken == **choice
                };
                let alternatives = profile.alternatives();
                let measured = alternatives.iter().find(fits).unwrap();
                for path in paths {
                    let values = pcr::values(*bank, &computed(measured), &hashes, path).unwrap();
                    let policy = pcr::policy_digest(*bank, values.last());
                    // systemd signs with SHA-256 whatever the bank.
                    let signature = KEY.sign_sha256(&policy).unwrap();
                    entries.push(serde_json::json!({
                        "pcrs": [11],
                        "pkfp": pkfp,
                        "pol": hex::encode(policy),
                        "sig": base64::engine::general_purpose::STANDARD.encode(signature),
                    }));
                }
            }
            json.insert(bank.name().to_owned(), entries.into());
        }
        made.with(".pcrsig", serde_json::Value::Object(json).to_string())
    }

    /// The image, not signed.
    pub fn unsigned(&self) -> Vec<u8> {
        self.sections.iter().fold(Builder::new(self.arch), |b, (name, data)| b.section(name, data.as_slice())).build()
    }

    /// The image, signed with [`KEY`], as a file.
    pub fn file(&self, lab: &Lab, name: &str) -> PathBuf {
        let path = lab.path(name);
        std::fs::write(&path, sign_pe(self.unsigned(), &KEY).unwrap()).unwrap();
        path
    }
}

/// The header of an x86 kernel that says its version (Linux, Documentation/arch/x86/boot.rst).
pub fn bz_image(version: &str) -> Vec<u8> {
    let mut kernel = vec![0; 4096];
    kernel[..2].copy_from_slice(b"MZ");
    kernel[60..64].copy_from_slice(&0x80u32.to_le_bytes());
    kernel[0x80..0x86].copy_from_slice(b"PE\0\0\x64\x86");
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20E..0x210].copy_from_slice(&0x300u16.to_le_bytes());
    let text = format!("{version} (build@host) #1 SMP\0");
    kernel[0x500..0x500 + text.len()].copy_from_slice(text.as_bytes());
    kernel
}

fn is_measured(profile: &pcr::MeasuredProfile, section: usize) -> bool {
    profile.measured.iter().any(|(_, i)| *i == section)
}

/// `verify --json` of an image that one of them made: its certificate trusted, no variables.
pub fn verify(lab: &Lab, image: impl AsRef<std::ffi::OsStr>) -> crate::cli::Ran {
    bootsurgeon!("verify", image.as_ref(), "--cert", certificate(lab), "--efivars", "none", "--json")
}

/// The certificate of [`KEY`], as a file.
pub fn certificate(lab: &Lab) -> PathBuf {
    let path = lab.path("maker.pem");
    std::fs::write(&path, KEY.certificate_pem().unwrap()).unwrap();
    path
}
