//! `[cache]`, what is declared, and why a cache cannot be opened.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk;
use crate::model::policy::Mode;
use crate::model::units::Span;
use crate::model::{Client, Key, Name, Policy};

/// `[cache]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Keys kept decoded in memory.
    pub hot_entries: usize,
    /// Sessions kept decoded in memory, besides those that Postgres does not know yet.
    pub hot_sessions: usize,
    /// How long cached keys are good while Postgres cannot be reached.
    pub max_stale: Span,
    /// Remembered absences.
    pub absent_entries: usize,
    /// How long an absence is remembered.
    pub absent_for: Span,
    /// How long a caller waits on a miss, for everything together; then it is told to come back.
    pub miss_deadline: Span,
    /// Callers that may wait for Postgres at a time; beyond it they get 503.
    pub max_waiting: usize,
    /// A full resync that would remove more than this share of the keys waits for the operator's
    /// word.
    pub max_removed_share: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hot_entries: 100_000,
            hot_sessions: 100_000,
            max_stale: Span::secs(24 * 3600),
            absent_entries: 10_000,
            absent_for: Span::secs(5),
            // Below the 300 ms that are promised, above the 250 ms of one lookup.
            miss_deadline: Span::millis(280),
            max_waiting: 1024,
            max_removed_share: 0.2,
        }
    }
}

/// Why the cache cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The directory cannot be used.
    #[error("the cache directory cannot be used: {0}; check its owner, mode and free space")]
    Io(#[from] std::io::Error),
    /// Another process has it open.
    #[error("the cache directory is held by another process; stop that one first")]
    Locked,
    /// It was set aside as damaged, and a new one cannot be made either.
    #[error("an empty cache cannot be made: {0}")]
    Store(disk::StoreError),
}

/// What holds without being looked up.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// This gateway's name: sessions of others are not kept.
    pub node: Name,
    /// `[[clients]]`
    pub clients: Vec<Client>,
    /// Those of them that have a mode of their own.
    pub modes: HashMap<Name, Mode>,
    /// `[[keys]]`
    pub keys: Vec<Key>,
    /// `[[policies]]`
    pub policies: Vec<Policy>,
}

impl Declared {
    pub(super) fn client(&self, name: &str) -> Option<&Client> {
        self.clients.iter().find(|client| *client.name == *name)
    }

    pub(super) fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.iter().find(|policy| *policy.name == *name)
    }

    pub(super) fn key_by_id(&self, id: Uuid) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }
}
