//! The verification policy: every check with its verdict.
//!
//! Pure: facts and a policy go in, a report comes out. Reading the image is the work of [`crate::uki`] and friends,
//! reading anchors that of [`crate::trust`].
//!
//! What `--allow-untrusted` softens: `authenticode-digest` and `authenticode-signer`, and nothing else. A digest that
//! does not match is softened, too, because an image that was changed after signing is an untrusted one, no more and
//! no less than one that was never signed. Revocation, PCR signatures and contents stay what they are: they decide
//! whether the board starts and its disks unlock.

mod addons;
mod change;
mod checks;
mod config;
mod facts;
mod signature;

pub(crate) use change::is_lower;
pub use change::{ExtensionLoss, FullSchematic, ImageChange, ImageExtensions};
pub use checks::waits;
pub(crate) use config::{installer_image, needs};
pub use facts::{
    Addon, CompanionFacts, ExtensionFacts, ImageFacts, InitrdFacts, PointedFile, ProfileFacts, ProfilePcr,
    SchematicFacts,
};

use crate::authenticode::Signature;
use crate::config::ConfigFile;
use crate::config::service_document;
use crate::pe::Arch;
use crate::trust::{Anchor, Firmware, Sbat};
use crate::uki::{Family, Host};
use crate::{Code, Error, Result};
use serde::Serialize;
use std::time::SystemTime;

/// The checks, in the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CheckId {
    /// The PE headers.
    Pe,
    /// The sections a UKI needs.
    Sections,
    /// The architecture asked for, and that of the installed UKI.
    Arch,
    /// The version asked for.
    Version,
    /// The image is what was signed.
    AuthenticodeDigest,
    /// Somebody trusted signed it.
    AuthenticodeSigner,
    /// dbx and SBAT level.
    Revocation,
    /// The signed PCR 11 policies.
    PcrSignature,
    /// The PCR key is that of the installed UKI.
    PcrKey,
    /// PCR 7 stays what it is: the signer is that of the installed UKI.
    Pcr7,
    /// The schematic.
    Schematic,
    /// The extensions required.
    Extensions,
    /// The initrd can be read to its end.
    Initrd,
    /// Flags that halt or wipe.
    Cmdline,
    /// What systemd's stub adds to the image from beside it.
    Addons,
    /// The node's configuration fits; only there where one was given.
    Config,
    /// The two copies of the UKI in an ISO are the same; only there where the image is an ISO.
    IsoCopies,
}

impl CheckId {
    /// As in the report: `authenticode-digest`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pe => "pe",
            Self::Sections => "sections",
            Self::Arch => "arch",
            Self::Version => "version",
            Self::AuthenticodeDigest => "authenticode-digest",
            Self::AuthenticodeSigner => "authenticode-signer",
            Self::Revocation => "revocation",
            Self::PcrSignature => "pcr-signature",
            Self::PcrKey => "pcr-key",
            Self::Pcr7 => "pcr7",
            Self::Schematic => "schematic",
            Self::Extensions => "extensions",
            Self::Initrd => "initrd",
            Self::Cmdline => "cmdline",
            Self::Addons => "addons",
            Self::Config => "config",
            Self::IsoCopies => "iso-copies",
        }
    }
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Pass,
    /// Acceptable, and worth knowing.
    Warn,
    /// Not acceptable.
    Fail,
    /// Not done; the detail says why.
    Skip,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// Which check.
    pub id: CheckId,
    /// How it went.
    pub status: CheckStatus,
    /// Sentences for people: what was found, and in a failure the way out.
    pub detail: String,
}

impl Check {
    fn new(id: CheckId, status: CheckStatus, detail: impl Into<String>) -> Self {
        Self { id, status, detail: detail.into() }
    }
}

/// The verdict over all checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No check failed.
    Accept,
    /// At least one check failed.
    Reject,
}

