//! Which systemd-boot reads the menu, and by which rules.

use super::context::program;
use crate::block::ReadAt;
use crate::boot::LoaderVersion;
use crate::bootpath::{End, ProgramKind, Way, removable_path};
use crate::fat::Volume;
use crate::pe::Arch;

/// The systemd-boot that runs in a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoaderRules {
    pub(super) version: LoaderVersion,
    pub(super) machine: u16,
    /// Where it lies: `\EFI\BOOT\BOOTAA64.EFI`; empty where none is known.
    pub(super) path: String,
}

impl LoaderRules {
    /// Those of the scenario whose way is given. Where the way comes by no systemd-boot of this volume, those of the
    /// one in
    /// `EFI/BOOT`, and without that those of a version that is assumed: then the menu is what a systemd-boot there
    /// would show.
    pub(super) fn of<S: ReadAt>(way: &Way, volume: &Volume<S>, this: usize, arch: Arch) -> Self {
        if let End::Menu { loader, at } = &way.end
            && at.volume == this
        {
            return Self { version: loader.version.clone(), machine: loader.machine, path: at.path.clone() };
        }
        let path = removable_path(arch);
        let found = program(volume, &path).ok().flatten();
        let machine = found.as_ref().map_or(arch.machine(), |p| p.machine);
        let is_there = found.is_some() || volume.find(&path.replace('\\', "/")).ok().flatten().is_some();
        let version = match found.map(|p| p.kind) {
            Some(ProgramKind::SystemdBoot(loader)) => loader.version,
            _ => LoaderVersion::assumed(),
        };
        Self { version, machine, path: if is_there { path } else { String::new() } }
    }
}
