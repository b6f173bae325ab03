//! What changes the disk tier: the feed, and the fills of misses. Both hold the writing lock, and
//! both make what they wrote visible in one step under the overlay's lock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use uuid::Uuid;

use super::overlay::Overlay;
use super::source::{Change, Deleted, FollowError, Follower, Lookup, Position};
use super::store::Age;
use super::{Cache, Entry};
use crate::disk::StoreError;
use crate::model::fact::{Revocation, RevocationKind};
use crate::model::{Digest, Name, Timestamp};

/// What the writers of the disk tier agree on.
#[derive(Debug, Default)]
pub struct Writing {
    /// The newest snapshot that the feed has begun to apply. Older fills are thrown away.
    begun: i64,
    /// During a full resync: everything that Postgres has.
    seen: Option<Seen>,
    /// Keys that the last full resync would remove, waiting for the operator's word.
    held: HashSet<Uuid>,
}

#[derive(Debug, Default)]
struct Seen {
    keys: HashSet<Uuid>,
    clients: HashSet<Name>,
    policies: HashSet<Name>,
    revocations: HashMap<(RevocationKind, Name), Timestamp>,
}

impl Seen {
    fn note(&mut self, change: &Change) {
        match change {
            Change::Key(row) => drop(self.keys.insert(row.key.id)),
            Change::Client(row) => drop(self.clients.insert(row.client.name.clone())),
            Change::Revocation(r) => drop(self.revocations.insert((r.kind, r.id.clone()), r.at)),
            Change::Policy(row) => drop(self.policies.insert(row.policy.name.clone())),
            Change::Deleted(_) => {}
        }
    }
}

