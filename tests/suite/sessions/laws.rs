//! The rows that facts end in, whatever the order, and what becomes of those that are over.

use std::time::Duration;

use gatepost::cache::Source;
use gatepost::clock::SystemClock;
use gatepost::metrics::Metrics;
use gatepost::model::fact::{Lane, Revocation, RevocationKind, StateFact};
use gatepost::model::units::Span;
use gatepost::model::{Advance, Session, Timestamp};
use gatepost::postgres::sink::Batch;
use gatepost::steward::Steward;
use sqlx::Connection;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::support::dice::Dice;
use crate::support::in_process::{Gateway as InProcess, drain};
use crate::support::postgres::{at, id, range, sink};

pub(super) const NOW: i64 = 1_800_000_000_000_000;

pub(super) fn session(number: u128) -> Session {
    Session {
        id: id(number),
        node: "gw-1".into(),
        subject: "alice".into(),
        client: "web".into(),
        scopes: vec!["orders.read".into(), "x".into()],
        created_at: Timestamp(NOW),
        expires_at: Timestamp(NOW + 1_000_000_000),
        advance: Advance { generation: 0, at: Timestamp(NOW) },
        revoked_at: None,
        recovered_at: None,
    }
}

pub(super) fn told(facts: impl IntoIterator<Item = Session>) -> Batch {
    let state = facts.into_iter().map(StateFact::Session).collect();
    Batch { ranges: vec![range(id(9), Lane::State, 0, 1)], state, ..Batch::default() }
}

/// Facts of two sessions in every order and grouping that the dice give: the rows are what the
/// model merges them to.
#[tokio::test]
async fn facts_in_any_order_end_in_the_same_rows() {
    let db = Database::new().await;
    let (mut sink, source) = (sink(&db.url, "gw-1"), at(&db.url).source());
    let dice = Dice::new();
    for round in 0..40_u128 {
        let ids = [2 * round + 100, 2 * round + 101];
        let mut facts: Vec<Session> = (0..8)
            .map(|n| {
                let moment = |max: u32| Timestamp(NOW + i64::from(dice.below(max)));
                let sometimes = |one_in: u32| dice.one_in(one_in).then(|| moment(50));
                let generation = u64::from(dice.below(4));
                Session {
                    advance: Advance { generation, at: moment(50) },
                    revoked_at: sometimes(3),
                    recovered_at: sometimes(4),
                    ..session(ids[n % 2])
                }
            })
            .collect();
        let mut wanted = std::collections::BTreeMap::<Uuid, Session>::new();
        for fact in &facts {
            wanted.entry(fact.id).or_insert_with(|| fact.clone()).merge(fact);
        }
        while !facts.is_empty() {
            let some = facts.split_off(facts.len().saturating_sub(1 + dice.below(3) as usize));
            sink.apply(&told(some)).await.unwrap();
        }
        for (id, session) in wanted {
            assert_eq!(source.session(id).await, Ok(Some(session)), "round {round}");
        }
    }
    assert_eq!(source.session(id(5)).await, Ok(None));
}

/// Schedule 5: an advance and a revocation settle before anything that says who it is. Each fact is
/// the whole row, so nothing has to come first.
#[tokio::test]
async fn a_fact_that_says_nothing_new_changes_no_row() {
    let db = Database::new().await;
    let mut sink = sink(&db.url, "gw-1");
    let advance = Advance { generation: 3, at: Timestamp(NOW + 9) };
    let last = Session { advance, revoked_at: Some(Timestamp(NOW + 10)), ..session(1) };
    sink.apply(&told([last.clone()])).await.unwrap();
    let version = "SELECT xmin::text::bigint FROM gatepost.sessions";
    let before = db.number(version).await;
    let earlier = Advance { generation: 2, at: Timestamp(NOW + 90) };
    sink.apply(&told([session(1), Session { advance: earlier, ..session(1) }])).await.unwrap();
    sink.apply(&told([last.clone()])).await.unwrap();
    assert_eq!(db.number(version).await, before);
    assert_eq!(at(&db.url).source().session(id(1)).await, Ok(Some(last)));
}

#[tokio::test]
async fn the_later_not_before_stays_and_the_earlier_revocation_of_a_key() {
    let db = Database::new().await;
    let mut sink = sink(&db.url, "gw-1");
    let fact = |kind, at| {
        StateFact::Revoked(Revocation { kind, id: "alice".into(), at: Timestamp(NOW + at) })
    };
    for at in [5, 9, 7] {
        let kinds = [RevocationKind::Subject, RevocationKind::Client, RevocationKind::Key];
        let state = kinds.map(|kind| fact(kind, at)).to_vec();
        let ranges = vec![range(id(9), Lane::State, 0, 1)];
        sink.apply(&Batch { ranges, state, ..Batch::default() }).await.unwrap();
    }
    let at = |kind: &'static str| {
        let sql = "SELECT gatepost.to_micros(at) FROM gatepost.revocations WHERE kind = $1";
        let url = db.url.clone();
        async move {
            let mut conn = sqlx::PgConnection::connect(&url).await.unwrap();
            sqlx::query_scalar::<_, i64>(sql).bind(kind).fetch_one(&mut conn).await.unwrap()
        }
    };
    assert_eq!(at("subject").await, NOW + 9);
    assert_eq!(at("client").await, NOW + 9);
    assert_eq!(at("key").await, NOW + 5);
}

