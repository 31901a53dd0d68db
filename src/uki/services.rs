//! Extension services that wait for configuration: found in the extensions' squashfs images while the initrd is read.
//!
//! An extension describes its services in `usr/local/etc/containers/*.yaml`. A service that depends on configuration
//! does not start before the node has an ExtensionServiceConfig document for it. Source:
//! `pkg/machinery/extensions/services` and `internal/app/machined/pkg/system/services/extension.go` of Talos.
//!
//! Of an image that is larger than [`HEAD`] + [`TAIL`] only so much at its beginning and end is kept. mksquashfs puts
//! the tables at the end, and small files into a block that it writes when it is full or everything else is written:
//! with few files it is at the end, with many at the beginning. Where that fails, it is said.

use super::os_release::OsRelease;
use super::squashfs::{Bytes, Squashfs, SquashfsError};
use crate::yaml::{Invalid, Merge, scalar};
use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;

/// How much of an image's beginning is kept.
const HEAD: u64 = 12 << 20;
/// How much of its end.
const TAIL: u64 = 4 << 20;
/// Where Talos looks for service descriptions.
const FOLDER: [&str; 4] = ["usr", "local", "etc", "containers"];
/// Service descriptions of one extension; real ones have one or two.
const MAX_FILES: usize = 64;
/// Bytes of a description; real ones have about 1 KiB.
const MAX_BYTES: usize = 64 * 1024;
/// Squashfs blocks that are unpacked for all images together. Real images need about ten each.
const MAX_BLOCKS: u32 = 16_384;

/// What an extension's image says about its services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Services {
    /// Names of all services, as in `ext-NAME`.
    pub all: Vec<String>,
    /// Names of services that wait for an ExtensionServiceConfig document.
    pub waiting: Vec<String>,
    /// Why the image, or one of the descriptions, could not be read, although it may be sound.
    pub unread: Option<String>,
    /// Why Linux would not mount the image, or could not read it.
    pub damaged: Option<String>,
    /// `VERSION_ID` of the os-release in a root file system, if it could be read.
    pub version: Option<String>,
}

/// How much is asked of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Whether Linux would mount it, and its version: a root file system.
    Root,
    /// Whether Linux would mount it, and what services it brings: an extension.
    Services,
}

/// Reads services out of squashfs images that come by in pieces.
pub(super) struct Collector {
    found: BTreeMap<String, Services>,
    budget: u32,
    image: Option<Kept>,
    name: String,
    look: Look,
}

impl Collector {
    pub(super) fn new() -> Self {
        Self { found: BTreeMap::new(), budget: MAX_BLOCKS, image: None, name: String::new(), look: Look::Root }
    }

    /// An image of so many bytes begins.
    pub(super) fn begin(&mut self, name: &str, bytes: u64, look: Look) {
        let buffers = self.image.take().unwrap_or_default();
        self.image = Some(buffers.reset_for(bytes));
        name.clone_into(&mut self.name);
        self.look = look;
    }

    /// Its next bytes.
    pub(super) fn data(&mut self, bytes: &[u8]) {
        if let Some(image) = &mut self.image {
            image.push(bytes);
        }
    }

    /// It is over: a later image of the same name replaces what an earlier one said.
    pub(super) fn end(&mut self) {
        let Some(image) = &self.image else { return };
        let services = services(image, self.look, &mut self.budget);
        self.found.insert(std::mem::take(&mut self.name), services);
    }

    /// What each image said, by name.
    pub(super) fn finish(self) -> BTreeMap<String, Services> {
        self.found
    }
}

fn services(image: &Kept, look: Look, budget: &mut u32) -> Services {
    let files = Squashfs::open(image, budget).and_then(|mut fs| match look {
        Look::Root => os_release(&mut fs),
        Look::Services => fs.read_dir(&FOLDER, ".yaml", MAX_FILES, MAX_BYTES),
    });
    let files = match files {
        Ok(files) if look == Look::Root => {
            let version = files.first().and_then(|(_, text)| OsRelease::parse(text).version_id);
            return Services { version, ..Services::default() };
        }
        Ok(files) => files,
        Err(SquashfsError::Unread(_)) if look == Look::Root => return Services::default(),
        Err(SquashfsError::Unread(why)) => return Services { unread: Some(why), ..Services::default() },
        Err(SquashfsError::Damaged(why)) => return Services { damaged: Some(why), ..Services::default() },
    };
    let mut found = Services::default();
    for (name, content) in files {
        match waits(&content) {
            Ok((service, waits)) => {
                found.waiting.extend(waits.then(|| service.clone()));
                found.all.push(service);
            }
            Err(e) => found.unread = Some(format!("{}/{name}: {e}", FOLDER.join("/"))),
        }
    }
    found
}

/// The os-release of a root file system; in one of the two places it is a link to the other.
fn os_release(fs: &mut Squashfs<'_, Kept>) -> Result<Vec<(String, Vec<u8>)>, SquashfsError> {
    for folder in [&["etc"][..], &["usr", "lib"]] {
        let mut files = fs.read_dir(folder, "os-release", MAX_FILES, MAX_BYTES)?;
        files.retain(|(name, _)| name == "os-release");
        if !files.is_empty() {
            return Ok(files);
        }
    }
    Ok(Vec::new())
}