/// What the image is, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImageSummary {
    /// SHA-256 of the whole file as hexadecimal; `null` where nobody asked for it.
    pub sha256: Option<String>,
    /// Its length in bytes.
    pub bytes: u64,
    /// The architecture, if known.
    pub arch: Option<Arch>,
    /// The version, if known.
    pub version: Option<String>,
    /// The ID of the schematic, if it has one.
    pub schematic: Option<String>,
    /// The extensions in it.
    pub extensions: Vec<ExtensionFacts>,
    /// Names of extension services that wait for an ExtensionServiceConfig.
    pub waiting_services: Vec<String>,
    /// For each of them the document to start from.
    pub service_configs: Vec<String>,
    /// Names of all its extension services; `null` where not all could be read.
    pub services: Option<Vec<String>>,
    /// The release of systemd that its stub is from; `null` where it is another stub or does not say.
    pub stub: Option<u32>,
}

impl ImageSummary {
    /// The SHA-256 of the whole file, where it was read for that.
    pub(crate) fn taken_sha256(&self) -> Result<String> {
        self.sha256.clone().ok_or_else(|| Error::new(Code::Bug, "the SHA-256 of the image was not taken"))
    }

    /// What is known of an image.
    pub(crate) fn of(facts: &ImageFacts) -> Self {
        Self {
            sha256: facts.sha256.map(hex::encode),
            bytes: facts.bytes,
            arch: facts.arch,
            version: facts.version.clone(),
            schematic: facts.schematic.as_ref().map(|s| s.id.clone()),
            extensions: facts.extensions.clone(),
            waiting_services: facts.waiting_services.clone(),
            service_configs: facts.waiting_services.iter().map(|name| service_document(name)).collect(),
            services: facts.services.clone(),
            stub: facts.host.stub,
        }
    }
}

/// One signature of the image, as stated by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Signer {
    /// Subject of the signer's certificate.
    pub subject: String,
    /// Its issuer.
    pub issuer: String,
    /// Its serial number as hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate as hexadecimal.
    pub fingerprint: String,
    /// The end of its validity, RFC 3339. Firmware does not enforce it.
    pub not_after: String,
    /// Whether that has passed.
    pub expired: bool,
    /// Why it is trusted (where the anchor comes from), or null.
    pub trusted_by: Option<String>,
}

/// The outcome of `verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct Report {
    /// Over all checks.
    pub verdict: Verdict,
    /// Whose image it is.
    pub family: Family,
    /// What was verified.
    pub image: ImageSummary,
    /// The signatures on it.
    pub signers: Vec<Signer>,
    /// Why the board's firmware is certain to refuse the image: Secure Boot is on, and db or dbx is against it. Not
    /// softened by anything: whoever writes must not leave a board with nothing that starts.
    pub firmware_refuses: Option<String>,
    /// What is another than with the installed image.
    pub change: ImageChange,
    /// Extensions that the installed image has and this one lacks.
    pub extension_loss: Option<ExtensionLoss>,
    /// Every check, in the order of [`CheckId`].
    pub checks: Vec<Check>,
}

impl Report {
    /// The check of this id.
    #[must_use]
    pub fn check(&self, id: CheckId) -> Option<&Check> {
        self.checks.iter().find(|c| c.id == id)
    }
}

/// What is known of the UKI that is installed now.
#[derive(Debug, Clone, Default)]
pub struct InstalledFacts {
    /// Its `.pcrpkey`, if it has one.
    pub pcrpkey: Option<Vec<u8>>,
    /// Its architecture.
    pub arch: Option<Arch>,
    /// The command line of its profile 0, without what addons add to it.
    pub cmdline: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Whether it has a certificate table: it is an image for Secure Boot.
    pub signed: bool,
    /// Whether it has signed PCR policies that a TPM may go by.
    pub pcrsig: bool,
    /// Its signatures, as far as they could be read.
    pub signatures: Vec<Signature>,
    /// What its stub is, as far as that decides which addons it takes.
    pub host: Host,
    /// What lies beside it for the stub to add.
    pub companions: Vec<CompanionFacts>,
    /// What its initrd holds, where that was read.
    pub contents: Option<ImageExtensions>,
}

