//! Sessions: tiers, settling, other gateways', and what nobody can say.

use super::*;
use crate::model::fact::{Revocation, RevocationKind};
use crate::model::units::Span;
use crate::model::{Advance, Session, SessionState};

fn session(number: u128, generation: u64) -> Session {
    Session {
        id: Uuid::from_u128(number),
        node: "gw".into(),
        subject: "alice".into(),
        client: "acme".into(),
        scopes: Vec::new(),
        created_at: START,
        expires_at: Timestamp(i64::MAX),
        advance: Advance { generation, at: START },
        revoked_at: None,
        recovered_at: None,
    }
}

fn bench() -> Bench {
    let config = Config { hot_sessions: 1, ..patient() };
    Bench::with(config, Declared { node: "gw".into(), ..Declared::default() })
}

fn generation(bench: &Bench, number: u128) -> Option<u64> {
    let held = bench.cache.session_turn(Uuid::from_u128(number)).get().expect("a disk")?;
    Some(held.session().advance.generation)
}

#[test]
fn a_pin_outlives_the_settling_of_less_than_it_says() {
    let bench = bench();
    for generation in 1..=2 {
        bench.cache.pin(&StateFact::Session(session(1, generation)));
    }
    bench.cache.settle_sessions([session(1, 1)].iter()).expect("a disk");
    assert_eq!(generation(&bench, 1), Some(2));
    assert_eq!(bench.cache.unsettled_sessions(), 1);
    bench.cache.settle_sessions([session(1, 2), session(1, 0)].iter()).expect("a disk");
    assert_eq!(bench.cache.unsettled_sessions(), 0);
    let bench = bench.restart(patient(), Duration::ZERO);
    assert_eq!(generation(&bench, 1), Some(2), "it is on disk");
}

#[test]
fn what_is_evicted_comes_back_with_what_was_pinned() {
    let bench = bench();
    bench.cache.keep_session(&session(1, 3)).expect("a disk");
    bench.cache.pin(&StateFact::Session(session(1, 4)));
    bench.cache.pin(&StateFact::Session(session(2, 7)));
    for _ in 0..3 {
        assert_eq!((generation(&bench, 1), generation(&bench, 2)), (Some(4), Some(7)));
    }
    // A row of Postgres that is behind changes nothing.
    bench.cache.keep_session(&session(1, 1)).expect("a disk");
    assert_eq!(generation(&bench, 1), Some(4));
}

#[tokio::test]
async fn what_the_feed_says_of_a_subject_ends_sessions_that_are_hot() {
    let bench = bench();
    bench.cache.pin(&StateFact::Session(session(1, 0)));
    let state = || {
        let id = Uuid::from_u128(1);
        let held = bench.cache.session_turn(id).get().expect("a disk").expect("it is there");
        let (idle, skew) = (Span::secs(60), Span::secs(0));
        held.state(crate::model::SessionRules { idle, skew }, START)
    };
    assert_eq!(state(), SessionState::Active);
    assert!(bench.cache.hot_session(Uuid::from_u128(1)).is_some());
    let at = Timestamp(START.0 - 1);
    let (kind, id) = (RevocationKind::Subject, "alice".into());
    bench.feed(1, vec![Change::Revocation(Revocation { kind, id, at })]);
    assert_eq!(state(), SessionState::Active, "it was made after");
    let (kind, id) = (RevocationKind::Client, "acme".into());
    bench.feed(2, vec![Change::Revocation(Revocation { kind, id, at: START })]);
    assert!(bench.cache.hot_session(Uuid::from_u128(1)).is_none());
    assert_eq!(state(), SessionState::Revoked);
    // An earlier moment takes nothing back.
    let (kind, id) = (RevocationKind::Client, "acme".into());
    bench.feed(3, vec![Change::Revocation(Revocation { kind, id, at })]);
    assert_eq!(state(), SessionState::Revoked);
}