/// The service's name, and whether it waits for configuration.
fn waits(yaml: &[u8]) -> Result<(String, bool)> {
    let text = std::str::from_utf8(yaml).map_err(|e| Error::rejected(e.to_string()))?;
    service(text).map_err(|invalid| Error::rejected(invalid.to_string()))
}

/// Of the things that a service can wait for, the others are `service`, `path`, `network` and `time`.
fn service(text: &str) -> Result<(String, bool), Invalid> {
    let document = super::extensions::one_document(text)?;
    let fields = document.fields(Merge::Apply)?;
    let name = fields.need("name")?.text()?;
    let mut waits = false;
    for dependency in fields.find("depends").map_or(Ok(&[][..]), |depends| depends.list())? {
        if let Some(configuration) = dependency.fields(Merge::Apply)?.find("configuration") {
            let boolean = scalar::loose_boolean(configuration.text()?);
            waits |= boolean.ok_or_else(|| configuration.invalid("this is not a boolean (true or false)"))?;
        }
    }
    Ok((name.to_owned(), waits))
}

/// The beginning and the end of an image.
#[derive(Default)]
struct Kept {
    bytes: u64,
    seen: u64,
    /// How much of the beginning is kept, and where what is kept of the end begins.
    limits: (u64, u64),
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Kept {
    /// For the next image, with the memory of the last.
    fn reset_for(mut self, bytes: u64) -> Self {
        self.head.clear();
        self.tail.clear();
        self.bytes = bytes;
        self.seen = 0;
        self.limits = if bytes <= HEAD + TAIL { (bytes, bytes) } else { (HEAD, bytes - TAIL) };
        // At once: to grow step by step would copy it all several times. What is not written to takes no memory.
        let (head, tail) = self.limits;
        self.head.reserve_exact(head as usize);
        self.tail.reserve_exact((bytes - tail) as usize);
        self
    }

    fn push(&mut self, bytes: &[u8]) {
        let (head, tail) = self.limits;
        let n = (head.saturating_sub(self.seen)).min(bytes.len() as u64) as usize;
        self.head.extend_from_slice(&bytes[..n]);
        let skip = tail.saturating_sub(self.seen).min(bytes.len() as u64) as usize;
        self.tail.extend_from_slice(&bytes[skip..]);
        self.seen += bytes.len() as u64;
    }
}

impl Bytes for Kept {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn bytes(&self, at: u64, len: usize) -> Option<&[u8]> {
        let (_, tail) = self.limits;
        let (part, at) = if at < tail { (&self.head, at) } else { (&self.tail, at - tail) };
        let at = usize::try_from(at).ok()?;
        part.get(at..at.checked_add(len)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dependency_on_configuration_makes_a_service_wait() {
        let wait = |yaml: &str| Some(waits(yaml.as_bytes()).unwrap()).filter(|(_, waits)| *waits).map(|(name, _)| name);
        let spec =
            "name: tailscale\ncontainer: {entrypoint: /x}\ndepends:\n  - service: cri\n  - network: [addresses]\n";
        assert_eq!(wait(spec), None);
        assert_eq!(wait(&format!("{spec}  - configuration: false\n")), None);
        assert_eq!(wait(&format!("{spec}  - configuration: true\nrestart: always\n")).as_deref(), Some("tailscale"));
        assert_eq!(wait("name: a\n"), None);
        assert_eq!(wait("name: a\ndepends:\n"), None);
        for bad in ["", "depends: []", "name: [", "name: a\ndepends: {configuration: true}", "\u{0}"] {
            assert!(waits(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(waits(b"name: \xFF").is_err());
    }

    #[test]
    fn of_a_large_image_beginning_and_end_are_kept() {
        const BYTES: usize = (HEAD + TAIL) as usize + 5_000_000;
        let image: Vec<u8> = (0..BYTES as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for piece in [77_777, BYTES] {
            // A shorter image before it leaves nothing behind.
            let mut kept = Kept::default().reset_for(10);
            kept.push(&[1; 10]);
            assert_eq!(kept.bytes(0, 10), Some(&[1; 10][..]));
            assert_eq!(kept.bytes(1, 10), None);
            let mut kept = kept.reset_for(BYTES as u64);
            image.chunks(piece).for_each(|part| kept.push(part));
            assert_eq!(kept.head.len() + kept.tail.len(), (HEAD + TAIL) as usize);
            for (at, len) in [(0, 96), (HEAD as usize - 5, 5), (BYTES - TAIL as usize, 5), (BYTES - 5, 5)] {
                assert_eq!(kept.bytes(at as u64, len), Some(&image[at..at + len]), "{at}");
            }
            for (at, len) in [(HEAD - 1, 2), (HEAD, 1), (BYTES as u64 - TAIL - 1, 2), (BYTES as u64, 1), (u64::MAX, 2)]
            {
                assert_eq!(kept.bytes(at, len), None, "{at}");
            }
        }
    }

    #[test]
    fn what_is_no_squashfs_says_so_and_the_last_of_a_name_counts() {
        let mut collector = Collector::new();
        for content in [&b"short"[..], &[0; 200]] {
            collector.begin("0.sqsh", content.len() as u64, Look::Services);
            collector.data(content);
            collector.end();
        }
        let found = collector.finish();
        assert_eq!(found["0.sqsh"].damaged.as_deref(), Some("it is not a squashfs image"));
        assert_eq!(found.len(), 1);
    }
}
