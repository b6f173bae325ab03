//! A long outage: Postgres is away while much is counted, then it comes back. The log and the drain
//! alone, in this process: no sockets, for they would take hours of it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gatepost::clock::Clock;
use gatepost::journal::{Config, Journal};
use gatepost::model::fact::{Counter, Lane};
use gatepost::model::units::Span;

use crate::effort::Effort;
use crate::product::parts::Parts;
use crate::product::process::resident_mib;
use crate::product::support::cluster::Cluster;
use crate::report::Report;
use crate::report::chart::{Chart, Line, Shade};
use crate::report::goal::Goal;
use crate::report::progress::progress;
use crate::stock::counters::{Dice, counters, one};

const COUNTERS: usize = 10_000;
/// As many are counted in a second, at most.
const PER_SECOND: u64 = 500_000;
const MIB: f64 = 1024.0 * 1024.0;
/// Segments that may be left: the one that is written, and the one before it.
const SEGMENTS_LEFT: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked at.
const LOOK: f64 = 0.2;

/// What was seen of journal and memory, in MiB by seconds.
struct Seen {
    began: Instant,
    /// Memory before anything was counted.
    before: f64,
    journal: Vec<(f64, f64)>,
    memory: Vec<(f64, f64)>,
}

impl Seen {
    fn look(&mut self, parts: &Parts) -> Result<()> {
        let now = self.began.elapsed().as_secs_f64();
        if self.journal.last().is_none_or(|(last, _)| now - last >= LOOK) {
            self.journal.push((now, parts.journal.status().bytes as f64 / MIB));
            self.memory.push((now, resident_mib(std::process::id())? - self.before));
        }
        Ok(())
    }

    /// Looks on until it is as it should be; how long that took.
    async fn until(&mut self, parts: &Parts, done: impl Fn(&Journal) -> bool) -> Result<f64> {
        let since = Instant::now();
        while !done(&parts.journal) {
            ensure!(since.elapsed() < PATIENCE, "not within {PATIENCE:?}");
            self.look(parts)?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(since.elapsed().as_secs_f64())
    }
}

fn most(points: &[(f64, f64)]) -> f64 {
    points.iter().map(|point| point.1).fold(0.0, f64::max)
}

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let cluster = Cluster::dedicated();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = tempfile::tempdir()?;
    runtime.block_on(async {
        let database = cluster.database().await;
        cluster.stop();
        let config = Config {
            segment_max_age: Span::secs(5),
            retention: Span::secs(1),
            ..Config::default()
        };
        let parts = Parts::open(dir.path(), &database.url, config, Span::millis(500))?;
        let counters = counters(COUNTERS);
        // What every start takes is not growth.
        count(&parts, &counters, COUNTERS as u64)?;
        parts.journal.flush().durable().await?;
        let before = resident_mib(std::process::id())?;
        let (began, journal, memory) = (Instant::now(), Vec::new(), Vec::new());
        let mut seen = Seen { began, before, journal, memory };
        let mut counted = 0;
        while counted < effort.outage_requests {
            let due = (began.elapsed().as_secs_f64() * PER_SECOND as f64) as u64;
            counted += count(&parts, &counters, due.min(effort.outage_requests) - counted)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
            seen.look(&parts)?;
        }
        parts.journal.flush().durable().await?;
        progress(&format!("{counted} requests in {:.0} s", began.elapsed().as_secs_f64()));

        let back = began.elapsed().as_secs_f64();
        cluster.start();
        let nothing_left =
            |journal: &Journal| journal.status().lanes.iter().all(|lane| lane.unsettled_facts == 0);
        let settled = seen.until(&parts, nothing_left).await?;
        let applied = database.number("SELECT sum(requests)::bigint FROM gatepost.key_totals");
        let (applied, issued) = (applied.await, counted + COUNTERS as u64);
        ensure!(u64::try_from(applied)? == issued, "{applied} applied, {issued} issued");
        seen.until(&parts, |journal| segments(journal) <= SEGMENTS_LEFT).await?;

        let mut tell = |name: &str, unit: &str, value: f64, most: f64| {
            let figure = format!("outage of {} counts: {name}", effort.outage_requests);
            report.once(&figure, unit, value, Goal::at_most(most));
        };
        tell("journal on disk, at most", "MiB", most(&seen.journal), 200.0);
        tell("growth in memory, at most", "MiB", most(&seen.memory), 150.0);
        tell("settled after its return", "s", settled, 10.0);
        tell("left of the journal", "segments", segments(&parts.journal) as f64, 2.0);
        report.note(format!("{applied} counts issued, as many in Postgres"));
        report.chart(drawn(seen, back));
        parts.end().await
    })
}

fn drawn(seen: Seen, back: f64) -> Chart {
    let line = |name: &str, points| Line { name: name.to_owned(), points };
    Chart::Timeline {
        title: "backlog and memory".to_owned(),
        unit: "MiB".to_owned(),
        lines: vec![line("journal on disk", seen.journal), line("growth in memory", seen.memory)],
        shades: vec![Shade { from: 0.0, to: back, name: "Postgres away".to_owned() }],
        log: false,
    }
}

/// Counts `requests` on counters at random.
fn count(parts: &Parts, counters: &[Counter], requests: u64) -> Result<u64> {
    let now = parts.clock.now();
    let mut dice = Dice(now.0.unsigned_abs());
    for _ in 0..requests {
        let counter = counters[dice.below(counters.len())].clone();
        // Under `interval` nobody waits for it.
        let _unawaited = parts.journal.count(parts.journal.reserve()?, counter, one(now));
    }
    Ok(requests)
}

fn segments(journal: &Journal) -> u64 {
    journal.segments(Lane::Usage).len() as u64
}
