//! Misses: one lookup per key however many wait for it, a bounded number of waiters, a bounded
//! wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::{Cache, SourceError, Undecidable};

/// What a lookup ends with; `Ok(None)`: provably unknown.
pub type Answer<V> = Result<Option<V>, Undecidable>;

type UnderWay<K, V> = HashMap<K, watch::Receiver<Option<Answer<V>>>>;

/// Lookups on their way.
#[derive(Debug)]
pub struct Flights<K, V> {
    under_way: Mutex<UnderWay<K, V>>,
    waiting: AtomicUsize,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self { under_way: Mutex::default(), waiting: AtomicUsize::new(0) }
    }
}

/// A place among those who wait; given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Ends a flight, whatever becomes of its task: the next caller must be able to ask again.
struct Landing<K: Hash + Eq, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
}

impl<K: Hash + Eq, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights.under_way().remove(&self.key);
    }
}

impl<K, V> Flights<K, V> {
    fn under_way(&self) -> MutexGuard<'_, UnderWay<K, V>> {
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
pub fn retry_after(error: &SourceError) -> Undecidable {
    let secs = if *error == SourceError::BreakerOpen { 2 } else { 1 };
    Undecidable { retry_after: Duration::from_secs(secs) }
}

/// Too many ask, or it takes too long.
pub const BUSY: Undecidable = Undecidable { retry_after: Duration::from_secs(1) };

impl Cache {
    /// Asks, or joins those who ask already, and waits for `miss_deadline` at most: not only the
    /// lookup takes time, the fill waits for the feed and for the disk. The asking goes on when a
    /// caller leaves, so that the next one finds what was asked for.
    pub(super) async fn fly<K, V, F>(
        &self,
        flights: &Arc<Flights<K, V>>,
        key: K,
        ask: impl FnOnce() -> F,
    ) -> Answer<V>
    where
        K: Hash + Eq + Copy + Send + 'static,
        V: Clone + Send + Sync + 'static,
        F: Future<Output = Answer<V>> + Send + 'static,
    {
        let Some(_place) = flights.place(self.config.max_waiting) else {
            self.metrics.cache.waiting_full.inc();
            return Err(BUSY);
        };
        let Some(mut flight) = self.join(flights, key, ask) else {
            self.metrics.cache.waiting_full.inc();
            return Err(BUSY);
        };
        let landing = flight.wait_for(Option::is_some);
        let Ok(landed) = tokio::time::timeout(self.config.miss_deadline.0, landing).await else {
            self.metrics.cache.miss_deadlines.inc();
            return Err(BUSY);
        };
        // The sender is dropped without an answer only if its task dies.
        landed.ok().and_then(|answer| answer.clone()).unwrap_or(Err(BUSY))
    }

    /// `None`: as many are under way as may be. (They outlive callers that leave.)
    fn join<K, V, F>(
        &self,
        flights: &Arc<Flights<K, V>>,
        key: K,
        ask: impl FnOnce() -> F,
    ) -> Option<watch::Receiver<Option<Answer<V>>>>
    where
        K: Hash + Eq + Copy + Send + 'static,
        V: Clone + Send + Sync + 'static,
        F: Future<Output = Answer<V>> + Send + 'static,
    {
        let mut under_way = flights.under_way();
        if let Some(flight) = under_way.get(&key) {
            self.metrics.cache.joined.inc();
            return Some(flight.clone());
        }
        if under_way.len() >= self.config.max_waiting {
            return None;
        }
        let (landed, flight) = watch::channel(None);
        under_way.insert(key, flight.clone());
        let (landing, asked) = (Landing { flights: flights.clone(), key }, ask());
        self.tasks.spawn(async move {
            let answer = asked.await;
            drop(landing);
            landed.send_replace(Some(answer));
        });
        Some(flight)
    }
}
