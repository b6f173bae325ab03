//! A refresh: which generation is presented, what it means, and what is recorded of it.
//!
//! It decides and records under the session's turn, which is held for a moment, and waits for the
//! commit without it. So fifty parallel refreshes of one token cost one advance and one commit, and
//! sessions never wait for each other's disk.

use super::generation::{Verdict, judge};
use super::keys::Proven;
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

/// What was recorded, and when it is on disk.
struct Step<'a> {
    session: Session,
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
        let node = &held.session().node;
        if *node != self.node {
            return Err(TokenError::Elsewhere(node.clone()));
        }
        if self.cache.is_stale() {
            return Err(TokenError::Stale);
        }
        let Step { session, ticket } = self.step(proven, asked)?;
        ticket.durable().await?;
        self.unanswered.remove(&session.id);
        Ok(self.pair(&session, narrowed(&session.scopes, asked.scopes)?))
    }

    /// Decides and records. No I/O but a read of the session, if it has just left memory.
    ///
    /// The session and the generation come first, then what the request says beside: a replay is
    /// one whatever else is asked for, and nothing is told of a session that is over.
    fn step(&self, proven: Proven, asked: Asked<'_>) -> Result<Step<'_>, TokenError> {
        let Proven { session: id, generation: presented } = proven;
        let (now, tokens) = (self.clock.now(), &self.metrics.tokens);
        let mut turn = self.cache.session_turn(id);
        let held = turn.get()?.ok_or(TokenError::Undecidable { retry_after: NOT_HERE_YET })?;
        if held.state(self.config.session_rules(), now) != SessionState::Active {
            return Err(TokenError::Invalid);
        }
        let mut session = held.session().clone();
        let entitled = || {
            if asked.client.is_some_and(|client| *client != *held.session().client) {
                return Err(TokenError::Invalid);
            }
            if !held.client_enabled() {
                return Err(TokenError::ClientDisabled);
            }
            narrowed(&held.session().scopes, asked.scopes).map(drop)
        };
        match self.verdict(&session, presented, now) {
            Verdict::Advance(next) => {
                entitled()?;
                session.advance = next;
                tokens.refreshed.inc();
            }
            Verdict::Again => {
                entitled()?;
                tokens.repeated.inc();
                if self.in_grace(&session, now) {
                    return Ok(Step { session, ticket: self.journal.state_recorded() });
                }
                // Its first answer may never have left: grace begins again, and is recorded.
                session.advance.at = now;
            }
            Verdict::Reuse => {
                tokens.reused.inc();
                return Err(self.revoke_for(turn, session, "session.revoke.reuse", now));
            }
            Verdict::Beyond => {
                tokens.beyond.inc();
                if self.recovery.until(now).is_none() {
                    return Err(TokenError::Undecidable { retry_after: NOT_HERE_YET });
                }
                if session.recovered_at.is_some() {
                    return Err(self.revoke_for(turn, session, "session.revoke.beyond", now));
                }
                entitled()?;
                let generation = presented.saturating_add(1);
                session.advance = Advance { generation, at: now };
                session.recovered_at = Some(now);
                tokens.recovered.inc();
                self.note("session.recover", &session);
            }
        }
        let ticket = self.journal.append(vec![StateFact::Session(session.clone())])?;
        turn.pin(&session);
        self.grace.advanced(now);
        self.unanswered.insert(id, ());
        Ok(Step { session, ticket })
    }

    /// What generation `presented` of a session means at `now`.
    pub(super) fn verdict(&self, session: &Session, presented: u64, now: Timestamp) -> Verdict {
        let again = || self.in_grace(session, now) || self.unanswered.peek(&session.id).is_some();
        judge(presented, session.advance, again, now)
    }

    fn in_grace(&self, session: &Session, now: Timestamp) -> bool {
        self.grace.holds(session.advance.at, self.moment(now))
    }
}

/// The scopes that are asked for, if each was granted; all that were granted if none is asked for:
/// an empty list would narrow nothing.
///
/// # Errors
/// When one was not granted.
pub fn narrowed<'a>(
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
