//! The child's side: opens one segment after the other and sends their frames.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use super::pass_db;
use super::wire::{self, Request};
use crate::disk::{self, StoreError};
use crate::journal::segment::{SLED_CACHE_BYTES, SegmentError};

/// Reads what `from` asks for and sends it to `out`, until the process ends: `end` is called as
/// soon as nobody asks any more, whatever is being read at that moment. Blocks. Damage may take
/// the process down: it is the one that may.
///
/// # Errors
/// When nobody listens any more.
pub fn serve_frames(
    mut from: impl Read + Send + 'static,
    out: &mut dyn Write,
    end: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    // The gateway asks for the next one when it has the one before.
    let (sender, requests) = sync_channel(1);
    let listen = move || {
        while let Ok(request) = wire::asked(&mut from) {
            if sender.send(request).is_err() {
                break;
            }
        }
        end();
    };
    thread::Builder::new().name("gateway".into()).spawn(listen)?;
    answer(&requests, out)
}

fn answer(requests: &Receiver<Request>, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&wire::HELLO)?;
    out.flush()?;
    for request in requests {
        let verdict = send(&request, out)?;
        wire::conclude(out, &verdict)?;
    }
    Ok(())
}

/// Sends one segment's frames. It has let go of the segment when it returns.
fn send(request: &Request, out: &mut dyn Write) -> io::Result<Result<(), StoreError>> {
    let db = match disk::open_sled(&request.dir, SLED_CACHE_BYTES) {
        Ok(db) => db,
        Err(error) => return Ok(Err(error)),
    };
    let mut sent = Ok(());
    let passed = pass_db(&db, request.after, request.to, &mut |seq, frame| {
        sent = wire::send(out, seq, frame);
        if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    sent?;
    Ok(match passed {
        Ok(()) => Ok(()),
        Err(SegmentError::Store(error)) => Err(error),
        Err(other) => Err(StoreError::Sled(other.to_string())),
    })
}
