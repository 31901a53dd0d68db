//! The walk over the volume that finds what is wrong.

use super::super::bootsector::{Difference, boot_sector_repair, difference, looks_misread};
use super::super::dir::{Directory, Entry};
use super::super::geometry::{FatKind, Root, is_fsinfo};
use super::super::name::folded;
use super::super::runs::{ClusterMap, Run};
use super::super::table::{AllocationTable, Link};
use super::super::volume::Volume;
use super::{Health, Problem, ProblemClass, ProblemKind, Remedy, WrongDot};
use crate::Result;
use crate::block::{ReadAt, read_vec};
use crate::sorting::Sort as _;
use crate::units;
use std::fmt::Display;
use std::ops::Range;

/// More problems than this are counted but not listed.
const MAX_LISTED: usize = 64;
/// Directories nested deeper than this are refused; firmware gives up far earlier.
const MAX_DEPTH: usize = 64;

pub(super) struct Checker<'v, S> {
    volume: &'v Volume<S>,
    /// The file that is looked past, from the root.
    without: Option<&'static str>,
    /// Whether free clusters are compared in all copies of the table.
    whole: bool,
    problems: Vec<Problem>,
    unlisted: usize,
    /// What belongs to a file or directory.
    owned: ClusterMap,
    /// Clusters that a second owner claims, with that owner's path.
    shared: Vec<(u32, String)>,
    lost: Vec<Run>,
    orphan_slots: Vec<(String, usize)>,
    differing: usize,
    /// Whether entry 0 is among them.
    first_differs: bool,
    free_clusters: u32,
    fsinfo_stale: bool,
    fsinfo_lost: bool,
    wrong_dots: Vec<WrongDot>,
    dirty: bool,
    remedy: Remedy,
}

