//! A refresh: which generation is presented, what it means, and what is recorded of it.
//!
//! It decides and records under the session's turn, which is held for a moment, and waits for the
//! commit without it. So fifty parallel refreshes of one token cost one advance and one commit, and
//! sessions never wait for each other's disk.

use uuid::Uuid;

use super::generation::{Verdict, judge};
use super::service::NOT_HERE_YET;
use super::{Issued, TokenError, Tokens};
use crate::journal::Ticket;
use crate::model::fact::StateFact;
use crate::model::{Advance, Name, Session, SessionState, Timestamp};

/// What a session's refresh token is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The client that says it is the one that the session was made for.
    pub client: Option<&'a str>,
    /// The scopes that the access token shall be narrowed to (RFC 6749 §6).
    pub scopes: Option<&'a [Name]>,
}

/// What was recorded, and when it is on disk. No session: it is revoked.
struct Step<'a> {
    session: Option<Session>,
    ticket: Ticket<'a>,
}

impl Tokens {
    /// Answers a refresh token: the design's table, and the advance durable before the answer.
    ///
    /// # Errors
    /// See [`TokenError`]. Only [`TokenError::Invalid`] says anything about the token.
    pub async fn refresh(&self, text: &str, asked: Asked<'_>) -> Result<Issued, TokenError> {
        let answer = self.try_refresh(text, asked).await;
        match &answer {
            Ok(_) | Err(TokenError::Scope | TokenError::ClientDisabled) => {}
            Err(TokenError::Invalid) => drop(self.metrics.tokens.refused.inc()),
            Err(_) => drop(self.metrics.tokens.undecided.inc()),
        }
        answer
    }

    async fn try_refresh(&self, text: &str, asked: Asked<'_>) -> Result<Issued, TokenError> {
        let proven = self.keys.prove(text).ok_or(TokenError::Invalid)?;
        let held = self.find(proven.session).await?.ok_or(TokenError::Invalid)?;
        let session = held.session();
        if session.node != self.node {
            return Err(TokenError::Elsewhere(session.node.clone()));
        }
        if asked.client.is_some_and(|client| *client != *session.client) {
            return Err(TokenError::Invalid);
        }
        if self.cache.is_stale() {
            return Err(TokenError::Stale);
        }
        let scopes = narrowed(&session.scopes, asked.scopes)?;
        let Step { session, ticket } = self.step(session.id, proven.generation)?;
        let recorded = ticket.durable().await;
        let session = session.ok_or(TokenError::Invalid)?;
        recorded?;
        self.unanswered.remove(&session.id);
        Ok(self.pair(&session, scopes))
    }

    /// Decides and records. No I/O but a read of the session, if it has just left memory.
    fn step(&self, id: Uuid, presented: u64) -> Result<Step<'_>, TokenError> {
        let (now, tokens) = (self.clock.now(), &self.metrics.tokens);
        let mut turn = self.cache.session_turn(id);
        let held = turn.get()?.ok_or(TokenError::Undecidable { retry_after: NOT_HERE_YET })?;
        if held.state(self.config.session_idle, now) != SessionState::Active {
            return Err(TokenError::Invalid);
        }
        if !held.client_enabled() {
            return Err(TokenError::ClientDisabled);
        }
        let mut session = held.session().clone();
        let unanswered = self.unanswered.peek(&id).is_some();
        let in_grace = self.grace.holds(session.advance.at, now);
        match judge(presented, session.advance, in_grace || unanswered, now) {
            Verdict::Advance(next) => {
                session.advance = next;
                tokens.refreshed.inc();
            }
            Verdict::Again if in_grace => {
                tokens.repeated.inc();
                return Ok(Step { session: Some(session), ticket: self.journal.state_recorded() });
            }
            // Its first answer may never have left: grace begins again, and is recorded.
            Verdict::Again => {
                session.advance.at = now;
                tokens.repeated.inc();
            }
            Verdict::Beyond => {
                tokens.beyond.inc();
                if self.recovery.until(now).is_none() {
                    return Err(TokenError::Undecidable { retry_after: NOT_HERE_YET });
                }
                if session.recovered_at.is_none() {
                    let generation = presented.saturating_add(1);
                    session.advance = Advance { generation, at: now };
                    session.recovered_at = Some(now);
                    tokens.recovered.inc();
                    self.note("session.recover", &session);
                } else {
                    self.revoke_for(&mut session, "session.revoke.beyond", now);
                }
            }
            Verdict::Reuse => {
                tokens.reused.inc();
                self.revoke_for(&mut session, "session.revoke.reuse", now);
            }
        }
        let fact = StateFact::Session(session.clone());
        let ticket = match self.journal.append(vec![fact]) {
            Ok(ticket) => ticket,
            // It cannot be recorded now; it holds here all the same.
            Err(_) if session.revoked_at.is_some() => self.journal.state_recorded(),
            Err(full) => return Err(full.into()),
        };
        turn.pin(&session);
        self.unanswered.insert(id, ());
        let revoked = session.revoked_at.is_some();
        Ok(Step { session: Some(session).filter(|_| !revoked), ticket })
    }

    fn revoke_for(&self, session: &mut Session, why: &'static str, now: Timestamp) {
        session.revoked_at = Some(now);
        let Session { id, client, .. } = &*session;
        tracing::warn!(session = %id, client = %client, why, "a session is revoked");
        self.note(why, session);
    }
}

/// The scopes that are asked for, if each was granted; all that were granted if none is asked for:
/// an empty list would narrow nothing.
pub(super) fn narrowed<'a>(
    granted: &'a [Name],
    asked: Option<&'a [Name]>,
) -> Result<&'a [Name], TokenError> {
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return Ok(granted) };
    if asked.iter().all(|scope| granted.contains(scope)) {
        Ok(asked)
    } else {
        Err(TokenError::Scope)
    }
}
