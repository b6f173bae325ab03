//! A million keys: the first fill, a restart while Postgres is away, and what it takes in memory.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::effort::Effort;
use crate::load::keyed::Keyed;
use crate::product::gateway::{Gateway, Settings};
use crate::product::support::cluster::Cluster;
use crate::report::Report;
use crate::report::goal::Goal;
use crate::report::progress::progress;
use crate::report::series::Series;
use crate::stock::keys;

/// Distinct keys that are asked for: more than the hot tier holds.
const TOUCHED: usize = 150_000;

const INSERTS: &str = "sled, which keeps pages of a tree that grew by random inserts: after a \
    restart the same keys take a third less";

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
    let (keys, touched) = (effort.million, TOUCHED.min(effort.million));
    let figure = format!("{keys} keys: first fill from Postgres");
    report.once(&figure, "s", filled.as_secs_f64(), None);

    let texts = keys::texts(touched);
    Keyed::forward_auth(gateway.address, texts.clone()).touch(64)?;
    let figure = format!("{keys} keys: resident after the fill and {touched} keys touched");
    let goal = Goal::at_most(400.0).and_then(|goal| goal.bound_by(INSERTS));
    report.once(&figure, "MiB", gateway.resident_mib()?, goal);
    gateway.stop()?;

    cluster.stop();
    let mut starts = Series::default();
    for _ in 0..effort.rounds {
        let started = Instant::now();
        let gateway = Gateway::start(&data, settings)?;
        let status = gateway.ask(&texts[touched / 2])?;
        let took = started.elapsed();
        ensure!(status == 200, "a known key got {status}");
        starts.push(took.as_secs_f64());
        gateway.stop()?;
    }
    let figure = format!("{keys} keys: restart to the first 200, Postgres stopped");
    report.figure(&figure, "s", &starts, Goal::at_most(1.0));

    let gateway = Gateway::start(&data, settings)?;
    Keyed::forward_auth(gateway.address, texts).touch(64)?;
    let figure = format!("{keys} keys: resident after a restart and {touched} keys touched");
    report.once(&figure, "MiB", gateway.resident_mib()?, Goal::at_most(400.0));
    gateway.stop()
}
