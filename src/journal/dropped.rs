//! Events that are dropped are seen: counted by kind, and said at most once a second.

use std::time::Duration;

use super::window::EVENTS_MAX;
use crate::clock::Seldom;
use crate::metrics::{EventLabel, LaneLabel, Metrics};
use crate::model::fact::{Fact, Lane};

/// When it was last said.
#[derive(Debug, Default)]
pub(super) struct Dropped(Seldom);

impl Dropped {
    /// An event of this kind was dropped just now.
    pub fn tell(&self, metrics: &Metrics, monotonic: Duration, kind: &'static str) {
        let journal = &metrics.journal;
        journal.dropped.get_or_create(&LaneLabel::of(Lane::Events)).inc();
        journal.events_dropped.get_or_create(&EventLabel { kind }).inc();
        if self.0.is_due(monotonic) {
            tracing::warn!(kind, "events are dropped: there are too many, or the journal is full");
        }
    }
}

/// What an event is called where it is counted.
fn kind(event: &Fact) -> &'static str {
    match event {
        Fact::Event(event) => event.kind(),
        _ => "audit",
    }
}

/// Takes out what is beyond the bound, the oldest first, and audit entries last: anybody can make
/// the others. Returns the kinds of what was taken out.
pub(super) fn beyond(events: &mut Vec<Fact>) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    for audit in [false, true] {
        let beyond = events.len().saturating_sub(EVENTS_MAX);
        let mut left = beyond;
        events.retain(|event| {
            let goes = left > 0 && matches!(event, Fact::Audit(_)) == audit;
            if goes {
                left -= 1;
                kinds.push(kind(event));
            }
            !goes
        });
    }
    kinds
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::fact::{AuditEntry, AuthAttempt, Event, Happened};

    fn attempt(id: usize) -> Fact {
        let code = "invalid_credential".into();
        let what = AuthAttempt { client: None, key_id: None, ip: None, code };
        let event_id = Uuid::from_u128(id as u128);
        Fact::Event(Event { event_id, what: Happened::AuthAttempt(what) })
    }

    fn entry(id: usize) -> Fact {
        let [actor, action, subject] = ["cli", "key.revoke", "a"].map(Into::into);
        let event_id = Uuid::from_u128(id as u128);
        Fact::Audit(AuditEntry { event_id, actor, action, subject })
    }

    /// While the disk fails, windows come to what waits.
    #[test]
    fn who_changed_what_goes_last_and_what_goes_is_told_by_kind() {
        let mut events = vec![entry(0), attempt(1), attempt(2), entry(3)];
        events.extend((4..EVENTS_MAX + 1).map(attempt));
        assert_eq!(beyond(&mut events), ["auth_attempt"]);
        assert_eq!(events[..3], [entry(0), attempt(2), entry(3)]);
        assert!(beyond(&mut events).is_empty());
        let mut entries: Vec<_> = (0..EVENTS_MAX + 2).map(entry).collect();
        entries.insert(0, attempt(0));
        assert_eq!(beyond(&mut entries), ["auth_attempt", "audit", "audit"]);
        assert_eq!(entries[0], entry(2));
    }
}
