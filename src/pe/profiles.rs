//! Which section is whose: the base of a UKI and its profiles.
//!
//! A UKI may have many sections of one name. Those before the first `.profile` are the base; each `.profile` begins a
//! profile that ends at the next one and overrides the base by name. One rule for everything that reads UKIs here, and
//! it is systemd's: a `.profile` divides by its name alone, whatever its size; the first section of a name in a range
//! is the one; a `VirtualSize` of 0 makes it absent, and it hides others of its name all the same, those of the base
//! included. Source: UAPI.5 "Unified Kernel Image"; `pe_locate_profile_sections` and `pe_locate_sections_internal` of
//! systemd's
//! `src/boot/pe.c`, `find_sections` of `src/boot/stub.c`.

use super::Section;
use std::ops::Range;

/// systemd-boot and the stub look at profiles 0 to 255.
pub const MAX_PROFILES: usize = 256;

/// How a section table is divided. Holds places in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profiles {
    base: Range<usize>,
    /// One range per `.profile` section.
    own: Vec<Range<usize>>,
}

impl Profiles {
    /// Divides a section table.
    #[must_use]
    pub fn of(sections: &[Section]) -> Self {
        let mut starts: Vec<usize> =
            sections.iter().enumerate().filter(|(_, s)| s.name == ".profile").map(|(i, _)| i).collect();
        let base = 0..starts.first().copied().unwrap_or(sections.len());
        starts.push(sections.len());
        let own = starts.windows(2).take(MAX_PROFILES).map(|w| w[0]..w[1]).collect();
        Self { base, own }
    }

    /// As stubs take a section table that know no profiles: all of it is the base.
    #[must_use]
    pub fn none(sections: &[Section]) -> Self {
        Self { base: 0..sections.len(), own: Vec::new() }
    }

    /// How many profiles can be booted: at least one, because a UKI without `.profile` is a profile 0 of its own.
    #[must_use]
    pub fn count(&self) -> usize {
        self.own.len().max(1)
    }

    /// Places of the base sections.
    #[must_use]
    pub fn base(&self) -> Range<usize> {
        self.base.clone()
    }

    /// Places of a profile's own sections; empty when it has none.
    #[must_use]
    pub fn own(&self, profile: usize) -> Range<usize> {
        self.own.get(profile).cloned().unwrap_or(0..0)
    }

    /// Where the section stands in the table that `profile` boots with: its own, else the base's.
    #[must_use]
    pub fn find(&self, sections: &[Section], profile: usize, name: &str) -> Option<usize> {
        let own = first(sections, self.own(profile), name);
        own.or_else(|| first(sections, self.base(), name)).filter(|&i| is_present(sections, i))
    }

    /// [`Self::find`] in a profile's own sections alone.
    #[must_use]
    pub fn find_own(&self, sections: &[Section], profile: usize, name: &str) -> Option<usize> {
        first(sections, self.own(profile), name).filter(|&i| is_present(sections, i))
    }
}

fn first(sections: &[Section], mut range: Range<usize>, name: &str) -> Option<usize> {
    range.find(|&i| sections.get(i).is_some_and(|s| s.name == name))
}

fn is_present(sections: &[Section], at: usize) -> bool {
    sections.get(at).is_some_and(|s| s.virtual_bytes != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Extent;
    use std::borrow::Cow;

    fn table(sections: &[(&str, u32)]) -> Vec<Section> {
        let section = |(name, bytes): &(&str, u32)| Section {
            name: Cow::Owned((*name).to_owned()),
            virtual_address: 0,
            virtual_bytes: *bytes,
            raw: Extent { offset: 0, bytes: u64::from(*bytes) },
        };
        sections.iter().map(section).collect()
    }

    const BASE: [(&str, u32); 4] = [(".osrel", 1), (".cmdline", 1), (".linux", 1), (".initrd", 1)];

    #[test]
    fn profiles_override_the_base() {
        let own = [(".profile", 1), (".pcrsig", 1), (".profile", 1), (".cmdline", 1)];
        let table = table(&[&BASE[..], &own].concat());
        let p = Profiles::of(&table);
        assert_eq!((p.count(), p.base()), (2, 0..4));
        assert_eq!((p.own(0), p.own(1), p.own(2)), (4..6, 6..8, 0..0));
        assert_eq!(p.find(&table, 0, ".cmdline"), Some(1));
        assert_eq!(p.find(&table, 1, ".cmdline"), Some(7));
        assert_eq!(p.find(&table, 1, ".pcrsig"), None);
        assert_eq!(p.find_own(&table, 0, ".cmdline"), None);
        assert_eq!(p.find(&table, 1, ".linux"), Some(2));
    }

    #[test]
    fn a_uki_without_profiles_has_one() {
        let table = table(&BASE);
        let p = Profiles::of(&table);
        assert_eq!((p.count(), p.find(&table, 0, ".cmdline")), (1, Some(1)));
        assert_eq!(p, Profiles::none(&table));
    }

    #[test]
    fn an_empty_profile_section_divides_as_any() {
        let table = table(&[&BASE[..], &[(".profile", 0), (".cmdline", 1), (".profile", 1)]].concat());
        let p = Profiles::of(&table);
        assert_eq!((p.count(), p.base(), p.own(0)), (2, 0..4, 4..6));
        assert_eq!((p.find(&table, 0, ".cmdline"), p.find(&table, 0, ".profile")), (Some(5), None));
        assert_eq!(p.find(&table, 1, ".cmdline"), Some(1));
    }

    #[test]
    fn an_empty_section_hides_those_of_its_name() {
        let table = table(&[(".cmdline", 0), (".cmdline", 1), (".osrel", 1), (".profile", 1), (".osrel", 0)]);
        let p = Profiles::of(&table);
        assert_eq!((p.find(&table, 0, ".cmdline"), p.find(&table, 0, ".osrel")), (None, None));
    }
}
