//! `gatepost usage`: of all time it says what the views say, also of hours that are no more; and
//! how quotas stand.

use std::time::Duration;

use axum::http::Method;
use gatepost::clock::{Clock, SystemClock};
use gatepost::journal::Config;
use gatepost::model::Timestamp;
use gatepost::model::fact::{Counter, Counts, Lane, UsageFact};
use gatepost::model::units::Size;
use gatepost::postgres::sink::Batch;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::gateway::{Gateway, Made, until};
use crate::support::in_process::{self, config};
use crate::support::journal::move_to;
use crate::support::postgres::{at, id, range, sink, usage};

/// As the view says it, in the order of the report.
const VIEW: &str =
    "SELECT total_requests FROM gatepost.client_statistics WHERE client_name = 'acme'";

fn counted(hour: i64, requests: u64) -> UsageFact {
    let UsageFact { counter, counts } = usage("acme", 1, "orders", requests);
    let bytes = Counts { bytes_in: 10 * requests, duration_us: 7, ..counts };
    UsageFact { counter: Counter { hour, ..counter }, counts: bytes }
}

#[tokio::test]
async fn totals_of_all_time_outlive_their_hours_and_those_of_a_period_do_not_hold_them() {
    let db = Database::new().await;
    let batch = Batch {
        ranges: vec![range(id(1), Lane::Usage, 0, 1)],
        usage: vec![
            counted(Counter::NO_HOUR, 5),
            counted(472_222, 3),
            counted(472_223, 1),
            usage("other", 2, "orders", 9),
        ],
        ..Batch::default()
    };
    sink(&db.url, "gw-1").apply(&batch).await.unwrap();
    let directory = at(&db.url).directory();
    let since = Some(Timestamp::from_hour(472_223));
    for (since, expected) in [(None, (9, 40)), (since, (1, 10))] {
        let report = directory.usage(Some("acme"), since, &[]).await.unwrap();
        let [(client, counts)] = &report.rows[..] else { panic!("{report:?}") };
        assert_eq!((&**client, counts.requests, counts.bytes_in), ("acme", expected.0, expected.1));
        assert_eq!(counts.last_seen, Timestamp(1_700_000_000_000_000));
    }
    let all = directory.usage(None, None, &[]).await.unwrap().rows;
    let all: Vec<_> = all.iter().map(|(client, counts)| (&**client, counts.requests)).collect();
    assert_eq!(all, [("acme", 9), ("other", 9)]);
    // A partition is dropped.
    db.execute("DELETE FROM gatepost.hourly_totals").await;
    let report = directory.usage(Some("acme"), None, &[]).await.unwrap();
    assert_eq!(report.rows[0].1.requests as i64, db.number(VIEW).await);
    assert_eq!(directory.usage(None, since, &[]).await.unwrap().rows.len(), 0);
}

/// Four segments that earlier processes left, of hours that are long over.
async fn years_ago(requests: u64) -> TempDir {
    let config = Config { segment_max_bytes: Size(1), ..config() };
    // Nothing is sent: it is never asked to drain.
    let url = "postgres://nobody@127.0.0.1:1/none";
    let gateway = in_process::Gateway::with(TempDir::new().unwrap(), url, None, config);
    for part in 0..4 {
        let fact = counted(472_222 + part, requests / 4);
        let room = gateway.journal.reserve().unwrap();
        let ticket = gateway.journal.count(room, fact.counter, fact.counts);
        ticket.durable().await.unwrap();
        gateway.journal.flush().durable().await.unwrap();
    }
    gateway.shut_down().await
}

