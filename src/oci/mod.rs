//! An OCI image as a source of UKIs: an image layout in a folder or a tar archive (`skopeo copy … oci-archive:FILE`),
//! or what
//! `docker save` writes. Every blob that is read is held against the digest that names it; the UKIs in the layers are
//! unpacked into temporary files without names.
//!
//! Own code here is what is looked for and the limits; the tar crate reads archives, flate2 and zstd unpack layers,
//! serde the manifests. Of the types of the specification a handful of fields are needed, and the crate that has them
//! all brings five times as much as this folder.
//!
//! Sources: OCI Image Format Specification 1.1 (image layout, index, manifest, layer); Docker Image Specification 1.2
//! (`manifest.json` of `docker save`).

mod layers;
mod layout;

use crate::block::FileSource;
use crate::{Code, Error, Result};
use layout::ImageLayout;
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most images of an index that are looked into.
const MAX_IMAGES: usize = 32;
/// Most layers of an image.
const MAX_LAYERS: usize = 256;
/// How deep an index may lie in another.
const MAX_DEPTH: usize = 3;

/// A UKI in a layer of an image.
#[non_exhaustive]
pub struct OciUki {
    /// Its path in the image: `usr/install/arm64/vmlinuz.efi.signed`.
    pub path: String,
    /// Which image it is in: `the OCI image sha256:… for linux/arm64`.
    pub image: String,
    /// Its bytes.
    pub file: Arc<FileSource>,
}

/// Part of an index or a manifest: what another blob is called by.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// An index has `manifests`, a manifest `layers`.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// An image in `manifest.json` of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// What of an image's configuration is needed: the digests of its unpacked layers.
#[derive(Debug, Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// One layer: where it is, and by what it is verified.
struct Layer {
    name: String,
    /// The digest of the blob as it stands, or of what it unpacks to.
    digest: Verified,
}

enum Verified {
    Packed(String),
    Unpacked(String),
}

/// The UKIs of an image, if `path` is one: the folder or archive of an OCI image or of `docker save`. `pin` is a digest
/// (`sha256:…`): only what it names is looked into. `None` when the path is something else.
///
/// # Errors
/// [`Code::Malformed`] when a blob is not what its digest says, or the image breaks its format; [`Code::WrongImage`]
/// when nothing has the digest that was requested; [`Code::Cancelled`]; what the file reports.
pub fn open(path: &Path, pin: Option<&str>, cancel: &AtomicBool) -> Result<Option<Vec<OciUki>>> {
    let Some(layout) = ImageLayout::open(path)? else { return Ok(None) };
    let check = || match cancel.load(Ordering::Relaxed) {
        true => Err(Error::new(Code::Cancelled, "stopped on request")),
        false => Ok(()),
    };
    let mut seen = Vec::new();
    let images = if layout.has("index.json") {
        let index: Manifest = layout.json("index.json", None)?;
        let mut images = Vec::new();
        collect(&layout, index.manifests, pin, pin.is_none(), 0, &mut seen, &mut images)?;
        // What Docker saves can be both.
        if images.is_empty() && layout.has("manifest.json") { saved(&layout, pin, &mut seen)? } else { images }
    } else {
        saved(&layout, pin, &mut seen)?
    };
    if let Some(pin) = pin.filter(|_| images.is_empty()) {
        let error =
            Error::new(Code::WrongImage, format!("nothing in it has the digest {pin}; it holds {}", seen.join(", ")));
        return Err(error.advise("fetch the image that the digest names, or leave the digest out"));
    }
    let (mut found, mut room) = (Vec::new(), layers::Room::default());
    for (image, layers) in images {
        check()?;
        for (path, file) in layers::ukis(&layout, &layers, &mut room, cancel)? {
            found.push(OciUki { path, image: image.clone(), file });
        }
    }
    Ok(Some(found))
}

/// The images that an index leads to; `taken` once the pinned digest was passed on the way.
fn collect(
    layout: &ImageLayout,
    all: Vec<Descriptor>,
    pin: Option<&str>,
    taken: bool,
    depth: usize,
    seen: &mut Vec<String>,
    images: &mut Vec<(String, Vec<Layer>)>,
) -> Result<()> {
    for descriptor in all {
        if images.len() >= MAX_IMAGES || seen.len() >= 2 * MAX_IMAGES || depth > MAX_DEPTH {
            return Err(Error::new(Code::Unsupported, "the index names more images than are looked into"));
        }
        seen.push(descriptor.digest.clone());
        let taken = taken || pin == Some(descriptor.digest.as_str());
        let manifest: Manifest = layout.json(&layout::blob(&descriptor.digest)?, Some(&descriptor.digest))?;
        if !manifest.manifests.is_empty() {
            collect(layout, manifest.manifests, pin, taken, depth + 1, seen, images)?;
            continue;
        }
        // Signatures and attestations are kept as images for no platform.
        let platform = descriptor.platform.filter(|p| p.os != "unknown");
        let layers: Vec<_> = manifest.layers.into_iter().filter(|l| is_layer(&l.media_type)).collect();
        if !taken || layers.is_empty() {
            continue;
        }
        if layers.len() > MAX_LAYERS {
            return Err(Error::new(Code::Unsupported, format!("an image of {} layers", layers.len())));
        }
        let layer = |l: Descriptor| Ok(Layer { name: layout::blob(&l.digest)?, digest: Verified::Packed(l.digest) });
        let layers = layers.into_iter().map(layer).collect::<Result<_>>()?;
        let on = platform.map_or(String::new(), |p| format!(" for {}/{}", p.os, p.architecture));
        images.push((format!("the OCI image {}{on}", descriptor.digest), layers));
    }
    Ok(())
}

/// `application/vnd.oci.image.layer.v1.tar+gzip`, `application/vnd.docker.image.rootfs.diff.tar.gzip`.
fn is_layer(media_type: &str) -> bool {
    media_type.contains(".layer") || media_type.contains("rootfs.diff.tar")
}

/// The images of `docker save`, whose layers are held against the configuration, which is named by its digest.
fn saved(layout: &ImageLayout, pin: Option<&str>, seen: &mut Vec<String>) -> Result<Vec<(String, Vec<Layer>)>> {
    let all: Vec<Saved> = layout.json("manifest.json", None)?;
    let mut images = Vec::new();
    for image in all.into_iter().take(MAX_IMAGES) {
        // `HASH.json`, `blobs/sha256/HASH`, or `sha256:HASH`, as Talos' imager and crane write it.
        let name = image.config.rsplit(['/', ':']).next().unwrap_or_default().trim_end_matches(".json");
        let id = format!("sha256:{name}");
        let config: Config = layout.json(&image.config, Some(&id))?;
        seen.push(id.clone());
        if pin.is_some_and(|pin| pin != id) {
            continue;
        }
        if config.rootfs.diff_ids.len() != image.layers.len() || image.layers.len() > MAX_LAYERS {
            return Err(Error::rejected(format!(
                "{id} has {} layers, and its configuration names others",
                image.layers.len()
            )));
        }
        let layers = image.layers.into_iter().zip(config.rootfs.diff_ids);
        let layers = layers.map(|(name, digest)| Layer { name, digest: Verified::Unpacked(digest) }).collect();
        images.push((format!("the saved image {id}"), layers));
    }
    Ok(images)
}
