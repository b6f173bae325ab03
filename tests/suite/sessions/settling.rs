//! Journal, cache and Postgres together: what is answered is never older than what was recorded.

use gatepost::cache::{Source, SourceError};
use gatepost::model::fact::StateFact;
use gatepost::model::{Advance, Session, Timestamp};
use sqlx::Connection;
use tokio_util::sync::CancellationToken;

use super::laws::{NOW, session, steward, tell, told};
use super::*;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::in_process::{Gateway as InProcess, drain};
use crate::support::postgres::{at, id, sink, usage};

/// Far enough ahead that no clock of a test machine finds it over.
const SOON: Timestamp = Timestamp(4_000_000_000_000_000);

fn advanced(number: u128, generation: u64) -> Session {
    let advance = Advance { generation, at: Timestamp(NOW + 1) };
    Session { advance, expires_at: SOON, ..session(number) }
}

/// As far as it is known here, whether it is revoked; asked so that nothing else is hot.
fn known(gateway: &InProcess, number: u128) -> Option<(u64, bool)> {
    gateway.cache.session_turn(id(number + 1_000_000)).get().unwrap();
    let held = gateway.cache.session_turn(id(number)).get().unwrap()?;
    Some((held.session().advance.generation, held.session().revoked_at.is_some()))
}

async fn settle(gateway: &InProcess) {
    // What a pass has sent is settled at its end.
    drain(gateway).await;
    assert_eq!(gateway.cache.unsettled_sessions(), 0);
}

#[tokio::test]
async fn what_was_recorded_during_an_outage_is_never_answered_older() {
    let db = Database::new().await;
    let line = FaultProxy::new(&db.url);
    let url = line.url(&db.url);
    let gateway = InProcess::new(&url);
    for number in 1..=3 {
        tell(&gateway, advanced(number, 1)).await;
    }
    settle(&gateway).await;
    line.set(Fault::Cut);
    for generation in 2..=4 {
        for number in 1..=2 {
            tell(&gateway, advanced(number, generation)).await;
            assert_eq!(known(&gateway, number), Some((generation, false)));
        }
    }
    assert!(gateway.drainer.drain_now().await.is_err());
    // In any order, and evicted in between: one is hot at a time.
    for number in [2, 1, 3, 1, 2] {
        assert_eq!(known(&gateway, number).map(|(at, _)| at), Some([4, 4, 1][number as usize - 1]));
    }
    // The cache is lost with it: what the journal says is enough.
    let gateway = InProcess::open(gateway.kill().await, &url, None);
    for number in [2, 1, 2] {
        assert_eq!(known(&gateway, number), Some((4, false)));
    }
    line.set(Fault::None);
    settle(&gateway).await;
    assert_eq!(row(&db, &id(1).to_string()).await, Some((4, false)));
    let gateway = InProcess::open(gateway.shut_down().await, &url, None);
    assert_eq!((known(&gateway, 1), known(&gateway, 2)), (Some((4, false)), Some((4, false))));
    drop(gateway.shut_down().await);
}

/// Schedule 5: what says that it exists was set aside, and arrives long after.
#[tokio::test]
async fn a_creation_that_arrives_last_brings_nothing_back() {
    let db = Database::new().await;
    let gateway = InProcess::new(&db.url);
    tell(&gateway, advanced(1, 3)).await;
    let revoked = Session { revoked_at: Some(Timestamp(NOW + 5)), ..advanced(2, 0) };
    tell(&gateway, revoked).await;
    settle(&gateway).await;
    for number in 1..=2 {
        tell(&gateway, advanced(number, 0)).await;
    }
    let stands = || (known(&gateway, 1), known(&gateway, 2));
    let wanted = (Some((3, false)), Some((0, true)));
    assert_eq!(stands(), wanted, "pinned");
    settle(&gateway).await;
    assert_eq!(stands(), wanted, "settled");
    assert_eq!(row(&db, &id(1).to_string()).await, Some((3, false)));
    assert_eq!(row(&db, &id(2).to_string()).await, Some((0, true)));
    drop(gateway.shut_down().await);
}

