//! What the handles and the journal thread share, and the tickets that wait for it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use tokio::sync::watch;

use super::window::Window;
use super::{Full, Segment};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub round: u64,
    pub failing: bool,
    pub stopped: bool,
}

/// What the handles and the journal thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub window: Window,
    pub progress: watch::Sender<Progress>,
    pub thread: OnceLock<Thread>,
    pub urgent: AtomicBool,
    pub stopping: AtomicBool,
    pub full: AtomicBool,
    /// Signed: a commit may take a counter away a moment before it is added here.
    pub pending: AtomicI64,
    pub disk_bytes: AtomicU64,
    pub segments: Mutex<Vec<Arc<Segment>>>,
}

impl Shared {
    pub fn streams(&self) -> MutexGuard<'_, Vec<Arc<Segment>>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many pending counters are on disk, or were merged with others.
    pub fn took(&self, counters: usize) {
        let counters = i64::try_from(counters).unwrap_or(i64::MAX);
        self.pending.fetch_sub(counters, Ordering::AcqRel);
    }

    /// Asks for a commit now. Only the first to ask pays for waking the thread.
    pub fn urge(&self) {
        if !self.urgent.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// Tells when a fact is on disk.
#[derive(Debug)]
pub struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) round: u64,
}

impl Ticket {
    /// Waits until the fact is on disk. Errs while the disk fails (the fact stays in memory and may
    /// still be committed), and when the journal has stopped.
    pub async fn durable(self) -> Result<(), Full> {
        if self.shared.progress.borrow().round >= self.round {
            return Ok(());
        }
        let mut progress = self.shared.progress.subscribe();
        loop {
            let now = *progress.borrow_and_update();
            if now.round >= self.round {
                return Ok(());
            }
            if now.failing || now.stopped {
                return Err(Full);
            }
            // Each time, for the commit that just ended may not have been the one that was asked
            // for; and after looking, or a commit in between would be seen here and asked for by
            // nobody.
            self.shared.urge();
            if progress.changed().await.is_err() {
                return Err(Full);
            }
        }
    }
}

/// Tells everybody that the journal thread is gone, also when it panicked: nobody may wait for it,
/// and nothing more may be promised.
pub(super) struct Ended(pub Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.full.store(true, Ordering::Release);
        self.0.progress.send_modify(|progress| progress.stopped = true);
    }
}
