//! A swap whose image the factory is asked for: the part of [`Swap`] that needs the feature `net`, in a file of its own
//! for that reason. `swap` and `source` hold the request, this file opens it; so they import each other.

use super::image::{ImageRequest, OpenImage};
use super::swap::Swap;
use super::trust::schematic_id;
use super::{Event, Ui, network_event};
use crate::factory::{Asset, Cache, Factory, Key, Options, show_url};
use crate::trust::{Anchor, AnchorOrigin, parse_certificates};
use crate::verify::Policy;
use crate::{Error, Result};

/// Which image of which factory. Schematic, version and architecture are those of the trust request.
#[derive(Debug, Clone)]
pub struct FactoryImage {
    /// The factory's base URL.
    pub url: String,
    /// The assets, best first: the first one that the factory has is taken. Those of the Secure Boot image; `flavour`
    /// says whether they are meant, or the same that are not signed.
    pub assets: Vec<Asset>,
    /// Of which image.
    pub flavour: Flavour,
    /// How to reach it.
    pub network: Options,
    /// Where assets are kept, if they are.
    pub cache: Option<Cache>,
    /// Which UKI, where an asset has several.
    pub uki: Option<String>,
}

/// Which of the factory's images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flavour {
    /// The signed one for Secure Boot.
    SecureBoot,
    /// The one that is not signed.
    Plain,
    /// As the board is: the signed one with Secure Boot on or a signed image installed. On a board with an unsigned
    /// image the plain one, if unsigned images are accepted at all (`--allow-untrusted`).
    #[default]
    Auto,
}

impl Flavour {
    /// Whether the plain one is meant, on the board that the policy is for; and what somebody should know of the
    /// choice.
    fn is_plain(self, policy: &Policy) -> (bool, Option<String>) {
        let signed = policy.installed.as_ref().is_none_or(|installed| installed.signed);
        match self {
            Self::SecureBoot => (false, None),
            Self::Plain => (true, None),
            Self::Auto if signed || policy.firmware.secure_boot == Some(true) => (false, None),
            Self::Auto if policy.allow_untrusted => (true, None),
            Self::Auto => {
                let said = "the installed image is not signed; the signed one for Secure Boot is requested all the \
                            same, because nothing vouches for an unsigned one (`--asset plain --allow-untrusted` \
                            requests that)";
                (false, Some(said.to_owned()))
            }
        }
    }
}

impl Swap {
    /// Asks the factory for the image, and for the certificate it signs with.
    pub(super) fn open_from_factory(&self, from: &FactoryImage, policy: &mut Policy, ui: &dyn Ui) -> Result<OpenImage> {
        let FactoryImage { url, assets, flavour, network, cache, uki } = from;
        let need = |what: &Option<String>, option: &str| {
            what.clone().ok_or_else(|| Error::usage(format!("without IMAGE, {option} is needed")))
        };
        let (id, schematic) = schematic_id(&need(&self.trust.schematic, "--schematic")?)?;
        let talos = need(&self.trust.talos, "--talos")?;
        let arch = policy.arch.ok_or_else(|| Error::usage("--arch is needed: the ESP does not tell it"))?;
        let factory = Factory::new(url, network)?;
        if let Some(schematic) = schematic.filter(|_| !cache.as_ref().is_some_and(Cache::is_offline)) {
            factory.create_schematic(&schematic, ui.cancelled(), &mut |e| network_event(ui, &e))?;
        }
        if url.starts_with("https://") && !cache.as_ref().is_some_and(Cache::is_offline) {
            let pem = factory.signing_certificate(ui.cancelled(), &mut |e| network_event(ui, &e));
            match pem.and_then(|pem| parse_certificates(&pem)) {
                Ok(certs) => {
                    let origin = AnchorOrigin::Factory(show_url(url));
                    policy.anchors.extend(Anchor::all(&origin, certs));
                }
                Err(e) => ui.event(Event::Warning(format!("the factory's signing certificate: {e}"))),
            }
        }
        let mut refused = None;
        let (plain, said) = flavour.is_plain(policy);
        if let Some(said) = said {
            ui.event(Event::Warning(said));
        }
        for asset in assets.iter().map(|asset| if plain { asset.plain() } else { *asset }) {
            let key = Key { asset, schematic: &id, talos: &talos, arch: arch.name() };
            let image = match cache {
                None => factory.asset_url(asset, &id, &talos, arch.name()),
                Some(cache) => cache
                    .get(&factory, key, network, ui.cancelled(), &mut |e| network_event(ui, &e))
                    .map(|path| path.display().to_string()),
            };
            let request = |image| ImageRequest { image, uki: uki.clone(), network: network.clone(), arrival: None };
            match image.and_then(|image| self.open_named(&request(image), ui)) {
                Ok(opened) => return Ok(opened),
                Err(e) if assets.len() > 1 && e.code().is_failed_access() => {
                    ui.event(Event::Detail(e.to_string()));
                    refused = Some(e);
                }
                Err(e) => return Err(e),
            }
        }
        Err(refused.unwrap_or_else(|| Error::usage("no asset to ask the factory for")))
    }
}
