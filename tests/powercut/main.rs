//! The power-cut proof: an operation is recorded sector by sector, every image that a power cut can leave is built, and
//! each is judged by readers that share no code with what they judge.
//!
//! `POWERCUT_STATES` (how many states to check, default a quick run), `POWERCUT_SEED`, `POWERCUT_ONLY` (scenarios whose
//! name contains it) repeat or enlarge a run.
#![allow(unreachable_pub, clippy::unwrap_used)]

mod checker;
mod crash;
mod frame;
mod geometry;
mod invariants;
mod matrix;
mod mutants;
mod naive;
mod operations;
mod readers;
mod real;
mod recorder;
mod reference;
#[cfg(test)]
mod selftest;
mod traced;
mod volumes;
