//! The Image Factory: schematics, downloads, and a local factory for demonstration and tests.
