//! A read-only check of the whole volume, in the terms of `fsck.fat`. Every command that writes runs it first.

use super::bootsector::{Difference, difference, looks_misread};
use super::dir::{Directory, Entry};
use super::geometry::{FatKind, Root};
use super::name::folded;
use super::table::{Link, Run, Table};
use super::volume::Volume;
use crate::block::{ReadAt, read_vec};
use crate::{Kind, Result};
use serde::Serialize;
use std::fmt::Display;

/// More problems than this are counted but not listed.
const MAX_LISTED: usize = 64;
/// Directories nested deeper than this are refused; firmware gives up far earlier.
const MAX_DEPTH: usize = 64;

/// What a problem means for surgery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemClass {
    /// Something a file depends on is wrong: writing is refused.
    Damage,
    /// What an interrupted operation leaves behind; no file depends on it, and `recover` takes it away.
    Leftover,
    /// Worth knowing; nothing depends on it.
    Note,
}

/// What sort of thing is wrong. Code decides by this, never by the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// The boot sector contradicts its backup, or what it leads to.
    BootSector,
    /// The boot sector's backup differs in what no reader goes by, or there is none.
    BackupBootSector,
    /// A FAT32 with fewer clusters than FAT32 has.
    FewClusters,
    /// The allocation table does not begin as one.
    Media,
    /// The copies of the allocation table differ.
    TableCopies,
    /// A file's or directory's chain is broken, or does not fit its size.
    Chain,
    /// A cluster with two owners.
    Shared,
    /// A directory that breaks the rules of its format.
    Directory,
    /// A name that breaks the rules, or stands twice in a directory.
    Name,
    /// Long-name slots that belong to no entry.
    OrphanSlots,
    /// Clusters that are allocated and belong to no file.
    LostClusters,
    /// The FSInfo sector.
    FsInfo,
    /// The dirty flag.
    Dirty,
    /// The flag for errors of the medium.
    IoErrors,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What it means for surgery.
    pub class: ProblemClass,
    /// What sort of thing it is.
    pub kind: ProblemKind,
    /// What is wrong and where, for people.
    pub what: String,
}

/// The state of a volume.
#[derive(Debug, Clone)]
pub struct Health {
    /// What was found, worst first, at most 64 entries.
    pub problems: Vec<Problem>,
    /// How many more there were.
    pub unlisted: usize,
    /// Clusters that are allocated and belong to no file or directory.
    pub lost: Vec<Run>,
    /// Free clusters, counted.
    pub free_clusters: u32,
    /// Directories with long-name slots that belong to no entry: path and number of slots.
    pub orphan_slots: Vec<(String, usize)>,
    /// Clusters whose entries differ between the copies of the allocation table.
    pub differing: Vec<u32>,
    /// Whether FSInfo says something else than the allocation table.
    pub fsinfo_stale: bool,
    /// Marked as not cleanly unmounted.
    pub dirty: bool,
}

impl Health {
    /// Whether nothing stands in the way of writing.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.worst() != Some(ProblemClass::Damage) && !self.has_leftovers()
    }

    /// Whether something that a file depends on is wrong.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.worst() == Some(ProblemClass::Damage)
    }

    /// Whether there is something for `recover` to take away.
    #[must_use]
    pub fn has_leftovers(&self) -> bool {
        self.problems.iter().any(|p| p.class == ProblemClass::Leftover)
    }

    fn worst(&self) -> Option<ProblemClass> {
        self.problems.first().map(|p| p.class)
    }

    /// Checks a volume.
    ///
    /// # Errors
    /// What the source reports; [`crate::Kind::Rejected`] only when the root directory cannot be read at all.
    pub fn check<S: ReadAt>(volume: &Volume<S>) -> Result<Self> {
        let mut check = Check::new(volume);
        check.boot_sectors()?;
        check.tree()?;
        check.shared_owners()?;
        check.lost_clusters();
        check.table_copies()?;
        check.media();
        check.fsinfo()?;
        check.flags();
        Ok(check.finish())
    }
}

