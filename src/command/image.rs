//! `IMAGE` as it is typed: a path or a URL, and which UKI of it.

use super::copy::unpack;
use super::remote::Remote;
use super::{Event, Ui, temporary_folder};
use crate::block::{Arrival, FileSource, ReadAt, StreamSource, is_stream, receive};
use crate::factory;
use crate::image::{Candidate, ImageContents, SharedSource, choose, locate, locate_without_twins, of_oci};
use crate::oci;
use crate::packed::{Packing, Unpacked};
use crate::{Code, Context, Error, Result};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// `IMAGE` and `--uki`.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// A path or an `http(s)` URL; `-` is standard input.
    pub image: String,
    /// `--uki`.
    pub uki: Option<String>,
    /// How to reach a URL.
    pub network: factory::Options,
    /// What has to arrive, where the image comes through a pipe, and nothing elsewhere; `None` where it may not come
    /// that way.
    pub arrival: Option<Arrival>,
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
    /// The pipe that it comes through.
    pub stream: Option<Arc<StreamSource>>,
    pub(super) uki: Option<String>,
    /// What a download left behind; gone with this value.
    pub(super) _download: Option<TempDir>,
}

impl ImageRequest {
    /// The only UKI of this file or URL.
    #[must_use]
    pub fn new(image: impl Into<String>) -> Self {
        Self { image: image.into(), uki: None, network: factory::Options::default(), arrival: None }
    }

    /// Opens the image and looks what is in it. `twins`: whether both copies inside an ISO are wanted.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when it cannot be read; [`crate::Kind::Rejected`] when there is no UKI in it.
    pub fn open(&self, twins: bool, ui: &dyn Ui) -> Result<OpenImage> {
        if self.is_stream() {
            return self.receive(twins, ui).while_doing(|| "reading the image from a pipe");
        }
        self.refuse_arrival()?;
        if self.arrival.is_none() && self.image == "-" {
            return Err(Error::usage("no image can come through a pipe (`-`) here: it is read more than once")
                .advise("save what comes through the pipe to a file, and name that"));
        }
        // What goes wrong with a server names the URL; once is enough.
        if factory::is_url(&self.image) {
            return self.open_url(ui).while_doing(|| "reading the image");
        }
        let (path, pin) = pinned(&self.image);
        if let Some(ukis) =
            oci::open(path, pin, ui.cancelled()).while_doing(|| format!("reading the image {}", path.display()))?
        {
            let (found, uki) = (of_oci(ukis)?, self.uki.clone());
            return Ok(OpenImage {
                found,
                file: None,
                remote: None,
                unpacked: None,
                stream: None,
                uki,
                _download: None,
            });
        }
        if let Some(pin) = pin {
            return Err(Error::usage(format!(
                "{}@{pin}: it is not an OCI image, and only those have a digest of this kind",
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
        Ok(OpenImage { found, file: Some(file), remote: None, unpacked, stream: None, uki, _download: download })
    }

    /// As [`Self::open`], for those who read the image once, from front to back, where it comes that way: a pipe is not
    /// saved to a file first.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_once(&self, ui: &dyn Ui) -> Result<OpenImage> {
        if !self.is_stream() {
            return self.open(false, ui);
        }
        let once = || {
            let arrival = self.arrival.unwrap_or_default();
            arrival.refuse_unknown()?;
            let Some(stream) = StreamSource::open(Path::new(&self.image), arrival, ui.cancelled())? else {
                return self.receive(false, ui);
            };
            let stream = Arc::new(stream);
            if let Some(packing) = Packing::detect(&*stream)? {
                let name = packing.name();
                let what = format!("it is packed with {name}, and has to be read more than once to be unpacked");
                return Err(Error::new(Code::Unsupported, what).advise(format!(
                    "unpack it in the pipe (`{name} -dc FILE | bootsurgeon swap …`, with the length of what is \
                     unpacked), or save it to a file"
                )));
            }
            let found = locate_without_twins(Arc::clone(&stream) as SharedSource)
                .map_err(|e| e.advise("save it to a file first, and name the file"))?;
            let uki = self.uki.clone();
            Ok(OpenImage {
                found,
                file: None,
                remote: None,
                unpacked: None,
                stream: Some(stream),
                uki,
                _download: None,
            })
        };
        once().while_doing(|| "reading the image from a pipe")
    }

    /// Whether the image comes through a pipe, and may.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.arrival.is_some() && !factory::is_url(&self.image) && is_stream(Path::new(&self.image))
    }

    fn refuse_arrival(&self) -> Result<()> {
        match self.arrival.is_none_or(|arrival| arrival == Arrival::default()) {
            true => Ok(()),
            false => Err(Error::usage("--bytes and --sha256 say what has to arrive through a pipe, and IMAGE is none")),
        }
    }

    /// All that comes through the pipe, in a temporary file.
    fn receive(&self, twins: bool, ui: &dyn Ui) -> Result<OpenImage> {
        let arrival = self.arrival.unwrap_or_default();
        arrival.refuse_unknown()?;
        ui.event(Event::Detail("saving what comes through the pipe to a temporary file".into()));
        let folder = temporary_folder()?;
        let path = folder.path().join("image");
        let mut file = std::fs::File::create_new(&path).while_doing(|| format!("creating {}", path.display()))?;
        receive(Path::new(&self.image), &arrival, &mut file, ui.cancelled())?;
        self.open_file(&path, twins, Some(folder), ui)
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
        self.stream.is_some() || self.remote.as_ref().is_some_and(Remote::is_sequential)
    }

    /// All of it, as a source.
    #[must_use]
    pub fn source(&self) -> SharedSource {
        match (&self.file, &self.remote, &self.stream) {
            (Some(file), ..) => Arc::clone(file) as SharedSource,
            (None, Some(remote), _) => remote.source(),
            (None, None, Some(stream)) => Arc::clone(stream) as SharedSource,
            (None, None, None) => Arc::new(Vec::new()),
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
