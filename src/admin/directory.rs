//! What the control plane asks of Postgres: the writes that do not merge, and what has settled.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use serde::Serialize;
use uuid::Uuid;

use crate::model::Name;
use crate::model::fact::Counts;
use crate::model::policy::Mode;

/// Why Postgres gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be reached, or not in time.
    #[error("Postgres is not available: {0}")]
    Unavailable(String),
    /// It has no such row.
    #[error(
        "Postgres does not know it: it is declared in the configuration (change it there), or it \
         has not drained yet (`gatepost log drain`, then try again)"
    )]
    NotFound,
    /// Something else needs what would go away.
    #[error("{0}; give its clients and keys another policy first")]
    InUse(String),
    /// It refused.
    #[error("Postgres refused: {0}")]
    Other(String),
}

/// A boxed answer, so that [`super::Control`] can hold any directory.
pub type Answered<'a, T> = Pin<Box<dyn Future<Output = Result<T, DirectoryError>> + Send + 'a>>;

/// What has settled, read in one snapshot.
#[derive(Clone, Debug, Default)]
pub struct SettledUsage {
    /// Sums by client name.
    pub rows: Vec<(String, Counts)>,
    /// The ledger: how far each stream is contained in `rows`.
    pub ledger: HashMap<Uuid, u64>,
}

/// How far Postgres has taken a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerRow {
    /// Everything up to here is applied.
    pub last_seq: u64,
    /// The stream's end, as Postgres knows it.
    pub closed_seq: Option<u64>,
    /// It is being applied with another stream that it was merged into.
    pub underway: bool,
}

/// One change to a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChange {
    /// A uuid v7 for the history.
    pub event_id: Uuid,
    /// The policy.
    pub name: String,
    /// Its document, as JSON; `None`: it is removed.
    pub spec: Option<String>,
}

/// Direct reads and writes. Each call has a deadline of its own.
pub trait Directory: Send + Sync + 'static {
    /// Sets `clients.enabled`.
    fn set_client_enabled(&self, name: Name, enabled: bool) -> Answered<'_, ()>;
    /// Sets `api_keys.enabled`.
    fn set_key_enabled(&self, id: Uuid, enabled: bool) -> Answered<'_, ()>;
    /// Sets or clears `clients.mode`.
    fn set_client_mode(&self, name: Name, mode: Option<Mode>) -> Answered<'_, ()>;
    /// Every stored policy: name and document.
    fn policies(&self) -> Answered<'_, Vec<(String, String)>>;
    /// Makes all changes or none, and writes down who made them.
    fn change_policies(
        &self,
        node: Name,
        actor: Name,
        changes: Vec<PolicyChange>,
        dry_run: bool,
    ) -> Answered<'_, ()>;
    /// Sums from an hour (whole hours since the epoch) on, or of all time; of one client or all.
    fn settled_usage(
        &self,
        from_hour: Option<i64>,
        client: Option<Name>,
    ) -> Answered<'_, SettledUsage>;
    /// The ledger's rows of `streams`, as far as there are any.
    fn ledger(&self, streams: Vec<Uuid>) -> Answered<'_, HashMap<Uuid, LedgerRow>>;
}
