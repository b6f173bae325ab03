//! The end of the drain: nobody is left at work in the data directory.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::cache::{self, Cache, Declared};
use crate::clock::{Clock, SharedClock};
use crate::drainer::{Config, Parts, Worker};
use crate::postgres::{self, DatabaseUrl, Postgres};

/// Whoever asks it for a span waits while the gate is held.
#[derive(Default)]
struct Gate(Mutex<()>);

impl Gate {
    fn hold(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Gated(SystemClock, Arc<Gate>);

impl Clock for Gated {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        drop(self.1.hold());
        self.0.monotonic()
    }
}

/// A drainer, whose Postgres is never asked.
fn worker(data: &TempDir, journal: Journal) -> Worker {
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
    let (metrics, tasks) = (Arc::new(Metrics::new()), TaskTracker::new());
    let url = Some(DatabaseUrl::new("postgres://nobody@127.0.0.1:1/none"));
    let config = postgres::Config { url, ..postgres::Config::default() };
    let postgres = Postgres::new(config, clock.clone(), entropy.clone(), metrics.clone());
    let (config, declared) = (cache::Config::default(), Declared::default());
    let shared: SharedClock = clock.clone();
    let cache = Cache::open(data.path(), config, declared, None, shared, metrics.clone(), tasks);
    let parts = Parts {
        journal,
        cache: cache.expect("a cache"),
        sink: postgres.expect("a URL").sink("gw-1".into(), Duration::from_secs(1)),
        config: Config::default(),
        clock,
        entropy,
        metrics,
        listener: Arc::new(()),
    };
    crate::drainer::new(parts).1
}

#[tokio::test]
async fn the_removal_that_a_pass_left_behind_is_over_when_the_drain_has_ended() {
    let data = TempDir::new().expect("temporary directory");
    let gate = Arc::<Gate>::default();
    let config = journal::Config { retention: Span::secs(0), ..journal::Config::default() };
    let (clock, entropy) = (Gated(SystemClock::new(), gate.clone()), SystemEntropy::new());
    let metrics = Arc::new(Metrics::new());
    let opened = Journal::open(data.path(), config, Arc::new(clock), Arc::new(entropy), metrics);
    let journal = opened.expect("a working disk").0;
    count(&journal, 0..1).await;
    journal.shutdown().expect("a working disk");
    applied(&usage(&journal, ALL));
    let dir = journal.segments(Lane::Usage)[0].dir().to_owned();

    let mut worker = worker(&data, journal);
    let held = gate.hold();
    assert!(worker.settle().now_or_never().is_none(), "the pass is dropped where it waits");
    let (shutdown, goes_on) = (CancellationToken::new(), async move { drop(held) });
    shutdown.cancel();
    let ended = async {
        worker.run(shutdown).await;
        dir.exists()
    };
    let (left, ()) = tokio::join!(biased; ended, goes_on);
    assert!(!left, "it goes on in a directory that the next process may have");
}
