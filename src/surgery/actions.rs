//! What recovery does, step by step, for reports: the same value before it is done and afterwards.

use super::lost::LostChain;
use crate::fat::RANDOM_SEED;
use crate::units::{count, size};
use serde::{Serialize, Serializer};
use std::fmt;

/// Something that recovery did, or would do. It is shown as done (`freed 12 clusters (48.0 KiB) that the operation
/// left`), which is what JSON holds, too; [`Self::planned`] shows it as not done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The boot sector gets the content of its backup.
    RestoreBootSector {
        /// What was wrong with it.
        why: String,
    },
    /// The backup of the boot sector gets the content of the boot sector.
    RewriteBackupBootSector {
        /// What was wrong with the backup.
        why: String,
    },
    /// The active copy of the allocation table gets the content of another one.
    RepairTable {
        /// The number of that one.
        copy: u8,
    },
    /// The copies of the allocation table are made equal.
    EqualiseTables {
        /// In how many entries they differed.
        entries: usize,
    },
    /// What has the record's name and is no usable record gets another name.
    SetAside {
        /// That name, in the root directory.
        to: String,
    },
    /// An interrupted deletion is finished.
    FinishDeletion {
        /// How many clusters that frees.
        clusters: usize,
    },
    /// Slots of long names without a file are cleared.
    ClearSlots {
        /// How many.
        slots: usize,
        /// In which directory, from the root.
        directory: String,
    },
    /// A `.` or `..` is pointed at the directory that it stands for.
    PointDot {
        /// `.` or `..`.
        name: &'static str,
        /// In which directory, from the root.
        directory: String,
        /// The first cluster of the directory that it stands for.
        cluster: u32,
    },
    /// The name goes that a swap or a restore had prepared for the old image.
    RemovePreparedName(String),
    /// The name goes of a backup that was put back.
    RemoveSourceName {
        /// That name.
        name: String,
        /// The file that has its content now.
        target: String,
    },
    /// A file gets its old content back.
    PutBack {
        /// Its path.
        name: String,
    },
    /// What was left of the operation is done.
    Complete {
        /// How many files have their new content then.
        files: usize,
    },
    /// A file is deleted.
    Delete(String),
    /// A directory goes that the operation had made, and that is empty.
    RemoveDirectory(String),
    /// A file gets another name.
    Rename {
        /// Its name before.
        from: String,
        /// Its name afterwards.
        to: String,
    },
    /// The old one of a file's two names goes.
    FinishRename {
        /// That name.
        from: String,
        /// The name that stays.
        to: String,
    },
    /// A step of the operation is left out.
    LeaveOut {
        /// Why.
        why: String,
    },
    /// Nothing that the operation named is touched.
    LeaveAlone {
        /// The file that the operation was about.
        target: String,
    },
    /// The rest of the operation's steps is left out.
    LeaveOutRest,
    /// Clusters that the operation left are freed.
    FreeOwn {
        /// How many.
        clusters: u64,
        /// Their length.
        bytes: u64,
    },
    /// A lost chain that this program did not leave is freed.
    FreeLost(LostChain),
    /// The rest of the lost chains is freed.
    FreeOtherLost {
        /// How many.
        chains: usize,
    },
    /// A lost chain gets a name.
    Salvage {
        /// Its path from the root.
        path: String,
        /// The length of the file.
        bytes: u64,
        /// What it begins like, if that is known.
        looks_like: Option<String>,
    },
    /// A lost chain stays, because it is longer than any file on FAT.
    LeaveLost {
        /// Its first cluster.
        first_cluster: u32,
        /// Its length.
        bytes: u64,
    },
    /// `FSInfo` is written anew as a whole.
    RewriteFsInfo,
    /// The counts in `FSInfo` are brought up to date.
    UpdateFsInfo,
    /// The record of the operation goes.
    RemoveRecord,
    /// The random seed goes.
    RemoveSeed {
        /// Why it is none.
        why: String,
    },
    /// The random seed goes, whose clusters are damaged.
    RemoveDamagedSeed,
    /// A member of a mirror gets the content of another one.
    MakeEqual {
        /// That member.
        member: String,
        /// The one that it is made equal to.
        truth: String,
    },
    /// Something on another partition.
    Elsewhere {
        /// That partition, for people.
        partition: String,
        /// What is done there.
        action: Box<Self>,
    },
}

