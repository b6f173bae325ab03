//! The failure being fixed: a lookup and an upsert per request, all for one hot client.

use anyhow::Result;

use crate::Effort;
use crate::gateway::Gateway;
use crate::keys;
use crate::load::Load;
use crate::report::{Goal, Report, Rounds, progress};
use crate::rivals::Rival;
use crate::support::cluster::Cluster;

/// The hot client has a few keys, as clients do.
const HOT_KEYS: usize = 10;
const CONNECTIONS: usize = 64;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // What counts there must be on disk, or it would not be the failure.
    let cluster = Cluster::with_fsync(true);
    let database = runtime.block_on(cluster.database());
    runtime.block_on(keys::into_postgres(&database.url, HOT_KEYS, Some("hot")))?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let gateway = Gateway::following(&data, &database.url)?;
    let rival = Rival::upserting(&database.url)?;
    let load = Load::new(keys::texts(HOT_KEYS), CONNECTIONS, effort);
    let mut rounds = Rounds::default();
    for round in 1..=effort.rounds {
        let one = load.run(gateway.address)?;
        let other = load.run(rival.address)?;
        progress(&format!(
            "round {round}: {:.0}/s ({} refused), rival {:.0}/s ({} refused)",
            one.per_second, one.refused, other.per_second, other.refused
        ));
        rounds.push(one.per_second, other.per_second);
    }
    let figure = format!("one hot client, lookup and upsert, {CONNECTIONS} connections");
    report.ratio(&figure, "/s", &rounds, Goal::AtLeast(30.0));
    gateway.stop()
}
