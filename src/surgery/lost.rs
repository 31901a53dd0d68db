//! Clusters that are allocated and belong to no file: whose they are, what is in them, and giving them a name or
//! freeing them.
//!
//! A lost chain may be the last copy of somebody's file: one directory sector that reads as zeros, and every file in it
//! is lost. So only what was left by this program is ever freed unasked: clusters that the record of an interrupted
//! operation accounts for, and clusters that say themselves what they are (parts of a record whose name was cut off,
//! the cluster by which a directory was about to grow).

use super::order::ContentSource;
use super::record::{Record, is_part};
use super::{Action, Interrupted, LINUX_DIR, discard};
use crate::block::{Pieces, ReadAt, read_vec, sha256_of};
use crate::fat::{
    AllocationTable, Attributes, ClusterMap, Clusters, Content, Editor, Link, Run, Stamp, Volume, grown_cluster,
};
use crate::sorting::Sort as _;
use crate::units::{count, size};
use crate::{Error, Result, uki};
use serde::Serialize;

/// More chains than this are counted and not described.
const MAX_DESCRIBED: usize = 64;

/// A chain of clusters that belongs to no file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LostChain {
    /// Its first cluster.
    pub first_cluster: u32,
    /// How many clusters it has.
    pub clusters: u32,
    /// Their length in bytes; what was in them may have been shorter.
    pub bytes: u64,
    /// What it begins like, if that is known: `a UKI of Talos v1.12.4`.
    pub looks_like: Option<String>,
}

impl std::fmt::Display for LostChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { first_cluster, clusters, bytes, looks_like } = self;
        write!(f, "the lost chain at cluster {first_cluster}: {}, {}", count(*clusters, "cluster"), size(*bytes))?;
        match looks_like {
            Some(what) => write!(f, ", {what}"),
            None => Ok(()),
        }
    }
}

/// What to do with lost chains that this program did not leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LostFiles {
    /// They stay as they are.
    #[default]
    Keep,
    /// They get names.
    Salvage,
    /// They are freed.
    Free,
}

/// A lost chain, and whether it ends as a chain should.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) clusters: Vec<u32>,
    whole: bool,
}

impl Chain {
    fn runs(&self) -> Vec<Run> {
        Clusters::in_order(&self.clusters)
    }
}

/// The lost chains that this program left, and those that it did not.
pub(super) struct Lost {
    pub(super) ours: Vec<Chain>,
    pub(super) others: Vec<Chain>,
}

impl Lost {
    /// Sorts lost clusters. `record` is that of an interrupted operation, if there is one.
    pub(super) fn sort<S: ReadAt>(volume: &Volume<S>, lost: &[Run], record: Option<&Record>) -> Result<Self> {
        let accounted = record.map(Record::accounted).unwrap_or_default();
        let grown = grown_cluster(volume.geometry().cluster_bytes);
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for chain in chains(volume.table(), lost) {
            let mut all = true;
            for cluster in &chain.clusters {
                all = accounted.contains(*cluster) || says_it_is_ours(volume, *cluster, &grown)?;
                if !all {
                    break;
                }
            }
            if all || is_staged_image(volume, &chain, record)? { ours.push(chain) } else { others.push(chain) }
        }
        Ok(Self { ours, others })
    }
}

/// Whether a cluster is part of a record, or was to be part of a directory.
fn says_it_is_ours<S: ReadAt>(volume: &Volume<S>, cluster: u32, grown: &[u8]) -> Result<bool> {
    let bytes = read_vec(volume.source(), volume.geometry().cluster_offset(cluster), grown.len())?;
    Ok(bytes == grown || is_part(&bytes))
}

/// Whether the chain is the new image of the interrupted operation, byte for byte. Records of format 1 do not list its
/// clusters.
fn is_staged_image<S: ReadAt>(volume: &Volume<S>, chain: &Chain, record: Option<&Record>) -> Result<bool> {
    // Only the formats without sets do without the list.
    let Some(install) = record.and_then(|r| r.operation.install.as_ref()) else { return Ok(false) };
    let length = u64::from(install.new.bytes);
    let begins = chain.clusters.first() == Some(&install.new.cluster);
    let fits = chain.clusters.len() as u64 == volume.geometry().clusters_for(length);
    let (true, Some(sha256)) = (begins && fits && install.source == ContentSource::Staged, &install.new.sha256) else {
        return Ok(false);
    };
    let bytes = Pieces::new(volume.source(), volume.extents_of(&chain.runs()))?;
    Ok(hex::encode(sha256_of(&bytes, length)?) == *sha256)
}

