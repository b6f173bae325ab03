//! How fast the journal drains into a local Postgres, beside `psql` that brings the same rows; and
//! what a hot counter costs there.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use gatepost::clock::Clock;
use gatepost::journal;
use gatepost::model::fact::{Counter, Counts};
use gatepost::model::units::Span;
use uuid::Uuid;

use crate::effort::Effort;
use crate::product::parts::Parts;
use crate::product::support::cluster::Cluster;
use crate::report::Report;
use crate::report::goal::Goal;
use crate::report::progress::progress;
use crate::report::series::{Rounds, Series};
use crate::rivals::program::installed;

/// Each counter has a row in the hourly table and in the totals of its client, table and key.
const TABLES: u64 = 4;
const HOT_REQUESTS: usize = 1_000_000;
const CLIENTS: usize = 100;
/// Counters in one transaction, here and there.
const BATCH: usize = 5_000;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    const CORES: &str = "Postgres on the same cores: it sorts and inserts while the gateway reads \
        and decodes";
    let cluster = Cluster::dedicated();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let psql = installed("psql");
    let (mut rates, mut hot) = (Series::default(), Series::default());
    let (mut unnest, mut copy) = <(Rounds, Rounds)>::default();
    let dir = tempfile::tempdir()?;
    let (upserts, raw) = (dir.path().join("upserts.sql"), dir.path().join("copy.sql"));
    std::fs::write(&upserts, sorted(effort.counters))?;
    std::fs::write(&raw, copied(effort.counters * 2))?;
    for round in 1..=effort.rounds.min(3) {
        let dir = tempfile::tempdir()?;
        let rate = runtime.block_on(async {
            let database = cluster.database().await;
            let config = journal::Config::default();
            // Only when asked.
            let parts = Parts::open(dir.path(), &database.url, config, Span::secs(3600))?;
            let (rows, seconds) = drain(&parts, effort.counters, effort.counters).await?;
            ensure!(rows >= effort.counters as u64, "only {rows} rows");
            progress(&format!("round {round}: {rows} rows in {seconds:.2} s"));
            let before = parts.metrics.drain.batches.get();
            let (hot_rows, _) = drain(&parts, HOT_REQUESTS, 1).await?;
            let batches = parts.metrics.drain.batches.get() - before;
            ensure!(hot_rows > 0 && batches > 0, "the hot counter was not drained");
            hot.push(hot_rows as f64 / TABLES as f64 / batches as f64);
            parts.end().await?;
            Ok::<_, anyhow::Error>(rows as f64 / seconds)
        })?;
        rates.push(rate);
        if let Some(psql) = &psql {
            let rows = (effort.counters * 2) as f64;
            for (script, rounds) in [(&upserts, &mut unnest), (&raw, &mut copy)] {
                let database = runtime.block_on(cluster.database());
                rounds.push(rate, rows / brought(psql, &database.url, script)?);
            }
        }
    }
    let figure = format!("drain, {} distinct counters", effort.counters);
    let goal = |goal: Option<Goal>| goal.and_then(|goal| goal.bound_by(CORES));
    report.figure(&figure, "rows/s", &rates, goal(Goal::at_least(100_000.0)));
    report.figure("drain, one hot counter", "rows per table and batch", &hot, Goal::at_most(1.0));
    if psql.is_none() {
        report.note("not installed: psql, which brings the same rows");
        return Ok(());
    }
    let other = "sorted unnest by psql";
    report.ratio(
        &format!("{figure}, against"),
        "rows/s",
        other,
        &unnest,
        goal(Goal::at_least(0.8)),
    );
    let other = "COPY into a bare table";
    report.ratio(&format!("{figure}, against"), "rows/s", other, &copy, None);
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
            client: format!("client-{}", number % CLIENTS).into(),
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

/// Runs a script; how many seconds it took.
fn brought(psql: &Path, url: &str, script: &Path) -> Result<f64> {
    let mut command = Command::new(psql);
    command.args(["-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", url, "-f"]).arg(script);
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output().context("psql")?;
    ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    Ok(started.elapsed().as_secs_f64())
}

/// The same two large tables, batch by batch, each sorted: what an operator would write by hand.
/// (Without totals of clients and tables, without a ledger.)
fn sorted(counters: usize) -> String {
    let mut script = String::new();
    for from in (0..counters).step_by(BATCH) {
        let numbers = from..(from + BATCH).min(counters);
        let list = |of: &dyn Fn(usize) -> String| {
            let all: Vec<String> = numbers.clone().map(of).collect();
            format!("'{{{}}}'", all.join(","))
        };
        let keys = list(&|number| Uuid::from_u128(number as u128).to_string());
        let clients = list(&|number| format!("client-{}", number % CLIENTS));
        let ones = list(&|_| "1".to_owned());
        script += &format!(
            "BEGIN;\n\
             INSERT INTO gatepost.hourly_totals AS t (hour, key_id, client_name, table_name, \
             operation, node_id, requests, succeeded) \
             SELECT date_trunc('hour', now()), u.key, u.client, '', 'access', 'psql', u.n, u.n \
             FROM unnest({keys}::uuid[], {clients}::text[], {ones}::bigint[]) \
             AS u (key, client, n) \
             ORDER BY u.key, u.client COLLATE \"C\" \
             ON CONFLICT (hour, key_id, client_name, table_name, operation, node_id) DO UPDATE \
             SET requests = t.requests + excluded.requests, \
             succeeded = t.succeeded + excluded.succeeded;\n\
             INSERT INTO gatepost.key_totals AS t (key_id, node_id, requests, last_used_at) \
             SELECT u.key, 'psql', u.n, now() FROM unnest({keys}::uuid[], {ones}::bigint[]) \
             AS u (key, n) ORDER BY u.key ON CONFLICT (key_id, node_id) DO UPDATE \
             SET requests = t.requests + excluded.requests;\nCOMMIT;\n"
        );
    }
    script
}

/// As many rows into a table without a key: what Postgres can take at all.
fn copied(rows: usize) -> String {
    let mut script = String::from(
        "CREATE TABLE public.raw (hour timestamptz, key_id uuid, client_name text, \
         table_name text, operation text, node_id text, requests bigint, succeeded bigint);\n\
         COPY public.raw FROM STDIN;\n",
    );
    for number in 0..rows {
        let (key, client) = (Uuid::from_u128(number as u128), number % CLIENTS);
        script +=
            &format!("2026-01-01 00:00:00+00\t{key}\tclient-{client}\t\taccess\tpsql\t1\t1\n");
    }
    script + "\\.\n"
}
