//! `IMAGE` as it is typed: a path or a URL, and which UKI of it.

use super::Ui;
use super::copy::unpack;
use super::remote::Remote;
use crate::block::{FileSource, ReadAt};
use crate::factory;
use crate::image::{Candidate, ImageContents, SharedSource, choose, locate, locate_without_twins, of_oci};
use crate::oci;
use crate::packed::Unpacked;
use crate::{Context, Error, Result};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// `IMAGE` and `--uki`.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// A path or an `http(s)` URL.
    pub image: String,
    /// `--uki`.
    pub uki: Option<String>,
    /// How to reach a URL.
    pub network: factory::Options,
}

/// An image that has been opened.
#[non_exhaustive]
pub struct OpenImage {
    /// What it is and what is in it.
    pub found: ImageContents,
    /// The local file, for copies inside the kernel.
    pub file: Option<Arc<FileSource>>,
    /// The remote file.
    pub remote: Option<Remote>,
    /// What was unpacked, if the image was packed; `file` is then what was in it.
    pub unpacked: Option<Unpacked>,
    pub(super) uki: Option<String>,
    /// What a download left behind; gone with this value.
    pub(super) _download: Option<TempDir>,
}

impl ImageRequest {
    /// The only UKI of this file or URL.
    #[must_use]
    pub fn new(image: impl Into<String>) -> Self {
        Self { image: image.into(), uki: None, network: factory::Options::default() }
    }

    /// Opens the image and looks what is in it. `twins`: whether both copies inside an ISO are wanted.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when it cannot be read; [`crate::Kind::Rejected`] when there is no UKI in it.
    pub fn open(&self, twins: bool, ui: &dyn Ui) -> Result<OpenImage> {
        // What goes wrong with a server names the URL; once is enough.
        if factory::is_url(&self.image) {
            return self.open_url(ui).while_doing(|| "reading the image");
        }
        let (path, pin) = pinned(&self.image);
        if let Some(ukis) =
            oci::open(path, pin, ui.cancelled()).while_doing(|| format!("reading the image {}", path.display()))?
        {
            let (found, uki) = (of_oci(ukis)?, self.uki.clone());
            return Ok(OpenImage { found, file: None, remote: None, unpacked: None, uki, _download: None });
        }
        if let Some(pin) = pin {
            return Err(Error::usage(format!(
                "{}@{pin}: it is no OCI image, and only those have a digest of this kind",
                path.display()
            )));
        }
        self.open_file(path, twins, None, ui).while_doing(|| format!("reading the image {}", path.display()))
    }

    pub(super) fn open_file(
        &self,
        path: &Path,
        twins: bool,
        download: Option<TempDir>,
        ui: &dyn Ui,
    ) -> Result<OpenImage> {
        let unpacked = unpack(path, ui)?;
        let file = match &unpacked {
            Some(image) => Arc::clone(image.source()),
            None => Arc::new(FileSource::open(path)?),
        };
        let source: SharedSource = Arc::clone(&file) as SharedSource;
        let found = if twins { locate(source)? } else { locate_without_twins(source)? };
        let uki = self.uki.clone();
        Ok(OpenImage { found, file: Some(file), remote: None, unpacked, uki, _download: download })
    }

    /// As [`Self::open`], for those who look at a UKI more than once: a server without ranges has to give it whole.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_to_look_around(&self, ui: &dyn Ui) -> Result<OpenImage> {
        let opened = self.open(false, ui)?;
        if opened.is_sequential() { self.download(ui) } else { Ok(opened) }
    }
}

/// The path of `IMAGE`, and the digest behind it: `installer.tar@sha256:…`, as long as no file has that very name.
fn pinned(image: &str) -> (&Path, Option<&str>) {
    let whole = Path::new(image);
    let split = image
        .rfind("@sha256:")
        .map(|at| image.split_at(at))
        .filter(|(_, digest)| digest.len() == "@sha256:".len() + 64);
    match split {
        Some((path, digest)) if !whole.exists() => (Path::new(path), digest.strip_prefix('@')),
        _ => (whole, None),
    }
}

impl OpenImage {
    /// Whether it can be read only once, from front to back.
    #[must_use]
    pub fn is_sequential(&self) -> bool {
        self.remote.as_ref().is_some_and(Remote::is_sequential)
    }

    /// All of it, as a source.
    #[must_use]
    pub fn source(&self) -> SharedSource {
        match (&self.file, &self.remote) {
            (Some(file), _) => Arc::clone(file) as SharedSource,
            (None, Some(remote)) => remote.source(),
            (None, None) => Arc::new(Vec::new()),
        }
    }

    /// The UKI that was chosen, or the only one.
    ///
    /// # Errors
    /// As [`choose`].
    pub fn uki(&self) -> Result<&Candidate> {
        choose(&self.found, self.uki.as_deref())
    }
}

/// Whether the source of a candidate is this local file and nothing else.
pub(super) fn local(opened: &OpenImage) -> Option<&FileSource> {
    opened.file.as_deref().filter(|f| f.size() > 0)
}
