//! `IMAGE` as it is typed: a path or a URL, and which UKI of it.

use super::copy::unpack;
use super::{Event, Ui};
use crate::block::{FileSource, ReadAt};
use crate::factory::{self, HttpSource, SequentialSource};
use crate::image::{Candidate, Found, Source, choose, locate, locate_without_twins};
use crate::packed::{Packing, Unpacked};
use crate::{Context, Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// The remote file.
    pub remote: Option<Remote>,
    /// What was unpacked, if the image was packed; `file` is then what was in it.
    pub unpacked: Option<Unpacked>,
    uki: Option<String>,
    /// What a download left behind; gone with this value.
    _download: Option<TemporaryFolder>,
}

/// A file on a server, that is not stored here.
#[derive(Clone)]
pub enum Remote {
    /// It can be read at any place.
    Ranges(Arc<HttpSource>),
    /// It can be read once, from front to back.
    Sequential(Arc<SequentialSource>),
}

impl Remote {
    /// Bytes that have come over the network so far.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        match self {
            Self::Ranges(source) => source.wire_bytes(),
            Self::Sequential(source) => source.wire_bytes(),
        }
    }

    fn source(&self) -> Source {
        match self {
            Self::Ranges(source) => Arc::clone(source) as Source,
            Self::Sequential(source) => Arc::clone(source) as Source,
        }
    }
}

impl ImageRequest {
    /// Opens the image and looks what is in it. `twins`: whether both copies inside an ISO are wanted.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when it cannot be read; [`crate::Kind::Rejected`] when there is no UKI in it.
    pub fn open(&self, twins: bool, ui: &dyn Ui) -> Result<OpenImage> {
        let opened = if factory::is_url(&self.image) {
            self.open_url(ui)
        } else {
            self.open_file(&PathBuf::from(&self.image), twins, None, ui)
        };
        opened.while_doing(|| format!("reading the image {}", shown(&self.image)))
    }

    fn open_file(&self, path: &Path, twins: bool, download: Option<TemporaryFolder>, ui: &dyn Ui) -> Result<OpenImage> {
        let unpacked = unpack(path, ui)?;
        let file = match &unpacked {
            Some(image) => Arc::clone(image.source()),
            None => Arc::new(FileSource::open(path)?),
        };
        let source: Source = Arc::clone(&file) as Source;
        let found = if twins { locate(source)? } else { locate_without_twins(source)? };
        let uki = self.uki.clone();
        Ok(OpenImage { found, file: Some(file), remote: None, unpacked, uki, _download: download })
    }

    fn open_url(&self, ui: &dyn Ui) -> Result<OpenImage> {
        let mut tell = |e: factory::Event| super::network_event(ui, &e);
        let cancel = Arc::clone(ui.cancelled());
        let remote = match HttpSource::open(&self.image, &self.network, cancel, Box::new(|_| {}))? {
            Some(source) => Some(Remote::Ranges(Arc::new(source))),
            None => SequentialSource::open(&self.image, &self.network, Arc::clone(ui.cancelled()), &mut tell)?
                .map(|source| Remote::Sequential(Arc::new(source))),
        };
        if let Some(remote) = remote {
            // What lies at the end of the file, as a partition table's backup does, cannot be had without ranges.
            match (locate_without_twins(remote.source()), &remote) {
                (Err(_), Remote::Sequential(_)) => {}
                // Nor can what is packed.
                (Err(_), Remote::Ranges(source)) if matches!(Packing::detect(&**source), Ok(Some(_))) => {}
                (found, _) => {
                    return Ok(OpenImage {
                        found: found?,
                        file: None,
                        remote: Some(remote),
                        unpacked: None,
                        uki: self.uki.clone(),
                        _download: None,
                    });
                }
            }
        }
        self.download(ui)
    }

    /// The whole file in a temporary place, for what cannot be read from front to back.
    fn download(&self, ui: &dyn Ui) -> Result<OpenImage> {
        ui.event(Event::Detail("it cannot be looked into from afar: downloading the whole file".into()));
        let download = TemporaryFolder::new()?;
        let path = download.path().join("image");
        factory::fetch(&self.image, &path, &self.network, ui.cancelled(), &mut |e| super::network_event(ui, &e))?;
        self.open_file(&path, false, Some(download), ui)
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

impl OpenImage {
    /// Whether it can be read only once, from front to back.
    #[must_use]
    pub fn is_sequential(&self) -> bool {
        matches!(self.remote, Some(Remote::Sequential(_)))
    }

    /// All of it, as a source.
    #[must_use]
    pub fn source(&self) -> Source {
        match (&self.file, &self.remote) {
            (Some(file), _) => Arc::clone(file) as Source,
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

/// A folder that is gone with this value.
pub(crate) struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// An empty folder.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when none can be made.
    pub(crate) fn new() -> Result<Self> {
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

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An image as it may be shown: a URL without its query, which may hold a token.
pub(super) fn shown(image: &str) -> &str {
    if factory::is_url(image) { image.split(['?', '#']).next().unwrap_or(image) } else { image }
}

/// Whether the source of a candidate is this local file and nothing else.
pub(super) fn local(opened: &OpenImage) -> Option<&FileSource> {
    opened.file.as_deref().filter(|f| f.size() > 0)
}
