//! `/admin/v1/clients`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::extract::{Body, Named, Params, name};
use super::{Control, LIST_MAX, Problem, policies};
use crate::model::fact::StateFact;
use crate::model::policy::Mode;
use crate::model::{Client, Name};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    name: String,
    #[serde(default)]
    policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

/// A client as it is shown.
#[derive(Serialize)]
pub(super) struct Shown {
    name: Name,
    policy: Option<Name>,
    enabled: bool,
    /// Its own mode, which wins over its policy's.
    mode: Option<Mode>,
}

impl From<Client> for Shown {
    fn from(client: Client) -> Self {
        Self { name: client.name, policy: client.policy, enabled: client.enabled, mode: None }
    }
}

/// With its own mode, which Postgres brings.
fn shown(control: &Control, client: Client) -> Shown {
    Shown { mode: control.cache.client_mode(&client.name), ..client.into() }
}

pub(super) async fn create(
    State(control): State<Arc<Control>>,
    Body(new): Body<New>,
) -> Result<(StatusCode, Json<Shown>), Problem> {
    let name_ = name(&new.name, "name")?;
    let turn = control.turn().await;
    let policy = policies::given(&control, new.policy).await?;
    if control.cache.client(&name_).is_some() {
        let detail = format!("there is a client `{name_}` already");
        return Err(Problem::conflict("client_exists", detail));
    }
    let client = Client { name: Arc::clone(&name_), policy, enabled: true };
    let facts = vec![StateFact::ClientCreated(client.clone())];
    control.commit(turn, facts, "client.create", name_).await?;
    Ok((StatusCode::CREATED, Json(client.into())))
}

pub(super) async fn list(
    State(control): State<Arc<Control>>,
    Params(page): Params<Page>,
) -> Json<Vec<Shown>> {
    let after = page.after.unwrap_or_default();
    let limit = page.limit.unwrap_or(LIST_MAX).clamp(1, LIST_MAX);
    let clients = control.cache.clients().into_iter();
    let clients = clients.filter(|client| *client.name > *after);
    Json(clients.take(limit).map(|client| shown(&control, client)).collect())
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Named(name): Named,
) -> Result<Json<Shown>, Problem> {
    Ok(Json(shown(&control, find(&control, &name)?)))
}

pub(super) async fn disable(
    State(control): State<Arc<Control>>,
    Named(name): Named,
) -> Result<Json<Shown>, Problem> {
    set_enabled(&control, name, false, "client.disable").await
}

pub(super) async fn enable(
    State(control): State<Arc<Control>>,
    Named(name): Named,
) -> Result<Json<Shown>, Problem> {
    set_enabled(&control, name, true, "client.enable").await
}

async fn set_enabled(
    control: &Control,
    name: Name,
    enabled: bool,
    action: &'static str,
) -> Result<Json<Shown>, Problem> {
    let mut client = find(control, &name)?;
    let otherwise = "revoke its keys instead (`gatepost key revoke ID`)";
    let directory = control.directory(otherwise)?;
    not_declared(control, &name)?;
    let set = directory.set_client_enabled(Arc::clone(&name), enabled).await;
    set.map_err(|error| Problem::from_directory(error, otherwise))?;
    control.note(action, name);
    client.enabled = enabled;
    Ok(Json(shown(control, client)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMode {
    /// Absent: as its policy says.
    mode: Option<Mode>,
}

pub(super) async fn set_mode(
    State(control): State<Arc<Control>>,
    Named(name): Named,
    Body(new): Body<NewMode>,
) -> Result<Json<Shown>, Problem> {
    let client = find(&control, &name)?;
    let otherwise = "declare it in `[[clients]]` with its `mode`, or set that of its policy";
    let directory = control.directory(otherwise)?;
    not_declared(&control, &name)?;
    let set = directory.set_client_mode(Arc::clone(&name), new.mode).await;
    set.map_err(|error| Problem::from_directory(error, otherwise))?;
    let action = match new.mode {
        Some(Mode::Enforce) => "client.mode.enforce",
        Some(Mode::Observe) => "client.mode.observe",
        None => "client.mode.inherit",
    };
    control.note(action, name);
    Ok(Json(Shown { mode: new.mode, ..client.into() }))
}

/// What stands in Postgres of a declared client has no effect here.
fn not_declared(control: &Control, name: &str) -> Result<(), Problem> {
    if control.cache.declares_client(name) {
        let detail = format!(
            "the client `{name}` is declared in this gateway's configuration, which wins over \
             Postgres; change it there, and restart"
        );
        return Err(Problem::conflict("client_declared", detail));
    }
    Ok(())
}

pub(super) fn find(control: &Control, name: &str) -> Result<Client, Problem> {
    control.cache.client(name).ok_or_else(|| {
        let hint = format!("make it with `gatepost client create {name}`");
        Problem::missing(format!("there is no client `{name}`; {hint}"))
    })
}