/// Lost clusters as chains, by the table: each from a cluster that no other leads to, as far as it is lost and in no
/// chain yet; then what runs in circles.
pub(super) fn chains(table: &AllocationTable, lost: &[Run]) -> Vec<Chain> {
    let lost = Clusters::of(lost.iter().copied());
    let all = || lost.runs().iter().flat_map(|r| r.clusters());
    let next = |c: u32| match table.link(c) {
        Link::Next(n) if lost.contains(n) => Some(n),
        _ => None,
    };
    let mut led_to = ClusterMap::new(table.clusters().end);
    for n in all().filter_map(next) {
        led_to.insert(n);
    }
    let mut taken = ClusterMap::new(table.clusters().end);
    let mut chains = Vec::new();
    for head in all().filter(|c| !led_to.contains(*c)).chain(all()) {
        let mut clusters = Vec::new();
        let mut at = Some(head);
        while let Some(c) = at.filter(|c| taken.insert(*c)) {
            clusters.push(c);
            at = next(c);
        }
        if let Some(last) = clusters.last() {
            let whole = table.link(*last) == Link::End;
            chains.push(Chain { clusters, whole });
        }
    }
    chains
}

/// What chains look like, the longest first, and how many are not listed.
pub(super) fn describe<S: ReadAt>(volume: &Volume<S>, mut chains: Vec<Chain>) -> Result<(Vec<LostChain>, usize)> {
    chains.put_in_order_by(|c| std::cmp::Reverse(c.clusters.len()));
    let more = chains.len().saturating_sub(MAX_DESCRIBED);
    let listed = chains.iter().take(MAX_DESCRIBED).map(|chain| {
        let clusters = chain.clusters.len() as u32;
        Ok(LostChain {
            first_cluster: chain.clusters[0],
            clusters,
            bytes: u64::from(clusters) * u64::from(volume.geometry().cluster_bytes),
            looks_like: Look::at(volume, chain)?.words(),
        })
    });
    Ok((listed.collect::<Result<_>>()?, more))
}

/// The lost clusters of a volume, told apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostClusters {
    /// How many this program left; [`super::recover`] frees them.
    pub ours: u64,
    /// The chains that it did not leave, the longest first, at most 64.
    pub others: Vec<LostChain>,
    /// How many more of them there are.
    pub unlisted: usize,
}

impl LostClusters {
    /// Looks at the clusters that a health check found lost; reads only.
    ///
    /// # Errors
    /// What the source reports.
    pub fn look<S: ReadAt>(volume: &Volume<S>, lost: &[Run], interrupted: Option<&Interrupted>) -> Result<Self> {
        if lost.is_empty() {
            return Ok(Self::default());
        }
        let Lost { mut ours, mut others } = Lost::sort(volume, lost, interrupted.and_then(|i| i.record.as_ref()))?;
        let discarded = discard::cut(volume, lost)?;
        let is_discarded = |chain: &mut Chain| discarded.iter().any(|cut| cut.chain == chain.clusters);
        ours.extend(others.extract_if(.., is_discarded));
        let (others, unlisted) = describe(volume, others)?;
        Ok(Self { ours: ours.iter().map(|c| c.clusters.len() as u64).sum(), others, unlisted })
    }

    /// What a command says that goes on in spite of them.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        Some(format!("{}; they are left alone: `doctor` says what they may be", self.others_in_words()?))
    }

    /// The chains that this program did not leave, in words, if there are any.
    #[must_use]
    pub fn others_in_words(&self) -> Option<String> {
        let longest = self.others.first()?;
        let more = self.others.len() - 1 + self.unlisted;
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        Some(format!("clusters that belong to no file: {longest}{more}"))
    }
}

/// What a chain begins like.
enum Look {
    Uki { version: Option<String>, is_talos: bool, bytes: u64 },
    Program { bytes: Option<u64> },
    Directory,
    Zeros,
    Unknown,
}

impl Look {
    fn at<S: ReadAt>(volume: &Volume<S>, chain: &Chain) -> Result<Self> {
        let bytes = Pieces::new(volume.source(), volume.extents_of(&chain.runs()))?;
        let begin = read_vec(&bytes, 0, 512.min(bytes.size()) as usize)?;
        if begin.starts_with(b".          ") && begin.get(32..43) == Some(b"..         ") {
            return Ok(Self::Directory);
        }
        if begin.iter().all(|b| *b == 0) {
            return Ok(Self::Zeros);
        }
        if !begin.starts_with(b"MZ") {
            return Ok(Self::Unknown);
        }
        let facts = match uki::probe(&bytes) {
            Err(e) if e.code().is_bad_content() => return Ok(Self::Program { bytes: None }),
            facts => facts?,
        };
        let ends = facts.head.sections.iter().map(|s| s.raw).chain(facts.head.certificate_table);
        let length =
            ends.map(|e| e.offset + e.bytes).max().unwrap_or_default().max(u64::from(facts.head.size_of_headers));
        if facts.extent(".linux").is_none() {
            return Ok(Self::Program { bytes: Some(length) });
        }
        // It becomes part of a file name, and is shown: nothing but what versions are made of.
        let plain = |v: &&str| v.len() <= 32 && v.chars().all(|c| c.is_ascii_alphanumeric() || ".-_+~".contains(c));
        let version = facts.version().filter(plain).map(str::to_owned);
        Ok(Self::Uki { is_talos: facts.os_release.id.as_deref() == Some("talos"), version, bytes: length })
    }

