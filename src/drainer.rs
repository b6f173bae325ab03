//! The drainer: journal → Postgres, in large batches, exactly once.
//!
//! What is applied is decided by the ledger in Postgres. After any error the worker is in doubt: it
//! opens a new connection and reads the ledger before it sends anything again.

mod gather;
mod ledger;
mod lost;
mod pace;
mod quotas;
mod settle;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::Cache;
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::journal::{Journal, SegmentError};
use crate::metrics::Metrics;
use crate::model::fact::Lane;
use crate::model::units::Span;
use crate::postgres::sink::{Sink, SinkError};
use gather::gather;
use lost::Remembered;
use pace::{PROBE, Paces};
use quotas::Quotas;
use settle::{Awaiting, Sessions};

pub use lost::Lost;
pub use quotas::QuotaListener;

/// `[drain]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time between drains.
    pub interval: Span,
    /// Facts in one transaction; of a backlog of usage up to four times as many distinct counters.
    /// The last page read may exceed it a little.
    pub batch_rows: usize,
    /// The client-side deadline of one transaction; beyond it the connection is abandoned, and the
    /// next batch is half as large.
    pub deadline: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: Span::millis(500), batch_rows: 5000, deadline: Span::secs(10) }
    }
}

/// What `status` says of the drain.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DrainStatus {
    /// Seconds since the last transaction committed.
    pub last_commit_seconds: Option<f64>,
    /// The last error, until a pass succeeds again.
    pub last_error: Option<String>,
    /// Chunks that wait.
    pub pending_chunks: u64,
    /// Facts that Postgres refused and that have a dead letter, since the start.
    pub dead_letters: u64,
    /// What a ledger that moved backwards has lost for good, since the start; the newest.
    pub lost: Vec<Lost>,
    /// Whether more than that may be lost, of streams that are not remembered any more.
    pub lost_at_least: bool,
}

/// Why a pass ended early. The next one begins by reading the ledger.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// Postgres refused, failed, or was not heard from again.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] SegmentError),
    /// Another handle keeps a segment; the others were drained.
    #[error("a segment of the journal is held by another handle; it will be tried again")]
    Held,
    /// The gateway is stopping.
    #[error("the drainer has stopped")]
    Stopped,
}

/// Shortest pause after a failure; doubles up to [`PAUSE_MAX`], with full jitter.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// How often the ledger is read although nothing failed: it may have moved backwards.
const LEDGER_EVERY: Duration = Duration::from_secs(60);
/// The bound on callers of [`Drainer::drain_now`] who wait.
const REQUESTS_MAX: usize = 16;

#[derive(Debug, Default)]
struct Told {
    last_commit: Option<Duration>,
    last_error: Option<String>,
    dead_letters: u64,
    lost: Vec<Lost>,
    lost_at_least: bool,
}

/// A handle to the running drainer.
#[derive(Clone)]
pub struct Drainer {
    journal: Journal,
    told: Arc<Mutex<Told>>,
    clock: SharedClock,
    requests: mpsc::Sender<oneshot::Sender<Result<(), String>>>,
}

impl Drainer {
    /// For `status`.
    pub fn status(&self) -> DrainStatus {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.monotonic();
        DrainStatus {
            last_commit_seconds: told.last_commit.map(|at| (now - at).as_secs_f64()),
            last_error: told.last_error.clone(),
            pending_chunks: pending_chunks(&self.journal),
            dead_letters: told.dead_letters,
            lost: told.lost.clone(),
            lost_at_least: told.lost_at_least,
        }
    }

