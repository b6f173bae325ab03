//! `POST /admin/v1/reload`: the configuration is read again, by what [`Configuration`] stands for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::{Control, Problem};
use crate::model::Timestamp;

/// The configuration of a running gateway; `gateway` implements it.
pub trait Configuration: Send + Sync {
    /// Reads it again and puts in force what can be exchanged while requests run: all of it, or
    /// nothing. Reads files, so it blocks.
    ///
    /// # Errors
    /// What is wrong with it; what held before still holds.
    fn reload(&self) -> Result<Reloaded, String>;

    /// How it stands.
    fn standing(&self) -> ConfigurationStanding;
}

/// What was put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Routes in force.
    pub routes: usize,
    /// Upstreams in force.
    pub upstreams: usize,
    /// Keys whose new value holds after a restart only.
    pub needs_restart: Vec<String>,
}

/// How the configuration of a running gateway stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigurationStanding {
    /// When what holds was read.
    pub loaded_at: Timestamp,
    /// Why the last attempt to read it again changed nothing; none when it went well.
    pub last_error: Option<String>,
    /// Keys whose new value holds after a restart only, as of the last attempt that went well.
    pub needs_restart: Vec<String>,
}

pub(super) async fn reload(State(control): State<Arc<Control>>) -> Result<Json<Reloaded>, Problem> {
    let Some(configuration) = control.configuration.clone() else {
        let detail = "no gateway runs here; it reads its configuration when it starts";
        return Err(Problem::unavailable("not_running", detail));
    };
    let reading = control.tasks.spawn_blocking(move || configuration.reload());
    let failed = |_| Problem::internal("reading the configuration did not end; the log says why");
    let refused =
        |why| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "configuration_invalid", why);
    let reloaded = reading.await.map_err(failed)?.map_err(refused)?;
    control.note("config.reload", format!("{} routes", reloaded.routes).into());
    Ok(Json(reloaded))
}
