//! Postgres is stopped, frozen or locked; the gateway is killed.

use std::time::Duration;

use gatepost::clock::{Clock, SystemClock};
use gatepost::model::Timestamp;

use super::*;

/// Refreshes so often; returns the last pair.
async fn refreshed(gateway: &Gateway, pair: &Pair, times: usize) -> Pair {
    let mut pair = pair.clone();
    for _ in 0..times {
        pair = refresh(gateway, &pair.refresh).await.expect("it is known here");
    }
    pair
}

/// What a user is promised of an outage, between `leave` and `come_back`.
async fn goes_on(db: &Database, url: &str, leave: &dyn Fn(), come_back: &dyn Fn()) {
    let mut gateway = Gateway::new(Some(url), &format!("{QUICK}[drain]\ndeadline = \"2s\"\n"));
    gateway.start_ready().await;
    gateway.create_client("web").await;
    let (kept, kept_pair) = begin(&gateway, "alice").await;
    let (ended, ended_pair) = begin(&gateway, "alice").await;
    let (_, mallory) = begin(&gateway, "mallory").await;
    let stolen = refreshed(&gateway, &kept_pair, 2).await;
    gateway.drain().await;
    assert_eq!(row(db, &kept).await, Some((2, false)));

    leave();
    let pair = refreshed(&gateway, &stolen, 3).await;
    let (born, born_pair) = begin(&gateway, "bob").await;
    let born_pair = refreshed(&gateway, &born_pair, 1).await;
    assert_eq!(gateway.http().verdict(&ended_pair.access).await.0, 200);
    revoke(&gateway, &format!("/sessions/{ended}/revoke"), "").await;
    revoke(&gateway, "/sessions/revoke", r#"{"subject": "mallory"}"#).await;
    for token in [&ended_pair, &mallory] {
        assert_eq!(gateway.http().verdict(&token.access).await.0, 401, "at once");
        assert_eq!(refresh(&gateway, &token.refresh).await, refused());
    }

    gateway.kill9();
    gateway.start().await;
    for token in [&ended_pair, &mallory] {
        assert_eq!(gateway.http().verdict(&token.access).await.0, 401, "through a restart");
        assert_eq!(refresh(&gateway, &token.refresh).await, refused());
    }
    assert_eq!(gateway.http().verdict(&born_pair.access).await.0, 200);
    let pair = refreshed(&gateway, &pair, 1).await;
    refreshed(&gateway, &born_pair, 1).await;

    come_back();
    for (id, row_) in [(&kept, (6, false)), (&ended, (0, true)), (&born, (2, false))] {
        until("it has landed", || async { row(db, id).await == Some(row_) }).await;
    }
    until("nothing is left", || async {
        let sql = "SELECT count(*) FROM gatepost.revocations WHERE kind = 'subject'";
        db.number(sql).await == 1
    })
    .await;
    assert_eq!(refresh(&gateway, &stolen.refresh).await, refused(), "consumed long ago");
    assert_eq!(refresh(&gateway, &pair.refresh).await, refused(), "and that revokes");
    until("that has landed, too", || async { row(db, &kept).await == Some((6, true)) }).await;
    gateway.terminate().await;
}

#[tokio::test]
async fn refresh_goes_on_while_postgres_is_stopped() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    goes_on(&db, &db.url, &|| cluster.stop(), &|| cluster.start()).await;
}

#[tokio::test]
async fn refresh_goes_on_while_postgres_is_frozen() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    goes_on(&db, &db.url, &|| cluster.freeze(), &|| cluster.thaw()).await;
}

