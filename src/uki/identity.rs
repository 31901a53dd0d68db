//! What tells two images apart that are not the same bytes: whether one is a copy of the other made anew, and which
//! name an image gets in `EFI/Linux`.

use super::facts::Facts;
use super::family::Family;
use crate::pe::Arch;

/// What two images share of which one is enough in the menu: the same system, built again, perhaps with other
/// extensions or another signature.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Identity {
    family: Family,
    /// `IMAGE_ID`, else `ID` of os-release.
    image: String,
    version: String,
    /// `.uname`. Every kernel of a distribution's release carries the same os-release.
    kernel: Option<String>,
    arch: Arch,
    /// Where it is not the version that makes the image (a rescue entry of the same kernel): the command line.
    cmdline: Option<String>,
}

impl Facts {
    /// What this image is, for comparing; `None` when it does not say enough to call anything its copy.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let os = &self.os_release;
        let family = Family::of(self);
        let said = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        let image = said(&os.image_id).or_else(|| said(&os.id))?;
        let version = said(&os.image_version).or_else(|| said(&os.version_id)).or_else(|| said(&os.build_id))?;
        let (kernel, cmdline) = match family {
            // One version has one kernel; arm64 images do not say which.
            Family::Talos => (self.uname.clone(), None),
            _ => (Some(self.uname.clone()?), self.cmdline().map(str::to_owned)),
        };
        Some(Identity { family, image, version, kernel, arch: self.arch?, cmdline })
    }

    /// The names that makers give an image like this in `EFI/Linux`, best first; `now` is the file that boots today,
    /// with what it says. None when the image does not say enough.
    #[must_use]
    pub fn usual_names(&self, now: Option<(&str, &Self)>) -> Vec<String> {
        let os = &self.os_release;
        let mut names = Vec::new();
        if Family::of(self) == Family::Talos {
            names.extend(self.version().map(|version| format!("Talos-{version}.efi")));
        } else {
            // mkosi, systemd-sysupdate: IMAGE_ID and IMAGE_VERSION.
            if let (Some(id), Some(version)) = (&os.image_id, &os.image_version) {
                names.push(format!("{id}_{version}.efi"));
            }
            // kernel-install: the kernel's version stands in the name, behind whatever the machine calls its entries.
            if let Some((name, facts)) = now
                && let (Some(old), Some(new)) = (&facts.uname, &self.uname)
                && facts.os_release.id == os.id
                && name.matches(old.as_str()).count() == 1
            {
                names.push(name.replacen(old.as_str(), new, 1));
            }
            if now.is_none()
                && let (Some(id), Some(version)) = (&os.id, self.uname.as_ref().or(os.version_id.as_ref()))
            {
                names.push(format!("{id}-{version}.efi"));
            }
        }
        names.retain(|name| !name.contains(['/', '\\', ':']));
        names
    }
}

#[cfg(test)]
mod tests {
    use crate::testkit::uki::Builder;
    use crate::uki::{Facts, probe};

    fn facts(osrel: &str, uname: Option<&str>, cmdline: &str) -> Facts {
        let builder = Builder::new(crate::pe::Arch::Amd64)
            .section(".sdmagic", *b"#### LoaderInfo: systemd-stub 257.13 ####")
            .section(".osrel", osrel.as_bytes())
            .section(".cmdline", cmdline.as_bytes());
        let builder = uname.into_iter().fold(builder, |b, uname| b.section(".uname", uname.as_bytes()));
        probe(&builder.section(".linux", *b"k").build()).unwrap()
    }

    const DEBIAN: &str = "ID=debian\nVERSION_ID=13\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n";
    const TALOS: &str = "ID=talos\nVERSION_ID=v1.12.4\n";
    const MKOSI: &str = "ID=arch\nIMAGE_ID=particle\nIMAGE_VERSION=42\n";

    #[test]
    fn kernels_of_one_release_are_no_copies_of_each_other() {
        let debian = |uname, cmdline| facts(DEBIAN, uname, cmdline).identity();
        assert_eq!(debian(Some("6.12.1"), "a"), debian(Some("6.12.1"), "a"));
        assert_ne!(debian(Some("6.12.1"), "a"), debian(Some("6.12.2"), "a"));
        assert_ne!(debian(Some("6.12.1"), "a"), debian(Some("6.12.1"), "rescue"));
        assert_eq!(debian(None, "a"), None);
        assert!(facts(TALOS, None, "a").identity().is_some());
        assert_eq!(facts(TALOS, None, "a").identity(), facts(TALOS, None, "b").identity());
        assert_ne!(facts(TALOS, Some("6.18"), "a").identity(), facts(MKOSI, Some("6.18"), "a").identity());
        assert_eq!(facts("ID=x\n", Some("6.18"), "a").identity(), None);
    }

    #[test]
    fn each_family_names_its_files_in_its_own_way() {
        let debian = facts(DEBIAN, Some("6.12.2-arm64"), "");
        let old = facts(DEBIAN, Some("6.12.1-arm64"), "");
        let named = |name| debian.usual_names(Some((name, &old)));
        assert_eq!(named("4f5e-6.12.1-arm64.efi"), ["4f5e-6.12.2-arm64.efi"]);
        assert!(named("linux.efi").is_empty());
        assert!(named("6.12.1-arm64-6.12.1-arm64.efi").is_empty());
        assert_eq!(debian.usual_names(None), ["debian-6.12.2-arm64.efi"]);
        assert_eq!(facts(MKOSI, None, "").usual_names(Some(("x.efi", &old))), ["particle_42.efi"]);
        assert_eq!(facts(TALOS, None, "").usual_names(Some(("x.efi", &old))), ["Talos-v1.12.4.efi"]);
        assert!(facts("ID=talos\nVERSION_ID=../x\n", None, "").usual_names(None).is_empty());
    }
}
