//! Quotas of the real program: exact through restarts, kills and outages, and among gateways.

use std::sync::Arc;

use axum::http::Method;
use gatepost::cache::Source;
use gatepost::clock::{Clock, ManualClock, SystemClock};
use gatepost::entropy::{Entropy, SeededEntropy};
use gatepost::journal::Reader;
use gatepost::model::Timestamp;
use serde_json::json;
use sqlx::Executor;
use tempfile::TempDir;

use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::dice::long;
use crate::support::gateway::{Gateway, Made, until};
use crate::support::in_process::{self, drain};
use crate::support::postgres::{at, quota};

const QUICK: &str = "[postgres]\npoll_interval = \"200ms\"\nconnect_timeout = \"500ms\"\n";

/// A quota for a year, so that no test runs over its end; an answered request is on disk.
fn yearly(limit: u64) -> String {
    format!(
        "{QUICK}[drain]\ninterval = \"100ms\"\ndeadline = \"2s\"\n[[policies]]\nname = \
            \"default\"\n\
         commit = \"before_reply\"\n\
         quotas = [{{ name = \"yearly\", limit = {limit}, period = \"year\" }}]\n"
    )
}

/// So many requests pass, of so many.
async fn pass(gateway: &Gateway, key: &Made, times: u64) -> u64 {
    let mut passed = 0;
    for _ in 0..times {
        let answer = gateway.http().decided(&key.key).await.expect("an answer");
        match answer.status {
            200 => passed += 1,
            429 => assert_eq!(answer.code(), "quota_exceeded"),
            _ => panic!("{answer:?}: {}", gateway.said()),
        }
    }
    passed
}

async fn used(db: &Database) -> i64 {
    db.number("SELECT coalesce(sum(used), 0)::bigint FROM gatepost.quota_usage").await
}

async fn made(gateway: &mut Gateway) -> Made {
    gateway.start_ready().await;
    gateway.create_client("acme").await;
    let key = gateway.create_key("acme").await;
    gateway.drain().await;
    key
}

#[tokio::test]
async fn a_half_used_quota_is_neither_more_nor_less_after_kill_9_with_postgres_away() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    let mut gateway = Gateway::new(Some(&db.url), &yearly(10));
    let key = made(&mut gateway).await;
    assert_eq!(pass(&gateway, &key, 4).await, 4);
    gateway.drain().await;
    assert_eq!(used(&db).await, 4);
    cluster.stop();
    assert_eq!(pass(&gateway, &key, 2).await, 2);
    gateway.kill9();
    gateway.start().await;
    assert_eq!(pass(&gateway, &key, 3).await, 3);
    gateway.kill9();
    gateway.start().await;
    assert_eq!(pass(&gateway, &key, 5).await, 1, "the rest of it");
    let refused = gateway.http().authorize(&key.key).await.unwrap();
    assert!(refused.body.contains("`yearly`"), "{}", refused.body);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(wait <= 366 * 24 * 3600);
    assert!(refused.header("ratelimit").unwrap().starts_with("\"yearly\";r=0;t="));
    let shown = gateway.run(&["usage", "--client", "acme", "--period", "month"]).await.json();
    let quota = &shown[0]["quotas"][0];
    assert_eq!((&quota["quota"], &quota["limit"]), (&json!("yearly"), &json!(10)));
    assert_eq!(
        (&quota["used"], &quota["remaining"]),
        (&json!(10), &json!(0)),
        "unsettled included"
    );
    cluster.start();
    gateway.drain().await;
    assert_eq!(used(&db).await, 10, "denied requests are not charged, and none twice");
}

/// Whatever happens in between, as many pass as the quota has: none more, none less.
#[tokio::test]
async fn however_often_it_is_killed_the_quota_is_exact() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    let limit = 120;
    let mut gateway = Gateway::new(Some(&db.url), &yearly(limit));
    let key = made(&mut gateway).await;
    let dice = SeededEntropy::new(std::env::var("GATEPOST_SEED").map_or(5, |s| s.parse().unwrap()));
    let roll = |sides: u8| {
        let mut byte = [0];
        dice.fill(&mut byte);
        u64::from(byte[0] % sides)
    };
    let (mut passed, mut away) = (0, false);
    for _ in 0..if long() { 60 } else { 14 } {
        passed += pass(&gateway, &key, roll(12)).await;
        if roll(3) == 0 {
            if away {
                cluster.start();
            } else {
                cluster.stop();
            }
            away = !away;
        }
        if !away && roll(2) == 0 {
            gateway.drain().await;
        }
        if roll(2) == 0 {
            gateway.kill9();
        } else {
            gateway.terminate().await;
        }
        gateway.start().await;
    }
    passed += pass(&gateway, &key, limit + 5).await;
    assert_eq!(passed, limit);
    if away {
        cluster.start();
    }
    gateway.drain().await;
    assert_eq!(used(&db).await, i64::try_from(limit).unwrap());
    assert_eq!(pass(&gateway, &key, 3).await, 0);
}

#[tokio::test]
async fn with_an_emptied_cache_nothing_is_decided_before_postgres_has_told_what_was_used() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    let mut gateway = Gateway::new(Some(&db.url), &yearly(6));
    let key = made(&mut gateway).await;
    assert_eq!(pass(&gateway, &key, 4).await, 4);
    gateway.drain().await;
    gateway.terminate().await;
    std::fs::remove_dir_all(gateway.data_dir().join("cache")).unwrap();
    let mut conn = db.connect().await;
    let lock = "BEGIN; LOCK TABLE gatepost.quota_totals IN ACCESS EXCLUSIVE MODE";
    conn.execute(sqlx::raw_sql(lock)).await.unwrap();
    gateway.start_ready().await;
    // The key is known, and what was used is not.
    let unknown = (503, "api_key_policy_unavailable".to_owned());
    for _ in 0..20 {
        assert_eq!(gateway.http().verdict(&key.key).await, unknown);
    }
    conn.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
    until("what was used is read", || async { gateway.http().verdict(&key.key).await.0 == 200 })
        .await;
    assert_eq!(pass(&gateway, &key, 5).await, 1, "four before, one just now");
    gateway.drain().await;
    assert_eq!(used(&db).await, 6);
}

