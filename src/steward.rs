//! What sessions need besides being used: compared with Postgres after a full resync, and removed
//! when they have been over for a while.
//!
//! No feed brings sessions. After a full resync (an empty cache, a restored Postgres, a failover),
//! and when the ledger has moved backwards, those that are homed here are walked by id, page by
//! page: what Postgres knows is taken in, and what it lacks of what is known here is recorded
//! again, to be sent. Both are merged by law, so the walk may be broken off, repeated, and run
//! beside everything else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::cache::Cache;
use crate::clock::SharedClock;
use crate::disk::StoreError;
use crate::journal::{Full, Journal};
use crate::metrics::Metrics;
use crate::model::fact::StateFact;
use crate::model::units::Span;
use crate::model::{Name, Session, Timestamp};
use crate::postgres::{Directory, PostgresError};

/// Sessions read, compared or removed in one step.
const STEP: usize = 1000;
/// Sessions recorded again that may wait in memory until they have settled: then the walk waits.
const WAITING_MAX: usize = 10_000;
/// Steps of cleaning in one round: the rest is left for the next.
const STEPS_MAX: usize = 60;
/// Between two steps, so that others come to their turn.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is asked whether there is something to compare.
const EVERY: Duration = Duration::from_secs(1);
/// How often what is over is removed.
const CLEAN_EVERY: Duration = Duration::from_secs(60);
/// After an error.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a step failed. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum StewardError {
    /// Postgres cannot be asked.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The cache's disk fails.
    #[error("the cache cannot be read or written: {0}")]
    Store(#[from] StoreError),
    /// What Postgres lacks cannot be recorded.
    #[error("what Postgres lacks cannot be recorded: {0}")]
    Full(#[from] Full),
    /// The gateway is stopping, or a thread died.
    #[error("stopped")]
    Stopped,
}

/// What the steward works with.
#[derive(Clone)]
pub struct Steward {
    /// This gateway's name.
    pub node: Name,
    /// Where sessions are held.
    pub cache: Arc<Cache>,
    /// Where those are recorded that Postgres lacks.
    pub journal: Journal,
    /// Rows of Postgres.
    pub directory: Directory,
    /// For how long a session that is over is kept.
    pub kept: Span,
    /// Time.
    pub clock: SharedClock,
    /// Handles.
    pub metrics: Arc<Metrics>,
}

/// What a walk keeps to.
struct Bounds<'a> {
    /// Unsettled sessions, those from before the walk included.
    waiting_max: usize,
    stop: &'a CancellationToken,
}

