//! What demonstration, tests, benchmarks and fuzzing need and a user's machine must never see: keys that everybody
//! knows, images made on the spot, a factory on loopback, files put on a fresh volume.
//!
//! Behind the feature `testkit`, so that nothing of it is in a library that only reads, verifies and swaps.
//!
//! | part | job |
//! | --- | --- |
//! | [`crash`] | every image that a power cut can leave of any function over a block device |
//! | [`factory`] | a local Image Factory with every bad behaviour of real servers on demand |
//! | [`signing`] | keys, certificates, and PE images signed as Talos' imager does it |
//! | [`uki`] | PE images of sections, initrds, `extensions.yaml` |
//! | [`squashfs`] | small squashfs images that Linux mounts |
//! | [`talos`] | whole signed UKIs and a boot loader like Talos' own |
//! | [`fat`] | directories and files on a volume this program made itself |
//! | [`skipped`] | what tests could not be run, said and counted |
//! | [`media`] | a node's disk and a Secure Boot ISO |

pub mod crash;
pub mod factory;
pub mod fat;
#[cfg(test)]
pub(crate) mod iso;
pub mod media;
#[cfg(test)]
pub(crate) mod pe;
pub mod signing;
pub mod skipped;
pub mod squashfs;
pub mod talos;
pub mod uki;
