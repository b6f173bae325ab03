//! Refresh tokens under load: against the usual way, on a fixed schedule while Postgres is up,
//! frozen or locked, and with a million sessions.
//!
//! `cargo bench --bench refresh -- [SCENARIO]… [--quick]`, scenarios as in [`SCENARIOS`], default
//! all. Every figure is measured in this run, on this machine.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a report is printed")]
#![expect(
    clippy::disallowed_methods,
    reason = "it measures real time, and its tasks end with their runtime"
)]

#[path = "../common/choice.rs"]
mod choice;
mod client;
#[expect(dead_code, reason = "the benchmark of the hot path asks for more")]
#[path = "../common/gateway.rs"]
mod gateway;
mod million;
mod open_loop;
#[expect(dead_code, reason = "other benchmarks ask for more")]
#[path = "../common/process.rs"]
mod process;
#[path = "../common/report.rs"]
mod report;
mod rival;
mod sessions;
#[path = "../common/support.rs"]
mod support;
mod throughput;

use std::time::Duration;

use anyhow::Result;

use crate::report::Report;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Alternations between what is compared.
    pub rounds: usize,
    /// One measurement.
    pub span: Duration,
    /// Sessions in the large scenario.
    pub million: usize,
}

impl Effort {
    const FULL: Self = Self { rounds: 5, span: Duration::from_secs(5), million: 1_000_000 };
    const QUICK: Self = Self { rounds: 3, span: Duration::from_secs(2), million: 100_000 };
}

type Scenario = fn(Effort, &mut Report) -> Result<()>;

const SCENARIOS: [(&str, Scenario); 3] =
    [("throughput", throughput::run), ("open_loop", open_loop::run), ("million", million::run)];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [role, rest @ ..] = args.as_slice()
        && role == rival::ROLE
    {
        return rival::run(rest);
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
