//! Merging where nothing was ever sent: every lane, whoever wrote it.

use super::*;
use crate::model::fact::{AuditEntry, QuotaKey, Revocation, RevocationKind};
use crate::model::{Advance, Session};

/// Everything, by a clock that is right.
fn today() -> Scope {
    Scope::All(Some(SystemClock::new().now()))
}

#[tokio::test]
async fn what_another_process_wrote_is_merged_only_where_nothing_was_ever_sent() {
    for attached in [false, true] {
        let data = TempDir::new().expect("temporary directory");
        let (journal, _) = open(data.path());
        for first in 0..4 {
            closed(&journal, first).await;
        }
        if attached {
            journal.attach().expect("writable");
        }
        journal.shutdown().expect("a working disk");
        drop(journal);
        let (journal, _) = open(data.path());
        journal.examine(&|| false);
        let before = sums(&journal);
        assert!(!merge(&journal, Scope::Own), "nothing of its own");
        assert_eq!(merge(&journal, today()), !attached);
        assert_eq!(sums(&journal), before);
    }
}

#[tokio::test]
async fn an_embedded_gateway_that_starts_often_does_not_keep_a_segment_for_each() {
    const STARTS: u64 = 60;
    let data = TempDir::new().expect("temporary directory");
    let mut most = 0;
    for start in 0..STARTS {
        let (journal, state) = open(data.path());
        assert_eq!(earliest(state).len() as u64, start.div_ceil(2));
        merge(&journal, today());
        let (count, hour) = (counts(1, 7), i64::try_from(start).expect("small"));
        let counted = Counter { hour, ..counter(1) };
        let _unawaited = journal.count(journal.reserve().expect("room"), counted, count);
        // Every key is revoked twice: by two starts.
        let at = Timestamp(i64::try_from(STARTS - start).expect("small"));
        let id = (start / 2).to_string();
        let fact = Revocation { kind: RevocationKind::Key, id: id.as_str().into(), at };
        let ticket = journal.append(vec![StateFact::Revoked(fact)]).expect("room");
        let event_id = Uuid::from_u128(u128::from(start) + 1);
        let (actor, action) = ("cli".into(), "key.revoke".into());
        journal.note(AuditEntry { event_id, actor, action, subject: "x".into() });
        ticket.durable().await.expect("a working disk");
        journal.shutdown().expect("a working disk");
        let lanes = ["state", "usage", "events"];
        most = most.max(lanes.map(|lane| dirs(data.path(), lane).len()).into_iter().sum());
    }
    assert!(most < 24, "{most} segments");
    let (journal, state) = open(data.path());
    while merge(&journal, today()) {}
    assert!(state.len() < STARTS as usize, "merged by their law");
    let revoked = earliest(state);
    let later: Vec<i64> = (1..STARTS as i64).step_by(2).collect();
    let mut at: Vec<i64> = revoked.values().map(|at| at.0).collect();
    at.sort_unstable();
    assert_eq!(at, later, "the later start revoked earlier");
    // Hours of 1970 are long over: what was merged has become one total.
    let sums = sums(&journal);
    assert_eq!(sums.values().map(|counts| counts.requests).sum::<u64>(), STARTS);
    assert!(sums.len() < 8 && sums.keys().any(|c| c.hour == Counter::NO_HOUR), "{sums:?}");
    let events = journal.segments(Lane::Events);
    let read: usize = events.iter().map(|segment| segment.facts() as usize).sum();
    assert!(read < EVENTS_MAX + 5, "{read} entries");
}

#[tokio::test]
async fn sessions_that_are_long_over_drop_out_only_where_nothing_was_ever_sent() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let now = SystemClock::new().now();
    let ends = [now.minus(8 * DAY), now.minus(6 * DAY), now.plus(DAY)];
    for attached in [false, true] {
        let data = TempDir::new().expect("temporary directory");
        let (journal, _) = open(data.path());
        for id in 0..6 {
            let session = session(id, ends[id as usize % ends.len()]);
            let ticket = journal.append(vec![StateFact::Session(session)]).expect("room");
            ticket.durable().await.expect("a working disk");
            // Segments are closed after a commit, and before the next one.
            commit(&journal).await;
        }
        if attached {
            journal.attach().expect("writable");
        }
        assert!(merge(&journal, today()));
        assert_eq!(journal.segments(Lane::State).len(), 1);
        journal.shutdown().expect("a working disk");
        drop(journal);
        let (_journal, state) = open(data.path());
        let left = |end| {
            let is =
                |fact: &&StateFact| matches!(fact, StateFact::Session(s) if s.expires_at == end);
            state.iter().filter(is).count()
        };
        assert_eq!(ends.map(left), if attached { [2, 2, 2] } else { [0, 2, 2] });
    }
}

fn session(id: u128, expires_at: Timestamp) -> Session {
    Session {
        id: Uuid::from_u128(id),
        node: "gw".into(),
        subject: "alice".into(),
        client: "web".into(),
        scopes: Vec::new(),
        created_at: Timestamp::EPOCH,
        expires_at,
        advance: Advance { generation: 0, at: Timestamp::EPOCH },
        revoked_at: None,
        recovered_at: None,
    }
}

fn earliest(state: Vec<StateFact>) -> BTreeMap<Arc<str>, Timestamp> {
    let mut earliest = BTreeMap::new();
    for fact in state {
        let StateFact::Revoked(fact) = fact else { panic!("{fact:?}") };
        let at = earliest.entry(fact.id).or_insert(fact.at);
        *at = fact.at.min(*at);
    }
    earliest
}

#[tokio::test]
async fn quotas_are_not_merged_before_what_was_used_of_them_is_read() {
    let data = TempDir::new().expect("temporary directory");
    let key = QuotaKey {
        quota: "p/q".into(),
        scope: "acme".into(),
        period: Timestamp(0),
        until: Timestamp(i64::MAX),
    };
    let (journal, _) = open(data.path());
    for _ in 0..6 {
        let _unawaited = journal.use_quota(journal.reserve().expect("room"), key.clone(), 5);
        commit(&journal).await;
        commit(&journal).await;
    }
    journal.shutdown().expect("a working disk");
    drop(journal);
    let (journal, _) = open(data.path());
    journal.quotas_will_be_read();
    assert!(!merge(&journal, today()));
    let mut used = 0;
    journal.inherited_quotas(&|| false, &mut |_, _, fact| used += fact.used).expect("readable");
    assert_eq!(used, 30);
    assert!(merge(&journal, today()), "from now on");
}

#[tokio::test]
async fn who_stops_does_not_wait_for_quotas_that_another_handle_has() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(data.path());
    let (quota, scope) = ("p/q".into(), "acme".into());
    let key = QuotaKey { quota, scope, period: Timestamp(0), until: Timestamp(i64::MAX) };
    let _unawaited = journal.use_quota(journal.reserve().expect("room"), key, 5);
    journal.shutdown().expect("a working disk");
    let dir = journal.segments(Lane::Quota)[0].dir().to_owned();
    drop(journal);
    let (journal, _) = open(data.path());
    let held = disk::open_sled(&dir, 1 << 20).expect("it opens");
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        true
    };
    let read = journal.inherited_quotas(&stop, &mut |_, _, _| {});
    assert!(read.is_err_and(|error| error.is_locked()) && asked.get() == 1);
    drop(held);
    let mut used = 0;
    journal.inherited_quotas(&stop, &mut |_, _, fact| used += fact.used).expect("readable");
    assert_eq!(used, 5);
}
