//! What a steady load writes: chunks, and what becomes of them on the disk.

use std::time::{Duration, Instant};

use anyhow::Result;
use gatepost::clock::{Clock, SystemClock};
use gatepost::journal::Config;
use gatepost::model::units::{Size, Span};

use super::journal_speed::entries;
use crate::effort::Effort;
use crate::product::process::written_bytes;
use crate::report::Report;
use crate::report::progress::progress;
use crate::report::series::Rounds;
use crate::stock::counters::{Dice, counters, journal, one};

const COUNTERS: usize = 10_000;
/// How often the load is topped up.
const TICK: Duration = Duration::from_millis(1);
const HOUR: f64 = 3600.0;
const YEAR: f64 = 365.0 * 24.0 * HOUR;

/// A load of so many requests a second, at every commit interval.
pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let default = Config::default().interval;
    for per_second in [1_000, 10_000, 100_000] {
        for millis in [10, 50, 100, 250, 1000] {
            let interval = Span::millis(millis);
            // What the interval does shows at one load; how it grows, at one interval.
            if per_second == 10_000 || interval == default {
                at(per_second, interval, effort.volume_span, report)?;
            }
        }
    }
    Ok(())
}

fn at(per_second: u64, interval: Span, span: Duration, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    // The ballast is written once, at the start.
    let config = Config { interval, ballast: Size(0), ..Config::default() };
    let (journal, metrics) = journal(dir.path(), config)?;
    let (counters, clock, mut dice) = (counters(COUNTERS), SystemClock::new(), Dice(7));
    let before = written_bytes()?;
    let (started, mut counted) = (Instant::now(), 0);
    while started.elapsed() < span {
        let due = (started.elapsed().as_secs_f64() * per_second as f64) as u64;
        while counted < due {
            let counter = counters[dice.below(COUNTERS)].clone();
            // Under `interval` nobody waits for it.
            let _unawaited = journal.count(journal.reserve()?, counter, one(clock.now()));
            counted += 1;
        }
        std::thread::sleep(TICK);
    }
    journal.shutdown()?;
    let seconds = started.elapsed().as_secs_f64();
    let payload = metrics.journal.bytes_written.get() as f64;
    let written = (written_bytes()? - before) as f64;
    let (entries, commits) = (entries(&metrics), metrics.journal.commits.get() as f64);
    progress(&format!(
        "{:.0} merged counters/s of {:.1} bytes, {:.1} commits/s",
        entries / seconds,
        payload / entries,
        commits / seconds
    ));
    let figure = format!("{per_second} requests/s, every {interval}");
    let (written, payload) = (written / seconds, payload / seconds);
    let mut once = Rounds::default();
    once.push(written / 1e3, payload / 1e3);
    report.ratio(&figure, "kB/s", "chunks", &once, None);
    if interval == Config::default().interval {
        report.once("  in an hour", "GB", written * HOUR / 1e9, None);
        report.once("  in a year", "TB", written * YEAR / 1e12, None);
    }
    Ok(())
}
