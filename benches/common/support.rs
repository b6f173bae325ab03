//! The throw-away Postgres of the tests.

#![expect(dead_code, reason = "the tests use more of it than the benchmark")]

#[path = "../../tests/suite/support/cluster.rs"]
pub mod cluster;
#[path = "../../tests/suite/support/database.rs"]
pub mod database;
#[path = "../../tests/suite/support/postgres.rs"]
pub mod postgres;
