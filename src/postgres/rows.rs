//! From columns to the model.

use uuid::Uuid;

use crate::cache::KeyRow;
use crate::model::{Digest, Key, Name, Timestamp};

/// The columns of `api_keys` as the queries select them; moments in microseconds.
pub(super) struct KeyColumns {
    pub id: Uuid,
    pub digest: Vec<u8>,
    pub prefix: String,
    pub last4: String,
    pub client_name: String,
    pub policy: Option<String>,
    pub scopes: Vec<String>,
    pub enabled: bool,
    pub expires_at: Option<i64>,
    pub created_at: i64,
    pub revision: i64,
}

impl KeyColumns {
    /// `None` for a digest that is not 32 bytes long, which the table does not allow.
    pub fn into_row(self) -> Option<KeyRow> {
        let key = Key {
            id: self.id,
            digest: Digest(self.digest.try_into().ok()?),
            prefix: self.prefix,
            last4: self.last4,
            client: self.client_name.into(),
            policy: self.policy.map(Name::from),
            scopes: self.scopes.into_iter().map(Name::from).collect(),
            enabled: self.enabled,
            expires_at: self.expires_at.map(Timestamp),
            created_at: Timestamp(self.created_at),
        };
        Some(KeyRow { key, revision: self.revision })
    }
}

/// A count as Postgres stores it.
pub(super) fn bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count as it was stored; never negative.
pub(super) fn count(bigint: i64) -> u64 {
    u64::try_from(bigint).unwrap_or(0)
}