async fn told(gateway: &Gateway, period: &str) -> Value {
    let rows = gateway.run(&["usage", "--client", "acme", "--period", period]).await.json();
    rows[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_folded_without_postgres_is_told_before_and_after_it_has_settled() {
    let mut gateway = Gateway::new(None, "");
    move_to(years_ago(400).await, &gateway.data_dir());
    // Nobody has set its clock for two days: what is over by it may be folded.
    let now = SystemClock::new().now();
    let believed = format!("{} {}", now.0, now.minus(Duration::from_secs(2 * 24 * 3600)).0);
    std::fs::write(gateway.data_dir().join("calendar"), believed).unwrap();
    gateway.start().await;
    gateway.create_client("acme").await;
    let key = gateway.create_key("acme").await;
    for _ in 0..3 {
        assert_eq!(gateway.http().authorize(&key.key).await.unwrap().status, 200);
    }
    let usage = gateway.data_dir().join("journal/usage");
    until("a merge", async || std::fs::read_dir(&usage).unwrap().count() <= 2).await;
    let embedded = told(&gateway, "all").await;
    assert_eq!(
        (&embedded["unsettled"]["requests"], &embedded["sum"]["requests"]),
        (&403.into(), &403.into())
    );
    assert_eq!(told(&gateway, "day").await["sum"]["requests"], 3);
    gateway.terminate().await;

    let db = Database::new().await;
    gateway.attach(&db.url);
    gateway.start_ready().await;
    gateway.drain().await;
    let hours = "SELECT sum(requests)::bigint FROM gatepost.usage_hourly";
    assert_eq!(db.number(hours).await, 3, "the others belong to no hour any more");
    let settled = told(&gateway, "all").await;
    assert_eq!(settled["settled"]["requests"].as_i64(), Some(db.number(VIEW).await));
    assert_eq!(settled["sum"]["requests"], 403);
    assert_eq!(settled["sum"]["last_seen"], embedded["sum"]["last_seen"]);
    assert_eq!(told(&gateway, "day").await["sum"]["requests"], 3);
    gateway.terminate().await;
}

/// A month of a zone where none ends within the next hours.
fn month() -> &'static str {
    let hour = SystemClock::new().now().to_datetime().expect("a day").hour();
    if (6..18).contains(&hour) { "UTC" } else { "Etc/GMT+12" }
}

/// 1000 for a client, and 100 for each of its keys; what was answered is on disk.
fn monthly() -> String {
    let quota = |name: &str, limit: u64, per: &str| {
        let zone = month();
        format!(
            "{{ name = \"{name}\", limit = {limit}, period = \"month\", timezone = \"{zone}\", \
             per = \"{per}\" }}"
        )
    };
    format!(
        "[postgres]\npoll_interval = \"200ms\"\nconnect_timeout = \"500ms\"\n[drain]\n\
         interval = \"100ms\"\n[[policies]]\nname = \"default\"\ncommit = \"before_reply\"\n\
         quotas = [{}, {}]\n",
        quota("ours", 1000, "client"),
        quota("own", 100, "key")
    )
}

/// A request of so much weight: the limit that refuses it. Right after a start nobody may know yet.
async fn weighs(gateway: &Gateway, key: &Made, cost: u64) -> Option<String> {
    loop {
        let body = json!({ "key": key.key, "cost": cost }).to_string();
        let answer = gateway.http().ask(Method::POST, "/v1/keys/verify", &[], &body).await;
        let answer = answer.expect("an answer").json();
        if answer["code"] != "api_key_policy_unavailable" {
            return answer["limit"].as_str().map(str::to_owned);
        }
    }
}

/// Charged by what a request weighs, per client and per key, settled or not.
#[tokio::test]
async fn what_is_left_of_quotas_is_told_whether_it_has_settled_or_not() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    let mut gateway = Gateway::new(Some(&db.url), &monthly());
    gateway.start_ready().await;
    for client in ["acme", "other"] {
        gateway.create_client(client).await;
    }
    let (one, two) = (gateway.create_key("acme").await, gateway.create_key("acme").await);
    let stranger = gateway.create_key("other").await;
    gateway.drain().await;

    // Used and remaining: of the client, and of its two keys.
    let is_told = async |gateway: &Gateway, when: &str, known: bool, used: [u64; 3]| {
        let path = "/usage?client=acme&period=month";
        let told = gateway.control(Method::GET, path, "").await.expect("an answer").json();
        let run = gateway.run(&["usage", "--client", "acme", "--period", "month"]).await.json();
        assert_eq!(run[0]["quotas"], told[0]["quotas"], "{when}");
        assert_eq!((run.as_array().expect("a list").len(), &run[0]["client"]), (1, &json!("acme")));
        assert_eq!(run[0]["settled"].is_object(), known, "{when}: {run}");
        let quotas = run[0]["quotas"].as_array().expect("a list");
        assert_eq!(quotas.len(), 3, "{when}: {run}");
        let wanted = [("ours", "acme", 1000), ("own", &one.id, 100), ("own", &two.id, 100)];
        for ((name, of, limit), used) in wanted.into_iter().zip(used) {
            let found = quotas.iter().find(|quota| quota["of"] == of).expect("it is told");
            let numbers = ["quota", "used", "limit", "remaining"].map(|field| found[field].clone());
            assert_eq!(json!(numbers), json!([name, used, limit, limit - used]), "{when}: {of}");
        }
    };

    is_told(&gateway, "at first", true, [0, 0, 0]).await;
    assert_eq!(weighs(&gateway, &stranger, 5).await, None);
    assert_eq!(weighs(&gateway, &one, 30).await, None);
    assert_eq!(weighs(&gateway, &two, 7).await, None);
    assert_eq!(gateway.http().verdict(&one.key).await.0, 200);
    is_told(&gateway, "before the drain", true, [38, 31, 7]).await;
    gateway.drain().await;
    is_told(&gateway, "settled", true, [38, 31, 7]).await;
    cluster.stop();
    assert_eq!(weighs(&gateway, &one, 60).await, None);
    assert_eq!(weighs(&gateway, &two, 3).await, None);
    assert_eq!(weighs(&gateway, &one, 10).await.as_deref(), Some("own"), "9 are left");
    is_told(&gateway, "Postgres is away", false, [101, 91, 10]).await;
    gateway.kill9();
    gateway.start().await;
    assert_eq!(weighs(&gateway, &one, 9).await, None);
    is_told(&gateway, "killed, and it is still away", false, [110, 100, 10]).await;
    cluster.start();
    gateway.drain().await;
    is_told(&gateway, "all has settled", true, [110, 100, 10]).await;
    assert_eq!(weighs(&gateway, &one, 1).await.as_deref(), Some("own"), "nothing is left");
    let there = "SELECT coalesce(sum(used), 0)::bigint FROM gatepost.quota_usage";
    assert_eq!(db.number(there).await, 110 + 110 + 5 + 5, "each in both of its quotas");
}
