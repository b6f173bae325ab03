//! `/admin/v1/status`: what the gateway knows, and what it knows it does not know.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::{Contact, Control};
use crate::cache::CacheStatus;
use crate::drainer::DrainStatus;
use crate::journal::JournalStatus;
use crate::model::Name;

#[derive(Serialize)]
pub(super) struct Shown {
    version: &'static str,
    node: Name,
    /// `embedded` without a configured Postgres, `attached` with one.
    mode: &'static str,
    uptime_seconds: f64,
    /// The longest that a counted request is not on disk.
    worst_case_loss_seconds: f64,
    postgres: Option<Contact>,
    cache: CacheStatus,
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
        postgres: control.contact.as_ref().map(|ask| ask()),
        cache: control.cache.status(),
        journal,
        drain: control.drainer.as_ref().map(|drainer| drainer.status()),
    })
}
