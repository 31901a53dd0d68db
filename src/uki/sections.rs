//! Which section is whose: the base of a UKI, its profiles, and whether the section table makes sense.
//!
//! A UKI may have many sections of one name. Those before the first `.profile` are the base; each `.profile` begins a
//! profile that ends at the next one and overrides the base by name. Source: UAPI.5 "Unified Kernel Image", and
//! `pe_locate_profile_sections` of systemd's `src/boot/pe.c`.

use crate::block::Extent;
use crate::pe::{Head, Section};
use std::fmt;
use std::ops::Range;

/// systemd-boot and the stub look at profiles 0 to 255.
const MAX_PROFILES: usize = 256;

/// The sections that the stub acts on. Only of these a second one in the same range is worth a word.
const KNOWN: [&str; 13] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".sdmagic", ".pcrsig",
    ".pcrpkey", ".profile",
];

/// How the section table is divided. Holds places in [`Head::sections`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profiles {
    base: Range<usize>,
    /// One range per `.profile` section.
    own: Vec<Range<usize>>,
}

impl Profiles {
    /// Divides the section table.
    #[must_use]
    pub fn of(head: &Head) -> Self {
        let mut starts: Vec<usize> = head
            .sections
            .iter()
            .enumerate()
            .filter(|(_, s)| s.name == ".profile" && s.virtual_bytes != 0)
            .map(|(i, _)| i)
            .collect();
        let base = 0..starts.first().copied().unwrap_or(head.sections.len());
        starts.push(head.sections.len());
        let own = starts.windows(2).take(MAX_PROFILES).map(|w| w[0]..w[1]).collect();
        Self { base, own }
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

    /// Where the section stands in [`Head::sections`] that `profile` boots with: its own, else the base's; the first of
    /// that name; not one of `VirtualSize` 0.
    #[must_use]
    pub fn find(&self, head: &Head, profile: usize, name: &str) -> Option<usize> {
        let within = |range: Range<usize>| range.into_iter().find(|&i| is(head.sections.get(i), name));
        within(self.own(profile)).or_else(|| within(self.base()))
    }

    /// [`Self::find`] in a profile's own sections alone.
    #[must_use]
    pub fn find_own(&self, head: &Head, profile: usize, name: &str) -> Option<usize> {
        self.own(profile).find(|&i| is(head.sections.get(i), name))
    }
}

fn is(section: Option<&Section>, name: &str) -> bool {
    section.is_some_and(|s| s.name == name && s.virtual_bytes != 0)
}

/// Something about the section table that is not as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the image must not be booted because of it; else it is only unusual.
    pub fatal: bool,
    /// What is wrong, with names and places.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Checks the section table of a UKI: the sections it must have, none twice in a range, none overlapping another in the
/// file or in memory. ([`Head::read`] has made sure that none leaves the file.)
#[must_use]
pub fn check_layout(head: &Head) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |fatal, message| problems.push(Problem { fatal, message });
    let profiles = Profiles::of(head);

    for (name, fatal) in [(".linux", true), (".osrel", true), (".initrd", false)] {
        if profiles.find(head, 0, name).is_none() {
            add(fatal, format!("no {name} section"));
        }
    }
    if head.sections.iter().filter(|s| is(Some(s), ".profile")).count() > MAX_PROFILES {
        add(false, format!("more than {MAX_PROFILES} profiles; those behind are never seen"));
    }
    for range in std::iter::once(profiles.base()).chain((0..profiles.count()).map(|p| profiles.own(p))) {
        for name in KNOWN {
            let n = range.clone().filter(|&i| is(head.sections.get(i), name)).count();
            if n > 1 {
                add(true, format!("{n} {name} sections in one profile: only the first is used and measured"));
            }
        }
    }
    for s in
        head.sections.iter().filter(|s| KNOWN.contains(&s.name.as_str()) && s.raw.bytes == 0 && s.virtual_bytes > 0)
    {
        add(true, format!("section {} has a size in memory and no data in the file", s.name));
    }

