//! The parts of a gateway that move counts, in this process and without HTTP.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use gatepost::cache::{self, Cache, Declared};
use gatepost::clock::SystemClock;
use gatepost::drainer::{self, Drainer};
use gatepost::entropy::SystemEntropy;
use gatepost::journal::{self, Journal};
use gatepost::metrics::Metrics;
use gatepost::model::units::Span;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
        let sink = crate::support::postgres::sink(url, "bench");
        let (drainer, worker) = drainer::new(drainer::Parts {
            journal: journal.clone(),
            cache,
            sink,
            config,
            clock: clock.clone(),
            entropy,
            metrics: metrics.clone(),
        });
        let stop = CancellationToken::new();
        tasks.spawn(worker.run(stop.clone()));
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
