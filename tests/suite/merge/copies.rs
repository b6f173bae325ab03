//! Copies of the data directory, and old ones in its place, from before a merge.

use std::path::Path;

use super::*;
use crate::support::in_process;

/// Schedule 2.
#[tokio::test]
async fn a_copy_that_drains_a_source_after_the_merge_was_drained_counts_nothing_again() {
    let db = Database::new().await;
    let original = new(&db.url);
    backlog(&original).await;
    let copy = open(clone(original.data.path()), &db.url);
    merge(&original);
    drain(&original).await;
    assert_eq!(db.number(TOTAL).await, BACKLOG);
    drain(&copy).await;
    assert_eq!(db.number(TOTAL).await, BACKLOG);
    assert!(copy.journal.segments(Lane::Usage).is_empty(), "settled, and not kept for ever");
    nothing_set_aside(&copy);
    drop(copy.shut_down().await);
    drop(original.shut_down().await);
}

#[tokio::test]
async fn what_a_copy_has_drained_sets_the_merged_segment_aside_and_nothing_else() {
    let db = Database::new().await;
    let original = new(&db.url);
    backlog(&original).await;
    let copy = open(clone(original.data.path()), &db.url);
    let merged = merge(&original);
    drain(&copy).await;
    count(&original, 0..7).await;
    drain(&original).await;
    assert_eq!(db.number(TOTAL).await, BACKLOG + 7, "the copy's, and what came after");
    assert_eq!(original.metrics.drain.conflicts.get(), 1);
    let aside = original.data.path().join(format!("quarantine/usage-{merged}"));
    assert!(aside.exists());
    assert_eq!(original.journal.status().quarantined.len(), 1, "it is told");
    drop(copy.shut_down().await);
    drop(original.shut_down().await);
}

/// A copy waits for what was begun elsewhere: nobody knows which of its facts are counted.
#[tokio::test]
async fn a_source_of_a_merge_that_is_half_applied_waits_for_the_other_half() {
    let db = Database::new().await;
    let original = new(&db.url);
    backlog(&original).await;
    let copy = open(clone(original.data.path()), &db.url);
    let merged = merge(&original);
    let sources = original.journal.segments(Lane::Usage)[0].sources();
    let sources: Vec<_> = sources.iter().map(|source| (source.stream, source.last_seq)).collect();
    let last = original.journal.segments(Lane::Usage)[0].durable_seq();
    // The first chunk of it, in a batch of its own.
    let mut batch = Batch {
        ranges: vec![range(merged, Lane::Usage, 0, 1)],
        retires: vec![Retirement { by: merged, lane: Lane::Usage, sources: sources.clone() }],
        usage: vec![usage("acme", 1, "orders", 1)],
        ..Batch::default()
    };
    assert!(last > 1);
    sink(&db.url, "gw-1").apply(&batch).await.unwrap();
    drain(&copy).await;
    assert_eq!(db.number(TOTAL).await, 1);
    assert!(copy.journal.segments(Lane::Usage).iter().all(|segment| segment.is_blocked()));
    batch.ranges = vec![range(merged, Lane::Usage, 1, last)];
    batch.ranges[0].closed = Some(last);
    batch.retires.clear();
    sink(&db.url, "gw-1").apply(&batch).await.unwrap();
    let data = copy.shut_down().await;
    let copy = open(data, &db.url);
    drain(&copy).await;
    assert_eq!(db.number(TOTAL).await, 2);
    assert!(copy.journal.segments(Lane::Usage).is_empty(), "wholly counted");
    drop(copy.shut_down().await);
    drop(original.shut_down().await);
}

/// An old copy of the directory, in the place of the one that is lost.
#[tokio::test]
async fn a_restored_directory_does_not_count_again_what_was_merged_since() {
    let db = Database::new().await;
    let gateway = new(&db.url);
    backlog(&gateway).await;
    let old = clone(gateway.data.path());
    merge(&gateway);
    count(&gateway, 0..5).await;
    drain(&gateway).await;
    drop(gateway.kill().await);
    let restored = open(old, &db.url);
    count(&restored, 0..9).await;
    drain(&restored).await;
    assert_eq!(db.number(TOTAL).await, BACKLOG + 5 + 9);
    nothing_set_aside(&restored);
    drop(restored.shut_down().await);
}

/// Two copies of a directory merged the same streams apart, and what they made met again.
#[tokio::test]
async fn two_merges_of_the_same_streams_are_counted_once_and_not_merged_into_one() {
    let db = Database::new().await;
    let original = new(&db.url);
    backlog(&original).await;
    count(&original, 0..0).await;
    let copied = clone(original.data.path());
    let merged = merge(&original);
    let copy = open(copied, &db.url);
    assert!(try_merge(&copy, Scope::All(None)).unwrap());
    let data = copy.shut_down().await;
    let beside = |data: &Path| data.join("journal/usage").join(merged.to_string());
    in_process::copy(&beside(original.data.path()), &beside(data.path()));
    drop(original.shut_down().await);
    let gateway = open(data, &db.url);
    for _ in 0..4 {
        count(&gateway, MUCH..MUCH + 1).await;
    }
    assert!(try_merge(&gateway, Scope::All(None)).unwrap(), "what came after");
    drain(&gateway).await;
    let total = db.number(TOTAL).await;
    // One of them has what came after, and the first to be sent is counted.
    assert!([BACKLOG, BACKLOG + 4].contains(&total), "{total}");
    assert_eq!(gateway.metrics.drain.conflicts.get(), 1);
    assert_eq!(gateway.journal.status().quarantined.len(), 1, "it is told");
    drop(gateway.shut_down().await);
}

/// Merged of such a pair, as could be made once: its sums hold the facts of one stream twice.
#[tokio::test]
async fn what_names_a_stream_twice_is_refused_and_harms_no_other() {
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
    let twice = sink.apply(&merged(10, &[1, 2, 1])).await;
    assert!(matches!(twice, Err(SinkError::Cloned(by)) if by == id(10)), "{twice:?}");
    assert!(sink.positions(&[id(1), id(10)]).await.unwrap().is_empty(), "nothing of it");
    sink.apply(&merged(11, &[1, 2])).await.unwrap();
    assert_eq!(db.number(TOTAL).await, 1);
}