/// Sessions take no revision, so the feed finds the same history: only the ledger tells.
#[tokio::test]
async fn a_restore_that_only_the_ledger_shows_is_mended_from_the_cache() {
    let db = Database::new().await;
    let gateway = InProcess::new(&db.url);
    tell(&gateway, advanced(1, 1)).await;
    settle(&gateway).await;
    db.execute(
        "CREATE TABLE s AS TABLE gatepost.sessions; \
         CREATE TABLE l AS TABLE gatepost.stream_ledger",
    )
    .await;
    tell(&gateway, Session { revoked_at: Some(Timestamp(NOW + 9)), ..advanced(1, 4) }).await;
    tell(&gateway, advanced(2, 7)).await;
    let fact = usage("acme", 1, "orders", 1);
    let room = gateway.journal.reserve().unwrap();
    gateway.journal.count(room, fact.counter, fact.counts).durable().await.unwrap();
    settle(&gateway).await;
    // A new process: the segments of the one before are closed, and go once they are settled.
    let gateway = InProcess::open(gateway.shut_down().await, &db.url, None);
    drain(&gateway).await;
    settle(&gateway).await;
    assert!(gateway.journal.segments(gatepost::model::fact::Lane::State).is_empty());
    assert_eq!(gateway.cache.sessions_due().unwrap(), None);

    db.execute(
        "TRUNCATE gatepost.sessions; INSERT INTO gatepost.sessions SELECT * FROM s; \
         DELETE FROM gatepost.stream_ledger; INSERT INTO gatepost.stream_ledger SELECT * FROM l",
    )
    .await;
    // Any error, or a minute, has the ledger read.
    let gateway = InProcess::open(gateway.shut_down().await, &db.url, None);
    drain(&gateway).await;
    let doubt = gateway.cache.sessions_due().unwrap().expect("Postgres has gone back");
    assert_eq!((known(&gateway, 1), known(&gateway, 2)), (Some((4, true)), Some((7, false))));
    let steward = steward(&gateway, &db.url, gatepost::model::units::Span::secs(3600));
    assert_eq!(steward.compare(&CancellationToken::new()).await.unwrap(), 2);
    gateway.cache.sessions_compared(doubt).unwrap();
    settle(&gateway).await;
    assert_eq!(row(&db, &id(1).to_string()).await, Some((4, true)));
    assert_eq!(row(&db, &id(2).to_string()).await, Some((7, false)));
    assert_eq!(steward.compare(&CancellationToken::new()).await.unwrap(), 0);
    drop(gateway.shut_down().await);
}

/// As with any state fact: it stands here, there is a letter, and the others have passed.
#[tokio::test]
async fn a_session_that_postgres_refuses_stays_in_force_here() {
    let db = Database::new().await;
    db.execute("ALTER TABLE gatepost.sessions ADD CONSTRAINT no_evil CHECK (subject <> 'evil')")
        .await;
    let gateway = InProcess::new(&db.url);
    for number in 1..=9 {
        let subject = if number == 4 { "evil" } else { "alice" };
        tell(&gateway, Session { subject: subject.into(), ..advanced(number, 2) }).await;
    }
    drain(&gateway).await;
    assert_eq!(db.number("SELECT count(*) FROM gatepost.sessions").await, 8);
    let letters = "SELECT count(*) FROM gatepost.dead_letters WHERE lane = 'state' \
                   AND fact->'session'->>'subject' = 'evil' AND reason LIKE '%no_evil%'";
    assert_eq!(db.number(letters).await, 1);
    assert_eq!(gateway.cache.unsettled_sessions(), 1);
    assert_eq!((known(&gateway, 4), known(&gateway, 5)), (Some((2, false)), Some((2, false))));
    let over = |_: &Session| true;
    assert_eq!(gateway.cache.forget_sessions(None, 100, &over).unwrap(), (8, None));
    assert_eq!(known(&gateway, 4), Some((2, false)), "it is pinned");
    drop(gateway.shut_down().await);
}

