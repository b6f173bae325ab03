//! The directory that is damaged, and what is in it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use gatepost::journal::{Config, Scope};
use gatepost::model::Timestamp;
use gatepost::model::fact::{AuditEntry, Fact, Lane, StateFact};
use gatepost::model::units::{Size, Span};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::database::Database;
use crate::support::gateway::Gateway as Program;
use crate::support::in_process::{Gateway, config, copy, drain};
use crate::support::postgres::{id, quota, revoked, usage};

/// Requests of every counter.
pub const EACH: i64 = 4;

/// A data directory, and all facts in its journal.
pub struct Good {
    data: TempDir,
    pub chunks: HashMap<(Uuid, u64), Vec<Fact>>,
    /// Facts by stream.
    pub streams: HashMap<Uuid, (Lane, u64)>,
    pub state: Vec<StateFact>,
}

impl Good {
    pub fn path(&self) -> &Path {
        self.data.path()
    }
}

async fn count(gateway: &Gateway, keys: std::ops::Range<u128>, requests: u64) {
    for key in keys.clone() {
        let fact = usage("acme", key, "orders", requests);
        let room = gateway.journal.reserve().unwrap();
        let used = quota(&key.to_string(), requests);
        let _unawaited = gateway.journal.use_quota(room, used.key, used.used);
        let _unawaited = gateway.journal.count(room, fact.counter, fact.counts);
    }
    // State and events come in some segments; of usage there are enough.
    let others = if requests == EACH as u64 { 300 } else { 0 };
    let facts = keys.clone().map(|key| revoked(id(key), Timestamp::NEG_INFINITY)).take(others);
    if others > 0 {
        gateway.journal.append(facts.collect()).unwrap().durable().await.unwrap();
    }
    for key in keys.take(others) {
        let words = || "damage".into();
        let (event_id, actor, action, subject) = (id(key), words(), words(), words());
        gateway.journal.note(AuditEntry { event_id, actor, action, subject });
    }
    for _ in 0..2 {
        gateway.journal.flush().durable().await.unwrap();
    }
}

/// Four lives: one drained in part and was killed; one merged; one ended in order; one was killed.
pub async fn make() -> (Good, Database) {
    let db = Database::new().await;
    let keep = |segment_max_bytes| Config {
        segment_max_bytes,
        retention: Span::secs(24 * 3600),
        ..config()
    };
    let open = |data, size| Gateway::with(data, &db.url, None, keep(size));
    let drained = open(TempDir::new().unwrap(), Size::mib(64));
    count(&drained, 0..1000, EACH as u64).await;
    drain(&drained).await;
    count(&drained, 1000..2000, EACH as u64).await;
    let merging = open(drained.kill().await, Size(1));
    for _ in 0..EACH {
        count(&merging, 2000..3500, 1).await;
    }
    assert!(merging.journal.merge(Scope::Own, &|| false).unwrap());
    let ending = open(merging.shut_down().await, Size::kib(16));
    count(&ending, 4000..5000, EACH as u64).await;
    count(&ending, 5000..6000, EACH as u64).await;
    let killed = open(ending.shut_down().await, Size::mib(64));
    count(&killed, 6000..8000, EACH as u64).await;
    let data = killed.kill().await;

    // What stands beside a journal.
    let mut program = Program::new(None, "");
    program.start().await;
    program.create_client("acme").await;
    program.terminate().await;
    fs::remove_dir_all(program.data_dir().join("journal")).unwrap();
    gatepost::disk::copy_dir(&program.data_dir(), data.path()).unwrap();
    (whole(data), db)
}

/// Reads all of a copy.
fn whole(data: TempDir) -> Good {
    let copied = TempDir::new().unwrap();
    copy(&data.path().join("journal"), &copied.path().join("journal"));
    let (journal, state) = super::open(copied.path(), &crate::support::journal::real());
    journal.examine(&|| false);
    let (mut chunks, mut streams) = (HashMap::new(), HashMap::new());
    for segment in Lane::ALL.into_iter().flat_map(|lane| journal.segments(lane)) {
        assert_eq!(segment.missing().chunks, 0, "it is good");
        for chunk in segment.read(0, usize::MAX).unwrap().chunks {
            chunks.insert((segment.stream, chunk.seq), chunk.facts);
        }
        streams.insert(segment.stream, (segment.lane, segment.facts()));
        segment.release();
    }
    journal.shutdown().unwrap();
    assert!(streams.len() >= 8, "{} segments", streams.len());
    Good { data, chunks, streams, state }
}
