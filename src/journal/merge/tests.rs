//! Merging: what a merged segment says is what its sources said, wherever it is interrupted.

mod copies;
mod embedded;
mod failing;

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::entropy::SystemEntropy;
use crate::journal::LogError;
use crate::journal::{Config, StateFact};
use crate::metrics::Metrics;
use crate::model::Timestamp;
use crate::model::fact::{Counter, Counts};
use crate::model::units::{Size, Span};

type Sums = BTreeMap<Counter, Counts>;

fn open(data: &Path) -> (Journal, Vec<StateFact>) {
    let config =
        Config { interval: Span::secs(3600), segment_max_bytes: Size(1), ..Config::default() };
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
    Journal::open(data, config, clock, entropy, Arc::new(Metrics::new())).expect("it opens")
}

fn merge(journal: &Journal, scope: Scope) -> bool {
    journal.merge(scope, &|| false).expect("a working disk")
}

fn counter(n: u64) -> Counter {
    Counter {
        client: format!("client-{}", n % 3).into(),
        key_id: Uuid::from_u128(u128::from(n)),
        table: "orders".into(),
        operation: "read".into(),
        hour: Timestamp(1_900_000_000_000_000).hour(),
    }
}

fn counts(requests: u64, at: i64) -> Counts {
    Counts { requests, succeeded: requests / 2, last_seen: Timestamp(at), ..Counts::ZERO }
}

async fn commit(journal: &Journal) {
    journal.flush().durable().await.expect("a working disk");
}

/// Counts in one commit; in two, where the journal was just about to make another.
async fn count(journal: &Journal, facts: impl Iterator<Item = (Counter, Counts)>) {
    for (counter, counts) in facts {
        let _unawaited = journal.count(journal.reserve().expect("room"), counter, counts);
    }
    commit(journal).await;
    // Segments are closed after a commit, and before the next one.
    commit(journal).await;
}

/// A closed segment, or two, of a hundred counters from `first` on.
async fn closed(journal: &Journal, first: u64) {
    count(journal, (first..first + 100).map(|n| (counter(n), counts(n + 1, 7)))).await;
}

fn sums(journal: &Journal) -> Sums {
    let mut sums = Sums::new();
    let read = journal.unsettled_usage(None, &mut |fact| {
        sums.entry(fact.counter).or_insert(Counts::ZERO).merge(&fact.counts);
    });
    read.expect("readable");
    sums
}

fn dirs(data: &Path, lane: &str) -> Vec<String> {
    let names = data.join("journal").join(lane).read_dir().expect("there");
    names.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned()).collect()
}

fn sources_of(journal: &Journal, lane: Lane) -> Vec<usize> {
    journal.segments(lane).iter().map(|segment| segment.sources().len()).collect()
}

#[tokio::test]
async fn a_backlog_becomes_one_segment_that_says_the_same() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(data.path());
    for first in [0, 30, 60, 90] {
        closed(&journal, first).await;
    }
    let (before, oldest) = (sums(&journal), journal.segments(Lane::Usage)[0].born());
    let first = journal.segments(Lane::Usage).len();
    assert!(merge(&journal, Scope::Own));
    let segments = journal.segments(Lane::Usage);
    assert_eq!((segments.len(), segments[0].sources().len()), (1, first));
    assert_eq!(segments[0].born(), oldest);
    assert_eq!(sums(&journal), before);
    assert_eq!(segments[0].facts(), before.len() as u64, "one fact per counter");
    assert_eq!(dirs(data.path(), "usage").len(), 1);
    assert!(!merge(&journal, Scope::Own), "nothing is left to merge");

    // Merged ones are merged again, and name all that they stand for.
    for first in [200, 230, 260, 290] {
        closed(&journal, first).await;
    }
    let before = sums(&journal);
    let all = first + journal.segments(Lane::Usage).len();
    assert!(merge(&journal, Scope::Own));
    assert_eq!(sources_of(&journal, Lane::Usage), [all]);
    assert_eq!(sums(&journal), before);
    journal.shutdown().expect("a working disk");
    drop(journal);
    let (journal, _) = open(data.path());
    assert_eq!(sums(&journal), before, "and after a restart");
    assert_eq!(sources_of(&journal, Lane::Usage), [all]);
}

#[tokio::test]
async fn a_run_is_in_the_order_of_its_counters() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(data.path());
    for first in [300, 200, 100, 0] {
        closed(&journal, first).await;
    }
    assert!(merge(&journal, Scope::Own));
    let mut read = Vec::new();
    journal.unsettled_usage(None, &mut |fact| read.push(fact.counter)).expect("readable");
    assert_eq!(read.len(), 400);
    assert!(read.is_sorted_by(|a, b| a < b));
}

