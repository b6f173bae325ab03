//! Sessions: in memory, on disk, then in Postgres. The feed does not bring them; who changes one is
//! the gateway that made it.
//!
//! ```text
//! hot (bounded) ─► pinned (not settled yet) ─► disk (settled) ─► Postgres, once per session
//! ```
//!
//! A session belongs to one of a fixed number of stripes. Whoever loads it into the hot tier or
//! changes it holds the stripe's lock, and nobody holds it while waiting for a commit or for
//! Postgres. What was pinned stays in memory until it is in Postgres and on this disk: a session
//! that was evicted and loaded again is never older than what was answered.

mod upkeep;

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::entry::{ClientCell, Enforcement};
use super::flight::{Answer, BUSY, Flights, retry_after};
use super::overlay::Overlay;
use super::{Cache, Stored, Undecidable};
use crate::disk::StoreError;
use crate::model::fact::RevocationKind;
use crate::model::{Digest, Session, SessionRules, SessionState, Timestamp};

/// Sessions of one stripe wait for each other, for a moment.
const STRIPES: usize = 256;
/// How long a session of another gateway is believed: nobody tells this one when it ends.
const FOREIGN_GOOD_FOR: Duration = Duration::from_secs(5);

/// A session in memory with what decides it.
#[derive(Debug)]
pub struct HeldSession {
    session: Session,
    not_before: Timestamp,
    client: Arc<ClientCell>,
    /// What [`Sessions::reconsidered`] said when this was put together.
    as_of: u64,
    /// Monotonic; of another gateway's session only.
    good_until: Option<Duration>,
}

impl HeldSession {
    /// The session itself.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Its state at `now`.
    pub fn state(&self, rules: SessionRules, now: Timestamp) -> SessionState {
        self.session.state(self.not_before, rules, now)
    }

    /// Whether its client is enabled.
    pub fn client_enabled(&self) -> bool {
        self.client.enabled()
    }

    /// What its requests are held against: its client's policy.
    pub fn enforcement(&self) -> Enforcement {
        self.client.enforcement(None)
    }
}

type Stripe = HashMap<Uuid, Session>;

/// The tiers in memory.
pub(super) struct Sessions {
    hot: quick_cache::sync::Cache<Uuid, Arc<HeldSession>>,
    stripes: Box<[Mutex<Stripe>]>,
    hasher: std::hash::RandomState,
    flights: Arc<Flights<Uuid, Arc<HeldSession>>>,
    /// How often somebody was logged out everywhere: what is in the hot tier from before is
    /// put together anew.
    reconsidered: AtomicU64,
    /// How often it became known that Postgres may have lost sessions.
    doubted: AtomicU64,
}

impl Sessions {
    pub(super) fn new(hot: usize) -> Self {
        Self {
            hot: quick_cache::sync::Cache::new(hot),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: std::hash::RandomState::new(),
            flights: Arc::default(),
            reconsidered: AtomicU64::new(0),
            doubted: AtomicU64::new(0),
        }
    }

    /// Somebody was logged out everywhere.
    pub(super) fn reconsider(&self) {
        self.reconsidered.fetch_add(1, Ordering::AcqRel);
    }

    fn stripe(&self, id: Uuid) -> MutexGuard<'_, Stripe> {
        let at = self.hasher.hash_one(id) as usize % self.stripes.len();
        self.stripes[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sessions pinned, over all stripes.
    pub(super) fn pinned(&self) -> usize {
        let len =
            |stripe: &Mutex<Stripe>| stripe.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.stripes.iter().map(len).sum()
    }

    /// Every session that is pinned.
    pub(super) fn all_pinned(&self) -> impl Iterator<Item = Session> {
        let stripe = |stripe: &Mutex<Stripe>| {
            let stripe = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            stripe.values().cloned().collect::<Vec<_>>()
        };
        self.stripes.iter().flat_map(stripe)
    }
}

/// The table of absences is keyed by digests of keys; a session stands there as one that no key
/// has.
fn absence(id: Uuid) -> Digest {
    let mut digest = *b"a session is not here...........";
    digest[16..].copy_from_slice(id.as_bytes());
    Digest(digest)
}

/// The right to change one session. Hold it for a moment only: never while waiting.
pub struct SessionTurn<'a> {
    cache: &'a Cache,
    id: Uuid,
    stripe: MutexGuard<'a, Stripe>,
}

