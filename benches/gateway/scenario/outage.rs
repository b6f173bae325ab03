//! Requests on a schedule while Postgres is stopped, frozen, out of reach, and back: what callers
//! see of it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::effort::Effort;
use crate::load::keyed::Keyed;
use crate::load::open::Timeline;
use crate::product::gateway::{Gateway, Settings};
use crate::product::support::cluster::Cluster;
use crate::product::support::fault_proxy::{Fault, FaultProxy};
use crate::report::Report;
use crate::report::chart::{Chart, Line, Shade};
use crate::report::goal::Goal;
use crate::report::series::{Rounds, Series};
use crate::stock::keys;

/// At most; less where a third of what can be had is less.
const PER_SECOND: u32 = 4_000;
const CONNECTIONS: usize = 128;
const KEYS: usize = 20_000;
/// How long a gateway may take to catch up after the last return.
const PATIENCE: Duration = Duration::from_secs(60);

/// A stretch of the run, in seconds from its begin.
struct Phase {
    name: &'static str,
    from: f64,
    to: f64,
}

/// What is done to Postgres, one after the other.
struct Postgres<'a> {
    cluster: &'a Cluster,
    proxy: &'a FaultProxy,
}

impl Postgres<'_> {
    /// Stretches of `span`, with the faults in between.
    fn live(&self, begin: Instant, span: Duration) -> Vec<Phase> {
        let mut phases = Vec::new();
        let mut phase = |name, number: u32| {
            let (from, to) = (span * number, span * (number + 1));
            std::thread::sleep((begin + to).saturating_duration_since(Instant::now()));
            phases.push(Phase { name, from: from.as_secs_f64(), to: to.as_secs_f64() });
        };
        phase("before", 0);
        self.cluster.stop();
        phase("stopped", 1);
        self.cluster.start();
        phase("back", 2);
        self.cluster.freeze();
        phase("frozen", 3);
        self.cluster.thaw();
        phase("back", 4);
        self.proxy.set(Fault::BlackHole);
        phase("black hole", 5);
        self.proxy.set(Fault::None);
        phase("back", 6);
        phases
    }
}

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    const PHASES: u32 = 7;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    runtime.block_on(keys::into_postgres(&database.url, KEYS, None))?;
    let proxy = FaultProxy::new(&database.url);
    let url = proxy.url(&database.url);
    let dir = tempfile::tempdir()?;
    let settings = Settings { database_url: Some(&url), ..Settings::default() };
    let gateway = Gateway::start(&dir.path().join("data"), settings)?;
    gateway.wait_for("gatepost_cache_revision", 1.0)?;
    let load = Keyed::forward_auth(gateway.address, keys::texts(KEYS));
    load.touch(64)?;

    let open = effort.open(PER_SECOND, CONNECTIONS, effort.phase * PHASES).bearable(&load)?;
    let postgres = Postgres { cluster: &cluster, proxy: &proxy };
    let mut backlog = Vec::new();
    let (seen, phases) = std::thread::scope(|scope| {
        let watched = scope.spawn(|| watch(&gateway, open.span));
        let both = open.beside(&load, |begin| Ok(postgres.live(begin, effort.phase)));
        backlog = watched.join().expect("no panic");
        both
    })?;
    report.once("the schedule", "/s", f64::from(open.per_second), None);
    tell(report, &seen, &phases);
    report.chart(drawn("requests a second", "/s", false, &phases, {
        let seconds = seen.slice.as_secs_f64();
        let rate = seen.points(|slice| slice.answered as f64 / seconds);
        let failed = seen.points(|slice| slice.failed as f64 / seconds);
        [("answered", rate), ("failed", failed)]
    }));
    report.chart(drawn("latency from when it was due", "µs", true, &phases, {
        let at = |percent| seen.points(move |slice| slice.latency.at(percent));
        [("p50", at(50.0)), ("p99", at(99.0))]
    }));
    report.chart(drawn(
        "counts that Postgres has not confirmed",
        "",
        false,
        &phases,
        [("chunks", backlog)],
    ));
    let back = Instant::now();
    while gateway.metric(PENDING)? > 0.0 {
        ensure!(back.elapsed() < PATIENCE, "the backlog does not drain");
        std::thread::sleep(Duration::from_millis(50));
    }
    report.once("backlog gone after the end of the load", "s", back.elapsed().as_secs_f64(), None);
    gateway.stop()
}

const PENDING: &str = "gatepost_drain_pending_chunks";

/// The backlog, again and again.
fn watch(gateway: &Gateway, span: Duration) -> Vec<(f64, f64)> {
    let (began, mut points) = (Instant::now(), Vec::new());
    while began.elapsed() < span {
        if let Ok(chunks) = gateway.metric(PENDING) {
            points.push((began.elapsed().as_secs_f64(), chunks));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    points
}

fn tell(report: &mut Report, seen: &Timeline, phases: &[Phase]) {
    let before = &phases[0];
    let mut failed = seen.between(before.from, before.to).failed;
    let mut latencies = vec![("before", seen.between(before.from, before.to).latency)];
    for phase in &phases[1..] {
        let all = seen.between(phase.from, phase.to);
        failed += all.failed;
        let mut rounds = Rounds::default();
        // Slice by slice, so that it is seen how far they lie apart anyway.
        for (ours, other) in
            seen.within(phase.from, phase.to).zip(seen.within(before.from, before.to))
        {
            rounds.push(ours.latency.at(99.0), other.latency.at(99.0));
        }
        let away = phase.name != "back";
        let goal = if away { Goal::at_most(1.1) } else { None };
        let figure = format!("p99 on a schedule, Postgres {}, by slices", phase.name);
        report.ratio(&figure, "µs", "before", &rounds, goal);
        if away {
            latencies.push((phase.name, all.latency));
        }
    }
    report.figure("failed requests", "", &Series::of(failed as f64), Goal::at_most(0.0));
    if let Some(failure) = &seen.failure {
        report.note(format!("the first failure: {failure}"));
    }
    let lines = latencies.iter().map(|(name, latency)| (*name, latency));
    report.chart(Chart::latencies("requests on a schedule", lines));
}

fn drawn<const LINES: usize>(
    title: &str,
    unit: &str,
    log: bool,
    phases: &[Phase],
    lines: [(&str, Vec<(f64, f64)>); LINES],
) -> Chart {
    let away = phases.iter().filter(|phase| !matches!(phase.name, "before" | "back"));
    Chart::Timeline {
        title: title.to_owned(),
        unit: unit.to_owned(),
        log,
        lines: lines.map(|(name, points)| Line { name: name.to_owned(), points }).to_vec(),
        shades: away
            .map(|phase| Shade { from: phase.from, to: phase.to, name: phase.name.to_owned() })
            .collect(),
    }
}
