//! Access tokens: JWTs (RFC 7519) of the profile RFC 9068, signed with Ed25519 (RFC 8037).
//!
//! Which algorithm and which key is never taken from the token (RFC 8725 §3.1, §3.9): one algorithm
//! is allowed, and `kid` is looked up among our own keys.

use std::borrow::Cow;
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::config::ACCESS_TTL_MAX;
use crate::model::{Name, Timestamp, are_scopes, is_name};

/// The longest token that is looked at, in bytes.
pub const ACCESS_MAX: usize = 4096;

const TYP: &str = "at+jwt";

/// What a token was made of, and ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A session.
    Session(Uuid),
    /// An API key.
    Key(Uuid),
}

/// What a token shall say.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The end user; the client where there is none.
    pub subject: Name,
    /// The client.
    pub client: Name,
    /// What the token may do; an empty list narrows nothing.
    pub scopes: Vec<Name>,
    /// What it is made of.
    pub of: Holder,
}

/// What a token says that is one of ours, and good at this moment as far as it tells itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The end user; the client where there is none.
    pub subject: Name,
    /// The client.
    pub client: Name,
    /// What the token may do; an empty list narrows nothing.
    pub scopes: Vec<Name>,
    /// What it was made of.
    pub of: Holder,
    /// Its own id.
    pub id: Uuid,
    /// Seconds since the Unix epoch.
    pub issued_at: i64,
    /// Seconds since the Unix epoch.
    pub expires_at: i64,
}

/// Where tokens are good.
#[derive(Clone, Copy, Debug)]
pub struct Realm<'a> {
    /// `iss`
    pub issuer: &'a str,
    /// `aud`
    pub audience: &'a str,
    /// By how much clocks may differ.
    pub skew: Duration,
}

#[derive(Debug, Deserialize, Serialize)]
struct Claims<'a> {
    iss: Cow<'a, str>,
    // Checked by the library, as text or list.
    aud: serde_json::Value,
    sub: Cow<'a, str>,
    client_id: Cow<'a, str>,
    jti: Uuid,
    iat: i64,
    nbf: i64,
    exp: i64,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    scope: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_id: Option<Uuid>,
}

fn seconds(at: Timestamp) -> i64 {
    at.0.div_euclid(1_000_000)
}

/// The header of every token that the key `kid` signs, as it stands in front of them.
pub fn header(kid: &str) -> String {
    URL_SAFE_NO_PAD.encode(json!({ "typ": TYP, "alg": "EdDSA", "kid": kid }).to_string())
}

/// Signs a token that lives for `ttl` from `now` on (RFC 7515 §7.1). The library is left out: it
/// would derive the key anew for each token, which takes as long as signing.
pub fn sign(
    (header, key): (&str, &Ed25519KeyPair),
    realm: Realm<'_>,
    grant: &Grant,
    id: Uuid,
    now: Timestamp,
    ttl: Duration,
) -> String {
    let iat = seconds(now);
    let (sid, key_id) = match grant.of {
        Holder::Session(id) => (Some(id), None),
        Holder::Key(id) => (None, Some(id)),
    };
    let claims = Claims {
        iss: realm.issuer.into(),
        aud: realm.audience.into(),
        sub: (&*grant.subject).into(),
        client_id: (&*grant.client).into(),
        jti: id,
        iat,
        nbf: iat,
        exp: iat.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)),
        scope: grant.scopes.join(" ").into(),
        sid,
        key_id,
    };
    let mut text = format!("{header}.");
    // Plain texts and numbers: there is nothing that could fail.
    URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(&claims).unwrap_or_default(), &mut text);
    let signature = key.sign(text.as_bytes());
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    text
}

/// Reads a token of `realm` at `now`, with the one of our keys that it names. Every failure is the
/// same `None`: nothing can be learned from it.
pub fn verify<'k>(
    text: &str,
    realm: Realm<'_>,
    key: impl FnOnce(&str) -> Option<&'k DecodingKey>,
    now: Timestamp,
) -> Option<Access> {
    if text.len() > ACCESS_MAX {
        return None;
    }
    let header = jsonwebtoken::decode_header(text).ok()?;
    if !is_plain(&header) {
        return None;
    }
    let key = key(header.kid.as_deref()?)?;
    let claims = jsonwebtoken::decode::<Claims<'_>>(text, key, &validation(realm)).ok()?.claims;
    holds(&claims, seconds(now), realm.skew).then(|| access(&claims))?
}

/// Of our type, and without anything that offers a key or asks to be understood.
fn is_plain(header: &Header) -> bool {
    let typ = header.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
    (typ == TYP || typ == "application/at+jwt")
        && header.alg == Algorithm::EdDSA
        && header.jku.is_none()
        && header.jwk.is_none()
        && header.x5u.is_none()
        && header.x5c.is_none()
        && header.crit.is_none()
        && header.enc.is_none()
        && header.zip.is_none()
}

/// The library's own checks, but for those that read a clock.
fn validation(realm: Realm<'_>) -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&[realm.issuer]);
    validation.set_audience(&[realm.audience]);
    validation.required_spec_claims =
        ["iss", "aud", "sub", "exp", "nbf"].map(str::to_owned).into_iter().collect();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

/// In its time. It cannot have been made later than now, nor for longer than we make them.
fn holds(claims: &Claims<'_>, now: i64, skew: Duration) -> bool {
    let whole = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    let (skew, longest) = (whole(skew), whole(ACCESS_TTL_MAX));
    now < claims.exp.saturating_add(skew)
        && claims.nbf <= now.saturating_add(skew)
        && claims.iat <= now.saturating_add(skew)
        && claims.exp.saturating_sub(claims.iat) <= longest
}

fn access(claims: &Claims<'_>) -> Option<Access> {
    let of = match (claims.sid, claims.key_id) {
        (Some(id), None) => Holder::Session(id),
        (None, Some(id)) => Holder::Key(id),
        _ => return None,
    };
    let scopes: Vec<_> =
        claims.scope.split(' ').filter(|s| !s.is_empty()).map(Name::from).collect();
    let good = is_name(&claims.sub) && is_name(&claims.client_id) && are_scopes(&scopes);
    good.then(|| Access {
        subject: (&*claims.sub).into(),
        client: (&*claims.client_id).into(),
        scopes,
        of,
        id: claims.jti,
        issued_at: claims.iat,
        expires_at: claims.exp,
    })
}
