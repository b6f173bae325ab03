//! Digests that Postgres did not know when it was asked: a small table with a short life. It loses
//! to the feed, to fills, and to keys that are made here.

use std::time::Duration;

use crate::model::Digest;

/// Digests that Postgres did not know, when they were read.
#[derive(Debug)]
pub struct Absent {
    read_at: quick_cache::sync::Cache<Digest, Duration>,
    good_for: Duration,
}

impl Absent {
    /// An empty table of at most `entries` digests, each remembered for `good_for`.
    pub fn new(entries: usize, good_for: Duration) -> Self {
        Self { read_at: quick_cache::sync::Cache::new(entries), good_for }
    }

    /// Postgres did not know it at `now`.
    pub fn insert(&self, digest: Digest, now: Duration) {
        self.read_at.insert(digest, now);
    }

    /// It exists now.
    pub fn remove(&self, digest: &Digest) {
        self.read_at.remove(digest);
    }

    /// Whether it was absent a short while before `now`.
    pub fn holds(&self, digest: &Digest, now: Duration) -> bool {
        let read_at = self.read_at.get(digest);
        read_at.is_some_and(|read_at| now.saturating_sub(read_at) < self.good_for)
    }
}
