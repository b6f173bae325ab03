//! Journals that earlier processes left, read as the real program reads them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatepost::clock::SystemClock;
use gatepost::entropy::SystemEntropy;
use gatepost::journal::{Config, Journal, JournalError, Reader};
use gatepost::metrics::Metrics;
use gatepost::model::Timestamp;
use gatepost::model::fact::{Lane, StateFact};
use gatepost::model::units::Size;
use tempfile::TempDir;

use super::postgres::{id, quota, revoked, usage};

/// The real program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_gatepost");

/// By the real child.
pub fn real() -> Reader {
    Reader::child(Path::new(PROGRAM))
}

pub fn open(data: &Path, reader: Reader) -> Result<(Journal, Vec<StateFact>), JournalError> {
    let config = Config { segment_max_bytes: Size::mib(64), ..Config::default() };
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
    Journal::open_with(data, config, reader, clock, entropy, Arc::new(Metrics::new()))
}

/// A journal that an earlier process left: `state` revocations, and `counters` counters with one
/// request each.
pub async fn left(state: u128, counters: u128) -> TempDir {
    let data = TempDir::new().unwrap();
    let (journal, _) = open(data.path(), real()).unwrap();
    if state > 0 {
        let facts = (0..state).map(|n| revoked(id(n), Timestamp::NEG_INFINITY)).collect();
        journal.append(facts).unwrap().durable().await.unwrap();
    }
    for n in 0..counters {
        let fact = usage("acme", n, &format!("t{n}"), 1);
        let _unawaited = journal.count(journal.reserve().unwrap(), fact.counter, fact.counts);
    }
    journal.shutdown().unwrap();
    data
}

/// What is used of so many quotas of this year, two of each; of these facts a journal is left.
pub async fn left_quotas(quotas: u128) -> TempDir {
    let data = TempDir::new().unwrap();
    let (journal, _) = open(data.path(), real()).unwrap();
    for n in 0..quotas {
        let used = quota(&format!("key-{n}"), 2);
        let _unawaited = journal.use_quota(journal.reserve().unwrap(), used.key, used.used);
    }
    journal.shutdown().unwrap();
    data
}

/// Makes it the journal of a data directory that is not there yet.
pub fn move_to(left: TempDir, data: &Path) {
    fs::create_dir(data).unwrap();
    fs::rename(left.path().join("journal"), data.join("journal")).unwrap();
}

/// Requests on disk that are not known to be applied.
pub fn counted(journal: &Journal) -> u64 {
    let mut sum = 0;
    journal.unsettled_usage(None, &mut |fact| sum += fact.counts.requests).unwrap();
    sum
}

/// The one segment of a lane.
pub fn segment_dir(data: &Path, lane: Lane) -> PathBuf {
    let streams = data.join("journal").join(lane.as_str()).read_dir().unwrap();
    let [dir] = streams.map(|entry| entry.unwrap().path()).collect::<Vec<_>>().try_into().unwrap();
    dir
}

/// A copy of a segment, under its own name.
pub fn copy_of(dir: &Path) -> (TempDir, PathBuf) {
    let to = TempDir::new().unwrap();
    let copy = to.path().join(dir.file_name().unwrap());
    fs::create_dir(&copy).unwrap();
    gatepost::disk::copy_dir(dir, &copy).unwrap();
    (to, copy)
}
