//! The Authenticode SHA-256 of a PE image in one pass, over the very bytes that firmware hashes.
//!
//! Firmware (EDK2 `HashPeImage`) hashes the headers up to `SizeOfHeaders` without CheckSum and the certificate table's
//! directory entry, then every section's raw data in the order of `PointerToRawData`, and then *by arithmetic* as many
//! bytes as are left: from (headers + sections) to (file − certificate table). Where sections leave gaps, that last
//! range begins before the end of the last section; this module hashes exactly that, too. Real signed binaries with a
//! gap exist (Debian's fwupd for arm64).

use super::hash::{Hash, Hasher};
use crate::block::{Extent, Sink};
use crate::pe::Head;
use crate::sha256::{HashSink, Sha256Stream};
use crate::sorting::Sort as _;
use crate::{Code, Error, Result};
use std::ops::Range;

/// More certificate table than this is not read, in bytes. Shim with two signatures has 19 KiB.
const MAX_TABLE: u64 = 1024 * 1024;
/// Gaps between sections, all together, in bytes: that much has to be kept to hash it a second time.
const MAX_GAPS: u64 = 1024 * 1024;

/// What one pass over a PE image gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDigest {
    /// SHA-256 as a signature must state it. A file without a certificate table counts as padded with zeros to 8
    /// bytes, because signing tools pad it before they append the table.
    pub sha256: [u8; 32],
    /// SHA-256 of a file without certificate table as it stands, when padding makes a difference. Firmware looks for
    /// this one in db and dbx.
    pub unpadded: Option<[u8; 32]>,
    /// The raw bytes of the certificate table, empty when there is none.
    pub certificate_table: Vec<u8>,
    /// Bytes between sections that no signature covers. Nothing loads them either.
    pub gap_bytes: u64,
    /// The same digest by other hashes, where signatures state them ([`DigestSink::with`]).
    pub others: Vec<(Hash, Vec<u8>)>,
}

/// Takes the whole file once, in order, and computes its Authenticode digest.
#[derive(Debug)]
pub struct DigestSink {
    /// Ranges that are hashed as they come by, ascending and disjoint.
    ranges: Vec<Range<u64>>,
    next: usize,
    /// What firmware hashes a second time because sections leave gaps.
    second: Range<u64>,
    kept: Vec<u8>,
    /// What is hashed behind `second`: the rest of the file without the certificate table.
    table: Extent,
    table_bytes: Vec<u8>,
    at: u64,
    file_bytes: u64,
    gap_bytes: u64,
    signed: bool,
    hash: Hasher,
    /// Started when the last section has gone by; hashing of `second` comes before the rest.
    rest: Option<Range<u64>>,
}

impl DigestSink {
    /// A sink for the file with this head.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when the layout is one that firmware refuses, or hashes in a way that leaves parts of
    /// the image unhashed: overlapping sections, sections inside the headers, a certificate table over the sections.
    pub fn new(head: &Head) -> Result<Self> {
        Self::with(head, Hash::Sha256)
    }

    /// As [`Self::new`], by another hash: for [`Self::finish_hash`].
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(head: &Head, hash: Hash) -> Result<Self> {
        let headers = u64::from(head.size_of_headers);
        let bad = |at: u64, why: String| {
            Error::malformed("PE layout", at, why)
                .advise("no signing tool makes such a file: get the image again from where it was published")
        };

        let mut ranges = Vec::with_capacity(head.sections.len() + 3);
        let checksum = head.checksum_at..head.checksum_at.saturating_add(4);
        let directory = head.security_directory_at.map(|at| at..at.saturating_add(8));
        let mut from = 0;
        for hole in std::iter::once(checksum).chain(directory) {
            if hole.start < from || hole.end > headers {
                return Err(bad(hole.start, "a field that is not hashed lies outside the headers".into()));
            }
            ranges.push(from..hole.start);
            from = hole.end;
        }
        ranges.push(from..headers);

        let mut sections: Vec<_> = head.sections.iter().filter(|s| s.raw.bytes > 0).collect();
        sections.put_in_order_by(|s| s.raw.offset);
        let (mut end, mut hashed) = (headers, headers);
        for section in sections {
            if section.raw.offset < end {
                return Err(bad(
                    section.raw.offset,
                    format!(
                        "section {} begins before {end}, where the one before it ends: firmware would not hash these \
                         bytes as they are loaded",
                        section.name
                    ),
                ));
            }
            end = section.raw.offset.saturating_add(section.raw.bytes);
            hashed += section.raw.bytes;
            ranges.push(section.raw.offset..end);
        }
        if end > head.file_bytes {
            return Err(bad(end, format!("sections end behind the {} bytes of the file", head.file_bytes)));
        }
        let gap_bytes = end - hashed;
        if gap_bytes > MAX_GAPS {
            return Err(bad(
                end,
                format!("{gap_bytes} bytes lie between sections: firmware would not hash these bytes"),
            ));
        }

        let table = head.certificate_table.unwrap_or(Extent { offset: head.file_bytes, bytes: 0 });
        if table.bytes > MAX_TABLE {
            return Err(bad(table.offset, format!("a certificate table of {} bytes", table.bytes)));
        }
        let stop = head.file_bytes.saturating_sub(table.bytes);
        if stop < hashed || table.offset < end {
            return Err(bad(table.offset, "the certificate table lies over the sections".into()));
        }
        let second = hashed..end.min(stop);
        let rest = end.min(stop)..stop;
        Ok(Self {
            ranges,
            next: 0,
            second,
            kept: Vec::new(),
            table,
            table_bytes: Vec::new(),
            at: 0,
            file_bytes: head.file_bytes,
            gap_bytes,
            signed: head.certificate_table.is_some(),
            hash: Hasher::new(hash),
            rest: Some(rest),
        })
    }

