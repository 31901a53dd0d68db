//! `extensions.yaml`: which system extensions and which schematic an image was built with.
//!
//! The Image Factory writes one layer per extension and a last one named `schematic`, whose version is the schematic's
//! ID and whose `extraInfo` is its canonical YAML. The ID is the SHA-256 of that YAML, so an image proves by itself
//! what it was built from. Source: `pkg/machinery/extensions` of Talos, `internal/schematic` of the Image Factory.

use crate::yaml::{self, Invalid, Merge, Node};
use crate::{Error, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The most layers that are believed. The factory offers about a hundred extensions.
const MAX_LAYERS: usize = 1024;

/// One system extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Extension {
    /// For example `tailscale`.
    pub name: String,
    /// For example `1.90.6`.
    pub version: String,
    /// Who made it.
    pub author: String,
    /// What it is for.
    pub description: String,
    /// The Talos versions it says it works with, for example `>= v1.0.0`.
    pub talos: Option<String>,
    /// The squashfs file in the initrd, for example `0.sqsh`.
    pub image: String,
}

/// The schematic an image was built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SchematicLayer {
    /// What the image claims: 64 lower-case hex digits.
    pub id: String,
    /// The canonical YAML.
    pub yaml: String,
    /// The SHA-256 of [`Self::yaml`], in hex.
    pub yaml_sha256: String,
    /// The squashfs file in the initrd, for example `3.sqsh`.
    pub image: String,
    /// Host and port of the factory that built the image, as far as the layer's author says it.
    pub factory: Option<String>,
}

impl SchematicLayer {
    /// Whether the ID is the hash of the YAML; `None` when the layer does not hold the YAML.
    #[must_use]
    pub fn id_matches(&self) -> Option<bool> {
        (!self.yaml.is_empty()).then(|| self.id == self.yaml_sha256)
    }
}

/// What `extensions.yaml` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Extensions {
    /// The system extensions, in the order they are layered.
    pub extensions: Vec<Extension>,
    /// The schematic; images that no factory built have none.
    pub schematic: Option<SchematicLayer>,
    /// The squashfs file with the kernel module index, when extensions brought modules.
    pub modules_image: Option<String>,
    /// The kernel version that these modules are for.
    pub modules_version: Option<String>,
}

/// The layer that holds the rebuilt kernel module index; it is no extension that anyone asked for.
const MODULES_LAYER: &str = "modules.dep";

impl Extensions {
    /// Parses the file.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when it is no UTF-8, no YAML, has no `layers`, has too many, or has two schematics.
    pub fn parse(yaml: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::rejected(format!("extensions.yaml: {why}"));
        let text = std::str::from_utf8(yaml).map_err(|e| bad(e.to_string()))?;
        let layers = one_document(text).and_then(|file| layers(&file)).map_err(|invalid| bad(invalid.to_string()))?;
        if layers.len() > MAX_LAYERS {
            return Err(bad(format!("{} layers", layers.len())));
        }
        let mut found = Self::default();
        for Layer { image, metadata: m } in layers {
            match m.name.as_str() {
                "schematic" => {
                    let yaml_sha256 = hex::encode(Sha256::digest(&m.extra_info));
                    let factory = factory_host(&m.author);
                    let schematic = SchematicLayer { id: m.version, yaml: m.extra_info, yaml_sha256, image, factory };
                    if found.schematic.replace(schematic).is_some() {
                        return Err(bad(
                            "two schematic layers: it does not say which one the image was built from".into()
                        ));
                    }
                }
                MODULES_LAYER => {
                    found.modules_image = Some(image);
                    found.modules_version = Some(m.version).filter(|v| !v.is_empty());
                }
                _ => found.extensions.push(Extension {
                    name: m.name,
                    version: m.version,
                    author: m.author,
                    description: m.description,
                    talos: m.talos,
                    image,
                }),
            }
        }
        Ok(found)
    }

