//! Load: who asks, in a closed loop (the next request when the answer is there) or an open one (on
//! a schedule, whatever becomes of the answers), and the latencies that come of it.

pub mod closed;
pub mod connection;
pub mod keyed;
pub mod latency;
pub mod open;
pub mod refreshing;
pub mod socket;

use anyhow::Result;

/// One who asks, with a connection and a state of its own.
pub trait Caller {
    /// Asks once; whether the answer was the one hoped for. `Err`: there was none, and this caller
    /// is of no more use.
    async fn ask(&mut self) -> Result<bool>;

    /// The answer before, for a report of what was not hoped for.
    fn last_answer(&self) -> String;
}

/// What is asked for, and of whom.
pub trait Load: Sync {
    type Caller: Caller + 'static;

    /// Connects the caller with this number.
    async fn caller(&self, number: usize) -> Result<Self::Caller>;
}

impl<L: Load> Load for &L {
    type Caller = L::Caller;

    async fn caller(&self, number: usize) -> Result<L::Caller> {
        (**self).caller(number).await
    }
}
