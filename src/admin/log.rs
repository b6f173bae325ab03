//! `/admin/v1/log`: the journal, and draining it now.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::{Control, Problem};
use crate::drainer::DrainStatus;
use crate::journal::JournalStatus;

/// The journal's lanes, and how far the drain has come; `drain` is null when embedded.
#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    journal: JournalStatus,
    drain: Option<DrainStatus>,
}

impl Shown {
    fn of(control: &Control) -> Self {
        let drain = control.drainer.as_ref().map(|drainer| drainer.status());
        Self { journal: control.journal.status(), drain }
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
