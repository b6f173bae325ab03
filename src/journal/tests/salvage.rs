//! What is in force does not end with the segment that says so: bad sectors, and no room to log it
//! again.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::clock::ManualClock;
use crate::codec::{self, Kind};
use crate::entropy::Entropy;

/// So many revocations in one segment of an earlier process.
async fn revoked(data: &TempDir, count: usize) -> PathBuf {
    let (journal, _) = open(data, Config::default());
    for first in (0..count).step_by(20) {
        let facts = (first..first + 20).map(|n| revocation(&n.to_string())).collect();
        journal.append(facts).expect("room").durable().await.expect("a working disk");
    }
    journal.shutdown().expect("a working disk");
    journal.segments(Lane::State)[0].dir().to_owned()
}

/// Whatever reads it gets EIO.
fn bad_sector(file: &Path) {
    fs::remove_file(file).expect("it is there");
    symlink("/proc/self/mem", file).expect("writable");
}

/// Each stream that is to be made has its name taken by a file.
struct InTheWay(PathBuf);

impl Entropy for InTheWay {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
        let stream = uuid::Builder::from_unix_timestamp_millis(1000, &[7; 10]).into_uuid();
        fs::write(self.0.join(stream.to_string()), "no room").expect("writable");
    }
}

#[tokio::test]
async fn revocations_outlive_a_start_that_cannot_log_them_again() {
    let data = TempDir::new().expect("temporary directory");
    let dir = revoked(&data, 200).await;
    // Some chunks are gone: its end tells of more than there are.
    let end = End { last_seq: 4000, facts: 4000, sealed: true };
    fs::write(dir.join("end"), codec::seal(Kind::End, 1, &end).expect("small")).expect("writable");
    let lane_dir = data.path().join("journal/state");
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let entropy = Arc::new(InTheWay(lane_dir.clone()));
    let metrics = Arc::new(Metrics::new());
    let refused = Journal::open(data.path(), Config::default(), clock, entropy, metrics);
    let said = refused.map(drop).expect_err("they would be lost with the next start").to_string();
    assert!(said.contains(&dir.display().to_string()), "{said}");
    for entry in lane_dir.read_dir().expect("there").map(|entry| entry.expect("readable")) {
        if entry.path().is_file() {
            fs::remove_file(entry.path()).expect("writable");
        }
    }
    for _ in 0..2 {
        let (journal, state) = open(&data, Config::default());
        assert_eq!(state.len(), 200);
        assert_eq!(journal.quarantined().len(), 1);
        journal.shutdown().expect("a working disk");
    }
}

#[tokio::test]
async fn a_bad_sector_costs_its_segment_and_not_the_start() {
    for file in ["usage/end", "usage/db", "state/end", "state/db", "events/end"] {
        let data = TempDir::new().expect("temporary directory");
        revoked(&data, 20).await;
        let (journal, _) = open(&data, Config::default());
        journal.count(journal.reserve().expect("room"), counter(1), ONE);
        let (actor, action, subject) = ("a".into(), "a".into(), "a".into());
        journal.note(AuditEntry { event_id: Uuid::from_u128(1), actor, action, subject });
        journal.shutdown().expect("a working disk");
        let (lane, name) = file.split_once('/').expect("both");
        let lane = Lane::ALL.into_iter().find(|known| known.as_str() == lane).expect("known");
        bad_sector(&journal.segments(lane)[0].dir().join(name));
        drop(journal);
        let (journal, state) = open(&data, Config::default());
        journal.examine(&|| false);
        assert_eq!(state.len(), if file == "state/db" { 0 } else { 20 }, "{file}");
        // Where sled is asked alone it finds nothing, and that is missing.
        let aside = ["usage/end", "state/db"].contains(&file);
        assert_eq!(journal.quarantined().len(), usize::from(aside), "{file}");
        let missing: u64 = journal.segments(Lane::Usage).iter().map(|s| s.missing().chunks).sum();
        assert_eq!(missing, u64::from(file == "usage/db"), "{file}");
        journal.shutdown().expect("a working disk");
    }
}