    /// The squashfs files that must be in the initrd. Talos does not start without one of them.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        let schematic = self.schematic.iter().map(|s| s.image.as_str());
        self.extensions.iter().map(|e| e.image.as_str()).chain(schematic).chain(self.modules_image.as_deref())
    }
}

/// Host and port of `Image Factory (https://factory.talos.dev)`, the author of a schematic layer.
fn factory_host(author: &str) -> Option<String> {
    let url = author.strip_prefix("Image Factory (")?.strip_suffix(')')?;
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:-[]".contains(c);
    (!host.is_empty() && host.len() <= 253 && host.chars().all(plain)).then(|| host.to_owned())
}

/// Limits for a file that anyone may have written: nothing in it nests or refers.
const LIMITS: yaml::Limits = yaml::Limits { documents: 1, nodes: 50_000, text: 4 << 20, depth: 16, aliases: 0 };

/// The one document of a file of an extension, or about extensions.
pub(super) fn one_document(text: &str) -> Result<Node<'_>, Invalid> {
    let at = yaml::Place { line: 1, column: 1 };
    yaml::documents(text, &LIMITS)?.pop().ok_or_else(|| Invalid { at, what: "the document is empty".into() })
}

struct Layer {
    image: String,
    metadata: Metadata,
}

struct Metadata {
    name: String,
    version: String,
    author: String,
    description: String,
    extra_info: String,
    talos: Option<String>,
}

fn layers(file: &Node<'_>) -> Result<Vec<Layer>, Invalid> {
    let layer = |layer: &Node<'_>| {
        let fields = layer.fields(Merge::Apply)?;
        let image = fields.need("image")?.text()?.to_owned();
        Ok(Layer { image, metadata: metadata(fields.need("metadata")?)? })
    };
    file.fields(Merge::Apply)?.need("layers")?.list()?.iter().map(layer).collect()
}

