//! The drill: a gateway of its own, a way to Postgres that breaks, load, kills, and then every
//! counter compared. What `gatepost drill` runs, for anybody who wants to see for himself.
//!
//! | part | what it is |
//! |---|---|
//! | [`line`](mod@line) | the way to Postgres: it can be cut, frozen, and cut at a COMMIT |
//! | `gateway` | this very program as a process, under `commit = "before_reply"` |
//! | `server` | a throw-away Postgres, where no URL is given |
//! | [`programs`] | where the programs of a server are |
//! | `load` | callers at a fixed rate |
//! | `report` | the comparison, and what is told |
//!
//! Under `before_reply` an answered request is on disk. So after all, for each counter and whatever
//! happened meanwhile: answered ≤ counted ≤ sent. Fewer is lost, more is counted twice.

mod gateway;
mod keeper;
pub mod line;
mod load;
pub mod programs;
mod report;
mod server;
mod wire;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::postgres::scratch::Scratch;
use crate::postgres::{DatabaseUrl, PostgresError};
use gateway::Gateway;
use line::{Fault, FaultProxy, Lost};
use load::{Known, Load};
use report::{Expected, Measured};
use server::Server;

pub use report::{Phase, Report};

/// The shortest drill: each phase must be long enough to be one.
pub const SECONDS_MIN: u16 = 5;
/// The longest: all latencies are kept.
pub const SECONDS_MAX: u16 = 3600;

const CLIENTS: [&str; 2] = ["drill-a", "drill-b"];
const KEYS_EACH: usize = 4;
const TABLES: [&str; 2] = ["orders", "items"];
/// What is counted, and the method that means it.
const OPERATIONS: [(&str, &str); 2] = [("read", "GET"), ("write", "POST")];

/// What happens, and its share of the time, in percent.
const PHASES: [(&str, u32); 6] = [
    ("before", 20),
    ("Postgres cut off", 15),
    ("Postgres frozen", 15),
    ("after a kill, still frozen", 15),
    ("after Postgres' return", 20),
    ("after another kill", 15),
];

