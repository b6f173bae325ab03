//! The data plane's listener: forward-auth, key verification, tokens, health, and the routes to
//! upstreams.
//!
//! Errors become HTTP in one place, [`problem`]. Every answer carries `X-Request-Id`, and every
//! request has a line in the access log.

mod body;
mod certificates;
mod config;
mod edge;
mod limits;
mod listener;
mod oauth;
mod original;
mod path;
mod pattern;
mod peers;
pub mod problem;
mod readiness;
mod request_id;
mod routes;
mod story;
mod trace;
mod verify;
mod workers;

pub use certificates::{Certificates, TlsConfig, TlsError};
pub use config::{Config, ConfigError, Events, Http2};
pub use edge::{DataPlane, ServerParts, service};
pub use listener::{Entry, serve};
pub use readiness::{Footing, Phase, Readiness};
pub use routes::{Access, RouteConfig, RouteError, RouteTable, Routes};
pub use story::{AccessLines, AccessLog, Spans, WriteLine};
pub use workers::{Worker, Workers};
