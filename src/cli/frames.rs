//! `gatepost segment-frames`: the child that reads a segment for a gateway. It is not for people.
//!
//! It may be taken down by what it reads, so it takes care to go down alone, soon and quietly.

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::process::{ExitCode, exit};
use std::thread;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::failure::{FAILED, Failure};
use crate::journal;

/// The memory that a damaged segment can make it ask for, in bytes.
const MEMORY_MAX: u64 = 4 << 30;

/// Sends the frames of the segment in `dir` after `after` up to `to` to stdout.
pub(super) fn send(dir: &Path, after: u64, to: u64) -> Result<ExitCode, Failure> {
    end_with_parent()?;
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
    journal::send_frames(dir, after, to, &mut out)?;
    Ok(ExitCode::SUCCESS)
}

/// Nobody writes to its stdin: when that closes, whoever started it is gone.
fn end_with_parent() -> io::Result<()> {
    let watch = || {
        drop(io::stdin().lock().read(&mut [0]));
        exit(i32::from(FAILED));
    };
    thread::Builder::new().name("parent".into()).spawn(watch).map(drop)
}
