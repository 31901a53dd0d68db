//! What can be typed. Names and meaning are a contract that scripts rely on; new options may come, these stay.

use crate::pe::Arch;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// Surgery on UEFI boot images: swap a Talos Linux UKI on the EFI System Partition, without mounting it, safe against
/// power cuts
#[derive(Debug, Parser)]
#[command(name = "bootsurgeon", version, propagate_version = true, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(super) struct Global {
    /// Print one JSON document on stdout and nothing else there
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// No progress bars, and in a log no line every ten seconds about how far it has come
    #[arg(long, global = true)]
    pub(super) no_progress: bool,
    /// When to use colours (NO_COLOR is respected)
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(super) color: Color,
    /// Verbose output
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// Print errors only, and the document of --json
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Work with Image Factory schematics
    #[command(subcommand)]
    Schematic(super::schematic::SchematicCommand),
    /// Download an ISO or a UKI from the factory, resumably
    Fetch(FetchArgs),
    /// Take the UKI alone out of an image, byte for byte
    Extract(ExtractArgs),
    /// Say what something is and what is in it
    Inspect(InspectArgs),
    /// Check an image: signature, identity, what it would do to an installed node
    Verify(VerifyArgs),
    /// Compare two images
    Diff(DiffArgs),
    /// Check the configuration of nodes
    #[command(subcommand)]
    Config(super::config::ConfigCommand),
    /// Show the ESP: files, space, health, the boot menu, what boots and why
    Status(StatusArgs),
    /// Say what is wrong with the firmware, its variables and the ESPs, what it means, and what to do
    Doctor(DoctorArgs),
    /// Put an image in the place of the one that boots, safely
    Swap(Box<SwapArgs>),
    /// Take duplicates and stale versions out of the boot menu
    Prune(PruneArgs),
    /// Put a backup back in place
    Restore(RestoreArgs),
    /// Put another systemd-boot in the place of the one that starts, safely
    Loader(Box<LoaderArgs>),
    /// Choose the entry of the boot menu that starts, in loader.conf: no EFI variable is needed
    Pin(PinArgs),
    /// Finish or undo what was interrupted
    Recover(RecoverArgs),
    /// On several nodes, one after the other: swap, restart, validate, up to the first that is not as it should be
    Rollout(Box<super::pod::rollout::RolloutArgs>),
    /// Print Kubernetes manifests that run bootsurgeon on nodes
    #[command(subcommand)]
    Pod(super::pod::PodCommand),
    /// Show the main job on a disk, an ISO and a factory made on the spot: no root, no network
    #[cfg(feature = "demo")]
    Demo {
        /// Do it in this folder, which must be new or empty, and leave everything there
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
        /// Show this scene alone: its number or its name; those before it are played without a word
        #[arg(long, value_name = "N|NAME", value_parser = crate::demo::scene)]
        scene: Option<usize>,
    },
    /// Print a completion script for a shell
    ///
    /// In bash, zsh and fish it offers disks, ESPs, backups and images, too. For these the script asks this program,
    /// which then only reads.
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    Man {
        /// The directory; it must exist
        dir: PathBuf,
        /// Replace pages that exist
        #[arg(long)]
        force: bool,
    },
}

/// The environment variable that names the factory.
pub(super) const FACTORY: &str = "BOOTSURGEON_FACTORY";

/// How to reach the factory.
#[derive(Debug, Clone, Args)]
pub(super) struct FactoryArgs {
    /// Base URL of the Image Factory
    #[arg(
        long = "factory",
        value_name = "URL",
        default_value = "https://factory.talos.dev",
        env = FACTORY
    )]
    pub(super) url: String,
    #[command(flatten)]
    pub(super) network: NetworkArgs,
}

