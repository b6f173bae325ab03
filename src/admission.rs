//! Whether an identified caller may do what it asks: a permit or a denial. No I/O.
//!
//! A [`Permit`] can be made here only, and nothing is forwarded without one. The checks run in one
//! order: what is provably denied first, then what cannot be decided, then what the policy asks.
//! Rights, rate limits, quotas and concurrency take their place in [`decide`] behind the scopes.

use std::time::Duration;

use crate::model::{KeyState, Name, Principal, SessionState, Standing, Target, Timestamp};

/// When a caller that met a stale cache should ask again.
const STALE_RETRY: Duration = Duration::from_secs(5);

/// What is known of an identified caller at the moment of the request.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Who it is.
    pub principal: &'a Principal,
    /// Revocations included.
    pub standing: Standing,
    /// Whether its client is enabled.
    pub client_enabled: bool,
    /// Whether what the cache knows is older than `max_stale`.
    pub stale: bool,
}

/// Leave to do one thing. Only [`decide`] makes it.
#[derive(Debug)]
pub struct Permit<'a> {
    principal: &'a Principal,
    target: &'a Target,
    at: Timestamp,
}

impl<'a> Permit<'a> {
    /// Who may.
    pub fn principal(&self) -> &'a Principal {
        self.principal
    }

    /// What may be touched.
    pub fn target(&self) -> &'a Target {
        self.target
    }

    /// When it was admitted; the hour that its counts belong to.
    pub fn at(&self) -> Timestamp {
        self.at
    }
}

/// Why not. The caller is identified all the same, so each of them is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// A revocation is in force.
    #[error("the key is revoked")]
    KeyRevoked,
    /// The key is switched off.
    #[error("the key is disabled")]
    KeyDisabled,
    /// The key's time is over.
    #[error("the key has expired")]
    KeyExpired,
    /// The session is revoked or over, or its user was logged out since the token was made.
    #[error("the token's session is over")]
    SessionOver,
    /// The client is switched off.
    #[error("the client is disabled")]
    ClientDisabled,
    /// A scope that is asked for is not among the key's.
    #[error("the key lacks a scope")]
    InsufficientScope,
    /// The cache is older than `max_stale`: a policy or a revocation may have been missed.
    #[error("what is known of the key is too old to decide by")]
    PolicyUnavailable {
        /// When it is worth asking again.
        retry_after: Duration,
    },
}

/// Decides at `now`. `scopes` are those that the caller asks for, if it asks for any.
pub fn decide<'a>(
    caller: Presented<'a>,
    target: &'a Target,
    scopes: &[Name],
    now: Timestamp,
) -> Result<Permit<'a>, Denial> {
    provably_denied(&caller)?;
    if caller.stale {
        return Err(Denial::PolicyUnavailable { retry_after: STALE_RETRY });
    }
    within_scopes(caller.principal, scopes)?;
    Ok(Permit { principal: caller.principal, target, at: now })
}

fn provably_denied(caller: &Presented<'_>) -> Result<(), Denial> {
    match caller.standing {
        Standing::Key(KeyState::Revoked) => Err(Denial::KeyRevoked),
        Standing::Key(KeyState::Disabled) => Err(Denial::KeyDisabled),
        Standing::Key(KeyState::Expired) => Err(Denial::KeyExpired),
        Standing::Session(SessionState::Revoked | SessionState::Expired) => {
            Err(Denial::SessionOver)
        }
        Standing::Key(KeyState::Active) | Standing::Session(SessionState::Active) => {
            if caller.client_enabled { Ok(()) } else { Err(Denial::ClientDisabled) }
        }
    }
}

/// A key without scopes is not narrowed by them.
fn within_scopes(principal: &Principal, asked: &[Name]) -> Result<(), Denial> {
    let has = &principal.scopes;
    if has.is_empty() || asked.iter().all(|scope| has.contains(scope)) {
        Ok(())
    } else {
        Err(Denial::InsufficientScope)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn principal(scopes: &[&str]) -> Principal {
        Principal {
            client: "acme".into(),
            key_id: Uuid::from_u128(7),
            subject: "".into(),
            scopes: scopes.iter().map(|scope| Name::from(*scope)).collect(),
        }
    }

    fn decided(state: KeyState, client_enabled: bool, stale: bool) -> Option<Denial> {
        let principal = principal(&[]);
        let standing = Standing::Key(state);
        let caller = Presented { principal: &principal, standing, client_enabled, stale };
        decide(caller, &Target::access(), &[], Timestamp(5)).err()
    }

    #[test]
    fn an_active_key_of_an_enabled_client_is_permitted() {
        let (principal, target) = (principal(&[]), Target::access());
        let standing = Standing::Session(SessionState::Active);
        let caller =
            Presented { principal: &principal, standing, client_enabled: true, stale: false };
        let permit = decide(caller, &target, &[], Timestamp(5)).expect("a permit");
        assert_eq!(&*permit.principal().client, "acme");
        assert_eq!((permit.target(), permit.at()), (&target, Timestamp(5)));
    }

    #[test]
    fn denials_win_over_staleness() {
        for stale in [false, true] {
            for (state, enabled, denial) in [
                (KeyState::Revoked, true, Denial::KeyRevoked),
                (KeyState::Disabled, true, Denial::KeyDisabled),
                (KeyState::Expired, false, Denial::KeyExpired),
                (KeyState::Active, false, Denial::ClientDisabled),
            ] {
                assert_eq!(decided(state, enabled, stale), Some(denial));
            }
        }
        for state in [SessionState::Revoked, SessionState::Expired] {
            let standing = Standing::Session(state);
            let (principal, target) = (principal(&[]), Target::access());
            let caller =
                Presented { principal: &principal, standing, client_enabled: false, stale: true };
            let decided = decide(caller, &target, &[], Timestamp(5)).err();
            assert_eq!(decided, Some(Denial::SessionOver));
        }
        let stale = decided(KeyState::Active, true, true);
        assert_eq!(stale, Some(Denial::PolicyUnavailable { retry_after: STALE_RETRY }));
    }

    #[test]
    fn scopes_narrow_only_keys_that_have_some() {
        let asked = [Name::from("orders.read")];
        assert_eq!(within_scopes(&principal(&[]), &asked), Ok(()));
        assert_eq!(within_scopes(&principal(&["orders.read", "x"]), &asked), Ok(()));
        let refused = within_scopes(&principal(&["orders.write"]), &asked);
        assert_eq!(refused, Err(Denial::InsufficientScope));
    }
}
