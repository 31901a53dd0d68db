//! `fetch`, `schematic create` and `schematic show`: the factory is asked.

use super::trust::{read_schematic, schematic_id};
use super::verify::certificate_beside;
use super::{Event, SchematicReport, Ui, network_event};
use crate::block::{check_free, write_whole};
use crate::factory::{self, Asset, Destination, Factory, show_url};
use crate::pe::Arch;
use crate::trust::parse_certificates;
use crate::{Context, Result};
use serde::Serialize;
use std::path::PathBuf;

/// How to reach the factory.
#[derive(Debug, Clone)]
pub struct FactoryRequest {
    /// Its base URL.
    pub url: String,
    /// How.
    pub network: factory::Options,
}

/// What `fetch` is asked for.
#[derive(Debug)]
pub struct Fetch {
    /// `--schematic`: an ID or a YAML file.
    pub schematic: String,
    /// `--talos`.
    pub talos: String,
    /// `--arch`.
    pub arch: Arch,
    /// `--kind`.
    pub asset: Asset,
    /// `--out`.
    pub out: PathBuf,
    /// `--force`.
    pub force: bool,
    /// Where.
    pub factory: FactoryRequest,
}

/// What it did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct FetchReport {
    /// From where.
    pub url: String,
    /// Where it is.
    pub out: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// Bytes kept of an earlier download.
    pub resumed_from: u64,
    /// Bytes that came over the network.
    pub wire_bytes: u64,
    /// Whether a hash that the factory publishes beside it agreed.
    pub sidecar_verified: bool,
    /// Where the certificate is that the factory signs with, if it gave one over TLS: `OUT.cert.pem`.
    pub certificate: Option<String>,
}

impl Fetch {
    /// Downloads.
    ///
    /// # Errors
    /// As [`factory::fetch`].
    pub fn run(&self, ui: &dyn Ui) -> Result<FetchReport> {
        check_free(&self.out, self.force).while_doing(|| format!("--out {}", self.out.display()))?;
        let factory = Factory::new(&self.factory.url, &self.factory.network)?;
        let (id, schematic) = schematic_id(&self.schematic)?;
        if let Some(schematic) = schematic {
            factory.create_schematic(&schematic, ui.cancelled(), &mut |e| network_event(ui, &e))?;
        }
        let url = factory.asset_url(self.asset, &id, &self.talos, self.arch.name())?;
        ui.event(Event::Step(format!("downloading {}", show_url(&url))));
        let to = Destination { file: &self.out, force: self.force, expected: self.asset.into() };
        let done = factory::fetch(&url, &to, &self.factory.network, ui.cancelled(), &mut |e| network_event(ui, &e))?;
        let certificate = self.pin_certificate(&factory, ui);
        Ok(FetchReport {
            url: show_url(&url),
            out: self.out.display().to_string(),
            bytes: done.bytes,
            sha256: done.sha256,
            resumed_from: done.resumed_from,
            wire_bytes: done.wire_bytes,
            sidecar_verified: done.verified,
            certificate,
        })
    }

    /// Keeps the certificate that the factory signs with beside a signed image, where TLS says that it is the
    /// factory's. The image is there already, so nothing that goes wrong here is a failure.
    fn pin_certificate(&self, factory: &Factory, ui: &dyn Ui) -> Option<String> {
        if self.asset == self.asset.plain() || !self.factory.url.starts_with("https://") {
            return None;
        }
        let path = certificate_beside(&self.out);
        let pin = || -> Result<()> {
            let pem = factory.signing_certificate(ui.cancelled(), &mut |e| network_event(ui, &e))?;
            parse_certificates(&pem)?;
            if std::fs::read(&path).is_ok_and(|there| there == pem) {
                return Ok(());
            }
            write_whole(&path, &pem, self.force)
        };
        match pin() {
            Ok(()) => Some(path.display().to_string()),
            Err(e) => {
                ui.event(Event::Warning(format!("the factory's signing certificate was not kept: {e}")));
                None
            }
        }
    }
}

/// `schematic create`: registers a schematic; the ID that comes back must be the local one.
///
/// # Errors
/// As [`Factory::create_schematic`].
pub fn create_schematic(file: &std::path::Path, request: &FactoryRequest, ui: &dyn Ui) -> Result<SchematicReport> {
    let schematic = read_schematic(file)?;
    let factory = Factory::new(&request.url, &request.network)?;
    let id = factory.create_schematic(&schematic, ui.cancelled(), &mut |e| network_event(ui, &e))?;
    Ok(SchematicReport { id, schematic: schematic.canonical() })
}

/// `schematic show`: what the factory has under an ID.
///
/// # Errors
/// As [`Factory::show_schematic`].
pub fn show_schematic(id: &str, request: &FactoryRequest, ui: &dyn Ui) -> Result<SchematicReport> {
    let factory = Factory::new(&request.url, &request.network)?;
    let schematic = factory.show_schematic(id, ui.cancelled(), &mut |e| network_event(ui, &e))?;
    Ok(SchematicReport { id: id.to_owned(), schematic })
}
