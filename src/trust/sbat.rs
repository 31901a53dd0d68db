//! SBAT: generations of components, and the lowest ones that still may start (shim's `SBAT.md`).
//!
//! Only shim enforces it, and Talos has none; a board that had shim once keeps the variable. A level given by the user
//! or found in the firmware is compared all the same.

use crate::{Error, Result};
use std::collections::BTreeMap;

/// Larger texts are refused, in bytes.
const MAX_TEXT: usize = 256 * 1024;

/// Components with their generation, from a `.sbat` section or an SBAT level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sbat {
    /// Name and generation, in order.
    pub components: Vec<(String, u32)>,
}

impl Sbat {
    /// Parses CSV whose first two fields are name and generation. NUL ends the text.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when a line has no generation.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_TEXT {
            return Err(Error::rejected(format!("SBAT data of {} bytes", bytes.len())));
        }
        let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| Error::rejected("SBAT data is not text"))?;
        let mut components = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut fields = line.split(',');
            let name = fields.next().unwrap_or_default();
            let generation = fields.next().and_then(|g| g.trim().parse().ok());
            let Some(generation) = generation.filter(|_| !name.is_empty()) else {
                return Err(Error::rejected(format!("SBAT line {line:?} has no name and generation")));
            };
            components.push((name.to_owned(), generation));
        }
        Ok(Self { components })
    }

    /// The components of this image whose generation is below what `level` asks for: name, generation, lowest
    /// generation allowed.
    #[must_use]
    pub fn below(&self, level: &Self) -> Vec<(String, u32, u32)> {
        // By name, because both texts may have tens of thousands of lines and neither is ours.
        let mut lowest = BTreeMap::<&str, u32>::new();
        for (name, generation) in &level.components {
            let known = lowest.entry(name).or_default();
            *known = (*known).max(*generation);
        }
        self.components
            .iter()
            .filter_map(|(name, generation)| Some((name.clone(), *generation, *lowest.get(name.as_str())?)))
            .filter(|(_, generation, lowest)| generation < lowest)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_compared_by_name() {
        let image = Sbat::parse(
            b"sbat,1,SBAT Version,sbat,1,https://x\nsystemd-stub,1,The systemd \
                Developers,systemd,257,https://y\n\0\0\0",
        )
        .unwrap();
        assert_eq!(image.components, [("sbat".into(), 1), ("systemd-stub".into(), 1)]);
        let level = |text: &str| Sbat::parse(text.as_bytes()).unwrap();
        assert_eq!(image.below(&level("sbat,1,2024010900\nshim,4\ngrub,3\n")), []);
        assert_eq!(image.below(&level("systemd-stub,2\n")), [("systemd-stub".into(), 1, 2)]);
        assert_eq!(image.below(&level("systemd-stub,1\nsystemd-stub,3\n")), [("systemd-stub".into(), 1, 3)]);
    }

    #[test]
    fn bad_lines_are_errors() {
        for text in ["x", "x,y", ",1", "x,-1", "x,99999999999"] {
            assert!(Sbat::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(Sbat::parse(&[0xFF, 0xFE]).is_err());
        assert_eq!(Sbat::parse(b"").unwrap(), Sbat::default());
    }
}
