//! The child's side: opens one segment and sends its frames.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;

use super::{pass_db, wire};
use crate::disk::{self, StoreError};
use crate::journal::segment::{SLED_CACHE_BYTES, SegmentError};

/// Sends the frames of the segment in `dir` after `after` up to `to` to `out`, and how that ended.
/// Blocks. Damage may take the process down: it is the one that may.
///
/// # Errors
/// When nobody listens any more.
pub fn send_frames(dir: &Path, after: u64, to: u64, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&wire::HELLO)?;
    out.flush()?;
    let mut sent = Ok(());
    let read = disk::open_sled(dir, SLED_CACHE_BYTES).map_err(SegmentError::from).and_then(|db| {
        let passed = pass_db(&db, after, to, &mut |seq, frame| {
            sent = wire::send(out, seq, frame);
            if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        // Its last flush is of no use to anybody, and may fail.
        std::mem::forget(db);
        passed
    });
    sent?;
    let verdict = match read {
        Ok(()) => Ok(()),
        Err(SegmentError::Store(error)) => Err(error),
        Err(other) => Err(StoreError::Sled(other.to_string())),
    };
    wire::conclude(out, &verdict)
}
