//! The drain transaction: exactly once, whatever happens to the connection.

use gatepost::model::Timestamp;
use gatepost::model::fact::{AuditEntry, Lane, StateFact};
use gatepost::postgres::sink::{Batch, Sink, SinkError, StreamRange};

use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::postgres::{client, id, key, range, revoked, sink, usage};

const TOTAL: &str =
    "SELECT coalesce(sum(total_requests), 0)::bigint FROM gatepost.client_statistics";
const COUNTER: &str = "SELECT revision FROM gatepost.change_counter";

fn counted(stream: u128, from: u64, to: u64, requests: u64) -> Batch {
    Batch {
        ranges: vec![range(id(stream), Lane::Usage, from, to)],
        usage: vec![usage("acme", 1, "orders", requests)],
        ..Batch::default()
    }
}

fn told(facts: Vec<StateFact>) -> Batch {
    let ranges = vec![range(id(9), Lane::State, 0, 1)];
    Batch { ranges, state: facts, ..Batch::default() }
}

#[tokio::test]
async fn two_drainers_of_one_range_count_it_once() {
    let db = Database::new().await;
    let batch = counted(1, 0, 4, 5);
    let (mut one, mut two) = (sink(&db.url, "gw-1"), sink(&db.url, "gw-1"));
    let (first, second) = tokio::join!(one.apply(&batch), two.apply(&batch));
    let lost = if first.is_ok() { second } else { first };
    assert!(matches!(lost, Err(SinkError::Moved)), "{lost:?}");
    assert_eq!(db.number(TOTAL).await, 5);
    let ledger = one.positions(&[id(1), id(2)]).await.unwrap();
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[&id(1)].last_seq, 4);
}

/// Retention counts from there: state is sent with every start, and moves nothing.
#[tokio::test]
async fn what_moves_nothing_does_not_begin_the_rest_of_a_stream_anew() {
    let db = Database::new().await;
    let mut sink = sink(&db.url, "gw-1");
    let hours = async |sink: &mut Sink| {
        let ledger = sink.positions(&[id(9)]).await.unwrap();
        ledger[&id(9)].rested.as_secs() / 3600
    };
    let mut batch = told(vec![revoked(id(1), Timestamp::NEG_INFINITY)]);
    sink.apply(&batch).await.unwrap();
    assert_eq!(hours(&mut sink).await, 0);
    db.execute("UPDATE gatepost.stream_ledger SET updated_at = now() - interval '2 hours'").await;
    sink.apply(&batch).await.unwrap();
    assert_eq!(hours(&mut sink).await, 2, "the same again");
    batch.ranges[0].closed = Some(1);
    sink.apply(&batch).await.unwrap();
    assert_eq!(hours(&mut sink).await, 2, "its end");
    batch.ranges[0] = range(id(9), Lane::State, 1, 2);
    sink.apply(&batch).await.unwrap();
    assert_eq!(hours(&mut sink).await, 0, "something new");
    db.execute("UPDATE gatepost.stream_ledger SET updated_at = now() + interval '2 hours'").await;
    assert_eq!(hours(&mut sink).await, 0, "Postgres' clock was set back");
}

#[tokio::test]
async fn a_batch_beyond_the_ledger_or_the_end_applies_nothing() {
    let db = Database::new().await;
    let mut sink = sink(&db.url, "gw-1");
    let mut first = counted(1, 0, 4, 5);
    first.ranges[0].closed = Some(6);
    sink.apply(&first).await.unwrap();
    for batch in [counted(1, 5, 6, 7), counted(1, 4, 7, 7), counted(1, 0, 6, 7)] {
        assert!(matches!(sink.apply(&batch).await, Err(SinkError::Moved)));
    }
    let mut half = counted(1, 4, 6, 7);
    half.ranges.push(range(id(2), Lane::Usage, 3, 4));
    assert!(matches!(sink.apply(&half).await, Err(SinkError::Moved)), "all streams or none");
    assert_eq!(db.number(TOTAL).await, 5);
    sink.apply(&counted(1, 4, 6, 7)).await.unwrap();
    assert_eq!(db.number(TOTAL).await, 12);
    assert_eq!(sink.positions(&[id(1)]).await.unwrap()[&id(1)].closed_seq, Some(6));
}

