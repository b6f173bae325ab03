//! Sessions and tokens: refresh that survives load, retries and outages.
//!
//! A refresh token carries its own proof (`refresh`): nothing is looked up to know that it was
//! issued here. The store only says which generation of its session is current:
//!
//! | presented | meaning | answer |
//! |---|---|---|
//! | current | normal | advance to current + 1, and the pair |
//! | current − 1, within grace | lost reply, two tabs, a retry | the same successor again |
//! | older, or grace over | reuse: theft or a broken client | the session is revoked |
//! | above current | this gateway has lost state | 503, outside of a recovery window |
//!
//! An advance is in the journal before the answer leaves, whatever the commit mode, and pinned in
//! the cache until it is settled. Postgres is asked only for a session that is not held here.
//!
//! Access tokens (`access`) are JWTs, short-lived, and checked against the session or key that
//! they were made of with every request.
//!
//! RFC 6749 §5–6, RFC 9700 §4.14 (rotation, reuse), RFC 9068 (access tokens), RFC 8725.

mod access;
mod bearer;
mod config;
mod error;
mod generation;
mod grace;
mod keys;
mod keyset;
mod recovery;
mod refresh;
mod revocation;
mod rotation;
mod service;
#[cfg(test)]
mod tests;

pub use access::{ACCESS_MAX, Access, Holder};
pub use bearer::Bearer;
pub use config::{Config, ConfigError};
pub use error::TokenError;
pub use keys::{KeyInfo, Keys, KeysError};
pub use keyset::{KeySet, KeySetError, KeySetFull};
pub use recovery::{RECOVERY_MAX, Recovery};
pub use refresh::REFRESH_MAX;
pub use rotation::{Asked, narrowed};
pub use service::{Issued, NewSession, Parts, Tokens};