    /// The digest, after the whole file has gone by.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when fewer or more bytes came than the file has.
    pub fn finish(mut self) -> Result<ImageDigest> {
        self.complete()?;
        let unpadded = self.hash.clone().finish();
        let padding = self.padding();
        self.hash.update(&[0; 8][..padding]);
        let sha256 = |hash: Vec<u8>| {
            <[u8; 32]>::try_from(hash).map_err(|_| Error::new(Code::Bug, "the image digest is not a SHA-256"))
        };
        Ok(ImageDigest {
            sha256: sha256(self.hash.finish())?,
            unpadded: if padding > 0 { Some(sha256(unpadded)?) } else { None },
            certificate_table: self.table_bytes,
            gap_bytes: self.gap_bytes,
            others: Vec::new(),
        })
    }

    /// The digest by the hash that was chosen, as a signature must state it.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn finish_hash(mut self) -> Result<Vec<u8>> {
        self.complete()?;
        let padding = self.padding();
        self.hash.update(&[0; 8][..padding]);
        Ok(self.hash.finish())
    }

    fn complete(&mut self) -> Result<()> {
        if self.at != self.file_bytes {
            return Err(Error::rejected(format!("{} of {} bytes were hashed", self.at, self.file_bytes)));
        }
        self.start_rest();
        Ok(())
    }

    fn padding(&self) -> usize {
        if self.signed { 0 } else { (8 - (self.file_bytes % 8) as usize) % 8 }
    }

    /// All sections are behind us: what is hashed twice comes next, then the rest of the file.
    fn start_rest(&mut self) {
        if let Some(rest) = self.rest.take() {
            self.hash.update(&self.kept);
            self.kept = Vec::new();
            self.ranges.push(rest);
        }
    }
}

impl Sink for DigestSink {
    fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        let last = self.but_the_last(bytes)?;
        self.hash.update(last);
        Ok(())
    }
}

impl HashSink for DigestSink {
    fn hashed<'s, 'b>(&'s mut self, bytes: &'b [u8]) -> Result<Option<(&'s mut Sha256Stream, &'b [u8])>> {
        let last = self.but_the_last(bytes)?;
        Ok(match &mut self.hash {
            Hasher::Sha256(hash) => Some((hash, last)),
            hash => {
                hash.update(last);
                None
            }
        })
    }
}

impl DigestSink {
    /// Takes a chunk, but for the part of it that is to be hashed last.
    fn but_the_last<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8]> {
        let from = self.at;
        self.at = from.saturating_add(bytes.len() as u64);
        if self.at > self.file_bytes {
            return Err(Error::rejected(format!(
                "the file grew beyond its {} bytes while it was read",
                self.file_bytes
            )));
        }
        self.kept.extend_from_slice(overlap(bytes, from, &self.second));
        self.table_bytes.extend_from_slice(overlap(
            bytes,
            from,
            &(self.table.offset..self.table.offset + self.table.bytes),
        ));
        loop {
            let Some(range) = self.ranges.get(self.next) else {
                if self.rest.is_none() {
                    return Ok(&[]);
                }
                self.start_rest();
                continue;
            };
            let part = overlap(bytes, from, range);
            if range.end > self.at {
                return Ok(part);
            }
            self.hash.update(part);
            self.next += 1;
        }
    }
}

/// The part of `bytes`, which stand at `from`, that lies in `range`.
fn overlap<'a>(bytes: &'a [u8], from: u64, range: &Range<u64>) -> &'a [u8] {
    let clip = |at: u64| usize::try_from(at.saturating_sub(from)).unwrap_or(usize::MAX).min(bytes.len());
    let (start, end) = (clip(range.start), clip(range.end));
    bytes.get(start..end).unwrap_or_default()
}