#[tokio::test]
async fn an_unknown_commit_is_recognised_by_the_ledger() {
    let db = Database::new().await;
    let proxy = FaultProxy::new(&db.url);
    for (stream, fault, applied) in
        [(1, Fault::CutBeforeCommit, None), (2, Fault::CutAfterCommit, Some(4))]
    {
        let mut sink = sink(&proxy.url(&db.url), "gw-1");
        proxy.set(fault);
        let fate = sink.apply(&counted(stream, 0, 4, 5)).await;
        assert!(matches!(fate, Err(SinkError::Unknown(_))), "{fate:?}");
        assert_eq!(proxy.fault(), Fault::None);
        // The server may still be busy with the COMMIT of a connection that is gone: another
        // attempt waits for the ledger row, and finds what is true.
        let again = sink.apply(&counted(stream, 0, 4, 5)).await;
        assert_eq!(again.is_ok(), applied.is_none(), "{again:?}");
        let ledger = sink.positions(&[id(stream)]).await.unwrap();
        assert_eq!(ledger[&id(stream)].last_seq, 4);
    }
    assert_eq!(db.number(TOTAL).await, 10);
}

#[tokio::test]
async fn a_connection_lost_before_commit_is_a_plain_failure() {
    let db = Database::new().await;
    let proxy = FaultProxy::new(&db.url);
    let mut sink = sink(&proxy.url(&db.url), "gw-1");
    sink.apply(&counted(1, 0, 1, 1)).await.unwrap();
    proxy.set(Fault::Cut);
    let fate = sink.apply(&counted(1, 1, 2, 1)).await;
    assert!(matches!(&fate, Err(SinkError::Failed(error)) if error.is_unavailable()), "{fate:?}");
    proxy.set(Fault::None);
    sink.apply(&counted(1, 1, 2, 1)).await.unwrap();
    assert_eq!(db.number(TOTAL).await, 2);
}

