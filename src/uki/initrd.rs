//! The initrd: cpio archives one behind the other, each plain or compressed, read as the kernel unpacks them.
//!
//! Nothing is written out, so links, devices and odd paths in an archive have no effect here. Only three things are
//! taken:
//! `extensions.yaml` from the archive's root, the names of the squashfs files there, and which services in those wait
//! for configuration. The whole initrd is read all the same, because a later archive may replace what an earlier one
//! brought, and because a damaged one must be noticed.
//!
//! Formats: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`, `init/initramfs.c`: entries follow each
//! other with zeros between them, a trailer is one more entry that need not be there, and each compressed frame ends
//! behind an entry. Entries are read with the cpio crate; what lies between them, which compression comes next, and all
//! limits are this module's own.

use super::coding::Coding;
use super::frames::{Frames, Totals, rejected};
use super::services::{Collector, Look, Services};
use super::tally::Tally;
use crate::{Code, Context, Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

/// `PATH_MAX` of Linux: longer names are skipped by the kernel, and a way to fill the memory here.
const MAX_NAME: u32 = 4096;
/// Talos' archives have a few thousand entries, with all firmware extensions.
const MAX_ENTRIES: u64 = 1_000_000;
/// Archives, counted together. Talos has two or three.
const MAX_ARCHIVES: usize = 4096;
/// Squashfs files: one per extension, and a few more.
const MAX_SQUASHFS: usize = 1024;
/// `extensions.yaml` has about 1 KiB per extension.
const MAX_YAML: u32 = 4 << 20;
const MAX_NOTES: usize = 16;
/// Talos itself, which has no extension services.
const ROOT_FS: &str = "rootfs.sqsh";

const HEADER: usize = 110;
const BUFFER: usize = 64 * 1024;
const SCRATCH: usize = 256 * 1024;

/// What an initrd holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Initrd {
    /// Its archives, in order.
    pub archives: Vec<Archive>,
    /// The squashfs files at the root, without directory; the last one of a name.
    pub squashfs: Vec<ArchiveFile>,
    /// What the squashfs files say about extension services, by file name; of Talos' root file system only
    /// whether it can be mounted, and its version.
    pub services: BTreeMap<String, Services>,
    /// The content of `extensions.yaml` at the root; the last one, as the kernel would have it.
    #[serde(skip)]
    pub extensions_yaml: Option<Vec<u8>>,
    /// What is unusual about it, in words.
    pub notes: Vec<String>,
    /// Why it was not read to its end although nothing is known to be wrong with it: the rest is packed in a way that
    /// is not unpacked here.
    pub unread: Option<String>,
}

impl Initrd {
    /// How many entries all archives have together, trailers not counted.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.archives.iter().map(|a| a.entries).sum()
    }

    /// What all files have together, in bytes.
    #[must_use]
    pub fn unpacked_bytes(&self) -> u64 {
        self.archives.iter().map(|a| a.unpacked_bytes).sum()
    }

    /// Whether a squashfs file of this name is there.
    #[must_use]
    pub fn has_squashfs(&self, name: &str) -> bool {
        self.squashfs.iter().any(|m| m.name == name)
    }
}

