//! The power-cut proof: an operation is recorded sector by sector, every image that a power cut can leave is built, and
//! each is judged by readers that share no code with what they judge.
//!
//! - `cargo test --test powercut`: a quick run, one scenario in seven.
//! - `POWERCUT_STATES=100000 cargo test --test powercut -- --nocapture`: every scenario, every mutation, and tables.
//! - `POWERCUT_STATES=1000000 …`: as well, round after round with other seeds until so many states were checked.
//!
//! `POWERCUT_SEED` begins with another seed, `POWERCUT_ONLY` takes the scenarios whose name contains it.
#![allow(unreachable_pub, clippy::unwrap_used)]

mod checker;
mod drawn;
mod formatter;
mod geometry;
mod invariants;
mod matrix;
mod mutants;
mod naive;
mod operations;
mod placed;
mod readers;
mod real;
mod reference;
#[cfg(test)]
mod selftest;
mod sets;
mod tally;
mod traced;
mod volumes;

use bootsurgeon::testkit::crash::{self, frame, recorder};
