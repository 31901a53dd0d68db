//! The UKIs in the layers of an image: the top layer first, because it hides what has the same path below.

use super::layout::{ImageLayout, Names, check};
use super::{Layer, Verified};
use crate::block::FileSource;
use crate::pe::Head;
use crate::{Code, Context, Error, Result};
use sha2::{Digest, Sha256};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most UKIs that are taken out of an image, and most bytes of one.
const MAX_UKIS: usize = 16;
const MAX_BYTES: u64 = 2 << 30;
/// What a layer may unpack to.
const MAX_LAYER: u64 = 64 << 30;
/// Most members of a layer, and most paths that are remembered as hidden.
const MAX_MEMBERS: usize = 1 << 20;
/// Most bytes of these paths.
const MAX_REMEMBERED: usize = 32 << 20;

/// Path and content of every UKI.
pub(super) fn ukis(
    layout: &ImageLayout,
    layers: &[Layer],
    cancel: &AtomicBool,
) -> Result<Vec<(String, Arc<FileSource>)>> {
    let mut found = Vec::new();
    let mut hidden = Hidden::default();
    for layer in layers.iter().rev() {
        let here =
            look(layout, layer, &hidden, cancel, &mut found).while_doing(|| format!("the layer {}", layer.name))?;
        hidden.extend(here);
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// What upper layers have instead of what lies below.
#[derive(Default)]
struct Hidden {
    paths: HashSet<String>,
    folders: HashSet<String>,
}

impl Hidden {
    fn extend(&mut self, other: Self) {
        self.paths.extend(other.paths);
        self.folders.extend(other.folders);
    }

    fn hides(&self, path: &str) -> bool {
        let mut parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        self.paths.contains(path) || parents.any(|p| self.folders.contains(p) || self.paths.contains(p))
    }
}

/// Goes through one layer to its end, so that all of it is held against its digest.
fn look(
    layout: &ImageLayout,
    layer: &Layer,
    hidden: &Hidden,
    cancel: &AtomicBool,
    found: &mut Vec<(String, Arc<FileSource>)>,
) -> Result<Hidden> {
    let (part, _) = layout.part(&layer.name)?;
    let packed = Hashed::new(part, cancel);
    let (packed_hash, blame) = (packed.hash(), Blame { failed: Rc::clone(&packed.failed), cancel });
    let unpacked = Hashed::new(unpack(Box::new(packed)).map_err(|e| blame.error(&e))?, cancel);
    let unpacked_hash = unpacked.hash();
    let mut here = Hidden::default();
    let mut archive = tar::Archive::new(unpacked.take(MAX_LAYER));
    let mut kept = Vec::new();
    let (mut names, mut remembered) = (Names::default(), 0);
    for (n, entry) in archive.entries().map_err(|e| blame.error(&e))?.raw(true).enumerate() {
        let mut entry = entry.map_err(|e| blame.error(&e))?;
        let Some(path) = names.of(&mut entry).map_err(|e| blame.error(&e))? else { continue };
        if is_candidate(&path) || path.contains(".wh.") {
            remembered += path.len();
        }
        if n >= MAX_MEMBERS || remembered > MAX_REMEMBERED {
            return Err(Error::new(Code::Unsupported, "it has more members than are looked at"));
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            here.folders.insert(folder.to_owned());
        } else if let Some(gone) = name.strip_prefix(".wh.") {
            let gone = if folder.is_empty() { gone.to_owned() } else { format!("{folder}/{gone}") };
            here.paths.insert(gone);
        } else if !is_candidate(name) || hidden.hides(&path) {
            // Of no interest, or replaced further up.
        } else {
            if entry.header().entry_type().is_file() {
                if kept.len() + found.len() >= MAX_UKIS || entry.size() > MAX_BYTES {
                    return Err(Error::new(Code::Unsupported, "it holds more or larger UKIs than are taken out"));
                }
                let file = keep(&mut entry, &path, &blame)?;
                if Head::read(&*file).is_ok_and(|head| head.sections.iter().any(|s| s.name == ".linux")) {
                    kept.push((path.clone(), file));
                }
            }
            here.paths.insert(path);
        }
    }
    // To the last byte behind the archive.
    let mut rest = archive.into_inner().into_inner().take(MAX_LAYER);
    io::copy(&mut rest, &mut io::sink()).map_err(|e| blame.error(&e))?;
    match &layer.digest {
        Verified::Packed(digest) => check(&layer.name, digest, &finished(&packed_hash))?,
        Verified::Unpacked(digest) => check(&layer.name, digest, &finished(&unpacked_hash))?,
    }
    found.extend(kept);
    Ok(here)
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
