//! A folder of assets that were downloaded before: `<schematic>/<version>/<name>`, each with its SHA-256 beside it in
//! the form of `sha256sum`. Whatever is taken out is hashed first; what does not fit its hash is removed and fetched
//! anew.

use super::client::{Asset, Factory};
use super::download::{Destination, fetch};
use super::options::{Options, TransferEvent};
use crate::block::{FileSource, ReadAt, sha256_of, write_whole};
use crate::{Context, Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Bytes of a file with a hash that are read.
const MAX_HASH_FILE: u64 = 4096;

/// A cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
    offline: bool,
}

/// Which file of the factory.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// What.
    pub asset: Asset,
    /// Of which schematic: its ID.
    pub schematic: &'a str,
    /// Which Talos version, with or without `v`.
    pub talos: &'a str,
    /// `arm64` or `amd64`.
    pub arch: &'a str,
}

impl Cache {
    /// The cache in `dir`, which is made when something is put into it. `offline`: nothing else is asked.
    #[must_use]
    pub fn new(dir: PathBuf, offline: bool) -> Self {
        Self { dir, offline }
    }

    /// Whether nothing but the cache is asked.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// The path of an asset, fetched if it is not there yet.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when it is not there and cannot be fetched, or may not be; else as [`fetch`].
    pub fn get(
        &self,
        factory: &Factory,
        key: Key<'_>,
        options: &Options,
        cancel: &AtomicBool,
        events: &mut dyn FnMut(TransferEvent),
    ) -> Result<PathBuf> {
        let url = factory.asset_url(key.asset, key.schematic, key.talos, key.arch)?;
        // The URL is checked: its last parts are a plain ID, version and name.
        let parts: Vec<&str> = url.rsplit('/').take(3).collect();
        let path = parts.iter().rev().fold(self.dir.clone(), |dir, part| dir.join(part));
        let hash = hash_file(&path);
        let there = path.symlink_metadata().is_ok();
        if there && is_whole(&path, &hash)? {
            return Ok(path);
        }
        if self.offline {
            let state = if there { "is damaged in the cache" } else { "is not in the cache" };
            return Err(Error::io(format!("{} {state}, and --offline forbids fetching it", path.display()))
                .advise("fetch it once with the same --cache and without --offline"));
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).while_doing(|| format!("making {}", parent.display()))?;
        }
        // These names are the cache's own: what has one of them and is not whole is an earlier, damaged copy.
        let to = Destination { file: &path, force: true, expected: key.asset.into() };
        let fetched = fetch(&url, &to, options, cancel, events)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        write_whole(&hash, format!("{}  {name}\n", fetched.sha256).as_bytes(), true)?;
        Ok(path)
    }
}

fn hash_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sha256");
    PathBuf::from(name)
}

/// Whether the file is the one whose hash was written down.
fn is_whole(path: &Path, hash: &Path) -> Result<bool> {
    if !path.metadata().is_ok_and(|m| m.is_file()) || !hash.metadata().is_ok_and(|m| m.is_file()) {
        return Ok(false);
    }
    let mut recorded = String::new();
    if File::open(hash)?.take(MAX_HASH_FILE).read_to_string(&mut recorded).is_err() {
        return Ok(false);
    }
    let file = FileSource::open(path)?;
    let actual = hex::encode(sha256_of(&file, file.size())?);
    Ok(recorded.split_whitespace().next() == Some(actual.as_str()))
}
