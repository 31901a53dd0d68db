//! The Unified Kernel Image: sections, os-release, profiles, initrd, schematic and extensions.
//!
//! Reads only, and from whatever the caller gives it. Headers come from [`crate::pe`]; signatures and PCR policies are
//! judged elsewhere. The formats inside are read with crates (cpio, zstd, liblzma, serde-saphyr); own code decides what
//! counts, and bounds memory and time, because the kernel and systemd-boot have rules of their own and the bytes may
//! come from anyone.

#[cfg(any(test, feature = "demo"))]
pub mod build;
pub mod cmdline;
mod extensions;
mod frames;
mod initrd;
pub mod os_release;
mod sections;
mod texts;

pub use extensions::{Extension, Extensions, Schematic};
pub use frames::Coding;
pub use initrd::{Archive, Initrd, Member, Members, read_initrd};
pub use os_release::OsRelease;
pub use sections::{Problem, Profiles, check_layout};
pub use texts::{TextSink, Texts};
