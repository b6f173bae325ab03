//! `gatepost segment-frames`: the child that reads segments for a gateway. It is not for people.
//!
//! It may be taken down by what it reads, so it takes care to go down alone, soon and quietly.

use std::io::{self, BufWriter, Write};
use std::process::{ExitCode, exit};

use rustix::process::{Resource, Rlimit, setrlimit};

use super::failure::{FAILED, Failure};
use crate::journal;

/// The memory that a damaged segment can make it ask for, in bytes.
const MEMORY_MAX: u64 = 4 << 30;

/// Reads segments for the gateway that started this process, and ends with it.
pub(super) fn serve() -> Result<ExitCode, Failure> {
    // A panic, also on one of sled's own threads, is the end.
    std::panic::set_hook(Box::new(|panic| {
        // Whoever started it may be gone.
        drop(writeln!(io::stderr(), "{panic}"));
        exit(i32::from(FAILED));
    }));
    for (resource, max) in [(Resource::Data, MEMORY_MAX), (Resource::Core, 0)] {
        let limit = Rlimit { current: Some(max), maximum: Some(max) };
        if let Err(error) = setrlimit(resource, limit) {
            // A lower limit may hold already. It is heard only where the reading fails.
            drop(writeln!(io::stderr(), "limit not set: {error}"));
        }
    }
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    journal::serve_frames(io::stdin(), &mut out, || exit(0))?;
    Ok(ExitCode::SUCCESS)
}
