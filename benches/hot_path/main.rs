//! Speed and memory of the release gateway, as ratios to rivals that run beside it in the same way.
//!
//! `cargo bench --bench hot_path -- [SCENARIO]… [--quick]`, scenarios as in [`SCENARIOS`], default
//! all. Every figure is measured in this run, on this machine: rivals alternate with the gateway,
//! and what is printed are medians and the range they fell in. Nothing here decides a test.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a report is printed")]
#![expect(
    clippy::disallowed_methods,
    reason = "it measures real time, and its tasks end with their runtime"
)]

mod change;
#[path = "../common/choice.rs"]
mod choice;
mod drain;
mod failure;
#[expect(dead_code, reason = "the edge's benchmark asks for more")]
#[path = "../common/gateway.rs"]
mod gateway;
mod keys;
mod load;
mod million;
mod outage;
#[path = "../common/parts.rs"]
mod parts;
mod policies;
#[expect(dead_code, reason = "the journal's benchmark asks for more")]
#[path = "../common/process.rs"]
mod process;
#[path = "../common/report.rs"]
mod report;
mod rivals;
#[path = "../common/support.rs"]
mod support;
mod throughput;

use std::time::Duration;

use anyhow::Result;

use crate::report::Report;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Alternations between the gateway and its rival.
    pub rounds: usize,
    /// One measurement.
    pub span: Duration,
    /// Before each measurement, not counted.
    pub warmup: Duration,
    /// Keys in the large scenario.
    pub million: usize,
    /// Distinct counters to drain.
    pub counters: usize,
}

impl Effort {
    const FULL: Self = Self {
        rounds: 11,
        span: Duration::from_secs(2),
        warmup: Duration::from_millis(500),
        million: 1_000_000,
        counters: 500_000,
    };
    const QUICK: Self = Self {
        rounds: 5,
        span: Duration::from_secs(1),
        warmup: Duration::from_millis(300),
        million: 200_000,
        counters: 100_000,
    };
}

type Scenario = fn(Effort, &mut Report) -> Result<()>;

const SCENARIOS: [(&str, Scenario); 9] = [
    ("interval", throughput::interval),
    ("before_reply", throughput::before_reply),
    ("policies", policies::run),
    ("change", change::run),
    ("million_limits", policies::million),
    ("failure", failure::run),
    ("outage", outage::run),
    ("million", million::run),
    ("drain", drain::run),
];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [role, rest @ ..] = args.as_slice()
        && role == rivals::ROLE
    {
        return rivals::run(rest);
    }
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
