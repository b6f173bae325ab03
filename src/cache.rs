//! The cache: hot tier, disk tier, overlay. Disposable: rebuilt from Postgres and the journal.
//!
//! ```text
//! find ─► hot (memory) ─► disk (sled) + overlay (pending state facts) ─► Postgres, once per digest
//!           ▲                 ▲
//!           └── one step ─────┴── feed and fills, under the overlay's lock
//! ```
//!
//! A load holds the overlay's reading lock from the disk read to the hot insert; whoever changes
//! something writes the disk first and then takes the entry out of the hot tier under the writing
//! lock. So whatever the order, no load leaves an older entry behind than the last change.

mod absent;
mod clients;
mod config;
mod entry;
mod flight;
mod follow;
mod freshness;
mod miss;
mod overlay;
mod policies;
mod quotas;
mod sessions;
mod source;
mod store;
#[cfg(test)]
mod tests;
mod views;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock::SharedClock;
use crate::disk;
use crate::metrics::Metrics;
use crate::model::fact::{Revocation, RevocationKind, StateFact};
use crate::model::{Digest, Key, Timestamp};
use absent::Absent;
use entry::{Cells, ClientCell};
use flight::Flights;
use follow::Writing;
use freshness::Freshness;
use overlay::Overlay;
use policies::Policies;
use sessions::Sessions;
use store::Store;

pub use config::{CacheError, Config, Declared};
pub use entry::{Enforcement, Entry};
pub use policies::PolicyView;
pub use quotas::{ConfirmedQuotas, QuotaBase};
pub use sessions::{HeldSession, SessionTurn};
pub use source::{
    Asked, AskedSession, Change, ClientRow, Deleted, FollowError, Follower, Found, KeyRow, Lookup,
    PolicyRow, Position, Source, SourceError,
};
pub use views::{CacheStatus, KeyView};

/// Why nobody can say whether a key or session exists: the honest 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecidable {
    /// When it is worth asking again.
    pub retry_after: Duration,
}

type Stored<T> = Result<Option<T>, disk::StoreError>;

/// The cache. All methods but [`Cache::find`] answer without waiting for Postgres.
pub struct Cache {
    config: Config,
    hot: quick_cache::sync::Cache<Digest, Arc<Entry>>,
    absent: Absent,
    overlay: RwLock<Overlay>,
    cells: Mutex<Cells<ClientCell>>,
    policies: Policies,
    store: Store,
    writing: parking_lot::Mutex<Writing>,
    flights: Arc<Flights<Digest, Arc<Entry>>>,
    sessions: Sessions,
    freshness: Freshness,
    noted: AtomicI64,
    revision: AtomicI64,
    /// Catch-ups of the feed, counted as they begin; and the last that was completed.
    catch_ups_begun: AtomicU64,
    caught_up: AtomicU64,
    declared: Declared,
    declared_keys: HashMap<Digest, usize>,
    source: Option<Arc<dyn Source>>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
}

/// Opens the disk tier; what cannot be opened is moved to `quarantine/`, and an empty one made.
fn open_store(data: &Path, metrics: &Metrics, moment: Timestamp) -> Result<Store, CacheError> {
    let dir = data.join("cache");
    disk::remove_starting_with(data, disk::GONE)?;
    let is_locked = |error: &disk::StoreError| matches!(error, disk::StoreError::Locked);
    match disk::patiently(|| Store::open(&dir), is_locked) {
        Ok(store) => Ok(store),
        Err(disk::StoreError::Locked) => Err(CacheError::Locked),
        Err(error) => {
            let quarantine = data.join("quarantine");
            disk::make_private_dir(&quarantine)?;
            let aside = quarantine.join(format!("cache-{}", moment.0));
            std::fs::rename(&dir, &aside)?;
            metrics.cache.quarantined.inc();
            tracing::error!(
                %error, to = %aside.display(),
                "the cache is damaged and was set aside; it fills again from Postgres"
            );
            Store::open(&dir).map_err(CacheError::Store)
        }
    }
}

