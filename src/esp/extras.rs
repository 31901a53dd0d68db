//! What lies beside a UKI for systemd's stub to add to it: `<name>.efi.extra.d/` in `EFI/Linux` with addons (more of the
//! command line), credentials and extension images. The stub goes by the name of the file it was started from, so they belong
//! to a name and not to an image.
//!
//! Format: systemd-stub(7), "Companion Files".

use crate::Result;
use crate::block::ReadAt;
use crate::fat::{Volume, same_name};
use crate::surgery::LINUX_DIR;

/// Directories looked into, and files kept of each: more than any board has.
const MAX: usize = 1024;

/// The companion files of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extras {
    /// The directory: `linux.efi.extra.d`.
    directory: String,
    /// The files in it that the stub takes, with their lengths, by name.
    files: Vec<(String, u32)>,
}

impl Extras {
    /// Those of every name in `EFI/Linux`. A directory that cannot be read is an error unless the volume is `damaged`.
    pub(super) fn read<S: ReadAt>(volume: &Volume<S>, damaged: bool) -> Result<Vec<Self>> {
        let list =
            |path: &str| super::read::as_far_as_it_goes(volume.list(path), damaged).map(Option::unwrap_or_default);
        let mut all = Vec::new();
        let named = |name: &str| name.to_ascii_lowercase().ends_with(".efi.extra.d");
        for directory in list(LINUX_DIR)?.into_iter().filter(|e| e.is_dir() && named(&e.name)).take(MAX) {
            let found = list(&format!("{LINUX_DIR}/{}", directory.name))?;
            let taken = found.into_iter().filter(|e| !e.is_dir() && is_companion(&e.name)).take(MAX);
            let mut files: Vec<_> = taken.map(|e| (e.name, e.bytes)).collect();
            files.sort();
            all.push(Self { directory: directory.name, files });
        }
        Ok(all)
    }

    /// The names of the files that the stub adds to the UKI of this name.
    pub(super) fn of<'a>(all: &'a [Self], uki: &str) -> Vec<&'a str> {
        let directory = format!("{}.extra.d", without_counter(uki));
        let own = all.iter().filter(|e| same_name(&e.directory, &directory));
        own.flat_map(|e| &e.files).map(|(name, _)| name.as_str()).collect()
    }
}

fn is_companion(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".addon.efi", ".cred", ".raw"].iter().any(|suffix| name.ends_with(suffix))
}

/// The name without the boot counter that the loader renames: `linux+3-1.efi` is `linux.efi` to the stub.
fn without_counter(name: &str) -> String {
    let is_counter = |text: &str| {
        let (left, done) = text.split_once('-').unwrap_or((text, "0"));
        let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        number(left) && number(done)
    };
    let parts = name.rsplit_once('.').and_then(|(stem, suffix)| Some((stem.rsplit_once('+')?, suffix)));
    match parts {
        Some(((stem, counter), suffix)) if is_counter(counter) => format!("{stem}.{suffix}"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_belong_to_a_name() {
        let all = [Extras { directory: "Linux.efi.extra.d".into(), files: vec![("a.cred".into(), 1)] }];
        for name in ["linux.efi", "LINUX.EFI", "linux+3.efi", "linux+3-1.efi"] {
            assert_eq!(Extras::of(&all, name), ["a.cred"], "{name}");
        }
        for name in ["linux", "linux.efi.bak.1771000000", "linux+.efi", "linux+x.efi", "linux+1-.efi", "b.efi"] {
            assert!(Extras::of(&all, name).is_empty(), "{name}");
        }
        assert!(["A.ADDON.EFI", "b.cred", "c.sysext.raw"].iter().all(|n| is_companion(n)));
        assert!(!is_companion("README") && !is_companion("linux.efi"));
    }
}
