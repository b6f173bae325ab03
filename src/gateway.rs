//! The composition root: builds the parts, wires them, spawns what runs, and takes it down in
//! order.

mod calendar;
mod data;
mod directory;
mod error;
mod lines;
mod parts;
mod quotas;
mod reload;
mod serve;
mod signals;
mod spans;
mod storage;
mod tend;

use std::sync::Arc;

use axum::Router;
use secrecy::SecretString;
use uuid::Uuid;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::entropy::SystemEntropy;
use crate::journal::Reader;
use crate::metrics::Metrics;
use crate::model::Timestamp;
use crate::model::units::Span;
use crate::postgres::Postgres;
use crate::{admin, drainer};
use data::DataDir;
use parts::Parts;

pub use crate::postgres::MigrationState;
pub use error::Error;
pub use lines::Lines;
pub use serve::serve;

/// The parts of a gateway that commands work on while none is running.
pub struct LocalGateway {
    /// `admin::router` over cache and journal, with `actor` = `cli`.
    pub router: Router,
    /// What opens it.
    pub token: SecretString,
    parts: Parts,
}

impl LocalGateway {
    /// Commits and syncs everything, and frees the data directory.
    ///
    /// # Errors
    /// When what was recorded could not be written.
    pub async fn close(self) -> Result<(), Error> {
        drop(self.router);
        self.parts.merge_local().await;
        self.parts.close().await
    }
}

/// Takes the data directory's lock and opens what is in it, without listeners and feed. With
/// Postgres configured, `log drain` works, and nothing drains by itself while the command runs.
/// Segments of earlier processes are read by `reader`.
///
/// # Errors
/// [`Error::Locked`] when another process has it.
pub async fn open_local(config: &Config, reader: Reader) -> Result<LocalGateway, Error> {
    let only_when_asked = drainer::Config { interval: Span::secs(3600), ..config.drain.clone() };
    let data = DataDir::take(&config.data.dir)?;
    let metrics = Arc::new(Metrics::new());
    let parts = Parts::open(config, data, only_when_asked, reader, metrics).await?;
    parts.open_book().await;
    let control = Arc::new(parts.control("cli", true, None));
    Ok(LocalGateway { router: admin::router(control), token: parts.token.clone(), parts })
}

fn postgres(config: &Config) -> Result<Postgres, Error> {
    let section = config.postgres.clone().unwrap_or_default();
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
    Ok(Postgres::new(section, clock, entropy, Arc::new(Metrics::new()))?)
}

/// Applies the migrations under an advisory lock, over `direct_url` when it is set. Returns how
/// many were missing.
///
/// # Errors
/// [`Error::Unavailable`] when Postgres cannot be reached, [`Error::Failed`] when it is newer than
/// this program.
pub async fn migrate(config: &Config) -> Result<usize, Error> {
    let postgres = postgres(config)?;
    let before = match postgres.migrations().await? {
        MigrationState::Pending(missing) => missing,
        MigrationState::Current | MigrationState::Newer(_) | MigrationState::Altered(_) => 0,
    };
    postgres.migrate().await?;
    Ok(before)
}

/// What `doctor` wants to know of Postgres.
#[derive(Clone, Debug)]
pub struct PostgresFacts {
    /// `server_version`.
    pub version: String,
    /// How its migrations compare with those of this program.
    pub migrations: MigrationState,
    /// `max_connections` without what is reserved for superusers.
    pub connections_max: u32,
    /// All connections that this gateway may open: pools, feed, drainer.
    pub connections_wanted: u32,
    /// The server's clock minus ours, half of the round trip taken off.
    pub clock_skew_seconds: f64,
    /// Whether sessions of this gateway are there.
    pub has_sessions: bool,
}

/// Asks Postgres, with a deadline of a few seconds.
///
/// # Errors
/// `Unavailable` when it cannot be reached; the message never holds the password.
pub async fn postgres_facts(config: &Config) -> Result<PostgresFacts, Error> {
    let clock = SystemClock::new();
    let postgres = postgres(config)?;
    let directory = postgres.directory();
    // Connects and warms up, so that the round trip below is one.
    let version = directory.server_version().await?;
    let asked = clock.now();
    let server = directory.server_time().await?;
    let middle = Timestamp(asked.0.midpoint(clock.now().0));
    #[expect(clippy::cast_precision_loss, reason = "a skew is shown to the millisecond")]
    let skew = server.0.saturating_sub(middle.0) as f64 / 1e6;
    Ok(PostgresFacts {
        version,
        migrations: postgres.migrations().await?,
        connections_max: directory.max_connections().await?,
        connections_wanted: postgres.connections_at_most(),
        clock_skew_seconds: skew,
        has_sessions: match data::known_node(&config.data.dir, config.data.node.as_deref()) {
            // (Without the migrations there is no table, and nothing in it.)
            Some(node) => {
                directory.sessions(&node, Uuid::nil(), 1).await.is_ok_and(|s| !s.is_empty())
            }
            None => false,
        },
    })
}
