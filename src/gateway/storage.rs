//! Journal and cache as they are opened: in this order, and also on a full disk.

use std::path::Path;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::Error;
use crate::cache::{Cache, Source};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::entropy::SharedEntropy;
use crate::journal::{self, Journal, Reader};
use crate::metrics::Metrics;
use crate::model::Name;

/// Journal and cache.
pub type Opened = (Journal, Arc<Cache>);

/// What journal and cache are opened with.
#[derive(Clone)]
pub struct Storage {
    pub config: Config,
    pub node: Name,
    pub reader: Reader,
    pub source: Option<Arc<dyn Source>>,
    pub clock: SharedClock,
    pub entropy: SharedEntropy,
    pub metrics: Arc<Metrics>,
    pub tasks: TaskTracker,
}

impl Storage {
    /// Journal, then cache, with what the journal's state lane says in force before the first
    /// answer.
    ///
    /// On a full disk once more with the room of the ballast, which is kept for that.
    pub async fn open(self, dir: &Path) -> Result<Opened, Error> {
        let dir = dir.to_owned();
        // sled blocks while it opens.
        let opened = tokio::task::spawn_blocking(move || self.open_blocking(&dir));
        opened.await.map_err(|error| Error::Failed(error.to_string()))?
    }

    fn open_blocking(self, dir: &Path) -> Result<Opened, Error> {
        let full = |error: Error| match error {
            Error::Config(why) if journal::is_disk_full(dir) => Error::DiskFull(format!(
                "the disk of the data directory {} is full: make room and start again ({why})",
                dir.display()
            )),
            error => error,
        };
        match self.clone().try_open(dir).map_err(full) {
            Err(Error::DiskFull(why)) if journal::give_up_ballast(dir) => {
                tracing::warn!(%why, "starting with the room of the ballast");
                self.try_open(dir).map_err(full)
            }
            opened => opened,
        }
    }

    fn try_open(self, dir: &Path) -> Result<Opened, Error> {
        let Self { config, node, reader, source, clock, entropy, metrics, tasks } = self;
        let declared = config.declared(&node);
        let (journal, state) = Journal::open_with(
            dir,
            config.journal,
            reader,
            clock.clone(),
            entropy,
            metrics.clone(),
        )?;
        let cache = Cache::open(dir, config.cache, declared, source, clock, metrics, tasks);
        let cache = match cache {
            Ok(cache) => cache,
            Err(error) => {
                journal.shutdown()?;
                return Err(error.into());
            }
        };
        state.iter().for_each(|fact| cache.pin(fact));
        Ok((journal, cache))
    }
}
