//! An image on a server: read in place where the server can, downloaded whole where not. The part of [`ImageRequest`]
//! that needs the feature `net` (`offline` takes its place without); so it and `image` import each other.

use super::image::{ImageRequest, OpenImage};
use super::{Event, Ui, in_words, network_event, temporary_folder};
use crate::block::{FileSource, ReadAt, read_vec};
use crate::factory::{self, Destination, Expected, HttpSource, SequentialSource, show_url};
use crate::image::{SharedSource, locate_without_twins};
use crate::packed::Packing;
use crate::{Code, Context, Error, Result};
use std::sync::Arc;

/// A file on a server, that is not stored here.
#[derive(Clone)]
#[non_exhaustive]
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

    /// Whether it can be read only once, from front to back.
    pub(super) fn is_sequential(&self) -> bool {
        matches!(self, Self::Sequential(_))
    }

    pub(super) fn source(&self) -> SharedSource {
        match self {
            Self::Ranges(source) => Arc::clone(source) as SharedSource,
            Self::Sequential(source) => Arc::clone(source) as SharedSource,
        }
    }
}

impl ImageRequest {
    pub(super) fn open_url(&self, ui: &dyn Ui) -> Result<OpenImage> {
        let mut tell = |e: factory::TransferEvent| network_event(ui, &e);
        let cancel = || Arc::clone(ui.cancelled());
        // What comes is told by whoever reads it, but for what is worth a warning.
        let detached = ui.detached();
        let later = move |e: factory::TransferEvent| match e {
            factory::TransferEvent::Progress { .. } => {}
            e => detached(in_words(&e)),
        };
        let remote = match HttpSource::open(&self.image, &self.network, cancel(), Box::new(later))? {
            Some(source) => Some(Remote::Ranges(Arc::new(source))),
            None => SequentialSource::open(&self.image, &self.network, cancel(), &mut tell)?
                .map(|source| Remote::Sequential(Arc::new(source))),
        };
        if let Some(remote) = remote {
            // What lies at the end of the file, as a partition table's backup does, cannot be had without ranges.
            match (locate_without_twins(remote.source()), &remote) {
                (Err(_), remote) if is_page(&*remote.source()) => return Err(page().while_doing(show_url(&self.image))),
                (Err(_), Remote::Sequential(_)) => {}
                // Nor can what is packed.
                (Err(_), Remote::Ranges(source)) if matches!(Packing::detect(&**source), Ok(Some(_))) => {}
                (found, _) => {
                    return Ok(OpenImage {
                        found: found.while_doing(|| show_url(&self.image))?,
                        file: None,
                        remote: Some(remote),
                        unpacked: None,
                        stream: None,
                        uki: self.uki.clone(),
                        _download: None,
                    });
                }
            }
        }
        self.download(ui)
    }

    /// The whole file in a temporary place, for what cannot be read from front to back.
    pub(super) fn download(&self, ui: &dyn Ui) -> Result<OpenImage> {
        ui.event(Event::Detail("it cannot be read remotely in parts: downloading the whole file".into()));
        let download = temporary_folder()?;
        let path = download.path().join("image");
        let to = Destination { file: &path, force: false, expected: Expected::Anything };
        factory::fetch(&self.image, &to, &self.network, ui.cancelled(), &mut |e| network_event(ui, &e))?;
        let opened = self.open_file(&path, false, Some(download), ui);
        opened.map_err(|e| match FileSource::open(&path) {
            Ok(file) if is_page(&file) => page(),
            _ => e,
        })
    }
}

fn is_page(source: &dyn ReadAt) -> bool {
    let bytes = source.size().min(1024) as usize;
    read_vec(source, 0, bytes).is_ok_and(|head| factory::is_page(&head))
}

fn page() -> Error {
    Error::new(Code::Network, "the server sent a web page instead of an image").advise(factory::PAGE_ADVICE)
}