/// How to talk to a server. Proxies come from the usual variables (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY).
#[derive(Debug, Clone, Default, Args)]
pub(super) struct NetworkArgs {
    /// Trust the certificates in this PEM file for TLS, instead of the built-in roots
    #[arg(long, value_name = "FILE", env = "BOOTSURGEON_CA")]
    pub(super) ca: Option<PathBuf>,
    /// Credentials for the server in a file of one line, user:password or a token
    /// [else: BOOTSURGEON_FACTORY_TOKEN, or BOOTSURGEON_FACTORY_USER and _PASSWORD]
    #[arg(long, value_name = "FILE")]
    pub(super) auth_file: Option<PathBuf>,
    /// Give a download up after this many seconds, retries included [default: never, while bytes arrive]
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<u64>,
    /// When a server fails or is not there, try again for this long [default: 60; 5 where none has answered yet]
    #[arg(long, value_name = "SECONDS")]
    pub(super) retry_for: Option<u64>,
}

/// Where downloads are kept.
#[derive(Debug, Clone, Args)]
pub(super) struct CacheArgs {
    /// Keep what is fetched in this directory, and take it from there the next time
    #[arg(long, value_name = "DIR", env = "BOOTSURGEON_CACHE")]
    pub(super) cache: Option<PathBuf>,
    /// Take it from the cache and ask no network
    #[arg(long, requires = "cache")]
    pub(super) offline: bool,
}

/// Architectures by the names that Talos has for them, and by others. A shell offers the first.
fn arch() -> impl TypedValueParser<Value = Arch> {
    let names = [(Arch::Arm64, ["aarch64"].as_slice()), (Arch::Amd64, &["x86_64", "x64"])];
    let values = names.map(|(arch, aliases)| PossibleValue::new(arch.name()).aliases(aliases));
    PossibleValuesParser::new(values).try_map(|name| name.parse::<Arch>())
}

/// Which image of the factory.
#[derive(Debug, Clone, Args)]
pub(super) struct FetchArgs {
    /// Schematic: its ID, or a YAML file
    #[arg(long, value_name = "ID|FILE")]
    pub(super) schematic: String,
    /// Talos version, for example v1.12.4
    #[arg(long, value_name = "VERSION")]
    pub(super) talos: String,
    /// Architecture
    #[arg(long, value_name = "arm64|amd64", value_parser = arch(), hide_possible_values = true)]
    pub(super) arch: Arch,
    /// The ISO, the UKI alone, or the installer's image
    #[arg(long, value_enum, default_value_t = AssetKind::Iso)]
    pub(super) kind: AssetKind,
    /// Of the signed image for Secure Boot, or of the plain one
    #[arg(long, value_enum, default_value_t = FetchAsset::Secureboot)]
    pub(super) asset: FetchAsset,
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) factory: FactoryArgs,
}

/// What the factory is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AssetKind {
    /// metal-<arch>-secureboot.iso, or metal-<arch>.iso
    Iso,
    /// metal-<arch>-secureboot-uki.efi, or metal-<arch>-uki.efi
    Uki,
    /// installer-<arch>-secureboot.tar, or installer-<arch>.tar: an OCI image that holds the UKI
    Installer,
}

/// Which of the factory's images is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FetchAsset {
    /// The signed one for Secure Boot
    Secureboot,
    /// The one that is not signed
    Plain,
}

/// Which of the factory's images a swap asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SwapAsset {
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
pub(super) struct ImageArgs {
    /// A UKI, an ISO, a raw disk image or a FAT image, plain or packed with zstd or xz, as a file or an http(s) URL; or
    /// an OCI image as a folder or tar file (skopeo, docker save), with @sha256:DIGEST behind it if it has to be that
    /// one; or a pipe, - for standard input
    pub(super) image: String,
    /// Which UKI, when there are several
    #[arg(long, value_name = "NAME")]
    pub(super) uki: Option<String>,
    #[command(flatten)]
    pub(super) arrival: super::stream::ArrivalArgs,
    #[command(flatten)]
    pub(super) network: NetworkArgs,
}

/// `extract`
#[derive(Debug, Args)]
pub(super) struct ExtractArgs {
    #[command(flatten)]
    pub(super) image: ImageArgs,
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub(super) force: bool,
}