    /// Drains everything recorded until now.
    ///
    /// # Errors
    /// When the pass fails, with the reason; what is left is tried again by itself.
    pub async fn drain_now(&self) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let stopped = || DrainError::Stopped.to_string();
        self.requests.send(answer).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

fn pending_chunks(journal: &Journal) -> u64 {
    let segments = Lane::ALL.into_iter().flat_map(|lane| journal.segments(lane));
    segments.map(|s| s.durable_seq().saturating_sub(s.applied_seq())).sum()
}

/// The task behind [`Drainer`].
pub struct Worker {
    journal: Journal,
    cache: Arc<Cache>,
    sink: Sink,
    config: Config,
    clock: SharedClock,
    entropy: SharedEntropy,
    metrics: Arc<Metrics>,
    told: Arc<Mutex<Told>>,
    requests: mpsc::Receiver<oneshot::Sender<Result<(), String>>>,
    awaiting: Vec<Awaiting>,
    sessions: Vec<Sessions>,
    quotas: Quotas,
    remembered: Remembered,
    /// When the ledger was last read; `None` while in doubt.
    certain_since: Option<Duration>,
    paces: Paces,
    /// Nothing was applied since a failure, or the start: Postgres may answer and take nothing.
    /// Whatever is sent is marked, and not merged any more: so only a little of one stream is.
    probing: bool,
    /// A segment could not be read in this pass, because another handle has it.
    held: bool,
    /// Another reason for which one could not be read: the first of this pass.
    trouble: Option<SegmentError>,
    /// What blocks, on threads of its own.
    threads: TaskTracker,
}

/// What the drainer is built of.
pub struct Parts {
    /// Where facts come from.
    pub journal: Journal,
    /// Whose overlay lets go of settled facts.
    pub cache: Arc<Cache>,
    /// Where they go.
    pub sink: Sink,
    /// `[drain]`
    pub config: Config,
    /// Time.
    pub clock: SharedClock,
    /// Jitter.
    pub entropy: SharedEntropy,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Who is told what Postgres has confirmed of quotas.
    pub listener: Arc<dyn QuotaListener>,
}

/// Makes the handle and the task that must be run for it.
pub fn new(parts: Parts) -> (Drainer, Worker) {
    let (sender, requests) = mpsc::channel(REQUESTS_MAX);
    let told = Arc::<Mutex<Told>>::default();
    let Parts { journal, cache, sink, config, clock, entropy, metrics, listener } = parts;
    let drainer = Drainer {
        journal: journal.clone(),
        told: told.clone(),
        clock: clock.clone(),
        requests: sender,
    };
    let paces = Paces::new(config.batch_rows, config.deadline.0);
    let remembered = Remembered::new(journal.remembered());
    let worker = Worker {
        journal,
        cache,
        sink,
        config,
        clock,
        entropy,
        metrics,
        told,
        requests,
        awaiting: Vec::new(),
        sessions: Vec::new(),
        quotas: Quotas::new(listener),
        remembered,
        certain_since: None,
        paces,
        probing: true,
        held: false,
        trouble: None,
        threads: TaskTracker::new(),
    };
    (drainer, worker)
}

impl Worker {
    /// Drains until told to stop. Dropping a pass is safe: its connection goes with it, and what
    /// became of its transaction is read from the ledger. What it left behind on threads is waited
    /// for: the next process finds nobody at work in the data directory.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.drain_until(shutdown).await;
        self.threads.close();
        self.threads.wait().await;
    }

    async fn drain_until(&mut self, shutdown: CancellationToken) {
        let mut failures = 0;
        loop {
            let pause = match failures {
                0 => self.config.interval.0,
                n => self.entropy.jitter((PAUSE_MIN * 2_u32.saturating_pow(n)).min(PAUSE_MAX)),
            };
            let asked = tokio::select! {
                () = shutdown.cancelled() => return,
                // (Without handles nobody asks any more, and the drain goes on by itself.)
                Some(asked) = self.requests.recv() => Some(asked),
                () = tokio::time::sleep(pause) => None,
            };
            let passed = tokio::select! {
                () = shutdown.cancelled() => return,
                passed = self.asked_pass(asked.is_some()) => passed,
            };
            failures = if passed.is_ok() { 0 } else { (failures + 1).min(6) };
            self.tell(&passed);
            if let Some(asked) = asked {
                // The caller may have left meanwhile.
                drop(asked.send(passed.map_err(|error| error.to_string())));
            }
        }
    }

