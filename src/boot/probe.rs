//! What systemd-boot reads of a file in `\EFI\Linux`: under its own rules, version by version, on any bytes.
//!
//! [`crate::pe::Head`] is stricter on purpose, since it judges whether an image is sound. systemd-boot is not: it lists
//! a truncated UKI as long as the parts it reads are there, and then fails to start it. To predict that, this reader is
//! as lenient as systemd-boot's own (`boot_entry_add_type2` in boot.c).

use super::image::{Data, FirmwareFile, Image, Sections};
use super::skip::Skip;
use super::text::{Lines, decode, value};
use super::version::LoaderVersion;
use crate::block::ReadAt;
use std::sync::Arc;

/// `UNIFIED_PROFILES_MAX`.
const MAX_PROFILES: u32 = 256;

/// A file of `\EFI\Linux` as systemd-boot sees it.
///
/// Name and content are kept apart, so that a plan can ask what would be if the file had another name: change `name`.
/// A copy shares the content: plans make one of every file for every state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UkiFile {
    /// Its long name with its case.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether it carries the read-only attribute; systemd-boot 262 does not count down such a file.
    pub read_only: bool,
    /// The profiles in it that can become menu entries, or why there are none, whatever the name says.
    pub content: Result<Arc<[ProfileEntry]>, Skip>,
    /// Profiles that are there but cannot become entries, although others of the file can.
    pub lost: Vec<(u32, Skip)>,
    /// The same for other versions of systemd-boot that may run.
    pub others: Vec<Reading>,
}

/// What another version of systemd-boot reads of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// That version.
    pub loader: LoaderVersion,
    /// As [`UkiFile::content`].
    pub content: Result<Arc<[ProfileEntry]>, Skip>,
    /// As [`UkiFile::lost`].
    pub lost: Vec<(u32, Skip)>,
}

/// What systemd-boot knows of one profile of a UKI.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProfileEntry {
    /// Its number; 0 is the UKI itself.
    pub number: u32,
    /// From os-release: PRETTY_NAME, IMAGE_ID, NAME or ID.
    pub os: Arc<str>,
    /// From os-release: IMAGE_VERSION, VERSION, VERSION_ID or BUILD_ID.
    pub version: Option<Arc<str>>,
    /// From os-release: IMAGE_ID or ID.
    pub sort_key: Option<Arc<str>>,
    /// `ID` of `.profile`.
    pub id: Option<String>,
    /// `TITLE` of `.profile`.
    pub title: Option<String>,
    /// The kernel command line as the menu's editor would show it.
    pub options: Option<Arc<str>>,
}

impl UkiFile {
    /// Reads what the systemd-boot `loader`, built for the COFF machine type `machine`, would read of the regular file
    /// `name` in `\EFI\Linux`. Never fails: what cannot be read is a reason not to be listed. Files whose names keep
    /// them out are read as well, for they may be renamed; it takes a few KiB.
    #[must_use]
    pub fn probe(name: &str, source: &dyn ReadAt, loader: &LoaderVersion, machine: u16) -> Self {
        let mut lost = Vec::new();
        let content = read_profiles(source, loader, machine, &mut lost);
        Self { name: name.to_owned(), is_dir: false, read_only: false, content, lost, others: Vec::new() }
    }

    /// Adds what another version of systemd-boot would read of the same file.
    #[must_use]
    pub fn and_for(mut self, source: &dyn ReadAt, loader: &LoaderVersion, machine: u16) -> Self {
        let mut lost = Vec::new();
        let content = read_profiles(source, loader, machine, &mut lost);
        self.others.push(Reading { loader: loader.clone(), content, lost });
        self
    }

    /// A directory, which systemd-boot passes over whatever its name.
    #[must_use]
    pub fn directory(name: &str) -> Self {
        let content = Err(Skip::Directory);
        Self { name: name.to_owned(), is_dir: true, read_only: false, content, lost: Vec::new(), others: Vec::new() }
    }

    /// The profiles that systemd-boot lists of it.
    ///
    /// # Errors
    /// Why it lists none: the name first, then the content.
    pub fn listed(&self, loader: &LoaderVersion) -> Result<&[ProfileEntry], Skip> {
        if self.is_dir {
            return Err(Skip::Directory);
        }
        if let Some(skip) = refused(&self.name, b".efi", loader) {
            return Err(skip);
        }
        let content = self.others.iter().find(|o| o.loader == *loader).map_or(&self.content, |o| &o.content);
        content.as_deref().map_err(Clone::clone)
    }

    /// Profiles that are there but cannot become entries of this version.
    pub(super) fn lost_for(&self, loader: &LoaderVersion) -> &[(u32, Skip)] {
        self.others.iter().find(|o| o.loader == *loader).map_or(&self.lost, |o| &o.lost)
    }
}

/// The systemd-boot in a file: what it is and what it is built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loader {
    /// From its `.sdmagic` section.
    pub version: LoaderVersion,
    /// Its COFF machine type.
    pub machine: u16,
}

impl Loader {
    /// Reads the `.sdmagic` section of an EFI program; `None` when it is no systemd-boot. Up to 252, builds for arm64
    /// have no such section (their linker script knew none): there the marker lies
    /// somewhere, behind the sections even. 256 KiB are searched, twice as much as these files have.
    #[must_use]
    pub fn probe(source: &dyn ReadAt) -> Option<Self> {
        let newest = LoaderVersion::parse("257")?;
        let mut file = FirmwareFile::new(source, false);
        let image = Image::read(&mut file, &newest, None).ok()?;
        let text = match image.base().find(b".sdmagic") {
            Some(section) => file.read(section.offset, section.bytes).ok()?,
            None if image.machine == 0xAA64 => FirmwareFile::new(source, true).read(0, 0).ok()?,
            None => return None,
        };
        Some(Self { version: LoaderVersion::from_magic(&text)?, machine: image.machine })
    }
}

