//! The intent record as bytes: what makes a file one, and a cluster a part of one.
//!
//! The record fills its clusters one by one, and each begins with a line of its own:
//! `BOOTSURGEON RECORD 3 0.1.0 part 0001 of 0001 bytes 000431 sum <32 hex digits>`: the version of the format, the
//! program's version, the part and how many there are, the bytes that follow the line, and the first half of their and
//! the line's SHA-256. So a cluster is known for a part of a record even where the chain or the name that led there is
//! cut off, and a person with any FAT reader can read what is in it: the parts together are JSON. Every later format
//! keeps the line's begin.
//!
//! A record is written in the oldest format that has all of it: format 5 is for operations that make directories, format
//! 4 for those with a set of files, format 3 for the rest.
//! Format 2 knew no directory of the operation: it was always `EFI/Linux`. Format 1, which the first release wrote, was
//! JSON alone: `{"bootsurgeon": 1, …}`. All of them are read.

use super::order::Operation;
use crate::fat::Clusters;
use crate::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The newest format. Older versions of this program know the ones before it.
pub(super) const FORMAT: u32 = 5;
const WITHOUT_DIRECTORIES: u32 = 4;
const WITHOUT_SETS: u32 = 3;
/// The oldest format that comes in parts.
const FIRST_IN_PARTS: u64 = 2;
/// A record larger than this was not written by this program.
pub(super) const MAX_BYTES: u32 = 1024 * 1024;

const MAGIC: &str = "BOOTSURGEON RECORD ";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// No line is longer, whatever the program's version.
const MAX_LINE: usize = 200;

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) operation: Operation,
    /// The files that are to be renamed or deleted, by their names before the operation.
    #[serde(default)]
    pub(super) files: BTreeMap<String, Held>,
    /// The clusters of the image that was staged.
    #[serde(default)]
    pub(super) staged: Clusters,
    /// The boot menu beside the operation's own names when it began: [`super::intent::others_in_menu`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) menu: Option<String>,
    /// On a member of a mirror: the one that the others are made equal to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) truth: Option<String>,
}

/// What a file held when the operation began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// First cluster.
    pub(super) cluster: u32,
    /// Length in bytes.
    pub(super) bytes: u32,
    /// Of files that are to lose their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<String>,
    /// Of files that are to be deleted.
    #[serde(default, skip_serializing_if = "Clusters::is_empty")]
    pub(super) clusters: Clusters,
}

/// The record of format 1. Its files are first cluster and length alone.
#[derive(Deserialize)]
struct First {
    operation: Operation,
    #[serde(default)]
    files: BTreeMap<String, (u32, u32)>,
}

/// Why bytes are no record that can be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is none of ours.
    Foreign,
    /// It begins as one of ours, and is not whole.
    Damaged,
    /// Another version of this program wrote it.
    Version { format: u64, program: Option<String> },
}

impl Record {
    /// The file's content for clusters of this size.
    pub(super) fn encode(&self, cluster_bytes: u32) -> Result<Vec<u8>> {
        let body = serde_json::to_vec(self).map_err(|e| Error::new(Code::Bug, e.to_string()))?;
        let format = match &self.operation {
            operation if !operation.directories.is_empty() => FORMAT,
            operation if !operation.set.is_empty() => WITHOUT_DIRECTORIES,
            _ => WITHOUT_SETS,
        };
        let room = cluster_bytes as usize - line(format, 0, 0, &[]).len();
        let of = body.len().div_ceil(room);
        let parts = body.chunks(room).enumerate();
        let bytes: Vec<u8> = parts
            .flat_map(|(i, payload)| [line(format, i + 1, of, payload).into_bytes(), payload.to_vec()].concat())
            .collect();
        if of > 9999 || bytes.len() > MAX_BYTES as usize {
            return Err(Error::refused("the operation touches more files than an intent record can name")
                .advise("do it in several steps"));
        }
        Ok(bytes)
    }

    /// Reads a file's content.
    pub(super) fn decode(bytes: &[u8], cluster_bytes: u32) -> Result<Self, Trouble> {
        let Some(first) = Part::of(bytes) else { return Self::decode_first(bytes) };
        if !(FIRST_IN_PARTS..=u64::from(FORMAT)).contains(&first.format) {
            return Err(Trouble::Version { format: first.format, program: first.program });
        }
        let mut body = Vec::with_capacity(bytes.len());
        let chunks: Vec<&[u8]> = bytes.chunks(cluster_bytes as usize).collect();
        for (i, chunk) in chunks.iter().enumerate() {
            let part = Part::of(chunk).filter(|p| p.is_whole()).ok_or(Trouble::Damaged)?;
            let in_place = (part.number, part.of) == (i + 1, chunks.len()) && part.length == chunk.len();
            if !in_place || part.format != first.format {
                return Err(Trouble::Damaged);
            }
            body.extend_from_slice(part.payload.unwrap_or_default());
        }
        serde_json::from_slice(&body).map_err(|_| Trouble::Damaged)
    }

    /// The JSON of format 1.
    fn decode_first(bytes: &[u8]) -> Result<Self, Trouble> {
        let json: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| Trouble::Foreign)?;
        match json.get("bootsurgeon").and_then(serde_json::Value::as_u64) {
            None => Err(Trouble::Foreign),
            Some(1) => {
                let First { operation, files } = serde_json::from_value(json).map_err(|_| Trouble::Damaged)?;
                let held = |(cluster, bytes)| Held { cluster, bytes, sha256: None, clusters: Clusters::default() };
                let files = files.into_iter().map(|(name, file)| (name, held(file))).collect();
                Ok(Self { operation, files, staged: Clusters::default(), menu: None, truth: None })
            }
            Some(format) => Err(Trouble::Version { format, program: None }),
        }
    }

    /// Every cluster that the operation may have left allocated without a name.
    pub(super) fn accounted(&self) -> Clusters {
        let of_files = self.files.values().flat_map(|f| f.clusters.runs());
        Clusters::of(self.staged.runs().iter().chain(of_files).copied())
    }
}

