//! How to talk to a server, and what is told while doing it.

#[cfg(feature = "net")]
use super::auth::Auth;
use std::path::PathBuf;
use std::time::Duration;

/// Time limits, retries, trust and credentials. [`Options::default`] suits a public factory.
#[derive(Debug, Clone)]
pub struct Options {
    /// Longest silence in the middle of a body.
    pub stall: Duration,
    /// Longest wait for the first byte of an answer; a factory builds on demand.
    pub first_byte: Duration,
    /// Longest time for one whole operation, retries included; `None` for no limit.
    pub overall: Option<Duration>,
    /// Failures in a row, without a byte of progress, before giving up.
    pub retries: u32,
    /// How long to try again, without a byte of progress, before giving up: the pauses together, and attempts that got
    /// no answer.
    pub retry_for: Duration,
    /// The same, as long as no server has answered at all: a wrong name or address is not put right by waiting.
    pub first_contact: Duration,
    /// Pause after the first failure; it doubles with each, up to 30 seconds, less a random part.
    pub backoff: Duration,
    /// PEM file of certificate authorities to trust instead of the built-in ones.
    pub ca_file: Option<PathBuf>,
    /// Credentials for the factory.
    #[cfg(feature = "net")]
    pub auth: Option<Auth>,
    /// Whether downloads look for `.sha256` and `.sha512` beside the file.
    pub sidecars: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(60),
            first_byte: Duration::from_secs(600),
            overall: None,
            retries: 1000,
            retry_for: Duration::from_secs(60),
            first_contact: Duration::from_secs(5),
            backoff: Duration::from_millis(500),
            ca_file: None,
            #[cfg(feature = "net")]
            auth: None,
            sidecars: true,
        }
    }
}

/// What happens during a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferEvent {
    /// No byte of the answer has come yet, after this time. Told about once a second.
    Waiting {
        /// Since the request.
        elapsed: Duration,
    },
    /// Bytes that have arrived so far, of how many if that is known.
    Progress {
        /// Bytes from the start of the file.
        bytes: u64,
        /// Length of the file in bytes.
        total: Option<u64>,
    },
    /// A failure that passes; the next attempt comes after a pause.
    Retrying {
        /// Failures in a row so far.
        attempt: u32,
        /// The pause.
        after: Duration,
        /// How long this can go on before it is given up.
        left: Duration,
        /// What failed.
        why: String,
    },
    /// What arrived before cannot be continued and is dropped.
    StartingOver,
    /// Something worth knowing that changes nothing.
    Note(String),
}
