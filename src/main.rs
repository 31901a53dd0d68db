//! The command line program. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bootsurgeon::cli::run()
}
