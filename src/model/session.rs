//! Sessions: who may refresh, and how far it has come.

use std::time::Duration;

use bincode::{Decode, Encode};
use uuid::Uuid;

use super::{Name, Timestamp};
use crate::model::units::Span;

/// How far a session has come. Merges by the larger one: first the generation, then the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Advance {
    /// The refresh token that is good now; a new session begins with 0.
    pub generation: u64,
    /// Since when.
    pub at: Timestamp,
}

/// A session as it is stored: never a token. The whole row is one fact, so that it needs no other
/// to have arrived before it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Session {
    /// Primary key; stands in its tokens.
    #[bincode(with_serde)]
    pub id: Uuid,
    /// The gateway that made it. Only this one refreshes it.
    pub node: Name,
    /// The end user.
    pub subject: Name,
    /// The client that it was made for. No reference: it may arrive before its client.
    pub client: Name,
    /// What its tokens may do; an empty list narrows nothing.
    pub scopes: Vec<Name>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From this moment on it is over, refreshed or not.
    pub expires_at: Timestamp,
    /// How far it has come.
    pub advance: Advance,
    /// Since when it is revoked. Revoked is revoked, whatever a clock says; merges by min.
    pub revoked_at: Option<Timestamp>,
    /// When a generation from beyond was taken on its proof, which happens once; merges by min.
    pub recovered_at: Option<Timestamp>,
}

/// The answer of [`Session::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// It can be refreshed, and its access tokens are good.
    Active,
    /// Revoked, or made before its subject or client was logged out everywhere.
    Revoked,
    /// Its time is over, or it was not refreshed for too long.
    Expired,
}

/// What sessions are judged by beside themselves.
#[derive(Clone, Copy, Debug)]
pub struct SessionRules {
    /// One that was not refreshed for so long is over.
    pub idle: Span,
    /// By how much the clocks of gateways may differ: of the one that made it, and the one that
    /// logged its subject out.
    pub skew: Span,
}

impl SessionRules {
    /// The first moment after a log-out at `not_before`, whichever clock tells it.
    pub fn first_after(self, not_before: Timestamp) -> Timestamp {
        not_before.plus(self.skew.0).plus(Duration::from_micros(1))
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

impl Session {
    /// Takes over what `other`, the same session, knows beyond this one: order, grouping and
    /// repetition do not matter.
    pub fn merge(&mut self, other: &Self) {
        self.advance = self.advance.max(other.advance);
        self.revoked_at = earliest(self.revoked_at, other.revoked_at);
        self.recovered_at = earliest(self.recovered_at, other.recovered_at);
    }

    /// Whether it knows all that `other`, the same session, does.
    pub fn covers(&self, other: &Self) -> bool {
        let mut merged = self.clone();
        merged.merge(other);
        merged == *self
    }

    /// When its time is over, unless it is refreshed before.
    pub fn ends_at(&self, idle: Span) -> Timestamp {
        self.expires_at.min(self.advance.at.plus(idle.0))
    }

    /// Whether it is good at `now`. `not_before`: when its subject or client was last logged out
    /// everywhere. Deny wins.
    pub fn state(
        &self,
        not_before: Timestamp,
        rules: SessionRules,
        now: Timestamp,
    ) -> SessionState {
        if self.revoked_at.is_some() || self.created_at < rules.first_after(not_before) {
            SessionState::Revoked
        } else if self.ends_at(rules.idle) <= now {
            SessionState::Expired
        } else {
            SessionState::Active
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(generation: u64, at: i64) -> Session {
        Session {
            id: Uuid::from_u128(1),
            node: "gw".into(),
            subject: "alice".into(),
            client: "web".into(),
            scopes: Vec::new(),
            created_at: Timestamp(10),
            expires_at: Timestamp(1000),
            advance: Advance { generation, at: Timestamp(at) },
            revoked_at: None,
            recovered_at: None,
        }
    }

    #[test]
    fn any_order_of_arrival_ends_in_the_same_state() {
        let revoked = Session { revoked_at: Some(Timestamp(40)), ..session(1, 20) };
        let again = Session { revoked_at: Some(Timestamp(50)), ..session(0, 10) };
        let recovered = Session { recovered_at: Some(Timestamp(5)), ..session(7, 15) };
        let all = [session(7, 12), revoked, again, recovered];
        for first in 0..all.len() {
            let mut merged = all[first].clone();
            (0..all.len()).for_each(|at| merged.merge(&all[(first + at) % all.len()]));
            assert_eq!(merged.advance, Advance { generation: 7, at: Timestamp(15) });
            assert_eq!(merged.revoked_at, Some(Timestamp(40)));
            assert_eq!(merged.recovered_at, Some(Timestamp(5)));
        }
    }

    #[test]
    fn deny_wins_and_time_ends_it() {
        let never = Timestamp::NEG_INFINITY;
        let rules = SessionRules { idle: Span::secs(1), skew: Span::secs(0) };
        let state = |session: &Session, not_before, now| session.state(not_before, rules, now);
        assert_eq!(state(&session(0, 10), never, Timestamp(999)), SessionState::Active);
        assert_eq!(state(&session(0, 10), never, Timestamp(1000)), SessionState::Expired);
        let lasting = Session { expires_at: Timestamp(i64::MAX), ..session(3, 500_000) };
        assert_eq!(state(&lasting, never, Timestamp(1_499_999)), SessionState::Active);
        assert_eq!(state(&lasting, never, Timestamp(1_500_000)), SessionState::Expired);
        assert_eq!(state(&lasting, Timestamp(9), Timestamp(20)), SessionState::Active);
        assert_eq!(state(&lasting, Timestamp(10), Timestamp(20)), SessionState::Revoked);
        // The clock of who logged it out may be behind that of who made it.
        let (rules, made) = (SessionRules { skew: Span::secs(5), ..rules }, 5_000_009);
        let of_others = |created_at| {
            let session = Session { created_at: Timestamp(created_at), ..session(3, 5_000_000) };
            Session { expires_at: Timestamp(i64::MAX), ..session }.state(
                Timestamp(9),
                rules,
                Timestamp(5_500_000),
            )
        };
        assert_eq!(of_others(made), SessionState::Revoked);
        assert_eq!(of_others(made + 1), SessionState::Active);
        let revoked = Session { revoked_at: Some(Timestamp(i64::MAX)), ..session(0, 10) };
        assert_eq!(state(&revoked, never, Timestamp(2000)), SessionState::Revoked);
    }
}
