//! The Image Factory's own API: asset URLs, schematics, the signing certificate.

use super::auth::origin;
use super::http::{Control, Http, Request, network};
use super::options::{Options, TransferEvent};
use super::schematic::{Schematic, is_id};
use super::url::show_url;
use crate::{Context, Error, Result};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Longest answer of the API in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// The public Image Factory.
pub const PUBLIC_FACTORY: &str = "https://factory.talos.dev";

/// An asset of the factory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asset {
    /// The Secure Boot ISO: the UKI inside it carries the halt flag unless the schematic negates it.
    Iso,
    /// The UKI of the Secure Boot image alone.
    Uki,
    /// The ISO that is not signed.
    PlainIso,
    /// The UKI that is not signed.
    PlainUki,
    /// The installer's image ([`crate::oci`]), in which the UKI of the Secure Boot image lies as it is installed.
    Installer,
    /// The installer's image of the image that is not signed.
    PlainInstaller,
}

impl Asset {
    /// The same that is not signed.
    #[must_use]
    pub const fn plain(self) -> Self {
        match self {
            Self::Iso | Self::PlainIso => Self::PlainIso,
            Self::Uki | Self::PlainUki => Self::PlainUki,
            Self::Installer | Self::PlainInstaller => Self::PlainInstaller,
        }
    }
}

/// A factory to ask.
#[derive(Debug, Clone)]
pub struct Factory {
    base: String,
    http: Arc<Http>,
}

impl Factory {
    /// The factory at `base_url`, for example [`PUBLIC_FACTORY`]. Asks nothing yet.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind::Usage) for a URL that is not http(s), or a CA file without certificates.
    pub fn new(base_url: &str, options: &Options) -> Result<Self> {
        let base = base_url.trim_end_matches('/').to_owned();
        origin(&base)?;
        Ok(Self { base, http: Http::new(options.clone())? })
    }

    /// The URL of an asset. `schematic` is an ID, `talos` a version with or without `v`, `arch` is `arm64` or `amd64`.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind::Usage) when one of them cannot be right.
    pub fn asset_url(&self, asset: Asset, schematic: &str, talos: &str, arch: &str) -> Result<String> {
        if !is_id(schematic) {
            return Err(Error::usage(format!("{schematic:?} is not a schematic ID (64 hexadecimal digits)")));
        }
        let version = talos.strip_prefix('v').unwrap_or(talos);
        let plausible = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
        if !version.starts_with(|c: char| c.is_ascii_digit()) || !version.chars().all(plausible) {
            return Err(Error::usage(format!("{talos:?} is not a Talos version")).advise("write it like v1.12.4"));
        }
        if !matches!(arch, "arm64" | "amd64") {
            return Err(Error::usage(format!("{arch:?} is not an architecture")).advise("arm64 or amd64"));
        }
        let name = match asset {
            Asset::Iso => format!("metal-{arch}-secureboot.iso"),
            Asset::Uki => format!("metal-{arch}-secureboot-uki.efi"),
            Asset::PlainIso => format!("metal-{arch}.iso"),
            Asset::PlainUki => format!("metal-{arch}-uki.efi"),
            Asset::Installer => format!("installer-{arch}-secureboot.tar"),
            Asset::PlainInstaller => format!("installer-{arch}.tar"),
        };
        Ok(format!("{}/image/{schematic}/v{version}/{name}", self.base))
    }

    /// Registers a schematic and returns the ID that the factory gave it, which must be ours.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when the factory cannot be asked or refuses;
    /// [`Kind::Rejected`](crate::Kind::Rejected) when it computes another ID, with the first line that differs.
    pub fn create_schematic(
        &self,
        schematic: &Schematic,
        cancel: &AtomicBool,
        events: &mut dyn FnMut(TransferEvent),
    ) -> Result<String> {
        #[derive(serde::Deserialize)]
        struct Created {
            id: String,
            #[serde(default)]
            schematic: String,
        }
        let ours = schematic.canonical();
        let request = Request {
            url: format!("{}/schematics", self.base),
            headers: vec![("content-type", "application/yaml".into())],
            body: Some(ours.clone().into_bytes()),
        };
        let doing = || format!("creating the schematic at {}", show_url(&self.base));
        let body = self.ask(&request, cancel, events).while_doing(doing)?;
        let created: Created = serde_json::from_slice(&body)
            .map_err(|e| network(format!("the response is not the expected JSON: {e}")).while_doing(doing()))?;
        if created.id == schematic.id() {
            return Ok(created.id);
        }
        let theirs = created.schematic;
        let differs = ours
            .lines()
            .zip(theirs.lines())
            .position(|(a, b)| a != b)
            .unwrap_or_else(|| ours.lines().count().min(theirs.lines().count()));
        let line = |text: &str| text.lines().nth(differs).unwrap_or("(nothing)").to_owned();
        Err(Error::rejected(format!(
            "the factory calls it {}, its canonical form here has the ID {}; line {}: ours {:?}, theirs {:?}",
            created.id,
            schematic.id(),
            differs + 1,
            line(&ours),
            line(&theirs)
        ))
        .advise("use the factory's ID if its canonical form says what you mean; please report the difference"))
    }

    /// The canonical YAML that the factory has under this ID.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when the factory cannot be asked, does not know it, or answers something else.
    pub fn show_schematic(
        &self,
        id: &str,
        cancel: &AtomicBool,
        events: &mut dyn FnMut(TransferEvent),
    ) -> Result<String> {
        if !is_id(id) {
            return Err(Error::usage(format!("{id:?} is not a schematic ID (64 hexadecimal digits)")));
        }
        let body = self
            .ask(&Request::get(&format!("{}/schematics/{id}", self.base)), cancel, events)
            .while_doing(|| format!("asking {} for schematic {id}", show_url(&self.base)))?;
        // The ID is the hash of this very text.
        let genuine = hex::encode(Sha256::digest(&body)) == id;
        String::from_utf8(body).ok().filter(|_| genuine).ok_or_else(|| {
            network(format!("the response of {} is not schematic {id}: its hash is another", show_url(&self.base)))
                .advise("check the URL of the factory, and the proxy variables")
        })
    }

    /// The certificate (PEM) that signs the factory's systemd-boot and UKIs.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when the factory cannot be asked.
    pub fn signing_certificate(&self, cancel: &AtomicBool, events: &mut dyn FnMut(TransferEvent)) -> Result<Vec<u8>> {
        self.ask(&Request::get(&format!("{}/secureboot/signing-cert.pem", self.base)), cancel, events)
            .while_doing(|| format!("asking {} for its signing certificate", show_url(&self.base)))
    }

    fn ask(&self, request: &Request, cancel: &AtomicBool, events: &mut dyn FnMut(TransferEvent)) -> Result<Vec<u8>> {
        let deadline = self.http.options.overall.and_then(|limit| Instant::now().checked_add(limit));
        self.http.small(request, MAX_ANSWER, &mut Control { cancel, deadline, events }).map_err(|(_, e)| e)
    }
}
