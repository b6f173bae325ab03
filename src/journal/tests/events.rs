//! What yields: it takes no room from what must be counted, and what is dropped is seen.

use std::sync::Barrier;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tracing::subscriber::{set_default, with_default};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::*;
use crate::clock::ManualClock;
use crate::metrics::EventLabel;
use crate::model::fact::{AuthAttempt, Happened};

/// Records so many events, all on disk.
async fn flood(journal: &Journal, events: usize) {
    for _ in 0..events / 1000 {
        for _ in 0..1000 {
            journal.event(attempt(journal));
        }
        journal.flush().durable().await.expect("a working disk");
    }
}

fn attempt(journal: &Journal) -> Event {
    let attempt = AuthAttempt {
        client: None,
        key_id: None,
        ip: Some([192, 0, 2, 1].into()),
        code: "invalid_credential".into(),
    };
    let event_id = journal.entropy.0.uuid_v7(journal.clock.0.now());
    Event { event_id, what: Happened::AuthAttempt(attempt) }
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

/// Counts what is logged, by whoever it is set for.
#[derive(Clone, Default)]
struct Said(Arc<AtomicU64>);

impl<S: tracing::Subscriber> Layer<S> for Said {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        assert_eq!(*event.metadata().level(), tracing::Level::WARN);
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn drops_are_counted_each_and_warned_about_at_most_once_a_second() {
    let data = TempDir::new().expect("temporary directory");
    let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000_000)));
    // No event has room.
    let config = Config { events_max_bytes: Size(0), ..Config::default() };
    let (entropy, metrics) = (Arc::new(SystemEntropy::new()), Arc::new(Metrics::new()));
    let opened = Journal::open(data.path(), config, clock.clone(), entropy, metrics);
    let (journal, _) = opened.expect("a fresh directory opens");
    let said = Said::default();
    let times = || said.0.load(Ordering::Relaxed);
    let quiet = set_default(tracing_subscriber::registry().with(said.clone()));
    for (millis, expected) in [(0, 1), (10, 1), (989, 1), (2, 2), (998, 2), (3, 3), (60_000, 4)] {
        clock.advance(Duration::from_millis(millis));
        for _ in 0..50 {
            journal.event(attempt(&journal));
            assert_eq!(times(), expected, "{millis} ms later");
        }
    }
    drop(quiet);
    // All at the same moment.
    for moment in 1..=20 {
        clock.advance(Duration::from_secs(1));
        let barrier = Barrier::new(4);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    with_default(tracing_subscriber::registry().with(said.clone()), || {
                        barrier.wait();
                        journal.event(attempt(&journal));
                    });
                });
            }
        });
        assert_eq!(times(), 4 + moment);
    }
    assert_eq!(dropped(&journal, "auth_attempt"), 7 * 50 + 20 * 4);
}
