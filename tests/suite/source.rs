//! Lookups on a miss.

use std::sync::Arc;
use std::time::Duration;

use gatepost::cache::{Source, SourceError};
use gatepost::model::units::Span;
use gatepost::model::{Digest, Timestamp};
use gatepost::postgres::Config;
use gatepost::postgres::sink::Batch;
use sqlx::{Connection, Executor};

use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::postgres::{at, config, digest, id, key, with};

const KEYS: &str = "INSERT INTO gatepost.api_keys (digest, client_name) \
    SELECT sha256(('key' || i)::bytea), 'acme' FROM generate_series(0, 99) AS i";

#[tokio::test]
async fn a_key_comes_with_everything_that_decides_it() {
    let db = Database::new().await;
    db.execute(
        "INSERT INTO gatepost.policies VALUES \
           ('gold', '{\"a\": 1}'), ('default', '{}'), ('x', '{}'); \
         INSERT INTO gatepost.clients VALUES ('acme', NULL, false)",
    )
    .await;
    let mut wanted = key(1, "k", "acme");
    wanted.policy = Some("gold".into());
    wanted.expires_at = Some(Timestamp(1_900_000_000_000_001));
    let revoked = crate::support::postgres::revoked(wanted.id, Timestamp::NEG_INFINITY);
    let created = gatepost::model::fact::StateFact::KeyCreated(wanted.clone());
    let batch = Batch { state: vec![created, revoked], ..Batch::default() };
    crate::support::postgres::sink(&db.url, "gw-1").apply(&batch).await.unwrap();

    let source = at(&db.url).source();
    let lookup = source.lookup(digest("k")).await.unwrap();
    assert_eq!(lookup.revision, 2);
    let found = lookup.found.unwrap();
    assert_eq!(found.key.key, wanted);
    assert_eq!(found.key.revision, 2);
    assert!(!found.client.unwrap().client.enabled);
    let names: Vec<_> = found.policies.iter().map(|row| &*row.policy.name).collect();
    assert_eq!(names, ["gold", "default"]);
    assert_eq!(found.policies[0].policy.spec, "{\"a\": 1}");
    assert_eq!(found.revocation.unwrap().at, Timestamp::NEG_INFINITY);

    let absent = source.lookup(digest("nobody's")).await.unwrap();
    assert_eq!((absent.revision, absent.found), (2, None));
}

#[tokio::test]
async fn fifty_at_once_all_get_through_a_cold_pool() {
    let db = Database::new().await;
    db.execute(KEYS).await;
    // What is tested is that nobody starves; how fast this machine is today is another matter.
    let lookup_deadline = Span::secs(5);
    let source = with(Config { lookup_deadline, ..config(&db.url) }).source();
    let asked = (0..50).map(|i| {
        let source = Arc::clone(&source);
        tokio::spawn(async move { source.lookup(digest(&format!("key{i}"))).await })
    });
    for answer in asked.collect::<Vec<_>>() {
        assert!(answer.await.unwrap().unwrap().found.is_some());
    }
    let used = "SELECT count(*) FROM pg_stat_activity \
                WHERE datname = current_database() AND application_name = 'gatepost'";
    assert!(db.number(used).await <= 10);
}

#[tokio::test]
async fn silence_opens_the_breaker_and_an_answer_closes_it() {
    let db = Database::new().await;
    db.execute(KEYS).await;
    let proxy = FaultProxy::new(&db.url);
    let settings = Config {
        breaker_failures: 3,
        breaker_open_for: Span::millis(50),
        ..config(&proxy.url(&db.url))
    };
    let source = with(settings).source();
    proxy.set(Fault::BlackHole);
    for _ in 0..3 {
        assert_eq!(source.lookup(digest("key1")).await, Err(SourceError::Deadline));
    }
    assert!(source.breaker_open());
    assert_eq!(source.lookup(digest("key1")).await, Err(SourceError::BreakerOpen));
    proxy.set(Fault::None);
    until_found(&source, digest("key1")).await;
    assert!(!source.breaker_open());
}

#[tokio::test]
async fn a_connection_that_broke_off_is_not_used_again() {
    let db = Database::new().await;
    db.execute(KEYS).await;
    let proxy = FaultProxy::new(&db.url);
    let settings =
        Config { auth_pool_max: 1, breaker_failures: 1000, ..config(&proxy.url(&db.url)) };
    let source = with(settings).source();
    until_found(&source, digest("key1")).await;
    let before = proxy.connections();
    // In the middle of a query, behind somebody's lock.
    let mut other = db.connect().await;
    let mut lock = other.begin().await.unwrap();
    lock.execute("LOCK TABLE gatepost.api_keys").await.unwrap();
    assert!(source.lookup(digest("key2")).await.is_err());
    lock.rollback().await.unwrap();
    // The late answer to key2 must not be taken for the answer to key3.
    until_found(&source, digest("key3")).await;
    assert!(proxy.connections() > before);
}

#[tokio::test]
async fn each_lookup_is_one_query_and_a_slow_way_a_missed_deadline() {
    let db = Database::new().await;
    db.execute(KEYS).await;
    let proxy = FaultProxy::new(&db.url);
    let source = at(&proxy.url(&db.url)).source();
    until_found(&source, digest("key1")).await;
    let before = proxy.queries_with("gatepost.api_keys");
    until_found(&source, digest("key2")).await;
    assert_eq!(proxy.queries_with("gatepost.api_keys"), before + 1);
    proxy.set(Fault::Delay(Duration::from_secs(1)));
    assert_eq!(source.lookup(digest("key3")).await, Err(SourceError::Deadline));
}

#[tokio::test]
async fn a_frozen_or_stopped_server_is_survived() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    db.execute(KEYS).await;
    let settings = Config { breaker_open_for: Span::millis(20), ..config(&db.url) };
    let source = with(settings).source();
    until_found(&source, digest("key1")).await;

    cluster.freeze();
    assert_eq!(source.lookup(digest("key2")).await, Err(SourceError::Deadline));
    cluster.thaw();
    until_found(&source, digest("key2")).await;

    cluster.stop();
    assert!(source.lookup(digest("key3")).await.is_err());
    cluster.start();
    until_found(&source, digest("key3")).await;
}

#[tokio::test]
async fn switching_a_key_off_and_on_takes_effect_in_postgres() {
    let db = Database::new().await;
    db.execute(KEYS).await;
    let postgres = at(&db.url);
    let directory = postgres.directory();
    let found = postgres.source().lookup(digest("key1")).await.unwrap().found.unwrap();
    assert!(directory.set_key_enabled(found.key.key.id, false).await.unwrap());
    assert!(!directory.set_key_enabled(id(5), false).await.unwrap(), "there is none");
    assert!(!directory.set_client_enabled("acme", false).await.unwrap(), "there is none");
    let now = postgres.source().lookup(digest("key1")).await.unwrap();
    assert_eq!(now.revision, 4);
    assert!(!now.found.unwrap().key.key.enabled);
}

/// Asks until there is an answer: pauses of the breaker and slow starts pass.
async fn until_found(source: &Arc<impl Source>, digest: Digest) {
    loop {
        match source.lookup(digest).await {
            Ok(lookup) => return assert!(lookup.found.is_some_and(|f| f.key.key.digest == digest)),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
