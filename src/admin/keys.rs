//! `/admin/v1/keys`

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::extract::{Body, Id, Params, name};
use super::{Control, LIST_MAX, Problem, clients};
use crate::cache::KeyView;
use crate::model::api_key::{ApiKey, SEED_BYTES};
use crate::model::fact::{Revocation, RevocationKind, StateFact};
use crate::model::units::Span;
use crate::model::{Key, KeyState, Name, Timestamp};

/// Scopes of one key: few, and short enough for a fact of 1 KiB.
const SCOPES_MAX: usize = 16;
const SCOPES_BYTES_MAX: usize = 512;
/// The longest life and overlap; beyond it a calendar is of no use.
const LIFE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// How long a rotated key stays good when nobody says otherwise.
const OVERLAP: Span = Span::secs(24 * 3600);
/// Draws for one key; each fails once in more than 10^20 times.
const DRAWS_MAX: usize = 8;
const DEFAULT_ENV: &str = "live";

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
    let policy = new.policy.map(|text| name(&text, "policy")).transpose()?;
    let scopes = scopes(&new.scopes)?;
    let life = new.expires_in.map(|span| bounded(span, "expires_in")).transpose()?;
    if life == Some(Duration::ZERO) {
        return Err(Problem::bad_request("`expires_in` must be more than zero"));
    }
    let secret = draw(&control, new.env.as_deref().unwrap_or(DEFAULT_ENV))?;
    let turn = control.turn().await;
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
    // Asking twice is no mistake, and needs no second fact.
    if view.revoked_at != Some(Timestamp::NEG_INFINITY) {
        let facts = vec![revoked(id, Timestamp::NEG_INFINITY)];
        control.commit(turn, facts, "key.revoke", id.to_string().into()).await?;
        view.revoked_at = Some(Timestamp::NEG_INFINITY);
    }
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
    let directory = control.directory(&format!("`gatepost key revoke {id}` works without it"))?;
    directory.set_key_enabled(id, enabled).await?;
    control.note(action, id.to_string().into());
    view.key.enabled = enabled;
    Ok(Json(Shown::new(view, control.clock.now())))
}

fn find(control: &Control, id: Uuid) -> Result<KeyView, Problem> {
    control.cache.key(id).ok_or_else(|| {
        Problem::missing(format!("there is no key {id}; `gatepost key list` shows them"))
    })
}

fn scopes(texts: &[String]) -> Result<Vec<Name>, Problem> {
    if texts.len() > SCOPES_MAX || texts.iter().map(String::len).sum::<usize>() > SCOPES_BYTES_MAX {
        let rule = format!("`scopes`: at most {SCOPES_MAX}, with {SCOPES_BYTES_MAX} bytes in all");
        return Err(Problem::bad_request(rule));
    }
    texts.iter().map(|text| name(text, "scopes")).collect()
}

fn bounded(span: Span, field: &str) -> Result<Duration, Problem> {
    if span.0 <= LIFE_MAX {
        return Ok(span.0);
    }
    Err(Problem::bad_request(format!("`{field}` must not be more than 100 years")))
}

fn draw(control: &Control, env: &str) -> Result<ApiKey, Problem> {
    let mut seed = [0; SEED_BYTES];
    let drawn = (0..DRAWS_MAX).find_map(|_| {
        control.entropy.fill(&mut seed);
        ApiKey::make(env, &seed)
    });
    drawn.ok_or_else(|| Problem::bad_request("`env` must be 1 to 16 lower-case letters or digits"))
}

fn make(
    control: &Control,
    secret: &ApiKey,
    client: Name,
    policy: Option<Name>,
    scopes: Vec<Name>,
    expires_at: Option<Timestamp>,
) -> Key {
    let created_at = control.clock.now();
    Key {
        id: control.entropy.uuid_v7(created_at),
        digest: secret.digest(),
        prefix: secret.prefix().into(),
        last4: secret.last4().into(),
        client,
        policy,
        scopes,
        enabled: true,
        expires_at,
        created_at,
    }
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

/// Without an overlap the old key ends at once, whatever any clock says.
fn end_of(overlap: Duration, now: Timestamp) -> Timestamp {
    if overlap.is_zero() { Timestamp::NEG_INFINITY } else { now.plus(overlap) }
}

/// A successor lives as long as its predecessor was made for. When a declared key was made is not
/// known: its successor ends with it.
fn successor_expiry(old: &Key, now: Timestamp) -> Option<Timestamp> {
    let end = old.expires_at?;
    let known = old.created_at > Timestamp::EPOCH;
    Some(if known { now.plus(end.since(old.created_at)) } else { end })
}

/// The environment in a key's prefix, `gp_live_`; a declared key does not tell.
fn env_of(prefix: &str) -> &str {
    let env = prefix.strip_prefix("gp_").and_then(|rest| rest.strip_suffix('_'));
    env.unwrap_or(DEFAULT_ENV)
}

#[cfg(test)]
mod tests;
