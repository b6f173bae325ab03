//! Disks and histories that are lost: the data directory, Postgres, both to an older state.

use super::*;

/// Names and secrets that survive the disk.
async fn settings(gateway_settings: &str) -> String {
    let maker = Gateway::new(None, "");
    let keys = maker.run(&["token", "keys", "generate"]).await;
    assert_eq!(keys.code, Some(0), "{}", keys.stderr);
    // (The harness has `[data]` before the settings.)
    format!("node = \"gw-1\"\n{QUICK}{gateway_settings}\0{}", keys.stdout)
}

fn gateway(db: &Database, settings: &str) -> Gateway {
    let (settings, keys) = settings.split_once('\0').expect("made above");
    let mut gateway = Gateway::new(Some(&db.url), settings);
    std::fs::write(gateway.dir().join("keys.json"), keys).expect("a file");
    gateway.set("GATEPOST_TOKEN_KEYS_FILE", "keys.json");
    gateway
}

#[tokio::test]
async fn sessions_come_back_from_postgres_after_a_lost_disk() {
    let db = Database::new().await;
    let settings = settings("").await;
    let mut gateway = gateway(&db, &settings);
    gateway.start_ready().await;
    gateway.create_client("web").await;
    let (known, pair) = begin(&gateway, "alice").await;
    let (_, ended) = begin(&gateway, "bob").await;
    revoke(&gateway, "/sessions/revoke", r#"{"subject": "bob"}"#).await;
    let pair = refresh(&gateway, &pair.refresh).await.expect("current");
    gateway.drain().await;
    gateway.kill9();
    std::fs::remove_dir_all(gateway.data_dir()).expect("the disk is lost");

    gateway.start_ready().await;
    let pair = refresh(&gateway, &pair.refresh).await.expect("it came back");
    assert_eq!(gateway.http().verdict(&pair.access).await.0, 200);
    assert_eq!(refresh(&gateway, &ended.refresh).await, refused());
    until("the walk has brought them all", || async {
        let list = gateway.control(Method::GET, "/sessions", "").await.unwrap().json();
        list.as_array().unwrap().len() == 2
    })
    .await;
    gateway.drain().await;
    assert_eq!(row(&db, &known).await, Some((2, false)));
    gateway.terminate().await;
}

/// Its answer was lost, and so was the disk, an hour ago: grace begins when it can be answered.
#[tokio::test]
async fn a_client_that_only_retries_is_not_logged_out_by_a_lost_disk() {
    let db = Database::new().await;
    let settings = settings("").await;
    let mut gateway = gateway(&db, &settings);
    gateway.start_ready().await;
    gateway.create_client("web").await;
    let (id, first) = begin(&gateway, "alice").await;
    let lost = refresh(&gateway, &first.refresh).await.expect("current");
    gateway.drain().await;
    gateway.kill9();
    std::fs::remove_dir_all(gateway.data_dir()).expect("the disk is lost");
    db.execute("UPDATE gatepost.sessions SET advanced_at = advanced_at - interval '1 hour'").await;

    gateway.start_ready().await;
    let again = refresh(&gateway, &first.refresh).await.expect("it only retries");
    assert_eq!(again.refresh, lost.refresh);
    let next = refresh(&gateway, &again.refresh).await.expect("current");
    assert_eq!(refresh(&gateway, &first.refresh).await, refused(), "consumed all the same");
    assert_eq!(refresh(&gateway, &next.refresh).await, refused());
    gateway.drain().await;
    assert_eq!(row(&db, &id).await, Some((2, true)));
    gateway.terminate().await;
}

#[tokio::test]
async fn newer_tokens_than_postgres_knows_are_taken_once_in_a_recovery_window() {
    let db = Database::new().await;
    // Nothing drains unless it is asked for.
    let settings = settings("[drain]\ninterval = \"1h\"\n").await;
    let mut gateway = gateway(&db, &settings);
    gateway.start_ready().await;
    gateway.create_client("web").await;
    let (_, first) = begin(&gateway, "alice").await;
    let (_, other) = begin(&gateway, "bob").await;
    gateway.drain().await;
    let second = refresh(&gateway, &first.refresh).await.expect("current");
    let third = refresh(&gateway, &second.refresh).await.expect("current");
    let bobs = refresh(&gateway, &other.refresh).await.expect("current");
    gateway.kill9();
    std::fs::remove_dir_all(gateway.data_dir()).expect("the disk is lost");

    gateway.start_ready().await;
    let unknown = refresh(&gateway, &third.refresh).await.expect_err("from beyond");
    assert_eq!(unknown, (503, "session_validation_unavailable".into()));
    let open = gateway.run(&["session", "recover", "--for", "1h"]).await;
    assert!(open.json()["until"].is_string());
    let status = gateway.control(Method::GET, "/status", "").await.unwrap().json();
    assert_eq!(status["sessions"]["recovery_until"], open.json()["until"]);
    assert_eq!(status["sessions"]["beyond"], 1);

    let fourth = refresh(&gateway, &third.refresh).await.expect("on its proof");
    let fifth = refresh(&gateway, &fourth.refresh).await.expect("current");
    assert_eq!(refresh(&gateway, &second.refresh).await, refused(), "behind it all are consumed");
    assert_eq!(refresh(&gateway, &fifth.refresh).await, refused());
    // Closed again: nobody can say.
    gateway.run(&["session", "recover", "--for", "0s"]).await.json();
    assert_eq!(refresh(&gateway, &bobs.refresh).await.expect_err("from beyond").0, 503);
    let status = gateway.control(Method::GET, "/status", "").await.unwrap().json();
    assert_eq!(status["sessions"]["recovery_until"], serde_json::Value::Null);
    assert_eq!(status["sessions"]["recovered"], 1);
    gateway.terminate().await;
}

/// Schedule 6: Postgres restored to before some generations and a revocation.
#[tokio::test]
async fn what_a_restored_postgres_lacks_stands_here_and_is_sent_again() {
    let db = Database::new().await;
    let mut gateway = Gateway::new(Some(&db.url), QUICK);
    gateway.start_ready().await;
    gateway.create_client("web").await;
    let (kept, pair) = begin(&gateway, "alice").await;
    let (ended, ended_pair) = begin(&gateway, "bob").await;
    gateway.drain().await;
    db.execute(
        "CREATE TABLE s AS TABLE gatepost.sessions; \
         CREATE TABLE l AS TABLE gatepost.stream_ledger; \
         CREATE TABLE c AS TABLE gatepost.change_log; \
         CREATE TABLE n AS TABLE gatepost.change_counter",
    )
    .await;
    let pair = refresh(&gateway, &pair.refresh).await.expect("current");
    let pair = refresh(&gateway, &pair.refresh).await.expect("current");
    revoke(&gateway, &format!("/sessions/{ended}/revoke"), "").await;
    let (late, late_pair) = begin(&gateway, "carol").await;
    // Something that takes the counter, so that its history is another one afterwards.
    gateway.create_client("later").await;
    gateway.drain().await;
    assert_eq!(row(&db, &kept).await, Some((2, false)));
    until("the feed has seen it", || async {
        let status = gateway.control(Method::GET, "/status", "").await.unwrap().json();
        let revision = db.number("SELECT revision FROM gatepost.change_counter").await;
        status["cache"]["revision"] == revision
    })
    .await;
    db.execute(
        "TRUNCATE gatepost.sessions; INSERT INTO gatepost.sessions SELECT * FROM s; \
         DELETE FROM gatepost.stream_ledger; INSERT INTO gatepost.stream_ledger SELECT * FROM l; \
         DELETE FROM gatepost.change_log; INSERT INTO gatepost.change_log SELECT * FROM c; \
         DELETE FROM gatepost.change_counter; INSERT INTO gatepost.change_counter SELECT * FROM n",
    )
    .await;
    assert_eq!(row(&db, &kept).await, Some((0, false)));
    assert_eq!(refresh(&gateway, &ended_pair.refresh).await, refused(), "it stands meanwhile");
    for (id, row_) in [(&kept, (2, false)), (&ended, (0, true)), (&late, (0, false))] {
        until("it is sent again", || async { row(&db, id).await == Some(row_) }).await;
    }
    refresh(&gateway, &pair.refresh).await.expect("current");
    refresh(&gateway, &late_pair.refresh).await.expect("current");
    gateway.terminate().await;
}

#[tokio::test]
async fn a_session_is_refreshed_by_the_gateway_that_made_it() {
    let db = Database::new().await;
    let settings = settings("").await;
    let mut home = gateway(&db, &settings);
    let mut other = gateway(&db, &settings.replace("gw-1", "gw-2"));
    home.start_ready().await;
    other.start_ready().await;
    home.create_client("web").await;
    let (id, pair) = begin(&home, "alice").await;
    home.drain().await;
    until("the other knows it", || async {
        refresh(&other, &pair.refresh).await == Err((503, "session_elsewhere".into()))
    })
    .await;
    until("its access tokens are good there", || async {
        other.http().verdict(&pair.access).await.0 == 200
    })
    .await;
    let answer = other.control(Method::POST, &format!("/sessions/{id}/revoke"), "").await.unwrap();
    assert_eq!((answer.status, answer.code()), (503, "session_elsewhere".into()));
    assert!(answer.body.contains("gw-1"), "{}", answer.body);
    // Logging out everywhere reaches every gateway.
    revoke(&home, "/sessions/revoke", r#"{"subject": "alice"}"#).await;
    until("it is over there, too", || async { other.http().verdict(&pair.access).await.0 == 401 })
        .await;
    home.terminate().await;
    other.terminate().await;
}
