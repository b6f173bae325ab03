//! Keys that are unknown here: ten thousand at once that Postgres knows, and a flood of those that
//! nobody knows.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::effort::Effort;
use crate::load::keyed::Keyed;
use crate::product::gateway::{Gateway, Settings};
use crate::product::support::cluster::Cluster;
use crate::report::Report;
use crate::report::chart::Chart;
use crate::report::goal::Goal;
use crate::report::progress::progress;
use crate::report::series::Rounds;
use crate::stock::keys;

const GOOD: usize = 10_000;

/// An empty gateway joins: while it is still being filled, every one of many keys comes for the
/// first time, and costs a lookup.
pub fn storm(effort: Effort, report: &mut Report) -> Result<()> {
    /// Times as many as are asked for: the last of them come last.
    const OTHERS: usize = 20;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    let all = effort.storm * OTHERS;
    progress(&format!("inserting {all} keys"));
    runtime.block_on(keys::into_postgres(&database.url, all, None))?;
    let dir = tempfile::tempdir()?;
    let settings = Settings { database_url: Some(&database.url), ..Settings::default() };
    let unknown = keys::numbered(all - effort.storm..all);
    let gateway = Gateway::start(&dir.path().join("data"), settings)?;
    let load = Keyed::forward_auth(gateway.address, unknown);
    let began = Instant::now();
    let refused = load.first_time(64)?;
    let took = began.elapsed().as_secs_f64();
    let figure = |what: &str| format!("{} keys for the first time, {what}", effort.storm);
    let answered = (effort.storm - refused.len()) as f64;
    report.once(&figure("answered with 200"), "/s", answered / took, None);
    report.once(&figure("refused"), "", refused.len() as f64, Goal::at_most(0.0));
    if let Some(first) = refused.first() {
        report.note(format!("the first refusal: {first}"));
    }
    for name in ["gatepost_cache_misses_total", "gatepost_cache_miss_deadlines_total"] {
        report.once(name, "", gateway.metric(name)?, None);
    }
    gateway.stop()
}

/// Good callers on a schedule, alone and beside as much junk as two connections send.
pub fn flood(effort: Effort, report: &mut Report) -> Result<()> {
    const PER_SECOND: u32 = 2_000;
    const CONNECTIONS: usize = 64;
    /// Well formed, so that they are looked up; more of them than are remembered as absent.
    const JUNK: usize = 200_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    runtime.block_on(keys::into_postgres(&database.url, GOOD, None))?;
    let dir = tempfile::tempdir()?;
    let gateway = Gateway::following(&dir.path().join("data"), &database.url)?;
    let good = Keyed::forward_auth(gateway.address, keys::texts(GOOD));
    good.touch(64)?;
    progress("making junk");
    let junk = keys::numbered(GOOD..GOOD + JUNK);
    // A stranger may also be told that it cannot be decided now.
    let junk = Keyed::forward_auth(gateway.address, junk).hoping_for(401);
    let open = effort.open(PER_SECOND, CONNECTIONS, effort.refresh_span).bearable(&good)?;
    report.once("good callers", "/s", f64::from(open.per_second), None);
    let (mut rounds, mut failed, mut thrown) = (Rounds::default(), 0, 0.0);
    let mut latencies = <[crate::load::latency::Latency; 2]>::default();
    for round in 1..=effort.rounds {
        let alone = open.run(&good)?.whole();
        let mut closed = effort.closed(2);
        closed.span = open.span + Duration::from_millis(300);
        closed.warmup = Duration::ZERO;
        let (beside, flood) = std::thread::scope(|scope| {
            let flooding = scope.spawn(|| closed.run(&junk));
            let beside = open.run(&good);
            (beside, flooding.join().expect("no panic"))
        });
        let (beside, flood) = (beside?.whole(), flood?);
        thrown += flood.per_second / effort.rounds as f64;
        failed += alone.failed + beside.failed;
        progress(&format!("round {round}: p99 {} µs beside junk", beside.latency.at(99.0)));
        rounds.push(beside.latency.at(99.0), alone.latency.at(99.0));
        latencies[0].add(&alone.latency);
        latencies[1].add(&beside.latency);
    }
    const CORES: &str = "junk, its client and Postgres take their share of the same cores";
    let goal = Goal::at_most(2.0).and_then(|goal| goal.bound_by(CORES));
    report.ratio("p99 of good callers beside a flood of junk", "µs", "alone", &rounds, goal);
    report.once("good callers that were refused or not answered", "", failed as f64, {
        Goal::at_most(0.0)
    });
    report.once("junk refused with 401 meanwhile", "/s", thrown, None);
    let lines = [("alone", &latencies[0]), ("beside junk", &latencies[1])];
    report.chart(Chart::latencies("good callers on a schedule", lines));
    gateway.stop()
}