/// `inspect`
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// A UKI, an ISO, a disk or FAT image (plain or packed with zstd or xz) or device, as a path, an http(s) URL, or a
    /// pipe (- for standard input)
    pub(super) path: String,
    /// Which UKI, when there are several
    #[arg(long, value_name = "NAME")]
    pub(super) uki: Option<String>,
    #[command(flatten)]
    pub(super) arrival: super::stream::ArrivalArgs,
    #[command(flatten)]
    pub(super) network: NetworkArgs,
}

/// What an image must be to be believed.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct TrustArgs {
    /// Trusted signer, PEM or DER (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(super) cert: Vec<PathBuf>,
    /// Directory or file with EFI variables, "esp" for the file in which the firmware keeps them on the ESP, or "none"
    /// [default: this machine's, for a disk in this machine; for an image the file on its ESP, if there is one]
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) efivars: Option<PathBuf>,
    /// The schematic it must be built from: ID or YAML file
    #[arg(long, value_name = "ID|FILE")]
    pub(super) schematic: Option<String>,
    /// The Talos version it must be
    #[arg(long, value_name = "VERSION")]
    pub(super) talos: Option<String>,
    /// The architecture it must be for
    #[arg(long, value_name = "arm64|amd64", value_parser = arch(), hide_possible_values = true)]
    pub(super) arch: Option<Arch>,
    /// A system extension it must hold (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(super) require_extension: Vec<String>,
    /// Signature problems become warnings
    #[arg(long)]
    pub(super) allow_untrusted: bool,
    /// Configuration that the node will have: does it fit the image? What does not is a warning (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(super) machine_config: Vec<PathBuf>,
}

/// `verify`
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pub(super) image: ImageArgs,
    #[command(flatten)]
    pub(super) trust: TrustArgs,
    /// Compare with the UKI installed on this disk (continuity of signer and PCR key)
    #[arg(long, value_name = "DISK")]
    pub(super) installed: Option<PathBuf>,
    /// Fail unless the PCR key is the installed UKI's
    #[arg(long)]
    pub(super) require_pcr_key: bool,
    /// SBAT revocation level, instead of SbatLevelRT
    #[arg(long, value_name = "FILE")]
    pub(super) sbat_level: Option<PathBuf>,
}

/// `diff`
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// Old image
    pub(super) old: String,
    /// New image
    pub(super) new: String,
    #[command(flatten)]
    pub(super) network: NetworkArgs,
}

/// A disk and which ESP of it.
#[derive(Debug, Clone, Args)]
pub(super) struct DiskArgs {
    /// A disk, a partition, a raw disk image or a FAT image; an image may be packed with zstd or xz
    pub(super) disk: PathBuf,
    /// Which EFI System Partition, when there are several
    #[arg(long, value_name = "N|LABEL|PARTUUID")]
    pub(super) partition: Option<String>,
}

/// The disk, or all members of a mirror, of a command that writes.
#[derive(Debug, Args)]
pub(super) struct WrittenDiskArgs {
    /// A disk, a partition, a raw disk image or a FAT image; an image may be packed with zstd or xz
    #[arg(required_unless_present = "all_members")]
    pub(super) disk: Option<OsString>,
    /// Which EFI System Partition, when there are several
    #[arg(long, value_name = "N|LABEL|PARTUUID")]
    pub(super) partition: Option<String>,
    /// In place of DISK: all members of an md RAID1 that is not assembled, separated by commas. Each is written
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(super) all_members: Vec<PathBuf>,
}

/// `status`
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) disk: DiskArgs,
    /// Directory or file with EFI variables, "esp" for the file in which the firmware keeps them on the ESP, or "none"
    /// [default: this machine's, for a disk in this machine; for an image the file on its ESP, if there is one]
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) efivars: Option<PathBuf>,
    /// Read the headers of the images and not all of them: no hashes, schematics, extensions. For slow media
    #[arg(long)]
    pub(super) no_hashes: bool,
    /// Draw space, menu and way of the boot as a picture, too: an SVG file for a ticket or a wiki page
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
    /// Replace the SVG file if it exists
    #[arg(long, requires = "svg")]
    pub(super) force: bool,
}

