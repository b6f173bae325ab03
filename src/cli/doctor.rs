//! `gatepost doctor`: a line per thing that the gateway needs, and what to do where it fails.

mod data;
mod edge;

use std::process::ExitCode;

use serde::Serialize;

use super::failure::{self, Failure};
use super::output::Output;
use crate::config::{Config, Loaded};
use crate::gateway::{self, MigrationState, PostgresFacts};

/// Beyond this, expiries and last-seen stamps are visibly off.
const SKEW_WARN_SECONDS: f64 = 1.0;
/// Beyond this, hours and expiries are wrong.
const SKEW_FAIL_SECONDS: f64 = 60.0;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    status: Level,
    check: &'static str,
    message: String,
}

impl Check {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { status: Level::Ok, check, message: message.into() }
    }

    fn warn(check: &'static str, message: impl Into<String>) -> Self {
        Self { status: Level::Warn, check, message: message.into() }
    }

    fn fail(check: &'static str, message: impl Into<String>) -> Self {
        Self { status: Level::Fail, check, message: message.into() }
    }

    fn line(&self) -> String {
        let status = match self.status {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        // A message of several lines stays in its column.
        let message = self.message.replace('\n', &format!("\n{:24}", ""));
        format!("{status:<5} {:<17} {message}\n", self.check)
    }
}

/// All checks; without a configuration there is nothing more to look at.
pub(super) async fn run(loaded: Result<Loaded, Failure>) -> Vec<Check> {
    let mut checks = vec![Check::ok("version", env!("CARGO_PKG_VERSION"))];
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(failure) => {
            checks.push(Check::fail("configuration", failure.to_string()));
            return checks;
        }
    };
    let file = loaded.file.as_ref().map(|path| path.display().to_string());
    let file = file.unwrap_or("no file, defaults and environment".into());
    checks.push(Check::ok("configuration", file));
    let config = &loaded.config;
    if config.declares_development_key() {
        let message = "the development key is accepted; remove it before others reach the gateway";
        checks.push(Check::warn("development key", message));
    }
    checks.extend(data::checks(config));
    checks.extend(edge::checks(config));
    checks.extend(postgres(config).await);
    checks
}

/// Prints the lines; the exit code is 1 when one failed.
pub(super) fn report(checks: &[Check], output: &Output) -> Result<ExitCode, Failure> {
    if output.is_json() {
        let value = serde_json::to_value(checks);
        output.json(&value.map_err(|error| Failure::Failed(error.to_string()))?)?;
    } else {
        output.text(&checks.iter().map(Check::line).collect::<String>())?;
    }
    let failed = checks.iter().any(|check| check.status == Level::Fail);
    Ok(if failed { ExitCode::from(failure::FAILED) } else { ExitCode::SUCCESS })
}

async fn postgres(config: &Config) -> Vec<Check> {
    if config.postgres.is_none() {
        return vec![Check::ok("postgres", "none is configured: embedded")];
    }
    match gateway::postgres_facts(config).await {
        Ok(facts) => {
            let kept = config.data.node.is_some() && config.tokens.keys.is_some();
            judge(&facts).into_iter().chain([sessions(facts.has_sessions, kept)]).collect()
        }
        Err(error) => {
            let hint = "known keys keep working and counts wait in the journal";
            vec![Check::fail("postgres", format!("{error} ({hint})"))]
        }
    }
}

fn judge(facts: &PostgresFacts) -> Vec<Check> {
    let migrations = match facts.migrations {
        MigrationState::Current => Check::ok("migrations", "all are applied"),
        MigrationState::Pending(missing) => {
            Check::fail("migrations", format!("{missing} not applied; run `gatepost migrate`"))
        }
        MigrationState::Newer(version) => Check::fail(
            "migrations",
            format!(
                "the database has {version}, which is newer than this program; update gatepost"
            ),
        ),
        MigrationState::Altered(version) => Check::fail(
            "migrations",
            format!("{version} was applied with another text; restore the migrations table"),
        ),
    };
    let (wanted, max) = (facts.connections_wanted, facts.connections_max);
    let room = format!("this gateway opens up to {wanted} of {max} connections");
    let connections = if wanted > max {
        let hint = "lower postgres.auth_pool_max, or raise max_connections";
        Check::fail("connections", format!("{room}; {hint}"))
    } else if wanted.saturating_mul(2) > max {
        Check::warn("connections", format!("{room}: more than half"))
    } else {
        Check::ok("connections", room)
    };
    let skew = facts.clock_skew_seconds;
    let message = format!("the clock of Postgres is {skew:+.3} s from ours");
    let clock = if skew.abs() > SKEW_FAIL_SECONDS {
        Check::fail("clock", format!("{message}; synchronise them (NTP)"))
    } else if skew.abs() > SKEW_WARN_SECONDS {
        Check::warn("clock", format!("{message}; synchronise them (NTP)"))
    } else {
        Check::ok("clock", message)
    };
    vec![Check::ok("postgres", &*facts.version), migrations, connections, clock]
}

/// `kept`: name and token keys of the gateway do not stand on its disk alone.
fn sessions(exist: bool, kept: bool) -> Check {
    if exist && !kept {
        let hint = "set data.node, and hand over the token keys with GATEPOST_TOKEN_KEYS_FILE";
        let message = format!("they end with the data directory; so that they outlive it, {hint}");
        return Check::warn("sessions", message);
    }
    Check::ok("sessions", if exist { "they outlive the data directory" } else { "none yet" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(facts: &PostgresFacts) -> Vec<(&'static str, Level)> {
        judge(facts).iter().map(|check| (check.check, check.status)).collect()
    }

    fn fine() -> PostgresFacts {
        PostgresFacts {
            version: "15.14".into(),
            connections_max: 97,
            connections_wanted: 14,
            migrations: MigrationState::Current,
            clock_skew_seconds: 0.0,
            has_sessions: false,
        }
    }

    #[test]
    fn a_fitting_database_is_fine() {
        assert!(levels(&fine()).iter().all(|(_, level)| *level == Level::Ok));
    }

    #[test]
    fn sessions_that_would_end_with_the_disk_are_told() {
        assert_eq!(sessions(true, false).status, Level::Warn);
        assert_eq!(sessions(true, true).status, Level::Ok);
        assert_eq!(sessions(false, false).status, Level::Ok);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let pending = PostgresFacts { migrations: MigrationState::Pending(2), ..fine() };
        assert!(levels(&pending).contains(&("migrations", Level::Fail)));
        let newer = PostgresFacts { migrations: MigrationState::Newer(9), ..fine() };
        assert!(levels(&newer).contains(&("migrations", Level::Fail)));
        let many = PostgresFacts { connections_wanted: 98, ..fine() };
        assert!(levels(&many).contains(&("connections", Level::Fail)));
        let half = PostgresFacts { connections_wanted: 49, ..fine() };
        assert!(levels(&half).contains(&("connections", Level::Warn)));
        let slow = PostgresFacts { clock_skew_seconds: -2.0, ..fine() };
        assert!(levels(&slow).contains(&("clock", Level::Warn)));
        let lost = PostgresFacts { clock_skew_seconds: 3600.0, ..fine() };
        assert!(levels(&lost).contains(&("clock", Level::Fail)));
    }
}
