//! Downloads to a file, continued where an earlier one stopped.
//!
//! Bytes go to `<out>.part`, what they are a part of to `<out>.part.json`; only a complete, verified, synced file gets
//! the name it was asked for. Touches those files and the network, nothing else.

use super::http::{Control, Http, Request};
use super::options::{Event, Options, without_query};
use super::transfer::{Endpoint, Entity, Piece, Transfer};
use crate::{Context, Error, Kind, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// A finished download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Bytes that an earlier download had left and that were kept.
    pub resumed_from: u64,
    /// Bytes that came over the network, bodies only.
    pub wire_bytes: u64,
    /// Whether a hash published beside the file agreed.
    pub verified: bool,
}

/// What `<out>.part` is a part of.
#[derive(Serialize, Deserialize)]
struct Note {
    /// SHA-256 of the URL: a URL may hold a token, which a file has no business to keep.
    url: String,
    entity: Entity,
}

/// Downloads `url` to `out`, going on from `<out>.part` when that is part of the same file. An existing `out` is
/// replaced, at the very end and in one step.
///
/// # Errors
/// [`Kind::Io`] when the network or the file fails for good (the part stays for the next run), [`Kind::Rejected`] when a
/// published hash does not agree (the part is removed), [`Kind::Cancelled`] when `cancel` was set.
pub fn fetch(
    url: &str,
    out: &Path,
    options: &Options,
    cancel: &AtomicBool,
    events: &mut dyn FnMut(Event),
) -> Result<Fetched> {
    let http = Http::new(options.clone())?;
    let deadline = options.overall.and_then(|limit| Instant::now().checked_add(limit));
    let mut control = Control { cancel, deadline, events };
    let outcome = fetch_with(&http, url, out, &mut control);
    let part = beside(out, ".part");
    // `Unsafe` means that the part is another process's.
    let ours = outcome.as_ref().is_err_and(|e| e.kind() != Kind::Unsafe);
    if ours && std::fs::metadata(&part).is_ok_and(|m| m.len() == 0) {
        let _ = std::fs::remove_file(part); // nothing in it to go on from
    }
    outcome.while_doing(|| format!("downloading {}", without_query(url)))
}

fn fetch_with(http: &Arc<Http>, url: &str, out: &Path, control: &mut Control<'_>) -> Result<Fetched> {
    let part_path = beside(out, ".part");
    let note_path = beside(out, ".part.json");
    let mut part = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&part_path)
        .while_doing(|| format!("opening {}", part_path.display()))?;
    rustix::fs::flock(&part, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::refused(format!("another process is writing {}", part_path.display())).advise("wait for it to finish")
    })?;

    let (mut at, entity, mut hash) = kept(&mut part, &note_path, url)?;
    let resumed_from = at;
    let mut resumed = at;
    let mut noted = entity.clone();
    let mut transfer = Transfer::new(http, &Endpoint::new(url), at, None, entity);
    loop {
        let piece = transfer.next(control)?;
        if transfer.entity != noted
            && let Some(entity) = &transfer.entity
        {
            write_note(&note_path, url, entity)?;
            noted = Some(entity.clone());
        }
        match piece {
            Piece::Data(chunk) => {
                part.write_all(&chunk).while_doing(|| format!("writing {}", part_path.display()))?;
                hash.update(&chunk);
                at += chunk.len() as u64;
                transfer.give_back(chunk);
                (control.events)(Event::Progress { bytes: at, total: transfer.total() });
            }
            Piece::StartOver => {
                part.set_len(0)?;
                part.seek(SeekFrom::Start(0))?;
                (at, resumed) = (0, 0);
                hash = Sha256::new();
            }
            Piece::End => break,
        }
    }
    let sha256 = hex::encode(hash.finalize());
    let verified = match check_sidecars(http, url, &mut part, &sha256, control) {
        Err(e) if e.kind() == Kind::Rejected => {
            // A corrupt part would be continued for ever.
            let _ = std::fs::remove_file(&part_path);
            let _ = std::fs::remove_file(&note_path);
            return Err(e);
        }
        outcome => outcome?,
    };
    part.sync_all()?;
    std::fs::rename(&part_path, out).while_doing(|| format!("renaming to {}", out.display()))?;
    let _ = std::fs::remove_file(&note_path);
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    let wire_bytes = http.wire.load(std::sync::atomic::Ordering::Relaxed);
    Ok(Fetched { bytes: at, sha256, resumed_from: resumed.min(resumed_from), wire_bytes, verified })
}

