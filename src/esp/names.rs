//! Names of files that are not in the boot menu any more: `X.efi.bak.<time>` and `X.efi.disabled.<time>`. systemd-boot
//! lists only what ends in `.efi`, and Talos touches only `Talos-*.efi`.

/// A name that says what the file was called in the menu and when it left.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupName {
    /// Its name in the menu.
    pub original: String,
    /// Whether it was disabled rather than replaced.
    pub disabled: bool,
    /// When, in seconds since 1970 UTC.
    pub time: u64,
}

impl BackupName {
    /// Takes a name apart; `None` when it is no such name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (rest, time) = name.rsplit_once('.')?;
        let time = time.bytes().all(|b| b.is_ascii_digit()).then(|| time.parse().ok())??;
        let (original, disabled) = match rest.strip_suffix(".bak") {
            Some(original) => (original, false),
            None => (rest.strip_suffix(".disabled")?, true),
        };
        original.to_ascii_lowercase().ends_with(".efi").then(|| Self { original: original.to_owned(), disabled, time })
    }
}

/// The name for the old content of `name`, replaced at `time`; later by a second as often as `taken` says so.
#[must_use]
pub fn backup_of(name: &str, time: u64, taken: impl Fn(&str) -> bool) -> String {
    numbered(name, "bak", time, taken)
}

/// The name for `name` taken out of the menu at `time`; later by a second as often as `taken` says so.
#[must_use]
pub fn disabled_of(name: &str, time: u64, taken: impl Fn(&str) -> bool) -> String {
    numbered(name, "disabled", time, taken)
}

fn numbered(name: &str, kind: &str, time: u64, taken: impl Fn(&str) -> bool) -> String {
    let mut time = time;
    loop {
        let candidate = format!("{name}.{kind}.{time}");
        if !taken(&candidate) {
            return candidate;
        }
        time = time.wrapping_add(1); // a directory holds at most 65,536 names, so this ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart_again() {
        let name = backup_of("Talos-v1.12.4.efi", 1_771_000_000, |n| n.ends_with("000"));
        assert_eq!(name, "Talos-v1.12.4.efi.bak.1771000001");
        let b = BackupName::parse(&name).unwrap();
        assert_eq!((b.original.as_str(), b.disabled, b.time), ("Talos-v1.12.4.efi", false, 1_771_000_001));
        assert!(BackupName::parse("Talos-v1.12.4~1.efi.disabled.17").unwrap().disabled);
        for no in ["Talos-v1.12.4.efi", "x.bak.12", "x.efi.bak.", "x.efi.bak.1x", "x.efi.12"] {
            assert_eq!(BackupName::parse(no), None, "{no}");
        }
    }
}