impl SessionTurn<'_> {
    /// The session as far as it is held here.
    ///
    /// # Errors
    /// When the disk tier cannot be read: nobody can say then.
    pub fn get(&self) -> Answer<Arc<HeldSession>> {
        if let Some(held) = self.cache.hot_session(self.id) {
            return Ok(Some(held));
        }
        let loaded = self.cache.load_session(self.id, &self.stripe);
        loaded.map_err(|error| self.cache.unreadable(&error))
    }

    /// Whether something about it is not known to be in Postgres, and on this disk.
    pub fn is_pinned(&self) -> bool {
        self.stripe.contains_key(&self.id)
    }

    /// Puts what was recorded in force at once, until [`Cache::settle_sessions`].
    pub fn pin(&mut self, session: &Session) {
        let pinned = self.stripe.entry(self.id).or_insert_with(|| session.clone());
        pinned.merge(session);
        self.cache.absent.remove(&absence(self.id));
        // Loaded again by who needs it next: a start pins more than the hot tier holds.
        self.cache.sessions.hot.remove(&self.id);
    }
}

impl Cache {
    /// The hot tier only: no I/O, no lock that a writer holds for long.
    pub fn hot_session(&self, id: Uuid) -> Option<Arc<HeldSession>> {
        let held = self.sessions.hot.get(&id)?;
        let current = held.as_of == self.sessions.reconsidered.load(Ordering::Acquire)
            && held.good_until.is_none_or(|until| self.clock.monotonic() < until);
        current.then_some(held)
    }

    /// Memory, disk, then Postgres within its deadline. `Ok(None)`: neither held here nor known to
    /// Postgres (where the gateway that made it may not have brought it yet).
    ///
    /// # Errors
    /// While Postgres is away, and when the disk tier cannot be read.
    pub async fn find_session(self: &Arc<Self>, id: Uuid) -> Answer<Arc<HeldSession>> {
        if let Some(held) = self.hot_session(id) {
            return Ok(Some(held));
        }
        if let Some(held) = self.session_turn(id).get()? {
            return Ok(Some(held));
        }
        let Some(source) = &self.source else { return Ok(None) };
        if self.absent.holds(&absence(id), self.clock.monotonic()) {
            self.metrics.cache.absent_hits.inc();
            return Ok(None);
        }
        let asked = || {
            let (cache, source) = (self.clone(), source.clone());
            async move {
                cache.metrics.cache.misses.inc();
                let found = source.session(id).await.map_err(|error| {
                    tracing::debug!(%error, "a session could not be looked up");
                    retry_after(&error)
                })?;
                // It is written to sled: not on a thread that answers requests.
                let filled = tokio::task::spawn_blocking(move || cache.fill_session(id, found));
                filled.await.unwrap_or(Err(BUSY))
            }
        };
        let answer = self.fly(&self.sessions.flights, id, asked).await;
        if answer.is_err() {
            self.metrics.cache.undecidable.inc();
        }
        answer
    }

