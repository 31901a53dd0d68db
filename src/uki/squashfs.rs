//! Small files out of a squashfs image, of which only some parts may be at hand.
//!
//! Serves one question: which services does an extension bring. The image comes by in a stream and can be larger than
//! the memory, so the reader asks for bytes by place and takes "not kept" for an answer. Own code instead of a crate
//! for that reason, and because a crate that reads all tables of an image when it opens it has no bound on what a
//! hostile one makes it unpack. The decompressors are crates.
//!
//! Format: Linux `Documentation/filesystems/squashfs.rst` and `fs/squashfs/squashfs_fs.h`, version 4.0, little-endian.

use crate::units::exact;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use std::io::Read;

/// Bytes of the superblock.
const SUPERBLOCK: usize = 96;
/// What a metadata block unpacks to, at most.
const METADATA: usize = 8192;
/// Bytes of a directory's listing: some ten thousand names.
const MAX_DIRECTORY: u32 = 512 * 1024;
/// What xz may take for one block: a dictionary is no larger than a block, 1 MiB.
const MAX_XZ_MEMORY: u64 = 8 << 20;
/// The place of a file's end where it has none in a fragment.
const NO_FRAGMENT: u32 = u32::MAX;

/// Where an image's bytes come from.
pub(super) trait Bytes {
    /// How many there are.
    fn size(&self) -> u64;

    /// `len` bytes at `at`; `None` when they are not there, or not at hand.
    fn bytes(&self, at: u64, len: usize) -> Option<&[u8]>;
}

/// Why something of an image could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SquashfsError {
    /// The image is cut, points outside itself or breaks its format in another way: Linux does not mount it, or cannot
    /// read it.
    Damaged(String),
    /// It may be sound: what is needed of it is not at hand, not supported, or beyond a limit of this reader.
    Unread(String),
}

type Result<T> = std::result::Result<T, SquashfsError>;

fn damaged<T>(why: impl Into<String>) -> Result<T> {
    Err(SquashfsError::Damaged(why.into()))
}

fn unread<T>(why: impl Into<String>) -> Result<T> {
    Err(SquashfsError::Unread(why.into()))
}

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Xz,
    Zstd,
}

/// An opened image.
pub(super) struct Squashfs<'a, B> {
    source: &'a B,
    /// How many more blocks may be unpacked.
    budget: &'a mut u32,
    coding: Coding,
    block_bytes: u32,
    /// `bytes_used`: where the image ends.
    used: u64,
    root: u64,
    inodes: u64,
    directories: u64,
    fragments: u64,
    fragment_count: u32,
}

/// A file or directory.
enum Inode {
    Directory { block: u32, offset: u16, bytes: u32 },
    File { start: u64, bytes: u64, fragment: u32, offset: u32, blocks: Cursor },
    Other,
}

/// A name in a directory, and where its inode is.
struct Entry {
    name: String,
    inode: u64,
}

impl<'a, B: Bytes> Squashfs<'a, B> {
    /// Reads the superblock, and holds it against the image as Linux does when it mounts it. `budget` is how many
    /// blocks may be unpacked, and is counted down.
    ///
    /// # Errors
    /// [`SquashfsError::Damaged`] when Linux would not mount it; [`SquashfsError::Unread`] when this reader cannot.
    pub(super) fn open(source: &'a B, budget: &'a mut u32) -> Result<Self> {
        let Some(head) = source.bytes(0, SUPERBLOCK) else { return damaged("it is too short for a squashfs image") };
        if head[..4] != *b"hsqs" {
            return damaged("it is not a squashfs image");
        }
        let (major, minor) = (u16_at(head, 28), u16_at(head, 30));
        if (major, minor) != (4, 0) {
            return damaged(format!("it is of squashfs version {major}.{minor}, and Linux mounts 4.0"));
        }
        let block_bytes = u32_at(head, 12);
        let log = u32::from(u16_at(head, 22));
        if !block_bytes.is_power_of_two() || !(4096..=1 << 20).contains(&block_bytes) || block_bytes.ilog2() != log {
            return damaged(format!("its squashfs blocks have {block_bytes} bytes (2^{log})"));
        }
        let used = u64_at(head, 40);
        if used > source.size() {
            return damaged(format!(
                "it is truncated: {} belong to it, and {} are there",
                exact(used),
                exact(source.size())
            ));
        }
        let fs = Self {
            source,
            budget,
            coding: Coding::Gzip,
            block_bytes,
            used,
            root: u64_at(head, 32),
            inodes: u64_at(head, 64),
            directories: u64_at(head, 72),
            fragments: u64_at(head, 80),
            fragment_count: u32_at(head, 16),
        };
        fs.check_tables(head)?;
        let coding = match u16_at(head, 20) {
            1 => Coding::Gzip,
            4 => Coding::Xz,
            6 => Coding::Zstd,
            2 => return unread("it is compressed with lzma, which this program does not unpack"),
            3 => return unread("it is compressed with lzo, which this program does not unpack"),
            5 => return unread("it is compressed with lz4, which this program does not unpack"),
            n => return damaged(format!("its compression is number {n}, which does not exist")),
        };
        Ok(Self { coding, ..fs })
    }

