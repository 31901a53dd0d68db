//! Images that come through a pipe: what can be typed.

use crate::block::Arrival;
use clap::Args;

/// What has to arrive where the image comes through a pipe.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ArrivalArgs {
    /// Of an IMAGE that comes through a pipe: so many bytes have to arrive
    #[arg(long, value_name = "N")]
    pub(super) bytes: Option<u64>,
    /// Of an IMAGE that comes through a pipe: bytes with this SHA-256 have to arrive
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub(super) sha256: Option<[u8; 32]>,
}

impl From<ArrivalArgs> for Arrival {
    fn from(ArrivalArgs { bytes, sha256 }: ArrivalArgs) -> Self {
        // A desk sends its answers behind the image.
        Self { bytes, sha256, followed: crate::pod::listening() == Some(true) }
    }
}

fn sha256(text: &str) -> Result<[u8; 32], String> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).map_err(|_| "64 hexadecimal digits are wanted".to_owned())?;
    Ok(hash)
}
