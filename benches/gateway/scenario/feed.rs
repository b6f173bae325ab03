//! How long a change in Postgres takes to be in force: from its COMMIT to the first decision by it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sqlx::{Connection, PgConnection};

use crate::effort::Effort;
use crate::load::latency::Latency;
use crate::product::gateway::Gateway;
use crate::product::support::cluster::Cluster;
use crate::report::Report;
use crate::report::chart::Chart;
use crate::report::goal::Goal;
use crate::report::progress::progress;
use crate::stock::keys;

/// Changes of each kind in one round.
const CHANGES: usize = 60;
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two changes: each comes by itself.
const PAUSE: Duration = Duration::from_millis(5);

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    runtime.block_on(keys::into_postgres(&database.url, 1, None))?;
    let dir = tempfile::tempdir()?;
    let gateway = Gateway::following(&dir.path().join("data"), &database.url)?;
    let mut conn = runtime.block_on(PgConnection::connect(&database.url))?;
    let key = keys::texts(1)[0];
    let (mut of_keys, mut of_policies) = <(Latency, Latency)>::default();
    ensure!(gateway.ask(&key)? == 200, "a known key was refused");
    for round in 1..=effort.rounds {
        progress(&format!("round {round}/{}", effort.rounds));
        for number in 0..CHANGES {
            let on = number % 2 == 1;
            runtime.block_on(enable(&mut conn, on))?;
            of_keys.record(in_force(&gateway, &key, if on { 200 } else { 401 })?);
        }
        for number in 0..CHANGES {
            let on = number % 2 == 1;
            runtime.block_on(allow(&mut conn, on))?;
            of_policies.record(in_force(&gateway, &key, if on { 200 } else { 403 })?);
        }
    }
    for (what, latency) in [("key", &of_keys), ("policy", &of_policies)] {
        let figure = |end: &str| format!("a changed {what} in force, {end} of {}", latency.count());
        let millis = |percent| latency.at(percent) / 1000.0;
        report.once(&figure("p50"), "ms", millis(50.0), None);
        report.once(&figure("p99"), "ms", millis(99.0), Goal::at_most(20.0));
        report.once(&figure("slowest"), "ms", millis(100.0), Goal::at_most(100.0));
    }
    let lines = [("a key", &of_keys), ("a policy", &of_policies)];
    report.chart(Chart::latencies("from COMMIT to in force", lines));
    gateway.stop()
}

/// Commits that the key may be used, or may not.
async fn enable(conn: &mut PgConnection, enabled: bool) -> Result<()> {
    let update = "UPDATE gatepost.api_keys SET enabled = $1";
    sqlx::query(update).bind(enabled).execute(conn).await?;
    Ok(())
}

/// Commits a default policy that allows what is asked for, or does not.
async fn allow(conn: &mut PgConnection, allowed: bool) -> Result<()> {
    let right = if allowed { "gateway.*" } else { "orders.read" };
    let upsert = "INSERT INTO gatepost.policies (name, spec) \
                  VALUES ('default', jsonb_build_object('rights', jsonb_build_array($1::text))) \
                  ON CONFLICT (name) DO UPDATE SET spec = excluded.spec";
    sqlx::query(upsert).bind(right).execute(conn).await?;
    Ok(())
}

fn in_force(gateway: &Gateway, key: &[u8], wanted: u16) -> Result<Duration> {
    let committed = Instant::now();
    while gateway.ask(key)? != wanted {
        ensure!(committed.elapsed() < PATIENCE, "a change never came into force");
    }
    let took = committed.elapsed();
    std::thread::sleep(PAUSE);
    Ok(took)
}
