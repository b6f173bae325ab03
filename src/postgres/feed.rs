//! The feed: what changed in Postgres since last time, told to a [`Follower`].
//!
//! A question every few seconds is the truth, `LISTEN` only a hint to ask now. Every step has a
//! deadline on this side, so that a Postgres that went silent without a word is noticed; then both
//! connections are thrown away, and the first thing after a new one is to catch up.

mod catch_up;
mod pages;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::pool::Pool;
use super::source::prepare;
use super::{Config, PostgresError, connect, deadline};
use crate::cache::{FollowError, Follower};
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::metrics::Metrics;
use crate::model::fact::Revocation;

const CHANNEL: &str = "gatepost_changes";
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(4);

/// What a full resync found missing in Postgres goes here, to be sent again through the journal.
pub type Missing = Arc<dyn Fn(Vec<Revocation>) + Send + Sync>;

/// Why a catch-up broke off. It is begun again from the start.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// Postgres could not be asked.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The cache could not take it.
    #[error(transparent)]
    Follower(#[from] FollowError),
    /// The thread that applied a page panicked or was shut down.
    #[error("a page could not be applied: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl From<sqlx::Error> for FeedError {
    fn from(error: sqlx::Error) -> Self {
        Self::Postgres(error.into())
    }
}

/// A handle to the running feed.
#[derive(Clone)]
pub struct FeedHandle(Arc<Status>);

struct Status {
    nudge: Notify,
    /// Monotonic microseconds of the last answer from Postgres, plus one; zero: never.
    contact: AtomicU64,
    error: RwLock<Option<String>>,
}

impl FeedHandle {
    /// Asks now whether anything has changed, and reconnects now if the connection is lost.
    pub fn nudge(&self) {
        self.0.nudge.notify_one();
    }

    /// When Postgres last answered the feed, on the clock's monotonic time.
    pub fn last_contact(&self) -> Option<Duration> {
        self.0.contact.load(Ordering::Acquire).checked_sub(1).map(Duration::from_micros)
    }

    /// Why there is no feed at this moment; `None` while there is one.
    pub fn error(&self) -> Option<String> {
        self.0.error.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_error(&self, error: Option<String>) {
        *self.0.error.write().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// See the module.
pub struct Feed {
    options: PgConnectOptions,
    auth: Arc<Pool>,
    /// No statement may outlive its transaction where a transaction pooler stands in between.
    prepares: bool,
    connect_timeout: Duration,
    query_deadline: Duration,
    poll_interval: Duration,
    clock: SharedClock,
    entropy: SharedEntropy,
    metrics: Arc<Metrics>,
    handle: FeedHandle,
    /// Held by each call of the follower to its end, also when its session is gone.
    turn: Arc<Mutex<()>>,
}

impl Feed {
    pub(super) fn new(
        config: &Config,
        options: PgConnectOptions,
        auth: Arc<Pool>,
        clock: SharedClock,
        entropy: SharedEntropy,
        metrics: Arc<Metrics>,
    ) -> Self {
        let status = Status {
            nudge: Notify::new(),
            contact: AtomicU64::new(0),
            error: RwLock::new(Some("Postgres has not been reached yet".into())),
        };
        Self {
            options,
            auth,
            prepares: config.direct_url.is_none(),
            connect_timeout: config.connect_timeout.0,
            query_deadline: config.query_deadline.0,
            poll_interval: config.poll_interval.0,
            clock,
            entropy,
            metrics,
            handle: FeedHandle(Arc::new(status)),
            turn: Arc::default(),
        }
    }

    /// To nudge the feed, and to see how it is.
    pub fn handle(&self) -> FeedHandle {
        self.handle.clone()
    }

    /// Follows Postgres until `shutdown`, through any number of lost connections.
    pub async fn run(
        self,
        follower: Arc<dyn Follower>,
        missing: Missing,
        shutdown: CancellationToken,
    ) {
        let follow = self.follow(follower, missing);
        tokio::select! {
            () = shutdown.cancelled() => {}
            never = follow => match never {},
        }
    }

    async fn follow(&self, follower: Arc<dyn Follower>, missing: Missing) -> Infallible {
        let mut ceiling = BACKOFF_MIN;
        loop {
            let before = self.handle.last_contact();
            let Err(error) = self.session(&follower, &missing).await;
            if self.handle.last_contact() != before {
                ceiling = BACKOFF_MIN;
            }
            self.metrics.postgres.feed_failures.inc();
            let reason = Some(error.to_string());
            // Once for each reason: it is tried every few seconds.
            if self.handle.error() != reason {
                tracing::warn!(%error, "there is no feed from Postgres; trying again");
            }
            self.handle.set_error(reason);
            let pause = BACKOFF_MIN / 2 + self.entropy.jitter(ceiling);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.handle.0.nudge.notified() => {}
            }
            ceiling = (ceiling * 2).min(BACKOFF_MAX);
        }
    }

    /// One connection's life.
    async fn session(
        &self,
        follower: &Arc<dyn Follower>,
        missing: &Missing,
    ) -> Result<Infallible, FeedError> {
        let mut conn = connect(&self.options, self.connect_timeout).await?;
        // Before the first catch-up, so that no change falls between the two.
        let listener = deadline(self.connect_timeout, self.listen()).await?;
        let asking = async {
            loop {
                self.catch_up(&mut conn, follower, missing).await?;
                let contact = self.clock.monotonic().as_micros();
                let contact = u64::try_from(contact).unwrap_or(u64::MAX - 1) + 1;
                self.handle.0.contact.store(contact, Ordering::Release);
                if self.handle.error().is_some() {
                    tracing::info!("following Postgres");
                    self.handle.set_error(None);
                }
                tokio::select! {
                    () = tokio::time::sleep(self.poll_interval) => {}
                    () = self.handle.0.nudge.notified() => {}
                }
            }
        };
        tokio::select! {
            ended = asking => ended,
            ended = self.pass_hints_on(listener) => ended,
            never = self.keep_warm() => match never {},
        }
    }

    async fn listen(&self) -> Result<PgListener, PostgresError> {
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }

    async fn pass_hints_on(&self, mut listener: PgListener) -> Result<Infallible, FeedError> {
        while listener.try_recv().await?.is_some() {
            self.handle.nudge();
        }
        Err(PostgresError::Unavailable("the connection that listens was lost".into()).into())
    }

    /// At once, and whenever fewer are open. A lookup that is too late loses its connection, and
    /// old ones end: where it takes longer to open one than a lookup may take, no lookup would ever
    /// have one again. (Beside the feed: it does not wait for a pooler that says nothing.)
    async fn keep_warm(&self) -> Infallible {
        self.warm().await;
        loop {
            tokio::time::sleep(self.poll_interval).await;
            if self.auth.open() < self.auth.max().div_ceil(2) {
                self.warm().await;
            }
        }
    }

    /// Opens the connections that lookups will need, and has each prepare what they ask where it
    /// may, so that the first ones do not wait for that.
    async fn warm(&self) {
        let seats = self.auth.max().div_ceil(2);
        let opening = (0..seats).map(async |_| {
            let mut checkout = self.auth.acquire().await?;
            if self.prepares {
                prepare(checkout.conn()).await?;
            }
            checkout.give_back();
            Ok::<_, PostgresError>(())
        });
        let opened = futures_util::future::join_all(opening);
        // Where this fails, the lookups will find out for themselves.
        drop(tokio::time::timeout(self.connect_timeout, opened).await);
    }
}
