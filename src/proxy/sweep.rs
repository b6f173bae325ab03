//! Closes kept connections that are over or have ended, from the first request to an upstream on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::upstream::Pool;

/// Or as often as one is over, if that is sooner. So long a target that has closed one waits for
/// the gateway's side of it, where no request takes it before.
const EVERY: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5_000 });

/// Begins, if nobody has. It ends with the upstream.
pub(super) fn begin(pool: &Arc<Pool>, tasks: &TaskTracker, stopping: &CancellationToken) {
    // Read first: all requests but one find it set.
    if pool.swept.load(Ordering::Relaxed) || pool.swept.swap(true, Ordering::Relaxed) {
        return;
    }
    let (every, stopping) = (pool.idle_timeout.min(EVERY), stopping.clone());
    let pool = Arc::downgrade(pool);
    tasks.spawn(async move {
        loop {
            let pause = tokio::time::sleep(every);
            if stopping.run_until_cancelled(pause).await.is_none() {
                return;
            }
            // The upstream is not kept by who sweeps it.
            let Some(pool) = pool.upgrade() else { return };
            pool.targets.iter().for_each(|target| target.kept().sweep());
        }
    });
}
