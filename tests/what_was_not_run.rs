//! Runs last in `cargo test`, by its name, and says what the other test programs left out and why. Under `CI` anything
//! left out for want of a tool is a failure.

use std::process::ExitCode;

fn main() -> ExitCode {
    match bootsurgeon::testkit::skipped::summary() {
        Ok((said, failed)) => {
            println!("\n{said}");
            if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(e) => {
            eprintln!("what was not run cannot be told: {e}");
            ExitCode::FAILURE
        }
    }
}
