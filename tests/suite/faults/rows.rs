//! Rows that are not as they should be: of clocks that went back, and without a place.

use std::time::Duration;

use gatepost::model::Timestamp;
use gatepost::model::fact::Lane;
use gatepost::postgres::sink::{Batch, StreamRange};

use crate::support::database::Database;
use crate::support::postgres::{id, range, sink, usage};

const TOTAL: &str =
    "SELECT coalesce(sum(total_requests), 0)::bigint FROM gatepost.client_statistics";
const HOURLY: &str = "SELECT coalesce(sum(requests), 0)::bigint FROM gatepost.usage_hourly";
const SEEN: &str =
    "SELECT (extract(epoch FROM last_seen_at) * 1000000)::bigint FROM gatepost.client_statistics";

fn ranges(from: u64) -> Vec<StreamRange> {
    vec![range(id(1), Lane::Usage, from, from + 1)]
}

#[tokio::test]
async fn a_clock_that_went_back_takes_nothing_back() {
    let db = Database::new().await;
    let mut sink = sink(&db.url, "gw-1");
    let mut fact = usage("acme", 1, "orders", 1);
    let seen = fact.counts.last_seen;
    sink.apply(&Batch { ranges: ranges(0), usage: vec![fact.clone()], ..Batch::default() })
        .await
        .unwrap();
    // An hour back, and its hours with it: in a batch of its own, and in one with both.
    let mut before = fact.clone();
    before.counts.last_seen = Timestamp(seen.0 - 3_600_000_000);
    before.counter.hour -= 1;
    for (from, usage) in [(1, vec![before.clone()]), (2, vec![fact.clone(), before])] {
        sink.apply(&Batch { ranges: ranges(from), usage, ..Batch::default() }).await.unwrap();
        assert_eq!(db.number(SEEN).await, seen.0);
    }
    fact.counts.last_seen = seen.plus(Duration::from_secs(1));
    sink.apply(&Batch { ranges: ranges(3), usage: vec![fact], ..Batch::default() }).await.unwrap();
    assert_eq!(db.number(SEEN).await, seen.0 + 1_000_000);
    assert_eq!((db.number(TOTAL).await, db.number(HOURLY).await), (5, 5));
    assert_eq!(db.number("SELECT count(*) FROM gatepost.usage_hourly").await, 2);
}

/// Whoever keeps partitions himself may forget one.
#[tokio::test]
async fn a_row_without_a_partition_is_a_letter_and_all_others_count_once() {
    let db = Database::new().await;
    db.execute(
        "DROP TABLE gatepost.hourly_totals_default; \
         CREATE TABLE gatepost.hourly_totals_then PARTITION OF gatepost.hourly_totals \
           FOR VALUES FROM ('2023-11-01') TO ('2023-12-01')",
    )
    .await;
    let mut lost = usage("acme", 2, "orders", 10);
    lost.counter.hour -= 365 * 24;
    let usage = vec![usage("acme", 1, "orders", 1), lost, usage("acme", 3, "items", 2)];
    let applied = sink(&db.url, "gw-1")
        .apply(&Batch { ranges: ranges(0), usage, ..Batch::default() })
        .await
        .unwrap();
    let reasons: Vec<&str> = applied.refused.iter().map(|one| &*one.reason).collect();
    assert!(reasons.len() == 1 && reasons[0].contains("no partition"), "{reasons:?}");
    assert_eq!((db.number(TOTAL).await, db.number(HOURLY).await), (3, 3));
    assert_eq!(db.number("SELECT count(*) FROM gatepost.dead_letters").await, 1);
}