struct Check<'v, S> {
    volume: &'v Volume<S>,
    problems: Vec<Problem>,
    unlisted: usize,
    /// One bit per cluster: it belongs to a file or directory.
    owned: Vec<u64>,
    /// Clusters that a second owner claims, with that owner's path.
    shared: Vec<(u32, String)>,
    lost: Vec<Run>,
    orphan_slots: Vec<(String, usize)>,
    differing: Vec<u32>,
    free_clusters: u32,
    fsinfo_stale: bool,
    dirty: bool,
}

impl<'v, S: ReadAt> Check<'v, S> {
    fn new(volume: &'v Volume<S>) -> Self {
        Self {
            volume,
            problems: Vec::new(),
            unlisted: 0,
            owned: vec![0; volume.geometry().clusters as usize / 64 + 1],
            shared: Vec::new(),
            lost: Vec::new(),
            orphan_slots: Vec::new(),
            differing: Vec::new(),
            free_clusters: 0,
            fsinfo_stale: false,
            dirty: false,
        }
    }

    /// `what` is put into words only where it is listed: there may be millions.
    fn found(&mut self, class: ProblemClass, kind: ProblemKind, what: impl Display) {
        if self.problems.len() < MAX_LISTED {
            self.problems.push(Problem { class, kind, what: what.to_string() });
        } else {
            // Whatever the list says, a damaged volume must not look healthy because its list was full of notes.
            if class == ProblemClass::Damage
                && let Some(p) = self.problems.iter_mut().find(|p| p.class != ProblemClass::Damage)
            {
                *p = Problem { class, kind, what: what.to_string() };
            }
            self.unlisted += 1;
        }
    }

    fn damage(&mut self, kind: ProblemKind, what: impl Display) {
        self.found(ProblemClass::Damage, kind, what);
    }

    fn bit(cluster: u32) -> (usize, u64) {
        (cluster as usize / 64, 1 << (cluster % 64))
    }