    // A name for each range of the file, and of memory, that must be nobody else's.
    let headers = Extent { offset: 0, bytes: u64::from(head.size_of_headers) };
    let mut file = vec![("the headers", headers)];
    let mut memory = vec![("the headers", headers)];
    for s in &head.sections {
        file.push((&s.name, s.raw));
        let range = Extent { offset: u64::from(s.virtual_address), bytes: u64::from(s.virtual_bytes) };
        if range.offset + range.bytes > u64::from(head.size_of_image) {
            add(true, format!("section {} lies outside the image's {} bytes in memory", s.name, head.size_of_image));
        }
        memory.push((&s.name, range));
    }
    if let Some(table) = head.certificate_table {
        file.push(("the certificate table", table));
    }
    for (what, ranges) in [("in the file", file), ("in memory", memory)] {
        if let Some((a, b)) = overlap(ranges) {
            add(true, format!("{a} and {b} overlap {what}"));
        }
    }
    problems
}

/// The first two of `ranges` that share a byte.
fn overlap(mut ranges: Vec<(&str, Extent)>) -> Option<(&str, &str)> {
    ranges.retain(|(_, e)| e.bytes > 0);
    ranges.sort_by_key(|(_, e)| e.offset);
    ranges.windows(2).find(|w| w[0].1.offset + w[0].1.bytes > w[1].1.offset).map(|w| (w[0].0, w[1].0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pe::Arch;
    use crate::testkit::uki::Builder;

    fn head(sections: &[(&str, &[u8])]) -> Head {
        let pe = sections.iter().fold(Builder::new(Arch::Amd64), |b, (name, data)| b.section(name, *data)).build();
        Head::read(&pe).unwrap()
    }

    fn base() -> Vec<(&'static str, &'static [u8])> {
        vec![(".osrel", b"ID=talos"), (".cmdline", b"base"), (".linux", b"k"), (".initrd", b"i")]
    }

    #[test]
    fn profiles_override_the_base() {
        let mut sections = base();
        sections.extend([
            (".profile", &b"ID=main"[..]),
            (".pcrsig", b"{}"),
            (".profile", b"ID=reset"),
            (".cmdline", b"reset"),
        ]);
        let head = head(&sections);
        let p = Profiles::of(&head);
        assert_eq!((p.count(), p.base()), (2, 0..4));
        assert_eq!((p.own(0), p.own(1), p.own(2)), (4..6, 6..8, 0..0));
        assert_eq!(p.find(&head, 0, ".cmdline"), Some(1));
        assert_eq!(p.find(&head, 1, ".cmdline"), Some(7));
        assert_eq!(p.find(&head, 1, ".pcrsig"), None);
        assert_eq!(p.find_own(&head, 0, ".cmdline"), None);
        assert_eq!(p.find(&head, 1, ".linux"), Some(2));
        assert!(check_layout(&head).is_empty(), "{:?}", check_layout(&head));
    }

    #[test]
    fn a_uki_without_profiles_has_one() {
        let head = head(&base());
        let p = Profiles::of(&head);
        assert_eq!((p.count(), p.find(&head, 0, ".cmdline")), (1, Some(1)));
    }

    #[test]
    fn what_is_missing_or_double_is_named() {
        let problems = check_layout(&head(&[(".cmdline", b"a"), (".cmdline", b"b")]));
        let text: Vec<_> = problems.iter().map(|p| (p.fatal, p.message.as_str())).collect();
        assert_eq!(
            text[..3],
            [(true, "no .linux section"), (true, "no .osrel section"), (false, "no .initrd section")]
        );
        assert!(text[3].0 && text[3].1.starts_with("2 .cmdline sections"), "{text:?}");
    }

    #[test]
    fn overlaps_are_found_in_the_file_and_in_memory() {
        let mut head = head(&base());
        head.sections[1].raw.offset = head.sections[0].raw.offset;
        head.sections[2].virtual_address = head.sections[3].virtual_address;
        let problems = check_layout(&head);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(problems[0].message, ".osrel and .cmdline overlap in the file");
        assert_eq!(problems[1].message, ".linux and .initrd overlap in memory");
    }

    #[test]
    fn a_section_outside_the_image_is_found() {
        let mut head = head(&base());
        head.sections[3].virtual_bytes = u32::MAX;
        assert!(check_layout(&head).iter().any(|p| p.fatal && p.message.contains("outside the image")));
    }
}
