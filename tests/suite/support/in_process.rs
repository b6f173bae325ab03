//! Journal, cache and drainer of one data directory, as a process would have them.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatepost::cache::{self, Cache, Declared, Source};
use gatepost::clock::{SharedClock, SystemClock};
use gatepost::drainer::{self, Drainer};
use gatepost::entropy::SystemEntropy;
use gatepost::journal::{self, Journal, Reader};
use gatepost::metrics::Metrics;
use gatepost::model::units::{Size, Span};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::postgres;

/// Long: nothing is committed or drained unless a test asks for it.
pub const NEVER: Span = Span(Duration::from_secs(24 * 3600));

/// Small segments, gone as soon as they are settled.
pub fn config() -> journal::Config {
    journal::Config {
        interval: NEVER,
        segment_max_bytes: Size::kib(2),
        ballast: Size(0),
        retention: Span::secs(0),
        ..journal::Config::default()
    }
}

/// The parts of one process.
pub struct Gateway {
    pub data: TempDir,
    pub journal: Journal,
    pub cache: Arc<Cache>,
    pub drainer: Drainer,
    pub metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    draining: Option<JoinHandle<()>>,
}

impl Gateway {
    /// In an empty directory, draining to `url`.
    pub fn new(url: &str) -> Self {
        Self::open(TempDir::new().expect("a directory"), url, None)
    }

    /// Takes up what is in `data`.
    pub fn open(data: TempDir, url: &str, source: Option<Arc<dyn Source>>) -> Self {
        Self::with(data, url, source, config())
    }

    /// With a journal of its own kind.
    pub fn with(
        data: TempDir,
        url: &str,
        source: Option<Arc<dyn Source>>,
        config: journal::Config,
    ) -> Self {
        Self::read_by(Reader::InProcess, data, url, source, config)
    }

    /// With segments of earlier processes read by `reader`.
    pub fn read_by(
        reader: Reader,
        data: TempDir,
        url: &str,
        source: Option<Arc<dyn Source>>,
        config: journal::Config,
    ) -> Self {
        Self::by(Arc::new(SystemClock::new()), reader, data, url, source, config)
    }

    /// By a clock of its own.
    pub fn by(
        clock: SharedClock,
        reader: Reader,
        data: TempDir,
        url: &str,
        source: Option<Arc<dyn Source>>,
        config: journal::Config,
    ) -> Self {
        let entropy = Arc::new(SystemEntropy::new());
        let metrics = Arc::new(Metrics::new());
        let (handed, measured) = (entropy.clone(), metrics.clone());
        let (journal, state) =
            Journal::open_with(data.path(), config, reader, clock.clone(), handed, measured)
                .expect("the journal opens");
        let cache = Cache::open(
            data.path(),
            // No session stays hot: what is loaded again must be as good.
            cache::Config { hot_sessions: 1, ..cache::Config::default() },
            Declared::default(),
            source,
            clock.clone(),
            metrics.clone(),
            TaskTracker::new(),
        );
        let cache = cache.expect("the cache opens");
        state.iter().for_each(|fact| cache.pin(fact));
        let (drainer, worker) = drainer::new(drainer::Parts {
            journal: journal.clone(),
            cache: cache.clone(),
            sink: postgres::sink(url, "gw-1"),
            config: drainer::Config { interval: NEVER, ..drainer::Config::default() },
            clock,
            entropy,
            metrics: metrics.clone(),
            listener: Arc::new(()),
        });
        let shutdown = CancellationToken::new();
        let draining = Some(tokio::spawn(worker.run(shutdown.clone())));
        Self { data, journal, cache, drainer, metrics, shutdown, draining }
    }

    /// Ends the drain where it stands, transaction or not.
    pub async fn stop_draining(&mut self) {
        self.shutdown.cancel();
        if let Some(draining) = self.draining.take() {
            draining.await.expect("no panic");
        }
    }

    /// An orderly end. What is left of it is its directory.
    pub async fn shut_down(mut self) -> TempDir {
        self.stop_draining().await;
        self.journal.shutdown().expect("a working disk");
        self.data
    }

    /// What `kill -9` leaves at this moment: a copy of its files as they are.
    pub async fn kill(mut self) -> TempDir {
        self.stop_draining().await;
        let left = clone(self.data.path());
        // Only so that its thread ends.
        drop(self.journal.shutdown());
        left
    }
}

/// Counts one request for each of `keys`, in one commit. Where segments are small enough this one
/// is closed when it returns.
pub async fn count(gateway: &Gateway, keys: Range<u128>) {
    for key in keys {
        let fact = postgres::usage("acme", key, "orders", 1);
        let room = gateway.journal.reserve().expect("room");
        let _unawaited = gateway.journal.count(room, fact.counter, fact.counts);
    }
    // Segments are closed after a commit, and before the next one.
    for _ in 0..2 {
        gateway.journal.flush().durable().await.expect("a working disk");
    }
}

/// A copy of a data directory's journal.
pub fn clone(data: &Path) -> TempDir {
    let to = TempDir::new().expect("a directory");
    copy(&data.join("journal"), &to.path().join("journal"));
    to
}

/// A copy of a directory that may be in use.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new directory");
    for entry in fs::read_dir(from).into_iter().flatten() {
        let entry = entry.expect("readable");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy(&entry.path(), &to);
            continue;
        }
        match fs::copy(entry.path(), to) {
            // sled renames a snapshot when it is whole: a kill may come before or after.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            copied => assert!(copied.is_ok(), "{copied:?}"),
        }
    }
    // A settled segment was removed meanwhile: so it is in the image.
    if !from.exists() {
        fs::remove_dir_all(to).expect("its copy");
    }
}

/// Drains until it succeeds: the fault is over, and what it broke is mended by itself.
pub async fn drain(gateway: &Gateway) {
    let mut last = String::new();
    let trying = async {
        while let Err(error) = gateway.drainer.drain_now().await {
            assert!(!error.contains("stopped"), "{error}");
            last = error;
        }
    };
    let drained = tokio::time::timeout(Duration::from_secs(30), trying).await;
    assert!(drained.is_ok(), "not drained: {last}; {:?}", gateway.journal.status());
}
