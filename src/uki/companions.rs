//! What lies beside a UKI for systemd's stub to add to it: addons (more of the command line, device trees, initrds),
//! credentials and extension images. Some are for one image, in `<name>.efi.extra.d/` beside it; others, in `loader/`,
//! for every image of the volume. The stub goes by the name of the file it was started from, so the former belong to a
//! name and not to an image.
//!
//! Format: systemd-stub(7), "Companion Files"; `load_addons`, `load_all_addons` and `generate_sidecar_initrds` of
//! systemd's
//! `src/boot/stub.c`.

use super::facts::Facts;
use crate::Result;
use crate::block::ReadAt;
use crate::counter::without_counter;
use crate::fat::{Entry, Volume, same_name};
use crate::sorting::Sort as _;
use serde::Serialize;
use std::fmt;

/// Where UKIs lie on a volume.
const LINUX: &str = "EFI/Linux";
/// Directories looked into, and files kept of each: more than any board has.
const MAX: usize = 1024;
/// The first version of systemd's stub that takes addons.
const ADDONS_SINCE: u32 = 254;

/// What a companion file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CompanionKind {
    /// `.addon.efi`: a signed PE file with more of the command line, a device tree, an initrd.
    Addon,
    /// `.cred`: a credential.
    Credential,
    /// `.confext.raw`: an extension image for `/etc`.
    Confext,
    /// `.sysext.raw` or another `.raw`: an extension image for `/usr`.
    Sysext,
}

impl fmt::Display for CompanionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Addon => "addon",
            Self::Credential => "credential",
            Self::Confext => "configuration extension",
            Self::Sysext => "system extension",
        })
    }
}

/// A file that the stub adds to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Companion {
    /// From the root of the volume: `loader/addons/console.addon.efi`.
    pub path: String,
    /// What it is.
    pub kind: CompanionKind,
    /// Its directory entry.
    pub entry: Entry,
    /// The directory beside the image that it lies in, `linux.efi.extra.d`; `None` in `loader/`, where it is for every
    /// image.
    directory: Option<String>,
}

impl Companion {
    /// File name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// The name of the image that it is for; `None` when it is for every image.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        let directory = self.directory.as_deref()?;
        directory.get(..directory.len().checked_sub(SUFFIX.len())?)
    }
}

/// No more companion files than this are looked at, give or take a directory.
const MAX_ALL: usize = 4096;

/// What the name of a directory beside an image ends in, behind the image's own name.
const SUFFIX: &str = ".extra.d";

/// The companion files of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Companions(Vec<Companion>);

impl Companions {
    /// Those of every image, and those of each name in `EFI/Linux`, in the order in which the stub adds them. A
    /// directory that cannot be read is an error unless the volume is `damaged`.
    ///
    /// # Errors
    /// What the volume reports.
    pub fn read<S: ReadAt>(volume: &Volume<S>, damaged: bool) -> Result<Self> {
        Self::read_in(volume, LINUX, damaged)
    }

    /// As [`Self::read`], with those of each name in another directory.
    ///
    /// # Errors
    /// What the volume reports.
    pub fn read_in<S: ReadAt>(volume: &Volume<S>, directory: &str, damaged: bool) -> Result<Self> {
        let list = |path: &str| match volume.list(path) {
            Err(e) if damaged && e.code().is_bad_content() => Ok(Vec::new()),
            found => found.map(Option::unwrap_or_default),
        };
        let mut all = Vec::new();
        for (path, kinds) in [
            ("loader/addons", &[CompanionKind::Addon][..]),
            ("loader/credentials", &[CompanionKind::Credential]),
            ("loader/extensions", &[CompanionKind::Sysext, CompanionKind::Confext]),
        ] {
            all.extend(taken(list(path)?, path, None).filter(|c| kinds.contains(&c.kind)));
        }
        let named = |name: &str| name.to_ascii_lowercase().ends_with(&format!(".efi{SUFFIX}"));
        for beside in list(directory)?.into_iter().filter(|e| e.is_dir() && named(&e.name)).take(MAX) {
            let path = format!("{directory}/{}", beside.name);
            all.extend(taken(list(&path)?, &path, Some(&beside.name)));
            // Of a directory that is named a thousand times nobody can want more.
            if all.len() > MAX_ALL {
                break;
            }
        }
        Ok(Self(all))
    }

