//! FAT12, FAT16 and FAT32: reading, health, and the ordered writes that surgery is made of.
//!
//! This is the project's own code on purpose. No crate offers what a safe swap needs: fatfs' `rename` erases the old
//! name before it writes the new one, its `remove` frees a chain that a name still points at, and neither it nor any
//! other crate tells where a directory entry stands or orders its writes by barriers. fatfs serves as the second,
//! independent reader in tests.
//!
//! | part | job |
//! | --- | --- |
//! | [`Geometry`] | the BIOS parameter block, checked |
//! | [`Volume`] | reading: the allocation table, directories, files |
//! | [`Health`] | a read-only check of everything, in the terms of `fsck.fat` |
//! | [`Editor`] | sector writes in the order the caller asks for; never decides on its own what is safe |
//!
//! Format: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03 (`fatgen103`), and ECMA-107.

mod bootsector;
mod detect;
mod dir;
mod edit;
mod geometry;
mod health;
mod name;
mod runs;
mod table;
mod usage;
mod volume;

pub use bootsector::{BootSectorCopy, BootSectorRepair, boot_sector_repair, contradiction};
pub use detect::{has_root_folder, is_called_fat, is_live};
pub use dir::{Attributes, Directory, Entry, Slot};
pub use edit::{Content, Editor, MARK, Stamp, empty_directory, grown_cluster, length_for_names};
pub use geometry::{FatKind, Geometry, Root, is_boot_sector, is_fat};
pub use health::{Health, Problem, ProblemClass, ProblemKind, RANDOM_SEED, Remedy, WrongDot};
pub use name::{NameError, check_long_name, slots_of};
pub(crate) use name::{folded, same_name};
pub use runs::Run;
pub(crate) use runs::{ClusterMap, Clusters};
pub use table::{AllocationTable, Link};
pub use usage::{Usage, usage};
pub use volume::{MAX_DIRECTORY, Volume};
