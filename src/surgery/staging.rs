//! Step one of every swap: the new image in free clusters, read back from the medium. Nothing refers to it yet.

use crate::block::{Load, Pieces as MediumPieces, ReadAt, Sink, Watching, WriteAt, read_vec, sha256_watched};
use crate::fat::{Editor, Geometry, Run, Volume};
use crate::units::{exact, size};
use crate::{Code, Error, Result};
use sha2::{Digest, Sha256};
use std::sync::mpsc;

/// Clusters that every operation needs beside the image: the intent record. What its names need in the directory, only
/// the plan tells; a rehearsal counts all of it.
const RECORD_CLUSTERS: u64 = 1;
/// So much of a set's file is read and written at once, in bytes: a multiple of every sector size.
const COPIED_AT_ONCE: usize = 1 << 20;
/// So much of a piece is read back at once, in bytes: two of these are in memory.
const PART: usize = 512 << 10;
/// So much of each piece's beginning, and once in so many bytes, is read a second time in the end.
const SAMPLE: usize = 4096;
const SAMPLE_EVERY: u64 = 1 << 20;

/// Free clusters that are being filled. Dropping it leaves the volume exactly as it was.
#[must_use = "nothing is staged before `seal`"]
pub struct Staging<'m> {
    editor: Editor<'m>,
    runs: Vec<Run>,
    bytes: u64,
    written: u64,
    pieces: Option<Pieced>,
}

/// What was read back of the pieces that are written.
struct Pieced {
    /// How long a piece is, in bytes.
    length: u64,
    /// So much was read back.
    upto: u64,
    hash: Sha256,
    /// Where samples were taken, in bytes of the image, and what was there.
    samples: Vec<(u64, Vec<u8>)>,
    /// Memory for two parts.
    memory: Vec<Vec<u8>>,
}

impl Pieced {
    /// Reads on to the byte `end`. A part is hashed while the next one is read: a medium that waits for a hash is slower
    /// than it could be.
    fn read(&mut self, image: &dyn ReadAt, end: u64, seen: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let Self { upto, hash, samples, memory, .. } = self;
        let begun = *upto;
        let (to_hash, parts) = mpsc::channel::<Vec<u8>>();
        let (hashed, free) = mpsc::channel();
        std::thread::scope(|scope| {
            let hasher = scope.spawn(move || {
                for part in parts {
                    hash.update(&part);
                    let _ = hashed.send(part);
                }
            });
            while *upto < end {
                let Some(mut part) = memory.pop().or_else(|| free.recv().ok()) else { break };
                part.resize((end - *upto).min(PART as u64) as usize, 0);
                image.read_exact_at(&mut part, *upto)?;
                if (*upto - begun).is_multiple_of(SAMPLE_EVERY) {
                    samples.push((*upto, part[..part.len().min(SAMPLE)].to_vec()));
                }
                *upto += part.len() as u64;
                let _ = to_hash.send(part);
                seen(*upto)?;
            }
            drop(to_hash);
            let outcome = hasher.join();
            memory.extend(free.try_iter());
            outcome.map_err(|_| Error::new(Code::Bug, "what was read back could not be hashed"))
        })
    }
}

/// An image that is on the medium, byte for byte, and not part of the file system yet.
#[must_use = "a staged image is nothing until it is committed"]
pub struct Staged<'m> {
    pub(super) editor: Editor<'m>,
    pub(super) runs: Vec<Run>,
    pub(super) bytes: u32,
    pub(super) sha256: [u8; 32],
    /// The files of a set, staged beside it.
    pub(super) set: Vec<StagedFile>,
}

/// A file of a set in free clusters.
#[derive(Debug)]
pub(super) struct StagedFile {
    pub(super) runs: Vec<Run>,
    pub(super) bytes: u32,
    pub(super) sha256: [u8; 32],
}

/// The clusters that an image of `bytes` bytes takes, if there are `free` ones for it and for the record.
///
/// # Errors
/// [`crate::Code::NoRoom`] when there is not enough room, with the numbers; [`crate::Kind::Rejected`] for a length that
/// no file on FAT can have.
pub fn room_for(geometry: &Geometry, free: u32, bytes: u64) -> Result<u32> {
    if bytes == 0 || bytes > u64::from(u32::MAX) {
        return Err(Error::rejected(format!("an image of {} cannot be a file on FAT", size(bytes))));
    }
    let clusters = geometry.clusters_for(bytes);
    if clusters + RECORD_CLUSTERS > u64::from(free) {
        let bytes = |clusters: u64| size(clusters * u64::from(geometry.cluster_bytes));
        return Err(no_room(&format!(
            "no room on the ESP: the image needs {} beside the old one, and the record of the operation {}; {} are \
             free, \
             {} too little",
            bytes(clusters),
            bytes(RECORD_CLUSTERS),
            bytes(u64::from(free)),
            bytes(clusters + RECORD_CLUSTERS - u64::from(free))
        )));
    }
    Ok(clusters as u32)
}

