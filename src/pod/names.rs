//! Names: what Kubernetes accepts, and names made from other names.
//!
//! A node may have a name of 253 characters with dots in it; a pod's name that becomes a host name, and every label
//! value, has 63. A name that is made here keeps as much as fits and ends in a hash of everything that distinguishes
//! it.

use crate::{Error, Result};
use sha2::{Digest, Sha256};

/// The longest label of a DNS name, and the longest label value (RFC 1123, section 2.1; Kubernetes, "Object Names and
/// IDs").
pub(super) const MAX_LABEL: usize = 63;
/// The longest DNS subdomain, as Kubernetes counts it.
const MAX_SUBDOMAIN: usize = 253;
/// Characters of a hash at the end of a name.
const HASH: usize = 8;

/// A DNS label: lower-case letters, digits and inner hyphens, up to 63 characters.
pub(super) fn is_dns_label(name: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= MAX_LABEL
        && edge(name.bytes().next())
        && edge(name.bytes().last())
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

/// A DNS subdomain: labels between dots, up to 253 characters. Kubernetes does not limit the labels in it to 63.
pub(super) fn is_dns_subdomain(name: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= MAX_SUBDOMAIN
        && name.split('.').all(|label| {
            edge(label.bytes().next())
                && edge(label.bytes().last())
                && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        })
}

/// Refuses what cannot be the name of a node.
pub(super) fn check_node(name: &str) -> Result<()> {
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Err(Error::usage(format!("{name} is an address, and a pod is bound to a node by its name"))
            .advise("`kubectl get nodes -o wide` lists the names beside the addresses"));
    }
    if is_dns_subdomain(name) {
        return Ok(());
    }
    Err(Error::usage(format!("{name:?} is not a node name: these are lower-case letters, digits, '-' and '.'"))
        .advise("take the name from `kubectl get nodes`"))
}

/// Refuses what cannot be the name of a `what`: a namespace, say.
pub(super) fn check_label(what: &str, name: &str) -> Result<()> {
    if is_dns_label(name) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{name:?} cannot be the name of a {what}: up to {MAX_LABEL} lower-case letters, digits and inner '-'"
    )))
}

/// Refuses what cannot be the name of a Secret or a ConfigMap.
pub(super) fn check_object(what: &str, name: &str) -> Result<()> {
    if is_dns_subdomain(name) { Ok(()) } else { Err(Error::usage(format!("{name:?} cannot be the name of a {what}"))) }
}

/// Refuses what is not a container image reference (`registry.example:5000/tools/bootsurgeon@sha256:…`). The grammar in
/// full is the container runtime's business; what passes here cannot be anything but one word of it.
pub(super) fn check_image(image: &str) -> Result<()> {
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'/' | b':' | b'@');
    let fits = image.len() <= 512
        && image.bytes().all(word)
        && image.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric())
        && image.bytes().last().is_some_and(|c| c.is_ascii_alphanumeric());
    if fits { Ok(()) } else { Err(Error::usage(format!("{image:?} is not a container image reference"))) }
}

/// The first characters of the SHA-256 over all parts, in hex. The parts are told apart: `["ab", "c"]` is not `["a",
/// "bc"]`.
pub(super) fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut hex = hex::encode(hasher.finalize());
    hex.truncate(HASH);
    hex
}

/// A DNS label of up to `max` characters that begins like `stem`, dots turned into hyphens, and ends in `hash`.
pub(super) fn short_name(stem: &str, hash: &str, max: usize) -> String {
    let room = max.saturating_sub(hash.len() + 1);
    let mut name: String = stem.chars().map(|c| if c == '.' { '-' } else { c }).take(room).collect();
    name.truncate(name.trim_end_matches('-').len());
    format!("{name}-{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_may_be_called() {
        let long = ["a"; 127].join(".");
        assert_eq!(long.len(), 253);
        for good in ["a", "talos-192-168-1-203", "node.example.com", "1", "0x1f", "no", &"a".repeat(253), &long] {
            check_node(good).unwrap();
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a..b",
            ".a",
            "a.",
            "a.-b",
            "a b",
            "a\nb",
            "a\0",
            "ä",
            "a,b",
            "$(x)",
            "a: b",
            "../a",
            "192.168.1.203",
            "fd00::1",
            &"a".repeat(254),
        ] {
            let e = check_node(bad).unwrap_err();
            assert_eq!(e.kind(), crate::Kind::Usage, "{bad:?}");
            assert!(!e.message().contains(['\n', '\0']), "{bad:?} gets through: {e}");
        }
    }

    #[test]
    fn what_a_namespace_may_be_called() {
        for good in ["kube-system", "x", &"a".repeat(63)] {
            check_label("namespace", good).unwrap();
        }
        for bad in ["", "a.b", "A", "-", "a-", &"a".repeat(64)] {
            check_label("namespace", bad).unwrap_err();
        }
    }

    #[test]
    fn what_an_image_may_be_called() {
        for good in ["bootsurgeon:0.1.0", "r.example:5000/a_b/c@sha256:0123", "a"] {
            check_image(good).unwrap();
        }
        for bad in ["", "-a", "a b", "a\n", "a:", "a/", "/a", "$(a)", &"a".repeat(513)] {
            check_image(bad).unwrap_err();
        }
    }

    #[test]
    fn made_names_fit_and_differ() {
        let hash = hash(["x"]);
        for stem in ["bootsurgeon-swap-a.b.c", &"a".repeat(300), &format!("{}-.b", "a".repeat(52)), &"a-".repeat(100)] {
            for max in [52, 63] {
                let name = short_name(stem, &hash, max);
                assert!(is_dns_label(&name) && name.len() <= max, "{name}");
                assert!(name.ends_with(&hash), "{name}");
            }
        }
        assert_eq!(short_name("a.b", "12345678", 63), "a-b-12345678");
    }

    #[test]
    fn hashes_tell_parts_apart() {
        assert_ne!(hash(["ab", "c"]), hash(["a", "bc"]));
        assert_ne!(hash(["a"]), hash(["a", ""]));
        assert_eq!(hash(["a", "b"]), hash(["a", "b"]));
        assert_eq!(hash(["a"]).len(), HASH);
    }
}
