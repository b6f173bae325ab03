//! Postgres: the only home of SQL. Pools, breaker, lookups, the feed, the drain transaction, the
//! operator's direct writes, migrations.
//!
//! | part | connection | why |
//! |---|---|---|
//! | [`source`] | pool `auth`, on `url` | lookups on a miss, short and many |
//! | [`directory`] | pool `admin`, on `url` | the operator's reads and writes |
//! | [`feed`] | two of its own, on `direct_url` | a snapshot over many pages, and `LISTEN` |
//! | [`sink`] | one of its own, on `direct_url` | a transaction is never cancelled and reused |
//! | [`scratch`] | one for each question | a database for the drill, made and dropped |
//! | `migrate` | one of its own, on `direct_url` | a session's advisory lock |
//!
//! sqlx 0.9.0 can hand a connection on with a transaction still open when a future is dropped
//! during `BEGIN`. So a pooled connection returns to its pool only when what was asked of it was
//! answered in full (`pool::Checkout`); any other is closed.

mod config;
pub mod directory;
mod error;
pub mod feed;
mod migrate;
pub mod policies;
mod pool;
mod rows;
pub mod scratch;
mod sessions;
pub mod sink;
pub mod source;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};

use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::metrics::Metrics;
use crate::model::Name;

pub use config::{Config, DatabaseUrl, Retention};
pub use directory::Directory;
pub use error::PostgresError;
pub use feed::Feed;
pub use migrate::MigrationState;
pub use sink::Sink;
pub use source::KeySource;

/// Everything that speaks to Postgres, made from the URLs alone: nothing here connects.
pub struct Postgres {
    config: Config,
    direct: PgConnectOptions,
    auth: Arc<pool::Pool>,
    admin: Arc<pool::Pool>,
    source: Arc<KeySource>,
    clock: SharedClock,
    entropy: SharedEntropy,
    metrics: Arc<Metrics>,
}

impl Postgres {
    /// Reads the URLs and makes empty pools. Must run within a tokio runtime; never waits.
    ///
    /// # Errors
    /// [`PostgresError::Url`] when a URL is missing or cannot be read.
    pub fn new(
        config: Config,
        clock: SharedClock,
        entropy: SharedEntropy,
        metrics: Arc<Metrics>,
    ) -> Result<Self, PostgresError> {
        let url = config.url.as_ref().ok_or(PostgresError::Url("none is given".into()))?;
        let pooled = options(url)?;
        let direct = config.direct_url.as_ref().map_or_else(|| Ok(pooled.clone()), options)?;
        // A direct URL beside the first one means that a transaction pooler stands in between: then
        // no statement, setting or start-up parameter may outlive its transaction.
        let (pooled, session) = if config.direct_url.is_some() {
            (pooled.statement_cache_capacity(0).extra_float_digits(None), None)
        } else {
            (pooled, Some(config.lookup_deadline.0))
        };
        let make = |name, max, session| {
            let clock = Arc::clone(&clock);
            let pool = pool::Pool::new(name, max, pooled.clone(), session, clock, &metrics);
            Arc::new(pool)
        };
        let auth = make("auth", config.auth_pool_max, session);
        let admin = make("admin", config.admin_pool_max, session.map(|_| config.query_deadline.0));
        let source = KeySource::new(&config, Arc::clone(&auth), Arc::clone(&clock), &metrics);
        Ok(Self { config, direct, auth, admin, source: Arc::new(source), clock, entropy, metrics })
    }

    /// Lookups on a miss.
    pub fn source(&self) -> Arc<KeySource> {
        Arc::clone(&self.source)
    }

    /// The feed; one per process.
    pub fn feed(&self) -> Feed {
        Feed::new(
            &self.config,
            self.direct.clone(),
            Arc::clone(&self.auth),
            Arc::clone(&self.clock),
            Arc::clone(&self.entropy),
            Arc::clone(&self.metrics),
        )
    }

    /// The drain transaction of node `node`, each under `deadline`.
    pub fn sink(&self, node: Name, deadline: Duration) -> Sink {
        Sink::new(self.direct.clone(), node, self.config.connect_timeout.0, deadline)
    }

    /// The operator's direct reads and writes.
    pub fn directory(&self) -> Directory {
        let Config { connect_timeout, query_deadline, .. } = &self.config;
        Directory::new(Arc::clone(&self.admin), connect_timeout.0, query_deadline.0)
    }

    /// Applies what is missing of the schema, under an advisory lock. Can be repeated.
    ///
    /// # Errors
    /// [`PostgresError::Newer`] when a later version of gatepost was here before.
    pub async fn migrate(&self) -> Result<(), PostgresError> {
        let mut conn = self.connect().await?;
        migrate::run(&mut conn).await
    }

    /// Compares the migrations of this program with those that the database has seen.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn migrations(&self) -> Result<MigrationState, PostgresError> {
        let mut conn = self.connect().await?;
        deadline(self.config.query_deadline.0, migrate::state(&mut conn)).await
    }

    /// How many connections this process opens at most: both pools, the feed's two, the sink's one.
    pub fn connections_at_most(&self) -> u32 {
        self.config.auth_pool_max + self.config.admin_pool_max + 3
    }

    /// Brings the gauges of the pools up to date, before they are read.
    pub fn observe(&self) {
        self.auth.observe();
        self.admin.observe();
    }

    async fn connect(&self) -> Result<PgConnection, PostgresError> {
        connect(&self.direct, self.config.connect_timeout.0).await
    }
}

fn options(url: &DatabaseUrl) -> Result<PgConnectOptions, PostgresError> {
    // sqlx takes any scheme.
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme)) {
        return Err(PostgresError::Url("it does not start with postgres://".into()));
    }
    let options = PgConnectOptions::from_str(url.expose());
    let options = options.map_err(|error| PostgresError::Url(error.to_string()))?;
    Ok(options.application_name("gatepost").disable_statement_logging())
}

/// Opens a connection of one's own. Dropping it closes the socket, whatever the server is doing.
async fn connect(
    options: &PgConnectOptions,
    within: Duration,
) -> Result<PgConnection, PostgresError> {
    deadline(within, async { Ok(options.connect().await?) }).await
}

/// Gives up after `within`; whoever calls drops the connection then.
async fn deadline<T>(
    within: Duration,
    work: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    tokio::time::timeout(within, work).await.unwrap_or(Err(PostgresError::Deadline(within)))
}