impl From<StoreError> for FollowError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl Cache {
    pub(super) fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock()
    }

    /// Takes in what a miss found. `None`: the feed has passed its snapshot, read again.
    pub(super) fn fill(&self, digest: Digest, lookup: Lookup) -> Option<Option<Arc<Entry>>> {
        let writing = self.writing();
        if lookup.revision < writing.begun {
            return None;
        }
        match lookup.found {
            Some(found) => {
                if let Err(error) = self.store_found(found) {
                    self.metrics.cache.disk_errors.inc();
                    tracing::error!(%error, "a filled key could not be stored on disk");
                    return None;
                }
            }
            None => self.absent.insert(digest, self.clock.monotonic()),
        }
        self.freshness.filled(self.clock.monotonic());
        Some(self.load(&digest))
    }

    fn store_found(&self, found: super::Found) -> Result<(), StoreError> {
        if let Some(revocation) = &found.revocation {
            self.store.revoke(revocation.kind, &revocation.id, revocation.at)?;
        }
        for row in &found.policies {
            self.store_policy(false, row)?;
            self.show_policy(&row.policy.name);
        }
        if let Some(client) = found.client {
            self.store.put_client(&client)?;
            self.show_client(&self.overlay(), &client.client.name);
        }
        if let Some(before) = self.store.put_key(&found.key)? {
            let _overlay = self.overlay_mut();
            self.hot.remove(&before);
        }
        Ok(())
    }

    /// Writes a change to disk; returns a digest that it has taken away from a key. What else it
    /// concerns is found with [`Cache::concerned`], once it is written.
    fn write_change(&self, full: bool, change: &Change) -> Result<Option<Digest>, StoreError> {
        match change {
            Change::Client(row) if full => self.store.replace_client(row).map(|()| None),
            Change::Client(row) => self.store.put_client(row).map(|()| None),
            Change::Policy(row) => self.store_policy(full, row).map(|()| None),
            Change::Key(row) if full => self.store.replace_key(row),
            Change::Key(row) => self.store.put_key(row),
            Change::Revocation(Revocation { kind, id, at }) => {
                self.store.revoke(*kind, id, *at).map(|()| None)
            }
            Change::Deleted(Deleted::Key(id)) => self.store.remove_key(*id),
            Change::Deleted(Deleted::Client(name)) => self.store.remove_client(name).map(|()| None),
            Change::Deleted(Deleted::Policy(name)) => self.store.remove_policy(name).map(|()| None),
            // Deny wins: a revocation that somebody deleted by hand stays.
            Change::Deleted(Deleted::Revocation(..)) => Ok(None),
        }
    }

    /// The key that a change concerns.
    fn concerned(&self, overlay: &Overlay, change: &Change) -> Option<Digest> {
        match change {
            Change::Key(row) => Some(row.key.digest),
            Change::Revocation(Revocation { kind: RevocationKind::Key, id, .. }) => {
                id.parse().ok().and_then(|id| self.digest_in(overlay, id))
            }
            _ => None,
        }
    }

    /// Removes what a full resync found to be gone.
    fn remove_keys(&self, ids: impl IntoIterator<Item = Uuid>) -> Result<(), StoreError> {
        for id in ids {
            if let Some(digest) = self.store.remove_key(id)? {
                let _overlay = self.overlay_mut();
                self.hot.remove(&digest);
            }
        }
        Ok(())
    }

    /// The operator's word: removals held back by the last full resync are made. Blocks.
    pub fn confirm_removals(&self) -> Result<usize, FollowError> {
        let mut writing = self.writing();
        self.remove_keys(writing.held.iter().copied())?;
        self.store.put_held(false)?;
        self.store.sync()?;
        let made = std::mem::take(&mut writing.held).len();
        self.tell_held(&writing);
        Ok(made)
    }

    /// How many removals wait. (Whoever asks does not wait for a writer, and its disk.)
    pub(super) fn removals_held(&self) -> u64 {
        u64::try_from(self.metrics.cache.removals_held.get()).unwrap_or(0)
    }

    fn tell_held(&self, writing: &Writing) {
        let held = i64::try_from(writing.held.len()).unwrap_or(i64::MAX);
        self.metrics.cache.removals_held.set(held);
    }

    /// Compares what is cached with what a full resync saw.
    fn sweep(&self, writing: &mut Writing, seen: &Seen) -> Result<Vec<Revocation>, StoreError> {
        let (mut total, mut missing) = (0_usize, Vec::new());
        for entry in self.store.ids(None) {
            let (id, _) = entry?;
            total += 1;
            if !seen.keys.contains(&id) {
                missing.push(id);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let share = missing.len() as f64 / total.max(1) as f64;
        if share > self.config.max_removed_share {
            tracing::warn!(
                keys = missing.len(),
                total,
                "a full resync would remove many keys: held until the operator confirms it"
            );
            writing.held = missing.into_iter().collect();
        } else {
            writing.held.clear();
            self.remove_keys(missing)?;
        }
        self.store.put_held(!writing.held.is_empty())?;
        self.tell_held(writing);
        for client in self.store.clients() {
            let name = client?.client.name;
            if !seen.clients.contains(&name) {
                self.store.remove_client(&name)?;
                self.show_client(&self.overlay(), &name);
            }
        }
        for row in self.store.policies() {
            let name = row?.policy.name;
            if !seen.policies.contains(&name) {
                self.store.remove_policy(&name)?;
                self.show_policy(&name);
            }
        }
        let mut lacking = Vec::new();
        for revocation in self.store.revocations() {
            let (kind, id, at) = revocation?;
            let id = Name::from(id);
            let known = seen.revocations.get(&(kind, id.clone()));
            // What stands there may say less: it was restored to before the rest was said.
            if known.is_none_or(|known| kind.merge(*known, at) != *known) {
                lacking.push(Revocation { kind, id, at });
            }
        }
        Ok(lacking)
    }

    fn apply_step(&self, writing: &mut Writing, changes: &[Change]) -> Result<(), FollowError> {
        let full = writing.seen.is_some();
        let mut digests = Vec::new();
        for change in changes {
            digests.extend(self.write_change(full, change).inspect_err(|_| {
                self.metrics.cache.disk_errors.inc();
            })?);
            if let Some(seen) = &mut writing.seen {
                seen.note(change);
            }
            if let Change::Key(row) = change {
                // It has come back: no word of the operator is asked for any more.
                writing.held.remove(&row.key.id);
                self.tell_held(writing);
            }
        }
        // Loads hold the overlay's reading lock from disk to hot tier: none of them can put back
        // what is taken out here.
        let overlay = self.overlay_mut();
        digests.extend(changes.iter().filter_map(|change| self.concerned(&overlay, change)));
        for digest in &digests {
            self.hot.remove(digest);
            self.absent.remove(digest);
        }
        for change in changes {
            match change {
                Change::Client(row) => self.show_client(&overlay, &row.client.name),
                Change::Deleted(Deleted::Client(name)) => self.show_client(&overlay, name),
                Change::Policy(row) => self.show_policy(&row.policy.name),
                Change::Deleted(Deleted::Policy(name)) => self.show_policy(name),
                Change::Revocation(r) if r.kind.is_not_before() => self.sessions.reconsider(),
                _ => {}
            }
        }
        Ok(())
    }

    /// Catch-ups follow one another: the one that ends is the last that began.
    fn has_caught_up(&self) {
        self.caught_up.store(self.catch_ups_begun(), Ordering::Release);
    }

    /// Writes down how old the cache has become: the next start goes on from there, whatever the
    /// clock says then. (Where a catch-up ends meanwhile, the next one looks older than it is until
    /// its first. Nobody waits for this, however long the disk takes.) Blocks.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn note_age(&self) -> Result<(), StoreError> {
        let age = self.freshness.age(self.clock.monotonic());
        let (Some(age), Some(left)) = (age, self.store.age()?) else { return Ok(()) };
        let age_us = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        self.store.put_age(Age { age_us, ..left })?;
        self.store.sync()
    }

    fn fresh_now(&self) -> Age {
        self.freshness.caught_up(self.clock.monotonic());
        Age { caught_up: self.clock.now(), age_us: 0 }
    }
}