/// What is expected of an image.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Who is trusted, in order of preference ([`crate::trust::AnchorOrigin`]).
    pub anchors: Vec<Anchor>,
    /// What the firmware's variables say.
    pub firmware: Firmware,
    /// Why there are no EFI variables, if there are none.
    pub no_variables: Option<String>,
    /// Whether these variables are those of the board that will boot the image. An image prepared on a workstation
    /// must not fail because that workstation's firmware would refuse it.
    pub firmware_is_the_boards: bool,
    /// An SBAT level from a file; the firmware's is used without one.
    pub sbat_level: Option<Sbat>,
    /// The ID of the schematic asked for.
    pub schematic: Option<String>,
    /// The version asked for, with or without `v`.
    pub version: Option<String>,
    /// The architecture asked for.
    pub arch: Option<Arch>,
    /// Names of extensions that must be there, with or without `siderolabs/`.
    pub required_extensions: Vec<String>,
    /// Signature problems are warnings.
    pub allow_untrusted: bool,
    /// The UKI that is installed now, if there is one.
    pub installed: Option<InstalledFacts>,
    /// Another PCR key than the installed one, or another signer, is a failure.
    pub require_pcr_key: bool,
    /// The halt flag is a failure (`swap` without `--allow-halt-if-installed`).
    pub refuse_halt: bool,
    /// The image was there before and goes back: what lies beside it is not worse than it was, and stands in nobody's
    /// way.
    pub way_back: bool,
    /// The ID of the image's schematic with `-talos.halt_if_installed` added, if it could be computed.
    pub schematic_without_halt: Option<String>,
    /// The node's configuration, if it was given.
    pub machine_config: Vec<ConfigFile>,
    /// The time that expiry is told by.
    pub now: SystemTime,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            anchors: Vec::new(),
            firmware: Firmware::default(),
            no_variables: None,
            firmware_is_the_boards: false,
            sbat_level: None,
            schematic: None,
            version: None,
            arch: None,
            required_extensions: Vec::new(),
            allow_untrusted: false,
            installed: None,
            require_pcr_key: false,
            refuse_halt: false,
            way_back: false,
            schematic_without_halt: None,
            machine_config: Vec::new(),
            now: SystemTime::now(),
        }
    }
}

/// Applies the policy. Every check is in the report, also those that could not be done.
pub fn verify(facts: &ImageFacts, policy: &Policy) -> Report {
    let signed = signature::Signed::new(facts, policy);
    let added = addons::judge(facts, policy);
    let loss = ExtensionLoss::of(facts, policy);
    let mut checks = vec![
        checks::pe(facts),
        checks::sections(facts),
        checks::arch(facts, policy),
        checks::version(facts, policy),
        signed.digest(),
        signed.signer(),
        signed.revocation(),
        checks::pcr_signature(facts, policy),
        checks::pcr_key(facts, policy),
        signed.pcr7(),
        checks::schematic(facts, policy),
        checks::extensions(facts, policy, loss.as_ref()),
        checks::initrd(facts),
        checks::cmdline(facts, policy, &added),
        added.check,
    ];
    checks.extend(config::machine_config(facts, policy));
    let failed = checks.iter().any(|c| c.status == CheckStatus::Fail);
    Report {
        verdict: if failed { Verdict::Reject } else { Verdict::Accept },
        family: facts.family,
        image: ImageSummary::of(facts),
        signers: signed.signers(),
        firmware_refuses: signed.firmware_refuses(),
        change: ImageChange::of(facts, policy),
        extension_loss: loss,
        checks,
    }
}

#[cfg(test)]
mod tests;
