//! A web page where a file was requested: what captive portals and proxies answer.

/// What to do where a web page came instead of a file.
pub(crate) const PAGE_ADVICE: &str = "it may be the sign-in page of the network or of a proxy: look at the address in \
    a \
    browser, sign in there or check the proxy variables, then run it again";

/// Whether this is the beginning of a web page.
pub(crate) fn is_page(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&head[..head.len().min(1024)]).to_ascii_lowercase();
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    ["<!doctype html", "<html", "<head", "<!--", "<script", "<body"].iter().any(|tag| text.starts_with(tag))
        || text.starts_with("<?xml") && text.contains("<html")
}
