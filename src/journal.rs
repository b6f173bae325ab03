//! The journal: the durable write-behind log on sled.
//!
//! # Promise
//!
//! - `commit = "before_reply"`: an answered request is on disk; `kill -9` or power loss (on a disk that
//!   honours flush) loses none of it. State facts are always committed this way.
//! - `commit = "interval"`: at most the last interval is lost.
//! - Nothing is counted twice: not by retries, unknown commits, crashes, two drainers, clones, or a
//!   data directory restored from an old backup.
//!
//! Per counter: `applied ≤ issued` always; without a crash `applied = issued` after a full drain;
//! after `kill -9` or power loss `durable ≤ applied ≤ issued`.
//!
//! # How
//!
//! ```text
//! request ─► window (merged in memory, by round) ─► chunks (≤ 4 KiB, dense sequence) ─► sled ─► fdatasync
//!                                                                                         │
//! drainer ◄── segments: chunks up to the published durable_seq ◄──────────────────────────┘
//!
//! journal/<lane>/<stream>/   one sled database per segment; the stream id is a uuid v7
//!     end                    written and synced when the segment closes: last sequence number, facts
//!     sent                   written and synced before the first transaction that carries it
//! ```
//!
//! - One thread writes (`committer`). sled's `flush` is no fsync on Linux, so each commit ends with
//!   `sync_data` on a handle of our own; only then is `durable_seq` published and a ticket woken.
//! - Nobody reads beyond `durable_seq`. A process never appends to a segment of another process.
//! - An I/O error ends a segment at what is durable. Its `end` is written *before* its uncommitted
//!   facts are logged in a new one, so that no fact can ever be read from both.
//! - What is applied is decided by the ledger in Postgres, never by a local delete.

mod chunk;
mod committer;
mod segment;
mod status;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use committer::Committer;
use window::Window;

use crate::clock::SharedClock;
use crate::codec::CodecError;
use crate::disk::{self, StoreError};
use crate::entropy::SharedEntropy;
use crate::metrics::{LaneLabel, Metrics};
use crate::model::fact::{AuditEntry, Counter, Counts, Fact, Lane, StateFact, UsageFact};
use crate::model::units::{Size, Span};

pub use chunk::{CHUNK_MAX, Chunk, FACT_MAX};
pub use segment::{End, Page, Segment, SegmentError};
pub use status::{JournalStatus, LaneStatus};

/// When an answer may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Commit {
    /// At once; what it counted is on disk within one interval.
    Interval,
    /// When what it counted is on disk.
    BeforeReply,
}

/// What happens to a fact when the journal is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// The request is refused with 503 `accounting_unavailable`.
    Reject,
    /// The request passes and each fact that is lost is counted.
    DropAndCount,
}

/// `[journal]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// When an answer may leave.
    pub commit: Commit,
    /// Time between commits without waiters; the most that `interval` can lose.
    pub interval: Span,
    /// A segment is closed when it has taken this much.
    pub segment_max_bytes: Size,
    /// A segment is closed when it is this old.
    pub segment_max_age: Span,
    /// The bound on all segments on disk.
    pub max_bytes: Size,
    /// The bound on distinct counters that wait for their commit.
    pub max_pending: usize,
    /// What happens beyond the bounds.
    pub on_full: OnFull,
    /// How long a settled segment is kept, so that a failover to a lagging replica can be repaired.
    pub retention: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            commit: Commit::Interval,
            interval: Span::millis(50),
            segment_max_bytes: Size::mib(16),
            segment_max_age: Span::secs(600),
            max_bytes: Size::mib(1024),
            max_pending: 1_000_000,
            on_full: OnFull::Reject,
            retention: Span::secs(600),
        }
    }
}

/// Room that the state lane has beyond `max_bytes`: revoking must work on a full journal.
const STATE_RESERVE: u64 = 16 << 20;
/// How long a start waits for another handle to let go of a segment.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Why the journal cannot be opened, or not be stopped.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory cannot be used.
    #[error(
        "the journal directory {dir} cannot be used: {source}; check its owner, mode and free space"
    )]
    Io {
        /// Which directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Written by a later version.
    #[error("the journal cannot be read: {0}")]
    Newer(CodecError),
    /// Another process holds a segment.
    #[error("segment {0} is held by another process; stop that one first")]
    Locked(Uuid),
    /// The thread cannot be started, or died.
    #[error("the journal thread failed: {0}")]
    Thread(String),
    /// Facts remain in memory that could not be written.
    #[error("the last {0} counters could not be written to disk and are lost")]
    Unwritten(usize),
}

