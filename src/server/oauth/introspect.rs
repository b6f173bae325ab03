//! Introspection (RFC 7662): what is not good is not active, and nothing else is said of it. What
//! nobody can say at the moment is a 503, never "not active": that would end a session.

use axum::http::request::Parts;
use axum::response::Response;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::Presented;
use super::form::Form;
use super::no_store;
use crate::authn::{AuthnError, Caller};
use crate::model::{KeyState, SessionState, Standing, Timestamp};
use crate::server::edge::Edge;
use crate::server::problem::{Code, Refusal};
use crate::server::story::Telling;
use crate::tokens::Holder;

/// The scope of keys that may introspect.
const MAY_INTROSPECT: &str = "tokens.introspect";

pub(super) async fn answer(
    edge: &Edge,
    parts: &Parts,
    form: &Form,
    story: &mut Telling,
) -> Result<Response, Refusal> {
    let presented = Presented::find(&parts.headers, form)?;
    let caller = presented.identify(edge, edge.client_ip(parts), story).await?;
    let caller = caller.ok_or(Code::MissingCredential)?;
    edge.entitled(&caller, MAY_INTROSPECT, edge.client_ip(parts))?;
    let text = form.needed("token")?;
    let told = match edge.tokens.proven(text) {
        Some((id, generation)) => of_refresh_token(edge, id, generation).await?,
        None => of_access_token(edge, text).await?,
    };
    Ok(no_store(told.unwrap_or_else(|| json!({ "active": false }))))
}

fn seconds(at: Timestamp) -> i64 {
    at.0.div_euclid(1_000_000)
}

async fn of_refresh_token(
    edge: &Edge,
    id: Uuid,
    generation: u64,
) -> Result<Option<Value>, Refusal> {
    let Some(held) = edge.tokens.find(id).await? else { return Ok(None) };
    if !edge.tokens.is_active(&held, generation)? {
        return Ok(None);
    }
    let (session, config) = (held.session(), edge.tokens.config());
    Ok(Some(told(json!({
        "active": true,
        "scope": session.scopes.join(" "),
        "client_id": session.client,
        "sub": session.subject,
        "exp": seconds(session.ends_at(config.session_idle)),
        "iat": seconds(session.advance.at),
        "iss": config.issuer,
        "token_type": "refresh_token",
        "sid": session.id,
    }))))
}

async fn of_access_token(edge: &Edge, text: &str) -> Result<Option<Value>, Refusal> {
    let config = edge.tokens.config();
    // An API key is no token: it is not looked up.
    let Some(bearer) = edge.tokens.verify(text) else { return Ok(None) };
    let caller = match edge.identify(text, None).await {
        Ok(caller) => caller,
        Err(undecidable @ AuthnError::Undecidable { .. }) => return Err(undecidable.into()),
        Err(_) => return Ok(None),
    };
    if !is_good(edge, &caller) {
        return Ok(None);
    }
    let (sid, key_id) = match bearer.of {
        Holder::Session(id) => (Some(id), None),
        Holder::Key(id) => (None, Some(id)),
    };
    Ok(Some(told(json!({
        "active": true,
        "scope": bearer.principal.scopes.join(" "),
        "client_id": bearer.principal.client,
        "sub": bearer.subject,
        "exp": seconds(bearer.expires_at),
        "iat": bearer.issued_at,
        "nbf": bearer.issued_at,
        "iss": config.issuer,
        "aud": config.audience(),
        "jti": bearer.id,
        "token_type": "Bearer",
        "sid": sid,
        "key_id": key_id,
    }))))
}

fn is_good(edge: &Edge, caller: &Caller) -> bool {
    let active = matches!(
        caller.standing(&edge.tokens, edge.now()),
        Standing::Key(KeyState::Active) | Standing::Session(SessionState::Active)
    );
    active && caller.client_enabled()
}

/// Without what is not there.
fn told(mut told: Value) -> Value {
    if let Some(fields) = told.as_object_mut() {
        fields.retain(|_, value| !value.is_null() && value != "");
    }
    told
}
