//! What a UKI says about itself in its headers and small sections, without its kernel and initrd.

use super::os_release::{self, OsRelease};
use super::texts::Texts;
use crate::Result;
use crate::block::{Extent, ReadAt};
use crate::pe::{Arch, Head, Profiles};

/// What headers and small sections say.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Facts {
    /// The headers.
    pub head: Head,
    /// Which section belongs to which profile.
    pub layout: Profiles,
    /// The architecture, if it is one that Talos is built for.
    pub arch: Option<Arch>,
    /// The os-release text of profile 0.
    pub os_release: OsRelease,
    /// The profiles, at least one; the first is the one that boots unless somebody chooses another.
    pub profiles: Vec<Profile>,
    /// The kernel's version, if the builder wrote it down (`.uname`); arm64 images of the factory do not have it.
    pub uname: Option<String>,
    /// `.sdmagic`: `#### LoaderInfo: systemd-stub 257.9-talos ####`.
    pub sdmagic: Option<String>,
    /// `.sbat`: the revocation levels of the stub, as CSV.
    pub sbat: Option<String>,
    /// `.pcrpkey`: the public key of the PCR policies, in PEM, byte for byte.
    pub pcrpkey: Option<Vec<u8>>,
    texts: Texts,
}

/// One way to boot a UKI.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// Its number, from 0.
    pub index: usize,
    /// `ID` of its `.profile` text: `main`, `reset`.
    pub id: Option<String>,
    /// `TITLE` of its `.profile` text: `Reset system disk`.
    pub title: Option<String>,
    /// The kernel command line that it boots with, its own or the base's.
    pub cmdline: Option<String>,
    /// The signed PCR policies that it boots with, as JSON text.
    pub pcrsig: Option<String>,
}

impl Facts {
    /// Puts together what headers and texts say.
    #[must_use]
    pub fn new(head: Head, texts: Texts) -> Self {
        let layout = Profiles::of(&head.sections);
        let content = |profile, name| layout.find(&head.sections, profile, name).and_then(|i| texts.get(i));
        let text = |profile, name| content(profile, name).map(to_text);
        let profiles = (0..layout.count())
            .map(|index| {
                let own =
                    layout.find_own(&head.sections, index, ".profile").and_then(|i| texts.get(i)).unwrap_or_default();
                let (mut id, mut title) = (None, None);
                for (key, value) in os_release::lines(own) {
                    match key.as_str() {
                        "ID" => id = Some(value),
                        "TITLE" => title = Some(value),
                        _ => {}
                    }
                }
                Profile { index, id, title, cmdline: text(index, ".cmdline"), pcrsig: text(index, ".pcrsig") }
            })
            .collect();
        Self {
            arch: head.arch(),
            os_release: OsRelease::parse(content(0, ".osrel").unwrap_or_default()),
            profiles,
            uname: text(0, ".uname"),
            sdmagic: text(0, ".sdmagic"),
            sbat: text(0, ".sbat"),
            pcrpkey: content(0, ".pcrpkey").map(<[u8]>::to_vec),
            layout,
            head,
            texts,
        }
    }

    /// The version it says it is: `v1.12.4`.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.os_release.version_id.as_deref().filter(|v| !v.is_empty())
    }

    /// The command line of profile 0.
    #[must_use]
    pub fn cmdline(&self) -> Option<&str> {
        self.profiles.first()?.cmdline.as_deref()
    }

    /// The name and version of the stub: `systemd-stub 257.9-talos`.
    #[must_use]
    pub fn stub(&self) -> Option<&str> {
        let magic = self.sdmagic.as_deref()?.trim_matches(['#', ' ']);
        Some(magic.strip_prefix("LoaderInfo:").unwrap_or(magic).trim_start())
    }

    /// Where the section's data lies that profile 0 boots with, for example `.linux`.
    #[must_use]
    pub fn extent(&self, section: &str) -> Option<Extent> {
        let i = self.layout.find(&self.head.sections, 0, section)?;
        Some(self.head.sections.get(i)?.data())
    }

    /// Without the bytes of the small sections: what they say is kept. For those who keep the facts of thousands of images.
    #[must_use]
    pub fn without_contents(self) -> Self {
        Self { texts: Texts::default(), ..self }
    }

    /// The bytes of a small section, by its place in [`Head::sections`]; `None` for `.linux` and the like, and after
    /// [`Self::without_contents`].
    #[must_use]
    pub fn content(&self, section: usize) -> Option<&[u8]> {
        self.texts.get(section)
    }
}

/// The text of a section: to the first NUL, without white space at its ends.
fn to_text(content: &[u8]) -> String {
    let end = content.iter().position(|b| *b == 0).unwrap_or(content.len());
    String::from_utf8_lossy(&content[..end]).trim().to_owned()
}

/// What can be said without reading the whole file: headers and small sections only.
///
/// # Errors
/// [`crate::Kind::Rejected`] when the file is no PE32+ image or its texts are too large; else what the source reports.
pub fn probe(source: &dyn ReadAt) -> Result<Facts> {
    let head = Head::read(source)?;
    let texts = Texts::read(source, &head)?;
    Ok(Facts::new(head, texts))
}
