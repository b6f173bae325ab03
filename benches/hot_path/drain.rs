//! How fast the journal drains into a local Postgres, and what a hot counter costs there.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use gatepost::cache::{self, Cache, Declared};
use gatepost::clock::{Clock, SystemClock};
use gatepost::drainer::{self, Drainer};
use gatepost::entropy::SystemEntropy;
use gatepost::journal::{self, Journal};
use gatepost::metrics::Metrics;
use gatepost::model::fact::{Counter, Counts};
use gatepost::model::units::Span;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::Effort;
use crate::report::{Goal, Report, Series, progress};
use crate::support::cluster::Cluster;

/// Each counter has a row in the hourly table and in the totals of its client, table and key.
const TABLES: u64 = 4;
const HOT_REQUESTS: usize = 1_000_000;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let cluster = Cluster::dedicated();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut rates, mut hot) = (Series::default(), Series::default());
    for round in 1..=effort.rounds.min(3) {
        let dir = tempfile::tempdir()?;
        runtime.block_on(async {
            let database = cluster.database().await;
            let parts = Parts::open(dir.path(), &database.url)?;
            let (rows, seconds) = parts.drain(effort.counters, effort.counters).await?;
            ensure!(rows >= effort.counters as u64, "only {rows} rows");
            #[expect(clippy::cast_precision_loss, reason = "rows are far below 2^53")]
            let rate = rows as f64 / seconds;
            progress(&format!("round {round}: {rows} rows in {seconds:.2} s"));
            rates.push(rate);
            let before = parts.metrics.drain.batches.get();
            let (rows, _) = parts.drain(HOT_REQUESTS, 1).await?;
            let batches = parts.metrics.drain.batches.get() - before;
            #[expect(clippy::cast_precision_loss, reason = "a few")]
            hot.push((rows / TABLES) as f64 / batches as f64);
            parts.stop.cancel();
            parts.tasks.close();
            parts.tasks.wait().await;
            parts.journal.shutdown()?;
            anyhow::Ok(())
        })?;
    }
    let figure = format!("drain, {} distinct counters", effort.counters);
    report.figure(&figure, "rows/s", &rates, Goal::AtLeast(100_000.0));
    report.figure("drain, one hot counter", "rows per table and batch", &hot, Goal::AtMost(1.0));
    Ok(())
}

struct Parts {
    journal: Journal,
    drainer: Drainer,
    metrics: Arc<Metrics>,
    clock: Arc<SystemClock>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Parts {
    fn open(data: &Path, url: &str) -> Result<Self> {
        let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
        let (metrics, tasks) = (Arc::new(Metrics::new()), TaskTracker::new());
        let (journal, _) = Journal::open(
            data,
            journal::Config::default(),
            clock.clone(),
            entropy.clone(),
            metrics.clone(),
        )?;
        let cache = Cache::open(
            data,
            cache::Config::default(),
            Declared::default(),
            None,
            clock.clone(),
            metrics.clone(),
            tasks.clone(),
        )?;
        // Only when asked.
        let config = drainer::Config { interval: Span::secs(3600), ..drainer::Config::default() };
        let sink = crate::support::postgres::sink(url, "bench");
        let (drainer, worker) = drainer::new(drainer::Parts {
            journal: journal.clone(),
            cache,
            sink,
            config,
            clock: clock.clone(),
            entropy,
            metrics: metrics.clone(),
        });
        let stop = CancellationToken::new();
        tasks.spawn(worker.run(stop.clone()));
        Ok(Self { journal, drainer, metrics, clock, stop, tasks })
    }

    /// Counts `requests` requests over `distinct` keys, then drains; rows that were sent, and how
    /// long it took from the last count on disk.
    async fn drain(&self, requests: usize, distinct: usize) -> Result<(u64, f64)> {
        let now = self.clock.now();
        let counts = Counts { requests: 1, succeeded: 1, last_seen: now, ..Counts::ZERO };
        for request in 0..requests {
            let number = request % distinct;
            let counter = Counter {
                client: format!("client-{}", number % 100).into(),
                key_id: Uuid::from_u128(number as u128),
                table: "".into(),
                operation: "access".into(),
                hour: now.hour(),
            };
            let room = self.journal.reserve()?;
            // Under `interval` nobody waits for it.
            let _unawaited = self.journal.count(room, counter, counts);
        }
        self.journal.flush().durable().await?;
        let before = self.metrics.drain.rows.get();
        let started = Instant::now();
        self.drainer.drain_now().await.map_err(|error| anyhow!(error))?;
        let seconds = started.elapsed().as_secs_f64();
        Ok((self.metrics.drain.rows.get() - before, seconds))
    }
}
