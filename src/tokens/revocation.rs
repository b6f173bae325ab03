//! Revoking a session: in force at once, acknowledged when it is on disk.
//!
//! It is in force before it is recorded, and even if it cannot be: denying gives nobody anything.
//! So a session that is revoked in memory says nothing about the disk, and whoever asks once more
//! has it recorded once more, until it is known to be in Postgres.

use uuid::Uuid;

use super::{TokenError, Tokens};
use crate::cache::SessionTurn;
use crate::model::fact::StateFact;
use crate::model::{Session, Timestamp};

impl Tokens {
    /// The fact that revokes a session.
    pub fn revoked(&self, session: &Session) -> Session {
        let at = session.revoked_at.unwrap_or(self.clock.now());
        Session { revoked_at: Some(at), ..session.clone() }
    }

    /// Revokes a session for who holds one of its tokens; recorded when this returns.
    ///
    /// # Errors
    /// When it belongs to another gateway, or cannot be recorded.
    pub async fn revoke(&self, session: &Session) -> Result<(), TokenError> {
        if session.node != self.node {
            return Err(TokenError::Elsewhere(session.node.clone()));
        }
        let recorded = {
            let mut turn = self.cache.session_turn(session.id);
            if session.revoked_at.is_some() && !turn.is_pinned() {
                return Ok(());
            }
            let revoked = self.revoked(session);
            turn.pin(&revoked);
            // Also when it is revoked already: nobody knows whether that came to the disk.
            self.journal.append(vec![StateFact::Session(revoked)])
        };
        if session.revoked_at.is_none() {
            self.note("session.revoke.token", session);
        }
        let durable = match recorded {
            Ok(ticket) => ticket.durable().await,
            Err(full) => Err(full),
        };
        durable.map_err(TokenError::RevokedUnrecorded)
    }

    /// Records what was revoked while the journal took nothing, as far as it does now.
    pub fn record_revocations(&self) {
        let waiting: Vec<Uuid> = self.unrecorded.iter().map(|(id, ())| id).collect();
        for id in waiting {
            let turn = self.cache.session_turn(id);
            // What cannot be read now is tried again.
            let Ok(held) = turn.get() else { continue };
            let fact = held.map(|held| StateFact::Session(held.session().clone()));
            if fact.is_none_or(|fact| self.journal.append(vec![fact]).is_ok()) {
                self.unrecorded.remove(&id);
            }
        }
    }

    /// Revokes a session of which something was presented that only a thief or a broken client can
    /// have. Whoever presented it waits for no disk: there is nothing to promise.
    pub(super) fn revoke_for(
        &self,
        mut turn: SessionTurn<'_>,
        session: Session,
        why: &'static str,
        now: Timestamp,
    ) -> TokenError {
        let session = Session { revoked_at: Some(now), ..session };
        turn.pin(&session);
        let Session { id, client, .. } = &session;
        tracing::warn!(session = %id, client = %client, why, "a session is revoked");
        self.note(why, &session);
        if self.journal.append(vec![StateFact::Session(session.clone())]).is_err() {
            self.unrecorded.insert(session.id, ());
        }
        TokenError::Invalid
    }
}
