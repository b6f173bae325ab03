//! The parts that `serve` and commands in process have in common, built in the order in which they
//! need each other: lock, journal (state facts first), cache, Postgres, drainer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Error;
use super::data::DataDir;
use super::directory::PostgresDirectory;
use super::quotas::{QuotaBook, limits};
use super::storage::Storage;
use crate::admin::{self, Contact, Control, Directory};
use crate::admission::Admission;
use crate::cache::{Cache, Source};
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::drainer::{self, Drainer};
use crate::entropy::{SharedEntropy, SystemEntropy};
use crate::journal::{Journal, Reader};
use crate::metrics::Metrics;
use crate::model::Name;
use crate::model::fact::{Revocation, StateFact};
use crate::postgres::feed::FeedHandle;
use crate::postgres::{Feed, Postgres};
use crate::tokens::{self, Keys, Tokens};

/// How long what runs beside requests may take to end: more than all of its own deadlines, so that
/// only what stands still is left behind.
const TASKS_MAX: Duration = Duration::from_secs(60);

/// Postgres, as far as it is configured.
pub struct Linked {
    pub postgres: Arc<Postgres>,
    pub drainer: Drainer,
}

impl Linked {
    fn new(
        postgres: Postgres,
        drainer: drainer::Parts,
        tasks: &TaskTracker,
        closing: &CancellationToken,
    ) -> Self {
        let (drainer, worker) = drainer::new(drainer);
        tasks.spawn(worker.run(closing.clone()));
        Self { postgres: Arc::new(postgres), drainer }
    }
}

/// Everything but the listeners.
pub struct Parts {
    pub clock: SharedClock,
    pub entropy: SharedEntropy,
    pub metrics: Arc<Metrics>,
    pub tasks: TaskTracker,
    /// Cancelled when the listeners shall stop.
    pub stopping: CancellationToken,
    /// Cancelled when the listeners have stopped: feed and drainer end.
    pub closing: CancellationToken,
    /// Held to the end: nobody else may open what is in it.
    pub data: DataDir,
    pub node: Name,
    pub journal: Journal,
    pub cache: Arc<Cache>,
    pub tokens: Arc<Tokens>,
    pub admission: Arc<Admission>,
    pub book: Arc<QuotaBook>,
    pub linked: Option<Linked>,
    pub token: SecretString,
    started: Duration,
}