#[tokio::test]
async fn counters_add_up_into_every_total() {
    let db = Database::new().await;
    let (mut one, mut two) = (sink(&db.url, "gw-1"), sink(&db.url, "gw-2"));
    let mut batch = counted(1, 0, 1, 2);
    batch.usage.push(usage("acme", 2, "orders", 3));
    batch.usage.push(usage("acme", 1, "items", 4));
    batch.usage.push(usage("zeta", 3, "", 10));
    one.apply(&batch).await.unwrap();
    batch.ranges[0].stream = id(2);
    two.apply(&batch).await.unwrap();
    for (sql, expected) in [
        ("SELECT total_requests FROM gatepost.client_statistics WHERE client_name = 'acme'", 18),
        (
            "SELECT successful_requests FROM gatepost.client_statistics WHERE client_name = 'zeta'",
            20,
        ),
        (
            "SELECT total_operations FROM gatepost.client_table_statistics \
             WHERE client_name = 'acme' AND table_name = 'orders' AND operation = 'read'",
            10,
        ),
        ("SELECT max(requests) FROM gatepost.key_activity", 20),
        ("SELECT sum(requests)::bigint FROM gatepost.usage_hourly", 38),
        ("SELECT count(*) FROM gatepost.usage_hourly", 4),
        ("SELECT count(*) FROM gatepost.hourly_totals", 8),
    ] {
        assert_eq!(db.number(sql).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn last_seen_is_never_far_ahead_of_the_servers_clock() {
    let db = Database::new().await;
    let mut batch = counted(1, 0, 1, 1);
    batch.usage[0].counts.last_seen = Timestamp(32_503_680_000_000_000);
    batch.usage.push(usage("never", 2, "", 0));
    batch.usage[1].counts.last_seen = Timestamp::NEG_INFINITY;
    sink(&db.url, "gw-1").apply(&batch).await.unwrap();
    let ahead = "SELECT count(*) FROM gatepost.client_statistics \
                 WHERE last_seen_at > now() + interval '5 s'";
    assert_eq!(db.number(ahead).await, 0);
    let never = "SELECT count(*) FROM gatepost.client_statistics WHERE last_seen_at IS NULL";
    assert_eq!(db.number(never).await, 1);
}

#[tokio::test]
async fn many_writers_of_the_same_counters_never_deadlock() {
    let db = Database::new().await;
    // Each of another client: on one client's row they would queue, whatever their order.
    let of_client = |key: u128| usage(&format!("c{key}"), key, "orders", 1);
    let usage: Vec<_> = (0..200).map(of_client).collect();
    let writers = (1..=4_u128).map(|writer| {
        let mut usage = usage.clone();
        usage.rotate_left(writer as usize * 40);
        let url = db.url.clone();
        tokio::spawn(async move {
            let mut sink = sink(&url, "gw-1");
            for seq in 0..10 {
                let ranges = vec![range(id(writer), Lane::Usage, seq, seq + 1)];
                let batch = Batch { ranges, usage: usage.clone(), ..Batch::default() };
                sink.apply(&batch).await.expect("sorted writers queue");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(db.number(TOTAL).await, 4 * 10 * 200);
}

#[tokio::test]
async fn state_facts_merge_by_their_laws_whatever_the_ledger_says() {
    let db = Database::new().await;
    let mut sink = sink(&db.url, "gw-1");
    let key = key(1, "k", "acme");
    // The revocation comes before its key.
    let later = Timestamp(1_800_000_000_000_000);
    sink.apply(&told(vec![revoked(key.id, later)])).await.unwrap();
    let facts = vec![
        StateFact::KeyCreated(key.clone()),
        StateFact::ClientCreated(client("acme")),
        revoked(key.id, Timestamp::NEG_INFINITY),
    ];
    sink.apply(&told(facts.clone())).await.unwrap();
    assert_eq!(db.number(COUNTER).await, 2, "the ledger stood at 1 already, and held nothing back");
    let at_once = "SELECT count(*) FROM gatepost.revocations WHERE at = '-infinity'";
    assert_eq!(db.number(at_once).await, 1);
    let scopes = "SELECT count(*) FROM gatepost.api_keys WHERE scopes = '{orders.read}'";
    assert_eq!(db.number(scopes).await, 1);

    // Again, and with a later moment: nothing moves, and nobody is woken for it.
    let mut again = facts;
    again.push(revoked(key.id, later));
    sink.apply(&told(again)).await.unwrap();
    assert_eq!(db.number(COUNTER).await, 2);
    assert_eq!(db.number(at_once).await, 1);
}

#[tokio::test]
async fn events_arrive_once() {
    let db = Database::new().await;
    let mut sink = sink(&db.url, "gw-1");
    let event = AuditEntry {
        event_id: id(7),
        actor: "cli".into(),
        action: "key.create".into(),
        subject: "x".into(),
    };
    for seq in 0..2 {
        let ranges: Vec<StreamRange> = vec![range(id(1), Lane::Events, seq, seq + 1)];
        let batch = Batch { ranges, events: vec![event.clone()], ..Batch::default() };
        sink.apply(&batch).await.unwrap();
    }
    let made = "SELECT extract(epoch FROM at)::bigint FROM gatepost.audit_log";
    assert_eq!(db.number(made).await, 1_700_000_000);
}

#[tokio::test]
async fn a_report_reads_totals_and_positions_in_one_snapshot() {
    let db = Database::new().await;
    sink(&db.url, "gw-1").apply(&counted(1, 0, 4, 5)).await.unwrap();
    let directory = crate::support::postgres::at(&db.url).directory();
    let report = directory.usage(Some("acme"), None, &[id(1), id(2)]).await.unwrap();
    assert_eq!(report.rows.len(), 1);
    assert_eq!((&*report.rows[0].0, report.rows[0].1.requests), ("acme", 5));
    assert_eq!(report.rows[0].1.last_seen, Timestamp(1_700_000_000_000_000));
    assert_eq!(report.ledger.into_iter().collect::<Vec<_>>(), [(id(1), 4)]);
    let later = Some(Timestamp::from_hour(472_223));
    assert!(directory.usage(None, later, &[]).await.unwrap().rows.is_empty());
}
