//! The cache: hot tier, disk tier, overlay. Disposable: rebuilt from Postgres and the journal.

mod source;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock::SharedClock;
use crate::metrics::Metrics;
use crate::model::fact::StateFact;
use crate::model::units::Span;
use crate::model::{Client, Digest, Key, KeyState, Policy, Principal, Timestamp};

pub use source::{
    Asked, Change, ClientRow, Deleted, FollowError, Follower, Found, KeyRow, Lookup, PolicyRow,
    Position, Source, SourceError,
};

/// `[cache]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Keys kept decoded in memory.
    pub hot_entries: usize,
    /// How long cached keys are good while Postgres cannot be reached.
    pub max_stale: Span,
    /// Remembered absences.
    pub absent_entries: usize,
    /// How long an absence is remembered.
    pub absent_for: Span,
    /// Callers that may wait for Postgres at a time; beyond it they get 503.
    pub max_waiting: usize,
    /// A full resync that would remove more than this share of the keys waits for the operator's word.
    pub max_removed_share: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hot_entries: 100_000,
            max_stale: Span::secs(24 * 3600),
            absent_entries: 10_000,
            absent_for: Span::secs(5),
            max_waiting: 1024,
            max_removed_share: 0.2,
        }
    }
}

/// Why the cache cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The directory cannot be used.
    #[error("the cache directory cannot be used: {0}")]
    Io(#[from] std::io::Error),
}

/// What is declared in the configuration.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// `[[clients]]`
    pub clients: Vec<Client>,
    /// `[[keys]]`
    pub keys: Vec<Key>,
    /// `[[policies]]`
    pub policies: Vec<Policy>,
}

/// A key, decoded, with what decides it.
#[derive(Debug)]
pub struct Entry {}

impl Entry {
    /// Who presents it.
    pub fn principal(&self) -> &Arc<Principal> {
        unimplemented!()
    }
    /// The key itself.
    pub fn key(&self) -> &Key {
        unimplemented!()
    }
    /// The key's state at `now`, revocations included.
    pub fn state(&self, _now: Timestamp) -> KeyState {
        unimplemented!()
    }
    /// Whether its client is enabled.
    pub fn client_enabled(&self) -> bool {
        unimplemented!()
    }
}

/// Why nobody can say whether a key exists: the honest 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecidable {
    /// When it is worth asking again.
    pub retry_after: Duration,
}

/// What is known of a key, for lists.
#[derive(Clone, Debug)]
pub struct KeyView {
    /// The key.
    pub key: Key,
    /// Its revocation.
    pub revoked_at: Option<Timestamp>,
}

/// What `status` says of the cache.
#[derive(Clone, Debug, Serialize)]
pub struct CacheStatus {
    /// The change counter caught up with; none when embedded or never caught up.
    pub revision: Option<i64>,
    /// Seconds since the last completed catch-up; none when embedded or never caught up.
    pub age_seconds: Option<f64>,
    /// Older than `max_stale`.
    pub stale: bool,
    /// Keys on disk.
    pub keys: u64,
    /// Decoded keys in memory.
    pub hot_entries: u64,
    /// Unsettled state facts.
    pub overlay_entries: u64,
    /// Removals that wait for the operator.
    pub removals_held: u64,
}

/// The cache. All methods but [`Cache::find`] answer without waiting for Postgres.
pub struct Cache {}

impl Cache {
    /// Opens (or starts anew) the disk tier in `dir`. `source` is `None` when embedded.
    pub fn open(
        _dir: &Path,
        _config: Config,
        _declared: Declared,
        _source: Option<Arc<dyn Source>>,
        _clock: SharedClock,
        _metrics: Arc<Metrics>,
        _tasks: TaskTracker,
    ) -> Result<Arc<Self>, CacheError> {
        unimplemented!()
    }
    /// The hot tier only: no lock, no I/O.
    pub fn hot(&self, _digest: &Digest) -> Option<Arc<Entry>> {
        unimplemented!()
    }
    /// Memory, disk, then Postgres within its deadline. `Ok(None)`: provably unknown.
    pub async fn find(&self, _digest: Digest) -> Result<Option<Arc<Entry>>, Undecidable> {
        unimplemented!()
    }
    /// Whether what is cached is older than `max_stale`.
    pub fn is_stale(&self) -> bool {
        unimplemented!()
    }
    /// Puts a committed state fact in force at once, until [`Cache::settle`].
    pub fn pin(&self, _fact: &StateFact) {
        unimplemented!()
    }
    /// A client by name: overlay, declared, disk.
    pub fn client(&self, _name: &str) -> Option<Client> {
        unimplemented!()
    }
    /// All clients, by name.
    pub fn clients(&self) -> Vec<Client> {
        unimplemented!()
    }
    /// A key by id.
    pub fn key(&self, _id: Uuid) -> Option<KeyView> {
        unimplemented!()
    }
    /// Up to `limit` keys, of one client or all, by id from `after` on.
    pub fn keys(&self, _client: Option<&str>, _after: Option<Uuid>, _limit: usize) -> Vec<KeyView> {
        unimplemented!()
    }
    /// For `status`.
    pub fn status(&self) -> CacheStatus {
        unimplemented!()
    }
    /// The operator's word: removals held back by the last full resync are made.
    pub fn confirm_removals(&self) -> u64 {
        unimplemented!()
    }
}
