//! Downloads to a file, continued where an earlier one stopped.
//!
//! Bytes go to `<out>.part`, what they are a part of to `<out>.part.json`; only a complete, verified, synced file gets
//! the name it was requested. Touches those files and the network, nothing else.

use super::client::Asset;
use super::http::{Control, Http, Request};
use super::options::{Options, TransferEvent};
use super::page::{PAGE_ADVICE, is_page};
use super::transfer::{Endpoint, Entity, Piece, Transfer};
use super::url::show_url;
use crate::block::{PartFile, check_free, read_own, write_whole};
use crate::{Code, Context, Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Bytes of a note that are read.
const MAX_NOTE: u64 = 64 * 1024;
/// Bytes of a published hash that are read.
const MAX_SIDECAR: usize = 4096;

/// A finished download.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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

/// Where a download goes, and what it must be.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// The name of the finished file.
    pub file: &'a Path,
    /// Replace the file if it exists.
    pub force: bool,
    /// What has to come.
    pub expected: Expected,
}

/// What a download has to be, by the first bytes of its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever comes.
    Anything,
    /// An ISO 9660 image.
    Iso,
    /// A PE image.
    Uki,
    /// A tar archive.
    Archive,
}

impl From<Asset> for Expected {
    fn from(asset: Asset) -> Self {
        match asset {
            Asset::Iso | Asset::PlainIso => Self::Iso,
            Asset::Uki | Asset::PlainUki => Self::Uki,
            Asset::Installer | Asset::PlainInstaller => Self::Archive,
        }
    }
}

/// Downloads `url` to a file, going on from `<file>.part` when that is part of the same file. The file gets its name at
/// the very end and in one step.
///
/// # Errors
/// [`Code::Exists`] when the file exists and may not be replaced, or when `<file>.part` or `<file>.part.json` is
/// somebody else's; [`Code::Network`] when the network fails for good (the part stays for the next run) or something
/// else came than was expected; [`crate::Kind::Rejected`] when a published hash does not agree (the part is removed);
/// [`Code::Cancelled`] when `cancel` was set.
pub fn fetch(
    url: &str,
    to: &Destination<'_>,
    options: &Options,
    cancel: &AtomicBool,
    events: &mut dyn FnMut(TransferEvent),
) -> Result<Fetched> {
    let mut work = || -> Result<Fetched> {
        // Said before anything is transferred.
        check_free(to.file, to.force).while_doing(|| to.file.display().to_string())?;
        let http = Http::new(options.clone())?;
        let deadline = options.overall.and_then(|limit| Instant::now().checked_add(limit));
        fetch_with(&http, url, to, &mut Control { cancel, deadline, events })
    };
    work().while_doing(|| format!("downloading {}", show_url(url)))
}

fn fetch_with(http: &Arc<Http>, url: &str, to: &Destination<'_>, control: &mut Control<'_>) -> Result<Fetched> {
    let note_path = beside(to.file, ".part.json");
    let mut part = open_part(to, &note_path)?;
    let (mut at, entity, mut hash) = kept(&mut part, &note_path, url)?;
    let resumed_from = at;
    let mut resumed = at;
    let mut noted = entity.clone();
    let mut recognised = false;
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
                part.file().write_all(&chunk).while_doing(|| format!("writing {}", part.path().display()))?;
                hash.update(&chunk);
                at += chunk.len() as u64;
                transfer.give_back(chunk);
                (control.events)(TransferEvent::Progress { bytes: at, total: transfer.total() });
            }
            Piece::StartOver => {
                part.file().set_len(0)?;
                part.file().seek(SeekFrom::Start(0))?;
                (at, resumed) = (0, 0);
                hash = Sha256::new();
            }
            Piece::End => break,
        }
        if !recognised && at >= ENOUGH_TO_TELL {
            recognised = true;
            if let Err(e) = to.expected.check(part.file()) {
                drop_part(part, &note_path);
                return Err(e);
            }
        }
    }
    let sha256 = hex::encode(hash.finalize());
    if let Err(e) = to.expected.check(part.file()) {
        drop_part(part, &note_path);
        return Err(e);
    }
    let verified = match check_sidecars(http, url, part.file(), &sha256, control) {
        // A wrong part would be continued for ever.
        Err(e) if e.code().is_bad_content() => {
            drop_part(part, &note_path);
            return Err(e);
        }
        outcome => outcome?,
    };
    part.file().sync_all()?;
    part.commit(to.file, to.force).while_doing(|| format!("renaming to {}", to.file.display()))?;
    let _ = std::fs::remove_file(&note_path);
    let folder = to.file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    let wire_bytes = http.wire.load(std::sync::atomic::Ordering::Relaxed);
    Ok(Fetched { bytes: at, sha256, resumed_from: resumed.min(resumed_from), wire_bytes, verified })
}

/// Opens `<file>.part`, which is either new or what an earlier download left: then its note lies beside it. Anything
/// else of these names is the user's.
fn open_part(to: &Destination<'_>, note_path: &Path) -> Result<PartFile> {
    let part_path = beside(to.file, ".part");
    let part = PartFile::open(&part_path).while_doing(|| format!("opening {}", part_path.display()))?;
    let note = read_own(note_path, MAX_NOTE).while_doing(|| format!("opening {}", note_path.display()))?;
    let ours = note.as_ref().is_some_and(|text| serde_json::from_slice::<Note>(text).is_ok());
    let strangers = match (part.found() > 0, note) {
        _ if ours || to.force => None,
        (_, Some(_)) => Some(note_path),
        (true, None) => Some(&*part_path),
        (false, None) => None,
    };
    match strangers {
        None => Ok(part),
        Some(path) => Err(Error::new(
            Code::Exists,
            format!("{} exists, and is not what an earlier download has left", path.display()),
        )
        .advise("choose another --out, move that file away, or replace it with --force")),
    }
}

