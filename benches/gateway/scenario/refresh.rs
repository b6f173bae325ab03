//! Refresh tokens: against the usual way, on a schedule while Postgres is up, frozen or locked, and
//! with a million sessions.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sqlx::{Connection, PgConnection};

use super::field::{Contestant, Field, rates};
use crate::effort::Effort;
use crate::load::closed::Closed;
use crate::load::refreshing::Refreshing;
use crate::load::{Caller, Load};
use crate::product::gateway::{Gateway, Settings};
use crate::product::support::cluster::Cluster;
use crate::report::Report;
use crate::report::goal::Goal;
use crate::report::progress::progress;
use crate::report::series::Series;
use crate::rivals::own::Own;
use crate::stock::sessions::{self, Deployment};

const GATEPOST: &str = "gatepost";
const USUAL: &str = "FOR UPDATE, pool of 10";
const PER_SECOND: u32 = 2_000;

/// How a gateway is started that has these sessions.
fn settings<'a>(url: &'a str, deployment: &'a Deployment) -> Settings<'a> {
    Settings {
        database_url: Some(url),
        token_keys: Some(deployment.document()),
        ..Settings::default()
    }
}

/// As many as there can be; every answer is on disk before it leaves, on both sides.
pub fn throughput(effort: Effort, report: &mut Report) -> Result<()> {
    const CONNECTIONS: usize = 64;
    /// Of each connection.
    const SESSIONS: usize = 100;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::with_fsync(true);
    // Each has its own rows: neither finds the other's generations.
    let (ours, theirs) =
        runtime.block_on(async { (cluster.database().await, cluster.database().await) });
    let deployment = Deployment::new()?;
    for database in [&ours, &theirs] {
        runtime.block_on(sessions::into_postgres(&database.url, CONNECTIONS * SESSIONS))?;
    }
    let dir = tempfile::tempdir()?;
    let gateway = Gateway::start(&dir.path().join("data"), settings(&ours.url, &deployment))?;
    gateway.wait_for("gatepost_cache_revision", 1.0)?;
    let mut field = Field::default();
    field.add(Contestant::own(USUAL, Own::refreshing(&theirs.url)?));
    field.add(Contestant::gateway(GATEPOST, gateway));
    let loads: Vec<Refreshing> = field
        .0
        .iter()
        .map(|one| Refreshing::new(one.address, &deployment, CONNECTIONS, SESSIONS))
        .collect();
    let closed = Closed { span: effort.refresh_span, ..effort.closed(CONNECTIONS) };
    for load in &loads {
        // The first refresh of a session looks it up.
        closed.run(load)?;
    }
    let of = |one: &Contestant| {
        let load = loads.iter().find(|load| load.address == one.address);
        load.expect("each has one")
    };
    let turns = field.turns(effort.rounds, closed, of)?;
    report.contest("refreshes, 64 connections", "/s", &turns);
    if let Some(rounds) = rates(&turns, GATEPOST, USUAL) {
        let figure = "refreshes, 64 connections, against FOR UPDATE on a pool of 10";
        report.ratio(figure, "/s", USUAL, &rounds, Goal::at_least(10.0));
    }
    Ok(())
}

