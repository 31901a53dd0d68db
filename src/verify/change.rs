//! What an image changes for the people who use the board, against the one that is installed: version, schematic,
//! extensions.

use super::{ExtensionFacts, ImageFacts, InitrdFacts, Policy};
use crate::boot::verscmp;
use crate::factory::Schematic;
use crate::uki::{Extensions, Family, Uki};
use serde::Serialize;
use std::cmp::Ordering;
use std::fmt;

/// Old names of official extensions, and the names that the factory takes for them. Source: `extensionNameAlias` in
/// `internal/profile` of the Image Factory.
const RENAMED: &[(&str, &str)] = &[
    ("amdgpu-firmware", "amdgpu"),
    ("gasket", "gasket-driver"),
    ("i915-ucode", "i915"),
    ("nonfree-kmod-nvidia", "nonfree-kmod-nvidia-lts"),
    ("nvidia-container-toolkit", "nvidia-container-toolkit-lts"),
    ("nvidia-fabricmanager", "nvidia-fabric-manager-lts"),
    ("nvidia-open-gpu-kernel-modules", "nvidia-open-gpu-kernel-modules-lts"),
    ("talos-vmtoolsd", "vmtoolsd-guest-agent"),
    ("usb-modem", "usb-modem-drivers"),
    ("v4l-uvc", "v4l-uvc-drivers"),
    ("xe-guest-utilities", "xen-guest-agent"),
];

/// How many digits of an ID people are shown.
const SHORT_ID: usize = 8;

/// Which system extensions an image has, and why.
#[derive(Debug, Clone, Default)]
pub struct ImageExtensions {
    /// The ID of the schematic that it was built from.
    pub schematic: Option<String>,
    /// That schematic, where the image holds it.
    pub yaml: Option<String>,
    /// The extensions, without the schematic layer.
    pub extensions: Vec<ExtensionFacts>,
}

impl ImageExtensions {
    /// Those of an image that was read.
    #[must_use]
    pub fn of(uki: &Uki) -> Self {
        uki.extensions.as_ref().ok().and_then(Option::as_ref).map(Self::of_layers).unwrap_or_default()
    }

    /// Those that `extensions.yaml` names.
    #[must_use]
    pub fn of_layers(layers: &Extensions) -> Self {
        Self {
            schematic: layers.schematic.as_ref().map(|s| s.id.clone()),
            yaml: layers.schematic.as_ref().map(|s| s.yaml.clone()),
            extensions: ExtensionFacts::all_of(layers),
        }
    }

    /// The schematic, where it is the one that the ID says.
    fn parsed(&self) -> Option<Schematic> {
        let schematic = Schematic::parse(self.yaml.as_deref()?).ok()?;
        (Some(schematic.id()) == self.schematic).then_some(schematic)
    }
}

/// What is another with the new image. Where nothing is installed to compare it with, the old sides are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImageChange {
    /// The version of the installed image.
    pub version_before: Option<String>,
    /// The version of the new one.
    pub version: Option<String>,
    /// The ID of the schematic of the installed image.
    pub schematic_before: Option<String>,
    /// That of the new one.
    pub schematic: Option<String>,
    /// Extensions that only the new image has.
    pub added: Vec<String>,
    /// Extensions that only the installed image has.
    pub removed: Vec<String>,
    /// Whether there is an installed image whose contents are known.
    pub is_compared: bool,
}

impl ImageChange {
    pub(super) fn of(facts: &ImageFacts, policy: &Policy) -> Self {
        let installed = policy.installed.as_ref();
        let contents = installed.and_then(|i| i.contents.as_ref());
        let (new, old) = (facts.extensions.as_slice(), contents.map_or(&[][..], |c| &c.extensions));
        let only = |these: &[ExtensionFacts], those: &[ExtensionFacts]| {
            let missing = these.iter().map(|e| &e.name).filter(|name| !those.iter().any(|e| e.name == **name));
            missing.cloned().collect()
        };
        Self {
            version_before: installed.and_then(|i| i.version.clone()),
            version: facts.version.clone(),
            schematic_before: contents.and_then(|c| c.schematic.clone()),
            schematic: facts.schematic.as_ref().map(|s| s.id.clone()),
            added: only(new, old),
            removed: only(old, new),
            is_compared: contents.is_some(),
        }
    }

    /// The lines of a report: what it is about, and what is said of it. Nothing where the two agree.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let side = |before: &Option<String>, now: &Option<String>, short: bool| {
            let cut = |text: &String| if short { text.chars().take(SHORT_ID).collect() } else { text.clone() };
            let words = |side: &Option<String>| side.as_ref().map_or_else(|| "none".to_owned(), cut);
            match (before, now) {
                (before, now) if before == now => None,
                (None, Some(now)) if !self.is_compared => Some(cut(now)),
                (before, now) => Some(format!("{} -> {}", words(before), words(now))),
            }
        };
        let signed = |sign: &str, list: &[String]| (!list.is_empty()).then(|| format!("{sign} {}", list.join(", ")));
        let extensions: Vec<String> =
            [signed("+", &self.added), signed("-", &self.removed)].into_iter().flatten().collect();
        let lines = [
            ("version", side(&self.version_before, &self.version, false)),
            ("schematic", side(&self.schematic_before, &self.schematic, true)),
            ("extensions", (!extensions.is_empty()).then(|| extensions.join(", "))),
        ];
        lines.into_iter().filter_map(|(what, words)| Some((what, words?))).collect()
    }
}