/// What an earlier download left: how many bytes are good, of what, and their hash so far. The file stands after them.
fn kept(part: &mut File, note_path: &Path, url: &str) -> Result<(u64, Option<Entity>, Sha256)> {
    let bytes = part.metadata()?.len();
    let note: Option<Note> = std::fs::read(note_path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let entity = note.filter(|n| n.url == url_hash(url)).map(|n| n.entity).filter(|e| e.validator().is_some());
    let Some(entity) = entity else {
        part.set_len(0)?;
        return Ok((0, None, Sha256::new()));
    };
    // One byte is always asked for, so that the server confirms a part that is complete.
    let good = entity.length.map_or(bytes, |length| bytes.min(length.saturating_sub(1)));
    part.set_len(good)?;
    let mut hash = Sha256::new();
    part.seek(SeekFrom::Start(0))?;
    each_chunk(part, |chunk| hash.update(chunk))?;
    Ok((good, (good > 0).then_some(entity), hash))
}

fn each_chunk(file: &mut File, mut each: impl FnMut(&[u8])) -> Result<()> {
    let mut buf = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buf)? {
            0 => return Ok(()),
            n => each(&buf[..n]),
        }
    }
}

fn write_note(path: &Path, url: &str, entity: &Entity) -> Result<()> {
    let note = Note { url: url_hash(url), entity: entity.clone() };
    let text = serde_json::to_vec(&note).map_err(|e| Error::io(e.to_string()))?;
    std::fs::write(path, text).while_doing(|| format!("writing {}", path.display()))
}

/// Compares with `<url>.sha256`, else `<url>.sha512`; `false` when the server has neither.
fn check_sidecars(
    http: &Arc<Http>,
    url: &str,
    part: &mut File,
    sha256: &str,
    control: &mut Control<'_>,
) -> Result<bool> {
    if !http.options.sidecars {
        return Ok(false);
    }
    let mut fetch = |suffix: &str, digits: usize| -> Result<Option<String>> {
        let (path, query) = url.find('?').map_or((url, ""), |i| url.split_at(i));
        match http.small(&Request::get(&format!("{path}{suffix}{query}")), 4096, control) {
            // `<hex>  <name>`; anything else is no hash (some servers answer every path).
            Ok(body) => {
                let text = String::from_utf8_lossy(&body);
                let word = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
                Ok((word.len() == digits && word.bytes().all(|b| b.is_ascii_hexdigit())).then_some(word))
            }
            Err((400..=499, e)) if e.kind() != Kind::Cancelled => Ok(None),
            Err((_, e)) => Err(e.while_doing("looking for a published hash")),
        }
    };
    let (published, found, name) = if let Some(published) = fetch(".sha256", 64)? {
        (published, sha256.to_owned(), "SHA-256")
    } else if let Some(published) = fetch(".sha512", 128)? {
        let mut hash = Sha512::new();
        part.seek(SeekFrom::Start(0))?;
        each_chunk(part, |chunk| hash.update(chunk))?;
        (published, hex::encode(hash.finalize()), "SHA-512")
    } else {
        return Ok(false);
    };
    if published != found {
        return Err(Error::rejected(format!("its {name} is {found}, published is {published}"))
            .advise("the download was corrupted on its way: run it again"));
    }
    Ok(true)
}

fn url_hash(url: &str) -> String {
    hex::encode(Sha256::digest(url))
}

fn beside(out: &Path, suffix: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
