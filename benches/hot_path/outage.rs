//! Latency while Postgres stands frozen, against latency while it answers.

use anyhow::{Result, ensure};

use crate::Effort;
use crate::gateway::Gateway;
use crate::keys::{self, KEYS};
use crate::load::Load;
use crate::report::{Goal, Report, Rounds, progress};
use crate::support::cluster::Cluster;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    runtime.block_on(keys::into_postgres(&database.url, KEYS, None))?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let gateway = Gateway::following(&data, &database.url)?;
    let texts = keys::texts(KEYS);
    for connections in [64, 256] {
        let load = Load::new(texts.clone(), connections, effort);
        load.touch(gateway.address)?;
        let mut rounds = Rounds::default();
        for round in 1..=effort.rounds {
            let one = load.run(gateway.address)?;
            cluster.freeze();
            let other = load.run(gateway.address);
            cluster.thaw();
            let other = other?;
            ensure!(one.refused + other.refused == 0, "a known key was refused");
            progress(&format!(
                "round {round}: p99 {} µs up, {} µs frozen; {:.0}/s and {:.0}/s",
                one.p99_micros, other.p99_micros, one.per_second, other.per_second
            ));
            rounds.push(other.p99_micros, one.p99_micros);
        }
        let figure = format!("p99, Postgres frozen against up, {connections} connections");
        report.ratio(&figure, "µs", &rounds, Goal::AtMost(1.15));
    }
    gateway.stop()
}