    fn tell(&mut self, passed: &Result<(), DrainError>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let error = passed.as_ref().err().map(ToString::to_string);
        if let Err(failed) = passed {
            self.metrics.drain.failures.inc();
            self.certain_since = None;
            if matches!(failed, DrainError::Sink(SinkError::Failed(_) | SinkError::Unknown(_))) {
                self.probing = true;
            }
            // Once per outage, not once per attempt.
            if told.last_error.is_none() {
                tracing::warn!(error, "drain paused; facts stay in the journal");
            }
        } else if told.last_error.is_some() {
            tracing::info!("drain resumed");
        }
        told.last_error = error;
        let pending = i64::try_from(pending_chunks(&self.journal)).unwrap_or(i64::MAX);
        self.metrics.drain.pending_chunks.set(pending);
    }

    async fn asked_pass(&mut self, asked: bool) -> Result<(), DrainError> {
        if asked && self.journal.flush().durable().await.is_err() {
            tracing::warn!("the journal cannot commit; draining what it committed before");
        }
        self.pass().await
    }

    /// Sends everything that is durable: state before usage before events.
    async fn pass(&mut self) -> Result<(), DrainError> {
        let now = self.clock.monotonic();
        if self.certain_since.is_none_or(|since| now.saturating_sub(since) >= LEDGER_EVERY) {
            self.read_ledger().await?;
        }
        // By turns: however much usage there is, a revocation does not wait behind all of it. And
        // no further than what there was: on a slow way there would always be something new.
        self.held = false;
        self.trouble = None;
        self.learn_quotas().await?;
        let mut behind = true;
        while behind {
            behind = false;
            for lane in Lane::ALL {
                behind |= self.drain_batch(lane).await?;
            }
            self.settle_quotas().await?;
            self.settle().await;
        }
        match self.trouble.take() {
            Some(error) => Err(error.into()),
            None if self.held => Err(DrainError::Held),
            None => Ok(()),
        }
    }

    /// Sends one batch of a lane; whether it had to leave something behind.
    async fn drain_batch(&mut self, lane: Lane) -> Result<bool, DrainError> {
        let bounds = if self.probing { PROBE } else { self.paces.bounds(lane) };
        let (journal, cache) = (self.journal.clone(), self.cache.clone());
        let gather = move || gather(&journal, lane, bounds, &|| cache.pinned());
        let gathered = self.threads.spawn_blocking(gather);
        let mut gathered = gathered.await.map_err(|_| DrainError::Stopped)??;
        self.held |= gathered.held;
        self.trouble = self.trouble.take().or(gathered.trouble.take());
        if gathered.segments.is_empty() {
            return Ok(!gathered.whole);
        }
        let started = self.clock.monotonic();
        let applied = match self.sink.apply(&gathered.batch).await {
            Err(SinkError::Cloned(stream)) => {
                self.set_aside(&gathered, stream);
                return Ok(true);
            }
            Err(error) => {
                if matches!(error, SinkError::Failed(_) | SinkError::Unknown(_)) {
                    self.paces.failed(lane);
                }
                return Err(error.into());
            }
            Ok(applied) => applied,
        };
        let now = self.clock.monotonic();
        self.metrics.drain.batches.inc();
        self.metrics.drain.rows.inc_by(applied.rows);
        self.metrics.drain.duration.observe((now - started).as_secs_f64());
        self.told.lock().unwrap_or_else(PoisonError::into_inner).last_commit = Some(now);
        self.probing = false;
        self.paces.applied(lane, gathered.size(), now - started);
        let whole = gathered.whole;
        if lane == Lane::Quota {
            self.quotas.sent(&gathered);
        }
        self.applied(gathered, applied.refused);
        Ok(!whole)
    }
}
