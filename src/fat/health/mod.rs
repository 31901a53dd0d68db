//! A read-only check of the whole volume, in the terms of `fsck.fat`. Every command that writes runs it first.

mod check;

use super::runs::Run;
use super::volume::Volume;
use crate::Result;
use crate::block::ReadAt;
use check::Checker;
use serde::Serialize;

/// The file that systemd-boot reads at every start and has the firmware write anew. Where it cannot, it goes on.
/// Source: `src/boot/random-seed.c` of systemd.
pub const RANDOM_SEED: &str = "loader/random-seed";

/// What a problem means for surgery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
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
    /// The volume is longer than the partition or image that it lies on.
    CutOff,
    /// The allocation table has fewer entries than the data area has clusters.
    ShortTable,
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
    /// An entry `.` or `..` that leads to another directory than it should.
    DotEntries,
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
#[non_exhaustive]
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
#[non_exhaustive]
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
    /// How many entries differ between the copies of the allocation table.
    pub differing: usize,
    /// Whether FSInfo says something else than the allocation table.
    pub fsinfo_stale: bool,
    /// Whether the FSInfo sector has no valid signatures.
    pub fsinfo_lost: bool,
    /// Entries `.` and `..` that lead to another directory than they should.
    pub wrong_dots: Vec<WrongDot>,
    /// Marked as not cleanly unmounted.
    pub dirty: bool,
    /// What puts damage right.
    pub remedy: Remedy,
}

/// An entry `.` or `..` that leads to another directory than it should. Nothing is found by them: readers of paths keep
/// their own way back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrongDot {
    /// Path of the directory that the entry stands in.
    pub path: String,
    /// Its slot: 0 is `.`, 1 is `..`.
    pub slot: usize,
    /// The cluster that should stand there: 0 for the root directory.
    pub cluster: u32,
}

/// What puts damage right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// `recover`: the boot sector or its backup is wrong, and the other one fits what is on the volume.
    Recover,
    /// `recover`: nothing but `loader/random-seed` is damaged, and no start needs it.
    DropSeed,
    /// `fsck.fat`.
    Fsck,
    /// `fsck.fat -r`, which asks: the boot sector and its backup differ, and only a person can say which of them is
    /// right.
    AskedFsck,
    /// Nothing that writes to this volume: it is longer than what it lies on, its medium fails, or `fsck.fat` does not
    /// mend what is wrong with it.
    Elsewhere,
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

    /// Checks a volume, as far as anything depends on it: of a table longer than 1 MiB the copies are not compared where
    /// the active one has 64 KiB of free clusters and nothing else. No reader goes there, and whoever allocates clusters
    /// there writes whole sectors of all copies.
    ///
    /// # Errors
    /// What the source reports; [`crate::Kind::Rejected`] only when the root directory cannot be read at all.
    pub fn check<S: ReadAt>(volume: &Volume<S>) -> Result<Self> {
        Self::check_to(volume, false)
    }

    /// Checks a volume to the last entry of every copy of its table, as `fsck.fat` does.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_whole<S: ReadAt>(volume: &Volume<S>) -> Result<Self> {
        Self::check_to(volume, true)
    }

    fn check_to<S: ReadAt>(volume: &Volume<S>, whole: bool) -> Result<Self> {
        let health = Self::walk(volume, None, whole)?;
        // Firmware that writes carelessly damages the file that it writes at every start.
        if health.is_damaged() && !Self::walk(volume, Some(RANDOM_SEED), whole)?.is_damaged() {
            return Ok(Self { remedy: Remedy::DropSeed, ..health });
        }
        Ok(health)
    }

    fn walk<S: ReadAt>(volume: &Volume<S>, without: Option<&'static str>, whole: bool) -> Result<Self> {
        let mut check = Checker::new(volume, without, whole);
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
