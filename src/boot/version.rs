//! Which systemd-boot it is, and what that version does differently.
//!
//! Every difference has one method here, named after what it means, so that the rest of the module never compares
//! version numbers. The versions whose sources were compared are 252.39, 254.26, 257.9, 257.13, 259.5 and 262; what
//! lies between them follows the nearest change known from the release notes and pull requests, and
//! [`LoaderVersion::caveat`] says where that matters.

use serde::Serialize;
use std::fmt;

/// The marker that systemd-boot carries in its `.sdmagic` section (`SD_MAGIC` in boot.c).
const MAGIC: &[u8] = b"#### LoaderInfo: systemd-boot ";
/// What ends the marker.
const MAGIC_END: &[u8] = b" ####";
/// What Talos 1.12 ships; taken when nothing on the ESP says better.
const DEFAULT: &str = "257.9";

/// A release of systemd-boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoaderVersion {
    /// The text as the loader writes it into `LoaderInfo`, for example `257.9-talos`.
    pub text: String,
    /// The release, for example 257.
    pub major: u32,
    /// The stable update, for example 9; 0 when there is none.
    pub minor: u32,
    /// Whether it was not found but taken for granted.
    pub assumed: bool,
}

impl LoaderVersion {
    /// From the version text alone: `257.9-1~deb13u1`, `262`, `259.5-talos`. `None` when it does not start with a
    /// number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (major, rest) = leading_number(text)?;
        let minor = rest.strip_prefix('.').and_then(leading_number).map_or(0, |(n, _)| n);
        Some(Self { text: text.to_owned(), major, minor, assumed: false })
    }

    /// From bytes that contain `#### LoaderInfo: systemd-boot <version> ####`: the `.sdmagic` section.
    #[must_use]
    pub fn from_magic(bytes: &[u8]) -> Option<Self> {
        let start = memchr::memmem::find(bytes, MAGIC)? + MAGIC.len();
        let rest = bytes.get(start..)?;
        let text = rest.get(..memchr::memmem::find(rest, MAGIC_END)?)?;
        if text.len() > 64 {
            return None;
        }
        Self::parse(std::str::from_utf8(text).ok()?)
    }

    /// What is taken for granted when no systemd-boot was found: 257.9, which Talos 1.12 ships.
    #[must_use]
    pub fn assumed() -> Self {
        Self { text: DEFAULT.to_owned(), major: 257, minor: 9, assumed: true }
    }

    /// What is not certain about predictions for this version, if anything is.
    #[must_use]
    pub fn caveat(&self) -> Option<String> {
        if self.assumed {
            return Some(format!("no systemd-boot was recognised; its rules are taken from {DEFAULT}"));
        }
        if self.major < 252 || self.major > 262 {
            return Some(format!(
                "systemd-boot {} is outside the versions whose rules are known (252 to 262); the nearest are used",
                self.text
            ));
        }
        None
    }

    fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }

    /// `AUTO-x.efi` is ignored like `auto-x.efi`.
    pub(super) fn folds_auto_prefix(&self) -> bool {
        self.at_least(255, 0)
    }

    /// The stricter PE reader: first section of a name wins, whole names are compared, `e_lfanew` is checked.
    pub(super) fn strict_sections(&self) -> bool {
        self.at_least(256, 0)
    }

    /// The PE header must be readable through sixteen data directories.
    pub(super) fn reads_data_directories(&self) -> bool {
        self.at_least(259, 0)
    }

    /// The PE header must have data directory 5, and sections must lie inside `SizeOfImage`.
    pub(super) fn checks_image_size(&self) -> bool {
        self.at_least(262, 0)
    }

    /// `.profile` sections make menu entries of their own.
    pub(super) fn profiles(&self) -> bool {
        self.at_least(257, 0)
    }

    /// A UKI's own command line is handed back to it as LoadOptions (until upstream pull request 28924).
    pub(super) fn passes_uki_options(&self) -> bool {
        self.major < 255
    }

    /// A profile without any `.cmdline` ends the search for further profiles.
    pub(super) fn stops_without_cmdline(&self) -> bool {
        self.major < 259 && !(self.major == 257 && self.minor >= 13)
    }

    /// The boot counter is no part of the entry's id (upstream pull request 38897).
    pub(super) fn counter_left_out_of_id(&self) -> bool {
        self.at_least(258, 3) || (self.major == 257 && self.minor >= 13)
    }

    /// The first form of that change: all profiles of a counted file get the same id.
    pub(super) fn counted_profiles_share_id(&self) -> bool {
        self.major == 257 && self.minor >= 13
    }

    /// The id of a UKI with a boot counter keeps its case, which makes it impossible to pin (seen on 257.13 and 262;
    /// gone in 262.1).
    pub(super) fn counted_uki_keeps_case(&self) -> bool {
        self.counter_left_out_of_id() && !self.at_least(262, 1)
    }

    /// The same for Type #1 entries (seen on 257.13; gone in 262, and not looked at in between).
    pub(super) fn counted_type1_keeps_case(&self) -> bool {
        self.counter_left_out_of_id() && !self.at_least(262, 0)
    }

    /// The part of an id behind `@` keeps its case.
    pub(super) fn profile_id_keeps_case(&self) -> bool {
        self.at_least(259, 0) && !self.at_least(262, 1)
    }

    /// `'value'` loses its quotes like `"value"`.
    pub(super) fn single_quotes(&self) -> bool {
        self.at_least(257, 13)
    }

    /// An empty value counts as set.
    pub(super) fn empty_is_set(&self) -> bool {
        self.at_least(258, 0)
    }

    /// A string variable without closing NUL loses its last character (fixed by upstream pull request 42144).
    pub(super) fn drops_last_character(&self) -> bool {
        !self.at_least(261, 0)
    }

    /// `preferred` and `LoaderEntryPreferred`.
    pub(super) fn preferred(&self) -> bool {
        self.at_least(260, 0)
    }

    /// Equal versions: profile 0 of every file comes before profile 1 of any.
    pub(super) fn sorts_by_profile_first(&self) -> bool {
        self.at_least(261, 0)
    }

    /// Without a default, profiles other than 0 are passed over.
    pub(super) fn never_falls_to_profiles(&self) -> bool {
        self.at_least(261, 0)
    }

    /// Without a default, only real systems are taken, and not the enrolment of Secure Boot keys.
    pub(super) fn never_falls_to_enrolment(&self) -> bool {
        self.at_least(258, 0)
    }

    /// `menu-disabled` is a timeout.
    pub(super) fn menu_disabled(&self) -> bool {
        self.at_least(255, 0)
    }

    /// `auto-poweroff` and `auto-reboot`.
    pub(super) fn power_entries(&self) -> bool {
        self.at_least(255, 0)
    }

    /// Keys in `loader\keys\auto` are enrolled in virtual machines without being asked.
    pub(super) fn enrolls_if_safe(&self) -> bool {
        self.at_least(253, 0)
    }

    /// `uki` and `uki-url` in Type #1 entries; mixing kinds of targets drops the entry.
    pub(super) fn type1_ukis(&self) -> bool {
        self.at_least(258, 0)
    }

    /// `profile` in Type #1 entries.
    pub(super) fn type1_profiles(&self) -> bool {
        self.at_least(259, 0)
    }

    /// A counter in the name of a read-only file is left alone.
    pub(super) fn spares_read_only(&self) -> bool {
        self.at_least(262, 0)
    }
}

