//! The UKIs in the layers of an image. Layers lie on each other, the first one at the bottom: each takes away or
//! replaces what the ones below have.

use super::layout::{ImageLayout, Names, check};
use super::{Layer, Verified};
use crate::block::{FileSource, ReadAt};
use crate::pe::Head;
use crate::sorting::Sort as _;
use crate::{Code, Context, Error, Result};
use sha2::{Digest, Sha256};
use std::cell::{Cell, RefCell};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most UKIs that are taken out at a time, and most bytes of all of them: they lie in temporary files.
const MAX_UKIS: usize = 16;
const MAX_BYTES: u64 = 4 << 30;
/// What a layer may unpack to.
const MAX_LAYER: u64 = 64 << 30;
/// Most members of a layer.
const MAX_MEMBERS: usize = 1 << 20;

/// A UKI with its path in the image.
type Uki = (String, Arc<FileSource>);

/// What is left of the room for UKIs, which all images of an archive share.
pub(super) struct Room {
    ukis: usize,
    bytes: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self { ukis: MAX_UKIS, bytes: MAX_BYTES }
    }
}

/// Path and content of every UKI, in the order of their paths.
pub(super) fn ukis(layout: &ImageLayout, layers: &[Layer], room: &mut Room, cancel: &AtomicBool) -> Result<Vec<Uki>> {
    let mut found = Vec::new();
    for layer in layers {
        found = look(layout, layer, found, room, cancel).while_doing(|| format!("the layer {}", layer.name))?;
    }
    found.put_in_order(|(a, _), (b, _)| a.cmp(b));
    room.ukis -= found.len();
    room.bytes -= bytes(&found);
    Ok(found)
}

fn bytes(ukis: &[Uki]) -> u64 {
    ukis.iter().map(|(_, file)| file.size()).sum()
}

/// Goes through one layer to its end, so that all of it is held against its digest. `below` are the UKIs of the layers
/// below.
fn look(
    layout: &ImageLayout,
    layer: &Layer,
    mut below: Vec<Uki>,
    room: &Room,
    cancel: &AtomicBool,
) -> Result<Vec<Uki>> {
    let (part, _) = layout.part(&layer.name)?;
    let packed = Hashed::new(part, cancel);
    let (packed_hash, blame) = (packed.hash(), Blame { failed: Rc::clone(&packed.failed), cancel });
    let unpacked = Hashed::new(unpack(Box::new(packed)).map_err(|e| blame.error(&e))?, cancel);
    let unpacked_hash = unpacked.hash();
    let mut archive = tar::Archive::new(unpacked.take(MAX_LAYER));
    let mut here: Vec<Uki> = Vec::new();
    let mut names = Names::default();
    for (n, entry) in archive.entries().map_err(|e| blame.error(&e))?.raw(true).enumerate() {
        let mut entry = entry.map_err(|e| blame.error(&e))?;
        let Some(path) = names.of(&mut entry).map_err(|e| blame.error(&e))? else { continue };
        if n >= MAX_MEMBERS {
            return Err(Error::new(Code::Unsupported, "it has more members than are looked at"));
        }
        let kind = entry.header().entry_type();
        let change = Change::of(&path, kind.is_dir());
        below.retain(|(lower, _)| !change.hides(lower));
        // Of two members with one path the later one counts.
        here.retain(|(earlier, _)| change.is_whiteout() || !change.hides(earlier));
        if kind.is_file() && !change.is_whiteout() && is_candidate(&path) {
            let taken = bytes(&below) + bytes(&here);
            if below.len() + here.len() >= room.ukis || entry.size() > room.bytes.saturating_sub(taken) {
                return Err(Error::new(Code::Unsupported, "it holds more or larger UKIs than are taken out"));
            }
            let file = keep(&mut entry, &path, &blame)?;
            if Head::read(&*file).is_ok_and(|head| head.sections.iter().any(|s| s.name == ".linux")) {
                here.push((path, file));
            }
        }
    }
    // To the last byte behind the archive.
    let mut rest = archive.into_inner().into_inner().take(MAX_LAYER);
    io::copy(&mut rest, &mut io::sink()).map_err(|e| blame.error(&e))?;
    match &layer.digest {
        Verified::Packed(digest) => check(&layer.name, digest, &finished(&packed_hash))?,
        Verified::Unpacked(digest) => check(&layer.name, digest, &finished(&unpacked_hash))?,
    }
    below.extend(here);
    Ok(below)
}

