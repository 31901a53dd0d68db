//! The integration tests, in one program: a module per subject, and [`regression`] with a test per report.
//!
//! The lanes that take minutes or need virtual machines are programs of their own: `powercut`, `kill`, `boots`,
//! `arm64`.
#![allow(clippy::unwrap_used)]

#[macro_use]
#[path = "../support/cli.rs"]
mod cli;
#[path = "../support/loops.rs"]
mod loops;
#[path = "../support/mod.rs"]
mod support;

mod agreement_authenticode;
mod agreement_trust;
mod board;
mod changed;
mod cli_bad_input;
mod cli_inspect;
mod cli_loop;
mod cli_swap;
mod container;
mod corpora;
mod factory;
mod fat_health;
mod faults;
mod fixtures;
mod hostile;
mod layers;
mod makers;
mod network;
mod on_node;
mod packed;
mod pod;
mod pod_container;
mod read_back;
mod real_ukis;
mod regression;
mod remote;
mod rollout;
mod snapshots;
mod surgery;
mod table;