impl<'m> Staging<'m> {
    /// Reserves room for an image of `bytes` bytes. Nothing is written.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`] when there is not enough room, with the numbers.
    pub fn begin(mut editor: Editor<'m>, bytes: u64) -> Result<Self> {
        let need = room_for(editor.geometry(), editor.table().free_clusters(), bytes)?;
        let runs = editor.reserve(need)?;
        Ok(Self { editor, runs, bytes, written: 0, pieces: None })
    }

    /// Reads back what is written in pieces of `length` bytes, each as soon as it is on the medium: for an image that
    /// comes more slowly than the medium takes it, so that nothing but the last piece is left to do when it is there.
    pub fn in_pieces(self, length: u64) -> Self {
        let memory = vec![Vec::with_capacity(PART), Vec::with_capacity(PART)];
        let pieces = Pieced { length: length.max(1), upto: 0, hash: Sha256::new(), samples: Vec::new(), memory };
        Self { pieces: Some(pieces), ..self }
    }

    /// What was written and not read back yet, flushed and read past the caches.
    fn read_back_piece(&mut self, watching: &mut Watching<'_>) -> Result<()> {
        let Some(pieces) = &mut self.pieces else { return Ok(()) };
        if pieces.upto == self.written {
            return Ok(());
        }
        self.editor.barrier()?;
        self.editor.forget()?;
        let volume = self.editor.volume();
        let image = MediumPieces::new(volume.source(), volume.extents_of(&self.runs))?;
        pieces.read(&image, self.written, &mut |upto| watching(upto, self.bytes))
    }

    /// Reads the samples once more: a medium that has less room than it says may have put a later piece where an earlier
    /// one was. Returns the hash of all that was read back.
    fn hash_of_pieces(&self, pieces: Pieced) -> Result<[u8; 32]> {
        // The read-back itself has filled the caches.
        self.editor.forget()?;
        let volume = self.editor.volume();
        let image = MediumPieces::new(volume.source(), volume.extents_of(&self.runs))?;
        for (at, sample) in &pieces.samples {
            if read_vec(&image, *at, sample.len())? != *sample {
                return Err(not_given_back(&format!("byte {at} of the image and what follows have changed since")));
            }
        }
        Ok(pieces.hash.finalize().into())
    }

    /// Waits for the medium, drops the caches, reads everything back and compares it with `expected`.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when the stream was short or the medium gives back other bytes.
    pub fn seal(self, expected: [u8; 32]) -> Result<Staged<'m>> {
        self.seal_watched(expected, &mut nobody)
    }

    /// As [`Self::seal`], with somebody who watches the reading, and may end it.
    ///
    /// # Errors
    /// As [`Self::seal`], and what who watches reports.
    pub fn seal_watched(mut self, expected: [u8; 32], watching: &mut Watching<'_>) -> Result<Staged<'m>> {
        if self.written != self.bytes {
            return Err(Error::io(format!("the image ended after {} of {}", exact(self.written), exact(self.bytes))));
        }
        self.read_back_piece(watching)?;
        match self.pieces.take() {
            Some(pieces) => refuse_other(self.hash_of_pieces(pieces)?, expected)?,
            None => {
                self.editor.barrier()?;
                self.editor.forget()?;
                compare_read_back(&self.editor.volume(), &self.runs, self.bytes, expected, watching)?;
            }
        }
        Ok(Staged { editor: self.editor, runs: self.runs, bytes: self.bytes as u32, sha256: expected, set: Vec::new() })
    }
}

/// Makes sure that the medium gives back what was written.
pub(super) fn compare_read_back<S: ReadAt>(
    volume: &Volume<S>,
    runs: &[Run],
    bytes: u64,
    expected: [u8; 32],
    watching: &mut Watching<'_>,
) -> Result<()> {
    let image = MediumPieces::new(volume.source(), volume.extents_of(runs))?;
    refuse_other(sha256_watched(&image, bytes, watching)?, expected)
}

fn refuse_other(sha256: [u8; 32], expected: [u8; 32]) -> Result<()> {
    if sha256 == expected {
        return Ok(());
    }
    Err(not_given_back(&format!("SHA-256 {} instead of {}", hex::encode(sha256), hex::encode(expected))))
}

fn not_given_back(what: &str) -> Error {
    Error::io(format!("the medium does not give back what was written: {what}"))
        .advise("the board still boots its old image; do not trust this medium: replace it")
}

