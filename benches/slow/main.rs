//! Slow media and slow lines: what a swap takes where the medium and the network decide, against what they allow.
//!
//!     cargo bench --bench slow                   a UKI of 120 MB, one round (a minute)
//!     cargo bench --bench slow -- --full         a UKI of 126 MB, medians of three rounds
//!
//! `cargo bench --bench peers` prints these rows, too.
#![allow(missing_docs)] // a program, not a library
#![allow(dead_code)] // what the other program that shares these files calls

#[path = "../peers/inputs.rs"]
mod inputs;
#[path = "../peers/measure.rs"]
mod measure;
mod medium;
mod rows;
#[path = "../peers/table.rs"]
mod table;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if !args.iter().any(|a| a == "--bench") {
        println!("a comparison that takes a minute: run it with `cargo bench --bench slow`");
        return ExitCode::SUCCESS;
    }
    let is_full = args.iter().any(|a| a == "--full");
    let mut complete = measure::there(&inputs::TOOLS, "everything", &mut true);
    let rows = inputs::Inputs::make(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers"))
        .and_then(|inputs| rows::rows(&inputs, is_full, &mut complete));
    match rows {
        Ok(rows) => {
            table::print(&rows);
            if rows.iter().all(|row| row.met() || row.is_time) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
