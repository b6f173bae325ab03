//! Who bears an access token, as every request needs it.

use uuid::Uuid;

use super::access::{Access, Holder};
use crate::model::{Name, Principal, Timestamp};

/// Who bears an access token.
#[derive(Debug)]
pub struct Bearer {
    /// The client, the end user if a session named one, and what the token may do.
    pub principal: Principal,
    /// What it was made of.
    pub of: Holder,
    /// `sub`: the end user, or the client where there is none.
    pub subject: Name,
    /// Its own id.
    pub id: Uuid,
    /// Seconds since the Unix epoch.
    pub issued_at: i64,
    /// From this moment on it is over.
    pub expires_at: Timestamp,
}

impl Bearer {
    pub(super) fn new(access: Access) -> Self {
        let (key_id, subject) = match access.of {
            Holder::Session(_) => (Uuid::nil(), access.subject.clone()),
            Holder::Key(id) => (id, "".into()),
        };
        Self {
            principal: Principal { client: access.client, key_id, subject, scopes: access.scopes },
            of: access.of,
            subject: access.subject,
            id: access.id,
            issued_at: access.issued_at,
            expires_at: Timestamp(access.expires_at.saturating_mul(1_000_000)),
        }
    }

    /// Whether it was made before everybody was logged out. A token tells whole seconds only: one
    /// of the same second counts as made before.
    pub fn is_before(&self, not_before: Timestamp) -> bool {
        self.issued_at <= not_before.0.div_euclid(1_000_000)
    }
}