impl Steward {
    /// Works until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let (mut cleaned, mut failed) = (self.clock.monotonic(), false);
        loop {
            let compared = self.compare_if_due(&stop).await;
            // Once per outage, not once per attempt.
            if let Err(error) = &compared
                && !failed
            {
                tracing::warn!(%error, "sessions are not compared with Postgres now");
            }
            failed = compared.is_err();
            let pause = if failed { PATIENCE } else { EVERY };
            let now = self.clock.monotonic();
            if now.saturating_sub(cleaned) >= CLEAN_EVERY {
                cleaned = now;
                if let Err(error) = self.clean(&stop).await {
                    tracing::warn!(%error, "sessions that are over are not removed now");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Calls off the threads that answer requests.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Cache) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StewardError> {
        let cache = self.cache.clone();
        let called = tokio::task::spawn_blocking(move || call(&cache)).await;
        Ok(called.map_err(|_| StewardError::Stopped)??)
    }

    async fn compare_if_due(&self, stop: &CancellationToken) -> Result<(), StewardError> {
        let Some(doubt) = self.blocking(Cache::sessions_due).await? else { return Ok(()) };
        let again = self.compare(stop).await?;
        self.blocking(move |cache| cache.sessions_compared(doubt)).await?;
        if again > 0 {
            tracing::warn!(
                sessions = again,
                "Postgres lacks what is known of sessions: sent again"
            );
        }
        Ok(())
    }

    /// One walk over all sessions homed here. Returns how many Postgres knew less of.
    ///
    /// # Errors
    /// See [`StewardError`]; what was done until then holds.
    pub async fn compare(&self, stop: &CancellationToken) -> Result<u64, StewardError> {
        let (mut after, mut again) = (Uuid::nil(), 0);
        let bounds = Bounds { waiting_max: self.cache.unsettled_sessions() + WAITING_MAX, stop };
        loop {
            if stop.is_cancelled() {
                return Err(StewardError::Stopped);
            }
            let rows = self.directory.sessions(&self.node, after, STEP).await?;
            // Beyond the last page there may be sessions that only this disk knows.
            self.metrics.tokens.compared.inc_by(rows.len() as u64);
            let last = if rows.len() < STEP { Uuid::max() } else { rows[rows.len() - 1].id };
            again += self.compare_page(after, last, rows, &bounds).await?;
            if last == Uuid::max() {
                return Ok(again);
            }
            after = last;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Those with ids beyond `after` up to and with `last`.
    async fn compare_page(
        &self,
        after: Uuid,
        last: Uuid,
        rows: Vec<Session>,
        bounds: &Bounds<'_>,
    ) -> Result<u64, StewardError> {
        let (over, mut from, mut again) = (self.over_since(), after, 0);
        let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.id, row)).collect();
        loop {
            let held = self.blocking(move |cache| cache.settled_sessions(from, last, STEP)).await?;
            let more = held.len() == STEP;
            from = held.last().map_or(last, |session| session.id);
            let known =
                |session: &Session| rows.get(&session.id).is_some_and(|r| r.covers(session));
            let lacking: Vec<_> = held
                .into_iter()
                .filter(|session| session.node == self.node && session.expires_at > over)
                .filter(|session| !known(session))
                .collect();
            again += lacking.len() as u64;
            self.record(lacking, bounds).await?;
            if !more {
                break;
            }
        }
        self.blocking(move |cache| rows.values().try_for_each(|row| cache.keep_session(row)))
            .await?;
        Ok(again)
    }

    async fn record(&self, lacking: Vec<Session>, bounds: &Bounds<'_>) -> Result<(), StewardError> {
        // Few at a time, each on disk before the next: the journal's bounds are for others too.
        const BATCH: usize = 200;
        for batch in lacking.chunks(BATCH) {
            while self.cache.unsettled_sessions() > bounds.waiting_max {
                if bounds.stop.is_cancelled() {
                    return Err(StewardError::Stopped);
                }
                tokio::time::sleep(PAUSE).await;
            }
            let facts = batch.iter().cloned().map(StateFact::Session).collect();
            let ticket = self.journal.append(facts)?;
            batch.iter().for_each(|session| self.cache.session_turn(session.id).pin(session));
            ticket.durable().await?;
        }
        Ok(())
    }

    /// What expired before is over for long enough.
    fn over_since(&self) -> Timestamp {
        self.clock.now().minus(self.kept.0)
    }

    /// Removes what has been over for a while, in Postgres and on this disk.
    ///
    /// # Errors
    /// See [`StewardError`].
    pub async fn clean(&self, stop: &CancellationToken) -> Result<(), StewardError> {
        let before = self.over_since();
        for _ in 0..STEPS_MAX {
            let removed = self.directory.remove_sessions(&self.node, before, STEP).await?;
            self.metrics.tokens.removed.inc_by(removed);
            if removed < STEP as u64 || stop.is_cancelled() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let mut place = None;
        loop {
            let over = move |session: &Session| session.expires_at < before;
            let step = move |cache: &Cache| cache.forget_sessions(place, STEP, &over);
            let (forgotten, next) = self.blocking(step).await?;
            self.metrics.tokens.forgotten.inc_by(forgotten as u64);
            place = next;
            if place.is_none() || stop.is_cancelled() {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
