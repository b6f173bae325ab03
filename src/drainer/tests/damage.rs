//! What is damaged while the gateway lives is reported before the ledger passes it.

use std::fs;
use std::path::Path;

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::clock::ManualClock;
use crate::disk::{self, StoreError};
use crate::entropy::{Entropy, SeededEntropy, SharedEntropy};
use crate::journal::{Missing, Segment};
use crate::model::fact::{Revocation, RevocationKind, StateFact};

/// Keys counted in each commit: a chunk as a rule.
const KEYS: u128 = 5;
/// Facts in all.
const ISSUED: u64 = 200 * KEYS as u64;

/// What becomes of a `db`: `None`, it is gone. The number is where a chunk in its middle begins.
type Harm = fn(Vec<u8>, usize) -> Option<Vec<u8>>;

const HARMS: [(&str, Harm); 5] = [
    ("gone", |_, _| None),
    ("cut", |bytes, at| Some(bytes[..at].to_vec())),
    ("zeros", |mut bytes, at| {
        bytes[at..].iter_mut().take(300).for_each(|byte| *byte = 0);
        Some(bytes)
    }),
    ("a bit", |mut bytes, at| {
        bytes[at + 60] ^= 4;
        Some(bytes)
    }),
    ("garbage", |mut bytes, at| {
        let end = bytes.len().min(at + 800);
        SeededEntropy::new(7).fill(&mut bytes[at..end]);
        Some(bytes)
    }),
];

fn harm(dir: &Path, stream: uuid::Uuid, harm: Harm) {
    let db = dir.join("db");
    let bytes = fs::read(&db).expect("readable");
    let places = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(stream.as_bytes()));
    let places: Vec<_> = places.collect();
    let middle = places[places.len() / 2];
    match harm(bytes, middle) {
        Some(bytes) => fs::write(db, bytes).expect("writable"),
        None => fs::remove_file(db).expect("it is there"),
    }
}

/// Segments of many chunks, the last one open yet.
async fn backlog(data: &TempDir) -> Journal {
    let config = journal::Config {
        interval: Span::secs(3600),
        segment_max_bytes: Size::kib(8),
        ..journal::Config::default()
    };
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
    let opened = Journal::open(data.path(), config, clock, entropy, Arc::new(Metrics::new()));
    let journal = opened.expect("a working disk").0;
    for commit in 0..200 {
        count(&journal, commit * KEYS..(commit + 1) * KEYS).await;
    }
    journal
}

/// Drains all that there is; how much was counted.
fn drained(journal: &Journal, bounds: Bounds) -> u64 {
    let mut sum = 0;
    loop {
        let gathered = usage(journal, bounds);
        if gathered.segments.is_empty() {
            return sum;
        }
        sum += requests(&gathered);
        applied(&gathered);
    }
}

/// What is reported of a segment, wherever it is by now.
fn reported(journal: &Journal, segment: &Segment) -> Missing {
    let aside = journal.quarantined();
    let report = aside.iter().find(|report| report.stream == Some(segment.stream));
    report.map_or(segment.missing(), |report| report.missing)
}

#[tokio::test]
async fn what_is_lost_between_close_and_drain_is_reported_exactly() {
    for (name, how) in HARMS {
        let data = TempDir::new().expect("temporary directory");
        let journal = backlog(&data).await;
        let segment = journal.segments(Lane::Usage)[1].clone();
        assert!(segment.is_closed() && segment.durable_seq() > 20);
        harm(segment.dir(), segment.stream, how);
        let counted = drained(&journal, Bounds { sums: 30, ..ALL });
        let missing = reported(&journal, &segment);
        assert_eq!(counted + missing.facts, ISSUED, "{name}: {counted} and {missing:?}");
        assert!(missing.facts > 0 && missing.exact, "{name}: {missing:?}");
        // (The journal's thread may commit in the middle of what is counted: two chunks.)
        let chunks = missing.facts / KEYS as u64..=missing.facts;
        assert!(chunks.contains(&missing.chunks), "{name}: {missing:?}");
        let told = journal.status().lanes.iter().map(|lane| lane.missing.chunks).sum::<u64>();
        assert!(told > 0 || !journal.quarantined().is_empty(), "{name}");
    }
}

/// The first segment, of which a part is in Postgres: how many requests that is, and how many facts
/// the whole has.
fn begun(journal: &Journal) -> (Arc<Segment>, u64, u64) {
    let segment = journal.segments(Lane::Usage)[0].clone();
    let first = usage(journal, Bounds { sums: 16 * KEYS as usize, ..ALL });
    let (before, of_it) = (requests(&first), segment.facts());
    applied(&first);
    segment.release();
    (segment, before, of_it)
}

#[tokio::test]
async fn what_is_in_postgres_already_is_not_reported_as_lost() {
    for (name, how) in HARMS {
        let data = TempDir::new().expect("temporary directory");
        let journal = backlog(&data).await;
        let (segment, before, of_it) = begun(&journal);
        assert!(segment.applied_seq() > 1 && segment.applied_seq() < segment.durable_seq());
        harm(segment.dir(), segment.stream, how);
        let counted = before + drained(&journal, ALL);
        let missing = reported(&journal, &segment);
        assert_eq!(counted + missing.facts, ISSUED, "{name}: {counted} and {missing:?}");
        assert!(missing.exact, "{name}: {missing:?}");

        // A ledger that moves back asks for what is there no more.
        if journal.segments(Lane::Usage).iter().any(|known| known.stream == segment.stream) {
            segment.set_applied(0);
            let again = drained(&journal, ALL);
            let missing = reported(&journal, &segment);
            assert_eq!(again + missing.facts, of_it, "{name}: {again} and {missing:?}");
        }
    }
}

