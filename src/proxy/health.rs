//! Active health checks: each target is asked for a path, over a connection of its own, from the
//! first request to its upstream on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use futures_util::future::join_all;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::HealthConfig;
use super::connector::Connector;
use super::target::Target;
use super::upstream::Pool;
use crate::metrics::Metrics;

/// Begins to check, if there is something to check and nobody does yet. It ends with the upstream.
pub(super) fn watch(
    pool: &Arc<Pool>,
    tasks: &TaskTracker,
    metrics: &Arc<Metrics>,
    stopping: &CancellationToken,
) {
    let Some(config) = &pool.health else { return };
    // Read first: all requests but one find it set.
    if pool.watched.load(Ordering::Relaxed) || pool.watched.swap(true, Ordering::Relaxed) {
        return;
    }
    let Ok(path) = config.path.parse() else { return };
    let client = Client::builder(TokioExecutor::new())
        // A target that takes no new connections is not well.
        .pool_max_idle_per_host(0)
        .build(pool.connector.clone());
    let (config, metrics, stopping) = (config.clone(), Arc::clone(metrics), stopping.clone());
    let pool = Arc::downgrade(pool);
    tasks.spawn(async move {
        let checks = Checks { path, config, client };
        let mut rows = Vec::new();
        while let Some(pool) = pool.upgrade() {
            rows.resize(pool.targets.len(), Row::default());
            let round = join_all(pool.targets.iter().map(|target| checks.is_good(target)));
            let Some(round) = stopping.run_until_cancelled(round).await else { return };
            for ((target, row), good) in pool.targets.iter().zip(&mut rows).zip(round) {
                if let Some(well) = row.note(good, &checks.config)
                    && target.found(well)
                {
                    tell(&pool, target, well, &metrics);
                }
            }
            // The upstream is not kept by who checks it.
            drop(pool);
            let pause = tokio::time::sleep(checks.config.interval.0);
            if stopping.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    });
}

fn tell(pool: &Pool, target: &Target, well: bool, metrics: &Metrics) {
    let (upstream, target) = (&*pool.name, target.uri());
    if well {
        metrics.upstream.healthy.inc();
        tracing::info!(upstream, %target, "a target is well again by its checks");
    } else {
        metrics.upstream.unhealthy.inc();
        tracing::warn!(upstream, %target, "a target is not well by its checks");
    }
}

struct Checks {
    path: PathAndQuery,
    config: HealthConfig,
    client: Client<Connector, Empty<Bytes>>,
}

impl Checks {
    async fn is_good(&self, target: &Target) -> bool {
        let mut uri = target.uri().clone().into_parts();
        uri.path_and_query = Some(self.path.clone());
        let Ok(uri) = Uri::from_parts(uri) else { return false };
        let asked = tokio::time::timeout(self.config.timeout.0, self.client.get(uri)).await;
        matches!(asked, Ok(Ok(answer)) if answer.status().as_u16() < 400)
    }
}

/// Checks in a row that said the same.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    good: bool,
    length: u32,
}

impl Row {
    /// What a check makes of its target, once enough of them say the same.
    fn note(&mut self, good: bool, config: &HealthConfig) -> Option<bool> {
        self.length = if self.good == good { self.length.saturating_add(1) } else { 1 };
        self.good = good;
        let enough = if good { config.healthy } else { config.unhealthy };
        (self.length >= enough).then_some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_some_in_a_row() {
        let config = HealthConfig { healthy: 2, unhealthy: 3, ..HealthConfig::default() };
        let mut row = Row::default();
        let mut note = |good| row.note(good, &config);
        assert_eq!([note(false), note(false), note(true), note(false)], [None; 4]);
        assert_eq!([note(false), note(false)], [None, Some(false)]);
        assert_eq!([note(true), note(true)], [None, Some(true)]);
    }
}
