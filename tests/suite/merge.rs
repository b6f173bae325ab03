//! Merged segments and Postgres: copies of the directory, doubt, failover. The schedules of the
//! journal's specification that are about merging, each by its number.

mod copies;
mod embedded;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;

use gatepost::clock::{Clock, SystemClock};
use gatepost::codec;
use gatepost::drainer;
use gatepost::journal::{Config, End, MergeError, SOURCES_MAX, Scope};
use gatepost::model::fact::Lane;
use gatepost::model::units::Size;
use gatepost::postgres::sink::{Batch, Retirement, SinkError};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::in_process::{Gateway, NEVER, clone, config, count, drain};
use crate::support::postgres::{at, id, quota, range, sink, usage};

const TOTAL: &str =
    "SELECT coalesce(sum(total_requests), 0)::bigint FROM gatepost.client_statistics";
const HOURS: &str = "SELECT coalesce(sum(requests), 0)::bigint FROM gatepost.usage_hourly";
const RETIRED: &str = "SELECT count(*) FROM gatepost.stream_ledger WHERE retired_by IS NOT NULL";

/// More than one chunk takes.
const MUCH: u128 = 1000;

fn open(data: TempDir, url: &str) -> Gateway {
    // Each commit is a segment.
    let config = Config { segment_max_bytes: Size(1), ..config() };
    Gateway::with(data, url, None, config)
}

fn new(url: &str) -> Gateway {
    open(TempDir::new().unwrap(), url)
}

/// Four closed segments of the same counters, or some more; how many.
async fn backlog(gateway: &Gateway) -> usize {
    for _ in 0..4 {
        count(gateway, 0..MUCH).await;
    }
    gateway.journal.segments(Lane::Usage).len()
}

const BACKLOG: i64 = 4 * MUCH as i64;

fn try_merge(gateway: &Gateway, scope: Scope) -> Result<bool, MergeError> {
    gateway.journal.merge(scope, &|| false)
}

fn merge(gateway: &Gateway) -> Uuid {
    assert!(try_merge(gateway, Scope::Own).unwrap(), "there is a backlog");
    let segments = gateway.journal.segments(Lane::Usage);
    let merged: Vec<_> = segments.iter().filter(|s| !s.sources().is_empty()).collect();
    assert_eq!(merged.len(), 1);
    merged[0].stream
}

fn nothing_set_aside(gateway: &Gateway) {
    assert!(!gateway.data.path().join("quarantine").exists());
    assert_eq!(gateway.metrics.drain.conflicts.get(), 0);
}

#[tokio::test]
async fn a_merged_backlog_is_counted_once_and_its_sources_are_retired() {
    let db = Database::new().await;
    let gateway = new(&db.url);
    let sources = backlog(&gateway).await;
    merge(&gateway);
    count(&gateway, 0..3).await;
    drain(&gateway).await;
    assert_eq!(db.number(TOTAL).await, BACKLOG + 3);
    assert_eq!(db.number(RETIRED).await, sources as i64);
    nothing_set_aside(&gateway);
    drop(gateway.shut_down().await);
}

#[tokio::test]
async fn a_merged_backlog_of_quotas_is_counted_once_also_from_a_copy() {
    const USED: &str = "SELECT coalesce(sum(used), 0)::bigint FROM gatepost.quota_usage";
    let db = Database::new().await;
    let gateway = new(&db.url);
    for _ in 0..4 {
        for key in 0..MUCH {
            let used = quota(&format!("key-{key}"), 3);
            let room = gateway.journal.reserve().unwrap();
            let _unawaited = gateway.journal.use_quota(room, used.key, used.used);
        }
        for _ in 0..2 {
            gateway.journal.flush().durable().await.unwrap();
        }
    }
    let before = clone(gateway.data.path());
    assert!(try_merge(&gateway, Scope::Own).unwrap(), "there is a backlog");
    let segments = gateway.journal.segments(Lane::Quota);
    assert!(segments.iter().any(|segment| segment.sources().len() >= 4), "{segments:?}");
    drain(&gateway).await;
    assert_eq!(db.number(USED).await, 3 * BACKLOG);
    drop(gateway.shut_down().await);
    // The directory as it was before: its streams are retired.
    let copy = open(before, &db.url);
    drain(&copy).await;
    assert_eq!(db.number(USED).await, 3 * BACKLOG);
    drop(copy.shut_down().await);
}