#[tokio::test]
async fn what_was_sent_or_is_in_somebodys_hands_is_not_merged() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(data.path());
    for first in 0..6 {
        closed(&journal, first).await;
    }
    let segments = journal.segments(Lane::Usage);
    segments[0].mark_sent().expect("writable");
    let claim = segments[1].claim().expect("free");
    assert!(merge(&journal, Scope::Own));
    assert_eq!(sources_of(&journal, Lane::Usage), [0, 0, segments.len() - 2]);
    assert!(segments[2].claim().is_none(), "nobody sends what was merged");
    drop(claim);
    assert!(segments[1].claim().is_some());
}

#[tokio::test]
async fn a_merge_that_is_stopped_changes_nothing() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(data.path());
    for first in 0..4 {
        closed(&journal, first).await;
    }
    let before = sums(&journal);
    let segments = journal.segments(Lane::Usage).len();
    // At its first step, its second, and so on, until it gets through.
    let mut steps = 0;
    loop {
        let asked = std::cell::Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) >= steps;
        match journal.merge(Scope::Own, &stop) {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, MergeError::Stopped), "{error}"),
        }
        assert_eq!(sums(&journal), before);
        assert_eq!(dirs(data.path(), "usage").len(), segments);
        steps += 1;
    }
    assert!(steps > 4, "{steps}");
    assert_eq!((sums(&journal), dirs(data.path(), "usage").len()), (before, 1));
}

#[tokio::test]
async fn a_merge_gives_way_to_the_drain() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(data.path());
    for first in 0..4 {
        closed(&journal, first).await;
    }
    let asked = || {
        journal.want_merged();
        false
    };
    let merged = journal.merge(Scope::Own, &asked);
    assert!(matches!(merged, Err(MergeError::Stopped)), "{merged:?}");
    assert!(journal.segments(Lane::Usage)[0].claim().is_some(), "it may be sent");
    assert!(merge(&journal, Scope::Own), "and merged later");
}

#[tokio::test]
async fn who_reads_all_sees_every_fact_once_while_segments_take_each_others_place() {
    const A_WHILE: u32 = 100;
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(data.path());
    for first in 0..4 {
        closed(&journal, first).await;
    }
    let before = sums(&journal);
    let mut merging = None;
    let mut read = Sums::new();
    let ended = |name: &String| data.path().join("journal/usage").join(name).join("end").exists();
    let sources = dirs(data.path(), "usage").len();
    journal
        .unsettled_usage(None, &mut |fact| {
            read.entry(fact.counter).or_insert(Counts::ZERO).merge(&fact.counts);
            if merging.is_some() {
                return;
            }
            let journal = journal.clone();
            let merging = merging.insert(std::thread::spawn(move || merge(&journal, Scope::Own)));
            // Until the merge is committed; it would be over soon after that.
            while dirs(data.path(), "usage").iter().filter(|name| ended(name)).count() <= sources
                && !merging.is_finished()
            {
                std::thread::yield_now();
            }
            for _ in 0..A_WHILE {
                if !merging.is_finished() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        })
        .expect("readable");
    assert_eq!(read, before);
    assert!(merging.expect("begun").join().expect("no panic"));
    assert_eq!(sums(&journal), before);
}

#[tokio::test]
async fn a_segment_with_a_gap_stays_as_it_is() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(data.path());
    for first in 0..5 {
        closed(&journal, first).await;
    }
    let segment = journal.segments(Lane::Usage)[0].clone();
    {
        let db = disk::open_sled(segment.dir(), 1 << 20).expect("it opens");
        db.remove(1_u64.to_be_bytes()).expect("there").expect("a chunk");
        db.flush().expect("writable");
    }
    let refused = journal.merge(Scope::Own, &|| false);
    let changed = |error| matches!(error, MergeError::Unreadable(_, SegmentError::Changed));
    assert!(refused.is_err_and(changed));
    assert_eq!(segment.missing().chunks, 1, "and that is reported");
    let before = sums(&journal);
    assert!(merge(&journal, Scope::Own), "the others");
    let left = journal.segments(Lane::Usage);
    assert_eq!((left.len(), left[0].stream), (2, segment.stream));
    assert_eq!(sums(&journal), before);
}