/// An empty value is an empty text to Go's decoder, and so to Talos.
fn metadata(node: &Node<'_>) -> Result<Metadata, Invalid> {
    let fields = node.fields(Merge::Apply)?;
    let text = |name| fields.find(name).map_or(Ok(String::new()), |node| node.text().map(str::to_owned));
    let mut talos = None;
    if let Some(compatibility) = fields.find("compatibility")
        && let Some(versions) = compatibility.fields(Merge::Apply)?.find("talos")
        && let Some(version) = versions.fields(Merge::Apply)?.find("version")
    {
        talos = Some(version.text()?.to_owned());
    }
    Ok(Metadata {
        name: fields.need("name")?.text()?.to_owned(),
        version: text("version")?,
        author: text("author")?,
        description: text("description")?,
        extra_info: text("extraInfo")?,
        talos,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::uki as build;

    const SCHEMATIC: &str = "customization:\n    systemExtensions:\n        officialExtensions:\n            - \
        siderolabs/i915\n            - siderolabs/intel-ucode\n            - siderolabs/tailscale\n";
    const ID: &str = "08086db1d88ea52b2e873f0b0c64562af7ae98f6ed83da5ee478871bbe52abd6";

    #[test]
    fn a_factory_image_names_its_extensions_and_proves_its_schematic() {
        let yaml = format!(
            "layers:\n  - image: 0.sqsh\n    metadata:\n      name: tailscale\n      version: 1.90\n      author: \
                Andrew Rynhard\n      description: |\n        [core]\n        more: of \
                it\n      compatibility:\n        talos:\n          version: '>= v1.0.0'\n      unknown: [1]\n  - \
                image: 1.sqsh\n    metadata:\n      name: schematic\n      version: {ID}\n      author: Image Factory \
                (https://factory.talos.dev)\n      extraInfo: |\n{}  - image: modules.dep.sqsh\n    metadata: {{name: \
                modules.dep, version: 6.12.1-talos}}\n",
            SCHEMATIC.lines().map(|l| format!("        {l}\n")).collect::<String>()
        );
        let found = Extensions::parse(yaml.as_bytes()).unwrap();
        assert_eq!(found.extensions.len(), 1);
        let tailscale = &found.extensions[0];
        assert_eq!((tailscale.name.as_str(), tailscale.version.as_str()), ("tailscale", "1.90"));
        assert_eq!(tailscale.talos.as_deref(), Some(">= v1.0.0"));
        let schematic = found.schematic.as_ref().unwrap();
        assert_eq!((schematic.id.as_str(), schematic.yaml.as_str()), (ID, SCHEMATIC));
        assert_eq!(schematic.id_matches(), Some(true));
        assert_eq!(found.images().collect::<Vec<_>>(), ["0.sqsh", "1.sqsh", "modules.dep.sqsh"]);
    }

    #[test]
    fn the_writer_for_the_demonstration_agrees() {
        let yaml = build::extensions_yaml(&[("i915", "20250101"), ("tailscale", "1.90.6")], SCHEMATIC);
        let found = Extensions::parse(yaml.as_bytes()).unwrap();
        assert_eq!(found.extensions[0].version, "20250101");
        assert_eq!(found.extensions[1].image, "1.sqsh");
        assert_eq!(found.schematic.unwrap().id, ID);
    }

    #[test]
    fn plain_scalars_of_any_kind_are_text_and_nothing_is_empty() {
        let yaml = b"layers:\n- image: 0.sqsh\n  metadata:\n    name: a\n    version: 2025\n    author: \
            null\n    description:\n    compatibility: {}\n- image: 1.sqsh\n  metadata: \
            {name: b, version: 0x10, author: true, compatibility: null}\n";
        let found = Extensions::parse(yaml).unwrap().extensions;
        let fields: Vec<_> = found.iter().map(|e| (&*e.version, &*e.author, &*e.description)).collect();
        assert_eq!(fields, [("2025", "", ""), ("0x10", "true", "")]);
    }

    #[test]
    fn another_yaml_than_the_id_says_is_seen() {
        let yaml = build::extensions_yaml(&[], "customization: {}\n").replace("customization", "customisation");
        let schematic = Extensions::parse(yaml.as_bytes()).unwrap().schematic.unwrap();
        assert_eq!(schematic.id, "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba");
        assert_eq!(schematic.id_matches(), Some(false));
    }

    #[test]
    fn bad_files_are_rejected_with_a_reason() {
        let two = "layers:\n".to_owned() + &"  - {image: 1.sqsh, metadata: {name: schematic, version: a}}\n".repeat(2);
        let many = "layers:\n".to_owned() + &"  - {image: 1.sqsh, metadata: {name: a}}\n".repeat(MAX_LAYERS + 1);
        let deep = "layers: ".to_owned() + &"[".repeat(100_000);
        let deep_block = "- ".repeat(1 << 21);
        let wide = "layers: [".to_owned() + &"a,".repeat(2_000_000);
        let bomb = "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nlayers: *b\n";
        for (what, yaml) in [
            ("empty", &b""[..]),
            ("no layers", b"a: 1"),
            ("no name", b"layers: [{image: a, metadata: {}}]"),
            ("no UTF-8", b"layers: \xFF"),
            ("tab", b"layers:\n\t- a"),
            ("two documents", b"layers: []\n---\nlayers: []\n"),
            ("two", two.as_bytes()),
            ("many", many.as_bytes()),
            ("deep", deep.as_bytes()),
            ("deep block", deep_block.as_bytes()),
            ("wide", wide.as_bytes()),
            ("bomb", bomb.as_bytes()),
        ] {
            let e = Extensions::parse(yaml).unwrap_err();
            assert_eq!(e.kind(), crate::Kind::Rejected, "{what}");
            assert!(e.to_string().starts_with("extensions.yaml: ") && e.to_string().len() < 400, "{what}: {e}");
        }
    }
}