/// Schedule 1.
#[tokio::test]
async fn nothing_is_merged_with_a_stream_whose_fate_is_unknown() {
    let db = Database::new().await;
    let proxy = FaultProxy::new(&db.url);
    let url = proxy.url(&db.url);
    let gateway = new(&url);
    // Before anything was taken, a little of one stream would be sent only.
    count(&gateway, 0..1).await;
    drain(&gateway).await;
    backlog(&gateway).await;
    proxy.set(Fault::CutAfterCommit);
    // The next pass, if there is one already, finds Postgres gone.
    drop(gateway.drainer.drain_now().await);
    proxy.set(Fault::Cut);
    assert!(!try_merge(&gateway, Scope::Own).unwrap(), "all of it may have been sent");
    let data = gateway.kill().await;
    let gateway = open(data, &url);
    gateway.journal.examine(&|| false);
    for scope in [Scope::Own, Scope::All(None)] {
        assert!(!try_merge(&gateway, scope).unwrap(), "also after a restart");
    }
    proxy.set(Fault::None);
    drain(&gateway).await;
    assert_eq!(db.number(TOTAL).await, BACKLOG + 1);
    drop(gateway.shut_down().await);
}

/// Schedule 11, up to Postgres.
#[tokio::test]
async fn a_merge_whose_sources_were_half_removed_is_counted_once() {
    let db = Database::new().await;
    let gateway = new(&db.url);
    backlog(&gateway).await;
    let before = clone(gateway.data.path());
    let merged = merge(&gateway);
    let after = gateway.kill().await;
    // All that was there, and the merged one: as if it had died before the first removal.
    let (from, to) = (after.path().join("journal/usage"), before.path().join("journal/usage"));
    let name = merged.to_string();
    std::fs::rename(from.join(&name), to.join(&name)).unwrap();
    let gone = std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path());
    let gone: Vec<_> = gone.filter(|path| !path.ends_with(&name)).take(2).collect();
    gone.iter().for_each(|dir| std::fs::remove_dir_all(dir).unwrap());
    let gateway = open(before, &db.url);
    drain(&gateway).await;
    assert_eq!(db.number(TOTAL).await, BACKLOG);
    nothing_set_aside(&gateway);
    drop(gateway.shut_down().await);
}

/// Schedule 12.
#[tokio::test]
async fn an_unknown_commit_of_a_merged_segment_is_recognised_as_its_own() {
    for fault in [Fault::CutAfterCommit, Fault::CutBeforeCommit] {
        let db = Database::new().await;
        let proxy = FaultProxy::new(&db.url);
        let gateway = new(&proxy.url(&db.url));
        backlog(&gateway).await;
        merge(&gateway);
        proxy.set(fault);
        assert!(gateway.drainer.drain_now().await.is_err());
        drain(&gateway).await;
        assert_eq!(db.number(TOTAL).await, BACKLOG, "{fault:?}");
        nothing_set_aside(&gateway);
        drop(gateway.shut_down().await);
    }
}

