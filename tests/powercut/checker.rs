//! An independent reader and checker of FAT volumes, written from the specification. It is called for every crash
//! state: what a state shares with the one before is not decoded again.

use crate::frame::{Frame, Sector, digest};
use crate::geometry::Geometry;
use std::collections::HashMap;
use std::sync::Arc;

/// What a file holds: equal for equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content {
    pub size: u32,
    pub id: u128,
}

impl Content {
    /// The content of a file of these bytes on a medium of `sector`-byte sectors.
    pub fn of(bytes: &[u8], sector: usize) -> Self {
        let id = bytes.chunks(sector).fold(0, |id, part| fold(id, digest(part)));
        Self { size: bytes.len() as u32, id }
    }
}

fn fold(id: u128, part: u128) -> u128 {
    (id ^ part).wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645).rotate_left(43)
}

/// A file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// With `/` between the parts, without one in front; the long name where there is one.
    pub path: String,
    /// The short directory entry as it stands: name, attributes, times, first cluster, size.
    pub raw: [u8; 32],
    /// `None` for a directory and where the chain does not hold what the size promises.
    pub content: Option<Content>,
}

impl Entry {
    pub fn is_directory(&self) -> bool {
        self.raw[11] & DIRECTORY != 0
    }
}

/// What is wrong with a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Not a FAT volume this checker understands.
    BadBpb(String),
    BackupBootDiffers,
    /// Clusters that are allocated and belong to no file.
    LostClusters(Vec<u32>),
    /// Both entries lead to the same cluster.
    SharedChain(String, String),
    /// Entries that are not the same in all FATs; `used`: one of them is in a file's chain; `directory`: so many are in
    /// the chains of directories.
    FatsDiffer {
        clusters: Vec<u32>,
        used: bool,
        directory: usize,
    },
    BadChain {
        path: String,
        why: &'static str,
    },
    /// The chain has more or fewer clusters than the size needs.
    SizeMismatch {
        path: String,
        size: u32,
        clusters: usize,
    },
    /// A long-name slot that belongs to no short entry.
    OrphanLfn {
        directory: String,
    },
    BadDirectory {
        path: String,
        why: &'static str,
    },
    DuplicateName(String),
    /// Free count or next-free hint: `said` for a free count of `counted`.
    FsInfoWrong {
        said: u32,
        next: u32,
        counted: u32,
    },
}

/// What a volume holds and what is wrong with it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Directory by directory, in the order of their slots.
    pub entries: Vec<Entry>,
    pub problems: Vec<Problem>,
    /// The volume says it was not unmounted (FAT entry 1, or the flag in the boot sector).
    pub dirty: bool,
    pub free: u32,
}

impl Report {
    pub fn find(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.path.eq_ignore_ascii_case(path))
    }

    pub fn content(&self, path: &str) -> Option<Content> {
        self.find(path).and_then(|e| e.content)
    }

    /// Nothing is wrong, not even a lost cluster or a wrong free count.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

const DIRECTORY: u8 = 0x10;
const LABEL: u8 = 0x08;
const LONG_NAME: u8 = 0x0F;

/// The checker, with what it remembers of the last state.
#[derive(Default)]
pub struct Checker {
    geometry: Option<(Sector, Geometry)>,
    fats: Vec<Fat>,
    /// For every cluster the check and the entry that it was last found in.
    owners: Vec<(u32, u32)>,
    generation: u32,
    chain: Vec<u32>,
}

#[derive(Default)]
struct Fat {
    sectors: Vec<Sector>,
    entries: Vec<u32>,
}

/// A directory still to be read.
struct Pending {
    path: String,
    /// `None`: the fixed root of FAT12 and FAT16.
    cluster: Option<u32>,
    parent: u32,
    owner: u32,
}

impl Checker {
    /// Reads the whole volume.
    pub fn check(&mut self, frame: &Frame) -> Report {
        let mut report = self.files(frame);
        if let Some((_, geometry)) = &self.geometry
            && !matches!(report.problems.first(), Some(Problem::BadBpb(_)))
        {
            self.judge_fats(frame, geometry, &mut report);
        }
        report
    }

