//! Credentials, and whom they are given to.

use super::url::show_url;
use crate::{Context, Error, Kind, Result};
use base64::Engine as _;
use std::fmt;
use std::path::Path;

/// Credentials, bound to one origin (scheme, host and port): they never go anywhere else, and are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    header: String,
    origin: String,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auth for {}", self.origin)
    }
}

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
            return Err(Error::usage("the factory token contains characters that are not allowed in a header"));
        }
        Ok(Self { header, origin: origin(base_url)? })
    }

    /// The value of the Authorization header for this URL, or why it does not get one: credentials go to the origin
    /// they are meant for and nowhere else, and not over plain http, where everybody on the way could read them.
    pub(super) fn header_for(&self, url: &str) -> Result<&str, Withheld> {
        if origin(url).ok().as_ref() != Some(&self.origin) {
            return Err(Withheld::OtherOrigin);
        }
        if !url_is_private(url) {
            return Err(Withheld::PlainHttp);
        }
        Ok(&self.header)
    }
}

/// Why a server did not get the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withheld {
    /// They are for another server.
    OtherOrigin,
    /// Somebody could read them on the way.
    PlainHttp,
}

/// Whether nobody between here and the server can read what is sent: TLS, or this machine itself.
fn url_is_private(url: &str) -> bool {
    url.get(..8).is_some_and(|s| s.eq_ignore_ascii_case("https://")) || is_loopback(url)
}

/// Whether the server is on this machine.
pub(super) fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<ureq::http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
}

/// Scheme, host and port of an absolute http(s) URL.
pub(super) fn origin(url: &str) -> Result<String> {
    let bad = || Error::new(Kind::Usage, format!("{} is not an http(s) URL", show_url(url)));
    let uri: ureq::http::Uri = url.parse().map_err(|_| bad())?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(bad()) };
    let port = match (scheme, uri.port_u16()) {
        ("http" | "https", Some(port)) => port,
        ("http", None) => 80,
        ("https", None) => 443,
        _ => return Err(bad()),
    };
    Ok(format!("{scheme}://{}:{port}", host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_their_origin_and_not_over_plain_http() {
        let auth = Auth::bearer("https://factory.example", "s3cret").unwrap();
        assert!(!format!("{auth:?}").contains("s3cret"));
        for url in ["https://factory.example/x", "https://FACTORY.example:443/y", "https://u:p@factory.example/"] {
            assert_eq!(auth.header_for(url), Ok("Bearer s3cret"), "{url}");
        }
        for url in ["https://other.example/", "https://factory.example:444/", "http://factory.example/", "x"] {
            assert_eq!(auth.header_for(url), Err(Withheld::OtherOrigin), "{url}");
        }
        let plain = Auth::bearer("http://factory.example", "s3cret").unwrap();
        assert_eq!(plain.header_for("http://factory.example/x"), Err(Withheld::PlainHttp));
        for base in ["http://127.0.0.1:8080", "http://[::1]:1", "http://localhost"] {
            assert!(Auth::bearer(base, "s3cret").unwrap().header_for(&format!("{base}/x")).is_ok(), "{base}");
        }
    }
}
