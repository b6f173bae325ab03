//! Misses: one lookup per digest however many wait for it, a bounded number of waiters, a bounded
//! wait, and fills that the feed has overtaken thrown away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::{Cache, Entry, SourceError, Undecidable};
use crate::model::Digest;

/// How often a fill that the feed overtook is read again before the caller is told to come back.
const FILLS_MAX: usize = 3;

type Answer = Result<Option<Arc<Entry>>, Undecidable>;

type UnderWay = HashMap<Digest, watch::Receiver<Option<Answer>>>;

/// Lookups on their way.
#[derive(Debug, Default)]
pub struct Flights {
    under_way: Mutex<UnderWay>,
    waiting: AtomicUsize,
}

/// A place among those who wait; given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Ends a flight, whatever becomes of its task: the next caller must be able to ask again.
struct Landing {
    cache: Arc<Cache>,
    digest: Digest,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.cache.flights.under_way().remove(&self.digest);
    }
}

impl Flights {
    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are under way.
    #[cfg(test)]
    pub fn under_way_len(&self) -> usize {
        self.under_way().len()
    }

    fn place(&self, max: usize) -> Option<Place<'_>> {
        let place = Place(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::AcqRel) < max).then_some(place)
    }
}

/// How long a caller should stay away.
fn retry_after(error: &SourceError) -> Undecidable {
    let secs = if *error == SourceError::BreakerOpen { 2 } else { 1 };
    Undecidable { retry_after: Duration::from_secs(secs) }
}

impl Cache {
    /// Asks Postgres, or joins those who ask already, and waits for `miss_deadline` at most: not
    /// only the lookup takes time, the fill waits for the feed and for the disk. The asking goes on
    /// when a caller leaves, so that the next one finds the key.
    pub(super) async fn miss(self: &Arc<Self>, digest: Digest) -> Answer {
        let busy = Undecidable { retry_after: Duration::from_secs(1) };
        let Some(_place) = self.flights.place(self.config.max_waiting) else {
            self.metrics.cache.waiting_full.inc();
            return Err(busy);
        };
        let Some(mut flight) = self.join(digest) else {
            self.metrics.cache.waiting_full.inc();
            return Err(busy);
        };
        let landing = flight.wait_for(Option::is_some);
        let Ok(landed) = tokio::time::timeout(self.config.miss_deadline.0, landing).await else {
            self.metrics.cache.miss_deadlines.inc();
            return Err(busy);
        };
        // The sender is dropped without an answer only if its task dies.
        landed.ok().and_then(|answer| answer.clone()).unwrap_or(Err(busy))
    }

    /// `None`: as many are under way as may be. (They outlive callers that leave.)
    fn join(self: &Arc<Self>, digest: Digest) -> Option<watch::Receiver<Option<Answer>>> {
        let mut flights = self.flights.under_way();
        if let Some(flight) = flights.get(&digest) {
            self.metrics.cache.joined.inc();
            return Some(flight.clone());
        }
        if flights.len() >= self.config.max_waiting {
            return None;
        }
        let (landed, flight) = watch::channel(None);
        flights.insert(digest, flight.clone());
        let landing = Landing { cache: self.clone(), digest };
        self.tasks.spawn(async move {
            let answer = landing.cache.ask(digest).await;
            drop(landing);
            landed.send_replace(Some(answer));
        });
        Some(flight)
    }

    async fn ask(self: &Arc<Self>, digest: Digest) -> Answer {
        let Some(source) = &self.source else { return Ok(None) };
        for _ in 0..FILLS_MAX {
            self.metrics.cache.misses.inc();
            let lookup = match source.lookup(digest).await {
                Ok(lookup) => lookup,
                Err(error) => {
                    tracing::debug!(%error, "a key could not be looked up");
                    return Err(retry_after(&error));
                }
            };
            // The fill writes to sled: not on a thread that answers requests.
            let cache = self.clone();
            let filled = tokio::task::spawn_blocking(move || cache.fill(digest, lookup)).await;
            match filled {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => self.metrics.cache.fills_discarded.inc(),
                Err(_) => break,
            };
        }
        Err(Undecidable { retry_after: Duration::from_secs(1) })
    }
}
