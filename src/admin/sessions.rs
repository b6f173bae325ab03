//! `/admin/v1/sessions`: a trusted service begins them; users and operators end them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::extract::{Body, Id, Params, name};
use super::keys::scopes;
use super::{Control, LIST_MAX, Problem, clients};
use crate::cache::{HeldSession, Undecidable};
use crate::model::fact::{Revocation, RevocationKind, StateFact};
use crate::model::units::Span;
use crate::model::{Name, Session, SessionState, Timestamp};
use crate::tokens::{NewSession, RECOVERY_MAX, TokenError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    subject: String,
    client: String,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    ttl: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    subject: Option<String>,
    client: Option<String>,
    after: Option<Uuid>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    client: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recovery {
    r#for: Span,
}

/// A new session: the only answer of the control plane that ever holds its tokens.
#[derive(Serialize)]
struct Created<'a> {
    id: Uuid,
    access_token: &'a str,
    refresh_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
}

/// A session as it is shown.
#[derive(Serialize)]
pub(super) struct Shown {
    id: Uuid,
    subject: Name,
    client: Name,
    scopes: Vec<Name>,
    state: &'static str,
    node: Name,
    generation: u64,
    created_at: Timestamp,
    advanced_at: Timestamp,
    expires_at: Timestamp,
    revoked_at: Option<Timestamp>,
    recovered_at: Option<Timestamp>,
}

impl Shown {
    fn new(session: Session, state: SessionState) -> Self {
        Self {
            id: session.id,
            subject: session.subject,
            client: session.client,
            scopes: session.scopes,
            state: match state {
                SessionState::Active => "active",
                SessionState::Revoked => "revoked",
                SessionState::Expired => "expired",
            },
            node: session.node,
            generation: session.advance.generation,
            created_at: session.created_at,
            advanced_at: session.advance.at,
            expires_at: session.expires_at,
            revoked_at: session.revoked_at,
            recovered_at: session.recovered_at,
        }
    }

    fn held(control: &Control, held: &HeldSession) -> Self {
        let rules = control.tokens.config().session_rules();
        Self::new(held.session().clone(), held.state(rules, control.clock.now()))
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Elsewhere(node) => Self::unavailable(
                "session_elsewhere",
                format!("the session belongs to the gateway `{node}`; ask it there"),
            ),
            TokenError::Unrecorded(full) => full.into(),
            TokenError::RevokedUnrecorded(full) => Self::revoked_unrecorded(full),
            error => Self::unavailable(
                "session_validation_unavailable",
                format!("{error}: Postgres is away, or has not heard of it yet; try again"),
            ),
        }
    }
}

pub(super) async fn create(
    State(control): State<Arc<Control>>,
    Body(new): Body<New>,
) -> Result<Response, Problem> {
    let subject = name(&new.subject, "subject")?;
    let scopes = scopes(&new.scopes)?;
    let longest = control.tokens.config().session_ttl_max;
    if new.ttl.is_some_and(|ttl| ttl.0.is_zero() || ttl > longest) {
        let rule = format!("`ttl` must be more than zero and at most {longest}");
        return Err(Problem::bad_request(rule));
    }
    let turn = control.turn().await;
    let client = clients::find(&control, &new.client)?;
    if !client.enabled {
        let detail = format!("the client `{}` is disabled", client.name);
        return Err(Problem::conflict("client_disabled", detail));
    }
    let new = NewSession { subject, client: client.name, scopes, ttl: new.ttl.map(|ttl| ttl.0) };
    let session = control.tokens.begin(new);
    let id = session.id;
    let facts = vec![StateFact::Session(session.clone())];
    control.commit(turn, facts, "session.create", id.to_string().into()).await?;
    let issued = control.tokens.issue(&session);
    let answer = Json(Created {
        id,
        access_token: issued.access_token.expose_secret(),
        refresh_token: issued.refresh_token.as_ref().map_or("", ExposeSecret::expose_secret),
        token_type: "Bearer",
        expires_in: issued.expires_in.as_secs(),
    });
    // RFC 6749 §5.1.
    let text = HeaderValue::from_static;
    let kept = [(header::CACHE_CONTROL, text("no-store")), (header::PRAGMA, text("no-cache"))];
    Ok((StatusCode::CREATED, kept, answer).into_response())
}