    /// The right to change a session. Blocks for a moment, and on a disk read if it is not hot.
    pub fn session_turn(&self, id: Uuid) -> SessionTurn<'_> {
        SessionTurn { cache: self, id, stripe: self.sessions.stripe(id) }
    }

    /// When sessions of a subject or client (`kind`) were last ended all together.
    ///
    /// # Errors
    /// When the disk tier cannot be read: nobody can say then.
    pub fn not_before(&self, kind: RevocationKind, name: &str) -> Result<Timestamp, Undecidable> {
        let known = self.revoked_at(&self.overlay(), kind, name);
        let known = known.map_err(|error| self.unreadable(&error))?;
        Ok(known.unwrap_or(Timestamp::NEG_INFINITY))
    }

    fn unreadable(&self, error: &StoreError) -> Undecidable {
        self.metrics.cache.disk_errors.inc();
        tracing::error!(%error, "the cache's disk tier cannot be read");
        BUSY
    }

    fn fill_session(&self, id: Uuid, found: Option<Session>) -> Answer<Arc<HeldSession>> {
        let unreadable = |error| self.unreadable(&error);
        let Some(session) = found else {
            self.absent.insert(absence(id), self.clock.monotonic());
            return Ok(None);
        };
        let turn = self.session_turn(id);
        if session.node == self.declared.node {
            self.store.put_session(&session).map_err(unreadable)?;
            return turn.get();
        }
        let until = self.clock.monotonic() + FOREIGN_GOOD_FOR;
        self.hold(session, Some(until)).map(Some).map_err(unreadable)
    }

    /// Memory that is not hot, and disk, under the stripe's lock.
    fn load_session(&self, id: Uuid, stripe: &Stripe) -> Stored<Arc<HeldSession>> {
        let mut session = self.store.session(id)?;
        if let Some(pinned) = stripe.get(&id) {
            match &mut session {
                Some(session) => session.merge(pinned),
                None => session = Some(pinned.clone()),
            }
        }
        session.map(|session| self.hold(session, None)).transpose()
    }

    /// Makes a session hot. Under the stripe's lock.
    fn hold(
        &self,
        session: Session,
        good_until: Option<Duration>,
    ) -> Result<Arc<HeldSession>, StoreError> {
        // Asked before: what is said while this is put together counts as not seen.
        let as_of = self.sessions.reconsidered.load(Ordering::Acquire);
        let overlay = self.overlay();
        let client = self.cell(&overlay, &session.client)?;
        let not_before = self.session_not_before(&overlay, &session)?;
        let held = Arc::new(HeldSession { session, not_before, client, as_of, good_until });
        self.sessions.hot.insert(held.session.id, held.clone());
        Ok(held)
    }

    fn session_not_before(
        &self,
        overlay: &Overlay,
        session: &Session,
    ) -> Result<Timestamp, StoreError> {
        let subject = self.revoked_at(overlay, RevocationKind::Subject, &session.subject)?;
        let client = self.revoked_at(overlay, RevocationKind::Client, &session.client)?;
        Ok(subject.max(client).unwrap_or(Timestamp::NEG_INFINITY))
    }

    /// These are in Postgres: written to the disk tier and synced, then let go of in memory.
    /// Blocks.
    ///
    /// # Errors
    /// When the disk fails; then they stay pinned, and nothing may be removed that holds them.
    pub fn settle_sessions<'a>(
        &self,
        facts: impl Iterator<Item = &'a Session>,
    ) -> Result<(), StoreError> {
        let mut sessions = BTreeMap::<Uuid, Session>::new();
        for fact in facts {
            let merged = sessions.entry(fact.id).or_insert_with(|| fact.clone());
            merged.merge(fact);
        }
        for session in sessions.values_mut() {
            let _turn = self.session_turn(session.id);
            *session = self.store.put_session(session)?;
        }
        self.store.sync()?;
        for (id, settled) in sessions {
            let mut stripe = self.sessions.stripe(id);
            // More may have been said since: that stays.
            if stripe.get(&id).is_some_and(|pinned| settled.covers(pinned)) {
                stripe.remove(&id);
            }
        }
        Ok(())
    }

    /// Up to `limit` sessions held here for good, by id beyond `after`; those of other gateways
    /// are not. Blocks on disk.
    pub fn sessions(
        &self,
        after: Option<Uuid>,
        limit: usize,
        wanted: &dyn Fn(&Session) -> bool,
    ) -> Vec<Session> {
        let mut found = BTreeMap::new();
        for stripe in &self.sessions.stripes {
            let stripe = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            let beyond = stripe.iter().filter(|(id, _)| after.is_none_or(|after| **id > after));
            let beyond = beyond.filter(|(_, pinned)| wanted(pinned));
            found.extend(beyond.map(|(id, pinned)| (*id, pinned.clone())));
            while found.len() > limit {
                found.pop_last();
            }
        }
        let stored = self.store.sessions(after).filter_map(Result::ok);
        for session in stored.filter(|session| wanted(session)).take(limit) {
            found.entry(session.id).and_modify(|known| known.merge(&session)).or_insert(session);
        }
        found.into_values().take(limit).collect()
    }
}
