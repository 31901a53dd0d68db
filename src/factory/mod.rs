//! The Image Factory: schematics, downloads, remote images, and a local factory for demonstration and tests.

mod canonical;
mod schematic;

pub use schematic::{Bootloader, OptionValue, Overlay, Schematic, is_id};
