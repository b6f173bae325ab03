//! A fixed number of refreshes a second, whatever becomes of them: latency counts from the moment
//! at which each should have been sent, so that a stall costs all who came in it.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use crate::Effort;
use crate::client::Client;
use crate::gateway::{Gateway, Settings};
use crate::report::{Goal, Report, Series, progress};
use crate::sessions::{self, Deployment};
use crate::support::cluster::Cluster;

const PER_SECOND: u32 = 2_000;
const CONNECTIONS: usize = 200;
/// Of each connection.
const SESSIONS: usize = 50;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    let deployment = Deployment::new()?;
    runtime.block_on(sessions::into_postgres(&database.url, CONNECTIONS * SESSIONS))?;
    let dir = tempfile::tempdir()?;
    let settings = Settings {
        database_url: Some(&database.url),
        token_keys: Some(deployment.document()),
        ..Settings::default()
    };
    let gateway = Gateway::start(&dir.path().join("data"), settings)?;
    gateway.wait_for("gatepost_cache_revision", 1.0)?;
    let mut clients = Vec::new();
    for connection in 0..CONNECTIONS {
        let own = connection * SESSIONS..(connection + 1) * SESSIONS;
        let tokens = own.map(|number| deployment.token(number)).collect();
        clients.push(runtime.block_on(Client::connect(gateway.address, tokens))?);
    }
    // Everybody once: the first refresh of a session looks it up.
    let span = Duration::from_secs(8).max(effort.span);
    drop(runtime.block_on(refresh(&mut clients, span))?);
    let mut series: [(&str, Series, f64); 3] =
        ["up", "frozen", "sessions locked"].map(|state| (state, Series::default(), 0.0));
    for round in 1..=effort.rounds {
        for (state, p99s, errors) in &mut series {
            let lock = match *state {
                "frozen" => {
                    cluster.freeze();
                    None
                }
                "sessions locked" => Some(runtime.block_on(lock(&database.url))?),
                _ => None,
            };
            let seen = runtime.block_on(refresh(&mut clients, effort.span));
            if *state == "frozen" {
                cluster.thaw();
            }
            drop(lock);
            let seen = seen?;
            progress(&format!(
                "round {round}, Postgres {state}: p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms, \
                 {} errors of {}",
                seen.at(50),
                seen.at(99),
                seen.at(100),
                seen.errors,
                seen.asked()
            ));
            p99s.push(seen.at(99));
            *errors += f64::from(seen.errors);
        }
    }
    for (state, p99s, errors) in &series {
        let figure = format!("{PER_SECOND} refreshes a second, Postgres {state}: p99");
        report.figure(&figure, "ms", p99s, Goal::AtMost(20.0));
        let mut count = Series::default();
        count.push(*errors);
        let figure = format!("{PER_SECOND} refreshes a second, Postgres {state}: errors");
        report.figure(&figure, "", &count, Goal::AtMost(0.0));
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

#[derive(Default)]
struct Seen {
    micros: Vec<u32>,
    errors: u32,
}

impl Seen {
    fn asked(&self) -> usize {
        self.micros.len() + self.errors as usize
    }

    /// A percentile, in milliseconds.
    fn at(&self, percent: usize) -> f64 {
        let at = (self.micros.len() * percent / 100).min(self.micros.len().saturating_sub(1));
        self.micros.get(at).map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    }
}

/// Each connection has its share of the schedule. (One that is behind catches up, and its delay
/// counts.)
async fn refresh(clients: &mut Vec<Client>, span: Duration) -> Result<Seen> {
    let each = span.as_secs_f64() * f64::from(PER_SECOND) / CONNECTIONS as f64;
    let gap = span.div_f64(each);
    let start = Instant::now() + Duration::from_millis(100);
    let mut running = JoinSet::new();
    for (place, mut client) in std::mem::take(clients).into_iter().enumerate() {
        let first = start + gap.mul_f64(place as f64 / CONNECTIONS as f64);
        running.spawn(async move {
            let mut seen = Seen::default();
            for turn in 0..each as u32 {
                let due = first + gap * turn;
                tokio::time::sleep_until(due.into()).await;
                match client.refresh(turn as usize % SESSIONS).await {
                    Ok(()) => {
                        let micros = due.elapsed().as_micros();
                        seen.micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
                    }
                    Err(error) => {
                        progress(&format!("{error:#}"));
                        seen.errors += 1;
                    }
                }
            }
            (client, seen)
        });
    }
    let mut all = Seen::default();
    while let Some(ended) = running.join_next().await {
        let (client, seen) = ended?;
        clients.push(client);
        all.micros.extend(seen.micros);
        all.errors += seen.errors;
    }
    all.micros.sort_unstable();
    Ok(all)
}
