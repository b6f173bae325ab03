//! What sessions on disk need besides being used: compared with Postgres, and forgotten.

use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::cache::Cache;
use crate::disk::StoreError;
use crate::model::Session;

impl Cache {
    /// Up to `limit` sessions of this disk with ids beyond `after` up to and with `last`. Blocks.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn settled_sessions(
        &self,
        after: Uuid,
        last: Uuid,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        let stored = self.store.sessions(Some(after)).take(limit);
        let within = |session: &Result<Session, StoreError>| {
            session.as_ref().map_or(true, |session| session.id <= last)
        };
        stored.take_while(within).collect()
    }

    /// Removes from disk those of the next `steps` sessions beyond `after` that are `over`, and are
    /// not pinned. Returns where to go on, `None` at the end. Blocks.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn forget_sessions(
        &self,
        after: Option<Uuid>,
        steps: usize,
        over: &dyn Fn(&Session) -> bool,
    ) -> Result<(usize, Option<Uuid>), StoreError> {
        let (mut forgotten, mut seen, mut last) = (0, 0, None);
        for session in self.store.sessions(after).take(steps) {
            let session = session?;
            (seen, last) = (seen + 1, Some(session.id));
            if over(&session) && self.forget_session(session.id, over)? {
                forgotten += 1;
            }
        }
        Ok((forgotten, last.filter(|_| seen == steps)))
    }

    fn forget_session(
        &self,
        id: Uuid,
        over: &dyn Fn(&Session) -> bool,
    ) -> Result<bool, StoreError> {
        let stripe = self.sessions.stripe(id);
        // Read again under the lock: it may have been advanced and settled since it was looked at.
        if stripe.contains_key(&id) || !self.store.session(id)?.is_some_and(|s| over(&s)) {
            return Ok(false);
        }
        self.store.remove_session(id)?;
        self.sessions.hot.remove(&id);
        Ok(true)
    }

    /// Sessions that Postgres does not know as far as this gateway does.
    pub fn unsettled_sessions(&self) -> usize {
        self.sessions.pinned()
    }

    /// Whether the sessions held here are to be compared with those of Postgres; which doubt
    /// [`Cache::sessions_compared`] is to settle. Blocks.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sessions_due(&self) -> Result<Option<u64>, StoreError> {
        // Asked before: a doubt that comes meanwhile is another one.
        let doubt = self.sessions.doubted.load(Ordering::Acquire);
        Ok(self.store.sessions_due()?.then_some(doubt))
    }

    /// Postgres may have lost sessions: they are to be compared. The writing lock is held. Durable
    /// with the next sync.
    pub(in crate::cache) fn doubt_sessions(&self) -> Result<(), StoreError> {
        self.sessions.doubted.fetch_add(1, Ordering::AcqRel);
        self.store.put_sessions_due(true)
    }

    /// Postgres has gone back in time: what it knows of sessions is compared with what is known
    /// here. No feed tells, for sessions take no revision. Blocks.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn compare_sessions(&self) -> Result<(), StoreError> {
        let _writing = self.writing();
        self.doubt_sessions()?;
        self.store.sync()
    }

    /// They were compared, unless there is a newer `doubt` than the one that was looked into.
    /// Blocks.
    ///
    /// # Errors
    /// When the disk fails; then they are compared again.
    pub fn sessions_compared(&self, doubt: u64) -> Result<(), StoreError> {
        let _writing = self.writing();
        if self.sessions.doubted.load(Ordering::Acquire) == doubt {
            self.store.put_sessions_due(false)?;
        }
        self.store.sync()
    }

    /// Takes in a row of Postgres. Blocks; durable with the next sync.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn keep_session(&self, session: &Session) -> Result<(), StoreError> {
        let _turn = self.session_turn(session.id);
        // Nothing new: who is hot stays so.
        if self.store.session(session.id)?.is_some_and(|known| known.covers(session)) {
            return Ok(());
        }
        self.store.put_session(session)?;
        self.sessions.hot.remove(&session.id);
        Ok(())
    }
}
