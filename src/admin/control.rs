//! What the handlers work on, and the one way in which a state fact comes into force.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Configuration, Directory, Problem};
use crate::admission::Admission;
use crate::cache::Cache;
use crate::clock::SharedClock;
use crate::drainer::Drainer;
use crate::entropy::SharedEntropy;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::model::Name;
use crate::model::fact::{AuditEntry, StateFact};
use crate::tokens::Tokens;

/// What is known of the connection to Postgres.
#[derive(Clone, Debug, Serialize)]
pub struct Contact {
    /// Seconds since Postgres last answered; none when it never has.
    pub last_contact_seconds: Option<f64>,
    /// Whether lookups are paused after repeated failures.
    pub breaker_open: bool,
    /// Whether Postgres is away at the moment: requests are answered from what is known locally.
    pub away: bool,
}

/// Tells the [`Contact`]; asked anew for every `status` and `readyz`.
pub type AskContact = Arc<dyn Fn() -> Contact + Send + Sync>;

/// The parts that the control plane shows and changes.
pub struct Control {
    /// What requests are answered from.
    pub cache: Arc<Cache>,
    /// What was used of limits.
    pub admission: Arc<Admission>,
    /// Sessions and tokens.
    pub tokens: Arc<Tokens>,
    /// Where changes go.
    pub journal: Journal,
    /// Journal → Postgres; none when embedded.
    pub drainer: Option<Drainer>,
    /// Direct writes to Postgres; none when embedded.
    pub directory: Option<Arc<dyn Directory>>,
    /// The connection to Postgres; none when embedded.
    pub contact: Option<AskContact>,
    /// What was read at the start, and may be read again; none in a command.
    pub configuration: Option<Arc<dyn Configuration>>,
    /// Brings gauges up to date that are looked up rather than kept, before they are shown.
    pub observe: Arc<dyn Fn() + Send + Sync>,
    /// For stamps and ages.
    pub clock: SharedClock,
    /// For keys and ids.
    pub entropy: SharedEntropy,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Runs changes to their end.
    pub tasks: TaskTracker,
    /// Cancelled when the shutdown begins: from then on the gateway is not ready.
    pub stopping: CancellationToken,
    /// What opens the API.
    pub token: SecretString,
    /// Whether metrics and verbose readiness are shown without the token: on loopback.
    pub open: bool,
    /// This gateway's name.
    pub node: Name,
    /// Who audit entries name: `admin` for a listener, `cli` for a command in process.
    pub actor: Name,
    /// The clock's monotonic time when the process started.
    pub started: Duration,
    /// One change at a time: a change looks first, and what it saw must still hold when it commits.
    pub turn: Arc<Mutex<()>>,
}

/// The right to make one change.
pub(super) type Turn = OwnedMutexGuard<()>;

impl Control {
    pub(super) async fn turn(&self) -> Turn {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Commits `facts` and puts them in force. The answer may leave when this returns; a caller who
    /// hangs up does not stop it half way, or a committed fact would not be in force here.
    ///
    /// What only denies is in force even if it cannot be recorded, and the caller is told so: to
    /// try again until it is on disk, for which every try records it anew.
    pub(super) async fn commit(
        self: &Arc<Self>,
        turn: Turn,
        facts: Vec<StateFact>,
        action: &'static str,
        subject: Name,
    ) -> Result<(), Problem> {
        let control = Arc::clone(self);
        let change = self.tasks.spawn(async move {
            let denies = facts.iter().all(StateFact::denies);
            let recorded = control.journal.append(facts.clone());
            // Pinned first: the drainer must not settle a fact before it is pinned. Should the disk
            // fail now, a revocation is in force all the same, and nobody was given the new key.
            if denies || recorded.is_ok() {
                facts.iter().for_each(|fact| control.cache.pin(fact));
            }
            let durable = match recorded {
                Ok(ticket) => ticket.durable().await,
                Err(full) => Err(full),
            };
            durable.map_err(|full| match denies {
                true => Problem::revoked_unrecorded(full),
                false => full.into(),
            })?;
            control.note(action, subject);
            drop(turn);
            Ok(())
        });
        change.await.unwrap_or_else(|_| {
            Err(Problem::internal("the change did not end; look whether it holds and try again"))
        })
    }

    /// Records who changed what.
    pub(super) fn note(&self, action: &'static str, subject: Name) {
        let event_id = self.entropy.uuid_v7(self.clock.now());
        tracing::info!(actor = %self.actor, action, subject = %subject, "changed");
        let actor = Arc::clone(&self.actor);
        self.journal.note(AuditEntry { event_id, actor, action: action.into(), subject });
    }

    /// The directory, or what to do without one.
    pub(super) fn directory(&self, otherwise: &str) -> Result<&Arc<dyn Directory>, Problem> {
        self.directory.as_ref().ok_or_else(|| {
            let detail = format!("this needs Postgres, and none is configured; {otherwise}");
            Problem::unavailable("postgres_required", detail)
        })
    }
}
