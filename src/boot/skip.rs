//! Why a file is not in the menu.

use std::fmt;

/// Why a file or a profile does not become a menu entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Skip {
    /// A directory.
    Directory,
    /// The name starts with a dot.
    DotFile,
    /// The name does not end in `.efi`.
    NotEfi,
    /// The name starts with `auto-`.
    AutoPrefix,
    /// The medium did not give the bytes.
    Unreadable(String),
    /// Not a PE image that systemd-boot accepts; what is wrong.
    NotPe(&'static str),
    /// Built for another processor; its COFF machine type.
    OtherMachine(u16),
    /// No `.osrel` section: an addon or a plain EFI program.
    NoOsRelease,
    /// The file ends before its `.osrel` section.
    OsReleaseCutOff,
    /// os-release has none of PRETTY_NAME, IMAGE_ID, NAME and ID.
    Nameless,
    /// The file ends before its `.profile` section.
    ProfileCutOff,
}

impl Skip {
    /// Whether the file means to be a UKI but would never be started: not for its name, but for its content.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        !matches!(self, Self::Directory | Self::DotFile | Self::NotEfi | Self::AutoPrefix)
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("is a directory"),
            Self::DotFile => f.write_str("its name starts with a dot"),
            Self::NotEfi => f.write_str("its name does not end in .efi"),
            Self::AutoPrefix => f.write_str("its name starts with auto-"),
            Self::Unreadable(why) => write!(f, "cannot be read ({why})"),
            Self::NotPe(why) => write!(f, "is not a PE image that systemd-boot accepts: {why}"),
            Self::OtherMachine(0xAA64) => f.write_str("is built for arm64, the boot loader is not"),
            Self::OtherMachine(0x8664) => f.write_str("is built for amd64, the boot loader is not"),
            Self::OtherMachine(machine) => write!(f, "is built for another processor (machine 0x{machine:x})"),
            Self::NoOsRelease => f.write_str("has no .osrel section"),
            Self::OsReleaseCutOff => f.write_str("is truncated before its .osrel section"),
            Self::Nameless => f.write_str("its os-release names no system"),
            Self::ProfileCutOff => f.write_str("is truncated before its .profile section"),
        }
    }
}
