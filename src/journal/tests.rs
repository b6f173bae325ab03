//! The journal's promises, one test each; killing and cutting power need the real binary (tests/).

mod aside;
mod events;
mod manifest;
mod room;
mod salvage;
mod starts;
mod unsound;

use tempfile::TempDir;

use std::fs;
use std::path::PathBuf;

use uuid::Uuid;

use super::*;
use crate::clock::SystemClock;
use crate::disk;
use crate::entropy::SystemEntropy;
use crate::model::Timestamp;
use crate::model::fact::{Revocation, RevocationKind};
use crate::model::units::{Size, Span};

fn open(data: &TempDir, config: Config) -> (Journal, Vec<StateFact>) {
    Journal::open(
        data.path(),
        config,
        Arc::new(SystemClock::new()),
        Arc::new(SystemEntropy::new()),
        Arc::new(Metrics::new()),
    )
    .expect("a fresh directory opens")
}

fn counter(n: u128) -> Counter {
    Counter {
        client: "acme".into(),
        key_id: Uuid::from_u128(n),
        table: "orders".into(),
        operation: "read".into(),
        hour: 495_000,
    }
}

const ONE: Counts = Counts { requests: 1, succeeded: 1, ..Counts::ZERO };

fn revocation(id: &str) -> StateFact {
    let at = Timestamp::NEG_INFINITY;
    StateFact::Revoked(Revocation { kind: RevocationKind::Key, id: id.into(), at })
}

fn usage_on_disk(journal: &Journal) -> u64 {
    let mut sum = 0;
    journal.unsettled_usage(None, &mut |fact| sum += fact.counts.requests).expect("readable");
    sum
}

#[tokio::test]
async fn a_durable_count_is_read_back_after_a_restart() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, state) = open(&data, Config::default());
    assert!(state.is_empty());
    for n in 0..300 {
        let room = journal.reserve().expect("empty");
        journal.count(room, counter(n % 100), ONE);
    }
    journal.flush().durable().await.expect("a working disk");
    assert_eq!(usage_on_disk(&journal), 300);
    journal.shutdown().expect("a working disk");
    drop(journal);

    let (journal, _) = open(&data, Config::default());
    journal.examine(&|| false);
    assert_eq!(usage_on_disk(&journal), 300);
    let usage = journal.segments(Lane::Usage);
    assert_eq!(usage.len(), 1);
    assert!(usage[0].is_closed() && !usage[0].is_finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_never_left_to_the_next_interval() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config { interval: Span::secs(3600), ..Config::default() });
    let waiting = (0..4).map(|n| {
        let journal = journal.clone();
        tokio_util::task::TaskTracker::new().spawn(async move {
            for _ in 0..300 {
                journal.count(journal.reserve().expect("room"), counter(n), ONE);
                journal.flush().durable().await.expect("a working disk");
            }
        })
    });
    for waiting in waiting.collect::<Vec<_>>() {
        waiting.await.expect("no panic");
    }
    assert_eq!(usage_on_disk(&journal), 1200);
}

#[tokio::test]
async fn nobody_waits_for_a_journal_that_has_ended() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config::default());
    journal.shutdown().expect("a working disk");
    assert_eq!(journal.flush().durable().await, Err(Full));
    assert_eq!(journal.reserve().expect_err("nothing more is promised"), Full);
}

#[tokio::test]
async fn state_facts_come_back_before_the_first_answer() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config::default());
    let ticket = journal.append(vec![revocation("a"), revocation("b")]).expect("room");
    ticket.durable().await.expect("a working disk");
    journal.shutdown().expect("a working disk");
    drop(journal);
    let (_, state) = open(&data, Config::default());
    assert_eq!(state, [revocation("a"), revocation("b")]);
}

#[tokio::test]
async fn a_process_never_appends_to_a_segment_of_another() {
    let data = TempDir::new().expect("temporary directory");
    for start in 1..4 {
        let (journal, state) = open(&data, Config::default());
        assert_eq!(state.len(), start - 1);
        let ticket = journal.append(vec![revocation("a")]).expect("room");
        ticket.durable().await.expect("a working disk");
        assert_eq!(journal.segments(Lane::State).len(), start);
        journal.shutdown().expect("a working disk");
    }
}

#[tokio::test]
async fn a_tail_beyond_the_end_is_never_read() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config::default());
    for n in 0..3 {
        journal.count(journal.reserve().expect("empty"), counter(n), ONE);
        journal.flush().durable().await.expect("a working disk");
    }
    journal.shutdown().expect("a working disk");
    let dir = journal.segments(Lane::Usage)[0].dir().to_owned();
    drop(journal);
    let end = crate::codec::seal(
        crate::codec::Kind::End,
        1,
        &End { last_seq: 2, facts: 2, sealed: true },
    );
    disk::write_whole(&dir.join("end"), &end.expect("small")).expect("writable");

    let (journal, _) = open(&data, Config::default());
    assert_eq!(usage_on_disk(&journal), 2);
}