impl Default for LoaderVersion {
    fn default() -> Self {
        Self::assumed()
    }
}

impl fmt::Display for LoaderVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "systemd-boot {}{}", self.text, if self.assumed { " (assumed)" } else { "" })
    }
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_marker() {
        for (text, major, minor) in
            [("257.9-talos", 257, 9), ("252.39-1~deb12u2", 252, 39), ("262-1", 262, 0), ("259~rc1", 259, 0)]
        {
            let magic = format!("\0\0#### LoaderInfo: systemd-boot {text} ####\0");
            let v = LoaderVersion::from_magic(magic.as_bytes()).unwrap();
            assert_eq!((v.major, v.minor, v.text.as_str(), v.assumed), (major, minor, text, false));
        }
    }

    #[test]
    fn what_is_no_marker_gives_no_version() {
        for bad in [
            &b""[..],
            b"#### LoaderInfo: systemd-stub 257.9 ####",
            b"#### LoaderInfo: systemd-boot 257.9",
            b"#### LoaderInfo: systemd-boot talos ####",
            b"#### LoaderInfo: systemd-boot 99999999999 ####",
            b"#### LoaderInfo: systemd-boot \xff ####",
        ] {
            assert_eq!(LoaderVersion::from_magic(bad), None, "{bad:?}");
        }
        assert!(LoaderVersion::assumed().caveat().is_some());
        assert!(LoaderVersion::parse("263").unwrap().caveat().is_some());
        assert!(LoaderVersion::parse("262").unwrap().caveat().is_none());
    }
}
