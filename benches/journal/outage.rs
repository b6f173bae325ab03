//! A long outage: Postgres is away while much is counted, then it comes back.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gatepost::clock::Clock;
use gatepost::journal::{Config, Journal};
use gatepost::model::fact::Lane;
use gatepost::model::units::Span;

use crate::Effort;
use crate::load::{Dice, counters, one};
use crate::parts::Parts;
use crate::process::resident_mib;
use crate::report::{Goal, Report, Series, progress};
use crate::support::cluster::Cluster;

const COUNTERS: usize = 10_000;
const MIB: f64 = 1024.0 * 1024.0;
/// Segments that may be left: the one that is written, and the one before it.
const SEGMENTS_LEFT: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the journal is looked at.
const LOOK: Duration = Duration::from_millis(200);

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let cluster = Cluster::dedicated();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = tempfile::tempdir()?;
    runtime.block_on(async {
        let database = cluster.database().await;
        cluster.stop();
        let config = Config {
            segment_max_age: Span::secs(5),
            retention: Span::secs(1),
            ..Config::default()
        };
        let parts = Parts::open(dir.path(), &database.url, config, Span::millis(500))?;
        let own = std::process::id();
        let counters = counters(COUNTERS);
        // What every start takes is not growth.
        count(&parts, &counters, COUNTERS as u64)?;
        parts.journal.flush().durable().await?;
        let before = resident_mib(own)?;

        let (started, mut next_look) = (Instant::now(), LOOK);
        let (mut bytes, mut memory, mut counted) = (0.0_f64, 0.0_f64, 0);
        while counted < effort.outage_requests {
            let elapsed = started.elapsed();
            let due = (elapsed.as_secs_f64() * effort.outage_per_second as f64) as u64;
            counted += count(&parts, &counters, due.min(effort.outage_requests) - counted)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
            if elapsed >= next_look {
                next_look = elapsed + LOOK;
                bytes = bytes.max(parts.journal.status().bytes as f64 / MIB);
                memory = memory.max(resident_mib(own)? - before);
            }
        }
        parts.journal.flush().durable().await?;
        let left = parts.journal.status().bytes as f64 / MIB;
        progress(&format!(
            "{counted} requests in {:.0} s; {left:.0} MiB in {} segments",
            started.elapsed().as_secs_f64(),
            usage_segments(&parts.journal)
        ));

        cluster.start();
        let returned = Instant::now();
        until(returned, || parts.journal.status().lanes.iter().all(|l| l.unsettled_facts == 0))
            .await?;
        let settled = returned.elapsed().as_secs_f64();
        memory = memory.max(resident_mib(own)? - before);
        let requests = database.number("SELECT sum(requests)::bigint FROM gatepost.key_totals");
        let (applied, issued) = (requests.await, counted + COUNTERS as u64);
        ensure!(u64::try_from(applied)? == issued, "{applied} applied, {issued} issued");
        until(returned, || usage_segments(&parts.journal) <= SEGMENTS_LEFT).await?;
        let after = parts.journal.status().bytes as f64 / MIB;
        progress(&format!("after {:.1} s: {after:.0} MiB", returned.elapsed().as_secs_f64()));

        let single = |value: f64| {
            let mut series = Series::default();
            series.push(value);
            series
        };
        let figure = |name: &str| format!("outage of {} requests: {name}", effort.outage_requests);
        let mut tell = |name: &str, unit: &str, value: f64, most: f64| {
            report.figure(&figure(name), unit, &single(value), Goal::AtMost(most));
        };
        tell("journal on disk, at most", "MiB", bytes.max(left), 200.0);
        tell("growth in memory, at most", "MiB", memory, 150.0);
        tell("settled after its return", "s", settled, 10.0);
        tell("left of the journal", "segments", usage_segments(&parts.journal) as f64, 2.0);
        parts.end().await
    })
}

/// Counts `requests` on counters at random.
fn count(parts: &Parts, counters: &[gatepost::model::fact::Counter], requests: u64) -> Result<u64> {
    let now = parts.clock.now();
    let mut dice = Dice(now.0.unsigned_abs());
    for _ in 0..requests {
        let counter = counters[dice.below(counters.len())].clone();
        // Under `interval` nobody waits for it.
        let _unawaited = parts.journal.count(parts.journal.reserve()?, counter, one(now));
    }
    Ok(requests)
}

fn usage_segments(journal: &Journal) -> u64 {
    journal.segments(Lane::Usage).len() as u64
}

async fn until(since: Instant, done: impl Fn() -> bool) -> Result<()> {
    while !done() {
        ensure!(since.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
