//! The configuration: each room's own `Config` in one value; the only reader of the environment.
//!
//! Order, strongest first: command line, environment, file, default. The file is the first of
//! `--config`, `$GATEPOST_CONFIG`, `./config/gatepost.toml`, `/etc/gatepost/gatepost.toml`; the two
//! named ones must exist. Every key has a variable `GATEPOST__SECTION__KEY`, besides the well-known
//! `DATABASE_URL`, `DATABASE_DIRECT_URL` and `RUST_LOG`; an empty variable counts as unset. Secrets
//! may come from a file named by a variable that ends in `_FILE`. An unknown key is an error.

mod changes;
mod declared;
mod environment;
mod error;
mod known;
mod load;
mod print;
mod sections;
mod validate;

use serde::{Deserialize, Serialize};

use crate::{admission, cache, drainer, journal, otlp, postgres, proxy, server, tokens};

pub use crate::postgres::DatabaseUrl;
pub use changes::needs_restart;
pub use declared::{DECLARED_PREFIX, declared_key_id, development_key};
pub use environment::Environment;
pub use error::{Error, Problem};
pub use load::{Loaded, load};
pub use print::{redacted_toml, schema};
pub use sections::{Admin, Data, DeclaredClient, DeclaredKey, DeclaredPolicy, Log, LogFormat};

/// Everything that can be configured. An empty file is a valid one: the defaults, embedded.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data plane's listener.
    pub server: server::Config,
    /// The control plane's listener.
    pub admin: Admin,
    /// What is told of single requests.
    pub events: server::Events,
    /// How long Postgres keeps what is not a total.
    pub retention: postgres::Retention,
    /// What this gateway keeps on disk.
    pub data: Data,
    /// What it tells.
    pub log: Log,
    /// Where spans go; absent: none are made.
    pub otlp: Option<otlp::Config>,
    /// The global truth; absent: embedded, without a Postgres.
    pub postgres: Option<postgres::Config>,
    /// Tiers and their bounds.
    pub cache: cache::Config,
    /// The write-behind log.
    pub journal: journal::Config,
    /// Policies and limits.
    pub admission: admission::Config,
    /// Journal → Postgres.
    pub drain: drainer::Config,
    /// Sessions, and the tokens made of them.
    pub tokens: tokens::Config,
    /// Where requests are forwarded to.
    pub upstreams: Vec<proxy::UpstreamConfig>,
    /// Which requests are forwarded.
    pub routes: Vec<server::RouteConfig>,
    /// Clients that are there without anybody creating them.
    pub clients: Vec<DeclaredClient>,
    /// Their keys, as digests.
    pub keys: Vec<DeclaredKey>,
    /// Policies; a name declared here wins over Postgres.
    pub policies: Vec<DeclaredPolicy>,
}

#[cfg(test)]
mod tests;
