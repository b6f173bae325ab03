//! The `gatepost` program: nothing but the door to [`gatepost`]'s command line.

use std::process::ExitCode;

/// What a crowd of idle connections keeps is less, in pages that are touched, than with the
/// system's own (docs/evidence.md, "The edge").
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gatepost::cli::run(std::env::args_os(), &gatepost::config::Environment::of_process())
}
