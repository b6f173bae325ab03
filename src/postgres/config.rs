//! `[postgres]`

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::PostgresError;
use crate::model::units::Span;

/// `[retention]`: how long Postgres keeps what is not a total. Whole months go at a time.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// `auth_attempts`, `admission_events`, `request_log`, `audit_log`; `0s` keeps for ever.
    pub events: Span,
    /// `usage_hourly`; `0s` keeps for ever.
    pub hourly: Span,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self { events: Span::secs(90 * DAY), hourly: Span::secs(400 * DAY) }
    }
}

/// `[postgres]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where Postgres is, or the pooler before it: `postgres://user@host/database`.
    pub url: Option<DatabaseUrl>,
    /// Straight to Postgres, when `url` leads to a transaction pooler: feed, drain and migrations.
    pub direct_url: Option<DatabaseUrl>,
    /// Connections for lookups; misses use at most half of them.
    pub auth_pool_max: u32,
    /// Connections for the operator's commands.
    pub admin_pool_max: u32,
    /// The deadline of one lookup, waiting for a connection included.
    pub lookup_deadline: Span,
    /// The deadline for opening a connection, and for asking whether anything has changed.
    pub connect_timeout: Span,
    /// The deadline of one query of the feed or of the operator.
    pub query_deadline: Span,
    /// After so many failed lookups in a row, lookups pause.
    pub breaker_failures: u32,
    /// How long lookups pause before one is tried again.
    pub breaker_open_for: Span,
    /// Time between two questions whether anything has changed; a notification comes sooner.
    pub poll_interval: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            direct_url: None,
            auth_pool_max: 10,
            admin_pool_max: 4,
            lookup_deadline: Span::millis(250),
            connect_timeout: Span::secs(2),
            query_deadline: Span::secs(10),
            breaker_failures: 5,
            breaker_open_for: Span::secs(1),
            poll_interval: Span::secs(5),
        }
    }
}

/// A URL that may carry a password: never printed.
#[derive(Clone)]
pub struct DatabaseUrl(SecretString);

const REDACTED: &str = "[redacted]";

impl DatabaseUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(SecretString::from(url.into()))
    }

    /// Whether it can be read as the URL of a Postgres. Nothing connects.
    ///
    /// # Errors
    /// [`PostgresError::Url`], without the password.
    pub fn check(&self) -> Result<(), PostgresError> {
        super::options(self).map(drop)
    }

    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for DatabaseUrl {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl JsonSchema for DatabaseUrl {
    fn schema_name() -> Cow<'static, str> {
        "DatabaseUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["postgres://gatepost@127.0.0.1/gatepost"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_printed_nowhere() {
        let url = Some(DatabaseUrl::new("postgres://me:hunter2@db/x"));
        let config = Config { url, ..Config::default() };
        let json = serde_json::to_string(&config).expect("a configuration is JSON");
        assert!(!format!("{config:?}{json}").contains("hunter2"), "{json}");
    }
}
