//! What the tests stand on: a Postgres of their own, a proxy that breaks the way to it, the real
//! gateway as a process, and parts of it made with a standing clock and repeatable randomness.

pub mod cluster;
pub mod database;
pub mod dice;
pub mod fault_proxy;
pub mod gateway;
pub mod house;
pub mod http;
pub mod image;
pub mod in_process;
pub mod journal;
pub mod postgres;
pub mod process;
mod reaper;
pub mod shim;
pub mod tls;
pub mod wall;