/// `v1.12.3 -> v1.12.4, schematic 37656798 -> 08086db1, + i915, tailscale`.
impl fmt::Display for ImageChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        if lines.is_empty() {
            return f.write_str("same version, schematic and extensions");
        }
        let words = lines.iter().map(|(what, words)| match *what {
            "schematic" => format!("schematic {words}"),
            _ => words.clone(),
        });
        f.write_str(&words.collect::<Vec<_>>().join(", "))
    }
}

/// Extensions that the installed image has and the new one lacks, and the way to have them all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExtensionLoss {
    /// What is said of it is stable under this name.
    pub code: &'static str,
    /// Their names.
    pub names: Vec<String>,
    /// The official names to add to the new image's schematic.
    pub to_add: Vec<String>,
    /// That schematic with all of them; `None` where the new image does not hold its own.
    pub schematic: Option<FullSchematic>,
}

/// A schematic and its ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FullSchematic {
    /// SHA-256 of the canonical form.
    pub id: String,
    /// The canonical form.
    pub schematic: String,
}

impl ExtensionLoss {
    /// What is lost on the way from the installed image to this one, if anything is.
    pub(super) fn of(facts: &ImageFacts, policy: &Policy) -> Option<Self> {
        let old = policy.installed.as_ref()?.contents.as_ref()?;
        // An initrd that nobody could read says nothing of extensions, and has a check of its own.
        if policy.way_back || facts.family != Family::Talos || !matches!(facts.initrd, InitrdFacts::Read(_)) {
            return None;
        }
        let new = ImageExtensions {
            schematic: facts.schematic.as_ref().map(|s| s.id.clone()),
            yaml: facts.schematic.as_ref().map(|s| s.yaml.clone()),
            extensions: facts.extensions.clone(),
        };
        Self::between(old, &new)
    }

    /// What is lost on the way from one image to another, if anything is.
    #[must_use]
    pub fn between(old: &ImageExtensions, new: &ImageExtensions) -> Option<Self> {
        let there: Vec<_> = new.extensions.iter().map(|e| plain(&e.name)).collect();
        let gone = old.extensions.iter().map(|e| e.name.clone()).filter(|name| !there.contains(&plain(name)));
        let names: Vec<String> = gone.collect();
        let (old, new) = (old.parsed(), new.parsed());
        // The name in an image may be another one than in the schematic, and may change from version to version: what
        // was asked for then and now decides, where both are known.
        let to_add: Vec<String> = match (&old, &new) {
            (Some(old), Some(new)) => {
                let has: Vec<_> = new.official_extensions.iter().map(|name| plain(name)).collect();
                old.official_extensions.iter().filter(|name| !has.contains(&plain(name))).cloned().collect()
            }
            _ => names.iter().map(|name| format!("siderolabs/{}", plain(name))).collect(),
        };
        if names.is_empty() || to_add.is_empty() {
            return None;
        }
        let schematic = new.map(|new| {
            let all = to_add.iter().fold(new, |all, name| all.with_extension(name));
            FullSchematic { id: all.id(), schematic: all.canonical() }
        });
        Some(Self { code: "extension-loss", names, to_add, schematic })
    }

    /// What is lost, in a sentence without a full stop.
    #[must_use]
    pub fn words(&self) -> String {
        format!("the installed image has extensions that this one lacks: {}", self.names.join(", "))
    }
}

/// The name of an extension without its maker, as it is called today.
fn plain(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    RENAMED.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new)
}

/// Whether a Talos version is lower than another one. A pre-release (`v1.13.0-beta.1`) comes before its release.
#[must_use]
pub(crate) fn is_lower(version: &str, than: &str) -> bool {
    let comparable = |v: &str| v.strip_prefix('v').unwrap_or(v).replace('-', "~");
    verscmp::compare(&comparable(version), &comparable(than)) == Ordering::Less
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pre_releases_come_before_their_release() {
        let ascending =
            ["v1.9.6", "v1.12.0-alpha.1", "v1.12.0-beta.0", "v1.12.0-beta.10", "1.12.0", "v1.12.1", "v1.13.0-alpha.0"];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(is_lower(a, b), i < j, "{a} {b}");
            }
        }
        assert!(!is_lower("1.12.4", "v1.12.4"));
    }

    #[test]
    fn an_extension_that_was_renamed_is_the_same() {
        assert_eq!(plain("siderolabs/i915-ucode"), plain("i915"));
        assert_ne!(plain("siderolabs/i915"), plain("siderolabs/mei"));
    }
}
