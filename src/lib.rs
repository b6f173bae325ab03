//! gatepost: an API gateway that answers from local storage and settles its counts into Postgres
//! later, exactly once. ARCHITECTURE.md is the map.

pub mod admin;
pub mod admission;
pub mod authn;
pub mod breaker;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod disk;
pub mod drainer;
pub mod drill;
pub mod entropy;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "how long a test goes on is no product's time")]
mod fuzz;
pub mod gateway;
pub mod journal;
pub mod metrics;
pub mod model;
pub mod otlp;
pub mod postgres;
pub mod proxy;
pub mod server;
pub mod steward;
pub mod tokens;
pub mod usage;
