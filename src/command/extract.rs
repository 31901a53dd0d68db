//! `extract`: the UKI alone, byte for byte.

use super::image::local;
use super::{ImageRequest, Ui};
use crate::block::{check_free, check_not_itself};
use crate::factory::{is_url, show_url};
use crate::image;
use crate::{Context, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What `extract` is asked for.
#[derive(Debug)]
pub struct Extract {
    /// Out of what.
    pub image: ImageRequest,
    /// Into which file.
    pub out: PathBuf,
    /// Replace it if it exists.
    pub force: bool,
}

/// What it did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ExtractReport {
    /// Name of the UKI on its medium; `null` for a bare UKI.
    pub name: Option<String>,
    /// Where it was found.
    pub place: String,
    /// Where it is now.
    pub out: String,
    /// Its length.
    pub bytes: u64,
    /// Bytes that came over the network, for a URL.
    pub wire_bytes: Option<u64>,
}

impl Extract {
    /// Copies the UKI out.
    ///
    /// # Errors
    /// As [`ImageRequest::open`] and [`image::extract`].
    pub fn run(&self, ui: &dyn Ui) -> Result<ExtractReport> {
        let check = || {
            if !is_url(&self.image.image) && !self.image.is_stream() {
                check_not_itself(&self.out, Path::new(&self.image.image), "the image")?;
            }
            check_free(&self.out, self.force)
        };
        check().while_doing(|| format!("--out {}", self.out.display()))?;
        let opened = self.image.open(false, ui)?;
        let uki = opened.uki()?;
        let bytes = image::extract(uki, &self.out, local(&opened), self.force)
            .while_doing(|| format!("extracting {} from {}", uki, show_url(&self.image.image)))?;
        Ok(ExtractReport {
            name: uki.name.clone(),
            place: uki.place.clone(),
            out: self.out.display().to_string(),
            bytes,
            wire_bytes: opened.remote.as_ref().map(|r| r.wire_bytes()),
        })
    }
}