#[tokio::test]
async fn a_merge_that_a_failover_lost_is_sent_again() {
    let db = Database::new().await;
    let config = Config { segment_max_bytes: Size(1), retention: NEVER, ..config() };
    let gateway = Gateway::with(TempDir::new().unwrap(), &db.url, None, config);
    let sources = backlog(&gateway).await;
    merge(&gateway);
    db.execute("CREATE TABLE t AS TABLE gatepost.client_totals").await;
    drain(&gateway).await;
    db.execute(
        "DELETE FROM gatepost.client_totals; INSERT INTO gatepost.client_totals SELECT * FROM t; \
         DELETE FROM gatepost.stream_ledger",
    )
    .await;
    // The pass is refused where it goes on, and the next one begins with the ledger.
    gateway.journal.segments(Lane::Usage).iter().for_each(|s| s.set_applied(1));
    assert!(gateway.drainer.drain_now().await.is_err());
    drain(&gateway).await;
    assert_eq!(db.number(TOTAL).await, BACKLOG);
    assert_eq!(db.number(RETIRED).await, sources as i64);
    nothing_set_aside(&gateway);
    drop(gateway.shut_down().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_does_not_leave_behind_what_is_being_merged() {
    let db = Database::new().await;
    let gateway = new(&db.url);
    backlog(&gateway).await;
    let (journal, drained) = (gateway.journal.clone(), Arc::new(AtomicBool::new(false)));
    let (began, begun) = std::sync::mpsc::channel();
    let enough = drained.clone();
    let merging = std::thread::spawn(move || {
        loop {
            let merged = journal.merge(Scope::Own, &|| {
                // The drain may be gone.
                let _unheard = began.send(());
                std::thread::sleep(std::time::Duration::from_millis(2));
                false
            });
            if enough.load(SeqCst) {
                return merged;
            }
        }
    });
    begun.recv().unwrap();
    let all = gateway.drainer.drain_now().await;
    assert_eq!((all, db.number(TOTAL).await), (Ok(()), BACKLOG));
    drained.store(true, SeqCst);
    drop(merging.join().unwrap());
    nothing_set_aside(&gateway);
    drop(gateway.shut_down().await);
}

#[tokio::test]
async fn years_without_postgres_settle_in_totals() {
    let db = Database::new().await;
    let mut gateway = new(&db.url);
    for _ in 0..4 {
        // (Their hour is long over.)
        count(&gateway, 0..MUCH).await;
        let data = gateway.shut_down().await;
        gateway = open(data, &db.url);
    }
    gateway.journal.examine(&|| false);
    let all = Scope::All(Some(SystemClock::new().now()));
    assert!(try_merge(&gateway, all).unwrap());
    count(&gateway, 0..3).await;
    drain(&gateway).await;
    assert_eq!(db.number(TOTAL).await, BACKLOG + 3);
    assert_eq!(db.number(HOURS).await, 3, "what was merged belongs to no hour any more");
    assert_eq!(db.number("SELECT count(*) FROM gatepost.key_activity").await, MUCH as i64);
    assert!(!try_merge(&gateway, all).unwrap());
    nothing_set_aside(&gateway);
    drop(gateway.shut_down().await);
}

#[tokio::test]
async fn a_source_is_retired_once_and_by_one_only() {
    let db = Database::new().await;
    let mut sink = sink(&db.url, "gw-1");
    let merged = |by: u128, sources: &[u128]| Batch {
        ranges: vec![range(id(by), Lane::Usage, 0, 1)],
        retires: vec![Retirement {
            by: id(by),
            lane: Lane::Usage,
            sources: sources.iter().map(|source| (id(*source), 5)).collect(),
        }],
        usage: vec![usage("acme", 1, "orders", 1)],
        ..Batch::default()
    };
    sink.apply(&merged(10, &[1, 2])).await.unwrap();
    let other = sink.apply(&merged(11, &[2, 3])).await;
    assert!(matches!(other, Err(SinkError::Cloned(by)) if by == id(11)), "{other:?}");
    let again = sink.apply(&merged(10, &[1, 2])).await;
    assert!(matches!(again, Err(SinkError::Moved)), "its own is recognised: {again:?}");
    let alone = Batch { retires: Vec::new(), ..merged(1, &[]) };
    assert!(matches!(sink.apply(&alone).await, Err(SinkError::Moved)));
    let ledger = sink.positions(&[id(1), id(3), id(10), id(11)]).await.unwrap();
    assert!(ledger[&id(1)].underway && !ledger[&id(10)].underway);
    assert!(!ledger.contains_key(&id(3)) && !ledger.contains_key(&id(11)), "all or nothing");
    let mut rest = merged(10, &[]);
    rest.retires.clear();
    (rest.ranges[0].from, rest.ranges[0].to, rest.ranges[0].closed) = (1, 2, Some(2));
    sink.apply(&rest).await.unwrap();
    let ledger = sink.positions(&[id(1)]).await.unwrap();
    assert_eq!((ledger[&id(1)].underway, ledger[&id(1)].last_seq), (false, 5));
    assert_eq!(db.number(TOTAL).await, 2);
    // What the usage command takes for settled: the sources, and what they were merged into.
    let directory = crate::support::postgres::at(&db.url).directory();
    let report = directory.usage(None, None, &[id(1)]).await.unwrap();
    let mut positions: Vec<_> = report.ledger.into_iter().collect();
    positions.sort();
    assert_eq!(positions, [(id(1), 5), (id(10), 2)]);
}

/// As many as one merged segment may stand for, within the deadline of a drain.
#[expect(clippy::print_stderr, reason = "the runner shows it where a test fails")]
#[tokio::test]
async fn the_most_sources_are_retired_in_one_transaction() {
    let db = Database::new().await;
    let deadline = drainer::Config::default().deadline.0;
    let mut sink = at(&db.url).sink("gw-1".into(), deadline);
    let sources: Vec<_> = (0..SOURCES_MAX as u128).map(|n| (id(1000 + n), 5)).collect();
    let mut batch = Batch {
        ranges: vec![range(id(1), Lane::Usage, 0, 1)],
        retires: vec![Retirement { by: id(1), lane: Lane::Usage, sources: sources.clone() }],
        usage: vec![usage("acme", 1, "orders", 1)],
        ..Batch::default()
    };
    // Its rows made, and changed, as after a ledger that lost half of them.
    for requests in 1..=2 {
        let began = Instant::now();
        sink.apply(&batch).await.unwrap();
        eprintln!("{SOURCES_MAX} sources in {:?} of {deadline:?}", began.elapsed());
        assert_eq!(db.number(RETIRED).await, SOURCES_MAX as i64);
        assert_eq!(db.number(TOTAL).await, requests);
        db.execute("UPDATE gatepost.stream_ledger SET last_seq = 0 WHERE retired_by IS NULL").await;
    }
    batch.ranges[0].closed = Some(1);
    batch.retires.clear();
    sink.apply(&batch).await.unwrap();
    let streams: Vec<_> = sources.iter().map(|source| source.0).collect();
    let ledger = sink.positions(&streams).await.unwrap();
    assert_eq!(ledger.values().filter(|row| row.last_seq == 5).count(), SOURCES_MAX);
}

/// Schedule 7: a segment ended early, its last commit went to the next one, and what lies beyond
/// its end is there all the same.
#[tokio::test]
async fn a_tail_beyond_an_end_is_counted_once_through_kill_and_replay() {
    let db = Database::new().await;
    let gateway = Gateway::new(&db.url);
    for keys in [0..1, 0..1, 1..2] {
        count(&gateway, keys).await;
    }
    let data = gateway.shut_down().await;
    let dir = data.path().join("journal/usage");
    let failed = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let end = End { last_seq: 2, facts: 2, sealed: true };
    std::fs::write(failed.join("end"), codec::seal(codec::Kind::End, 1, &end).unwrap()).unwrap();
    // Its uncommitted fact, logged again, and much more, which is merged.
    let gateway = open(data, &db.url);
    count(&gateway, 1..2).await;
    backlog(&gateway).await;
    merge(&gateway);
    let aside = clone(gateway.data.path());
    drain(&gateway).await;
    assert_eq!(db.number(TOTAL).await, 3 + BACKLOG);
    let data = gateway.kill().await;
    // All of it once more, as from a quarantine.
    for segment in std::fs::read_dir(aside.path().join("journal/usage")).unwrap() {
        let segment = segment.unwrap();
        let to = data.path().join("journal/usage").join(segment.file_name());
        if !to.exists() {
            std::fs::rename(segment.path(), to).unwrap();
        }
    }
    let gateway = open(data, &db.url);
    drain(&gateway).await;
    assert_eq!(db.number(TOTAL).await, 3 + BACKLOG);
    nothing_set_aside(&gateway);
    drop(gateway.shut_down().await);
}
