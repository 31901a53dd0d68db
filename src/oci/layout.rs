//! Where the parts of an image are: files of a folder, or members of a tar archive.

use crate::units::size;
use crate::{Context, Error, Result};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// Longest index, manifest or configuration in bytes (registries allow 4 MiB).
const MAX_JSON: u64 = 4 << 20;
/// Most members of an archive.
const MAX_MEMBERS: usize = 65_536;

/// A folder or an archive.
pub(super) enum ImageLayout {
    Folder(PathBuf),
    /// Where each member lies in the file: offset and length.
    Archive(PathBuf, BTreeMap<String, (u64, u64)>),
}

impl ImageLayout {
    /// `None` when the path is neither.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        let layout = if path.is_dir() {
            Self::Folder(path.to_owned())
        } else if path.is_file() && is_tar(path)? {
            Self::Archive(path.to_owned(), members(path).while_doing(|| "reading the archive")?)
        } else {
            return Ok(None);
        };
        let is_image = layout.has("index.json") || layout.has("manifest.json");
        match (is_image, layout) {
            (true, layout) => Ok(Some(layout)),
            (false, Self::Folder(_)) => {
                Err(Error::rejected("it is a folder without an OCI image in it (no index.json)"))
            }
            (false, Self::Archive(..)) => {
                Err(Error::rejected("it is a tar archive without an OCI image in it (no index.json or manifest.json)"))
            }
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(dir) => dir.join(name).is_file(),
            Self::Archive(_, members) => members.contains_key(name),
        }
    }

    /// The bytes of a part, and how many there are.
    pub(super) fn part(&self, name: &str) -> Result<(Box<dyn Read>, u64)> {
        let missing = || Error::rejected(format!("the image has no {name}, which it names"));
        match self {
            Self::Folder(dir) => {
                let plain = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
                let path = dir.join(name);
                if !plain || !path.is_file() {
                    return Err(missing());
                }
                let file = File::open(&path).while_doing(|| format!("opening {}", path.display()))?;
                let bytes = file.metadata()?.len();
                Ok((Box::new(file), bytes))
            }
            Self::Archive(path, members) => {
                let (offset, bytes) = *members.get(name).ok_or_else(missing)?;
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                Ok((Box::new(file.take(bytes)), bytes))
            }
        }
    }

    /// A part in JSON, held against its digest if it has one.
    pub(super) fn json<T: DeserializeOwned>(&self, name: &str, digest: Option<&str>) -> Result<T> {
        let (part, bytes) = self.part(name)?;
        if bytes > MAX_JSON {
            return Err(Error::rejected(format!("{name} has {}, too many for what it is", size(bytes))));
        }
        let mut text = Vec::new();
        part.take(MAX_JSON).read_to_end(&mut text).while_doing(|| format!("reading {name}"))?;
        if let Some(digest) = digest {
            check(name, digest, &format!("sha256:{}", hex::encode(Sha256::digest(&text))))?;
        }
        serde_json::from_slice(&text).map_err(|e| Error::rejected(format!("{name}: {e}")))
    }
}

/// The name of the blob that has this digest.
pub(super) fn blob(digest: &str) -> Result<String> {
    match digest.strip_prefix("sha256:") {
        Some(hash) if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(format!("blobs/sha256/{hash}"))
        }
        _ => Err(Error::new(crate::Code::Unsupported, format!("the digest {digest:?}: only sha256 is taken here"))),
    }
}

/// Refuses a part that is not what its digest says.
pub(super) fn check(name: &str, expected: &str, found: &str) -> Result<()> {
    if expected.eq_ignore_ascii_case(found) {
        return Ok(());
    }
    Err(Error::rejected(format!("{name} is damaged or was changed: it is {found}, and the image says {expected}"))
        .advise("fetch the image again"))
}

/// `ustar` at its place in the first header.
fn is_tar(path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|f| f.take(512).read_to_end(&mut head))
        .while_doing(|| format!("reading {}", path.display()))?;
    Ok(head.get(257..262) == Some(b"ustar"))
}

/// Longest name of a member in bytes, and longest extended header.
const MAX_NAME: u64 = 64 << 10;

/// The names of the members of an archive, which is read raw: the crate itself reads a long name whole into memory,
/// however long it says that it is.
#[derive(Default)]
pub(super) struct Names(Option<Vec<u8>>);

impl Names {
    /// The name of this member; `None` where it is no member, but says something of the next one (the `L` of GNU, and
    /// the `x` of PAX with `path`) or of all.
    pub(super) fn of<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> std::io::Result<Option<String>> {
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
            if entry.size() > MAX_NAME {
                return Err(std::io::Error::other(format!("a name of {}", size(entry.size()))));
            }
            let mut bytes = Vec::new();
            entry.take(MAX_NAME).read_to_end(&mut bytes)?;
            if kind.is_gnu_longname() {
                let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
                self.0 = Some(bytes[..end].to_vec());
            } else {
                for extension in tar::PaxExtensions::new(&bytes) {
                    let extension = extension?;
                    match extension.key_bytes() {
                        b"path" => self.0 = Some(extension.value_bytes().to_vec()),
                        b"size" => return Err(std::io::Error::other("a member of 8 GiB or more")),
                        _ => {}
                    }
                }
            }
            return Ok(None);
        }
        if kind.is_gnu_longlink() || kind.is_pax_global_extensions() {
            return Ok(None);
        }
        let name = self.0.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        Ok(Some(String::from_utf8_lossy(&name).trim_start_matches("./").trim_end_matches('/').to_owned()))
    }
}

/// The regular files of an archive.
fn members(path: &Path) -> Result<BTreeMap<String, (u64, u64)>> {
    let mut members = BTreeMap::new();
    let mut archive = tar::Archive::new(File::open(path)?);
    let damaged =
        |e: std::io::Error| Error::rejected(format!("the archive is damaged: {e}")).advise("fetch the image again");
    let mut names = Names::default();
    for entry in archive.entries_with_seek()?.raw(true).take(MAX_MEMBERS) {
        let mut entry = entry.map_err(damaged)?;
        let Some(name) = names.of(&mut entry).map_err(damaged)? else { continue };
        if entry.header().entry_type().is_file() {
            members.insert(name, (entry.raw_file_position(), entry.size()));
        }
    }
    Ok(members)
}
