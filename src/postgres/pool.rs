//! A pool with gauges, whose connections come back only in a known state.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Executor, PgConnection, Postgres};

use crate::clock::SharedClock;
use crate::metrics::{Metrics, PoolLabel};

/// Acquires that take longer are counted as slow.
const SLOW: Duration = Duration::from_millis(50);

pub(super) struct Pool {
    inner: PgPool,
    clock: SharedClock,
    max: Gauge,
    idle: Gauge,
    waiting: Gauge,
    slow: Counter,
}

impl Pool {
    /// `session`: the statement timeout that the server is told, so that a query whose caller gave
    /// up does not linger there behind somebody's lock.
    pub fn new(
        name: &'static str,
        max: u32,
        options: PgConnectOptions,
        session: Option<Duration>,
        clock: SharedClock,
        metrics: &Metrics,
    ) -> Self {
        let mut pool = PgPoolOptions::new().max_connections(max.max(1)).idle_timeout(None);
        if let Some(timeout) = session {
            let sql = format!("SET statement_timeout = {}", timeout.as_millis().max(1));
            let sql: Arc<str> = sql.into();
            pool = pool.after_connect(move |conn, _| {
                let sql = sqlx::AssertSqlSafe(Arc::clone(&sql));
                Box::pin(async move { conn.execute(sqlx::raw_sql(sql)).await.map(drop) })
            });
        }
        let label = PoolLabel { pool: name };
        let gauges = &metrics.postgres;
        Self {
            inner: pool.connect_lazy_with(options),
            clock,
            max: gauges.pool_max.get_or_create(&label).clone(),
            idle: gauges.pool_idle.get_or_create(&label).clone(),
            waiting: gauges.pool_waiting.get_or_create(&label).clone(),
            slow: gauges.pool_slow_acquires.get_or_create(&label).clone(),
        }
    }

    /// Takes a connection; bounded by the caller's deadline.
    pub async fn acquire(&self) -> Result<Checkout, sqlx::Error> {
        let started = self.clock.monotonic();
        let waiting = Waiting::new(&self.waiting);
        let acquired = self.inner.acquire().await;
        drop(waiting);
        if self.clock.monotonic().saturating_sub(started) > SLOW {
            self.slow.inc();
        }
        Ok(Checkout(Some(acquired?)))
    }

    pub fn observe(&self) {
        self.max.set(i64::from(self.inner.options().get_max_connections()));
        self.idle.set(i64::try_from(self.inner.num_idle()).unwrap_or(i64::MAX));
    }

    /// How many connections are open, or being opened.
    pub fn open(&self) -> u32 {
        self.inner.size()
    }

    pub fn max(&self) -> u32 {
        self.inner.options().get_max_connections()
    }
}

struct Waiting<'a>(&'a Gauge);

impl<'a> Waiting<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A connection on loan. Closed when it is dropped; only [`Checkout::give_back`] returns it.
pub(super) struct Checkout(Option<PoolConnection<Postgres>>);

impl Checkout {
    pub fn conn(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("only give_back takes it out, and consumes self")
    }

    /// Everything that was asked has been answered, and no transaction is open.
    pub fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            drop(conn.detach());
        }
    }
}
