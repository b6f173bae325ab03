//! Reading the frames of a segment that nobody writes any more: an earlier process did, or this
//! one.
//!
//! Damaged files can make sled panic (also on threads of its own), abort, allocate or run without
//! end. So a gateway has them read by a child: the same program, started as
//! `gatepost segment-frames`, which opens one segment after the other and sends their frames
//! ([`wire`]). A segment is read in order with one request, however many pages it is asked in.
//!
//! - The child ends with its parent: its stdin is a pipe that nobody writes to, and when that
//!   closes it exits. A parent that is done with it kills it.
//! - It may be silent for [`SILENCE_MAX`] before each piece that it sends, and longer while it
//!   waits for its disk: a slow disk is no damage.
//! - When it crashes it is started once more, from where it was: the system may have killed it for
//!   reasons of its own. The second time it is damage.
//! - That another process holds the segment, or that there is no room or no process to read it
//!   with, is no damage: it will be tried again.

mod child;
mod server;
mod slow;
pub(super) mod wire;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::segment::{SLED_CACHE_BYTES, SegmentError};
use crate::disk::{self, StoreError, guarded};
use child::Child;

pub use child::{Children, ReaderError};
pub use server::serve_frames;

/// How long a child may be silent before what it was asked for counts as unreadable.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How many crashes one reading outlives.
const CRASHES_MAX: u32 = 1;

/// How closed segments are read.
#[derive(Clone, Debug)]
pub enum Reader {
    /// By this process: damage may take it down. For tests.
    InProcess,
    /// By a child of this program.
    Child(Arc<Children>),
}

impl Reader {
    /// By a child of `program`, which is this program itself.
    pub fn child(program: &Path) -> Self {
        Self::patient_child(program, SILENCE_MAX)
    }

    /// By a child that may be silent for so long.
    pub fn patient_child(program: &Path, silence_max: Duration) -> Self {
        Self::Child(Arc::new(Children::new(program, silence_max)))
    }

    /// Opens the segment in `dir` to read the frames after `after` up to `to`.
    pub(super) fn open(&self, dir: &Path, after: u64, to: u64) -> Result<Frames, SegmentError> {
        // It was synced before the segment took anything; sled would make an empty one.
        if !dir.join("db").exists() {
            return Err(StoreError::Sled("the file `db` is missing".into()).into());
        }
        match self {
            Self::InProcess => Ok(Frames::Db(disk::open_sled(dir, SLED_CACHE_BYTES)?)),
            Self::Child(children) => {
                let child = Some(children.ask(dir, after, to)?);
                let children = Arc::clone(children);
                Ok(Frames::Child(Reading {
                    children,
                    dir: dir.into(),
                    to,
                    child,
                    at: after,
                    crashes: 0,
                }))
            }
        }
    }

    /// When that is dropped, there is nothing to read for now.
    pub(super) fn until_done(&self) -> Rest<'_> {
        Rest(self)
    }

    /// There is nothing to read for now.
    pub(super) fn rest(&self) {
        if let Self::Child(children) = self {
            children.rest();
        }
    }
}

/// Lets the process that reads go, however the reading ends.
pub(super) struct Rest<'a>(&'a Reader);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// A segment that is open for reading.
#[derive(Debug)]
pub(super) enum Frames {
    /// In this process.
    Db(sled::Db),
    /// In a child.
    Child(Reading),
}

/// What takes the frames, by sequence number; it may end the reading.
pub(super) type Each<'a> = &'a mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>;

impl Frames {
    /// Whether it can go on after `after` up to `to`.
    pub fn serves(&self, after: u64, to: u64) -> bool {
        match self {
            Self::Db(_) => true,
            Self::Child(reading) => reading.at == after && reading.to == to,
        }
    }

    /// Passes the frames after `after` up to `to` on, in order. What cannot be a frame of ours is
    /// passed on as an empty one.
    pub fn pass(&mut self, after: u64, to: u64, each: Each<'_>) -> Result<(), SegmentError> {
        match self {
            Self::Db(db) => pass_db(db, after, to, each),
            Self::Child(reading) => reading.pass(each),
        }
    }
}

pub(super) fn pass_db(
    db: &sled::Db,
    after: u64,
    to: u64,
    each: Each<'_>,
) -> Result<(), SegmentError> {
    let Some(from) = after.checked_add(1).filter(|from| *from <= to) else { return Ok(()) };
    guarded(|| {
        for entry in db.range(from.to_be_bytes()..=to.to_be_bytes()) {
            let (key, value) = entry?;
            let Ok(seq) = <[u8; 8]>::try_from(&*key).map(u64::from_be_bytes) else { continue };
            // Laid out by its writer, and never written.
            if value.is_empty() {
                continue;
            }
            if each(seq, &value).is_break() {
                break;
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// A reading by a child, and by another one if that crashes.
#[derive(Debug)]
pub(super) struct Reading {
    children: Arc<Children>,
    dir: Box<Path>,
    to: u64,
    /// None when it has sent everything, and has let go of the segment.
    child: Option<Child>,
    /// The last frame that was passed on.
    at: u64,
    crashes: u32,
}

impl Reading {
    fn pass(&mut self, each: Each<'_>) -> Result<(), SegmentError> {
        while let Some(child) = &mut self.child {
            match child.next(self.at) {
                Ok(Some((seq, frame))) => {
                    self.at = seq;
                    if each(seq, &frame).is_break() {
                        return Ok(());
                    }
                }
                Ok(None) => self.children.take_back(self.child.take()),
                Err(SegmentError::Reader(ReaderError::Ended(_))) if self.crashes < CRASHES_MAX => {
                    self.crashes += 1;
                    // Gone before the next one comes: it holds the segment.
                    self.child = None;
                    self.child = Some(self.children.ask(&self.dir, self.at, self.to)?);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