    fn is_owned(&self, cluster: u32) -> bool {
        let (word, bit) = Self::bit(cluster.saturating_sub(2));
        self.owned.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Marks a chain as belonging to `path`; says whether all of it was unclaimed.
    fn claim(&mut self, runs: &[Run], path: &str) -> bool {
        let mut alone = true;
        for cluster in runs.iter().flat_map(|r| r.clusters()) {
            let (word, bit) = Self::bit(cluster - 2);
            if self.owned[word] & bit != 0 {
                if alone {
                    self.shared.push((cluster, path.to_owned()));
                }
                alone = false;
            }
            self.owned[word] |= bit;
        }
        alone
    }

    fn boot_sectors(&mut self) -> Result<()> {
        let g = self.volume.geometry();
        if g.kind == FatKind::Fat32 && g.clusters < 65_525 {
            self.found(
                ProblemClass::Note,
                ProblemKind::FewClusters,
                format_args!(
                    "FAT32 with {} clusters, fewer than 65,525: firmware that goes by the count takes it for FAT16",
                    g.clusters
                ),
            );
        }
        if g.kind == FatKind::Fat32 && g.backup_boot_offset.is_none() {
            self.found(ProblemClass::Note, ProblemKind::BackupBootSector, "there is no backup of the boot sector");
        }
        match difference(self.volume)? {
            Difference::None => {}
            Difference::Harmless(at) => self.found(
                ProblemClass::Note,
                ProblemKind::BackupBootSector,
                format_args!("the boot sector and its backup differ at byte {at}, in nothing that files are found by"),
            ),
            Difference::Shape(at) => {
                self.damage(
                    ProblemKind::BootSector,
                    format_args!("the boot sector and its backup differ at byte {at}"),
                );
            }
        }
        if let Some(why) = looks_misread(self.volume)? {
            self.damage(ProblemKind::BootSector, why);
        }
        Ok(())
    }

    /// Walks every directory, without recursion: the depth is the attacker's choice.
    fn tree(&mut self) -> Result<()> {
        let root = self.volume.root()?;
        let root_cluster = match self.volume.geometry().root {
            Root::Chain(first) => first,
            Root::Fixed { .. } => 0,
        };
        self.claim(&root.runs.clone(), "/");
        let mut stack = vec![(String::new(), root, root_cluster, root_cluster, 0usize)];
        while let Some((path, directory, own, parent, depth)) = stack.pop() {
            self.directory(&path, &directory, own, parent, root_cluster);
            for entry in directory.entries.iter().filter(|e| !e.is_dot()) {
                let path = format!("{path}/{}", entry.name);
                if !entry.is_dir() {
                    self.file(&path, entry);
                } else if depth >= MAX_DEPTH {
                    self.damage(
                        ProblemKind::Directory,
                        format_args!("{path}: directories nested deeper than {MAX_DEPTH}"),
                    );
                } else if entry.first_cluster == 0 {
                    self.damage(ProblemKind::Directory, format_args!("{path}: a directory without a cluster"));
                } else {
                    match self.volume.directory(entry) {
                        // A medium that cannot be read says nothing about what is on it.
                        Err(e) if e.kind() != Kind::Rejected => return Err(e.while_doing(format!("checking {path}"))),
                        Err(e) => self.damage(ProblemKind::Chain, format_args!("{path}: {}", e.message())),
                        Ok(d) => {
                            if entry.bytes != 0 {
                                self.damage(
                                    ProblemKind::Directory,
                                    format_args!("{path}: a directory with a size ({} bytes)", entry.bytes),
                                );
                            }
                            if self.claim(&d.runs.clone(), &path) {
                                stack.push((path, d, entry.first_cluster, own, depth + 1));
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &str, d: &Directory, own: u32, parent: u32, root: u32) {
        let shown = if path.is_empty() { "/" } else { path };
        if !path.is_empty() {
            let parent = if parent == root { 0 } else { parent };
            for (i, (name, cluster)) in [(&b".          ", own), (&b"..         ", parent)].into_iter().enumerate() {
                let fits = d.entries.get(i).is_some_and(|e| {
                    e.short_slot() == i && e.short == **name && e.is_dir() && e.first_cluster == cluster
                });
                if !fits {
                    let name = String::from_utf8_lossy(&name[..]).trim_end().to_owned();
                    self.damage(
                        ProblemKind::Directory,
                        format_args!("{shown}: slot {i} is not a proper {name:?} entry"),
                    );
                }
            }
        }
        if !d.orphans.is_empty() {
            self.orphan_slots.push((path.to_owned(), d.orphans.len()));
            self.found(
                ProblemClass::Leftover,
                ProblemKind::OrphanSlots,
                format_args!("{shown}: {} long-name slots that belong to no file", d.orphans.len()),
            );
        }
        for slot in (0..d.end()).map(|n| d.slot(n)) {
            // Attribute and first cluster: a label has a name and nothing else. A file whose attribute byte was hit must
            // not be taken for lost clusters, which `recover` frees.
            let label = slot[0] != 0xE5 && slot[11] & 0x08 != 0 && slot[11] & 0x3F != 0x0F;
            if label && slot[20..22].iter().chain(&slot[26..32]).any(|b| *b != 0) {
                let name = String::from_utf8_lossy(&slot[..11]).trim_end().to_owned();
                self.damage(
                    ProblemKind::Directory,
                    format_args!("{shown}: {name:?} is marked as a volume label but has a cluster or a size"),
                );
            }
        }
        let skip = if path.is_empty() { 0 } else { 2 };
        let mut shorts = std::collections::HashMap::new();
        let mut longs = std::collections::HashMap::new();
        for e in d.entries.iter().skip(skip) {
            if let Some(c) =
                e.short.iter().find(|c| **c < 0x20 && **c != 0x05 || **c == 0x7F || br#""*+,./:;<=>?[\]|"#.contains(c))
            {
                self.damage(
                    ProblemKind::Name,
                    format_args!("{shown}: {:?} has the character {c:#04x} in its short name", e.name),
                );
            }
            if e.short[0] == b' ' {
                self.damage(ProblemKind::Name, format_args!("{shown}: a short name that begins with a space"));
            }
            if let Some(other) = shorts.insert(e.short, &e.name) {
                self.damage(
                    ProblemKind::Name,
                    format_args!("{shown}: {other:?} and {:?} have the same short name", e.name),
                );
            }
            if longs.insert(folded(&e.name), ()).is_some() {
                self.damage(ProblemKind::Name, format_args!("{shown}: two entries are named {:?}", e.name));
            }
        }
    }

    fn file(&mut self, path: &str, entry: &Entry) {
        if entry.first_cluster == 0 {
            if entry.bytes != 0 {
                self.damage(
                    ProblemKind::Chain,
                    format_args!("{path}: {} bytes long, but without a cluster", entry.bytes),
                );
            }
            return;
        }
        let runs = match self.volume.table().chain(entry.first_cluster) {
            Ok(runs) => runs,
            Err(e) => return self.damage(ProblemKind::Chain, format_args!("{path}: {}", e.message())),
        };
        let have: u64 = runs.iter().map(|r| u64::from(r.count)).sum();
        let need = self.volume.geometry().clusters_for(u64::from(entry.bytes));
        if have != need {
            self.damage(
                ProblemKind::Chain,
                format_args!("{path}: {} bytes need {need} clusters, its chain has {have}", entry.bytes),
            );
        }
        self.claim(&runs, path);
    }

    /// Names the first owner of every cluster that two claim.
    fn shared_owners(&mut self) -> Result<()> {
        for (cluster, second) in std::mem::take(&mut self.shared) {
            let first = owner_of(self.volume, cluster, &second)?.unwrap_or_else(|| "itself".into());
            self.damage(ProblemKind::Shared, format_args!("{second} shares cluster {cluster} with {first}"));
            if self.problems.len() == MAX_LISTED {
                break;
            }
        }
        Ok(())
    }

    fn lost_clusters(&mut self) {
        let table = self.volume.table();
        let mut lost: Vec<Run> = Vec::new();
        let mut count = 0u64;
        for cluster in table.clusters() {
            match table.link(cluster) {
                Link::Free => self.free_clusters += 1,
                Link::Bad => {}
                Link::Next(_) | Link::End if self.is_owned(cluster) => {}
                Link::Next(_) | Link::End => {
                    count += 1;
                    match lost.last_mut() {
                        Some(run) if run.first + run.count == cluster => run.count += 1,
                        _ => lost.push(Run { first: cluster, count: 1 }),
                    }
                }
            }
        }
        if count > 0 {
            let bytes = count * u64::from(self.volume.geometry().cluster_bytes);
            self.found(
                // Nothing depends on them. They may be the last copy of a file that lost its name: no reason to refuse anything,
                // and nothing to take away unasked.
                ProblemClass::Note,
                ProblemKind::LostClusters,
                format_args!("{count} clusters ({bytes} bytes) are allocated and belong to no file"),
            );
        }
        self.lost = lost;
    }

    fn table_copies(&mut self) -> Result<()> {
        let g = self.volume.geometry();
        let (mut in_files, mut elsewhere) = (0usize, 0usize);
        for n in g.live_copies().skip(1) {
            let copy = Table::read(self.volume.source(), g, n)?;
            if copy.bytes() == self.volume.table().bytes() {
                continue;
            }
            for cluster in (0..2).chain(copy.clusters()) {
                if copy.raw(cluster) != self.volume.table().raw(cluster) {
                    self.differing.push(cluster);
                    if cluster < 2 || self.is_owned(cluster) { in_files += 1 } else { elsewhere += 1 }
                }
            }
        }
        if in_files > 0 {
            let first = self.differing.iter().copied().find(|c| *c < 2 || self.is_owned(*c)).unwrap_or(0);
            self.damage(
                ProblemKind::TableCopies,
                format_args!(
                    "the copies of the allocation table differ in {in_files} entries that files use, the first is {first}"
                ),
            );
        }
        if elsewhere > 0 {
            self.found(
                ProblemClass::Leftover,
                ProblemKind::TableCopies,
                format_args!("the copies of the allocation table differ in {elsewhere} entries that no file uses"),
            );
        }
        Ok(())
    }

    fn fsinfo(&mut self) -> Result<()> {
        let Some(at) = self.volume.geometry().fsinfo_offset else { return Ok(()) };
        let raw = read_vec(self.volume.source(), at, 512)?;
        let field = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        if field(0) != FSINFO_LEAD || field(484) != FSINFO_STRUCT || raw[510..512] != [0x55, 0xAA] {
            self.damage(ProblemKind::FsInfo, "the FSInfo sector has no valid signatures");
            return Ok(());
        }
        let free = field(488);
        if free != self.free_clusters {
            self.fsinfo_stale = true;
            let said = if free == u32::MAX { "does not say".into() } else { format!("says {free}") };
            let counted = self.free_clusters;
            self.found(
                ProblemClass::Note,
                ProblemKind::FsInfo,
                format_args!("{counted} clusters are free, FSInfo {said}"),
            );
        }
        Ok(())
    }

    /// Entry 0 holds the media byte, all other bits set. Where it does not, this is no allocation table: the boot sector
    /// points elsewhere, or the table was overwritten.
    fn media(&mut self) {
        let (entry, kind) = (self.volume.table().raw(0), self.volume.geometry().kind);
        let rest = kind.mask() & !0x0F;
        if entry & rest != rest {
            self.damage(
                ProblemKind::Media,
                format_args!("the allocation table begins with {entry:#x}, which is no media byte"),
            );
        }
    }

    fn flags(&mut self) {
        let flags = self.volume.table().flags();
        self.dirty = flags.dirty || self.volume.geometry().dirty_in_bpb;
        if self.dirty {
            self.found(ProblemClass::Note, ProblemKind::Dirty, "the volume was not unmounted cleanly (dirty flag)");
        }
        if flags.io_errors {
            self.damage(ProblemKind::IoErrors, "an operating system has marked the medium as having I/O errors");
        }
    }

    fn finish(mut self) -> Health {
        self.problems.sort_by_key(|p| match p.class {
            ProblemClass::Damage => 0,
            ProblemClass::Leftover => 1,
            ProblemClass::Note => 2,
        });
        Health {
            problems: self.problems,
            unlisted: self.unlisted,
            lost: self.lost,
            free_clusters: self.free_clusters,
            orphan_slots: self.orphan_slots,
            differing: self.differing,
            fsinfo_stale: self.fsinfo_stale,
            dirty: self.dirty,
        }
    }
}

/// `FSI_LeadSig` and `FSI_StrucSig`.
pub(super) const FSINFO_LEAD: u32 = 0x4161_5252;
pub(super) const FSINFO_STRUCT: u32 = 0x6141_7272;

/// The path, other than `not`, of the file or directory that a cluster belongs to.
fn owner_of<S: ReadAt>(volume: &Volume<S>, cluster: u32, not: &str) -> Result<Option<String>> {
    let holds = |runs: &[Run]| runs.iter().any(|r| (r.first..r.first + r.count).contains(&cluster));
    let root = volume.root()?;
    if holds(&root.runs) {
        return Ok(Some("/".into()));
    }
    let mut seen = std::collections::HashSet::new();
    let mut stack = vec![(String::new(), root)];
    while let Some((path, directory)) = stack.pop() {
        for entry in directory.entries.iter().filter(|e| !e.is_dot() && e.first_cluster != 0) {
            let path = format!("{path}/{}", entry.name);
            let Ok(runs) = volume.table().chain(entry.first_cluster) else { continue };
            if path != not && holds(&runs) {
                return Ok(Some(path));
            }
            if entry.is_dir()
                && seen.insert(entry.first_cluster)
                && let Ok(d) = volume.directory(entry)
            {
                stack.push((path, d));
            }
        }
    }
    Ok(None)
}
