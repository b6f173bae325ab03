//! Reads of the disk tier for those who ask: away from the threads that answer requests, for a disk
//! may be slow; and so many at a time, for those who ask are anybody.
//!
//! Each reads for itself. Who joined a read that had begun before could be told less than was said,
//! and answered, before it came.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::Semaphore;

use super::flight::{BUSY, Place};
use super::{Cache, Undecidable};

/// Those on their way, and those who wait for them.
#[derive(Debug)]
pub(super) struct Reads {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Reads {
    /// At most `max` at a time.
    pub fn new(max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(max)), waiting: AtomicUsize::new(0) }
    }

    /// How many more may be read now.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }
}

impl Cache {
    /// What `read` finds, on a thread that may wait for the disk. It is read to its end, and counts
    /// until then, when a caller leaves.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Undecidable> {
        let Some(_place) = Place::take(&self.reads.waiting, self.config.max_waiting) else {
            self.metrics.cache.waiting_full.inc();
            return Err(BUSY);
        };
        if self.reads.free.available_permits() == 0 {
            self.metrics.cache.disk_waits.inc();
        }
        let turn = Arc::clone(&self.reads.free).acquire_owned().await.map_err(|_| BUSY)?;
        let cache = Arc::clone(self);
        let reading = self.tasks.spawn_blocking(move || {
            let _turn = turn;
            read(&cache)
        });
        reading.await.map_err(|_| BUSY)
    }
}
