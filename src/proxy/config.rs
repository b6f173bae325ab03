//! `[[upstreams]]`

use std::path::PathBuf;

use axum::http::uri::PathAndQuery;
use serde::{Deserialize, Serialize};

use crate::model::units::Span;

/// `[[upstreams]]`: a group of targets that serve the same, and the bounds of asking them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamConfig {
    /// What routes call it.
    pub name: String,
    /// Where it listens: `http://host:port` or `https://host:port`.
    pub targets: Vec<String>,
    /// Which of the targets is asked next.
    pub balance: Balance,
    /// For a connection to a target, TLS included.
    pub connect_timeout: Span,
    /// How long an idle connection is kept. Keep it below the target's own.
    pub idle_timeout: Span,
    /// Idle connections kept per target.
    pub max_idle: usize,
    /// Requests that a target works at, at a time; so many connections it has at most besides idle
    /// ones. Beyond it the others are asked, then 503.
    pub max_in_flight: usize,
    /// Further attempts at a request that was never sent, or can be repeated.
    pub retries: u32,
    /// The share of requests that may be repeated, from 0 to 1.
    pub retry_budget: f64,
    /// Requests in a row that a target fails, until it is left out.
    pub breaker_failures: u32,
    /// How long it is left out at first. Each probe that fails doubles it.
    pub breaker_open_for: Span,
    /// The longest that it is left out before it is probed again.
    pub breaker_open_max: Span,
    /// Asks each target whether it is well, besides what requests tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthConfig>,
    /// How `https` targets are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
}

/// Which target is asked next.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn.
    #[default]
    RoundRobin,
    /// The one that works at the fewest requests; in turn where several do.
    LeastInFlight,
}

/// `upstreams.health`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// What is asked for; a status below 400 is good.
    pub path: String,
    /// Between two checks.
    pub interval: Span,
    /// For one check, connecting included.
    pub timeout: Span,
    /// Good checks in a row that bring a target back.
    pub healthy: u32,
    /// Bad checks in a row that take it out.
    pub unhealthy: u32,
}

/// `upstreams.tls`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates of the authorities that are believed, in PEM; the public ones when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The name that certificates must be for; each target's host when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The certificate that the gateway shows, in PEM, with those between it and its authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Its key, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            targets: Vec::new(),
            balance: Balance::RoundRobin,
            connect_timeout: Span::secs(5),
            idle_timeout: Span::secs(30),
            max_idle: 64,
            max_in_flight: 1024,
            retries: 1,
            retry_budget: 0.1,
            breaker_failures: 5,
            breaker_open_for: Span::secs(1),
            breaker_open_max: Span::secs(30),
            health: None,
            tls: None,
        }
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            path: "/".into(),
            interval: Span::secs(5),
            timeout: Span::secs(1),
            healthy: 2,
            unhealthy: 3,
        }
    }
}

/// Why an upstream cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The name is empty, too long or unprintable.
    #[error("an upstream needs a name of 1 to 128 printable characters, not `{0}`")]
    Name(String),
    /// Nothing to forward to.
    #[error("upstream `{0}` has no targets; give it at least one, like \"http://127.0.0.1:9000\"")]
    NoTargets(String),
    /// A target that is not a plain origin.
    #[error(
        "upstream `{upstream}`: `{target}` is not a target; write it like \
         \"http://127.0.0.1:9000\" or \"https://host:port\" (paths are not supported)"
    )]
    Target {
        /// The upstream.
        upstream: String,
        /// What was given.
        target: String,
    },
    /// A bound that cannot work.
    #[error("upstream `{upstream}`: `{key}` {rule}")]
    Bound {
        /// The upstream.
        upstream: String,
        /// Which bound.
        key: &'static str,
        /// What it must keep to.
        rule: &'static str,
    },
    /// Certificates or names that cannot be used.
    #[error("upstream `{upstream}`: `tls`: {reason}")]
    Tls {
        /// The upstream.
        upstream: String,
        /// What is wrong.
        reason: String,
    },
}

impl UpstreamConfig {
    /// Checks what types alone do not.
    pub(super) fn check(&self) -> Result<(), UpstreamError> {
        if self.targets.is_empty() {
            return Err(UpstreamError::NoTargets(self.name.clone()));
        }
        let some = |span: Span| span > Span::secs(0);
        let (some_time, at_least_one) = ("must be more than zero", "must be at least 1");
        let mut rules = vec![
            (some(self.connect_timeout), "connect_timeout", some_time),
            (some(self.idle_timeout), "idle_timeout", some_time),
            (self.max_in_flight > 0, "max_in_flight", at_least_one),
            (self.retries <= 10, "retries", "must be at most 10"),
            ((0.0..=1.0).contains(&self.retry_budget), "retry_budget", "must lie between 0 and 1"),
            (self.breaker_failures > 0, "breaker_failures", at_least_one),
            (some(self.breaker_open_for), "breaker_open_for", some_time),
            (
                self.breaker_open_max >= self.breaker_open_for,
                "breaker_open_max",
                "must be at least `breaker_open_for`",
            ),
        ];
        if let Some(health) = &self.health {
            let path = health.path.starts_with('/') && health.path.parse::<PathAndQuery>().is_ok();
            rules.extend([
                (path, "health.path", "must be a path like \"/healthz\""),
                (some(health.interval), "health.interval", some_time),
                (some(health.timeout), "health.timeout", some_time),
                (health.healthy > 0, "health.healthy", at_least_one),
                (health.unhealthy > 0, "health.unhealthy", at_least_one),
            ]);
        }
        match rules.into_iter().find(|(holds, ..)| !holds) {
            None => Ok(()),
            Some((_, key, rule)) => {
                Err(UpstreamError::Bound { upstream: self.name.clone(), key, rule })
            }
        }
    }
}