/// A fixed number a second, whatever becomes of them.
pub fn scheduled(effort: Effort, report: &mut Report) -> Result<()> {
    const CONNECTIONS: usize = 200;
    const SESSIONS: usize = 50;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    let deployment = Deployment::new()?;
    runtime.block_on(sessions::into_postgres(&database.url, CONNECTIONS * SESSIONS))?;
    let dir = tempfile::tempdir()?;
    let gateway = Gateway::start(&dir.path().join("data"), settings(&database.url, &deployment))?;
    gateway.wait_for("gatepost_cache_revision", 1.0)?;
    let load = Refreshing::new(gateway.address, &deployment, CONNECTIONS, SESSIONS);
    // Everybody once: the first refresh of a session looks it up.
    effort.open(PER_SECOND, CONNECTIONS, Duration::from_secs(6)).run(&load)?;
    let open = effort.open(PER_SECOND, CONNECTIONS, effort.refresh_span);
    let mut states: [(&str, Series, u64); 3] =
        ["up", "frozen", "its sessions locked"].map(|state| (state, Series::default(), 0));
    for round in 1..=effort.rounds {
        for (state, p99s, errors) in &mut states {
            let lock = match *state {
                "frozen" => {
                    cluster.freeze();
                    None
                }
                "its sessions locked" => Some(runtime.block_on(lock(&database.url))?),
                _ => None,
            };
            let seen = open.run(&load);
            if *state == "frozen" {
                cluster.thaw();
            }
            drop(lock);
            let seen = seen?;
            let all = seen.whole();
            let (p99, failed) = (all.latency.at(99.0), all.failed);
            progress(&format!("round {round}, Postgres {state}: p99 {p99} µs, {failed} failed"));
            if let Some(failure) = seen.failure {
                report.note(format!("Postgres {state}: {failure}"));
            }
            p99s.push(p99 / 1000.0);
            *errors += failed;
        }
    }
    for (state, p99s, errors) in &states {
        let figure = format!("{PER_SECOND} refreshes a second, Postgres {state}");
        report.figure(&format!("{figure}: p99"), "ms", p99s, Goal::at_most(20.0));
        report.once(&format!("{figure}: errors"), "", *errors as f64, Goal::at_most(0.0));
    }
    gateway.stop()
}

/// What the migration did that blocked a team. Dropping the connection ends it.
async fn lock(url: &str) -> Result<PgConnection> {
    let mut conn = PgConnection::connect(url).await?;
    let lock = "BEGIN; LOCK TABLE gatepost.sessions IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut conn).await?;
    Ok(conn)
}

/// Many sessions: brought from Postgres once, and there after a restart without it.
pub fn million(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    let (sessions, deployment) = (effort.million, Deployment::new()?);
    progress(&format!("inserting {sessions} sessions"));
    runtime.block_on(sessions::into_postgres(&database.url, sessions))?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let settings = settings(&database.url, &deployment);
    let gateway = Gateway::start(&data, settings)?;
    let filled = gateway.wait_for("gatepost_token_sessions_compared_total", sessions as f64)?;
    let figure = |what: &str| format!("{sessions} sessions: {what}");
    report.once(&figure("brought from Postgres"), "s", filled.as_secs_f64(), None);
    report.once(&figure("resident after that"), "MiB", gateway.resident_mib()?, None);
    std::thread::sleep(Duration::from_secs(2));
    gateway.stop()?;

    cluster.stop();
    let mut starts = Series::default();
    // More than the hot tier holds.
    let touched = (sessions / 2).min(150_000);
    for round in 0..effort.rounds {
        let started = Instant::now();
        let gateway = Gateway::start(&data, settings)?;
        let number = sessions / (round + 2);
        let one = Refreshing::starting_at(gateway.address, &deployment, number, 1);
        runtime.block_on(async {
            ensure!(one.caller(0).await?.ask().await?, "a session was refused");
            Ok(())
        })?;
        starts.push(started.elapsed().as_secs_f64());
        if round == 0 {
            let load = Refreshing::starting_at(gateway.address, &deployment, 0, touched);
            runtime.block_on(async {
                let mut client = load.caller(0).await?;
                for _ in 0..touched {
                    ensure!(client.ask().await?, "refused: {}", client.last_answer());
                }
                Ok(())
            })?;
            let figure = figure(&format!("resident after {touched} refreshes in an outage"));
            report.once(&figure, "MiB", gateway.resident_mib()?, None);
        }
        gateway.stop()?;
    }
    let figure = figure("restart to the first refresh, Postgres stopped");
    report.figure(&figure, "s", &starts, Goal::at_most(2.0));
    Ok(())
}
