//! Sections that belong to no other room: admin, data, log, and what is declared.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::model::policy::{Mode, PolicySpec};

/// `[admin]`
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where the admin API, health and metrics are served, without TLS.
    pub listen: SocketAddr,
    /// Whether `listen` may be another address than loopback.
    pub allow_remote: bool,
    /// The bearer token, from `GATEPOST_ADMIN_TOKEN` only: never in a file that is passed around.
    #[serde(skip)]
    pub token: Option<SecretString>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            allow_remote: false,
            token: None,
        }
    }
}

/// `[data]`
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// The data directory, one per gateway.
    pub dir: PathBuf,
    /// This gateway's name in Postgres; made on first start and kept in `dir` when not set.
    pub node: Option<String>,
}

impl Default for Data {
    fn default() -> Self {
        Self { dir: "data".into(), node: None }
    }
}

/// How log lines look.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines, one object per line.
    Json,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Which lines are written, as in `RUST_LOG`, which wins over it.
    pub filter: String,
    /// How they look.
    pub format: LogFormat,
    /// Lines of `serve` that wait to be written; beyond it they are dropped, and counted.
    pub waiting: usize,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Auto, waiting: 1024 }
    }
}

/// `[[clients]]`
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclaredClient {
    /// Its name.
    pub name: String,
    /// The policy of its keys that name none themselves.
    #[serde(default)]
    pub policy: Option<String>,
    /// Whether policies deny it or only say that they would: wins over the policy's own `mode`, and
    /// over `admission.mode`.
    #[serde(default)]
    pub mode: Option<Mode>,
}

/// `[[keys]]`: never the key, always its digest.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclaredKey {
    /// Who owns it; declared in `[[clients]]`.
    pub client: String,
    /// SHA-256 of the whole key, 64 hexadecimal digits (`printf %s "$KEY" | sha256sum`).
    pub digest: String,
    /// What it may do; an empty list narrows nothing.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Overrides the client's policy.
    #[serde(default)]
    pub policy: Option<String>,
    /// From this moment on it is refused, RFC 3339.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<time::OffsetDateTime>,
}

/// `[[policies]]`
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
pub struct DeclaredPolicy {
    /// Its name.
    pub name: String,
    /// Everything else in the table: the policy's document.
    #[serde(flatten)]
    #[schemars(with = "PolicySpec")]
    pub spec: serde_json::Map<String, serde_json::Value>,
}
