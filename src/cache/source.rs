//! What the cache asks of Postgres, and what Postgres tells the cache: traits that the `postgres`
//! room implements or calls.

use std::future::Future;
use std::pin::Pin;

use uuid::Uuid;

use crate::model::fact::{Revocation, RevocationKind};
use crate::model::policy::Mode;
use crate::model::{Client, Digest, Key, Name, Policy, Session};

/// A key's row with everything that decides it, read in one snapshot.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct KeyRow {
    /// The key.
    pub key: Key,
    /// The change counter that the row carries.
    pub revision: i64,
}

/// A client's row.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ClientRow {
    /// The client.
    pub client: Client,
    /// Its own mode, which wins over its policy's.
    pub mode: Option<Mode>,
    /// The change counter that the row carries.
    pub revision: i64,
}

/// A policy's row.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct PolicyRow {
    /// The policy.
    pub policy: Policy,
    /// The change counter that the row carries.
    pub revision: i64,
}

/// What a miss found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The change counter in the snapshot that was read.
    pub revision: i64,
    /// The key and what belongs to it; `None` when Postgres does not know the digest.
    pub found: Option<Found>,
}

/// A key that a miss found, with the rows that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key.
    pub key: KeyRow,
    /// Its client, unless there is no such row.
    pub client: Option<ClientRow>,
    /// The policies that the key and its client name, as far as they exist.
    pub policies: Vec<PolicyRow>,
    /// Its revocation, if there is one.
    pub revocation: Option<Revocation>,
}

/// Why a lookup gave no answer. Never a reason for a 401.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SourceError {
    /// The breaker is open; nothing was asked.
    #[error("lookups are paused after repeated failures")]
    BreakerOpen,
    /// Postgres did not answer within the deadline.
    #[error("Postgres did not answer in time")]
    Deadline,
    /// Postgres answered with an error, or is not there.
    #[error("Postgres could not be asked: {0}")]
    Unavailable(String),
}

/// A boxed future, so that the cache can hold any source.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<Lookup, SourceError>> + Send + 'a>>;

/// A boxed future: the session's row, if there is one.
pub type AskedSession<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Session>, SourceError>> + Send + 'a>>;

/// Where the cache looks on a miss.
pub trait Source: Send + Sync + 'static {
    /// Looks a digest up in one snapshot, under its own deadline over acquire and query.
    fn lookup(&self, digest: Digest) -> Asked<'_>;
    /// Looks a session up, under the same bounds.
    fn session(&self, id: Uuid) -> AskedSession<'_>;
}

/// A point in the history of Postgres: the change counter and the mark that this revision bears.
/// After a restore or a failover the same revision bears another mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Position {
    /// The change counter.
    pub revision: i64,
    /// The uuid recorded with it in `change_log`, as bytes.
    pub mark: [u8; 16],
}

/// One row that the feed brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A client was made or changed.
    Client(ClientRow),
    /// A policy was made or changed.
    Policy(PolicyRow),
    /// A key was made or changed.
    Key(KeyRow),
    /// Something was revoked.
    Revocation(Revocation),
    /// A row was deleted by somebody else's hand.
    Deleted(Deleted),
}

/// A tombstone of `change_log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// A client, by name.
    Client(Name),
    /// A policy, by name.
    Policy(Name),
    /// A key, by id.
    Key(Uuid),
    /// A revocation: kept all the same, deny wins.
    Revocation(RevocationKind, Name),
}

/// Why the cache could not take what the feed brought.
#[derive(Debug, thiserror::Error)]
#[error("the cache's disk tier failed: {0}")]
pub struct FollowError(pub String);

/// What the feed tells. All calls block on sled: call them where blocking is allowed.
///
/// The order is `begin`, any number of `apply`, then `complete`; a snapshot that breaks off is
/// simply begun again. Nothing but `complete` moves the stored position.
pub trait Follower: Send + Sync + 'static {
    /// Where the last completed catch-up ended; `None` when there never was one. Asked first in
    /// every catch-up, before its snapshot is taken: it counts as the beginning.
    fn position(&self) -> Option<Position>;
    /// A snapshot at `revision` is about to be applied; `full` when it will carry every row there
    /// is. From here on, fills from older snapshots are thrown away.
    fn begin(&self, revision: i64, full: bool);
    /// Applies a page of rows: on disk first, then in memory.
    fn apply(&self, changes: Vec<Change>) -> Result<(), FollowError>;
    /// Everything up to `position` has been applied: sync, store it, and call the cache fresh.
    /// After a full resync it returns what the cache knows and Postgres lacks.
    fn complete(&self, position: Position) -> Result<Vec<Revocation>, FollowError>;
    /// Postgres was asked just now and the position has not moved: the cache is fresh.
    fn still_current(&self);
}
