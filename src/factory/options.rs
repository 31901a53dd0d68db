//! How to talk to a server, and what is told while doing it.

#[cfg(feature = "net")]
use crate::{Context, Error, Kind, Result};
#[cfg(feature = "net")]
use base64::Engine as _;
#[cfg(feature = "net")]
use std::fmt;
#[cfg(feature = "net")]
use std::path::Path;
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
            retries: 8,
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
pub enum Event {
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
        /// What failed.
        why: String,
    },
    /// What arrived before cannot be continued and is dropped.
    StartingOver,
}

/// Credentials, bound to one origin (scheme, host and port): they never go anywhere else, and are never shown.
#[cfg(feature = "net")]
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    header: String,
    origin: String,
}

#[cfg(feature = "net")]
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auth for {}", self.origin)
    }
}

#[cfg(feature = "net")]
impl Auth {
    /// A Bearer token for the factory at `base_url`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the URL is not absolute or the token is not printable.
    pub fn bearer(base_url: &str, token: &str) -> Result<Self> {
        Self::new(base_url, format!("Bearer {token}"))
    }

    /// User and password (Basic) for the factory at `base_url`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the URL is not absolute.
    pub fn basic(base_url: &str, user: &str, password: &str) -> Result<Self> {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Self::new(base_url, format!("Basic {pair}"))
    }

    /// Credentials in a file of one line: `user:password`, else a token.
    ///
    /// # Errors
    /// [`Kind::Io`] when the file cannot be read, [`Kind::Usage`] as for the others.
    pub fn from_file(base_url: &str, path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).while_doing(|| format!("reading credentials from {}", path.display()))?;
        let line = text.lines().next().unwrap_or_default().trim();
        match line.split_once(':') {
            Some((user, password)) => Self::basic(base_url, user, password),
            None => Self::bearer(base_url, line),
        }
    }

    /// Credentials from the environment: `BOOTSURGEON_FACTORY_TOKEN`, else `BOOTSURGEON_FACTORY_USER` and
    /// `BOOTSURGEON_FACTORY_PASSWORD`.
    ///
    /// # Errors
    /// [`Kind::Usage`] as for the others.
    pub fn from_env(base_url: &str) -> Result<Option<Self>> {
        let read = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        if let Some(token) = read("BOOTSURGEON_FACTORY_TOKEN") {
            return Self::bearer(base_url, token.trim()).map(Some);
        }
        let Some(user) = read("BOOTSURGEON_FACTORY_USER") else { return Ok(None) };
        let password = read("BOOTSURGEON_FACTORY_PASSWORD").unwrap_or_default();
        Self::basic(base_url, &user, &password).map(Some)
    }

    fn new(base_url: &str, header: String) -> Result<Self> {
        if !header.bytes().all(|b| matches!(b, b' '..=b'~')) {
            return Err(Error::usage("the factory token holds characters that no header can carry"));
        }
        Ok(Self { header, origin: origin(base_url)? })
    }

    /// The value of the Authorization header for this URL, if it may have it.
    pub(super) fn header_for(&self, url: &str) -> Option<&str> {
        origin(url).is_ok_and(|o| o == self.origin).then_some(&self.header)
    }
}

/// Whether this names a file on a server rather than one here.
#[must_use]
pub fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Scheme, host and port of an absolute http(s) URL.
#[cfg(feature = "net")]
pub(super) fn origin(url: &str) -> Result<String> {
    let bad = || Error::new(Kind::Usage, format!("{} is not an http(s) URL", without_query(url)));
    let uri: ureq::http::Uri = url.parse().map_err(|_| bad())?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(bad()) };
    let port = match (scheme, uri.port_u16()) {
        (_, Some(port)) => port,
        ("http", None) => 80,
        ("https", None) => 443,
        _ => return Err(bad()),
    };
    Ok(format!("{scheme}://{}:{port}", host.to_ascii_lowercase()))
}

#[cfg(feature = "net")]
/// A URL fit to be shown: queries carry signatures and tokens, user information carries passwords.
#[cfg(feature = "net")]
pub(super) fn without_query(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |i| rest.split_at(i));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}