impl Cache {
    /// Opens (or starts anew) the disk tier in `data/cache`. `source` is `None` when embedded.
    pub fn open(
        data: &Path,
        config: Config,
        declared: Declared,
        source: Option<Arc<dyn Source>>,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
    ) -> Result<Arc<Self>, CacheError> {
        let store = open_store(data, &metrics, clock.now())?;
        let left = store.age().ok().flatten();
        let position = store.position().ok().flatten();
        let declared_keys =
            declared.keys.iter().enumerate().map(|(at, key)| (key.digest, at)).collect();
        Ok(Arc::new(Self {
            hot: quick_cache::sync::Cache::new(config.hot_entries),
            absent: Absent::new(config.absent_entries, config.absent_for.0),
            overlay: RwLock::default(),
            cells: Mutex::default(),
            policies: Policies::default(),
            writing: parking_lot::Mutex::default(),
            flights: Arc::default(),
            sessions: Sessions::new(config.hot_sessions),
            freshness: Freshness::resume(left, clock.now(), clock.monotonic()),
            noted: AtomicI64::new(0),
            revision: AtomicI64::new(position.map_or(0, |position| position.revision)),
            catch_ups_begun: AtomicU64::new(0),
            caught_up: AtomicU64::new(0),
            store,
            config,
            declared,
            declared_keys,
            source,
            clock,
            metrics,
            tasks,
        }))
    }

