//! The release gateway, measured: speed, latency, memory and what an outage costs, beside rivals
//! that take turns with it in the same run. docs/benchmarks.md tells how to read it.
//!
//! `cargo bench --bench gateway -- [SCENARIO]… [--quick] [--list] [--out DIR]`. Nothing here
//! decides a test.

#![expect(clippy::print_stdout, reason = "a report is printed")]
#![expect(
    clippy::disallowed_methods,
    reason = "it measures real time, and its tasks end with their runtime"
)]

mod choice;
mod effort;
mod load;
mod product;
mod report;
mod rivals;
mod scenario;
mod stock;

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};

use choice::Choice;
use effort::Effort;
use report::{Report, progress};

/// The helpers that the tests have too say by a panic what is wrong.
fn unless_it_panics(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(work));
    outcome.unwrap_or_else(|_| Err(anyhow!("it panicked, and said above why")))
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let [role, rest @ ..] = args.as_slice()
        && *role == rivals::own::ROLE
    {
        return rivals::own::run(rest);
    }
    let choice = Choice::of(&args)?;
    if choice.list {
        print!("{}", choice::list());
        return Ok(());
    }
    let effort = if choice.quick { Effort::QUICK } else { Effort::FULL };
    let mut report = Report::new(choice.quick);
    let all = choice.scenarios.len();
    for (at, scenario) in choice.scenarios.iter().enumerate() {
        progress::enter(scenario.name, at + 1, all);
        report.begin(scenario.name, scenario.about);
        let began = Instant::now();
        let outcome = unless_it_panics(|| (scenario.run)(effort, &mut report));
        report.end(began.elapsed(), outcome);
        // After each, so that a run that is broken off leaves what it has.
        report.write(&choice.out)?;
    }
    println!("{}", report.text());
    println!("written to {}: report.html, report.md, report.json", choice.out.display());
    ensure!(report.failures() == 0, "{} scenarios failed", report.failures());
    Ok(())
}