pub(super) async fn list(
    State(control): State<Arc<Control>>,
    Params(page): Params<Page>,
) -> Result<Json<Vec<Shown>>, Problem> {
    let limit = page.limit.unwrap_or(LIST_MAX).clamp(1, LIST_MAX);
    let (tasks, now) = (control.tasks.clone(), control.clock.now());
    let rules = control.tokens.config().session_rules();
    // Finding the few of one subject may read many: not on a thread that answers requests.
    let read = move || {
        let is = |asked: &Option<String>, has: &str| asked.as_deref().is_none_or(|a| *a == *has);
        let wanted = |s: &Session| is(&page.subject, &s.subject) && is(&page.client, &s.client);
        let found = control.cache.sessions(page.after, limit, &wanted);
        let shown = |session: Session| {
            let subject = control.cache.not_before(RevocationKind::Subject, &session.subject)?;
            let client = control.cache.not_before(RevocationKind::Client, &session.client)?;
            let state = session.state(subject.max(client), rules, now);
            Ok(Shown::new(session, state))
        };
        found.into_iter().map(shown).collect::<Result<Vec<_>, Undecidable>>()
    };
    let unreadable = || Problem::internal("the cache could not be read");
    let shown = tasks.spawn_blocking(read).await.map_err(|_| unreadable())?;
    shown.map(Json).map_err(|_| unreadable())
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Id(id): Id,
) -> Result<Json<Shown>, Problem> {
    let held = find(&control, id).await?;
    Ok(Json(Shown::held(&control, &held)))
}

async fn find(control: &Control, id: Uuid) -> Result<Arc<HeldSession>, Problem> {
    let missing = || {
        Problem::missing(format!("there is no session {id}; `gatepost session list` shows them"))
    };
    control.tokens.find(id).await?.ok_or_else(missing)
}

/// Ends one session: its refresh token, and all its access tokens.
pub(super) async fn revoke(
    State(control): State<Arc<Control>>,
    Id(id): Id,
) -> Result<Json<Shown>, Problem> {
    let turn = control.turn().await;
    let held = find(&control, id).await?;
    let session = held.session();
    if session.node != control.node {
        return Err(TokenError::Elsewhere(session.node.clone()).into());
    }
    // Also when it is revoked already: nobody knows whether that came to the disk.
    let facts = vec![StateFact::Session(control.tokens.revoked(session))];
    control.commit(turn, facts, "session.revoke", id.to_string().into()).await?;
    show(State(control), Id(id)).await
}

/// Logs a subject or a client out everywhere: what was made until now is over.
pub(super) async fn revoke_all(
    State(control): State<Arc<Control>>,
    Body(whose): Body<Whose>,
) -> Result<Json<serde_json::Value>, Problem> {
    let (kind, text) = match (whose.subject, whose.client) {
        (Some(subject), None) => (RevocationKind::Subject, subject),
        (None, Some(client)) => (RevocationKind::Client, client),
        _ => return Err(Problem::bad_request("name one of `subject` and `client`")),
    };
    let id = name(&text, kind.as_str())?;
    let turn = control.turn().await;
    // Later than any before: what was made since ends also if the clock has been set back, or
    // another gateway's was ahead.
    let known = control.cache.not_before(kind, &id).unwrap_or(Timestamp::NEG_INFINITY);
    let at = control.clock.now().max(known.plus(Duration::from_micros(1)));
    let facts = vec![StateFact::Revoked(Revocation { kind, id: Arc::clone(&id), at })];
    let action = match kind {
        RevocationKind::Subject => "session.revoke.subject",
        _ => "session.revoke.client",
    };
    control.commit(turn, facts, action, Arc::clone(&id)).await?;
    Ok(Json(serde_json::json!({ kind.as_str(): id, "not_before": at })))
}

/// Opens the recovery window, or closes it.
pub(super) async fn recover(
    State(control): State<Arc<Control>>,
    Body(asked): Body<Recovery>,
) -> Result<Json<serde_json::Value>, Problem> {
    let Span(span) = asked.r#for;
    if span > RECOVERY_MAX {
        let most = Span(RECOVERY_MAX);
        return Err(Problem::bad_request(format!("`for` must be at most {most}")));
    }
    let until = control.clock.now().plus(span);
    let action = match span {
        Duration::ZERO => "session.recovery.close",
        _ => "session.recovery.open",
    };
    let all = Arc::clone(&control);
    // To its end, and noted, whether or not somebody waits for the answer.
    let set = move || {
        let set = all.tokens.recovery().set(until);
        if set.is_ok() {
            all.note(action, until.to_string().into());
        }
        set
    };
    let failed = || Problem::internal("the data directory cannot be written");
    control.tasks.spawn_blocking(set).await.map_err(|_| failed())?.map_err(|_| failed())?;
    Ok(Json(serde_json::json!({ "until": until })))
}
