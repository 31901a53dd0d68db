//! Surgery on UEFI boot images: take a signed Unified Kernel Image (UKI) from where it was published and put it on the
//! EFI System Partition (ESP) of a board whose firmware cannot help, so that the board boots at every moment between.
//!
//! The way of the data is the way of the modules:
//!
//! | module | job | may touch |
//! | --- | --- | --- |
//! | [`factory`] | schematics, downloads, remote images | the network, the output file |
//! | [`image`], [`iso`] | find the UKI in whatever was given | reads |
//! | [`pe`], [`uki`], [`authenticode`], [`pcr`] | what a UKI is and says | reads |
//! | [`trust`], [`efivars`], [`verify`] | whether to believe it | reads |
//! | [`oci`] | the UKIs in the layers of an OCI image, each blob held against its digest | temporary files, reads |
//! | [`packed`] | disk images packed with zstd or xz, in and out | the operating system, temporary files |
//! | [`disk`] | the ESP on a disk, device or image file | the operating system, reads |
//! | [`esp`] | what is on the ESP and what part each file plays | reads |
//! | [`fat`] | the file system of the ESP | reads; ordered sector writes for surgery |
//! | [`boot`] | which file systemd-boot starts, and why | nothing: pure |
//! | [`bootpath`] | the way of the boot from the firmware to that file | nothing: pure |
//! | [`board`] | a board's files beside its images: device trees, firmware, settings; two volumes compared | reads |
//! | [`config`] | whether a node's configuration fits an image | nothing: pure |
//! | [`plan`] | what a swap, restore or prune will do, held against the prediction | nothing: pure |
//! | [`doctor`] | what is wrong with firmware, variables and ESPs, what it means, the next command | reads |
//! | [`pod`] | Kubernetes manifests that run the program on nodes | nothing: pure; the environment of its own pods |
//! | [`surgery`] | the one place that carries operations out, and `recover` | the ESP |
//! | [`command`], [`cli`] | each command as a function; arguments, prompts, rendering | the terminal |
//! | `testkit` (a feature) | test keys, images made on the spot, a factory on loopback | what it makes; the loopback |
//! | [`block`] | bytes at a place: files, devices, memory | the operating system |
//! | `container` | machine, container or pod: what helps there | its own surroundings |
//! | `yaml` | YAML as nodes with their places, within limits | nothing: pure |
//!
//! # Features
//! Without features the library reads, verifies, predicts, and changes FAT volumes safely against power cuts.
//!
//! | feature | what it adds | crates in all |
//! | --- | --- | ---: |
//! | none | | 90 |
//! | `net` | the Image Factory and remote images: HTTP and TLS | 103 |
//! | `testkit` | test keys, images made on the spot, a local Image Factory | 101 |
//! | `demo` | the demonstration; with `net` and `testkit` | 114 |
//! | `cli` | the program; with `net` | 128 |
//! | all, the default | | 139 |
//!
//! # Limitations
//! A logical sector is assumed to be written whole or not at all.
// `sha256/pair.rs` alone allows it, and says why; a test counts.
#![deny(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod authenticode;
pub mod block;
pub mod board;
pub mod boot;
pub mod bootpath;
#[cfg(feature = "cli")]
pub mod cli;
pub mod command;
pub mod config;
mod container;
mod counter;
#[cfg(feature = "demo")]
pub mod demo;
pub mod disk;
pub mod doctor;
pub mod efivars;
mod error;
pub mod esp;
pub mod factory;
pub mod fat;
mod harmless;
pub mod image;
pub mod iso;
pub mod oci;
pub mod packed;
pub mod pcr;
pub mod pe;
pub mod plan;
#[cfg(feature = "cli")]
pub mod pod;
mod sha256;
mod sorting;
pub mod surgery;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod trust;
pub mod uki;
mod units;
pub mod verify;
mod yaml;

pub use error::{Code, Context, Error, Kind, Result};
