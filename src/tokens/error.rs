//! Why no token is given, and why one is not accepted.

use std::time::Duration;

use crate::cache::Undecidable;
use crate::journal::Full;
use crate::model::Name;

/// Why a token is refused, or nobody can say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Malformed, forged, of another deployment, expired, revoked, replayed: one answer for all.
    #[error("the token is not valid")]
    Invalid,
    /// A scope that the session or key does not have.
    #[error("a scope is asked for that was not granted")]
    Scope,
    /// The client is switched off.
    #[error("the client is disabled")]
    ClientDisabled,
    /// Nobody can say at the moment; never to be answered as if the token were wrong.
    #[error("the session cannot be looked up at the moment")]
    Undecidable {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// What is cached is older than `cache.max_stale`: somebody may have been logged out.
    #[error("what is known of the session is too old to decide by")]
    Stale,
    /// The session belongs to another gateway, which alone can refresh it.
    #[error("the session belongs to the gateway `{0}`")]
    Elsewhere(Name),
    /// It cannot be recorded, so it is not answered. Whoever tries again with the same token is.
    #[error("the journal cannot record it: {0}")]
    Unrecorded(#[from] Full),
    /// The revocation is in force here, and a restart may undo it: it is on no disk.
    #[error("the session is revoked until a restart, and the journal cannot record it: {0}")]
    RevokedUnrecorded(Full),
}

impl From<Undecidable> for TokenError {
    fn from(undecidable: Undecidable) -> Self {
        Self::Undecidable { retry_after: undecidable.retry_after }
    }
}