/// `doctor`
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Disks, partitions, disk images or FAT images [default: every disk of this machine]
    #[arg(value_name = "DISK")]
    pub(super) disks: Vec<PathBuf>,
    /// Look at this EFI System Partition only
    #[arg(long, value_name = "N|LABEL|PARTUUID", requires = "disks")]
    pub(super) partition: Option<String>,
    /// Directory or file with EFI variables, "esp" for the file in which the firmware keeps them on the ESP, or "none"
    /// [default: this machine's, for a disk in this machine; for an image the file on its ESP, if there is one]
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) efivars: Option<PathBuf>,
    /// Where the machine's /proc, /sys and /dev are; /host in a debug container that has the node's tree there
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(super) root: PathBuf,
    /// End with 4 when there is a problem, else with 1 when a disk could not be read [default: 0 once there is a
    /// report]
    #[arg(long)]
    pub(super) exit_code: bool,
    /// Explain this line of text from talosctl, the kernel or the console
    #[arg(long, value_name = "TEXT")]
    pub(super) error: Option<String>,
}

/// Of commands that change something.
#[derive(Debug, Clone, Args)]
pub(super) struct ChangeArgs {
    /// Print the plan and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Leave the disk image as it is and write a changed copy: raw, or packed for a name in .zst or .xz
    #[arg(long, value_name = "FILE", group = "written")]
    pub(super) out: Option<PathBuf>,
    /// Replace the file that is written beside the disk if it exists
    #[arg(long, requires = "written")]
    pub(super) force: bool,
}

/// Where the disk is at home.
#[derive(Debug, Clone, Args)]
pub(super) struct NodeArgs {
    /// The node's name or address, for the commands that are said to come next
    #[arg(long, value_name = "NAME", env = crate::pod::rollout::NODE, value_parser = node)]
    pub(super) node: Option<String>,
}

impl NodeArgs {
    /// What `talosctl -n` is given: in a pod on the node itself its address, which needs nobody who knows the name.
    pub(super) fn for_talosctl(self) -> Option<String> {
        self.node.map(|name| crate::container::address_of(&name).unwrap_or(name))
    }
}

/// A name that needs no quotes in a shell: a host name or an IP address.
fn node(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:%".contains(c);
    if !name.is_empty() && name.len() <= 253 && name.chars().all(plain) && !name.starts_with('-') {
        return Ok(name.to_owned());
    }
    Err("a host name or an IP address is wanted".into())
}

