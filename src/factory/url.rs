//! What is a URL, and what of it may be shown.

/// Whether this names a file on a server rather than one here: it begins with a scheme and `://`. What is no http(s)
/// URL is refused where it is used.
#[must_use]
pub fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// A URL's scheme (RFC 3986, section 3.1).
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// A URL fit to be shown: user information carries passwords, queries carry signatures and tokens, and both are left
/// out. Of what is no proper URL only the scheme is shown, because nobody can tell where a password ends in it. What is
/// no URL at all (a path) comes back as it is.
#[must_use]
pub fn show_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://").filter(|_| is_url(url)) else { return url.to_owned() };
    let (address, hidden) = rest.find(['?', '#']).map_or((rest, ""), |i| (&rest[..i], "?…"));
    let (authority, path) = address.find('/').map_or((address, ""), |i| address.split_at(i));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if is_host(host) { format!("{scheme}://{host}{path}{hidden}") } else { format!("{scheme}://…") }
}

/// A host with or without a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let address = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '%');
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    !host.is_empty()
        && inner.map_or_else(|| host.chars().all(name), |inner| inner.chars().all(address))
        && port.bytes().all(|b| b.is_ascii_digit())
}

/// Text in which URLs may stand, with each of them as [`show_url`] shows it.
#[must_use]
pub fn show_urls_in(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let begin =
            rest[..at].rfind(|c| !scheme(c)).map_or(0, |i| i + rest[i..].chars().next().map_or(1, char::len_utf8));
        let ends = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '<' | '>');
        let end = rest[at..].find(ends).map_or(rest.len(), |i| at + i);
        out.push_str(&rest[..begin]);
        out.push_str(&show_url(&rest[begin..end]));
        rest = &rest[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_holds_no_secret() {
        for (url, shown) in [
            ("https://a/b", "https://a/b"),
            ("https://u:p@a/b?token=x#y", "https://a/b?…"),
            ("https://token@a:8080/b", "https://a:8080/b"),
            ("http://[::1]:80/x", "http://[::1]:80/x"),
            ("http://u:p@[fe80::1%25eth0]/x#f", "http://[fe80::1%25eth0]/x?…"),
            ("https://a", "https://a"),
            ("https://a?X-Amz-Signature=s3cret", "https://a?…"),
            // Passwords that nobody has percent-encoded.
            ("http://u:p/s3cret@host/x", "http://…"),
            ("http://u:p#s3cret@host/x", "http://…"),
            ("http://u:p?s3cret@host/x", "http://…"),
            ("http://u:s3 cret@host/x", "http://host/x"),
            ("ftp://u:p@a/b", "ftp://a/b"),
            ("HTTPS://u:p@a/b", "HTTPS://a/b"),
            ("disk.img", "disk.img"),
            ("./a?b", "./a?b"),
        ] {
            assert_eq!(show_url(url), shown, "{url}");
        }
        assert_eq!(
            show_urls_in("asking 'https://u:p@a/b?c=d': no; see http://x?y (ä://b?c) http://z"),
            "asking 'https://a/b?…': no; see http://x?… (ä://b?c) http://z"
        );
    }
}
