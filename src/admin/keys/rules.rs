//! The rules of new keys: what they may be called and hold, how long they live, how they are made.

use std::time::Duration;

use super::super::{Control, Problem};
use crate::model::api_key::{ApiKey, SEED_BYTES};
use crate::model::policy::check_scope;
use crate::model::units::Span;
use crate::model::{Key, NAME_MAX, Name, SCOPES_BYTES_MAX, SCOPES_MAX, Timestamp, are_scopes};

/// The longest life and overlap; beyond it a calendar is of no use.
const LIFE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Draws for one key; each fails once in more than 10^20 times.
const DRAWS_MAX: usize = 8;
/// The environment in the text of a key when nobody says otherwise.
pub(super) const DEFAULT_ENV: &str = "live";

pub(in crate::admin) fn scopes(texts: &[String]) -> Result<Vec<Name>, Problem> {
    if !are_scopes(texts) {
        return Err(Problem::bad_request(format!(
            "`scopes`: at most {SCOPES_MAX} names of 1 to {NAME_MAX} bytes, without whitespace and \
             control characters, with {SCOPES_BYTES_MAX} bytes in all"
        )));
    }
    for (at, text) in texts.iter().enumerate() {
        check_scope(text).map_err(|error| {
            Problem::bad_request(format!("`scopes[{at}]`: {}", error.for_a_scope()))
        })?;
    }
    Ok(texts.iter().map(|text| text.as_str().into()).collect())
}

pub(super) fn bounded(span: Span, field: &str) -> Result<Duration, Problem> {
    if span.0 <= LIFE_MAX {
        return Ok(span.0);
    }
    Err(Problem::bad_request(format!("`{field}` must not be more than 100 years")))
}

pub(super) fn draw(control: &Control, env: &str) -> Result<ApiKey, Problem> {
    let mut seed = [0; SEED_BYTES];
    let drawn = (0..DRAWS_MAX).find_map(|_| {
        control.entropy.fill(&mut seed);
        ApiKey::make(env, &seed)
    });
    drawn.ok_or_else(|| Problem::bad_request("`env` must be 1 to 16 lower-case letters or digits"))
}

pub(super) fn make(
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

/// Without an overlap the old key ends at once, whatever any clock says.
pub(super) fn end_of(overlap: Duration, now: Timestamp) -> Timestamp {
    if overlap.is_zero() { Timestamp::NEG_INFINITY } else { now.plus(overlap) }
}

/// A successor lives as long as its predecessor was made for. When a declared key was made is not
/// known: its successor ends with it.
pub(super) fn successor_expiry(old: &Key, now: Timestamp) -> Option<Timestamp> {
    let end = old.expires_at?;
    let known = old.created_at > Timestamp::EPOCH;
    Some(if known { now.plus(end.since(old.created_at)) } else { end })
}

/// The environment in a key's prefix, `gp_live_`; a declared key does not tell.
pub(super) fn env_of(prefix: &str) -> &str {
    let env = prefix.strip_prefix("gp_").and_then(|rest| rest.strip_suffix('_'));
    env.unwrap_or(DEFAULT_ENV)
}

#[cfg(test)]
mod tests;
