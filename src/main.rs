//! The `gatepost` program: nothing but the door to [`gatepost`]'s command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    gatepost::cli::run(std::env::args_os(), &gatepost::config::Environment::of_process())
}
