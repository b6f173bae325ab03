//! Sessions in the disk tier, by id.

use uuid::Uuid;

use super::{Store, read, write};
use crate::codec::Kind;
use crate::disk::{StoreError, guarded};
use crate::model::Session;

impl Store {
    /// A session as far as Postgres knows it.
    pub fn session(&self, id: Uuid) -> Result<Option<Session>, StoreError> {
        read(Kind::Row, guarded(|| self.sessions.get(id.as_bytes()))?)
    }

    /// Merges a session with what is there; returns what stands there then. One at a time for each
    /// session: the caller sees to it.
    pub fn put_session(&self, session: &Session) -> Result<Session, StoreError> {
        let mut merged = session.clone();
        if let Some(known) = self.session(session.id)? {
            merged.merge(&known);
            if merged == known {
                return Ok(merged);
            }
        }
        write(&self.sessions, Kind::Row, session.id.as_bytes(), &merged)?;
        Ok(merged)
    }

    /// Sessions beyond `after`, by id.
    pub fn sessions(
        &self,
        after: Option<Uuid>,
    ) -> impl Iterator<Item = Result<Session, StoreError>> {
        let from = after.map_or(0, |id| id.as_u128().saturating_add(1));
        self.sessions.range(from.to_be_bytes()..).filter_map(|entry| match entry {
            Ok((_, frame)) => read(Kind::Row, Some(frame)).transpose(),
            Err(error) => Some(Err(StoreError::Sled(error.to_string()))),
        })
    }

    /// Forgets a session.
    pub fn remove_session(&self, id: Uuid) -> Result<(), StoreError> {
        guarded(|| self.sessions.remove(id.as_bytes())).map(drop)
    }
}