/// Schedule 11.
#[tokio::test]
async fn a_start_finishes_what_a_merge_began() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(data.path());
    for first in [0, 50, 100, 150] {
        closed(&journal, first).await;
    }
    journal.shutdown().expect("a working disk");
    let before = sums(&journal);
    let image = TempDir::new().expect("temporary directory");
    copy(data.path(), image.path());
    assert!(merge(&journal, Scope::Own));
    let merged = journal.segments(Lane::Usage)[0].clone();
    drop(journal);

    // Died before its end was written, and after: with all of its sources left, and some.
    let name = merged.stream.to_string();
    for (ended, removed) in [(false, 0), (true, 0), (true, 1), (true, 3), (true, 4)] {
        let data = TempDir::new().expect("temporary directory");
        copy(image.path(), data.path());
        for source in dirs(data.path(), "usage").iter().take(removed) {
            fs::remove_dir_all(data.path().join("journal/usage").join(source)).expect("there");
        }
        let dir = data.path().join("journal/usage").join(&name);
        copy(merged.dir(), &dir);
        if !ended {
            fs::remove_file(dir.join("end")).expect("there");
        }
        let (journal, _) = open(data.path());
        journal.examine(&|| false);
        assert_eq!(sums(&journal), before, "{ended} {removed}");
        let left = if ended { vec![name.clone()] } else { dirs(image.path(), "usage") };
        let mut found = dirs(data.path(), "usage");
        found.sort();
        let mut left = left;
        left.sort();
        assert_eq!(found, left);
        assert!(!data.path().join("quarantine").exists());
    }
}

#[tokio::test]
async fn a_damaged_list_of_sources_removes_nothing_and_sets_the_segment_aside() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(data.path());
    for first in 0..4 {
        closed(&journal, first).await;
    }
    journal.shutdown().expect("a working disk");
    let image = TempDir::new().expect("temporary directory");
    copy(data.path(), image.path());
    let before = sums(&journal);
    assert!(merge(&journal, Scope::Own));
    let merged = journal.segments(Lane::Usage)[0].clone();
    let dir = image.path().join("journal/usage").join(merged.stream.to_string());
    copy(merged.dir(), &dir);
    fs::write(dir.join("sources"), b"damaged").expect("writable");
    fs::write(dir.join("sources-copy"), b"damaged").expect("writable");
    let (journal, _) = open(image.path());
    assert_eq!(sums(&journal), before);
    assert!(journal.segments(Lane::Usage).len() >= 4);
    assert_eq!(journal.status().quarantined.len(), 1);
}

#[tokio::test]
async fn what_was_merged_of_streams_that_are_here_is_not_replayed() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(data.path());
    for first in 0..4 {
        closed(&journal, first).await;
    }
    journal.shutdown().expect("a working disk");
    let (image, kept) = (TempDir::new().expect("made"), TempDir::new().expect("made"));
    copy(data.path(), image.path());
    assert!(merge(&journal, Scope::Own));
    let merged = journal.segments(Lane::Usage)[0].clone();
    let aside = kept.path().join(merged.stream.to_string());
    copy(merged.dir(), &aside);
    let (journal, _) = open(image.path());
    let refused = journal.prepare_replay(&aside.to_string_lossy());
    assert!(matches!(refused, Err(LogError::Here(_))), "{refused:?}");
    fs::write(aside.join("sources"), b"damaged").expect("writable");
    let refused = journal.prepare_replay(&aside.to_string_lossy());
    assert!(matches!(refused, Err(LogError::Here(_))), "told by the copy: {refused:?}");
    fs::write(aside.join("sources-copy"), b"damaged").expect("writable");
    let refused = journal.prepare_replay(&aside.to_string_lossy());
    assert!(matches!(refused, Err(LogError::Sources(_))), "{refused:?}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("there").map(|entry| entry.expect("read")) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    /// Few counters and many, spread over segments and merged at any time, runs with fresh ones.
    #[test]
    fn a_merge_loses_and_doubles_nothing(
        rounds in proptest::collection::vec(
            (0u64..400, 1u64..150, 1u64..9, proptest::bool::weighted(0.3)), 1..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let data = TempDir::new().expect("temporary directory");
        let (journal, _) = open(data.path());
        let mut expected = Sums::new();
        for (first, many, requests, merges) in rounds {
            let facts = (first..first + many).map(|n| {
                let at = i64::try_from(n * 7 % 13).expect("small");
                (counter(n), counts(requests, at))
            });
            for (counter, counts) in facts.clone() {
                expected.entry(counter).or_insert(Counts::ZERO).merge(&counts);
            }
            runtime.block_on(count(&journal, facts));
            if merges {
                journal.merge(Scope::Own, &|| false).expect("a working disk");
            }
        }
        prop_assert_eq!(&sums(&journal), &expected);
        journal.shutdown().expect("a working disk");
        drop(journal);
        let (journal, _) = open(data.path());
        while journal.merge(Scope::All(None), &|| false).expect("a working disk") {}
        prop_assert_eq!(sums(&journal), expected);
    }
}
