//! The one integration test binary: real Postgres, real sockets, one throw-away cluster per run.

mod feed;
mod migrations;
mod sink;
mod source;
mod support;
