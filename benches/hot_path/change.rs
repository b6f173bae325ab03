//! How long a changed policy takes to be in force: from its COMMIT in Postgres to the first
//! decision by it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sqlx::{Connection, PgConnection};

use crate::Effort;
use crate::gateway::Gateway;
use crate::keys;
use crate::report::{Goal, Report, Series, progress};
use crate::support::cluster::Cluster;

/// Changes of one round.
const CHANGES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    runtime.block_on(keys::into_postgres(&database.url, 1, None))?;
    let dir = tempfile::tempdir()?;
    let gateway = Gateway::following(&dir.path().join("data"), &database.url)?;
    let mut conn = runtime.block_on(PgConnection::connect(&database.url))?;
    let key = keys::texts(1)[0];
    let (mut typical, mut slowest) = <(Series, Series)>::default();
    let mut allowed = true;
    for round in 1..=effort.rounds {
        let (mut all, mut worst) = (Series::default(), 0.0_f64);
        for _ in 0..CHANGES {
            allowed = !allowed;
            runtime.block_on(allow(&mut conn, allowed))?;
            let millis = in_force(&gateway, &key, allowed)?.as_secs_f64() * 1000.0;
            all.push(millis);
            worst = worst.max(millis);
        }
        progress(&format!("round {round}: {all} ms"));
        typical.push(all.median());
        slowest.push(worst);
    }
    report.figure("a changed policy in force, median", "ms", &typical, Goal::None);
    let figure = format!("a changed policy in force, slowest of {CHANGES}");
    report.figure(&figure, "ms", &slowest, Goal::AtMost(100.0));
    gateway.stop()
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

fn in_force(gateway: &Gateway, key: &[u8], allowed: bool) -> Result<Duration> {
    let committed = Instant::now();
    let wanted = if allowed { 200 } else { 403 };
    while gateway.ask(key)? != wanted {
        ensure!(committed.elapsed() < PATIENCE, "a change never came into force");
    }
    Ok(committed.elapsed())
}
