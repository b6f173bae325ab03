//! What the handles and the journal thread share, and the tickets that wait for it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};
use std::thread::Thread;

use tokio::sync::Notify;

use super::dropped::Dropped;
use super::manifest::Manifest;
use super::window::Window;
use super::{Full, STATE_RESERVE, Segment, lock};
use crate::disk;
use crate::model::fact::Lane;

/// Rounds that can have waiters at a time: the one that is being committed, the one that collects,
/// and the one that a flush asks for.
const ROUNDS_WAITED: u64 = 4;

/// What merges share with everybody else.
#[derive(Debug, Default)]
pub(super) struct Merging {
    /// One merge at a time.
    pub turn: Mutex<()>,
    /// The drain waits for a segment that is being merged: the merge shall give up.
    pub give_way: AtomicBool,
    /// What was used of quotas is about to be read.
    pub quotas_unread: AtomicBool,
    /// Written while a merged segment takes the place of others; read by who reads them all.
    pub swap: RwLock<()>,
    /// `sent` marks were, or are about to be made in this directory.
    pub attached: AtomicBool,
}

/// What the handles and the journal thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub window: Window,
    /// The last round that is on disk.
    committed: AtomicU64,
    /// The disk fails, or the thread has stopped: nobody shall wait.
    hopeless: AtomicBool,
    /// Those who wait, by round: a commit wakes only whom it concerns.
    waiting: [Notify; ROUNDS_WAITED as usize],
    /// The last round that somebody waits for.
    wanted: AtomicU64,
    pub thread: OnceLock<Thread>,
    pub stopping: AtomicBool,
    pub full: AtomicBool,
    /// The ballast is gone, and cannot be made again.
    pub disk_full: AtomicBool,
    /// Signed: a commit may take a counter away a moment before it is added here.
    pub pending: AtomicI64,
    /// Bytes on disk that `max_bytes` bounds: all but events.
    pub disk_bytes: AtomicU64,
    /// Of these, bytes of state.
    pub state_bytes: AtomicU64,
    /// Bytes of events on disk.
    pub event_bytes: AtomicU64,
    /// State facts that were recorded and are not on disk.
    state_waiting: AtomicUsize,
    pub events_dropped: Dropped,
    pub segments: Mutex<Vec<Arc<Segment>>>,
    pub merging: Merging,
    pub manifest: Manifest,
}

impl Shared {
    /// Nothing recorded, nothing committed, in a journal's directory.
    pub fn new(dir: &Path) -> Self {
        Self {
            window: Window::new(),
            committed: AtomicU64::new(0),
            hopeless: AtomicBool::new(false),
            waiting: Default::default(),
            wanted: AtomicU64::new(0),
            thread: OnceLock::new(),
            stopping: AtomicBool::new(false),
            full: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            pending: AtomicI64::new(0),
            disk_bytes: AtomicU64::new(0),
            state_bytes: AtomicU64::new(0),
            event_bytes: AtomicU64::new(0),
            state_waiting: AtomicUsize::new(0),
            events_dropped: Dropped::default(),
            segments: Mutex::default(),
            merging: Merging::default(),
            manifest: Manifest::new(dir.to_path_buf()),
        }
    }

    pub fn streams(&self) -> MutexGuard<'_, Vec<Arc<Segment>>> {
        lock(&self.segments)
    }

    /// How many segments of a lane earlier processes left that are not settled, and their bytes.
    pub fn inherited(&self, lane: Lane) -> (u64, u64) {
        let left = |s: &&Arc<Segment>| s.lane == lane && !s.is_own() && !s.is_finished();
        // A copy: nobody must wait for the list while the disk is looked at.
        let left: Vec<_> = self.streams().iter().filter(left).cloned().collect();
        let bytes = left.iter().map(|segment| disk::bytes_below(segment.dir())).sum();
        (left.len() as u64, bytes)
    }

    /// Whether so many state facts may wait for the disk: with fewer than `bound` before them.
    pub fn state_may_wait(&self, facts: usize, bound: usize) -> bool {
        let waiting = self.state_waiting.fetch_add(facts, Ordering::Relaxed);
        if waiting >= bound {
            self.state_committed(facts);
        }
        waiting < bound
    }

    /// So many state facts wait no more.
    pub fn state_committed(&self, facts: usize) {
        self.state_waiting.fetch_sub(facts, Ordering::Relaxed);
    }

    /// A lane took so many bytes more.
    pub fn wrote(&self, lane: Lane, bytes: u64) {
        let counted: &[&AtomicU64] = match lane {
            Lane::Events => &[&self.event_bytes],
            Lane::State => &[&self.disk_bytes, &self.state_bytes],
            Lane::Quota | Lane::Usage => &[&self.disk_bytes],
        };
        for sum in counted {
            sum.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes left for a lane below `max_bytes`. State has its reserve besides, whatever the others
    /// have taken.
    pub fn room_for(&self, lane: Lane, max_bytes: u64) -> u64 {
        let taken = self.disk_bytes.load(Ordering::Relaxed);
        if lane != Lane::State {
            return max_bytes.saturating_sub(taken);
        }
        let state = self.state_bytes.load(Ordering::Relaxed);
        let others = taken.saturating_sub(state).min(max_bytes);
        max_bytes.saturating_add(STATE_RESERVE).saturating_sub(others.saturating_add(state))
    }

    /// So many pending counters are on disk, or were merged with others.
    pub fn took(&self, counters: usize) {
        let counters = i64::try_from(counters).unwrap_or(i64::MAX);
        self.pending.fetch_sub(counters, Ordering::AcqRel);
    }

    /// Asks for all commits up to `round` now. Only the first to ask pays for waking the thread.
    fn urge(&self, round: u64) {
        if self.wanted.fetch_max(round, Ordering::AcqRel) < round
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Whether somebody waits for `round`.
    pub fn wants(&self, round: u64) -> bool {
        self.wanted.load(Ordering::Acquire) >= round
    }

    /// Whether the disk fails, or the journal has stopped.
    pub fn is_hopeless(&self) -> bool {
        self.hopeless.load(Ordering::Acquire)
    }

    /// `round`, and all before it, are on disk.
    pub fn publish(&self, round: u64) {
        self.committed.store(round, Ordering::Release);
        if self.hopeless.swap(false, Ordering::AcqRel) {
            // Rounds that failed before are on disk with this one.
            self.waiting.iter().for_each(Notify::notify_waiters);
        } else {
            self.waiting(round).notify_waiters();
        }
    }

    /// Nobody shall wait any more, unless a later round can be published.
    pub fn give_up(&self) {
        self.hopeless.store(true, Ordering::Release);
        self.waiting.iter().for_each(Notify::notify_waiters);
    }

    fn waiting(&self, round: u64) -> &Notify {
        &self.waiting[(round % ROUNDS_WAITED) as usize]
    }
}

/// Tells when a fact is on disk.
#[derive(Debug)]
pub struct Ticket<'a> {
    pub(super) shared: &'a Shared,
    pub(super) round: u64,
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
            if self.shared.is_hopeless() {
                return Err(Full);
            }
            self.shared.urge(self.round);
            woken.await;
        }
    }
}

/// Tells everybody that the journal thread is gone, also when it panicked: nobody may wait for it,
/// and nothing more may be promised.
pub(super) struct Ended(pub Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.full.store(true, Ordering::Release);
        self.0.give_up();
    }
}
