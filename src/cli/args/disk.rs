//! The options of commands that take a disk: which ESP, what is changed there, and what is accepted for that.

use super::image::arch;
use super::{CacheArgs, FactoryArgs, SwapAsset, TrustArgs, VariablesArgs};
use crate::pe::Arch;
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// A disk and which ESP of it.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct DiskArgs {
    /// A disk, a partition, a raw disk image or a FAT image; an image may be packed with zstd or xz
    pub(in crate::cli) disk: PathBuf,
    /// Which EFI System Partition, when there are several
    #[arg(long, value_name = "N|LABEL|PARTUUID")]
    pub(in crate::cli) partition: Option<String>,
}

/// The disk, or all members of a mirror, of a command that writes.
#[derive(Debug, Args)]
pub(in crate::cli) struct WrittenDiskArgs {
    /// A disk, a partition, a raw disk image or a FAT image; an image may be packed with zstd or xz
    #[arg(required_unless_present = "all_members")]
    pub(in crate::cli) disk: Option<OsString>,
    /// Which EFI System Partition, when there are several
    #[arg(long, value_name = "N|LABEL|PARTUUID")]
    pub(in crate::cli) partition: Option<String>,
    /// In place of DISK: all members of an md RAID1 that is not assembled, separated by commas. Each is written
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(in crate::cli) all_members: Vec<PathBuf>,
}

/// `status`
#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    #[command(flatten)]
    pub(in crate::cli) disk: DiskArgs,
    #[command(flatten)]
    pub(in crate::cli) variables: VariablesArgs,
    /// Read the headers of the images and not all of them: no hashes, schematics, extensions. For slow media
    #[arg(long)]
    pub(in crate::cli) no_hashes: bool,
    /// Draw space, menu and way of the boot as a picture, too: an SVG file for a ticket or a wiki page
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) svg: Option<PathBuf>,
    /// Replace the SVG file if it exists
    #[arg(long, requires = "svg")]
    pub(in crate::cli) force: bool,
}

/// `doctor`
#[derive(Debug, Args)]
pub(in crate::cli) struct DoctorArgs {
    /// Disks, partitions, disk images or FAT images [default: every disk of this machine]
    #[arg(value_name = "DISK")]
    pub(in crate::cli) disks: Vec<PathBuf>,
    /// Look at this EFI System Partition only
    #[arg(long, value_name = "N|LABEL|PARTUUID", requires = "disks")]
    pub(in crate::cli) partition: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) variables: VariablesArgs,
    /// Where the machine's /proc, /sys and /dev are; /host in a debug container that has the node's tree there
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(in crate::cli) root: PathBuf,
    /// End with 4 when there is a problem, else with 1 when a disk could not be read [default: 0 once there is a
    /// report]
    #[arg(long)]
    pub(in crate::cli) exit_code: bool,
    /// Explain this line of text from talosctl, the kernel or the console
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) error: Option<String>,
}

/// Of commands that change something.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ChangeArgs {
    /// Print the plan and write nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(in crate::cli) yes: bool,
    /// Leave the disk image as it is and write a changed copy: raw, or packed for a name in .zst or .xz
    #[arg(long, value_name = "FILE", group = "written")]
    pub(in crate::cli) out: Option<PathBuf>,
    /// Replace the file that is written beside the disk if it exists
    #[arg(long, requires = "written")]
    pub(in crate::cli) force: bool,
}

/// Where the disk is at home.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct NodeArgs {
    /// The node's name or address, for the commands that are said to come next
    #[arg(long, value_name = "NAME", env = crate::pod::rollout::NODE, value_parser = node)]
    pub(in crate::cli) node: Option<String>,
}