pub(super) fn steward(gateway: &InProcess, url: &str, kept: Span) -> Steward {
    Steward {
        node: "gw-1".into(),
        cache: gateway.cache.clone(),
        journal: gateway.journal.clone(),
        directory: at(url).directory(),
        kept,
        clock: std::sync::Arc::new(SystemClock::new()),
        metrics: std::sync::Arc::new(Metrics::new()),
    }
}

pub(super) async fn tell(gateway: &InProcess, session: Session) {
    let fact = StateFact::Session(session);
    let ticket = gateway.journal.append(vec![fact.clone()]).unwrap();
    gateway.cache.pin(&fact);
    ticket.durable().await.unwrap();
}

#[tokio::test]
async fn what_is_settled_leaves_memory_and_stays_on_disk() {
    let db = Database::new().await;
    let gateway = InProcess::new(&db.url);
    for generation in 0..4 {
        let advance = Advance { generation, at: Timestamp(NOW + 1) };
        tell(&gateway, Session { advance, ..session(1) }).await;
    }
    assert_eq!(gateway.cache.unsettled_sessions(), 1);
    drain(&gateway).await;
    drain(&gateway).await;
    assert_eq!(gateway.cache.unsettled_sessions(), 0);
    let held = gateway.cache.session_turn(id(1)).get().unwrap().expect("it is on disk");
    assert_eq!(held.session().advance.generation, 3);
    drop(gateway.shut_down().await);
}

#[tokio::test]
async fn sessions_that_are_over_are_removed_in_steps_here_and_in_postgres() {
    let db = Database::new().await;
    let gateway = InProcess::new(&db.url);
    db.execute(
        "INSERT INTO gatepost.sessions (id, node_id, subject, client_name, expires_at) \
         SELECT gen_random_uuid(), 'gw-1', 's', 'web', now() - interval '8 days' \
         FROM generate_series(1, 2500); \
         INSERT INTO gatepost.sessions (id, node_id, subject, client_name, expires_at) \
         SELECT gen_random_uuid(), n, 's', 'web', now() - d * interval '1 day' \
         FROM (VALUES ('gw-1', 6), ('gw-1', -1), ('gw-2', 9)) AS v (n, d)",
    )
    .await;
    let steward = steward(&gateway, &db.url, Span(Duration::from_secs(7 * 24 * 3600)));
    let stop = CancellationToken::new();
    assert_eq!(steward.compare(&stop).await.unwrap(), 0);
    let held = || gateway.cache.sessions(None, 10_000, &|_| true).len();
    assert_eq!(held(), 2502, "all that are homed here");
    steward.clean(&stop).await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM gatepost.sessions").await, 3);
    assert_eq!(held(), 2);
    assert_eq!(steward.metrics.tokens.removed.get(), 2500);
    assert_eq!(steward.metrics.tokens.forgotten.get(), 2500);
    drop(gateway.shut_down().await);
}

/// More than a page on either side, and each side knows something that the other lacks.
#[tokio::test]
async fn a_walk_brings_both_sides_to_the_same_state() {
    let db = Database::new().await;
    let gateway = InProcess::new(&db.url);
    let mut sink = sink(&db.url, "gw-1");
    let soon = Timestamp(4_000_000_000_000_000);
    let at_generation = |number: u128, generation| {
        let advance = Advance { generation, at: Timestamp(NOW + 1) };
        Session { advance, expires_at: soon, ..session(number) }
    };
    // Postgres knows every second one, and a third of them further on.
    let rows = (1..3000_u128).filter(|n| n % 2 == 0);
    let rows = rows.map(|n| at_generation(n, if n % 3 == 0 { 5 } else { 1 }));
    sink.apply(&told(rows)).await.unwrap();
    for number in 1..3000 {
        gateway.cache.keep_session(&at_generation(number, 2)).unwrap();
    }
    let steward = steward(&gateway, &db.url, Span::secs(3600));
    let again = steward.compare(&CancellationToken::new()).await.unwrap();
    assert_eq!(again, 1500 + 1000, "unknown there, or further on here");
    let held = gateway.cache.sessions(None, 10_000, &|_| true);
    let ahead: Vec<Uuid> = (1..3000).filter(|n| n % 6 == 0).map(id).collect();
    let wanted = |session: &Session| if ahead.contains(&session.id) { 5 } else { 2 };
    assert!(held.iter().all(|s| s.advance.generation == wanted(s)), "taken in");
    drain(&gateway).await;
    assert_eq!(db.number("SELECT count(*) FROM gatepost.sessions").await, 2999);
    let behind = "SELECT count(*) FROM gatepost.sessions WHERE generation < 2";
    assert_eq!(db.number(behind).await, 0, "sent again");
    drop(gateway.shut_down().await);
}
