//! The drain transaction: the ledger and the merged rows together, or nothing.
//!
//! ```text
//! BEGIN                  own connection, never a pooled one
//!   ledger row if absent
//!   compare and swap     wait for the answer: a straggler must find nothing to do
//!   what was merged into a stream that begins here is retired, or all is rolled back
//!   state · quotas · usage · events, each merged and sorted
//! COMMIT                 any error from here on: the fate is unknown until the ledger is read
//! ```
//!
//! A transaction that fails or exceeds its deadline is abandoned with its socket. One that fails
//! because Postgres will never take a row is done once more with care: the offenders are sifted out
//! and become dead letters, all others are applied, and the ledger advances past both.

mod events;
pub(super) mod ledger;
mod letters;
mod part;
mod quotas;
mod sessions;
mod state;
mod usage;

use std::collections::HashMap;
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use super::PostgresError;
use super::rows::bigint;
use crate::model::fact::{AuditEntry, Event, Lane, QuotaFact, QuotaKey, StateFact, UsageFact};
use crate::model::{Name, Timestamp};

use part::Part;

pub use ledger::{Ledger, Retirement};
pub use letters::Refused;
pub use quotas::{QuotaBases, QuotaKeys};

/// How long a statement may wait for somebody's lock, run, or leave the transaction idle (a gateway
/// that froze in the middle): all on the server's side, where an abandoned socket is not noticed.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '30s'; \
     SET LOCAL idle_in_transaction_session_timeout = '30s'; SET LOCAL synchronous_commit = on";
/// When rows are sifted, a constraint must speak at its row, not at COMMIT.
const AT_ONCE: &str = "SET CONSTRAINTS ALL IMMEDIATE";

/// The part of a stream that a batch carries: everything after `from`, up to and with `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRange {
    /// The stream.
    pub stream: Uuid,
    /// Its lane.
    pub lane: Lane,
    /// What the ledger must show now.
    pub from: u64,
    /// What it shows afterwards; equal to `from` when only `closed` is to be recorded.
    pub to: u64,
    /// The stream's end, once it is known.
    pub closed: Option<u64>,
}

/// What one transaction carries.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Which parts of which streams the facts below stand for.
    pub ranges: Vec<StreamRange>,
    /// Streams that were merged into some of these, which begin here.
    pub retires: Vec<Retirement>,
    /// In any order.
    pub state: Vec<StateFact>,
    /// Merged: one per quota, client or key, and period.
    pub quotas: Vec<QuotaFact>,
    /// Merged: one per counter.
    pub usage: Vec<UsageFact>,
    /// In any order.
    pub events: Vec<AuditEntry>,
    /// In any order.
    pub happened: Vec<Event>,
}

/// A committed transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows sent.
    pub rows: u64,
    /// Facts that Postgres will never take, and that have a dead letter now.
    pub refused: Vec<Refused>,
}

/// Why a transaction was not, or may not have been, committed.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The ledger is not where the batch begins. Nothing was applied; read the positions.
    #[error("the ledger is not where this batch begins")]
    Moved,
    /// Something that was merged into this stream has been applied otherwise: a copy of the data
    /// directory has drained it. Nothing was applied, and this stream can never be.
    #[error("a copy of this data directory has drained what was merged into segment {0}")]
    Cloned(Uuid),
    /// Nothing was applied.
    #[error(transparent)]
    Failed(PostgresError),
    /// The connection broke during COMMIT: read the positions to learn what happened.
    #[error("the fate of the last transaction is unknown: {0}")]
    Unknown(PostgresError),
    /// Postgres will never take a row (SQLSTATE class 22 or 23), and it is none of the facts: the
    /// ledger's, or a dead letter. Nothing was applied.
    #[error(
        "Postgres refuses a row of the drain itself: {0}; look for what was changed in its tables"
    )]
    BadRow(String),
}

/// One connection to Postgres that carries one transaction at a time.
pub struct Sink {
    options: PgConnectOptions,
    node: Name,
    connect_timeout: Duration,
    deadline: Duration,
    conn: Option<PgConnection>,
}

impl Sink {
    pub(super) fn new(
        options: PgConnectOptions,
        node: Name,
        connect_timeout: Duration,
        deadline: Duration,
    ) -> Self {
        Self { options, node, connect_timeout, deadline, conn: None }
    }

    /// Applies a batch, all of it or nothing.
    ///
    /// # Errors
    /// See [`SinkError`]. After any of them, and when this future is dropped, the connection is
    /// gone and the next call opens another.
    pub async fn apply(&mut self, batch: &Batch) -> Result<Applied, SinkError> {
        match self.attempt(batch, false).await {
            Err(SinkError::BadRow(_)) => self.attempt(batch, true).await,
            done => done,
        }
    }