impl NodeArgs {
    /// What `talosctl -n` is given: in a pod on the node itself its address, which needs nobody who knows the name.
    pub(in crate::cli) fn for_talosctl(self) -> Option<String> {
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
pub(in crate::cli) struct SwapArgs {
    #[command(flatten)]
    pub(in crate::cli) disk: WrittenDiskArgs,
    /// The new image: a UKI, an ISO, a disk or FAT image, plain or packed with zstd or xz, as a file or an http(s) URL;
    /// or an OCI installer image as a folder or tar file (skopeo, docker save), with @sha256:DIGEST behind it if it has
    /// to be that one; or a pipe, - for standard input
    #[arg(required_unless_present_any = ["schematic", "all_members"])]
    pub(in crate::cli) image: Option<String>,
    /// Which UKI, when the image holds several
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) uki: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) arrival: crate::cli::stream::ArrivalArgs,
    #[command(flatten)]
    pub(in crate::cli) trust: TrustArgs,
    #[command(flatten)]
    pub(in crate::cli) change: ChangeArgs,
    /// File name in EFI/Linux that gets the image, or the path of the file that the board starts
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) target: Option<String>,
    /// Leave duplicates in the boot menu
    #[arg(long)]
    pub(in crate::cli) keep_duplicates: bool,
    /// Delete older backups beyond this many
    #[arg(long, value_name = "N")]
    pub(in crate::cli) keep_backups: Option<usize>,
    /// Copy the old image off the ESP too
    #[arg(long, value_name = "FILE", group = "written")]
    pub(in crate::cli) backup_to: Option<PathBuf>,
    /// Fail unless the PCR key is the installed UKI's
    #[arg(long)]
    pub(in crate::cli) require_pcr_key: bool,
    /// Accept an image that halts on installed nodes (an ISO's)
    #[arg(long)]
    pub(in crate::cli) allow_halt_if_installed: bool,
    /// Accept an image without system extensions that the installed one has
    #[arg(long)]
    pub(in crate::cli) allow_extension_loss: bool,
    /// Do not read the installed image to compare its system extensions with the new one's: on a slow medium that takes
    /// as long as reading the new one back
    #[arg(long)]
    pub(in crate::cli) no_extension_check: bool,
    /// Change the board's own files, too, as one set with the image: device trees, overlays, firmware, as IMAGE (a disk
    /// image or an ISO) has them; with a pattern those alone whose path fits
    #[arg(long, value_name = "GLOB", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    pub(in crate::cli) with_board_files: Option<String>,
    /// Of the board's files: take the new one of PATH, although it would stay because it holds settings or was changed
    #[arg(long, value_name = "PATH", requires = "with_board_files")]
    pub(in crate::cli) overwrite: Vec<String>,
    /// Change files one after the other that have to fit each other: a power cut between two may keep the board from
    /// starting until `recover` has run
    #[arg(long, requires = "with_board_files")]
    pub(in crate::cli) accept_mixture: bool,
    /// The image that the board was installed from: its files that somebody has changed since then stay
    #[arg(long, value_name = "IMAGE", requires = "with_board_files")]
    pub(in crate::cli) installed_from: Option<String>,
    /// With --schematic: which asset to ask the factory for
    #[arg(long, value_enum, default_value_t = Via::Auto)]
    pub(in crate::cli) via: Via,
    /// With --schematic: of which image
    #[arg(long, value_enum, default_value_t = SwapAsset::Auto)]
    pub(in crate::cli) asset: SwapAsset,
    #[command(flatten)]
    pub(in crate::cli) cache: CacheArgs,
    #[command(flatten)]
    pub(in crate::cli) factory: FactoryArgs,
    #[command(flatten)]
    pub(in crate::cli) node: NodeArgs,
}

/// Which asset a swap asks the factory for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Via {
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
pub(in crate::cli) struct PruneArgs {
    #[command(flatten)]
    pub(in crate::cli) disk: WrittenDiskArgs,
    #[command(flatten)]
    pub(in crate::cli) change: ChangeArgs,
    /// Delete instead of renaming, and delete what was disabled before
    #[arg(long)]
    pub(in crate::cli) delete: bool,
    /// Keep this many backups and delete the older ones
    #[arg(long, value_name = "N")]
    pub(in crate::cli) keep_backups: Option<usize>,
    /// Take the only fallback out of the menu too
    #[arg(long)]
    pub(in crate::cli) no_fallback: bool,
    #[command(flatten)]
    pub(in crate::cli) variables: VariablesArgs,
}

/// `restore`
#[derive(Debug, Args)]
pub(in crate::cli) struct RestoreArgs {
    #[command(flatten)]
    pub(in crate::cli) disk: WrittenDiskArgs,
    /// The backup, or an image that was disabled; if none is named, the image that was started last, else the newest
    /// backup
    pub(in crate::cli) backup: Option<String>,
    /// List what can be restored (version, schematic, extensions, time) and do nothing
    #[arg(long, conflicts_with = "out")]
    pub(in crate::cli) list: bool,
    /// The board's own files that were replaced together with the image go back with it; what was added then stays
    #[arg(long)]
    pub(in crate::cli) with_board_files: bool,
    /// Change files one after the other that have to fit each other: a power cut between two may keep the board from
    /// starting until `recover` has run
    #[arg(long, requires = "with_board_files")]
    pub(in crate::cli) accept_mixture: bool,
    #[command(flatten)]
    pub(in crate::cli) trust: TrustArgs,
    #[command(flatten)]
    pub(in crate::cli) change: ChangeArgs,
    #[command(flatten)]
    pub(in crate::cli) node: NodeArgs,
}