    /// Those that the stub adds to the image of this name: the ones for every image first, each directory by name.
    pub fn of<'a>(&'a self, uki: &str) -> impl Iterator<Item = &'a Companion> {
        let own = directory_of(uki);
        self.0.iter().filter(move |c| c.directory.as_ref().is_none_or(|directory| same_name(directory, &own)))
    }

    /// Whether the stub adds it to the image of this name.
    #[must_use]
    pub fn is_for(companion: &Companion, uki: &str) -> bool {
        companion.directory.as_ref().is_none_or(|d| same_name(d, &directory_of(uki)))
    }

    /// Those of [`Self::of`] that lie beside the image and are for it alone.
    pub fn own<'a>(&'a self, uki: &str) -> impl Iterator<Item = &'a Companion> {
        self.of(uki).filter(|c| c.directory.is_some())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Companion> {
        self.0.iter()
    }
}

/// The directory beside an image of this name. The stub leaves the boot counter out, which the loader changes.
fn directory_of(uki: &str) -> String {
    let name = without_counter(uki);
    format!("{}{SUFFIX}", name.as_deref().unwrap_or(uki))
}

/// The files of a directory that the stub takes, in its order.
fn taken<'a>(
    files: Vec<Entry>,
    path: &'a str,
    directory: Option<&'a str>,
) -> impl Iterator<Item = Companion> + use<'a> {
    let companion = move |entry: Entry| {
        let kind = kind_of(&entry.name).filter(|_| !entry.is_dir())?;
        Some(Companion { path: format!("{path}/{}", entry.name), kind, entry, directory: directory.map(str::to_owned) })
    };
    let mut found: Vec<_> = files.into_iter().filter_map(companion).take(MAX).collect();
    found.put_in_order(|a, b| a.name().encode_utf16().cmp(b.name().encode_utf16()));
    found.into_iter()
}

fn kind_of(name: &str) -> Option<CompanionKind> {
    let name = name.to_ascii_lowercase();
    if name.starts_with('.') {
        return None;
    }
    let kinds = [
        (".addon.efi", CompanionKind::Addon),
        (".cred", CompanionKind::Credential),
        (".confext.raw", CompanionKind::Confext),
        (".raw", CompanionKind::Sysext),
    ];
    kinds.iter().find(|(suffix, _)| name.ends_with(suffix)).map(|(_, kind)| *kind)
}

/// What a stub knows of itself, as far as it decides which addons it takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// `.uname` of the image, as it stands in the section.
    pub uname: Option<Vec<u8>>,
    /// The machine type of the image.
    pub machine: u16,
    /// The version of systemd's stub; `None` when the stub is another or does not say.
    pub stub: Option<u32>,
}

impl Host {
    /// What an image says.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let version = facts.stub().and_then(|stub| stub.strip_prefix("systemd-stub "));
        let digits = version.map(|v| v.find(|c: char| !c.is_ascii_digit()).map_or(v, |end| &v[..end]));
        Self {
            uname: section(facts, ".uname").map(<[u8]>::to_vec),
            machine: facts.head.machine,
            stub: digits.and_then(|d| d.parse().ok()),
        }
    }

    /// Why the stub passes an addon over, if it does. Signatures are not looked at here.
    #[must_use]
    pub fn passes_over(&self, addon: &Facts) -> Option<String> {
        if let Some(stub) = self.stub.filter(|stub| *stub < ADDONS_SINCE) {
            return Some(format!("systemd's stub {stub} takes no addons"));
        }
        if addon.head.machine != self.machine {
            let name = |machine: u16| {
                crate::pe::Arch::from_machine(machine)
                    .map_or_else(|| format!("machine 0x{machine:04x}"), |a| a.to_string())
            };
            return Some(format!("it is for {}, and the image for {}", name(addon.head.machine), name(self.machine)));
        }
        if addon.extent(".linux").is_some() {
            return Some("it has a kernel in it, which addons must not have".into());
        }
        if additions(addon).is_empty() {
            return Some("there is nothing in it to add".into());
        }
        match (&self.uname, section(addon, ".uname")) {
            (Some(own), Some(wanted)) if !same_text(own, wanted) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
                Some(format!("it is for the kernel {}, and the image's is {}", text(wanted), text(own)))
            }
            _ => None,
        }
    }
}

