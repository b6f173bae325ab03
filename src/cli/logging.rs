//! Log lines on stderr: text on a terminal, JSON otherwise.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{Environment, Log, LogFormat};

/// For `serve`. `RUST_LOG` is in `log.filter` already.
///
/// # Errors
/// A filter that cannot be read, or a second call.
pub(super) fn init(log: &Log, environment: &Environment) -> Result<(), String> {
    let filter: EnvFilter = log.filter.parse().map_err(|error| format!("log.filter: {error}"))?;
    let terminal = io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
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
    let log = Log { filter, format: LogFormat::Text };
    if let Err(message) = init(&log, environment) {
        super::output::talk(&format!("gatepost: {message}; logging is off"));
    }
}