/// Why systemd-boot passes over a file of that name where it looks for names with this suffix.
pub(super) fn refused(name: &str, suffix: &[u8], loader: &LoaderVersion) -> Option<Skip> {
    let bytes = name.as_bytes();
    let auto = bytes.get(..5).is_some_and(|head| {
        if loader.folds_auto_prefix() { head.eq_ignore_ascii_case(b"auto-") } else { head == b"auto-" }
    });
    let ends = bytes.len() >= suffix.len() && bytes[bytes.len() - suffix.len()..].eq_ignore_ascii_case(suffix);
    match () {
        () if bytes.is_empty() || bytes.starts_with(b".") => Some(Skip::DotFile),
        () if !ends => Some(Skip::NotEfi),
        () if auto => Some(Skip::AutoPrefix),
        () => None,
    }
}

fn read_profiles(
    source: &dyn ReadAt,
    loader: &LoaderVersion,
    machine: u16,
    lost: &mut Vec<(u32, Skip)>,
) -> Result<Arc<[ProfileEntry]>, Skip> {
    let mut file = FirmwareFile::new(source, !loader.strict_sections());
    let image = Image::read(&mut file, loader, Some(machine))?;
    let base = Found::default().overlaid(&image.base());

    let mut profiles = Vec::new();
    for number in 0..if loader.profiles() { MAX_PROFILES } else { 1 } {
        let range = if loader.profiles() { image.profile(number) } else { None };
        let found = match range {
            Some(range) => base.overlaid(&range),
            // Profile 0 needs no `.profile`; any other that is missing is the end.
            None if number == 0 => base,
            None => break,
        };
        match read_profile(&mut file, loader, number, &found) {
            Ok(profile) => profiles.push(profile),
            Err(skip) => {
                lost.push((number, skip));
                continue;
            }
        }
        if found.cmdline.is_none() && loader.stops_without_cmdline() {
            break;
        }
    }
    if profiles.is_empty() {
        let skip = if lost.is_empty() { Skip::NoOsRelease } else { lost.swap_remove(0).1 };
        lost.clear();
        return Err(skip);
    }
    Ok(profiles.into())
}

fn read_profile(
    file: &mut FirmwareFile<'_>,
    loader: &LoaderVersion,
    number: u32,
    found: &Found,
) -> Result<ProfileEntry, Skip> {
    let os_release = found.os_release.ok_or(Skip::NoOsRelease)?;
    let text = file.read(os_release.offset, os_release.bytes).map_err(|e| e.or(Skip::OsReleaseCutOff))?;
    let os = OsRelease::parse(&text, loader).ok_or(Skip::Nameless)?;

    let (mut id, mut title) = (None, None);
    if let Some(section) = found.profile {
        let text = file.read(section.offset, section.bytes).map_err(|e| e.or(Skip::ProfileCutOff))?;
        for (key, v) in Lines::assignments(&text, loader) {
            match key {
                b"ID" => id = value(v, loader),
                b"TITLE" => title = value(v, loader),
                _ => {}
            }
        }
    }
    // Read for display alone: the entry is listed without it.
    let options = found
        .cmdline
        .and_then(|section| file.read(section.offset, section.bytes).ok())
        .map(|text| displayed_options(&decode(&text)));
    Ok(ProfileEntry {
        number,
        os: os.name.into(),
        version: os.version.map(Into::into),
        sort_key: os.sort_key.map(Into::into),
        id,
        title,
        options: options.map(Into::into),
    })
}

/// Control characters become spaces, those at the ends go (`mangle_stub_cmdline`).
fn displayed_options(text: &str) -> String {
    let blank = |c: char| c <= ' ' || c == '\u{7F}';
    text.trim_matches(blank).chars().map(|c| if blank(c) { ' ' } else { c }).collect()
}

/// What systemd-boot takes from os-release (`bootspec_pick_name_version_sort_key`).
struct OsRelease {
    name: String,
    version: Option<String>,
    sort_key: Option<String>,
}

impl OsRelease {
    fn parse(text: &[u8], loader: &LoaderVersion) -> Option<Self> {
        const KEYS: [&[u8]; 8] =
            [b"PRETTY_NAME", b"IMAGE_ID", b"NAME", b"ID", b"IMAGE_VERSION", b"VERSION", b"VERSION_ID", b"BUILD_ID"];
        let mut values: [Option<String>; 8] = Default::default();
        for (key, v) in Lines::assignments(text, loader) {
            // A later line replaces an earlier one, also with nothing.
            if let Some(i) = KEYS.iter().position(|k| *k == key) {
                values[i] = value(v, loader);
            }
        }
        let [pretty_name, image_id, name, id, image_version, version, version_id, build_id] = values;
        Some(Self {
            sort_key: image_id.clone().or_else(|| id.clone()),
            name: pretty_name.or(image_id).or(name).or(id)?,
            version: image_version.or(version).or(version_id).or(build_id),
        })
    }
}

/// The sections of interest of one profile.
#[derive(Clone, Copy, Default)]
struct Found {
    os_release: Option<Data>,
    cmdline: Option<Data>,
    profile: Option<Data>,
}

impl Found {
    /// With the sections of `range` in place of its own.
    fn overlaid(self, range: &Sections<'_>) -> Self {
        let pick = |name: &[u8], base| match range.find(name) {
            Some(own) => Some(own).filter(|own| own.present),
            None => base,
        };
        Self {
            os_release: pick(b".osrel", self.os_release),
            cmdline: pick(b".cmdline", self.cmdline),
            profile: if range.may_be_profile() { pick(b".profile", self.profile) } else { None },
        }
    }
}
