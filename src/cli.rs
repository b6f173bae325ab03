//! The command line. Every command that shows or changes something is one request to the admin API,
//! over TCP to a running gateway or in process on the data directory, and its answer as JSON or as
//! a table.
//!
//! Data goes to stdout, talk to stderr.

mod args;
mod commands;
mod doctor;
mod drill;
mod failure;
mod frames;
mod logging;
mod output;
mod token_keys;
mod transport;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use tokio::runtime::{Builder, Runtime};

use crate::config::{self, Environment, Loaded};
use crate::gateway::{self, Lines};
use crate::journal::Reader;
use crate::metrics::Metrics;
use args::{Cli, Command, ConfigCommand, TokenCommand, TokenKeysCommand};
use failure::Failure;
use output::{Output, Shape};

/// Threads of a command that is not `serve`.
const COMMAND_THREADS: usize = 2;

/// How long what blocks (a name that is being looked up) may go on when `serve` is over.
const LAST: Duration = Duration::from_secs(5);

/// Runs one command; `args` begin with the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>, environment: &Environment) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no failure; clap knows.
            let printed = error.print();
            let code = u8::try_from(error.exit_code()).unwrap_or(failure::USAGE);
            return ExitCode::from(if printed.is_ok() { code } else { failure::FAILED });
        }
    };
    match execute(&cli, environment) {
        Ok(code) => code,
        Err(failure) => {
            output::talk(&format!("gatepost: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn execute(cli: &Cli, environment: &Environment) -> Result<ExitCode, Failure> {
    let output = Output::new(cli.output);
    let load = || config::load(cli.config.as_deref(), environment).map_err(Failure::from);
    match &cli.command {
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "gatepost", &mut text);
            output.text(&String::from_utf8_lossy(&text))?;
        }
        Command::Config { command: ConfigCommand::Schema } => output.json(&config::schema())?,
        Command::Config { command: ConfigCommand::Print } => {
            output.text(&config::redacted_toml(&load()?.config))?;
        }
        Command::Config { command: ConfigCommand::Check } => {
            let place = load()?.file.map(|path| path.display().to_string());
            let place = place.unwrap_or("no file, defaults and environment".into());
            output::talk(&format!("the configuration is valid ({place})"));
        }
        Command::SegmentFrames => return frames::serve(),
        Command::Serve => return serve(load()?, environment),
        Command::Doctor => {
            logging::init_quiet(environment);
            let checks = commanding()?.block_on(doctor::run(load()));
            return doctor::report(&checks, &output);
        }
        Command::Drill(args) => {
            logging::init_quiet(environment);
            let report = commanding()?.block_on(drill::run(args, environment))?;
            return drill::report(&report, cli.output);
        }
        Command::Migrate => {
            logging::init_quiet(environment);
            migrate(&load()?)?;
        }
        Command::Token {
            command: TokenCommand::Keys { command: TokenKeysCommand::Generate { from } },
        } => token_keys::generate(from.as_deref(), load, &output)?,
        Command::Client { .. }
        | Command::Key { .. }
        | Command::Policy { .. }
        | Command::Session { .. }
        | Command::Token { .. }
        | Command::Usage(_)
        | Command::Log { .. }
        | Command::Cache { .. }
        | Command::Reload => {
            logging::init_quiet(environment);
            let ask = commands::ask(&cli.command)?;
            let loaded = load()?;
            let url = cli.admin_url.as_deref();
            let target = transport::Target::new(url, environment, reader(environment));
            let (runtime, config) = (commanding()?, &loaded.config);
            if matches!(ask.shape, Shape::Lines) {
                let each = &mut |line: &str| output.text(line);
                let end = runtime.block_on(transport::ask_lines(&target, config, &ask, each))?;
                return output::ended(&end);
            }
            let answer = runtime.block_on(transport::ask(&target, config, &ask))?;
            output.show(&ask.shape, &answer)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// From here on all that is said goes through one queue: who does not read it holds up neither
/// requests nor the end.
fn serve(loaded: Loaded, environment: &Environment) -> Result<ExitCode, Failure> {
    let metrics = Arc::new(Metrics::new());
    let lines = Lines::start(&loaded.config, io::stderr(), &metrics)?;
    logging::init(&loaded.config.log, environment, lines.clone()).map_err(Failure::Config)?;
    let (runtime, reader) = (serving()?, reader(environment));
    let served = gateway::serve(loaded, environment, reader, metrics, lines.clone());
    let served = runtime.block_on(served).map_err(Failure::from);
    runtime.shutdown_timeout(LAST);
    let code = served.map_or_else(
        |failure| {
            lines.log(format!("gatepost: {failure}\n").into_bytes());
            ExitCode::from(failure.exit_code())
        },
        |()| ExitCode::SUCCESS,
    );
    lines.flush();
    Ok(code)
}

/// Segments of earlier processes are read by a child of this program, where it knows itself.
fn reader(environment: &Environment) -> Reader {
    environment.program().map_or(Reader::InProcess, Reader::child)
}

fn migrate(loaded: &Loaded) -> Result<(), Failure> {
    if loaded.config.postgres.is_none() {
        let hint = "no Postgres is configured; set DATABASE_URL, or `postgres.url` in the file";
        return Err(Failure::Config(hint.into()));
    }
    output::talk(&match commanding()?.block_on(gateway::migrate(&loaded.config))? {
        0 => "nothing to do: every migration is applied".to_owned(),
        applied => format!("applied {applied} migrations"),
    });
    Ok(())
}

fn serving() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().thread_name("gatepost").build()
}

fn commanding() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(COMMAND_THREADS).enable_all().build()
}

#[cfg(test)]
mod tests;