/// Whether a cluster is part of a record, whole. A format that is not known counts as well: it has its line.
pub(super) fn is_part(cluster: &[u8]) -> bool {
    Part::of(cluster).is_some_and(|part| part.is_whole())
}

/// The line before a part's bytes. Its length depends on the program's version alone.
fn line(format: u32, number: usize, of: usize, payload: &[u8]) -> String {
    let begin = format!("{MAGIC}{format} {VERSION} part {number:04} of {of:04} bytes {:06} sum ", payload.len());
    let sum = sum(begin.as_bytes(), payload);
    format!("{begin}{sum}\n")
}

fn sum(begin: &[u8], payload: &[u8]) -> String {
    let digest = Sha256::new().chain_update(begin).chain_update(payload).finalize();
    hex::encode(&digest[..16])
}

/// What the begin of a cluster says.
struct Part<'a> {
    format: u64,
    program: Option<String>,
    number: usize,
    of: usize,
    /// `None` when it is cut off.
    payload: Option<&'a [u8]>,
    /// Of the line and the payload.
    length: usize,
    /// The line up to its checksum, and the checksum.
    begin: &'a [u8],
    sum: &'a str,
}

impl<'a> Part<'a> {
    /// `None` when the bytes do not begin as a part of a record.
    fn of(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(MAGIC.as_bytes()) {
            return None;
        }
        let end = bytes.iter().take(MAX_LINE).position(|b| *b == b'\n').unwrap_or(0);
        let line = std::str::from_utf8(&bytes[..end]).unwrap_or_default();
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|w| w.parse::<usize>().ok()).unwrap_or(0);
        let length = number(9);
        Some(Self {
            // A line that cannot be read is a damaged one of a format that is known.
            format: words.get(2).and_then(|w| w.parse().ok()).unwrap_or(u64::from(FORMAT)),
            program: words.get(3).map(|w| (*w).to_owned()),
            number: number(5),
            of: number(7),
            payload: bytes.get(end + 1..end + 1 + length),
            length: end + 1 + length,
            begin: line.rfind(' ').map_or(&[], |at| &bytes[..=at]),
            sum: words.get(11).copied().unwrap_or_default(),
        })
    }

    fn is_whole(&self) -> bool {
        self.payload.is_some_and(|payload| sum(self.begin, payload) == self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fat::Run;

    fn record(names: usize) -> Record {
        let held = Held { cluster: 7, bytes: 9, sha256: Some("ab".repeat(32)), clusters: Clusters::default() };
        Record {
            operation: serde_json::from_str(r#"{"command": "prune", "time": 1, "install": null, "after": []}"#)
                .unwrap(),
            files: (0..names).map(|n| (format!("Talos-{n}.efi"), held.clone())).collect(),
            staged: Clusters::of([
                Run { first: 10, count: 3 },
                Run { first: 2, count: 1 },
                Run { first: 13, count: 2 },
            ]),
            menu: Some("0123456789abcdef".into()),
            truth: None,
        }
    }

    #[test]
    fn a_record_reads_back_and_each_of_its_clusters_is_known() {
        for (names, cluster) in [(0, 512), (1, 512), (9, 512), (9, 4096), (200, 512), (200, 32_768)] {
            let record = record(names);
            let bytes = record.encode(cluster).unwrap();
            assert_eq!(Record::decode(&bytes, cluster), Ok(record));
            for part in bytes.chunks(cluster as usize) {
                assert!(is_part(part));
                // As it stands in a cluster, with whatever was there before behind it.
                assert!(is_part(&[part, &[0xA5; 100]].concat()));
            }
        }
    }

    #[test]
    fn a_record_with_any_bit_changed_is_none() {
        let bytes = record(5).encode(512).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&bad, 512).is_err(), "bit {bit}");
            let part = bit / 8 / 512 * 512;
            assert!(!is_part(&bad[part..(part + 512).min(bad.len())]), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Record::decode(&bytes[..length], 512).is_err(), "{length}");
        }
        assert!(Record::decode(&[&bytes[..], b"x"].concat(), 512).is_err());
    }

    #[test]
    fn other_formats_are_named() {
        let version =
            |format, program: Option<&str>| Err(Trouble::Version { format, program: program.map(str::to_owned) });
        assert_eq!(Record::decode(b"BOOTSURGEON RECORD 6 1.7.0 something else\n", 512), version(6, Some("1.7.0")));
        assert_eq!(Record::decode(br#"{"bootsurgeon": 2, "plan": []}"#, 512), version(2, None));
        for foreign in [&b""[..], b"{}", b"no record", b"[1]", br#"{"bootsurgeon": "1"}"#, &[0; 600]] {
            assert_eq!(Record::decode(foreign, 512), Err(Trouble::Foreign));
        }
        assert_eq!(Record::decode(br#"{"bootsurgeon": 1}"#, 512), Err(Trouble::Damaged));
        assert_eq!(Record::decode(b"BOOTSURGEON RECORD ", 512), Err(Trouble::Damaged));
    }
}
