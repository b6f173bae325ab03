//! Latency while Postgres stands frozen, against latency while it answers.

use anyhow::{Result, ensure};

use crate::Effort;
use crate::gateway::{Gateway, Settings};
use crate::keys::{self, KEYS};
use crate::load::Load;
use crate::report::{Goal, Report, Series, progress};
use crate::support::cluster::Cluster;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    runtime.block_on(keys::into_postgres(&database.url, KEYS, None))?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let settings = Settings { database_url: Some(&database.url), ..Settings::default() };
    let gateway = Gateway::start(&data, settings)?;
    gateway.wait_for("gatepost_cache_revision", 1.0)?;
    let texts = keys::texts(KEYS);
    for connections in [64, 256] {
        let load = Load::new(texts.clone(), connections, effort);
        load.touch(gateway.address)?;
        let (mut frozen, mut up, mut ratios) = <(Series, Series, Series)>::default();
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
            up.push(one.p99_micros);
            frozen.push(other.p99_micros);
            ratios.push(other.p99_micros / one.p99_micros);
        }
        let figure = format!("p99, Postgres frozen against up, {connections} connections");
        report.ratio(&figure, "µs", [&frozen, &up, &ratios], Goal::AtMost(1.15));
    }
    gateway.stop()
}
