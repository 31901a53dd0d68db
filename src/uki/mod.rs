//! The Unified Kernel Image: sections, os-release, profiles, initrd, schematic and extensions.
//!
//! Reads only, and from whatever the caller gives it: [`probe`] the headers and small sections, [`analyse`] the whole
//! file, once. Headers come from [`crate::pe`]; signatures and PCR policies are judged elsewhere, and their consumers
//! can share the pass. The formats inside are read with crates (cpio, zstd, liblzma, flate2, bzip2, lz4_flex,
//! granit-parser); own code decides what counts, and bounds memory and time, because the kernel, systemd-boot and Talos
//! have rules of their own and the bytes may come from anyone.

mod analysis;
pub mod cmdline;
mod coding;
mod companions;
mod contradictions;
mod extensions;
mod facts;
mod family;
mod frames;
mod identity;
mod initrd;
mod kernel;
mod lanzaboote;
mod lz4;
pub mod os_release;
mod sections;
mod services;
mod sinks;
mod squashfs;
mod tally;
mod texts;

pub use crate::pe::Profiles;
pub use analysis::{Analyser, Uki, analyse};
pub use coding::Coding;
pub use companions::{Companion, CompanionKind, Companions, Host, additions};
pub use contradictions::contradictions;
pub use extensions::{Extension, Extensions, SchematicLayer};
pub use facts::{Facts, Profile, probe};
pub use family::Family;
pub use identity::Identity;
pub use initrd::{Archive, ArchiveFile, Initrd, Members, read_initrd};
pub use kernel::kernel_version;
pub use lanzaboote::{Pointer, pointers};
pub use os_release::OsRelease;
pub use sections::{SectionProblem, check_layout};
pub use services::Services;
pub use sinks::{InitrdSink, Sha256Sink};
pub use texts::{TextSink, Texts};