/// The sections of an addon that the stub adds to the image: `.cmdline`, `.dtb`.
#[must_use]
pub fn additions(addon: &Facts) -> Vec<&'static str> {
    let names = [".cmdline", ".dtb", ".dtbauto", ".initrd", ".ucode"];
    names.into_iter().filter(|name| addon.extent(name).is_some_and(|extent| extent.bytes > 0)).collect()
}

/// The bytes of a small section of profile 0, without padding.
fn section<'a>(facts: &'a Facts, name: &str) -> Option<&'a [u8]> {
    facts.content(facts.layout.find(&facts.head.sections, 0, name)?)
}

/// `strneq8` of the stub: compared as far as `wanted` goes, or both have ended.
fn same_text(own: &[u8], wanted: &[u8]) -> bool {
    for (i, b) in wanted.iter().enumerate() {
        let a = own.get(i).copied().unwrap_or(0);
        if a != *b {
            return false;
        }
        if a == 0 {
            return true;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pe::Arch;
    use crate::testkit::uki::Builder;
    use crate::uki::probe;

    #[test]
    fn names_tell_what_a_file_is() {
        for (name, kind) in [
            ("A.ADDON.EFI", Some(CompanionKind::Addon)),
            ("b.cred", Some(CompanionKind::Credential)),
            ("c.sysext.raw", Some(CompanionKind::Sysext)),
            ("c.raw", Some(CompanionKind::Sysext)),
            ("d.confext.raw", Some(CompanionKind::Confext)),
            (".e.cred", None),
            ("README", None),
            ("linux.efi", None),
        ] {
            assert_eq!(kind_of(name), kind, "{name}");
        }
    }

    #[test]
    fn the_stub_passes_over_what_is_no_addon_for_it() {
        let facts = |arch: Arch, sections: &[(&str, &[u8])]| {
            let builder = sections.iter().fold(Builder::new(arch), |b, (name, data)| b.section(name, *data));
            probe(&builder.build()).unwrap()
        };
        let magic = (".sdmagic", &b"#### LoaderInfo: systemd-stub 257.9 ####"[..]);
        let image = facts(Arch::Arm64, &[magic, (".uname", b"6.12.1"), (".linux", b"k")]);
        let host = Host::of(&image);
        assert_eq!((host.stub, host.uname.as_deref()), (Some(257), Some(&b"6.12.1"[..])));
        let line = (".cmdline", &b"quiet"[..]);
        let over = |sections: &[(&str, &[u8])]| host.passes_over(&facts(Arch::Arm64, sections));
        for taken in [&[line][..], &[line, (".uname", b"6.12.1")], &[line, (".uname", b"6.12")], &[(".dtb", b"d")]] {
            assert_eq!(over(taken), None, "{taken:?}");
        }
        for (no, why) in [
            (&[line, (".uname", b"6.12.2")][..], "for the kernel 6.12.2"),
            (&[line, (".uname", b"6.12.1-1")], "for the kernel 6.12.1-1"),
            (&[line, (".uname", b"6.12\0")], "for the kernel 6.12,"),
            (&[line, (".linux", b"k")], "has a kernel in it"),
            (&[(".sbat", b"s")], "nothing in it"),
        ] {
            assert!(over(no).unwrap().contains(why), "{no:?}: {:?}", over(no));
        }
        assert!(host.passes_over(&facts(Arch::Amd64, &[line])).unwrap().contains("it is for amd64"));
        let old = Host { stub: Some(253), ..host.clone() };
        assert!(old.passes_over(&facts(Arch::Arm64, &[line])).unwrap().contains("253 takes no addons"));
        // Without a version in the image, an addon is not held against it.
        let unnamed = Host { uname: None, ..host };
        assert_eq!(unnamed.passes_over(&facts(Arch::Arm64, &[line, (".uname", b"5")])), None);
    }
}
