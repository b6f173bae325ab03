//! Facts per second, and what of it is the journal's own work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use gatepost::clock::{Clock, SystemClock};
use gatepost::journal::{Commit, Config, Journal};
use gatepost::metrics::{LaneLabel, Metrics};
use gatepost::model::fact::{Counter, Lane};

use crate::effort::Effort;
use crate::product::process::thread_nanos;
use crate::report::Report;
use crate::report::goal::Goal;
use crate::report::progress::progress;
use crate::report::series::{Rounds, Series};
use crate::rivals::plain::Plain;
use crate::stock::counters::{counters, journal, one};

/// Threads that count as fast as they can.
const RECORDERS: usize = 2;
/// Requests that wait at a time, where their counters are few.
const WAITERS: usize = 256;

/// Nobody waits.
pub fn interval(effort: Effort, report: &mut Report) -> Result<()> {
    compare(Commit::Interval, effort, report)
}

/// Everybody waits.
pub fn before_reply(effort: Effort, report: &mut Report) -> Result<()> {
    compare(Commit::BeforeReply, effort, report)
}

/// One measurement of the journal.
struct Sample {
    per_second: f64,
    bytes_per_entry: f64,
    nanos_per_entry: f64,
}

fn compare(commit: Commit, effort: Effort, report: &mut Report) -> Result<()> {
    for distinct in [1, 100, 10_000] {
        let mut rounds = Rounds::default();
        let (mut bytes, mut nanos) = <(Series, Series)>::default();
        for round in 1..=effort.rounds {
            let one = of_journal(commit, distinct, effort.span)?;
            let other = of_plain(commit, distinct, effort.span, one.bytes_per_entry)?;
            progress(&format!("round {round}: {:.0}/s, plain {other:.0}/s", one.per_second));
            rounds.push(one.per_second, other);
            bytes.push(one.bytes_per_entry);
            nanos.push(one.nanos_per_entry);
        }
        let mode = if commit == Commit::Interval { "interval" } else { "before_reply" };
        let figure = format!("{mode}, {distinct} counters a window");
        report.ratio(&figure, "facts/s", "plain log", &rounds, Goal::at_least(0.5));
        report.figure("  written for each merged counter", "bytes", &bytes, None);
        report.figure("  journal thread, each merged counter", "ns", &nanos, None);
    }
    Ok(())
}

fn of_journal(commit: Commit, distinct: usize, span: Duration) -> Result<Sample> {
    let dir = tempfile::tempdir()?;
    let (journal, metrics) = journal(dir.path(), Config { commit, ..Config::default() })?;
    let journal = Arc::new(journal);
    let before = thread_nanos("journal")?;
    let started = Instant::now();
    let facts = match commit {
        Commit::Interval => {
            let facts = record(distinct, span, |_, counter, at| {
                let room = journal.reserve().expect("room");
                // Under `interval` nobody waits for it.
                let _unawaited = journal.count(room, counter, one(at));
            });
            block_on(async { journal.flush().durable().await })?;
            facts
        }
        Commit::BeforeReply => wait(distinct, span, {
            let journal = journal.clone();
            move |_, counter, at| {
                let journal: Arc<Journal> = journal.clone();
                async move {
                    let room = journal.reserve().expect("room");
                    journal.count(room, counter, one(at)).durable().await.expect("a disk");
                }
            }
        }),
    };
    let seconds = started.elapsed().as_secs_f64();
    let nanos = thread_nanos("journal")? - before;
    let entries = entries(&metrics);
    let bytes = metrics.journal.bytes_written.get() as f64;
    journal.shutdown()?;
    Ok(Sample {
        per_second: facts as f64 / seconds,
        bytes_per_entry: bytes / entries,
        nanos_per_entry: nanos / entries,
    })
}

/// Merged counters that were written so far.
pub fn entries(metrics: &Metrics) -> f64 {
    metrics.journal.entries.get_or_create(&LaneLabel::of(Lane::Usage)).get() as f64
}

fn of_plain(commit: Commit, distinct: usize, span: Duration, bytes: f64) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let interval = Config::default().interval.0;
    let plain = Arc::new(Plain::start(&dir.path().join("log"), RECORDERS, interval, bytes)?);
    let started = Instant::now();
    let facts = match commit {
        Commit::Interval => record(distinct, span, |worker, counter, at| {
            plain.count(worker, counter, &one(at));
        }),
        Commit::BeforeReply => wait(distinct, span, {
            let plain = plain.clone();
            move |worker, counter, at| {
                let plain: Arc<Plain> = plain.clone();
                async move {
                    let round = plain.count(worker, counter, &one(at));
                    plain.durable(round).await;
                }
            }
        }),
    };
    Arc::into_inner(plain).expect("all who used it have ended").stop()?;
    Ok(facts as f64 / started.elapsed().as_secs_f64())
}

/// Counts as fast as it can; how often.
fn record(
    distinct: usize,
    span: Duration,
    count: impl Fn(usize, Counter, gatepost::model::Timestamp) + Sync,
) -> u64 {
    let (counters, clock, stop) = (counters(distinct), SystemClock::new(), AtomicBool::new(false));
    let facts = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for worker in 0..RECORDERS {
            let (counters, clock, stop, facts, count) = (&counters, &clock, &stop, &facts, &count);
            scope.spawn(move || {
                let mut counted = 0;
                let all = counters.iter().cycle().skip(worker * counters.len() / RECORDERS);
                for counter in all {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    count(worker, counter.clone(), clock.now());
                    counted += 1;
                }
                facts.fetch_add(counted, Ordering::Relaxed);
            });
        }
        std::thread::sleep(span);
        stop.store(true, Ordering::Relaxed);
    });
    facts.into_inner()
}

/// As many requests at a time as there are counters; each waits for the disk before the next.
fn wait<F: Future<Output = ()> + Send + 'static>(
    distinct: usize,
    span: Duration,
    count: impl Fn(usize, Counter, gatepost::model::Timestamp) -> F + Send + Sync + 'static,
) -> u64 {
    let (counters, clock, count) = (counters(distinct), SystemClock::new(), Arc::new(count));
    let (clock, stop) = (Arc::new(clock), Arc::new(AtomicBool::new(false)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let waiting = (0..WAITERS.max(distinct)).map(|waiter| {
            let counter = counters[waiter % distinct].clone();
            let (clock, stop, count) = (clock.clone(), stop.clone(), count.clone());
            tokio::spawn(async move {
                let mut counted = 0;
                while !stop.load(Ordering::Relaxed) {
                    count(waiter % RECORDERS, counter.clone(), clock.now()).await;
                    counted += 1;
                }
                counted
            })
        });
        let waiting: Vec<_> = waiting.collect();
        tokio::time::sleep(span).await;
        stop.store(true, Ordering::Relaxed);
        let mut facts = 0;
        for waiter in waiting {
            facts += waiter.await.expect("no panic");
        }
        facts
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}