/// The journal is full or failing: nothing was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal is full or its disk is failing; see `gatepost log status`")]
pub struct Full;

/// Proof that there was room for a request's facts when it was admitted.
#[derive(Clone, Copy, Debug)]
pub struct Room(());

/// Rounds that can have waiters at a time: the one that is being committed, the one that collects,
/// and the one that a flush asks for.
const ROUNDS_WAITED: u64 = 4;

/// What the handles and the journal thread share.
#[derive(Debug)]
struct Shared {
    window: Window,
    /// The last round that is on disk.
    committed: AtomicU64,
    /// The disk fails, or the thread has stopped: nobody shall wait.
    hopeless: AtomicBool,
    /// Those who wait, by round: a commit wakes only whom it concerns.
    waiting: [Notify; ROUNDS_WAITED as usize],
    /// The last round that somebody waits for.
    wanted: AtomicU64,
    thread: OnceLock<Thread>,
    stopping: AtomicBool,
    full: AtomicBool,
    pending: AtomicUsize,
    disk_bytes: AtomicU64,
    segments: Mutex<Vec<Arc<Segment>>>,
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, Vec<Arc<Segment>>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for all commits up to `round` now. Only the first to ask pays for waking the thread.
    fn urge(&self, round: u64) {
        if self.wanted.fetch_max(round, Ordering::AcqRel) < round
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn waiting(&self, round: u64) -> &Notify {
        &self.waiting[(round % ROUNDS_WAITED) as usize]
    }
}

/// Tells when a fact is on disk.
#[derive(Debug)]
pub struct Ticket<'a> {
    shared: &'a Shared,
    round: u64,
}

impl Ticket<'_> {
    /// Waits until the fact is on disk. Errs while the disk fails (the fact stays in memory and may
    /// still be committed), and when the journal has stopped.
    pub async fn durable(self) -> Result<(), Full> {
        loop {
            // Made before looking, so that no wake in between is missed.
            let woken = self.shared.waiting(self.round).notified();
            if self.shared.committed.load(Ordering::Acquire) >= self.round {
                return Ok(());
            }
            if self.shared.hopeless.load(Ordering::Acquire) {
                return Err(Full);
            }
            self.shared.urge(self.round);
            woken.await;
        }
    }
}

/// The journal's handle; clones share it.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    config: Arc<Config>,
    dir: Arc<Path>,
    clock: HandedClock,
    metrics: Arc<Metrics>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Clone)]
struct HandedClock(SharedClock);