#[tokio::test]
async fn a_session_that_is_not_here_is_looked_up_and_one_of_elsewhere_not_kept() {
    let bench = bench();
    let find = async |number| bench.cache.find_session(Uuid::from_u128(number)).await;
    assert!(find(1).await.is_err(), "Postgres is away: nobody can say");
    let elsewhere = Session { node: "gw-2".into(), ..session(2, 0) };
    bench.hand.knows(vec![session(1, 5), elsewhere.clone()]);
    let known = find(1).await.expect("an answer").expect("it is known");
    assert_eq!(known.session().advance.generation, 5);
    assert_eq!(find(2).await.expect("an answer").expect("known").session(), &elsewhere);
    assert!(find(3).await.expect("an answer").is_none());

    bench.hand.knows(vec![session(3, 0), Session { revoked_at: Some(START), ..elsewhere }]);
    assert!(find(3).await.expect("an answer").is_none(), "remembered for a moment");
    let revoked = async || find(2).await.expect("an answer").expect("it").session().revoked_at;
    bench.clock.advance(Duration::from_secs(6));
    assert_eq!(revoked().await, Some(START), "asked again");
    assert!(find(3).await.expect("an answer").is_some());
    let bench = bench.restart(patient(), Duration::ZERO);
    assert_eq!((generation(&bench, 1), generation(&bench, 2)), (Some(5), None));
}

#[test]
fn what_is_over_is_forgotten_in_steps_and_what_is_pinned_stays() {
    let bench = bench();
    for number in 1..=25 {
        bench.cache.keep_session(&session(number, 0)).expect("a disk");
    }
    bench.cache.pin(&StateFact::Session(session(7, 1)));
    let odd = |session: &Session| session.id.as_u128() % 2 == 1;
    let (mut place, mut forgotten) = (None, 0);
    loop {
        let (some, next) = bench.cache.forget_sessions(place, 10, &odd).expect("a disk");
        forgotten += some;
        place = next;
        if place.is_none() {
            break;
        }
    }
    assert_eq!(forgotten, 12);
    let left = bench.cache.sessions(None, 100, &|_| true);
    let left: Vec<u128> = left.iter().map(|session| session.id.as_u128()).collect();
    assert_eq!(left, [2, 4, 6, 7, 8, 10, 12, 14, 16, 18, 20, 22, 24]);
}

#[test]
fn what_is_advanced_while_it_is_looked_at_is_not_forgotten() {
    let bench = bench();
    bench.cache.keep_session(&session(1, 0)).expect("a disk");
    let over = |looked_at: &Session| {
        // Between the look and the removal; and the new one is not over.
        if looked_at.advance.generation == 0 {
            bench.cache.keep_session(&session(1, 1)).expect("a disk");
        }
        looked_at.advance.generation == 0
    };
    assert_eq!(bench.cache.forget_sessions(None, 10, &over).expect("a disk"), (0, None));
    assert_eq!(generation(&bench, 1), Some(1));
}

#[test]
fn a_doubt_that_comes_while_sessions_are_compared_is_looked_into_as_well() {
    let bench = bench();
    let due = || bench.cache.sessions_due().expect("a disk");
    assert_eq!(due(), None);
    let resync = |revision| {
        bench.cache.begin(revision, true);
        bench.cache.complete(Position { revision, mark: [1; 16] }).expect("a disk");
    };
    resync(1);
    let first = due().expect("a full resync");
    resync(2);
    bench.cache.sessions_compared(first).expect("a disk");
    let second = due().expect("another one since");
    bench.cache.sessions_compared(second).expect("a disk");
    assert_eq!(due(), None);
    bench.cache.compare_sessions().expect("a disk");
    let bench = bench.restart(patient(), Duration::ZERO);
    assert!(bench.cache.sessions_due().expect("a disk").is_some(), "through a restart");
}

#[test]
fn a_row_that_says_nothing_new_leaves_its_session_hot() {
    let bench = bench();
    bench.cache.keep_session(&session(1, 3)).expect("a disk");
    assert_eq!(generation(&bench, 1), Some(3));
    bench.cache.keep_session(&session(1, 2)).expect("a disk");
    assert!(bench.cache.hot_session(Uuid::from_u128(1)).is_some());
    bench.cache.keep_session(&session(1, 4)).expect("a disk");
    assert_eq!(generation(&bench, 1), Some(4));
}
