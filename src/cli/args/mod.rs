//! What can be typed. Names and meaning are a contract that scripts rely on; new options may come, these stay.
//!
//! Here are the commands and what all of them have; the options of those that take an image are in `image`, of those that
//! take a disk in `disk`.

mod disk;
mod image;

pub(in crate::cli) use disk::*;
pub(in crate::cli) use image::*;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Surgery on UEFI boot images: swap a Talos Linux UKI on the EFI System Partition, without mounting it, safe against
/// power cuts
#[derive(Debug, Parser)]
#[command(name = "bootsurgeon", version, propagate_version = true, max_term_width = 100)]
pub(in crate::cli) struct Cli {
    #[command(flatten)]
    pub(in crate::cli) global: Global,
    #[command(subcommand)]
    pub(in crate::cli) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Global {
    /// Print one JSON document on stdout and nothing else there
    #[arg(long, global = true)]
    pub(in crate::cli) json: bool,
    /// No progress bars, and in a log no line every ten seconds about how far it has come
    #[arg(long, global = true)]
    pub(in crate::cli) no_progress: bool,
    /// When to use colours (NO_COLOR is respected)
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(in crate::cli) color: Color,
    /// Verbose output
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(in crate::cli) verbose: u8,
    /// Print errors only, and the document of --json
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(in crate::cli) quiet: bool,
}

/// Where the EFI variables are.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct VariablesArgs {
    /// Directory or file with EFI variables, "esp" for the file in which the firmware keeps them on the ESP, or "none"
    /// [default: this machine's, for a disk in this machine; for an image the file on its ESP, if there is one]
    #[arg(long, value_name = "DIR|FILE")]
    pub(in crate::cli) efivars: Option<PathBuf>,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
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
    ///
    /// With --verbose or --json the report has the SHA-256 of the whole file, too.
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