fn drop_part(part: PartFile, note_path: &Path) {
    part.discard();
    let _ = std::fs::remove_file(note_path);
}

/// What an earlier download left: how many bytes are good, of what, and their hash so far. The file stands after them.
fn kept(part: &mut PartFile, note_path: &Path, url: &str) -> Result<(u64, Option<Entity>, Sha256)> {
    let bytes = part.found();
    let note: Option<Note> = read_own(note_path, MAX_NOTE)?.and_then(|text| serde_json::from_slice(&text).ok());
    let entity = note.filter(|n| n.url == url_hash(url)).map(|n| n.entity).filter(|e| e.validator().is_some());
    let file = part.file();
    let Some(entity) = entity else {
        file.set_len(0)?;
        return Ok((0, None, Sha256::new()));
    };
    // One byte is always asked for, so that the server confirms a part that is complete.
    let good = entity.length.map_or(bytes, |length| bytes.min(length.saturating_sub(1)));
    file.set_len(good)?;
    let mut hash = Sha256::new();
    file.seek(SeekFrom::Start(0))?;
    each_chunk(file, |chunk| hash.update(chunk))?;
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
    // What has this name is an earlier note: `open_part` has looked.
    write_whole(path, &text, true)
}

/// Bytes from which on a file shows what it is: an ISO does it in its first volume descriptor, at 32 KiB.
const ENOUGH_TO_TELL: u64 = 64 * 1024;

impl Expected {
    /// Whether the beginning of the file is that of the format.
    fn check(self, file: &File) -> Result<()> {
        let mut head = vec![0; ENOUGH_TO_TELL as usize];
        let mut filled = 0;
        while filled < head.len() {
            match file.read_at(&mut head[filled..], filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        let found = sniff(&head[..filled]);
        let wanted = match self {
            Self::Anything => return Ok(()),
            Self::Iso if found == Sniffed::Iso => return Ok(()),
            Self::Uki if found == Sniffed::Pe => return Ok(()),
            Self::Archive if found == Sniffed::Archive => return Ok(()),
            Self::Iso => "an ISO",
            Self::Uki => "a UKI",
            Self::Archive => "an installer's image",
        };
        let error = |came: &str| Error::new(Code::Network, format!("{wanted} was requested, and {came} came"));
        Err(match found {
            Sniffed::Page => error("a web page").advise(PAGE_ADVICE),
            Sniffed::Iso => error("an ISO").advise("check the URL of the factory"),
            Sniffed::Pe => error("an EFI program").advise("check the URL of the factory"),
            Sniffed::Archive => error("an archive").advise("check the URL of the factory"),
            Sniffed::Other if filled == 0 => error("nothing").advise("check the URL of the factory"),
            Sniffed::Other => error("something else").advise("check the URL of the factory, and the proxy variables"),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sniffed {
    Iso,
    Pe,
    Archive,
    Page,
    Other,
}

/// What begins like this: by the volume descriptor of ISO 9660 (ECMA-119, 8.1), the signatures of PE, the magic of a
/// tar archive (POSIX.1-2001, ustar), or the first tag of HTML.
fn sniff(head: &[u8]) -> Sniffed {
    let pe = || {
        let at = head.get(0x3c..0x40).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)?;
        let at = usize::try_from(at).ok()?;
        (head.get(at..at.checked_add(4)?)? == b"PE\0\0").then_some(())
    };
    if head.get(32769..32774) == Some(b"CD001") {
        Sniffed::Iso
    } else if head.starts_with(b"MZ") && pe().is_some() {
        Sniffed::Pe
    } else if head.get(257..262) == Some(b"ustar") {
        Sniffed::Archive
    } else if is_page(head) {
        Sniffed::Page
    } else {
        Sniffed::Other
    }
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
        let sidecar = format!("{path}{suffix}{query}");
        match http.small(&Request::get(&sidecar), MAX_SIDECAR, control) {
            Ok(body) => {
                let published = published_hash(&body, digits);
                if published.is_none() {
                    // Some servers answer every path with a page.
                    (control.events)(TransferEvent::Note(no_hash(&sidecar)));
                }
                Ok(published)
            }
            Err((_, e)) if e.code() == Code::Cancelled => Err(e),
            Err((400..=499, _)) => Ok(None),
            // Longer than any hash.
            Err((200 | 201, e)) if e.code() == Code::Malformed => {
                (control.events)(TransferEvent::Note(no_hash(&sidecar)));
                Ok(None)
            }
            Err((_, e)) => {
                control.check()?;
                let why =
                    format!("{e}: whether a hash is published is not known, and the download is not compared with one");
                (control.events)(TransferEvent::Note(why));
                Ok(None)
            }
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

fn no_hash(sidecar: &str) -> String {
    format!("{} holds no hash: the download is not compared with one", show_url(sidecar))
}

/// The hash in a sidecar of one line, as `sha256sum` writes it: `<hex>  <name>` (`<hex> *<name>` for binary files).
/// Anything else is none.
fn published_hash(body: &[u8], digits: usize) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim_end();
    let (hash, name) = text.split_at_checked(digits)?;
    let name = name.strip_prefix("  ").or_else(|| name.strip_prefix(" *"))?;
    let plain = !name.is_empty() && !name.contains(char::is_control);
    (plain && hash.bytes().all(|b| b.is_ascii_hexdigit())).then(|| hash.to_ascii_lowercase())
}

fn url_hash(url: &str) -> String {
    hex::encode(Sha256::digest(url))
}

fn beside(out: &Path, suffix: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
