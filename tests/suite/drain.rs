//! Journal, drainer and feed together against a real Postgres: restores, regressions, settling.

mod limits;
mod retention;

use std::sync::Arc;
use std::time::Duration;

use gatepost::cache::{Follower, Source};
use gatepost::drainer::Lost;
use gatepost::model::fact::{Lane, StateFact};
use gatepost::model::{KeyState, Timestamp};
use gatepost::postgres::feed::{FeedHandle, Missing};
use tokio_util::sync::CancellationToken;

use crate::support::database::Database;
use crate::support::in_process::{Gateway, clone, drain};
use crate::support::postgres::{at, digest, id, key, revoked, usage};

const TOTAL: &str =
    "SELECT coalesce(sum(total_requests), 0)::bigint FROM gatepost.client_statistics";
const REVOKED: &str = "SELECT count(*) FROM gatepost.revocations";

async fn count(gateway: &Gateway, requests: u64) {
    let fact = usage("acme", 1, "orders", requests);
    let room = gateway.journal.reserve().unwrap();
    gateway.journal.count(room, fact.counter, fact.counts).durable().await.unwrap();
}

/// As the control plane does it: pinned, and durable before the answer.
async fn tell(gateway: &Gateway, fact: StateFact) {
    let ticket = gateway.journal.append(vec![fact.clone()]).unwrap();
    gateway.cache.pin(&fact);
    ticket.durable().await.unwrap();
}

/// Polls until something is true, which it becomes by itself.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), polling).await.expect(what);
}

/// The feed into the gateway's cache, as `serve` runs it.
fn follow(gateway: &Gateway, url: &str, shutdown: &CancellationToken) -> FeedHandle {
    let (journal, cache) = (gateway.journal.clone(), gateway.cache.clone());
    let missing: Missing = Arc::new(move |lacking| {
        let facts: Vec<_> = lacking.into_iter().map(StateFact::Revoked).collect();
        let _unawaited = journal.append(facts.clone()).unwrap();
        facts.iter().for_each(|fact| cache.pin(fact));
    });
    let feed = at(url).feed();
    let handle = feed.handle();
    let follower: Arc<dyn Follower> = gateway.cache.clone();
    tokio::spawn(feed.run(follower, missing, shutdown.clone()));
    handle
}

async fn state(gateway: &Gateway, text: &str) -> Option<KeyState> {
    let entry = gateway.cache.find(digest(text)).await.ok()??;
    Some(entry.state(Timestamp(1_800_000_000_000_000)))
}

#[tokio::test]
async fn a_revocation_outlives_a_restore_of_postgres_to_before_it() {
    let db = Database::new().await;
    let source: Arc<dyn Source> = at(&db.url).source();
    let data = tempfile::TempDir::new().unwrap();
    let gateway = Gateway::open(data, &db.url, Some(source));
    let shutdown = CancellationToken::new();
    let feed = follow(&gateway, &db.url, &shutdown);
    tell(&gateway, StateFact::KeyCreated(key(1, "k", "acme"))).await;
    drain(&gateway).await;
    tell(&gateway, revoked(id(1), Timestamp::NEG_INFINITY)).await;
    drain(&gateway).await;
    assert_eq!(db.number(REVOKED).await, 1);
    // Settled: the overlay has let go, the disk tier has it.
    until("settled", async || {
        feed.nudge();
        drain(&gateway).await;
        gateway.cache.status().overlay_entries == 0
    })
    .await;
    assert_eq!(state(&gateway, "k").await, Some(KeyState::Revoked));

    // What a backup taken before the revocation brings: the rows, the counter and the marks of
    // then.
    db.execute(
        "SET session_replication_role = replica; \
         DELETE FROM gatepost.revocations; \
         DELETE FROM gatepost.change_log WHERE revision > 1; \
         UPDATE gatepost.change_counter SET revision = 1",
    )
    .await;
    assert_eq!(db.number(REVOKED).await, 0);
    feed.nudge();
    until("sent again", async || {
        drain(&gateway).await;
        assert_eq!(state(&gateway, "k").await, Some(KeyState::Revoked), "and it stands meanwhile");
        db.number(REVOKED).await == 1
    })
    .await;
    shutdown.cancel();
    drop(gateway.shut_down().await);
}

#[tokio::test]
async fn a_revision_that_only_looks_passed_does_not_settle_a_revocation() {
    let db = Database::new().await;
    let gateway = Gateway::new(&db.url);
    // The cache comes from another history, far ahead; the feed does not run.
    let mark = [1; 16];
    gateway.cache.begin(1000, false);
    gateway.cache.complete(gatepost::cache::Position { revision: 1000, mark }).unwrap();
    tell(&gateway, StateFact::KeyCreated(key(1, "k", "acme"))).await;
    tell(&gateway, revoked(id(1), Timestamp::NEG_INFINITY)).await;
    drain(&gateway).await;
    drain(&gateway).await;
    assert_eq!(db.number(REVOKED).await, 1);
    assert_eq!(gateway.cache.status().overlay_entries, 2, "the feed has not brought it");
    drop(gateway.shut_down().await);
}

