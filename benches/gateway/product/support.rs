//! What the tests have: the throw-away Postgres, a proxy before it that breaks, a slow disk.

#![expect(dead_code, reason = "the tests use more of it than the benchmark")]

#[path = "../../../tests/suite/support/cluster.rs"]
pub mod cluster;
#[path = "../../../tests/suite/support/database.rs"]
pub mod database;
#[path = "../../../tests/suite/support/fault_proxy.rs"]
pub mod fault_proxy;
#[path = "../../../tests/suite/support/postgres.rs"]
pub mod postgres;
#[path = "../../../tests/suite/support/shim.rs"]
pub mod shim;
