//! The one integration test binary: real Postgres, real sockets, one throw-away cluster per run.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![expect(
    clippy::disallowed_methods,
    reason = "tasks end with their test; the environment is its own"
)]

mod access_lines;
mod bad_input;
mod calendar;
mod crash_points;
mod damage;
mod disk_errors;
mod drain;
mod drill;
mod events;
mod faults;
mod feed;
mod fuzz;
mod kill;
mod letters;
mod log;
mod merge;
mod migrations;
mod model;
mod nginx;
#[cfg(feature = "otlp")]
mod otlp;
mod outage;
mod policies;
mod power;
mod quotas;
mod reader;
mod recipes;
mod reload;
mod routes;
mod sessions;
mod sessions_admin;
mod shutdown;
mod sink;
mod smuggling;
mod soak;
mod source;
mod stream;
mod support;
mod tls;
mod upstreams;
mod usage;