/// While it is on, each stream that is to be made has its name taken by a file.
struct InTheWay {
    lane_dir: PathBuf,
    on: AtomicBool,
    random: SystemEntropy,
}

impl Entropy for InTheWay {
    fn fill(&self, bytes: &mut [u8]) {
        self.random.fill(bytes);
        if self.on.load(Ordering::Acquire) {
            bytes.fill(7);
            let stream = uuid::Builder::from_unix_timestamp_millis(1000, &[7; 10]).into_uuid();
            fs::write(self.lane_dir.join(stream.to_string()), "no room").expect("writable");
        }
    }
}

fn opened(data: &TempDir, entropy: SharedEntropy) -> (Journal, Vec<StateFact>) {
    let config = journal::Config { segment_max_bytes: Size::kib(1), ..journal::Config::default() };
    let (clock, metrics) = (Arc::new(ManualClock::new(Timestamp(1_000_000))), Metrics::new());
    Journal::open(data.path(), config, clock, entropy, Arc::new(metrics)).expect("a working disk")
}

#[tokio::test]
async fn revocations_outlive_the_segment_that_a_drain_cannot_read() {
    for (name, how) in HARMS {
        let data = TempDir::new().expect("temporary directory");
        let (lane_dir, on) = (data.path().join("journal/state"), AtomicBool::new(false));
        let entropy = Arc::new(InTheWay { lane_dir, on, random: SystemEntropy::new() });
        let (journal, _) = opened(&data, entropy.clone());
        let revoked: Vec<_> = (0..200)
            .map(|n| {
                let (kind, id) = (RevocationKind::Key, n.to_string().as_str().into());
                StateFact::Revoked(Revocation { kind, id, at: Timestamp::NEG_INFINITY })
            })
            .collect();
        for facts in revoked.chunks(10) {
            let appended = journal.append(facts.to_vec()).expect("room");
            appended.durable().await.expect("a working disk");
        }
        // (Born in one moment, they stand in any order.)
        let closed = journal.segments(Lane::State).into_iter().find(|segment| segment.is_closed());
        let segment = closed.expect("more than one");
        harm(segment.dir(), segment.stream, how);

        let drain = || gather(&journal, Lane::State, ALL, &|| revoked.clone());
        entropy.on.store(true, Ordering::Release);
        let failed = drain().expect("the others can be sent");
        let stays = segment.dir().exists() && journal.quarantined().is_empty();
        assert!(failed.trouble.is_some() && stays, "{name}: it cannot be logged again");
        entropy.on.store(false, Ordering::Release);
        applied(&failed);
        let first = drain().expect("a working disk");
        assert_eq!((first.trouble.is_none(), journal.quarantined().len()), (true, 1), "{name}");
        applied(&first);
        assert!(drain().expect("a working disk").batch.state.len() >= 200, "{name}: sent again");
        journal.shutdown().expect("a working disk");
        drop((journal, segment, first, failed));

        let (_, state) = opened(&data, Arc::new(SystemEntropy::new()));
        assert!(revoked.iter().all(|fact| state.contains(fact)), "{name}: after a restart");
    }
}

#[tokio::test]
async fn a_segment_that_cannot_be_marked_is_sent_all_the_same() {
    let data = TempDir::new().expect("temporary directory");
    let journal = backlog(&data).await;
    let segment = journal.segments(Lane::Usage)[0].clone();
    // Whoever opens it for writing gets an error.
    fs::create_dir(segment.dir().join("sent")).expect("writable");
    assert_eq!(requests(&usage(&journal, ALL)), ISSUED);
    assert!(segment.is_sent(), "and not merged");
}

#[tokio::test]
async fn what_sled_loses_in_silence_is_missing_as_far_as_postgres_does_not_have_it() {
    const EACH: u64 = KEYS as u64;
    let data = TempDir::new().expect("temporary directory");
    let journal = backlog(&data).await;
    let (segment, before, of_it) = begun(&journal);
    let from = segment.applied_seq();
    {
        let open = || disk::open_sled(segment.dir(), 1 << 20);
        let db = disk::patiently(open, |error| matches!(error, StoreError::Locked));
        let db = db.expect("it opens");
        for seq in [from - 3, from + 9] {
            db.remove(seq.to_be_bytes()).expect("there").expect("a chunk");
        }
        db.flush().expect("writable");
    }
    let counted = before + drained(&journal, ALL);
    let missing = Missing { chunks: 1, facts: EACH, exact: true };
    assert_eq!((counted, segment.missing()), (ISSUED - EACH, missing));
    // A ledger that moved back asks for the other one as well.
    segment.set_applied(0);
    let again = drained(&journal, ALL);
    let missing = Missing { chunks: 2, facts: 2 * EACH, exact: true };
    assert_eq!((again, segment.missing()), (of_it - 2 * EACH, missing));
}