    /// Every table lies inside the image, in the order in which Linux wants them.
    fn check_tables(&self, head: &[u8]) -> Result<()> {
        const NONE: u64 = u64::MAX;
        let ids = u64_at(head, 48);
        let id_count = u16_at(head, 26);
        if id_count == 0 {
            return damaged("its table of owners is empty");
        }
        let index = |entries: u64, per_block: u64| entries.div_ceil(per_block) * 8;
        let mut tables = vec![
            ("inodes", self.inodes, 3),
            ("directories", self.directories, 3),
            ("owners", ids, index(u64::from(id_count), 2048)),
        ];
        if self.fragment_count > 0 {
            tables.push(("fragments", self.fragments, index(u64::from(self.fragment_count), 512)));
        }
        for (name, at, bytes) in [("attributes", u64_at(head, 56), 16), ("exports", u64_at(head, 88), 8)] {
            if at != NONE {
                tables.push((name, at, bytes));
            }
        }
        for (name, at, bytes) in tables {
            if at < SUPERBLOCK as u64 || at.checked_add(bytes).is_none_or(|end| end > self.used) {
                return damaged(format!("its table of {name} lies outside: at byte {at} of {}", self.used));
            }
        }
        if self.inodes >= self.directories || self.directories >= ids {
            return damaged("its tables are not in order");
        }
        if self.inodes.checked_add(self.root >> 16).is_none_or(|at| at >= self.directories) {
            return damaged("its root directory lies outside its table of inodes");
        }
        Ok(())
    }

    /// The files in the directory `path` whose names end in `suffix`, at most `files` of them with at most `bytes`
    /// each. None when there is no such directory.
    ///
    /// # Errors
    /// [`SquashfsError::Damaged`] when the image is malformed; [`SquashfsError::Unread`] when there are more or larger
    /// files, or when what is needed of it is not at hand.
    pub(super) fn read_dir(
        &mut self,
        path: &[&str],
        suffix: &str,
        files: usize,
        bytes: usize,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let mut at = self.root;
        for name in path {
            let Some(entry) = self.list(at, |n| n == *name)?.pop() else { return Ok(Vec::new()) };
            at = entry.inode;
        }
        let entries = self.list(at, |n| n.ends_with(suffix))?;
        if entries.len() > files {
            return unread(format!("{} files in {}", entries.len(), path.join("/")));
        }
        let mut found = Vec::new();
        for entry in entries {
            if let Some(content) = self.file(entry.inode, bytes)? {
                found.push((entry.name, content));
            }
        }
        Ok(found)
    }

    /// The entries of a directory whose names are wanted; none when the inode is no directory.
    fn list(&mut self, inode: u64, wanted: impl Fn(&str) -> bool) -> Result<Vec<Entry>> {
        let Inode::Directory { block, offset, bytes } = self.inode(inode)? else { return Ok(Vec::new()) };
        // The size counts three more bytes, for `.` and `..`, which are not stored.
        let mut left = bytes.saturating_sub(3);
        if left > MAX_DIRECTORY {
            return unread(format!("a directory of {left} bytes"));
        }
        let mut found = Vec::new();
        if left == 0 {
            return Ok(found);
        }
        let mut cursor = self.cursor(self.directories, u64::from(block), offset)?;
        while left > 0 {
            let head: [u8; 12] = cursor.take(self)?;
            left = left.saturating_sub(12);
            let count = u32_at(&head, 0);
            if count >= 256 {
                return damaged(format!("a directory header for {count} entries"));
            }
            let start = u64::from(u32_at(&head, 4));
            for _ in 0..=count {
                let fixed: [u8; 8] = cursor.take(self)?;
                let len = usize::from(u16_at(&fixed, 6)) + 1;
                if len > 256 {
                    return damaged(format!("a name of {len} bytes"));
                }
                let name = cursor.take_vec(self, len)?;
                left = left.saturating_sub(8 + len as u32);
                if let Ok(name) = String::from_utf8(name)
                    && wanted(&name)
                {
                    found.push(Entry { name, inode: start << 16 | u64::from(u16_at(&fixed, 0)) });
                }
            }
        }
        Ok(found)
    }

