//! What the control plane asks of the cache: lists, single rows, status. These may block on disk.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::Cache;
use crate::model::fact::{Revocation, RevocationKind};
use crate::model::{Client, Key, Name, Timestamp};

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
    /// Decoded keys in memory.
    pub hot_entries: u64,
    /// Unsettled state facts.
    pub overlay_entries: u64,
    /// Removals that wait for the operator.
    pub removals_held: u64,
}

impl Cache {
    /// Revocations of keys that have come into force by now but still carry their moment: written
    /// again as "at once", no clock can undo them. Blocks on disk.
    pub fn reached(&self) -> Vec<Revocation> {
        let now = self.clock.now();
        let pending = |kind: RevocationKind, at: Timestamp| {
            !kind.is_not_before() && at > Timestamp::NEG_INFINITY && at <= now
        };
        let at = Timestamp::NEG_INFINITY;
        let stored = self.store.revocations().filter_map(Result::ok);
        let stored = stored.filter(|(kind, _, at)| pending(*kind, *at));
        let mut reached: Vec<_> =
            stored.map(|(kind, id, _)| Revocation { kind, id: id.into(), at }).collect();
        let overlay = self.overlay();
        let pinned = overlay.revocations().filter(|r| pending(r.kind, r.at));
        reached.extend(pinned.map(|revocation| Revocation { at, ..revocation }));
        // What is in force for ever already, here or there, needs no more words.
        reached.retain(|Revocation { kind, id, .. }| {
            let known = self.or_count(self.revoked_at(&overlay, *kind, id));
            known != Some(Timestamp::NEG_INFINITY)
        });
        reached.sort_unstable();
        reached.dedup();
        reached
    }

    /// A client by name: declared, disk, overlay.
    pub fn client(&self, name: &str) -> Option<Client> {
        self.or_count(self.client_in(&self.overlay(), name))
    }

    /// All clients, by name. Blocks on disk.
    pub fn clients(&self) -> Vec<Client> {
        let overlay = self.overlay();
        let mut clients: BTreeMap<Name, Client> =
            overlay.clients().map(|client| (client.name.clone(), client.clone())).collect();
        let stored = self.store.clients().filter_map(Result::ok).map(|row| row.client);
        for client in stored.chain(self.declared.clients.iter().cloned()) {
            clients.insert(client.name.clone(), client);
        }
        clients.into_values().collect()
    }

    /// A key by id. Blocks on disk.
    pub fn key(&self, id: Uuid) -> Option<KeyView> {
        let overlay = self.overlay();
        let stored = || {
            let digest = self.or_count(self.store.digest(id))?;
            self.or_count(self.store.key(&digest)).map(|row| row.key)
        };
        let key = self.declared.key_by_id(id).cloned().or_else(stored);
        let key = key.or_else(|| overlay.key(id).cloned())?;
        Some(KeyView { revoked_at: self.or_count(self.key_revoked_at(&overlay, id)), key })
    }

    /// Up to `limit` keys, of one client or all, by id beyond `after`. Blocks on disk.
    pub fn keys(&self, client: Option<&str>, after: Option<Uuid>, limit: usize) -> Vec<KeyView> {
        let wanted = |key: &Key| {
            client.is_none_or(|client| *key.client == *client)
                && after.is_none_or(|after| key.id > after)
        };
        let mut keys: BTreeMap<Uuid, Key> = BTreeMap::new();
        let pick = |key: &Key| wanted(key).then(|| (key.id, key.clone()));
        keys.extend(self.overlay().keys().chain(&self.declared.keys).filter_map(pick));
        // Without the lock: a long walk must not keep loads and revocations waiting.
        let stored = self.store.ids(after).filter_map(Result::ok);
        let stored = stored.filter_map(|(_, digest)| Some(self.store.key(&digest).ok()??.key));
        keys.extend(stored.filter(wanted).take(limit).map(|key| (key.id, key)));
        let overlay = self.overlay();
        let revoked_at = |id| self.or_count(self.key_revoked_at(&overlay, id));
        let view = |key: Key| KeyView { revoked_at: revoked_at(key.id), key };
        keys.into_values().take(limit).map(view).collect()
    }

    /// For `status`.
    pub fn status(&self) -> CacheStatus {
        let age = self.freshness.age(self.clock.monotonic()).filter(|_| self.source.is_some());
        let age_seconds = age.map(|age| age.as_secs_f64());
        let hot = self.hot.len();
        // One lock after the other: whoever writes takes the overlay's while it holds the other.
        let overlay_entries = (self.overlay().len() + self.sessions.pinned()) as u64;
        let removals_held = self.removals_held();
        CacheStatus {
            revision: age.map(|_| self.synced_revision()),
            age_seconds,
            stale: self.is_stale(),
            hot_entries: hot as u64,
            overlay_entries,
            removals_held,
        }
    }

    /// Brings the gauges up to date that are looked up rather than kept.
    pub fn observe(&self) {
        let status = self.status();
        let entries = i64::try_from(status.hot_entries).unwrap_or(i64::MAX);
        self.metrics.cache.hot_entries.set(entries);
        self.metrics.cache.age.set(status.age_seconds.unwrap_or(0.0));
    }
}
