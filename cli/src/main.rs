//! The executable `eagle`: all parts of Eagle as subcommands.

use std::process::ExitCode;

fn main() -> ExitCode {
    eagle::run(std::env::args_os())
}
