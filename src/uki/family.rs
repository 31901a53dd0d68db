//! Whose UKI it is. Makers differ in what they put in, in what has to be there, and in the words that help: `talosctl`
//! is no advice for Debian.
//!
//! Found by evidence inside the image, never by its name: os-release, sections, the layers in its initrd.

use super::facts::Facts;
use super::initrd::Initrd;
use serde::Serialize;
use std::fmt;

/// The family of a UKI: which policy, names and hints fit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Family {
    /// Talos Linux: schematic, extensions, halt and wipe flags, its own phases.
    Talos,
    /// Made of systemd's stub by ukify, mkosi, kernel-install, bootc, Kairos and their like.
    Systemd,
    /// A lanzaboote stub (NixOS): kernel and initrd are named by path and hash and lie beside it.
    Lanzaboote,
    /// None of these.
    Unknown,
}

impl Family {
    /// As in reports: `talos`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Talos => "talos",
            Self::Systemd => "systemd",
            Self::Lanzaboote => "lanzaboote",
            Self::Unknown => "unknown",
        }
    }

    /// From headers and small sections alone.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let has = |name: &str| facts.layout.find(&facts.head.sections, 0, name).is_some();
        if facts.os_release.id.as_deref() == Some("talos") {
            Self::Talos
        } else if has(".linuxh") && has(".initrdh") {
            Self::Lanzaboote
        } else if facts.stub().is_some_and(|stub| stub.starts_with("systemd-stub")) {
            Self::Systemd
        } else {
            Self::Unknown
        }
    }

    /// With the initrd at hand: Talos' layers tell Talos under any other name.
    #[must_use]
    pub fn of_whole(facts: &Facts, initrd: Option<&Initrd>) -> Self {
        let layered = initrd.is_some_and(|i| i.extensions_yaml.is_some() && i.has_squashfs("rootfs.sqsh"));
        if layered { Self::Talos } else { Self::of(facts) }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
