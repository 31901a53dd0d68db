//! `config …`: what can be typed.

use super::args::{ImageArgs, NetworkArgs};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `config …`
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Does the configuration fit the image: extension services, tailscale, the image that the next upgrade takes
    Check(ConfigCheckArgs),
}

/// `config check`
#[derive(Debug, Args)]
pub(super) struct ConfigCheckArgs {
    /// Talos documents and patches, or talhelper's talconfig.yaml
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// The image that the node is to run, as `verify` takes it
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Which UKI, when the image holds several
    #[arg(long, value_name = "NAME", requires = "image")]
    uki: Option<String>,
    #[command(flatten)]
    network: NetworkArgs,
}

impl ConfigCheckArgs {
    /// The image that was named.
    pub(super) fn image(&self) -> Option<ImageArgs> {
        let (image, uki, network) = (self.image.clone()?, self.uki.clone(), self.network.clone());
        Some(ImageArgs { image, uki, arrival: Default::default(), network })
    }
}