    fn overlay(&self) -> RwLockReadGuard<'_, Overlay> {
        self.overlay.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn overlay_mut(&self) -> RwLockWriteGuard<'_, Overlay> {
        self.overlay.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn cells(&self) -> std::sync::MutexGuard<'_, Cells<ClientCell>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn or_count<T>(&self, read: Result<Option<T>, disk::StoreError>) -> Option<T> {
        read.unwrap_or_else(|error| {
            self.metrics.cache.disk_errors.inc();
            tracing::error!(%error, "the cache's disk tier cannot be read");
            None
        })
    }

    /// The hot tier only: no I/O, and no lock that a writer holds for long.
    pub fn hot(&self, digest: &Digest) -> Option<Arc<Entry>> {
        let entry = self.hot.get(digest);
        if entry.is_some() {
            self.metrics.cache.hot_hits.inc();
        }
        entry
    }

    /// Memory, disk, then Postgres within its deadline. `Ok(None)`: provably unknown.
    pub async fn find(self: &Arc<Self>, digest: Digest) -> Result<Option<Arc<Entry>>, Undecidable> {
        if let Some(entry) = self.hot(&digest) {
            return Ok(Some(entry));
        }
        if let Some(entry) = self.load(&digest) {
            self.metrics.cache.disk_hits.inc();
            return Ok(Some(entry));
        }
        if self.source.is_none() {
            return Ok(None);
        }
        if self.absent.holds(&digest, self.clock.monotonic()) {
            self.metrics.cache.absent_hits.inc();
            return Ok(None);
        }
        let answer = if self.declared_keys.contains_key(&digest) {
            // Declared, but never caught up with: it may have been revoked.
            Err(Undecidable { retry_after: Duration::from_secs(1) })
        } else {
            self.miss(digest).await
        };
        if answer.is_err() {
            self.metrics.cache.undecidable.inc();
        }
        answer
    }

    /// As [`Cache::find`], by id: of a key that something else names. All keys are known once the
    /// feed has caught up.
    ///
    /// # Errors
    /// When nobody can say at the moment.
    pub async fn find_key(self: &Arc<Self>, id: Uuid) -> Result<Option<Arc<Entry>>, Undecidable> {
        let digest = self.digest_in(&self.overlay(), id);
        match digest {
            Some(digest) => self.find(digest).await,
            None if self.has_source() && !self.freshness.ever_caught_up() => {
                Err(Undecidable { retry_after: Duration::from_secs(1) })
            }
            None => Ok(None),
        }
    }

    /// Harms every revocation that is on disk, so that none of them can be read.
    #[cfg(test)]
    pub fn damage_revocations(&self) {
        self.store.damage_revocations();
    }

    /// Whether there is a Postgres to ask.
    pub fn has_source(&self) -> bool {
        self.source.is_some()
    }

    /// Whether what is cached is older than `max_stale`. Never so when embedded.
    pub fn is_stale(&self) -> bool {
        self.is_older_than(self.config.max_stale.0)
    }

    /// Whether what is cached is older than `bound`, or was never brought. Never so when embedded.
    pub fn is_older_than(&self, bound: Duration) -> bool {
        let fresh = |age| age <= bound;
        self.source.is_some() && !self.freshness.age(self.clock.monotonic()).is_some_and(fresh)
    }

    /// `cache.miss_deadline`: how long a caller waits for what is not known here.
    pub fn miss_deadline(&self) -> Duration {
        self.config.miss_deadline.0
    }

    /// `cache.max_stale`: how old it may be where a policy says nothing else.
    pub fn max_stale(&self) -> Duration {
        self.config.max_stale.0
    }

    /// Loads an entry from disk, declarations and overlay, and makes it hot, in one step.
    fn load(&self, digest: &Digest) -> Option<Arc<Entry>> {
        let overlay = self.overlay();
        let key = self.key_by_digest(&overlay, digest)?;
        // Deny wins: a key whose revocation or client cannot be read is not known to be good.
        let revoked_at = self.or_count(self.key_revoked_at(&overlay, key.id).map(Some))?;
        let cell = self.or_count(self.cell(&overlay, &key.client).map(Some))?;
        let policy = key.policy.as_ref().map(|policy| self.policy_cell(policy).map(Some));
        let policy = policy.map_or(Some(None), |read| self.or_count(read).map(Some))?;
        let entry = Arc::new(Entry::new(key, revoked_at, cell, policy));
        self.hot.insert(*digest, entry.clone());
        Some(entry)
    }

    fn key_by_digest(&self, overlay: &Overlay, digest: &Digest) -> Option<Key> {
        if let Some(at) = self.declared_keys.get(digest) {
            let decidable = self.source.is_none() || self.freshness.ever_caught_up();
            return decidable.then(|| self.declared.keys[*at].clone());
        }
        let stored = self.or_count(self.store.key(digest)).map(|row| row.key);
        stored.or_else(|| overlay.key_by_digest(digest).cloned())
    }

    fn key_revoked_at(&self, overlay: &Overlay, id: Uuid) -> Stored<Timestamp> {
        self.revoked_at(overlay, RevocationKind::Key, &id.to_string())
    }

    fn revoked_at(&self, overlay: &Overlay, kind: RevocationKind, id: &str) -> Stored<Timestamp> {
        let (stored, pinned) = (self.store.revoked_at(kind, id)?, overlay.revoked_at(kind, id));
        Ok(stored.into_iter().chain(pinned).reduce(|a, b| kind.merge(a, b)))
    }

    fn digest_in(&self, overlay: &Overlay, id: Uuid) -> Option<Digest> {
        let declared = self.declared.key_by_id(id).map(|key| key.digest);
        let digest = declared.or_else(|| self.or_count(self.store.digest(id)));
        digest.or_else(|| overlay.key(id).map(|key| key.digest))
    }

    /// Takes what a fact of the overlay concerns out of memory: it is loaded again when it is asked
    /// for.
    fn unload(&self, overlay: &Overlay, fact: &StateFact) {
        let digest = match fact {
            StateFact::KeyCreated(key) => Some(key.digest),
            StateFact::Revoked(Revocation { kind: RevocationKind::Key, id, .. }) => {
                id.parse().ok().and_then(|id| self.digest_in(overlay, id))
            }
            StateFact::Revoked(_) => {
                self.sessions.reconsider();
                None
            }
            StateFact::Session(_) => None,
            StateFact::ClientCreated(client) => {
                self.show_client(overlay, &client.name);
                None
            }
        };
        if let Some(digest) = digest {
            self.hot.remove(&digest);
            self.absent.remove(&digest);
        }
    }

    /// Puts a committed state fact in force at once, until [`Cache::settle`] (for sessions:
    /// [`Cache::settle_sessions`]).
    pub fn pin(&self, fact: &StateFact) {
        if let StateFact::Session(session) = fact {
            return self.session_turn(session.id).pin(session);
        }
        let mut overlay = self.overlay_mut();
        overlay.pin(fact);
        // Under the lock: a fill that lands right now has either stored its key, or will see the
        // pin.
        self.unload(&overlay, fact);
        self.metrics.cache.overlay_entries.set(i64::try_from(overlay.len()).unwrap_or(i64::MAX));
    }

    /// The fact is in Postgres, the feed has passed it, and the disk tier is synced: let go of it.
    pub fn settle(&self, fact: &StateFact) {
        let mut overlay = self.overlay_mut();
        overlay.settle(fact);
        // What the disk tier says holds from here on: the row may be gone again by now.
        self.unload(&overlay, fact);
        self.metrics.cache.overlay_entries.set(i64::try_from(overlay.len()).unwrap_or(i64::MAX));
    }

    /// Everything that is in force and not settled.
    pub fn pinned(&self) -> Vec<StateFact> {
        let facts: Vec<_> = self.overlay().facts().collect();
        facts.into_iter().chain(self.sessions.all_pinned().map(StateFact::Session)).collect()
    }

    /// The change counter that the disk tier has caught up with and is synced to.
    pub fn synced_revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// How many catch-ups have begun. One that begins later sees all that is in Postgres now,
    /// whatever happened to its history: a comparison of revisions alone would not tell after a
    /// failover.
    pub fn catch_ups_begun(&self) -> u64 {
        self.catch_ups_begun.load(Ordering::Acquire)
    }

    /// The last catch-up that was completed, by its number; what it brought is synced.
    pub fn caught_up(&self) -> u64 {
        self.caught_up.load(Ordering::Acquire)
    }
}
