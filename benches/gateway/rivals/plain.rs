//! What the journal is compared with: counters merged in the same way, then as many bytes appended
//! to one file, and `fdatasync`. It encodes nothing, and nothing could read it back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use gatepost::model::fact::{Counter, Counts};
use tokio::sync::watch;

type Tally = HashMap<Counter, Counts>;

struct Shared {
    /// One per worker, so that they do not wait for each other. With the round that will take it.
    shards: Vec<Mutex<(u64, Tally)>>,
    wanted: AtomicU64,
    stopping: AtomicBool,
    committed: watch::Sender<u64>,
}

/// A plain log with its thread.
pub struct Plain {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

impl Plain {
    /// Writes `bytes_per_entry` for each merged counter, once an `interval` or when wanted.
    pub fn start(
        file: &Path,
        workers: usize,
        interval: Duration,
        bytes_per_entry: f64,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            shards: (0..workers).map(|_| Mutex::new((1, Tally::new()))).collect(),
            wanted: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            committed: watch::Sender::new(0),
        });
        let file = File::create(file)?;
        let writing = shared.clone();
        let thread = std::thread::spawn(move || writing.write(file, interval, bytes_per_entry));
        Ok(Self { shared, thread })
    }

    /// Merges counts; the round that will commit them.
    pub fn count(&self, worker: usize, counter: Counter, counts: &Counts) -> u64 {
        let mut shard = self.shared.shards[worker].lock().expect("no panic");
        match shard.1.entry(counter) {
            Entry::Occupied(mut known) => known.get_mut().merge(counts),
            Entry::Vacant(new) => {
                new.insert(*counts);
            }
        }
        shard.0
    }

    /// Waits until `round` is on disk.
    pub async fn durable(&self, round: u64) {
        if self.shared.wanted.fetch_max(round, Ordering::AcqRel) < round {
            self.thread.thread().unpark();
        }
        let mut committed = self.shared.committed.subscribe();
        committed.wait_for(|committed| *committed >= round).await.expect("it runs");
    }

    /// Commits what there is, and ends.
    pub fn stop(self) -> Result<()> {
        self.shared.stopping.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().expect("no panic")
    }
}

impl Shared {
    fn write(&self, mut file: File, interval: Duration, bytes_per_entry: f64) -> Result<()> {
        let (mut round, mut bytes) = (1, Vec::new());
        loop {
            let stopping = self.stopping.load(Ordering::Acquire);
            if self.wanted.load(Ordering::Acquire) < round && !stopping {
                std::thread::park_timeout(interval);
            }
            let mut merged = Tally::new();
            for shard in &self.shards {
                let mut shard = shard.lock().expect("no panic");
                let next = Tally::with_capacity(shard.1.len());
                let (_, tally) = std::mem::replace(&mut *shard, (round + 1, next));
                drop(shard);
                for (counter, counts) in tally {
                    merged
                        .entry(counter)
                        .and_modify(|known: &mut Counts| known.merge(&counts))
                        .or_insert(counts);
                }
            }
            if !merged.is_empty() {
                bytes.resize((merged.len() as f64 * bytes_per_entry) as usize, 7);
                file.write_all(&bytes)?;
                file.sync_data()?;
            }
            self.committed.send_replace(round);
            round += 1;
            if stopping {
                return Ok(());
            }
        }
    }
}
