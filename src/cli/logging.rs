//! Log lines on stderr: text on a terminal, JSON otherwise.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Environment, Log, LogFormat};
use crate::gateway::Lines;

/// For `serve`: log lines and panics go through `lines`, so that no thread of it ever waits for who
/// reads them. `RUST_LOG` is in `log.filter` already.
///
/// # Errors
/// A filter that cannot be read, or a second call.
pub(super) fn init(log: &Log, environment: &Environment, lines: Lines) -> Result<(), String> {
    write_to(Arc::new(lines.clone()), log, environment)?;
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?").to_owned();
        // As `RUST_BACKTRACE` asks.
        let trace = Backtrace::capture();
        let captured = trace.status() == BacktraceStatus::Captured;
        let trace = if captured { format!("{trace}\n") } else { String::new() };
        lines.log(format!("gatepost: thread '{name}' {panic}\n{trace}").into_bytes());
    }));
    Ok(())
}

fn write_to<W>(writer: W, log: &Log, environment: &Environment) -> Result<(), String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter: EnvFilter = log.filter.parse().map_err(|error| format!("log.filter: {error}"))?;
    let terminal = io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = fmt().with_env_filter(filter).with_writer(writer);
    let set = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(terminal && environment.get("NO_COLOR").is_none()).try_init()
    };
    set.map_err(|error| error.to_string())
}

/// For other commands: only what goes wrong, unless `RUST_LOG` asks for more.
pub(super) fn init_quiet(environment: &Environment) {
    let filter = environment.get("RUST_LOG").unwrap_or("warn").to_owned();
    let log = Log { filter, format: LogFormat::Text, ..Log::default() };
    if let Err(message) = write_to(io::stderr, &log, environment) {
        super::output::talk(&format!("gatepost: {message}; logging is off"));
    }
}
