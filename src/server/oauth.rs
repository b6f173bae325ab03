//! The token endpoints: refresh, exchange, revocation, introspection, and what clients need to find
//! and trust them.
//!
//! `/api/auth/refresh` speaks JSON and answers problems; the others speak as OAuth libraries expect
//! (RFC 6749 §5, RFC 7009, RFC 7662, RFC 8414). Nothing here waits for Postgres, unless a session
//! or key is not held by this gateway.

mod client;
mod form;
mod introspect;

use axum::Json;
use axum::body::Body;
use axum::http::Method;
use axum::http::header::{CACHE_CONTROL, HeaderValue, PRAGMA};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::body;
use super::edge::{Edge, Endpoint};
use super::limits;
use super::problem::{Code, NO_STORE, Refusal};
use super::story::Telling;
use crate::admission::Ask;
use crate::model::{Name, are_scopes};
use crate::tokens::{Asked, Holder, Issued, narrowed};
use client::Presented;
use form::Form;

/// The largest request.
const BODY_MAX: usize = 16 * 1024;

/// For how long anybody may keep the public keys, and what is said about the endpoints. A signing
/// key that is rotated in is not in use before a fresh copy is asked for by its unknown `kid`.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// [`NO_STORE`], for who speaks HTTP/1.0 only.
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

const JWKS: &str = "/.well-known/jwks.json";

/// Where they answer.
pub(super) const PATHS: [(&str, Endpoint); 6] = [
    ("/api/auth/refresh", Endpoint::Refresh),
    ("/oauth/token", Endpoint::Token),
    ("/oauth/revoke", Endpoint::Revoke),
    ("/oauth/introspect", Endpoint::Introspect),
    (JWKS, Endpoint::Discovery),
    ("/.well-known/oauth-authorization-server", Endpoint::Discovery),
];

/// The endpoint of a path, if it is one of these.
pub(super) fn endpoint(path: &str) -> Option<Endpoint> {
    PATHS.into_iter().find(|(own, _)| *own == path).map(|(_, endpoint)| endpoint)
}

/// A pair, or an access token alone.
#[derive(Serialize)]
struct Answer<'a> {
    access_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refresh {
    refresh_token: Zeroizing<String>,
}

/// Answers a request on one of the endpoints.
pub(super) async fn answer(
    edge: &Edge,
    endpoint: Endpoint,
    parts: &Parts,
    body: Body,
    story: &mut Telling,
) -> Result<Response, Refusal> {
    if endpoint == Endpoint::Discovery {
        return discovery(edge, parts);
    }
    if parts.method != Method::POST {
        return Err(Code::MethodNotAllowed.into());
    }
    let body = body::read(body, BODY_MAX, edge.config.body_idle()).await?;
    if endpoint == Endpoint::Refresh {
        return refresh(edge, &body, story).await;
    }
    let form = Form::read(&parts.headers, &body)?;
    match endpoint {
        Endpoint::Token => token(edge, parts, &form, story).await,
        Endpoint::Revoke => revoke(edge, parts, &form, story).await,
        _ => introspect::answer(edge, parts, &form, story).await,
    }
}

/// RFC 6749 §5.1.
fn no_store(answer: impl Serialize) -> Response {
    ([(CACHE_CONTROL, NO_STORE), (PRAGMA, NO_CACHE)], Json(answer)).into_response()
}

fn issued(issued: &Issued, with_scope: bool) -> Response {
    let scope = issued.scopes.join(" ");
    no_store(Answer {
        access_token: issued.access_token.expose_secret(),
        refresh_token: issued.refresh_token.as_ref().map(ExposeSecret::expose_secret),
        token_type: "Bearer",
        expires_in: issued.expires_in.as_secs(),
        scope: Some(scope).filter(|scope| with_scope && !scope.is_empty()),
    })
}

async fn refresh(edge: &Edge, body: &[u8], story: &mut Telling) -> Result<Response, Refusal> {
    let asked: Refresh = serde_json::from_slice(body)
        .map_err(|_| Refusal::bad_request("The body is not a JSON object with `refresh_token`."))?;
    let pair = edge.tokens.refresh(&asked.refresh_token, Asked::default()).await?;
    story.note(|story| story.is_of(&pair.client));
    Ok(issued(&pair, false))
}

/// The scopes that are asked for, if any are.
fn scopes(form: &Form) -> Result<Option<Vec<Name>>, Refusal> {
    let Some(text) = form.get("scope") else { return Ok(None) };
    let scopes: Vec<_> = text.split(' ').filter(|s| !s.is_empty()).map(Name::from).collect();
    if are_scopes(&scopes) { Ok(Some(scopes)) } else { Err(Code::InvalidScope.into()) }
}

