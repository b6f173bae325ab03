//! What happened, as facts for the journal.
//!
//! One fact for a request that the gateway decides and is done with (forward-auth, verify, a
//! denial); two for one that it forwards: "admitted" at once, "completed" when both bodies have
//! ended or the client has gone. Both carry the hour of the admission, so one request never spans
//! two hours.

mod record;

use std::sync::Arc;

use crate::admission::Permit;
use crate::clock::SharedClock;
use crate::journal::{Commit, Full, Journal, Room, Ticket};
use crate::model::fact::{Counter, Counts, Event};
use crate::model::{Principal, Target, Timestamp};
use record::Held;

pub use record::{Ended, OpenRecord, Tally};

/// Turns what happened into facts.
pub struct Meter {
    journal: Journal,
    clock: SharedClock,
}

/// What happens cannot be counted: nothing is let through that would go uncounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request cannot be counted: {0}")]
pub struct Unaccountable(#[from] Full);

/// What an answer may have to wait for before it leaves.
#[must_use = "under `before_reply` the answer waits for it"]
#[derive(Debug)]
pub struct Receipt<'a>(Option<Ticket<'a>>);

impl Receipt<'_> {
    /// Returns at once under `interval`; under `before_reply` when the fact is on disk. Errs when
    /// the journal cannot write: then the answer is 503 `accounting_unavailable`.
    pub async fn settled(self) -> Result<(), Unaccountable> {
        match self.0 {
            Some(ticket) => Ok(ticket.durable().await?),
            None => Ok(()),
        }
    }
}

impl Meter {
    /// A meter that writes to `journal`.
    pub fn new(journal: Journal, clock: SharedClock) -> Self {
        Self { journal, clock }
    }

    /// Room for the facts of one request whose policy asks for `commit`. Asked for before anything
    /// is done that must be counted.
    pub fn reserve(&self, commit: Option<Commit>) -> Result<Room, Unaccountable> {
        Ok(self.journal.reserve_for(commit)?)
    }

    /// Whether [`Meter::reserve`] would find room at this moment.
    pub fn has_room(&self, commit: Option<Commit>) -> bool {
        !self.journal.refuses_for(commit)
    }

    /// A request that was allowed, and is complete with that.
    pub fn allowed(&self, room: Room, permit: &Permit<'_>) -> Receipt<'_> {
        self.quotas(room, permit);
        let counts = Counts { succeeded: 1, ..admitted(permit.at()) };
        self.receipt(permit.commit(), self.journal.count(room, counter_of(permit), counts))
    }

    /// Something to look at later; it may yield.
    pub fn happened(&self, event: Event) {
        self.journal.event(event);
    }

    /// Before the request itself: whoever waits for that waits for these as well.
    fn quotas(&self, room: Room, permit: &Permit<'_>) {
        for used in permit.uses() {
            let _waited_for_below = self.journal.use_quota(room, used.key.clone(), used.used);
        }
    }

    /// A request that was identified and refused, whose policy asks for `commit`. Without room it
    /// is refused all the same.
    pub fn denied(
        &self,
        principal: &Principal,
        target: &Target,
        at: Timestamp,
        commit: Option<Commit>,
    ) -> Receipt<'_> {
        let Ok(room) = self.journal.reserve_for(commit) else { return Receipt(None) };
        let counts = Counts { denied: 1, ..admitted(at) };
        self.receipt(commit, self.journal.count(room, counter(principal, target, at), counts))
    }

    /// A request that is being forwarded: counts the admission now, the completion when the
    /// record is dropped. Until then it has its place among those that run at a time. `line` is
    /// told then, with how it ended. Without room it is nobody's, and not counted.
    pub fn open(
        self: &Arc<Self>,
        room: Option<Room>,
        permit: &mut Permit<'_>,
        line: Option<Box<Event>>,
    ) -> (Arc<OpenRecord>, Receipt<'_>) {
        let held = Held { running: permit.take_running(), line };
        let Some(room) = room else {
            let record = OpenRecord::new(Arc::clone(self), None, permit.at(), held);
            return (Arc::new(record), Receipt(None));
        };
        self.quotas(room, permit);
        let counter = counter_of(permit);
        let ticket = self.journal.count(room, counter.clone(), admitted(permit.at()));
        let counted = Some((room, counter));
        let record = OpenRecord::new(Arc::clone(self), counted, permit.at(), held);
        (Arc::new(record), self.receipt(permit.commit(), ticket))
    }

    fn receipt<'a>(&self, commit: Option<Commit>, ticket: Ticket<'a>) -> Receipt<'a> {
        Receipt(match commit.unwrap_or(self.journal.commit()) {
            Commit::BeforeReply => Some(ticket),
            Commit::Interval => None,
        })
    }
}

fn admitted(at: Timestamp) -> Counts {
    Counts { requests: 1, last_seen: at, ..Counts::ZERO }
}

fn counter_of(permit: &Permit<'_>) -> Counter {
    counter(permit.principal(), permit.target(), permit.at())
}

fn counter(principal: &Principal, target: &Target, at: Timestamp) -> Counter {
    Counter {
        client: principal.client.clone(),
        key_id: principal.key_id,
        table: target.table.clone(),
        operation: target.operation.clone(),
        hour: at.hour(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_admission_counts_one_request_in_its_hour() {
        let principal = Principal {
            client: "acme".into(),
            key_id: Uuid::from_u128(7),
            subject: "".into(),
            scopes: Vec::new(),
        };
        let at = Timestamp::from_hour(10).plus(std::time::Duration::from_secs(3599));
        let counter = counter(&principal, &Target::access(), at);
        assert_eq!((&*counter.client, &*counter.operation, counter.hour), ("acme", "access", 10));
        let counts = admitted(at);
        assert_eq!((counts.requests, counts.succeeded, counts.last_seen), (1, 0, at));
    }
}
