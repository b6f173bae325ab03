//! `gatepost drill`: runs it, and prints what it found.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::args::{DrillArgs, Format};
use super::failure::{FAILED, Failure};
use super::output::{self, Output};
use crate::clock::SystemClock;
use crate::config::Environment;
use crate::drill::{self, Error, Report, Setup};
use crate::entropy::SystemEntropy;

/// Runs the drill until it has come to its end, or SIGINT or SIGTERM comes.
pub(super) async fn run(args: &DrillArgs, environment: &Environment) -> Result<Report, Failure> {
    let program = environment.program().map(PathBuf::from);
    let program = program.ok_or(Failure::Failed("this program cannot find itself".into()))?;
    let setup = Setup {
        url: args.database_url.clone(),
        span: Duration::from_secs(args.seconds.into()),
        program,
        path: environment.get("PATH").unwrap_or("/usr/bin:/bin").to_owned(),
    };
    let seconds = args.seconds;
    output::talk(&format!(
        "about {seconds} s of load, outages and kills; more where Postgres is far away…"
    ));
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
    Ok(drill::run(setup, clock, entropy, interrupted()?).await?)
}

/// Ends when somebody asks for it; from now on no signal ends the process by itself.
fn interrupted() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Prints it; the exit code is 1 unless all was well. A report is for people where nothing else was
/// asked for: its last line is looked for in pipes too.
pub(super) fn report(report: &Report, asked: Option<Format>) -> Result<ExitCode, Failure> {
    let output = Output::new(Some(asked.unwrap_or(Format::Table)));
    if output.is_json() {
        let value = serde_json::to_value(report);
        output.json(&value.map_err(|error| Failure::Failed(error.to_string()))?)?;
    } else {
        output.text(&report.text())?;
    }
    let problems = report.problems();
    problems.iter().for_each(|problem| output::talk(&format!("gatepost: {problem}")));
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Url(_) => Self::Usage(message),
            Error::NoPostgres | Error::Unavailable(_) => Self::Unavailable(message),
            Error::Interrupted | Error::Failed(_) => Self::Failed(message),
        }
    }
}
