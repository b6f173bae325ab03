//! `gatepost usage`: of all time it says what the views say, also of hours that are no more.

use std::time::Duration;

use gatepost::clock::{Clock, SystemClock};
use gatepost::journal::Config;
use gatepost::model::Timestamp;
use gatepost::model::fact::{Counter, Counts, Lane, UsageFact};
use gatepost::model::units::Size;
use gatepost::postgres::sink::Batch;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::database::Database;
use crate::support::gateway::{Gateway, until};
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