/// One cpio archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Archive {
    /// How it is compressed.
    pub coding: Coding,
    /// Entries, without the trailer.
    pub entries: u64,
    /// What its files have together, in bytes.
    pub unpacked_bytes: u64,
    /// Whether it ends with a trailer. The kernel does without, and some builders leave it out.
    pub trailer: bool,
}

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ArchiveFile {
    /// Its path from the root, without empty and `.` parts.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Takes the content of chosen files while an initrd is read.
pub trait Members: Send {
    /// Whether the content of this file is wanted. Asked for every regular file; a name may come again in a later
    /// archive and then replaces the earlier file.
    fn wants(&mut self, member: &ArchiveFile) -> bool;

    /// The next bytes of the file that was last wanted.
    ///
    /// # Errors
    /// Ends the reading of the initrd.
    fn data(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Wants nothing.
impl Members for () {
    fn wants(&mut self, _: &ArchiveFile) -> bool {
        false
    }

    fn data(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Reads an initrd to its end, or up to something that is not unpacked here ([`Initrd::unread`]).
///
/// # Errors
/// [`crate::Kind::Rejected`] when the kernel could not unpack it, or when it is larger than any real one: it expands to
/// more than 4 GiB or by a factor that only a bomb has, has a million entries. Else what `input` or `members` report.
pub fn read_initrd(input: impl BufRead, members: &mut dyn Members) -> Result<Initrd> {
    let mut input = Tally::new(input);
    let mut totals = Totals::default();
    let mut walk = Walk {
        members,
        services: Collector::new(),
        found: Initrd::default(),
        open: None,
        entries: 0,
        scratch: vec![0; SCRATCH],
    };
    while skip_zeros(&mut input)?.is_some() {
        let at = input.consumed();
        let start = input.peek(2).map_err(rejected)?.to_vec();
        let coding = Coding::of(&start).ok_or_else(|| {
            Error::malformed("initrd", at, format!("0x{} begins no archive that the kernel knows", hex::encode(&start)))
        })?;
        let outcome = match coding {
            Coding::Plain => walk.entries(coding, &mut input),
            Coding::Lzo => Err(Error::new(Code::Unsupported, "lzo is not unpacked here")),
            _ => Frames::new(coding, &mut input, &mut totals)
                .and_then(|frames| walk.entries(coding, &mut BufReader::with_capacity(BUFFER, frames))),
        };
        match outcome.while_doing(|| format!("reading the {coding} archive at byte {at} of the initrd")) {
            Ok(()) => {}
            Err(e) if e.code() == Code::Unsupported => {
                walk.found.unread = Some(e.to_string());
                break;
            }
            Err(e) => return Err(e),
        }
    }
    walk.close(false);
    walk.found.services = walk.services.finish();
    Ok(walk.found)
}

/// Bytes to parse.
trait Source: BufRead {
    /// How many compressed frames they have come from so far.
    fn frames(&self) -> u64;
    /// How many were taken.
    fn position(&self) -> u64;
}

impl<R: BufRead> Source for Tally<R> {
    fn frames(&self) -> u64 {
        0
    }

    fn position(&self) -> u64 {
        self.consumed()
    }
}

impl<R: BufRead> Source for BufReader<Frames<'_, R>> {
    fn frames(&self) -> u64 {
        self.get_ref().frames()
    }

    fn position(&self) -> u64 {
        self.get_ref().produced().saturating_sub(self.buffer().len() as u64)
    }
}

struct Walk<'a> {
    members: &'a mut dyn Members,
    services: Collector,
    found: Initrd,
    /// The archive that the last entry belongs to, as long as no trailer has come.
    open: Option<Archive>,
    entries: u64,
    scratch: Vec<u8>,
}

impl Walk<'_> {
    /// All entries of one kind of coding. Of what is not compressed it ends before the first byte that begins none.
    fn entries(&mut self, coding: Coding, source: &mut impl Source) -> Result<()> {
        while let Some(first) = skip_zeros(source)? {
            if first != b'0' && coding == Coding::Plain {
                break;
            }
            if first != b'0' {
                return Err(Error::rejected(format!("0x{first:02x} after an entry begins no other one")));
            }
            let at = source.position();
            if !at.is_multiple_of(4) {
                return Err(Error::rejected(format!(
                    "an entry begins {at} bytes into it, which is no multiple of 4: the kernel takes it for junk"
                )));
            }
            // The first byte is in the buffer already, so its frame has begun.
            let frame = source.frames();
            let entry = self.entry(source)?;
            // unpack_to_rootfs decompresses one frame per turn and wants it to end behind an entry.
            if frame != source.frames() {
                return Err(Error::rejected(format!(
                    "an entry spans several {coding} frames: the kernel takes the end of the first for junk"
                )));
            }
            self.count(coding, entry)?;
        }
        self.close(false);
        Ok(())
    }

    /// An entry of so many bytes, or a trailer.
    fn count(&mut self, coding: Coding, entry: Option<u64>) -> Result<()> {
        if self.open.is_none() && self.found.archives.len() == MAX_ARCHIVES {
            return Err(Error::rejected(format!("more than {MAX_ARCHIVES} archives")));
        }
        let open = self.open.get_or_insert(Archive { coding, entries: 0, unpacked_bytes: 0, trailer: false });
        match entry {
            Some(bytes) => {
                open.entries += 1;
                open.unpacked_bytes += bytes;
            }
            None => self.close(true),
        }
        Ok(())
    }

    /// The archive is over.
    fn close(&mut self, trailer: bool) {
        self.found.archives.extend(self.open.take().map(|archive| Archive { trailer, ..archive }));
    }

    /// One entry; its size, or `None` for the trailer.
    fn entry(&mut self, source: &mut impl Source) -> Result<Option<u64>> {
        // The name's length is looked at before the crate reads the name: it takes any.
        let mut header = [0; HEADER];
        source.read_exact(&mut header).map_err(rejected)?;
        let name_len = std::str::from_utf8(&header[94..102]).ok().and_then(|hex| u32::from_str_radix(hex, 16).ok());
        if !header.iter().all(u8::is_ascii_hexdigit) || !name_len.is_some_and(|n| (1..=MAX_NAME).contains(&n)) {
            let name = self.entries;
            return Err(Error::rejected(format!("the header of entry {name} is not a newc header")));
        }
        let mut reader = cpio::newc::Reader::new((&header[..]).chain(&mut *source)).map_err(rejected)?;
        if reader.entry().is_trailer() {
            reader.finish().map_err(rejected)?;
            return Ok(None);
        }
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(Error::rejected(format!("more than {MAX_ENTRIES} entries")));
        }
        let size = reader.entry().file_size();
        let keep = self.judge(reader.entry())?;
        let mut yaml = keep.yaml.then(Vec::new);
        let mut seen = 0u64;
        loop {
            let n = reader.read(&mut self.scratch).map_err(rejected)?;
            if n == 0 {
                break;
            }
            seen += n as u64;
            match &mut yaml {
                Some(yaml) => yaml.extend_from_slice(&self.scratch[..n]),
                None => {
                    if keep.wanted {
                        self.members.data(&self.scratch[..n])?;
                    }
                    if keep.squashfs {
                        self.services.data(&self.scratch[..n]);
                    }
                }
            }
        }
        // The crate's reader ends where its input does.
        if seen != u64::from(size) {
            return Err(rejected(std::io::ErrorKind::UnexpectedEof.into()));
        }
        reader.finish().map_err(rejected)?;
        if keep.squashfs {
            self.services.end();
        }
        if let Some(yaml) = yaml
            && self.found.extensions_yaml.replace(yaml).is_some()
        {
            self.note("several extensions.yaml: the last one counts".into());
        }
        Ok(Some(u64::from(size)))
    }

    /// What to do with an entry's content.
    fn judge(&mut self, entry: &cpio::newc::Entry) -> Result<Keep> {
        let regular = entry.mode() & 0o170_000 == 0o100_000;
        if entry.name().split('/').any(|part| part == "..") {
            self.note("a path with \"..\" in it".into());
        }
        let name = entry.name().split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/");
        if name == "extensions.yaml" {
            // The kernel would let a link's content come from another entry; Talos builds no such thing.
            if !regular || entry.nlink() > 1 {
                return Err(Error::rejected("extensions.yaml is not a regular file"));
            }
            if entry.file_size() > MAX_YAML {
                return Err(Error::rejected(format!("extensions.yaml has {} bytes", entry.file_size())));
            }
            return Ok(Keep { yaml: true, ..Keep::default() });
        }
        if !regular {
            return Ok(Keep::default());
        }
        let mut squashfs = false;
        let member = ArchiveFile { name, bytes: u64::from(entry.file_size()) };
        if !member.name.contains('/') && member.name.ends_with(".sqsh") {
            self.found.squashfs.retain(|m| m.name != member.name);
            if self.found.squashfs.len() == MAX_SQUASHFS {
                return Err(Error::rejected(format!("more than {MAX_SQUASHFS} squashfs files")));
            }
            self.found.squashfs.push(member.clone());
            let look = if member.name == ROOT_FS { Look::Root } else { Look::Services };
            self.services.begin(&member.name, member.bytes, look);
            squashfs = true;
        }
        Ok(Keep { wanted: self.members.wants(&member), squashfs, yaml: false })
    }

    fn note(&mut self, note: String) {
        if self.found.notes.len() < MAX_NOTES && !self.found.notes.contains(&note) {
            self.found.notes.push(note);
        }
    }
}

/// Who gets an entry's content.
#[derive(Default)]
struct Keep {
    yaml: bool,
    wanted: bool,
    squashfs: bool,
}

/// Skips zero bytes and says what comes then; `None` at the end.
fn skip_zeros(source: &mut impl BufRead) -> Result<Option<u8>> {
    loop {
        let ready = source.fill_buf().map_err(rejected)?;
        if ready.is_empty() {
            return Ok(None);
        }
        match ready.iter().position(|b| *b != 0) {
            Some(n) => {
                let first = ready[n];
                source.consume(n);
                return Ok(Some(first));
            }
            None => {
                let n = ready.len();
                source.consume(n);
            }
        }
    }
}

#[cfg(test)]
#[path = "initrd_tests.rs"]
mod tests;