#[tokio::test]
async fn a_full_journal_refuses_before_anything_is_done_but_still_revokes() {
    let data = TempDir::new().expect("temporary directory");
    let config = Config { max_pending: 2, interval: Span::secs(3600), ..Config::default() };
    let (journal, _) = open(&data, config);
    for n in 0..2 {
        journal.count(journal.reserve().expect("room"), counter(n), ONE);
    }
    assert_eq!(journal.reserve().expect_err("full"), Full);
    let ticket = journal.append(vec![revocation("a")]).expect("the state lane has its own room");
    ticket.durable().await.expect("a working disk");
    journal.reserve().expect("the commit made room");
}

/// The state lane's directory is a file for a while.
#[tokio::test]
async fn while_the_disk_fails_a_bounded_number_of_state_facts_waits_and_all_of_them_land() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config::default());
    let lane_dir = data.path().join("journal/state");
    fs::remove_dir(&lane_dir).expect("nothing is in it");
    fs::write(&lane_dir, b"in the way").expect("writable");
    let fact = |n: usize| vec![revocation(&n.to_string())];
    for n in 0..STATE_WAITING_MAX {
        assert!(journal.append(fact(n)).expect("it may wait").durable().await.is_err());
    }
    for _ in 0..3 {
        assert_eq!(journal.append(fact(0)).expect_err("enough of them wait"), Full);
    }
    assert_eq!(journal.segments(Lane::State).len(), 0);

    fs::remove_file(&lane_dir).expect("there");
    while journal.flush().durable().await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let ticket = journal.append(fact(STATE_WAITING_MAX)).expect("nothing waits any more");
    ticket.durable().await.expect("a working disk");
    journal.shutdown().expect("a working disk");
    drop(journal);
    let (_, state) = open(&data, Config::default());
    let all: Vec<_> = (0..=STATE_WAITING_MAX).flat_map(fact).collect();
    assert_eq!(state, all, "each of them once");
}

#[tokio::test]
async fn drop_and_count_passes_and_counts_what_it_drops() {
    let data = TempDir::new().expect("temporary directory");
    let config = Config {
        max_pending: 1,
        interval: Span::secs(3600),
        on_full: OnFull::DropAndCount,
        ..Config::default()
    };
    let (journal, _) = open(&data, config);
    for n in 0..5 {
        journal.count(journal.reserve().expect("always"), counter(n), ONE);
    }
    journal.flush().durable().await.expect("a working disk");
    assert_eq!(usage_on_disk(&journal), 1);
    let text = journal.metrics.encode();
    assert!(text.contains("gatepost_journal_dropped_total{lane=\"usage\"} 4"), "{text}");
}

#[tokio::test]
async fn a_large_segment_is_closed_and_all_of_it_stays_readable() {
    let data = TempDir::new().expect("temporary directory");
    let config = Config { segment_max_bytes: Size::kib(1), ..Config::default() };
    let (journal, _) = open(&data, config);
    for round in 0..10 {
        for n in 0..100 {
            journal.count(journal.reserve().expect("room"), counter(round * 100 + n), ONE);
        }
        journal.flush().durable().await.expect("a working disk");
    }
    assert!(journal.segments(Lane::Usage).len() > 3);
    assert_eq!(usage_on_disk(&journal), 1000);
}

#[tokio::test]
async fn settled_segments_go_after_their_retention_and_not_before() {
    let data = TempDir::new().expect("temporary directory");
    let config = Config { retention: Span::secs(0), ..Config::default() };
    let (journal, _) = open(&data, config.clone());
    journal.count(journal.reserve().expect("room"), counter(1), ONE);
    journal.shutdown().expect("a working disk");
    drop(journal);

    let (journal, _) = open(&data, config);
    journal.examine(&|| false);
    journal.reclaim(&|segment| segment.is_finished(), &mut |gone| panic!("{gone:?}"));
    assert_eq!(journal.segments(Lane::Usage).len(), 1, "not applied yet");
    let segment = journal.segments(Lane::Usage)[0].clone();
    segment.mark_sent().expect("writable");
    segment.set_applied(segment.durable_seq());
    let lane_dir = segment.dir().parent().expect("a lane").to_owned();
    fs::create_dir(lane_dir.join(".gone-half")).expect("writable");
    journal.reclaim(&|segment| segment.is_finished(), &mut |_| ());
    assert!(journal.segments(Lane::Usage).is_empty());
    assert!(!segment.dir().exists());
    journal.shutdown().expect("a working disk");
    drop(journal);
    drop(open(&data, Config::default()));
    assert_eq!(lane_dir.read_dir().expect("there").count(), 0, "a kill left half of a removal");
}

#[tokio::test]
async fn a_half_written_snapshot_does_not_keep_a_segment_from_opening() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config::default());
    journal.append(vec![revocation("a")]).expect("room").durable().await.expect("a working disk");
    journal.shutdown().expect("a working disk");
    let dir = journal.segments(Lane::State)[0].dir().to_owned();
    drop(journal);
    std::fs::write(dir.join("snap.0000000000000042.generating"), b"half").expect("writable");
    let (_, state) = open(&data, Config::default());
    assert_eq!(state.len(), 1);
}

