//! The journal alone, without HTTP: how much it records, what that writes, and a long outage.
//!
//! `cargo bench --bench journal -- [SCENARIO]… [--quick]`, scenarios as in [`SCENARIOS`], default
//! all. Every figure is measured in this run, on this machine: a plain log takes turns with the
//! journal, and what is printed are medians and the range they fell in. Nothing decides a test.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a report is printed")]
#![expect(
    clippy::disallowed_methods,
    reason = "it measures real time, and its tasks end with their runtime"
)]

#[path = "../common/choice.rs"]
mod choice;
mod load;
mod outage;
#[expect(dead_code, reason = "the other benchmark uses all of them")]
#[path = "../common/parts.rs"]
mod parts;
mod plain;
#[expect(dead_code, reason = "the other benchmark asks for more")]
#[path = "../common/process.rs"]
mod process;
#[path = "../common/report.rs"]
mod report;
mod speed;
#[path = "../common/support.rs"]
mod support;
mod volume;

use std::time::Duration;

use anyhow::Result;

use crate::report::Report;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Alternations between the journal and the plain log.
    pub rounds: usize,
    /// One measurement of speed.
    pub span: Duration,
    /// One measurement of volume.
    pub volume_span: Duration,
    /// Requests that are counted during the outage.
    pub outage_requests: u64,
    /// As many in a second, at most.
    pub outage_per_second: u64,
}

impl Effort {
    const FULL: Self = Self {
        rounds: 7,
        span: Duration::from_secs(2),
        volume_span: Duration::from_secs(20),
        outage_requests: 50_000_000,
        outage_per_second: 500_000,
    };
    const QUICK: Self = Self {
        rounds: 3,
        span: Duration::from_secs(1),
        volume_span: Duration::from_secs(6),
        outage_requests: 5_000_000,
        outage_per_second: 500_000,
    };
}

type Scenario = fn(Effort, &mut Report) -> Result<()>;

const SCENARIOS: [(&str, Scenario); 4] = [
    ("interval", speed::interval),
    ("before_reply", speed::before_reply),
    ("volume", volume::run),
    ("outage", outage::run),
];

fn main() -> Result<()> {
    let (quick, chosen) = choice::chosen(&SCENARIOS)?;
    let effort = if quick { Effort::QUICK } else { Effort::FULL };
    let mut report = Report::default();
    for (name, scenario) in chosen {
        report::progress(name);
        scenario(effort, &mut report)?;
    }
    println!("{report}");
    Ok(())
}