impl<'v, S: ReadAt> Checker<'v, S> {
    /// `without`: as if there were no such file.
    pub(super) fn new(volume: &'v Volume<S>, without: Option<&'static str>, whole: bool) -> Self {
        Self {
            volume,
            without,
            whole,
            problems: Vec::new(),
            unlisted: 0,
            owned: ClusterMap::new(volume.geometry().clusters),
            shared: Vec::new(),
            lost: Vec::new(),
            orphan_slots: Vec::new(),
            differing: 0,
            first_differs: false,
            free_clusters: 0,
            fsinfo_stale: false,
            fsinfo_lost: false,
            wrong_dots: Vec::new(),
            dirty: false,
            remedy: Remedy::Fsck,
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

    /// Marks a chain as belonging to `path`; says whether all of it was unclaimed.
    fn claim(&mut self, runs: &[Run], path: &str) -> bool {
        let mut alone = true;
        for cluster in runs.iter().flat_map(|r| r.clusters()) {
            if !self.owned.insert(cluster) {
                if alone {
                    self.shared.push((cluster, path.to_owned()));
                }
                alone = false;
            }
        }
        alone
    }

    pub(super) fn boot_sectors(&mut self) -> Result<()> {
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
        if g.unnumbered_clusters > 0 {
            self.found(
                ProblemClass::Note,
                ProblemKind::ShortTable,
                format_args!(
                    "the allocation table has no entries for the last {} clusters: they are not used",
                    g.unnumbered_clusters
                ),
            );
        }
        if g.missing_bytes > 0 {
            self.remedy = Remedy::Elsewhere;
            self.damage(
                ProblemKind::CutOff,
                format_args!(
                    "the file system is {} long, and what it lies on ends {} earlier",
                    units::size(g.total_bytes),
                    units::size(g.missing_bytes)
                ),
            );
        }
        let repair = boot_sector_repair(self.volume)?;
        if let Some(why) = &g.lost_boot_sector {
            self.remedy = if repair.is_some() { Remedy::Recover } else { Remedy::Elsewhere };
            self.damage(
                ProblemKind::BootSector,
                format_args!("the boot sector is lost ({why}); the volume is read by its backup"),
            );
        }
        match difference(self.volume)? {
            Difference::None => {}
            Difference::Harmless(at) => self.found(
                ProblemClass::Note,
                ProblemKind::BackupBootSector,
                format_args!("the boot sector and its backup differ at byte {at}, in nothing that files are found by"),
            ),
            Difference::Shape(at) => {
                self.remedy = if repair.is_some() { Remedy::Recover } else { Remedy::AskedFsck };
                self.damage(
                    ProblemKind::BootSector,
                    format_args!("the boot sector and its backup differ at byte {at}"),
                );
            }
        }
        if let Some(why) = looks_misread(self.volume)? {
            self.remedy = Remedy::Elsewhere;
            self.damage(ProblemKind::BootSector, why);
        }
        Ok(())
    }

    /// Walks every directory, without recursion: the depth is the attacker's choice.
    pub(super) fn tree(&mut self) -> Result<()> {
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
                    if self.without.is_none_or(|without| !path[1..].eq_ignore_ascii_case(without)) {
                        self.file(&path, entry);
                    }
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
                        Err(e) if !e.code().is_bad_content() => return Err(e.while_doing(format!("checking {path}"))),
                        Err(e) => self.damage(ProblemKind::Chain, format_args!("{path}: {}", e.message())),
                        Ok(d) => {
                            if entry.bytes != 0 {
                                if d.slot(0)[0] != b'.' {
                                    self.remedy = Remedy::Elsewhere; // a file's bytes
                                }
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
            for (slot, (name, cluster)) in [(b".          ", own), (b"..         ", parent)].into_iter().enumerate() {
                self.dot(path, d, slot, *name, cluster);
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
            // Attribute and first cluster: a label has a name and nothing else. A file whose attribute byte was hit
            // must not be taken for lost clusters, which `recover` frees.
            let label = slot[0] != 0xE5 && slot[11] & 0x08 != 0 && slot[11] & 0x3F != 0x0F;
            if label && slot[20..22].iter().chain(&slot[26..32]).any(|b| *b != 0) {
                let name = String::from_utf8_lossy(&slot[..11]).trim_end().to_owned();
                // In a directory that is none, `fsck.fat` finds other things to mend.
                if path.is_empty() || d.slot(0)[0] == b'.' {
                    self.remedy = Remedy::Elsewhere;
                }
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

    /// The entry `.` or `..` of a directory. One that leads to another directory may be right, and the entry that led
    /// here wrong: that is damage. One that leads to the root, or nowhere, is what careless programs write.
    fn dot(&mut self, path: &str, d: &Directory, slot: usize, name: [u8; 11], cluster: u32) {
        let root = match self.volume.geometry().root {
            Root::Chain(first) if slot == 1 => first,
            _ => 0,
        };
        let shown = String::from_utf8_lossy(&name).trim_end().to_owned();
        let entry = d.entries.get(slot).filter(|e| e.short_slot() == slot && e.short == name && e.is_dir());
        match entry.map(|e| e.first_cluster) {
            Some(right) if right == cluster => {}
            Some(wrong) if wrong == 0 || wrong == root => {
                self.found(
                    ProblemClass::Leftover,
                    ProblemKind::DotEntries,
                    format_args!(
                        "{path}: {shown:?} leads to cluster {wrong} instead of {cluster}; nothing is found by it"
                    ),
                );
                self.wrong_dots.push(WrongDot { path: path.to_owned(), slot, cluster });
            }
            _ => {
                self.damage(
                    ProblemKind::Directory,
                    format_args!("{path}: slot {slot} is not a proper {shown:?} entry"),
                );
            }
        }
    }

    fn file(&mut self, path: &str, entry: &Entry) {
        if entry.first_cluster == 0 {
            if entry.bytes != 0 {
                self.damage(
                    ProblemKind::Chain,
                    format_args!("{path}: {} long, but without a cluster", units::exact(u64::from(entry.bytes))),
                );
            }
            return;
        }
        let runs = match self.volume.table().chain(entry.first_cluster) {
            Ok(runs) => runs,
            Err(e) => {
                if self.volume.table().meets_defective(entry.first_cluster) {
                    self.remedy = Remedy::Elsewhere;
                }
                return self.damage(ProblemKind::Chain, format_args!("{path}: {}", e.message()));
            }
        };
        let g = self.volume.geometry();
        let end = |r: &Run| g.cluster_offset(r.first) + u64::from(r.count) * u64::from(g.cluster_bytes);
        if g.missing_bytes > 0 && runs.iter().any(|r| end(r) > g.present_bytes()) {
            self.damage(ProblemKind::Chain, format_args!("{path}: its end lies behind the end of what is there"));
        }
        let have: u64 = runs.iter().map(|r| u64::from(r.count)).sum();
        let need = self.volume.geometry().clusters_for(u64::from(entry.bytes));
        if have != need {
            self.damage(
                ProblemKind::Chain,
                format_args!(
                    "{path}: {} need {}, its chain has {have}",
                    units::exact(u64::from(entry.bytes)),
                    units::count(need, "cluster")
                ),
            );
        }
        self.claim(&runs, path);
    }

    /// Names the first owner of every cluster that two claim.
    pub(super) fn shared_owners(&mut self) -> Result<()> {
        for (cluster, second) in std::mem::take(&mut self.shared) {
            let first = owner_of(self.volume, cluster, &second)?.unwrap_or_else(|| "itself".into());
            self.damage(ProblemKind::Shared, format_args!("{second} shares cluster {cluster} with {first}"));
            if self.problems.len() == MAX_LISTED {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn lost_clusters(&mut self) {
        let table = self.volume.table();
        let mut lost: Vec<Run> = Vec::new();
        let mut count = 0u64;
        let Range { mut start, end } = table.clusters();
        for free in table.free_runs().chain([Run { first: end, count: 0 }]) {
            for cluster in (start..free.first).filter(|c| !self.owned.contains(*c) && table.link(*c) != Link::Bad) {
                count += 1;
                match lost.last_mut() {
                    Some(run) if run.first + run.count == cluster => run.count += 1,
                    _ => lost.push(Run { first: cluster, count: 1 }),
                }
            }
            self.free_clusters += free.count;
            start = free.first + free.count;
        }
        if count > 0 && !self.wrong_dots.is_empty() {
            self.damage(
                ProblemKind::DotEntries,
                "entries \".\" or \"..\" lead elsewhere while clusters are lost: a directory may stand in the place \
                 of another",
            );
        }
        if count > 0 {
            let bytes = count * u64::from(self.volume.geometry().cluster_bytes);
            self.found(
                // Nothing depends on them. They may be the last copy of a file that lost its name: no reason to refuse
                // anything, and nothing to take away unasked.
                ProblemClass::Note,
                ProblemKind::LostClusters,
                format_args!("allocated, but in no file: {} ({})", units::count(count, "cluster"), units::size(bytes)),
            );
        }
        self.lost = lost;
    }

    pub(super) fn table_copies(&mut self) -> Result<()> {
        let g = self.volume.geometry();
        let (mut in_files, mut elsewhere, mut first) = (0usize, 0usize, None);
        for n in g.live_copies().skip(1) {
            let copy = match self.whole {
                true => AllocationTable::read(self.volume.source(), g, n)?,
                false => AllocationTable::read_where_used(self.volume.source(), g, n, self.volume.table())?,
            };
            if copy == *self.volume.table() {
                continue;
            }
            for cluster in (0..2).chain(copy.clusters()) {
                if copy.raw(cluster) != self.volume.table().raw(cluster) {
                    self.differing += 1;
                    self.first_differs |= cluster == 0;
                    if cluster < 2 || self.owned.contains(cluster) {
                        in_files += 1;
                        first.get_or_insert(cluster);
                    } else {
                        elsewhere += 1;
                    }
                }
            }
        }
        if in_files > 0 {
            self.damage(
                ProblemKind::TableCopies,
                format_args!(
                    "the copies of the allocation table differ in {} of files; the first is {}",
                    units::count(in_files, "entry"),
                    first.unwrap_or(0)
                ),
            );
        }
        if elsewhere > 0 {
            self.found(
                ProblemClass::Leftover,
                ProblemKind::TableCopies,
                format_args!(
                    "the copies of the allocation table differ in {} of no file",
                    units::count(elsewhere, "entry")
                ),
            );
        }
        Ok(())
    }

    pub(super) fn fsinfo(&mut self) -> Result<()> {
        let Some(at) = self.volume.geometry().fsinfo_offset else { return Ok(()) };
        let raw = read_vec(self.volume.source(), at, 512)?;
        if !is_fsinfo(&raw) {
            self.fsinfo_lost = true;
            // Readers that find no signatures count the free clusters themselves, as Linux and EDK II do.
            self.found(ProblemClass::Note, ProblemKind::FsInfo, "the FSInfo sector has no valid signatures");
            return Ok(());
        }
        let free = u32::from_le_bytes([raw[488], raw[489], raw[490], raw[491]]);
        if free != self.free_clusters {
            self.fsinfo_stale = true;
            let said = if free == u32::MAX {
                "does not say how much is free".into()
            } else {
                format!("says that {free} clusters are free")
            };
            let counted = self.free_clusters;
            self.found(
                ProblemClass::Note,
                ProblemKind::FsInfo,
                format_args!("FSInfo {said}, and counted are {}", units::count(counted, "free cluster")),
            );
        }
        Ok(())
    }

    /// Entry 0 holds the media byte, all other bits set. Where it does not, this is no allocation table: the boot
    /// sector points elsewhere, or the table was overwritten.
    pub(super) fn media(&mut self) {
        let (entry, kind) = (self.volume.table().raw(0), self.volume.geometry().kind);
        let rest = kind.mask() & !0x0F;
        if entry & rest != rest {
            // `fsck.fat` goes by another copy where one begins as a table should.
            if !self.first_differs {
                self.remedy = Remedy::Elsewhere;
            }
            self.damage(
                ProblemKind::Media,
                format_args!("the allocation table begins with {entry:#x}, which is no media byte"),
            );
        }
    }

    pub(super) fn flags(&mut self) {
        let flags = self.volume.table().flags();
        self.dirty = flags.dirty || self.volume.geometry().dirty_in_bpb;
        if self.dirty {
            self.found(ProblemClass::Note, ProblemKind::Dirty, "the volume was not unmounted cleanly (dirty flag)");
        }
        if flags.io_errors {
            self.remedy = Remedy::Elsewhere;
            self.damage(ProblemKind::IoErrors, "an operating system has marked the medium as having I/O errors");
        }
    }

    pub(super) fn finish(mut self) -> Health {
        self.problems.put_in_order_by(|p| match p.class {
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
            fsinfo_lost: self.fsinfo_lost,
            wrong_dots: self.wrong_dots,
            dirty: self.dirty,
            remedy: self.remedy,
        }
    }
}

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
