//! The drain, dropped wherever it waits: nothing is lost, nothing is counted twice, and no
//! connection stays in a transaction. And a Postgres that takes a transaction back.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use gatepost::clock::SystemClock;
use gatepost::drainer::{self, Drainer, Worker};
use gatepost::entropy::SystemEntropy;
use gatepost::model::Timestamp;
use gatepost::model::fact::StateFact;
use tokio_util::sync::CancellationToken;

use crate::support::database::Database;
use crate::support::gateway::until;
use crate::support::in_process::{Gateway, NEVER, count, drain};
use crate::support::postgres::{id, quota, revoked, sink};

/// What each round counts.
const KEYS: u128 = 3;

/// More than any pass of so little waits.
const WAITS_MAX: usize = 2000;

const TOTAL: &str =
    "SELECT coalesce(sum(total_requests), 0)::bigint FROM gatepost.client_statistics";
const HOURLY: &str = "SELECT coalesce(sum(requests), 0)::bigint FROM gatepost.usage_hourly";
const REVOKED: &str = "SELECT count(*) FROM gatepost.revocations";
const USED: &str = "SELECT coalesce(sum(used), 0)::bigint FROM gatepost.quota_totals";
const BUSY: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
     AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'";

/// Another drain of the same journal, as after a restart without one.
fn drainer(gateway: &Gateway, url: &str) -> (Drainer, Worker) {
    drainer::new(drainer::Parts {
        journal: gateway.journal.clone(),
        cache: gateway.cache.clone(),
        sink: sink(url, "gw-1"),
        config: drainer::Config { interval: NEVER, ..drainer::Config::default() },
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy::new()),
        metrics: gateway.metrics.clone(),
        listener: Arc::new(()),
    })
}

/// Facts of three lanes, durable: a revocation, usage, and use of a quota.
async fn round(gateway: &Gateway, number: u128) {
    let fact: StateFact = revoked(id(number), Timestamp::NEG_INFINITY);
    gateway.journal.append(vec![fact]).unwrap().durable().await.unwrap();
    let used = quota("key-1", 2);
    let _unawaited =
        gateway.journal.use_quota(gateway.journal.reserve().unwrap(), used.key, used.used);
    count(gateway, 0..KEYS).await;
}

/// A pass that is dropped when it has waited `waits` times; whether it came to its end before.
async fn dropped_after(waits: usize, gateway: &Gateway, url: &str) -> bool {
    let (drainer, worker) = drainer(gateway, url);
    let mut asked = tokio::spawn(async move { drainer.drain_now().await });
    let mut run = pin!(worker.run(CancellationToken::new()));
    let mut polled = 0;
    let limited = poll_fn(|context| {
        if polled > waits {
            return Poll::Ready(());
        }
        polled += 1;
        run.as_mut().poll(context)
    });
    tokio::select! {
        biased;
        ended = &mut asked => ended.unwrap().is_ok(),
        () = limited => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_is_dropped_wherever_it_waits_loses_and_doubles_nothing() {
    let db = Database::new().await;
    let mut gateway = Gateway::new(&db.url);
    gateway.stop_draining().await;
    let mut rounds = 0;
    loop {
        let waits = usize::try_from(rounds).unwrap();
        assert!(waits < WAITS_MAX, "a pass comes to its end");
        rounds += 1;
        round(&gateway, rounds).await;
        let ended = dropped_after(waits, &gateway, &db.url).await;

        // At once: what was under way may still become true.
        let (again, worker) = drainer(&gateway, &db.url);
        let running = tokio::spawn(worker.run(CancellationToken::new()));
        until("it drains", async || again.drain_now().await.is_ok()).await;
        running.abort();
        until("nobody is in a transaction", async || db.number(BUSY).await == 0).await;
        let requests = i64::try_from(rounds * KEYS).unwrap();
        assert_eq!(db.number(TOTAL).await, requests, "dropped after {waits} waits");
        assert_eq!(db.number(HOURLY).await, requests, "dropped after {waits} waits");
        assert_eq!(db.number(REVOKED).await, i64::try_from(rounds).unwrap());
        assert_eq!(db.number(USED).await, i64::try_from(rounds * 2).unwrap());
        if ended {
            break;
        }
    }
    // (Polls come together where much else runs.)
    assert!(rounds > 8, "a pass that hardly waits is none: {rounds}");
    drop(gateway.shut_down().await);
}

/// As where others write to the same rows, or a standby is in the way.
const TROUBLE: &str = "
    CREATE SEQUENCE gatepost.trouble;
    CREATE FUNCTION gatepost.trouble() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        CASE nextval('gatepost.trouble')
          WHEN 1 THEN RAISE EXCEPTION 'in each other''s way' USING ERRCODE = '40001';
          WHEN 2 THEN RAISE EXCEPTION 'in each other''s arms' USING ERRCODE = '40P01';
          ELSE RETURN NULL;
        END CASE;
      END $$;
    CREATE TRIGGER trouble AFTER INSERT OR UPDATE ON gatepost.key_totals
      FOR EACH STATEMENT EXECUTE FUNCTION gatepost.trouble()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_postgres_takes_back_is_done_again_once() {
    let db = Database::new().await;
    let gateway = Gateway::new(&db.url);
    db.execute(TROUBLE).await;
    round(&gateway, 1).await;
    // From the first failure on it tries again by itself as well.
    let refused = gateway.drainer.drain_now().await.unwrap_err();
    assert!(refused.contains("in each other's way"), "{refused}");
    drain(&gateway).await;
    // Both of them came, and then what went through.
    assert!(db.number("SELECT last_value FROM gatepost.trouble").await >= 3);
    assert_eq!(db.number(TOTAL).await, i64::try_from(KEYS).unwrap());
    assert_eq!(db.number(HOURLY).await, i64::try_from(KEYS).unwrap());
    assert_eq!((db.number(REVOKED).await, db.number(USED).await), (1, 2));
    assert_eq!(db.number("SELECT count(*) FROM gatepost.dead_letters").await, 0);
    drop(gateway.shut_down().await);
}
