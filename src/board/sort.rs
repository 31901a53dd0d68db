//! What sort of file it is, by its path alone.

use crate::fat::same_name;
use crate::surgery::{INTENT_NAME, LINUX_DIR};
use serde::Serialize;
use std::fmt;

/// The sorts of files that belong to a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Sort {
    /// A boot loader: in `EFI/BOOT` or `EFI/systemd`.
    Loader,
    /// What the boot loader goes by: `loader/loader.conf`, and the Secure Boot keys that it enrols, `loader/keys/`.
    LoaderConfiguration,
    /// What the board itself starts, or starts from: `u-boot.bin`, `start4.elf`, `fixup4.dat`, `RPI_EFI.fd`.
    Firmware,
    /// A device tree, `*.dtb`.
    DeviceTree,
    /// A change to a device tree: in `overlays/`, or `*.dtbo`.
    Overlay,
    /// The settings of the firmware: `config.txt`, `uboot.env`, `extlinux/extlinux.conf`.
    Configuration,
    /// Anything else: licences, programs of other systems.
    Other,
}

impl Sort {
    /// Every sort, in the order in which people are told of them.
    pub const ALL: [Self; 7] = [
        Self::Loader,
        Self::LoaderConfiguration,
        Self::Firmware,
        Self::DeviceTree,
        Self::Overlay,
        Self::Configuration,
        Self::Other,
    ];

    /// The sort of the file at `path`, from the root of the volume. `None`: it is no file of the board, but an image or
    /// its entry in the menu, a backup or a record of this program, what a loader keeps there from start to start, or
    /// what other systems leave on a volume.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let is_passed_over = parents(path).any(Self::is_passed_over);
        if is_passed_over || is_own(name) || is_litter(name) || is_state(directory, name) {
            return None;
        }
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
        let is_in = |folder: &str| parents(path).any(|parent| same_name(parent, folder));
        Some(match extension.as_str() {
            _ if is_in("EFI/BOOT") || is_in("EFI/systemd") => Self::Loader,
            _ if is_in("loader") => Self::LoaderConfiguration,
            _ if is_in("overlays") => Self::Overlay,
            "dtbo" => Self::Overlay,
            "dtb" => Self::DeviceTree,
            "conf" if is_in("extlinux") => Self::Configuration,
            "txt" | "env" | "scr" if directory.is_empty() => Self::Configuration,
            "bin" | "elf" | "dat" | "fd" | "img" | "itb" | "imx" | "sig" | "upd" if directory.is_empty() => {
                Self::Firmware
            }
            _ => Self::Other,
        })
    }

    /// Whether nothing in the directory at `path` is a file of the board.
    #[must_use]
    pub fn is_passed_over(path: &str) -> bool {
        const DIRECTORIES: [&str; 9] = [
            LINUX_DIR,
            "EFI/keys",
            "loader/entries",
            "loader/addons",
            "loader/credentials",
            "loader/extensions",
            "System Volume Information",
            "$RECYCLE.BIN",
            "lost+found",
        ];
        let hidden = path.starts_with('.') || path.contains("/.");
        let found = path.get(..6).is_some_and(|begin| begin.eq_ignore_ascii_case("FOUND.")) && path.len() == 9;
        hidden || found || DIRECTORIES.iter().any(|directory| same_name(path, directory))
    }

    /// One of them for people.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Loader => "boot loader",
            Self::LoaderConfiguration => "setting of the boot loader",
            Self::Firmware => "firmware file",
            Self::DeviceTree => "device tree",
            Self::Overlay => "overlay",
            Self::Configuration => "setting of the firmware",
            Self::Other => "other file",
        }
    }

    /// In JSON: `device-tree`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loader => "loader",
            Self::LoaderConfiguration => "loader-configuration",
            Self::Firmware => "firmware",
            Self::DeviceTree => "device-tree",
            Self::Overlay => "overlay",
            Self::Configuration => "configuration",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The directories above a path.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// Whether this program made the file: its record, and what it sets aside, `start4.elf.bak.1771000000`.
fn is_own(name: &str) -> bool {
    let aside = |(rest, number): (&str, &str)| {
        let marks = [".bak", ".disabled", ".salvaged"];
        !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && marks.iter().any(|mark| rest.ends_with(mark))
    };
    same_name(name, INTENT_NAME) || name.rsplit_once('.').is_some_and(aside)
}

/// Whether it is what other systems leave on any volume, or what `fsck.fat` saves.
fn is_litter(name: &str) -> bool {
    const NAMES: [&str; 2] = ["Thumbs.db", "desktop.ini"];
    let saved = name.len() == 12 && name.starts_with("FSCK") && name.ends_with(".REC");
    name.starts_with('.') || saved || NAMES.iter().any(|litter| same_name(name, litter))
}

/// Whether loader or firmware write it from start to start: the seed of random numbers, EFI variables of U-Boot.
fn is_state(directory: &str, name: &str) -> bool {
    let of_loader = ["random-seed", "entries.srel"].iter().any(|state| same_name(name, state));
    same_name(directory, "loader") && of_loader || directory.is_empty() && same_name(name, "ubootefi.var")
}
