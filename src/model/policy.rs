//! Enforcement policies: the document that an operator writes, and the [`Rules`] made of it.
//!
//! ```toml
//! [[policies]]
//! name = "standard"
//! mode = "enforce"
//! rights = ["orders.read", "*.read", "gateway.*"]
//! rate_limits = [{ name = "burst", limit = 50, window = "1s", burst = 100, per = "key" }]
//! quotas = [{ name = "monthly", limit = 1000000, period = "month", timezone = "UTC" }]
//! concurrency = { limit = 20, per = "key" }
//! ```
//!
//! Everything is optional, and what is not said does not restrict.

mod check;
mod document;
mod period;
mod rights;
mod rules;

pub use check::{LIMITS_MAX, NETWORKS_MAX, PolicyProblem, RIGHTS_MAX, WINDOW_MAX};
pub use document::{
    Commit, Concurrency, Mode, OnUndecidable, Per, PeriodUnit, PolicySpec, Quota, RateLimit,
};
pub use period::{Period, PeriodError};
pub use rights::{Right, RightError, Rights, check_scope, covers, narrows, reads_like_right};
pub use rules::{ConcurrencyRule, LimitIds, Networks, QuotaRule, RateRule, Rules};

#[cfg(test)]
mod tests;
