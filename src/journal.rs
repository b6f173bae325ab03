//! The journal: the durable write-behind log on sled.
//!
//! # Promise
//!
//! - `commit = "before_reply"`: an answered request is on disk; `kill -9` or power loss (on a disk
//!   that honours flush) loses none of it. State facts are always committed this way.
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
//! request ─► window (merged in memory, by round) ─► chunks (≤ 4 KiB, dense sequence) ─► sled ─►
//! fdatasync
//!                                                                                         │
//! drainer ◄── segments: chunks up to the published durable_seq ◄──────────────────────────┘
//!
//! journal/<lane>/<stream>/   one sled database per segment; the stream id is a uuid v7
//!     sources, sources-copy  where others were merged into it: their streams, written first
//!     end                    written and synced when the segment closes: last number, facts
//!     sent                   written and synced before the first transaction that carries it
//! ```
//!
//! - One thread writes (`committer`). sled's `flush` is no fsync on Linux, so each commit ends with
//!   `sync_data` on a handle of our own; only then is `durable_seq` published and a ticket woken.
//! - Nobody reads beyond `durable_seq`. A process never appends to a segment of another process.
//! - An I/O error ends a segment at what is durable. Its `end` is written *before* its uncommitted
//!   facts are logged in a new one, so that no fact can ever be read from both.
//! - What is applied is decided by the ledger in Postgres, never by a local delete.

mod ballast;
mod chunk;
mod committer;
mod config;
mod dropped;
mod error;
mod foreign;
mod inherit;
mod manifest;
mod merge;
mod quarantine;
mod reader;
mod reclaim;
mod removed;
mod replay;
mod segment;
mod status;
mod survey;
mod tally;
#[cfg(test)]
mod tests;
mod ticket;
mod unsettled;
mod window;
mod writer;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use committer::Committer;
use ticket::{Ended, Shared};

use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::metrics::{LaneLabel, Metrics};
use crate::model::fact::{AuditEntry, Counter, Counts, Event, Fact, Lane, QuotaKey, StateFact};

pub use ballast::{give_up_ballast, is_disk_full};
pub use chunk::{CHUNK_MAX, CHUNK_VERSION, Chunk, FACT_MAX, FactRef};
pub use config::{Commit, Config, OnFull};
pub use error::{Full, JournalError, Unwritten};
pub use foreign::{Foreign, LogError};
pub use merge::part::Claim;
pub use merge::sources::{SOURCES_MAX, Source};
pub use merge::{MergeError, Scope};
pub use quarantine::{InForce, Report};
pub use reader::{Reader, ReaderError, SILENCE_MAX, serve_frames};
pub use reclaim::Removed;
pub use replay::Replay;
pub use segment::{End, Missing, Page, Rest, Segment, SegmentError};
pub use status::{JournalStatus, LaneStatus, StreamStatus};
pub use survey::{Place, Survey};
pub use tally::Tally;
pub use ticket::Ticket;

/// Room that the state lane has beyond `max_bytes`, and no other lane: revoking must work on a full
/// journal.
const STATE_RESERVE: u64 = 16 << 20;

/// State facts that may wait in memory, while the disk fails or hangs; beyond, they are refused.
const STATE_WAITING_MAX: usize = 1024;

/// Proof that there was room for a request's facts when it was admitted.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Whether its facts are never dropped: its answer waits for them.
    strict: bool,
}

/// The journal's handle; clones share it.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    config: Arc<Config>,
    dir: Arc<Path>,
    reader: Reader,
    clock: Handed<SharedClock>,
    entropy: Handed<SharedEntropy>,
    metrics: Arc<Metrics>,
    thread: Arc<Mutex<Option<JoinHandle<Unwritten>>>>,
}

/// What came in through the door, and cannot be printed.
#[derive(Clone)]
struct Handed<T>(T);

impl<T> std::fmt::Debug for Handed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handed")
    }
}