/// RFC 6749 §4.4 and §6.
async fn token(
    edge: &Edge,
    parts: &Parts,
    form: &Form,
    story: &mut Telling,
) -> Result<Response, Refusal> {
    let grant = form.needed("grant_type")?;
    let (presented, ip) = (Presented::find(&parts.headers, form)?, edge.client_ip(parts));
    let scopes = scopes(form)?;
    match grant {
        "refresh_token" => {
            let text = form.needed("refresh_token")?;
            // A refresh token is its own proof; a client that says who it is must be that one.
            let client = presented.client(edge, ip, story).await?;
            let asked = Asked { client: client.as_deref(), scopes: scopes.as_deref() };
            let pair = edge.tokens.refresh(text, asked).await?;
            story.note(|story| story.is_of(&pair.client));
            Ok(issued(&pair, true))
        }
        "client_credentials" => {
            let caller = presented.identify(edge, ip, story).await?;
            let caller = caller.ok_or(Code::InvalidClient)?;
            let principal = caller.principal();
            let scopes = match narrowed(&principal.scopes, scopes.as_deref()) {
                Ok(scopes) => scopes,
                // Before anything is taken, but a key that is over hears so first.
                Err(error) => {
                    edge.may_ask(&caller, edge.access(), ip)?;
                    return Err(error.into());
                }
            };
            // It is a use of the key, and counted as one.
            let (permit, room) = edge.admit(&caller, Ask::request(edge.access(), ip)).await?;
            let (id, until) = (principal.key_id, caller.ends_at());
            let exchanged = edge.tokens.exchange(id, &principal.client, scopes, until);
            edge.settled(edge.meter.allowed(room, &permit), &permit).await?;
            let mut response = issued(&exchanged, true);
            limits::tell(response.headers_mut(), edge.admission.limit_headers(), &permit);
            Ok(response)
        }
        _ => Err(Code::UnsupportedGrantType.into()),
    }
}

/// RFC 7009: what is not good any more, or never was, is revoked already. Any token of a session
/// ends all of it (§2.1).
async fn revoke(
    edge: &Edge,
    parts: &Parts,
    form: &Form,
    story: &mut Telling,
) -> Result<Response, Refusal> {
    let text = form.needed("token")?;
    let presented = Presented::find(&parts.headers, form)?;
    let client = presented.client(edge, edge.client_ip(parts), story).await?;
    let id = match edge.tokens.proven(text) {
        Some((id, _)) => id,
        None => match edge.tokens.verify(text).map(|bearer| bearer.of) {
            Some(Holder::Session(id)) => id,
            Some(Holder::Key(_)) => return Err(Code::UnsupportedTokenType.into()),
            None => return Ok(no_store(json!({}))),
        },
    };
    if let Some(held) = edge.tokens.find(id).await? {
        if client.is_some_and(|client| client != held.session().client) {
            return Err(Code::UnauthorizedClient.into());
        }
        story.note(|story| story.is_of(&held.session().client));
        edge.tokens.revoke(held.session()).await?;
    }
    Ok(no_store(json!({})))
}

fn discovery(edge: &Edge, parts: &Parts) -> Result<Response, Refusal> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(Code::ReadOnly.into());
    }
    let told = if parts.uri.path() == JWKS { edge.tokens.keys().jwks() } else { metadata(edge) };
    Ok(([(CACHE_CONTROL, KEPT)], Json(told)).into_response())
}

/// RFC 8414 §2. Without `response_types_supported`: required there, and forbidden with nothing in
/// it (§3.2). Response types are for an authorization endpoint, and there is none.
fn metadata(edge: &Edge) -> Value {
    let issuer = &edge.tokens.config().issuer;
    let at = |path: &str| format!("{issuer}{path}");
    let of_clients = ["client_secret_basic", "client_secret_post"];
    let of_all = ["none", "client_secret_basic", "client_secret_post"];
    json!({
        "issuer": issuer,
        "token_endpoint": at("/oauth/token"),
        "revocation_endpoint": at("/oauth/revoke"),
        "introspection_endpoint": at("/oauth/introspect"),
        "jwks_uri": at(JWKS),
        "grant_types_supported": ["refresh_token", "client_credentials"],
        "token_endpoint_auth_methods_supported": of_all,
        "revocation_endpoint_auth_methods_supported": of_all,
        "introspection_endpoint_auth_methods_supported": of_clients,
    })
}
