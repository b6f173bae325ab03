//! Requests at a time, by limit and key or client.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use super::config::SHARDS;

type Place = (u32, u128);

/// How many run. Only what runs is in it.
#[derive(Debug)]
pub(super) struct Concurrency {
    shards: [Mutex<HashMap<Place, u32, RandomState>>; SHARDS],
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

/// One request that runs. Dropping it makes room for another.
#[derive(Debug)]
pub struct Running {
    of: Arc<Concurrency>,
    place: Place,
}

impl Concurrency {
    fn shard(&self, (_, scope): Place) -> MutexGuard<'_, HashMap<Place, u32, RandomState>> {
        // Keys' ids are v7: their random half is the lower one. Clients' are hashes.
        let at = scope as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, if fewer than `limit` run. `also` is asked only then, under the lock: nobody
    /// enters unless it agrees.
    pub fn enter<T, E>(
        self: &Arc<Self>,
        id: u32,
        scope: u128,
        limit: u32,
        also: impl FnOnce() -> Result<T, E>,
    ) -> Option<Result<(T, Running), E>> {
        let place = (id, scope);
        let mut shard = self.shard(place);
        if shard.get(&place).is_some_and(|running| *running >= limit) {
            return None;
        }
        Some(also().map(|also| {
            *shard.entry(place).or_default() += 1;
            (also, Running { of: Arc::clone(self), place })
        }))
    }

    /// How many run.
    pub fn count(&self, id: u32, scope: u128) -> u32 {
        self.shard((id, scope)).get(&(id, scope)).copied().unwrap_or(0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut shard = self.of.shard(self.place);
        if let Entry::Occupied(mut running) = shard.entry(self.place) {
            *running.get_mut() -= 1;
            if *running.get() == 0 {
                running.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn never_more_than_the_limit_run_and_who_leaves_makes_room() {
        let all = Arc::<Concurrency>::default();
        let enter = |id, scope| {
            let entered = all.enter(id, scope, 3, || Ok::<_, ()>(()))?;
            entered.ok().map(|((), running)| running)
        };
        let (now, most) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(running) = enter(1, 7) else { continue };
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        drop(running);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 3);
        assert_eq!(all.count(1, 7), 0);
        assert!(all.shards.iter().all(|shard| shard.lock().expect("no panic").is_empty()));
        let held: Vec<_> = (0..3).map(|_| enter(1, 7).expect("room")).collect();
        assert!(enter(1, 7).is_none());
        assert!(enter(1, 8).is_some() && enter(2, 7).is_some(), "of its own");
        drop(held);
        assert!(enter(1, 7).is_some());
        assert!(matches!(all.enter(1, 7, 3, || Err::<(), _>("no")), Some(Err("no"))));
        assert_eq!(all.count(1, 7), 0, "nobody enters against others");
    }
}