/// `swap`
#[derive(Debug, Args)]
pub(super) struct SwapArgs {
    #[command(flatten)]
    pub(super) disk: WrittenDiskArgs,
    /// The new image: a UKI, an ISO, a disk or FAT image, plain or packed with zstd or xz, as a file or an http(s) URL;
    /// or an OCI installer image as a folder or tar file (skopeo, docker save), with @sha256:DIGEST behind it if it has
    /// to be that one; or a pipe, - for standard input
    #[arg(required_unless_present_any = ["schematic", "all_members"])]
    pub(super) image: Option<String>,
    /// Which UKI, when the image holds several
    #[arg(long, value_name = "NAME")]
    pub(super) uki: Option<String>,
    #[command(flatten)]
    pub(super) arrival: super::stream::ArrivalArgs,
    #[command(flatten)]
    pub(super) trust: TrustArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    /// File name in EFI/Linux that gets the image, or the path of the file that the board starts
    #[arg(long, value_name = "NAME")]
    pub(super) target: Option<String>,
    /// Leave duplicates in the boot menu
    #[arg(long)]
    pub(super) keep_duplicates: bool,
    /// Delete older backups beyond this many
    #[arg(long, value_name = "N")]
    pub(super) keep_backups: Option<usize>,
    /// Copy the old image off the ESP too
    #[arg(long, value_name = "FILE", group = "written")]
    pub(super) backup_to: Option<PathBuf>,
    /// Fail unless the PCR key is the installed UKI's
    #[arg(long)]
    pub(super) require_pcr_key: bool,
    /// Accept an image that halts on installed nodes (an ISO's)
    #[arg(long)]
    pub(super) allow_halt_if_installed: bool,
    /// Accept an image without system extensions that the installed one has
    #[arg(long)]
    pub(super) allow_extension_loss: bool,
    /// Do not read the installed image to compare its system extensions with the new one's: on a slow medium that takes
    /// as long as reading the new one back
    #[arg(long)]
    pub(super) no_extension_check: bool,
    /// Change the board's own files, too, as one set with the image: device trees, overlays, firmware, as IMAGE (a disk
    /// image or an ISO) has them; with a pattern those alone whose path fits
    #[arg(long, value_name = "GLOB", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    pub(super) with_board_files: Option<String>,
    /// Of the board's files: take the new one of PATH, although it would stay because it holds settings or was changed
    #[arg(long, value_name = "PATH", requires = "with_board_files")]
    pub(super) overwrite: Vec<String>,
    /// Change files one after the other that have to fit each other: a power cut between two may keep the board from
    /// starting until `recover` has run
    #[arg(long, requires = "with_board_files")]
    pub(super) accept_mixture: bool,
    /// The image that the board was installed from: its files that somebody has changed since then stay
    #[arg(long, value_name = "IMAGE", requires = "with_board_files")]
    pub(super) installed_from: Option<String>,
    /// With --schematic: which asset to ask the factory for
    #[arg(long, value_enum, default_value_t = Via::Auto)]
    pub(super) via: Via,
    /// With --schematic: of which image
    #[arg(long, value_enum, default_value_t = SwapAsset::Auto)]
    pub(super) asset: SwapAsset,
    #[command(flatten)]
    pub(super) cache: CacheArgs,
    #[command(flatten)]
    pub(super) factory: FactoryArgs,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

/// Which asset a swap asks the factory for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Via {
    /// The UKI; the ISO where the factory has no UKI
    Auto,
    /// metal-<arch>-secureboot-uki.efi, or metal-<arch>-uki.efi
    Uki,
    /// metal-<arch>-secureboot.iso, or metal-<arch>.iso
    Iso,
    /// installer-<arch>-secureboot.tar, or installer-<arch>.tar, which needs --cache
    Installer,
}

/// `prune`
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    #[command(flatten)]
    pub(super) disk: WrittenDiskArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    /// Delete instead of renaming, and delete what was disabled before
    #[arg(long)]
    pub(super) delete: bool,
    /// Keep this many backups and delete the older ones
    #[arg(long, value_name = "N")]
    pub(super) keep_backups: Option<usize>,
    /// Take the only fallback out of the menu too
    #[arg(long)]
    pub(super) no_fallback: bool,
    /// Directory or file with EFI variables, "esp" for the file in which the firmware keeps them on the ESP, or "none"
    /// [default: this machine's, for a disk in this machine; for an image the file on its ESP, if there is one]
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) efivars: Option<PathBuf>,
}

/// `restore`
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    pub(super) disk: WrittenDiskArgs,
    /// The backup, or an image that was disabled; if none is named, the image that was started last, else the newest
    /// backup
    pub(super) backup: Option<String>,
    /// List what can be restored (version, schematic, extensions, time) and do nothing
    #[arg(long, conflicts_with = "out")]
    pub(super) list: bool,
    /// The board's own files that were replaced together with the image go back with it; what was added then stays
    #[arg(long)]
    pub(super) with_board_files: bool,
    /// Change files one after the other that have to fit each other: a power cut between two may keep the board from
    /// starting until `recover` has run
    #[arg(long, requires = "with_board_files")]
    pub(super) accept_mixture: bool,
    #[command(flatten)]
    pub(super) trust: TrustArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

