//! `[admission]`

use serde::{Deserialize, Serialize};

use crate::model::policy::Mode;

/// The state of limits is spread over so many locks, each held for well below a microsecond.
pub(super) const SHARDS: usize = 64;

/// How limits are told in answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitHeaders {
    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
    Standard,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset` of the limit with the least left.
    Legacy,
    /// Both.
    Both,
    /// None.
    Off,
}

/// `[admission]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether policies deny that do not say so themselves, for clients that have no mode of their
    /// own.
    pub mode: Mode,
    /// How limits are told in answers.
    pub limit_headers: LimitHeaders,
    /// Rate limits with something taken, by limit and key or client; beyond it new ones are
    /// undecidable. About 110 bytes each.
    pub max_buckets: usize,
    /// Quotas in use, by quota, key or client, and period; beyond it new ones are undecidable.
    pub max_quotas: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            limit_headers: LimitHeaders::Standard,
            max_buckets: 4_000_000,
            max_quotas: 2_000_000,
        }
    }
}
