//! `/admin/v1/status`: what the gateway knows, and what it knows it does not know.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::{ConfigurationStanding, Contact, Control, Problem};
use crate::cache::CacheStatus;
use crate::drainer::DrainStatus;
use crate::journal::JournalStatus;
use crate::model::{Name, Timestamp};

/// What `status` says of sessions; counts are since the start.
#[derive(Serialize)]
struct Sessions {
    /// The end of the recovery window, while it is open.
    recovery_until: Option<Timestamp>,
    /// Sessions that Postgres does not know as far as this gateway does.
    unsettled: usize,
    /// Refresh tokens from beyond what is known here.
    beyond: u64,
    /// Those of them that were taken on their proof.
    recovered: u64,
}

#[derive(Serialize)]
pub(super) struct Shown {
    version: &'static str,
    node: Name,
    /// `embedded` without a configured Postgres, `attached` with one.
    mode: &'static str,
    uptime_seconds: f64,
    /// The longest that a counted request is not on disk.
    worst_case_loss_seconds: f64,
    /// Null in a command.
    configuration: Option<ConfigurationStanding>,
    postgres: Option<Contact>,
    cache: CacheStatus,
    sessions: Sessions,
    journal: JournalStatus,
    drain: Option<DrainStatus>,
}

pub(super) async fn show(State(control): State<Arc<Control>>) -> Json<Shown> {
    let journal = control.journal.status();
    let uptime = control.clock.monotonic().saturating_sub(control.started);
    Json(Shown {
        version: env!("CARGO_PKG_VERSION"),
        node: Arc::clone(&control.node),
        mode: if control.contact.is_some() { "attached" } else { "embedded" },
        uptime_seconds: uptime.as_secs_f64(),
        worst_case_loss_seconds: journal.worst_case_loss_seconds,
        configuration: control.configuration.as_ref().map(|read| read.standing()),
        postgres: control.contact.as_ref().map(|ask| ask()),
        cache: control.cache.status(),
        sessions: Sessions {
            recovery_until: control.tokens.recovery().until(control.clock.now()),
            unsettled: control.cache.unsettled_sessions(),
            beyond: control.metrics.tokens.beyond.get(),
            recovered: control.metrics.tokens.recovered.get(),
        },
        journal,
        drain: control.drainer.as_ref().map(|drainer| drainer.status()),
    })
}

/// What was accepted.
#[derive(Serialize)]
pub(super) struct Accepted {
    removed_keys: usize,
}

/// The operator's word: keys that a full resync did not find in Postgres are forgotten here too.
pub(super) async fn accept_removals(
    State(control): State<Arc<Control>>,
) -> Result<Json<Accepted>, Problem> {
    let cache = Arc::clone(&control.cache);
    let removed = control.tasks.spawn_blocking(move || cache.confirm_removals()).await;
    let failed = || Problem::internal("the cache's disk failed; its directory may be deleted");
    let removed_keys = removed.map_err(|_| failed())?.map_err(|_| failed())?;
    control.note("cache.accept_removals", removed_keys.to_string().into());
    Ok(Json(Accepted { removed_keys }))
}
