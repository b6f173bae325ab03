//! Segments: one sled database each, written by one process only, read by the drainer.
//!
//! The directory's name is the stream id. Beside sled's files stand `end` (last sequence number and
//! totals, written when the segment closes) and `sent` (made before the first transaction that
//! carries it).

mod end;
mod error;
mod looked;
mod read;
mod traces;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use uuid::Uuid;

use super::lock;
use super::merge::part::Part;
use super::merge::sources;
use super::reader::{Frames, Reader};
use super::tally::Tally;
use crate::disk;
use crate::model::Timestamp;
use crate::model::fact::Lane;

use looked::Looked;

pub use end::End;
pub use error::SegmentError;
pub(super) use read::{EachChunk, Found, look_through, remains};
pub use read::{Missing, Page};

/// sled's own cache per segment. Chunks are written and read once, so little is enough.
pub(super) const SLED_CACHE_BYTES: u64 = 8 << 20;

/// A segment as everybody but its writer sees it.
#[derive(Debug)]
pub struct Segment {
    /// Its lane.
    pub lane: Lane,
    /// Its stream id: random, and tells its age.
    pub stream: Uuid,
    dir: PathBuf,
    /// How its frames are read, once nobody writes it.
    reader: Reader,
    /// What reads it at the moment.
    frames: Mutex<Option<Frames>>,
    looked: Mutex<Looked>,
    durable_seq: AtomicU64,
    applied_seq: AtomicU64,
    facts: AtomicU64,
    tally: Mutex<Tally>,
    closed: AtomicBool,
    /// Its end is known: true of its own segments, and of inherited ones that were looked through.
    examined: AtomicBool,
    /// The writer itself has said where it ends.
    sealed: AtomicBool,
    /// Postgres knows another end of the stream: it cannot be drained.
    blocked: AtomicBool,
    sent: AtomicBool,
    /// Postgres knows where it ends.
    end_told: AtomicBool,
    pub(super) part: Part,
    settled_at: Mutex<Option<Duration>>,
    rest: Mutex<Option<Rest>>,
}

/// What the ledger says of the time since a stream was applied: it outlives this process.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// Everything up to here had been applied...
    pub up_to: u64,
    /// ...for so long...
    pub took: Duration,
    /// ...when the ledger was read, in monotonic time.
    pub seen: Duration,
}

impl Segment {
    fn new(lane: Lane, stream: Uuid, dir: PathBuf, own: bool, reader: Reader) -> Self {
        Self {
            lane,
            stream,
            dir,
            reader,
            frames: Mutex::new(None),
            looked: Mutex::new(Looked::new()),
            durable_seq: AtomicU64::new(0),
            applied_seq: AtomicU64::new(0),
            facts: AtomicU64::new(0),
            tally: Mutex::default(),
            closed: AtomicBool::new(!own),
            examined: AtomicBool::new(own),
            sealed: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            sent: AtomicBool::new(false),
            end_told: AtomicBool::new(false),
            part: Part::new(own),
            settled_at: Mutex::new(None),
            rest: Mutex::new(None),
        }
    }

    /// A segment that this process writes through `db`, and reads over it until it is closed.
    pub(super) fn own(
        lane: Lane,
        stream: Uuid,
        dir: PathBuf,
        db: sled::Db,
        reader: Reader,
    ) -> Self {
        let segment = Self::new(lane, stream, dir, true, reader);
        *lock(&segment.frames) = Some(Frames::Db(db));
        segment
    }

    /// Everything up to `end` is on disk: readers may go as far.
    pub(super) fn publish(&self, end: End) {
        self.facts.store(end.facts, Ordering::Relaxed);
        self.durable_seq.store(end.last_seq, Ordering::Release);
        self.sealed.store(end.sealed, Ordering::Release);
    }

    /// Closes it at what is published. A tail beyond is never read.
    pub(super) fn close(&self) -> Result<(), SegmentError> {
        let facts = self.facts.load(Ordering::Relaxed);
        let end = End { last_seq: self.durable_seq(), facts, sealed: true };
        end.write(&self.dir, sources::Sum::of(&self.sources()))?;
        lock(&self.looked).end = Some(end);
        self.sealed.store(true, Ordering::Release);
        *lock(&self.frames) = None;
        self.closed.store(true, Ordering::Release);
        Ok(())
    }

    /// Removes what a kill or a power cut left of a segment that was only being made.
    pub(super) fn was_never_made(dir: &Path) -> Result<bool, SegmentError> {
        disk::remove_half_made(dir).map_err(SegmentError::of_reading(dir))
    }

    /// A segment that an earlier process wrote: made safe to open, believed only once synced.
    pub fn inherit(
        lane: Lane,
        stream: Uuid,
        dir: PathBuf,
        reader: Reader,
    ) -> Result<Self, SegmentError> {
        let synced = disk::remove_half_snapshots(&dir).and_then(|()| disk::secure(&dir));
        synced.map_err(SegmentError::of_reading(&dir))?;
        let segment = Self::new(lane, stream, dir, false, reader);
        segment.sent.store(segment.dir.join("sent").exists(), Ordering::Relaxed);
        if let Some(sources) = sources::read(&segment.dir, stream)? {
            segment.stands_for(sources);
        }
        if let Some(end) = segment.known_end()? {
            segment.publish(end);
        }
        Ok(segment)
    }

