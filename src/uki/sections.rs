//! Whether the section table of a UKI makes sense. Which section is whose: [`Profiles`].

use crate::block::Extent;
use crate::pe::{Head, MAX_PROFILES, Profiles, Section};
use crate::sorting::Sort as _;
use std::fmt;

/// The sections that the stub acts on. Only of these a second one in the same range is worth a word.
const KNOWN: [&str; 13] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".sdmagic", ".pcrsig",
    ".pcrpkey", ".profile",
];

/// More sections than these are trouble to some firmware.
const MANY_SECTIONS: usize = 25;

/// Something about the section table that is not as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SectionProblem {
    /// Whether the image must not be booted because of it; else it is only unusual.
    pub fatal: bool,
    /// What is wrong, with names and places.
    pub message: String,
}

impl fmt::Display for SectionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Checks the section table of a UKI: the sections it must have, none twice in a range, none overlapping another in the
/// file or in memory. ([`Head::read`] has made sure that none leaves the file.)
#[must_use]
pub fn check_layout(head: &Head) -> Vec<SectionProblem> {
    let mut problems = Vec::new();
    let mut add = |fatal, message| problems.push(SectionProblem { fatal, message });
    let profiles = Profiles::of(&head.sections);

    for name in [".linux", ".osrel"] {
        if profiles.find(&head.sections, 0, name).is_none() {
            add(true, format!("no {name} section"));
        }
    }
    // systemd/particleos#64, kairos-io/kairos#4885: firmware in the field refuses or hangs.
    if head.sections.len() > MANY_SECTIONS {
        let n = head.sections.len();
        add(false, format!("{n} sections: some firmware does not start images with more than {MANY_SECTIONS} of them"));
    }
    let unaligned = |s: &&Section| {
        s.virtual_bytes > 0 && head.section_alignment > 0 && !s.virtual_address.is_multiple_of(head.section_alignment)
    };
    if let Some(s) = head.sections.iter().find(unaligned) {
        add(
            false,
            format!(
                "section {} is loaded at 0x{:x}, no multiple of the image's section alignment 0x{:x}: some firmware \
                    does \
                 not start such images",
                s.name, s.virtual_address, head.section_alignment
            ),
        );
    }
    if head.sections.iter().filter(|s| s.name == ".profile").count() > MAX_PROFILES {
        add(false, format!("more than {MAX_PROFILES} profiles; those beyond are never seen"));
    }
    for range in std::iter::once(profiles.base()).chain((0..profiles.count()).map(|p| profiles.own(p))) {
        for name in KNOWN {
            let n = range.clone().filter(|&i| is(head.sections.get(i), name)).count();
            if n > 1 {
                add(true, format!("{n} {name} sections in one profile: only the first is used and measured"));
            }
        }
    }
    for s in head.sections.iter().filter(|s| KNOWN.contains(&&*s.name) && s.raw.bytes == 0 && s.virtual_bytes > 0) {
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

fn is(section: Option<&Section>, name: &str) -> bool {
    section.is_some_and(|s| s.name == name && s.virtual_bytes != 0)
}

/// The first two of `ranges` that share a byte.
fn overlap(mut ranges: Vec<(&str, Extent)>) -> Option<(&str, &str)> {
    ranges.retain(|(_, e)| e.bytes > 0);
    ranges.put_in_order_by(|(_, e)| e.offset);
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
    fn what_is_missing_or_double_is_named() {
        let problems = check_layout(&head(&[(".cmdline", b"a"), (".cmdline", b"b")]));
        let text: Vec<_> = problems.iter().map(|p| (p.fatal, p.message.as_str())).collect();
        assert_eq!(text[..2], [(true, "no .linux section"), (true, "no .osrel section")]);
        assert!(text[2].0 && text[2].1.starts_with("2 .cmdline sections"), "{text:?}");
    }

    #[test]
    fn what_some_firmware_does_not_start_is_worth_a_warning() {
        let mut sections = base();
        sections.extend(std::iter::repeat_n((".dtbauto", &b"x"[..]), 21));
        let mut head = head(&sections);
        assert!(check_layout(&head).is_empty());
        head.sections[24].virtual_address += 512;
        let [problem] = &check_layout(&head)[..] else { panic!() };
        assert!(!problem.fatal && problem.message.contains("section .dtbauto is loaded at"), "{problem}");
        sections.push((".dtbauto", b"x"));
        let many = check_layout(&super::tests::head(&sections));
        assert!(matches!(&many[..], [p] if !p.fatal && p.message.starts_with("26 sections")), "{many:?}");
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
