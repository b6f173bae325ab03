//! Metrics of sessions and tokens.

use prometheus_client::metrics::counter::Counter;

metrics! {
    /// What refresh tokens were answered with, and what was issued.
    pub struct TokenMetrics {
        /// Refreshes that advanced a session.
        pub refreshed: Counter = Counter::default() => "token_refreshes",
        /// Refreshes answered with the same successor again: a lost reply, two tabs, a retry.
        pub repeated: Counter = Counter::default() => "token_refreshes_repeated",
        /// Sessions revoked because an old refresh token came back.
        pub reused: Counter = Counter::default() => "token_reuses",
        /// Refresh tokens from beyond what is known here: this gateway has lost state.
        pub beyond: Counter = Counter::default() => "token_refreshes_beyond",
        /// Those of them that were taken on their proof in a recovery window.
        pub recovered: Counter = Counter::default() => "token_refreshes_recovered",
        /// Refresh tokens refused for good.
        pub refused: Counter = Counter::default() => "token_refreshes_refused",
        /// Refreshes that nobody could decide or record.
        pub undecided: Counter = Counter::default() => "token_refreshes_undecided",
        /// Sessions compared with Postgres after a full resync.
        pub compared: Counter = Counter::default() => "token_sessions_compared",
        /// Sessions removed from Postgres that had been over for a while.
        pub removed: Counter = Counter::default() => "token_sessions_removed",
        /// Sessions removed from the cache's disk tier for the same reason.
        pub forgotten: Counter = Counter::default() => "token_sessions_forgotten",
        /// Access tokens issued.
        pub issued: Counter = Counter::default() => "token_access_issued",
        /// Access tokens whose signature was checked; others were known from before.
        pub verified: Counter = Counter::default() => "token_access_verified",
    }
}
