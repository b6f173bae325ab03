//! A million keys: the first fill, a restart while Postgres is away, and what it takes in memory.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::Effort;
use crate::gateway::{Gateway, Settings};
use crate::keys;
use crate::load::Load;
use crate::report::{Goal, Report, Series, progress};
use crate::support::cluster::Cluster;

/// Distinct keys that are asked for: more than the hot tier holds.
const TOUCHED: usize = 150_000;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    progress(&format!("inserting {} keys", effort.million));
    runtime.block_on(keys::into_postgres(&database.url, effort.million, None))?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let settings = Settings { database_url: Some(&database.url), ..Settings::default() };
    let gateway = Gateway::start(&data, settings)?;
    let filled = gateway.wait_for("gatepost_cache_revision", 1.0)?;
    let one = |value: f64| {
        let mut series = Series::default();
        series.push(value);
        series
    };
    let keys = effort.million;
    let figure = format!("{keys} keys: first fill from Postgres");
    report.figure(&figure, "s", &one(filled.as_secs_f64()), Goal::None);

    let texts = keys::texts(TOUCHED);
    let load = Load::new(texts.clone(), 64, effort);
    load.touch(gateway.address)?;
    let figure = format!("{keys} keys: resident after the fill and {TOUCHED} keys touched");
    report.figure(&figure, "MiB", &one(gateway.resident_mib()?), Goal::AtMost(400.0));
    gateway.stop()?;

    cluster.stop();
    let mut starts = Series::default();
    for _ in 0..effort.rounds {
        let started = Instant::now();
        let gateway = Gateway::start(&data, settings)?;
        let status = gateway.ask(&texts[TOUCHED / 2])?;
        let took = started.elapsed();
        ensure!(status == 200, "a known key got {status}");
        starts.push(took.as_secs_f64());
        gateway.stop()?;
    }
    let figure = format!("{keys} keys: restart to the first 200, Postgres stopped");
    report.figure(&figure, "s", &starts, Goal::AtMost(2.0));

    let gateway = Gateway::start(&data, settings)?;
    load.touch(gateway.address)?;
    let figure = format!("{keys} keys: resident after a restart and {TOUCHED} keys touched");
    report.figure(&figure, "MiB", &one(gateway.resident_mib()?), Goal::AtMost(400.0));
    gateway.stop()
}