#[tokio::test]
async fn refresh_goes_on_while_a_migration_locks_the_table() {
    let db = Database::new().await;
    let mut gateway = Gateway::new(Some(&db.url), QUICK);
    gateway.start_ready().await;
    gateway.create_client("web").await;
    let (id, pair) = begin(&gateway, "alice").await;
    gateway.drain().await;

    let mut conn = db.connect().await;
    let lock = "BEGIN; LOCK TABLE gatepost.sessions IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut conn).await.unwrap();
    let pair = refreshed(&gateway, &pair, 5).await;
    let (_, other) = begin(&gateway, "bob").await;
    refreshed(&gateway, &other, 1).await;
    revoke(&gateway, "/sessions/revoke", r#"{"subject": "bob"}"#).await;
    assert_eq!(refresh(&gateway, &other.refresh).await, refused());
    sqlx::raw_sql("ROLLBACK").execute(&mut conn).await.unwrap();

    until("it has landed", || async { row(&db, &id).await == Some((5, false)) }).await;
    refreshed(&gateway, &pair, 1).await;
    gateway.terminate().await;
}

/// What the gateway wrote down of itself: up to when graces have run out.
fn run_out(gateway: &Gateway) -> Timestamp {
    let kept = std::fs::read_to_string(gateway.data_dir().join("session-grace"));
    Timestamp(kept.map_or(i64::MIN, |kept| kept.trim().parse().unwrap()))
}

#[tokio::test]
async fn no_restart_opens_a_grace_that_was_over() {
    const GRACE: Duration = Duration::from_secs(1);
    let now = || SystemClock::new().now();
    let mut gateway = Gateway::new(None, "[tokens]\ngrace = \"1s\"\n");
    gateway.start().await;
    gateway.create_client("web").await;
    let (_, first) = begin(&gateway, "alice").await;
    let second = refresh(&gateway, &first.refresh).await.expect("current");
    let over = now().plus(GRACE);
    until("it is over", || async { run_out(&gateway) > over }).await;
    gateway.kill9();
    gateway.start().await;
    assert_eq!(refresh(&gateway, &first.refresh).await, refused());
    assert_eq!(refresh(&gateway, &second.refresh).await, refused(), "and that revokes");

    let started = now();
    until("this life writes", || async { run_out(&gateway) > started }).await;
    let (_, pair) = begin(&gateway, "alice").await;
    refreshed(&gateway, &pair, 1).await;
    let last = now();
    gateway.terminate().await;
    assert!(run_out(&gateway) > last, "an orderly end is written down");

    // An event says why the one was revoked.
    let db = Database::new().await;
    gateway.attach(&db.url);
    gateway.start_ready().await;
    gateway.drain().await;
    let told = "SELECT count(*) FROM gatepost.audit_log WHERE action = 'session.revoke.reuse'";
    until("an event says why", || async { db.number(told).await == 1 }).await;
}

/// Refreshed until it is killed at any moment. What was answered holds, and what was
/// not is either so or not; in both cases the client goes on with a token it has.
#[tokio::test]
async fn a_kill_at_any_moment_loses_no_answer_and_revives_no_token() {
    const ROUNDS: u64 = 12;
    let mut gateway = Gateway::new(None, "");
    gateway.start().await;
    gateway.create_client("web").await;
    for round in 0..ROUNDS {
        let (_, mut pair) = begin(&gateway, "alice").await;
        let mut before = None;
        let refreshing = async {
            // The last is asked for, and the answer never comes.
            while let Some(answer) = try_refresh(&gateway, &pair.refresh).await {
                before = Some(std::mem::replace(&mut pair, answer.expect("current")));
            }
        };
        let moment = Duration::from_millis(7 * round);
        drop(tokio::time::timeout(moment, refreshing).await);
        gateway.kill9();
        gateway.start().await;
        // Downtime is no reason to revoke: a lost answer is given again, grace or not.
        let next = refresh(&gateway, &pair.refresh).await.expect("the last that was answered");
        if let Some(before) = before {
            assert_eq!(refresh(&gateway, &before.refresh).await, refused(), "dead for good");
            assert_eq!(refresh(&gateway, &next.refresh).await, refused(), "a thief had it");
        }
    }
    gateway.terminate().await;
}
