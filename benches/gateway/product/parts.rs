//! The parts of a gateway that move counts, in this process and without HTTP.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use gatepost::cache::{self, Cache, Declared};
use gatepost::clock::SystemClock;
use gatepost::drainer::{self, Drainer};
use gatepost::entropy::SystemEntropy;
use gatepost::journal::{self, Journal, MergeError, Scope};
use gatepost::metrics::Metrics;
use gatepost::model::units::Span;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::report::progress::progress;

/// As a gateway does: a backlog is merged whenever it is worth while.
fn keep_merged(journal: &Journal, stop: &CancellationToken) {
    const EVERY: Duration = Duration::from_secs(1);
    while !stop.is_cancelled() {
        match journal.merge(Scope::Own, &|| stop.is_cancelled()) {
            Ok(true) => {}
            Ok(false) | Err(MergeError::Stopped) => std::thread::sleep(EVERY),
            Err(error) => {
                progress(&format!("the backlog is not merged: {error}"));
                std::thread::sleep(EVERY);
            }
        }
    }
}

/// Journal, cache and drainer of one data directory, as a gateway has them.
pub struct Parts {
    pub journal: Journal,
    pub drainer: Drainer,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<SystemClock>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Parts {
    /// On the data directory `data`, draining to `url` once an `interval`.
    pub fn open(data: &Path, url: &str, config: journal::Config, interval: Span) -> Result<Self> {
        let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
        let (metrics, tasks) = (Arc::new(Metrics::new()), TaskTracker::new());
        let (journal, _) =
            Journal::open(data, config, clock.clone(), entropy.clone(), metrics.clone())?;
        let cache = Cache::open(
            data,
            cache::Config::default(),
            Declared::default(),
            None,
            clock.clone(),
            metrics.clone(),
            tasks.clone(),
        )?;
        let config = drainer::Config { interval, ..drainer::Config::default() };
        let sink = super::support::postgres::sink(url, "bench");
        let (drainer, worker) = drainer::new(drainer::Parts {
            journal: journal.clone(),
            cache,
            sink,
            config,
            clock: clock.clone(),
            entropy,
            metrics: metrics.clone(),
            listener: Arc::new(()),
        });
        let stop = CancellationToken::new();
        tasks.spawn(worker.run(stop.clone()));
        let (merged, stopped) = (journal.clone(), stop.clone());
        tasks.spawn_blocking(move || keep_merged(&merged, &stopped));
        Ok(Self { journal, drainer, metrics, clock, stop, tasks })
    }

    /// Ends the drain and the journal.
    pub async fn end(self) -> Result<()> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        Ok(self.journal.shutdown()?)
    }
}