#[tokio::test]
async fn what_a_lagging_replica_lost_is_sent_again_and_counted_once() {
    let db = Database::new().await;
    let gateway = Gateway::new(&db.url);
    count(&gateway, 3).await;
    drain(&gateway).await;
    // Only what was applied after this moment is lost.
    db.execute(
        "CREATE TABLE t AS TABLE gatepost.client_totals; \
         CREATE TABLE l AS TABLE gatepost.stream_ledger",
    )
    .await;
    count(&gateway, 5).await;
    tell(&gateway, revoked(id(1), Timestamp::NEG_INFINITY)).await;
    drain(&gateway).await;
    assert_eq!(db.number(TOTAL).await, 8);
    db.execute(
        "DELETE FROM gatepost.client_totals; INSERT INTO gatepost.client_totals SELECT * FROM t; \
         DELETE FROM gatepost.stream_ledger; INSERT INTO gatepost.stream_ledger SELECT * FROM l; \
         DELETE FROM gatepost.revocations",
    )
    .await;
    assert_eq!(db.number(TOTAL).await, 3);
    // The next batch is refused by the ledger, and the pass after it begins with reading that.
    count(&gateway, 1).await;
    assert!(gateway.drainer.drain_now().await.is_err());
    drain(&gateway).await;
    assert_eq!(db.number(TOTAL).await, 9);
    assert_eq!(db.number(REVOKED).await, 1);
    assert!(gateway.metrics.drain.regressions.get() >= 1);
    drop(gateway.shut_down().await);
}

#[tokio::test]
async fn what_was_removed_here_and_lost_there_is_reported_to_the_last_fact() {
    removed_and_lost(false).await;
}

#[tokio::test]
async fn what_an_earlier_process_removed_is_reported_too_and_once() {
    removed_and_lost(true).await;
}

async fn removed_and_lost(restarted: bool) {
    let db = Database::new().await;
    let mut gateway = Gateway::new(&db.url);
    count(&gateway, 100).await;
    drain(&gateway).await;
    let first = gateway.journal.segments(Lane::Usage)[0].stream;
    db.execute(
        "CREATE TABLE t AS TABLE gatepost.client_totals; \
         CREATE TABLE l AS TABLE gatepost.stream_ledger",
    )
    .await;
    // One fact in each chunk and drain, until the first stream is full, settled and removed.
    let mut issued = 100;
    while gateway.journal.segments(Lane::Usage).iter().any(|segment| segment.stream == first) {
        count(&gateway, 1).await;
        drain(&gateway).await;
        issued += 1;
    }
    count(&gateway, 1).await;
    drain(&gateway).await;
    issued += 1;
    assert_eq!(db.number(TOTAL).await, issued);
    let ends = "SELECT last_seq FROM gatepost.stream_ledger ORDER BY stream_id LIMIT 1";
    let end = db.number(ends).await as u64;
    assert!(end > 2, "{end}");

    db.execute(
        "DELETE FROM gatepost.client_totals; INSERT INTO gatepost.client_totals SELECT * FROM t; \
         DELETE FROM gatepost.stream_ledger; INSERT INTO gatepost.stream_ledger SELECT * FROM l",
    )
    .await;
    if restarted {
        gateway = Gateway::open(gateway.shut_down().await, &db.url, None);
        count(&gateway, 1).await;
    } else {
        // What the ledger refuses makes the drainer look.
        count(&gateway, 1).await;
        assert!(gateway.drainer.drain_now().await.is_err());
    }
    drain(&gateway).await;
    let lost = Lost { stream: first, lane: "usage", from: 2, to: end, facts: Some(end - 1) };
    assert_eq!(gateway.drainer.status().lost, [lost]);
    assert_eq!(gateway.metrics.drain.lost_chunks.get(), end - 1);
    assert_eq!(gateway.metrics.drain.lost_facts.get(), end - 1);
    // And everything but that was sent again, once.
    assert_eq!(db.number(TOTAL).await, issued + 1 - (end as i64 - 1));
    let again = Gateway::open(gateway.shut_down().await, &db.url, None);
    drain(&again).await;
    assert_eq!(again.drainer.status().lost, [], "it was told");
    drop(again.shut_down().await);
}

#[tokio::test]
async fn a_settled_segment_goes_and_an_unsettled_one_stays() {
    let db = Database::new().await;
    let gateway = Gateway::new(&db.url);
    count(&gateway, 3).await;
    tell(&gateway, revoked(id(1), Timestamp::NEG_INFINITY)).await;
    let data = gateway.shut_down().await;
    let gateway = Gateway::open(data, &db.url, None);
    drain(&gateway).await;
    assert!(gateway.journal.segments(Lane::Usage).is_empty(), "applied, and no retention");
    assert_eq!(gateway.journal.segments(Lane::State).len(), 1, "the feed has not brought it back");
    drop(gateway.shut_down().await);
}

#[tokio::test]
async fn a_copy_that_drains_first_neither_doubles_nor_stops_the_original() {
    let db = Database::new().await;
    let original = Gateway::new(&db.url);
    count(&original, 5).await;
    let copy = Gateway::open(clone(original.data.path()), &db.url, None);
    drain(&copy).await;
    assert_eq!(db.number(TOTAL).await, 5);
    // The same stream goes on, beyond what the copy took for its end.
    count(&original, 2).await;
    drain(&original).await;
    assert_eq!(db.number(TOTAL).await, 7);
    drop(copy.shut_down().await);
    drop(original.shut_down().await);
}
