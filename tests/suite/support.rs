//! What the tests stand on: a Postgres of their own, a proxy that breaks the way to it, and parts
//! of the gateway made with a standing clock and repeatable randomness.

pub mod cluster;
pub mod database;
pub mod fault_proxy;
pub mod gateway;
pub mod postgres;
mod wire;
