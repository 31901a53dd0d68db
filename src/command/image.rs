//! `IMAGE` as it is typed: a path or a URL, and which UKI of it.

use super::{Event, Ui};
use crate::block::{FileSource, ReadAt};
use crate::factory::{self, HttpSource};
use crate::image::{Candidate, Found, Source, choose, locate, locate_without_twins};
use crate::{Context, Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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
pub struct OpenImage {
    /// What it is and what is in it.
    pub found: Found,
    /// The local file, for copies inside the kernel.
    pub file: Option<Arc<FileSource>>,
    /// The remote file, for the count of bytes on the wire.
    pub remote: Option<Arc<HttpSource>>,
    uki: Option<String>,
    /// What a download left behind; gone with this value.
    _download: Option<Download>,
}

impl ImageRequest {
    /// Opens the image and looks what is in it. `twins`: whether both copies inside an ISO are wanted.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when it cannot be read; [`crate::Kind::Rejected`] when there is no UKI in it.
    pub fn open(&self, twins: bool, ui: &dyn Ui) -> Result<OpenImage> {
        let opened = if self.image.starts_with("http://") || self.image.starts_with("https://") {
            self.open_url(ui)
        } else {
            self.open_file(&PathBuf::from(&self.image), twins, None)
        };
        opened.while_doing(|| format!("reading the image {}", shown(&self.image)))
    }

    /// As [`Self::open`], for looking around: an image without any UKI is an answer, too.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_any(&self, ui: &dyn Ui) -> Result<OpenImage> {
        self.open(false, ui)
    }

    fn open_file(&self, path: &Path, twins: bool, download: Option<Download>) -> Result<OpenImage> {
        let file = Arc::new(FileSource::open(path)?);
        let source: Source = Arc::clone(&file) as Source;
        let found = if twins { locate(source)? } else { locate_without_twins(source)? };
        Ok(OpenImage { found, file: Some(file), remote: None, uki: self.uki.clone(), _download: download })
    }

    fn open_url(&self, ui: &dyn Ui) -> Result<OpenImage> {
        let cancel = Arc::new(AtomicBool::new(false));
        match HttpSource::open(&self.image, &self.network, Arc::clone(&cancel), Box::new(|_| {}))? {
            Some(remote) => {
                let remote = Arc::new(remote);
                let found = locate_without_twins(Arc::clone(&remote) as Source)?;
                Ok(OpenImage { found, file: None, remote: Some(remote), uki: self.uki.clone(), _download: None })
            }
            None => {
                // A server that serves no ranges: the file comes whole, into a temporary place.
                ui.event(Event::Detail("the server serves no ranges: downloading the whole file".into()));
                let download = Download::new()?;
                let path = download.path().join("image");
                factory::fetch(&self.image, &path, &self.network, ui.cancelled(), &mut |e| {
                    super::network_event(ui, &e);
                })?;
                self.open_file(&path, false, Some(download))
            }
        }
    }
}

impl OpenImage {
    /// All of it, as a source.
    #[must_use]
    pub fn source(&self) -> Source {
        match (&self.file, &self.remote) {
            (Some(file), _) => Arc::clone(file) as Source,
            (None, Some(remote)) => Arc::clone(remote) as Source,
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

/// A folder for a download that is gone with this value.
struct Download(PathBuf);

impl Download {
    fn new() -> Result<Self> {
        let base = std::env::temp_dir();
        for n in 0..1000u32 {
            let path = base.join(format!("bootsurgeon-{}-{n}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::from(e).while_doing(path.display().to_string())),
            }
        }
        Err(Error::io(format!("no temporary folder can be made in {}", base.display())))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An image as it may be shown: a URL without its query, which may hold a token.
pub(super) fn shown(image: &str) -> &str {
    if image.starts_with("http") { image.split(['?', '#']).next().unwrap_or(image) } else { image }
}

/// Whether the source of a candidate is this local file and nothing else.
pub(super) fn local(opened: &OpenImage) -> Option<&FileSource> {
    opened.file.as_deref().filter(|f| f.size() > 0)
}