    /// One transaction; with care, it goes on without the rows that Postgres refuses.
    async fn attempt(&mut self, batch: &Batch, careful: bool) -> Result<Applied, SinkError> {
        let mut conn = self.take().await.map_err(SinkError::Failed)?;
        let mut committing = false;
        let work = self.transact(&mut conn, batch, careful, &mut committing);
        let done = tokio::time::timeout(self.deadline, work).await;
        let error = match done {
            Ok(Ok(applied)) => {
                self.conn = Some(conn);
                return Ok(applied);
            }
            Ok(Err(error)) => error,
            Err(_) => SinkError::Failed(PostgresError::Deadline(self.deadline)),
        };
        drop(conn);
        Err(match error {
            SinkError::Failed(error) if committing => SinkError::Unknown(error),
            other => other,
        })
    }

    /// How far `streams` are applied; a stream without a row is absent.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn positions(
        &mut self,
        streams: &[Uuid],
    ) -> Result<HashMap<Uuid, Ledger>, SinkError> {
        let mut conn = self.take().await.map_err(SinkError::Failed)?;
        let read = tokio::time::timeout(self.deadline, ledger::read(&mut conn, streams)).await;
        let ledger = match read {
            Ok(read) => read.map_err(failed)?,
            Err(_) => return Err(SinkError::Failed(PostgresError::Deadline(self.deadline))),
        };
        self.conn = Some(conn);
        Ok(ledger)
    }

    /// What Postgres has confirmed of `keys`, read in one snapshot with how far `streams` are
    /// applied; of all periods that are not over when `keys` is `None`, beyond `after`, a page at a
    /// time.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn quota_bases(
        &mut self,
        keys: QuotaKeys<'_>,
        streams: &[Uuid],
    ) -> Result<QuotaBases, SinkError> {
        let mut conn = self.take().await.map_err(SinkError::Failed)?;
        let read = quotas::bases(&mut conn, &self.node, keys, streams);
        let bases = match tokio::time::timeout(self.deadline, read).await {
            Ok(read) => read.map_err(failed)?,
            Err(_) => return Err(SinkError::Failed(PostgresError::Deadline(self.deadline))),
        };
        self.conn = Some(conn);
        Ok(bases)
    }

    /// What time it is there.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn now(&mut self) -> Result<Timestamp, SinkError> {
        let mut conn = self.take().await.map_err(SinkError::Failed)?;
        let now = match tokio::time::timeout(self.deadline, quotas::now(&mut conn)).await {
            Ok(now) => now.map_err(failed)?,
            Err(_) => return Err(SinkError::Failed(PostgresError::Deadline(self.deadline))),
        };
        self.conn = Some(conn);
        Ok(now)
    }

    async fn take(&mut self) -> Result<PgConnection, PostgresError> {
        match self.conn.take() {
            Some(conn) => Ok(conn),
            None => super::connect(&self.options, self.connect_timeout).await,
        }
    }

    async fn transact(
        &self,
        conn: &mut PgConnection,
        batch: &Batch,
        careful: bool,
        committing: &mut bool,
    ) -> Result<Applied, SinkError> {
        sqlx::raw_sql(BEGIN).execute(&mut *conn).await.map_err(failed)?;
        if !ledger::advance(conn, &self.node, &batch.ranges).await.map_err(failed)? {
            return Err(SinkError::Moved);
        }
        for retirement in &batch.retires {
            if !ledger::retire(conn, &self.node, retirement).await.map_err(failed)? {
                return Err(SinkError::Cloned(retirement.by));
            }
        }
        let mut applied = Applied::default();
        if careful {
            sqlx::raw_sql(AT_ONCE).execute(&mut *conn).await.map_err(failed)?;
        }
        for part in Part::all(batch) {
            if !careful {
                applied.rows += part.write(conn, &self.node).await.map_err(failed)?;
                continue;
            }
            let (rows, refused) = part.sift(conn, &self.node).await?;
            let letters = letters::write(conn, &self.node, part.lane(), batch, &refused);
            letters.await.map_err(failed)?;
            applied.rows += rows;
            applied.refused.extend(refused);
        }
        *committing = true;
        sqlx::raw_sql("COMMIT").execute(conn).await.map_err(failed)?;
        Ok(applied)
    }
}

/// Classes 22 (data) and 23 (constraint) mean that the row is bad, and nothing else does.
fn failed(error: sqlx::Error) -> SinkError {
    let answer = error.as_database_error();
    match answer.and_then(|answer| Some((answer, answer.code()?))) {
        // The message alone: details quote the row.
        Some((answer, code)) if code.starts_with("22") || code.starts_with("23") => {
            SinkError::BadRow(format!("{} (SQLSTATE {code})", answer.message()))
        }
        _ => SinkError::Failed(error.into()),
    }
}

/// The moment that a uuid v7 tells (RFC 9562 §5.7); the epoch for any other.
pub(super) fn made_at(id: Uuid) -> Timestamp {
    let millis = id.get_timestamp().map_or(0, |at| {
        let (seconds, nanos) = at.to_unix();
        seconds.saturating_mul(1000).saturating_add(u64::from(nanos / 1_000_000))
    });
    Timestamp(bigint(millis).saturating_mul(1000))
}

fn rows_in(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
