//! Images for drawn menus: a few sectors each, and real enough for the boot prediction to tell them apart.

use crate::crash::Random;
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::Builder;

/// Versions that images say they are, in no order. Pairs that systemd-boot sorts otherwise than letters do are among
/// them.
pub const VERSIONS: [&str; 8] =
    ["v1.11.0", "v1.12.3", "v1.12.4", "v1.12.4", "v1.12.10", "v1.13.0", "v1.13.0-beta.1", "v1.14.0"];

/// A file's bytes, and what firmware would make of them.
#[derive(Clone)]
pub struct Image {
    pub bytes: Vec<u8>,
    /// What it says it is.
    pub version: Option<String>,
    /// Whether the system in it starts: a file without a kernel, or cut off, is listed in the menu and does not.
    pub starts: bool,
    /// For people.
    pub what: &'static str,
}

impl Image {
    /// A UKI that starts.
    pub fn sound(random: &mut Random, arch: Arch, version: &str) -> Self {
        let what = if random.chance(25) { "with profiles" } else { "sound" };
        let bytes = uki(random, arch, version, what == "with profiles", true);
        Self { bytes, version: Some(version.to_owned()), starts: true, what }
    }

    /// Whatever may lie in `EFI/Linux` under a name that ends in `.efi`.
    pub fn any(random: &mut Random, arch: Arch, version: &str) -> Self {
        let foreign = if arch == Arch::Arm64 { Arch::Amd64 } else { Arch::Arm64 };
        let dead = |bytes, what| Self { bytes, version: Some(version.to_owned()), starts: false, what };
        match random.below(20) {
            0 | 1 => dead(uki(random, arch, version, false, false), "without a kernel"),
            2 | 3 => {
                let mut bytes = uki(random, arch, version, false, true);
                bytes.truncate(1024 + random.below(500));
                dead(bytes, "cut off behind its os-release")
            }
            4 => {
                let mut bytes = uki(random, arch, version, false, true);
                bytes.truncate(random.pick(&[1, 63, 300, 512]));
                dead(bytes, "cut off in its headers")
            }
            5 => dead(uki(random, foreign, version, false, true), "for another architecture"),
            6 => Self {
                bytes: random.bytes(700),
                version: None,
                starts: false,
                what: random.pick(&["no program", "no program at all"]),
            },
            7 if random.chance(50) => Self { bytes: Vec::new(), version: None, starts: false, what: "empty" },
            _ => Self::sound(random, arch, version),
        }
    }
}

/// Its kernel is random bytes, so that no two images are the same.
fn uki(random: &mut Random, arch: Arch, version: &str, profiles: bool, kernel: bool) -> Vec<u8> {
    let release = match random.below(12) {
        0 => format!("ID=talos\nNAME=Talos\nIMAGE_VERSION={version}\n"),
        1 => format!("ID=linux\nNAME=Linux\nVERSION_ID={version}\n"),
        _ => format!("ID=talos\nNAME=Talos\nPRETTY_NAME=\"Talos ({version})\"\nVERSION_ID={version}\n"),
    };
    let mark = hex::encode(random.bytes(6));
    let mut builder =
        Builder::new(arch).section(".osrel", release).section(".cmdline", format!("talos.platform=metal id={mark}"));
    if kernel {
        let n = 40 + random.below(1000);
        builder = builder.section(".linux", random.bytes(n));
    }
    if profiles {
        builder = builder.section(".profile", "ID=main");
        builder = builder.section(".profile", "ID=reset-maintenance\nTITLE=Reset");
        let cmdline = random.pick(&["talos.experimental.wipe=system", "maintenance"]);
        builder = builder.section(".cmdline", format!("{cmdline} id={mark}"));
    }
    builder.build()
}

/// A systemd-boot of this version.
pub fn loader(arch: Arch, version: &str) -> Vec<u8> {
    let magic = format!("#### LoaderInfo: systemd-boot {version} ####\0");
    Builder::new(arch).section(".sdmagic", magic).build()
}