    fn words(&self) -> Option<String> {
        Some(match self {
            Self::Uki { version, is_talos, .. } => {
                let what = if *is_talos { "a UKI of Talos" } else { "a UKI" };
                version.as_ref().map_or(what.to_owned(), |v| format!("{what} {v}"))
            }
            Self::Program { .. } => "an EFI program".to_owned(),
            Self::Directory => "a directory".to_owned(),
            Self::Zeros => "nothing but zeros at its beginning".to_owned(),
            Self::Unknown => return None,
        })
    }

    /// The length of what was in it, where its own headers tell.
    fn length(&self) -> Option<u64> {
        match self {
            Self::Uki { bytes, .. } => Some(*bytes),
            Self::Program { bytes } => *bytes,
            _ => None,
        }
    }
}

/// Gives each chain a name: images in `EFI/Linux`, under names that no boot menu lists; the rest as `FSCK0000.REC` in
/// the root directory, as `fsck.fat` does. Says what was done.
pub(super) fn salvage(editor: &mut Editor<'_>, chains: Vec<Chain>, time: u64) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    for chain in chains {
        let volume = editor.volume();
        let whole = chain.clusters.len() as u64 * u64::from(volume.geometry().cluster_bytes);
        let look = Look::at(&volume, &chain)?;
        let fits = |bytes: &u64| *bytes > 0 && volume.geometry().clusters_for(*bytes) == chain.clusters.len() as u64;
        let Ok(bytes) = u32::try_from(look.length().filter(fits).unwrap_or(whole)) else {
            actions.push(Action::LeaveLost { first_cluster: chain.clusters[0], bytes: whole });
            continue;
        };
        let (directory, name) = name_for(&volume, &look)?;
        if !chain.whole {
            end(editor, &chain)?;
        }
        let content = Content::new(chain.clusters[0], bytes, Stamp(time));
        editor.create(directory, &name, Attributes::ARCHIVE, content, None)?;
        editor.barrier()?;
        let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        actions.push(Action::Salvage { path, bytes: bytes.into(), looks_like: look.words() });
    }
    Ok(actions)
}

/// Ends a chain that runs into another one, into free clusters or in a circle.
fn end(editor: &mut Editor<'_>, chain: &Chain) -> Result<()> {
    let Some(last) = chain.clusters.last() else { return Ok(()) };
    editor.link(&[Run { first: *last, count: 1 }])?;
    editor.barrier()
}

/// A name that nothing has: its directory and itself.
fn name_for<S: ReadAt>(volume: &Volume<S>, look: &Look) -> Result<(&'static str, String)> {
    let none = || Error::refused("no name is left for a lost chain");
    if let (Look::Uki { version, is_talos, .. }, Some(linux)) = (look, volume.find_directory(LINUX_DIR)?) {
        let stem = match version {
            Some(version) if *is_talos => format!("Talos-{version}.efi"),
            Some(version) => format!("image-{version}.efi"),
            None => "image.efi".to_owned(),
        };
        let names = (1..10_000).map(|n| format!("{stem}.salvaged.{n}"));
        return Ok((LINUX_DIR, { names }.find(|name| linux.find(name).is_none()).ok_or_else(none)?));
    }
    let root = volume.root()?;
    let mut names = (0..10_000).map(|n| format!("FSCK{n:04}.REC"));
    Ok(("", names.find(|name| root.find(name).is_none()).ok_or_else(none)?))
}

/// Frees chains; how many clusters.
pub(super) fn free(editor: &mut Editor<'_>, chains: &[Chain]) -> Result<u64> {
    let clusters: u64 = chains.iter().map(|c| c.clusters.len() as u64).sum();
    if clusters > 0 {
        let runs: Vec<Run> = chains.iter().flat_map(Chain::runs).collect();
        editor.free(&runs)?;
        editor.barrier()?;
    }
    Ok(clusters)
}
