//! Gathering: what a batch holds, where it ends, and what it says of the streams it stands for.

mod damage;
mod end;

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::gather::{Bounds, Gathered, gather};
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;
use crate::journal::{self, Journal, Scope};
use crate::metrics::Metrics;
use crate::model::Timestamp;
use crate::model::fact::{Counter, Counts, Lane};
use crate::model::units::{Size, Span};

const ALL: Bounds = Bounds { rows: 1_000_000, sums: 1_000_000, segments: usize::MAX };

fn open(data: &TempDir) -> Journal {
    let config = journal::Config {
        interval: Span::secs(3600),
        segment_max_bytes: Size::kib(1),
        ..journal::Config::default()
    };
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
    let opened = Journal::open(data.path(), config, clock, entropy, Arc::new(Metrics::new()));
    opened.expect("a working disk").0
}

/// Counts once for each of `keys`, in one commit.
async fn count(journal: &Journal, keys: std::ops::Range<u128>) {
    for key in keys {
        let counter = Counter {
            client: "acme".into(),
            key_id: uuid::Uuid::from_u128(key),
            table: "orders".into(),
            operation: "read".into(),
            hour: 495_000,
        };
        let counts = Counts { requests: 1, last_seen: Timestamp(7), ..Counts::ZERO };
        let _ticket = journal.count(journal.reserve().expect("room"), counter, counts);
    }
    journal.flush().durable().await.expect("a working disk");
}

fn usage(journal: &Journal, bounds: Bounds) -> Gathered {
    gather(journal, Lane::Usage, bounds, &Vec::new).expect("a working disk")
}

fn requests(gathered: &Gathered) -> u64 {
    gathered.batch.usage.iter().map(|fact| fact.counts.requests).sum()
}

fn applied(gathered: &Gathered) {
    for (segment, range) in &gathered.segments {
        segment.set_applied(range.to);
        segment.tell_end(range.closed.is_some());
    }
}

#[tokio::test]
async fn one_counter_in_many_commits_and_streams_is_one_row() {
    let data = TempDir::new().expect("temporary directory");
    let journal = open(&data);
    for _ in 0..60 {
        count(&journal, 1..3).await;
    }
    let streams = journal.segments(Lane::Usage);
    assert!(streams.len() > 2, "several segments");
    let gathered = usage(&journal, ALL);
    assert_eq!((gathered.batch.usage.len(), requests(&gathered)), (2, 120));
    assert!(gathered.batch.usage.is_sorted_by(|a, b| a.counter < b.counter));
    assert!(gathered.whole);
    assert_eq!(gathered.batch.ranges.len(), streams.len());
    for (range, segment) in gathered.batch.ranges.iter().zip(&streams) {
        assert_eq!(
            (range.stream, range.from, range.to),
            (segment.stream, 0, segment.durable_seq())
        );
        assert_eq!(range.closed, segment.is_closed().then_some(range.to));
        assert!(segment.dir().join("sent").exists(), "before the first transaction");
    }
    applied(&gathered);
    assert!(usage(&journal, ALL).segments.is_empty(), "nothing is left");
}

#[tokio::test]
async fn a_batch_ends_at_its_bound_and_the_next_one_begins_there() {
    let data = TempDir::new().expect("temporary directory");
    let journal = open(&data);
    for round in 0..40 {
        count(&journal, round * 50..(round + 1) * 50).await;
    }
    let (mut batches, mut sum, mut largest) = (0, 0, 0);
    loop {
        let gathered = usage(&journal, Bounds { sums: 100, ..ALL });
        if gathered.segments.is_empty() {
            break;
        }
        for (segment, range) in &gathered.segments {
            assert_eq!(range.from, segment.applied_seq(), "no gap and no overlap");
        }
        (batches, sum) = (batches + 1, sum + requests(&gathered));
        largest = largest.max(gathered.batch.usage.len());
        applied(&gathered);
    }
    assert_eq!(sum, 2000);
    assert!(batches > 12, "{batches} batches");
    assert!(largest < 200, "a chunk beyond the bound at most, not {largest}");
    assert!(usage(&journal, ALL).whole);
}

/// A commit of many counters is many chunks of one segment: a batch that must be small is.
#[tokio::test]
async fn a_large_commit_makes_no_large_batch() {
    let data = TempDir::new().expect("temporary directory");
    let journal = open(&data);
    count(&journal, 0..3000).await;
    assert_eq!(journal.segments(Lane::Usage).len(), 1);
    let first = usage(&journal, Bounds { sums: 100, ..ALL });
    let many = first.batch.usage.len();
    assert!((1..1000).contains(&many), "one chunk, not {many}");
    assert_eq!(first.size(), many);
}