#[tokio::test]
async fn a_damaged_segment_is_set_aside_and_does_not_keep_the_journal_from_opening() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config::default());
    journal.count(journal.reserve().expect("room"), counter(1), ONE);
    journal.shutdown().expect("a working disk");
    let dir = journal.segments(Lane::Usage)[0].dir().to_owned();
    drop(journal);
    fs::write(dir.join("end"), b"not a frame").expect("writable");
    let (journal, _) = open(&data, Config::default());
    assert!(journal.segments(Lane::Usage).is_empty());
    let reports = journal.quarantined();
    assert_eq!(reports.len(), 1);
    assert!(data.path().join("quarantine").join(&reports[0].name).join("db").exists());
}

#[tokio::test]
async fn of_a_segment_that_breaks_half_way_what_is_not_applied_is_missing() {
    // Where it is known how many facts were applied, and where it is not.
    for (applied, facts, exact) in [(0, 4, true), (1, 3, true), (2, 0, false)] {
        let data = TempDir::new().expect("temporary directory");
        let (journal, _) = open(&data, Config::default());
        for n in 0..4 {
            journal.count(journal.reserve().expect("room"), counter(n), ONE);
            journal.flush().durable().await.expect("a working disk");
        }
        journal.shutdown().expect("a working disk");
        let segment = journal.segments(Lane::Usage)[0].clone();
        segment.counted(0, 1, 1);
        segment.set_applied(applied);
        journal.put_aside(&segment, &crate::codec::CodecError::Damaged.into());
        let missing = journal.quarantined()[0].missing;
        assert_eq!(missing, Missing { chunks: 4 - applied, facts, exact });
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_costs_its_segment_and_is_named() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config::default());
    journal.count(journal.reserve().expect("room"), counter(1), ONE);
    journal.shutdown().expect("a working disk");
    let end = journal.segments(Lane::Usage)[0].dir().join("end");
    drop(journal);
    fs::remove_file(&end).expect("there");
    fs::create_dir(&end).expect("writable");
    let (journal, _) = open(&data, Config::default());
    let reports = journal.quarantined();
    assert!(reports[0].reason.contains(&format!("{}: ", end.display())), "{reports:?}");
}

/// The lanes' directories are files.
#[tokio::test]
async fn all_that_could_not_be_written_is_told_at_the_end() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config { interval: Span::secs(3600), ..Config::default() });
    for lane in Lane::ALL {
        let lane_dir = data.path().join("journal").join(lane.as_str());
        fs::remove_dir(&lane_dir).expect("nothing is in it");
        fs::write(&lane_dir, b"in the way").expect("writable");
    }
    for n in 0..3 {
        journal.count(journal.reserve().expect("room"), counter(n), ONE);
    }
    let _unawaited = journal.append(vec![revocation("a"), revocation("b")]).expect("room");
    let word = || "a".into();
    let (actor, action, subject) = (word(), word(), word());
    journal.note(AuditEntry { event_id: Uuid::from_u128(1), actor, action, subject });
    let error = journal.shutdown().expect_err("nothing can be written");
    let lost = Unwritten { counters: 3, state: 2, events: 1 };
    assert!(matches!(&error, JournalError::Unwritten(unwritten) if *unwritten == lost), "{error}");
    let said = error.to_string();
    assert!(said.ends_with("3 counters, 2 changes of clients and keys, 1 audit entries"), "{said}");
}

#[tokio::test]
async fn a_damaged_end_does_not_bring_a_revoked_key_back() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config::default());
    journal.append(vec![revocation("a")]).expect("room").durable().await.expect("a working disk");
    journal.shutdown().expect("a working disk");
    let dir = journal.segments(Lane::State)[0].dir().to_owned();
    drop(journal);
    fs::write(dir.join("end"), b"not a frame").expect("writable");
    let (_, state) = open(&data, Config::default());
    assert_eq!(state, [revocation("a")]);
}

#[tokio::test]
async fn only_the_writer_itself_says_where_a_stream_ends() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config::default());
    journal.count(journal.reserve().expect("room"), counter(1), ONE);
    journal.flush().durable().await.expect("a working disk");
    let segment = journal.segments(Lane::Usage)[0].clone();
    let copy = TempDir::new().expect("temporary directory");
    let lane_dir = copy.path().join("journal/usage").join(segment.stream.to_string());
    fs::create_dir_all(&lane_dir).expect("writable");
    for entry in segment.dir().read_dir().expect("there").map(|entry| entry.expect("read")) {
        if entry.path().is_file() {
            fs::copy(entry.path(), lane_dir.join(entry.file_name())).expect("copied");
        }
    }
    let (twin, _) = open(&copy, Config::default());
    twin.examine(&|| false);
    assert_eq!(usage_on_disk(&twin), 1);
    let half = &twin.segments(Lane::Usage)[0];
    assert!(!half.is_sealed(), "the original may go on");
    assert_eq!(half.missing().chunks, 0, "what was laid out and never written is not missing");
    journal.shutdown().expect("a working disk");
    assert!(segment.is_sealed());
}
