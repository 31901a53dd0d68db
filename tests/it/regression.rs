//! A test per report from the field, named `r<repository>_<number>_<what>`: the situation as it was reported, and what
//! the program has to make of it. A fault without a public report is named after the issue of this project that
//! describes it.

mod addons;
mod again;
mod board;
mod board_backups;
mod board_set;
mod completion;
mod config;
mod day;
mod desk;
mod disks;
mod files;
mod house;
mod loader;
mod loader_factory;
mod loaders;
mod mirrors;
mod oci;
mod order;
mod output;
mod paths;
mod pin;
mod place;
mod plain;
mod progress;
mod reading;
mod readme;
mod recovery;
mod recovery_cli;
mod reports;
mod room;
mod runbook;
mod secrets;
mod seed;
mod servers;
mod signatures;
mod stream;
mod terminal;
mod uki;
mod variables;
mod volumes;
mod way;
mod words;
mod xbootldr;

pub(super) use uki::debian_esp_of as debian_esp;
