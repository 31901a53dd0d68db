//! `config check`: does a node's configuration fit the image that it is to run?

use super::trust::read_file;
use super::{Event, ImageRequest, Ui, examine};
use crate::config::{ConfigFile, ConfigReport, check};
use crate::verify::{ImageSummary, needs};
use crate::{Code, Context, Error, Result};
use serde::Serialize;
use std::path::PathBuf;

/// What `config check` is asked for.
#[derive(Debug)]
pub struct CheckConfig {
    /// Talos documents, patches, a `talconfig.yaml`.
    pub files: Vec<PathBuf>,
    /// The image; without it only what is wrong with any image is found.
    pub image: Option<ImageRequest>,
}

/// What it found.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ConfigCheckReport {
    /// What was found in the files.
    #[serde(flatten)]
    pub config: ConfigReport,
    /// The image that they were held against.
    pub image: Option<ImageSummary>,
}

impl CheckConfig {
    /// Reads the files, and the image from end to end.
    ///
    /// # Errors
    /// As [`ImageRequest::open`]; [`crate::Kind::Io`] when a file cannot be read, [`Code::Malformed`] when it is no
    /// text. What does not fit is no error: the report says so.
    pub fn run(&self, ui: &dyn Ui) -> Result<ConfigCheckReport> {
        let files = config_files(&self.files)?;
        let Some(request) = &self.image else {
            return Ok(ConfigCheckReport { config: check(&files, None), image: None });
        };
        let opened = request.open(false, ui)?;
        ui.event(Event::Step("reading the image".into()));
        let facts = examine(&opened.uki()?.bytes, &[], &mut [], ui)?.facts;
        Ok(ConfigCheckReport {
            config: check(&files, Some(&needs(&facts, None))),
            image: Some(ImageSummary::of(&facts)),
        })
    }
}

/// The files that hold configuration.
pub(super) fn config_files(paths: &[PathBuf]) -> Result<Vec<ConfigFile>> {
    let read = |path: &PathBuf| {
        let name = path.display().to_string();
        let text = String::from_utf8(read_file(path)?)
            .map_err(|_| Error::new(Code::Malformed, "it is no text in UTF-8"))
            .while_doing(|| format!("reading {name}"))?;
        Ok(ConfigFile { name, text })
    };
    paths.iter().map(read).collect()
}