impl std::fmt::Debug for HandedClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl Journal {
    /// Opens the journal in `data/journal`, and returns with it the state facts of earlier processes:
    /// they must be in force before the first answer. Blocks. Damaged segments go to `data/quarantine`.
    pub fn open(
        data: &Path,
        config: Config,
        clock: SharedClock,
        entropy: SharedEntropy,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Vec<StateFact>), JournalError> {
        let dir = data.join("journal");
        let shared = Arc::new(Shared {
            window: Window::new(),
            committed: AtomicU64::new(0),
            hopeless: AtomicBool::new(false),
            waiting: Default::default(),
            wanted: AtomicU64::new(0),
            thread: OnceLock::new(),
            stopping: AtomicBool::new(false),
            full: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
            disk_bytes: AtomicU64::new(0),
            segments: Mutex::default(),
        });
        let journal = Self {
            shared: shared.clone(),
            config: Arc::new(config.clone()),
            dir: dir.clone().into(),
            clock: HandedClock(clock.clone()),
            metrics: metrics.clone(),
            thread: Arc::default(),
        };
        journal.inherit()?;
        let state = journal.inherited_state()?;
        let committer = Committer::new(shared.clone(), dir, config, clock, entropy, metrics);
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || committer.run())
            .map_err(|error| JournalError::Thread(error.to_string()))?;
        // What is wanted before the thread is known here waits one interval at most.
        drop(shared.thread.set(thread.thread().clone()));
        *journal.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok((journal, state))
    }

    fn io(&self) -> impl Fn(std::io::Error) -> JournalError + '_ {
        |source| JournalError::Io { dir: self.dir.to_path_buf(), source }
    }

    /// Registers the segments of earlier processes.
    fn inherit(&self) -> Result<(), JournalError> {
        for lane in Lane::ALL {
            let lane_dir = self.dir.join(lane.as_str());
            disk::make_private_dir(&lane_dir).map_err(self.io())?;
            let mut streams: Vec<Uuid> = fs::read_dir(&lane_dir)
                .map_err(self.io())?
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .collect();
            streams.sort_unstable();
            for stream in streams {
                let dir = lane_dir.join(stream.to_string());
                match Segment::inherit(lane, stream, dir.clone()) {
                    Ok(segment) => self.shared.streams().push(Arc::new(segment)),
                    Err(SegmentError::Io(error)) => return Err(self.io()(error)),
                    Err(SegmentError::Codec(error @ CodecError::Newer(_))) => {
                        return Err(JournalError::Newer(error));
                    }
                    Err(error) => self.set_aside(lane, stream, &dir, &error),
                }
            }
        }
        Ok(())
    }

    fn inherited_state(&self) -> Result<Vec<StateFact>, JournalError> {
        let mut facts = Vec::new();
        for segment in self.segments(Lane::State) {
            match patiently(|| segment.read(0, usize::MAX)) {
                Ok(page) => facts.extend(page.chunks.into_iter().flat_map(|chunk| chunk.facts)),
                Err(SegmentError::Store(StoreError::Locked)) => {
                    return Err(JournalError::Locked(segment.stream));
                }
                Err(error) => self.quarantine(&segment, &error),
            }
            segment.release();
        }
        let state = |fact| if let Fact::State(fact) = fact { Some(fact) } else { None };
        Ok(facts.into_iter().filter_map(state).collect())
    }

    /// Looks the inherited segments through: finds their ends and reports what is missing. Blocks;
    /// for a background thread after the start.
    pub fn examine(&self) {
        for segment in Lane::ALL.into_iter().flat_map(|lane| self.segments(lane)) {
            match patiently(|| segment.examined()) {
                Ok(0) => {}
                Ok(missing) => {
                    self.metrics.journal.missing.inc_by(missing);
                    tracing::error!(
                        stream = %segment.stream,
                        lane = segment.lane.as_str(),
                        missing,
                        "sequence numbers are missing in a segment: its disk was damaged"
                    );
                }
                Err(SegmentError::Store(StoreError::Locked)) => {}
                Err(error) => self.quarantine(&segment, &error),
            }
            segment.release();
        }
    }

    /// Moves a segment that cannot be read out of the way; it is never deleted.
    pub fn quarantine(&self, segment: &Segment, error: &SegmentError) {
        self.shared.streams().retain(|known| known.stream != segment.stream);
        segment.release();
        self.set_aside(segment.lane, segment.stream, segment.dir(), error);
    }

    fn set_aside(&self, lane: Lane, stream: Uuid, dir: &Path, error: &SegmentError) {
        let quarantine = self.dir.with_file_name("quarantine");
        let to = quarantine.join(format!("{}-{stream}", lane.as_str()));
        let moved = disk::make_private_dir(&quarantine).and_then(|()| fs::rename(dir, &to));
        let moved = moved.and_then(|()| disk::sync_dir(&quarantine)).err();
        tracing::error!(
            %stream, lane = lane.as_str(), %error, to = %to.display(),
            move_failed = moved.map(tracing::field::display),
            "segment is damaged and was set aside; its unsettled facts are not counted"
        );
    }

    /// The general commit mode.
    pub fn commit(&self) -> Commit {
        self.config.commit
    }

    fn has_room(&self) -> bool {
        !self.shared.full.load(Ordering::Relaxed)
            && self.shared.pending.load(Ordering::Relaxed) < self.config.max_pending
    }

    fn rejects(&self) -> bool {
        self.config.on_full == OnFull::Reject || self.config.commit == Commit::BeforeReply
    }

    /// Room for the facts of one request, or the reason for a 503 before anything is done. Requests
    /// in flight when the bound is met may still exceed it, by one counter each.
    pub fn reserve(&self) -> Result<Room, Full> {
        if self.has_room() || !self.rejects() {
            return Ok(Room(()));
        }
        self.metrics.journal.rejected.get_or_create(&LaneLabel::of(Lane::Usage)).inc();
        Err(Full)
    }

    /// Merges counts into the window. No I/O.
    pub fn count(&self, _room: Room, counter: Counter, counts: Counts) -> Ticket<'_> {
        if !self.rejects() && !self.has_room() {
            self.metrics.journal.dropped.get_or_create(&LaneLabel::of(Lane::Usage)).inc();
            return self.ticket(0);
        }
        let (round, new) = self.shared.window.count(counter, &counts);
        if new {
            self.shared.pending.fetch_add(1, Ordering::Relaxed);
        }
        self.ticket(round)
    }

    fn ticket(&self, round: u64) -> Ticket<'_> {
        Ticket { shared: &self.shared, round }
    }

    /// Records state facts, all in one commit. They are in force once the ticket is durable.
    pub fn append(&self, facts: Vec<StateFact>) -> Result<Ticket<'_>, Full> {
        let bytes = self.shared.disk_bytes.load(Ordering::Relaxed);
        let fit = facts.iter().all(|fact| chunk::fits(&Fact::State(fact.clone())));
        if !fit || bytes >= self.config.max_bytes.0.saturating_add(STATE_RESERVE) {
            self.metrics.journal.rejected.get_or_create(&LaneLabel::of(Lane::State)).inc();
            return Err(Full);
        }
        Ok(self.ticket(self.shared.window.state(facts)))
    }

    /// Records an audit entry; yields when the journal is full.
    pub fn note(&self, entry: AuditEntry) {
        if !self.has_room() || !self.shared.window.event(entry) {
            self.metrics.journal.dropped.get_or_create(&LaneLabel::of(Lane::Events)).inc();
        }
    }

    /// A ticket for everything that was recorded before this call.
    pub fn flush(&self) -> Ticket<'_> {
        self.ticket(self.shared.window.safe_round())
    }

    /// The segments of a lane, oldest first.
    pub fn segments(&self, lane: Lane) -> Vec<Arc<Segment>> {
        let streams = self.shared.streams();
        let mut of_lane: Vec<_> = streams.iter().filter(|s| s.lane == lane).cloned().collect();
        of_lane.sort_by_key(|segment| segment.stream);
        of_lane
    }

    /// Reads every usage fact on disk that lies beyond the ledger's positions; without a ledger,
    /// beyond what is known to be applied. Blocks.
    pub fn unsettled_usage(
        &self,
        ledger: Option<&HashMap<Uuid, u64>>,
        each: &mut dyn FnMut(UsageFact),
    ) -> Result<(), SegmentError> {
        const PAGE: usize = 1024;
        for segment in self.segments(Lane::Usage) {
            let mut after = match ledger {
                Some(ledger) => ledger.get(&segment.stream).copied().unwrap_or(0),
                None => segment.applied_seq(),
            };
            loop {
                let page = segment.read(after, PAGE)?;
                for fact in page.chunks.into_iter().flat_map(|chunk| chunk.facts) {
                    if let Fact::Usage(fact) = fact {
                        each(fact);
                    }
                }
                if page.reached >= segment.durable_seq() {
                    break;
                }
                after = page.reached;
            }
        }
        Ok(())
    }

    /// Removes segments that are settled and past their retention; `settled` says which are. Blocks.
    pub fn reclaim(&self, settled: &dyn Fn(&Segment) -> bool) {
        let now = self.clock.0.monotonic();
        let due = |segment: &Arc<Segment>| {
            if !settled(segment) {
                segment.unsettle();
                return false;
            }
            now.saturating_sub(segment.settled(now)) >= self.config.retention.0
        };
        let gone: Vec<_> = self.shared.streams().iter().filter(|s| due(s)).cloned().collect();
        for segment in gone {
            self.shared.streams().retain(|known| known.stream != segment.stream);
            segment.release();
            if let Err(error) = fs::remove_dir_all(segment.dir()) {
                tracing::warn!(%error, stream = %segment.stream, "settled segment cannot be removed");
            }
        }
    }

    /// Commits everything recorded so far, closes the segments and stops the thread. Blocks.
    pub fn shutdown(&self) -> Result<(), JournalError> {
        self.shared.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.shared.thread.get() {
            thread.unpark();
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.join().map_err(|_| JournalError::Thread("it panicked".into()))?;
        }
        match self.shared.pending.load(Ordering::Acquire) {
            0 => Ok(()),
            lost => Err(JournalError::Unwritten(lost)),
        }
    }
}

/// Another handle may let go of a segment any moment: try again for a while.
fn patiently<T>(read: impl Fn() -> Result<T, SegmentError>) -> Result<T, SegmentError> {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut waited = Duration::ZERO;
    loop {
        match read() {
            Err(SegmentError::Store(StoreError::Locked)) if waited < LOCK_PATIENCE => {
                std::thread::sleep(PAUSE);
                waited += PAUSE;
            }
            result => return result,
        }
    }
}