    /// Reads the files alone, without what can only be told of a volume as a whole, such as lost clusters.
    pub fn files(&mut self, frame: &Frame) -> Report {
        let mut report = Report::default();
        let geometry = match self.geometry(frame) {
            Ok(g) => g,
            Err(why) => {
                report.problems.push(Problem::BadBpb(why));
                return report;
            }
        };
        self.decode_fats(frame, &geometry);
        self.generation = self.generation.wrapping_add(1);
        self.owners.resize(geometry.clusters as usize + 2, (0, 0));
        self.walk(frame, &geometry, &mut report);
        report
    }

    fn geometry(&mut self, frame: &Frame) -> Result<Geometry, String> {
        let boot = frame.get(0);
        if let Some((known, geometry)) = &self.geometry
            && Arc::ptr_eq(known, boot)
        {
            return Ok(geometry.clone());
        }
        let geometry = Geometry::read(frame)?;
        if self.geometry.as_ref().is_none_or(|(_, old)| *old != geometry) {
            self.fats.clear();
            self.owners.clear();
        }
        self.geometry = Some((boot.clone(), geometry.clone()));
        Ok(geometry)
    }

    /// Decodes the FAT sectors that are not those of the last state.
    fn decode_fats(&mut self, frame: &Frame, g: &Geometry) {
        self.fats.resize_with(g.fats as usize, Fat::default);
        for (nth, fat) in self.fats.iter_mut().enumerate() {
            let start = g.fat_start + nth as u64 * g.fat_sectors;
            let fresh = fat.sectors.is_empty();
            fat.entries.resize(g.clusters as usize + 2, 0);
            for n in 0..g.fat_sectors {
                let now = frame.get(start + n);
                if fresh {
                    fat.sectors.push(now.clone());
                } else if Arc::ptr_eq(&fat.sectors[n as usize], now) {
                    continue;
                } else {
                    fat.sectors[n as usize] = now.clone();
                }
                for cluster in g.entries_in(n) {
                    fat.entries[cluster as usize] = g.entry(frame, nth as u64, cluster);
                }
            }
        }
    }

    fn active(&self, g: &Geometry) -> &[u32] {
        &self.fats[g.active.unwrap_or(0) as usize].entries
    }

    fn walk(&mut self, frame: &Frame, g: &Geometry, report: &mut Report) {
        // Owner 0 is the root directory, owner n the entry n - 1.
        let cluster = (g.root_cluster != 0).then_some(g.root_cluster);
        let mut pending = vec![Pending { path: String::new(), cluster, parent: 0, owner: 0 }];
        while let Some(directory) = pending.pop() {
            let mut sectors: Vec<u64> = Vec::new();
            match directory.cluster {
                None => sectors.extend(g.root_start..g.data_start),
                Some(first) => {
                    // Entering one directory twice would report its files twice; the shared chain says it all.
                    if !self.follow(g, first, directory.owner, &directory.path, report) {
                        continue;
                    }
                    for c in &self.chain {
                        let at = g.cluster_sector(*c);
                        sectors.extend(at..at + g.cluster_sectors);
                    }
                }
            }
            self.read_directory(frame, g, &directory, &sectors, &mut pending, report);
        }
    }

    /// Fills `self.chain` and takes its clusters for `owner`; false when the chain is broken or shared.
    fn follow(&mut self, g: &Geometry, first: u32, owner: u32, path: &str, report: &mut Report) -> bool {
        self.chain.clear();
        let mut bad = |why| {
            report.problems.push(Problem::BadChain { path: path.to_owned(), why });
            false
        };
        let (mut at, mut shared) = (first, None);
        loop {
            if at < 2 || at > g.last() {
                return bad("leaves the volume");
            }
            let next = self.fats[g.active.unwrap_or(0) as usize].entries[at as usize] & g.mask();
            if next == 0 {
                return bad("contains a free cluster");
            }
            if next == g.bad() {
                return bad("contains a bad cluster");
            }
            let place = &mut self.owners[at as usize];
            if *place == (self.generation, owner) || self.chain.len() > g.clusters as usize {
                return bad("runs in a circle");
            }
            if place.0 == self.generation {
                shared.get_or_insert(place.1);
            } else {
                *place = (self.generation, owner);
            }
            self.chain.push(at);
            if next > g.bad() {
                break;
            }
            at = next;
        }
        let Some(other) = shared else { return true };
        let other = other.checked_sub(1).map_or(String::new(), |n| report.entries[n as usize].path.clone());
        report.problems.push(Problem::SharedChain(other, path.to_owned()));
        false
    }

