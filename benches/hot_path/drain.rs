//! How fast the journal drains into a local Postgres, and what a hot counter costs there.

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use gatepost::clock::Clock;
use gatepost::journal;
use gatepost::model::fact::{Counter, Counts};
use gatepost::model::units::Span;
use uuid::Uuid;

use crate::Effort;
use crate::parts::Parts;
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
            let config = journal::Config::default();
            // Only when asked.
            let parts = Parts::open(dir.path(), &database.url, config, Span::secs(3600))?;
            let (rows, seconds) = drain(&parts, effort.counters, effort.counters).await?;
            ensure!(rows >= effort.counters as u64, "only {rows} rows");
            #[expect(clippy::cast_precision_loss, reason = "rows are far below 2^53")]
            let rate = rows as f64 / seconds;
            progress(&format!("round {round}: {rows} rows in {seconds:.2} s"));
            rates.push(rate);
            let before = parts.metrics.drain.batches.get();
            let (rows, _) = drain(&parts, HOT_REQUESTS, 1).await?;
            let batches = parts.metrics.drain.batches.get() - before;
            #[expect(clippy::cast_precision_loss, reason = "a few")]
            hot.push((rows / TABLES) as f64 / batches as f64);
            parts.end().await
        })?;
    }
    let figure = format!("drain, {} distinct counters", effort.counters);
    report.figure(&figure, "rows/s", &rates, Goal::AtLeast(100_000.0));
    report.figure("drain, one hot counter", "rows per table and batch", &hot, Goal::AtMost(1.0));
    Ok(())
}

/// Counts `requests` requests over `distinct` keys, then drains; rows that were sent, and how long
/// it took from the last count on disk.
async fn drain(parts: &Parts, requests: usize, distinct: usize) -> Result<(u64, f64)> {
    let now = parts.clock.now();
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
        let room = parts.journal.reserve()?;
        // Under `interval` nobody waits for it.
        let _unawaited = parts.journal.count(room, counter, counts);
    }
    parts.journal.flush().durable().await?;
    let before = parts.metrics.drain.rows.get();
    let started = Instant::now();
    parts.drainer.drain_now().await.map_err(|error| anyhow!(error))?;
    let seconds = started.elapsed().as_secs_f64();
    Ok((parts.metrics.drain.rows.get() - before, seconds))
}