/// `loader`
#[derive(Debug, Args)]
pub(super) struct LoaderArgs {
    #[command(flatten)]
    pub(super) disk: WrittenDiskArgs,
    /// What holds the new one: systemd-boot itself (.efi), an ISO, a disk or FAT image, plain or packed with zstd or xz,
    /// as a file or an http(s) URL
    #[arg(required_unless_present_any = ["schematic", "all_members"])]
    pub(super) image: Option<String>,
    /// Trusted signer, PEM or DER (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(super) cert: Vec<PathBuf>,
    /// Directory or file with EFI variables, "esp" for the file in which the firmware keeps them on the ESP, or "none"
    /// [default: this machine's, for a disk in this machine; for an image the file on its ESP, if there is one]
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) efivars: Option<PathBuf>,
    /// In place of IMAGE: the factory's ISO of this schematic, an ID or a YAML file
    #[arg(long, value_name = "ID|FILE", requires = "talos", conflicts_with = "image")]
    pub(super) schematic: Option<String>,
    /// With --schematic: of this Talos version
    #[arg(long, value_name = "VERSION")]
    pub(super) talos: Option<String>,
    /// The architecture of the board, where the ESP does not tell it
    #[arg(long, value_name = "arm64|amd64", value_parser = arch(), hide_possible_values = true)]
    pub(super) arch: Option<Arch>,
    /// Signature problems become warnings
    #[arg(long)]
    pub(super) allow_untrusted: bool,
    /// Accept an older systemd-boot than the installed one
    #[arg(long)]
    pub(super) allow_downgrade: bool,
    /// Delete older backups of systemd-boot beyond this many
    #[arg(long, value_name = "N")]
    pub(super) keep_backups: Option<usize>,
    /// With --schematic: of which image
    #[arg(long, value_enum, default_value_t = SwapAsset::Auto)]
    pub(super) asset: SwapAsset,
    #[command(flatten)]
    pub(super) cache: CacheArgs,
    #[command(flatten)]
    pub(super) factory: FactoryArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

/// `pin`
#[derive(Debug, Args)]
pub(super) struct PinArgs {
    #[command(flatten)]
    pub(super) disk: WrittenDiskArgs,
    /// The entry: its id or its file, as `status` shows them, or a pattern for ids (*, ?, [a-z])
    #[arg(required_unless_present_any = ["clear", "all_members"])]
    pub(super) entry: Option<String>,
    /// Take the line out of loader.conf: the menu's order decides again
    #[arg(long)]
    pub(super) clear: bool,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    /// Directory or file with EFI variables, "esp" for the file in which the firmware keeps them on the ESP, or "none"
    /// [default: this machine's, for a disk in this machine; for an image the file on its ESP, if there is one]
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) efivars: Option<PathBuf>,
}

/// `recover`
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    #[command(flatten)]
    pub(super) disk: WrittenDiskArgs,
    /// Give lost chains of clusters a name back: images in EFI/Linux (never in the boot menu), others as FSCK0000.REC
    #[arg(long, conflicts_with = "free_lost")]
    pub(super) salvage: bool,
    /// Free lost chains of clusters; what was in them is gone then
    #[arg(long)]
    pub(super) free_lost: bool,
    /// Rename what has the name of this program's record and is none
    #[arg(long)]
    pub(super) set_aside: bool,
    /// Carry the interrupted operation to its end, also where it was cut before its commit
    #[arg(long, conflicts_with = "back")]
    pub(super) forward: bool,
    /// Take the interrupted operation back, also where it was cut behind its commit
    #[arg(long)]
    pub(super) back: bool,
    /// With --all-members: the one that the others are made equal to [default: what is found on them decides]
    #[arg(long, value_name = "MEMBER", requires = "all_members")]
    pub(super) truth: Option<PathBuf>,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}