impl Follower for Cache {
    fn position(&self) -> Option<Position> {
        self.catch_ups_begun.fetch_add(1, Ordering::AcqRel);
        self.store.position().ok().flatten()
    }

    fn begin(&self, revision: i64, full: bool) {
        let mut writing = self.writing();
        writing.begun = if full { revision } else { writing.begun.max(revision) };
        writing.seen = full.then(Seen::default);
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), FollowError> {
        // In steps, so that the fills of misses need not wait for a whole page: who waits is let in
        // between two, for whoever takes a lock again at once is faster than who must wake first.
        const STEP: usize = 500;
        changes.chunks(STEP).try_for_each(|step| {
            let mut writing = self.writing();
            self.apply_step(&mut writing, step)?;
            MutexGuard::unlock_fair(writing);
            Ok(())
        })
    }

    fn complete(&self, position: Position) -> Result<Vec<Revocation>, FollowError> {
        let mut writing = self.writing();
        let lacking = match writing.seen.take() {
            Some(seen) => {
                self.doubt_sessions()?;
                self.sweep(&mut writing, &seen)?
            }
            None => Vec::new(),
        };
        self.store.commit(position, self.fresh_now())?;
        self.revision.store(position.revision, Ordering::Release);
        self.metrics.cache.revision.set(position.revision);
        self.has_caught_up();
        Ok(lacking)
    }

    fn still_current(&self) {
        self.has_caught_up();
        // Written down now and then only: what a kill loses makes the cache look older, never
        // fresher.
        const NOTE_EVERY_US: i64 = 30_000_000;
        let age = self.fresh_now();
        let noted = self.noted.load(Ordering::Relaxed);
        if age.caught_up.0.saturating_sub(noted).saturating_abs() >= NOTE_EVERY_US {
            self.noted.store(age.caught_up.0, Ordering::Relaxed);
            if let Err(error) = self.store.put_age(age).and_then(|()| self.store.sync()) {
                tracing::warn!(%error, "the cache's age cannot be written down");
            }
        }
    }
}