impl Parts {
    /// Opens what is in the data directory. Postgres is not waited for.
    pub async fn open(
        config: &Config,
        data: DataDir,
        drain: drainer::Config,
        reader: Reader,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let clock: SharedClock = Arc::new(SystemClock::new());
        let entropy: SharedEntropy = Arc::new(SystemEntropy::new());
        let tasks = TaskTracker::new();
        let node = data.node(config.data.node.as_deref(), &entropy, clock.now())?;
        let postgres = postgres(config, &clock, &entropy, &metrics)?;
        let source = postgres.as_ref().map(|postgres| postgres.source() as Arc<dyn Source>);
        let keys = Keys::open(data.path(), &config.tokens, &entropy, clock.now())?;
        let storage = Storage {
            config: config.clone(),
            node: node.clone(),
            reader,
            source,
            clock: clock.clone(),
            entropy: entropy.clone(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
        };
        let (journal, cache) = storage.open(data.path()).await?;
        let tokens = tokens::Parts {
            config: config.tokens.clone(),
            node: node.clone(),
            keys,
            cache: cache.clone(),
            journal: journal.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            metrics: metrics.clone(),
        };
        let tokens = Arc::new(Tokens::new(data.path(), tokens));
        let (admission, book) = limits(config, data.path(), &cache, &clock, &metrics);
        let closing = CancellationToken::new();
        let linked = postgres.map(|postgres| {
            let drainer = drainer::Parts {
                sink: postgres.sink(node.clone(), drain.deadline.0),
                journal: journal.clone(),
                cache: cache.clone(),
                config: drain,
                clock: clock.clone(),
                entropy: entropy.clone(),
                metrics: metrics.clone(),
                listener: book.clone(),
            };
            Linked::new(postgres, drainer, &tasks, &closing)
        });
        Ok(Self {
            token: token(config, data.path(), &entropy)?,
            stopping: CancellationToken::new(),
            entropy,
            metrics,
            tasks,
            closing,
            data,
            node,
            journal,
            cache,
            tokens,
            admission,
            book,
            linked,
            started: clock.monotonic(),
            clock,
        })
    }

    /// The control plane over these parts; `open` when its listener is on loopback.
    pub fn control(
        &self,
        actor: &str,
        open: bool,
        feed: Option<(FeedHandle, Duration)>,
    ) -> Control {
        let directory = self.linked.as_ref().map(|linked| {
            let directory = linked.postgres.directory();
            let journal = self.journal.clone();
            Arc::new(PostgresDirectory { directory, journal }) as Arc<dyn Directory>
        });
        let contact = feed.zip(self.linked.as_ref()).map(|((feed, patience), linked)| {
            let (source, clock) = (linked.postgres.source(), self.clock.clone());
            Arc::new(move || contact(&feed, patience, clock.monotonic(), source.breaker_open()))
                as admin::AskContact
        });
        let (cache, postgres) =
            (self.cache.clone(), self.linked.as_ref().map(|linked| linked.postgres.clone()));
        let observe = move || {
            cache.observe();
            if let Some(postgres) = &postgres {
                postgres.observe();
            }
        };
        Control {
            observe: Arc::new(observe),
            cache: self.cache.clone(),
            admission: self.admission.clone(),
            tokens: self.tokens.clone(),
            journal: self.journal.clone(),
            drainer: self.linked.as_ref().map(|linked| linked.drainer.clone()),
            directory,
            configuration: None,
            contact,
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            metrics: self.metrics.clone(),
            tasks: self.tasks.clone(),
            stopping: self.stopping.clone(),
            token: self.token.clone(),
            open,
            node: self.node.clone(),
            actor: actor.into(),
            started: self.started,
            turn: Arc::new(Mutex::new(())),
        }
    }

    /// Runs the feed until `closing`; revocations that Postgres turns out to lack are sent again.
    pub fn follow(&self, feed: Feed) {
        let (journal, cache) = (self.journal.clone(), self.cache.clone());
        let missing = move |lacking| record(&journal, &cache, lacking);
        let follower = self.cache.clone();
        self.tasks.spawn(feed.run(follower, Arc::new(missing), self.closing.clone()));
    }

    /// Ends feed and drainer, brings the journal to the disk, and frees the data directory.
    pub async fn close(self) -> Result<(), Error> {
        self.closing.cancel();
        self.tasks.close();
        if timeout(TASKS_MAX, self.tasks.wait()).await.is_err() {
            tracing::error!(
                "not all that runs beside requests ends: the journal is closed as it is"
            );
        }
        let journal = self.journal.clone();
        let stopped = tokio::task::spawn_blocking(move || journal.shutdown());
        stopped.await.map_err(|error| Error::Failed(error.to_string()))??;
        Ok(())
    }
}

fn postgres(
    config: &Config,
    clock: &SharedClock,
    entropy: &SharedEntropy,
    metrics: &Arc<Metrics>,
) -> Result<Option<Postgres>, Error> {
    let make = |section| Postgres::new(section, clock.clone(), entropy.clone(), metrics.clone());
    Ok(config.postgres.clone().map(make).transpose()?)
}

/// Revocations that stand here already are recorded (again), to settle in Postgres.
pub(super) fn record(journal: &Journal, cache: &Cache, revocations: Vec<Revocation>) {
    if revocations.is_empty() {
        return;
    }
    let facts: Vec<_> = revocations.into_iter().map(StateFact::Revoked).collect();
    match journal.append(facts.clone()) {
        // Nobody waits for it: they are in force from the disk tier, and are found again if it
        // fails.
        Ok(_on_its_way) => facts.iter().for_each(|fact| cache.pin(fact)),
        Err(error) => tracing::error!(%error, "revocations cannot be recorded now"),
    }
}

fn contact(feed: &FeedHandle, patience: Duration, now: Duration, breaker_open: bool) -> Contact {
    let since = feed.last_contact().map(|at| now.saturating_sub(at));
    Contact {
        last_contact_seconds: since.map(|since| since.as_secs_f64()),
        breaker_open,
        away: breaker_open || feed.error().is_some() || since.is_none_or(|since| since > patience),
    }
}

fn token(config: &Config, dir: &Path, entropy: &SharedEntropy) -> Result<SecretString, Error> {
    match &config.admin.token {
        Some(token) => Ok(token.clone()),
        None => admin::read_or_make_token(dir, &**entropy)
            .map_err(|error| Error::Config(format!("the admin token cannot be used: {error}"))),
    }
}
