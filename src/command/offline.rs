//! What stands in for `remote` in a library without the feature `net`.

use super::Ui;
use super::image::{ImageRequest, OpenImage};
use crate::image::SharedSource;
use crate::{Code, Error, Result};

/// A file on a server. Without the feature `net` there is none.
#[derive(Clone)]
#[non_exhaustive]
pub enum Remote {}

impl Remote {
    /// Bytes that have come over the network so far.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        match *self {}
    }

    pub(super) fn is_sequential(&self) -> bool {
        match *self {}
    }

    pub(super) fn source(&self) -> SharedSource {
        match *self {}
    }
}

impl ImageRequest {
    pub(super) fn open_url(&self, _: &dyn Ui) -> Result<OpenImage> {
        Err(Error::new(Code::Network, "this build cannot ask servers: it was made without the feature `net`")
            .advise("download the file with another program and name its path"))
    }

    pub(super) fn download(&self, ui: &dyn Ui) -> Result<OpenImage> {
        self.open_url(ui)
    }
}