    fn read_directory(
        &mut self,
        frame: &Frame,
        g: &Geometry,
        directory: &Pending,
        sectors: &[u64],
        pending: &mut Vec<Pending>,
        report: &mut Report,
    ) {
        let prefix = if directory.path.is_empty() { String::new() } else { format!("{}/", directory.path) };
        let bad = |why| Problem::BadDirectory { path: directory.path.clone(), why };
        let orphan = || Problem::OrphanLfn { directory: directory.path.clone() };
        let mut names: HashMap<String, ()> = HashMap::new();
        let mut shorts: HashMap<[u8; 11], ()> = HashMap::new();
        let mut long = LongName::default();
        let (mut ended, mut nth) = (false, 0);
        for slot in sectors.iter().flat_map(|s| frame.get(*s).bytes.chunks_exact(32)) {
            let Ok(raw) = <[u8; 32]>::try_from(slot) else { continue };
            let position = nth;
            nth += 1;
            if raw[0] == 0 {
                if long.pending() {
                    report.problems.push(orphan());
                }
                (long, ended) = (LongName::default(), true);
                continue;
            }
            if ended {
                report.problems.push(bad("entries behind its end"));
                return;
            }
            if raw[0] == 0xE5 {
                if long.pending() {
                    report.problems.push(orphan());
                }
                long = LongName::default();
                continue;
            }
            if raw[11] & 0x3F == LONG_NAME {
                if !long.take(&raw) {
                    report.problems.push(orphan());
                }
                continue;
            }
            let given = std::mem::take(&mut long);
            let name = match given.finish(&raw) {
                Ok(name) => name,
                Err(()) => {
                    report.problems.push(orphan());
                    None
                }
            };
            let first = u32::from(u16::from_le_bytes([raw[20], raw[21]])) << 16
                | u32::from(u16::from_le_bytes([raw[26], raw[27]]));
            let first = if g.root_cluster == 0 { first & 0xFFFF } else { first };
            if raw[11] & LABEL != 0 {
                if !directory.path.is_empty() {
                    report.problems.push(bad("a volume label outside the root"));
                }
                continue;
            }
            // Only the first two slots of a directory other than the root are `.` and `..`.
            if directory.owner != 0 && position < 2 {
                let (dot, leads_to) = if position == 0 {
                    (b".          ", directory.cluster.unwrap_or(0))
                } else {
                    (b"..         ", directory.parent)
                };
                if raw[..11] != dot[..] || raw[11] & DIRECTORY == 0 || first != leads_to {
                    report.problems.push(bad("wrong . or .. entry"));
                }
                continue;
            }
            let short = short_name(&raw);
            if !legal_short_name(&raw) {
                report.problems.push(bad("an illegal short name"));
            }
            let mut short_bytes = [0; 11];
            short_bytes.copy_from_slice(&raw[..11]);
            let mut twice = shorts.insert(short_bytes, ()).is_some();
            let display = name.clone().unwrap_or_else(|| short.clone());
            twice |= names.insert(display.to_lowercase(), ()).is_some();
            if !display.eq_ignore_ascii_case(&short) {
                twice |= names.insert(short.to_lowercase(), ()).is_some();
            }
            let path = format!("{prefix}{display}");
            if twice {
                report.problems.push(Problem::DuplicateName(path.clone()));
            }
            report.entries.push(Entry { path: path.clone(), raw, content: None });
            let owner = report.entries.len() as u32;
            if raw[11] & DIRECTORY != 0 {
                if raw[28..] != [0; 4] {
                    report.problems.push(Problem::BadDirectory { path: path.clone(), why: "a size" });
                }
                let parent = if directory.owner == 0 { 0 } else { directory.cluster.unwrap_or(0) };
                pending.push(Pending { path, cluster: Some(first), parent, owner });
            } else {
                let content = self.read_file(frame, g, first, owner, &path, report);
                if let Some(entry) = report.entries.last_mut() {
                    entry.content = content;
                }
            }
        }
        if long.pending() {
            report.problems.push(orphan());
        }
        if directory.owner != 0 && nth > 0 && !sectors.is_empty() && frame.get(sectors[0]).bytes[0] != b'.' {
            report.problems.push(bad("no . entry"));
        }
    }