/// What a drill needs to know.
pub struct Setup {
    /// A server on which it may make a database; without, a throw-away one is started.
    pub url: Option<String>,
    /// How long load lasts, about.
    pub span: Duration,
    /// This program.
    pub program: PathBuf,
    /// Where programs are looked for, like `PATH`.
    pub path: String,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server was named, and none can be started.
    #[error(
        "no Postgres server binaries are found (initdb, postgres); install them, or name a server \
         with --database-url: the drill makes a database of its own there, and drops it"
    )]
    NoPostgres,
    /// The URL cannot be used.
    #[error("{0}")]
    Url(String),
    /// The server cannot be reached.
    #[error("{0}")]
    Unavailable(String),
    /// Somebody asked it to stop.
    #[error("interrupted: everything was cleaned up, nothing was compared")]
    Interrupted,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<PostgresError> for Error {
    fn from(error: PostgresError) -> Self {
        let message = error.to_string();
        match error {
            PostgresError::Url(_) => Self::Url(message),
            error if error.is_unavailable() => Self::Unavailable(message),
            _ => Self::Failed(message),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs the drill. When `interrupted` comes first, it cleans up and says so.
///
/// # Errors
/// When it could not be run to its end. What it finds is in the report.
pub async fn run(
    setup: Setup,
    clock: SharedClock,
    entropy: SharedEntropy,
    interrupted: impl Future<Output = ()>,
) -> Result<Report, Error> {
    let mut interrupted = pin!(interrupted);
    let (_server, url) = match &setup.url {
        Some(url) => (None, url.clone()),
        None => {
            let server = Server::start(&setup.path, &entropy).await?;
            let url = server.url();
            (Some(server), url)
        }
    };
    let scratch = Scratch::new(&DatabaseUrl::new(url), entropy.uuid_v7(clock.now()))?;
    unless(&mut interrupted, async { Ok(scratch.reach().await?) }).await?;
    scratch.make().await.map_err(|error| match error {
        PostgresError::Refused(why) => Error::Failed(format!(
            "the drill makes a database of its own, so its role needs CREATEDB: {why}"
        )),
        error => error.into(),
    })?;
    let report = unless(&mut interrupted, async {
        scratch.migrate().await?;
        perform(&setup, &scratch, &clock).await
    })
    .await;
    // (The gateway is gone by now.)
    if let Err(error) = scratch.remove().await {
        tracing::warn!(database = scratch.name(), %error, "the drill's database stays; drop it");
    }
    report
}

/// What comes of `work`, unless it is broken off.
async fn unless<T>(
    interrupted: impl Future<Output = ()>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        done = work => done,
        () = interrupted => Err(Error::Interrupted),
    }
}

async fn perform(setup: &Setup, scratch: &Scratch, clock: &SharedClock) -> Result<Report, Error> {
    let line = FaultProxy::new(scratch.address(), Arc::new(()))?;
    let mut gateway = Gateway::new(&setup.program, scratch.url_through(line.port()))?;
    let http = gateway.start().await?;
    gateway.is_well().await?;
    let known = make_keys(&gateway).await?;
    let load = Load::start(known, http, Arc::clone(clock));
    let slowest = Duration::ZERO;
    let mut stage = Stage { setup, clock, line: &line, gateway, load, phase: 0, slowest };
    let outage = stage.acts().await?;

    let Stage { gateway, load, slowest, .. } = stage;
    let (known, outcome) = load.end().await;
    let last = clock.monotonic();
    gateway.is_settled().await?;
    let commits = (!line.is_encrypted()).then(|| line.lost());
    let all = clock.monotonic().saturating_sub(last);
    let measured = Measured { kills: KILLS, slowest_start: slowest, commits, outage, all };
    let expected = known.iter().map(|(known, (answered, issued))| Expected {
        client: known.client.clone(),
        key: known.key_id.parse().unwrap_or_default(),
        table: known.table,
        operation: known.operation,
        answered: *answered,
        issued: *issued,
    });
    let expected: Vec<Expected> = expected.collect();
    let verdict = report::compare(&expected, &scratch.counted().await?);
    let names = PHASES.map(|(name, _)| name);
    Ok(report::report(&names, outcome, &measured, (expected.len(), verdict)))
}

/// Each key for each table and operation.
async fn make_keys(gateway: &Gateway) -> Result<Vec<Known>, Error> {
    let mut known = Vec::new();
    for client in CLIENTS {
        gateway.create_client(client).await?;
        for _ in 0..KEYS_EACH {
            let key = gateway.create_key(client).await?;
            for table in TABLES {
                known
                    .extend(OPERATIONS.map(|operation| Known::new(client, &key, table, operation)));
            }
        }
    }
    Ok(known)
}

/// How often [`Stage::acts`] kills.
const KILLS: u32 = 2;

/// The COMMITs that it loses.
const LOST: Lost = Lost { unanswered: 2, unsent: 1 };

/// How long it waits for a COMMIT to be lost, and how often it looks.
const LOST_MAX: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(1);

struct Stage<'a> {
    setup: &'a Setup,
    clock: &'a SharedClock,
    line: &'a FaultProxy,
    gateway: Gateway,
    load: Load,
    phase: usize,
    /// From a start to where it served, the longest.
    slowest: Duration,
}

impl Stage<'_> {
    /// Everything that happens, in order: how long after Postgres' return the outage was settled.
    async fn acts(&mut self) -> Result<Duration, Error> {
        self.last().await;
        self.begin(Fault::Cut);
        self.last().await;
        self.begin(Fault::BlackHole);
        self.last().await;
        self.kill(Fault::BlackHole).await?;
        self.last().await;

        // The first COMMIT is carried out and nobody hears of it.
        let back = self.clock.monotonic();
        self.begin(Fault::BlackHole);
        self.loses(Fault::CutAfterCommit).await;
        self.gateway.has_drained().await?;
        let outage = self.clock.monotonic().saturating_sub(back);
        // Another one does not arrive.
        self.loses(Fault::CutBeforeCommit).await;
        self.last().await;
        // Of a third one nobody can hear, for who has sent it is killed.
        self.loses(Fault::FreezeAfterCommit).await;
        self.kill(Fault::None).await?;
        self.last().await;
        Ok(outage)
    }

    /// Returns when a COMMIT of the drain is lost by `fault`. Under TLS none is seen, and a drain
    /// that commits nothing has none; then the report says so.
    async fn loses(&self, fault: Fault) {
        let before = self.line.lost();
        if self.line.is_encrypted() {
            return self.line.set(Fault::None);
        }
        self.line.set(fault);
        let lost = async {
            while self.line.lost() == before {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(LOST_MAX, lost).await.is_err() {
            self.line.set(Fault::None);
        }
    }

    /// The next phase begins, with `fault`.
    fn begin(&mut self, fault: Fault) {
        self.line.set(fault);
        self.load.next_phase();
        self.phase += 1;
    }

    /// The same, with a kill and a start.
    async fn kill(&mut self, fault: Fault) -> Result<(), Error> {
        self.load.lost();
        self.gateway.kill()?;
        let killed = self.clock.monotonic();
        let http = self.gateway.start().await?;
        self.slowest = self.slowest.max(self.clock.monotonic().saturating_sub(killed));
        self.begin(fault);
        self.load.found(http);
        Ok(())
    }

    /// Lets the phase last as long as it should.
    async fn last(&self) {
        let (_, percent) = PHASES[self.phase];
        tokio::time::sleep(self.setup.span * percent / 100).await;
    }
}
