//! `/admin/v1/log`: the journal, draining it now, and looking into it.

mod fact;
mod inspect;
mod replay;
mod verify;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::{Control, LIST_MAX, Problem};
use crate::drainer::DrainStatus;
use crate::journal::{JournalStatus, LogError, StreamStatus};

pub(super) use inspect::facts;
pub(super) use replay::replay;
pub(super) use verify::verify;

/// What a reading says that a shutdown has ended.
const STOPPING: &str = "the gateway is stopping: what was read so far is not all";

/// The journal's lanes, and how far the drain has come; `drain` is null when embedded.
#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    journal: JournalStatus,
    drain: Option<DrainStatus>,
    /// The first ones of each lane's, the oldest first.
    streams: Vec<StreamStatus>,
}

impl Shown {
    fn of(control: &Control) -> Self {
        let drain = control.drainer.as_ref().map(|drainer| drainer.status());
        let streams = control.journal.streams(LIST_MAX);
        Self { journal: control.journal.status(), drain, streams }
    }
}

pub(super) async fn status(State(control): State<Arc<Control>>) -> Json<Shown> {
    Json(Shown::of(&control))
}

/// Answers when everything recorded until now is in Postgres.
pub(super) async fn drain(State(control): State<Arc<Control>>) -> Result<Json<Shown>, Problem> {
    let Some(drainer) = &control.drainer else {
        let detail = "no Postgres is configured, so there is nothing to drain into; what is \
                      counted stays in the journal until DATABASE_URL is set";
        return Err(Problem::unavailable("postgres_required", detail));
    };
    drainer.drain_now().await.map_err(|reason| {
        Problem::unavailable("postgres_unavailable", format!("could not drain: {reason}"))
    })?;
    Ok(Json(Shown::of(&control)))
}

/// The streams of the journal, and what is in quarantine.
pub(super) async fn streams(State(control): State<Arc<Control>>) -> Json<Vec<StreamStatus>> {
    Json(control.journal.streams(LIST_MAX))
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        let detail = error.to_string();
        match error {
            LogError::NotFound(_) => Self::missing(detail),
            LogError::Unnamed(_) | LogError::Mixed => Self::bad_request(detail),
            LogError::Here(_) | LogError::Merged { .. } => Self::conflict("already_here", detail),
            LogError::Several { .. } => Self::conflict("several", detail),
            LogError::NoEnd(_) => Self::conflict("no_end", detail),
            LogError::Sources(_) => Self::conflict("no_sources", detail),
            LogError::Unreadable(_) => Self::conflict("unreadable", detail),
            LogError::Full(full) => full.into(),
            LogError::Io(_) => Self::internal(detail),
        }
    }
}