    fn read_file(
        &mut self,
        frame: &Frame,
        g: &Geometry,
        first: u32,
        owner: u32,
        path: &str,
        report: &mut Report,
    ) -> Option<Content> {
        let raw = report.entries.last()?.raw;
        let size = u32::from_le_bytes([raw[28], raw[29], raw[30], raw[31]]);
        let needed = u64::from(size).div_ceil(g.cluster_bytes()) as usize;
        if first == 0 {
            if size != 0 {
                report.problems.push(Problem::SizeMismatch { path: path.to_owned(), size, clusters: 0 });
                return None;
            }
            return Some(Content { size: 0, id: 0 });
        }
        let problems = report.problems.len();
        let whole = self.follow(g, first, owner, path, report);
        let shared = matches!(report.problems.get(problems), Some(Problem::SharedChain(..)));
        if !whole && !shared {
            return None;
        }
        if self.chain.len() != needed {
            let clusters = self.chain.len();
            report.problems.push(Problem::SizeMismatch { path: path.to_owned(), size, clusters });
        }
        if self.chain.len() < needed {
            return None;
        }
        let (mut id, mut left) = (0, u64::from(size));
        for cluster in &self.chain[..needed] {
            let start = g.cluster_sector(*cluster);
            for n in start..start + left.div_ceil(g.sector).min(g.cluster_sectors) {
                let data = frame.get(n);
                id = fold(id, if left >= g.sector { data.id } else { digest(&data.bytes[..left as usize]) });
                left = left.saturating_sub(g.sector);
            }
        }
        Some(Content { size, id })
    }

    /// Everything that is about the FATs as a whole and about the summary sectors.
    fn judge_fats(&self, frame: &Frame, g: &Geometry, report: &mut Report) {
        let entries = self.active(g);
        let used = |c: usize| self.owners[c].0 == self.generation;
        let (mut lost, mut free) = (Vec::new(), 0);
        for (c, raw) in entries.iter().enumerate().skip(2) {
            let value = raw & g.mask();
            if value == 0 {
                free += 1;
            } else if value != g.bad() && !used(c) {
                lost.push(c as u32);
            }
        }
        report.free = free;
        if !lost.is_empty() {
            report.problems.push(Problem::LostClusters(lost));
        }
        if g.active.is_none() {
            let mut clusters = Vec::new();
            for fat in &self.fats[1..] {
                if fat.entries != entries {
                    clusters.extend((0..entries.len()).filter(|c| fat.entries[*c] != entries[*c]).map(|c| c as u32));
                }
            }
            if !clusters.is_empty() {
                let of_directory = |c: u32| {
                    let owner = self.owners[c as usize].1 as usize;
                    owner.checked_sub(1).is_none_or(|n| report.entries.get(n).is_some_and(Entry::is_directory))
                };
                let owned = |c: &&u32| **c >= 2 && used(**c as usize);
                let directory = clusters.iter().filter(owned).filter(|c| of_directory(**c)).count();
                let used = clusters.iter().any(|c| *c < 2 || used(*c as usize) && !of_directory(*c));
                report.problems.push(Problem::FatsDiffer { clusters, used, directory });
            }
        }
        let clean_bits = match g.mask() {
            0xFFFF => 0x8000,
            0x0FFF_FFFF => 0x0800_0000,
            _ => 0,
        };
        let flag = if g.root_cluster == 0 { 37 } else { 65 };
        report.dirty = entries[1] & clean_bits != clean_bits || frame.get(0).bytes[flag] & 1 != 0;
        if entries[0] & g.mask() != (g.mask() & !0xFF | u32::from(g.media)) {
            report.problems.push(Problem::BadBpb("FAT entry 0 is not the media byte".into()));
        }
        if let Some(backup) = g.backup_boot
            && differ_beside_dirty_flag(&frame.get(backup).bytes, &frame.get(0).bytes)
        {
            report.problems.push(Problem::BackupBootDiffers);
        }
        if let Some(n) = g.fsinfo {
            let b = &frame.get(n).bytes;
            let word = |o: usize| u32::from_le_bytes([b[o], b[o + 1], b[o + 2], b[o + 3]]);
            if (word(0), word(484), word(508)) != (0x4161_5252, 0x6141_7272, 0xAA55_0000) {
                report.problems.push(Problem::BadBpb("FSInfo signatures".into()));
            }
            let (said, next) = (word(488), word(492));
            let next_is_plausible = next == u32::MAX || (2..=g.last()).contains(&next);
            if (said != u32::MAX && said != free) || !next_is_plausible {
                report.problems.push(Problem::FsInfoWrong { said, next, counted: free });
            }
        }
    }
}

