//! The options of commands that take an image: where it comes from, and what it is held against.

use super::VariablesArgs;
use crate::pe::Arch;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// The environment variable that names the factory.
pub(in crate::cli) const FACTORY: &str = "BOOTSURGEON_FACTORY";

/// How to reach the factory.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct FactoryArgs {
    /// Base URL of the Image Factory
    #[arg(
        long = "factory",
        value_name = "URL",
        default_value = "https://factory.talos.dev",
        env = FACTORY
    )]
    pub(in crate::cli) url: String,
    #[command(flatten)]
    pub(in crate::cli) network: NetworkArgs,
}

/// How to talk to a server. Proxies come from the usual variables (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY).
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct NetworkArgs {
    /// Trust the certificates in this PEM file for TLS, instead of the built-in roots
    #[arg(long, value_name = "FILE", env = "BOOTSURGEON_CA")]
    pub(in crate::cli) ca: Option<PathBuf>,
    /// Credentials for the server in a file of one line, user:password or a token
    /// [else: BOOTSURGEON_FACTORY_TOKEN, or BOOTSURGEON_FACTORY_USER and _PASSWORD]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) auth_file: Option<PathBuf>,
    /// Give a download up after this many seconds, retries included [default: never, while bytes arrive]
    #[arg(long, value_name = "SECONDS")]
    pub(in crate::cli) timeout: Option<u64>,
    /// When a server fails or is not there, try again for this long [default: 60; 5 where none has answered yet]
    #[arg(long, value_name = "SECONDS")]
    pub(in crate::cli) retry_for: Option<u64>,
}

/// Where downloads are kept.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct CacheArgs {
    /// Keep what is fetched in this directory, and take it from there the next time
    #[arg(long, value_name = "DIR", env = "BOOTSURGEON_CACHE")]
    pub(in crate::cli) cache: Option<PathBuf>,
    /// Take it from the cache and ask no network
    #[arg(long, requires = "cache")]
    pub(in crate::cli) offline: bool,
}

/// Architectures by the names that Talos has for them, and by others. A shell offers the first.
pub(super) fn arch() -> impl TypedValueParser<Value = Arch> {
    let names = [(Arch::Arm64, ["aarch64"].as_slice()), (Arch::Amd64, &["x86_64", "x64"])];
    let values = names.map(|(arch, aliases)| PossibleValue::new(arch.name()).aliases(aliases));
    PossibleValuesParser::new(values).try_map(|name| name.parse::<Arch>())
}

/// Which image of the factory.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct FetchArgs {
    /// Schematic: its ID, or a YAML file
    #[arg(long, value_name = "ID|FILE")]
    pub(in crate::cli) schematic: String,
    /// Talos version, for example v1.12.4
    #[arg(long, value_name = "VERSION")]
    pub(in crate::cli) talos: String,
    /// Architecture
    #[arg(long, value_name = "arm64|amd64", value_parser = arch(), hide_possible_values = true)]
    pub(in crate::cli) arch: Arch,
    /// The ISO, the UKI alone, or the installer's image
    #[arg(long, value_enum, default_value_t = AssetKind::Iso)]
    pub(in crate::cli) kind: AssetKind,
    /// Of the signed image for Secure Boot, or of the plain one
    #[arg(long, value_enum, default_value_t = FetchAsset::Secureboot)]
    pub(in crate::cli) asset: FetchAsset,
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) out: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub(in crate::cli) force: bool,
    #[command(flatten)]
    pub(in crate::cli) factory: FactoryArgs,
}

/// What the factory is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum AssetKind {
    /// metal-<arch>-secureboot.iso, or metal-<arch>.iso
    Iso,
    /// metal-<arch>-secureboot-uki.efi, or metal-<arch>-uki.efi
    Uki,
    /// installer-<arch>-secureboot.tar, or installer-<arch>.tar: an OCI image that holds the UKI
    Installer,
}

/// Which of the factory's images is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FetchAsset {
    /// The signed one for Secure Boot
    Secureboot,
    /// The one that is not signed
    Plain,
}

/// Which of the factory's images a swap asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum SwapAsset {
    /// As the board is: with Secure Boot on, or a signed image installed, the signed one; else the plain one, if
    /// --allow-untrusted is given
    Auto,
    /// The signed one for Secure Boot
    Secureboot,
    /// The one that is not signed: --allow-untrusted is needed, and Secure Boot must be off
    Plain,
}

/// An image and which UKI of it.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ImageArgs {
    /// A UKI, an ISO, a raw disk image or a FAT image, plain or packed with zstd or xz, as a file or an http(s) URL; or
    /// an OCI image as a folder or tar file (skopeo, docker save), with @sha256:DIGEST behind it if it has to be that
    /// one; or a pipe, - for standard input
    pub(in crate::cli) image: String,
    /// Which UKI, when there are several
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) uki: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) arrival: crate::cli::stream::ArrivalArgs,
    #[command(flatten)]
    pub(in crate::cli) network: NetworkArgs,
}

/// `extract`
#[derive(Debug, Args)]
pub(in crate::cli) struct ExtractArgs {
    #[command(flatten)]
    pub(in crate::cli) image: ImageArgs,
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) out: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

/// `inspect`
#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    /// A UKI, an ISO, a disk or FAT image (plain or packed with zstd or xz) or device, as a path, an http(s) URL, or a
    /// pipe (- for standard input)
    pub(in crate::cli) path: String,
    /// Which UKI, when there are several
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) uki: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) arrival: crate::cli::stream::ArrivalArgs,
    #[command(flatten)]
    pub(in crate::cli) network: NetworkArgs,
}

/// What an image must be to be believed.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct TrustArgs {
    /// Trusted signer, PEM or DER (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) cert: Vec<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) variables: VariablesArgs,
    /// The schematic it must be built from: ID or YAML file
    #[arg(long, value_name = "ID|FILE")]
    pub(in crate::cli) schematic: Option<String>,
    /// The Talos version it must be
    #[arg(long, value_name = "VERSION")]
    pub(in crate::cli) talos: Option<String>,
    /// The architecture it must be for
    #[arg(long, value_name = "arm64|amd64", value_parser = arch(), hide_possible_values = true)]
    pub(in crate::cli) arch: Option<Arch>,
    /// A system extension it must hold (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) require_extension: Vec<String>,
    /// Signature problems become warnings
    #[arg(long)]
    pub(in crate::cli) allow_untrusted: bool,
    /// Configuration that the node will have: does it fit the image? What does not is a warning (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) machine_config: Vec<PathBuf>,
}

/// `verify`
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    pub(in crate::cli) image: ImageArgs,
    #[command(flatten)]
    pub(in crate::cli) trust: TrustArgs,
    /// Compare with the UKI installed on this disk (continuity of signer and PCR key)
    #[arg(long, value_name = "DISK")]
    pub(in crate::cli) installed: Option<PathBuf>,
    /// Fail unless the PCR key is the installed UKI's
    #[arg(long)]
    pub(in crate::cli) require_pcr_key: bool,
    /// SBAT revocation level, instead of SbatLevelRT
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) sbat_level: Option<PathBuf>,
}

/// `diff`
#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// Old image
    pub(in crate::cli) old: String,
    /// New image
    pub(in crate::cli) new: String,
    #[command(flatten)]
    pub(in crate::cli) network: NetworkArgs,
}