impl Action {
    /// As it is said before it is done: `free 12 clusters (48.0 KiB) that the operation left`.
    #[must_use]
    pub fn planned(&self) -> impl fmt::Display + '_ {
        Planned(self)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, is_done: bool) -> fmt::Result {
        let verb = |before, after| if is_done { after } else { before };
        let (free, leave) = (verb("free", "freed"), verb("leave", "left"));
        let (remove, rename) = (verb("remove", "removed"), verb("rename", "renamed"));
        match self {
            Self::RestoreBootSector { why } => {
                write!(f, "{} the boot sector from its backup ({why})", verb("restore", "restored"))
            }
            Self::RewriteBackupBootSector { why } => {
                write!(f, "{} the backup of the boot sector ({why})", verb("rewrite", "rewrote"))
            }
            Self::RepairTable { copy } => {
                let repair = verb("repair", "repaired");
                write!(f, "{repair} the allocation table from copy {copy}: only with that one is every file whole")
            }
            Self::EqualiseTables { entries } => {
                let (make, entries) = (verb("make", "made"), count(*entries, "entry"));
                write!(f, "{make} the copies of the allocation table equal ({entries})")
            }
            Self::SetAside { to } => {
                write!(f, "{rename} {}, which is not a usable record, to {to}", super::INTENT_NAME)
            }
            Self::FinishDeletion { clusters } => {
                let finish = verb("finish", "finished");
                write!(f, "{finish} an interrupted deletion: {free} {}", count(*clusters, "cluster"))
            }
            Self::ClearSlots { slots, directory } => {
                let (clear, slots) = (verb("clear", "cleared"), count(*slots, "orphaned name slot"));
                write!(f, "{clear} {slots} in /{}", directory.trim_start_matches('/'))
            }
            Self::PointDot { name, directory, cluster } => {
                write!(f, "{} {name:?} in {directory} at cluster {cluster}", verb("point", "pointed"))
            }
            Self::RemovePreparedName(name) => write!(f, "{remove} the prepared backup name {name}"),
            Self::RemoveSourceName { name, target } => {
                write!(f, "{remove} the name {name}: {target} has its content")
            }
            Self::PutBack { name } => write!(f, "{} the old content of {name} back", verb("put", "put")),
            Self::Complete { files } => {
                write!(f, "{} the operation: {} with new content", verb("complete", "completed"), count(*files, "file"))
            }
            Self::Delete(name) => write!(f, "{} {name}", verb("delete", "deleted")),
            Self::RemoveDirectory(path) => write!(f, "{remove} the directory {path}, which the operation had made"),
            Self::Rename { from, to } => write!(f, "{rename} {from} to {to}"),
            Self::FinishRename { from, to } => {
                write!(f, "{} the renaming of {from} to {to}", verb("finish", "finished"))
            }
            Self::LeaveOut { why } => write!(f, "{leave} out: {why}"),
            Self::LeaveAlone { target } => write!(
                f,
                "{leave} {target} and its backup alone: it holds neither the old content nor the new one: somebody else \
                 wrote it or took it away since, or the medium has changed it"
            ),
            Self::LeaveOutRest => {
                write!(f, "{leave} out {}: look at `status`", verb("what follows", "what was to follow"))
            }
            Self::FreeOwn { clusters, bytes } => {
                write!(f, "{free} {} ({}) that the operation left", count(*clusters, "cluster"), size(*bytes))
            }
            Self::FreeLost(chain) => write!(f, "{free} {chain}"),
            Self::FreeOtherLost { chains } => write!(f, "{free} {}", count(*chains, "more lost chain")),
            Self::Salvage { path, bytes, looks_like } => {
                write!(f, "{} a lost chain as {path} ({}", verb("salvage", "salvaged"), size(*bytes))?;
                match looks_like {
                    Some(what) => write!(f, ", {what})"),
                    None => f.write_str(")"),
                }
            }
            Self::LeaveLost { first_cluster, bytes } => {
                let bytes = size(*bytes);
                write!(f, "{leave} the lost chain at cluster {first_cluster}: {bytes} do not fit a file on FAT")
            }
            Self::RewriteFsInfo => {
                write!(f, "{} a new FSInfo sector: the old one had no valid signatures", verb("write", "wrote"))
            }
            Self::UpdateFsInfo => write!(f, "{} the free-space count (FSInfo)", verb("update", "updated")),
            Self::RemoveRecord => write!(f, "{remove} the record of the operation"),
            Self::RemoveSeed { why } => write!(f, "{remove} {RANDOM_SEED}: {why}"),
            Self::RemoveDamagedSeed => write!(f, "{remove} {RANDOM_SEED}, which is damaged"),
            Self::MakeEqual { member, truth } => write!(f, "{} {member} equal to {truth}", verb("make", "made")),
            Self::Elsewhere { partition, action } => {
                write!(f, "{partition}: ")?;
                action.write(f, is_done)
            }
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, true)
    }
}

struct Planned<'a>(&'a Action);

impl fmt::Display for Planned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, false)
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::Action;

    #[test]
    fn actions_are_said_before_they_are_done() {
        let elsewhere = |action| Action::Elsewhere { partition: "partition 2 (BOOT)".into(), action: Box::new(action) };
        for (action, done, to_do) in [
            (Action::Delete("X.efi".into()), "deleted X.efi", "delete X.efi"),
            (
                Action::FreeOwn { clusters: 352, bytes: 180_224 },
                "freed 352 clusters (176 KiB) that the operation left",
                "free 352 clusters (176 KiB) that the operation left",
            ),
            // Every verb of it, not the first alone.
            (
                Action::FinishDeletion { clusters: 1 },
                "finished an interrupted deletion: freed 1 cluster",
                "finish an interrupted deletion: free 1 cluster",
            ),
            (
                Action::LeaveOutRest,
                "left out what was to follow: look at `status`",
                "leave out what follows: look at `status`",
            ),
            // Words of others are left as they are, whatever they begin with.
            (
                Action::LeaveOut { why: "freed 1 cluster is another file since".into() },
                "left out: freed 1 cluster is another file since",
                "leave out: freed 1 cluster is another file since",
            ),
            (
                elsewhere(Action::UpdateFsInfo),
                "partition 2 (BOOT): updated the free-space count (FSInfo)",
                "partition 2 (BOOT): update the free-space count (FSInfo)",
            ),
        ] {
            assert_eq!((action.to_string().as_str(), action.planned().to_string().as_str()), (done, to_do));
            assert_eq!(serde_json::to_value(&action).unwrap(), done);
        }
    }
}
