//! Segments: one sled database each, written by one process only, read by the drainer.
//!
//! The directory's name is the stream id. Beside sled's files stand `end` (last sequence number and
//! totals, written when the segment closes) and `sent` (made before the first transaction that
//! carries it).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bincode::{Decode, Encode};
use uuid::Uuid;

use super::chunk::{self, Chunk};
use crate::codec::{self, CodecError, Kind};
use crate::disk::{self, StoreError, guarded};
use crate::model::Timestamp;
use crate::model::fact::Lane;

/// sled's own cache per segment. Chunks are written and read once, so little is enough.
pub(super) const SLED_CACHE_BYTES: u64 = 8 << 20;
const END_VERSION: u8 = 1;
/// Stands in a segment's directory while it is being made: nothing of it was ever promised.
pub(super) const MAKING: &str = "making";

/// What is known of a segment that takes nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct End {
    /// The last sequence number; 0 when nothing was committed.
    pub last_seq: u64,
    /// Facts in all chunks up to it.
    pub facts: u64,
    /// Said by the writer itself: there is nothing beyond. Otherwise a reader found so much, and in
    /// the directory that this is a copy of there may be more.
    pub sealed: bool,
}

/// Why a segment cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// sled failed, panicked, or is held by another handle.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file beside sled's failed.
    #[error("the journal's disk failed: {0}")]
    Io(#[from] io::Error),
    /// A record of a later version.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Damage that was noticed by counting only.
    #[error("{0} sequence numbers are missing")]
    Missing(u64),
}

/// Some chunks of a segment.
#[derive(Clone, Debug)]
pub struct Page {
    /// In the order of their sequence numbers.
    pub chunks: Vec<Chunk>,
    /// Everything up to here was looked at, missing numbers included.
    pub reached: u64,
}

/// A segment as everybody but its writer sees it.
#[derive(Debug)]
pub struct Segment {
    /// Its lane.
    pub lane: Lane,
    /// Its stream id: random, and tells its age.
    pub stream: Uuid,
    dir: PathBuf,
    handle: Mutex<Handle>,
    durable_seq: AtomicU64,
    applied_seq: AtomicU64,
    facts: AtomicU64,
    facts_applied: AtomicU64,
    closed: AtomicBool,
    /// Its end is known: true of its own segments, and of inherited ones that were looked through.
    examined: AtomicBool,
    /// The writer itself has said where it ends.
    sealed: AtomicBool,
    /// Postgres knows another end of the stream: it cannot be drained.
    blocked: AtomicBool,
    sent: AtomicBool,
    settled_at: Mutex<Option<Duration>>,
}

