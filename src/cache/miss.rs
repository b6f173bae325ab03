//! A key that is not held here: looked up in Postgres. Fills that the feed has overtaken are thrown
//! away and read again.

use std::sync::Arc;

use super::flight::{Answer, BUSY, retry_after};
use super::{Cache, Entry};
use crate::model::Digest;

/// How often a fill that the feed overtook is read again before the caller is told to come back.
const FILLS_MAX: usize = 3;

impl Cache {
    pub(super) async fn miss(self: &Arc<Self>, digest: Digest) -> Answer<Arc<Entry>> {
        let asked = || {
            let cache = self.clone();
            async move { cache.ask(digest).await }
        };
        self.fly(&self.flights, digest, asked).await
    }

    async fn ask(self: &Arc<Self>, digest: Digest) -> Answer<Arc<Entry>> {
        let Some(source) = &self.source else { return Ok(None) };
        for _ in 0..FILLS_MAX {
            self.metrics.cache.misses.inc();
            let lookup = match source.lookup(digest).await {
                Ok(lookup) => lookup,
                Err(error) => {
                    tracing::debug!(%error, "a key could not be looked up");
                    return Err(retry_after(&error));
                }
            };
            // The fill writes to sled: not on a thread that answers requests.
            let cache = self.clone();
            let filled = tokio::task::spawn_blocking(move || cache.fill(digest, lookup)).await;
            match filled {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => self.metrics.cache.fills_discarded.inc(),
                Err(_) => break,
            };
        }
        Err(BUSY)
    }
}