#[tokio::test]
async fn sessions_never_take_the_change_counter() {
    let db = Database::new().await;
    let mut sink = sink(&db.url, "gw-1");
    sink.apply(&told([advanced(1, 1)])).await.unwrap();
    let revoked = Session { revoked_at: Some(Timestamp(NOW)), ..advanced(1, 2) };
    sink.apply(&told([revoked])).await.unwrap();
    assert_eq!(db.number("SELECT revision FROM gatepost.change_counter").await, 0);
}

#[tokio::test]
async fn a_lookup_behind_a_lock_ends_at_its_deadline_and_the_next_one_is_answered() {
    let db = Database::new().await;
    sink(&db.url, "gw-1").apply(&told([advanced(1, 5)])).await.unwrap();
    let source = at(&db.url).source();
    let found = async || loop {
        match source.session(id(1)).await {
            Ok(found) => return found,
            // A pause of the breaker, or a slow start.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    assert_eq!(found().await, Some(advanced(1, 5)));
    let mut other = db.connect().await;
    let mut lock = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE gatepost.sessions").execute(&mut *lock).await.unwrap();
    let answer = source.session(id(1)).await;
    // Either end may be the first to notice.
    let refused = matches!(answer, Err(SourceError::Deadline | SourceError::Unavailable(_)));
    assert!(refused, "{answer:?}");
    lock.rollback().await.unwrap();
    assert_eq!(found().await, Some(advanced(1, 5)));
}

/// A gateway under another name leaves to the old one what was made there.
#[tokio::test]
async fn a_walk_sends_nothing_of_other_gateways() {
    let db = Database::new().await;
    let gateway = InProcess::new(&db.url);
    let foreign = Session { node: "gw-0".into(), ..advanced(1, 2) };
    gateway.cache.pin(&StateFact::Session(foreign.clone()));
    gateway.cache.settle_sessions([foreign].iter()).unwrap();
    gateway.cache.keep_session(&advanced(2, 2)).unwrap();
    let steward = steward(&gateway, &db.url, gatepost::model::units::Span::secs(3600));
    assert_eq!(steward.compare(&CancellationToken::new()).await.unwrap(), 1);
    drop(gateway.shut_down().await);
}

/// Postgres has lost them all: what is recorded again waits in memory, and not all at once.
#[tokio::test]
async fn a_walk_waits_for_the_drain_and_holds_few_in_memory() {
    const HELD: u128 = 10_600;
    const WAITING_MAX: usize = 10_000;
    let db = Database::new().await;
    let gateway = InProcess::new(&db.url);
    for number in 1..=HELD {
        gateway.cache.keep_session(&advanced(number, 1)).unwrap();
    }
    let steward = steward(&gateway, &db.url, gatepost::model::units::Span::secs(3600));
    let stop = CancellationToken::new();
    let walk = tokio::spawn({
        let (steward, stop) = (steward.clone(), stop.clone());
        async move { steward.compare(&stop).await }
    });
    until("it waits", || async { gateway.cache.unsettled_sessions() > WAITING_MAX }).await;
    stop.cancel();
    assert!(walk.await.unwrap().is_err(), "nothing drains: it never comes to its end");
    assert!(gateway.cache.unsettled_sessions() < HELD as usize);

    settle(&gateway).await;
    let stop = CancellationToken::new();
    let again = tokio::select! {
        again = steward.compare(&stop) => again.unwrap(),
        () = async { loop { drain(&gateway).await } } => unreachable!("it drains for ever"),
    };
    assert!((1..HELD as u64).contains(&again), "{again}: those that have settled are known there");
    settle(&gateway).await;
    let rows = "SELECT count(*) FROM gatepost.sessions WHERE generation = 1";
    assert_eq!(db.number(rows).await, HELD as i64);
    drop(gateway.shut_down().await);
}
