//! gatepost: an API gateway that answers from local storage and settles its counts into Postgres
//! later, exactly once. ARCHITECTURE.md is the map.

pub mod admin;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod drainer;
pub mod entropy;
pub mod gateway;
pub mod journal;
pub mod metrics;
pub mod model;