    /// The inode at a reference: the place of its block in the table in the upper bits, the offset there in the lower
    /// 16.
    fn inode(&mut self, reference: u64) -> Result<Inode> {
        let mut cursor = self.cursor(self.inodes, reference >> 16, reference as u16)?;
        let head: [u8; 16] = cursor.take(self)?;
        Ok(match u16_at(&head, 0) {
            1 => {
                let b: [u8; 16] = cursor.take(self)?;
                let bytes = u32::from(u16_at(&b, 8));
                Inode::Directory { block: u32_at(&b, 0), offset: u16_at(&b, 10), bytes }
            }
            8 => {
                let b: [u8; 24] = cursor.take(self)?;
                Inode::Directory { block: u32_at(&b, 8), offset: u16_at(&b, 18), bytes: u32_at(&b, 4) }
            }
            2 => {
                let b: [u8; 16] = cursor.take(self)?;
                Inode::File {
                    start: u64::from(u32_at(&b, 0)),
                    bytes: u64::from(u32_at(&b, 12)),
                    fragment: u32_at(&b, 4),
                    offset: u32_at(&b, 8),
                    blocks: cursor,
                }
            }
            9 => {
                let b: [u8; 40] = cursor.take(self)?;
                Inode::File {
                    start: u64_at(&b, 0),
                    bytes: u64_at(&b, 8),
                    fragment: u32_at(&b, 28),
                    offset: u32_at(&b, 32),
                    blocks: cursor,
                }
            }
            _ => Inode::Other,
        })
    }

    /// The content of a file; `None` when the inode is none.
    fn file(&mut self, inode: u64, limit: usize) -> Result<Option<Vec<u8>>> {
        let Inode::File { start, bytes, fragment, offset, mut blocks } = self.inode(inode)? else { return Ok(None) };
        if bytes > limit as u64 {
            return unread(format!("a file of {bytes} bytes"));
        }
        let bytes = bytes as usize;
        let block_bytes = self.block_bytes as usize;
        let mut content = Vec::with_capacity(bytes);
        let mut at = start;
        let whole = if fragment == NO_FRAGMENT { bytes.div_ceil(block_bytes) } else { bytes / block_bytes };
        for _ in 0..whole {
            let size: [u8; 4] = blocks.take(self)?;
            let size = u32_at(&size, 0);
            let want = block_bytes.min(bytes - content.len());
            let block = self.data(at, size, want)?;
            content.extend_from_slice(block.get(..want).ok_or_else(short)?);
            at = at.checked_add(u64::from(size & 0xFF_FFFF)).ok_or_else(short)?;
        }
        if content.len() < bytes {
            if fragment >= self.fragment_count {
                return damaged(format!("fragment {fragment} of {}", self.fragment_count));
            }
            let (start, size) = self.fragment(fragment)?;
            let block = self.data(start, size, block_bytes)?;
            let end = (offset as usize).saturating_add(bytes - content.len());
            content.extend_from_slice(block.get(offset as usize..end).ok_or_else(short)?);
        }
        Ok(Some(content))
    }

    /// Where a fragment block is and its size word. The table is metadata blocks of 512 entries, found by an index.
    fn fragment(&mut self, number: u32) -> Result<(u64, u32)> {
        let at = self.fragments.checked_add(u64::from(number / 512) * 8).ok_or_else(short)?;
        let block = u64_at(self.get(at, 8)?, 0);
        let mut cursor = self.cursor(block, 0, (number % 512 * 16) as u16)?;
        let entry: [u8; 16] = cursor.take(self)?;
        Ok((u64_at(&entry, 0), u32_at(&entry, 8)))
    }

