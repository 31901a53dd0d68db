//! The image that the next `talosctl upgrade`, or the next installation, takes.

use super::{Checker, ImageNeeds, Severity};
use crate::factory::is_id;
use crate::yaml::Node;

impl Checker<'_> {
    /// `machine.install.image`: `HOST/PLATFORM-installer[-secureboot]/SCHEMATIC:VERSION`.
    pub(super) fn install_image(&mut self, node: &Node<'_>) {
        let Ok(reference) = node.text() else { return };
        self.installer(node, "machine.install.image", "image", reference, true);
    }

    /// `talosImageURL` of talhelper: the same without a version.
    pub(super) fn image_url(&mut self, node: &Node<'_>) {
        let Ok(reference) = node.text() else { return };
        self.installer(node, "talosImageURL", "talosImageURL", reference, false);
    }

    /// `talosVersion` of talhelper, which it puts behind the URL.
    pub(super) fn talos_version(&mut self, node: &Node<'_>) {
        let (Ok(stated), Some(version)) = (node.text(), self.image.and_then(|image| image.version.as_deref())) else {
            return;
        };
        // `${talosVersion}` is filled in by talhelper.
        if stated.contains("${") || plain(stated) == plain(version) {
            return;
        }
        let what = format!("talosVersion is {stated}, and the image is {version}: the next upgrade brings that back");
        let put = Some(format!("talosVersion: {version}"));
        self.find_and_put(Severity::Warning, "install-version", node.at, what, "write the image's version", put);
    }

    /// A configuration of a whole node that names no image.
    pub(super) fn no_install_image(&mut self, install: &Node<'_>) {
        let Some(installer) = self.image.and_then(|image| image.installer.clone()) else { return };
        self.find_and_put(
            Severity::Warning,
            "install-image",
            install.at,
            "machine.install names no image: the next `talosctl upgrade` without --image takes the default one, \
             without the extensions of this image",
            "add this line below machine.install",
            Some(format!("image: {installer}")),
        );
    }

    fn installer(&mut self, node: &Node<'_>, field: &str, key: &str, reference: &str, has_version: bool) {
        let Some(image) = self.image else { return };
        let Some(wrong) = differs(image, reference, has_version) else { return };
        let what = format!("{field} {wrong}: the next `talosctl upgrade` without --image takes this image away again");
        let put = image.installer.as_ref().map(|installer| {
            let name = if has_version { installer } else { without_version(installer).0 };
            format!("{key}: {name}")
        });
        let advice = if put.is_some() { "write this" } else { "name the installer of the image's own schematic there" };
        self.find_and_put(Severity::Warning, "install-image", node.at, what, advice, put);
    }
}

/// How the installer that is named is another than the image's; `None` where nothing says so.
fn differs(image: &ImageNeeds, reference: &str, has_version: bool) -> Option<String> {
    if reference.contains("${") || reference.contains("{{") {
        return None;
    }
    let (name, version) = without_version(reference);
    let schematic = name.rsplit('/').next().filter(|last| is_id(last));
    match (schematic, &image.schematic) {
        (Some(named), Some(own)) if named != own => {
            return Some(format!("names the schematic {named}, and the image is of {own}"));
        }
        (None, Some(own)) => return Some(format!("names no schematic, and the image is of {own}")),
        _ => {}
    }
    let secure = |name: &str| name.contains("-secureboot");
    if let Some(installer) = &image.installer
        && secure(installer)
        && !secure(name)
    {
        return Some("names the plain installer, and the image is signed for Secure Boot".into());
    }
    match (version, &image.version) {
        (Some(named), Some(own)) if has_version && plain(named) != plain(own) => {
            Some(format!("names {named}, and the image is {own}"))
        }
        _ => None,
    }
}

/// `NAME:TAG@DIGEST` as name and tag. A port stands before a `/`.
fn without_version(reference: &str) -> (&str, Option<&str>) {
    let reference = reference.split('@').next().unwrap_or_default();
    let path = reference.rfind('/').map_or(0, |at| at + 1);
    match reference.get(path..).and_then(|last| last.find(':')) {
        Some(at) => (&reference[..path + at], Some(&reference[path + at + 1..])),
        None => (reference, None),
    }
}

fn plain(version: &str) -> &str {
    version.strip_prefix('v').unwrap_or(version)
}