/// What is held by a lock here stays usable after a panic elsewhere: no step leaves it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// As [`Journal::open_with`], reading everything in this process: for tests and benches.
    pub fn open(
        data: &Path,
        config: Config,
        clock: SharedClock,
        entropy: SharedEntropy,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Vec<StateFact>), JournalError> {
        Self::open_with(data, config, Reader::InProcess, clock, entropy, metrics)
    }

    /// Opens the journal in `data/journal`, and returns with it the state facts of earlier
    /// processes: they must be in force before the first answer. Blocks. Closed segments are
    /// read by `reader`; damaged ones go to `data/quarantine`.
    pub fn open_with(
        data: &Path,
        config: Config,
        reader: Reader,
        clock: SharedClock,
        entropy: SharedEntropy,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Vec<StateFact>), JournalError> {
        let dir = data.join("journal");
        let shared = Arc::new(Shared::new(&dir));
        let journal = Self {
            shared: shared.clone(),
            config: Arc::new(config.clone()),
            dir: dir.clone().into(),
            reader,
            clock: Handed(clock.clone()),
            entropy: Handed(entropy.clone()),
            metrics: metrics.clone(),
            thread: Arc::default(),
        };
        let damaged = journal.inherit()?;
        journal.look_whether_attached();
        let state = journal.inherited_state(damaged)?;
        journal.miss();
        let reader = journal.reader.clone();
        let mut committer =
            Committer::new(shared.clone(), dir, config, reader, clock, entropy, metrics);
        committer.look_at_bounds();
        let ending = shared.clone();
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                let _end = Ended(ending);
                committer.run()
            })
            .map_err(|error| JournalError::Thread(error.to_string()))?;
        // What is wanted before the thread is known here waits one interval at most.
        drop(shared.thread.set(thread.thread().clone()));
        *lock(&journal.thread) = Some(thread);
        Ok((journal, state))
    }

    fn io(&self) -> impl Fn(std::io::Error) -> JournalError + '_ {
        |source| JournalError::Io { dir: self.dir.to_path_buf(), source }
    }

    /// The general commit mode.
    pub fn commit(&self) -> Commit {
        self.config.commit
    }

    fn has_room(&self) -> bool {
        !self.shared.full.load(Ordering::Relaxed) && self.pending() < self.config.max_pending
    }

    fn pending(&self) -> usize {
        usize::try_from(self.shared.pending.load(Ordering::Acquire)).unwrap_or(0)
    }

    fn rejects(&self) -> bool {
        self.config.on_full == OnFull::Reject || self.config.commit == Commit::BeforeReply
    }

    /// Whether requests are refused at this moment because nothing can be recorded.
    pub fn refuses(&self) -> bool {
        self.rejects() && !self.has_room()
    }

    /// Whether [`Journal::reserve_for`] would find no room at this moment.
    pub fn refuses_for(&self, commit: Option<Commit>) -> bool {
        let waits = commit.unwrap_or(self.config.commit) == Commit::BeforeReply;
        let hopeless = waits && self.shared.is_hopeless();
        self.is_strict(commit) && (hopeless || !self.has_room())
    }

    fn is_strict(&self, commit: Option<Commit>) -> bool {
        self.rejects() || commit == Some(Commit::BeforeReply)
    }

    /// Room for the facts of one request, or the reason for a 503 before anything is done. Requests
    /// in flight when the bound is met may still exceed it, by one counter each.
    pub fn reserve(&self) -> Result<Room, Full> {
        self.reserve_for(None)
    }

    /// As if `commit` were the general mode: an answer that must wait for the disk is never let
    /// through uncounted, and nothing is begun for it while the disk fails.
    pub fn reserve_for(&self, commit: Option<Commit>) -> Result<Room, Full> {
        if !self.refuses_for(commit) {
            return Ok(Room { strict: self.is_strict(commit) });
        }
        self.metrics.journal.rejected.get_or_create(&LaneLabel::of(Lane::Usage)).inc();
        Err(Full)
    }

    /// Merges counts into the window. No I/O.
    pub fn count(&self, room: Room, counter: Counter, counts: Counts) -> Ticket<'_> {
        if !room.strict && !self.has_room() {
            self.metrics.journal.dropped.get_or_create(&LaneLabel::of(Lane::Usage)).inc();
            return self.ticket(0);
        }
        let (round, new) = self.shared.window.count(counter, &counts);
        if new {
            self.shared.pending.fetch_add(1, Ordering::Relaxed);
        }
        self.ticket(round)
    }

    /// Counts what was used of a quota, as [`Journal::count`] counts requests.
    pub fn use_quota(&self, room: Room, key: QuotaKey, used: u64) -> Ticket<'_> {
        if !room.strict && !self.has_room() {
            self.metrics.journal.dropped.get_or_create(&LaneLabel::of(Lane::Quota)).inc();
            return self.ticket(0);
        }
        let (round, new) = self.shared.window.use_quota(key, used);
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
        let fit = facts.iter().all(|fact| chunk::fits(FactRef::State(fact)))
            && self.shared.room_for(Lane::State, self.config.max_bytes.0) > 0;
        if !fit || !self.shared.state_may_wait(facts.len(), STATE_WAITING_MAX) {
            self.metrics.journal.rejected.get_or_create(&LaneLabel::of(Lane::State)).inc();
            return Err(Full);
        }
        Ok(self.ticket(self.shared.window.state(facts)))
    }

    /// Records an audit entry; yields when the journal, or the events' share of it, is full.
    pub fn note(&self, entry: AuditEntry) {
        self.yielding("audit", Fact::Audit(entry));
    }

    /// Records an event; yields as an audit entry does, before it, and holds nobody up.
    pub fn event(&self, event: Event) {
        self.yielding(event.kind(), Fact::Event(event));
    }

    fn has_room_for_event(&self, fact: &Fact) -> bool {
        let max = self.config.events_max_bytes.0;
        // Anybody can make events; who changed what is not lost to them.
        let share = if matches!(fact, Fact::Audit(_)) { max } else { max - max / 8 };
        self.has_room() && self.shared.event_bytes.load(Ordering::Relaxed) < share
    }

    fn yielding(&self, kind: &'static str, fact: Fact) {
        let fits = chunk::fits(FactRef::from(&fact)) && self.has_room_for_event(&fact);
        if !fits || !self.shared.window.event(fact) {
            self.shared.events_dropped.tell(&self.metrics, self.clock.0.monotonic(), kind);
        }
    }

    /// A ticket for everything that was recorded before this call.
    pub fn flush(&self) -> Ticket<'_> {
        self.ticket(self.shared.window.safe_round())
    }

    /// A ticket for every state fact that was recorded before this call. Costs no commit when they
    /// are on disk.
    pub fn state_recorded(&self) -> Ticket<'_> {
        self.ticket(self.shared.window.state_round())
    }

    /// The segments of a lane, oldest first.
    pub fn segments(&self, lane: Lane) -> Vec<Arc<Segment>> {
        let streams = self.shared.streams();
        let mut of_lane: Vec<_> = streams.iter().filter(|s| s.lane == lane).cloned().collect();
        of_lane.sort_by_key(|segment| segment.stream);
        of_lane
    }

    /// Commits everything recorded so far, closes the segments and stops the thread. Blocks.
    pub fn shutdown(&self) -> Result<(), JournalError> {
        self.shared.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.shared.thread.get() {
            thread.unpark();
        }
        let carried = match lock(&self.thread).take() {
            Some(thread) => {
                thread.join().map_err(|_| JournalError::Thread("it panicked".into()))?
            }
            None => Unwritten::default(),
        };
        // Counters that came after the thread had looked for the last time are lost as well.
        let unwritten = Unwritten { counters: self.pending(), ..carried };
        if unwritten == Unwritten::default() {
            Ok(())
        } else {
            Err(JournalError::Unwritten(unwritten))
        }
    }
}
