//! Files of an image by their paths: of the FAT volumes in it that firmware starts from, and of an ISO's tree.

use super::{ImageKind, ImageVolume, SharedSource, volumes};
use crate::block::{Extent, Pieces, ReadAt, Window};
use crate::fat::Volume;
use crate::iso::Iso;
use crate::{Context, Result};
use std::sync::Arc;

/// A file of an image.
#[non_exhaustive]
pub struct ImageFile {
    /// Its path, and on what it is.
    pub place: String,
    /// Its bytes, or why they cannot be had: the file system is damaged there.
    pub bytes: Result<Pieces<SharedSource>, String>,
}

/// The files with one of these paths (components separated by `/`, without regard to case): first what firmware would
/// start from, in the order of the paths on each volume. A file by itself has every path.
///
/// # Errors
/// What the source reports; [`crate::Kind::Rejected`] when it is malformed.
pub fn files_at(source: &SharedSource, kind: ImageKind, paths: &[String]) -> Result<Vec<ImageFile>> {
    if kind == ImageKind::Uki {
        let all = vec![Extent { offset: 0, bytes: source.size() }];
        let bytes = Pieces::new(Arc::clone(source), all).map_err(|e| e.to_string());
        return Ok(vec![ImageFile { place: "the file itself".to_owned(), bytes }]);
    }
    let mut found = Vec::new();
    for ImageVolume { extent, place, .. } in volumes(source, kind)?.into_iter().filter(|v| !v.is_xbootldr) {
        let read = || in_fat(source, extent, &place, paths);
        found.extend(read().while_doing(|| format!("looking for files in {place}"))?);
    }
    if found.is_empty() && kind == ImageKind::Iso {
        let mut iso = Iso::open(Arc::clone(source))?;
        for path in paths {
            if let Some(node) = iso.find(path)?.filter(|node| !node.is_dir) {
                let bytes = Pieces::new(Arc::clone(source), node.extents).map_err(|e| e.to_string());
                found.push(ImageFile { place: format!("{path} in the ISO's tree"), bytes });
            }
        }
    }
    Ok(found)
}

fn in_fat(source: &SharedSource, extent: Extent, place: &str, paths: &[String]) -> Result<Vec<ImageFile>> {
    let volume = Volume::open(Window::new(Arc::clone(source), extent)?)?;
    let mut found = Vec::new();
    for path in paths {
        let Some(entry) = volume.find(path)?.filter(|entry| !entry.is_dir()) else { continue };
        let bytes = volume.extents(&entry).and_then(|mut extents| {
            for e in &mut extents {
                e.offset += extent.offset;
            }
            Ok(Pieces::new(Arc::clone(source), extents)?)
        });
        found.push(ImageFile { place: format!("{path} in {place}"), bytes: bytes.map_err(|e| e.to_string()) });
    }
    Ok(found)
}
