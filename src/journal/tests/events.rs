//! What yields: it takes no room from what must be counted.

use super::*;
use crate::model::fact::{AuthAttempt, Happened};

/// Records so many events, all on disk.
async fn flood(journal: &Journal, events: usize) {
    for _ in 0..events / 1000 {
        for _ in 0..1000 {
            let attempt = AuthAttempt {
                client: None,
                key_id: None,
                ip: Some([192, 0, 2, 1].into()),
                code: "invalid_credential".into(),
            };
            let event_id = journal.entropy.0.uuid_v7(journal.clock.0.now());
            journal.event(Event { event_id, what: Happened::AuthAttempt(attempt) });
        }
        journal.flush().durable().await.expect("a working disk");
    }
}

fn dropped(journal: &Journal, kind: &'static str) -> u64 {
    journal.metrics.journal.events_dropped.get_or_create(&EventLabel { kind }).get()
}

/// A journal where events have half of the room, and are measured.
async fn crowded(data: &TempDir) -> Journal {
    let (max_bytes, events_max_bytes) = (Size::mib(2), Size::mib(1));
    let (journal, _) = open(data, Config { max_bytes, events_max_bytes, ..Config::default() });
    while dropped(&journal, "auth_attempt") == 0 {
        flood(&journal, 1000).await;
    }
    journal
}

#[tokio::test]
async fn events_have_a_bound_of_their_own_and_fill_nobody_elses() {
    let data = TempDir::new().expect("temporary directory");
    let events_max_bytes = Size::mib(4);
    let config = Config { max_bytes: Size::mib(2), events_max_bytes, ..Config::default() };
    let (journal, _) = open(&data, config);
    let mut most = 0;
    while dropped(&journal, "auth_attempt") == 0 {
        flood(&journal, 1000).await;
        most = most.max(journal.shared.event_bytes.load(Ordering::Relaxed));
        journal.reserve().expect("events take no room from requests");
    }
    assert!(most > Size::mib(2).0, "all had been full");
    assert!(journal.append(vec![revocation("a")]).is_ok());
}

#[tokio::test]
async fn who_changed_what_is_not_lost_to_what_anybody_can_make() {
    let data = TempDir::new().expect("temporary directory");
    let journal = crowded(&data).await;
    let entry = AuditEntry {
        event_id: journal.entropy.0.uuid_v7(journal.clock.0.now()),
        actor: "cli".into(),
        action: "key.revoke".into(),
        subject: "a".into(),
    };
    journal.note(entry);
    flood(&journal, 1000).await;
    assert_eq!(dropped(&journal, "audit"), 0);
}

#[tokio::test]
async fn settled_events_make_room_for_new_ones() {
    let data = TempDir::new().expect("temporary directory");
    let journal = crowded(&data).await;
    let closed = || journal.segments(Lane::Events).into_iter().filter(|s| s.is_closed());
    assert!(closed().count() > 2);
    for segment in closed() {
        segment.set_applied(segment.durable_seq());
    }
    journal.reclaim(&|segment| segment.is_finished(), &mut |_| ());
    assert_eq!(closed().count(), 0, "whatever their retention is");
    let before = dropped(&journal, "auth_attempt");
    let mut last = before;
    for _ in 0..200 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        flood(&journal, 1000).await;
        let now = dropped(&journal, "auth_attempt");
        if now == std::mem::replace(&mut last, now) {
            return;
        }
    }
    panic!("no event is taken any more");
}