#[tokio::test]
async fn embedded_it_holds_through_kills_and_drains_once_there_is_a_postgres() {
    let mut gateway = Gateway::new(
        None,
        &format!("{}[[clients]]\nname = \"acme\"\n", yearly(25)).replace(QUICK, ""),
    );
    gateway.start().await;
    let key = gateway.create_key("acme").await;
    let mut passed = 0;
    for _ in 0..7 {
        passed += pass(&gateway, &key, 3).await;
        gateway.kill9();
        gateway.start().await;
    }
    assert_eq!(passed, 21);
    gateway.terminate().await;
    let local = gateway.run(&["usage", "--client", "acme"]).await.json();
    assert_eq!(local[0]["quotas"][0]["used"], 21, "without a gateway, from the disk");
    let db = Database::new().await;
    gateway.attach(&db.url);
    gateway.start_ready().await;
    gateway.drain().await;
    assert_eq!(used(&db).await, 21);
    until("bases are read", || async { gateway.http().verdict(&key.key).await.0 == 200 }).await;
    assert_eq!(pass(&gateway, &key, 9).await, 3);
    gateway.drain().await;
    assert_eq!(used(&db).await, 25);
}

#[tokio::test]
async fn gateways_learn_of_each_other_what_was_used() {
    let db = Database::new().await;
    let mut one = Gateway::new(Some(&db.url), &yearly(20));
    let key = made(&mut one).await;
    let mut other = Gateway::new(Some(&db.url), &yearly(20));
    other.start_ready().await;
    assert_eq!(pass(&one, &key, 8).await, 8);
    one.drain().await;
    assert_eq!(pass(&other, &key, 1).await, 1);
    other.drain().await;
    // Its own drain told it of the eight.
    let shown = other.control(Method::GET, "/usage?client=acme", "").await.unwrap().json();
    assert_eq!(shown[0]["quotas"][0]["used"], 9);
    assert_eq!(pass(&other, &key, 20).await, 11);
    other.drain().await;
    assert_eq!(used(&db).await, 20);
}

#[tokio::test]
async fn a_key_has_a_quota_of_its_own_and_observing_charges_nothing_beyond() {
    let mut gateway = Gateway::new(
        None,
        "[[clients]]\nname = \"acme\"\n[[policies]]\nname = \"default\"\nmode = \"observe\"\n\
         quotas = [{ name = \"own\", limit = 2, period = \"year\", per = \"key\" },\n\
                   { name = \"all\", limit = 3, period = \"year\", timezone = \"Europe/Berlin\" \
                   }]\n",
    );
    gateway.start().await;
    let (key, other) = (gateway.create_key("acme").await, gateway.create_key("acme").await);
    let mut would = Vec::new();
    for key in [&key, &key, &key, &other, &other] {
        let answer = gateway.http().authorize(&key.key).await.unwrap();
        assert_eq!(answer.status, 200, "it observes");
        would.push(answer.header("x-gatepost-would-deny").map(str::to_owned));
    }
    let [own, all] = ["own", "all"].map(|limit| Some(format!("quota_exceeded; limit=\"{limit}\"")));
    assert_eq!(would, [None, None, own, None, all]);
    let shown = gateway.run(&["usage", "--client", "acme"]).await.json();
    let quotas = shown[0]["quotas"].as_array().unwrap();
    let used = |of: &str| quotas.iter().find(|quota| quota["of"] == of).unwrap()["used"].clone();
    assert_eq!([used("acme"), used(&key.id), used(&other.id)], [3, 2, 1]);
}

/// A clock that says 2100, also at a start and while Postgres answers, takes no used-up quota off
/// the disk, nor keeps one from being read.
#[tokio::test]
async fn a_clock_in_2100_for_a_while_forgets_nothing() {
    let db = Database::new().await;
    let clock = Arc::new(ManualClock::new(SystemClock::new().now()));
    let (right, in_2100) = (clock.now(), Timestamp(4_102_444_800_000_000));
    let open = |data: TempDir| {
        let source: Arc<dyn Source> = at(&db.url).source();
        let (by, config) = (clock.clone(), in_process::config());
        in_process::Gateway::by(by, Reader::InProcess, data, &db.url, Some(source), config)
    };
    let gateway = open(TempDir::new().unwrap());
    let fact = quota("acme", 10);
    let room = gateway.journal.reserve().unwrap();
    gateway.journal.use_quota(room, fact.key.clone(), 10).durable().await.unwrap();
    drain(&gateway).await;
    let used = |gateway: &in_process::Gateway| {
        gateway.cache.quota_base(&fact.key).unwrap().map(|base| base.own)
    };
    assert_eq!(used(&gateway), Some(10));
    let mut data = gateway.shut_down().await;
    for emptied in [false, true] {
        if emptied {
            std::fs::remove_dir_all(data.path().join("cache")).unwrap();
        }
        clock.set(in_2100);
        let gateway = open(data);
        drain(&gateway).await;
        assert!(gateway.cache.quota_bases_known());
        assert_eq!(used(&gateway), Some(10), "in 2100");
        data = gateway.shut_down().await;
        clock.set(right);
        let gateway = open(data);
        assert_eq!(used(&gateway), Some(10), "and back");
        data = gateway.shut_down().await;
    }
}
