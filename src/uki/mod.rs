//! The Unified Kernel Image: sections, os-release, profiles, initrd, schematic and extensions.
