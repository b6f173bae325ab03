//! `/admin/v1/keys`

mod rules;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::extract::{Body, Id, Params};
use super::{Control, LIST_MAX, Problem, clients, policies};
use crate::cache::KeyView;
use crate::model::api_key::ApiKey;
use crate::model::fact::{Revocation, RevocationKind, StateFact};
use crate::model::units::Span;
use crate::model::{Key, KeyState, Name, Timestamp};
use rules::{DEFAULT_ENV, bounded, draw, end_of, env_of, make, successor_expiry};

pub(super) use rules::scopes;

/// How long a rotated key stays good when nobody says otherwise.
const OVERLAP: Span = Span::secs(24 * 3600);
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    client: String,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    expires_in: Option<Span>,
    #[serde(default)]
    env: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    #[serde(default)]
    overlap: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    client: Option<String>,
    after: Option<Uuid>,
    limit: Option<usize>,
}

/// A new key: the only answer that ever holds the key itself.
#[derive(Serialize)]
pub(super) struct Created {
    id: Uuid,
    key: String,
    client: Name,
    prefix: String,
    last4: String,
    policy: Option<Name>,
    scopes: Vec<Name>,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<Uuid>,
}

/// A key as it is shown afterwards.
#[derive(Serialize)]
pub(super) struct Shown {
    id: Uuid,
    client: Name,
    prefix: String,
    last4: String,
    policy: Option<Name>,
    scopes: Vec<Name>,
    state: &'static str,
    enabled: bool,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    /// The end of an overlap; none when it was revoked at once, or not at all (`state` tells).
    revoked_at: Option<Timestamp>,
}

impl Shown {
    fn new(view: KeyView, now: Timestamp) -> Self {
        let KeyView { key, revoked_at } = view;
        let state = match key.state(revoked_at, now) {
            KeyState::Active => "active",
            KeyState::Revoked => "revoked",
            KeyState::Disabled => "disabled",
            KeyState::Expired => "expired",
        };
        Self {
            id: key.id,
            client: key.client,
            prefix: key.prefix,
            last4: key.last4,
            policy: key.policy,
            scopes: key.scopes,
            state,
            enabled: key.enabled,
            expires_at: key.expires_at,
            created_at: key.created_at,
            revoked_at: revoked_at.filter(|at| *at > Timestamp::NEG_INFINITY),
        }
    }
}

pub(super) async fn create(
    State(control): State<Arc<Control>>,
    Body(new): Body<New>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    let scopes = scopes(&new.scopes)?;
    let life = new.expires_in.map(|span| bounded(span, "expires_in")).transpose()?;
    if life == Some(Duration::ZERO) {
        return Err(Problem::bad_request("`expires_in` must be more than zero"));
    }
    let secret = draw(&control, new.env.as_deref().unwrap_or(DEFAULT_ENV))?;
    let turn = control.turn().await;
    let policy = policies::given(&control, new.policy).await?;
    let client = clients::find(&control, &new.client)?.name;
    let expires_at = life.map(|life| control.clock.now().plus(life));
    let key = make(&control, &secret, client, policy, scopes, expires_at);
    let subject = key.id.to_string().into();
    let facts = vec![StateFact::KeyCreated(key.clone())];
    control.commit(turn, facts, "key.create", subject).await?;
    Ok((StatusCode::CREATED, Json(created(key, &secret, None))))
}

pub(super) async fn list(
    State(control): State<Arc<Control>>,
    Params(page): Params<Page>,
) -> Result<Json<Vec<Shown>>, Problem> {
    let limit = page.limit.unwrap_or(LIST_MAX).clamp(1, LIST_MAX);
    let now = control.clock.now();
    // Finding the few keys of one client may read many: not on a thread that answers requests.
    let tasks = control.tasks.clone();
    let read = move || control.cache.keys(page.client.as_deref(), page.after, limit);
    let views = tasks.spawn_blocking(read).await;
    let views = views.map_err(|_| Problem::internal("the cache could not be read"))?;
    Ok(Json(views.into_iter().map(|view| Shown::new(view, now)).collect()))
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Id(id): Id,
) -> Result<Json<Shown>, Problem> {
    Ok(Json(Shown::new(find(&control, id)?, control.clock.now())))
}

pub(super) async fn revoke(
    State(control): State<Arc<Control>>,
    Id(id): Id,
) -> Result<Json<Shown>, Problem> {
    let turn = control.turn().await;
    let mut view = find(&control, id)?;
    // Also when it is revoked already: nobody knows whether that came to the disk.
    let facts = vec![revoked(id, Timestamp::NEG_INFINITY)];
    control.commit(turn, facts, "key.revoke", id.to_string().into()).await?;
    view.revoked_at = Some(Timestamp::NEG_INFINITY);
    Ok(Json(Shown::new(view, control.clock.now())))
}

pub(super) async fn rotate(
    State(control): State<Arc<Control>>,
    Id(id): Id,
    Body(rotation): Body<Rotation>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    let overlap = bounded(rotation.overlap.unwrap_or(OVERLAP), "overlap")?;
    let turn = control.turn().await;
    let KeyView { key: old, revoked_at } = find(&control, id)?;
    let now = control.clock.now();
    if old.state(revoked_at, now) != KeyState::Active || revoked_at.is_some() {
        let detail = format!("key {id} is not active any more; make a new one (`key create`)");
        return Err(Problem::conflict("key_not_active", detail));
    }
    let secret = draw(&control, env_of(&old.prefix))?;
    let expires_at = successor_expiry(&old, now);
    let key = make(&control, &secret, old.client, old.policy, old.scopes, expires_at);
    let facts = vec![StateFact::KeyCreated(key.clone()), revoked(id, end_of(overlap, now))];
    control.commit(turn, facts, "key.rotate", id.to_string().into()).await?;
    Ok((StatusCode::CREATED, Json(created(key, &secret, Some(id)))))
}

pub(super) async fn disable(
    State(control): State<Arc<Control>>,
    Id(id): Id,
) -> Result<Json<Shown>, Problem> {
    set_enabled(&control, id, false, "key.disable").await
}

pub(super) async fn enable(
    State(control): State<Arc<Control>>,
    Id(id): Id,
) -> Result<Json<Shown>, Problem> {
    set_enabled(&control, id, true, "key.enable").await
}

async fn set_enabled(
    control: &Control,
    id: Uuid,
    enabled: bool,
    action: &'static str,
) -> Result<Json<Shown>, Problem> {
    let mut view = find(control, id)?;
    let otherwise = format!("`gatepost key revoke {id}` works without it");
    let set = control.directory(&otherwise)?.set_key_enabled(id, enabled).await;
    set.map_err(|error| Problem::from_directory(error, &otherwise))?;
    control.note(action, id.to_string().into());
    view.key.enabled = enabled;
    Ok(Json(Shown::new(view, control.clock.now())))
}

fn find(control: &Control, id: Uuid) -> Result<KeyView, Problem> {
    control.cache.key(id).ok_or_else(|| {
        Problem::missing(format!("there is no key {id}; `gatepost key list` shows them"))
    })
}

fn created(key: Key, secret: &ApiKey, replaces: Option<Uuid>) -> Created {
    Created {
        id: key.id,
        key: secret.reveal().into(),
        client: key.client,
        prefix: key.prefix,
        last4: key.last4,
        policy: key.policy,
        scopes: key.scopes,
        expires_at: key.expires_at,
        created_at: key.created_at,
        replaces,
    }
}

fn revoked(id: Uuid, at: Timestamp) -> StateFact {
    let id = id.to_string().into();
    StateFact::Revoked(Revocation { kind: RevocationKind::Key, id, at })
}
