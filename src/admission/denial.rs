//! Why not.

use std::time::Duration;

use super::Report;
use crate::model::Name;

/// A limit that had too little left.
#[derive(Clone, Debug, PartialEq)]
pub struct Limited {
    /// Its name.
    pub name: Name,
    /// When there will be enough; `None`: never, it asks for more than the limit holds.
    pub retry_after: Option<Duration>,
    /// How all limits stand.
    pub report: Report,
}

/// Why not. The caller is identified all the same, so each of them is counted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
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
    /// The policy, or the key's scopes, do not give the right.
    #[error("the right `{0}` is not given")]
    MissingRight(String),
    /// The policy does not accept the caller's address.
    #[error("the address is not accepted")]
    IpDenied,
    /// A rate limit.
    #[error("the rate limit `{}` is used up", .0.name)]
    RateLimited(Box<Limited>),
    /// A quota.
    #[error("the quota `{}` is used up", .0.name)]
    QuotaExceeded(Box<Limited>),
    /// So many run already.
    #[error("{0} requests run already")]
    ConcurrencyExceeded(u32),
    /// What is known is too old, or too little, to decide by.
    #[error("what is known of the key is too old to decide by")]
    PolicyUnavailable {
        /// When it is worth asking again.
        retry_after: Duration,
    },
}

impl Denial {
    /// How all limits stand, where one of them denies.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::RateLimited(limited) | Self::QuotaExceeded(limited) => Some(&limited.report),
            _ => None,
        }
    }

    /// The limit that denies.
    pub fn limit(&self) -> Option<&Name> {
        match self {
            Self::RateLimited(limited) | Self::QuotaExceeded(limited) => Some(&limited.name),
            _ => None,
        }
    }
}
