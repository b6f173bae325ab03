//! What the gateway is compared with, each in a process of its own.

pub mod handlers;
pub mod haproxy;
pub mod nginx;
pub mod own;
pub mod plain;
pub mod program;
pub mod refresh;
pub mod upstream;
pub mod wrk;