/// What a member of a layer does to what lies below it.
enum Change<'a> {
    /// `.wh.NAME`: takes NAME of this folder away, with all in it.
    Removes { folder: &'a str, name: &'a str },
    /// `.wh..wh..opq`: takes away all that layers below have in this folder.
    Empties(&'a str),
    /// A folder, which leaves what is in it and replaces a file.
    Folder(&'a str),
    /// A file, a link or another kind, which replaces a folder as well.
    File(&'a str),
}

impl<'a> Change<'a> {
    fn of(path: &'a str, is_folder: bool) -> Self {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        match name.strip_prefix(".wh.") {
            Some(".wh..opq") => Self::Empties(folder),
            Some(name) => Self::Removes { folder, name },
            None if is_folder => Self::Folder(path),
            None => Self::File(path),
        }
    }

    fn is_whiteout(&self) -> bool {
        matches!(self, Self::Removes { .. } | Self::Empties(_))
    }

    fn hides(&self, lower: &str) -> bool {
        let below = |folder: &str| match folder {
            "" => Some(lower),
            folder => lower.strip_prefix(folder)?.strip_prefix('/'),
        };
        match self {
            Self::Removes { folder, name } => below(folder)
                .and_then(|rest| rest.strip_prefix(name))
                .is_some_and(|r| r.is_empty() || r.starts_with('/')),
            Self::Empties(folder) => below(folder).is_some(),
            // What lies in `lower` makes a folder of it.
            Self::Folder(path) | Self::File(path) if path.strip_prefix(lower).is_some_and(|r| r.starts_with('/')) => {
                true
            }
            Self::Folder(path) => lower == *path,
            Self::File(path) => lower == *path || !path.is_empty() && below(path).is_some(),
        }
    }
}

/// Names that UKIs have in images: `vmlinuz.efi.signed` in Talos' installer, `….efi` elsewhere.
fn is_candidate(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".efi") || name.ends_with(".efi.signed")
}

/// A member of a layer in a temporary file without a name.
fn keep(entry: &mut impl Read, path: &str, blame: &Blame<'_>) -> Result<Arc<FileSource>> {
    let doing =
        || format!("unpacking {path} into a file in {} (TMPDIR names another folder)", std::env::temp_dir().display());
    let mut file = tempfile::tempfile().while_doing(doing)?;
    let mut buf = vec![0; 1 << 16];
    loop {
        match entry.read(&mut buf).map_err(|e| blame.error(&e))? {
            0 => break,
            n => file.write_all(&buf[..n]).while_doing(doing)?,
        }
    }
    FileSource::of_file(file, Path::new(path)).map(Arc::new).while_doing(doing)
}

/// Whose fault it is that a layer cannot be read: the file's, or its own.
struct Blame<'a> {
    failed: Rc<Cell<bool>>,
    cancel: &'a AtomicBool,
}

impl Blame<'_> {
    fn error(&self, e: &io::Error) -> Error {
        if self.cancel.load(Ordering::Relaxed) {
            Error::new(Code::Cancelled, "stopped on request")
        } else if self.failed.get() {
            Error::io(e.to_string())
        } else {
            Error::rejected(format!("it is damaged: {e}")).advise("fetch the image again")
        }
    }
}

/// A layer as it is, or unpacked.
fn unpack<'a>(packed: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    let mut packed = BufReader::with_capacity(1 << 16, packed);
    let head = io::BufRead::fill_buf(&mut packed)?;
    Ok(if head.starts_with(b"\x1F\x8B") {
        Box::new(flate2::bufread::MultiGzDecoder::new(packed))
    } else if head.starts_with(b"\x28\xB5\x2F\xFD") {
        Box::new(zstd::stream::read::Decoder::with_buffer(packed)?)
    } else {
        Box::new(packed)
    })
}

type Hash = Rc<RefCell<Sha256>>;

fn finished(hash: &Hash) -> String {
    format!("sha256:{}", hex::encode(hash.borrow().clone().finalize()))
}

/// Hashes what is read through it, and stops on request.
struct Hashed<'a, R> {
    inner: R,
    hash: Hash,
    /// Set when what is read from fails.
    failed: Rc<Cell<bool>>,
    cancel: &'a AtomicBool,
}

impl<'a, R> Hashed<'a, R> {
    fn new(inner: R, cancel: &'a AtomicBool) -> Self {
        Self { inner, hash: Rc::default(), failed: Rc::default(), cancel }
    }

    fn hash(&self) -> Hash {
        Rc::clone(&self.hash)
    }
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped on request"));
        }
        let n = self.inner.read(buf).inspect_err(|_| self.failed.set(true))?;
        self.hash.borrow_mut().update(&buf[..n]);
        Ok(n)
    }
}