#[tokio::test]
async fn counters_that_come_again_are_read_on_beyond_the_bound_on_rows() {
    let data = TempDir::new().expect("temporary directory");
    let journal = open(&data);
    // Nothing of a page comes again before all of them were in.
    let commits = 40;
    for _ in 0..commits {
        count(&journal, 0..3000).await;
    }
    let gathered = usage(&journal, Bounds { sums: 4000, ..ALL });
    assert_eq!((gathered.batch.usage.len(), requests(&gathered)), (3000, 3000 * commits));
    assert!(gathered.whole, "one batch for all of it");
}

#[tokio::test]
async fn an_open_stream_says_its_end_only_once_it_has_one() {
    let data = TempDir::new().expect("temporary directory");
    let journal = open(&data);
    count(&journal, 0..1).await;
    let open_yet = usage(&journal, ALL);
    assert_eq!(open_yet.batch.ranges[0].closed, None);
    journal.shutdown().expect("a working disk");
    let closed = usage(&journal, ALL);
    assert_eq!(closed.batch.ranges[0].closed, Some(1));
    let partly = usage(&journal, Bounds { sums: 0, ..ALL });
    assert!(partly.segments.is_empty() && !partly.whole);
}

#[tokio::test]
async fn a_ledger_that_moved_back_has_the_rest_gathered_again() {
    let data = TempDir::new().expect("temporary directory");
    let journal = open(&data);
    for key in 0..4 {
        count(&journal, key..key + 1).await;
    }
    applied(&usage(&journal, ALL));
    let segment = &journal.segments(Lane::Usage)[0];
    assert_eq!(segment.unsettled_facts(), 0);
    segment.set_applied(2);
    let again = usage(&journal, ALL);
    assert_eq!((again.batch.ranges[0].from, again.batch.ranges[0].to), (2, 4));
    assert_eq!(requests(&again), 2);
}

#[tokio::test]
async fn what_is_in_other_hands_is_waited_for_and_not_left_behind() {
    let data = TempDir::new().expect("temporary directory");
    let journal = open(&data);
    count(&journal, 0..50).await;
    let claims: Vec<_> = journal.segments(Lane::Usage).iter().map(|s| s.claim()).collect();
    assert!(claims.iter().all(Option::is_some));
    let gathering = std::thread::spawn({
        let journal = journal.clone();
        move || usage(&journal, ALL)
    });
    std::thread::sleep(std::time::Duration::from_millis(20));
    drop(claims);
    let gathered = gathering.join().expect("no panic");
    assert_eq!((requests(&gathered), gathered.whole), (50, true));
    for segment in journal.segments(Lane::Usage) {
        assert!(segment.is_sent() && segment.claim().is_some(), "marked, and let go of");
    }
}

/// What a merge has half made, and cannot be removed.
#[tokio::test]
async fn what_waits_for_a_restart_does_not_keep_a_pass_for_ever() {
    let data = TempDir::new().expect("temporary directory");
    let journal = open(&data);
    for _ in 0..60 {
        count(&journal, 1..40).await;
    }
    let lane_dir = data.path().join("journal/usage");
    let in_the_way = || {
        let dirs = lane_dir.read_dir().expect("there").filter_map(|entry| Some(entry.ok()?.path()));
        let half_made = |dir: &PathBuf| dir.join("sources").exists() && !dir.join("end").exists();
        dirs.filter(half_made).any(|dir| {
            let name = dir.file_name().expect("named").to_string_lossy().into_owned();
            // Of the name under which it is to be removed.
            let gone = lane_dir.join(format!(".gone-{name}/entry"));
            std::fs::create_dir_all(gone).is_ok()
        })
    };
    journal.merge(Scope::Own, &in_the_way).expect_err("it is stopped");
    let streams = journal.streams(100);
    let waiting = streams.iter().filter(|stream| stream.state == "restart").count();
    assert!(waiting >= 4, "{streams:?}");
    let gathered = usage(&journal, ALL);
    assert_eq!(gathered.segments.len(), streams.len() - waiting);
    assert!(gathered.whole, "nothing else is waited for");
}

#[tokio::test]
async fn the_end_of_a_stream_that_was_drained_before_it_closed_is_told_once() {
    let data = TempDir::new().expect("temporary directory");
    let journal = open(&data);
    count(&journal, 0..1).await;
    applied(&usage(&journal, ALL));
    journal.shutdown().expect("a working disk");
    let told = usage(&journal, ALL);
    let range = &told.batch.ranges[0];
    assert_eq!((range.from, range.to, range.closed), (1, 1, Some(1)));
    applied(&told);
    assert!(usage(&journal, ALL).segments.is_empty(), "once");
}

#[tokio::test]
async fn while_it_probes_a_batch_takes_one_stream() {
    let data = TempDir::new().expect("temporary directory");
    let journal = open(&data);
    for _ in 0..60 {
        count(&journal, 1..3).await;
    }
    let gathered = usage(&journal, Bounds { segments: 1, ..ALL });
    assert_eq!((gathered.segments.len(), gathered.whole), (1, false));
    let sent = journal.segments(Lane::Usage).iter().filter(|s| s.is_sent()).count();
    assert_eq!(sent, 1, "the others may be merged");
}