fn differ_beside_dirty_flag(a: &[u8], b: &[u8]) -> bool {
    a[..65] != b[..65] || a[66..512] != b[66..512]
}

/// Long-name slots read so far: they come last part first.
#[derive(Default)]
struct LongName {
    /// The number of the slot read last; 0 for none.
    at: u8,
    checksum: u8,
    /// The parts in the order read.
    parts: Vec<[u16; 13]>,
}

impl LongName {
    fn pending(&self) -> bool {
        self.at != 0
    }

    /// Takes one slot; false when it, or what came before it, belongs to nothing.
    fn take(&mut self, raw: &[u8; 32]) -> bool {
        let (first, number) = (raw[0] & 0x40 != 0, raw[0] & 0x1F);
        let fits =
            if first { !self.pending() } else { self.at > 1 && number == self.at - 1 && raw[13] == self.checksum };
        if first {
            *self = Self { at: number, checksum: raw[13], parts: Vec::new() };
        } else if !fits {
            *self = Self::default();
            return false;
        }
        self.at = number;
        let mut units = [0; 13];
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        for (unit, at) in units.iter_mut().zip(places) {
            *unit = u16::from_le_bytes([raw[at], raw[at + 1]]);
        }
        self.parts.push(units);
        fits && (1..=20).contains(&number)
    }

    /// The name, when these slots belong to the short entry that follows them; an error when they belong to none.
    fn finish(self, raw: &[u8; 32]) -> Result<Option<String>, ()> {
        if !self.pending() {
            return Ok(None);
        }
        let sum = raw[..11].iter().fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b));
        if self.at != 1 || sum != self.checksum {
            return Err(());
        }
        let units: Vec<u16> = self.parts.iter().rev().flatten().copied().take_while(|u| *u != 0).collect();
        Ok(Some(String::from_utf16_lossy(&units)))
    }
}

/// The short name as it is shown, with the lower-case flags of Windows NT.
fn short_name(raw: &[u8; 32]) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text: String = bytes.iter().map(|b| char::from(*b)).collect();
        let text = text.trim_end();
        if lower { text.to_lowercase() } else { text.to_owned() }
    };
    let (base, extension) = (part(&raw[..8], raw[12] & 8 != 0), part(&raw[8..11], raw[12] & 16 != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

fn legal_short_name(raw: &[u8; 32]) -> bool {
    let legal = |(i, b): (usize, &u8)| {
        *b > 0x20 && !b"\"*+,./:;<=>?[\\]|".contains(b) && !b.is_ascii_lowercase()
            || *b == 0x20 && i != 0
            || *b == 5 && i == 0
    };
    raw[..11].iter().enumerate().all(legal)
}
