//! `schematic …`: what can be typed.

use super::args::FactoryArgs;
use clap::Subcommand;
use std::path::PathBuf;

/// `schematic …`
#[derive(Debug, Subcommand)]
pub(super) enum SchematicCommand {
    /// Canonical form and ID, offline
    Id {
        /// A schematic in YAML, or - for standard input
        file: PathBuf,
        /// Add a system extension, for example siderolabs/tailscale
        #[arg(long, value_name = "NAME")]
        add_extension: Vec<String>,
        /// Add a kernel argument, for example -talos.halt_if_installed
        #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
        extra_kernel_arg: Vec<String>,
    },
    /// Change a schematic: the new one as YAML on stdout, its ID on stderr
    Edit {
        /// A schematic in YAML, or - for standard input
        #[arg(required_unless_present = "from")]
        file: Option<PathBuf>,
        /// Change the schematic of the image that starts from this disk, or of this image
        #[arg(long, value_name = "DISK|IMAGE", conflicts_with = "file")]
        from: Option<PathBuf>,
        /// Add a system extension, for example tailscale (repeatable)
        #[arg(long, value_name = "NAME")]
        add_extension: Vec<String>,
        /// Remove a system extension (repeatable)
        #[arg(long, value_name = "NAME")]
        remove_extension: Vec<String>,
        /// Add a kernel argument, for example -talos.halt_if_installed (repeatable)
        #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
        extra_kernel_arg: Vec<String>,
        /// Remove an extra kernel argument (repeatable)
        #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
        remove_kernel_arg: Vec<String>,
    },
    /// Register a schematic with the factory: its YAML on stdout, its ID on stderr
    Create {
        /// A schematic in YAML, or - for standard input
        file: PathBuf,
        #[command(flatten)]
        factory: FactoryArgs,
    },
    /// Fetch a schematic from the factory
    Show {
        /// Its ID
        id: String,
        #[command(flatten)]
        factory: FactoryArgs,
    },
}