    /// A data or fragment block; bit 24 of its size says that it is stored as it is, size 0 that it is zeros.
    fn data(&mut self, at: u64, size: u32, want: usize) -> Result<Vec<u8>> {
        let stored = (size & 0xFF_FFFF) as usize;
        if stored > self.block_bytes as usize {
            return damaged(format!("a block of {stored} bytes"));
        }
        if stored == 0 {
            return Ok(vec![0; want]);
        }
        self.unpack(at, stored, size & 1 << 24 != 0, self.block_bytes as usize)
    }

    /// A reader at `offset` of the metadata block at `table` + `block`.
    fn cursor(&mut self, table: u64, block: u64, offset: u16) -> Result<Cursor> {
        let next = table.checked_add(block).ok_or_else(short)?;
        let mut cursor = Cursor { next, block: Vec::new(), at: 0 };
        cursor.load(self)?;
        cursor.at = usize::from(offset);
        Ok(cursor)
    }

    fn get(&self, at: u64, len: usize) -> Result<&'a [u8]> {
        if at.checked_add(len as u64).is_none_or(|end| end > self.used) {
            return damaged(format!("it points outside itself: to byte {at} of {}", self.used));
        }
        let not_kept = || {
            SquashfsError::Unread(format!(
                "it is too large to keep while it is read, and byte {at} of it is \
             needed"
            ))
        };
        self.source.bytes(at, len).ok_or_else(not_kept)
    }

    fn unpack(&mut self, at: u64, stored: usize, plain: bool, limit: usize) -> Result<Vec<u8>> {
        let Some(budget) = self.budget.checked_sub(1) else {
            return unread("more blocks to unpack than any real extension needs");
        };
        *self.budget = budget;
        let raw = self.get(at, stored)?;
        if plain {
            return Ok(raw.to_vec());
        }
        let bad = |e: std::io::Error| SquashfsError::Damaged(format!("the block at byte {at}: {e}"));
        let mut out = Vec::new();
        let limit = limit as u64;
        match self.coding {
            Coding::Zstd => {
                // In one go there is no window to allocate, and the output is all that it may use.
                out = zstd::bulk::decompress(raw, limit as usize).map_err(bad)?;
            }
            Coding::Xz => {
                let stream = Stream::new_stream_decoder(MAX_XZ_MEMORY, 0).map_err(|e| bad(e.into()))?;
                XzDecoder::new_stream(raw, stream).take(limit).read_to_end(&mut out).map_err(bad)?;
            }
            Coding::Gzip => {
                flate2::bufread::ZlibDecoder::new(raw).take(limit).read_to_end(&mut out).map_err(bad)?;
            }
        }
        Ok(out)
    }
}

/// A place in a row of metadata blocks, which records may span.
struct Cursor {
    /// Where the next block begins in the image.
    next: u64,
    block: Vec<u8>,
    at: usize,
}

impl Cursor {
    fn load<B: Bytes>(&mut self, fs: &mut Squashfs<'_, B>) -> Result<()> {
        let head = u16_at(fs.get(self.next, 2)?, 0);
        let stored = usize::from(head & 0x7FFF);
        if stored == 0 || stored > METADATA {
            return damaged(format!("a metadata block of {stored} bytes"));
        }
        let data = self.next.checked_add(2).ok_or_else(short)?;
        self.block = fs.unpack(data, stored, head & 0x8000 != 0, METADATA)?;
        self.next = data.checked_add(stored as u64).ok_or_else(short)?;
        self.at = 0;
        Ok(())
    }

    fn take<B: Bytes, const N: usize>(&mut self, fs: &mut Squashfs<'_, B>) -> Result<[u8; N]> {
        self.take_vec(fs, N)?.try_into().map_err(|_| short())
    }

    fn take_vec<B: Bytes>(&mut self, fs: &mut Squashfs<'_, B>, len: usize) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(len);
        while out.len() < len {
            let rest = self.block.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                // An empty block would be unpacked again and again, were it not for the budget.
                self.load(fs)?;
                continue;
            }
            let n = rest.len().min(len - out.len());
            out.extend_from_slice(&rest[..n]);
            self.at += n;
        }
        Ok(out)
    }
}

fn short() -> SquashfsError {
    SquashfsError::Damaged("a record points out of its block".into())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[cfg(test)]
#[path = "squashfs_tests.rs"]
mod tests;
