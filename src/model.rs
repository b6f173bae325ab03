//! Plain data that every room speaks of: clients, keys, policies, principals.
//!
//! Nothing here does I/O, and every predicate takes `now`.

pub mod api_key;
pub mod fact;
pub mod network;
pub mod policy;
mod session;
mod timestamp;
pub mod units;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bincode::{Decode, Encode};
pub use session::{Advance, Session, SessionRules, SessionState};
pub use timestamp::Timestamp;
use uuid::Uuid;

/// A client's, policy's, table's or operation's name: at most [`NAME_MAX`] bytes, no control
/// characters.
pub type Name = Arc<str>;

/// The longest name in bytes; together with the other fields of a fact it stays below 1 KiB.
pub const NAME_MAX: usize = 128;

/// The policy of a client or key that names none.
pub const DEFAULT_POLICY: &str = "default";

/// Whether `text` can be a [`Name`]: not empty, not long, nothing that Postgres or a log cannot
/// hold.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_MAX && !text.chars().any(char::is_control)
}

/// Scopes of one key: few, and short enough for a fact of 1 KiB.
pub const SCOPES_MAX: usize = 16;
/// The bytes of all scopes of one key.
pub const SCOPES_BYTES_MAX: usize = 512;

/// Whether `text` can be a scope: a name without whitespace, for `X-Gatepost-Scopes` joins scopes
/// with spaces, and one that holds a space would read as two.
pub fn is_scope(text: &str) -> bool {
    is_name(text) && !text.contains(char::is_whitespace)
}

/// Whether `scopes` can be those of one key.
pub fn are_scopes<S: AsRef<str>>(scopes: &[S]) -> bool {
    let bytes: usize = scopes.iter().map(|scope| scope.as_ref().len()).sum();
    scopes.len() <= SCOPES_MAX
        && bytes <= SCOPES_BYTES_MAX
        && scopes.iter().all(|scope| is_scope(scope.as_ref()))
}

/// SHA-256 of a whole API key: what is stored instead of the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Digest(pub [u8; 32]);

/// A digest is as good as random: eight bytes of it are enough for a hash table.
impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl Digest {
    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// Who owns keys: a row of `gatepost.clients`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Client {
    /// Primary key.
    pub name: Name,
    /// The policy of its keys that name none themselves.
    pub policy: Option<Name>,
    /// A disabled client's keys are refused with `client_disabled`.
    pub enabled: bool,
}

/// An API key as it is stored: never the key itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Key {
    /// Primary key; what `key show` and `key revoke` take.
    #[bincode(with_serde)]
    pub id: Uuid,
    /// SHA-256 of the whole key.
    pub digest: Digest,
    /// The readable start of the key, `gp_live_`.
    pub prefix: String,
    /// Its last four characters.
    pub last4: String,
    /// The owner's name. No reference: a key may arrive before its client.
    pub client: Name,
    /// Overrides the client's policy.
    pub policy: Option<Name>,
    /// What the key may do; an empty list narrows nothing.
    pub scopes: Vec<Name>,
    /// A disabled key is refused with `key_disabled`.
    pub enabled: bool,
    /// From this moment on it is refused with `key_expired`.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Key {
    /// Whether it has come to its end by `now`: no switch brings it back.
    pub fn is_over(&self, revoked_at: Option<Timestamp>, now: Timestamp) -> bool {
        [revoked_at, self.expires_at].into_iter().flatten().any(|end| end <= now)
    }

    /// What the key's own fields, and its revocation if there is one, say at `now`. Deny wins.
    pub fn state(&self, revoked_at: Option<Timestamp>, now: Timestamp) -> KeyState {
        if revoked_at.is_some_and(|at| at <= now) {
            KeyState::Revoked
        } else if !self.enabled {
            KeyState::Disabled
        } else if self.expires_at.is_some_and(|at| at <= now) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }
}

/// The answer of [`Key::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Usable.
    Active,
    /// A revocation is in force; nothing undoes it.
    Revoked,
    /// Switched off in Postgres; can be switched on again.
    Disabled,
    /// `expires_at` is past.
    Expired,
}

/// An enforcement policy as it is stored. What stands in `spec` is read by `admission`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Policy {
    /// Primary key.
    pub name: Name,
    /// The policy's JSON document.
    pub spec: String,
}

/// Who a request turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The client that the request is counted for.
    pub client: Name,
    /// The key it came with, also when a token was made of it; nil when it came with a session.
    pub key_id: Uuid,
    /// The end user, when a session named one; otherwise empty.
    pub subject: Name,
    /// What the key may do.
    pub scopes: Vec<Name>,
}

impl Principal {
    /// Who was not asked for a name.
    pub fn nobody() -> Self {
        let (client, subject) = (Name::from(""), Name::from(""));
        Self { client, key_id: Uuid::nil(), subject, scopes: Vec::new() }
    }

    /// The key it came with, if it did not come with a session.
    pub fn key(&self) -> Option<Uuid> {
        Some(self.key_id).filter(|id| !id.is_nil())
    }
}

/// What became of what a caller came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Of an API key, or of an access token that was made of one.
    Key(KeyState),
    /// Of the session that an access token was made of.
    Session(SessionState),
}

/// What a request wants to touch, for rights and for `client_table_statistics`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Empty where no route names one.
    pub table: Name,
    /// `read`, `write`, `delete`, or `access` where no route matched.
    pub operation: Name,
}

impl Target {
    /// The target of a request that no route matched: the right asked for is `gateway.access`.
    pub fn access() -> Self {
        Self { table: "".into(), operation: "access".into() }
    }
}
