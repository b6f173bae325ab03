//! The composition root as the command line calls it. A stub: what each call has to do is written
//! beside it, and its room is built elsewhere.

use axum::Router;
use secrecy::SecretString;

use crate::config::{Config, Loaded};

/// Why a gateway did not start or a command could not be done; the command line turns each kind
/// into its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration asks for something impossible (exit 78).
    #[error("{0}")]
    Config(String),
    /// Another process holds the data directory (exit 75).
    #[error("{0}")]
    Locked(String),
    /// Something that is needed cannot be reached (exit 69).
    #[error("{0}")]
    Unavailable(String),
    /// Anything else (exit 1).
    #[error("{0}")]
    Failed(String),
}

/// Runs until SIGTERM or SIGINT, shuts down in order, and returns.
///
/// Makes the data directory, its node id and `admin-token`; binds both listeners; prints on stderr
/// where it listens, a `curl` line to try, and, when `Config::declares_development_key`, the
/// development key once (on the first start). Logging is set up already.
///
/// # Errors
/// `Locked` when another process has the data directory, `Config` for addresses that cannot be
/// bound.
pub async fn serve(_loaded: Loaded) -> Result<(), Error> {
    unimplemented!()
}

/// The parts of a gateway that commands work on while none is running.
pub struct LocalGateway {
    /// `admin::router` over cache and journal, with `actor` = `cli`.
    pub router: Router,
    /// What opens it.
    pub token: SecretString,
}

impl LocalGateway {
    /// Commits and syncs everything, and frees the data directory.
    ///
    /// # Errors
    /// When what was recorded could not be written.
    pub async fn close(self) -> Result<(), Error> {
        unimplemented!()
    }
}

/// Takes the data directory's lock and opens what is in it, without listeners and without a drainer
/// (with Postgres configured: with the directory, and a drainer that drains on `drain_now` only).
///
/// # Errors
/// `Locked` when another process has it.
pub async fn open_local(_config: &Config) -> Result<LocalGateway, Error> {
    unimplemented!()
}

/// What `migrate` did.
#[derive(Clone, Debug, Default)]
pub struct Migrated {
    /// The migrations that were applied now, in order, `0001_init`; empty when all were there.
    pub applied: Vec<String>,
}

/// Applies the migrations under an advisory lock, over `direct_url` when it is set.
///
/// # Errors
/// `Unavailable` when Postgres cannot be reached, `Failed` when it is newer than this program.
pub async fn migrate(_config: &Config) -> Result<Migrated, Error> {
    unimplemented!()
}

/// What `doctor` wants to know of Postgres.
#[derive(Clone, Debug, Default)]
pub struct PostgresFacts {
    /// `server_version`.
    pub version: String,
    /// Migrations that this program has and the database lacks.
    pub migrations_pending: usize,
    /// Migrations that the database has and this program does not know.
    pub migrations_unknown: usize,
    /// `max_connections` without what is reserved for superusers.
    pub connections_max: u32,
    /// All connections that this gateway may open: pools, feed, drainer.
    pub connections_wanted: u32,
    /// The server's clock minus ours, half of the round trip taken off.
    pub clock_skew_seconds: f64,
}

/// Asks Postgres, with a deadline of a few seconds.
///
/// # Errors
/// `Unavailable` when it cannot be reached; the message never holds the password.
pub async fn postgres_facts(_config: &Config) -> Result<PostgresFacts, Error> {
    unimplemented!()
}