    /// Lets go of what reads it, sled's handle and memory or a child, unless it is being written.
    pub fn release(&self) {
        if self.is_closed() {
            *lock(&self.frames) = None;
        }
    }

    /// Everything up to here is on disk. (Of an inherited segment: known once it was examined.)
    pub fn durable_seq(&self) -> u64 {
        self.durable_seq.load(Ordering::Acquire)
    }

    /// Everything up to here is in Postgres, as far as is known.
    pub fn applied_seq(&self) -> u64 {
        self.applied_seq.load(Ordering::Acquire)
    }

    /// Takes over what the ledger says.
    pub fn set_applied(&self, seq: u64) {
        if self.applied_seq.swap(seq, Ordering::AcqRel) > seq {
            // What could not be read and was in Postgres is in neither now: to be found anew.
            let mut looked = lock(&self.looked);
            looked.gaps = looked.gaps.up_to(seq);
        }
    }

    /// Whoever read the chunks after `from`, up to and with `to`, found so many facts in them.
    pub fn counted(&self, from: u64, to: u64, facts: u64) {
        lock(&self.tally).add(from, to, facts);
    }

    /// The facts up to each number that somebody counted, its end included once it has one.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = lock(&self.tally).clone();
        if self.is_closed() {
            tally.set(self.durable_seq(), self.facts.load(Ordering::Relaxed));
        }
        tally
    }

    /// Whether its end is known.
    pub(super) fn is_examined(&self) -> bool {
        self.examined.load(Ordering::Acquire)
    }

    /// Whether nothing will be added.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether its writer has said where it ends.
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Postgres knows another end of this stream, or none any more: a copy of the directory was
    /// there before. Returns whether that is news.
    pub fn block(&self, blocked: bool) -> bool {
        !self.blocked.swap(blocked, Ordering::AcqRel) && blocked
    }

    /// Whether it cannot be drained.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    /// Whether it is closed, and all of it is in Postgres.
    pub fn is_finished(&self) -> bool {
        self.is_closed() && self.is_examined() && self.applied_seq() >= self.durable_seq()
    }

    /// Facts that are not known to be in Postgres. Exact where this process counted up to the
    /// ledger's position or it is the end; otherwise (an earlier process stopped there) too many,
    /// never too few.
    pub fn unsettled_facts(&self) -> u64 {
        if self.is_closed() && self.applied_seq() >= self.durable_seq() {
            return 0;
        }
        let applied = lock(&self.tally).at_least(self.applied_seq());
        self.facts.load(Ordering::Relaxed).saturating_sub(applied)
    }

    /// Facts in everything that is durable. (Of an inherited segment: known once it was examined.)
    pub fn facts(&self) -> u64 {
        self.facts.load(Ordering::Relaxed)
    }

    /// Whether a transaction may have carried some of it.
    pub fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Acquire)
    }

    /// Makes the `sent` mark, once.
    ///
    /// # Errors
    /// When it is not durable. This process knows it all the same.
    pub fn mark_sent(&self) -> Result<(), SegmentError> {
        if !self.sent.swap(true, Ordering::AcqRel) {
            disk::make_mark(&self.dir.join("sent"))?;
        }
        Ok(())
    }

    /// Postgres knows where it ends, or does not any more.
    pub fn tell_end(&self, told: bool) {
        self.end_told.store(told, Ordering::Release);
    }

    /// Whether Postgres is to learn yet where it ends, although nothing else of it is to be sent:
    /// in an older copy of the directory there may be more. (A merged one is closed before any of
    /// it is sent.)
    pub fn has_end_to_tell(&self) -> bool {
        self.is_sealed() && self.sources().is_empty() && !self.end_told.load(Ordering::Acquire)
    }

    /// How long it is settled, as far as is known; from now on, if nobody has said so before. Time
    /// that passed in earlier processes is told by the ledger.
    pub fn settled_for(&self, now: Duration) -> Duration {
        let here = now.saturating_sub(*lock(&self.settled_at).get_or_insert(now));
        let told = lock(&self.rest).filter(|rest| rest.up_to >= self.durable_seq());
        let told = told.map(|rest| rest.took.saturating_add(now.saturating_sub(rest.seen)));
        here.max(told.unwrap_or_default())
    }

    /// Takes over what the ledger says of the time since it was applied.
    pub fn rested(&self, rest: Option<Rest>) {
        *lock(&self.rest) = rest;
    }

    /// The ledger moved back, or it was not settled after all.
    pub fn unsettle(&self) {
        *lock(&self.settled_at) = None;
    }

    /// When its stream began, from the id.
    pub fn born(&self) -> Timestamp {
        let (secs, nanos) = self.stream.get_timestamp().map_or((0, 0), |at| at.to_unix());
        Timestamp::EPOCH.plus(Duration::new(secs, nanos))
    }

    /// Where it stands.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