/// `loader`
#[derive(Debug, Args)]
pub(in crate::cli) struct LoaderArgs {
    #[command(flatten)]
    pub(in crate::cli) disk: WrittenDiskArgs,
    /// What holds the new one: systemd-boot itself (.efi), an ISO, a disk or FAT image, plain or packed with zstd or xz,
    /// as a file or an http(s) URL
    #[arg(required_unless_present_any = ["schematic", "all_members"])]
    pub(in crate::cli) image: Option<String>,
    /// Trusted signer, PEM or DER (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) cert: Vec<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) variables: VariablesArgs,
    /// In place of IMAGE: the factory's ISO of this schematic, an ID or a YAML file
    #[arg(long, value_name = "ID|FILE", requires = "talos", conflicts_with = "image")]
    pub(in crate::cli) schematic: Option<String>,
    /// With --schematic: of this Talos version
    #[arg(long, value_name = "VERSION")]
    pub(in crate::cli) talos: Option<String>,
    /// The architecture of the board, where the ESP does not tell it
    #[arg(long, value_name = "arm64|amd64", value_parser = arch(), hide_possible_values = true)]
    pub(in crate::cli) arch: Option<Arch>,
    /// Signature problems become warnings
    #[arg(long)]
    pub(in crate::cli) allow_untrusted: bool,
    /// Accept an older systemd-boot than the installed one
    #[arg(long)]
    pub(in crate::cli) allow_downgrade: bool,
    /// Delete older backups of systemd-boot beyond this many
    #[arg(long, value_name = "N")]
    pub(in crate::cli) keep_backups: Option<usize>,
    /// With --schematic: of which image
    #[arg(long, value_enum, default_value_t = SwapAsset::Auto)]
    pub(in crate::cli) asset: SwapAsset,
    #[command(flatten)]
    pub(in crate::cli) cache: CacheArgs,
    #[command(flatten)]
    pub(in crate::cli) factory: FactoryArgs,
    #[command(flatten)]
    pub(in crate::cli) change: ChangeArgs,
}

/// `pin`
#[derive(Debug, Args)]
pub(in crate::cli) struct PinArgs {
    #[command(flatten)]
    pub(in crate::cli) disk: WrittenDiskArgs,
    /// The entry: its id or its file, as `status` shows them, or a pattern for ids (*, ?, [a-z])
    #[arg(required_unless_present_any = ["clear", "all_members"])]
    pub(in crate::cli) entry: Option<String>,
    /// Take the line out of loader.conf: the menu's order decides again
    #[arg(long)]
    pub(in crate::cli) clear: bool,
    #[command(flatten)]
    pub(in crate::cli) change: ChangeArgs,
    #[command(flatten)]
    pub(in crate::cli) variables: VariablesArgs,
}

/// `recover`
#[derive(Debug, Args)]
pub(in crate::cli) struct RecoverArgs {
    #[command(flatten)]
    pub(in crate::cli) disk: WrittenDiskArgs,
    /// Give lost chains of clusters a name back: images in EFI/Linux (never in the boot menu), others as FSCK0000.REC
    #[arg(long, conflicts_with = "free_lost")]
    pub(in crate::cli) salvage: bool,
    /// Free lost chains of clusters; what was in them is gone then
    #[arg(long)]
    pub(in crate::cli) free_lost: bool,
    /// Rename what has the name of this program's record and is none
    #[arg(long)]
    pub(in crate::cli) set_aside: bool,
    /// Carry the interrupted operation to its end, also where it was cut before its commit
    #[arg(long, conflicts_with = "back")]
    pub(in crate::cli) forward: bool,
    /// Take the interrupted operation back, also where it was cut behind its commit
    #[arg(long)]
    pub(in crate::cli) back: bool,
    /// With --all-members: the one that the others are made equal to [default: what is found on them decides]
    #[arg(long, value_name = "MEMBER", requires = "all_members")]
    pub(in crate::cli) truth: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) change: ChangeArgs,
}