/// Nobody watches: a board's own files are short.
pub(super) fn nobody(_: u64, _: u64) -> Result<()> {
    Ok(())
}

impl<'m> Staged<'m> {
    /// Stages the contents of a set's files beside the image, in the order of [`super::Order::set`], and reads them
    /// back. `seen` is told how many bytes each write had.
    ///
    /// # Errors
    /// [`Code::NoRoom`]; [`crate::Kind::Rejected`] for what is too long for FAT; what sources and medium report.
    pub fn stage_set(&mut self, contents: &[&dyn ReadAt], seen: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let mut set = Vec::with_capacity(contents.len());
        let mut buf = vec![0; COPIED_AT_ONCE];
        for content in contents {
            let length = content.size();
            let Ok(bytes) = u32::try_from(length) else {
                return Err(Error::rejected(format!("{} cannot be a file on FAT", size(length))));
            };
            let runs = self.editor.reserve(self.editor.geometry().clusters_for(length) as u32)?;
            let (mut hash, mut at) = (Sha256::new(), 0);
            while at < length {
                let part = &mut buf[..(length - at).min(COPIED_AT_ONCE as u64) as usize];
                content.read_exact_at(part, at)?;
                hash.update(&*part);
                self.editor.write_data(&runs, at, part)?;
                at += part.len() as u64;
                seen(part.len() as u64)?;
            }
            set.push(StagedFile { runs, bytes, sha256: hash.finalize().into() });
        }
        self.editor.barrier()?;
        self.editor.forget()?;
        let volume = self.editor.volume();
        for file in &set {
            compare_read_back(&volume, &file.runs, u64::from(file.bytes), file.sha256, &mut nobody)?;
        }
        self.set = set;
        Ok(())
    }

    /// Makes sure that what was written has not gone where something else was.
    pub(super) fn refuse_misplaced(&self) -> Result<()> {
        self.editor.medium().check_remembered().map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => Error::new(
                Code::Medium,
                format!("the medium has put what was written in another place as well, or instead: {e}"),
            )
            .advise("do not restart the board; make an image of what is still there, and replace this medium"),
            _ => e.into(),
        })
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Makes sure that the image is still what was staged, and that nobody has taken or freed clusters since: while a
    /// user decides, others may write.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`] when something has changed; what the medium reports.
    pub fn refuse_changed(&self) -> Result<()> {
        self.refuse_changed_watched(&mut nobody)
    }

    /// As [`Self::refuse_changed`], with somebody who watches the reading, and may end it.
    ///
    /// # Errors
    /// As [`Self::refuse_changed`], and what who watches reports.
    pub fn refuse_changed_watched(&self, watching: &mut Watching<'_>) -> Result<()> {
        self.editor.medium().drop_caches()?;
        let changed =
            |what| Err(Error::refused(format!("{what} has changed since the plan was made")).advise("run it again"));
        if Volume::open(self.editor.medium())?.table() != self.editor.table() {
            return changed("the allocation of the volume");
        }
        if sha256_watched(&self.image()?, u64::from(self.bytes), watching)? != self.sha256 {
            return changed("the free space that holds the new image");
        }
        let volume = self.editor.volume();
        for file in &self.set {
            if compare_read_back(&volume, &file.runs, u64::from(file.bytes), file.sha256, &mut nobody).is_err() {
                return changed("the free space that holds the new files");
            }
        }
        Ok(())
    }

    /// The staged image, as it is on the medium.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn image(&self) -> Result<MediumPieces<&'m dyn WriteAt>> {
        let volume = self.editor.volume();
        let mut extents = volume.extents_of(&self.runs);
        let mut left = u64::from(self.bytes);
        for e in &mut extents {
            e.bytes = e.bytes.min(left);
            left -= e.bytes;
        }
        Ok(MediumPieces::new(*volume.source(), extents)?)
    }
}

impl Sink for Staging<'_> {
    /// Writes the next bytes of the image. Every chunk but the last is a multiple of the sector size.
    fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        if self.written + bytes.len() as u64 > self.bytes {
            return Err(Error::io("the image is longer than announced"));
        }
        self.editor.write_data(&self.runs, self.written, bytes)?;
        self.written += bytes.len() as u64;
        match &self.pieces {
            Some(pieces) if self.written - pieces.upto >= pieces.length => self.read_back_piece(&mut nobody),
            _ => Ok(()),
        }
    }

    fn load(&self) -> Load {
        Load::Wait
    }
}

/// A refusal for want of room.
pub(super) fn no_room(what: &str) -> Error {
    Error::new(Code::NoRoom, what).advise(
        "make room: `prune DISK --delete` takes duplicates and disabled files away, and old backups with \
            `--keep-backups N`",
    )
}