#[derive(Debug, Default)]
struct Handle {
    db: Option<sled::Db>,
    missing: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Segment {
    fn new(lane: Lane, stream: Uuid, dir: PathBuf, own: bool) -> Self {
        Self {
            lane,
            stream,
            dir,
            handle: Mutex::default(),
            durable_seq: AtomicU64::new(0),
            applied_seq: AtomicU64::new(0),
            facts: AtomicU64::new(0),
            facts_applied: AtomicU64::new(0),
            closed: AtomicBool::new(!own),
            examined: AtomicBool::new(own),
            sealed: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            sent: AtomicBool::new(false),
            settled_at: Mutex::new(None),
        }
    }

    /// A segment that this process writes through `db`.
    pub(super) fn own(lane: Lane, stream: Uuid, dir: PathBuf, db: sled::Db) -> Self {
        let segment = Self::new(lane, stream, dir, true);
        lock(&segment.handle).db = Some(db);
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
        self.write_end(End { last_seq: self.durable_seq(), facts, sealed: true })?;
        self.sealed.store(true, Ordering::Release);
        lock(&self.handle).db = None;
        self.closed.store(true, Ordering::Release);
        Ok(())
    }

    /// Removes what a kill or a power cut left of a segment that was only being made.
    pub(super) fn was_never_made(dir: &Path) -> io::Result<bool> {
        let unmade = dir.join(MAKING).exists() || fs::read_dir(dir)?.next().is_none();
        if unmade {
            disk::remove_dir(dir)?;
        }
        Ok(unmade)
    }

    /// A segment that an earlier process wrote: made safe to open, believed only once synced.
    pub fn inherit(lane: Lane, stream: Uuid, dir: PathBuf) -> Result<Self, SegmentError> {
        disk::remove_half_snapshots(&dir)?;
        disk::secure(&dir)?;
        let segment = Self::new(lane, stream, dir, false);
        segment.sent.store(segment.dir.join("sent").exists(), Ordering::Relaxed);
        if let Some(end) = segment.read_end()? {
            segment.publish(end);
        }
        Ok(segment)
    }

    fn read_end(&self) -> Result<Option<End>, SegmentError> {
        match fs::read(self.dir.join("end")) {
            Ok(bytes) => match codec::unseal(Kind::End, END_VERSION, &bytes) {
                Ok(end) => Ok(Some(end)),
                // Where repetition does no harm, all that is there is read. A sum beyond its end
                // may have been logged in another stream as well.
                Err(CodecError::Damaged | CodecError::Shape) if self.lane != Lane::Usage => {
                    let (stream, lane) = (self.stream, self.lane.as_str());
                    tracing::error!(%stream, lane, "a segment's end is damaged: all of it is read");
                    Ok(None)
                }
                Err(error) => Err(error.into()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write_end(&self, end: End) -> Result<(), SegmentError> {
        disk::write_whole(&self.dir.join("end"), &codec::seal(Kind::End, END_VERSION, &end)?)?;
        Ok(())
    }

    /// Opens an inherited segment on first use, finds its end, and counts what is missing.
    fn examine(&self, handle: &mut Handle) -> Result<(), SegmentError> {
        if self.examined.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut end = End { last_seq: 0, facts: 0, sealed: false };
        let known = self.read_end()?;
        let mut present = 0;
        if self.dir.join("db").exists() {
            let db = disk::open_sled(&self.dir, SLED_CACHE_BYTES)?;
            let bound = known.map_or(u64::MAX, |end| end.last_seq);
            guarded(|| {
                for entry in db.range(..=bound.to_be_bytes()) {
                    let (key, value) = entry?;
                    let Ok(seq) = <[u8; 8]>::try_from(&*key).map(u64::from_be_bytes) else {
                        continue;
                    };
                    if let Ok(chunk) = chunk::read(self.stream, seq, &value) {
                        present += 1;
                        end.facts += chunk.facts.len() as u64;
                    }
                    end.last_seq = seq;
                }
                Ok(())
            })?;
            handle.db = Some(db);
        }
        let end = match known {
            Some(known) => known,
            None => {
                // Whoever wrote it was killed, and what was just read may never have been synced.
                if handle.db.is_some() {
                    fs::File::open(self.dir.join("db"))?.sync_data()?;
                }
                self.write_end(end)?;
                end
            }
        };
        handle.missing = end.last_seq.saturating_sub(present);
        self.publish(end);
        self.examined.store(true, Ordering::Release);
        Ok(())
    }

    /// Looks an inherited segment through; returns how many sequence numbers are missing in it.
    pub fn examined(&self) -> Result<u64, SegmentError> {
        let mut handle = lock(&self.handle);
        self.examine(&mut handle)?;
        Ok(handle.missing)
    }

    /// Sequence numbers that were found missing when it was looked through.
    pub fn missing(&self) -> u64 {
        lock(&self.handle).missing
    }

    /// Up to `limit` chunks beyond `after`, and never beyond what is durable. Blocks.
    /// A missing or unreadable chunk is passed over: its number stays missing, and is reported.
    pub fn read(&self, after: u64, limit: usize) -> Result<Page, SegmentError> {
        let mut handle = lock(&self.handle);
        self.examine(&mut handle)?;
        let durable = self.durable_seq();
        let mut page = Page { chunks: Vec::new(), reached: after.max(durable) };
        if after >= durable {
            return Ok(page);
        }
        if handle.db.is_none() {
            if !self.dir.join("db").exists() {
                return Ok(page);
            }
            handle.db = Some(disk::open_sled(&self.dir, SLED_CACHE_BYTES)?);
        }
        let Some(db) = &handle.db else { return Ok(page) };
        let (from, to) = ((after + 1).to_be_bytes(), durable.to_be_bytes());
        guarded(|| {
            for (at, entry) in db.range(from..=to).enumerate() {
                let (key, value) = entry?;
                let Ok(seq) = <[u8; 8]>::try_from(&*key).map(u64::from_be_bytes) else { continue };
                page.chunks.extend(chunk::read(self.stream, seq, &value).ok());
                if at + 1 >= limit {
                    page.reached = seq;
                    break;
                }
            }
            Ok(())
        })?;
        Ok(page)
    }

    /// Lets go of sled's handle and memory, unless the segment is being written.
    pub fn release(&self) {
        if self.is_closed() {
            lock(&self.handle).db = None;
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

    /// Takes over what the ledger says. `facts` were in the chunks that have become applied.
    pub fn set_applied(&self, seq: u64, facts: u64) {
        self.applied_seq.store(seq, Ordering::Release);
        self.facts_applied.fetch_add(facts, Ordering::Relaxed);
        if seq >= self.durable_seq() && self.is_closed() {
            self.facts_applied.store(self.facts.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Whether nothing will be added.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether its writer has said where it ends.
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Postgres knows another end of this stream: a copy of the directory was there before. Returns
    /// whether that is news.
    pub fn block(&self) -> bool {
        !self.blocked.swap(true, Ordering::AcqRel)
    }

    /// Whether it cannot be drained.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    /// Whether it is closed, and all of it is in Postgres.
    pub fn is_finished(&self) -> bool {
        self.is_closed()
            && self.examined.load(Ordering::Acquire)
            && self.applied_seq() >= self.durable_seq()
    }

    /// Facts that are not known to be in Postgres.
    pub fn unsettled_facts(&self) -> u64 {
        let facts = self.facts.load(Ordering::Relaxed);
        facts.saturating_sub(self.facts_applied.load(Ordering::Relaxed))
    }

    /// Makes the `sent` mark durable, once.
    pub fn mark_sent(&self) -> Result<(), SegmentError> {
        if !self.sent.load(Ordering::Acquire) {
            disk::make_mark(&self.dir.join("sent"))?;
            self.sent.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Remembers when it was settled; returns that moment.
    pub fn settled(&self, now: Duration) -> Duration {
        *lock(&self.settled_at).get_or_insert(now)
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
